//! Facts of CSRs and certificates, and the chains of checks that accept them (DESIGN §5).

use serde::Deserialize;

use crate::{
    reason::Reason,
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, ThingName},
};

/// What a CSR or certificate must say of its subject (`csr.commonName`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommonNameRule {
    /// There is a CN, and it is the client id.
    Match,
    /// Any CN or SAN that is present is the client id.
    #[default]
    AbsentOk,
    /// Anything.
    Any,
}

/// A refusal: the stable reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub Reason);

/// What we know of an accepted certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its id.
    pub id: CertificateId,
    /// Its key.
    pub key: KeyDigest,
    /// It is valid from then on.
    pub not_before: Timestamp,
    /// It is valid until then.
    pub not_after: Timestamp,
}

/// The certificates that a chain may end in (`certificate.trustAnchorsFile`).
#[derive(Debug, Clone)]
pub struct Anchors(());

/// Why trust anchors can't be used. Stub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate is in it")]
pub struct AnchorsError;

impl Anchors {
    /// Stub.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AnchorsError> {
        match pem.starts_with(b"-----BEGIN CERTIFICATE-----") {
            true => Ok(Self(())),
            false => Err(AnchorsError),
        }
    }
}

/// Stub.
pub fn accept_csr(
    _der: &[u8],
    _client: &ThingName,
    _rule: CommonNameRule,
) -> Result<KeyDigest, Refusal> {
    Err(Refusal(Reason::BadCsr))
}
