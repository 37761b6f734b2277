//! Whom we serve: the reserved name, the roster, and devices that are only tried.

use certrelay::{
    reason::Reason,
    relay::{Children, Settings, Side},
    wire::Kind,
};
use serde_json::json;

use super::in_time;
use crate::{
    bench::{
        Bench, CORE, PUMP, bytes, crt_payload, csr_payload, days, hours, minutes, name, secs,
        settings,
    },
    pki,
};

#[test]
fn nobody_on_the_floor_speaks_as_the_core_whatever_is_said() {
    let mut b = Bench::up();
    let flood = vec![b'x'; 40_000];
    let csr = csr_payload(&pki::csr(CORE, 1));
    for kind in Kind::ALL {
        for payload in [csr.as_slice(), b"", b"{}", b"{", &flood] {
            for (dup, retain) in [(false, false), (true, false), (false, true)] {
                b.message(Side::Local, &format!("floor/{CORE}/{kind}"), payload, dup, retain);
            }
        }
    }
    assert_eq!(b.counted(Side::Local, Reason::ReservedName), 6 * 5 * 3);
    assert_eq!(b.relay.counters().iter().count(), 1, "no other check came first");
    b.advance(days(1));
    assert!(b.published.is_empty() && b.disk.records.is_empty());
}

#[test]
fn the_reserved_name_is_reserved_even_when_it_is_named_among_the_children() {
    let mut b = Bench::with(Settings { children: Children::new([CORE, "*"]), ..settings() });
    b.links_up();
    b.local(CORE, Kind::CsrRes, &csr_payload(&pki::csr(CORE, 1)));
    b.advance(days(1));
    assert!(b.published.is_empty() && b.disk.records.is_empty());
    b.request(CORE, "r1");
    b.local(CORE, Kind::CsrRes, &csr_payload(&pki::csr(CORE, 1)));
    b.expect(CORE, "await-csr");
    assert_eq!(b.counted(Side::Local, Reason::ReservedName), 2);
}

#[test]
fn nothing_for_the_core_goes_to_the_floor() {
    let mut b = Bench::up();
    b.request(CORE, "r1");
    b.cloud(CORE, Kind::CsrReq, b"{}");
    b.cloud(CORE, Kind::Crt, &crt_payload(&pki::certificate(CORE, 1, 1)));
    b.advance(days(2));
    assert!(b.published.iter().all(|p| p.side == Side::Cloud), "{:?}", b.published);
}

#[test]
fn nothing_for_the_core_goes_to_the_floor_when_it_was_a_child_before() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.settings = Settings { core: name(PUMP), ..settings() };
    b.restart();
    b.links_up();
    b.forget();
    b.advance(days(2));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
}

#[test]
fn a_device_that_is_no_longer_served_is_left_alone() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.settings = Settings { children: Children::new(["valve-*"]), ..settings() };
    b.restart();
    b.links_up();
    b.forget();
    b.advance(days(2));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
}

#[test]
fn a_device_that_no_glob_matches_is_not_served_from_either_side() {
    let mut b = Bench::with(Settings { children: Children::new(["valve-*"]), ..settings() });
    b.links_up();
    b.request(PUMP, "r1");
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.csr(PUMP, 1);
    b.advance(days(1));
    assert_eq!(b.counted(Side::Cloud, Reason::NotServed), 2);
    assert_eq!(b.counted(Side::Local, Reason::NotServed), 1);
    assert!(b.published.is_empty() && b.disk.records.is_empty());
}

#[test]
fn a_device_that_nobody_says_is_ours_is_tried_without_a_record_or_a_word_upstream() {
    let mut b = Bench::up();
    let commits = b.disk.commits;
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
    b.advance(days(40));
    assert_eq!((b.state(PUMP), b.disk.commits), ("none", commits));
    assert!(b.published.iter().all(|p| p.side == Side::Local), "nothing goes upstream");
    let copies = b.sent(Side::Local, Kind::CsrReq).len();
    assert!((4..=12).contains(&copies), "a trial ends; {copies} copies");
}

#[test]
fn a_trial_is_forgotten_at_a_restart() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.restart();
    b.links_up();
    b.forget();
    b.advance(days(1));
    assert!(b.published.is_empty());
}

#[test]
fn no_more_than_a_thousand_devices_are_tried() {
    let mut b = Bench::up();
    for n in 0..1_100 {
        b.cloud(&format!("stranger-{n}"), Kind::CsrReq, b"{}");
    }
    assert_eq!(b.counted(Side::Cloud, Reason::Tried), 1_000);
    assert_eq!(b.counted(None, Reason::TooManyRecords), 100);
    b.reach_await_csr(PUMP, "r1");
    b.advance(days(2));
    b.cloud("late", Kind::CsrReq, b"{}");
    assert_eq!(b.counted(Side::Cloud, Reason::Tried), 1_001, "trials end and make room");
}

#[test]
fn the_first_message_of_a_tried_device_makes_its_record_and_goes_by_the_request() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "rotationId": "r1" })));
    b.csr(PUMP, 1);
    b.expect(PUMP, "await-cert");
    b.advance(secs(10));
    assert_eq!(b.last(Side::Cloud, Kind::CsrRes).field("rotationId").as_deref(), Some("r1"));
    assert!(b.disk.record(&name(PUMP)).is_some());
}

