//! Whose ack: an ack that retires the wrong certificate strands a child for good.

use certrelay::{
    reason::Reason,
    relay::{Ended, Side, Stage},
    wire::{AckProof, Kind},
};
use serde_json::json;

use crate::{
    bench::{Answer, Bench, PUMP, bytes, crt_payload, days, hours, minutes, secs},
    pki,
};

fn proof(b: &Bench) -> Option<AckProof> {
    match &b.record(PUMP).stage {
        Stage::Done(done) => match done.outcome {
            Ended::Acked { proof, .. } => Some(proof),
            _ => None,
        },
        _ => None,
    }
}

/// No ack of the rotation under way counted, and none went up.
fn assert_stale(b: &Bench) {
    b.expect(PUMP, "await-ack");
    assert!(b.sent(Side::Cloud, Kind::CrtAck).is_empty(), "{:?}", b.published);
}

#[test]
fn an_ack_that_names_the_held_certificate_counts_however_it_comes() {
    for dup in [false, true] {
        let mut b = Bench::up();
        let id = b.reach_await_ack(PUMP, "r1", 1);
        b.restart();
        b.cloud_up();
        b.floor_answer = Answer::Nothing;
        b.floor_up(true);
        assert_eq!(b.relay.local_state(), (true, false), "before the barrier");
        let payload = bytes(json!({ "certificateId": id.to_string() }));
        b.message(Side::Local, &format!("floor/{PUMP}/crt_ack"), &payload, dup, false);
        assert_eq!(proof(&b), Some(AckProof::Named));
        let ack = b.last(Side::Cloud, Kind::CrtAck);
        assert_eq!(ack.field("certificateId"), Some(id.to_string()));
        assert_eq!(ack.field("ack").as_deref(), Some("named"));
        assert_eq!(ack.field("rotationId").as_deref(), Some("r1"));
    }
}

#[test]
fn an_ack_that_names_one_of_the_last_four_superseded_certificates_is_stale() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    let ids: Vec<_> = (1..=6).map(|serial| b.crt(PUMP, 1, serial)).collect();
    b.forget();
    for id in &ids[1..5] {
        b.ack(PUMP, *id);
    }
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 4);
    b.ack(PUMP, ids[0]);
    assert_eq!(b.counted(Side::Local, Reason::AckUnknown), 1);
    assert_eq!(b.errors(), ["ack-unknown"]);
    let error = b.last(Side::Cloud, Kind::CrtErr);
    assert_eq!(error.field("certificateId"), Some(ids[0].to_string()));
    assert_stale(&b);
}

#[test]
fn an_ack_that_names_the_certificate_of_the_rotation_before_is_stale() {
    let mut b = Bench::up();
    let before = b.reach_done(PUMP, "r1", 1);
    b.reach_await_ack(PUMP, "r2", 2);
    b.forget();
    b.ack(PUMP, before);
    assert_stale(&b);
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 1);
    assert!(b.errors().is_empty(), "{:?}", b.errors());
}

#[test]
fn an_ack_that_names_a_certificate_that_was_lost_from_the_store_is_not_unknown() {
    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    let lost = certrelay::relay::Lost::Certificate(id);
    b.disk.bodies.remove(&(crate::bench::name(PUMP), certrelay::relay::Body::Certificate));
    b.feed(certrelay::relay::Event::BodyLost { child: crate::bench::name(PUMP), lost });
    b.ack(PUMP, id);
    assert_eq!(b.errors(), Vec::<String>::new());
}

#[test]
fn the_first_bare_ack_asks_for_an_echo_and_the_second_counts() {
    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.forget();
    b.bare_ack(PUMP);
    assert_stale(&b);
    assert_eq!(b.sent(Side::Local, Kind::Crt).len(), 1, "it is asked once more");
    b.bare_ack(PUMP);
    assert_eq!(proof(&b), Some(AckProof::Bare));
    let ack = b.last(Side::Cloud, Kind::CrtAck);
    assert_eq!(ack.field("ack").as_deref(), Some("bare"));
    assert_eq!(ack.field("certificateId"), Some(id.to_string()));
}

#[test]
fn one_bare_ack_never_counts_however_long_nobody_complains() {
    for floor_stands in [true, false] {
        let mut b = Bench::up();
        b.reach_await_ack(PUMP, "r1", 1);
        b.bare_ack(PUMP);
        if !floor_stands {
            b.floor_down();
        }
        b.advance(days(20));
        assert_stale(&b);
    }
}

#[test]
fn a_complaint_undoes_a_bare_ack() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.bare_ack(PUMP);
    b.advance(hours(23));
    b.fail(PUMP, "install-failed");
    b.advance(days(3));
    assert_eq!(proof(&b), None);
    assert!(b.sent(Side::Cloud, Kind::CrtAck).is_empty());
}

#[test]
fn a_bare_ack_before_the_barrier_is_stale() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.floor_down();
    b.floor_answer = Answer::Nothing;
    b.floor_up(true);
    b.advance(hours(2));
    b.forget();
    b.bare_ack(PUMP);
    b.bare_ack(PUMP);
    assert_stale(&b);
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 2);
}

