//! What goes into the relay and what comes out.
//!
//! Each effect that can fail has a completion event: `Publish` has exactly one `Sent` (with
//! `Refused`, and before it `BodyLost`, when the store does not hold what was to be sent), `Verify`
//! has exactly one `Verified` (with the reason `body-lost` in that case). `Ack` and `Note` have
//! none: an ack that is lost brings the message again. Nor has `Reconnect`: the link goes down and
//! comes up, or stays down; nor `Renew`: nothing waits for it. `Core` has none but `BodyLost`: what the core has to say comes as `Own`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{Body, Write};
use crate::{
    identity::Say,
    links::{ConnectionId, Delivery, Message, Qos, SendError},
    reason::Reason,
    wire::{CertificateId, Header, KeyDigest, Mid, Signature, ThingName, render},
    x509::{self, Refusal},
};

/// Which of the two brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// AWS IoT Core.
    Cloud,
    /// The broker on the factory floor.
    Local,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cloud => "cloud",
            Self::Local => "local",
        })
    }
}

/// What happens to the relay.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A link is connected and subscribed.
    Up {
        /// Which link.
        side: Side,
        /// The new connection.
        connection: ConnectionId,
        /// The broker had kept our session.
        session_present: bool,
    },
    /// A link is not connected.
    Down {
        /// Which link.
        side: Side,
    },
    /// A message came.
    Message {
        /// From which broker.
        side: Side,
        /// The message.
        message: Message,
    },
    /// What became of an [`Effect::Publish`].
    Sent {
        /// On which link.
        side: Side,
        /// Which message.
        mid: Mid,
        /// What became of it.
        outcome: Result<(), SendError>,
    },
    /// What an [`Effect::Verify`] found.
    Verified {
        /// The child whose CSR it is.
        child: ThingName,
        /// The CSR's key.
        key: KeyDigest,
        /// What was found.
        outcome: Result<(), Refusal>,
    },
    /// The store does not hold a body that was to be sent.
    BodyLost {
        /// The child.
        child: ThingName,
        /// What it was to be.
        lost: Lost,
    },
    /// The store was damaged, set aside and begun anew: what it held is lost.
    StoreLost,
    /// The store has no room: for a while nothing is taken in that would make it grow.
    StoreFull,
    /// The core says something of its own certificate.
    Own(Say),
    /// It is time; [`Relay::next_wakeup`](super::Relay::next_wakeup) said so.
    Wakeup,
}

/// A body that is not in the store. It says which one it was, because the child may have moved on
/// since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The CSR for this key.
    Csr(KeyDigest),
    /// This certificate.
    Certificate(CertificateId),
}

/// What the relay wants done, after its writes are durable and in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Acknowledge a message.
    Ack(Side, Delivery),
    /// Send a message.
    Publish(Side, Outgoing),
    /// Check the signature of the CSR in the store.
    Verify {
        /// Whose CSR.
        child: ThingName,
        /// The CSR's key.
        key: KeyDigest,
    },
    /// Tell the core's own identity.
    Core(ForCore),
    /// Have a link connect, or at least subscribe, anew: it takes messages and delivers none.
    Reconnect(Side),
    /// Have a link renew its subscriptions without a gap: one may be lost, with nobody told.
    Renew(Side),
    /// Log a decision.
    Note(Note),
}

impl Effect {
    /// The body that the store must yield before this can be done.
    pub fn needs(&self) -> Option<(&ThingName, Body)> {
        match self {
            Self::Publish(_, outgoing) | Self::Core(ForCore::Message(outgoing)) => {
                outgoing.content.needs()
            }
            Self::Verify { child, .. } => Some((child, Body::Csr)),
            Self::Ack(..) | Self::Core(_) | Self::Reconnect(_) | Self::Renew(_) | Self::Note(_) => {
                None
            }
        }
    }
}

