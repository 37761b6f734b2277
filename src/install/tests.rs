#![expect(clippy::disallowed_methods, reason = "tests look at the files themselves")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};

use super::*;
use crate::keys::{KeyKind, PrivateKey};

fn issue(csr: &[u8]) -> Vec<Vec<u8>> {
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::new(CertificateParams::default(), key);
    let csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a CSR");
    vec![csr.signed_by(&issuer).expect("a certificate").der().to_vec()]
}

fn open(dir: &Path) -> Credentials {
    Credentials::open(dir, |_| None).expect("opens")
}

fn begin(credentials: &Credentials, generation: u32) -> Vec<u8> {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = key.csr(&"pump-7".parse().expect("valid")).expect("a CSR");
    credentials
        .store_key(Generation(generation), key.to_pem().as_bytes(), &csr, None)
        .expect("stored");
    csr
}

fn complete(credentials: &Credentials, generation: u32) {
    let chain = issue(&begin(credentials, generation));
    let generation = Generation(generation);
    credentials.store_certificate(generation, generation, &chain, None).expect("stored");
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_generation_becomes_current_by_one_switch_and_stays_so() {
    let dir = temp();
    let credentials = open(dir.path());
    assert_eq!(credentials.current(), None);
    complete(&credentials, 1);
    complete(&credentials, 2);
    credentials.promote(Generation(1)).expect("promoted");
    credentials.promote(Generation(2)).expect("promoted");
    drop(credentials);
    let credentials = open(dir.path());
    assert_eq!(credentials.current(), Some(Generation(2)));
    assert!(matches!(credentials.wipe(Generation(2)), Err(InstallError::Current(_))));
    credentials.wipe(Generation(1)).expect("wiped");
    assert_eq!(credentials.generations().expect("a list"), [Generation(2)]);
}

#[test]
fn a_pair_that_does_not_fit_is_never_current() {
    let dir = temp();
    let credentials = open(dir.path());
    begin(&credentials, 1);
    assert!(credentials.promote(Generation(1)).is_err());
    let foreign = issue(&begin(&credentials, 2));
    let stored = credentials.store_certificate(Generation(1), Generation(1), &foreign, None);
    assert!(matches!(stored, Err(InstallError::Mismatch(_))));
    assert!(credentials.promote(Generation(1)).is_err());
    assert_eq!(credentials.current(), None);
}

#[test]
fn files_are_for_their_owner_alone() {
    let dir = temp();
    let credentials = open(&dir.path().join("new"));
    complete(&credentials, 1);
    credentials.save("note", b"x").expect("saved");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let files = credentials.files(Generation(1));
    for file in [&files.key, &files.certificate, &credentials.dir().join("note")] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(credentials.dir()), 0o700);
    assert_eq!(mode(&credentials.dir().join("gen-1")), 0o700);
}

#[test]
fn what_was_half_written_is_gone_after_the_next_start_but_not_what_waits() {
    let dir = temp();
    let credentials = open(dir.path());
    complete(&credentials, 1);
    credentials.promote(Generation(1)).expect("promoted");
    begin(&credentials, 2);
    begin(&credentials, 3);
    let litter = [
        dir.path().join(".new-current"),
        dir.path().join(".new-note"),
        dir.path().join("gen-1/.new-key.pem"),
    ];
    for path in &litter {
        symlink("nowhere", path).expect("a link");
    }
    drop(credentials);
    let credentials = Credentials::open(dir.path(), |_| Some(Generation(3))).expect("opens");
    assert_eq!(credentials.generations().expect("a list"), [Generation(1), Generation(3)]);
    assert!(credentials.csr(Generation(3)).is_ok());
    assert!(litter.iter().all(|path| fs::symlink_metadata(path).is_err()));
    assert_eq!(credentials.current(), Some(Generation(1)));
}

#[test]
fn a_current_that_leads_nowhere_is_set_to_the_newest_proven_pair() {
    let dir = temp();
    let credentials = open(dir.path());
    for generation in 1..=3 {
        complete(&credentials, generation);
    }
    symlink("gen-9", dir.path().join("current")).expect("a link");
    drop(credentials);
    let credentials = Credentials::open(dir.path(), |_| Some(Generation(3))).expect("opens");
    assert_eq!(credentials.current(), Some(Generation(2)));
    drop(credentials);
    fs::remove_file(dir.path().join("current")).expect("removed");
    assert_eq!(open(dir.path()).current(), Some(Generation(3)));
}

#[test]
fn a_pair_from_elsewhere_is_adopted_if_it_fits() {
    let elsewhere = temp();
    let source = open(elsewhere.path());
    complete(&source, 1);
    complete(&source, 2);
    let dir = temp();
    let credentials = open(dir.path());
    let (one, two) = (source.files(Generation(1)), source.files(Generation(2)));
    let crossed = PairFiles { certificate: one.certificate.clone(), key: two.key };
    assert!(matches!(credentials.adopt(&crossed), Err(InstallError::Mismatch(_))));
    assert_eq!(credentials.adopt(&one).expect("adopted"), Generation(1));
    assert_eq!(credentials.current(), Some(Generation(1)));
    assert!(one.key.exists());
}

#[test]
fn two_processes_can_not_write_to_one_directory() {
    let dir = temp();
    let _first = open(dir.path());
    assert!(matches!(Credentials::open(dir.path(), |_| None), Err(InstallError::Locked(_))));
}

#[test]
fn a_wiped_key_is_overwritten_before_it_is_removed() {
    let dir = temp();
    let credentials = open(dir.path());
    complete(&credentials, 1);
    let key = credentials.files(Generation(1)).key;
    let other_name = dir.path().join("other-name");
    fs::hard_link(&key, &other_name).expect("a link");
    credentials.wipe(Generation(1)).expect("wiped");
    let left = fs::read(&other_name).expect("readable");
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
}
