//! What the peers of the relay say, and what a test asks the bench afterwards.

use certrelay::{
    links::{ConnectionId, Delivery, Message},
    reason::Reason,
    relay::{Body, Event, Record, Side, Stage},
    wire::{CertificateId, KeyDigest, Kind},
    x509,
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, CORE, Published, name, secs},
    pki,
};

impl Bench {
    /// A message, exactly as told.
    pub fn message(&mut self, side: Side, topic: &str, payload: &[u8], dup: bool, retain: bool) {
        self.number += 1;
        let delivery = Delivery { connection: ConnectionId(self.connection), number: self.number };
        let topic = topic.to_owned();
        let payload = payload.to_vec();
        let message = Message { topic, payload, dup, retain, delivery: Some(delivery) };
        self.feed(Event::Message { side, message });
        assert_eq!(self.acks.last(), Some(&(side, delivery)), "every message is acknowledged");
    }

    pub fn cloud(&mut self, to: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.cloud_topics.topic(&name(to), kind);
        self.message(Side::Cloud, &topic, payload, false, false);
    }

    pub fn local(&mut self, from: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.local_topics.topic(&name(from), kind);
        self.message(Side::Local, &topic, payload, false, false);
    }

    /// The same, redelivered.
    pub fn local_dup(&mut self, from: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.local_topics.topic(&name(from), kind);
        self.message(Side::Local, &topic, payload, true, false);
    }

    /// `csr_req` for a rotation of this core.
    pub fn request(&mut self, to: &str, rotation: &str) {
        self.cloud(to, Kind::CsrReq, &bytes(json!({ "core": CORE, "rotationId": rotation })));
    }

    /// A CSR of a child for one of its keys.
    pub fn csr(&mut self, from: &str, key: u32) {
        self.local(from, Kind::CsrRes, &csr_payload(&pki::csr(from, key)));
    }

    /// A certificate of the cloud.
    pub fn crt(&mut self, to: &str, key: u32, serial: u32) -> CertificateId {
        let der = pki::certificate(to, key, serial);
        self.cloud(to, Kind::Crt, &crt_payload(&der));
        pki::id(&der)
    }

    pub fn ack(&mut self, from: &str, certificate: CertificateId) {
        self.local(from, Kind::CrtAck, &bytes(json!({ "certificateId": certificate.to_string() })));
    }

    pub fn bare_ack(&mut self, from: &str) {
        self.local(from, Kind::CrtAck, b"{}");
    }

    pub fn fail(&mut self, from: &str, code: &str) {
        self.local(from, Kind::CrtErr, &bytes(json!({ "error": "no", "code": code })));
    }

    pub fn verdict(&mut self, to: &str, fields: Value) {
        self.cloud(to, Kind::Result, &bytes(fields));
    }

    /// The cloud says that it acted on what it last got of a kind.
    pub fn settle(&mut self, to: &str, kind: Kind) {
        let mid = self.last(Side::Cloud, kind).mid().to_string();
        self.verdict(to, json!({ "for": kind.as_str(), "ok": true, "mid": mid }));
    }

    /// A child comes to `AwaitCsr`.
    pub fn reach_await_csr(&mut self, child: &str, rotation: &str) {
        self.request(child, rotation);
        self.expect(child, "await-csr");
    }

    /// A child comes to `AwaitCert`, and the cloud has its CSR.
    pub fn reach_await_cert(&mut self, child: &str, rotation: &str, key: u32) {
        self.reach_await_csr(child, rotation);
        self.csr(child, key);
        self.expect(child, "await-cert");
        self.advance(secs(66));
    }

    /// A child comes to `AwaitAck`.
    pub fn reach_await_ack(&mut self, child: &str, rotation: &str, key: u32) -> CertificateId {
        self.reach_await_cert(child, rotation, key);
        let id = self.crt(child, key, 1);
        self.expect(child, "await-ack");
        id
    }

    /// A child comes to `Done`, and the cloud has said that it knows.
    pub fn reach_done(&mut self, child: &str, rotation: &str, key: u32) -> CertificateId {
        let id = self.reach_await_ack(child, rotation, key);
        self.ack(child, id);
        self.expect(child, "done");
        self.settle(child, Kind::CrtAck);
        assert!(self.record(child).outbox.is_empty());
        id
    }

    pub fn expect(&self, child: &str, state: &str) {
        assert_eq!(self.state(child), state, "the state of {child}");
    }

    pub fn state(&self, child: &str) -> &'static str {
        self.relay.record(&name(child)).map_or("none", |record| record.stage.name())
    }

    pub fn record(&self, child: &str) -> &Record {
        self.relay.record(&name(child)).expect("there is a record")
    }

    pub fn counted(&self, side: impl Into<Option<Side>>, reason: Reason) -> u64 {
        self.relay.counters().of(side.into(), reason)
    }

    /// What was published of a kind, and not forgotten since.
    pub fn sent(&self, side: Side, kind: Kind) -> Vec<&Published> {
        self.published.iter().filter(|p| p.side == side && p.kind == Some(kind)).collect()
    }

    pub fn last(&self, side: Side, kind: Kind) -> &Published {
        self.sent(side, kind).last().copied().expect("one was sent")
    }

    /// The codes of the errors that went up.
    pub fn errors(&self) -> Vec<String> {
        let errors = self.sent(Side::Cloud, Kind::CrtErr);
        errors.iter().map(|p| p.field("code").expect("every error has a code")).collect()
    }

    /// Forgets what was published and noted so far.
    pub fn forget(&mut self) {
        self.published.clear();
        self.notes.clear();
        self.acks.clear();
        self.verifies.clear();
        self.probes.clear();
    }

    /// Which bodies the store holds for a child: keys and certificates.
    pub fn bodies(&self, child: &str) -> (Option<KeyDigest>, Option<CertificateId>) {
        let body = |body| self.disk.body(&name(child), body);
        (
            body(Body::Csr).map(|der| x509::csr_key(der).expect("readable")),
            body(Body::Certificate).map(|der| x509::certificate_id(&x509::split_chain(der)[0])),
        )
    }

    /// The bodies in the store are those that the stage of each record needs.
    pub fn check_bodies(&self) {
        for (child, record) in self.disk.snapshot().records {
            let needs = match record.stage {
                Stage::AwaitCsr(_) | Stage::Done(_) => (None, None),
                Stage::AwaitCert(stage) => (Some(stage.csr.key), None),
                Stage::AwaitAck(stage) => (Some(stage.csr.key), Some(stage.certificate)),
            };
            assert!(needs.0.is_some() || record.csr_sig.is_none(), "no proof without its CSR");
            assert_eq!(self.bodies(child.as_str()), needs, "the bodies of {child}");
        }
    }
}

pub fn bytes(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub fn csr_payload(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "CSR": pki::pem("CERTIFICATE REQUEST", der) }))
}

pub fn crt_payload(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "certificatePem": pki::pem("CERTIFICATE", der) }))
}

/// The same, for this core by name.
pub fn crt_payload_for_core(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "certificatePem": pki::pem("CERTIFICATE", der), "core": CORE }))
}
