//! What a record needs once its time has come.

use std::time::Duration;

use certrelay::{schedule::Timestamp, wire::CertificateId};

use super::{
    code::Code,
    complete::KEPT_INACTIVE,
    report::{Note, ask_later, reverse},
    request::{ask, pause},
};
use crate::{
    ports::Status,
    record::{
        Acked, Deactivating, Ended, GivenUp, Inactive, Issued, Issuing, LEASE, MOST_CERTIFICATES,
        Made, Record, Requested, Retired, Retiring, Reversing, State, Then, Withdrawing,
    },
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a device is asked, or its certificate sent, without a word from it.
const PATIENCE: Duration = Duration::from_secs(60 * 86_400);

/// How long after the first delete that came too early it is tried again: AWS detaches things some
/// seconds after it was asked to.
const DELETE_AGAIN: Duration = Duration::from_secs(600);

/// A delete that came too early so often does not go by itself.
const MOST_DELAYS: u32 = 5;

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
    /// What the certificate replaces is made INACTIVE, if the certificate is ACTIVE itself.
    GiveUp(Made),
    /// This is written, then what was replaced is detached and deleted.
    Retire(Box<Record>, Retiring),
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
            give_up_on(next, Code::TooManyCertificates, now)
        }
        State::Requested(_) if is_hopeless(record, now) => give_up_on(next, Code::Unanswered, now),
        State::Requested(_) => Step::Ask(Box::new(ask(next, now))),
        State::Issuing(Issuing { made: None, .. }) => Step::Ask(Box::new(ask(next, now))),
        State::Issuing(state) => {
            Step::Attach(Box::new(next.into_state(Issuing { lease, ..state })))
        }
        State::Issued(state) if now - state.made.at > PATIENCE => {
            give_up_on(next, Code::Unacknowledged, now)
        }
        State::Issued(Issued { made, sends, .. }) => {
            let sends = sends.saturating_add(1);
            let state = Issued { made: made.clone(), sends, due: now + pause(sends + 1) };
            Step::Send(Box::new(next.into_state(state)), made)
        }
        State::Acked(Acked { made, .. }) | State::Deactivating(Deactivating { made, .. }) => {
            Step::GiveUp(made)
        }
        State::Inactive(Inactive { made, proof, given_up, .. }) => {
            retire(next, Retiring { made, proof, given_up, delays: 0, lease, due: lease })
        }
        State::Retiring(state) => retire(next, Retiring { lease, due: lease, ..state }),
        State::Reversing(state) => {
            Step::Reverse(Box::new(next.into_state(Reversing { lease, ..state })))
        }
        State::Withdrawing(state) => {
            let made = state.made.clone();
            let state = Withdrawing { lease, due: lease, ..state };
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

fn retire(record: Record, state: Retiring) -> Step {
    Step::Retire(Box::new(record.into_state(state.clone())), state)
}

fn give_up_on(record: Record, code: Code, now: Timestamp) -> Step {
    let (record, note) = abandoned(record, code, now);
    Step::Abandon(Box::new(record), note)
}

/// A rotation that can't go on, and what a person is told of it. Its certificates stay as they are.
pub fn abandoned(record: Record, code: Code, now: Timestamp) -> (Record, Note) {
    let ended = Ended { code: code.as_str().to_owned(), at: now };
    let note = note(&record, code, now);
    (record.supersede(false).into_state(State::Abandoned(ended)), note)
}

/// What a person is told about a record.
pub fn note(record: &Record, code: Code, now: Timestamp) -> Note {
    Note { key: record.key.clone(), code: code.as_str().to_owned(), at: now }
}

/// Whether a certificate that is replaced is to be given up, and whether it can come back. One that is
/// neither ACTIVE nor INACTIVE was put into its state by someone else, and stays in it.
pub fn given_up(id: CertificateId, status: Status) -> Option<GivenUp> {
    match status {
        Status::Active => Some(GivenUp { id, was_active: true }),
        Status::Inactive => Some(GivenUp { id, was_active: false }),
        Status::Other => None,
    }
}

/// What the certificate in use replaces is being made INACTIVE. What was given up on an earlier turn
/// is no longer as it was found then, so the first word counts.
pub fn deactivating(record: Record, found: Vec<GivenUp>, now: Timestamp) -> Record {
    let lease = now + LEASE;
    match record.state.clone() {
        State::Acked(Acked { made, proof, .. }) => {
            record.into_state(Deactivating { made, proof, given_up: found, lease })
        }
        State::Deactivating(state) => record.into_state(Deactivating { lease, ..state }),
        state => record.into_state(state),
    }
}

/// What was replaced is INACTIVE.
pub fn deactivated(record: Record, now: Timestamp) -> Record {
    match record.state.clone() {
        State::Deactivating(Deactivating { made, proof, given_up, .. }) => {
            record.into_state(Inactive { made, proof, given_up, until: now + KEPT_INACTIVE })
        }
        state => record.into_state(state),
    }
}

/// The new certificate was not ACTIVE: nothing is given up for it, what was comes back, and the device
/// is asked again.
pub fn spared(record: Record, now: Timestamp) -> Record {
    match record.state.clone() {
        State::Deactivating(state) => reverse(record, state.made, state.given_up, now),
        _ => ask_later(record.supersede(true), now),
    }
}

/// What of the replaced certificates is to be deleted: of those that were looked at, the ones that
/// nobody has touched since.
pub fn retiring(record: Record, found: &[(GivenUp, Option<Status>)]) -> Record {
    match record.state.clone() {
        State::Retiring(state) => {
            let is_ours = |status| status == Some(Status::Inactive);
            let ours = found.iter().filter(|(_, status)| is_ours(*status));
            let given_up = ours.map(|(given_up, _)| *given_up).collect();
            let state = Retiring { given_up, ..state };
            Record { state: State::Retiring(state), ..record }
        }
        _ => record,
    }
}

/// What was replaced is gone.
pub fn retired(record: Record, now: Timestamp) -> Record {
    match record.state.clone() {
        State::Retiring(Retiring { made, proof, .. }) => {
            record.into_state(Retired { made, proof, at: now })
        }
        state => record.into_state(state),
    }
}

/// A delete came too early; a later turn does it again, and a person is told if that does not help.
pub fn delayed(record: Record, now: Timestamp) -> (Record, Option<Note>) {
    let (delays, state) = match record.state.clone() {
        State::Retiring(state) => {
            let delays = state.delays.saturating_add(1);
            let due = now + delay(delays);
            (delays, State::Retiring(Retiring { delays, lease: now, due, ..state }))
        }
        State::Withdrawing(state) => {
            let delays = state.delays.saturating_add(1);
            let due = now + delay(delays);
            (delays, State::Withdrawing(Withdrawing { delays, lease: now, due, ..state }))
        }
        state => (0, state),
    };
    let note = (delays == MOST_DELAYS).then(|| note(&record, Code::NotDeleted, now));
    (record.into_state(state), note)
}

/// How long after so many deletes that came too early: 10 min, 1 h, 6 h, then 24 h.
fn delay(delays: u32) -> Duration {
    match delays {
        0 | 1 => DELETE_AGAIN,
        _ => pause(delays - 1),
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
        Then::Ask => record.anew().into_state(Requested { asks: 0, due: now }),
        Then::End => {
            let code = code.unwrap_or_default();
            record.into_state(State::Withdrawn(Ended { code, at: now }))
        }
    }
}
