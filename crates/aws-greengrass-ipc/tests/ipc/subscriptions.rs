//! Subscriptions: their events, their ends, and how they come back.

use std::time::{Duration, Instant};

use aws_greengrass_ipc::{
    CallError, Client, ErrorCode, Inactive, IoTCoreMessage, Nucleus, Qos, QueueLimits, ReceiveMode,
    ServiceError, Subscription, TopicPayload, Update,
};
use tokio::time::timeout;

use crate::{
    calls::start_publish,
    peer::{Conn, JSON, MODEL, Peer, error, frame, iot_core_message, soon, until_connected},
};

const SUBSCRIBE: &str = "SubscribeToIoTCore";

fn subscribe(client: &Client) -> Subscription<IoTCoreMessage> {
    client.subscribe_to_iot_core("a/+", Qos::AtLeastOnce)
}

fn event(payload: &[u8]) -> Update<IoTCoreMessage> {
    Update::Event(IoTCoreMessage { topic: "a/b".to_owned(), payload: payload.to_vec() })
}

/// A nucleus with one subscription that is open.
async fn subscribed(nucleus: Nucleus) -> (Peer, Client, Conn, Subscription<IoTCoreMessage>, i32) {
    let (peer, client, mut conn) = Peer::client(nucleus).await;
    let mut subscription = subscribe(&client);
    let stream = conn.grant(SUBSCRIBE).await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
    (peer, client, conn, subscription, stream)
}

#[tokio::test]
async fn events_come_in_order_whatever_their_size() {
    let (_peer, _client, mut conn, mut subscription, stream) = subscribed(Nucleus::Classic).await;
    for size in [0, 1, 16_000, 200_000] {
        conn.send(&iot_core_message(stream, &vec![7; size])).await;
        assert_eq!(soon(subscription.next()).await, event(&vec![7; size]));
    }
    let burst: Vec<u8> = (0..100).flat_map(|n| iot_core_message(stream, &[n])).collect();
    conn.send(&burst).await;
    for n in 0..100 {
        assert_eq!(soon(subscription.next()).await, event(&[n]));
    }
    assert_eq!(subscription.shed(), 0);
}

#[tokio::test]
async fn an_event_before_the_answer_is_handed_on_and_the_subscription_lives() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Lite).await;
    let mut subscription = subscribe(&client);
    let request = conn.request(SUBSCRIBE).await;
    conn.send(&iot_core_message(request.stream, b"early")).await;
    conn.answer(&request, "{}").await;
    conn.send(&iot_core_message(request.stream, b"later")).await;
    assert_eq!(soon(subscription.next()).await, event(b"early"));
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
    assert_eq!(soon(subscription.next()).await, event(b"later"));
}

#[tokio::test]
async fn a_subscription_made_before_there_is_a_nucleus_waits_for_it() {
    let peer = Peer::new();
    let client = Client::spawn(peer.options());
    let mut subscription = subscribe(&client);
    let mut conn = peer.greet(Nucleus::Lite).await;
    conn.grant(SUBSCRIBE).await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
}

#[tokio::test]
async fn dropping_a_subscription_ends_it_at_the_nucleus() {
    let (_peer, _client, mut conn, subscription, stream) = subscribed(Nucleus::Classic).await;
    drop(subscription);
    let end = conn.read().await;
    assert!(end.is_terminate() && end.stream == stream, "{end:?}");
    // Events that cross it on the way do no harm.
    conn.send(&iot_core_message(stream, b"crossed")).await;
    until_connected(&_client, 1).await;
}

#[tokio::test]
async fn a_stream_that_the_nucleus_ends_is_not_ended_again_but_asked_for_anew() {
    let (_peer, client, mut conn, mut subscription, stream) = subscribed(Nucleus::Classic).await;
    conn.send(&iot_core_message(stream, b"last words")).await;
    conn.send(&frame([0, 2, stream], &[], "")).await;
    assert_eq!(soon(subscription.next()).await, event(b"last words"));
    assert_eq!(soon(subscription.next()).await, Update::Inactive(Inactive::Ended(None)));
    // The peer would see a TERMINATE here.
    let stream = conn.grant(SUBSCRIBE).await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
    conn.send(&error(Nucleus::Classic, stream, "ServiceError", "over")).await;
    let over = ServiceError { code: ErrorCode::Service, message: "over".to_owned() };
    let ended = Inactive::Ended(Some(CallError::Service(over)));
    assert_eq!(soon(subscription.next()).await, Update::Inactive(ended));
    drop(subscription);
    let call = start_publish(&client, vec![]);
    let request = conn.request("PublishToIoTCore").await;
    conn.answer(&request, "{}").await;
    assert_eq!(soon(call).await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn a_refused_subscription_says_why_and_is_asked_for_again() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Lite).await;
    let mut subscription = subscribe(&client);
    for _ in 0..2 {
        let request = conn.request(SUBSCRIBE).await;
        conn.send(&error(Nucleus::Lite, request.stream, "ServiceError", "offline")).await;
        let offline = ServiceError { code: ErrorCode::Service, message: "offline".to_owned() };
        let refused = Inactive::Refused(CallError::Service(offline));
        assert_eq!(soon(subscription.next()).await, Update::Inactive(refused));
    }
    conn.grant(SUBSCRIBE).await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
}

