//! Whether the TLS files of a link hold what they should: CAs, a certificate, the key that fits it.
//!
//! Judges with the very functions that the TLS library connects with. Never shows what it read.

use std::path::Path;

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::{Host, MqttLink, Problem, READ_REMEDY, TlsFiles, read::Bad};
use crate::wire::escape;

/// Every problem with the files of one link; `side` is its table's name.
pub(super) fn check(link: &MqttLink, side: &str, host: &dyn Host) -> Vec<Problem> {
    let Some(files) = &link.files else {
        return Vec::new();
    };
    let note = |key: &str, path: &Path, bad: Bad| Problem {
        key: format!("{side}.{key}"),
        what: format!("{}: {}", escape(&path.to_string_lossy()), bad.what),
        remedy: bad.remedy,
    };
    let ca = read_ca(files, host).err().map(|bad| note("caFile", &files.ca, bad));
    let chain = read_chain(files, host);
    let key = read_key(files, host);
    let pair = match (chain, key) {
        (Ok(chain), Ok(key)) => {
            let fits = fit(chain, key).err();
            vec![fits.map(|bad| note("keyFile", &files.key, bad))]
        }
        (chain, key) => vec![
            chain.err().map(|bad| note("certificateFile", &files.certificate, bad)),
            key.err().map(|bad| note("keyFile", &files.key, bad)),
        ],
    };
    ca.into_iter().chain(pair.into_iter().flatten()).collect()
}

fn read_ca(files: &TlsFiles, host: &dyn Host) -> Result<(), Bad> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(&files.ca, host)?;
    certificates.into_iter().try_for_each(|certificate| {
        roots.add(certificate).map_err(|_| {
            Bad::new("a certificate in it can't be read", "give the PEM of the broker's CA")
        })
    })
}

fn read_chain(files: &TlsFiles, host: &dyn Host) -> Result<Vec<CertificateDer<'static>>, Bad> {
    certificates(&files.certificate, host)
}

fn certificates(path: &Path, host: &dyn Host) -> Result<Vec<CertificateDer<'static>>, Bad> {
    const REMEDY: &str = "give PEM that begins with -----BEGIN CERTIFICATE-----";
    let pem = host.read(path).map_err(|error| Bad::new(error.to_string(), READ_REMEDY))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Bad::new("no certificate is in it", REMEDY)),
        Ok(found) => Ok(found),
        Err(_) => Err(Bad::new("it is no PEM", REMEDY)),
    }
}

fn read_key(files: &TlsFiles, host: &dyn Host) -> Result<PrivateKeyDer<'static>, Bad> {
    let pem = host.read(&files.key).map_err(|error| Bad::new(error.to_string(), READ_REMEDY))?;
    PrivateKeyDer::from_pem_slice(&Zeroizing::new(pem)).map_err(|_| {
        let remedy = "give PEM that begins with -----BEGIN PRIVATE KEY-----, not encrypted";
        Bad::new("no private key is in it", remedy)
    })
}

fn fit(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), Bad> {
    use rustls::{Error, InconsistentKeys};
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Bad::new(
            "the key is not the certificate's",
            "give the certificate and the key that belong together",
        )),
        Err(_) => Err(Bad::new(
            "the key or the certificate can't be used",
            "give an X.509 certificate with an RSA, P-256, P-384 or Ed25519 key",
        )),
    }
}
