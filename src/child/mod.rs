//! A device's side of the rotation, as a library without input or output of its own.
//!
//! [`Child`] is for an application that holds an MQTT session under the device's name: an agent
//! beside it under the same client id would kick it off the broker, and it the agent, for ever. The
//! application hands in what happens ([`Event`]) and does what comes out ([`Effect`]), in order:
//!
//! ```text
//!  broker ──► Event::Message, Up, Down, Published ─┐            ┌─► Effect::Connect, Publish ──► broker
//!                                                  ├─► Child ───┤
//!  disk::perform ──► Event::Disk ◄─────────────────┘            └─► Effect::Disk ──► disk::perform
//! ```
//!
//! Invariants:
//! - A new key is durable before its CSR leaves; there is one new key at a time, and a request that
//!   is repeated within 24 hours gets the same CSR.
//! - The current pair stays as it is until a session with the new one has come up; then one rename
//!   switches. The pair before stays on disk until the next rotation begins.
//! - A certificate is acknowledged by name, on a session that was opened with it, until the broker
//!   has the ack. It is given up only after the old pair connected, several times over minutes,
//!   where the new one could not. A broker that no pair reaches decides nothing.
//! - Where a request carries a nonce, the CSR leaves with a signature by the key in use, the ack with
//!   one by the new key ([`crate::proof`]). Repeats carry the same.
//! - One disk job at a time; whatever instant the process ends at, [`disk::load`] finds a pair that
//!   fits, and the child goes on from there.
//! - It has no clock, file or socket. Its only wish for time is [`Child::next_wakeup`].

pub mod disk;
mod downlink;
mod line;
mod machine;
mod outgoing;
mod proving;
mod saved;

use std::{fmt, time::Duration};

pub use machine::Child;
pub use saved::{
    AckNotice, ErrNotice, Finished, Found, Notices, Pair, Pending, Proof, Saved, Stage, Trying,
    Waiting,
};

use crate::{
    identity::Threshold,
    install::Generation,
    reason::Reason,
    schedule::{Backoff, Timestamp},
    wire::{
        CertificateId, KeyDigest, Kind, Mid, PrefixError, Signature, ThingName, Topics, escape,
    },
    x509::{CertificateFacts, CommonNameRule},
};

/// How a child goes about it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The device's name: its MQTT client id, and the CN of its CSRs.
    pub thing: ThingName,
    /// The topics on the broker.
    pub topics: Topics,
    /// What a certificate must say of its subject.
    pub common_name: CommonNameRule,
    /// A request that is repeated for this long gets the same CSR.
    pub csr_lifetime: Duration,
    /// Pauses between connects.
    pub retry: Backoff,
    /// Pauses between tries of the new pair while the old one works.
    pub trial: Backoff,
    /// The new pair is given up after so many tries that failed while the old one worked.
    pub given_up: Threshold,
}

impl Settings {
    /// The usual ones, under a topic prefix such as `management/topic`.
    pub fn new(thing: ThingName, prefix: &str) -> Result<Self, PrefixError> {
        let seconds = Duration::from_secs;
        Ok(Self {
            topics: Topics::parse(prefix, &thing)?,
            thing,
            common_name: CommonNameRule::AbsentOk,
            csr_lifetime: seconds(24 * 3600),
            retry: Backoff { first: seconds(1), longest: seconds(60) },
            trial: Backoff { first: seconds(15), longest: seconds(240) },
            given_up: Threshold { times: 5, over: seconds(600) },
        })
    }

