//! `audit`: from an audit's notification, and from its own queue; queues the certificates whose
//! rotation begins today.

use std::collections::HashSet;

use certrelay::{schedule::Timestamp, wire::CertificateId};

use super::{Done, Fault};
use crate::{
    decide::{
        audit::{self, Job, Pass},
        request::Order,
    },
    ports::{CallError, Cloud, Finding, Queue},
    settings::Settings,
};

/// Takes up an audit: its work goes through a queue, which tries again as often as it must.
pub async fn begin<C: Cloud>(cloud: &C, notification: &[u8]) -> Result<Done, Fault> {
    let job = audit::read(notification).map_err(|error| Fault::Unreadable(error.to_string()))?;
    let Some(job) = job else { return Ok(Done::Nothing) };
    enqueue(cloud, &job).await?;
    Ok(Done::Did("audit queued"))
}

/// Works an audit off until it is done or `is_late` says that time is running out; then the rest goes
/// back to the queue.
pub async fn go_on<C: Cloud>(
    cloud: &C,
    settings: &Settings,
    message: &[u8],
    is_late: impl Fn() -> bool,
    now: Timestamp,
) -> Result<Done, Fault> {
    let mut job: Job =
        serde_json::from_slice(message).map_err(|error| Fault::Unreadable(error.to_string()))?;
    let mut seen = under_way(cloud).await?;
    loop {
        let Some(check) = job.checks.first() else {
            if matches!(job.pass, Pass::Take { .. }) {
                return Ok(Done::Did("audit done"));
            }
            let (day, wanted) = (audit::today(now), job.pass.counted());
            let granted = cloud.draw(day, wanted, settings.daily_budget).await?;
            // Queued before it is used, so that what is drawn is not lost with this invocation.
            enqueue(cloud, &job.take(granted)).await?;
            return Ok(Done::Did("audit queued"));
        };
        let page = cloud.findings(&job.task_id, check, job.next_token.as_deref()).await?;
        let taken = take(&mut job.pass, &page.items, &mut seen);
        cloud.enqueue(Queue::Rotate, &taken).await?;
        job.turn(page.next);
        if is_late() {
            enqueue(cloud, &job).await?;
            return Ok(Done::Did("audit queued"));
        }
    }
}

/// The orders for those of a page that are to be rotated today.
fn take(pass: &mut Pass, findings: &[Finding], seen: &mut HashSet<CertificateId>) -> Vec<String> {
    // Two checks may find the same one.
    let new = findings.iter().filter(|finding| seen.insert(finding.certificate));
    let taken = new.filter(|finding| pass.visit(finding));
    let order = |finding: &Finding| Order { certificate_id: finding.certificate, hold_until: None };
    taken.filter_map(|finding| serde_json::to_string(&order(finding)).ok()).collect()
}

/// The certificates that need no rotation begun.
async fn under_way<C: Cloud>(cloud: &C) -> Result<HashSet<CertificateId>, CallError> {
    let (mut all, mut token) = (HashSet::new(), None);
    loop {
        let page = cloud.under_way(token.as_deref()).await?;
        all.extend(page.items);
        token = page.next;
        if token.is_none() {
            return Ok(all);
        }
    }
}

async fn enqueue<C: Cloud>(cloud: &C, job: &Job) -> Result<(), Fault> {
    let message =
        serde_json::to_string(job).map_err(|error| Fault::Unreadable(error.to_string()))?;
    Ok(cloud.enqueue(Queue::Audit, &[message]).await?)
}
