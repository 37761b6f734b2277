//! What both nuclei do alike, or each in its own words.

use fake_nucleus::{FakeNucleus, Hub, Mode, Policy, Settings, Upstream};
use serde_json::json;

use crate::client::{Client, DEADLINE, variable};

const MODES: [Mode; 2] = [Mode::Java, Mode::Lite];

fn on(hub: &Hub, mode: Mode) -> Settings {
    Settings { upstream: Upstream::Hub(hub.clone()), ..Settings::new(mode) }
}

#[test]
fn a_component_publishes_to_the_cloud_and_hears_from_it() {
    for mode in MODES {
        let hub = Hub::new();
        let nucleus = FakeNucleus::start(on(&hub, mode));
        let mut client = Client::connect(&nucleus);
        let stream = client.subscribe("down/+");
        hub.publish("down/1", "from above");
        assert_eq!(client.message(stream), "from above");
        assert_eq!(client.publish("up", "from below", "1"), Ok(json!({})));
        let message = hub.take("up").wait(DEADLINE).expect("a message");
        assert_eq!(message.payload, b"from below");
        assert_eq!(nucleus.violations(), [""; 0]);
    }
}

#[test]
fn a_component_hears_what_it_publishes_itself() {
    for mode in MODES {
        let nucleus = FakeNucleus::start(Settings::new(mode));
        let mut client = Client::connect(&nucleus);
        let stream = client.subscribe("loop");
        client.publish("loop", "hello", "0").expect("a yes");
        assert_eq!(client.message(stream), "hello");
    }
}

#[test]
fn the_headers_and_flags_are_those_of_each_nucleus() {
    let common = [":message-type", ":message-flags", ":stream-id"];
    let others = [":content-type", "service-model-type"];
    let java = FakeNucleus::start(Settings::new(Mode::Java));
    let lite = FakeNucleus::start(Settings::new(Mode::Lite));
    for (nucleus, last, headers) in
        [(java, 2, [&others[..], &common].concat()), (lite, 0, [&common[..], &others].concat())]
    {
        let mut client = Client::connect(&nucleus);
        let streaming = client.ask("SubscribeToIoTCore", &json!({"topicName": "t", "qos": "0"}));
        let answer = client.next_on(streaming);
        assert_eq!((answer.kind, answer.flags), (0, 0));
        let unary = client.ask("UpdateState", &json!({"state": "RUNNING"}));
        let answer = client.next_on(unary);
        assert_eq!((answer.kind, answer.flags), (0, last));
        assert_eq!(answer.headers, headers);
        assert_eq!(answer.model.as_deref(), Some("aws.greengrass#UpdateStateResponse"));
        assert_eq!(answer.content.as_deref(), Some("application/json"));
    }
}

#[test]
fn an_error_has_the_shape_of_its_nucleus() {
    let policy = Policy { mqtt_proxy: vec!["mine/#".to_owned()], ..Policy::default() };
    let java = Settings { policy: policy.clone(), ..Settings::new(Mode::Java) };
    let lite = Settings { policy, ..Settings::new(Mode::Lite) };
    let java_body = json!({
        "message": "Not Authorized", "_message": "Not Authorized",
        "_service": "aws.greengrass#GreengrassCoreIPC", "_errorCode": "UnauthorizedError",
    });
    let lite_body =
        json!({"_message": "IPC Operation not authorized.", "_errorCode": "UnauthorizedError"});
    for (settings, body) in [(java, java_body), (lite, lite_body)] {
        let nucleus = FakeNucleus::start(settings);
        let mut client = Client::connect(&nucleus);
        client.publish("mine/1", "x", "1").expect("a yes");
        let refused = client.publish("other", "x", "1").unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("UnauthorizedError"));
        assert_eq!(refused.body, body);
        client.ask("SubscribeToIoTCore", &json!({"topicName": "mine/+/x", "qos": "1"}));
        let stream = client.ask("SubscribeToIoTCore", &json!({"topicName": "#", "qos": "1"}));
        assert!(client.next_on(stream).answer().is_err());
    }
}

#[test]
fn a_wrong_token_is_answered_by_java_and_hung_up_on_by_lite() {
    let java = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::silent(&java);
    let ack = client.shake_hands("wrong").expect("an answer");
    assert_eq!((ack.kind, ack.flags, ack.stream), (5, 0, 0));
    assert!(client.is_closed());

    let lite = FakeNucleus::start(Settings::new(Mode::Lite));
    let mut client = Client::silent(&lite);
    assert_eq!(client.shake_hands("wrong"), None);
    assert!(client.is_closed());
}

#[test]
fn the_environment_is_what_a_component_finds() {
    for (mode, version) in [(Mode::Java, "2.17.0"), (Mode::Lite, "2.6.0")] {
        let nucleus =
            FakeNucleus::start(Settings { thing_name: "gw".into(), ..Settings::new(mode) });
        assert_eq!(variable(&nucleus, "GGC_VERSION"), version);
        assert_eq!(variable(&nucleus, "AWS_IOT_THING_NAME"), "gw");
        assert_eq!(variable(&nucleus, "SVCUID").len(), 16);
    }
}
