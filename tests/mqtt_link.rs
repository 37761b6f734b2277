//! What the MQTT driver promises, against a real Mosquitto.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

use certrelay::links::{
    ConnectionId, LinkCommand, LinkEvent, Publish, Qos, SendError,
    mqtt::{self, MqttError, Options},
};
use support::{
    eventually_async, free_port,
    link::{DEADLINE, ack, command, down, link, message, mid, next, options, publish, sent, up},
    mosquitto::{Mosquitto, Setup},
    peer::{Login, Peer},
    proxy::Proxy,
};
use tokio::time::timeout;

async fn peer(port: u16) -> Peer {
    Login::plain(port, "peer").connect().await.expect("the peer connects")
}

/// Makes the broker keep a session for the link, and lets the link end.
async fn leave_a_session(broker: &Mosquitto) {
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    drop(link);
    wait_for_log(broker, "Received DISCONNECT from link").await;
}

async fn wait_for_log(broker: &Mosquitto, text: &str) {
    eventually_async(DEADLINE, text, async || broker.log().contains(text)).await;
}

#[tokio::test]
async fn plain_tcp_goes_to_this_machine_only() {
    for host in ["192.0.2.1", "broker.example", "localhost.example", "::2", "0.0.0.0"] {
        let asked = Options { host: host.to_owned(), ..options(1) };
        assert_eq!(asked.check(), Err(MqttError::PlainTcp { host: host.to_owned() }));
        assert!(mqtt::spawn(asked).is_err());
    }
    for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
        assert_eq!(Options { host: host.to_owned(), ..options(1) }.check(), Ok(()));
    }
}

#[tokio::test]
async fn every_publish_is_reported_sent_once_and_arrives() {
    let broker = Setup::plain().start();
    let mut peer = peer(broker.port()).await;
    peer.subscribe("out/#").await.expect("granted");
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    for number in 0..200 {
        let qos = if number % 2 == 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        publish(&link, number, &[number], qos).await;
    }
    let mut reported = BTreeMap::new();
    for _ in 0..200 {
        let (mid, outcome) = sent(&mut link).await;
        assert_eq!(outcome, Ok(()));
        *reported.entry(mid).or_insert(0) += 1;
    }
    assert!(reported.len() == 200 && reported.values().all(|times| *times == 1));
    let arrived: BTreeSet<_> = peer.flush("own").await.into_iter().map(|m| m.payload).collect();
    assert_eq!(arrived.len(), 200);
    assert!(link.events.try_recv().is_err());
}

#[tokio::test]
async fn what_can_never_be_sent_is_refused_and_breaks_nothing() {
    let broker = Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    publish(&link, 1, &vec![0; mqtt::MAX_OUTGOING], Qos::AtLeastOnce).await;
    assert_eq!(sent(&mut link).await, (mid(1), Err(SendError::Refused)));
    let wild = Publish {
        mid: mid(2),
        topic: "out/#".to_owned(),
        payload: Vec::new(),
        qos: Qos::AtLeastOnce,
    };
    command(&link, LinkCommand::Publish(wild)).await;
    assert_eq!(sent(&mut link).await, (mid(2), Err(SendError::Refused)));
    publish(&link, 3, &vec![0; mqtt::MAX_OUTGOING - 5], Qos::AtLeastOnce).await;
    assert_eq!(sent(&mut link).await, (mid(3), Ok(())));
}

#[tokio::test]
async fn while_the_link_is_down_a_publish_is_answered_at_once() {
    let mut link = link(options(free_port()));
    down(&mut link).await;
    publish(&link, 1, b"x", Qos::AtLeastOnce).await;
    let answer = async {
        loop {
            if let LinkEvent::Sent { mid, outcome } = next(&mut link).await {
                return (mid, outcome);
            }
        }
    };
    let answer = timeout(Duration::from_secs(1), answer).await.expect("at once");
    assert_eq!(answer, (mid(1), Err(SendError::Offline)));
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let broker = Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    let peer = peer(broker.port()).await;
    for payload in [b"one", b"two"] {
        peer.publish("in/a", payload).await.expect("acknowledged");
    }
    let (one, two) = (message(&mut link).await, message(&mut link).await);
    assert!(!one.dup && !two.dup);
    ack(&link, &one).await;
    wait_for_log(&broker, "Received PUBACK from link").await;
    command(&link, LinkCommand::Reconnect).await;
    assert_eq!(up(&mut link).await, (ConnectionId(2), true));
    let again = message(&mut link).await;
    assert_eq!(again.payload, b"two");
    assert!(again.dup);
}

