//! What the two drivers over a nucleus promise, against the stand-in for either nucleus.

mod support;

use std::time::Duration;

use aws_greengrass_ipc::{AuthToken, Client, Options};
use certrelay::links::{
    Link, LinkCommand, LinkEvent, Message, Publish, Qos, SendError, greengrass, pubsub,
};
use fake_nucleus::{FakeNucleus, Hub, Mode, Policy, Settings, Token, Upstream};
use support::{
    link::{DEADLINE, command, down, mid, next, sent, up},
    now,
};
use tokio::time::timeout;

const MODES: [Mode; 2] = [Mode::Java, Mode::Lite];

/// A nucleus, its cloud, and a link through it that hears `down/+` and its own `up/+`.
struct Bench {
    nucleus: FakeNucleus,
    hub: Hub,
    link: Link,
}

fn settings(mode: Mode) -> (Hub, Settings) {
    let hub = Hub::new();
    let upstream = Upstream::Hub(hub.clone());
    (hub, Settings { upstream, ..Settings::new(mode) })
}

fn client(nucleus: &FakeNucleus) -> Client {
    let environment = nucleus.environment();
    let find = |name: &str| {
        let found = environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).expect("a nucleus sets it")
    };
    let socket = find("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT");
    Client::spawn(Options::new(socket, AuthToken::from(find("SVCUID"))))
}

fn link(nucleus: &FakeNucleus) -> Link {
    greengrass::spawn(greengrass::Options {
        client: client(nucleus),
        downlinks: vec!["down/+".to_owned()],
        loopbacks: vec!["up/+".to_owned(), "probe".to_owned()],
        unconfirmed: 8,
        events: 1024,
    })
}

impl Bench {
    fn new(mode: Mode, change: impl FnOnce(&mut Settings)) -> Self {
        let (hub, mut settings) = settings(mode);
        change(&mut settings);
        let nucleus = FakeNucleus::start(settings);
        let link = link(&nucleus);
        Self { nucleus, hub, link }
    }

    async fn up(mode: Mode) -> Self {
        let mut bench = Self::new(mode, |_| {});
        up(&mut bench.link).await;
        bench
    }

    async fn publish(&self, number: u8, topic: &str, payload: &[u8], qos: Qos) {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        let publish = Publish { mid: mid(number), topic, payload, qos };
        command(&self.link, LinkCommand::Publish(publish)).await;
    }
}

