//! Repeats must not hurt: at most one copy of each message in the child's queue at the broker.

use std::time::Duration;

use certrelay::{links::Qos, reason::Reason, relay::Side, wire::Kind};
use serde_json::json;

use crate::{
    bench::{
        Answer, Bench, PUMP, Published, bytes, crt_payload, csr_payload, days, hours, minutes, secs,
    },
    pki,
};

/// What an absent child's queue would hold.
fn kept(sent: &[&Published]) -> usize {
    sent.iter().filter(|p| p.qos == Qos::AtLeastOnce).count()
}

fn pauses(sent: &[&Published]) -> Vec<Duration> {
    sent.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

#[test]
fn a_request_goes_first_as_a_sure_copy_and_then_as_unsure_ones() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.advance(hours(23));
    let sent = b.sent(Side::Local, Kind::CsrReq);
    assert_eq!(sent[0].qos, Qos::AtLeastOnce);
    assert_eq!(kept(&sent), 1);
    assert!(sent.len() > 5);
}

#[test]
fn an_absent_child_finds_one_copy_a_day() {
    for certificate in [false, true] {
        let mut b = Bench::up();
        let kind = if certificate {
            b.reach_await_ack(PUMP, "r1", 1);
            Kind::Crt
        } else {
            b.reach_await_csr(PUMP, "r1");
            Kind::CsrReq
        };
        b.advance(days(10));
        let copies = kept(&b.sent(Side::Local, kind));
        assert!((10..=11).contains(&copies), "{copies} sure copies of {kind} in ten days");
    }
}

#[test]
fn pauses_between_requests_grow_from_ten_minutes_to_six_hours() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.advance(days(9));
    let pauses = pauses(&b.sent(Side::Local, Kind::CsrReq));
    assert!(pauses[0] <= minutes(10) && pauses[0] >= minutes(7));
    assert!(pauses.iter().all(|p| *p >= minutes(7) && *p <= hours(6)), "{pauses:?}");
    assert!(*pauses.last().expect("many") >= hours(4));
}

#[test]
fn pauses_between_certificates_grow_from_a_minute_to_an_hour() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(hours(23));
    let pauses = pauses(&b.sent(Side::Local, Kind::Crt));
    assert!(pauses[0] <= minutes(1) && pauses[0] >= secs(45));
    assert!(pauses.iter().all(|p| *p <= hours(1)), "{pauses:?}");
    assert!(*pauses.last().expect("many") >= minutes(45));
}

#[test]
fn another_sure_copy_follows_a_lost_session_of_ours() {
    for certificate in [false, true] {
        let mut b = Bench::up();
        let kind = if certificate {
            b.reach_await_ack(PUMP, "r1", 1);
            Kind::Crt
        } else {
            b.reach_await_csr(PUMP, "r1");
            Kind::CsrReq
        };
        b.floor_down();
        b.forget();
        b.floor_up(true);
        b.advance(minutes(11));
        assert_eq!(kept(&b.sent(Side::Local, kind)), 0, "the session was kept");
        b.floor_down();
        b.forget();
        b.floor_up(false);
        b.advance(minutes(11));
        assert_eq!(kept(&b.sent(Side::Local, kind)), 1, "the session was lost");
    }
}

#[test]
fn another_sure_copy_follows_a_sign_of_life_but_not_each_of_a_heap() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(minutes(30));
    b.forget();
    for _ in 0..200 {
        b.csr(PUMP, 1);
        b.advance(Duration::from_millis(200));
    }
    let sent = b.sent(Side::Local, Kind::Crt);
    assert!(kept(&sent) >= 1);
    assert!(sent.len() <= 5, "{} copies in 40 s", sent.len());
}

#[test]
fn a_copy_that_the_link_did_not_take_is_owed_as_a_sure_copy() {
    let mut b = Bench::up();
    b.floor_answer = Answer::Nothing;
    b.reach_await_csr(PUMP, "r1");
    let copy = b.last(Side::Local, Kind::CsrReq).copy;
    b.floor_down();
    b.feed(certrelay::relay::Event::Sent {
        side: Side::Local,
        mid: copy,
        outcome: Err(certrelay::links::SendError::Offline),
    });
    b.forget();
    b.floor_answer = Answer::Took;
    b.floor_up(true);
    b.advance(minutes(11));
    assert_eq!(kept(&b.sent(Side::Local, Kind::CsrReq)), 1);
}

#[test]
fn a_restart_makes_no_heap_of_sure_copies() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    for _ in 0..10 {
        b.restart();
        b.links_up();
        b.advance(minutes(20));
    }
    assert_eq!(kept(&b.sent(Side::Local, Kind::CsrReq)), 1);
}

#[test]
fn repeated_requests_of_the_cloud_make_no_heap_of_sure_copies() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    for n in 0..100 {
        b.request(PUMP, &format!("r{}", n % 7));
        b.cloud(PUMP, Kind::CsrReq, b"{}");
        b.advance(secs(11));
    }
    assert_eq!(kept(&b.sent(Side::Local, Kind::CsrReq)), 1);
}

#[test]
fn a_device_whose_signatures_are_bad_is_not_asked_faster_than_a_silent_one() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.forget();
    let bad = csr_payload(&pki::badly_signed_csr(PUMP, 1));
    let mut answered = 0;
    for _ in 0..3600 {
        b.advance(secs(1));
        let asked = b.sent(Side::Local, Kind::CsrReq).len();
        if asked >= answered {
            answered = asked + 1;
            b.local(PUMP, Kind::CsrRes, &bad);
        }
    }
    let asked = b.sent(Side::Local, Kind::CsrReq).len();
    assert!(asked <= 10, "asked {asked} times in an hour");
}

