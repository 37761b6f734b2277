//! No decision rests on a clock that is not trusted.

use certrelay::{reason::Reason, relay::Side, wire::Kind};
use serde_json::json;

use crate::{
    bench::{Bench, PUMP, bytes, crt_payload, days, hours, minutes, name, secs},
    pki,
};

#[test]
fn a_certificate_that_expires_while_it_waits_is_given_up_and_the_cloud_asked_for_another() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    let der = pki::short_lived(PUMP, 1, 1, 10);
    b.cloud(PUMP, Kind::Crt, &crt_payload(&der));
    b.expect(PUMP, "await-ack");
    b.forget();
    b.advance(days(11));
    b.expect(PUMP, "await-cert");
    assert_eq!(b.errors()[0], "certificate-expired");
    let about = b.sent(Side::Cloud, Kind::CrtErr)[0].field("certificateId");
    assert_eq!(about, Some(pki::id(&der).to_string()));
    assert!(!b.sent(Side::Cloud, Kind::CsrRes).is_empty());
    b.check_bodies();
}

#[test]
fn no_certificate_is_given_up_for_its_age_by_an_untrusted_clock() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::short_lived(PUMP, 1, 1, 10)));
    b.trusted = false;
    b.advance(days(20));
    b.expect(PUMP, "await-ack");
}

#[test]
fn an_expired_certificate_is_refused_by_a_trusted_clock_only() {
    for trusted in [true, false] {
        let mut b = Bench::up();
        b.reach_await_cert(PUMP, "r1", 1);
        b.advance(days(15));
        b.trusted = trusted;
        b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::short_lived(PUMP, 1, 1, 10)));
        b.expect(PUMP, if trusted { "await-cert" } else { "await-ack" });
        assert_eq!(b.counted(Side::Cloud, Reason::Expired), u64::from(trusted));
    }
}

#[test]
fn a_rotation_expires_by_the_time_that_the_process_saw_when_no_clock_is_trusted() {
    let mut b = Bench::new();
    b.trusted = false;
    b.links_up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.advance(days(29));
    b.expect(PUMP, "await-cert");
    b.advance(days(2));
    b.expect(PUMP, "done");
}

#[test]
fn a_restart_without_a_trusted_clock_expires_nothing() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.trusted = false;
    b.advance(days(25));
    b.restart();
    b.links_up();
    b.advance(days(20));
    b.expect(PUMP, "await-cert");
}

#[test]
fn a_rotation_expires_over_restarts_by_a_trusted_clock() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    for _ in 0..31 {
        b.restart();
        b.links_up();
        b.advance(days(1));
    }
    b.expect(PUMP, "done");
    assert_eq!(b.errors()[0], "expired");
}

#[test]
fn what_happened_before_the_clock_was_trusted_gets_its_time_afterwards() {
    let mut b = Bench::new();
    b.trusted = false;
    b.links_up();
    b.reach_await_cert(PUMP, "r1", 1);
    let began = b.time;
    assert_eq!(b.disk.record(&name(PUMP)).expect("kept").began.wall(), None);
    b.advance(hours(10));
    b.trusted = true;
    b.advance(secs(1));
    let wall = b.disk.record(&name(PUMP)).expect("kept").began.wall().expect("settled");
    let truth = pki::BEGIN + began;
    assert!(truth - wall < minutes(2) && wall - truth < minutes(2), "{wall} {truth}");
}

#[test]
fn a_wall_clock_that_is_set_changes_nothing_within_one_process() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.trusted = false;
    b.advance(days(2));
    b.trusted = true;
    b.advance(days(27));
    b.expect(PUMP, "await-cert");
}

#[test]
fn an_untrusted_clock_holds_nobody_back() {
    let mut b = Bench::new();
    b.trusted = false;
    b.links_up();
    let request = json!({ "core": "core-1", "rotationId": "r1", "holdUntil": 4_000_000_000_u64 });
    b.cloud(PUMP, Kind::CsrReq, &bytes(request));
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
}

#[test]
fn the_newest_trusted_time_is_stored_and_no_other() {
    let mut b = Bench::new();
    b.trusted = false;
    b.links_up();
    b.reach_await_csr(PUMP, "r1");
    assert_eq!(b.disk.seen, None);
    b.trusted = true;
    b.csr(PUMP, 1);
    assert_eq!(b.disk.seen, b.now().wall);
}
