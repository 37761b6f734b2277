//! What the store keeps of one child: where its rotation stands, and what the cloud has yet to hear.
//!
//! One record a child, so memory and disk are bounded by their number. Holds no body: CSRs and
//! certificates are DER in the store, read when they are sent.

use serde::{Deserialize, Serialize};

use crate::{
    reason::Reason,
    schedule::{Stamp, Timestamp},
    wire::{AckProof, CertificateId, KeyDigest, Mid, Nonce, RotationId, Signature, ThingName},
};

/// How many superseded keys and certificates a record remembers.
pub const REMEMBERED: usize = 4;

/// One child's record, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Where the rotation stands.
    pub stage: Stage,
    /// The cloud's name for the rotation; it outlives the stage it began in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// What the device's proofs are to be about, by the rotation's newest request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// The device's proof of the CSR in the store ([`crate::proof`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr_sig: Option<Signature>,
    /// When the device's current certificate expires, as far as anyone said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When the rotation began, whatever stage it has come to.
    pub began: Stamp,
    /// When the last request without a rotation id was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Occurred>,
    /// When the child was last heard here on its own topics, to the day; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Occurred>,
    /// The key of the certificate that the child acknowledged last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_key: Option<KeyDigest>,
    /// Keys that newer ones took the place of, newest last; at most [`REMEMBERED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded_keys: Vec<KeyDigest>,
    /// Certificates that newer ones took the place of, newest last; at most [`REMEMBERED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded_certificates: Vec<CertificateId>,
    /// What the cloud has yet to hear.
    #[serde(default, skip_serializing_if = "Outbox::is_empty")]
    pub outbox: Outbox,
}

impl Record {
    /// Applies `change` to every stamp in the record.
    pub fn each_stamp(&mut self, mut change: impl FnMut(&mut Stamp)) {
        change(&mut self.began);
        change(self.stage.since_mut());
        self.requested.iter_mut().for_each(|past| change(&mut past.at));
        self.heard.iter_mut().for_each(|past| change(&mut past.at));
        let notices = [&mut self.outbox.ack, &mut self.outbox.err];
        for notice in notices.into_iter().flatten() {
            match &mut notice.reached {
                Reached::Here { since } | Reached::Broker { since, .. } => change(since),
            }
        }
    }
}

/// That something happened, and when. A type of its own because a stamp without a time is stored as
/// nothing, and "nobody knows when" is not "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurred {
    /// When.
    pub at: Stamp,
}

/// Where a rotation stands, named for what we wait for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Stage {
    /// The child was asked for a CSR.
    AwaitCsr(AwaitCsr),
    /// The cloud was sent the CSR.
    AwaitCert(AwaitCert),
    /// The child was sent the certificate.
    AwaitAck(AwaitAck),
    /// Nothing is under way.
    Done(Done),
}

impl Stage {
    /// The stable word for logs and `status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwaitCsr(_) => "await-csr",
            Self::AwaitCert(_) => "await-cert",
            Self::AwaitAck(_) => "await-ack",
            Self::Done(_) => "done",
        }
    }

    /// Since when it stands.
    pub fn since(&self) -> Stamp {
        match self {
            Self::AwaitCsr(stage) => stage.since,
            Self::AwaitCert(stage) => stage.since,
            Self::AwaitAck(stage) => stage.since,
            Self::Done(stage) => stage.since,
        }
    }

    fn since_mut(&mut self) -> &mut Stamp {
        match self {
            Self::AwaitCsr(stage) => &mut stage.since,
            Self::AwaitCert(stage) => &mut stage.since,
            Self::AwaitAck(stage) => &mut stage.since,
            Self::Done(stage) => &mut stage.since,
        }
    }
}

/// The child was asked for a CSR and has not sent one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitCsr {
    /// When it was asked for.
    pub since: Stamp,
    /// Not to be asked before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
}

