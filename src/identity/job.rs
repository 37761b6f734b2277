//! The slow work that the identity wants done, and what came of it.
//!
//! One job is under way at a time. A job that succeeded is durable. All but [`Job::Probe`] and
//! [`Job::Restart`] are about files, and leave a matching pair under the configured paths at every
//! instant, whatever they are interrupted by.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::saved::Saved;
use crate::{
    install::Generation, reason::Reason, schedule::Timestamp, wire::KeyDigest,
    x509::CertificateFacts,
};

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Find the credential, and what an earlier life left beside it; repair what was half-written.
    /// Makes nothing. → [`Done::Found`].
    Look,
    /// Find the credential anew, and try whether it could be switched: writes, links, renames and
    /// syncs beside it, and removes all that again. → [`Done::Ready`].
    Preflight,
    /// Make a key, or take the current one, and sign a CSR. What stood in the generation is wiped.
    /// → [`Done::KeyMade`].
    MakeKey {
        /// Where to keep it.
        generation: Generation,
    },
    /// Complete a generation with its certificate. → [`Done::CertificateStored`].
    StoreCertificate {
        /// Which generation.
        generation: Generation,
        /// The chain, DER, leaf first.
        chain: Vec<Vec<u8>>,
    },
    /// Save this. → [`Done::Saved`].
    Save(Box<Saved>),
    /// Make the configured paths links through `current`, which stays the pair that it is: plain
    /// files are taken in as a generation first. Nothing is done where that is so already.
    /// → [`Done::Attached`].
    Attach,
    /// Make a generation the current one, once the nucleus' user is known to be able to read it.
    /// The configured paths are links already. → [`Done::Switched`].
    Switch {
        /// Which.
        generation: Generation,
    },
    /// Overwrite and remove a generation that is not current. → [`Done::Wiped`].
    Wipe {
        /// Which.
        generation: Generation,
    },
    /// Make plain files of the links again, with the current pair; every generation is wiped.
    /// → [`Done::Detached`].
    Detach,
    /// Connect to the cloud once, and leave again. → [`Done::Probed`].
    Probe {
        /// With which pair.
        with: Pair,
        /// As whom.
        name: ProbeName,
    },
    /// Run the command that restarts the nucleus. It may end this process. → [`Done::Asked`].
    Restart,
}

/// Which pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// That under the configured paths, whether they are links or not.
    Configured,
    /// A generation's.
    Generation(Generation),
}

/// As whom a probe connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeName {
    /// As `<thing>#certrelay`, beside the nucleus.
    Beside,
    /// As the thing, which pushes the nucleus off if it is connected.
    InPlace,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// What is there.
    Found(Box<Found>),
    /// It could be switched. What is there, anew.
    Ready(Box<Found>),
    /// The key is there.
    KeyMade {
        /// Which.
        key: KeyDigest,
        /// Its CSR, DER.
        csr: Vec<u8>,
    },
    /// The certificate is there and fits.
    CertificateStored {
        /// What it says.
        facts: CertificateFacts,
    },
    /// It is saved.
    Saved,
    /// The configured paths lead through `current`.
    Attached {
        /// To this generation.
        current: Generation,
    },
    /// It is current.
    Switched {
        /// What its certificate says.
        facts: CertificateFacts,
    },
    /// It is wiped.
    Wiped,
    /// They are plain files.
    Detached,
    /// What the probe found.
    Probed(Probed),
    /// The command ended well. Whether it restarted anything only time tells.
    Asked,
    /// The job could not be done, and what stood before stands.
    Failed(Failure),
}

/// Why a job could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable reason.
    pub reason: Reason,
    /// What, and what to do about it; for people, escaped.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// The cloud took the pair.
    Accepted,
    /// The cloud refused the pair, or hung up on it. Only the other pair can tell what that means.
    Refused {
        /// In words, escaped.
        why: String,
    },
    /// The cloud could not be asked: it was not reached, or it could not prove who *it* is.
    Unreachable {
        /// In words, escaped.
        why: String,
    },
}

/// What is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The pair under the configured paths.
    pub configured: Configured,
    /// What was saved, if it can be read.
    pub saved: Option<Saved>,
    /// Which generation the configured paths lead to; `None`: they are plain files.
    pub current: Option<Generation>,
    /// Every generation, oldest first, usable or not.
    pub generations: Vec<Generation>,
    /// The CSR of the generation that is under way by `saved`, DER.
    pub csr: Option<Vec<u8>>,
    /// The certificate of that generation, where it fits its key.
    pub candidate: Option<CertificateFacts>,
}

/// The pair under the configured paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured {
    /// Its certificate.
    pub facts: CertificateFacts,
}

impl Configured {
    /// When its certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }
}
