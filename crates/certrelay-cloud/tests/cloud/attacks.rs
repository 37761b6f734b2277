//! Who is not heard, and what is not believed.

use std::time::Duration;

use certrelay::{
    keys::{KeyKind, PrivateKey},
    proof,
    reason::Reason,
    schedule::Timestamp,
    wire::{CertificateId, Kind, Nonce, ThingName},
};
use certrelay_cloud::{
    decide::{code::Code, issue::csr_pem},
    functions::{Done, Fault},
    ports::Status,
    record::Proof,
};
use serde_json::{Value, json};

use crate::plant::{Act, End, HOUR, Plant, Way, enrol, name};

const NAMED: Way = Way::Relayed(Proof::Named);

/// A plant whose device was asked and has not answered.
fn asked(way: Way) -> (Plant, Act) {
    let mut plant = Plant::ordered(way);
    let request = plant.next().expect("the order");
    plant.done(&request);
    let csr = plant.next().expect("the CSR");
    (plant, csr)
}

/// A plant whose device got its certificate; its ack waits.
fn issued(way: Way) -> (Plant, Act) {
    let (mut plant, csr) = asked(way);
    plant.done(&csr);
    let ack = plant.next().expect("the ack");
    (plant, ack)
}

fn refused(plant: &mut Plant, act: &Act, code: impl Into<Code>) {
    let code = code.into();
    let before = plant.cloud.world().latest(&plant.thing).cloned();
    assert_eq!(plant.done(act), Done::Refused(code), "{act:?}");
    let after = plant.cloud.world().latest(&plant.thing).cloned();
    assert_eq!(before.map(|r| r.state), after.map(|r| r.state), "it changes nothing");
    let said = plant.results.last().expect("the sender is answered");
    assert_eq!(said.1.as_deref(), Some(code.as_str()));
}

fn by(act: &Act, client: &str, principal: CertificateId) -> Act {
    changed(act, |event| {
        event["client"] = json!(client);
        event["principal"] = json!(principal);
    })
}

fn changed(act: &Act, change: impl FnOnce(&mut Value)) -> Act {
    let Act::Uplink(kind, event) = act else { panic!("an uplink") };
    let mut event = event.clone();
    change(&mut event);
    Act::Uplink(*kind, event)
}

fn other_core(plant: &Plant, core: &str) -> (ThingName, CertificateId) {
    let core = name(core);
    let (_, certificate) = enrol(&mut plant.cloud.world(), &core, plant.now);
    (core, certificate)
}

#[test]
fn a_core_is_not_heard_for_a_child_that_is_not_its_own() {
    let (mut plant, csr) = asked(NAMED);
    let (core, certificate) = other_core(&plant, "core-2");
    let child = name("press-9");
    plant.cloud.world().associations.insert((core.clone(), child));
    refused(&mut plant, &by(&csr, core.as_str(), certificate), Code::NotAssociated);
    let (mut plant, ack) = issued(NAMED);
    let (core, certificate) = other_core(&plant, "core-2");
    refused(&mut plant, &by(&ack, core.as_str(), certificate), Code::NotAssociated);
}

#[test]
fn core10_does_not_pass_for_core1() {
    let mut plant = Plant::new(NAMED);
    plant.core = name("core1");
    let (core1, _) = other_core(&plant, "core1");
    let (core10, certificate) = other_core(&plant, "core10");
    plant.cloud.world().associations.insert((core1, plant.thing.clone()));
    plant.done(&plant.order());
    let csr = plant.next().expect("the CSR");
    refused(&mut plant, &by(&csr, core10.as_str(), certificate), Code::NotAssociated);
    refused(&mut plant, &by(&csr, "core10#2", certificate), Code::NotAssociated);
    // Nor does a client id say what the certificate does not.
    refused(&mut plant, &by(&csr, "core1", certificate), Code::UnknownSpeaker);
    refused(&mut plant, &by(&csr, "core1#2", certificate), Code::UnknownSpeaker);
}

