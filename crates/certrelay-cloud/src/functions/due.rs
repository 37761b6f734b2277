//! `due`: from the `due` queue; moves a record on whose time has come.

use certrelay::schedule::Timestamp;

use super::{Done, Fault, absent_is_done, attach_and_send, delete, send};
use crate::{
    decide::{
        code::Code,
        due::{self, Step},
    },
    messages,
    ports::{CallError, Cloud, Failure, Status},
    record::{Key, Made, Record, State},
    settings::Settings,
};

/// Does what the record needs now, if anything.
pub async fn due<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    message: &[u8],
    now: Timestamp,
) -> Result<Done, Fault> {
    let key: Key =
        serde_json::from_slice(message).map_err(|error| Fault::Unreadable(error.to_string()))?;
    let Some(record) = cloud.latest(&key.thing).await?.filter(|record| record.key == key) else {
        return Ok(Done::Nothing);
    };
    match due::judge(&record, now) {
        Step::Wait => Ok(Done::Nothing),
        Step::Ask(record) => {
            cloud.put(&record).await?;
            send(cloud, messages::csr_req(&record, settings)).await?;
            Ok(Done::Did("asked again"))
        }
        Step::Send(record, made) => {
            cloud.put(&record).await?;
            send(cloud, messages::crt(&record, &made, settings)).await?;
            Ok(Done::Did("sent again"))
        }
        Step::Attach(record) => {
            let policies = cloud.policies_of(record.old.id).await?;
            cloud.put(&record).await?;
            attach_and_send(cloud, settings, *record, &policies, now).await
        }
        Step::Deactivate(record, made) => {
            cloud.put(&record).await?;
            deactivate(cloud, *record, &made, now).await
        }
        Step::Retire(record, made) => {
            cloud.put(&record).await?;
            retire(cloud, *record, &made, now).await
        }
        Step::Reverse(record) => {
            cloud.put(&record).await?;
            reverse(cloud, *record, now).await
        }
        Step::Withdraw(record, made) => {
            cloud.put(&record).await?;
            withdraw(cloud, *record, made, now).await
        }
        Step::Abandon(record, note) => {
            cloud.keep(&note).await?;
            cloud.put(&record).await?;
            Ok(Done::Did("abandoned"))
        }
    }
}

/// Makes what the certificate replaces INACTIVE; but not for one that can't be used itself.
async fn deactivate<C: Cloud>(
    cloud: &C,
    record: Record,
    made: &Made,
    now: Timestamp,
) -> Result<Done, Fault> {
    if !is_active(cloud, made).await? {
        cloud.keep(&due::note(&record, Code::NewNotActive, now)).await?;
        // Some may have been made INACTIVE on an earlier turn.
        let old = record.given_up_for(made.id);
        for certificate in old {
            absent_is_done(cloud.set_active(certificate, true).await)?;
        }
        cloud.put(&due::spared(record, now)).await?;
        return Ok(Done::Refused(Code::NewNotActive));
    }
    for certificate in record.given_up_for(made.id) {
        absent_is_done(cloud.set_active(certificate, false).await)?;
    }
    cloud.put(&due::deactivated(record, now)).await?;
    Ok(Done::Did("deactivated"))
}

async fn is_active<C: Cloud>(cloud: &C, made: &Made) -> Result<bool, CallError> {
    match cloud.certificate(made.id).await {
        Err(CallError { why: Failure::NotFound, .. }) => Ok(false),
        registered => Ok(registered?.status == Status::Active),
    }
}

async fn retire<C: Cloud>(
    cloud: &C,
    record: Record,
    made: &Made,
    now: Timestamp,
) -> Result<Done, Fault> {
    let mut gone = true;
    for certificate in record.given_up_for(made.id) {
        gone &= delete(cloud, certificate, record.thing()).await?;
    }
    if !gone {
        cloud.put(&due::retire_later(record, now)).await?;
        return Ok(Done::Did("detached"));
    }
    cloud.put(&due::retired(record, now)).await?;
    Ok(Done::Did("retired"))
}

/// Makes what was given up ACTIVE again. The record says that we are at it.
pub(super) async fn reverse<C: Cloud>(
    cloud: &C,
    record: Record,
    now: Timestamp,
) -> Result<Done, Fault> {
    let State::Reversing(state) = &record.state else { return Ok(Done::Nothing) };
    for certificate in record.given_up_for(state.made.id) {
        absent_is_done(cloud.set_active(certificate, true).await)?;
    }
    cloud.put(&due::reversed(record, now)).await?;
    Ok(Done::Did("reversed"))
}

/// Deletes a certificate that nobody uses. The record says that we are at it.
pub(super) async fn withdraw<C: Cloud>(
    cloud: &C,
    record: Record,
    made: Made,
    now: Timestamp,
) -> Result<Done, Fault> {
    absent_is_done(cloud.set_active(made.id, false).await)?;
    if !delete(cloud, made.id, record.thing()).await? {
        cloud.put(&due::retire_later(record, now)).await?;
        return Ok(Done::Did("detached"));
    }
    cloud.put(&due::withdrawn(record, now)).await?;
    Ok(Done::Did("withdrawn"))
}
