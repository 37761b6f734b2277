//! One's own credential: the core device's certificate, from the request for a new one until the
//! nucleus uses it and the cloud knows (DESIGN §7).
//!
//! ```text
//!        csr_req             crt               probe            window
//!  Idle ────────► AwaitCertificate ──► Probing ─────► AwaitWindow ─────► Installed
//!   ▲                 (key durable)       │ refused                         │ nucleus restarted
//!   │◄────────────────────────────────────┘                                 ▼
//!   │◄───────────────── crt_ack, link up ──────────────────────────── Confirming
//!   │◄── crt_err, nucleus restarted ── RollingBack ◄── refused where the old pair is taken ──┘
//! ```
//!
//! Owns what is decided about it, and nothing else: it has no clock, file or socket. It is handed
//! the time and what happened ([`Event`]), and returns what is to be done ([`Effect`]), of which
//! one [`Job`] at most is under way. To the relay the core is one more child: what the relay has
//! for the core comes in as a [`Event::Message`], and what the core has to say goes to the relay as
//! a [`Say`], which keeps it until the cloud has heard it.
//!
//! Invariants:
//! - A key is durable before its CSR leaves; a stage is saved before anything rests on it.
//! - The configured paths hold a matching pair at every instant; only [`Job::Switch`] changes which.
//! - The nucleus is restarted only after all that the next life needs is saved, and no more often
//!   than the settings say; of those the last is kept for a way back.
//! - A certificate is acknowledged only after the nucleus was started anew with it, and reaches the
//!   cloud. It is given up only where the old pair was taken while it was refused, again and again.
//!   That the cloud is out of reach decides nothing.

mod ending;
mod job;
mod machine;
mod messages;
mod probing;
mod restarts;
mod run;
mod saved;
mod switching;
mod tally;
mod view;
mod window;

use std::{fmt, time::Duration};

pub use job::{Configured, Done, Failure, Found, Job, Pair, ProbeName, Probed};
pub use machine::Identity;
pub use restarts::{Instant, Restarts};
pub use run::RunId;
pub use saved::{
    AwaitCertificate, AwaitWindow, Candidate, Complaint, Confirming, Ended, Installed, Kept,
    Probing, Proof, RollingBack, Saved, Stage,
};
pub use tally::{Tally, Threshold};
pub use view::{Hold, View};
pub use window::{LocalTime, RestartWindow, Weekday, WindowError};

use crate::{
    reason::Reason,
    relay::CloudState,
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest, Kind, RotationId, escape},
};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The time that [`Identity::next_wakeup`] named has come; also the first event of a life.
    Wake,
    /// The relay has this for the core: `csr_req` or `crt`.
    Message {
        /// Which.
        kind: Kind,
        /// The payload, as a child would get it.
        payload: Vec<u8>,
    },
    /// The cloud has acted on the ack of this certificate.
    Settled(CertificateId),
    /// The relay has given this certificate up.
    Withdrawn(CertificateId),
    /// What was said, one [`Effect::Say`], is durable at the relay. They are taken in order.
    Taken,
    /// The relay begins anew with its store: what was said and not taken is lost.
    Forgotten,
    /// What matters for a restart has changed.
    Conditions(Conditions),
    /// The job is done.
    Done(Done),
    /// Somebody asks for something; one question at a time.
    Command(Command),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Do this and report [`Event::Done`]. Never more than one is under way.
    Do(Job),
    /// Hand this to the relay, as what the core says.
    Say(Say),
    /// Something worth a line in the log.
    Tell(Told),
    /// The answer to the last [`Event::Command`].
    Answer(Result<String, String>),
}

/// What matters for a restart of the nucleus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// There is a connection to the nucleus that started this process.
    pub nucleus: bool,
    /// What is known of the link to the cloud.
    pub link: CloudState,
    /// A deployment is under way.
    pub deployment: bool,
    /// The settings let the nucleus be restarted now: a window that needs a trusted clock is closed
    /// without one.
    pub window: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { nucleus: false, link: CloudState::Down, deployment: false, window: false }
    }
}

/// What people may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Begin a rotation, though nobody asked for it.
    Rotate,
    /// Restart the nucleus for a pair that waits, whatever the window says.
    RestartNow,
    /// Give the rotation up, or go back to the pair before the last one.
    Rollback,
    /// Make plain files of the links.
    Detach,
}

