//! Proofs pass through: the request's nonce down, the device's signatures up, and nothing is judged.

use certrelay::{
    reason::Reason,
    relay::{Children, Settings, Side},
    wire::{CertificateId, Kind, Nonce},
};
use serde_json::json;

use crate::{
    bench::{Bench, CORE, PUMP, bytes, days, hours, minutes, secs, settings},
    pki,
};

/// The nonce with this number.
fn nonce(number: u8) -> String {
    Nonce([number; 16]).to_string()
}

fn request(b: &mut Bench, rotation: &str, number: u8) {
    let fields = json!({ "core": CORE, "rotationId": rotation, "nonce": nonce(number) });
    b.cloud(PUMP, Kind::CsrReq, &bytes(fields));
}

fn csr(b: &mut Bench, key: u32, rotation: &str, sig: Option<&str>) {
    let pem = pki::pem("CERTIFICATE REQUEST", &pki::csr(PUMP, key));
    b.local(PUMP, Kind::CsrRes, &bytes(json!({ "CSR": pem, "rotationId": rotation, "sig": sig })));
}

fn ack(b: &mut Bench, id: CertificateId, sig: &str) {
    let fields = json!({ "certificateId": id.to_string(), "sig": sig });
    b.local(PUMP, Kind::CrtAck, &bytes(fields));
}

/// The proofs that went up with messages of a kind.
fn sigs(b: &Bench, kind: Kind) -> Vec<Option<String>> {
    b.sent(Side::Cloud, kind).iter().map(|p| p.field("sig")).collect()
}

fn asked(b: &Bench) -> Option<String> {
    b.last(Side::Local, Kind::CsrReq).field("nonce")
}

#[test]
fn nonce_and_proofs_go_with_every_repeat_over_a_restart_too() {
    let mut b = Bench::up();
    b.loopback = false;
    request(&mut b, "r1", 1);
    b.advance(hours(2));
    b.restart();
    b.links_up();
    b.advance(hours(2));
    let asked = b.sent(Side::Local, Kind::CsrReq);
    assert!(asked.len() > 4 && asked.iter().all(|p| p.field("nonce") == Some(nonce(1))));

    csr(&mut b, 1, "r1", Some("AQID"));
    b.advance(hours(2));
    b.restart();
    b.links_up();
    b.advance(hours(2));
    let sent = sigs(&b, Kind::CsrRes);
    assert!(sent.len() > 4 && sent.iter().all(|sig| sig.as_deref() == Some("AQID")), "{sent:?}");

    let id = b.crt(PUMP, 1, 1);
    ack(&mut b, id, "BAUG");
    b.advance(hours(2));
    b.restart();
    b.links_up();
    b.advance(hours(2));
    let sent = sigs(&b, Kind::CrtAck);
    assert!(sent.len() > 4 && sent.iter().all(|sig| sig.as_deref() == Some("BAUG")), "{sent:?}");
    assert_eq!(b.record(PUMP).csr_sig, None, "it is gone with its CSR");
}

#[test]
fn without_a_nonce_and_proofs_nothing_changes_on_the_wire_or_in_the_store() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    for p in &b.published {
        assert_eq!((p.field("nonce"), p.field("sig")), (None, None), "{:?}", p.kind);
    }
    let stored = b.disk.records.values().next().expect("a record");
    let stored = String::from_utf8(stored.clone()).expect("text");
    assert!(!stored.contains("nonce") && !stored.contains("ig\""), "{stored}");
}

#[test]
fn an_ack_that_the_cloud_asks_for_by_name_again_carries_its_proof() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    csr(&mut b, 1, "r1", Some("AQID"));
    b.advance(secs(66));
    let id = b.crt(PUMP, 1, 1);
    ack(&mut b, id, "BAUG");
    b.settle(PUMP, Kind::CrtAck);
    b.forget();
    request(&mut b, "r1", 1);
    b.advance(secs(1));
    assert_eq!(sigs(&b, Kind::CrtAck), [Some("BAUG".to_owned())]);
}

#[test]
fn a_new_proof_of_the_same_csr_takes_the_place_of_the_old_one() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    csr(&mut b, 1, "r1", Some("AQID"));
    csr(&mut b, 1, "r1", None);
    b.advance(secs(6));
    csr(&mut b, 1, "r1", Some("BAUG"));
    b.advance(secs(70));
    assert_eq!(sigs(&b, Kind::CsrRes), ["AQID", "BAUG"].map(|sig| Some(sig.to_owned())));
    csr(&mut b, 2, "r1", None);
    b.advance(secs(70));
    assert_eq!(sigs(&b, Kind::CsrRes).last(), Some(&None), "another CSR has a proof of its own");
}