/// The next message, past results.
async fn message(link: &mut Link) -> Message {
    loop {
        match next(link).await {
            LinkEvent::Message(message) => return message,
            LinkEvent::Sent { .. } => {}
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// The next result, past messages and reasons for being down.
async fn result(link: &mut Link) -> (u8, Result<(), SendError>) {
    loop {
        match next(link).await {
            LinkEvent::Sent { mid, outcome } => return (mid.0[0], outcome),
            LinkEvent::Message(_) | LinkEvent::Down { .. } => {}
            other => panic!("{other:?} instead of a result"),
        }
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_ones_own_come_back() {
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        bench.hub.publish("down/a", "hello");
        let came = message(&mut bench.link).await;
        assert_eq!((came.topic.as_str(), &*came.payload), ("down/a", &b"hello"[..]));
        assert_eq!(came.delivery, None);
        bench.publish(1, "up/a", b"there", Qos::AtLeastOnce).await;
        assert_eq!(message(&mut bench.link).await.topic, "up/a");
        let at_hub = timeout(DEADLINE, bench.hub.take("up/a")).await.expect("in time");
        assert_eq!(at_hub.expect("it came").payload, b"there");
        assert!(bench.nucleus.violations().is_empty());
    }
}

#[tokio::test]
async fn each_publish_has_exactly_one_result() {
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        for number in 0..200 {
            let qos = if number % 3 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            bench.publish(number, "up/a", &[number; 1000], qos).await;
        }
        let mut results = Vec::new();
        while results.len() < 200 {
            let (number, outcome) = result(&mut bench.link).await;
            assert_eq!(outcome, Ok(()), "{mode:?} {number}");
            results.push(number);
        }
        results.sort_unstable();
        assert_eq!(results, (0..200).collect::<Vec<_>>());
        assert!(bench.nucleus.violations().is_empty(), "{:?}", bench.nucleus.violations());
    }
}

#[tokio::test]
async fn a_burst_is_paced_so_that_lite_takes_all_of_it() {
    // Without a round trip each would come back before the next goes.
    let mut bench = Bench::new(Mode::Lite, |settings| {
        settings.timing.round_trip = Duration::from_millis(20);
    });
    up(&mut bench.link).await;
    let began = now();
    for number in 0..100 {
        bench.publish(number, "up/a", &[number; 3000], Qos::AtLeastOnce).await;
    }
    for _ in 0..100 {
        assert_eq!(result(&mut bench.link).await.1, Ok(()));
    }
    println!("100 messages of 3 kB, 20 ms round trip: {:?}", began.elapsed());
    let asked = bench.nucleus.calls()["PublishToIoTCore"];
    assert_eq!(asked, 100, "none was refused and tried again");
}

#[tokio::test]
async fn a_nucleus_that_is_offline_unnoticed_gets_no_more_than_what_may_be_unconfirmed() {
    let mut bench = Bench::up(Mode::Java).await;
    bench.publish(0, "up/a", b"x", Qos::AtLeastOnce).await;
    assert_eq!(message(&mut bench.link).await.payload, b"x");
    bench.nucleus.freeze_link(true);
    for number in 1..100 {
        bench.publish(number, "up/a", &[number], Qos::AtLeastOnce).await;
    }
    let spooled = async || bench.nucleus.spooled() == 8;
    support::eventually_async(DEADLINE, "the window is full", spooled).await;
    bench.publish(200, "probe", b"last", Qos::AtMostOnce).await;
    while result(&mut bench.link).await.0 != 200 {}
    assert_eq!(bench.nucleus.spooled(), 9, "eight, and the probe");
}

#[tokio::test]
async fn a_link_without_the_cloud_is_down_and_refuses_what_it_can_not_keep() {
    for mode in MODES {
        let mut bench = Bench::new(mode, |settings| settings.online = false);
        if mode == Mode::Lite {
            assert!(down(&mut bench.link).await.contains("down/+"));
        }
        bench.publish(1, "up/a", b"x", Qos::AtLeastOnce).await;
        assert_eq!(result(&mut bench.link).await, (1, Err(SendError::Offline)));
        bench.nucleus.set_online(true);
        up(&mut bench.link).await;
        bench.publish(2, "up/a", b"x", Qos::AtLeastOnce).await;
        assert_eq!(result(&mut bench.link).await, (2, Ok(())));
    }
}

#[tokio::test]
async fn a_probe_tells_that_the_cloud_is_out_of_reach() {
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        bench.nucleus.set_online(false);
        bench.publish(1, "probe", b"x", Qos::AtMostOnce).await;
        assert_eq!(sent(&mut bench.link).await, (mid(1), Err(SendError::Offline)));
        bench.nucleus.set_online(true);
        support::eventually_async(DEADLINE, "the probe comes back", async || {
            bench.publish(2, "probe", b"y", Qos::AtMostOnce).await;
            matches!(timeout(DEADLINE, bench.link.events.recv()).await,
                Ok(Some(LinkEvent::Message(message))) if message.payload == b"y")
        })
        .await;
    }
}

#[tokio::test]
async fn without_leave_to_hear_itself_the_link_is_up_all_the_same() {
    for mode in MODES {
        let allowed = ["down/+", "up/a"].map(str::to_owned).to_vec();
        let policy = Policy { mqtt_proxy: allowed, pub_sub: vec![] };
        let mut bench = Bench::new(mode, |settings| settings.policy = policy);
        up(&mut bench.link).await;
        bench.publish(1, "up/a", b"x", Qos::AtLeastOnce).await;
        assert_eq!(sent(&mut bench.link).await, (mid(1), Ok(())));
        bench.publish(2, "up/b", b"x", Qos::AtLeastOnce).await;
        assert_eq!(sent(&mut bench.link).await, (mid(2), Err(SendError::Refused)));
    }
}

#[tokio::test]
async fn without_leave_to_hear_the_cloud_the_link_is_down_and_says_why() {
    for mode in MODES {
        let policy = Policy { mqtt_proxy: vec!["up/+".to_owned()], pub_sub: vec![] };
        let mut bench = Bench::new(mode, |settings| settings.policy = policy);
        let why = down(&mut bench.link).await;
        assert!(why.contains("down/+") && why.contains("Unauthorized"), "{why}");
    }
}

#[tokio::test]
async fn what_is_too_large_for_lite_is_refused_and_costs_no_connection() {
    let mut bench = Bench::up(Mode::Lite).await;
    for size in [4_100, 8_000, 100_000] {
        bench.publish(1, "up/a", &vec![0; size], Qos::AtLeastOnce).await;
        assert_eq!(result(&mut bench.link).await, (1, Err(SendError::Refused)), "{size}");
    }
    bench.publish(2, "up/a", &[0; 4_000], Qos::AtLeastOnce).await;
    assert_eq!(result(&mut bench.link).await, (2, Ok(())));
}

#[tokio::test]
async fn a_deaf_link_hears_again_after_it_was_told_to_connect_anew() {
    let mut lite = Bench::up(Mode::Lite).await;
    lite.nucleus.restart_iotcored();
    lite.hub.publish("down/a", "lost");
    command(&lite.link, LinkCommand::Reconnect).await;
    up(&mut lite.link).await;
    lite.hub.publish("down/a", "heard");
    assert_eq!(message(&mut lite.link).await.payload, b"heard");

    let mut classic = Bench::up(Mode::Java).await;
    let began = now();
    command(&classic.link, LinkCommand::Reconnect).await;
    up(&mut classic.link).await;
    assert!(began.elapsed() >= Duration::from_secs(10), "the UNSUBACK may be late");
    classic.hub.publish("down/a", "heard");
    assert_eq!(message(&mut classic.link).await.payload, b"heard");
}

#[tokio::test]
async fn lite_is_heard_without_a_gap_while_it_is_subscribed_to_anew() {
    let mut bench = Bench::up(Mode::Lite).await;
    for round in 0..20_u8 {
        for number in 0..50_u8 {
            bench.hub.publish("down/a", vec![round, number]);
            if number == 25 {
                command(&bench.link, LinkCommand::Reconnect).await;
            }
        }
        let (mut seen, mut is_up) = (std::collections::BTreeSet::new(), false);
        while seen.len() < 50 || !is_up {
            match next(&mut bench.link).await {
                LinkEvent::Message(message) if message.payload[0] != round => {}
                LinkEvent::Message(message) => drop(seen.insert(message.payload)),
                LinkEvent::Down { .. } => {}
                LinkEvent::Up { .. } => is_up = true,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_subscription_that_was_lost_alone_is_there_again_after_a_renewal_and_the_link_stays_up() {
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        let is_subscribed = |bench: &Bench| {
            let filters = bench.hub.subscriptions("core");
            filters.contains(&"down/+".to_owned())
        };
        assert!(is_subscribed(&bench));
        bench.nucleus.lose_subscription("down/+");
        support::eventually(DEADLINE, "it is lost", || !is_subscribed(&bench));
        bench.hub.publish("down/a", "lost");
        bench.publish(1, "probe", b"heard", Qos::AtLeastOnce).await;
        assert_eq!(message(&mut bench.link).await.payload, b"heard", "all else goes on");

        command(&bench.link, LinkCommand::Renew).await;
        support::eventually_async(DEADLINE, "it is there again", async || is_subscribed(&bench))
            .await;
        bench.hub.publish("down/a", "found");
        assert_eq!(message(&mut bench.link).await.payload, b"found");
    }
}

#[tokio::test]
async fn nothing_is_missed_while_subscriptions_are_renewed() {
    const RENEWALS: u64 = 50;
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        // Of three subscriptions each, and the first three were no renewal.
        let renewals = |bench: &Bench| bench.nucleus.calls()["SubscribeToIoTCore"] / 3 - 1;
        let mut round = 0_u16;
        while renewals(&bench) < RENEWALS {
            round = round.checked_add(1).expect("a renewal ends at some time");
            command(&bench.link, LinkCommand::Renew).await;
            for number in 0..50_u8 {
                bench.hub.publish("down/a", [&round.to_be_bytes()[..], &[number]].concat());
                tokio::task::yield_now().await;
            }
            let mut seen = std::collections::BTreeSet::new();
            while seen.len() < 50 {
                let Message { payload, .. } = message(&mut bench.link).await;
                if payload[..2] == round.to_be_bytes() {
                    seen.insert(payload);
                }
            }
        }
        assert!(bench.nucleus.violations().is_empty(), "{:?}", bench.nucleus.violations());
    }
}

#[tokio::test]
async fn a_nucleus_that_comes_back_is_subscribed_to_again() {
    for mode in MODES {
        let mut bench = Bench::up(mode).await;
        bench.nucleus.stop();
        down(&mut bench.link).await;
        bench.publish(1, "up/a", b"x", Qos::AtLeastOnce).await;
        assert_eq!(result(&mut bench.link).await, (1, Err(SendError::Offline)));
        bench.nucleus.restart(Token::Same);
        loop {
            if let LinkEvent::Up { connection, .. } = next(&mut bench.link).await {
                assert_eq!(connection.0, 2);
                break;
            }
        }
        bench.hub.publish("down/a", "again");
        assert_eq!(message(&mut bench.link).await.payload, b"again");
    }
}

fn local(nucleus: &FakeNucleus) -> Link {
    let topics = ["floor/+/csr_res", "barrier"].map(str::to_owned).to_vec();
    pubsub::spawn(pubsub::Options { client: client(nucleus), topics, events: 1024 })
}

#[tokio::test]
async fn through_the_bridge_messages_go_both_ways() {
    for mode in MODES {
        let nucleus = FakeNucleus::start(settings(mode).1);
        let mut link = local(&nucleus);
        up(&mut link).await;
        nucleus.pubsub_publish("floor/a/csr_res", b"hello");
        let came = message(&mut link).await;
        assert_eq!((came.topic.as_str(), &*came.payload), ("floor/a/csr_res", &b"hello"[..]));

        let publish = |number, topic: &str| {
            let (topic, payload) = (topic.to_owned(), b"there".to_vec());
            LinkCommand::Publish(Publish {
                mid: mid(number),
                topic,
                payload,
                qos: Qos::AtLeastOnce,
            })
        };
        command(&link, publish(1, "floor/a/crt")).await;
        assert_eq!(sent(&mut link).await, (mid(1), Ok(())));
        let passed: Vec<_> = nucleus.pubsub_received().into_iter().map(|m| m.topic).collect();
        assert_eq!(passed, ["floor/a/crt"]);
        // The barrier has to come back.
        command(&link, publish(2, "barrier")).await;
        assert_eq!(message(&mut link).await.topic, "barrier");
    }
}

#[tokio::test]
async fn through_the_bridge_a_nucleus_that_comes_back_is_subscribed_to_again() {
    for mode in MODES {
        let mut nucleus = FakeNucleus::start(settings(mode).1);
        let mut link = local(&nucleus);
        up(&mut link).await;
        nucleus.restart(Token::Same);
        down(&mut link).await;
        up(&mut link).await;
        nucleus.pubsub_publish("floor/a/csr_res", b"hello");
        assert_eq!(message(&mut link).await.payload, b"hello");
    }
}
