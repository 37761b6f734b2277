//! New settings while the relay runs: what they reach at once, and what they leave as it was.

use std::{num::NonZeroU32, time::Duration};

use certrelay::{
    reason::Reason,
    relay::{Children, Settings, Side},
    schedule::Backoff,
    wire::Kind,
};
use serde_json::json;

use crate::{
    bench::{
        Answer, Bench, PUMP, bytes, crt_payload_for_core, days, hours, minutes, secs, settings,
    },
    pki,
};

/// A week between any two repeats.
const SELDOM: Backoff = Backoff { first: days(7), longest: days(7) };

const OFTEN: Backoff = Backoff { first: secs(30), longest: secs(60) };

fn seldom() -> Settings {
    Settings { request: SELDOM, certificate: SELDOM, cloud: SELDOM, ..settings() }
}

fn often() -> Settings {
    Settings { request: OFTEN, certificate: OFTEN, cloud: OFTEN, ..settings() }
}

fn with(settings: Settings) -> Bench {
    let mut b = Bench::with(settings);
    b.links_up();
    b
}

/// How long it takes until a message of this kind goes again.
fn next(b: &mut Bench, side: Side, kind: Kind) -> Duration {
    b.forget();
    let begin = b.time;
    while b.sent(side, kind).is_empty() && b.time < begin + days(30) {
        b.advance(secs(10));
    }
    b.time - begin
}

#[test]
fn a_device_that_is_not_served_any_more_is_left_alone_at_once_and_the_cloud_hears_of_it() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.reach_await_csr("valve-1", "r2");
    b.forget();
    b.reconfigure(Settings { children: Children::new(["valve-*"]), ..settings() });
    b.expect(PUMP, "done");
    b.expect("valve-1", "await-csr");
    assert_eq!(b.errors(), ["not-served"]);
    b.check_bodies();
    b.ack(PUMP, pki::id(&pki::certificate(PUMP, 1, 1)));
    assert_eq!(b.counted(Side::Local, Reason::NotServed), 1);
    b.forget();
    b.advance(days(2));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
    assert!(!b.sent(Side::Local, Kind::CsrReq).is_empty(), "the other goes on");
}

#[test]
fn what_ended_with_new_settings_stays_ended_when_the_old_ones_return() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.reconfigure(Settings { children: Children::new(["valve-*"]), ..settings() });
    b.reconfigure(settings());
    b.expect(PUMP, "done");
    b.restart();
    b.expect(PUMP, "done");
    b.links_up();
    b.reach_await_csr(PUMP, "r2");
}

#[test]
fn a_device_that_is_only_tried_and_not_served_any_more_is_asked_no_more() {
    let mut b = Bench::up();
    for name in [PUMP, "valve-1"] {
        b.cloud(name, Kind::CsrReq, b"{}");
    }
    b.reconfigure(Settings { children: Children::new(["valve-*"]), ..settings() });
    b.forget();
    b.advance(hours(20));
    let asked = b.sent(Side::Local, Kind::CsrReq);
    assert!(!asked.is_empty() && asked.iter().all(|p| p.to == "valve-1"));
}

#[test]
fn a_device_that_is_served_from_now_on_is_served() {
    let mut b = with(Settings { children: Children::new(["valve-*"]), ..settings() });
    b.request(PUMP, "r1");
    b.expect(PUMP, "none");
    b.reconfigure(settings());
    b.reach_await_ack(PUMP, "r1", 1);
}

#[test]
fn shorter_pauses_bring_forward_what_is_further_away_than_they_reach() {
    type Reach = fn(&mut Bench) -> (Side, Kind);
    let stages: [Reach; 4] = [
        |b| {
            b.reach_await_csr(PUMP, "r1");
            (Side::Local, Kind::CsrReq)
        },
        |b| {
            b.reach_await_cert(PUMP, "r1", 1);
            (Side::Cloud, Kind::CsrRes)
        },
        |b| {
            b.reach_await_ack(PUMP, "r1", 1);
            (Side::Local, Kind::Crt)
        },
        |b| {
            let id = b.reach_await_ack(PUMP, "r1", 1);
            b.loopback = false;
            b.ack(PUMP, id);
            (Side::Cloud, Kind::CrtAck)
        },
    ];
    for reach in stages {
        let mut b = with(seldom());
        let (side, kind) = reach(&mut b);
        let mut unchanged = with(seldom());
        reach(&mut unchanged);
        assert!(next(&mut unchanged, side, kind) > hours(12), "{kind}");
        b.reconfigure(often());
        assert!(next(&mut b, side, kind) <= OFTEN.longest + secs(10), "{kind}");
        assert!(next(&mut b, side, kind) <= OFTEN.longest + secs(10), "{kind}");
    }
}