#[tokio::test]
async fn what_the_nucleus_does_not_have_is_asked_for_again_on_the_next_connection_only() {
    let (peer, client, mut conn) = Peer::client(Nucleus::Lite).await;
    let mut updates = client.subscribe_to_component_updates();
    let request = conn.request("SubscribeToComponentUpdates").await;
    conn.send(&error(Nucleus::Lite, request.stream, "ServiceError", "")).await;
    let refused = Inactive::Refused(CallError::NotSupported);
    assert_eq!(soon(updates.next()).await, Update::Inactive(refused));
    let again = timeout(Duration::from_millis(1500), conn.read()).await;
    assert!(again.is_err(), "{again:?}");
    drop(conn);
    let mut conn = peer.greet(Nucleus::Classic).await;
    let stream = conn.grant("SubscribeToComponentUpdates").await;
    assert_eq!(soon(updates.next()).await, Update::Active { generation: 2 });
    let model = (MODEL, "aws.greengrass#ComponentUpdatePolicyEvents");
    let body = r#"{"preUpdateEvent":{"deploymentId":"d","isGgcRestarting":true}}"#;
    conn.send(&frame([0, 0, stream], &[JSON, model], body)).await;
    assert!(matches!(soon(updates.next()).await, Update::Event(_)));
}

#[tokio::test]
async fn a_reader_who_is_slow_loses_events_and_nobody_else_anything() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.queue = QueueLimits { events: 10, bytes: 1_000_000 };
    let client = Client::spawn(options);
    let mut conn = peer.greet(Nucleus::Classic).await;
    let mut slow = subscribe(&client);
    let stream = conn.grant(SUBSCRIBE).await;
    // Far more than the socket and all queues hold: it must be read on.
    let message = iot_core_message(stream, &[9; 4000]);
    for _ in 0..2000 {
        conn.send(&message).await;
    }
    let call = start_publish(&client, vec![]);
    let request = conn.request("PublishToIoTCore").await;
    conn.answer(&request, "{}").await;
    assert_eq!(soon(call).await.expect("no panic"), Ok(()));
    assert_eq!(slow.shed(), 1990);
    assert_eq!(soon(slow.next()).await, Update::Active { generation: 1 });
    for _ in 0..10 {
        assert_eq!(soon(slow.next()).await, event(&[9; 4000]));
    }
    conn.send(&iot_core_message(stream, b"fresh")).await;
    assert_eq!(soon(slow.next()).await, event(b"fresh"));
}

#[tokio::test]
async fn a_reader_who_waits_for_events_loses_none_of_a_burst() {
    let (_peer, _client, mut conn, mut subscription, stream) = subscribed(Nucleus::Classic).await;
    // Far more events than the queue holds, as fast as they can be written.
    let burst: Vec<u8> = (0..5000).flat_map(|_| iot_core_message(stream, &[5; 256])).collect();
    let writer = tokio::spawn(async move {
        conn.send(&burst).await;
        conn
    });
    let mut seen = 0;
    while seen + subscription.shed() < 5000 {
        assert_eq!(soon(subscription.next()).await, event(&[5; 256]));
        seen += 1;
    }
    assert_eq!(subscription.shed(), 0);
    drop(soon(writer).await.expect("no panic"));
}

#[tokio::test]
async fn an_event_that_can_not_be_read_is_counted_and_passed_over() {
    let (_peer, _client, mut conn, mut subscription, stream) = subscribed(Nucleus::Classic).await;
    let model = (MODEL, "aws.greengrass#IoTCoreMessage");
    for body in ["", "[]", r#"{"message":{"topicName":"a","payload":"%"}}"#, "\u{0}"] {
        conn.send(&frame([0, 0, stream], &[JSON, model], body)).await;
    }
    conn.send(&iot_core_message(stream, b"good")).await;
    assert_eq!(soon(subscription.next()).await, event(b"good"));
    assert_eq!(subscription.shed(), 4);
}

