//! The state of the link to the cloud: up, down, or nobody knows.

use certrelay::{
    relay::{CloudState, Event, Side},
    wire::Kind,
};
use serde_json::json;

use crate::bench::{Answer, Bench, PUMP, bytes, days, hours, minutes, secs};

/// A link that says yes to everything, and through which nothing comes.
fn swallowing() -> Bench {
    let mut b = Bench::new();
    b.probes_return = false;
    b.loopback = false;
    b.floor_up(true);
    b.cloud_up();
    b
}

#[test]
fn a_link_that_connects_is_unknown_until_something_comes_through() {
    let mut b = swallowing();
    assert_eq!(b.relay.cloud_state(), CloudState::Unknown);
    b.advance(hours(1));
    assert_eq!(b.relay.cloud_state(), CloudState::Unknown);
    b.probes_return = true;
    b.advance(minutes(6));
    assert_eq!(b.relay.cloud_state(), CloudState::Up);
}

#[test]
fn any_downlink_proves_the_link() {
    let mut b = swallowing();
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "core": "core-2" })));
    assert_eq!(b.relay.cloud_state(), CloudState::Up);
}

#[test]
fn a_message_of_ours_that_comes_back_proves_the_link() {
    let mut b = swallowing();
    b.loopback = true;
    b.fail(PUMP, "broken");
    assert_eq!(b.relay.cloud_state(), CloudState::Up);
}

#[test]
fn a_stranger_s_word_on_the_probe_s_topic_proves_nothing() {
    let mut b = swallowing();
    let topic = "certrelay/core-1/probe";
    b.message(Side::Cloud, topic, b"", false, false);
    b.message(Side::Cloud, topic, "00".repeat(16).as_bytes(), false, false);
    assert_eq!(b.relay.cloud_state(), CloudState::Unknown);
}

#[test]
fn a_link_on_which_nothing_is_heard_is_probed_and_doubted_when_the_probe_is_lost() {
    let mut b = Bench::up();
    b.forget();
    b.advance(minutes(4));
    assert!(b.probes.is_empty());
    b.advance(hours(1));
    assert!((10..=13).contains(&b.probes.len()), "{} probes", b.probes.len());
    assert_eq!(b.relay.cloud_state(), CloudState::Up);
    b.probes_return = false;
    b.advance(minutes(6));
    assert_eq!(b.relay.cloud_state(), CloudState::Unknown);
}

#[test]
fn a_link_that_takes_all_and_delivers_nothing_is_cured_within_two_probe_intervals() {
    let mut b = Bench::up();
    b.advance(hours(1));
    assert!(b.cures.is_empty(), "{:?}", b.cures);
    (b.probes_return, b.loopback) = (false, false);
    b.advance(minutes(10));
    assert_eq!(b.cures.len(), 1, "{:?}", b.cures);
}

#[test]
fn a_link_that_no_cure_helps_is_cured_more_and_more_seldom() {
    let mut b = swallowing();
    b.advance(days(2));
    let apart: Vec<_> = b.cures.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.iter().all(|pause| *pause >= minutes(10)), "{apart:?}");
    assert!((8..=20).contains(&b.cures.len()), "{apart:?}");
}

#[test]
fn a_link_that_is_heard_needs_no_cure_though_its_probes_are_forbidden() {
    let mut b = swallowing();
    for _ in 0..100 {
        b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "core": "core-2" })));
        b.advance(minutes(4));
    }
    assert!(b.cures.is_empty(), "{:?}", b.cures);
}

#[test]
fn subscriptions_are_renewed_soon_after_they_were_made_and_then_once_an_hour_whatever_is_heard() {
    for heard in [true, false] {
        let mut b = if heard { Bench::up() } else { swallowing() };
        let began = b.time;
        b.advance(hours(5) + minutes(1));
        let after: Vec<_> = b.renewals.iter().map(|renewal| *renewal - began).collect();
        let hourly = (0..=5).map(|hour| hours(hour) + secs(10));
        assert_eq!(after, hourly.collect::<Vec<_>>(), "{heard}");
    }
}

#[test]
fn a_link_that_is_not_connected_has_nothing_to_renew() {
    let mut b = Bench::up();
    b.cloud_down();
    b.advance(days(1));
    assert!(b.renewals.is_empty(), "{:?}", b.renewals);
}

