//! `issue`: from `csr_res`; makes the certificate for a CSR, once, and sends it.

use certrelay::{
    reason::Reason,
    schedule::Timestamp,
    wire::{CsrRes, KeyDigest},
};

use super::{Done, Fault, Heard, attach_and_send, hear, refuse, send};
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

/// The most policies of a certificate.
const MOST_POLICIES: usize = 10;

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
            let message = messages::outrun(&heard.uplink.envelope, settings);
            send(cloud, message).await?;
            Ok(Done::Refused(Code::Reason(Reason::Superseded)))
        }
        Step::Resend(made) => {
            let record = heard.record.as_ref();
            send(cloud, record.and_then(|record| messages::crt(record, &made, settings))).await?;
            Ok(Done::Did("sent again"))
        }
        Step::Attach(record) => {
            let record = speaks_by(*record, &heard);
            let policies = cloud.policies_of(record.old.id).await?;
            cloud.put(&record).await?;
            attach_and_send(cloud, settings, record, &policies, now).await
        }
        Step::Make(record, key) => make(cloud, settings, &heard, *record, key, now).await,
    }
}

async fn make<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    heard: &Heard<CsrRes>,
    record: Record,
    key: KeyDigest,
    now: Timestamp,
) -> Result<Done, Fault> {
    let envelope = &heard.uplink.envelope;
    let policies = match cloud.policies_of(record.old.id).await {
        Err(CallError { why: Failure::NotFound, .. }) => {
            return refuse(cloud, settings, envelope, Code::NoCertificate).await;
        }
        policies => policies?,
    };
    if policies.len() > MOST_POLICIES {
        return refuse(cloud, settings, envelope, Code::TooManyPolicies).await;
    }
    let record = speaks_by(record, heard);
    cloud.put(&record).await?;
    let csr = issue::csr_pem(&heard.uplink.body.csr);
    let created = match cloud.create(&csr, &issue::token(key)).await {
        Err(CallError { why: Failure::Invalid(_), .. }) => {
            cloud.put(&issue::unmade(record, now)).await?;
            return refuse(cloud, settings, envelope, Code::CaRefused).await;
        }
        created => created?,
    };
    let Created { id, pem } = created;
    let made = Made { id, key, pem, csr_at: envelope.at, at: now };
    let record = issue::made(record, made);
    cloud.put(&record).await?;
    attach_and_send(cloud, settings, record, &policies, now).await
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