#[test]
fn another_thing_is_not_heard_for_the_device_by_its_client_id() {
    let (mut plant, csr) = asked(Way::Direct);
    let (_, certificate) = other_core(&plant, "press-2");
    refused(&mut plant, &by(&csr, "press-1", certificate), Code::UnknownSpeaker);
}

#[test]
fn a_payload_that_brings_a_client_id_of_its_own_changes_nothing() {
    let (mut plant, csr) = asked(NAMED);
    let (core, certificate) = other_core(&plant, "core-2");
    let forged = changed(&by(&csr, core.as_str(), certificate), |event| {
        for field in ["clientid", "clientId", "client_id", "mqtt_client", "thingName", "topic"] {
            event[field] = json!("core-1");
        }
    });
    refused(&mut plant, &forged, Code::NotAssociated);
    // A core says that another has relayed it.
    let claims = changed(&csr, |event| event["core"] = json!("core-2"));
    refused(&mut plant, &claims, Reason::OtherCore);
}

#[test]
fn a_csr_from_an_earlier_rotation_is_refused() {
    let (mut plant, first_csr) = asked(NAMED);
    plant.done(&first_csr);
    plant.finish();
    plant.check_end();
    // Over: nobody has asked for it.
    refused(&mut plant, &first_csr, Code::NoRotation);
    // The next rotation: its key is that of the certificate in use.
    let first_csr = changed(&first_csr, |event| {
        event.as_object_mut().expect("an object").remove("rotationId");
    });
    (plant.first, plant.acked) = (plant.in_use, None);
    plant.done(&plant.order());
    refused(&mut plant, &first_csr, Reason::KeyNotNew);
    plant.finish();
    plant.check_end();
    // And the one after: that of a certificate that is gone.
    (plant.first, plant.acked) = (plant.in_use, None);
    plant.done(&plant.order());
    refused(&mut plant, &first_csr, Reason::KeyNotNew);
}

#[test]
fn a_csr_with_the_key_in_use_is_refused() {
    let (mut plant, csr) = asked(Way::Direct);
    let old = plant.record().old.key;
    let old_csr = csr_pem(&plant.keys[&old].csr(&plant.thing).expect("a CSR"));
    let csr = changed(&csr, |event| event["CSR"] = json!(old_csr));
    refused(&mut plant, &csr, Reason::KeyNotNew);
}

#[test]
fn a_csr_for_another_name_or_not_signed_by_its_key_is_refused() {
    let (mut plant, csr) = asked(NAMED);
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let foreign = csr_pem(&key.csr(&name("press-2")).expect("a CSR"));
    let foreign = changed(&csr, |event| event["CSR"] = json!(foreign));
    refused(&mut plant, &foreign, Reason::WrongSubject);
    let mut der = key.csr(&plant.thing).expect("a CSR");
    let last = der.len() - 1;
    der[last] ^= 1;
    let unsigned = changed(&csr, |event| event["CSR"] = json!(csr_pem(&der)));
    refused(&mut plant, &unsigned, Reason::BadSignature);
}

#[test]
fn an_ack_for_a_certificate_of_someone_else_is_refused() {
    let (mut plant, ack) = issued(NAMED);
    let (_, foreign) = other_core(&plant, "press-2");
    let foreign = changed(&ack, |event| event["certificateId"] = json!(foreign));
    refused(&mut plant, &foreign, Reason::AckUnknown);
    let odd = changed(&ack, |event| event["certificateId"] = json!("?"));
    refused(&mut plant, &odd, Reason::AckUnknown);
    let old = changed(&ack, |event| event["certificateId"] = json!(plant.first));
    refused(&mut plant, &old, Reason::StaleAck);
}

#[test]
fn a_device_that_says_so_over_its_old_certificate_is_not_believed() {
    let (mut plant, ack) = issued(Way::Direct);
    let old = by(&ack, "press-1", plant.first);
    refused(&mut plant, &old, Code::OtherPrincipal);
    let named = changed(&old, |event| event["certificateId"] = json!(plant.in_use));
    refused(&mut plant, &named, Code::OtherPrincipal);
}

