//! The functions: the order of calls. What is to be done is decided in [`crate::decide`].
//!
//! Whatever returns an error is handed in again by its queue. Each function can be killed before or
//! after any call, and run twice at once: an intent is written before the first call, and whoever
//! finds a record that someone else has written since, or is at work on, gives up and comes again.

pub mod audit;
mod certificates;
pub mod complete;
pub mod due;
pub mod issue;
pub mod report;
pub mod request;
pub mod sweep;

use certrelay::schedule::Timestamp;

use crate::{
    decide::{
        code::Code,
        due::abandoned,
        speaker::{self, Route},
        uplink::{Body, Envelope, Uplink, UplinkError},
    },
    messages::{self, Message},
    ports::{CallError, Cloud, PutError},
    record::Record,
    settings::Settings,
};

/// How a function's work on one message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was done, by this word.
    Did(&'static str),
    /// It was refused, and the sender told where there is one.
    Refused(Code),
    /// It does not count now, and the sender was told.
    PutOff(Code),
    /// Nothing had to be done.
    Nothing,
}

/// Why a message goes back to its queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Someone else has written the record meanwhile.
    #[error("someone else has written the record")]
    Raced,
    /// Someone else is at work on the record.
    #[error("someone else is at work on the rotation")]
    Busy,
    /// The message is nothing that this function reads. Its queue gives it up after some turns.
    #[error("the message can't be read: {0}")]
    Unreadable(String),
}

impl From<PutError> for Fault {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Raced => Self::Raced,
            PutError::Call(error) => Self::Call(error),
        }
    }
}

/// An uplink message whose sender may speak for the device, with the device's newest record.
struct Heard<B> {
    uplink: Uplink<B>,
    route: Route,
    record: Option<Record>,
}

/// Reads an uplink message and looks up who spoke. `Err(Ok(…))` is an end too: it was refused.
async fn hear<B: Body, C: Cloud>(
    cloud: &C,
    settings: &Settings,
    event: &[u8],
) -> Result<Heard<B>, Result<Done, Fault>> {
    let uplink = match Uplink::<B>::parse(event) {
        Ok(uplink) => uplink,
        Err(UplinkError::Stray(why)) => return Err(Err(Fault::Unreadable(why))),
        Err(UplinkError::Nobody) => return Err(Ok(Done::Refused(Code::UnknownSpeaker))),
        Err(UplinkError::Refused { envelope, code }) => {
            return Err(refuse(cloud, settings, &envelope, code).await);
        }
    };
    let record = cloud.latest(&uplink.envelope.thing).await.map_err(|error| Err(error.into()))?;
    match who(cloud, &uplink.envelope, record.as_ref()).await {
        Ok(Ok(route)) => Ok(Heard { uplink, route, record }),
        Ok(Err(code)) => Err(refuse(cloud, settings, &uplink.envelope, code).await),
        Err(error) => Err(Err(error.into())),
    }
}

/// How a message came, if whoever sent it may speak for the device.
async fn who<C: Cloud>(
    cloud: &C,
    envelope: &Envelope,
    record: Option<&Record>,
) -> Result<Result<Route, Code>, CallError> {
    let question = match speaker::question(envelope, record) {
        Ok(question) => question,
        Err(code) => return Ok(Err(code)),
    };
    let is_known = question.is_principal_known;
    if !is_known && !cloud.speaks_for(question.principal, &question.speaker).await? {
        return Ok(Err(Code::UnknownSpeaker));
    }
    if question.route == Route::Relayed
        && !cloud.is_associated(&question.speaker, &envelope.thing).await?
    {
        return Ok(Err(Code::NotAssociated));
    }
    Ok(Ok(question.route))
}

/// Tells the sender that its message was refused, for good. The answer names whose connection the
/// message came over, so a gateway that did not send it does not heed it.
async fn refuse<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    envelope: &Envelope,
    code: Code,
) -> Result<Done, Fault> {
    send(cloud, messages::result(envelope, Some(code), settings)).await?;
    Ok(Done::Refused(code))
}

/// Tells the sender that its message does not count now. It is not refused for good, so a gateway keeps
/// it.
async fn defer<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    envelope: &Envelope,
    code: Code,
) -> Result<Done, Fault> {
    send(cloud, messages::deferral(envelope, code, settings)).await?;
    Ok(Done::PutOff(code))
}

/// Tells the sender that its message was acted on.
async fn settle<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    envelope: &Envelope,
) -> Result<(), CallError> {
    send(cloud, messages::result(envelope, None, settings)).await
}

async fn send<C: Cloud>(cloud: &C, message: Option<Message>) -> Result<(), CallError> {
    match message {
        Some(Message { topic, payload }) => cloud.publish(&topic, &payload).await,
        None => Ok(()),
    }
}

/// Ends a rotation that can't go on, and keeps a note for a person.
async fn end<C: Cloud>(
    cloud: &C,
    record: Record,
    code: Code,
    now: Timestamp,
) -> Result<Done, Fault> {
    let (record, note) = abandoned(record, code, now);
    cloud.keep(&note).await?;
    cloud.put(&record).await?;
    Ok(Done::Refused(code))
}