/// What the core's own identity is to hear. To the relay the core is one more child.
#[derive(Debug, Clone, PartialEq)]
pub enum ForCore {
    /// `csr_req` or `crt`, as any child would get it. No [`Event::Sent`] comes of it.
    Message(Outgoing),
    /// The cloud has acted on the ack of this certificate.
    Settled(CertificateId),
    /// This certificate, which it was sent, is given up.
    Withdrawn(CertificateId),
    /// What it said, one [`Event::Own`], is durable here.
    Taken,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Which message, for [`Event::Sent`]. Not always the `mid` in the payload: that one stays with
    /// the message, this one is a copy's.
    pub copy: Mid,
    /// The topic.
    pub topic: String,
    /// How surely.
    pub qos: Qos,
    /// The payload, or what it is to be made of.
    pub content: Content,
}

/// A payload, or what it is to be made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The payload itself.
    Ready(Vec<u8>),
    /// `csr_res` with the CSR in the store.
    Csr {
        /// Whose CSR.
        child: ThingName,
        /// The key that it must have.
        key: KeyDigest,
        /// Whether no request is behind it.
        unsolicited: bool,
        /// The device's proof.
        sig: Option<Signature>,
        /// The other fields.
        header: Header,
    },
    /// `crt` with the certificate in the store.
    Certificate {
        /// Whose certificate.
        child: ThingName,
        /// The certificate that it must be.
        certificate: CertificateId,
        /// The other fields.
        header: Header,
    },
}

impl Content {
    fn needs(&self) -> Option<(&ThingName, Body)> {
        match self {
            Self::Ready(_) => None,
            Self::Csr { child, .. } => Some((child, Body::Csr)),
            Self::Certificate { child, .. } => Some((child, Body::Certificate)),
        }
    }

    /// What is lost when the store does not yield the body.
    pub fn loss(&self) -> Option<(ThingName, Lost)> {
        match self {
            Self::Ready(_) => None,
            Self::Csr { child, key, .. } => Some((child.clone(), Lost::Csr(*key))),
            Self::Certificate { child, certificate, .. } => {
                Some((child.clone(), Lost::Certificate(*certificate)))
            }
        }
    }

    /// The child and the PEM of its certificate alone, if this hands one over and `body` is its chain.
    pub fn certified(&self, body: Option<&[u8]>) -> Option<(ThingName, String)> {
        let Self::Certificate { child, .. } = self else { return None };
        let leaf = x509::split_chain(body?).into_iter().next()?;
        Some((child.clone(), render::certificate_pem(&leaf)))
    }

    /// The message id in the payload; a copy's id is another thing.
    pub(super) fn mid(&self) -> Option<Mid> {
        match self {
            Self::Ready(payload) => Header::read(payload).mid,
            Self::Csr { header, .. } | Self::Certificate { header, .. } => header.mid,
        }
    }

    /// The payload, from the body that [`Effect::needs`] asked for. `None`: the body is another
    /// one, put there by a later event of the same batch; then there is nothing to send.
    pub fn render(self, body: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ready(payload) => Some(payload),
            Self::Csr { key, unsolicited, sig, header, .. } => {
                let render = if unsolicited { render::unsolicited_csr } else { render::csr_res };
                (x509::csr_key(body).ok()? == key).then(|| render(&header, body, sig.as_ref()))
            }
            Self::Certificate { certificate, header, .. } => {
                let chain = x509::split_chain(body);
                let leaf = chain.first()?;
                (x509::certificate_id(leaf) == certificate)
                    .then(|| render::crt(&header, chain.iter().map(Vec::as_slice)))
            }
        }
    }
}

/// A decision, for the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// How much it matters.
    pub weight: Weight,
    /// Which broker the cause came from, if it came from one.
    pub side: Option<Side>,
    /// The child, if it is about one.
    pub child: Option<ThingName>,
    /// The state that the child is in now.
    pub state: &'static str,
    /// Why.
    pub reason: Reason,
    /// Foreign words, escaped and short.
    pub detail: Option<String>,
}

/// How much a decision matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It is as it should be.
    Step,
    /// Something was refused or dropped.
    Refused,
    /// Somebody must look at it.
    Alarm,
}

/// What the relay wants of one or more events: first the writes, as one transaction, then the
/// effects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// To be made durable, in order and together.
    pub writes: Vec<Write>,
    /// To be done after that, in order.
    pub then: Vec<Effect>,
}
