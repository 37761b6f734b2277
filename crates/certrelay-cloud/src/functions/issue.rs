//! `issue`: from `csr_res`; makes the certificate for a CSR, once, and sends it.

use certrelay::{
    reason::Reason,
    schedule::Timestamp,
    wire::{CsrRes, KeyDigest},
};

use super::{
    Done, Fault, Heard,
    certificates::{attach_and_send, policies},
    defer, end, hear, refuse, send,
};
use crate::{
    decide::{
        code::Code,
        issue::{self, Step},
        speaker::Route,
    },
    messages,
    ports::{CallError, Cloud, Created, Failure},
    record::{Made, Record},
    settings::Settings,
};

/// Answers a CSR: with its certificate, or with a refusal.
pub async fn issue<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    event: &[u8],
    now: Timestamp,
) -> Result<Done, Fault> {
    let heard = match hear::<CsrRes, C>(cloud, settings, event).await {
        Ok(heard) => heard,
        Err(end) => return end,
    };
    let step = issue::judge(heard.record.as_ref(), &heard.uplink, heard.route, settings, now);
    match step {
        Step::Refuse(code) => refuse(cloud, settings, &heard.uplink.envelope, code).await,
        Step::Busy => Err(Fault::Busy),
        Step::Outrun => {
            let code = Reason::Superseded.into();
            defer(cloud, settings, &heard.uplink.envelope, code).await
        }
        Step::NotYet => defer(cloud, settings, &heard.uplink.envelope, Code::NotYet).await,
        Step::Resend(made) => {
            let record = heard.record.as_ref();
            send(cloud, record.and_then(|record| messages::crt(record, &made, settings))).await?;
            Ok(Done::Did("sent again"))
        }
        Step::Attach(record) => {
            let policies = match rights(cloud, settings, &heard, now).await? {
                Ok(policies) => policies,
                Err(end) => return Ok(end),
            };
            let record = speaks_by(*record, &heard);
            cloud.put(&record).await?;
            deliver(cloud, settings, &heard, record, &policies, now).await
        }
        Step::Make(record, key) => {
            let policies = match rights(cloud, settings, &heard, now).await? {
                Ok(policies) => policies,
                Err(end) => return Ok(end),
            };
            let record = speaks_by(*record, &heard);
            make(cloud, settings, &heard, record, key, &policies, now).await
        }
    }
}

/// The policies of the new certificate, if the device may have one still. If not, the rotation ends.
async fn rights<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    now: Timestamp,
) -> Result<Result<Vec<String>, Done>, Fault> {
    let Some(record) = &heard.record else { return Err(Fault::Busy) };
    match policies(cloud, record).await? {
        Ok(policies) => Ok(Ok(policies)),
        Err(code) => {
            end(cloud, record.clone(), code, now).await?;
            refuse(cloud, settings, &heard.uplink.envelope, code).await.map(Err)
        }
    }
}

async fn make<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    record: Record,
    key: KeyDigest,
    policies: &[String],
    now: Timestamp,
) -> Result<Done, Fault> {
    let envelope = &heard.uplink.envelope;
    cloud.put(&record).await?;
    let csr = issue::csr_pem(&heard.uplink.body.csr);
    let created = match cloud.create(&csr, &issue::token(key)).await {
        Err(CallError { why: Failure::Invalid(_), .. }) => {
            let (record, note) = issue::unmade(record, settings, envelope.at, now);
            if let Some(note) = note {
                cloud.keep(&note).await?;
            }
            cloud.put(&record).await?;
            return refuse(cloud, settings, envelope, Code::CaRefused).await;
        }
        created => created?,
    };
    let Created { id, pem } = created;
    let made = Made { id, key, pem, csr_at: envelope.at, at: now };
    let record = issue::made(record, made);
    cloud.put(&record).await?;
    deliver(cloud, settings, heard, record, policies, now).await
}

async fn deliver<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    record: Record,
    policies: &[String],
    now: Timestamp,
) -> Result<Done, Fault> {
    match attach_and_send(cloud, settings, record, policies, now).await? {
        Done::Refused(code) => refuse(cloud, settings, &heard.uplink.envelope, code).await,
        done => Ok(done),
    }
}

/// The record, which knows from here on who speaks for the device.
fn speaks_by(mut record: Record, heard: &Heard<CsrRes>) -> Record {
    let envelope = &heard.uplink.envelope;
    record.core = match heard.route {
        Route::Direct => Some(envelope.thing.clone()),
        Route::Relayed => Some(envelope.speaker.clone()),
    };
    record
}
