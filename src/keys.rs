//! Private keys: made, loaded, and used to sign a CSR or a proof.
//!
//! Owns what a private key may do here: it is written to a file of its owner's alone (by
//! `install.rs`), signs CSRs, and tells its digest. It never shows itself in a log, and its DER and
//! PEM are wiped from memory when dropped. What ring and the PEM reader copy inside themselves is
//! not wiped: they have no way to.
//!
//! A CSR is signed by ring, through rustls, which takes every form of a key. EC keys are ring's.
//! ring can't make RSA keys, so they are made by the `rsa` crate, which is used for that alone: it
//! neither signs nor decrypts here, which is what RUSTSEC-2023-0071 (its timing tells of the key)
//! is about. Each RSA key is checked by ring before it is used.

mod csr;

use std::{fmt, str::FromStr, sync::Arc};

use getrandom::SysRng;
use rcgen::KeyPair;
use rsa::pkcs8::EncodePrivateKey;
use rustls::{SignatureScheme, crypto::ring::sign::any_supported_type, sign::SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    wire::{KeyDigest, Signature, ThingName},
    x509::key_digest_of_spki,
};

/// Base64 characters on a line of PEM.
const PEM_LINE: usize = 64;

/// What can go wrong with a private key. Never says anything of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system's random generator or the key generation failed.
    #[error("no key could be made: {0}")]
    Generation(String),
    /// There is no private key in the PEM text.
    #[error("there is no readable PRIVATE KEY in it (an encrypted key can't be used)")]
    NoKey,
    /// The key is of a kind that TLS here can't use.
    #[error("the key is of a kind that can't be used: take RSA, P-256 or P-384")]
    Unsupported,
    /// A CSR could not be signed.
    #[error("no CSR could be signed: {0}")]
    Csr(String),
}

/// The kinds of key that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// ECDSA on P-256: small, fast, taken everywhere.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits. Takes seconds to make on a small device.
    Rsa2048,
    /// RSA with 3072 bits. Takes longer still.
    Rsa3072,
    /// RSA with 4096 bits. Takes up to a minute on a small device.
    Rsa4096,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::P256, Self::P384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

/// The name is none of [`KeyKind`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is none of p256, p384, rsa2048, rsa3072, rsa4096")]
pub struct UnknownKind;

impl FromStr for KeyKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// A private key.
pub struct PrivateKey {
    der: PrivateKeyDer<'static>,
    digest: KeyDigest,
    kind: Option<KeyKind>,
}

impl PrivateKey {
    /// Makes a key. Takes seconds for RSA: not for a thread that others wait for.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let pkcs8 = match kind {
            KeyKind::P256 => ec(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            KeyKind::P384 => ec(&rcgen::PKCS_ECDSA_P384_SHA384)?,
            KeyKind::Rsa2048 => rsa(2048)?,
            KeyKind::Rsa3072 => rsa(3072)?,
            KeyKind::Rsa4096 => rsa(4096)?,
        };
        Self::from_der(PrivatePkcs8KeyDer::from(pkcs8).into())
    }

    /// Reads the first key of a PEM text: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        Self::from_der(PrivateKeyDer::from_pem_slice(text).map_err(|_| KeyError::NoKey)?)
    }

    fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let mut key = Self { der, digest: KeyDigest([0; 32]), kind: None };
        let (_, spki) = key.usable()?;
        key.digest = key_digest_of_spki(&spki);
        key.kind = csr::kind_of_spki(&spki);
        Ok(key)
    }

    /// What signs with it, and its public half: a SubjectPublicKeyInfo, DER.
    fn usable(&self) -> Result<(Arc<dyn SigningKey>, Vec<u8>), KeyError> {
        let usable = any_supported_type(&self.der).map_err(|_| KeyError::Unsupported)?;
        let spki = usable.public_key().ok_or(KeyError::Unsupported)?.to_vec();
        Ok((usable, spki))
    }

    /// Its kind, if it is one that can be made here.
    pub fn kind(&self) -> Option<KeyKind> {
        self.kind
    }

    /// Which key it is: the digest of its public half, as certificates and CSRs have it.
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }

    /// The key as PEM, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let tag = match self.der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        pem(tag, self.der.secret_der())
    }

    /// Signs a CSR whose only name is `CN = <the thing's>`; DER.
    pub fn csr(&self, name: &ThingName) -> Result<Vec<u8>, KeyError> {
        self.csr_for(&csr::common_name(name))
    }

    /// Signs a CSR with this subject, a DER Name, as it is; DER.
    pub fn csr_for(&self, subject: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (key, spki) = self.usable()?;
        csr::sign(key.as_ref(), self.kind, subject, &spki)
    }

    /// Signs a text: RSA by PKCS #1 v1.5 with SHA-256, P-256 with SHA-256, P-384 with SHA-384.
    pub fn sign(&self, text: &[u8]) -> Result<Signature, KeyError> {
        const SCHEMES: [SignatureScheme; 3] = [
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
        ];
        let (key, _) = self.usable()?;
        let signer = key.choose_scheme(&SCHEMES).ok_or(KeyError::Unsupported)?;
        let signature = signer.sign(text).map_err(|_| KeyError::Unsupported)?;
        Signature::new(signature).ok_or(KeyError::Unsupported)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.der.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("digest", &self.digest).finish_non_exhaustive()
    }
}

