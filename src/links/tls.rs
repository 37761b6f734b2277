//! mTLS from three files: CA, certificate, key.
//!
//! The files are read anew at each call, for they may have been rotated since. An error names the
//! file, the reason and the remedy. Never prints a key, never writes, never falls back to less.

#![expect(clippy::disallowed_methods, reason = "the files are read anew at every connect")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use zeroize::Zeroizing;

/// The three files of mTLS; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CAs that the broker's certificate may chain to; one or more.
    pub ca: PathBuf,
    /// Our certificate, then what completes its chain.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// What is wrong with one of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read.
    #[error("{}: {why}; name a file that this user may read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file has no certificate in it, or a damaged one.
    #[error("{}: {why}; it must hold certificates in PEM", path.display())]
    BadCertificate {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file has no private key in it, or one that can't be used.
    #[error(
        "{}: {why}; it must hold an unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1): RSA \
         of at least 2048 bits, P-256, P-384 or Ed25519",
        path.display()
    )]
    BadKey {
        /// Which.
        path: PathBuf,
        /// What is wrong with it; nothing of what is in it.
        why: String,
    },
    /// Certificate and key are not of one pair.
    #[error(
        "{} is not the key of {}; name the two files of one pair",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl TlsFiles {
    /// Reads the files and makes of them what a connection needs: TLS 1.2 or 1.3, the broker's
    /// certificate checked against the CAs and its name against the host.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = self.roots()?;
        let chain = certificates(&self.certificate)?;
        let key = self.private_key()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|why| self.refused_pair(&why))?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|why| bad_certificate(&self.ca, why))?;
        }
        Ok(roots)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let pem = Zeroizing::new(read(&self.key)?);
        PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|why| TlsError::BadKey { path: self.key.clone(), why: pem_fault(&why) })
    }

    fn refused_pair(&self, why: &rustls::Error) -> TlsError {
        match why {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => bad_certificate(&self.certificate, why),
            _ => TlsError::BadKey { path: self.key.clone(), why: why.to_string() },
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|why| bad_certificate(path, pem_fault(&why)))?;
    if found.is_empty() {
        return Err(bad_certificate(path, "it has no certificate"));
    }
    Ok(found)
}

fn bad_certificate(path: &Path, why: impl ToString) -> TlsError {
    TlsError::BadCertificate { path: path.to_owned(), why: why.to_string() }
}

/// Without the offending line, which may be a part of a key.
fn pem_fault(why: &rustls::pki_types::pem::Error) -> String {
    match why {
        rustls::pki_types::pem::Error::NoItemsFound => "it has no such item".to_owned(),
        _ => "its PEM is damaged".to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path)
        .map_err(|why| TlsError::Unreadable { path: path.to_owned(), why: why.to_string() })
}
