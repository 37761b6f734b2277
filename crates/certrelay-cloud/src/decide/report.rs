//! What becomes of an error that a device or its gateway reports: what is tried by itself, and what
//! a person is told.

use std::collections::BTreeMap;

use certrelay::{
    reason::Reason,
    schedule::Timestamp,
    wire::{CertificateId, CrtErr},
};
use serde::{Deserialize, Serialize};

use super::{code::Code, request::pause, uplink::Uplink};
use crate::{
    record::{
        Ended, GivenUp, Key, LEASE, Made, Record, Requested, Reversing, State, Then, Trouble,
        Withdrawing,
    },
    settings::Settings,
};

/// What is to be done about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is written, if anything changes.
    pub record: Option<Box<Record>>,
    /// What a person is told.
    pub note: Option<Note>,
}

/// What a report comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This.
    Do(Step),
    /// Someone else is at it; later.
    Busy,
    /// It is about nothing that is under way.
    Refuse(Code),
}

/// What a person is told of one rotation. No word of the device's: codes, names and ids only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// The record.
    pub key: Key,
    /// Why.
    pub code: String,
    /// Since when.
    pub at: Timestamp,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Nothing needs help.
    None,
    /// The device never got the certificate, or its gateway lost it: the device is asked again, and
    /// gets the same one if it comes with the same key.
    AskForSame,
    /// The device has trouble: it is asked for another CSR. Its certificates stay as they are.
    Ask,
    /// The gateway or the device did not take the certificate: it is withdrawn, the device asked.
    Replace,
    /// As before, but another certificate would be no better: a person is told.
    ReplaceByHand,
    /// Only a person can help.
    Person,
}

/// Judges an error. Whoever spoke was permitted to.
pub fn judge(
    record: Option<&Record>,
    uplink: &Uplink<CrtErr>,
    settings: &Settings,
    now: Timestamp,
) -> Verdict {
    let Some(record) = record.filter(|record| !record.is_over()) else {
        return Verdict::Refuse(Code::NoRotation);
    };
    let names = uplink.envelope.header.rotation.as_ref();
    if names.is_some_and(|id| !record.answers_to(id)) {
        return Verdict::Refuse(Code::OtherRotation);
    }
    if record.is_leased(now) {
        return Verdict::Busy;
    }
    let remedy = remedy(uplink.body.code.as_deref());
    let named = uplink.body.certificate;
    let is_ours = |id| record.state.made().is_some_and(|made| made.id == id);
    // How an earlier attempt ended is known: that is why there is another. But a certificate may be
    // offered in two, and once one is in use, any doubt keeps what it replaces.
    let is_past = names.is_some_and(|id| *id != record.rotation())
        && !named.is_some_and(is_ours)
        && matches!(record.state, State::Requested(_) | State::Issuing(_) | State::Issued(_));
    if remedy == Remedy::None || is_past || named.is_some_and(|id| !is_ours(id)) {
        return Verdict::Do(Step { record: None, note: None });
    }
    let trouble = trouble(uplink);
    let code = trouble.code.clone();
    let is_known = record.last_failure.as_ref() == Some(&trouble);
    let failed = if is_known { record.clone() } else { record.clone().failed(trouble) };
    let goes_on = failed.failures < settings.support_after
        && !matches!(remedy, Remedy::Person | Remedy::ReplaceByHand);
    let record = act(failed, remedy, named, goes_on, &code, now);
    let is_late = matches!(record.state, State::Retiring(_));
    let code = if is_late { Code::TooLate.as_str().to_owned() } else { code };
    let note = (!goes_on || is_late).then(|| Note { key: record.key.clone(), code, at: now });
    Verdict::Do(Step { record: Some(Box::new(record)), note })
}