#[test]
fn nothing_is_asked_of_a_child_before_the_time_that_the_cloud_set() {
    let mut b = Bench::up();
    let until = b.unix() + 3 * 86_400;
    let request = json!({ "core": "core-1", "rotationId": "r1", "holdUntil": until });
    b.cloud(PUMP, Kind::CsrReq, &bytes(request));
    b.expect(PUMP, "await-csr");
    b.advance(days(3) - secs(2));
    assert!(b.published.is_empty());
    b.advance(secs(4));
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
}

#[test]
fn no_certificate_is_handed_over_before_the_time_that_the_cloud_set() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.forget();
    let until = b.unix() + 7200;
    let mut payload: serde_json::Value =
        serde_json::from_slice(&crt_payload(&pki::certificate(PUMP, 1, 1))).expect("an object");
    payload["holdUntil"] = until.into();
    b.cloud(PUMP, Kind::Crt, &bytes(payload));
    b.expect(PUMP, "await-ack");
    b.csr(PUMP, 1);
    b.request(PUMP, "r1");
    b.advance(hours(2) - secs(2));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
    b.restart();
    b.links_up();
    b.advance(minutes(2));
    assert!(!b.sent(Side::Local, Kind::Crt).is_empty());
}

#[test]
fn a_new_rotation_that_sets_no_time_ends_the_wait_of_the_old_one() {
    let mut b = Bench::up();
    let until = b.unix() + 20 * 86_400;
    let request = json!({ "core": "core-1", "rotationId": "r1", "holdUntil": until });
    b.cloud(PUMP, Kind::CsrReq, &bytes(request));
    b.advance(secs(5));
    b.request(PUMP, "r2");
    b.advance(minutes(11));
    assert!(!b.sent(Side::Local, Kind::CsrReq).is_empty());
}

#[test]
fn a_certificate_that_was_held_for_a_day_is_confirmed_by_the_cloud_before_it_goes_out_again() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(hours(24));
    b.forget();
    let asked_by = b.time + hours(1) + minutes(1);
    while b.sent(Side::Cloud, Kind::CsrRes).is_empty() {
        assert!(b.time < asked_by, "the cloud is asked");
        b.advance(secs(10));
    }
    assert_eq!(b.sent(Side::Local, Kind::Crt).len(), 0, "first the cloud is asked");
    b.crt(PUMP, 1, 1);
    b.advance(secs(15));
    assert_eq!(b.sent(Side::Local, Kind::Crt).len(), 1);
    b.forget();
    b.advance(hours(20));
    assert!(b.sent(Side::Cloud, Kind::CsrRes).is_empty(), "it stands by it for a day");
}

#[test]
fn another_certificate_in_answer_takes_the_place_of_the_held_one() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(hours(25));
    let id = b.crt(PUMP, 1, 2);
    b.advance(secs(15));
    assert_eq!(b.bodies(PUMP).1, Some(id));
    let last = b.last(Side::Local, Kind::Crt);
    assert!(String::from_utf8_lossy(&last.payload).contains("CERTIFICATE"));
}

#[test]
fn a_final_refusal_in_answer_ends_the_rotation_of_a_held_certificate() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(hours(25) + minutes(2));
    let mid = b.last(Side::Cloud, Kind::CsrRes).mid().to_string();
    b.forget();
    b.verdict(PUMP, json!({ "for": "csr_res", "ok": false, "final": true, "mid": mid }));
    b.expect(PUMP, "done");
    b.advance(days(1));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
    assert_eq!(b.counted(Side::Cloud, Reason::CloudRefused), 1);
}

#[test]
fn a_child_whose_csr_the_cloud_has_refused_is_asked_again_when_the_cloud_asks_again() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.advance(secs(10));
    let mid = b.last(Side::Cloud, Kind::CsrRes).mid().to_string();
    b.verdict(PUMP, json!({ "for": "csr_res", "ok": false, "final": true, "mid": mid }));
    b.expect(PUMP, "done");
    b.forget();
    b.request(PUMP, "r1");
    b.advance(secs(5));
    b.expect(PUMP, "await-csr");
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
    assert!(b.sent(Side::Cloud, Kind::CrtErr).is_empty(), "the cloud knows what it has said");
}

#[test]
fn a_certificate_that_the_cloud_says_nothing_of_goes_out_when_it_was_asked_often_enough() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.advance(hours(24));
    b.forget();
    while b.sent(Side::Local, Kind::Crt).is_empty() {
        b.advance(minutes(1));
    }
    assert_eq!(b.relay.cloud_state().as_str(), "up");
    assert_eq!(b.sent(Side::Cloud, Kind::CsrRes).len(), 7);
    b.advance(days(2));
    assert!(b.sent(Side::Cloud, Kind::CsrRes).len() > 7, "it is asked again the next day");
}

#[test]
fn a_held_certificate_goes_out_unconfirmed_while_the_link_is_down() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.cloud_down();
    b.advance(hours(25));
    b.forget();
    b.advance(hours(3));
    assert!(!b.sent(Side::Local, Kind::Crt).is_empty());
}

#[test]
fn after_a_restart_without_a_trusted_clock_a_certificate_is_confirmed_first() {
    for trusted in [true, false] {
        let mut b = Bench::up();
        b.reach_await_ack(PUMP, "r1", 1);
        b.trusted = trusted;
        b.restart();
        b.links_up();
        b.forget();
        b.advance(secs(61));
        let went_out = !b.sent(Side::Local, Kind::Crt).is_empty();
        assert_eq!(went_out, trusted);
        if !trusted {
            b.advance(secs(2));
            assert!(!b.sent(Side::Cloud, Kind::CsrRes).is_empty());
            b.crt(PUMP, 1, 1);
            b.advance(secs(15));
            assert!(!b.sent(Side::Local, Kind::Crt).is_empty());
        }
    }
}
