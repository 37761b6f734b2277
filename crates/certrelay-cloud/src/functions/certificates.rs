//! What is done to certificates: one gets what another has, one is given up. Each can be done again.

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
};

use super::{Done, Fault, end, send};
use crate::{
    decide::{code::Code, issue::activated},
    messages,
    ports::{Attachment, CallError, Cloud, Failure, Registry, Status},
    record::Record,
    settings::Settings,
};

/// The most policies of a certificate.
const MOST_POLICIES: usize = 10;

/// The policies of a new certificate, those of the one that it is to replace. The device gets none if
/// that is not ACTIVE any more: whoever has deactivated it meant the device.
pub(super) async fn policies<C: Registry>(
    cloud: &C,
    record: &Record,
) -> Result<Result<Vec<String>, Code>, CallError> {
    match status(cloud, record.old.id).await? {
        None => return Ok(Err(Code::NoCertificate)),
        Some(Status::Active) => {}
        Some(_) => return Ok(Err(Code::NotActive)),
    }
    let policies = cloud.policies_of(record.old.id).await?;
    match policies.len() {
        0..=MOST_POLICIES => Ok(Ok(policies)),
        _ => Ok(Err(Code::TooManyPolicies)),
    }
}

/// Gives the new certificate the policies and the old one's thing, activates it, and sends it. The
/// record says that we are at it. Every call may have been made before.
pub(super) async fn attach_and_send<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    record: Record,
    policies: &[String],
    now: Timestamp,
) -> Result<Done, Fault> {
    let Some(made) = record.state.made().cloned() else { return Err(Fault::Busy) };
    for policy in policies {
        cloud.attach_policy(made.id, policy).await?;
    }
    let thing = record.thing().clone();
    let attachment = Attachment { thing, is_exclusive: record.old.is_exclusive };
    match cloud.attach_thing(made.id, &attachment).await {
        Err(CallError { why: Failure::NotFound, .. }) => {
            return end(cloud, record, Code::NoThing, now).await;
        }
        attached => attached?,
    }
    cloud.set_active(made.id, true).await?;
    let record = activated(record, made.clone(), now);
    cloud.put(&record).await?;
    send(cloud, messages::crt(&record, &made, settings)).await?;
    Ok(Done::Did("issued"))
}

/// A certificate's status; `None` if there is no such certificate.
pub(super) async fn status<C: Registry>(
    cloud: &C,
    id: CertificateId,
) -> Result<Option<Status>, CallError> {
    match cloud.certificate(id).await {
        Err(CallError { why: Failure::NotFound, .. }) => Ok(None),
        registered => Ok(Some(registered?.status)),
    }
}

/// Makes a certificate INACTIVE. One that is gone is done with.
pub(super) async fn deactivate<C: Registry>(cloud: &C, id: CertificateId) -> Result<(), CallError> {
    absent_is_done(cloud.set_active(id, false).await)
}

/// Makes a certificate ACTIVE that was made INACTIVE; nothing if someone has revoked it since.
pub(super) async fn reactivate<C: Registry>(cloud: &C, id: CertificateId) -> Result<(), CallError> {
    match status(cloud, id).await? {
        Some(Status::Inactive) => absent_is_done(cloud.set_active(id, true).await),
        _ => Ok(()),
    }
}

/// Takes a certificate from its thing, and its policies from it.
pub(super) async fn detach<C: Registry>(
    cloud: &C,
    id: CertificateId,
    thing: &ThingName,
) -> Result<(), CallError> {
    match cloud.detach_thing(id, thing).await {
        // What AWS says of a thing that is detached already stands nowhere. The delete will tell.
        Err(CallError { why: Failure::NotFound | Failure::Invalid(_), .. }) => {}
        detached => detached?,
    }
    let policies = match cloud.policies_of(id).await {
        Err(CallError { why: Failure::NotFound, .. }) => return Ok(()),
        policies => policies?,
    };
    for policy in policies {
        absent_is_done(cloud.detach_policy(id, &policy).await)?;
    }
    Ok(())
}

/// Deletes a certificate that is detached and not ACTIVE. Whether it is gone: AWS detaches some seconds
/// later, so this can come too early.
pub(super) async fn delete<C: Registry>(cloud: &C, id: CertificateId) -> Result<bool, CallError> {
    match cloud.delete(id).await {
        Err(CallError { why: Failure::Conflict, .. }) => Ok(false),
        deleted => absent_is_done(deleted).map(|()| true),
    }
}

fn absent_is_done(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(CallError { why: Failure::NotFound, .. }) => Ok(()),
        result => result,
    }
}
