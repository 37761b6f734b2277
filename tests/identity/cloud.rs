//! The cloud: which certificates it takes, and what it makes of what it hears.

use std::collections::{BTreeMap, BTreeSet};

use certrelay::{
    identity::{ProbeName, Probed},
    wire::{CertificateId, RotationId},
};

use crate::pki::{self, Leaf};

/// What the gateway says, once it arrives.
#[derive(Debug, Clone, PartialEq)]
pub enum Uplink {
    Csr(Vec<u8>, Option<RotationId>),
    Ack(CertificateId),
    Err { code: String, certificate: Option<CertificateId>, ends: bool },
}

/// The cloud.
#[derive(Debug)]
pub struct Cloud {
    active: BTreeSet<CertificateId>,
    /// By its CSR.
    issued: BTreeMap<Vec<u8>, Leaf>,
    serial: u32,
    /// What a nucleus has loaded.
    loaded: BTreeSet<CertificateId>,
    /// It can be reached.
    pub reachable: bool,
    /// It can't prove who it is, or the clock here is wrong.
    pub tls_trouble: bool,
    /// It takes a second name.
    pub permits_probes: bool,
    /// It takes no new certificate.
    pub refuses_new: bool,
    /// It changes its mind when a nucleus first loads a new certificate.
    pub turns: bool,
    /// It takes nothing, for now.
    pub refuses_all: bool,
    /// It sends results.
    pub settles: bool,
    /// It stops taking the old certificate once the new one is acknowledged.
    pub retires: bool,
    /// What it heard.
    pub acked: Vec<CertificateId>,
    pub errors: Vec<(String, Option<CertificateId>, bool)>,
    pub csrs: usize,
    /// It took a certificate back.
    pub withdrew: bool,
}

impl Cloud {
    pub fn new() -> Self {
        Self {
            active: BTreeSet::from([pki::leaf(0, 0).facts.id]),
            issued: BTreeMap::new(),
            serial: 0,
            loaded: BTreeSet::new(),
            reachable: true,
            tls_trouble: false,
            permits_probes: true,
            refuses_new: false,
            turns: false,
            refuses_all: false,
            settles: true,
            retires: true,
            acked: Vec::new(),
            errors: Vec::new(),
            csrs: 0,
            withdrew: false,
        }
    }

    /// Whether it takes a certificate.
    pub fn takes(&self, certificate: CertificateId) -> bool {
        self.active.contains(&certificate) && !self.refuses_all
    }

    /// What a probe finds.
    pub fn probe(&self, name: ProbeName, leaf: Option<&Leaf>) -> Option<Probed> {
        let why = "as it was told".to_owned();
        Some(match leaf {
            _ if !self.reachable || self.tls_trouble => Probed::Unreachable { why },
            _ if name == ProbeName::Beside && !self.permits_probes => Probed::Refused { why },
            leaf if self.takes(leaf?.facts.id) => Probed::Accepted,
            _ => Probed::Refused { why },
        })
    }

    /// A nucleus has loaded a certificate.
    pub fn on_loaded(&mut self, certificate: CertificateId) {
        let is_first = self.loaded.insert(certificate);
        if self.turns && is_first && self.issued.values().any(|leaf| leaf.facts.id == certificate) {
            self.active.remove(&certificate);
        }
    }

    /// The certificate that answers a CSR; the same one for the same CSR, while it is wanted.
    pub fn hear_csr(&mut self, csr: &[u8]) -> Leaf {
        self.csrs += 1;
        if let Some(leaf) = self.issued.get(csr) {
            return leaf.clone();
        }
        self.serial += 1;
        let key = pki::owner(certrelay::x509::csr_key(csr).expect("readable"));
        let leaf = pki::leaf(key, self.serial);
        self.issued.insert(csr.to_vec(), leaf.clone());
        if !self.refuses_new {
            self.active.insert(leaf.facts.id);
        }
        leaf
    }

    /// An ack: the certificates before are of no use any more.
    pub fn hear_ack(&mut self, certificate: CertificateId) {
        self.acked.push(certificate);
        if self.retires && self.active.contains(&certificate) {
            self.active = BTreeSet::from([certificate]);
        }
    }

    /// An error: what it is about is given up, if that ends it.
    pub fn hear_error(&mut self, code: String, about: Option<CertificateId>, ends: bool) {
        if let Some(certificate) = about.filter(|_| ends) {
            if self.active.len() > 1 {
                self.active.remove(&certificate);
            }
            self.issued.retain(|_, leaf| leaf.facts.id != certificate);
        }
        self.errors.push((code, about, ends));
    }

    /// It takes a certificate again.
    pub fn activate(&mut self, certificate: CertificateId) {
        self.active.insert(certificate);
    }

    /// It does not take a certificate any more.
    pub fn end(&mut self, certificate: CertificateId) {
        self.active.remove(&certificate);
    }

    /// Each CSR gets a new certificate.
    pub fn forget_issued(&mut self) {
        self.issued.clear();
    }

    /// It takes all that it ever gave.
    pub fn take_all(&mut self) {
        self.active.extend(self.issued.values().map(|leaf| leaf.facts.id));
    }

    /// Another certificate for a key that it has given one for.
    pub fn reissue(&mut self, leaf: &Leaf) -> Leaf {
        self.serial += 1;
        let other = pki::leaf(pki::owner(leaf.facts.key), self.serial);
        for issued in self.issued.values_mut().filter(|issued| *issued == leaf) {
            *issued = other.clone();
        }
        self.active.insert(other.facts.id);
        other
    }
}
