//! `request`: from the `rotate` queue; begins the rotation of a certificate.

use certrelay::schedule::Timestamp;

use super::{Done, Fault, send};
use crate::{
    decide::{
        code::Code,
        request::{self, Order},
    },
    messages,
    ports::{CallError, Cloud, Failure},
    record::Record,
    settings::Settings,
};

/// Begins a rotation, unless one of the thing is under way. `fresh` are random bits.
pub async fn request<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    message: &[u8],
    fresh: [u8; 16],
    now: Timestamp,
) -> Result<Done, Fault> {
    let order: Order =
        serde_json::from_slice(message).map_err(|error| Fault::Unreadable(error.to_string()))?;
    let id = order.certificate_id;
    let attachments = match cloud.things_of(id).await {
        Err(CallError { why: Failure::NotFound, .. }) => {
            return Ok(Done::Refused(Code::NoCertificate));
        }
        attachments => attachments?,
    };
    let attachment = match request::only_thing(&attachments) {
        Ok(attachment) => attachment,
        Err(code) => return Ok(Done::Refused(code)),
    };
    let latest = cloud.latest(&attachment.thing).await?;
    if !request::may_begin(latest.as_ref()) {
        return Ok(Done::Nothing);
    }
    let old = match request::old(id, &cloud.certificate(id).await?, attachment) {
        Ok(old) => old,
        Err(code) => return Ok(Done::Refused(code)),
    };
    let thing = attachment.thing.clone();
    let mut record = Record::begin(thing, old, latest.as_ref(), fresh, now);
    record.hold_until = order.hold_until.map(Timestamp::from_unix_seconds);
    if let Some(core) = cloud.core_of(record.thing()).await? {
        record.core = Some(core);
    }
    let record = request::asked_first(record, now);
    cloud.put(&record).await?;
    send(cloud, messages::csr_req(&record, settings)).await?;
    Ok(Done::Did("requested"))
}
