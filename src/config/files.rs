//! Whether the TLS files of a link, or of the core, hold what they should: CAs, a certificate, the key that fits it.
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

use super::{Core, CoreFiles, Host, MqttLink, Problem, READ_REMEDY, TlsFiles, read::Bad};
use crate::wire::escape;

/// Every problem with the files of one link; `side` is its table's name.
pub(super) fn check(link: &MqttLink, side: &str, host: &dyn Host) -> Vec<Problem> {
    let Some(TlsFiles { ca, certificate, key }) = &link.files else {
        return Vec::new();
    };
    let ca = check_ca(ca, side, host);
    ca.into_iter().chain(check_pair(certificate, key, side, host)).collect()
}

/// Every problem with the files that are named for the core's own certificate.
pub(super) fn check_core(core: &Core, host: &dyn Host) -> Vec<Problem> {
    let ca = core.ca.as_ref().and_then(|ca| check_ca(ca, "core", host));
    let pair = core
        .files
        .as_ref()
        .map(|CoreFiles { certificate, key }| check_pair(certificate, key, "core", host));
    ca.into_iter().chain(pair.into_iter().flatten()).collect()
}

fn check_ca(ca: &Path, side: &str, host: &dyn Host) -> Option<Problem> {
    read_ca(ca, host).err().map(|bad| problem(side, "caFile", ca, bad))
}

fn check_pair(certificate: &Path, key: &Path, side: &str, host: &dyn Host) -> Vec<Problem> {
    match (certificates(certificate, host), read_key(key, host)) {
        (Ok(chain), Ok(private)) => {
            let fits = fit(chain, private).err();
            fits.map(|bad| problem(side, "keyFile", key, bad)).into_iter().collect()
        }
        (chain, private) => {
            let chain = chain.err().map(|bad| problem(side, "certificateFile", certificate, bad));
            let private = private.err().map(|bad| problem(side, "keyFile", key, bad));
            chain.into_iter().chain(private).collect()
        }
    }
}

fn problem(side: &str, key: &str, path: &Path, bad: Bad) -> Problem {
    Problem {
        key: format!("{side}.{key}"),
        what: format!("{}: {}", escape(&path.to_string_lossy()), bad.what),
        remedy: bad.remedy,
    }
}

fn read_ca(ca: &Path, host: &dyn Host) -> Result<(), Bad> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(ca, host)?;
    certificates.into_iter().try_for_each(|certificate| {
        roots.add(certificate).map_err(|_| {
            Bad::new("a certificate in it can't be read", "give the PEM of the broker's CA")
        })
    })
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

fn read_key(key: &Path, host: &dyn Host) -> Result<PrivateKeyDer<'static>, Bad> {
    let pem = host.read(key).map_err(|error| Bad::new(error.to_string(), READ_REMEDY))?;
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