#[test]
fn shorter_pauses_bring_forward_what_was_drawn_at_the_start() {
    let mut b = with(seldom());
    b.reach_await_ack(PUMP, "r1", 1);
    b.reach_await_cert("pump-2", "r2", 2);
    b.restart();
    b.links_up();
    b.reconfigure(often());
    b.forget();
    b.advance(minutes(2));
    assert!(!b.sent(Side::Local, Kind::Crt).is_empty());
    assert!(!b.sent(Side::Cloud, Kind::CsrRes).is_empty());
}

#[test]
fn longer_pauses_apply_from_the_next_repeat_on() {
    let mut b = with(often());
    b.reach_await_csr(PUMP, "r1");
    b.reconfigure(seldom());
    assert!(next(&mut b, Side::Local, Kind::CsrReq) <= OFTEN.longest + secs(10));
    assert!(next(&mut b, Side::Local, Kind::CsrReq) > days(5));
}

#[test]
fn shorter_pauses_bring_nothing_forward_that_the_cloud_holds() {
    let mut b = with(seldom());
    let until = b.unix() + 7200;
    b.cloud("tried", Kind::CsrReq, &bytes(json!({ "holdUntil": until })));
    let request = json!({ "core": crate::bench::CORE, "rotationId": "r1", "holdUntil": until });
    b.cloud(PUMP, Kind::CsrReq, &bytes(request));
    b.reconfigure(often());
    b.advance(minutes(119));
    assert!(b.published.is_empty());
    b.advance(minutes(2));
    let asked = b.sent(Side::Local, Kind::CsrReq);
    assert!(["tried", PUMP].iter().all(|name| asked.iter().any(|p| p.to == *name)));
}

#[test]
fn shorter_pauses_do_not_let_an_error_go_twice_in_an_hour() {
    let mut b = with(seldom());
    let wrong = crt_payload_for_core(&pki::certificate(PUMP, 9, 1));
    b.cloud(PUMP, Kind::Crt, &wrong);
    b.settle(PUMP, Kind::CrtErr);
    b.reach_await_ack(PUMP, "r1", 1);
    b.fail(PUMP, "broken");
    b.settle(PUMP, Kind::CrtErr);
    b.reach_await_ack(PUMP, "r2", 2);
    b.forget();
    // The end of the rotation is told, but not before the hour is over.
    b.fail(PUMP, "broken");
    b.expect(PUMP, "done");
    b.reconfigure(often());
    b.advance(minutes(50));
    assert_eq!(b.errors(), [""; 0]);
    b.advance(minutes(11));
    assert_eq!(b.errors()[0], "broken");
}

#[test]
fn shorter_pauses_do_not_send_a_notice_again_before_its_day() {
    let mut b = with(seldom());
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.ack(PUMP, id);
    b.reconfigure(often());
    let pause = next(&mut b, Side::Cloud, Kind::CrtAck);
    assert!(pause >= hours(23), "{pause:?}");
}

#[test]
fn shorter_pauses_do_not_make_a_csr_jump_its_queue() {
    let mut b = with(seldom());
    // The hundredth of them has its turn after 99 seconds.
    for n in 0..100 {
        b.csr(&format!("pump-{n}"), 1);
    }
    b.forget();
    let short = Backoff { first: secs(1), longest: secs(1) };
    b.reconfigure(Settings { cloud: short, settle: secs(5), ..settings() });
    b.advance(secs(20));
    let first = b
        .sent(Side::Cloud, Kind::CsrRes)
        .iter()
        .map(|p| p.to.clone())
        .max_by_key(|to| to.trim_start_matches("pump-").parse::<u32>().expect("a number"));
    let first = first.expect("some went");
    assert!(["pump-19", "pump-20"].contains(&first.as_str()), "{first}");
}

