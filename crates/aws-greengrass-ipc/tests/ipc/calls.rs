//! Calls and their answers.

use std::{sync::Arc, time::Duration};

use aws_greengrass_ipc::{
    CallError, Client, ComponentState, ErrorCode, Nucleus, PublishToIoTCore, Qos, ServiceError,
    TopicPayload,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::peer::{
    Conn, Incoming, JSON, MODEL, Peer, error, frame, soon, unsupported, until_connected,
};

pub fn publish(payload: Vec<u8>) -> PublishToIoTCore {
    PublishToIoTCore { topic: "a/b".to_owned(), payload, qos: Qos::AtLeastOnce }
}

/// Starts a publish in the background.
pub fn start_publish(client: &Client, payload: Vec<u8>) -> JoinHandle<Result<(), CallError>> {
    let client = client.clone();
    tokio::spawn(async move { client.publish_to_iot_core(publish(payload)).await })
}

async fn ended<T>(call: JoinHandle<T>) -> T {
    soon(call).await.expect("does not panic")
}

fn service(code: ErrorCode, message: &str) -> CallError {
    CallError::Service(ServiceError { code, message: message.to_owned() })
}

/// Makes a call and answers it with these bytes.
async fn outcome(
    client: &Client,
    conn: &mut Conn,
    answer: impl FnOnce(&Incoming) -> Vec<u8>,
) -> Result<(), CallError> {
    let call = start_publish(client, b"x".to_vec());
    let request = conn.request("PublishToIoTCore").await;
    conn.send(&answer(&request)).await;
    ended(call).await
}

#[tokio::test]
async fn a_call_is_answered_by_either_nucleus() {
    for nucleus in [Nucleus::Classic, Nucleus::Lite] {
        let (_peer, client, mut conn) = Peer::client(nucleus).await;
        let model = (MODEL, "aws.greengrass#PublishToIoTCoreResponse");
        let flags = if nucleus == Nucleus::Classic { 2 } else { 0 };
        let sent = outcome(&client, &mut conn, |request| {
            assert_eq!(
                request.json(),
                json!({ "topicName": "a/b", "qos": "1", "payload": "eA==" })
            );
            frame([0, flags, request.stream], &[JSON, model], "{}")
        });
        assert_eq!(sent.await, Ok(()));
    }
}

#[tokio::test]
async fn every_kind_of_refusal_reaches_the_caller_and_leaves_the_connection_alone() {
    for nucleus in [Nucleus::Classic, Nucleus::Lite] {
        let (_peer, client, mut conn) = Peer::client(nucleus).await;
        let refused = outcome(&client, &mut conn, |request| {
            error(nucleus, request.stream, "UnauthorizedError", "no")
        });
        assert_eq!(refused.await, Err(service(ErrorCode::Unauthorized, "no")));
        let unknown = outcome(&client, &mut conn, |request| unsupported(request.stream)).await;
        assert_eq!(unknown, Err(CallError::NotSupported));
        let text = (":content-type", "text/plain");
        let failed = outcome(&client, &mut conn, |request| {
            frame([1, 2, request.stream], &[text], "InternalServerError")
        });
        let internal = ErrorCode::Other("InternalServerError".to_owned());
        assert_eq!(failed.await, Err(service(internal, "")));
        let closed = outcome(&client, &mut conn, |request| frame([0, 2, request.stream], &[], ""));
        assert!(matches!(closed.await, Err(CallError::Malformed(_))));
        let model = (MODEL, "aws.greengrass#UpdateStateResponse");
        let other = outcome(&client, &mut conn, |request| {
            frame([0, 2, request.stream], &[JSON, model], "{}")
        });
        assert!(matches!(other.await, Err(CallError::Malformed(_))));
        until_connected(&client, 1).await;
    }
}

#[tokio::test]
async fn lite_says_nothing_to_what_it_does_not_have_and_that_is_told_apart_from_a_failure() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Lite).await;
    let absent = tokio::spawn({
        let client = client.clone();
        async move { client.verify_client_device_identity("PEM").await }
    });
    let request = conn.request("VerifyClientDeviceIdentity").await;
    conn.send(&error(Nucleus::Lite, request.stream, "ServiceError", "")).await;
    assert_eq!(ended(absent).await, Err(CallError::NotSupported));
    let failed = tokio::spawn(async move { client.get_configuration(None, &["a"]).await });
    let request = conn.request("GetConfiguration").await;
    conn.send(&error(Nucleus::Lite, request.stream, "ServiceError", "")).await;
    assert_eq!(ended(failed).await, Err(service(ErrorCode::Service, "")));
}

