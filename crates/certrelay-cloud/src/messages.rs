//! What the cloud says to devices.

use certrelay::{
    schedule::Timestamp,
    wire::{Kind, Mid, RotationId, ThingName},
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    decide::{code::Code, request::core_of, uplink::Envelope},
    record::{Made, Record},
    settings::Settings,
};

/// A message to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// `csr_req`: make a new key and send its CSR.
pub fn csr_req(record: &Record, settings: &Settings) -> Option<Message> {
    let body = json!({
        "nonce": record.nonce,
        "notAfter": record.old.not_after.unix_seconds(),
        "holdUntil": record.hold_until.map(Timestamp::unix_seconds),
    });
    about(record, Kind::CsrReq, body, settings)
}

/// `crt`: the certificate for a CSR.
pub fn crt(record: &Record, made: &Made, settings: &Settings) -> Option<Message> {
    let body = json!({ "certificatePem": made.pem, "certificateId": made.id });
    about(record, Kind::Crt, body, settings)
}

/// `result`: what became of an uplink message. A refusal is for good.
pub fn result(envelope: &Envelope, refusal: Option<Code>, settings: &Settings) -> Option<Message> {
    verdict(envelope, refusal, refusal.is_some(), settings)
}

/// `result`: the message does not count now; nothing is said for good.
pub fn deferral(envelope: &Envelope, code: Code, settings: &Settings) -> Option<Message> {
    verdict(envelope, Some(code), false, settings)
}

fn verdict(
    envelope: &Envelope,
    refusal: Option<Code>,
    is_final: bool,
    settings: &Settings,
) -> Option<Message> {
    let body = json!({
        "for": envelope.kind.as_str(),
        "ok": refusal.is_none(),
        "final": is_final,
        "code": refusal.map(Code::as_str),
        "mid": envelope.header.mid,
        "rotationId": envelope.header.rotation.as_ref().map(RotationId::as_str),
        "core": envelope.speaker,
    });
    message(&envelope.speaker, &envelope.thing, Kind::Result, body, settings)
}

fn about(record: &Record, kind: Kind, mut body: Value, settings: &Settings) -> Option<Message> {
    body["rotationId"] = json!(record.rotation().as_str());
    body["core"] = json!(record.core);
    body["mid"] = json!(mid(record, kind));
    message(core_of(record), record.thing(), kind, body, settings)
}

/// `None` if the prefix makes no topic for this core: too many levels, which the settings' check
/// excludes for a prefix that is installed.
fn message(
    core: &ThingName,
    thing: &ThingName,
    kind: Kind,
    mut body: Value,
    settings: &Settings,
) -> Option<Message> {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let topic = settings.topics(core).ok()?.topic(thing, kind);
    Some(Message { topic, payload: body.to_string().into_bytes() })
}

/// A message id of this version of the record; no two of its messages of a kind have the same.
fn mid(record: &Record, kind: Kind) -> Mid {
    let text = format!(
        "{} {} {} {}",
        record.thing(),
        record.rotation().as_str(),
        record.version,
        kind.as_str()
    );
    let digest = digest(&SHA256, text.as_bytes());
    let mut mid = [0; 16];
    mid.copy_from_slice(&digest.as_ref()[..16]);
    Mid(mid)
}
