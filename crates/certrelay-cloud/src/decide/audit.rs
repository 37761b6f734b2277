//! Which of an audit's findings begin a rotation today: those that expire soonest, within the day's
//! budget, and none that is under way. What is left is found again tomorrow.
//!
//! An audit may find more than one invocation can read, and a queue keeps no order. So the findings
//! are read twice: first they are counted by the day that they expire on, which fits into a message;
//! then all are taken of the days that the budget covers, and some of the next. The budget is a bound:
//! what two checks find uses it up twice if the work is interrupted between them.

use std::collections::BTreeMap;

use certrelay::schedule::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ports::Finding;

/// The checks that find certificates to rotate, by all their names.
const CHECKS: [(&str, &str); 4] = [
    ("DEVICE_CERTIFICATE_EXPIRING_CHECK", "DEVICE_CERTIFICATE_EXPIRING_CHECK"),
    // So older messages call it.
    ("DEVICE_CERT_APPROACHING_EXPIRATION_CHECK", "DEVICE_CERTIFICATE_EXPIRING_CHECK"),
    ("DEVICE_CERTIFICATE_AGE_CHECK", "DEVICE_CERTIFICATE_AGE_CHECK"),
    ("DEVICE_CERT_AGE_CHECK", "DEVICE_CERTIFICATE_AGE_CHECK"),
];

const DAY_SECONDS: u64 = 86_400;

/// The day of findings that don't say when they expire: after all others.
const UNKNOWN_DAY: u32 = u32::MAX;

/// An audit that is being worked off: what its queue holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The audit's task.
    pub task_id: String,
    /// The checks still to be read, the first one first.
    pub checks: Vec<String>,
    /// Those that were read on this pass.
    #[serde(default)]
    pub read: Vec<String>,
    /// Where the first of them is to be read on.
    #[serde(default)]
    pub next_token: Option<String>,
    /// What is being done.
    #[serde(default)]
    pub pass: Pass,
}

/// What a pass over the findings is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pass {
    /// Counting them, by the day on which they expire (days since 1970).
    Count(BTreeMap<u32, u32>),
    /// Taking those that expire before a day, and so many of those that expire on it.
    Take {
        /// The day.
        day: u32,
        /// How many more.
        left: u32,
    },
}

impl Default for Pass {
    fn default() -> Self {
        Self::Count(BTreeMap::new())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    task_id: String,
    #[serde(default)]
    audit_details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    check_name: String,
    non_compliant_resources_count: Option<u64>,
}

/// Reads an audit's notification; `None` if it found nothing that concerns us. Fields and checks
/// that are not known are ignored, and a check that does not say how much it found is read.
pub fn read(notification: &[u8]) -> Result<Option<Job>, serde_json::Error> {
    let notification: Notification = serde_json::from_slice(notification)?;
    let found = notification.audit_details.iter();
    let found = found.filter(|detail| detail.non_compliant_resources_count != Some(0));
    let mut checks: Vec<_> = found.filter_map(|detail| check(&detail.check_name)).collect();
    checks.dedup();
    if checks.is_empty() {
        return Ok(None);
    }
    Ok(Some(Job {
        task_id: notification.task_id,
        checks: checks.into_iter().map(str::to_owned).collect(),
        read: Vec::new(),
        next_token: None,
        pass: Pass::default(),
    }))
}

fn check(name: &str) -> Option<&'static str> {
    CHECKS.iter().find(|(known, _)| *known == name).map(|(_, api)| *api)
}

impl Job {
    /// The job once a page was read.
    pub fn turn(&mut self, next: Option<String>) {
        if next.is_none() && !self.checks.is_empty() {
            self.read.push(self.checks.remove(0));
        }
        self.next_token = next;
    }

    /// The job once its counting pass is over, with so much of the budget left.
    #[must_use]
    pub fn take(self, granted: u32) -> Self {
        let pass = match &self.pass {
            Pass::Count(days) => cut(days, granted),
            Pass::Take { .. } => self.pass.clone(),
        };
        Self { checks: self.read, read: Vec::new(), next_token: None, pass, ..self }
    }
}

