//! The wire: identifiers, topics and payloads, the same on both brokers (DESIGN §2).
//!
//! Owns every string that either broker sees. Lenient in (unknown fields are ignored, several
//! spellings of a certificate or CSR are read), strict out (one spelling is written). Pure, and
//! total: any bytes yield a value or a [`PayloadError`], never a panic.

mod ids;
mod payload;
pub mod render;
mod topic;

pub use ids::{
    CertificateId, IdError, KeyDigest, MAX_THING_NAME, Mid, Nonce, RotationId, Signature, ThingName,
};
pub use payload::{
    AckName, AckProof, CertificateMessage, CrtAck, CrtErr, CsrReq, CsrRes, Header, MAX_PAYLOAD,
    PayloadError, Verdict, escape,
};
pub use topic::{Kind, PrefixError, Topics, barrier_topic, probe_topic};
