//! The core's credential, as the nuclei load it from its files.

use std::{fs, path::Path, sync::Arc};

use ring::digest;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{Mode, TlsFiles};

/// A pair that was loaded, and whom it trusts.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub config: Arc<ClientConfig>,
    /// The SHA-256 of the certificate.
    pub certificate: [u8; 32],
}

/// Loads the pair as that nucleus does, or says what is wrong with it.
pub(crate) fn load(files: &TlsFiles, mode: Mode) -> Result<Loaded, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|why| said(&files.ca, why))?;
    }
    let mut chain = certificates(&files.certificate)?;
    if mode == Mode::Lite {
        chain.truncate(1);
    }
    let leaf = chain.first().ok_or_else(|| said(&files.certificate, "no certificate in it"))?;
    let hash = digest::digest(&digest::SHA256, leaf);
    let certificate = hash.as_ref().try_into().map_err(|_| "no SHA-256".to_owned())?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?);
    let key = key.map_err(|why| said(&files.key, why))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?
        .with_root_certificates(roots)
        // It sees whether they are of one pair.
        .with_client_auth_cert(chain, key)
        .map_err(|why| said(&files.certificate, why))?;
    Ok(Loaded { config: Arc::new(config), certificate })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<_, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    read.map_err(|why| said(path, why))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| said(path, why))
}

fn said(path: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}
