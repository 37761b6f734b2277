//! The classic nucleus' rules of the wire.

use fake_nucleus::{FakeNucleus, Mode, Settings};
use serde_json::json;

use crate::client::{Client, bytes, variable};

fn java() -> FakeNucleus {
    FakeNucleus::start(Settings::new(Mode::Java))
}

/// The nucleus says PROTOCOL_ERROR, hangs up, and notes why.
fn breaks_the_protocol(nucleus: &FakeNucleus, mut client: Client, why: &str) {
    let mut last = client.read().expect("a word of complaint");
    while last.kind != 6 {
        last = client.read().expect("a word of complaint");
    }
    assert_eq!((last.flags, last.stream), (0, 0));
    assert_eq!(last.content.as_deref(), Some("application/json"));
    assert!(client.is_closed());
    let violations = nucleus.violations();
    assert!(violations.iter().any(|line| line.contains(why)), "{why}: {violations:?}");
}

#[test]
fn streams_are_begun_in_order_without_gaps() {
    for stream in [2, 3, i32::MAX] {
        let nucleus = java();
        let mut client = Client::connect(&nucleus);
        client.ask_on(stream, "UpdateState", &json!({"state": "RUNNING"}));
        breaks_the_protocol(&nucleus, client, "where 1 is next");
    }
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    client.settle();
    client.ask_on(3, "UpdateState", &json!({"state": "RUNNING"}));
    breaks_the_protocol(&nucleus, client, "stream 3 where 2 is next");
}

#[test]
fn a_stream_begins_with_an_operation() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    client.write(&bytes(0, 0, 1, &[], b"{}"));
    breaks_the_protocol(&nucleus, client, "without an operation");
}

#[test]
fn every_message_has_the_three_headers() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    // A frame without any header at all.
    client.write(&[0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff]);
    breaks_the_protocol(&nucleus, client, "a common header is missing");
}

#[test]
fn nothing_comes_before_the_handshake_and_there_is_one() {
    let nucleus = java();
    let mut client = Client::silent(&nucleus);
    client.ask("UpdateState", &json!({"state": "RUNNING"}));
    breaks_the_protocol(&nucleus, client, "before the handshake");

    let mut client = Client::connect(&nucleus);
    let payload = json!({"authToken": variable(&nucleus, "SVCUID")}).to_string();
    client.write(&bytes(4, 0, 0, &[(":version", "0.1.0")], payload.as_bytes()));
    breaks_the_protocol(&nucleus, client, "a second CONNECT");
}

#[test]
fn only_application_messages_have_streams_and_they_always_do() {
    for (kind, stream) in [(2, 1), (4, 1), (0, 0), (1, 0), (0, -1), (8, 0)] {
        let nucleus = java();
        let mut client = Client::connect(&nucleus);
        client.write(&bytes(kind, 0, stream, &[("operation", "aws.greengrass#X")], b"{}"));
        breaks_the_protocol(&nucleus, client, &format!("type {kind} on stream {stream}"));
    }
}

#[test]
fn another_version_or_none_is_refused() {
    let nucleus = java();
    let payload = json!({"authToken": variable(&nucleus, "SVCUID")}).to_string();
    for texts in [&[][..], &[(":version", "0.2.0")]] {
        let mut client = Client::silent(&nucleus);
        client.write(&bytes(4, 0, 0, texts, payload.as_bytes()));
        assert_eq!(client.read().map(|ack| (ack.kind, ack.flags)), Some((5, 0)));
        assert!(client.is_closed());
    }
}

#[test]
fn a_stream_that_has_ended_takes_a_terminate_but_nothing_else() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    client.settle();
    client.terminate(1);
    client.settle();
    client.ask_on(1, "UpdateState", &json!({"state": "RUNNING"}));
    breaks_the_protocol(&nucleus, client, "stream 1 has ended");
}

#[test]
fn the_old_library_does_not_take_that_either() {
    let nucleus = FakeNucleus::start(Settings { old_crt: true, ..Settings::new(Mode::Java) });
    let mut client = Client::connect(&nucleus);
    let stream = client.subscribe("t");
    client.terminate(stream);
    client.settle();
    client.terminate(stream);
    breaks_the_protocol(&nucleus, client, "stream 1 has ended");
}

#[test]
fn a_ping_is_answered_with_what_was_in_it() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    client.write(&bytes(2, 0, 0, &[], b"hello"));
    let answer = client.next_on(0);
    assert_eq!((answer.kind, answer.flags, answer.payload), (3, 0, b"hello".to_vec()));
}

#[test]
fn an_operation_of_which_nobody_has_heard_fails_without_a_type() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    let refused = client.call("aws.greengrass.private#GetSystemConfig", &json!({})).unwrap_err();
    assert_eq!(refused.code, None);
    assert_eq!(refused.body["error"], "Unsupported Operation");
}

#[test]
fn an_operation_whose_component_is_not_there_is_not_supported() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    let refused = client.call("GetSecretValue", &json!({})).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("ServiceError"));
    let expected = "Operation aws.greengrass#GetSecretValue is not supported by Greengrass";
    assert_eq!(refused.message(), expected);
}

#[test]
fn what_breaks_the_nucleus_is_an_internal_error_in_plain_text() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    let stream = client.ask("UpdateState", &json!("no object"));
    let answer = client.next_on(stream);
    assert_eq!((answer.kind, answer.flags, answer.model.as_deref()), (1, 2, None));
    assert_eq!(answer.content.as_deref(), Some("text/plain"));
    assert_eq!(answer.payload, b"InternalServerError");
}

#[test]
fn what_is_missing_from_a_publish_is_an_invalid_argument() {
    let nucleus = java();
    let mut client = Client::connect(&nucleus);
    let whole = json!({"topicName": "t", "qos": "1", "payload": ""});
    for missing in ["topicName", "qos", "payload"] {
        let mut request = whole.clone();
        request.as_object_mut().unwrap().remove(missing);
        let refused = client.call("PublishToIoTCore", &request).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("InvalidArgumentsError"), "{missing}");
    }
    for topic in ["a/#", "1/2/3/4/5/6/7/8/9", &"x".repeat(257)] {
        let refused = client.publish(topic, "x", "1").unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("ServiceError"), "{topic}");
    }
}
