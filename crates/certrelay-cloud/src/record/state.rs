//! The states of a rotation: each holds what is known in it, and nothing else.
//!
//! ```text
//! requested ─► issuing ─► issued ─► acked ─► deactivating ─► inactive ─► retiring ─► retired
//!     ▲           │         │         │           └─────┬────────┘
//!     ├───────────┘         │         │             reversing
//!     ├── (an error) ◄──────┴─────────┴──────────────────┘
//!     └── withdrawing ◄─────┘
//!              └─► withdrawn                (requested, issued) ─► abandoned
//! ```

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, KeyDigest},
};
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum State {
    /// The device is asked for a CSR.
    Requested(Requested),
    /// A CSR was taken; its certificate is being made and attached.
    Issuing(Issuing),
    /// The certificate is ACTIVE and goes to the device.
    Issued(Issued),
    /// The device says that it uses the certificate. What it replaces is still ACTIVE.
    Acked(Acked),
    /// What it replaces is being made INACTIVE.
    Deactivating(Deactivating),
    /// What it replaces is INACTIVE, which can be reversed.
    Inactive(Inactive),
    /// What it replaces is being detached and deleted.
    Retiring(Retiring),
    /// What it replaces is gone. The end.
    Retired(Retired),
    /// What it replaces is being made ACTIVE again: the device has trouble with the new one.
    Reversing(Reversing),
    /// The new certificate, which surely nobody uses, is being deactivated and deleted.
    Withdrawing(Withdrawing),
    /// It is gone. The end.
    Withdrawn(Ended),
    /// Nothing came of it, and nothing was given up. The end.
    Abandoned(Ended),
}

/// See [`State::Requested`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// How often the device was asked.
    pub asks: u32,
    /// When it is asked again.
    pub due: Timestamp,
}

/// See [`State::Issuing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuing {
    /// The CSR's key.
    pub key: KeyDigest,
    /// When the CSR reached AWS IoT.
    pub csr_at: Timestamp,
    /// The certificate, once it is made.
    pub made: Option<Made>,
    /// Until when nobody else may act.
    pub lease: Timestamp,
}

/// See [`State::Issued`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate.
    pub made: Made,
    /// How often it was sent, beside the answers to CSRs.
    pub sends: u32,
    /// When it is sent again.
    pub due: Timestamp,
}

/// See [`State::Acked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The certificate.
    pub made: Made,
    /// How it is known.
    pub proof: Proof,
    /// Since when.
    pub since: Timestamp,
    /// Until when what it replaces stays ACTIVE.
    pub until: Timestamp,
}

/// See [`State::Deactivating`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivating {
    /// The certificate in use.
    pub made: Made,
    /// How that is known.
    pub proof: Proof,
    /// What it replaces.
    pub given_up: Vec<GivenUp>,
    /// Until when nobody else may act.
    pub lease: Timestamp,
}

/// A certificate that another has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Which.
    pub id: CertificateId,
    /// Whether it was ACTIVE until then. If not, someone else had a reason: it is never made ACTIVE
    /// again.
    pub was_active: bool,
}

/// See [`State::Inactive`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inactive {
    /// The certificate in use.
    pub made: Made,
    /// How that is known.
    pub proof: Proof,
    /// What it replaces.
    pub given_up: Vec<GivenUp>,
    /// Until when that is kept.
    pub until: Timestamp,
}

/// See [`State::Retiring`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    /// The certificate in use.
    pub made: Made,
    /// How that is known.
    pub proof: Proof,
    /// What it replaces, as far as it is to be deleted.
    pub given_up: Vec<GivenUp>,
    /// How often something hung on it still.
    pub delays: u32,
    /// Until when nobody else may act.
    pub lease: Timestamp,
    /// When it goes on.
    pub due: Timestamp,
}

/// See [`State::Retired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The certificate in use.
    pub made: Made,
    /// How that is known.
    pub proof: Proof,
    /// Since when.
    pub at: Timestamp,
}

/// See [`State::Reversing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reversing {
    /// The certificate that the device has trouble with.
    pub made: Made,
    /// What it has replaced.
    pub given_up: Vec<GivenUp>,
    /// Until when nobody else may act.
    pub lease: Timestamp,
}

/// See [`State::Withdrawing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawing {
    /// The certificate that nobody uses.
    pub made: Made,
    /// What comes after.
    pub then: Then,
    /// How often something hung on it still.
    pub delays: u32,
    /// Until when nobody else may act.
    pub lease: Timestamp,
    /// When it goes on.
    pub due: Timestamp,
}