    /// What to subscribe to, at QoS 1, at each connect.
    pub fn subscriptions(&self) -> [String; 2] {
        [Kind::CsrReq, Kind::Crt].map(|kind| self.topics.topic(&self.thing, kind))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The time that [`Child::next_wakeup`] named has come; also the first event of a life.
    Wake,
    /// The connection is up and subscribed.
    Up {
        /// Which: that of [`Effect::Connect`].
        connection: u64,
    },
    /// The connection could not be made, or is lost.
    Down {
        /// Which.
        connection: u64,
        /// For people.
        why: String,
    },
    /// A message came, on any connection.
    Message {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Vec<u8>,
        /// The broker had kept it.
        retain: bool,
    },
    /// The broker acknowledged a message.
    Published {
        /// Which.
        mid: Mid,
    },
    /// The disk job is done.
    Disk(Done),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Do this and report [`Event::Disk`]. Never more than one is under way.
    Disk(Job),
    /// Drop any connection and try one with this pair, once; then report [`Event::Up`] or
    /// [`Event::Down`]. Persistent session, the thing's name as client id.
    Connect {
        /// The new connection's number.
        connection: u64,
        /// The pair to use.
        generation: Generation,
    },
    /// Send this at QoS 1, not retained, and report [`Event::Published`] when the broker has it.
    Publish {
        /// Which message.
        mid: Mid,
        /// The topic.
        topic: String,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Something worth a line in the log.
    Tell(Told),
}

/// A disk job; [`disk::perform`] does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Make a key and its CSR.
    MakeKey {
        /// Where.
        generation: Generation,
    },
    /// Complete a generation with a certificate.
    StoreCertificate {
        /// Which generation.
        generation: Generation,
        /// Whose key it uses; another generation's is copied.
        key_of: Generation,
        /// The chain, DER, leaf first.
        chain: Vec<Vec<u8>>,
    },
    /// Make a generation the current one.
    Promote {
        /// Which.
        generation: Generation,
    },
    /// Sign a text, for a proof.
    Sign {
        /// Whose key signs.
        generation: Generation,
        /// The text.
        text: Vec<u8>,
    },
    /// Save this.
    Save(Box<Saved>),
    /// Wipe a generation.
    Wipe {
        /// Which.
        generation: Generation,
    },
}

/// How a disk job ended. Success means durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
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
    /// The text is signed; `None`: a key of this kind makes no proofs.
    Signed(Option<Signature>),
    /// The switch is made.
    Promoted,
    /// It is saved.
    Saved,
    /// It is wiped.
    Wiped,
    /// It failed.
    Failed {
        /// For people.
        why: String,
    },
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A connection came up with this pair.
    Connected(Generation),
    /// A connection could not be made with this pair, or was lost.
    Disconnected(Generation, String),
    /// A message was not heeded.
    Ignored(Reason),
    /// A new key was made.
    KeyMade(KeyDigest),
    /// The CSR was handed to the broker.
    CsrSent(KeyDigest),
    /// A certificate was refused.
    Refused(Reason, Option<CertificateId>),
    /// A certificate was taken; the pair is tried next.
    CertificateTaken(CertificateId),
    /// The new pair failed where the old one works.
    TrialFailed {
        /// How often so far.
        rounds: u32,
    },
    /// The new pair is in use. An application reloads its credentials now.
    Promoted {
        /// Its certificate.
        certificate: CertificateId,
        /// Until when that is valid.
        not_after: Timestamp,
    },
    /// The new pair was given up.
    RolledBack(CertificateId),
    /// The broker has the ack.
    Acked(CertificateId),
    /// A disk job failed; it is tried again.
    DiskFailed(String),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(generation) => write!(f, "connected with {generation}"),
            Self::Disconnected(generation, why) => {
                write!(f, "not connected with {generation}: {}", escape(why))
            }
            Self::Ignored(reason) => write!(f, "a message was ignored: {reason}"),
            Self::KeyMade(key) => write!(f, "made the key {key:?}"),
            Self::CsrSent(key) => write!(f, "sent the CSR of the key {key:?}"),
            Self::Refused(reason, Some(id)) => {
                write!(f, "refused the certificate {id:?}: {reason}")
            }
            Self::Refused(reason, None) => write!(f, "refused a certificate: {reason}"),
            Self::CertificateTaken(id) => write!(f, "took the certificate {id:?}"),
            Self::TrialFailed { rounds } => {
                write!(f, "the new pair failed where the old one works, {rounds} times so far")
            }
            Self::Promoted { certificate, not_after } => {
                write!(f, "the certificate {certificate:?} is in use, valid until {not_after}")
            }
            Self::RolledBack(id) => write!(f, "gave up the certificate {id:?}, the old one stays"),
            Self::Acked(id) => write!(f, "the broker has the ack of the certificate {id:?}"),
            Self::DiskFailed(why) => write!(f, "the disk failed: {}", escape(why)),
        }
    }
}