#[test]
fn a_barrier_of_another_connection_or_a_forged_one_opens_nothing() {
    let mut b = Bench::new();
    b.cloud_up();
    b.floor_answer = Answer::Nothing;
    b.floor_up(true);
    let first = *b.barriers.last().expect("the barrier was sent");
    b.floor_down();
    b.floor_up(true);
    let second = *b.barriers.last().expect("another barrier was sent");
    assert_ne!(first, second);
    let topic = "certrelay/core-1/barrier";
    b.message(Side::Local, topic, first.to_string().as_bytes(), false, false);
    b.message(Side::Local, topic, b"nonsense", false, false);
    b.message(Side::Local, topic, b"", false, false);
    b.message(Side::Local, topic, second.to_string().as_bytes(), false, true);
    assert_eq!(b.relay.local_state(), (true, false));
    b.message(Side::Local, topic, second.to_string().as_bytes(), false, false);
    assert_eq!(b.relay.local_state(), (true, true));
}

#[test]
fn a_barrier_that_does_not_come_back_is_sent_again() {
    let mut b = Bench::new();
    b.floor_answer = Answer::Nothing;
    b.floor_up(true);
    b.advance(minutes(5));
    assert!((5..=12).contains(&b.barriers.len()), "{} barriers", b.barriers.len());
}

#[test]
fn a_bare_ack_that_is_redelivered_retained_or_empty_is_stale() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    let topic = format!("floor/{PUMP}/crt_ack");
    for _ in 0..3 {
        b.message(Side::Local, &topic, b"{}", true, false);
        b.message(Side::Local, &topic, b"{}", false, true);
        b.message(Side::Local, &topic, b"", false, false);
    }
    assert_stale(&b);
    b.advance(days(2));
    assert_stale(&b);
}

#[test]
fn a_bare_ack_is_stale_when_the_certificate_went_out_on_an_earlier_connection() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.floor_down();
    b.floor_up(true);
    assert_eq!(b.relay.local_state(), (true, true));
    b.bare_ack(PUMP);
    assert_stale(&b);
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 1);
}

#[test]
fn a_bare_ack_is_stale_when_this_very_certificate_was_not_sent() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.floor_answer = Answer::Offline;
    b.floor_down();
    b.crt(PUMP, 1, 2);
    b.floor_answer = Answer::Nothing;
    b.floor_up(true);
    b.bare_ack(PUMP);
    assert_stale(&b);

    // The one that took its place on the same connection waits for its time.
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    let until = b.unix() + 86_400;
    let mut payload: serde_json::Value =
        serde_json::from_slice(&crt_payload(&pki::certificate(PUMP, 1, 2))).expect("an object");
    payload["holdUntil"] = until.into();
    b.cloud(PUMP, Kind::Crt, &bytes(payload));
    b.bare_ack(PUMP);
    b.bare_ack(PUMP);
    assert_stale(&b);
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 2);

    // A held certificate was never sent, because the cloud said to wait.
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    let until = b.unix() + 86_400;
    let der = pki::certificate(PUMP, 1, 1);
    let mut payload: serde_json::Value =
        serde_json::from_slice(&crt_payload(&der)).expect("an object");
    payload["holdUntil"] = until.into();
    b.cloud(PUMP, Kind::Crt, &bytes(payload));
    b.bare_ack(PUMP);
    b.bare_ack(PUMP);
    assert_stale(&b);
}

#[test]
fn an_echo_is_asked_anew_on_a_new_connection_and_for_a_new_certificate() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.bare_ack(PUMP);
    b.crt(PUMP, 1, 2);
    b.bare_ack(PUMP);
    assert_stale(&b);

    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.bare_ack(PUMP);
    b.floor_down();
    b.floor_up(true);
    b.bare_ack(PUMP);
    assert_stale(&b);
    // Sent on this connection; but an ack may still be one about what was there before.
    b.advance(secs(90));
    b.bare_ack(PUMP);
    assert_stale(&b);
    b.bare_ack(PUMP);
    assert_eq!(proof(&b), Some(AckProof::Bare));
}

#[test]
fn a_bare_ack_that_names_another_rotation_is_stale() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    b.reach_await_ack(PUMP, "r2", 2);
    b.forget();
    for _ in 0..3 {
        b.local(PUMP, Kind::CrtAck, &bytes(json!({ "rotationId": "r1" })));
    }
    b.advance(days(2));
    assert_stale(&b);
}

#[test]
fn no_ack_of_another_child_counts() {
    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.ack("pump-2", id);
    assert_stale(&b);
    assert_eq!(b.counted(Side::Local, Reason::AckUnknown), 1);
}

#[test]
fn an_ack_of_the_last_rotation_that_comes_again_changes_nothing() {
    let mut b = Bench::up();
    let id = b.reach_done(PUMP, "r1", 1);
    b.forget();
    b.ack(PUMP, id);
    b.bare_ack(PUMP);
    assert_eq!(b.counted(Side::Local, Reason::StaleAck), 2);
    assert!(b.published.is_empty());
}

#[test]
fn a_child_that_finds_too_late_that_its_certificate_fails_is_heard() {
    let mut b = Bench::up();
    let id = b.reach_done(PUMP, "r1", 1);
    b.forget();
    let payload = json!({ "certificateId": id.to_string(), "code": "refused", "error": "no" });
    b.local(PUMP, Kind::CrtErr, &bytes(payload));
    assert_eq!(b.errors(), ["refused"], "in its grace the cloud can bring the old one back");
}

#[test]
fn an_error_about_an_earlier_certificate_does_not_end_the_rotation() {
    let mut b = Bench::up();
    let before = b.reach_await_ack(PUMP, "r1", 1);
    b.crt(PUMP, 1, 2);
    b.local(PUMP, Kind::CrtErr, &bytes(json!({ "certificateId": before.to_string() })));
    b.expect(PUMP, "await-ack");
}
