//! What the identity keeps between two lives. Beside it on disk: the generations, and which one is
//! current.

use serde::{Deserialize, Serialize};

use super::{Restarts, RunId};
use crate::{
    install::Generation,
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, RotationId},
};

/// What outlives the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Where the rotation stands.
    pub stage: Stage,
    /// The pair before, kept until the cloud has settled the rotation or a week has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// How the last rotation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The restarts of the nucleus that were asked for lately.
    #[serde(default)]
    pub restarts: Restarts,
}

/// Where the rotation stands, named for what we wait for. After a restart each goes on from where
/// it is; nothing but what stands here, and the files, is needed for that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// There is a new key; its certificate has not come. Ends with the rotation at the relay.
    AwaitCertificate(AwaitCertificate),
    /// There is a new pair; nobody has connected with it. Begins anew after a restart.
    Probing(Probing),
    /// The new pair is to be installed once the nucleus may be restarted.
    AwaitWindow(AwaitWindow),
    /// The new pair is installed, or about to be, and the nucleus is to be restarted.
    Installed(Installed),
    /// The nucleus was restarted with the new pair; whether it reaches the cloud is not known.
    Confirming(Confirming),
    /// The old pair is installed again, or about to be, and the nucleus is to be restarted.
    RollingBack(RollingBack),
}

impl Stage {
    /// The stable word for logs and `status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::AwaitCertificate(_) => "await-certificate",
            Self::Probing(_) => "probing",
            Self::AwaitWindow(_) => "await-window",
            Self::Installed(_) => "installed",
            Self::Confirming(_) => "confirming",
            Self::RollingBack(_) => "rolling-back",
        }
    }

    /// The generation of the key under way.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::AwaitCertificate(stage) => Some(stage.generation),
            _ => self.candidate().map(|candidate| candidate.generation),
        }
    }

    /// The new pair, if there is one.
    pub fn candidate(&self) -> Option<&Candidate> {
        match self {
            Self::Idle | Self::AwaitCertificate(_) => None,
            Self::Probing(Probing { candidate })
            | Self::AwaitWindow(AwaitWindow { candidate, .. })
            | Self::Installed(Installed { candidate, .. })
            | Self::Confirming(Confirming { candidate, .. })
            | Self::RollingBack(RollingBack { candidate, .. }) => Some(candidate),
        }
    }
}

/// A new key whose CSR may be out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitCertificate {
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
}

/// A new pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Where it is kept.
    pub generation: Generation,
    /// Which key.
    pub key: KeyDigest,
    /// Its certificate.
    pub certificate: CertificateId,
    /// Until when that is valid.
    pub not_after: Timestamp,
    /// The cloud's name for the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
}

/// The new pair is being tried beside the nucleus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probing {
    /// The pair.
    pub candidate: Candidate,
}

/// What the probe said of a new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The cloud took it.
    Probed,
    /// The cloud refused it as it refused the pair in use: no probe is permitted, so nothing is
    /// known.
    NotPermitted,
}

/// The new pair waits for its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitWindow {
    /// The pair.
    pub candidate: Candidate,
    /// What the probe said of it.
    pub proof: Proof,
}

/// The new pair is switched to, and the nucleus restarted, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// The pair.
    pub candidate: Candidate,
    /// What the probe said of it.
    pub proof: Proof,
    /// The pair before, to roll back to.
    pub previous: Generation,
    /// The life of the nucleus in which the switch was made, and which does not know the pair.
    pub before: RunId,
}

/// The nucleus has the new pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confirming {
    /// The pair.
    pub candidate: Candidate,
    /// What the probe said of it.
    pub proof: Proof,
    /// The pair before, to roll back to.
    pub previous: Generation,
}

/// The old pair is switched to, and the nucleus restarted, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingBack {
    /// The pair that is given up.
    pub candidate: Candidate,
    /// The pair to roll back to.
    pub to: Generation,
    /// The life of the nucleus that does not know the old pair yet.
    pub before: RunId,
    /// Why.
    pub why: Complaint,
}

/// Why a rotation failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Complaint {
    /// The stable code: a [`crate::reason::Reason`].
    pub code: crate::reason::Reason,
    /// In words; escaped, short.
    pub error: String,
}

/// A pair that is not in use any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Where it is kept.
    pub generation: Generation,
    /// The certificate that took its place.
    pub until_settled: CertificateId,
    /// Since when, if a trusted clock could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Its certificate, if it came to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// The cloud's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// Why it failed; `None`: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Complaint>,
    /// The relay was told.
    #[serde(default)]
    pub told: bool,
    /// When, if a trusted clock could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}
