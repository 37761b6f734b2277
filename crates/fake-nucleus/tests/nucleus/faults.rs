//! What goes wrong because a test wants it to.

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use aws_smithy_eventstream::frame::read_message_from;
use fake_nucleus::{FakeNucleus, Fault, Mode, Settings, Timing, WrongAnswer};
use serde_json::json;

use crate::client::{Client, DEADLINE, eventually, variable};

fn start() -> (FakeNucleus, Client) {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let client = Client::connect(&nucleus);
    (nucleus, client)
}

/// The next bytes on the socket.
fn bytes(client: &mut Client, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    client.socket.read_exact(&mut bytes).unwrap();
    bytes
}

/// All that comes until the connection is closed.
fn all(client: &mut Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.socket.read_to_end(&mut bytes).unwrap();
    bytes
}

fn total(frame: &[u8]) -> usize {
    u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize
}

#[test]
fn a_connection_is_closed_between_frames_or_within_one() {
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::Close);
    assert_eq!(all(&mut client), b"");

    let (nucleus, mut client) = start();
    nucleus.fault(Fault::CloseMidFrame);
    let part = all(&mut client);
    assert!(part.len() > 12 && part.len() < total(&part));
}

#[test]
fn half_a_frame_is_all_that_ever_comes() {
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::HalfFrame);
    client.ask("UpdateState", &json!({"state": "RUNNING"}));
    eventually(|| nucleus.states() == ["RUNNING"]);
    let first = bytes(&mut client, 12);
    client.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut rest = Vec::new();
    assert!(client.socket.read_to_end(&mut rest).is_err());
    assert!(12 + rest.len() < total(&first));
}

#[test]
fn frames_are_bad_in_the_way_that_was_asked_for() {
    for fault in [Fault::BadPreludeChecksum, Fault::BadChecksum, Fault::TruncatedHeader] {
        let (nucleus, mut client) = start();
        nucleus.fault(fault.clone());
        nucleus.fault(Fault::Close);
        let bytes = all(&mut client);
        assert_eq!(total(&bytes), bytes.len(), "{fault:?}");
        assert!(read_message_from(&mut &*bytes).is_err(), "{fault:?}");
    }
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::HeadersOverFrame);
    nucleus.fault(Fault::Close);
    let bytes = all(&mut client);
    let headers = u32::from_be_bytes(*bytes[4..].first_chunk().unwrap()) as usize;
    assert!(headers > total(&bytes) && bytes.len() == total(&bytes));

    let (nucleus, mut client) = start();
    nucleus.fault(Fault::Garbage);
    nucleus.fault(Fault::Close);
    assert_eq!(all(&mut client).len(), 200);
}

#[test]
fn a_length_is_announced_and_kept_for_as_long_as_anyone_reads() {
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::Announce(2 << 30));
    let first = bytes(&mut client, 12);
    assert_eq!(total(&first), 2 << 30);
    assert!(bytes(&mut client, 32 << 20).iter().all(|byte| *byte == 0));
}

#[test]
fn harmless_oddities_are_frames_all_the_same() {
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::UnknownHeader);
    let odd = client.next_on(i32::MAX);
    assert_eq!(odd.headers.len(), 12, "{odd:?}");
    nucleus.fault(Fault::UnknownStream);
    client.next_on(i32::MAX);
    nucleus.fault(Fault::Ping);
    let ping = client.next_on(0);
    assert_eq!((ping.kind, &*ping.payload), (2, &b"are you there"[..]));
    client.settle();
    nucleus.fault(Fault::ProtocolError);
    assert_eq!(client.next_on(0).kind, 6);
    assert!(client.is_closed());
}

#[test]
fn the_nucleus_ends_streams_by_itself() {
    let (nucleus, mut client) = start();
    let stream = client.subscribe("t");
    nucleus.fault(Fault::EndStreams);
    let end = client.next_on(stream);
    assert_eq!((end.kind, end.flags, end.content, end.payload), (0, 2, None, Vec::new()));
    client.publish("t", "unheard", "1").expect("a yes");
    assert!(client.has_nothing_on(stream));
}

