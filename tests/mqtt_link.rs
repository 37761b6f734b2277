//! What the MQTT driver promises, against a real Mosquitto.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use certrelay::{
    links::{
        ConnectionId, Link, LinkCommand, LinkEvent, Message, Publish, Qos, SendError,
        mqtt::{self, MqttError, Options},
        tls::{TlsError, TlsFiles},
    },
    schedule::Backoff,
    wire::Mid,
};
use support::{
    eventually_async, free_port, mosquitto,
    mosquitto::Mosquitto,
    peer::{Login, Peer},
    pki::{Authority, Files},
    proxy::Proxy,
};
use tokio::time::timeout;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(15);

fn options(port: u16) -> Options {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(100));
    Options {
        subscriptions: vec![("in/#".to_owned(), Qos::AtLeastOnce)],
        reconnect: Backoff { first, longest },
        ..Options::new("127.0.0.1", port, "link")
    }
}

fn mtls(broker: &Mosquitto, files: &Files) -> Options {
    let Files { ca, certificate, key } = files.clone();
    let host = "localhost".to_owned();
    Options { host, tls: Some(TlsFiles { ca, certificate, key }), ..options(broker.port()) }
}

fn link(options: Options) -> Link {
    mqtt::spawn(options).expect("good options")
}

async fn next(link: &mut Link) -> LinkEvent {
    timeout(DEADLINE, link.events.recv()).await.expect("an event").expect("the link runs")
}

/// The next connection, after any that failed, and whether the broker had kept the session.
async fn up(link: &mut Link) -> (ConnectionId, bool) {
    loop {
        match next(link).await {
            LinkEvent::Up { connection, session_present } => return (connection, session_present),
            LinkEvent::Down { .. } => {}
            other => panic!("{other:?} before the link is up"),
        }
    }
}

/// Why the link is down next, past any `Up`.
async fn down(link: &mut Link) -> String {
    loop {
        match next(link).await {
            LinkEvent::Down { why } => return why,
            LinkEvent::Up { .. } => {}
            other => panic!("{other:?} instead of Down"),
        }
    }
}

async fn message(link: &mut Link) -> Message {
    match next(link).await {
        LinkEvent::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

async fn command(link: &Link, command: LinkCommand) {
    timeout(DEADLINE, link.commands.send(command)).await.expect("taken").expect("the link runs");
}

async fn ack(link: &Link, message: &Message) {
    command(link, LinkCommand::Ack(message.delivery.expect("it came at QoS 1"))).await;
}

async fn publish(link: &Link, number: u8, payload: &[u8], qos: Qos) {
    let (topic, payload) = ("out/a".to_owned(), payload.to_vec());
    command(link, LinkCommand::Publish(Publish { mid: mid(number), topic, payload, qos })).await;
}

async fn sent(link: &mut Link) -> (Mid, Result<(), SendError>) {
    match next(link).await {
        LinkEvent::Sent { mid, outcome } => (mid, outcome),
        other => panic!("{other:?} instead of Sent"),
    }
}

fn mid(number: u8) -> Mid {
    Mid([number; 16])
}

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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    let mut broker = mosquitto::Setup::plain().persistent().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    while outcomes.len() < 150 {
        if let LinkEvent::Sent { mid, outcome } = next(&mut link).await {
            assert_eq!(outcomes.insert(mid, outcome), None, "reported twice");
        }
    }
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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
    let mut link = link(options(broker.port()));
    up(&mut link).await;
    peer(broker.port()).await.publish("in/a", vec![7; 300_000]).await.expect("acknowledged");
    assert_eq!(message(&mut link).await.payload, vec![7; 300_000]);
}

#[tokio::test]
async fn a_packet_over_the_limit_costs_the_session_once_and_not_the_link() {
    let broker = mosquitto::Setup::plain().start();
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
    let broker = mosquitto::Setup::plain().start();
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
    assert_eq!(downs.len(), 1, "{downs:?}");
    assert!(downs[0].contains("not handled"), "{downs:?}");
}

/// Mosquitto with `max_inflight_messages 0` sends its whole queue at once.
#[tokio::test]
async fn a_queue_longer_than_the_event_channel_is_worked_off_on_one_connection() {
    let unlimited = "max_inflight_messages 0\nmax_queued_messages 0";
    let broker = mosquitto::Setup::plain().line(unlimited).start();
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

#[tokio::test]
async fn a_rotated_certificate_is_used_at_the_next_connect() {
    let authority = Authority::new("floor");
    let broker = mosquitto::Setup::mtls(&authority).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = authority.client_files(dir.path(), "first");
    let mut link = link(mtls(&broker, &files));
    up(&mut link).await;
    assert!(broker.log().contains("u'first'"));
    replace(&files, dir.path(), &authority, "second");
    command(&link, LinkCommand::Reconnect).await;
    up(&mut link).await;
    assert!(broker.log().contains("u'second'"));
}

#[tokio::test]
async fn a_certificate_that_the_broker_refuses_is_named_and_tried_until_it_is_good() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let broker = mosquitto::Setup::mtls(&ours).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = ours.client_files(dir.path(), "device");
    replace(&files, dir.path(), &theirs, "foreign");
    let mut link = link(mtls(&broker, &files));
    let why = down(&mut link).await;
    assert!(why.contains("device.cert.pem"), "{why}");
    replace(&files, dir.path(), &ours, "good");
    up(&mut link).await;
}

#[tokio::test]
async fn a_broker_with_a_foreign_certificate_is_not_talked_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let broker = mosquitto::Setup::mtls(&theirs).start();
    let dir = tempfile::tempdir().expect("a folder");
    let mut link = link(mtls(&broker, &ours.client_files(dir.path(), "device")));
    let why = down(&mut link).await;
    assert!(why.contains("ca.pem") && why.contains("UnknownIssuer"), "{why}");
    assert!(!broker.log().contains("New client connected"));
}

