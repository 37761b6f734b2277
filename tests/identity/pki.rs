//! Real CSRs and certificates, made once for all worlds: the n-th key is the same in every world.

use std::{cell::RefCell, collections::BTreeMap};

use certrelay::{
    wire::KeyDigest,
    x509::{self, CertificateFacts},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// Which key.
pub type KeyNo = u32;

/// A certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    pub der: Vec<u8>,
    pub facts: CertificateFacts,
}

thread_local! {
    static PKI: RefCell<Pki> = RefCell::new(Pki::new());
}

struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    keys: BTreeMap<KeyNo, (KeyPair, Vec<u8>, KeyDigest)>,
    leaves: BTreeMap<(KeyNo, u32), Leaf>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");
        Self { ca, keys: BTreeMap::new(), leaves: BTreeMap::new() }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "core-1");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        params
    }

    fn key(&mut self, no: KeyNo) -> &(KeyPair, Vec<u8>, KeyDigest) {
        self.keys.entry(no).or_insert_with(|| {
            let pair = KeyPair::generate().expect("a key");
            let csr = Self::params().serialize_request(&pair).expect("a CSR").der().to_vec();
            let digest = x509::csr_key(&csr).expect("readable");
            (pair, csr, digest)
        })
    }

    fn leaf(&mut self, no: KeyNo, serial: u32) -> Leaf {
        if let Some(leaf) = self.leaves.get(&(no, serial)) {
            return leaf.clone();
        }
        self.key(no);
        let mut params = Self::params();
        params.serial_number = Some(u64::from(serial + 1).into());
        let signed = params.signed_by(&self.keys[&no].0, &self.ca).expect("a certificate");
        let der = signed.der().to_vec();
        let facts = x509::read_certificate(&der).expect("readable");
        self.leaves.insert((no, serial), Leaf { der: der.clone(), facts });
        Leaf { der, facts }
    }
}

/// A key's CSR and digest.
pub fn csr(no: KeyNo) -> (Vec<u8>, KeyDigest) {
    PKI.with_borrow_mut(|pki| {
        let (_, csr, digest) = pki.key(no);
        (csr.clone(), *digest)
    })
}

/// The certificate for a key; another for each serial.
pub fn leaf(no: KeyNo, serial: u32) -> Leaf {
    PKI.with_borrow_mut(|pki| pki.leaf(no, serial))
}

/// Which key it is.
pub fn owner(digest: KeyDigest) -> KeyNo {
    PKI.with_borrow(|pki| {
        let found = pki.keys.iter().find(|(_, key)| key.2 == digest);
        *found.expect("a key of ours").0
    })
}
