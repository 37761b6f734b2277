//! Notices: from here to the cloud's broker to settled, and every one ends visibly.

use certrelay::{
    reason::Reason,
    relay::{Reached, Side},
    wire::Kind,
};
use serde_json::json;

use crate::bench::{Answer, Bench, PUMP, bytes, days, hours, minutes, name, secs};

/// A child has just acknowledged its certificate.
fn acked(b: &mut Bench) {
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.forget();
    b.ack(PUMP, id);
}

fn acks(b: &Bench) -> usize {
    b.sent(Side::Cloud, Kind::CrtAck).len()
}

fn reached(b: &Bench) -> Option<Reached> {
    b.record(PUMP).outbox.ack.as_ref().map(|notice| notice.reached)
}

#[test]
fn a_notice_stops_repeating_when_our_own_message_came_back() {
    let mut b = Bench::up();
    acked(&mut b);
    assert!(matches!(reached(&b), Some(Reached::Broker { again: 0, .. })));
    b.advance(hours(23));
    assert_eq!(acks(&b), 1);
    assert!(reached(&b).is_some(), "it stays until it is settled");
}

#[test]
fn a_notice_that_does_not_come_back_is_repeated_under_one_mid() {
    let mut b = Bench::up();
    b.loopback = false;
    acked(&mut b);
    b.advance(hours(12));
    assert!((5..=24).contains(&acks(&b)), "{} copies", acks(&b));
    let mids: std::collections::BTreeSet<_> =
        b.sent(Side::Cloud, Kind::CrtAck).iter().map(|p| p.mid()).collect();
    assert_eq!(mids.len(), 1);
    assert!(matches!(reached(&b), Some(Reached::Here { .. })));
}

#[test]
fn a_notice_keeps_its_mid_over_a_restart() {
    let mut b = Bench::up();
    b.loopback = false;
    acked(&mut b);
    let mid = b.last(Side::Cloud, Kind::CrtAck).mid();
    b.restart();
    b.links_up();
    b.forget();
    b.advance(minutes(2));
    assert_eq!(b.last(Side::Cloud, Kind::CrtAck).mid(), mid);
}

#[test]
fn only_a_receipt_of_this_very_notice_counts() {
    let mut b = Bench::up();
    b.loopback = false;
    acked(&mut b);
    let theirs = json!({ "core": "core-1", "mid": "00".repeat(16) });
    b.cloud(PUMP, Kind::CrtAck, &bytes(theirs));
    b.cloud(PUMP, Kind::CrtAck, &bytes(json!({ "core": "core-1" })));
    let mid = b.last(Side::Cloud, Kind::CrtAck).mid().to_string();
    b.cloud(PUMP, Kind::CrtAck, &bytes(json!({ "mid": mid })));
    b.cloud("pump-2", Kind::CrtAck, &bytes(json!({ "core": "core-1", "mid": mid })));
    b.cloud(PUMP, Kind::CrtAck, &bytes(json!({ "core": "core-2", "mid": mid })));
    assert!(matches!(reached(&b), Some(Reached::Here { .. })));
    b.cloud(PUMP, Kind::CrtAck, &bytes(json!({ "core": "core-1", "mid": mid })));
    assert!(matches!(reached(&b), Some(Reached::Broker { .. })));
}

#[test]
fn a_result_settles_a_notice_and_says_so() {
    let mut b = Bench::up();
    acked(&mut b);
    b.settle(PUMP, Kind::CrtAck);
    assert!(reached(&b).is_none() && b.disk.record(&name(PUMP)).expect("kept").outbox.is_empty());
    assert_eq!(b.counted(Side::Cloud, Reason::Settled), 1);
    b.advance(days(10));
    assert_eq!(acks(&b), 1);
}

