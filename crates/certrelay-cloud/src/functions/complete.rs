//! `complete`: from `crt_ack`; notes that a certificate is in use, and since when what it replaces
//! may be given up.

use certrelay::schedule::Timestamp;

use super::{Done, Fault, defer, hear, refuse, settle};
use crate::{
    decide::{
        code::Code,
        complete::{self, Step},
        uplink::Ack,
    },
    ports::Cloud,
    settings::Settings,
};

/// Answers an ack: the same answer, however often it comes.
pub async fn complete<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    event: &[u8],
    now: Timestamp,
) -> Result<Done, Fault> {
    let heard = match hear::<Ack, C>(cloud, settings, event).await {
        Ok(heard) => heard,
        Err(end) => return end,
    };
    let envelope = &heard.uplink.envelope;
    let record = heard.record.as_ref();
    match complete::judge(record, &heard.uplink, heard.route, settings, now) {
        Step::Count(record) => {
            cloud.put(&record).await?;
            settle(cloud, settings, envelope).await?;
            Ok(Done::Did("acked"))
        }
        Step::Again => {
            settle(cloud, settings, envelope).await?;
            Ok(Done::Did("acked again"))
        }
        Step::Busy => Err(Fault::Busy),
        Step::NotYet => defer(cloud, settings, envelope, Code::NotYet).await,
        Step::Refuse(code) => refuse(cloud, settings, envelope, code).await,
    }
}
