//! Real CSRs and certificates, made once for all worlds: every device's n-th key is the same key in
//! every world, so months of rotations cost no cryptography.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest},
    x509,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// The wall clock when a world begins: 2027-01-01.
pub const BEGIN: Timestamp = Timestamp(1_798_761_600_000);

/// Which key: of which device, the how-manieth.
pub type KeyNo = (u32, u32);

thread_local! {
    static PKI: RefCell<Pki> = RefCell::new(Pki::new());
}

struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    keys: BTreeMap<KeyNo, KeyPair>,
    csrs: BTreeMap<KeyNo, (Vec<u8>, KeyDigest)>,
    owners: HashMap<KeyDigest, KeyNo>,
    certificates: BTreeMap<(KeyNo, u32), (Vec<u8>, CertificateId)>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2200, 1, 1);
        let key = KeyPair::generate().expect("a key");
        Self {
            ca: CertifiedIssuer::self_signed(params, key).expect("a CA"),
            keys: BTreeMap::new(),
            csrs: BTreeMap::new(),
            owners: HashMap::new(),
            certificates: BTreeMap::new(),
        }
    }

    fn params(key: KeyNo) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device_name(key.0));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params
    }

    fn csr(&mut self, key: KeyNo) -> (Vec<u8>, KeyDigest) {
        if let Some(known) = self.csrs.get(&key) {
            return known.clone();
        }
        let pair = KeyPair::generate().expect("a key");
        let csr = Self::params(key).serialize_request(&pair).expect("a CSR").der().to_vec();
        let digest = x509::csr_key(&csr).expect("readable");
        self.keys.insert(key, pair);
        self.owners.insert(digest, key);
        self.csrs.insert(key, (csr.clone(), digest));
        (csr, digest)
    }

    fn certificate(&mut self, key: KeyNo, serial: u32) -> (Vec<u8>, CertificateId) {
        self.csr(key);
        if let Some(known) = self.certificates.get(&(key, serial)) {
            return known.clone();
        }
        let mut params = Self::params(key);
        params.serial_number = Some(u64::from(serial + 1).into());
        let der =
            params.signed_by(&self.keys[&key], &self.ca).expect("a certificate").der().to_vec();
        let id = x509::certificate_id(&der);
        self.certificates.insert((key, serial), (der.clone(), id));
        (der, id)
    }
}

/// The thing name of a device.
pub fn device_name(device: u32) -> String {
    format!("device-{device}")
}

/// A device's CSR for one of its keys.
pub fn csr(key: KeyNo) -> Vec<u8> {
    PKI.with_borrow_mut(|pki| pki.csr(key).0)
}

/// The certificate for a key; another for each serial.
pub fn certificate(key: KeyNo, serial: u32) -> (Vec<u8>, CertificateId) {
    PKI.with_borrow_mut(|pki| pki.certificate(key, serial))
}

/// Whose key it is.
pub fn owner(digest: KeyDigest) -> Option<KeyNo> {
    PKI.with_borrow(|pki| pki.owners.get(&digest).copied())
}