/// What comes after a certificate was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// The device is asked again.
    Ask,
    /// The rotation ends; a person is told.
    End,
}

/// See [`State::Withdrawn`] and [`State::Abandoned`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub code: String,
    /// Since when.
    pub at: Timestamp,
}

/// A certificate that was made in this rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// AWS IoT's id for it.
    pub id: CertificateId,
    /// Its key.
    pub key: KeyDigest,
    /// The certificate, and its issuers where the CA gives them: PEM, leaf first.
    pub pem: String,
    /// When its CSR reached AWS IoT.
    pub csr_at: Timestamp,
    /// When it was made.
    pub at: Timestamp,
}

/// How it is known that a device uses a certificate: the best evidence first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// It said so over a connection to AWS IoT that was made with it.
    Direct,
    /// Its core relayed what the new key has signed.
    Signed,
    /// Its core relayed that it named the certificate.
    Named,
    /// Its core relayed that it said so, without naming it.
    Bare,
}

impl Proof {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Signed => "signed",
            Self::Named => "named",
            Self::Bare => "bare",
        }
    }
}

impl State {
    /// Its name, for people and indexes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "requested",
            Self::Issuing(_) => "issuing",
            Self::Issued(_) => "issued",
            Self::Acked(_) => "acked",
            Self::Deactivating(_) => "deactivating",
            Self::Inactive(_) => "inactive",
            Self::Retiring(_) => "retiring",
            Self::Retired(_) => "retired",
            Self::Reversing(_) => "reversing",
            Self::Withdrawing(_) => "withdrawing",
            Self::Withdrawn(_) => "withdrawn",
            Self::Abandoned(_) => "abandoned",
        }
    }

    /// The certificate of this rotation that counts now.
    pub fn made(&self) -> Option<&Made> {
        match self {
            Self::Issuing(state) => state.made.as_ref(),
            Self::Issued(Issued { made, .. })
            | Self::Acked(Acked { made, .. })
            | Self::Deactivating(Deactivating { made, .. })
            | Self::Inactive(Inactive { made, .. })
            | Self::Retiring(Retiring { made, .. })
            | Self::Retired(Retired { made, .. })
            | Self::Reversing(Reversing { made, .. })
            | Self::Withdrawing(Withdrawing { made, .. }) => Some(made),
            Self::Requested(_) | Self::Withdrawn(_) | Self::Abandoned(_) => None,
        }
    }

    /// When the CSR of the certificate that counts now, or is being made, reached AWS IoT.
    pub fn csr_at(&self) -> Option<Timestamp> {
        match self {
            Self::Issuing(state) => Some(state.csr_at),
            _ => self.made().map(|made| made.csr_at),
        }
    }

    /// Until when nobody but whoever wrote it may act.
    pub fn lease(&self) -> Option<Timestamp> {
        match self {
            Self::Issuing(Issuing { lease, .. })
            | Self::Deactivating(Deactivating { lease, .. })
            | Self::Retiring(Retiring { lease, .. })
            | Self::Reversing(Reversing { lease, .. })
            | Self::Withdrawing(Withdrawing { lease, .. }) => Some(*lease),
            _ => None,
        }
    }

    /// When something is to be done, if nothing happens before; `None` if the rotation is over.
    pub fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Requested(Requested { due, .. })
            | Self::Issued(Issued { due, .. })
            | Self::Retiring(Retiring { due, .. })
            | Self::Withdrawing(Withdrawing { due, .. }) => Some(*due),
            Self::Acked(Acked { until, .. }) | Self::Inactive(Inactive { until, .. }) => {
                Some(*until)
            }
            Self::Retired(_) | Self::Withdrawn(_) | Self::Abandoned(_) => None,
            _ => self.lease(),
        }
    }

    /// When the rotation was over.
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Retired(Retired { at, .. })
            | Self::Withdrawn(Ended { at, .. })
            | Self::Abandoned(Ended { at, .. }) => Some(*at),
            _ => None,
        }
    }
}

macro_rules! into_state {
    ($($name:ident,)+) => {
        $(impl From<$name> for State {
            fn from(state: $name) -> Self {
                Self::$name(state)
            }
        })+
    };
}

into_state! {
    Requested, Issuing, Issued, Acked, Deactivating, Inactive, Retiring, Retired, Reversing, Withdrawing,
}

/// Bytes; base64 where they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}
