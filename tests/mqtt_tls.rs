//! What the MQTT driver promises about certificates, against a real Mosquitto.

mod support;

use std::path::Path;

use certrelay::links::{
    LinkCommand,
    mqtt::{self, MqttError, Options},
    tls::{TlsError, TlsFiles},
};
use support::{
    link::{command, down, link, options, up},
    mosquitto::{Mosquitto, Setup},
    pki::{Authority, Files},
};

fn mtls(broker: &Mosquitto, files: &Files) -> Options {
    let Files { ca, certificate, key } = files.clone();
    let host = "localhost".to_owned();
    Options { host, tls: Some(TlsFiles { ca, certificate, key }), ..options(broker.port()) }
}

#[tokio::test]
async fn a_rotated_certificate_is_used_at_the_next_connect() {
    let authority = Authority::new("floor");
    let broker = Setup::mtls(&authority).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = authority.client_files(dir.path(), "first");
    let mut link = link(mtls(&broker, &files));
    up(&mut link).await;
    assert!(broker.log().contains("u'first'"));
    replace(&files, dir.path(), &authority, "second");
    command(&link, LinkCommand::Reconnect).await;
    up(&mut link).await;
    assert!(broker.log().contains("u'second'"));
}

#[tokio::test]
async fn a_certificate_that_the_broker_refuses_is_named_and_tried_until_it_is_good() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let broker = Setup::mtls(&ours).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = ours.client_files(dir.path(), "device");
    replace(&files, dir.path(), &theirs, "foreign");
    let mut link = link(mtls(&broker, &files));
    let why = down(&mut link).await;
    assert!(why.contains("device.cert.pem"), "{why}");
    replace(&files, dir.path(), &ours, "good");
    up(&mut link).await;
}

#[tokio::test]
async fn a_broker_with_a_foreign_certificate_is_not_talked_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let broker = Setup::mtls(&theirs).start();
    let dir = tempfile::tempdir().expect("a folder");
    let mut link = link(mtls(&broker, &ours.client_files(dir.path(), "device")));
    let why = down(&mut link).await;
    assert!(why.contains("ca.pem") && why.contains("UnknownIssuer"), "{why}");
    assert!(!broker.log().contains("New client connected"));
}

#[tokio::test]
async fn a_file_that_turns_bad_is_named_and_read_again_until_it_is_good() {
    let authority = Authority::new("floor");
    let broker = Setup::mtls(&authority).start();
    let dir = tempfile::tempdir().expect("a folder");
    let files = authority.client_files(dir.path(), "device");
    let mut link = link(mtls(&broker, &files));
    up(&mut link).await;
    let key = std::fs::read(&files.key).expect("the key");
    support::write(&files.key, "-----BEGIN PRIVATE KEY-----\nabc\n");
    command(&link, LinkCommand::Reconnect).await;
    down(&mut link).await;
    let why = down(&mut link).await;
    assert!(why.contains("device.key.pem") && why.contains("must hold"), "{why}");
    support::write(&files.key, key);
    up(&mut link).await;
}

#[test]
fn files_that_do_not_fit_together_are_refused_before_the_link_is_made() {
    let authority = Authority::new("floor");
    let dir = tempfile::tempdir().expect("a folder");
    let Files { ca, certificate, key } = authority.client_files(dir.path(), "device");
    let other = authority.client_files(dir.path(), "other");
    let good = TlsFiles { ca, certificate, key };
    assert_eq!(mqtt::check_files(&good), Ok(()));
    let check = |files| match mqtt::check_files(&files) {
        Err(MqttError::Tls(why)) => why,
        answer => panic!("{answer:?}"),
    };
    let (certificate, key) = (good.certificate.clone(), other.key);
    let mismatch = TlsError::Mismatch { certificate, key: key.clone() };
    assert_eq!(check(TlsFiles { key, ..good.clone() }), mismatch);
    let gone = TlsFiles { ca: dir.path().join("gone.pem"), ..good.clone() };
    assert!(matches!(check(gone), TlsError::Unreadable { .. }));
    let swapped = TlsFiles { certificate: good.key.clone(), ..good.clone() };
    assert!(matches!(check(swapped), TlsError::BadCertificate { .. }));
    let swapped = TlsFiles { key: good.certificate.clone(), ..good };
    assert!(matches!(check(swapped), TlsError::BadKey { .. }));
}

#[test]
fn a_key_in_sec1_is_taken_as_well() {
    let authority = Authority::new("floor");
    let dir = tempfile::tempdir().expect("a folder");
    let Files { ca, certificate, key } = authority.client_files(dir.path(), "device");
    let pkcs8 = pem::parse(std::fs::read(&key).expect("the key")).expect("PEM");
    // Where the ECPrivateKey begins in the PKCS#8 of a P-256 key.
    let start = [0x30, 0x6b, 2, 1, 1];
    let at = pkcs8.contents().windows(5).position(|window| window == start).expect("P-256");
    let sec1 = pem::encode(&pem::Pem::new("EC PRIVATE KEY", &pkcs8.contents()[at..]));
    support::write(&key, sec1);
    assert_eq!(mqtt::check_files(&TlsFiles { ca, certificate, key }), Ok(()));
}

/// Puts another pair in the place of `files`.
fn replace(files: &Files, dir: &Path, authority: &Authority, common_name: &str) {
    let (certificate, key) = authority.client(common_name).write(dir, common_name);
    std::fs::rename(certificate, &files.certificate).expect("renamed");
    std::fs::rename(key, &files.key).expect("renamed");
}
