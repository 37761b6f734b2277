//! Who may speak for a device: itself, or the core that it is associated with.

use certrelay::wire::{CertificateId, ThingName};

use super::{code::Code, uplink::Envelope};
use crate::record::Record;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Over the device's own connection.
    Direct,
    /// A core relayed it.
    Relayed,
}

/// What is to be looked up before the message is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// How the message came.
    pub route: Route,
    /// The certificate of the connection …
    pub principal: CertificateId,
    /// … must be attached to this thing …
    pub speaker: ThingName,
    /// … unless that is known.
    pub is_principal_known: bool,
}

/// What must be known about whoever spoke. Names are compared whole: `core10` is not `core1`.
pub fn question(envelope: &Envelope, record: Option<&Record>) -> Result<Question, Code> {
    let route = match envelope.speaker == envelope.thing {
        true => Route::Direct,
        false => Route::Relayed,
    };
    let claims = envelope.header.core.as_ref();
    if route == Route::Relayed && claims.is_some_and(|core| *core != envelope.speaker) {
        return Err(certrelay::reason::Reason::OtherCore.into());
    }
    let certificates = record.map(Record::certificates).unwrap_or_default();
    Ok(Question {
        route,
        principal: envelope.principal,
        speaker: envelope.speaker.clone(),
        // What a record names is attached to its thing.
        is_principal_known: route == Route::Direct && certificates.contains(&envelope.principal),
    })
}
