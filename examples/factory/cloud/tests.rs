//! The demo's cloud is no accomplice: it refuses what a cloud would refuse.

use rcgen::KeyPair;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn name(text: &str) -> ThingName {
    text.parse().expect("valid")
}

/// A cloud with two devices, which it has asked.
fn cloud() -> Cloud {
    let mut cloud = Cloud::new(Authority::new("devices"), name("core-1"), NOW);
    cloud.enrol(&name("pump-1"));
    cloud.enrol(&name("pump-2"));
    assert_eq!(cloud.audit().len(), 2);
    cloud
}

fn csr(subject: &str, key: &KeyPair) -> Vec<u8> {
    named(subject).serialize_request(key).expect("a CSR").der().to_vec()
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn header(core: &str) -> Header {
    Header { rotation: None, core: Some(name(core)), mid: None }
}

/// Sends a CSR under a device's name by a core; the certificate's DER, or the code of the refusal.
fn send(cloud: &mut Cloud, device: &str, core: &str, csr: &[u8]) -> Result<Vec<u8>, String> {
    let payload = render::csr_res(&header(core), csr, None);
    let answers = cloud.receive(&format!("management/topic/{device}/csr_res"), &payload, None);
    let [(topic, payload)] = answers.as_slice() else { panic!("one answer: {answers:?}") };
    if topic.ends_with("/crt") {
        let message = certrelay::wire::CertificateMessage::parse(payload).expect("readable");
        return Ok(message.chain.concat());
    }
    Err(refusal(payload))
}

fn refusal(result: &[u8]) -> String {
    let fields: Value = serde_json::from_slice(result).expect("an object");
    assert_eq!((&fields["ok"], &fields["final"]), (&json!(false), &json!(true)));
    fields["code"].as_str().expect("coded").to_owned()
}

fn ack(cloud: &mut Cloud, certificate: Option<CertificateId>) -> Vec<Message> {
    let payload = render::crt_ack(&header("core-1"), certificate, None, None);
    cloud.receive("management/topic/pump-1/crt_ack", &payload, None)
}

#[test]
fn a_csr_that_is_not_the_devices_own_by_its_own_core_is_refused_for_good() {
    let mut cloud = cloud();
    let mut forged = csr("pump-1", &key());
    *forged.last_mut().expect("not empty") ^= 1;
    let table = [
        (send(&mut cloud, "pump-1", "core-2", &csr("pump-1", &key())), "other-core"),
        (send(&mut cloud, "pump-1", "core-1", &csr("pump-2", &key())), "wrong-subject"),
        (send(&mut cloud, "pump-9", "core-1", &csr("pump-9", &key())), "unknown-thing"),
        (send(&mut cloud, "pump-1", "core-1", &forged), "bad-signature"),
        (send(&mut cloud, "pump-1", "core-1", &[7; 9000]), "bad-csr"),
    ];
    for (verdict, code) in table {
        assert_eq!(verdict, Err(code.to_owned()));
    }
    assert_eq!(cloud.count().issued, 0);
    assert_eq!(cloud.count().refused, 1);
}

#[test]
fn a_key_gets_one_certificate_however_often_it_asks_and_no_other_device_gets_one_for_it() {
    let mut cloud = cloud();
    let key = key();
    let first = send(&mut cloud, "pump-1", "core-1", &csr("pump-1", &key)).expect("issued");
    let again = send(&mut cloud, "pump-1", "core-1", &csr("pump-1", &key)).expect("issued");
    assert_eq!(first, again);
    let other = send(&mut cloud, "pump-2", "core-1", &csr("pump-2", &key));
    assert_eq!(other, Err("key-not-new".to_owned()));
}

#[test]
fn the_key_that_is_in_use_gets_no_new_certificate() {
    let mut cloud = cloud();
    let pair = cloud.enrol(&name("pump-3"));
    let key = KeyPair::from_pem(&pair.key).expect("a key");
    let verdict = send(&mut cloud, "pump-3", "core-1", &csr("pump-3", &key));
    assert_eq!(verdict, Err("key-not-new".to_owned()));
}

#[test]
fn only_an_ack_that_names_the_new_certificate_retires_the_old_one() {
    let mut cloud = cloud();
    let first = cloud.devices[&name("pump-1")].first;
    let leaf = send(&mut cloud, "pump-1", "core-1", &csr("pump-1", &key())).expect("issued");
    for bad in [None, Some(CertificateId([1; 32])), Some(first)] {
        let [(_, result)] = ack(&mut cloud, bad).try_into().expect("one answer");
        assert_eq!(refusal(&result), "ack-unknown");
        assert!(!cloud.has_retired(first));
    }
    let new = x509::certificate_id(&leaf);
    for _ in 0..2 {
        ack(&mut cloud, Some(new));
        assert!(cloud.has_retired(first) && !cloud.has_retired(new));
        assert_eq!(cloud.count().rotated, 1);
    }
}

#[test]
fn what_each_device_was_last_told_is_said_again() {
    let mut cloud = cloud();
    let again = |cloud: &Cloud| cloud.say_again().remove(0);
    let kind = |(topic, _): Message| topic.rsplit('/').next().map(str::to_owned);
    assert_eq!(kind(again(&cloud)), Some("csr_req".to_owned()));

    let leaf = send(&mut cloud, "pump-1", "core-1", &csr("pump-1", &key())).expect("issued");
    let (_, payload) = again(&cloud);
    let message = certrelay::wire::CertificateMessage::parse(&payload).expect("readable");
    assert_eq!(message.chain.concat(), leaf);

    let result = ack(&mut cloud, Some(x509::certificate_id(&leaf)));
    assert_eq!(result, [again(&cloud)]);
    let of_others: Vec<_> = cloud.say_again().into_iter().skip(1).map(kind).collect();
    assert_eq!(of_others, [Some("csr_req".to_owned())]);
}

#[test]
fn a_device_that_was_not_asked_is_told_nothing() {
    let mut cloud = Cloud::new(Authority::new("devices"), name("core-1"), NOW);
    cloud.enrol(&name("pump-1"));
    assert_eq!(cloud.say_again(), []);
}

#[test]
fn the_core_is_asked_by_itself_and_its_ack_counts_over_its_new_certificate_alone() {
    let mut cloud = cloud();
    let first = {
        cloud.enrol(&name("core-1"));
        cloud.core().expect("enrolled").first
    };
    assert_eq!(cloud.audit_core().len(), 1);
    let leaf = send(&mut cloud, "core-1", "core-1", &csr("core-1", &key())).expect("issued");
    let new = x509::certificate_id(&leaf);
    let payload = render::crt_ack(&header("core-1"), Some(new), None, None);
    let mut ack = |principal| {
        let topic = "management/topic/core-1/crt_ack";
        let answers = cloud.receive(topic, &payload, principal);
        (answers[0].1.clone(), cloud.has_retired(first))
    };
    for wrong in [None, Some(first)] {
        let (result, has_retired) = ack(wrong);
        assert_eq!((refusal(&result), has_retired), ("other-principal".to_owned(), false));
    }
    assert!(ack(Some(new)).1);
}
