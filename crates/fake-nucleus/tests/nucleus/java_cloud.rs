//! The classic nucleus between a component and the cloud: its spool, its one subscription for many,
//! and how both fail.

use std::time::Duration;

use fake_nucleus::{FakeNucleus, Hub, Mode, Settings, Timing, Token, Upstream};
use serde_json::json;

use crate::client::{Client, DEADLINE, eventually};

fn settings(hub: &Hub) -> Settings {
    Settings { upstream: Upstream::Hub(hub.clone()), ..Settings::new(Mode::Java) }
}

fn java() -> (Hub, FakeNucleus, Client) {
    start(|settings| settings)
}

fn start(change: impl FnOnce(Settings) -> Settings) -> (Hub, FakeNucleus, Client) {
    let hub = Hub::new();
    let nucleus = FakeNucleus::start(change(settings(&hub)));
    let client = Client::connect(&nucleus);
    (hub, nucleus, client)
}

fn request(filter: &str) -> serde_json::Value {
    json!({"topicName": filter, "qos": "1"})
}

#[test]
fn qos_1_is_spooled_while_offline_and_delivered_later_in_order() {
    let (hub, nucleus, mut client) = java();
    nucleus.set_online(false);
    for number in 0..20 {
        client.publish("t", &number.to_string(), "1").expect("a yes");
    }
    assert_eq!((hub.count(), nucleus.spooled()), (0, 20));
    nucleus.set_online(true);
    let received = hub.received().into_iter().map(|m| String::from_utf8(m.payload).unwrap());
    assert_eq!(received.collect::<Vec<_>>(), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(nucleus.spooled(), 0);
}

#[test]
fn qos_0_is_refused_while_offline() {
    let (_hub, nucleus, mut client) = java();
    nucleus.set_online(false);
    let refused = client.publish("a/b", "x", "0").unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("ServiceError"));
    let expected = "Publish to topic a/b failed: Device is offline. Dropping QoS 0 message.";
    assert_eq!(refused.message(), expected);
}

#[test]
fn the_spool_is_full_at_two_and_a_half_mebibytes() {
    let (_hub, nucleus, mut client) = java();
    nucleus.set_online(false);
    let payload = "x".repeat(128 << 10);
    for _ in 0..20 {
        client.publish("t", &payload, "1").expect("a yes");
    }
    let refused = client.publish("t", "x", "1").unwrap_err();
    let expected = "Publish to topic t failed: Message spool is full. Message could not be added.";
    assert_eq!(refused.message(), expected);
}

#[test]
fn a_payload_over_128_kib_is_refused() {
    let (_hub, _nucleus, mut client) = java();
    let refused = client.publish("t", &"x".repeat((128 << 10) + 1), "1").unwrap_err();
    assert!(refused.message().contains("exceeds the configured limit"), "{refused:?}");
}

#[test]
fn the_spool_is_lost_at_a_restart() {
    let (hub, mut nucleus, mut client) = java();
    nucleus.set_online(false);
    client.publish("t", "lost", "1").expect("a yes");
    nucleus.restart(Token::Same);
    nucleus.set_online(true);
    let mut client = Client::connect(&nucleus);
    client.publish("t", "kept", "1").expect("a yes");
    let received: Vec<_> = hub.received().into_iter().map(|m| m.payload).collect();
    assert_eq!(received, [b"kept"]);

    nucleus.set_online(false);
    client.publish("t", "lost as well", "1").expect("a yes");
    nucleus.lose_spool();
    nucleus.set_online(true);
    assert_eq!(hub.count(), 1);
}

#[test]
fn a_subscription_is_not_answered_before_the_first_link() {
    let (hub, nucleus, mut client) = start(|s| Settings { online: false, ..s });
    let stream = client.ask("SubscribeToIoTCore", &request("t"));
    client.settle();
    assert!(client.has_nothing_on(stream));
    nucleus.set_online(true);
    assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
    hub.publish("t", "x");
    assert_eq!(client.message(stream), "x");
}

#[test]
fn a_withheld_subscription_that_is_given_up_is_never_made() {
    let (hub, nucleus, mut client) = start(|s| Settings { online: false, ..s });
    let stream = client.ask("SubscribeToIoTCore", &request("t"));
    client.terminate(stream);
    client.settle();
    nucleus.set_online(true);
    assert_eq!(hub.subscriptions("core"), [""; 0]);
}

#[test]
fn a_subscription_fails_while_offline_once_there_was_a_link() {
    let (_hub, nucleus, mut client) = java();
    nucleus.set_online(false);
    let refused = client.call("SubscribeToIoTCore", &request("a/b")).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("ServiceError"));
    assert!(refused.message().starts_with("Subscribe to topic a/b failed"), "{refused:?}");
}

#[test]
fn a_message_between_the_suback_and_the_answer_is_dropped() {
    let timing = Timing { subscribe_gap: Duration::from_millis(300), ..Timing::default() };
    let (hub, nucleus, mut client) = start(|s| Settings { timing, ..s });
    let stream = client.ask("SubscribeToIoTCore", &request("t"));
    eventually(|| hub.subscriptions("core") == ["t"]);
    hub.publish("t", "too early");
    eventually(|| nucleus.dropped() == 1);
    assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
    hub.publish("t", "in time");
    assert_eq!(client.message(stream), "in time");
}

