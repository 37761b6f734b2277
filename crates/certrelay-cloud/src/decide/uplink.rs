//! What a topic rule hands over: one uplink message, and who spoke.
//!
//! The rule names every field that it selects, so the four that AWS IoT vouches for (`thing`,
//! `client`, `principal`, `at`) can't be overwritten by a payload; whatever else the payload calls
//! itself is not read. The device is the topic's segment, never the client id.

use certrelay::{
    reason::Reason,
    schedule::Timestamp,
    wire::{
        AckName, AckProof, CertificateId, CrtAck, CrtErr, CsrRes, Header, Kind, PayloadError,
        ThingName,
    },
};
use serde::Deserialize;

use super::code::Code;

/// An uplink message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink<B> {
    /// Who spoke, and for whom.
    pub envelope: Envelope,
    /// What was said.
    pub body: B,
}

/// What AWS IoT vouches for, and how an answer finds its question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The device that the message is about: the topic's segment.
    pub thing: ThingName,
    /// Whose connection it came over: the client id before any `#`.
    pub speaker: ThingName,
    /// The certificate of that connection.
    pub principal: CertificateId,
    /// When it reached AWS IoT.
    pub at: Timestamp,
    /// The message's own optional fields: its word, no more.
    pub header: Header,
    /// Of which kind it is.
    pub kind: Kind,
}

/// Why a message can't be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// No topic rule of ours has made it.
    #[error("not from a topic rule: {0}")]
    Stray(String),
    /// No thing with a certificate sent it, or it is about none: nobody can be answered. Whoever may
    /// publish can send such messages, so they are dropped.
    #[error("not from a thing with a certificate")]
    Nobody,
    /// It says nothing that can be read; the sender is told so.
    #[error("{code}")]
    Refused {
        /// Who is told.
        envelope: Box<Envelope>,
        /// Why.
        code: Code,
    },
}

/// The fields that the rule adds.
#[derive(Deserialize)]
struct Vouched {
    thing: String,
    client: String,
    principal: String,
    at: u64,
}

/// A kind of body.
pub trait Body: Sized {
    /// The kind of message that it is the body of.
    const KIND: Kind;

    /// Reads it out of the rule's event.
    fn parse(event: &[u8]) -> Result<Self, PayloadError>;
}

impl Body for CsrRes {
    const KIND: Kind = Kind::CsrRes;

    fn parse(event: &[u8]) -> Result<Self, PayloadError> {
        Self::parse(event)
    }
}

/// An ack, and whose word it is which certificate is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The ack.
    pub ack: CrtAck,
    /// How whoever relayed it knows the certificate; the device named it itself, if this is absent.
    pub how: Option<AckProof>,
}

impl Body for Ack {
    const KIND: Kind = Kind::CrtAck;

    fn parse(event: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct How {
            ack: Option<AckProof>,
        }
        let ack = CrtAck::parse(event)?;
        let how = serde_json::from_slice::<How>(event).ok().and_then(|how| how.ack);
        Ok(Self { ack, how })
    }
}

impl Body for CrtErr {
    const KIND: Kind = Kind::CrtErr;

    fn parse(event: &[u8]) -> Result<Self, PayloadError> {
        Self::parse(event)
    }
}

impl<B: Body> Uplink<B> {
    /// Reads the event of a topic rule.
    pub fn parse(event: &[u8]) -> Result<Self, UplinkError> {
        let vouched: Vouched =
            serde_json::from_slice(event).map_err(|error| UplinkError::Stray(error.to_string()))?;
        let envelope = vouched.envelope(B::KIND, event)?;
        match B::parse(event) {
            Ok(body) => Ok(Self { envelope, body }),
            Err(error) => {
                let code = Code::Reason(unreadable(&error));
                Err(UplinkError::Refused { envelope: Box::new(envelope), code })
            }
        }
    }
}