#[tokio::test]
async fn a_file_that_turns_bad_is_named_and_read_again_until_it_is_good() {
    let authority = Authority::new("floor");
    let broker = mosquitto::Setup::mtls(&authority).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = authority.client_files(dir.path(), "device");
    let mut link = link(mtls(&broker, &files));
    up(&mut link).await;
    let key = std::fs::read(&files.key).expect("the key");
    support::write(&files.key, "-----BEGIN PRIVATE KEY-----\nabc\n");
    command(&link, LinkCommand::Reconnect).await;
    down(&mut link).await;
    let why = down(&mut link).await;
    assert!(why.contains("device.key.pem") && why.contains("must hold"), "{why}");
    support::write(&files.key, key);
    up(&mut link).await;
}

#[test]
fn files_that_do_not_fit_together_are_refused_before_the_link_is_made() {
    let authority = Authority::new("floor");
    let dir = tempfile::tempdir().expect("a folder");
    let Files { ca, certificate, key } = authority.client_files(dir.path(), "device");
    let other = authority.client_files(dir.path(), "other");
    let good = TlsFiles { ca, certificate, key };
    assert_eq!(mqtt::check_files(&good), Ok(()));
    let check = |files| match mqtt::check_files(&files) {
        Err(MqttError::Tls(why)) => why,
        answer => panic!("{answer:?}"),
    };
    let (certificate, key) = (good.certificate.clone(), other.key);
    let mismatch = TlsError::Mismatch { certificate, key: key.clone() };
    assert_eq!(check(TlsFiles { key, ..good.clone() }), mismatch);
    let gone = TlsFiles { ca: dir.path().join("gone.pem"), ..good.clone() };
    assert!(matches!(check(gone), TlsError::Unreadable { .. }));
    let swapped = TlsFiles { certificate: good.key.clone(), ..good.clone() };
    assert!(matches!(check(swapped), TlsError::BadCertificate { .. }));
    let swapped = TlsFiles { key: good.certificate.clone(), ..good };
    assert!(matches!(check(swapped), TlsError::BadKey { .. }));
}

#[test]
fn a_key_in_sec1_is_taken_as_well() {
    let authority = Authority::new("floor");
    let dir = tempfile::tempdir().expect("a folder");
    let Files { ca, certificate, key } = authority.client_files(dir.path(), "device");
    let pkcs8 = pem::parse(std::fs::read(&key).expect("the key")).expect("PEM");
    // Where the ECPrivateKey begins in the PKCS#8 of a P-256 key.
    let start = [0x30, 0x6b, 2, 1, 1];
    let at = pkcs8.contents().windows(5).position(|window| window == start).expect("P-256");
    let sec1 = pem::encode(&pem::Pem::new("EC PRIVATE KEY", &pkcs8.contents()[at..]));
    support::write(&key, sec1);
    assert_eq!(mqtt::check_files(&TlsFiles { ca, certificate, key }), Ok(()));
}

/// Puts another pair in the place of `files`.
fn replace(files: &Files, dir: &Path, authority: &Authority, common_name: &str) {
    let (certificate, key) = authority.client(common_name).write(dir, common_name);
    std::fs::rename(certificate, &files.certificate).expect("renamed");
    std::fs::rename(key, &files.key).expect("renamed");
}