#[tokio::test]
async fn many_subscriptions_share_the_connection_and_all_come_back() {
    let (peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let mut subscriptions: Vec<_> = (0..40).map(|_| subscribe(&client)).collect();
    for generation in 1..4 {
        for _ in 0..40 {
            conn.grant(SUBSCRIBE).await;
        }
        for subscription in &mut subscriptions {
            assert_eq!(soon(subscription.next()).await, Update::Active { generation });
        }
        drop(conn);
        conn = peer.greet(Nucleus::Classic).await;
        for subscription in &mut subscriptions {
            let lost = Update::Inactive(Inactive::ConnectionLost);
            assert_eq!(soon(subscription.next()).await, lost);
        }
    }
}

/// How long after the end of a connection a subscription is asked for on the next.
async fn comes_back_after(nucleus: Nucleus, unsubscribe: Duration) -> Duration {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.unsubscribe = unsubscribe;
    let client = Client::spawn(options);
    let mut conn = peer.greet(nucleus).await;
    let _subscription = subscribe(&client);
    conn.grant(SUBSCRIBE).await;
    let ended = Instant::now();
    drop(conn);
    let mut conn = peer.greet(nucleus).await;
    conn.grant(SUBSCRIBE).await;
    ended.elapsed()
}

#[tokio::test]
async fn a_classic_nucleus_gets_the_time_to_unsubscribe_before_it_is_asked_for_the_same_again() {
    let unsubscribe = Duration::from_millis(300);
    assert!(comes_back_after(Nucleus::Classic, unsubscribe).await >= unsubscribe);
    let unsubscribe = Duration::from_secs(60);
    assert!(comes_back_after(Nucleus::Lite, unsubscribe).await < unsubscribe);
}

#[tokio::test]
async fn a_refusal_on_one_connection_does_not_delay_the_next() {
    let (peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let mut subscription = subscribe(&client);
    // Refused so often that the next pause may be long.
    for _ in 0..3 {
        let request = conn.request(SUBSCRIBE).await;
        conn.send(&error(Nucleus::Classic, request.stream, "ServiceError", "no")).await;
        soon(subscription.next()).await;
    }
    drop(conn);
    let mut conn = peer.greet(Nucleus::Classic).await;
    let asked = timeout(Duration::from_millis(900), conn.grant(SUBSCRIBE)).await;
    assert!(asked.is_ok(), "the pause of the old connection goes on");
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 2 });
}

#[tokio::test]
async fn every_subscription_delivers_what_it_promises() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;

    let mut topic = client.subscribe_to_topic("t", ReceiveMode::All);
    let stream = conn.grant("SubscribeToTopic").await;
    let model = (MODEL, "aws.greengrass#SubscriptionResponseMessage");
    let body = r#"{"jsonMessage":{"message":{"a":1},"context":{"topic":"t"}}}"#;
    conn.send(&frame([0, 0, stream], &[JSON, model], body)).await;
    assert!(matches!(soon(topic.next()).await, Update::Active { .. }));
    let Update::Event(message) = soon(topic.next()).await else { panic!() };
    assert!(matches!(message.payload, TopicPayload::Json(_)));

    let mut updates = client.subscribe_to_configuration_update(None, &[]);
    let stream = conn.grant("SubscribeToConfigurationUpdate").await;
    let model = (MODEL, "aws.greengrass#ConfigurationUpdateEvents");
    let body = r#"{"configurationUpdateEvent":{"componentName":"c","keyPath":["a"]}}"#;
    conn.send(&frame([0, 0, stream], &[JSON, model], body)).await;
    assert!(matches!(soon(updates.next()).await, Update::Active { .. }));
    let Update::Event(update) = soon(updates.next()).await else { panic!() };
    assert_eq!(update.key_path, ["a"]);

    let mut validations = client.subscribe_to_validate_configuration_updates();
    let stream = conn.grant("SubscribeToValidateConfigurationUpdates").await;
    let model = (MODEL, "aws.greengrass#ValidateConfigurationUpdateEvents");
    let body =
        r#"{"validateConfigurationUpdateEvent":{"configuration":{"a":1},"deploymentId":"d"}}"#;
    conn.send(&frame([0, 0, stream], &[JSON, model], body)).await;
    assert!(matches!(soon(validations.next()).await, Update::Active { .. }));
    let Update::Event(validate) = soon(validations.next()).await else { panic!() };
    assert_eq!(validate.deployment_id, "d");
}
