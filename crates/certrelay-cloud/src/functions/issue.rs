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
        Step::Attach(record) => answer(cloud, settings, &heard, *record, None, now).await,
        Step::Make(record, key) => answer(cloud, settings, &heard, *record, Some(key), now).await,
    }
}

/// Sends a certificate, if the device may have one still: that of the record, or a new one for a key. If
/// not, the rotation ends.
async fn answer<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    next: Record,
    key: Option<KeyDigest>,
    now: Timestamp,
) -> Result<Done, Fault> {
    let envelope = &heard.uplink.envelope;
    let Some(record) = &heard.record else { return Err(Fault::Busy) };
    let policies = match policies(cloud, record).await? {
        Ok(policies) => policies,
        Err(code) => {
            end(cloud, record.clone(), code, now).await?;
            return refuse(cloud, settings, envelope, code).await;
        }
    };
    let mut record = speaks_by(next, heard);
    cloud.put(&record).await?;
    if let Some(key) = key {
        record = match make(cloud, settings, heard, record, key, now).await? {
            Ok(record) => record,
            Err(code) => return refuse(cloud, settings, envelope, code).await,
        };
    }
    match attach_and_send(cloud, settings, record, &policies, now).await? {
        Done::Refused(code) => refuse(cloud, settings, envelope, code).await,
        done => Ok(done),
    }
}

/// The record with the certificate for a key, unless the CA refuses the CSR.
async fn make<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    record: Record,
    key: KeyDigest,
    now: Timestamp,
) -> Result<Result<Record, Code>, Fault> {
    let at = heard.uplink.envelope.at;
    let csr = issue::csr_pem(&heard.uplink.body.csr);
    match cloud.create(&csr, &issue::token(key)).await {
        Err(CallError { why: Failure::Invalid(_), .. }) => {
            let (record, note) = issue::unmade(record, settings, at, now);
            if let Some(note) = note {
                cloud.keep(&note).await?;
            }
            cloud.put(&record).await?;
            Ok(Err(Code::CaRefused))
        }
        created => {
            let Created { id, pem } = created?;
            let record = issue::made(record, Made { id, key, pem, csr_at: at, at: now });
            cloud.put(&record).await?;
            Ok(Ok(record))
        }
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
