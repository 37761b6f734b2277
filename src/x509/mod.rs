//! Facts of CSRs and certificates, and the chains of checks that accept them (DESIGN §5).
//!
//! Owns what makes a CSR or certificate acceptable and in which order it is found out: the order of
//! the checks is fixed and the first violation is the answer. Pure and total: any bytes yield facts
//! or a [`Refusal`]. Never looks at a clock, and holds no private key.

mod anchors;
mod certificate;
mod csr;
mod key;
mod subject;

use serde::Deserialize;

pub use anchors::{Anchors, AnchorsError};
pub use certificate::{
    CertificateFacts, accept_certificate, certificate_id, certificate_spki, certificate_subject,
    join_chain, read_certificate, split_chain,
};
pub use csr::{MAX_CSR, accept_csr, csr_key, verify_csr_signature};
pub use key::key_digest_of_spki;

use crate::reason::Reason;

/// What a CSR or certificate must say of its subject (`csr.commonName`).
///
/// Every CN and every subject alternative name counts; an alternative name that is not a DNS name
/// is foreign. "Absent" means that there is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommonNameRule {
    /// There is a CN, and it is the client id; so is every SAN that is present.
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
