//! The store: limits, and what is said when it lost something.

use certrelay::{
    reason::Reason,
    relay::{Body, Event, Lost, MOST_RECORDS, Side, Weight},
    wire::Kind,
    x509::Refusal,
};
use serde_json::json;

use crate::{
    bench::{
        Bench, CORE, PUMP, bytes, crt_payload, csr_payload, days, hours, name, secs, settings,
    },
    pki,
};

#[test]
fn a_lost_store_is_reported_under_the_core_s_own_name() {
    let mut b = Bench::up();
    b.feed(Event::StoreLost);
    b.advance(secs(1));
    let sent = b.last(Side::Cloud, Kind::CrtErr);
    assert_eq!((sent.to.as_str(), sent.field("code").as_deref()), (CORE, Some("store-lost")));
    assert!(b.notes.iter().any(|n| n.reason == Reason::StoreLost && n.weight == Weight::Alarm));
    assert!(b.disk.records.contains_key(&name(CORE)), "the report itself is durable");
    b.settle(CORE, Kind::CrtErr);
    b.advance(hours(2));
    assert!(b.disk.records.is_empty());
    assert!(b.published.iter().all(|p| p.side == Side::Cloud));
}

#[test]
fn the_core_s_record_of_a_lost_store_opens_no_way_for_the_floor() {
    let mut b = Bench::up();
    b.feed(Event::StoreLost);
    b.local(CORE, Kind::CsrRes, &csr_payload(&pki::csr(CORE, 1)));
    b.local(CORE, Kind::CrtAck, b"{}");
    assert_eq!(b.state(CORE), "done");
    assert_eq!(b.counted(Side::Local, Reason::ReservedName), 2);
}

#[test]
fn a_damaged_record_is_reported_for_its_child() {
    let mut b = Bench::new();
    b.restart_with(vec![name(PUMP)]);
    b.links_up();
    b.advance(secs(1));
    let sent = b.last(Side::Cloud, Kind::CrtErr);
    assert_eq!((sent.to.as_str(), sent.field("code").as_deref()), (PUMP, Some("store-lost")));
    b.settle(PUMP, Kind::CrtErr);
    b.reach_done(PUMP, "r1", 1);
}

#[test]
fn a_csr_that_is_lost_is_asked_for_again() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.forget();
    b.disk.bodies.remove(&(name(PUMP), Body::Csr));
    b.feed(Event::BodyLost { child: name(PUMP), lost: Lost::Csr(pki::digest(1)) });
    b.expect(PUMP, "await-csr");
    assert_eq!(b.sent(Side::Local, Kind::CsrReq).len(), 1);
    assert!(b.notes.iter().any(|n| n.reason == Reason::BodyLost && n.weight == Weight::Alarm));
    b.csr(PUMP, 1);
    b.advance(secs(70));
    assert!(!b.sent(Side::Cloud, Kind::CsrRes).is_empty());
}

#[test]
fn a_csr_that_is_missing_when_its_signature_is_to_be_checked_is_asked_for_again() {
    let mut b = Bench::up();
    b.verify = false;
    b.reach_await_csr(PUMP, "r1");
    b.csr(PUMP, 1);
    b.advance(secs(6));
    b.disk.bodies.remove(&(name(PUMP), Body::Csr));
    let outcome = Err(Refusal(Reason::BodyLost));
    b.feed(Event::Verified { child: name(PUMP), key: pki::digest(1), outcome });
    b.expect(PUMP, "await-csr");
}

#[test]
fn a_certificate_that_is_lost_is_asked_for_again() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    b.disk.bodies.remove(&(name(PUMP), Body::Certificate));
    b.forget();
    let lost = Lost::Certificate(pki::id(&pki::certificate(PUMP, 1, 1)));
    b.feed(Event::BodyLost { child: name(PUMP), lost });
    b.expect(PUMP, "await-cert");
    b.advance(secs(61));
    assert!(!b.sent(Side::Cloud, Kind::CsrRes).is_empty());
    b.crt(PUMP, 1, 1);
    b.expect(PUMP, "await-ack");
    b.check_bodies();
}

#[test]
fn a_cloud_that_answers_the_same_csr_with_the_same_certificate_gets_it_through() {
    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    // The cloud lost patience; the device still has its pending key and sends it again.
    b.request(PUMP, "r2");
    b.csr(PUMP, 1);
    b.advance(secs(70));
    b.expect(PUMP, "await-cert");
    assert_eq!(b.crt(PUMP, 1, 1), id);
    b.expect(PUMP, "await-ack");
}