#[test]
fn a_result_settles_a_notice_by_its_rotation_too() {
    let mut b = Bench::up();
    acked(&mut b);
    b.verdict(PUMP, json!({ "for": "crt_ack", "ok": true, "rotationId": "r0" }));
    assert!(reached(&b).is_some());
    b.verdict(PUMP, json!({ "for": "crt_err", "ok": true, "rotationId": "r1" }));
    assert!(reached(&b).is_some());
    b.verdict(PUMP, json!({ "for": "crt_ack", "ok": true, "rotationId": "r1" }));
    assert!(reached(&b).is_none());
}

#[test]
fn a_final_refusal_of_a_notice_drops_it_and_one_that_is_not_final_does_not() {
    let mut b = Bench::up();
    acked(&mut b);
    let mid = b.last(Side::Cloud, Kind::CrtAck).mid().to_string();
    b.verdict(PUMP, json!({ "for": "crt_ack", "ok": false, "mid": mid }));
    assert!(reached(&b).is_some());
    b.verdict(PUMP, json!({ "for": "crt_ack", "ok": false, "final": true, "mid": mid }));
    assert!(reached(&b).is_none());
    assert_eq!(b.counted(Side::Cloud, Reason::CloudRefused), 1);
}

#[test]
fn a_notice_at_the_broker_is_sent_again_after_a_day_and_a_week_and_then_ends_unsettled() {
    let mut b = Bench::up();
    acked(&mut b);
    let began = b.time;
    b.advance(days(30));
    let times: Vec<_> = b.sent(Side::Cloud, Kind::CrtAck).iter().map(|p| p.at - began).collect();
    assert_eq!(times.len(), 3, "{times:?}");
    assert!(times[1] >= days(1) && times[1] < days(1) + minutes(5), "{times:?}");
    assert!(times[2] >= days(7) && times[2] < days(7) + minutes(5), "{times:?}");
    assert!(reached(&b).is_none());
    assert_eq!(b.counted(Side::Cloud, Reason::Unsettled), 1);
}

#[test]
fn the_day_and_the_week_go_on_over_restarts() {
    let mut b = Bench::up();
    acked(&mut b);
    let began = b.time;
    for _ in 0..20 {
        b.advance(hours(11));
        b.restart();
        b.links_up();
    }
    b.advance(days(3));
    let times: Vec<_> = b.sent(Side::Cloud, Kind::CrtAck).iter().map(|p| p.at - began).collect();
    assert_eq!(times.len(), 3, "{times:?}");
    assert!(times[1] >= days(1) && times[1] < days(2) && times[2] >= days(7), "{times:?}");
    assert!(reached(&b).is_none());
}

#[test]
fn a_receipt_that_comes_twice_counts_once() {
    let mut b = Bench::up();
    acked(&mut b);
    let ack = b.last(Side::Cloud, Kind::CrtAck).clone();
    for _ in 0..5 {
        b.cloud(PUMP, Kind::CrtAck, &ack.payload);
    }
    assert!(matches!(reached(&b), Some(Reached::Broker { again: 0, .. })));
}

#[test]
fn a_notice_that_never_comes_back_ends_unconfirmed_after_a_day_and_says_so() {
    let mut b = Bench::up();
    b.loopback = false;
    acked(&mut b);
    b.advance(hours(23));
    assert!(reached(&b).is_some());
    b.advance(hours(3));
    assert!(reached(&b).is_none());
    assert_eq!(b.counted(Side::Cloud, Reason::Unconfirmed), 1);
    assert!(acks(&b) >= 3);
}

#[test]
fn a_notice_does_not_end_while_the_link_is_down() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Offline;
    b.probes_return = false;
    b.cloud_down();
    acked_offline(&mut b);
    b.advance(days(60));
    assert!(reached(&b).is_some());
}

/// The certificate came before the link broke; the ack comes after.
fn acked_offline(b: &mut Bench) {
    b.cloud_answer = Answer::Took;
    b.probes_return = true;
    b.cloud_up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.cloud_down();
    b.forget();
    b.ack(PUMP, id);
}