#[test]
fn a_csr_whose_proof_is_outdated_by_a_new_rotation_is_asked_for_again() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    csr(&mut b, 1, "r1", Some("AQID"));
    b.advance(days(1));
    b.forget();
    request(&mut b, "r2", 2);
    b.expect(PUMP, "await-csr");
    assert_eq!(asked(&b), Some(nonce(2)));
    csr(&mut b, 1, "r2", Some("BAUG"));
    b.advance(secs(20));
    assert_eq!(sigs(&b, Kind::CsrRes), [Some("BAUG".to_owned())]);
    b.crt(PUMP, 1, 1);
    b.expect(PUMP, "await-ack");
}

#[test]
fn a_csr_of_a_device_that_gives_no_proofs_serves_a_new_rotation() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    csr(&mut b, 1, "r1", None);
    b.advance(days(1));
    b.forget();
    request(&mut b, "r2", 2);
    b.expect(PUMP, "await-cert");
    b.advance(secs(70));
    assert_eq!(b.sent(Side::Cloud, Kind::CsrRes).len(), 1);
    assert!(b.sent(Side::Local, Kind::CsrReq).is_empty());
}

#[test]
fn a_device_that_was_asked_for_no_proof_is_asked_for_one_when_the_cloud_wants_it() {
    let mut b = Bench::up();
    // What an earlier rotation asked for does not count.
    request(&mut b, "r0", 9);
    b.reach_done(PUMP, "r0", 2);
    b.csr(PUMP, 1);
    b.expect(PUMP, "await-cert");
    request(&mut b, "r1", 1);
    b.expect(PUMP, "await-csr");
    b.advance(secs(11));
    assert_eq!(asked(&b), Some(nonce(1)));
    // It has none; then its CSR has to do.
    b.csr(PUMP, 1);
    request(&mut b, "r1", 1);
    b.expect(PUMP, "await-cert");
}

#[test]
fn a_proof_for_the_rotation_before_brings_the_newest_request_and_does_not_go_up() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    b.advance(hours(3));
    request(&mut b, "r2", 2);
    b.advance(minutes(1));
    b.forget();
    // It was away, and the broker had kept the request before for it.
    csr(&mut b, 1, "r1", Some("AQID"));
    b.advance(secs(11));
    b.expect(PUMP, "await-csr");
    assert_eq!(b.counted(Side::Local, Reason::Superseded), 1);
    assert_eq!(asked(&b), Some(nonce(2)));
    csr(&mut b, 1, "r2", Some("BAUG"));
    b.advance(secs(20));
    assert_eq!(sigs(&b, Kind::CsrRes), [Some("BAUG".to_owned())]);
}

#[test]
fn a_rotation_without_a_nonce_leaves_none_of_the_one_before() {
    let mut b = Bench::up();
    request(&mut b, "r1", 1);
    b.request(PUMP, "r1");
    b.advance(hours(13));
    assert_eq!(asked(&b), Some(nonce(1)), "it is the same rotation");
    b.request(PUMP, "r2");
    b.advance(hours(13));
    assert_eq!(asked(&b), None);
}

#[test]
fn a_device_that_is_only_tried_gets_the_newest_nonce() {
    let mut b = Bench::with(Settings { children: Children::new(["*"]), ..settings() });
    b.links_up();
    let fields = |number| bytes(json!({ "rotationId": "r1", "nonce": nonce(number) }));
    b.cloud(PUMP, Kind::CsrReq, &fields(1));
    b.expect(PUMP, "none");
    assert_eq!(asked(&b), Some(nonce(1)));
    b.cloud(PUMP, Kind::CsrReq, &fields(2));
    b.advance(hours(1));
    assert_eq!(asked(&b), Some(nonce(2)));
    csr(&mut b, 1, "r1", Some("AQID"));
    b.expect(PUMP, "await-cert");
    b.advance(secs(20));
    assert_eq!(sigs(&b, Kind::CsrRes), [Some("AQID".to_owned())]);
    assert_eq!(b.record(PUMP).nonce, Some(Nonce([2; 16])));
}

#[test]
fn what_can_not_be_read_counts_as_absent() {
    let mut b = Bench::up();
    let fields = json!({ "core": CORE, "rotationId": "r1", "nonce": "07" });
    b.cloud(PUMP, Kind::CsrReq, &bytes(fields));
    assert_eq!(asked(&b), None);
    csr(&mut b, 1, "r1", Some(&"A".repeat(1028)));
    b.advance(secs(20));
    assert_eq!(sigs(&b, Kind::CsrRes), [None]);
}

#[test]
fn the_core_is_asked_for_no_proof() {
    let mut b = Bench::up();
    let fields = json!({ "core": CORE, "rotationId": "r1", "nonce": nonce(1) });
    b.cloud(CORE, Kind::CsrReq, &bytes(fields));
    assert_eq!(b.state(CORE), "await-csr");
    assert_eq!(b.record(CORE).nonce, None);
    let (_, _, payload) = b.for_core.last().expect("it is told");
    assert!(!String::from_utf8_lossy(payload).contains("nonce"));
}
