//! What is refused, what is copied, and what somebody did by hand.

use certrelay::{
    config::KeyRotation,
    core_device::files::{CoreFiles, FileJob, KeyPlan, OtherJob},
    identity::{self, Done, Job, ProbeName},
    install::{Files, Generation, Pair, PairFiles},
    keys::{KeyKind, PrivateKey},
    reason::Reason,
    x509::{CommonNameRule, accept_csr, certificate_subject, verify_csr_signature},
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, string::PrintableString,
};

use super::{
    drive::{self, beside, pair, plan},
    model::Model,
};

fn planted(certificate: &[u8], key: &[u8]) -> Model {
    let disk = Model::new();
    disk.plant_dir("/gg".as_ref());
    disk.plant("/gg/cert.pem".as_ref(), certificate, drive::CERTIFICATE);
    disk.plant("/gg/key.pem".as_ref(), key, drive::KEY);
    disk
}

fn perform(disk: &Model, plan: KeyPlan, job: FileJob) -> Done {
    CoreFiles::new(disk.clone(), plan, None).perform(&beside(), job)
}

fn refused(done: Done) -> Reason {
    match done {
        Done::Failed(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

/// A self-signed certificate with names in several string types, twice the same, in this order.
fn odd_names(key: &PrivateKey) -> (Vec<u8>, Vec<u8>) {
    let mut names = DistinguishedName::new();
    let printable = PrintableString::try_from("Blue Pumps").expect("valid");
    names.push(DnType::OrganizationName, DnValue::PrintableString(printable));
    names.push(DnType::CustomDnType(vec![2, 5, 4, 11]), "Größe");
    names.push(DnType::CommonName, "AWS IoT Certificate");
    names.push(DnType::CustomDnType(vec![2, 5, 4, 5]), "0042");
    let mut params = CertificateParams::default();
    params.distinguished_name = names;
    let pem = key.to_pem();
    let signer = KeyPair::from_pem(&pem).expect("PKCS #8");
    let der = params.self_signed(&signer).expect("signed").der().to_vec();
    let subject = certificate_subject(&der).expect("readable");
    (pem::encode(&pem::Pem::new("CERTIFICATE", der)).into_bytes(), subject)
}

#[test]
fn a_csr_has_the_subject_of_the_current_certificate_byte_by_byte_and_its_kind_of_key() {
    for kind in KeyKind::ALL {
        let key = PrivateKey::generate(kind).expect("a key");
        let (certificate, subject) = odd_names(&key);
        let disk = planted(&certificate, key.to_pem().as_bytes());
        for rotation in [KeyRotation::Rotate, KeyRotation::Reuse] {
            let plan = KeyPlan { rotation, ..plan() };
            let made = perform(&disk, plan, FileJob::MakeKey(Generation(1)));
            let Done::KeyMade { key: made, csr } = made else { panic!("{kind:?} {made:?}") };
            let thing = "core-1".parse().expect("valid");
            assert_eq!(accept_csr(&csr, &thing, CommonNameRule::Any), Ok(made), "{kind:?}");
            assert_eq!(verify_csr_signature(&csr), Ok(()), "{kind:?}");
            assert!(csr.windows(subject.len()).any(|bytes| bytes == subject), "{kind:?}");
            assert_eq!(made == key.digest(), rotation == KeyRotation::Reuse, "{kind:?}");
            let stored = disk.read("/gg/certrelay/gen-1/key.pem".as_ref(), 9999).expect("there");
            let stored = PrivateKey::from_pem(&stored).expect("a key");
            assert_eq!((stored.kind(), stored.digest()), (Some(kind), made));
        }
    }
}

#[test]
fn a_key_is_of_the_kind_that_is_set() {
    let (_, certificate, key) = pair();
    let disk = planted(certificate.as_bytes(), key.as_bytes());
    let plan = KeyPlan { algorithm: Some(KeyKind::P384), ..plan() };
    let made = perform(&disk, plan, FileJob::MakeKey(Generation(1)));
    assert!(matches!(made, Done::KeyMade { .. }), "{made:?}");
    let stored = disk.read("/gg/certrelay/gen-1/key.pem".as_ref(), 9999).expect("there");
    assert_eq!(PrivateKey::from_pem(&stored).expect("a key").kind(), Some(KeyKind::P384));
}

#[test]
fn a_kind_of_key_that_can_not_be_made_is_found_before() {
    let signer = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let certificate = CertificateParams::default().self_signed(&signer).expect("signed").pem();
    let disk = planted(certificate.as_bytes(), signer.serialize_pem().as_bytes());
    assert_eq!(refused(perform(&disk, plan(), FileJob::Preflight)), Reason::UnsupportedKey);
    let p256 = KeyPlan { algorithm: Some(KeyKind::P256), ..plan() };
    let ready = perform(&disk, p256.clone(), FileJob::Preflight);
    assert!(matches!(ready, Done::Ready(_)), "{ready:?}");
    let reuse = KeyPlan { rotation: KeyRotation::Reuse, ..p256 };
    assert_eq!(refused(perform(&disk, reuse, FileJob::Preflight)), Reason::UnsupportedKey);
    assert_eq!(disk.changes() > 0, disk.list("/gg".as_ref()).expect("there").len() == 2);
}

#[test]
fn what_is_no_pair_is_refused_and_stays() {
    let (_, certificate, key) = pair();
    let (_, _, other) = pair();
    let torn = &certificate[..certificate.len() / 2];
    for (certificate, key) in
        [(certificate.as_str(), other.as_str()), (torn, &key), (&certificate, ""), ("", &key)]
    {
        let disk = planted(certificate.as_bytes(), key.as_bytes());
        for job in
            [FileJob::Look, FileJob::Preflight, FileJob::Attach, FileJob::MakeKey(Generation(1))]
        {
            assert_eq!(refused(perform(&disk, plan(), job)), Reason::CredentialUnusable);
        }
        assert_eq!(disk.changes(), 0);
    }
    let disk = Model::new();
    assert_eq!(refused(perform(&disk, plan(), FileJob::Look)), Reason::CredentialUnusable);
}

#[test]
fn paths_that_can_not_be_kept_are_refused() {
    let (_, certificate, key) = pair();
    let disk = planted(certificate.as_bytes(), key.as_bytes());
    let mut files = CoreFiles::new(disk, plan(), None);
    for (certificate, key) in [("/gg/cert.pem", "/gg/cert.pem"), ("cert.pem", "/gg/key.pem")] {
        let at = PairFiles { certificate: certificate.into(), key: key.into() };
        assert_eq!(refused(files.perform(&at, FileJob::Look)), Reason::CredentialUnusable);
    }
}

#[test]
fn a_switch_needs_links() {
    let (_, certificate, key) = pair();
    let disk = planted(certificate.as_bytes(), key.as_bytes());
    let mut files = CoreFiles::new(disk.clone(), plan(), None);
    let attached = files.perform(&beside(), FileJob::Attach);
    assert_eq!(attached, Done::Attached { current: Generation(1) });
    let again = files.perform(&beside(), FileJob::Attach);
    assert_eq!(again, Done::Attached { current: Generation(1) });
    disk.plant("/gg/key.pem".as_ref(), key.as_bytes(), drive::KEY);
    let switched = files.perform(&beside(), FileJob::Switch(Generation(1)));
    assert_eq!(refused(switched), Reason::DiskError);
}

#[test]
fn what_somebody_put_over_our_links_is_the_truth() {
    let (_, certificate, key) = pair();
    let disk = planted(certificate.as_bytes(), key.as_bytes());
    let mut files = CoreFiles::new(disk.clone(), plan(), None);
    files.perform(&beside(), FileJob::Attach);
    let (newer, certificate, key) = pair();
    disk.plant("/gg/cert.pem".as_ref(), certificate.as_bytes(), drive::CERTIFICATE);
    // Half done: nothing fits, so nothing is touched.
    assert_eq!(refused(files.perform(&beside(), FileJob::Attach)), Reason::CredentialUnusable);
    assert_eq!(refused(files.perform(&beside(), FileJob::Detach)), Reason::CredentialUnusable);
    disk.plant("/gg/key.pem".as_ref(), key.as_bytes(), drive::KEY);
    let attached = files.perform(&beside(), FileJob::Attach);
    assert_eq!(attached, Done::Attached { current: Generation(2) });
    assert_eq!(Pair::read(&disk, &beside()).expect("a pair").facts(), newer);
}

#[test]
fn the_current_generation_is_never_wiped_or_begun_anew() {
    let (_, certificate, key) = pair();
    let disk = planted(certificate.as_bytes(), key.as_bytes());
    let mut files = CoreFiles::new(disk.clone(), plan(), None);
    files.perform(&beside(), FileJob::Attach);
    for job in [FileJob::Wipe(Generation(1)), FileJob::MakeKey(Generation(1))] {
        assert_eq!(refused(files.perform(&beside(), job)), Reason::DiskError);
    }
    Pair::read(&disk, &beside()).expect("a pair");
}

#[test]
fn jobs_that_are_not_about_files_are_told_apart() {
    let job = Job::Probe { with: identity::Pair::Configured, name: ProbeName::Beside };
    let other = OtherJob::Probe(identity::Pair::Configured, ProbeName::Beside);
    assert_eq!(FileJob::try_from(job), Err(other));
    assert_eq!(FileJob::try_from(Job::Restart), Err(OtherJob::Restart));
    assert_eq!(FileJob::try_from(Job::Attach), Ok(FileJob::Attach));
}
