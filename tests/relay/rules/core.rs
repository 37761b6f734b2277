//! The core's own rotation: one more record, whose child is the gateway's identity.

use certrelay::{
    identity::{Complaint, Say},
    reason::Reason,
    relay::{Event, Settings, Side},
    wire::{CertificateId, Kind},
    x509::CommonNameRule,
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, CORE, bytes, crt_payload, days, hours, minutes, secs, settings},
    pki,
};

fn said(b: &Bench, kind: Kind) -> Value {
    serde_json::from_slice(&b.last(Side::Cloud, kind).payload).expect("JSON")
}

fn csr(b: &mut Bench, key: u32) {
    let csr = pki::csr("AWS IoT Certificate", key);
    b.feed(Event::Own(Say::Csr { csr, rotation: None }));
}

fn acked(b: &mut Bench, certificate: CertificateId) {
    b.feed(Event::Own(Say::Acked { certificate, rotation: None }));
}

fn failed(b: &mut Bench, code: Reason, certificate: Option<CertificateId>, ends: bool) {
    let why = Complaint { code, error: "in words".to_owned() };
    b.feed(Event::Own(Say::Failed { why, certificate, rotation: None, ends }));
}

/// The core has the certificate of its new key.
fn reach_await_ack(b: &mut Bench) -> CertificateId {
    b.request(CORE, "r1");
    csr(b, 1);
    b.expect(CORE, "await-cert");
    b.advance(secs(66));
    let id = b.crt(CORE, 1, 1);
    b.expect(CORE, "await-ack");
    id
}

#[test]
fn the_core_rotates_without_a_word_on_the_floor_and_without_its_broker() {
    let mut b = Bench::up();
    b.feed(Event::Down { side: Side::Local });
    let id = reach_await_ack(&mut b);
    let kinds: Vec<Kind> = b.for_core.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds.first(), Some(&Kind::CsrReq));
    assert_eq!(kinds.last(), Some(&Kind::Crt));
    acked(&mut b, id);
    b.expect(CORE, "done");
    let ack = said(&b, Kind::CrtAck);
    assert_eq!(ack["certificateId"], id.to_string());
    assert_eq!((&ack["ack"], &ack["rotationId"]), (&json!("named"), &json!("r1")));
    assert!(b.published.iter().all(|p| p.side == Side::Cloud));
    assert_eq!(b.taken, 2, "each of its words is durable");
    b.settle(CORE, Kind::CrtAck);
    assert_eq!(b.settled, [id]);
    assert!(b.withdrawn.is_empty());
}

#[test]
fn what_the_core_does_not_answer_is_handed_to_it_again_and_again() {
    let mut b = Bench::up();
    b.request(CORE, "r1");
    b.advance(days(1));
    assert!((4..=40).contains(&b.for_core.len()), "{}", b.for_core.len());
    csr(&mut b, 1);
    b.advance(secs(66));
    b.crt(CORE, 1, 1);
    b.for_core.clear();
    b.advance(hours(10));
    assert!((10..=30).contains(&b.for_core.len()), "{}", b.for_core.len());
}

#[test]
fn a_restart_hands_the_core_what_it_had() {
    let mut b = Bench::up();
    let id = reach_await_ack(&mut b);
    b.restart();
    b.for_core.clear();
    b.links_up();
    b.advance(minutes(5));
    assert!(b.sent(Side::Cloud, Kind::CsrRes).len() >= 2, "the cloud is asked to stand by it");
    b.crt(CORE, 1, 1);
    b.advance(minutes(5));
    assert!(b.for_core.iter().any(|(_, kind, _)| *kind == Kind::Crt));
    acked(&mut b, id);
    b.expect(CORE, "done");
}

#[test]
fn the_subject_of_the_core_is_nobodys_business() {
    let match_all = Settings { common_name: CommonNameRule::Match, ..settings() };
    let mut b = Bench::with(match_all);
    b.links_up();
    reach_await_ack(&mut b);
    assert_eq!(b.counted(Side::Local, Reason::WrongSubject), 0);
}