#[test]
fn a_link_that_says_it_is_offline_is_not_cured() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Offline;
    b.advance(days(1));
    assert!(b.cures.is_empty(), "{:?}", b.cures);
}

#[test]
fn a_link_of_which_nothing_is_known_is_not_probed_without_end() {
    let mut b = swallowing();
    b.advance(days(1));
    assert!(b.probes.len() <= 320, "{} probes in a day", b.probes.len());
}

#[test]
fn a_lost_probe_says_nothing_when_something_came_through_since() {
    let mut b = Bench::up();
    b.probes_return = false;
    b.advance(minutes(5) + secs(10));
    assert_eq!(b.relay.cloud_state(), CloudState::Up, "the probe is still out");
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "core": "core-2" })));
    b.advance(secs(40));
    assert_eq!(b.relay.cloud_state(), CloudState::Up, "a downlink came 40 seconds ago");
}

#[test]
fn nothing_but_probes_is_handed_to_a_link_that_is_down() {
    let mut b = Bench::up();
    b.cloud_down();
    b.fail(PUMP, "broken");
    b.csr("pump-2", 1);
    b.forget();
    b.advance(days(1));
    assert!(b.published.iter().all(|p| p.side == Side::Local));
    assert!(b.probes.is_empty() && b.verifies.is_empty());
    assert_eq!(b.relay.cloud_state(), CloudState::Down);
}

#[test]
fn a_message_that_is_refused_as_offline_takes_the_link_down() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    b.fail(PUMP, "broken");
    let copy = b.last(Side::Cloud, Kind::CrtErr).copy;
    let outcome = Err(certrelay::links::SendError::Offline);
    b.feed(Event::Sent { side: Side::Cloud, mid: copy, outcome });
    assert_eq!(b.relay.cloud_state(), CloudState::Down);
    b.forget();
    b.fail("pump-2", "broken");
    assert!(b.published.is_empty());
}

#[test]
fn a_link_that_refuses_all_as_offline_is_not_probed_without_pause() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Offline;
    b.fail(PUMP, "broken");
    b.advance(minutes(10));
    assert!(b.probes.len() < 60, "{} probes in ten minutes", b.probes.len());
}

#[test]
fn a_floor_that_refuses_all_as_offline_is_not_offered_without_pause() {
    let mut b = Bench::up();
    b.floor_answer = Answer::Offline;
    b.request(PUMP, "r1");
    b.advance(minutes(1));
    assert!(b.sent(Side::Local, Kind::CsrReq).len() < 60);
}

#[test]
fn a_link_that_was_offline_and_works_again_is_found_to_be_up() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    b.fail(PUMP, "broken");
    let copy = b.last(Side::Cloud, Kind::CrtErr).copy;
    b.cloud_answer = Answer::Took;
    let outcome = Err(certrelay::links::SendError::Offline);
    b.feed(Event::Sent { side: Side::Cloud, mid: copy, outcome });
    b.advance(minutes(1));
    assert_eq!(b.relay.cloud_state(), CloudState::Up);
    assert_eq!(b.errors().len(), 2);
}

#[test]
fn a_link_of_which_nothing_is_known_gets_little() {
    let mut b = swallowing();
    for n in 0..100 {
        b.fail(&format!("pump-{n}"), "broken");
    }
    assert!(b.errors().len() <= 2, "{} at once", b.errors().len());
    b.advance(secs(10));
    assert!(b.errors().len() <= 12, "{} in ten seconds", b.errors().len());

    let mut b = swallowing();
    b.cloud_answer = Answer::Nothing;
    for n in 0..100 {
        b.fail(&format!("pump-{n}"), "broken");
    }
    b.advance(hours(1));
    assert_eq!(b.errors().len(), 2, "few outstanding");
}

#[test]
fn a_missing_loopback_never_stops_the_sending() {
    let mut b = Bench::up();
    b.loopback = false;
    for n in 0..100 {
        b.fail(&format!("pump-{n}"), "broken");
    }
    b.advance(secs(10));
    assert!(b.errors().len() >= 100);
}

#[test]
fn a_link_of_which_nothing_is_known_gets_one_copy_of_a_message() {
    let mut b = swallowing();
    b.fail(PUMP, "broken");
    b.advance(hours(20));
    assert_eq!(b.relay.cloud_state(), CloudState::Unknown);
    assert_eq!(b.errors().len(), 1, "one un-receipted copy per link-up");
}
