//! Configurations that change, and updates that a component may put off.

use std::time::Duration;

use fake_nucleus::{FakeNucleus, Mode, Settings, Timing, UpdateAnswer, Upstream, Verdict};
use serde_json::{Value, json};

use crate::client::{Client, DEADLINE};

const MODES: [Mode; 2] = [Mode::Java, Mode::Lite];

fn start(mode: Mode) -> (FakeNucleus, Client) {
    let configuration = json!({"a": {"b": "1", "c": "2"}});
    let patience = Duration::from_millis(200);
    let timing = Timing { validation: patience, update: patience, ..Timing::default() };
    let settings = Settings { configuration, timing, ..Settings::new(mode) };
    let nucleus = FakeNucleus::start(settings);
    let client = Client::connect(&nucleus);
    (nucleus, client)
}

fn open(client: &mut Client, operation: &str, arguments: &Value) -> i32 {
    let stream = client.ask(operation, arguments);
    assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
    stream
}

fn get(client: &mut Client, path: &[&str]) -> Value {
    client.call("GetConfiguration", &json!({"keyPath": path})).unwrap()["value"].clone()
}

fn report(client: &mut Client, deployment: &Value, status: &str) -> bool {
    let report = json!({"deploymentId": deployment, "status": status, "message": "why"});
    let arguments = json!({"configurationValidityReport": report});
    client.call("SendConfigurationValidityReport", &arguments).is_ok()
}

/// The deployment that a validator is asked about, and the configuration.
fn asked(client: &mut Client, stream: i32) -> (Value, Value) {
    let event = client.next_on(stream);
    let expected = "aws.greengrass#ValidateConfigurationUpdateEvents";
    assert_eq!(event.model.as_deref(), Some(expected));
    let event = event.body()["validateConfigurationUpdateEvent"].clone();
    (event["deploymentId"].clone(), event["configuration"].clone())
}

#[test]
fn a_leaf_is_read_under_its_own_name_and_what_is_missing_is_not_found() {
    for mode in MODES {
        let (_nucleus, mut client) = start(mode);
        assert_eq!(get(&mut client, &["a", "b"]), json!({"b": "1"}));
        assert_eq!(get(&mut client, &["a"]), json!({"b": "1", "c": "2"}));
        let missing = client.call("GetConfiguration", &json!({"keyPath": ["x"]})).unwrap_err();
        assert_eq!(missing.code.as_deref(), Some("ResourceNotFoundError"));
        let other = json!({"componentName": "other", "keyPath": []});
        let missing = client.call("GetConfiguration", &other).unwrap_err();
        assert_eq!(missing.code.as_deref(), Some("ResourceNotFoundError"));
    }
}

#[test]
fn the_nucleus_own_configuration_says_where_the_cloud_is() {
    for (mode, name) in [(Mode::Java, "Nucleus"), (Mode::Lite, "NucleusLite")] {
        let name = format!("aws.greengrass.{name}");
        let (host, client_id) = ("127.0.0.1".to_owned(), "core".to_owned());
        let upstream = Upstream::Mqtt { host, port: 1, client_id, tls: None };
        let settings = Settings { upstream, online: false, ..Settings::new(mode) };
        let nucleus = FakeNucleus::start(settings);
        let mut client = Client::connect(&nucleus);
        let mut get = |path: Value| {
            let answer = client
                .call("GetConfiguration", &json!({"componentName": name, "keyPath": path}))
                .map_err(|refused| refused.code)?;
            assert_eq!(answer["componentName"], json!(name));
            Ok(answer["value"].clone())
        };
        assert_eq!(get(json!(["iotDataEndpoint"])), Ok(json!({"iotDataEndpoint": "127.0.0.1"})));
        // Lite knows one port, and says nothing of it.
        let port = match mode {
            Mode::Java => Ok(json!({"port": 1})),
            Mode::Lite => Err(Some("ResourceNotFoundError".to_owned())),
        };
        assert_eq!(get(json!(["mqtt", "port"])), port);
    }
}

#[test]
fn who_watches_is_told_of_the_keys_that_changed() {
    for mode in MODES {
        let (nucleus, mut client) = start(mode);
        let all = open(&mut client, "SubscribeToConfigurationUpdate", &json!({"keyPath": []}));
        let part = json!({"keyPath": ["a", "c"]});
        let part = open(&mut client, "SubscribeToConfigurationUpdate", &part);
        let verdict = nucleus.deploy(json!({"a": {"b": "9", "c": "2"}, "d": "3"})).wait(DEADLINE);
        assert_eq!(verdict, Some(Verdict::Unasked));
        for path in [json!(["a", "b"]), json!(["d"])] {
            let event = client.next_on(all);
            assert_eq!(event.model.as_deref(), Some("aws.greengrass#ConfigurationUpdateEvents"));
            let expected = json!({"componentName": "com.example.Component", "keyPath": path});
            assert_eq!(event.body()["configurationUpdateEvent"], expected);
        }
        client.settle();
        assert!(client.has_nothing_on(part));
        let missing = json!({"keyPath": ["x"]});
        assert!(client.call("SubscribeToConfigurationUpdate", &missing).is_err());
    }
}