#[test]
fn the_key_of_the_certificate_before_the_one_in_use_is_superseded() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    b.reach_done(PUMP, "r2", 2);
    b.forget();
    b.local_dup(PUMP, Kind::CsrRes, &csr_payload(&pki::csr(PUMP, 1)));
    b.expect(PUMP, "done");
    assert_eq!(b.counted(Side::Local, Reason::StaleKey), 1, "a redelivered CSR of long ago");
    let payload = crate::bench::crt_payload_for_core(&pki::certificate(PUMP, 1, 1));
    b.cloud(PUMP, Kind::Crt, &payload);
    assert_eq!(b.counted(Side::Cloud, Reason::SupersededKey), 1);
    assert!(b.errors().is_empty());
}

#[test]
fn no_more_than_twenty_thousand_records_are_kept_and_those_there_go_on() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    let record = b.disk.records[&name(PUMP)].clone();
    for n in 1..MOST_RECORDS {
        b.disk.records.insert(name(&format!("filler-{n}")), record.clone());
    }
    b.settings.request = certrelay::schedule::Backoff { first: days(20), longest: days(20) };
    b.restart();
    b.cloud_up();
    b.csr("one-more", 1);
    b.request("another", "r1");
    assert_eq!((b.state("one-more"), b.state("another")), ("none", "none"));
    assert!(b.counted(None, Reason::TooManyRecords) >= 2);
    b.csr(PUMP, 2);
    b.expect(PUMP, "await-cert");
}

#[test]
fn a_store_without_room_takes_nothing_in_for_a_while_and_ends_what_it_has() {
    let mut b = Bench::up();
    let id = b.reach_await_ack(PUMP, "r1", 1);
    b.feed(Event::StoreFull);
    b.csr("pump-2", 2);
    b.request("pump-3", "r1");
    assert_eq!((b.state("pump-2"), b.state("pump-3")), ("none", "none"));
    b.ack(PUMP, id);
    b.expect(PUMP, "done");
    b.advance(secs(601));
    b.csr("pump-2", 2);
    b.expect("pump-2", "await-cert");
}

#[test]
fn certificates_that_do_not_end_in_the_anchors_are_refused_and_reported() {
    let anchors = certrelay::x509::Anchors::from_pem(pki::anchor().as_bytes()).expect("an anchor");
    let mut settings = settings();
    settings.anchors = Some(anchors);
    let mut b = Bench::with(settings);
    b.links_up();
    b.reach_await_cert(PUMP, "r1", 1);
    let mut stranger = pki::certificate(PUMP, 1, 1);
    let last = stranger.len() - 1;
    stranger[last] ^= 1;
    b.cloud(PUMP, Kind::Crt, &crt_payload(&stranger));
    b.expect(PUMP, "await-cert");
    assert_eq!(b.errors(), ["untrusted-chain"]);
    b.crt(PUMP, 1, 1);
    b.expect(PUMP, "await-ack");
    assert_eq!(b.counted(Side::Cloud, Reason::CertificateAccepted), 1);
}

#[test]
fn a_rotation_that_was_held_up_everywhere_ends_well() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "rotationId": "r1" })));
    b.restart();
    b.links_up();
    b.request(PUMP, "r1");
    b.cloud_down();
    b.csr(PUMP, 1);
    b.restart();
    b.links_up();
    b.advance(hours(2));
    let id = b.crt(PUMP, 1, 1);
    b.restart();
    b.floor_up(false);
    b.advance(hours(2));
    b.ack(PUMP, id);
    b.restart();
    b.links_up();
    b.advance(hours(2));
    assert_eq!(b.last(Side::Cloud, Kind::CrtAck).field("certificateId"), Some(id.to_string()));
}

#[test]
fn no_more_rotations_are_under_way_than_have_room_and_those_end_and_make_room() {
    let mut settings = settings();
    settings.most_under_way = 2;
    let mut b = Bench::with(settings);
    b.links_up();
    b.reach_await_csr("child-1", "r1");
    b.reach_await_csr("child-2", "r1");
    b.request("child-3", "r1");
    assert_eq!(b.counted(Side::Cloud, Reason::StoreFull), 1);
    b.csr("child-4", 1);
    assert_eq!(b.counted(Side::Local, Reason::StoreFull), 1);
    b.csr("child-1", 1);
    b.expect("child-1", "await-cert");
    b.restart();
    b.links_up();
    b.request("child-3", "r1");
    assert_eq!(b.counted(Side::Cloud, Reason::StoreFull), 1, "as many as before the restart");
    b.fail("child-2", "broken");
    b.verdict(
        "child-2",
        json!({ "for": "csr_res", "ok": false, "final": true, "rotationId": "r1" }),
    );
    b.expect("child-2", "done");
    b.reach_await_csr("child-3", "r1");
}