#[tokio::test]
async fn values_come_back() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let calls = tokio::spawn(async move {
        let value = client.get_configuration(Some("c"), &["a"]).await;
        let is_valid = client.verify_client_device_identity("PEM").await;
        let token = client.get_client_device_auth_token("pump", "PEM").await;
        let thing = client.get_system_config("thingName").await;
        let state = client.update_state(ComponentState::Running).await;
        let payload = TopicPayload::Binary(vec![1]);
        let request = aws_greengrass_ipc::PublishToTopic { topic: "t".to_owned(), payload };
        (value, is_valid, token, thing, state, client.publish_to_topic(request).await)
    });
    for (operation, body) in [
        ("GetConfiguration", r#"{"componentName":"c","value":{"a":[1,"x"]}}"#),
        ("VerifyClientDeviceIdentity", r#"{"isValidClientDevice":true}"#),
        ("GetClientDeviceAuthToken", r#"{"clientDeviceAuthToken":"secret"}"#),
        ("GetSystemConfig", r#"{"value":"core"}"#),
        ("UpdateState", "{}"),
        ("PublishToTopic", "{}"),
    ] {
        let request = conn.request(operation).await;
        conn.answer(&request, body).await;
    }
    let (value, is_valid, token, thing, state, published) = ended(calls).await;
    assert_eq!(value, Ok(json!({ "a": [1, "x"] })));
    assert_eq!(
        (is_valid, thing, state, published),
        (Ok(true), Ok("core".to_owned()), Ok(()), Ok(()))
    );
    assert_eq!(token.expect("a token").expose(), "secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_callers_at_once_keep_the_numbers_in_order_and_get_their_own_answers() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let client = Arc::new(client);
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                for round in 0..20 {
                    let key = format!("{caller}-{round}");
                    let value = client.get_configuration(None, &[&key]).await;
                    assert_eq!(value, Ok(json!(key)));
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let mut requests = Vec::new();
        for _ in 0..64 {
            requests.push(conn.request("GetConfiguration").await);
        }
        for request in requests.iter().rev() {
            let body = json!({ "value": request.json()["keyPath"][0] }).to_string();
            conn.answer(request, &body).await;
        }
    }
    for caller in callers {
        ended(caller).await;
    }
}

#[tokio::test]
async fn without_a_connection_a_call_fails_at_once() {
    let (peer, client, conn) = Peer::client(Nucleus::Classic).await;
    drop((conn, peer));
    let mut states = client.state();
    let is_down = |state: &_| matches!(state, aws_greengrass_ipc::State::Connecting { .. });
    crate::peer::until(&mut states, is_down).await;
    let failed = soon(client.publish_to_iot_core(publish(vec![]))).await;
    assert_eq!(failed, Err(CallError::NotConnected));
}

#[tokio::test]
async fn lite_is_never_sent_a_frame_that_would_cost_the_connection() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Lite).await;
    let too_large = client.publish_to_iot_core(publish(vec![0; 7400])).await;
    let Err(CallError::TooLarge { size, limit: 10_000 }) = too_large else {
        panic!("{too_large:?}")
    };
    // The largest that fits, to the byte: base64 grows by four for every three.
    let fits = 7400 - (size - 10_000).div_ceil(4) * 3;
    let call = start_publish(&client, vec![0; fits]);
    let request = conn.request("PublishToIoTCore").await;
    conn.answer(&request, "{}").await;
    assert_eq!(ended(call).await, Ok(()));
    let topic = "x".repeat(10_000);
    let publish = PublishToIoTCore { topic, payload: vec![], qos: Qos::AtMostOnce };
    let too_large = client.publish_to_iot_core(publish).await;
    assert!(matches!(too_large, Err(CallError::TooLarge { .. })));

    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let call = start_publish(&client, vec![0; 128 * 1024]);
    let request = conn.request("PublishToIoTCore").await;
    conn.answer(&request, "{}").await;
    assert_eq!(ended(call).await, Ok(()));
}

#[tokio::test]
async fn a_late_answer_is_ignored_and_the_connection_goes_on() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.response = Duration::from_millis(50);
    let client = Client::spawn(options);
    let mut conn = peer.greet(Nucleus::Classic).await;
    until_connected(&client, 1).await;
    let call = start_publish(&client, vec![]);
    let late = conn.request("PublishToIoTCore").await;
    assert_eq!(ended(call).await, Err(CallError::TimedOut));
    conn.answer(&late, "{}").await;
    let model = (MODEL, "aws.greengrass#PublishToIoTCoreResponse");
    let next =
        outcome(&client, &mut conn, |request| frame([0, 2, request.stream], &[JSON, model], "{}"));
    assert_eq!(next.await, Ok(()));
    until_connected(&client, 1).await;
}
