//! `due`: from the `due` queue; moves a record on whose time has come.

use certrelay::schedule::Timestamp;

use super::{
    Done, Fault,
    certificates::{attach_and_send, deactivate, delete, detach, policies, reactivate, status},
    end, send,
};
use crate::{
    decide::{
        code::Code,
        due::{self, Step},
    },
    messages,
    ports::{Cloud, Status},
    record::{Key, Made, Record, Retiring, State},
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
        Step::Attach(next) => match policies(cloud, &record).await? {
            Ok(policies) => {
                cloud.put(&next).await?;
                attach_and_send(cloud, settings, *next, &policies, now).await
            }
            Err(code) => end(cloud, record, code, now).await,
        },
        Step::GiveUp(made) => give_up(cloud, record, &made, now).await,
        Step::Retire(record, state) => {
            cloud.put(&record).await?;
            retire(cloud, *record, &state, now).await
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
async fn give_up<C: Cloud>(
    cloud: &C,
    record: Record,
    made: &Made,
    now: Timestamp,
) -> Result<Done, Fault> {
    if status(cloud, made.id).await? != Some(Status::Active) {
        return spare(cloud, record, now).await;
    }
    let is_first_turn = matches!(record.state, State::Acked(_));
    let mut found = Vec::new();
    if is_first_turn {
        for id in record.given_up_for(made.id) {
            found.extend(status(cloud, id).await?.and_then(|status| due::given_up(id, status)));
        }
    }
    let record = due::deactivating(record, found, now);
    cloud.put(&record).await?;
    if let State::Deactivating(state) = &record.state {
        for given_up in state.given_up.iter().filter(|given_up| given_up.was_active) {
            // Someone may have revoked it since the first turn looked.
            if is_first_turn || status(cloud, given_up.id).await? == Some(Status::Active) {
                deactivate(cloud, given_up.id).await?;
            }
        }
    }
    cloud.put(&due::deactivated(record, now)).await?;
    Ok(Done::Did("deactivated"))
}

async fn spare<C: Cloud>(cloud: &C, record: Record, now: Timestamp) -> Result<Done, Fault> {
    cloud.keep(&due::note(&record, Code::NewNotActive, now)).await?;
    let record = due::spared(record, now);
    cloud.put(&record).await?;
    // Some may have been made INACTIVE on an earlier turn.
    if matches!(record.state, State::Reversing(_)) {
        reverse(cloud, record, now).await?;
    }
    Ok(Done::Refused(Code::NewNotActive))
}

async fn retire<C: Cloud>(
    cloud: &C,
    mut record: Record,
    state: &Retiring,
    now: Timestamp,
) -> Result<Done, Fault> {
    // The second turn comes to delete what the first has detached; a third, because something else
    // hangs on it.
    if state.delays != 1 {
        record = release(cloud, record, state, now).await?;
    }
    let State::Retiring(state) = &record.state else { return Ok(Done::Nothing) };
    let mut gone = true;
    for given_up in &state.given_up {
        gone &= delete(cloud, given_up.id).await?;
    }
    if !gone {
        return delay(cloud, record, now).await;
    }
    cloud.put(&due::retired(record, now)).await?;
    Ok(Done::Did("retired"))
}

/// Detaches what was replaced, but for what someone has taken into their own hands since.
async fn release<C: Cloud>(
    cloud: &C,
    record: Record,
    state: &Retiring,
    now: Timestamp,
) -> Result<Record, Fault> {
    let mut found = Vec::new();
    for given_up in &state.given_up {
        let status = status(cloud, given_up.id).await?;
        found.push((*given_up, status));
        match status {
            Some(Status::Inactive) => detach(cloud, given_up.id, record.thing()).await?,
            Some(Status::Active) => cloud.keep(&due::note(&record, Code::Kept, now)).await?,
            Some(Status::Other) | None => {}
        }
    }
    Ok(due::retiring(record, &found))
}

async fn delay<C: Cloud>(cloud: &C, record: Record, now: Timestamp) -> Result<Done, Fault> {
    let (record, note) = due::delayed(record, now);
    if let Some(note) = note {
        cloud.keep(&note).await?;
    }
    cloud.put(&record).await?;
    Ok(Done::Did("detached"))
}

/// Makes what was given up ACTIVE again. The record says that we are at it.
pub(super) async fn reverse<C: Cloud>(
    cloud: &C,
    record: Record,
    now: Timestamp,
) -> Result<Done, Fault> {
    let State::Reversing(state) = &record.state else { return Ok(Done::Nothing) };
    for given_up in state.given_up.iter().filter(|given_up| given_up.was_active) {
        reactivate(cloud, given_up.id).await?;
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
    deactivate(cloud, made.id).await?;
    detach(cloud, made.id, record.thing()).await?;
    if !delete(cloud, made.id).await? {
        return delay(cloud, record, now).await;
    }
    cloud.put(&due::withdrawn(record, now)).await?;
    Ok(Done::Did("withdrawn"))
}