#[test]
fn a_notice_does_not_end_while_nothing_is_known_of_the_link() {
    let mut b = Bench::up();
    acked_offline(&mut b);
    // A nucleus that says yes to everything, and sends nothing.
    b.probes_return = false;
    b.loopback = false;
    b.cloud_up();
    b.advance(days(3));
    assert_eq!(b.relay.cloud_state().as_str(), "unknown");
    assert!(reached(&b).is_some(), "the link was never up");
}

#[test]
fn there_is_one_slot_a_kind_and_the_newest_wins() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    b.fail(PUMP, "one");
    b.fail(PUMP, "two");
    let errors = b.record(PUMP).outbox.err.clone().expect("a notice");
    assert!(format!("{errors:?}").contains("two"));
    assert_eq!(b.counted(None, Reason::Superseded), 1);

    let mut b = Bench::up();
    acked(&mut b);
    b.fail(PUMP, "one");
    assert!(b.record(PUMP).outbox.ack.is_some() && b.record(PUMP).outbox.err.is_some());
}

#[test]
fn a_new_rotation_does_not_wait_for_an_old_receipt() {
    let mut b = Bench::up();
    b.loopback = false;
    acked(&mut b);
    b.reach_await_ack(PUMP, "r2", 2);
    let notice = b.record(PUMP).outbox.ack.clone().expect("the old notice waits beside it");
    assert_eq!(notice.rotation.expect("named").as_str(), "r1");
}

#[test]
fn what_the_link_did_not_take_is_sent_when_it_is_up_again() {
    let mut b = Bench::up();
    acked_offline(&mut b);
    b.advance(hours(30));
    assert_eq!(acks(&b), 0, "while it is down nothing is handed over");
    b.cloud_up();
    assert_eq!(acks(&b), 1);
    assert!(matches!(reached(&b), Some(Reached::Broker { .. })));
}

#[test]
fn one_error_a_child_code_and_hour_goes_upstream() {
    let mut b = Bench::up();
    for _ in 0..5 {
        b.fail(PUMP, "install-failed");
        b.advance(minutes(10));
    }
    assert_eq!(b.errors(), ["install-failed"]);
    assert_eq!(b.counted(None, Reason::ErrorSuppressed), 4);
    b.fail(PUMP, "other");
    b.fail("pump-2", "install-failed");
    assert_eq!(b.errors().len(), 3);
    b.advance(minutes(20));
    b.fail(PUMP, "install-failed");
    assert_eq!(b.errors().len(), 4);
}

#[test]
fn no_child_makes_the_gateway_send_many_errors_by_inventing_codes() {
    let mut b = Bench::up();
    for n in 0..100 {
        b.fail(PUMP, &format!("code-{n}"));
        b.advance(secs(30));
    }
    assert!(b.errors().len() <= 10, "{:?}", b.errors());
}

#[test]
fn a_rotation_that_fails_soon_after_another_is_reported_once_the_hour_is_over() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.fail(PUMP, "install-failed");
    b.settle(PUMP, Kind::CrtErr);
    b.reach_await_ack(PUMP, "r2", 2);
    b.fail(PUMP, "install-failed");
    b.expect(PUMP, "done");
    b.advance(hours(3));
    let rotations: Vec<_> =
        b.sent(Side::Cloud, Kind::CrtErr).iter().filter_map(|p| p.field("rotationId")).collect();
    assert_eq!(rotations, ["r1", "r2"], "what was acknowledged ends visibly");
}

#[test]
fn the_words_of_a_device_are_short_and_harmless() {
    let mut b = Bench::up();
    let words = format!("\u{1b}[2J{}", "x".repeat(5000));
    b.local(PUMP, Kind::CrtErr, &bytes(json!({ "error": words, "code": "A B\n" })));
    let sent = b.last(Side::Cloud, Kind::CrtErr);
    let error = sent.field("error").expect("in words");
    assert!(error.len() <= 256 && !error.chars().any(char::is_control));
    assert_eq!(sent.field("code").as_deref(), Some("device-error"));
}
