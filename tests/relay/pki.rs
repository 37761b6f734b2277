//! Real CSRs and certificates, made once a run: a key has a number, a certificate a serial.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest},
    x509,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};

/// The wall clock when a test begins: 2027-01-01.
pub const BEGIN: Timestamp = Timestamp(1_798_761_600_000);

static KEYS: LazyLock<Mutex<HashMap<u32, &'static KeyPair>>> = LazyLock::new(Mutex::default);
static MADE: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);
static CA: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2200, 1, 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
});

fn key(number: u32) -> &'static KeyPair {
    let mut keys = KEYS.lock().expect("no test panics in here");
    keys.entry(number).or_insert_with(|| Box::leak(Box::new(KeyPair::generate().expect("a key"))))
}

fn once(what: String, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    if let Some(known) = MADE.lock().expect("no test panics in here").get(&what) {
        return known.clone();
    }
    let made = make();
    MADE.lock().expect("no test panics in here").entry(what).or_insert(made).clone()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

/// The CSR of a device for one of its keys, DER.
pub fn csr(name: &str, number: u32) -> Vec<u8> {
    once(format!("csr {name} {number}"), || {
        params(name).serialize_request(key(number)).expect("a CSR").der().to_vec()
    })
}

/// The same with a signature that is another's.
pub fn badly_signed_csr(name: &str, number: u32) -> Vec<u8> {
    let mut der = csr(name, number);
    let last = der.last_mut().expect("not empty");
    *last ^= 1;
    der
}

/// The digest of a key.
pub fn digest(number: u32) -> KeyDigest {
    x509::key_digest_of_spki(&rcgen::PublicKeyData::subject_public_key_info(key(number)))
}

/// The certificate of a device for one of its keys; another for each serial.
pub fn certificate(name: &str, number: u32, serial: u32) -> Vec<u8> {
    made(name, number, serial, |_| ())
}

/// One that expires on a day of 2027.
pub fn short_lived(name: &str, number: u32, month: u8, day: u8) -> Vec<u8> {
    let serial = 10_000 + u32::from(month) * 100 + u32::from(day);
    made(name, number, serial, |params| params.not_after = date_time_ymd(2027, month, day))
}

/// A CA's certificate.
pub fn ca_certificate(name: &str, number: u32) -> Vec<u8> {
    made(name, number, 20_000, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
}

fn made(
    name: &str,
    number: u32,
    serial: u32,
    change: impl FnOnce(&mut CertificateParams),
) -> Vec<u8> {
    once(format!("crt {name} {number} {serial}"), || {
        let mut params = params(name);
        params.serial_number = Some(u64::from(serial + 1).into());
        change(&mut params);
        params.signed_by(key(number), &*CA).expect("a certificate").der().to_vec()
    })
}

/// The certificate that all chains end in, PEM.
pub fn anchor() -> String {
    CA.pem()
}

/// A certificate's id.
pub fn id(der: &[u8]) -> CertificateId {
    x509::certificate_id(der)
}

/// PEM text.
pub fn pem(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}