fn ec(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Vec<u8>, KeyError> {
    let mut key = KeyPair::generate_for(algorithm).map_err(generation)?;
    let der = key.serialize_der();
    key.zeroize();
    Ok(der)
}

fn rsa(bits: usize) -> Result<Vec<u8>, KeyError> {
    let key = rsa::PrivateKey::new(&mut SysRng, bits).map_err(generation)?;
    Ok(key.to_pkcs8_der().map_err(generation)?.as_bytes().to_vec())
}

fn generation(why: impl fmt::Display) -> KeyError {
    KeyError::Generation(why.to_string())
}

/// PEM that leaves no copy of what it encodes behind.
fn pem(tag: &str, der: &[u8]) -> Zeroizing<String> {
    let encoding = data_encoding::BASE64;
    let mut body = Zeroizing::new(vec![0; encoding.encode_len(der.len())]);
    encoding.encode_mut(der, &mut body);
    let text = std::str::from_utf8(&body).expect("base64 is ASCII");
    let mut out = Zeroizing::new(String::with_capacity(2 * body.len() + 100));
    out.push_str(&format!("-----BEGIN {tag}-----\n"));
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {tag}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::{CommonNameRule, accept_csr, verify_csr_signature};

    fn pump() -> ThingName {
        "pump-7".parse().expect("valid")
    }

    fn is_sound(kind: KeyKind) {
        let key = PrivateKey::generate(kind).expect("a key");
        let csr = key.csr(&pump()).expect("a CSR");
        assert_eq!(accept_csr(&csr, &pump(), CommonNameRule::Match), Ok(key.digest()));
        assert_eq!(verify_csr_signature(&csr), Ok(()));
        let again = PrivateKey::from_pem(key.to_pem().as_bytes()).expect("readable");
        assert_eq!(again.digest(), key.digest());
        assert_eq!(again.to_pem(), key.to_pem());
        assert_eq!((key.kind(), again.kind()), (Some(kind), Some(kind)));
    }

    #[test]
    fn an_ec_key_signs_a_csr_that_the_gateway_accepts() {
        is_sound(KeyKind::P256);
        is_sound(KeyKind::P384);
    }

    #[test]
    fn an_rsa_key_signs_a_csr_that_the_gateway_accepts() {
        is_sound(KeyKind::Rsa2048);
        is_sound(KeyKind::Rsa3072);
        is_sound(KeyKind::Rsa4096);
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let shown = format!("{key:?}");
        let secret = key.to_pem();
        for line in secret.lines() {
            assert!(!shown.contains(line));
        }
        assert_eq!(shown, format!("PrivateKey {{ digest: {:?}, .. }}", key.digest()));
    }

    #[test]
    fn what_holds_no_usable_key_is_refused() {
        let error = |text: &str| PrivateKey::from_pem(text.as_bytes()).expect_err("no key");
        assert_eq!(error(""), KeyError::NoKey);
        assert_eq!(
            error(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
            ),
            KeyError::NoKey
        );
        assert_eq!(error(&pem("PRIVATE KEY", b"junk")), KeyError::Unsupported);
    }

    #[test]
    fn every_kind_has_a_name_that_reads_back() {
        for kind in KeyKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("rsa1024".parse::<KeyKind>(), Err(UnknownKind));
    }
}