/// What the core says to the cloud, through the relay.
#[derive(Debug, Clone, PartialEq)]
pub enum Say {
    /// `csr_res`.
    Csr {
        /// DER.
        csr: Vec<u8>,
        /// The rotation that it is for; `None`: no name is known.
        rotation: Option<RotationId>,
    },
    /// `crt_ack`, by name.
    Acked {
        /// The certificate.
        certificate: CertificateId,
        /// The rotation that it came with.
        rotation: Option<RotationId>,
    },
    /// `crt_err`.
    Failed {
        /// Why.
        why: Complaint,
        /// The certificate that it is about.
        certificate: Option<CertificateId>,
        /// The rotation that it is about.
        rotation: Option<RotationId>,
        /// Whether that ends the rotation.
        ends: bool,
    },
}

/// In which life of which nucleus this process runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Which life; `None`: there is no nucleus.
    pub run: Option<RunId>,
    /// The time since the boot, at tick 0.
    pub uptime: Duration,
}

/// What may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The nucleus is restarted no more often than this in a day.
    pub max_restarts: u32,
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A new key was made.
    KeyMade(KeyDigest),
    /// A certificate was taken; the pair is tried next.
    CertificateTaken(CertificateId, Timestamp),
    /// The new pair was refused where the one in use was taken, so often so far.
    ProbeRefused(u32, String),
    /// The cloud could not be asked about a pair.
    ProbeFailed(String),
    /// The new pair was taken by the cloud.
    ProbeAccepted(CertificateId),
    /// No probe is permitted; the new pair goes on unproven.
    ProbeNotPermitted(CertificateId),
    /// The new pair is installed.
    Switched(CertificateId),
    /// The nucleus is to be restarted.
    Restarting,
    /// The nucleus was restarted with the new pair; whether it reaches the cloud is to be seen.
    Restarted(CertificateId),
    /// The nucleus reaches the cloud with the new pair.
    Confirmed(CertificateId),
    /// The old pair comes back.
    RollingBack(CertificateId, Reason),
    /// The new pair was given up.
    GaveUp(Option<CertificateId>, Reason),
    /// The pair before is not kept any more.
    Wiped,
    /// A message was not heeded.
    Ignored(Reason),
    /// It could not be done; it is tried again.
    Failed(Failure),
}

impl Told {
    /// Whether somebody should look at it.
    pub fn is_grave(&self) -> bool {
        matches!(self, Self::RollingBack(..) | Self::GaveUp(..) | Self::Failed(_))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMade(key) => write!(f, "made the key {key:?}"),
            Self::CertificateTaken(id, until) => {
                write!(f, "took the certificate {id:?}, valid until {until}")
            }
            Self::ProbeRefused(rounds, why) => write!(
                f,
                "the cloud refuses the new pair where it takes the old one, {rounds} times so far: {}",
                escape(why)
            ),
            Self::ProbeFailed(why) => write!(f, "the new pair can't be tried: {}", escape(why)),
            Self::ProbeAccepted(id) => write!(f, "the cloud takes the certificate {id:?}"),
            Self::ProbeNotPermitted(id) => {
                write!(f, "no probe is permitted; the certificate {id:?} is unproven")
            }
            Self::Switched(id) => write!(f, "the certificate {id:?} is installed"),
            Self::Restarting => write!(f, "asking for a restart of the nucleus"),
            Self::Restarted(id) => {
                write!(f, "the nucleus was restarted with the certificate {id:?}")
            }
            Self::Confirmed(id) => {
                write!(f, "the nucleus reaches the cloud with the certificate {id:?}")
            }
            Self::RollingBack(id, reason) => {
                write!(f, "the certificate {id:?} is rolled back: {reason}")
            }
            Self::GaveUp(Some(id), reason) => write!(f, "gave up the certificate {id:?}: {reason}"),
            Self::GaveUp(None, reason) => write!(f, "gave up the rotation: {reason}"),
            Self::Wiped => write!(f, "the pair before is wiped"),
            Self::Ignored(reason) => write!(f, "a message was ignored: {reason}"),
            Self::Failed(failure) => write!(f, "{failure}"),
        }
    }
}
