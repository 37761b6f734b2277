//! Local topics, the component's state, and the client devices.

use std::time::Duration;

use data_encoding::BASE64;
use fake_nucleus::{ClientDeviceCall, ClientDevices, FakeNucleus, Mode, Policy, Settings};
use serde_json::{Value, json};

use crate::client::{Client, DEADLINE};

const MODES: [Mode; 2] = [Mode::Java, Mode::Lite];

fn binary(topic: &str, text: &str) -> Value {
    let message = json!({"message": BASE64.encode(text.as_bytes())});
    json!({"topic": topic, "publishMessage": {"binaryMessage": message}})
}

fn subscribe(client: &mut Client, arguments: &Value) -> i32 {
    let stream = client.ask("SubscribeToTopic", arguments);
    client.next_on(stream).answer().expect("a yes");
    stream
}

#[test]
fn a_neighbour_is_heard_and_hears() {
    for mode in MODES {
        let nucleus = FakeNucleus::start(Settings::new(mode));
        let mut client = Client::connect(&nucleus);
        let exact = subscribe(&mut client, &json!({"topic": "a/b"}));
        let wide = subscribe(&mut client, &json!({"topic": "a/+"}));
        nucleus.pubsub_publish("a/b", b"hello");
        let message = json!({"message": BASE64.encode(b"hello"), "context": {"topic": "a/b"}});
        for stream in [exact, wide] {
            let event = client.next_on(stream);
            assert_eq!(event.model.as_deref(), Some("aws.greengrass#SubscriptionResponseMessage"));
            assert_eq!(event.body(), json!({"binaryMessage": message}));
        }
        client.call("PublishToTopic", &binary("up", "own")).expect("a yes");
        let received = nucleus.pubsub_take("up").wait(DEADLINE).expect("a message");
        assert_eq!((&*received.topic, &*received.payload), ("up", &b"own"[..]));
        assert_eq!(nucleus.pubsub_received(), [received]);
    }
}

#[test]
fn the_classic_one_can_keep_a_component_from_hearing_itself_and_lite_can_not() {
    for (mode, hears_itself) in [(Mode::Java, false), (Mode::Lite, true)] {
        let nucleus = FakeNucleus::start(Settings::new(mode));
        let mut client = Client::connect(&nucleus);
        let arguments = json!({"topic": "t", "receiveMode": "RECEIVE_MESSAGES_FROM_OTHERS"});
        let stream = subscribe(&mut client, &arguments);
        client.call("PublishToTopic", &binary("t", "own")).expect("a yes");
        nucleus.pubsub_publish("t", b"other");
        let first = client.next_on(stream).body()["binaryMessage"]["message"].clone();
        let expected = if hears_itself { "own" } else { "other" };
        assert_eq!(first, json!(BASE64.encode(expected.as_bytes())));
    }
}

#[test]
fn a_json_message_stays_one() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    let stream = subscribe(&mut client, &json!({"topic": "t"}));
    let message = json!({"jsonMessage": {"message": {"a": 1}}});
    let arguments = json!({"topic": "t", "publishMessage": message});
    client.call("PublishToTopic", &arguments).expect("a yes");
    let event = client.next_on(stream).body();
    assert_eq!(event["jsonMessage"]["message"], json!({"a": 1}));
}

#[test]
fn local_topics_have_a_policy_too() {
    for mode in MODES {
        let policy = Policy { pub_sub: vec!["mine/#".to_owned()], ..Policy::default() };
        let nucleus = FakeNucleus::start(Settings { policy, ..Settings::new(mode) });
        let mut client = Client::connect(&nucleus);
        subscribe(&mut client, &json!({"topic": "mine/+"}));
        for (operation, arguments) in
            [("SubscribeToTopic", json!({"topic": "t"})), ("PublishToTopic", binary("t", "x"))]
        {
            let refused = client.call(operation, &arguments).unwrap_err();
            assert_eq!(refused.code.as_deref(), Some("UnauthorizedError"));
        }
    }
}

#[test]
fn the_states_that_a_component_reports_are_noted() {
    for mode in MODES {
        let nucleus = FakeNucleus::start(Settings::new(mode));
        let mut client = Client::connect(&nucleus);
        for state in ["RUNNING", "ERRORED"] {
            client.call("UpdateState", &json!({"state": state})).expect("a yes");
        }
        assert!(client.call("UpdateState", &json!({"state": "HAPPY"})).is_err());
        assert_eq!(nucleus.states(), ["RUNNING", "ERRORED"]);
        assert_eq!(nucleus.calls()["UpdateState"], 3);
    }
}

#[test]
fn client_devices_are_judged_where_the_component_for_it_is() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    let verify = json!({"credential": {"clientDeviceCertificate": "PEM"}});
    let session =
        json!({"credential": {"mqttCredential": {"clientId": "child", "certificatePem": "PEM"}}});
    let refused = client.call("VerifyClientDeviceIdentity", &verify).unwrap_err();
    assert!(refused.message().ends_with("is not supported by Greengrass"), "{refused:?}");

    for (devices, is_valid) in [
        (ClientDevices::Accept, true),
        (ClientDevices::Slow(Duration::from_millis(20)), true),
        (ClientDevices::Refuse, false),
    ] {
        nucleus.set_client_devices(devices);
        let answer = client.call("VerifyClientDeviceIdentity", &verify);
        assert_eq!(answer, Ok(json!({"isValidClientDevice": is_valid})));
        let answer = client.call("GetClientDeviceAuthToken", &session);
        assert_eq!(answer.is_ok(), is_valid);
    }
    let calls = nucleus.client_device_calls();
    assert_eq!(calls.len(), 6);
    let expected = ClientDeviceCall {
        operation: "GetClientDeviceAuthToken".to_owned(),
        client_id: Some("child".to_owned()),
        certificate: "PEM".to_owned(),
    };
    assert_eq!(calls[1], expected);
}