#[test]
fn a_component_changes_its_own_configuration() {
    for mode in MODES {
        let (_nucleus, mut client) = start(mode);
        let change = json!({"keyPath": ["a"], "valueToMerge": {"c": 7}, "timestamp": 1.0});
        client.call("UpdateConfiguration", &change).expect("a yes");
        assert_eq!(get(&mut client, &["a"]), json!({"b": "1", "c": 7}));
        let forbidden = json!({"keyPath": [], "valueToMerge": {"accessControl": {}}});
        assert!(client.call("UpdateConfiguration", &forbidden).is_err());
    }
}

#[test]
fn the_classic_one_asks_before_a_configuration_holds() {
    let (nucleus, mut client) = start(Mode::Java);
    let stream = open(&mut client, "SubscribeToValidateConfigurationUpdates", &json!({}));
    for (status, verdict, holds) in [
        ("REJECTED", Verdict::Rejected { message: "why".to_owned() }, json!("1")),
        ("ACCEPTED", Verdict::Accepted, json!("9")),
    ] {
        let pending = nucleus.deploy(json!({"a": {"b": "9"}}));
        let (deployment, configuration) = asked(&mut client, stream);
        assert_eq!(configuration, json!({"a": {"b": "9"}}));
        assert_eq!(get(&mut client, &["a", "b"]), json!({"b": "1"}));
        assert!(report(&mut client, &deployment, status));
        assert_eq!(pending.wait(DEADLINE), Some(verdict));
        assert_eq!(get(&mut client, &["a", "b"]), json!({"b": holds}));
    }
    // What changes nothing is not asked about.
    assert_eq!(nucleus.deploy(json!({"a": {"b": "9"}})).wait(DEADLINE), Some(Verdict::Unasked));
}

#[test]
fn a_component_that_says_nothing_fails_the_deployment_and_is_too_late_then() {
    let (nucleus, mut client) = start(Mode::Java);
    let stream = open(&mut client, "SubscribeToValidateConfigurationUpdates", &json!({}));
    let pending = nucleus.deploy(json!({"a": "9"}));
    let (deployment, _) = asked(&mut client, stream);
    assert_eq!(pending.wait(DEADLINE), Some(Verdict::TimedOut));
    assert!(!report(&mut client, &deployment, "ACCEPTED"));
    assert_eq!(get(&mut client, &["a", "b"]), json!({"b": "1"}));
}

#[test]
fn ending_one_of_two_validating_streams_ends_the_validating() {
    let (nucleus, mut client) = start(Mode::Java);
    let first = open(&mut client, "SubscribeToValidateConfigurationUpdates", &json!({}));
    let second = open(&mut client, "SubscribeToValidateConfigurationUpdates", &json!({}));
    client.terminate(second);
    client.settle();
    assert_eq!(nucleus.deploy(json!({})).wait(DEADLINE), Some(Verdict::Unasked));
    assert!(client.has_nothing_on(first));
}

#[test]
fn an_update_goes_ahead_or_is_put_off_or_waits_in_vain() {
    let (nucleus, mut client) = start(Mode::Java);
    assert_eq!(nucleus.announce_update("d-0", false).wait(DEADLINE), Some(UpdateAnswer::Unasked));
    let defer =
        |deployment: &str, pause| json!({"deploymentId": deployment, "recheckAfterMs": pause});
    let refused = client.call("DeferComponentUpdate", &defer("d-0", 0)).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("InvalidArgumentsError"));

    let stream = open(&mut client, "SubscribeToComponentUpdates", &json!({}));
    let pending = nucleus.announce_update("d-1", true);
    let event = client.next_on(stream);
    assert_eq!(event.model.as_deref(), Some("aws.greengrass#ComponentUpdatePolicyEvents"));
    let expected = json!({"deploymentId": "d-1", "isGgcRestarting": true});
    assert_eq!(event.body(), json!({"preUpdateEvent": expected}));
    client.call("DeferComponentUpdate", &defer("d-1", 100)).expect("a yes");
    let answer =
        UpdateAnswer::Deferred { recheck_after: Some(Duration::from_millis(100)), message: None };
    assert_eq!(pending.wait(DEADLINE), Some(answer));
    // It asks again by itself.
    assert_eq!(client.next_on(stream).body(), json!({"preUpdateEvent": expected}));
    client.call("DeferComponentUpdate", &defer("d-1", 0)).expect("a yes");
    let answers: Vec<_> = nucleus.update_answers().into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(answers[2..], [UpdateAnswer::GoAhead]);
    nucleus.finish_update("d-1");
    let event = client.next_on(stream).body();
    assert_eq!(event, json!({"postUpdateEvent": {"deploymentId": "d-1"}}));

    let pending = nucleus.announce_update("d-2", false);
    assert_eq!(pending.wait(DEADLINE), Some(UpdateAnswer::Unanswered));
    let refused = client.call("DeferComponentUpdate", &defer("d-2", 0)).unwrap_err();
    assert_eq!(refused.message(), "Time limit to respond to PreComponentUpdateEvent exceeded");

    client.next_on(stream);
    nucleus.finish_update("d-2");
    let event = client.next_on(stream).body();
    assert_eq!(event, json!({"postUpdateEvent": {"deploymentId": "d-2"}}));
}