impl Vouched {
    fn envelope(self, kind: Kind, event: &[u8]) -> Result<Envelope, UplinkError> {
        // A core's further connections are `<thing>#<something>`; no thing's name holds a `#`.
        let name = self.client.split('#').next().unwrap_or_default();
        Ok(Envelope {
            thing: self.thing.parse().map_err(|_| UplinkError::Nobody)?,
            speaker: name.parse().map_err(|_| UplinkError::Nobody)?,
            principal: self.principal.parse().map_err(|_| UplinkError::Nobody)?,
            at: Timestamp(self.at),
            header: Header::read(event),
            kind,
        })
    }
}

fn unreadable(error: &PayloadError) -> Reason {
    match error {
        PayloadError::TooLarge { .. } => Reason::TooLarge,
        PayloadError::Empty => Reason::EmptyPayload,
        _ => Reason::Unreadable,
    }
}

/// The certificate that an ack is about, if it can be known from the ack.
pub fn named(ack: &Ack) -> Result<Option<CertificateId>, Code> {
    match ack.ack.certificate {
        AckName::Named(id) => Ok(Some(id)),
        AckName::Bare => Ok(None),
        AckName::Unreadable => Err(Reason::AckUnknown.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(client: &str) -> serde_json::Value {
        json!({ "thing": "press-1", "client": client, "principal": "ab".repeat(32), "at": 77 })
    }

    fn parse(event: &serde_json::Value) -> Result<Uplink<Ack>, UplinkError> {
        Uplink::parse(event.to_string().as_bytes())
    }

    #[test]
    fn the_speaker_is_the_client_id_before_the_first_hash() {
        for (client, speaker) in [
            ("core-1", "core-1"),
            ("core-1#2", "core-1"),
            ("core-1#endpoint-switch", "core-1"),
            ("core-10", "core-10"),
            ("core-1#2#3", "core-1"),
        ] {
            let uplink = parse(&event(client)).expect("readable");
            assert_eq!(uplink.envelope.speaker.as_str(), speaker);
        }
    }

    #[test]
    fn what_no_thing_with_a_certificate_sent_is_dropped_and_what_no_rule_made_is_stray() {
        for client in ["", "#2", "a b", "core/1"] {
            assert_eq!(parse(&event(client)), Err(UplinkError::Nobody), "{client:?}");
        }
        let mut cognito = event("core-1");
        cognito["principal"] = json!("AROAEXAMPLE:session");
        assert_eq!(parse(&cognito), Err(UplinkError::Nobody));
        let mut nameless = event("core-1");
        nameless["thing"] = json!("press 1");
        assert_eq!(parse(&nameless), Err(UplinkError::Nobody));
        assert!(matches!(parse(&json!({})), Err(UplinkError::Stray(_))));
    }

    #[test]
    fn the_device_is_the_topics_and_never_what_a_payload_says() {
        let mut event = event("core-1");
        event["clientid"] = json!("core-9");
        event["clientId"] = json!("core-9");
        event["thingName"] = json!("press-9");
        let envelope = parse(&event).expect("readable").envelope;
        assert_eq!((envelope.thing.as_str(), envelope.speaker.as_str()), ("press-1", "core-1"));
    }

    #[test]
    fn what_is_too_large_or_unreadable_is_refused_and_answered() {
        let mut large = event("press-1");
        large["CSR"] = json!("A".repeat(200_000));
        large["mid"] = json!("ab".repeat(16));
        let refused = Uplink::<CsrRes>::parse(large.to_string().as_bytes());
        let Err(UplinkError::Refused { envelope, code }) = refused else { panic!("refused") };
        assert_eq!((envelope.thing.as_str(), code), ("press-1", Reason::TooLarge.into()));
        let refused = Uplink::<CsrRes>::parse(event("press-1").to_string().as_bytes());
        assert!(
            matches!(refused, Err(UplinkError::Refused { code, .. }) if code == Reason::Unreadable.into())
        );
    }
}
