//! What a child keeps of its rotation between two lives, and what it finds when it starts.

use serde::{Deserialize, Serialize};

use crate::{
    install::Generation,
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, Nonce, RotationId, Signature},
    x509::CertificateFacts,
};

/// What outlives the process. Beside it on disk: the generations, and which one is current.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Where the rotation stands.
    pub stage: Stage,
    /// The pair that the current one took the place of; kept until the next rotation begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Generation>,
    /// The last rotation that ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Finished>,
    /// What the cloud has yet to hear.
    #[serde(default, skip_serializing_if = "Notices::is_empty")]
    pub notices: Notices,
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// There is a new key; its certificate has not come.
    Waiting(Waiting),
    /// There is a new pair; nobody has connected with it.
    Trying(Trying),
}

impl Stage {
    /// The generation under way.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Idle => None,
            Self::Waiting(waiting) => Some(waiting.generation),
            Self::Trying(trying) => Some(trying.generation),
        }
    }

    /// The new key, if the rotation has one.
    pub fn asked(&self) -> Option<&Waiting> {
        match self {
            Self::Idle => None,
            Self::Waiting(waiting) => Some(waiting),
            Self::Trying(trying) => trying.asked.as_ref(),
        }
    }

    pub(super) fn asked_mut(&mut self) -> Option<&mut Waiting> {
        match self {
            Self::Idle => None,
            Self::Waiting(waiting) => Some(waiting),
            Self::Trying(trying) => trying.asked.as_mut(),
        }
    }
}

/// A proof for the cloud ([`crate::proof`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The nonce of the request that it answers.
    pub nonce: Nonce,
    /// The signature, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sig: Option<Signature>,
}

/// A new key whose CSR may be out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Where it is kept.
    pub generation: Generation,
    /// Which key.
    pub key: KeyDigest,
    /// When it was made, if a trusted clock could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    /// The cloud's name for the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The proof of the CSR, if the newest request asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// A new pair that has to prove itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trying {
    /// Where it is kept.
    pub generation: Generation,
    /// Its certificate.
    pub certificate: CertificateId,
    /// The cloud's name for the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The pair whose place it is to take.
    pub replaces: Generation,
    /// Its key; `None`: it is the current key with another certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Waiting>,
}

/// A rotation that ended well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// The cloud's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// When, if a trusted clock could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What a proof of its ack is to be about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

/// What is to be sent until the broker has it; a slot a kind, the newest wins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Notices {
    /// `crt_ack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckNotice>,
    /// `crt_err`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<ErrNotice>,
}

impl Notices {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// That a certificate is in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AckNotice {
    /// Which.
    pub certificate: CertificateId,
    /// The rotation that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The proof of it, if the newest request asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// That something went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrNotice {
    /// What, as a stable kebab-case word.
    pub code: String,
    /// In words.
    pub error: String,
    /// The certificate that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// The rotation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
}

/// What the disk holds when a child starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it saved; the default when there is nothing, or nothing readable.
    pub saved: Saved,
    /// The pair in use.
    pub current: Pair,
    /// What there is of the generation under way.
    pub pending: Pending,
    /// Every generation.
    pub generations: Vec<Generation>,
}

/// A certificate with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Where it is kept.
    pub generation: Generation,
    /// What its certificate says.
    pub facts: CertificateFacts,
}

/// What there is of the generation under way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pending {
    /// The CSR, DER, if its key is there too.
    pub csr: Option<Vec<u8>>,
    /// The certificate, if it fits the key.
    pub facts: Option<CertificateFacts>,
}
