//! Who loses patience leaves nothing behind.

use std::time::Duration;

use aws_greengrass_ipc::{Client, Nucleus, Qos, State};
use tokio::io::AsyncReadExt;

use crate::{
    calls::{publish, start_publish},
    peer::{Conn, Peer, soon, until, until_connected},
};

/// Lets the other tasks run until they all wait.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

async fn still_works(client: &Client, conn: &mut Conn) {
    let call = start_publish(client, b"last".to_vec());
    loop {
        // The peer checks the numbers and every frame on the way.
        let message = conn.read().await;
        if message.operation() == "PublishToIoTCore" {
            let is_last = message.json()["payload"] == "bGFzdA==";
            conn.answer(&message, "{}").await;
            if is_last {
                break;
            }
        }
    }
    assert_eq!(soon(call).await.expect("no panic"), Ok(()));
    until_connected(client, 1).await;
}

#[tokio::test]
async fn a_call_dropped_before_it_is_written_takes_no_number() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    for _ in 0..50 {
        let mut call = Box::pin(client.publish_to_iot_core(publish(vec![])));
        // Polled once, it stands in the queue; the writer has not had its turn.
        assert!(futures_poll(&mut call).is_none());
        drop(call);
    }
    still_works(&client, &mut conn).await;
}

/// Polls once.
fn futures_poll<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn calls_dropped_while_the_socket_is_full_leave_no_half_frame() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let calls: Vec<_> = (0..100).map(|_| start_publish(&client, vec![0; 100_000])).collect();
    settle().await;
    for call in calls {
        call.abort();
    }
    settle().await;
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn a_call_dropped_while_it_waits_for_its_answer_does_no_harm() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    for _ in 0..50 {
        let call = start_publish(&client, vec![]);
        let request = conn.request("PublishToIoTCore").await;
        call.abort();
        assert!(soon(call).await.is_err());
        conn.answer(&request, "{}").await;
    }
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn fifty_subscriptions_dropped_before_the_answer_are_all_ended_at_the_nucleus() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let subscriptions: Vec<_> =
        (0..50).map(|n| client.subscribe_to_iot_core(format!("a/{n}"), Qos::AtMostOnce)).collect();
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(conn.request("SubscribeToIoTCore").await.stream);
    }
    drop(subscriptions);
    for _ in 0..50 {
        let message = conn.read().await;
        assert!(message.is_terminate(), "{message:?}");
        open.retain(|stream| *stream != message.stream);
    }
    assert!(open.is_empty());
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn a_subscription_that_is_not_answered_in_time_is_ended_and_asked_for_again() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.subscribe = Duration::from_millis(50);
    let client = Client::spawn(options);
    let mut conn = peer.greet(Nucleus::Classic).await;
    let _subscription = client.subscribe_to_iot_core("a/b", Qos::AtMostOnce);
    let first = conn.request("SubscribeToIoTCore").await.stream;
    let end = conn.read().await;
    assert!(end.is_terminate() && end.stream == first);
    conn.grant("SubscribeToIoTCore").await;
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn the_last_who_uses_the_client_closes_the_connection() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let mut states = client.state();
    let subscription = client.subscribe_to_iot_core("a/b", Qos::AtMostOnce);
    drop(client);
    conn.grant("SubscribeToIoTCore").await;
    drop(subscription);
    // It may say goodbye to the stream before.
    conn.until_hung_up().await;
    soon(async { while states.changed().await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_client_dropped_while_it_tries_to_connect_stops_trying() {
    let peer = Peer::new();
    let client = Client::spawn(peer.options());
    let mut states = client.state();
    let mut conn = peer.accept().await;
    drop(client);
    let mut rest = Vec::new();
    soon(conn.stream.read_to_end(&mut rest)).await.expect("an end");
    soon(async { while states.changed().await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_client_that_is_out_of_reach_can_be_dropped() {
    let options = Peer::new().options();
    let client = Client::spawn(options);
    let mut states = client.state();
    until(&mut states, |state| matches!(state, State::Connecting { why: Some(_), .. })).await;
    drop(client);
    soon(async { while states.changed().await.is_ok() {} }).await;
}