#[test]
fn no_ack_that_a_core_relays_counts_after_the_device_has_rolled_back() {
    for proof in [Proof::Bare, Proof::Named, Proof::Signed] {
        let (mut plant, ack) = issued(Way::Relayed(proof));
        plant.done(&ack);
        plant.pass(HOUR);
        let trouble = plant.uplink(Kind::CrtErr, json!({ "error": "went back" }));
        plant.done(&trouble);
        assert_eq!(plant.state(), "requested");
        plant.pass(HOUR);
        let late = changed(&ack, |event| event["at"] = json!(plant.now.0));
        refused(&mut plant, &late, Reason::StaleAck);
        let bare = plant.uplink(Kind::CrtAck, json!({}));
        refused(&mut plant, &bare, Reason::StaleAck);
        plant.in_use = plant.first;
        plant.acked = None;
        plant.check();
    }
}

#[test]
fn an_ack_that_was_under_way_when_the_device_rolled_back_does_not_count() {
    let (mut plant, ack) = issued(Way::Direct);
    plant.pass(Duration::from_secs(1));
    let trouble = plant.uplink(Kind::CrtErr, json!({ "error": "went back" }));
    plant.done(&by(&trouble, "press-1", plant.first));
    refused(&mut plant, &ack, Reason::StaleAck);
    // What the device says later over the new certificate does.
    plant.pass(Duration::from_secs(1));
    let again = changed(&ack, |event| event["at"] = json!(plant.now.0));
    assert_eq!(plant.done(&again), Done::Did("acked"));
}

#[test]
fn payloads_of_200_kilobytes_are_refused_and_answered() {
    let (mut plant, csr) = asked(NAMED);
    let large = changed(&csr, |event| event["CSR"] = json!("A".repeat(200_000)));
    refused(&mut plant, &large, Reason::TooLarge);
    let padded = changed(&csr, |event| event["mid"] = json!("a".repeat(200_000)));
    refused(&mut plant, &padded, Reason::TooLarge);
    let trouble = plant.uplink(Kind::CrtErr, json!({ "error": "x".repeat(200_000) }));
    refused(&mut plant, &trouble, Reason::TooLarge);
}

#[test]
fn what_a_device_says_is_kept_escaped_and_short_and_never_mailed() {
    let (mut plant, _) = issued(NAMED);
    plant.settings.support_after = 1;
    let text = format!("\u{1b}[2J\r\nSubject: pay\u{202e}{}", "x".repeat(5_000));
    let trouble = plant.uplink(Kind::CrtErr, json!({ "error": text, "code": "<b>evil</b>" }));
    plant.done(&trouble);
    let kept = plant.record().last_failure.expect("kept");
    assert!(kept.text.len() <= 256 && !kept.text.chars().any(char::is_control), "{kept:?}");
    assert_eq!(kept.code, "device-error", "a code that is none is not kept");
    let (swept, _) = crate::plant::swept(&plant);
    assert_eq!(swept.notes, 1);
    let (subject, body) = plant.cloud.world().mails[0].clone();
    assert!(!subject.contains("pay") && !body.contains("pay") && !body.contains("evil"), "{body}");
    assert!(body.contains("device-error: 1") && body.contains("press-1"), "{body}");
}

