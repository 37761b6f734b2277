//! `report`: from `crt_err`; does what helps, and keeps a note for a person where nothing does.

use certrelay::{schedule::Timestamp, wire::CrtErr};

use super::{Done, Fault, due, hear, refuse, settle};
use crate::{
    decide::report::{self, Verdict},
    ports::Cloud,
    record::State,
    settings::Settings,
};

/// Answers an error.
pub async fn report<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    event: &[u8],
    now: Timestamp,
) -> Result<Done, Fault> {
    let heard = match hear::<CrtErr, C>(cloud, settings, event).await {
        Ok(heard) => heard,
        Err(end) => return end,
    };
    let envelope = &heard.uplink.envelope;
    let step = match report::judge(heard.record.as_ref(), &heard.uplink, settings, now) {
        Verdict::Do(step) => step,
        Verdict::Busy => return Err(Fault::Busy),
        Verdict::Refuse(code) => return refuse(cloud, settings, envelope, code).await,
    };
    if let Some(note) = &step.note {
        cloud.keep(note).await?;
    }
    if let Some(record) = step.record {
        cloud.put(&record).await?;
        match record.state.clone() {
            State::Reversing(_) => due::reverse(cloud, *record, now).await?,
            State::Withdrawing(state) => due::withdraw(cloud, *record, state.made, now).await?,
            _ => Done::Nothing,
        };
    }
    settle(cloud, settings, envelope).await?;
    Ok(Done::Did("reported"))
}