#[test]
fn a_filter_that_is_covered_is_not_asked_for() {
    let (hub, _nucleus, mut client) = java();
    let wide = client.subscribe("a/+");
    let narrow = client.subscribe("a/b");
    assert_eq!(hub.subscriptions("core"), ["a/+"]);
    hub.publish("a/b", "x");
    assert_eq!(client.message(wide), "x");
    assert_eq!(client.message(narrow), "x");
}

#[test]
fn a_filter_that_is_asked_for_again_before_the_unsuback_is_silent_for_good() {
    let timing = Timing { unsubscribe: Duration::from_millis(300), ..Timing::default() };
    let (hub, _nucleus, mut client) = start(|s| Settings { timing, ..s });
    let control = client.subscribe("control");
    let old = client.subscribe("t");
    client.terminate(old);
    let stranded = client.subscribe("t");
    hub.publish("t", "unheard");
    hub.publish("control", "heard");
    assert_eq!(client.message(control), "heard");
    assert!(client.has_nothing_on(stranded));
    // With the UNSUBACK the filter is free again: asking for it helps, waiting does not.
    client.terminate(stranded);
    let mut listening = client.subscribe("t");
    eventually(|| {
        if hub.subscriptions("core").contains(&"t".to_owned()) {
            return true;
        }
        client.terminate(listening);
        listening = client.subscribe("t");
        false
    });
    hub.publish("t", "again");
    assert_eq!(client.message(listening), "again");
}

#[test]
fn a_filter_that_could_not_be_given_up_while_offline_still_counts() {
    let (hub, nucleus, mut client) = java();
    let stream = client.subscribe("t");
    nucleus.set_online(false);
    client.terminate(stream);
    let stream = client.subscribe("t");
    nucleus.set_online(true);
    hub.publish("t", "x");
    assert_eq!(client.message(stream), "x");
}

#[test]
fn what_comes_while_the_link_is_down_is_delivered_when_it_is_back() {
    let (hub, nucleus, mut client) = java();
    let stream = client.subscribe("t");
    nucleus.set_online(false);
    hub.publish("t", "meanwhile");
    nucleus.set_online(true);
    assert_eq!(client.message(stream), "meanwhile");
}

#[test]
fn what_the_cloud_had_kept_is_gone_after_a_restart() {
    let (hub, mut nucleus, mut client) = java();
    client.subscribe("t");
    nucleus.set_online(false);
    hub.publish("t", "lost");
    nucleus.restart(Token::Same);
    nucleus.set_online(true);
    assert_eq!(hub.subscriptions("core"), [""; 0]);
    let mut client = Client::connect(&nucleus);
    let stream = client.subscribe("t");
    hub.publish("t", "kept");
    assert_eq!(client.message(stream), "kept");
}

#[test]
fn a_dead_link_that_nobody_noticed_takes_everything_and_loses_qos_0() {
    let (hub, nucleus, mut client) = java();
    let stream = client.subscribe("down");
    nucleus.freeze_link(true);
    client.publish("up", "lost", "0").expect("a yes");
    for number in 0..20 {
        client.publish("up", &number.to_string(), "1").expect("a yes");
    }
    let pending = client.ask("SubscribeToIoTCore", &request("other"));
    hub.publish("down", "kept");
    client.settle();
    assert_eq!((hub.count(), nucleus.spooled()), (0, 20));
    assert!(client.has_nothing_on(stream) && client.has_nothing_on(pending));
    nucleus.freeze_link(false);
    assert_eq!(hub.count(), 20);
    assert_eq!(client.message(stream), "kept");
    let refused = client.next_on(pending).answer().unwrap_err();
    assert!(refused.message().starts_with("Subscribe to topic other failed"), "{refused:?}");
}

#[test]
fn a_dead_link_that_is_taken_away_is_noticed() {
    let (hub, nucleus, mut client) = java();
    nucleus.freeze_link(true);
    client.publish("t", "x", "1").expect("a yes");
    nucleus.set_online(false);
    assert!(client.publish("t", "x", "0").is_err());
    nucleus.set_online(true);
    assert_eq!(hub.count(), 1);
}

#[test]
fn at_most_five_publishes_are_under_way() {
    let timing = Timing { round_trip: Duration::from_secs(3_600), ..Timing::default() };
    let (hub, nucleus, mut client) = start(|s| Settings { timing, ..s });
    for _ in 0..8 {
        client.publish("t", "x", "1").expect("a yes");
    }
    assert_eq!((hub.count(), nucleus.spooled()), (5, 8));
    // What was not acknowledged is sent again on the next link.
    nucleus.set_online(false);
    nucleus.set_online(true);
    assert_eq!(hub.count(), 10);
}

#[test]
fn a_closed_connection_gives_its_subscriptions_up() {
    let (hub, nucleus, mut client) = java();
    client.subscribe("t");
    drop(client);
    eventually(|| hub.subscriptions("core").is_empty());
    assert!(hub.take("none").wait(Duration::ZERO).is_none());
    let mut client = Client::connect(&nucleus);
    client.publish("t", "x", "1").expect("a yes");
    assert!(hub.take("t").wait(DEADLINE).is_some());
}
