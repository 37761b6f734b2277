//! How the core's own certificate stands, as the snapshot has it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::time;
use crate::{
    expiry::Expiry, install::Generation, reason::Reason, schedule::Timestamp, wire::CertificateId,
};

/// The core's own certificate and its rotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreStatus {
    /// Where its rotation stands: the stable word of [`crate::identity::Stage::name`]; `unknown`
    /// until the credential could be looked at.
    pub stage: String,
    /// Since when; `None`: no clock could be trusted.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What it waits for, for people; `None`: for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Where the pair in use is; `None`: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<CoreFiles>,
    /// The certificate in use, as far as it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// When that expires.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How soon that is; `None`: not soon, or no clock could be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,
    /// Which generation the pair in use is; `None`: plain files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Whether the pair before is kept, to roll back to.
    pub keeps_old_pair: bool,
    /// How the last rotation ended; `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<CoreEnded>,
    /// Why nothing goes on; `None`: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<CoreComplaint>,
    /// How often the nucleus' restart was asked for within a day.
    pub restarts_within_a_day: u32,
    /// What is odd about it, and stands in the way of nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Reason>,
}

/// Where the core's pair is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key: where, never what.
    pub key: PathBuf,
    /// What says so, for people, such as `the settings` or `config.tlog`.
    pub source: String,
}

/// How the core's last rotation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreEnded {
    /// When; `None`: no clock could be trusted.
    #[serde(with = "time::option", default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why it failed; `None`: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<CoreComplaint>,
}

/// What went wrong with the core's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreComplaint {
    /// The stable reason.
    pub code: Reason,
    /// In words.
    pub detail: String,
}