/// The CSR is in the store; the cloud has not answered it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitCert {
    /// When the CSR came.
    pub since: Stamp,
    /// The CSR.
    pub csr: Csr,
}

/// A CSR in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Csr {
    /// Its key.
    pub key: KeyDigest,
    /// The message id under which it goes to the cloud, each time.
    pub mid: Mid,
    /// Whether no request of the cloud's is behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsolicited: bool,
}

/// The certificate is in the store; the child has not acknowledged it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitAck {
    /// When the certificate came.
    pub since: Stamp,
    /// The CSR that it answers.
    pub csr: Csr,
    /// The certificate.
    pub certificate: CertificateId,
    /// When it expires.
    pub not_after: Timestamp,
    /// Whether it chains to configured trust anchors.
    pub anchored: bool,
    /// Not to be handed over before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
}

/// Nothing is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Since when.
    pub since: Stamp,
    /// How the last rotation ended.
    pub outcome: Outcome,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "was")]
pub enum Outcome {
    /// The child uses its certificate.
    #[serde(rename_all = "camelCase")]
    Acked {
        /// The certificate.
        certificate: CertificateId,
        /// How we know.
        proof: AckProof,
        /// The device's proof ([`crate::proof`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sig: Option<Signature>,
        /// When it expires.
        not_after: Timestamp,
    },
    /// The rotation failed.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Why.
        reason: Reason,
        /// The code that the device or the cloud gave for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// The certificate that was not taken, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<CertificateId>,
    },
    /// There was none: the child has only been heard, or something of it refused.
    Nothing,
}

/// What the cloud has yet to hear about one child; a slot a kind, the newest wins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// That a certificate is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Box<Notice>>,
    /// That something went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<Box<Notice>>,
}

impl Outbox {
    /// Whether the cloud knows all.
    pub fn is_empty(&self) -> bool {
        self.ack.is_none() && self.err.is_none()
    }
}

/// A `crt_ack` or `crt_err` that may not have arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// The message id under which it goes to the cloud, each time.
    pub mid: Mid,
    /// The rotation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// What it says.
    pub says: Says,
    /// How far it is known to have come.
    pub reached: Reached,
}

/// What a notice says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Says {
    /// `crt_ack`.
    #[serde(rename_all = "camelCase")]
    Acked {
        /// The certificate.
        certificate: CertificateId,
        /// How we know.
        proof: AckProof,
        /// The device's proof ([`crate::proof`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sig: Option<Signature>,
    },
    /// `crt_err`.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// The stable code: a [`Reason`]'s, or the device's own.
        code: String,
        /// In words; escaped, at most 256 bytes.
        error: String,
        /// The certificate that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<CertificateId>,
    },
}

/// How far a notice is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "at")]
pub enum Reached {
    /// Nowhere that we know of.
    #[serde(rename_all = "camelCase")]
    Here {
        /// Since when it waits.
        since: Stamp,
    },
    /// The cloud's broker: our own message came back.
    #[serde(rename_all = "camelCase")]
    Broker {
        /// Since when.
        since: Stamp,
        /// How often it was sent again since.
        again: u8,
    },
}

/// Which body of a child's the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// The CSR: DER.
    Csr,
    /// The certificate: the DER of the leaf, then of what follows it.
    Certificate,
}

/// One change to the store. All writes of a batch become durable together, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Puts a child's record.
    Record(ThingName, Box<Record>),
    /// Puts one of a child's bodies.
    Body(ThingName, Body, Vec<u8>),
    /// Removes one of a child's bodies; nothing happens if there is none.
    DropBody(ThingName, Body),
    /// Removes a child's record and both bodies.
    Forget(ThingName),
    /// Puts the newest time that was ever trusted.
    Seen(Timestamp),
}

/// What the store held when it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Every record.
    pub records: Vec<(ThingName, Record)>,
    /// The children whose record could not be read; they are gone from the store.
    pub damaged: Vec<ThingName>,
    /// The newest time that was ever trusted.
    pub seen: Option<Timestamp>,
}
