//! What a record needs once its time has come.

use std::time::Duration;

use certrelay::schedule::Timestamp;

use super::{
    code::Code,
    complete::KEPT_INACTIVE,
    report::{Note, ask_later},
    request::{ask, pause},
};
use crate::record::{
    Acked, Closing, Ended, Inactive, Issued, Issuing, LEASE, MOST_CERTIFICATES, Made, Record,
    Requested, Retired, Reversing, State, Then, Withdrawing,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a device is asked, or its certificate sent, without a word from it.
const PATIENCE: Duration = Duration::from_secs(60 * 86_400);

/// How long after a delete that came too early it is tried again.
const DELETE_AGAIN: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, yet.
    Wait,
    /// This is written, then the device is asked.
    Ask(Box<Record>),
    /// This is written, then the certificate is sent.
    Send(Box<Record>, Made),
    /// This is written, then the certificate is attached and activated.
    Attach(Box<Record>),
    /// This is written, then what the certificate replaces is made INACTIVE, if the certificate
    /// is ACTIVE itself.
    Deactivate(Box<Record>, Made),
    /// This is written, then what was replaced is detached and deleted.
    Retire(Box<Record>, Made),
    /// This is written, then what was replaced is made ACTIVE again.
    Reverse(Box<Record>),
    /// This is written, then the certificate is deactivated, detached and deleted.
    Withdraw(Box<Record>, Made),
    /// This is written, and a person told.
    Abandon(Box<Record>, Note),
}

/// What a record needs now.
pub fn judge(record: &Record, now: Timestamp) -> Step {
    if record.state.due().is_none_or(|due| now < due) {
        return Step::Wait;
    }
    let lease = now + LEASE;
    let next = record.clone();
    match record.state.clone() {
        State::Requested(_) if record.made >= MOST_CERTIFICATES => {
            abandon(next, Code::TooManyCertificates, now)
        }
        State::Requested(_) if is_hopeless(record, now) => abandon(next, Code::Unanswered, now),
        State::Requested(_) => Step::Ask(Box::new(ask(next, now))),
        State::Issuing(Issuing { made: None, .. }) => Step::Ask(Box::new(ask(next, now))),
        State::Issuing(state) => {
            Step::Attach(Box::new(next.into_state(Issuing { lease, ..state })))
        }
        State::Issued(state) if now - state.made.at > PATIENCE => {
            abandon(next.supersede(false), Code::Unacknowledged, now)
        }
        State::Issued(Issued { made, sends, .. }) => {
            let sends = sends.saturating_add(1);
            let state = Issued { made: made.clone(), sends, due: now + pause(sends + 1) };
            Step::Send(Box::new(next.into_state(state)), made)
        }
        State::Acked(Acked { made, proof, .. })
        | State::Deactivating(Closing { made, proof, .. }) => {
            let state = State::Deactivating(Closing { made: made.clone(), proof, lease });
            Step::Deactivate(Box::new(next.into_state(state)), made)
        }
        State::Inactive(Inactive { made, proof, .. })
        | State::Retiring(Closing { made, proof, .. }) => {
            let state = State::Retiring(Closing { made: made.clone(), proof, lease });
            Step::Retire(Box::new(next.into_state(state)), made)
        }
        State::Reversing(Reversing { made, .. }) => {
            Step::Reverse(Box::new(next.into_state(Reversing { made, lease })))
        }
        State::Withdrawing(state) => {
            let made = state.made.clone();
            let state = Withdrawing { lease, ..state };
            Step::Withdraw(Box::new(next.into_state(state)), made)
        }
        State::Retired(_) | State::Withdrawn(_) | State::Abandoned(_) => Step::Wait,
    }
}

/// Nobody answers, and the certificate has long expired; or nobody has answered for ever.
fn is_hopeless(record: &Record, now: Timestamp) -> bool {
    let began = record.hold_until.map_or(record.began, |hold| hold.max(record.began));
    now - began > PATIENCE && (now - record.old.not_after > 30 * DAY || now - began > 3 * PATIENCE)
}

fn abandon(record: Record, code: Code, now: Timestamp) -> Step {
    let ended = Ended { code: code.as_str().to_owned(), at: now };
    let note = note(&record, code, now);
    Step::Abandon(Box::new(record.into_state(State::Abandoned(ended))), note)
}

/// What a person is told about a record.
pub fn note(record: &Record, code: Code, now: Timestamp) -> Note {
    Note { key: record.key.clone(), code: code.as_str().to_owned(), at: now }
}

/// What was replaced is INACTIVE.
pub fn deactivated(record: Record, now: Timestamp) -> Record {
    match record.state.clone() {
        State::Deactivating(Closing { made, proof, .. }) => {
            record.into_state(Inactive { made, proof, until: now + KEPT_INACTIVE })
        }
        state => record.into_state(state),
    }
}

/// The new certificate was not ACTIVE: nothing is given up for it, and the device is asked again.
pub fn spared(record: Record, now: Timestamp) -> Record {
    ask_later(record.supersede(true), now)
}

/// What was replaced is gone.
pub fn retired(record: Record, now: Timestamp) -> Record {
    match record.state.clone() {
        State::Retiring(Closing { made, proof, .. }) => {
            record.into_state(Retired { made, proof, at: now })
        }
        state => record.into_state(state),
    }
}

/// A delete came too early; the next turn does it again.
pub fn retire_later(record: Record, now: Timestamp) -> Record {
    let lease = now + DELETE_AGAIN;
    match record.state.clone() {
        State::Retiring(state) => record.into_state(State::Retiring(Closing { lease, ..state })),
        State::Withdrawing(state) => record.into_state(Withdrawing { lease, ..state }),
        state => record.into_state(state),
    }
}

/// What was replaced is ACTIVE again.
pub fn reversed(record: Record, now: Timestamp) -> Record {
    ask_later(record.supersede(true), now)
}

/// The certificate that nobody used is gone.
pub fn withdrawn(record: Record, now: Timestamp) -> Record {
    let State::Withdrawing(Withdrawing { then, .. }) = record.state.clone() else {
        return record;
    };
    let code = record.last_failure.as_ref().map(|trouble| trouble.code.clone());
    match then {
        Then::Ask => record.into_state(Requested { asks: 0, due: now }),
        Then::End => {
            let code = code.unwrap_or_default();
            record.into_state(State::Withdrawn(Ended { code, at: now }))
        }
    }
}