#[test]
fn a_key_that_stays_may_be_asked_for_again_and_again() {
    let mut b = Bench::up();
    for (rotation, serial) in [("r1", 1), ("r2", 2), ("r3", 3)] {
        b.request(CORE, rotation);
        csr(&mut b, 1);
        b.expect(CORE, "await-cert");
        b.advance(secs(66));
        let id = b.crt(CORE, 1, serial);
        b.expect(CORE, "await-ack");
        acked(&mut b, id);
        b.expect(CORE, "done");
    }
}

#[test]
fn a_rotation_that_nobody_asked_for_says_so() {
    let mut b = Bench::up();
    csr(&mut b, 1);
    b.advance(secs(66));
    assert_eq!(said(&b, Kind::CsrRes)["unsolicited"], true);
    b.request(CORE, "r1");
    b.advance(minutes(3));
    assert_eq!(said(&b, Kind::CsrRes)["unsolicited"], Value::Null);
}

#[test]
fn what_stands_in_the_way_before_there_is_a_key_is_said_and_the_core_asked_again() {
    let mut b = Bench::up();
    b.request(CORE, "r1");
    failed(&mut b, Reason::NoSpace, None, true);
    b.expect(CORE, "await-csr");
    let err = said(&b, Kind::CrtErr);
    assert_eq!((&err["code"], &err["error"]), (&json!("no-space"), &json!("in words")));
    b.for_core.clear();
    b.advance(hours(2));
    assert!(!b.for_core.is_empty());
}

#[test]
fn a_failure_that_ends_the_rotation_does_and_one_that_does_not_is_only_said() {
    let mut b = Bench::up();
    let id = reach_await_ack(&mut b);
    failed(&mut b, Reason::RestartFailed, Some(id), false);
    b.expect(CORE, "await-ack");
    assert_eq!(said(&b, Kind::CrtErr)["code"], "restart-failed");
    failed(&mut b, Reason::ProbeRefused, Some(id), true);
    b.expect(CORE, "done");
    let err = said(&b, Kind::CrtErr);
    assert_eq!(
        (&err["code"], &err["certificateId"]),
        (&json!("probe-refused"), &json!(id.to_string()))
    );
}

#[test]
fn an_ack_of_what_was_rolled_back_is_never_sent_again() {
    let mut b = Bench::up();
    let id = reach_await_ack(&mut b);
    acked(&mut b, id);
    b.expect(CORE, "done");
    b.advance(hours(1));
    failed(&mut b, Reason::RolledBackByHand, Some(id), true);
    let acks = b.sent(Side::Cloud, Kind::CrtAck).len();
    assert_eq!(said(&b, Kind::CrtErr)["code"], "rolled-back-by-hand");
    b.restart();
    b.links_up();
    b.advance(days(10));
    b.request(CORE, "r1");
    b.advance(hours(1));
    assert_eq!(b.sent(Side::Cloud, Kind::CrtAck).len(), acks, "the old one would be retired");
    assert_eq!(said(&b, Kind::CrtErr)["certificateId"], id.to_string());
}

#[test]
fn a_certificate_that_the_cloud_takes_back_is_taken_from_the_core() {
    let mut b = Bench::up();
    let id = reach_await_ack(&mut b);
    b.request(CORE, "r2");
    assert_eq!(b.withdrawn, [id]);
    b.expect(CORE, "await-csr");
}

#[test]
fn an_odd_certificate_id_is_said_and_taken_all_the_same() {
    let mut b = Bench::up();
    b.request(CORE, "r1");
    csr(&mut b, 1);
    b.advance(secs(66));
    let der = pki::certificate(CORE, 1, 1);
    let mut message: Value = serde_json::from_slice(&crt_payload(&der)).expect("JSON");
    message["certificateId"] = json!("an-id-of-its-own");
    b.cloud(CORE, Kind::Crt, &bytes(message.clone()));
    assert_eq!(b.counted(Side::Cloud, Reason::OddCertificateId), 1);
    b.expect(CORE, "await-ack");
    message["certificateId"] = json!(pki::id(&der).to_string());
    b.cloud(CORE, Kind::Crt, &bytes(message));
    assert_eq!(b.counted(Side::Cloud, Reason::OddCertificateId), 1);
}

#[test]
fn the_core_has_no_row_among_the_children() {
    let mut b = Bench::up();
    reach_await_ack(&mut b);
    assert_eq!(b.relay.rows().count(), 0);
    assert_eq!(b.relay.core().map(|row| row.state), Some("await-ack"));
}
