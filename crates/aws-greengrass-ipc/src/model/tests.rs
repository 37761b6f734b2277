use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::supervisor::body;

fn request<O: Operation>(operation: &O) -> (&'static str, Value) {
    (O::NAMES.operation, serde_json::from_slice(&body(operation)).expect("JSON"))
}

fn subscription<O: StreamingOperation>(operation: &O) -> (&'static str, Value) {
    (O::NAMES.operation, serde_json::from_slice(&body(operation)).expect("JSON"))
}

fn event<E: DeserializeOwned>(json: Value) -> E {
    serde_json::from_slice(json.to_string().as_bytes()).expect("an event")
}

#[test]
fn names_are_those_of_the_model() {
    let Names { operation, request, response } = PublishToIoTCore::NAMES;
    assert_eq!(operation, "aws.greengrass#PublishToIoTCore");
    assert_eq!(request, "aws.greengrass#PublishToIoTCoreRequest");
    assert_eq!(response, "aws.greengrass#PublishToIoTCoreResponse");
    assert_eq!(GetSystemConfig::NAMES.operation, "aws.greengrass.private#GetSystemConfig");
}

#[test]
fn messages_for_iot_core_travel_in_base64_with_the_quality_as_a_text() {
    let publish =
        PublishToIoTCore { topic: "a/b".to_owned(), payload: vec![0, 255], qos: Qos::AtLeastOnce };
    let expected = json!({ "topicName": "a/b", "qos": "1", "payload": "AP8=" });
    assert_eq!(request(&publish), ("aws.greengrass#PublishToIoTCore", expected));
    let subscribe = SubscribeToIoTCore { topic_name: "a/+".to_owned(), qos: Qos::AtMostOnce };
    let expected = json!({ "topicName": "a/+", "qos": "0" });
    assert_eq!(subscription(&subscribe), ("aws.greengrass#SubscribeToIoTCore", expected));
}

#[test]
fn messages_from_iot_core_are_read_with_and_without_the_fields_of_a_classic_nucleus() {
    let message =
        |payload: &[u8]| IoTCoreMessage { topic: "a/b".to_owned(), payload: payload.into() };
    let lite = json!({ "message": { "topicName": "a/b", "payload": "AP8=" } });
    assert_eq!(event::<IoTCoreMessage>(lite), message(&[0, 255]));
    let classic = json!({ "message": {
        "topicName": "a/b", "payload": "AP8=", "retain": false, "payloadFormat": "0",
        "correlationData": "AA==", "userProperties": [{ "key": "k", "value": "v" }],
    } });
    assert_eq!(event::<IoTCoreMessage>(classic), message(&[0, 255]));
    for empty in [json!({ "topicName": "a/b" }), json!({ "topicName": "a/b", "payload": null })] {
        assert_eq!(event::<IoTCoreMessage>(json!({ "message": empty })), message(&[]));
    }
    let bad = br#"{"message":{"topicName":"a/b","payload":"?"}}"#;
    assert!(serde_json::from_slice::<IoTCoreMessage>(bad).is_err());
}

#[test]
fn local_messages_are_json_or_bytes() {
    let publish = |payload| request(&PublishToTopic { topic: "t".to_owned(), payload }).1;
    let message = json!({ "jsonMessage": { "message": { "a": 1 } } });
    let expected = json!({ "topic": "t", "publishMessage": message });
    assert_eq!(publish(TopicPayload::Json(json!({ "a": 1 }))), expected);
    let message = json!({ "binaryMessage": { "message": "AP8=" } });
    let expected = json!({ "topic": "t", "publishMessage": message });
    assert_eq!(publish(TopicPayload::Binary(vec![0, 255])), expected);

    let got = |payload| TopicMessage { topic: "t".to_owned(), payload };
    let json = json!({ "jsonMessage": { "message": [1], "context": { "topic": "t" } } });
    assert_eq!(event::<TopicMessage>(json), got(TopicPayload::Json(json!([1]))));
    let binary = json!({ "binaryMessage": { "message": "AP8=", "context": { "topic": "t" } } });
    assert_eq!(event::<TopicMessage>(binary), got(TopicPayload::Binary(vec![0, 255])));
    let old = json!({ "binaryMessage": { "message": "" } });
    assert_eq!(event::<TopicMessage>(old).topic, "");
    assert!(serde_json::from_slice::<TopicMessage>(b"{}").is_err());
}

#[test]
fn a_subscription_to_a_topic_says_whose_messages_it_wants() {
    let json =
        |receive_mode| subscription(&SubscribeToTopic { topic: "t".to_owned(), receive_mode });
    let expected = json!({ "topic": "t", "receiveMode": "RECEIVE_ALL_MESSAGES" });
    assert_eq!(json(ReceiveMode::All).1, expected);
    let expected = json!({ "topic": "t", "receiveMode": "RECEIVE_MESSAGES_FROM_OTHERS" });
    assert_eq!(json(ReceiveMode::FromOthers).1, expected);
}

