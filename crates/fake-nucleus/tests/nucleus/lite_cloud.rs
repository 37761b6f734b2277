//! Nucleus lite between a component and the cloud: it keeps nothing, and says little.

use std::time::Duration;

use fake_nucleus::{FakeNucleus, Hub, Mode, Settings, Timing, Upstream};
use serde_json::json;

use crate::client::Client;

fn lite() -> (Hub, FakeNucleus, Client) {
    with(Timing::default())
}

fn with(timing: Timing) -> (Hub, FakeNucleus, Client) {
    let hub = Hub::new();
    let upstream = Upstream::Hub(hub.clone());
    let nucleus = FakeNucleus::start(Settings { upstream, timing, ..Settings::new(Mode::Lite) });
    let client = Client::connect(&nucleus);
    (hub, nucleus, client)
}

/// A cloud that never acknowledges anything.
fn mute() -> Timing {
    Timing { round_trip: Duration::from_secs(3_600), ..Timing::default() }
}

#[test]
fn nothing_is_taken_while_offline() {
    let (hub, nucleus, mut client) = lite();
    nucleus.set_online(false);
    for qos in ["0", "1"] {
        let refused = client.publish("t", "x", qos).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("ServiceError"));
        assert_eq!(refused.message(), "Failed to publish the message.");
    }
    let request = json!({"topicName": "t", "qos": "1"});
    let refused = client.call("SubscribeToIoTCore", &request).unwrap_err();
    assert_eq!(refused.message(), "Failed to bind the subscription.");
    nucleus.set_online(true);
    assert_eq!(hub.count(), 0);
    assert_eq!(hub.subscriptions("core"), [""; 0]);
}

#[test]
fn ten_publishes_may_be_unacknowledged() {
    let (_hub, _nucleus, mut client) = with(mute());
    for _ in 0..10 {
        client.publish("t", "x", "1").expect("a yes");
    }
    assert_eq!(
        client.publish("t", "x", "1").unwrap_err().message(),
        "Failed to publish the message."
    );
    client.publish("t", "x", "0").expect("a yes: it is not acknowledged anyway");
}

#[test]
fn fifteen_kilobytes_may_be_unacknowledged() {
    let (_hub, _nucleus, mut client) = with(mute());
    let payload = "x".repeat(4_900);
    for _ in 0..3 {
        client.publish("t", &payload, "1").expect("a yes");
    }
    assert!(client.publish("t", &payload, "1").is_err());
}

#[test]
fn what_is_taken_on_a_dead_link_is_lost_for_good() {
    let (hub, nucleus, mut client) = lite();
    let stream = client.subscribe("t");
    nucleus.freeze_link(true);
    for _ in 0..10 {
        client.publish("t", "lost", "1").expect("a yes");
    }
    assert!(client.publish("t", "refused", "1").is_err());
    hub.publish("t", "lost as well");
    nucleus.freeze_link(false);
    client.publish("t", "kept", "1").expect("a yes");
    assert_eq!(client.message(stream), "kept");
    assert_eq!(hub.count(), 1);
}

#[test]
fn its_subscriptions_outlive_the_link_but_what_came_meanwhile_does_not() {
    let (hub, nucleus, mut client) = lite();
    let stream = client.subscribe("t");
    nucleus.set_online(false);
    hub.publish("t", "lost");
    nucleus.set_online(true);
    hub.publish("t", "kept");
    assert_eq!(client.message(stream), "kept");
}

#[test]
fn a_message_of_more_than_5_000_bytes_vanishes() {
    let (hub, _nucleus, mut client) = lite();
    let topic = "x".repeat(28);
    let stream = client.subscribe(&topic);
    for size in [4_970, 4_960] {
        hub.publish(&topic, "x".repeat(size));
    }
    assert_eq!(client.message(stream).len(), 4_960);
}

#[test]
fn a_restart_of_iotcored_kills_subscriptions_in_silence() {
    let (hub, nucleus, mut client) = lite();
    let dead = client.subscribe("t");
    nucleus.restart_iotcored();
    client.publish("t", "unheard", "1").expect("a yes");
    let alive = client.subscribe("t");
    hub.publish("t", "heard");
    assert_eq!(client.message(alive), "heard");
    assert!(client.has_nothing_on(dead));
    // To end the dead one harms nobody.
    client.terminate(dead);
    hub.publish("t", "still heard");
    assert_eq!(client.message(alive), "still heard");
}

#[test]
fn two_subscriptions_to_one_filter_hear_everything_and_end_one_by_one() {
    let (hub, _nucleus, mut client) = lite();
    let (first, second) = (client.subscribe("t"), client.subscribe("t"));
    hub.publish("t", "1");
    assert_eq!(client.message(first), "1");
    assert_eq!(client.message(second), "1");
    client.terminate(first);
    client.settle();
    hub.publish("t", "2");
    assert_eq!(client.message(second), "2");
    client.terminate(second);
    client.settle();
    assert_eq!(hub.subscriptions("core"), [""; 0]);
}

#[test]
fn a_message_may_overtake_the_answer_to_its_subscription() {
    let gap = Duration::from_millis(300);
    let (hub, _nucleus, mut client) = with(Timing { subscribe_gap: gap, ..Timing::default() });
    let stream = client.ask("SubscribeToIoTCore", &json!({"topicName": "t", "qos": "1"}));
    crate::client::eventually(|| hub.subscriptions("core") == ["t"]);
    hub.publish("t", "early");
    assert_eq!(client.message(stream), "early");
    assert_eq!(client.next_on(stream).answer(), Ok(json!({})));
}

#[test]
fn a_hundred_subscriptions_are_all() {
    let (_hub, _nucleus, mut client) = lite();
    for number in 0..100 {
        client.subscribe(&number.to_string());
    }
    let request = json!({"topicName": "t", "qos": "1"});
    assert!(client.call("SubscribeToIoTCore", &request).is_err());
}