#[test]
fn with_proof_required_a_core_can_not_rotate_its_children_by_itself() {
    let (mut plant, _) = asked(NAMED);
    plant.settings.require_proof = true;
    // The core makes a key of its own for the child.
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = csr_pem(&key.csr(&plant.thing).expect("a CSR"));
    let bare = plant.uplink(Kind::CsrRes, json!({ "CSR": csr }));
    refused(&mut plant, &bare, Code::ProofMissing);
    let text = proof::csr_text(&plant.thing, key.digest(), plant.record().nonce);
    let own = key.sign(&text).expect("signs");
    let signed = plant.uplink(Kind::CsrRes, json!({ "CSR": csr, "sig": own }));
    refused(&mut plant, &signed, Code::BadProof);
    // Nor does a proof of another rotation help.
    let stale = proof::csr_text(&plant.thing, key.digest(), Nonce([1; 16]));
    let old = plant.record().old.key;
    let stale = plant.keys[&old].sign(&stale).expect("signs");
    let signed = plant.uplink(Kind::CsrRes, json!({ "CSR": csr, "sig": stale }));
    refused(&mut plant, &signed, Code::BadProof);
}

#[test]
fn with_proof_required_a_device_that_proves_itself_is_rotated() {
    let mut plant = Plant::ordered(Way::Relayed(Proof::Signed));
    plant.settings.require_proof = true;
    plant.finish();
    plant.check_end();
    let mut plant = Plant::ordered(Way::Direct);
    plant.settings.require_proof = true;
    plant.finish();
    plant.check_end();
    let (mut plant, ack) = issued(Way::Relayed(Proof::Signed));
    plant.settings.require_proof = true;
    let named = changed(&ack, |event| drop(event.as_object_mut().expect("one").remove("sig")));
    refused(&mut plant, &named, Code::ProofMissing);
    // A signature that does not hold is never taken for none.
    plant.settings.require_proof = false;
    let sig = plant.keys.values().next().map(|key| key.sign(b"something else"));
    let forged = changed(&ack, |event| event["sig"] = json!(sig.expect("a key").expect("signs")));
    refused(&mut plant, &forged, Code::BadProof);
}

#[test]
fn a_certificate_of_several_things_is_not_rotated() {
    let mut plant = Plant::new(Way::Direct);
    let first = plant.first;
    let add = |plant: &Plant, thing| {
        let mut world = plant.cloud.world();
        let things = &mut world.certificates.get_mut(&first).expect("there").things;
        things.push(certrelay_cloud::ports::Attachment { thing, is_exclusive: false });
    };
    add(&plant, name("press-2"));
    assert_eq!(plant.done(&plant.order()), Done::Refused(Code::SeveralThings));
}

#[test]
fn a_certificate_that_is_not_active_begins_no_rotation() {
    let mut plant = Plant::new(Way::Direct);
    let first = plant.first;
    // The device is off.
    plant.has_fallen_back = true;
    plant.cloud.world().certificates.get_mut(&first).expect("there").status = Status::Inactive;
    plant.acked = Some(Timestamp(0));
    assert_eq!(plant.done(&plant.order()), Done::Refused(Code::NotActive));
    plant.cloud.world().certificates.remove(&first);
    assert_eq!(plant.done(&plant.order()), Done::Refused(Code::NoCertificate));
}

#[test]
fn what_no_thing_with_a_certificate_has_sent_is_dropped_and_reaches_nobody() {
    let (mut plant, csr) = asked(NAMED);
    let before = plant.record();
    let senders = [("a b", json!(plant.core_certificate)), ("core-1", json!("AROA:session"))];
    for (client, principal) in senders {
        let odd = changed(&csr, |event| {
            event["client"] = json!(client);
            event["principal"] = principal.clone();
        });
        // Not an error: its queue would hand it out five times, and an alarm wake someone.
        assert_eq!(plant.done(&odd), Done::Refused(Code::UnknownSpeaker));
    }
    assert_eq!((plant.record(), plant.results.len()), (before, 0));
}

#[test]
fn what_no_queue_should_hold_is_given_up_by_its_queue() {
    let mut plant = Plant::new(Way::Direct);
    for act in [Act::Request("?".to_owned()), Act::Uplink(Kind::CsrRes, json!({ "thing": 7 }))] {
        let end = plant.perform(&act, None);
        assert!(matches!(end, End::Fault(Fault::Unreadable(_))), "{end:?}");
    }
}