#[test]
fn configuration_is_asked_for_by_path_and_by_name_only_if_there_is_one() {
    let own = GetConfiguration { component_name: None, key_path: &[] };
    assert_eq!(request(&own).1, json!({ "keyPath": [] }));
    let other = GetConfiguration { component_name: Some("c"), key_path: &["a", "b"] };
    assert_eq!(request(&other).1, json!({ "componentName": "c", "keyPath": ["a", "b"] }));
    let updates = SubscribeToConfigurationUpdate { component_name: None, key_path: vec![] };
    assert_eq!(subscription(&updates).1, json!({ "keyPath": [] }));
    assert_eq!(request(&GetSystemConfig { key: "thingName" }).1, json!({ "key": "thingName" }));

    let inner = json!({ "componentName": "c", "keyPath": ["a"] });
    let update = event::<ConfigurationUpdate>(json!({ "configurationUpdateEvent": inner }));
    assert_eq!(update, ConfigurationUpdate { component: "c".into(), key_path: vec!["a".into()] });
}

#[test]
fn configuration_is_validated_with_a_verdict_and_a_reason() {
    let inner = json!({ "configuration": { "a": 1 }, "deploymentId": "d" });
    let validate =
        event::<ValidateConfiguration>(json!({ "validateConfigurationUpdateEvent": inner }));
    let (configuration, deployment_id) = (json!({ "a": 1 }), "d".to_owned());
    assert_eq!(validate, ValidateConfiguration { configuration, deployment_id });

    let report = |validity| {
        let report = ConfigurationValidityReport { deployment_id: "d".to_owned(), validity };
        request(&report).1
    };
    let inner = json!({ "status": "ACCEPTED", "deploymentId": "d" });
    assert_eq!(report(Validity::Accepted), json!({ "configurationValidityReport": inner }));
    let inner = json!({ "status": "REJECTED", "deploymentId": "d", "message": "no" });
    let rejected = Validity::Rejected { message: "no".to_owned() };
    assert_eq!(report(rejected), json!({ "configurationValidityReport": inner }));
}

#[test]
fn an_update_is_deferred_by_a_number_that_is_always_there() {
    let inner = json!({ "deploymentId": "d", "isGgcRestarting": true });
    let pre = event::<ComponentUpdate>(json!({ "preUpdateEvent": inner }));
    let deployment_id = || "d".to_owned();
    let expected =
        ComponentUpdate::Pre { deployment_id: deployment_id(), is_nucleus_restarting: true };
    assert_eq!(pre, expected);
    let post = event::<ComponentUpdate>(json!({ "postUpdateEvent": { "deploymentId": "d" } }));
    assert_eq!(post, ComponentUpdate::Post { deployment_id: deployment_id() });

    let defer = |recheck_after, message| {
        let defer = DeferComponentUpdate { deployment_id: deployment_id(), message, recheck_after };
        request(&defer).1
    };
    let go_ahead = json!({ "deploymentId": "d", "recheckAfterMs": 0 });
    assert_eq!(defer(Duration::ZERO, None), go_ahead);
    let wait = json!({ "deploymentId": "d", "message": "busy", "recheckAfterMs": 1500 });
    assert_eq!(defer(Duration::from_millis(1500), Some("busy".to_owned())), wait);
    let state = UpdateState { state: ComponentState::Running };
    assert_eq!(request(&state), ("aws.greengrass#UpdateState", json!({ "state": "RUNNING" })));
}

#[test]
fn client_devices_are_named_by_certificate_and_their_tokens_are_never_shown() {
    let credential = DeviceCertificate { client_device_certificate: "PEM" };
    let expected = json!({ "credential": { "clientDeviceCertificate": "PEM" } });
    assert_eq!(request(&VerifyClientDeviceIdentity { credential }).1, expected);
    let mqtt_credential = MqttCredential { client_id: "pump", certificate_pem: "PEM" };
    let credential = Credential { mqtt_credential };
    let inner = json!({ "clientId": "pump", "certificatePem": "PEM" });
    let expected = json!({ "credential": { "mqttCredential": inner } });
    assert_eq!(request(&GetClientDeviceAuthToken { credential }).1, expected);

    let granted = event::<<GetClientDeviceAuthToken<'_> as Operation>::Response>(
        json!({ "clientDeviceAuthToken": "secret" }),
    );
    assert_eq!(granted.client_device_auth_token.expose(), "secret");
    assert!(!format!("{:?}", granted.client_device_auth_token).contains("secret"));
}
