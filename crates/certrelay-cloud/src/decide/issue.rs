//! What becomes of a CSR.

use certrelay::{
    proof,
    reason::Reason,
    schedule::Timestamp,
    wire::{CsrRes, KeyDigest},
    x509::{self, Refusal},
};

use super::{
    code::Code,
    due::abandoned,
    report::{Note, ask_later},
    request::pause,
    speaker::Route,
    uplink::Uplink,
};
use crate::{
    record::{Issued, Issuing, LEASE, MOST_CERTIFICATES, Made, Record, State, Superseded, Trouble},
    settings::Settings,
};

/// The longest CSR that AWS IoT takes, PEM, in characters.
const MOST_CSR: usize = 4096;

/// What is to be done about a CSR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This is written, then a certificate for the key is made.
    Make(Box<Record>, KeyDigest),
    /// This is written, then the certificate that the record holds is attached and activated.
    Attach(Box<Record>),
    /// The certificate is there: it is sent again.
    Resend(Made),
    /// Someone else is at it; later.
    Busy,
    /// The device has sent a newer one since.
    Outrun,
    /// A certificate is being taken back. When that is done, the device is asked again.
    NotYet,
    /// It is refused, for good.
    Refuse(Code),
}

/// Judges a CSR. Whoever spoke was permitted to.
pub fn judge(
    record: Option<&Record>,
    uplink: &Uplink<CsrRes>,
    route: Route,
    settings: &Settings,
    now: Timestamp,
) -> Step {
    let Some(record) = record.filter(|record| !record.is_over()) else {
        return Step::Refuse(Code::NoRotation);
    };
    if uplink.envelope.header.rotation.as_ref().is_some_and(|id| !record.answers_to(id)) {
        return Step::Refuse(Code::OtherRotation);
    }
    match accept(record, uplink, route, settings) {
        Ok(key) => step(record, key, uplink.envelope.at, now),
        Err(code) => Step::Refuse(code),
    }
}

/// The key of a CSR that this device may send now, or why it may not.
fn accept(
    record: &Record,
    uplink: &Uplink<CsrRes>,
    route: Route,
    settings: &Settings,
) -> Result<KeyDigest, Code> {
    let csr = &uplink.body.csr;
    let refused = |refusal: Refusal| Code::Reason(refusal.0);
    if csr_pem(csr).len() > MOST_CSR {
        return Err(Reason::TooLarge.into());
    }
    let key = x509::accept_csr(csr, record.thing(), settings.common_name).map_err(refused)?;
    x509::verify_csr_signature(csr).map_err(refused)?;
    if record.is_spent(key) {
        return Err(Reason::KeyNotNew.into());
    }
    prove(record, uplink, route, key, settings)?;
    Ok(key)
}

/// The proof by the key of the old certificate: it must hold if it is there, and be there if it is
/// required. A device on its own connection has proved itself by that.
fn prove(
    record: &Record,
    uplink: &Uplink<CsrRes>,
    route: Route,
    key: KeyDigest,
    settings: &Settings,
) -> Result<(), Code> {
    match &uplink.body.sig {
        _ if route == Route::Direct => Ok(()),
        None if settings.require_proof => Err(Code::ProofMissing),
        None => Ok(()),
        Some(signature) => {
            let text = proof::csr_text(record.thing(), key, record.nonce);
            proof::verify(&record.old.spki.0, &text, signature).map_err(|_| Code::BadProof)
        }
    }
}

fn step(record: &Record, key: KeyDigest, at: Timestamp, now: Timestamp) -> Step {
    let is_outrun = record.state.csr_at().is_some_and(|newest| at < newest);
    match &record.state {
        State::Requested(_) => begin(record.clone(), key, at, now),
        State::Issuing(_) if record.is_leased(now) => Step::Busy,
        State::Issuing(state) if state.key == key => match &state.made {
            Some(_) => Step::Attach(Box::new(lease(record.clone(), state.clone(), now))),
            None => Step::Make(Box::new(lease(record.clone(), state.clone(), now)), key),
        },
        State::Issued(state) if state.made.key == key => Step::Resend(state.made.clone()),
        State::Issuing(_) | State::Issued(_) if is_outrun => Step::Outrun,
        State::Issuing(_) | State::Issued(_) => {
            begin(record.clone().supersede(false), key, at, now)
        }
        State::Acked(_) | State::Deactivating(_) | State::Inactive(_) | State::Retiring(_) => {
            match record.state.made().filter(|made| made.key == key) {
                Some(made) => Step::Resend(made.clone()),
                None => Step::Refuse(Code::NoRotation),
            }
        }
        State::Withdrawing(_) | State::Reversing(_) => Step::NotYet,
        State::Retired(_) | State::Withdrawn(_) | State::Abandoned(_) => {
            Step::Refuse(Code::NoRotation)
        }
    }
}

/// A key that nothing is under way for: a certificate of this rotation that fits it, or a new one.
fn begin(record: Record, key: KeyDigest, csr_at: Timestamp, now: Timestamp) -> Step {
    match record.superseded_by_key(key).cloned() {
        Some(Superseded { has_failed: true, .. }) => Step::Refuse(Reason::StaleKey.into()),
        Some(Superseded { made, .. }) => {
            let record = record.without_superseded(made.id);
            let made = Made { csr_at, ..made };
            let state = Issuing { key, csr_at, made: Some(made), lease: now + LEASE };
            Step::Attach(Box::new(record.into_state(state)))
        }
        None if record.made >= MOST_CERTIFICATES => Step::Refuse(Code::TooManyCertificates),
        None => {
            let state = Issuing { key, csr_at, made: None, lease: now + LEASE };
            Step::Make(Box::new(record.into_state(state)), key)
        }
    }
}

fn lease(record: Record, state: Issuing, now: Timestamp) -> Record {
    record.into_state(Issuing { lease: now + LEASE, ..state })
}

/// The record once its certificate is made: what is attached from here on is this one alone.
pub fn made(mut record: Record, made: Made) -> Record {
    let lease = record.state.lease().unwrap_or_default();
    record.made = record.made.saturating_add(1);
    let Made { key, csr_at, .. } = made;
    record.into_state(Issuing { key, csr_at, made: Some(made), lease })
}

/// The record once its certificate is attached and ACTIVE.
pub fn activated(record: Record, made: Made, now: Timestamp) -> Record {
    record.into_state(issued(made, now))
}

/// The record when its CSR turned out to be one that the CA refuses: the device is asked again, and
/// a person told if that does not help.
pub fn unmade(
    record: Record,
    settings: &Settings,
    at: Timestamp,
    now: Timestamp,
) -> (Record, Option<Note>) {
    let code = Code::CaRefused.as_str().to_owned();
    let record = record.failed(Trouble { code, text: String::new(), at });
    if record.failures < settings.support_after {
        return (ask_later(record, now), None);
    }
    let (record, note) = abandoned(record, Code::CaRefused, now);
    (record, Some(note))
}

fn issued(made: Made, now: Timestamp) -> Issued {
    Issued { made, sends: 0, due: now + pause(1) }
}

/// A CSR as the APIs take it.
pub fn csr_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", der), config)
}

/// What asks a CA that knows idempotency for the same certificate again: at most 36 characters.
pub fn token(key: KeyDigest) -> String {
    key.to_string()[..36].to_owned()
}
