//! What a nucleus can do wrong, and what it must not lead to.

use std::time::Duration;

use aws_greengrass_ipc::{
    CallError, Client, ConnectError, FrameError, Inactive, Nucleus, ProtocolError, Qos, State,
    Step, Update,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    calls::start_publish,
    peer::{Conn, JSON, MODEL, Peer, frame, iot_core_message, soon, until, until_connected},
};

/// The connection does this while a subscription is open and a call hangs. Both must learn of it at
/// once, and the client must come back with the subscription.
async fn recovers_from(fault: &[u8], hang_up: bool) -> ConnectError {
    let (peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let mut subscription = client.subscribe_to_iot_core("a/+", Qos::AtLeastOnce);
    conn.grant("SubscribeToIoTCore").await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 1 });
    let call = start_publish(&client, vec![]);
    conn.request("PublishToIoTCore").await;

    let states = client.state();
    conn.send(fault).await;
    if hang_up {
        drop(conn);
    } else {
        conn.until_hung_up().await;
    }
    let Ok(lost) = soon(call).await else { panic!("a caller panics") };
    assert_eq!(lost, Err(CallError::ConnectionLost));
    let why = why(states).await;
    assert_eq!(soon(subscription.next()).await, Update::Inactive(Inactive::ConnectionLost));

    let mut conn = peer.greet(Nucleus::Classic).await;
    let stream = conn.grant("SubscribeToIoTCore").await;
    assert_eq!(soon(subscription.next()).await, Update::Active { generation: 2 });
    conn.send(&iot_core_message(stream, b"again")).await;
    assert!(matches!(soon(subscription.next()).await, Update::Event(_)));
    why
}

/// Why the connection ended. The client can't be back already: nobody lets it in.
async fn why(mut states: tokio::sync::watch::Receiver<State>) -> ConnectError {
    match until(&mut states, |state| matches!(state, State::Connecting { .. })).await {
        State::Connecting { why: Some(why), .. } => why,
        state => panic!("{state:?}"),
    }
}

fn of_frame(error: FrameError) -> ConnectError {
    ConnectError::Protocol(ProtocolError::Frame(error))
}

/// A frame with these lengths and headers; checksums as they should be.
fn forged(size: u32, headers_size: u32, headers: &[u8]) -> Vec<u8> {
    let mut bytes = [size.to_be_bytes(), headers_size.to_be_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend(headers);
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn with_flipped_byte(at: usize) -> Vec<u8> {
    let mut bytes = frame([0, 0, 2], &[JSON], "{}");
    bytes[at] ^= 0x40;
    bytes
}

#[tokio::test]
async fn a_nucleus_that_hangs_up_is_found_again() {
    assert_eq!(recovers_from(&[], true).await, ConnectError::Closed);
}

#[tokio::test]
async fn a_frame_that_ends_in_its_middle_is_the_end_of_the_connection() {
    let half = frame([0, 0, 2], &[JSON], "{}");
    assert_eq!(recovers_from(&half[..30], true).await, ConnectError::Closed);
}

#[tokio::test]
async fn wrong_checksums_end_the_connection() {
    let prelude = recovers_from(&with_flipped_byte(2), false).await;
    assert_eq!(prelude, of_frame(FrameError::PreludeChecksum));
    let message = recovers_from(&with_flipped_byte(20), false).await;
    assert_eq!(message, of_frame(FrameError::Checksum));
}

#[tokio::test]
async fn what_is_no_event_stream_ends_the_connection() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x5a; 200]] {
        let why = recovers_from(garbage, false).await;
        assert_eq!(why, of_frame(FrameError::PreludeChecksum));
    }
}

#[tokio::test]
async fn wrong_lengths_end_the_connection() {
    let lengths = recovers_from(&forged(2 << 30, 0, &[]), false).await;
    let (size, limit) = (2 << 30, 1024 * 1024);
    assert_eq!(lengths, of_frame(FrameError::TooLarge { size, limit }));
    let headers = recovers_from(&forged(16, 1000, &[]), false).await;
    assert_eq!(headers, of_frame(FrameError::HeadersTooLong));
    let cut_off = recovers_from(&forged(19, 3, b"\x40ab"), false).await;
    assert_eq!(cut_off, of_frame(FrameError::HeaderCutOff));
    let unknown = recovers_from(&forged(19, 3, b"\x01a\x0a"), false).await;
    assert_eq!(unknown, of_frame(FrameError::HeaderType(10)));
}