#[tokio::test]
async fn an_acknowledgement_for_an_earlier_connection_is_not_sent() {
    let broker = Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    peer(broker.port()).await.publish("in/a", "x").await.expect("acknowledged");
    let stale = message(&mut link).await;
    for connection in 2..4 {
        command(&link, LinkCommand::Reconnect).await;
        assert_eq!(up(&mut link).await, (ConnectionId(connection), true));
        assert_eq!(message(&mut link).await.payload, b"x");
        ack(&link, &stale).await;
        // It is answered after the ack was handled.
        publish(&link, 1, b"y", Qos::AtLeastOnce).await;
        assert_eq!(sent(&mut link).await, (mid(1), Ok(())));
    }
    assert!(!broker.log().contains("Received PUBACK from link"));
}

#[tokio::test]
async fn the_queue_of_the_session_comes_after_up_and_none_of_it_is_lost() {
    let broker = Setup::plain().start();
    leave_a_session(&broker).await;
    let peer = peer(broker.port()).await;
    for number in 0..100u8 {
        peer.publish("in/a", [number]).await.expect("acknowledged");
    }
    let mut link = link(options(broker.port()));
    let first = next(&mut link).await;
    assert_eq!(first, LinkEvent::Up { connection: ConnectionId(1), session_present: true });
    for number in 0..100u8 {
        let message = message(&mut link).await;
        assert_eq!(message.payload, [number]);
        ack(&link, &message).await;
    }
}

#[tokio::test]
async fn the_session_outlives_the_death_of_a_broker_that_saved_it() {
    let mut broker = Setup::plain().persistent().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    peer(broker.port()).await.publish("in/a", "x").await.expect("acknowledged");
    assert_eq!(message(&mut link).await.payload, b"x");
    broker.save();
    broker.kill();
    down(&mut link).await;
    broker.start();
    let (connection, session_present) = up(&mut link).await;
    assert!(connection > ConnectionId(1) && session_present);
    let again = message(&mut link).await;
    assert_eq!((again.payload.as_slice(), again.dup), (b"x".as_slice(), true));
}

#[tokio::test]
async fn what_was_under_way_when_the_network_broke_is_reported_and_not_sent_again() {
    let broker = Setup::plain().start();
    let proxy = Proxy::start(broker.port());
    let mut peer = peer(broker.port()).await;
    peer.subscribe("out/#").await.expect("granted");
    let mut link = link(options(proxy.port()));
    up(&mut link).await;
    proxy.freeze();
    // More than the window, so that some wait in the client.
    for number in 0..150 {
        publish(&link, number, b"lost", Qos::AtLeastOnce).await;
    }
    proxy.cut();
    let mut outcomes = BTreeMap::new();
    let reporting = async {
        while outcomes.len() < 150 {
            if let LinkEvent::Sent { mid, outcome } = next(&mut link).await {
                assert_eq!(outcomes.insert(mid, outcome), None, "reported twice");
            }
        }
    };
    timeout(DEADLINE, reporting).await.expect("each is reported");
    assert!(outcomes.values().all(|outcome| *outcome == Err(SendError::Offline)));
    proxy.restore();
    up(&mut link).await;
    publish(&link, 200, b"new", Qos::AtLeastOnce).await;
    assert_eq!(sent(&mut link).await, (mid(200), Ok(())));
    let arrived: Vec<_> = peer.flush("own").await.into_iter().map(|m| m.payload).collect();
    assert_eq!(arrived, [b"new"]);
}

#[tokio::test]
async fn a_half_open_connection_is_found_within_twice_the_keep_alive() {
    let broker = Setup::plain().start();
    let proxy = Proxy::start(broker.port());
    let keep_alive = Duration::from_secs(1);
    let mut link = link(Options { keep_alive, ..options(proxy.port()) });
    up(&mut link).await;
    proxy.freeze();
    let why = timeout(3 * keep_alive, down(&mut link)).await.expect("it is found");
    assert!(why.contains("does not answer"), "{why}");
    proxy.restore();
    up(&mut link).await;
}

#[tokio::test]
async fn a_link_that_is_dropped_says_goodbye_after_what_it_acknowledged() {
    let broker = Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    peer(broker.port()).await.publish("in/a", "x").await.expect("acknowledged");
    let message = message(&mut link).await;
    ack(&link, &message).await;
    drop(link);
    wait_for_log(&broker, "Received DISCONNECT from link").await;
    assert!(broker.log().contains("Received PUBACK from link"));
}