#[test]
fn a_request_is_answered_wrongly_as_often_as_was_asked_for() {
    let (nucleus, mut client) = start();
    let answer = |with, times| Fault::Answer { operation: "UpdateState", with, times };
    nucleus.fault(answer(WrongAnswer::Nothing, 1));
    nucleus.fault(answer(WrongAnswer::InternalServerError, 1));
    let message = "no".to_owned();
    nucleus.fault(answer(WrongAnswer::Error { code: "ConflictError", message }, 2));
    let request = json!({"state": "RUNNING"});
    let unanswered = client.ask("UpdateState", &request);
    let internal = client.call("UpdateState", &request).unwrap_err();
    assert_eq!((internal.code, internal.body), (None, json!("InternalServerError")));
    for _ in 0..2 {
        let refused = client.call("UpdateState", &request).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("ConflictError"));
    }
    assert_eq!(client.call("UpdateState", &request), Ok(json!({})));
    assert!(client.has_nothing_on(unanswered));
    nucleus.fault(answer(WrongAnswer::Close, 1));
    client.ask("UpdateState", &request);
    assert!(client.is_closed());
}

#[test]
fn an_event_comes_before_the_answer_to_its_subscription() {
    let (nucleus, mut client) = start();
    let operation = "SubscribeToIoTCore";
    nucleus.fault(Fault::Answer { operation, with: WrongAnswer::EventFirst, times: 1 });
    let stream = client.ask(operation, &json!({"topicName": "t", "qos": "1"}));
    assert_eq!(client.message(stream), "");
    assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
}

#[test]
fn nothing_is_read_for_a_while() {
    let (nucleus, mut client) = start();
    nucleus.fault(Fault::StopReading(Duration::from_millis(300)));
    // One frame may be read by a reader that waited for it already.
    client.settle();
    let began = Instant::now();
    client.settle();
    assert!(began.elapsed() > Duration::from_millis(100));
}

#[test]
fn a_flood_is_as_wide_and_as_high_as_was_asked_for() {
    let (nucleus, mut client) = start();
    let streams = [client.subscribe("a/+"), client.subscribe("#")];
    let done = nucleus.flood(1_000, 256);
    for stream in streams {
        for _ in 0..1_000 {
            assert_eq!(client.message(stream).len(), 256);
        }
    }
    assert_eq!(done.wait(DEADLINE), Some(()));
    assert_eq!(nucleus.violations(), [""; 0]);
}

#[test]
fn a_client_that_stops_reading_is_noticed_and_holds_nobody_up() {
    let full_socket = Duration::from_millis(50);
    let timing = Timing { full_socket, ..Timing::default() };
    let nucleus = FakeNucleus::start(Settings { timing, ..Settings::new(Mode::Java) });
    let mut client = Client::connect(&nucleus);
    client.subscribe("t");
    let flood = nucleus.flood(1_000, 4_096);
    let mut other = Client::connect(&nucleus);
    eventually(|| {
        other.settle();
        !nucleus.violations().is_empty()
    });
    assert_eq!(nucleus.violations(), ["connection 1 has stopped reading"]);
    // What it did not read is not heaped up either.
    assert!(flood.wait(Duration::ZERO).is_none());
}

#[test]
fn a_connect_goes_unanswered_or_is_hung_up_on() {
    for mode in [Mode::Java, Mode::Lite] {
        let nucleus = FakeNucleus::start(Settings::new(mode));
        let token = variable(&nucleus, "SVCUID");
        let operation = "CONNECT";
        nucleus.fault(Fault::Answer { operation, with: WrongAnswer::Close, times: 1 });
        assert_eq!(Client::silent(&nucleus).shake_hands(&token), None);
        nucleus.fault(Fault::Answer { operation, with: WrongAnswer::Nothing, times: 1 });
        let mut client = Client::silent(&nucleus);
        client.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(client.shake_hands(&token), None);
        assert!(client.socket.set_nonblocking(true).is_ok());
        assert_eq!(client.socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        Client::connect(&nucleus).settle();
    }
}