#[test]
fn shorter_pauses_do_not_send_a_new_csr_before_it_has_settled() {
    let mut b = with(Settings { settle: minutes(10), ..seldom() });
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.reconfigure(Settings { settle: minutes(10), ..often() });
    let settled = next(&mut b, Side::Cloud, Kind::CsrRes);
    assert!(settled >= minutes(10), "{settled:?}");
    b.csr(PUMP, 2);
    b.reconfigure(Settings { cloud: Backoff { first: secs(1), longest: secs(1) }, ..often() });
    let apart = next(&mut b, Side::Cloud, Kind::CsrRes);
    assert!(apart >= secs(55), "at most one a minute: {apart:?}");
}

#[test]
fn a_rotation_that_takes_longer_than_it_may_from_now_on_ends_at_once() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.advance(days(3));
    b.forget();
    b.reconfigure(Settings { rotation_ttl: days(2), ..settings() });
    b.expect(PUMP, "done");
    assert_eq!(b.errors(), ["expired"]);
}

#[test]
fn a_rotation_that_may_take_longer_from_now_on_goes_on() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.reconfigure(Settings { rotation_ttl: days(60), ..settings() });
    b.advance(days(59));
    b.expect(PUMP, "await-cert");
    b.advance(days(2));
    b.expect(PUMP, "done");
}

#[test]
fn what_waits_for_the_cloud_goes_as_fast_as_it_may_from_now_on() {
    let slow = Settings { messages_per_second: NonZeroU32::new(1), unconfirmed: 1, ..settings() };
    let mut b = with(slow);
    for n in 0..100 {
        b.reach_await_csr(&format!("pump-{n}"), "r1");
        b.csr(&format!("pump-{n}"), 1);
    }
    b.advance(secs(10));
    assert!(b.sent(Side::Cloud, Kind::CsrRes).len() < 20);
    b.reconfigure(Settings { messages_per_second: None, unconfirmed: 100, ..settings() });
    assert_eq!(b.sent(Side::Cloud, Kind::CsrRes).len(), 100);
}

#[test]
fn fewer_messages_may_be_unanswered_from_now_on() {
    let mut b = Bench::up();
    b.cloud_answer = Answer::Nothing;
    b.reconfigure(Settings { unconfirmed: 2, ..settings() });
    for n in 0..10 {
        b.reach_await_csr(&format!("pump-{n}"), "r1");
        b.csr(&format!("pump-{n}"), 1);
    }
    b.advance(secs(20));
    assert_eq!(b.sent(Side::Cloud, Kind::CsrRes).len(), 2);
}

#[test]
fn the_link_is_probed_as_often_as_the_settings_say_from_now_on() {
    let mut b = with(Settings { probe_interval: days(1), ..settings() });
    b.advance(hours(1));
    b.forget();
    b.advance(hours(1));
    assert_eq!(b.probes.len(), 0);
    b.reconfigure(Settings { probe_interval: minutes(1), ..settings() });
    b.advance(minutes(10));
    assert!((9..=11).contains(&b.probes.len()), "{}", b.probes.len());
}

#[test]
fn what_comes_from_now_on_is_judged_by_the_new_settings() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    b.advance(hours(1));
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");
    b.csr(PUMP, 2);
    b.advance(secs(66));
    let id = b.crt(PUMP, 2, 2);
    b.ack(PUMP, id);
    b.advance(hours(1));
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    assert_eq!(b.counted(Side::Cloud, Reason::TooSoon), 1);
    b.reconfigure(Settings { min_interval: minutes(5), ..settings() });
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");
}

#[test]
fn settings_that_did_not_change_send_and_bring_forward_nothing() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.reach_await_cert("pump-2", "r2", 2);
    b.reach_await_csr("pump-3", "r3");
    b.csr("pump-4", 4);
    b.cloud("tried", Kind::CsrReq, b"{}");
    let (wakeup, commits) = (b.relay.next_wakeup(), b.disk.commits);
    b.forget();
    b.reconfigure(settings());
    assert_eq!((b.relay.next_wakeup(), b.disk.commits), (wakeup, commits));
    assert!(b.published.is_empty() && b.notes.is_empty());
}
