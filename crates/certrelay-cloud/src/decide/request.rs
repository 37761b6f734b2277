//! Which certificates begin a rotation, and when a device is asked again.

use std::time::Duration;

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
    x509,
};
use serde::{Deserialize, Serialize};

use super::code::Code;
use crate::{
    ports::{Attachment, Registered, Status},
    record::{Blob, Old, Record, Requested, State},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A message of the `rotate` queue, by an audit or by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The certificate to replace.
    pub certificate_id: CertificateId,
    /// The device is not to be asked before this: Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<u64>,
}

/// The thing that a certificate is the certificate of: it must be one alone.
pub fn only_thing(attachments: &[Attachment]) -> Result<&Attachment, Code> {
    match attachments {
        [only] => Ok(only),
        [] => Err(Code::NoThing),
        _ => Err(Code::SeveralThings),
    }
}

/// Whether a rotation of the thing may begin; if one is under way, that goes on.
pub fn may_begin(latest: Option<&Record>) -> bool {
    latest.is_none_or(Record::is_over)
}

/// The certificate that is to be replaced, as AWS IoT has it.
pub fn old(
    id: CertificateId,
    registered: &Registered,
    attachment: &Attachment,
) -> Result<Old, Code> {
    if registered.status != Status::Active {
        return Err(Code::NotActive);
    }
    let pem = pem::parse(&registered.pem).map_err(|_| Code::NoCertificate)?;
    let refused = |refusal: x509::Refusal| Code::Reason(refusal.0);
    let facts = x509::read_certificate(pem.contents()).map_err(refused)?;
    let spki = x509::certificate_spki(pem.contents()).map_err(refused)?;
    let (key, not_after) = (facts.key, facts.not_after);
    Ok(Old { id, key, spki: Blob(spki), not_after, is_exclusive: attachment.is_exclusive })
}

/// A new record, as it is written: its device is asked for the first time.
pub fn asked_first(record: Record, now: Timestamp) -> Record {
    Record { version: 1, ..ask(record, now) }
}

/// The record of a device that is asked again.
pub fn ask(record: Record, now: Timestamp) -> Record {
    let asks = match &record.state {
        State::Requested(requested) => requested.asks.saturating_add(1),
        _ => 1,
    };
    let from = record.hold_until.map_or(now, |hold| hold.max(now));
    record.into_state(Requested { asks, due: from + pause(asks) })
}

/// How long to wait after having said something so many times: 1 h, 6 h, then 24 h.
pub fn pause(times: u32) -> Duration {
    match times {
        0 | 1 => HOUR,
        2 => 6 * HOUR,
        _ => 24 * HOUR,
    }
}

/// The name of the core that a downlink goes by, where topics hold it: the thing's own, if no
/// other is known.
pub fn core_of(record: &Record) -> &ThingName {
    record.core.as_ref().unwrap_or(record.thing())
}