#[test]
fn a_tried_device_that_acks_at_its_start_is_asked_on() {
    asked_on_after(|b| b.bare_ack(PUMP));
}

#[test]
fn a_tried_device_that_reports_an_error_is_asked_on() {
    asked_on_after(|b| b.fail(PUMP, "busy"));
}

#[test]
fn a_tried_device_whose_csr_is_refused_is_asked_on() {
    asked_on_after(|b| b.local(PUMP, Kind::CsrRes, &csr_payload(&pki::csr("pump-2", 1))));
}

fn asked_on_after(first: fn(&mut Bench)) {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "rotationId": "r1" })));
    first(&mut b);
    b.expect(PUMP, "await-csr");
    b.forget();
    b.advance(days(2));
    assert!(b.sent(Side::Local, Kind::CsrReq).len() > 4, "csr_req goes on");
}

#[test]
fn the_request_that_a_device_was_tried_with_counts_for_the_interval() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.csr(PUMP, 1);
    b.advance(secs(70));
    let id = b.crt(PUMP, 1, 1);
    b.ack(PUMP, id);
    b.advance(hours(1));
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "done");
    assert_eq!(b.counted(Side::Cloud, Reason::TooSoon), 1);
}

#[test]
fn a_tried_device_is_left_alone_as_long_as_the_cloud_says() {
    let mut b = Bench::up();
    let until = b.unix() + 7200;
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "holdUntil": until })));
    b.advance(minutes(119));
    assert!(b.published.is_empty());
    b.advance(minutes(2));
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
}

#[test]
fn a_device_that_is_named_literally_is_on_the_roster() {
    let mut b = Bench::with(Settings { children: Children::new([PUMP]), ..settings() });
    b.links_up();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");
}

#[test]
fn a_device_is_on_the_roster_for_90_days_after_it_was_heard() {
    let mut b = Bench::up();
    b.bare_ack(PUMP);
    b.advance(days(89));
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");

    let mut b = Bench::up();
    b.bare_ack(PUMP);
    b.advance(days(91));
    b.expect(PUMP, "none");
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    assert_eq!(b.counted(Side::Cloud, Reason::Tried), 1);
}

#[test]
fn each_message_keeps_a_device_on_the_roster() {
    let mut b = Bench::up();
    for _ in 0..4 {
        b.bare_ack(PUMP);
        b.advance(days(40));
    }
    b.advance(days(40));
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");
}

#[test]
fn the_roster_outlives_a_restart() {
    let mut b = Bench::up();
    b.bare_ack(PUMP);
    b.advance(days(60));
    b.restart();
    b.advance(days(20));
    b.links_up();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    b.expect(PUMP, "await-csr");
}

/// A certificate that nobody waited for makes a record, for what the cloud must hear.
fn with_an_idle_record_of_a_device_never_heard() -> Bench {
    let mut b = Bench::up();
    let payload = crate::bench::crt_payload_for_core(&pki::certificate(PUMP, 9, 1));
    b.cloud(PUMP, Kind::Crt, &payload);
    b.settle(PUMP, Kind::CrtErr);
    b.expect(PUMP, "done");
    b
}

#[test]
fn a_device_that_has_a_record_is_asked_though_it_was_never_heard() {
    let mut b = with_an_idle_record_of_a_device_never_heard();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
}

#[test]
fn a_record_that_ends_soon_after_its_device_was_asked_stops_nothing() {
    in_time(|| {
        let mut b = with_an_idle_record_of_a_device_never_heard();
        b.cloud(PUMP, Kind::CsrReq, b"{}");
        b.advance(days(3));
    });
}

#[test]
fn a_device_that_was_heard_long_ago_is_asked_while_its_record_is_kept() {
    let mut b = Bench::up();
    b.bare_ack(PUMP);
    b.advance(days(60));
    b.reach_await_csr(PUMP, "r1");
    b.advance(days(31));
    b.settle(PUMP, Kind::CrtErr);
    b.expect(PUMP, "done");
    b.forget();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
}

#[test]
fn a_certificate_for_nobody_makes_a_record_only_when_it_names_our_core() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::certificate(PUMP, 1, 1)));
    b.expect(PUMP, "none");
    assert_eq!(b.counted(Side::Cloud, Reason::NoWaitingCsr), 1);
    assert!(b.published.is_empty());
}

#[test]
fn a_child_that_was_never_heard_expires_in_silence() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    b.advance(days(30) + hours(2));
    b.expect(PUMP, "none");
    assert!(b.published.iter().all(|p| p.side == Side::Local));
    assert_eq!(b.counted(None, Reason::RotationExpired), 1);
}

#[test]
fn a_child_that_was_heard_expires_with_a_word() {
    let mut b = Bench::up();
    b.bare_ack(PUMP);
    b.reach_await_csr(PUMP, "r1");
    b.advance(days(31));
    assert_eq!(b.errors()[0], "expired");
}

#[test]
fn a_record_of_no_use_is_forgotten_after_90_days_and_one_with_a_notice_is_kept() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    b.advance(days(89));
    b.expect(PUMP, "done");
    b.advance(days(2));
    b.expect(PUMP, "none");
    assert!(b.disk.records.is_empty() && b.disk.bodies.is_empty());

    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.cloud_down();
    b.ack(PUMP, id);
    b.advance(days(200));
    b.expect(PUMP, "done");
    assert!(b.record(PUMP).outbox.ack.is_some());
}
