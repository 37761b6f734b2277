//! The relay, as far as the core is concerned: one record that outlives the process, and repeats
//! each thing until something comes back.

use certrelay::{
    identity::Say,
    wire::{CertificateId, Header, KeyDigest, Kind, RotationId, render},
    x509,
};

use crate::{
    cloud::Uplink,
    pki::Leaf,
    world::{HOUR, MINUTE, SECOND},
};

/// What it waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Done,
    AwaitCsr,
    AwaitCert(KeyDigest),
    AwaitAck(Leaf),
}

/// The relay's record of the core.
#[derive(Debug)]
pub struct Relay {
    pub stage: Stage,
    rotation: Option<RotationId>,
    /// When the next copy goes to the core, and how many went.
    pub down_due: Option<u64>,
    copies: u32,
    /// What is on its way to the cloud.
    pub up: Vec<Uplink>,
    pub up_due: Option<u64>,
}

impl Relay {
    pub fn new() -> Self {
        Self {
            stage: Stage::Done,
            rotation: None,
            down_due: None,
            copies: 0,
            up: Vec::new(),
            up_due: None,
        }
    }

    fn enter(&mut self, now: u64, stage: Stage) {
        let repeats = matches!(stage, Stage::AwaitCsr | Stage::AwaitAck(_));
        (self.stage, self.copies) = (stage, 0);
        self.down_due = repeats.then_some(now + 1);
    }

    /// A process has started: what is due goes out soon.
    pub fn on_start(&mut self, now: u64) {
        self.copies = 0;
        self.down_due = self.down_due.map(|_| now + 5 * SECOND);
        self.up_due = (!self.up.is_empty() || matches!(self.stage, Stage::AwaitCert(_)))
            .then_some(now + 10 * SECOND);
    }

    /// Nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        self.stage == Stage::Done && self.up.is_empty()
    }

    /// The cloud wants a rotation. Returns what it takes the place of.
    pub fn on_request(&mut self, now: u64, rotation: &str) -> Option<CertificateId> {
        let given_up = match &self.stage {
            Stage::AwaitAck(leaf) => Some(leaf.facts.id),
            _ => None,
        };
        self.rotation = rotation.parse().ok();
        self.enter(now, Stage::AwaitCsr);
        given_up
    }

    /// The cloud sends a certificate.
    pub fn on_certificate(&mut self, now: u64, leaf: Leaf) {
        let fits = match &self.stage {
            Stage::AwaitCert(key) => *key == leaf.facts.key,
            Stage::AwaitAck(held) => held.facts.key == leaf.facts.key && *held != leaf,
            _ => false,
        };
        if fits {
            self.enter(now, Stage::AwaitAck(leaf));
        }
    }

    /// The cloud takes back what it gave. Returns what that was.
    pub fn withdraw(&mut self, now: u64) -> Option<CertificateId> {
        let Stage::AwaitAck(leaf) = self.stage.clone() else { return None };
        self.enter(now, Stage::Done);
        Some(leaf.facts.id)
    }

    /// What is due to the core.
    pub fn message(&mut self, now: u64) -> Option<(Kind, Vec<u8>)> {
        self.copies += 1;
        let (first, longest) = match self.stage {
            Stage::AwaitCsr => (10 * MINUTE, 6 * HOUR),
            _ => (MINUTE, HOUR),
        };
        self.down_due = Some(now + (first << (self.copies - 1).min(12)).min(longest));
        let header = Header { rotation: self.rotation.clone(), ..Header::default() };
        match &self.stage {
            Stage::AwaitCsr => Some((Kind::CsrReq, render::csr_req(&header, None, None))),
            Stage::AwaitAck(leaf) => Some((Kind::Crt, render::crt(&header, [&leaf.der[..]]))),
            Stage::Done | Stage::AwaitCert(_) => {
                self.down_due = None;
                None
            }
        }
    }

    /// The core says something.
    pub fn hear(&mut self, now: u64, say: Say) {
        match say {
            Say::Csr { csr, rotation } => {
                let key = x509::csr_key(&csr).expect("readable");
                if !matches!(&self.stage, Stage::AwaitAck(leaf) if leaf.facts.key == key) {
                    self.enter(now, Stage::AwaitCert(key));
                }
                self.send(now, Uplink::Csr(csr, rotation));
            }
            Say::Acked { certificate, .. } => {
                let held = matches!(&self.stage, Stage::AwaitAck(l) if l.facts.id == certificate);
                if held {
                    self.enter(now, Stage::Done);
                    self.send(now, Uplink::Ack(certificate));
                }
            }
            Say::Failed { why, certificate, ends, .. } => {
                let held = match &self.stage {
                    Stage::AwaitAck(leaf) => Some(leaf.facts.id),
                    _ => None,
                };
                let is_begun = matches!(self.stage, Stage::AwaitCert(_) | Stage::AwaitAck(_));
                let ends_it = ends && is_begun && (held.is_none() || certificate == held);
                if ends_it {
                    self.enter(now, Stage::Done);
                }
                let code = why.code.as_str().to_owned();
                self.send(now, Uplink::Err { code, certificate, ends });
            }
        }
    }

    fn send(&mut self, now: u64, uplink: Uplink) {
        self.up
            .retain(|waiting| std::mem::discriminant(waiting) != std::mem::discriminant(&uplink));
        self.up.push(uplink);
        self.up_due = Some(now + SECOND);
    }
}