#[tokio::test]
async fn a_nucleus_can_report_an_error_of_the_connection() {
    for kind in [6, 7] {
        let report = frame([kind, 0, 0], &[JSON], r#"{"message":"bad stream id"}"#);
        let why = recovers_from(&report, false).await;
        assert_eq!(why, ConnectError::Aborted("bad stream id".to_owned()));
    }
}

#[tokio::test]
async fn messages_that_have_no_place_end_the_connection() {
    for misplaced in
        [[4, 0, 0], [5, 1, 0], [8, 0, 0], [0, 0, 0], [0, 0, -1], [1, 2, 0], [2, 0, 1], [6, 0, 1]]
    {
        let why = recovers_from(&frame(misplaced, &[], ""), false).await;
        assert!(matches!(why, ConnectError::Protocol(ProtocolError::Message(_))), "{why:?}");
    }
}

/// The connection has got over what came before.
async fn still_works(client: &Client, conn: &mut Conn) {
    let call = start_publish(client, vec![]);
    let request = conn.request("PublishToIoTCore").await;
    conn.answer(&request, "{}").await;
    assert_eq!(soon(call).await.expect("no panic"), Ok(()));
    until_connected(client, 1).await;
}

#[tokio::test]
async fn unknown_headers_streams_and_types_are_passed_over() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    let odd = [JSON, ("x-new", "?"), ("", "no name"), (MODEL, "aws.greengrass#New")];
    conn.send(&frame([0, 0, 77], &odd, "{}")).await;
    conn.send(&frame([0, 2, 1], &odd, "{}")).await;
    conn.send(&frame([1, 2, 78], &[], "?")).await;
    conn.send(&frame([3, 0, 0], &odd, "pong?")).await;
    still_works(&client, &mut conn).await;
    // All types of headers that there are, none of which means anything.
    let headers = b"\x01a\0\x01b\x01\x01c\x02.\x01d\x03..\x01e\x05........\x01f\x06\0\x01.\
        \x01g\x08........\x01h\x09................";
    let mut typed = frame([3, 0, 0], &[], "");
    let common = typed[12..typed.len() - 4].to_vec();
    let all = [&headers[..], &common].concat();
    let size = u32::try_from(all.len()).expect("is short");
    typed = forged(16 + size, size, &all);
    conn.send(&typed).await;
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn a_ping_is_answered_in_due_form() {
    let (_peer, client, mut conn) = Peer::client(Nucleus::Classic).await;
    conn.send(&frame([2, 0, 0], &[], "are you there")).await;
    let pong = conn.read().await;
    assert_eq!((pong.kind, pong.flags, pong.stream), (3, 0, 0));
    assert_eq!((&pong.payload[..], pong.headers.len()), (&b"are you there"[..], 0));
    still_works(&client, &mut conn).await;
}

#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_ends_in_time() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.write = Duration::from_millis(100);
    let client = Client::spawn(options);
    let mut conn = peer.greet(Nucleus::Classic).await;
    until_connected(&client, 1).await;
    let ping = frame([2, 0, 0], &[], &"x".repeat(100_000));
    while conn.stream.write_all(&ping).await.is_ok() {}
    assert_eq!(why(client.state()).await, ConnectError::TimedOut(Step::Write));
}

#[tokio::test]
async fn a_nucleus_that_stops_reading_is_given_up_and_calls_know_what_was_written() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.write = Duration::from_millis(100);
    let client = Client::spawn(options);
    let conn = peer.greet(Nucleus::Classic).await;
    until_connected(&client, 1).await;
    let calls: Vec<_> = (0..200).map(|_| start_publish(&client, vec![0; 50_000])).collect();
    assert_eq!(why(client.state()).await, ConnectError::TimedOut(Step::Write));
    let (mut lost, mut unwritten) = (0, 0);
    for call in calls {
        match soon(call).await.expect("no panic") {
            Err(CallError::ConnectionLost) => lost += 1,
            Err(CallError::NotConnected) => unwritten += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0 && unwritten > 0, "{lost} lost, {unwritten} not written");
    drop(conn);
}

#[tokio::test]
async fn a_frame_that_is_never_finished_is_the_end_of_the_connection() {
    let peer = Peer::new();
    let mut options = peer.options();
    options.timeouts.write = Duration::from_millis(100);
    let client = Client::spawn(options);
    let mut conn = peer.greet(Nucleus::Lite).await;
    until_connected(&client, 1).await;
    let half = &frame([0, 0, 2], &[JSON], "{}")[..30];
    conn.send(half).await;
    assert_eq!(why(client.state()).await, ConnectError::TimedOut(Step::Read));
    // Without one, silence is no fault.
    let conn = peer.greet(Nucleus::Lite).await;
    until_connected(&client, 2).await;
    let mut states = client.state();
    states.mark_unchanged();
    let silence = tokio::time::timeout(Duration::from_millis(300), states.changed()).await;
    assert!(silence.is_err());
    drop(conn);
}

#[tokio::test]
async fn a_length_that_is_too_large_is_refused_before_anything_is_read_on() {
    let (_peer, _client, mut conn) = Peer::client(Nucleus::Classic).await;
    conn.send(&forged(2 << 30, 0, &[])).await;
    // The client hangs up: what would follow is not even taken.
    assert_eq!(soon(conn.stream.read(&mut [0; 64])).await.unwrap_or(0), 0);
    assert!(conn.stream.write_all(&[0; 4_000_000]).await.is_err());
}