fn act(
    record: Record,
    remedy: Remedy,
    named: Option<CertificateId>,
    goes_on: bool,
    code: &str,
    now: Timestamp,
) -> Record {
    let is_unused = matches!(remedy, Remedy::Replace | Remedy::ReplaceByHand) && named.is_some();
    let has_failed = remedy != Remedy::AskForSame;
    match record.state.clone() {
        State::Issued(state) if is_unused => {
            let then = if goes_on { Then::Ask } else { Then::End };
            let lease = now + LEASE;
            let made = state.made;
            record.into_state(Withdrawing { made, then, delays: 0, lease, due: lease })
        }
        State::Requested(_) | State::Issued(_) if !goes_on => {
            let ended = Ended { code: code.to_owned(), at: now };
            record.supersede(has_failed).into_state(State::Abandoned(ended))
        }
        State::Issued(_) => ask_later(record.supersede(has_failed), now),
        State::Requested(state) => record.anew().into_state(state),
        // What it replaces is ACTIVE still; that it stays so needs no call.
        State::Acked(_) => ask_later(record.supersede(true), now),
        State::Deactivating(state) => reverse(record, state.made, state.given_up, now),
        State::Inactive(state) => reverse(record, state.made, state.given_up, now),
        // Nobody is at it, so the sweep goes on with it.
        state => record.into_state(state),
    }
}

/// The record of a certificate that does not do: what it replaces is made ACTIVE again.
pub fn reverse(record: Record, made: Made, given_up: Vec<GivenUp>, now: Timestamp) -> Record {
    record.into_state(Reversing { made, given_up, lease: now + LEASE })
}

/// The record of a device that is to make a new attempt, but not at once: it has trouble.
pub fn ask_later(record: Record, now: Timestamp) -> Record {
    record.anew().into_state(Requested { asks: 1, due: now + pause(1) })
}

fn trouble(uplink: &Uplink<CrtErr>) -> Trouble {
    let code = uplink.body.code.clone();
    Trouble {
        code: code.unwrap_or_else(|| Reason::DeviceError.as_str().to_owned()),
        text: uplink.body.error.clone(),
        at: uplink.envelope.at,
    }
}

/// What helps against a code. A code that is not known, or none, is the device's word that
/// something is wrong: it is asked again, and a person told if that does not help.
fn remedy(code: Option<&str>) -> Remedy {
    use Reason as R;
    let reason = code.and_then(|code| R::ALL.iter().find(|reason| reason.as_str() == code));
    match reason {
        // The device goes on all the same, or the error is about what is past.
        Some(R::PrewarmRefused | R::Unanchored | R::StaleError | R::StaleAck | R::TooSoon) => {
            Remedy::None
        }
        Some(
            R::NoWaitingCsr
            | R::SupersededKey
            | R::LateCertificate
            | R::BodyLost
            | R::StoreLost
            | R::Undelivered
            | R::RotationExpired,
        ) => Remedy::AskForSame,
        // It was refused before anyone used it, or whoever did went back.
        Some(R::BadCertificate | R::ProbeRefused | R::RefusedAfterRestart) => Remedy::Replace,
        Some(
            R::NotALeaf
            | R::Expired
            | R::NotYetValid
            | R::BadValidity
            | R::UntrustedChain
            | R::WrongSubject
            | R::OddCertificateId
            | R::TooLarge,
        ) => Remedy::ReplaceByHand,
        Some(
            R::CredentialUnknown
            | R::CredentialUnusable
            | R::HardwareKey
            | R::NoNucleus
            | R::NoPrivilege
            | R::ReadOnly
            | R::MountPoint
            | R::ForeignLink
            | R::NoSpace
            | R::DiskError
            | R::NotReadable
            | R::CannotRestart
            | R::RestartFailed
            | R::RolledBackByHand
            | R::BridgeLoop
            | R::UnsupportedKey
            | R::WeakKey,
        ) => Remedy::Person,
        _ => Remedy::Ask,
    }
}

/// The digest: how many rotations a code, and which. `None` if there is nothing to tell.
pub fn digest(notes: &[Note]) -> Option<(String, String)> {
    const MOST_NAMED: usize = 20;
    let mut by_code: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
    for note in notes {
        by_code.entry(&note.code).or_default().push(&note.key);
    }
    if by_code.is_empty() {
        return None;
    }
    let subject = format!("certrelay: {} rotations need a person", notes.len());
    let mut text = String::from("Codes are explained in docs/reasons.md and docs/cloud.md.\n");
    for (code, keys) in by_code {
        text += &format!("\n{code}: {}\n", keys.len());
        for key in keys.iter().take(MOST_NAMED) {
            text += &format!("  {} (rotation {})\n", key.thing, key.seq);
        }
        if keys.len() > MOST_NAMED {
            text += &format!("  and {} more\n", keys.len() - MOST_NAMED);
        }
    }
    Some((subject, text))
}