impl Pass {
    /// How many findings were counted.
    pub fn counted(&self) -> u32 {
        match self {
            Self::Count(days) => days.values().fold(0, |sum, n| sum.saturating_add(*n)),
            Self::Take { .. } => 0,
        }
    }

    /// Counts a finding, or says whether it is to be taken.
    pub fn visit(&mut self, finding: &Finding) -> bool {
        let day = day(finding);
        match self {
            Self::Count(days) => {
                let count = days.entry(day).or_default();
                *count = count.saturating_add(1);
                false
            }
            Self::Take { day: last, left } if day == *last && *left > 0 => {
                *left -= 1;
                true
            }
            Self::Take { day: last, .. } => day < *last,
        }
    }
}

/// The day up to which the budget reaches, and what is left of it for that day.
fn cut(days: &BTreeMap<u32, u32>, mut granted: u32) -> Pass {
    for (day, count) in days {
        if granted < *count {
            return Pass::Take { day: *day, left: granted };
        }
        granted -= count;
    }
    Pass::Take { day: UNKNOWN_DAY, left: u32::MAX }
}

fn day(finding: &Finding) -> u32 {
    let days = finding.expires.map(|expires| expires.unix_seconds() / DAY_SECONDS);
    days.and_then(|days| u32::try_from(days).ok()).unwrap_or(UNKNOWN_DAY)
}

/// The day, for the budget.
pub fn today(now: Timestamp) -> u64 {
    now.unix_seconds() / DAY_SECONDS
}

#[cfg(test)]
mod tests {
    use certrelay::wire::CertificateId;

    use super::*;

    fn finding(day: Option<u64>) -> Finding {
        let expires = day.map(|day| Timestamp::from_unix_seconds(day * DAY_SECONDS + 7));
        Finding { certificate: CertificateId([1; 32]), expires }
    }

    #[test]
    fn a_notification_is_read_by_whichever_names_its_checks_go() {
        let read = |text: &str| read(text.as_bytes()).expect("readable");
        let job = read(
            r#"{"taskId":"t","unknown":{},"auditDetails":[
                {"checkName":"DEVICE_CERT_APPROACHING_EXPIRATION_CHECK","nonCompliantResourcesCount":3},
                {"checkName":"DEVICE_CERTIFICATE_AGE_CHECK"},
                {"checkName":"CA_CERTIFICATE_EXPIRING_CHECK","nonCompliantResourcesCount":1}]}"#,
        );
        let job = job.expect("it concerns us");
        assert_eq!(
            job.checks,
            ["DEVICE_CERTIFICATE_EXPIRING_CHECK", "DEVICE_CERTIFICATE_AGE_CHECK"]
        );
        let nothing = r#"{"taskId":"t","auditDetails":[
            {"checkName":"DEVICE_CERTIFICATE_AGE_CHECK","nonCompliantResourcesCount":0}]}"#;
        assert_eq!(read(nothing), None);
        assert_eq!(read(r#"{"taskId":"t"}"#), None);
    }

    #[test]
    fn those_that_expire_soonest_are_taken_and_no_more_than_the_budget() {
        let findings =
            [Some(30), Some(10), None, Some(20), Some(20), Some(10), Some(20)].map(finding);
        let mut count = Pass::default();
        assert!(!findings.iter().any(|finding| count.visit(finding)));
        let Pass::Count(days) = &count else { panic!("it counts") };
        for granted in 0..=7 {
            let mut take = cut(days, granted);
            let mut taken: Vec<_> = findings.iter().filter(|f| take.visit(f)).map(day).collect();
            taken.sort_unstable();
            let soonest = [10, 10, 20, 20, 20, 30, UNKNOWN_DAY];
            assert_eq!(taken, soonest[..usize::try_from(granted).expect("few")]);
        }
    }

    #[test]
    fn an_audit_that_found_everything_fits_into_a_message() {
        let mut pass = Pass::default();
        for day in 20_000..25_000 {
            assert!(!pass.visit(&finding(Some(day))));
        }
        let job = Job {
            task_id: "t".repeat(40),
            checks: vec![],
            read: vec![],
            next_token: Some("n".repeat(4096)),
            pass,
        };
        assert!(serde_json::to_string(&job).expect("a job").len() < 200_000);
    }
}
