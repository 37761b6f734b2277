//! Nucleus lite's rules of the wire.

use std::collections::BTreeMap;

use fake_nucleus::{FakeNucleus, Mode, Settings, TlsFiles, Upstream};
use serde_json::{Value, json};

use crate::client::{Client, bytes, variable};

fn lite() -> FakeNucleus {
    FakeNucleus::start(Settings::new(Mode::Lite))
}

#[test]
fn the_version_may_be_left_out_but_not_be_another() {
    let nucleus = lite();
    let payload = json!({"authToken": variable(&nucleus, "SVCUID")}).to_string();
    let mut client = Client::silent(&nucleus);
    client.write(&bytes(4, 0, 0, &[], payload.as_bytes()));
    assert_eq!(client.read().map(|ack| (ack.kind, ack.flags)), Some((5, 1)));

    let mut client = Client::silent(&nucleus);
    client.write(&bytes(4, 0, 0, &[(":version", "0.2.0")], payload.as_bytes()));
    assert!(client.is_closed());
}

#[test]
fn who_gives_its_name_instead_of_a_token_is_told_the_token() {
    let nucleus = lite();
    let mut client = Client::silent(&nucleus);
    client.write(&bytes(4, 0, 0, &[], br#"{"componentName": "com.example.Component"}"#));
    let ack = client.read().expect("an answer");
    assert_eq!(ack.headers, [":message-type", ":message-flags", ":stream-id", "svcuid"]);

    let mut client = Client::silent(&nucleus);
    client.write(&bytes(4, 0, 0, &[], br#"{"componentName": "com.example.Other"}"#));
    assert!(client.is_closed());
}

#[test]
fn the_answer_to_a_token_has_no_header_of_its_own() {
    let nucleus = lite();
    let mut client = Client::silent(&nucleus);
    let ack = client.shake_hands(&variable(&nucleus, "SVCUID")).expect("an answer");
    assert_eq!(ack.headers, [":message-type", ":message-flags", ":stream-id"]);
}

#[test]
fn streams_may_have_any_number() {
    let nucleus = lite();
    let mut client = Client::connect(&nucleus);
    for stream in [7, 3, i32::MAX, -4] {
        client.ask_on(stream, "UpdateState", &json!({"state": "RUNNING"}));
        assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
    }
    assert_eq!(nucleus.violations(), [""; 0]);
}

#[test]
fn a_request_of_more_than_10_000_bytes_ends_the_connection_without_a_word() {
    let nucleus = lite();
    let mut client = Client::connect(&nucleus);
    let request = |size: usize| {
        let payload = json!({"topicName": "t", "qos": "1", "payload": "A".repeat(size)});
        bytes(
            0,
            0,
            1,
            &[("operation", "aws.greengrass#PublishToIoTCore")],
            payload.to_string().as_bytes(),
        )
    };
    let overhead = request(0).len();
    let longest = request((10_000 - overhead) / 4 * 4);
    assert!(longest.len() > 9_996 && longest.len() <= 10_000);
    client.write(&longest);
    assert!(client.next_on(1).answer().is_ok());
    client.write(&request((10_000 - overhead) / 4 * 4 + 4));
    assert_eq!(client.read(), None);
    assert!(nucleus.violations()[0].contains("a frame of"), "{:?}", nucleus.violations());
}

#[test]
fn an_answer_of_more_than_10_000_bytes_is_an_error_instead() {
    let configuration = json!({"long": "x".repeat(10_000), "short": "x"});
    let nucleus = FakeNucleus::start(Settings { configuration, ..Settings::new(Mode::Lite) });
    let mut client = Client::connect(&nucleus);
    let refused = client.call("GetConfiguration", &json!({"keyPath": []})).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("ServiceError"));
    assert!(client.call("GetConfiguration", &json!({"keyPath": ["short"]})).is_ok());
}

#[test]
fn a_request_with_flags_or_without_an_operation_is_an_error_on_its_stream() {
    let nucleus = lite();
    let mut client = Client::connect(&nucleus);
    client.write(&bytes(0, 1, 1, &[("operation", "aws.greengrass#UpdateState")], b"{}"));
    client.write(&bytes(0, 0, 2, &[], b"{}"));
    client.write(&bytes(2, 0, 3, &[], b""));
    for stream in 1..=3 {
        let refused = client.next_on(stream).answer().unwrap_err();
        assert_eq!(refused.body, json!({"_message": "", "_errorCode": "ServiceError"}));
    }
    assert_eq!(nucleus.violations().len(), 3);
}

#[test]
fn whatever_comes_on_stream_0_ends_the_connection() {
    for kind in [0, 2, 4] {
        let nucleus = lite();
        let mut client = Client::connect(&nucleus);
        client.write(&bytes(kind, 0, 0, &[], b"{}"));
        assert!(client.is_closed());
        assert_eq!(nucleus.violations().len(), 1);
    }
}

#[test]
fn an_operation_that_it_does_not_have_is_an_error_without_a_message() {
    let nucleus = lite();
    let mut client = Client::connect(&nucleus);
    for operation in [
        "SubscribeToComponentUpdates",
        "DeferComponentUpdate",
        "SubscribeToValidateConfigurationUpdates",
        "SendConfigurationValidityReport",
        "VerifyClientDeviceIdentity",
        "GetClientDeviceAuthToken",
        "NobodyHeardOfThis",
    ] {
        let refused = client.call(operation, &json!({})).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("ServiceError"), "{operation}");
        assert_eq!(refused.body, json!({"_message": "", "_errorCode": "ServiceError"}));
    }
}

#[test]
fn it_tells_of_its_system_configuration_without_a_type() {
    let system = BTreeMap::from([("rootCaPath".to_owned(), "/ca.pem".to_owned())]);
    let tls =
        TlsFiles { ca: "/other.pem".into(), certificate: "/c.pem".into(), key: "/k.pem".into() };
    let (host, client_id) = ("127.0.0.1".to_owned(), "core".to_owned());
    let upstream = Upstream::Mqtt { host, port: 1, client_id, tls: Some(tls) };
    let settings = Settings { system, upstream, online: false, ..Settings::new(Mode::Lite) };
    let nucleus = FakeNucleus::start(settings);
    let mut client = Client::connect(&nucleus);
    let operation = "aws.greengrass.private#GetSystemConfig";
    for (key, value) in [
        ("thingName", "core"),
        ("rootCaPath", "/ca.pem"),
        ("certificateFilePath", "/c.pem"),
        ("privateKeyPath", "/k.pem"),
    ] {
        let stream = client.ask(operation, &json!({"key": key}));
        let answer = client.next_on(stream);
        assert_eq!(answer.body(), json!({"value": value}));
        assert_eq!(answer.model, None);
    }
    let refused = client.call(operation, &json!({"key": "other"})).unwrap_err();
    assert_eq!(refused.message(), "Failed to read the system configuration.");
    let refused = client.call(operation, &json!({})).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("InvalidArgumentsError"));
}

#[test]
fn every_scalar_of_the_configuration_is_a_string() {
    let configuration = json!({"number": 42, "deep": {"flag": true, "list": [1, "a"]}});
    let nucleus = FakeNucleus::start(Settings { configuration, ..Settings::new(Mode::Lite) });
    let mut client = Client::connect(&nucleus);
    let whole = client.call("GetConfiguration", &json!({"keyPath": []})).unwrap();
    let value: &Value = &whole["value"];
    assert_eq!(*value, json!({"number": "42", "deep": {"flag": "true", "list": ["1", "a"]}}));
}