#[tokio::test]
async fn a_message_larger_than_the_core_takes_is_passed_through() {
    let broker = Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    peer(broker.port()).await.publish("in/a", vec![7; 300_000]).await.expect("acknowledged");
    assert_eq!(message(&mut link).await.payload, vec![7; 300_000]);
}

#[tokio::test]
async fn a_packet_over_the_limit_costs_the_session_once_and_not_the_link() {
    let broker = Setup::plain().start();
    leave_a_session(&broker).await;
    let peer = peer(broker.port()).await;
    peer.publish("in/a", vec![7; mqtt::MAX_INCOMING + 1]).await.expect("acknowledged");
    let mut link = link(options(broker.port()));
    let (first, second) = (down(&mut link).await, down(&mut link).await);
    assert!(first.contains("the most") && !first.contains("in a row"), "{first}");
    assert!(second.contains("the second in a row"), "{second}");
    assert!(!up(&mut link).await.1, "the session is a new one");
    peer.publish("in/a", "small").await.expect("acknowledged");
    let small = message(&mut link).await;
    assert_eq!(small.payload, b"small");
    command(&link, LinkCommand::Reconnect).await;
    assert!(up(&mut link).await.1, "and it is kept again");
    assert_eq!(message(&mut link).await.payload, b"small");
}

#[tokio::test]
async fn a_reader_that_stops_loses_the_link_but_no_result_and_no_acknowledged_message() {
    let broker = Setup::plain().start();
    let keep_alive = Duration::from_secs(1);
    let mut link = link(Options { events: 4, keep_alive, ..options(broker.port()) });
    up(&mut link).await;
    let peer = peer(broker.port()).await;
    for number in 0..100 {
        publish(&link, number, b"x", Qos::AtLeastOnce).await;
    }
    for number in 0..10u8 {
        peer.publish("in/a", [number]).await.expect("acknowledged");
    }
    wait_for_log(&broker, "Client link closed its connection").await;
    let (mut reported, mut received, mut downs) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let reading = async {
        while reported.len() < 100 || received.len() < 10 {
            match next(&mut link).await {
                LinkEvent::Sent { mid, .. } => assert!(reported.insert(mid), "reported twice"),
                LinkEvent::Message(message) => {
                    ack(&link, &message).await;
                    received.insert(message.payload);
                }
                LinkEvent::Down { why } => downs.push(why),
                LinkEvent::Up { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("nothing is lost");
    assert_eq!(downs.len(), 1, "{downs:?}");
    assert!(downs[0].contains("not handled"), "{downs:?}");
}

/// Mosquitto with `max_inflight_messages 0` sends its whole queue at once.
#[tokio::test]
async fn a_queue_longer_than_the_event_channel_is_worked_off_on_one_connection() {
    let unlimited = "max_inflight_messages 0\nmax_queued_messages 0";
    let broker = Setup::plain().line(unlimited).start();
    leave_a_session(&broker).await;
    let peer = peer(broker.port()).await;
    for number in 0..1000u16 {
        peer.publish("in/a", number.to_be_bytes()).await.expect("acknowledged");
    }
    let mut link = link(Options { events: 4, ..options(broker.port()) });
    up(&mut link).await;
    for number in 0..1000u16 {
        let message = message(&mut link).await;
        assert_eq!(message.payload, number.to_be_bytes());
        ack(&link, &message).await;
    }
}

/// Mosquitto 2.0 grants every subscription and filters at delivery, hence a broker of our own.
#[tokio::test]
async fn a_subscription_that_is_refused_is_named_and_tried_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.expect("a connection");
            read_packet(&mut stream);
            stream.write_all(&[0x20, 2, 0, 0]).expect("CONNACK");
            let subscribe = read_packet(&mut stream);
            let refusal = [0x90, 4, subscribe[0], subscribe[1], 1, 0x80];
            stream.write_all(&refusal).expect("SUBACK");
        }
    });
    let mut asked = options(port);
    asked.subscriptions.push(("secret/#".to_owned(), Qos::AtLeastOnce));
    let mut link = link(asked);
    for _ in 0..2 {
        match next(&mut link).await {
            LinkEvent::Down { why } => assert!(why.contains("\"secret/#\""), "{why}"),
            other => panic!("{other:?} instead of Down"),
        }
    }
}

/// The rest of a packet that is shorter than 128 bytes.
fn read_packet(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a packet");
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).expect("its rest");
    rest
}
