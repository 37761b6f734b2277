//! The demo's cloud is no accomplice: certrelay's own functions decide, as they would on AWS.

use certrelay::wire::{CertificateMessage, Header, render};
use rcgen::KeyPair;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn name(text: &str) -> ThingName {
    text.parse().expect("valid")
}

/// A cloud with a core and two devices, and the core's certificate.
fn cloud() -> (Cloud, CertificateId) {
    let mut cloud = Cloud::new(Authority::new("devices"), name("core-1"), NOW);
    for device in ["core-1", "pump-1", "pump-2"] {
        cloud.enrol(&name(device));
    }
    assert_eq!((cloud.audit().len(), cloud.audit_core().len()), (2, 1));
    let core = cloud.core().expect("enrolled").1.first;
    (cloud, core)
}

/// Sends a CSR under a device's name; the certificate's DER, or the code of the refusal.
fn send(cloud: &mut Cloud, device: &str, by: CertificateId) -> Result<Vec<u8>, String> {
    let key = KeyPair::generate().expect("a key");
    let csr = named(device).serialize_request(&key).expect("a CSR").der().to_vec();
    let header = Header { rotation: None, core: Some(name("core-1")), mid: None };
    let topic = format!("management/topic/{device}/csr_res");
    let said = cloud.receive(&topic, &render::csr_res(&header, &csr, None), Some(by));
    let (topic, payload) = said.first().expect("an answer");
    if topic.ends_with("/crt") {
        return Ok(CertificateMessage::parse(payload).expect("readable").chain.concat());
    }
    let result: Value = serde_json::from_slice(payload).expect("an object");
    Err(result["code"].as_str().expect("coded").to_owned())
}

#[test]
fn a_certificate_is_issued_to_who_was_asked_over_the_cores_connection_alone() {
    let (mut cloud, core) = cloud();
    let stranger = CertificateId([1; 32]);
    assert_eq!(send(&mut cloud, "pump-1", stranger), Err("unknown-speaker".to_owned()));
    assert_eq!(send(&mut cloud, "pump-9", core), Err("not-associated".to_owned()));
    assert_eq!(cloud.count().issued, 0);
    assert!(send(&mut cloud, "pump-1", core).is_ok());
    assert_eq!(cloud.count().issued, 1);
}

#[test]
fn an_old_certificate_is_retired_when_its_grace_is_over_and_not_before() {
    let (mut cloud, core) = cloud();
    let leaf = send(&mut cloud, "pump-1", core).expect("issued");
    let (first, new) = (cloud.devices[&name("pump-1")].first, x509::certificate_id(&leaf));
    let header = Header { rotation: None, core: Some(name("core-1")), mid: None };
    let ack = render::crt_ack(&header, Some(new), None, None);
    cloud.receive("management/topic/pump-1/crt_ack", &ack, Some(core));
    assert_eq!(cloud.count().rotated, 1);
    assert_eq!(cloud.in_use(&name("pump-1")), Some(new));
    // Six of the cloud's days.
    cloud.turn(6 * DAY / PACE);
    assert!(!cloud.has_retired(first));
    assert!(cloud.let_weeks_pass() >= 7);
    assert!(cloud.has_retired(first) && !cloud.has_retired(new));
}

#[test]
fn what_a_device_did_not_hear_is_said_again_an_hour_later() {
    let (mut cloud, _) = cloud();
    assert_eq!(cloud.turn(Duration::from_millis(900)), []);
    let said = cloud.turn(Duration::from_millis(1100));
    assert_eq!(said.len(), 3, "the cloud's hour is a second");
    assert!(said.iter().all(|(topic, _)| topic.ends_with("/csr_req")));
}
