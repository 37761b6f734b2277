//! What becomes of an ack: whether it counts, what it proves, and how long what the certificate
//! replaces stays ACTIVE after it.

use std::time::Duration;

use certrelay::{
    proof,
    reason::Reason,
    schedule::Timestamp,
    wire::{AckName, AckProof, CertificateId},
};

use super::{
    code::Code,
    speaker::Route,
    uplink::{Ack, Uplink, named},
};
use crate::{
    record::{Acked, Issued, Made, Proof, Record, Requested, State},
    settings::Settings,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// How long what was given up is kept INACTIVE, which can be reversed.
pub const KEPT_INACTIVE: Duration = Duration::from_secs(7 * 86_400);

/// What is to be done about an ack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This is written: the certificate is in use.
    Count(Box<Record>),
    /// It was counted before: the same answer.
    Again,
    /// Someone else is at it; later.
    Busy,
    /// A certificate is being taken back; after that.
    NotYet,
    /// It does not count, and never will.
    Refuse(Code),
}

/// How long a certificate stays ACTIVE once its successor is said to be in use.
pub fn grace(proof: Proof) -> Duration {
    match proof {
        Proof::Direct => HOUR,
        Proof::Signed => DAY,
        Proof::Named => 7 * DAY,
        Proof::Bare => 14 * DAY,
    }
}

/// Judges an ack. Whoever spoke was permitted to.
pub fn judge(
    record: Option<&Record>,
    uplink: &Uplink<Ack>,
    route: Route,
    settings: &Settings,
    now: Timestamp,
) -> Step {
    match judged(record, uplink, route, settings, now) {
        Ok(step) => step,
        Err(code) => Step::Refuse(code),
    }
}

fn judged(
    record: Option<&Record>,
    uplink: &Uplink<Ack>,
    route: Route,
    settings: &Settings,
    now: Timestamp,
) -> Result<Step, Code> {
    let record = record.ok_or(Code::NoRotation)?;
    let about = named(&uplink.body)?;
    match &record.state {
        State::Issued(Issued { made, .. }) => {
            check_rotation(record, uplink)?;
            let made = is_about(record, made, about, uplink, route)?;
            count(record, made, uplink, route, settings, now)
        }
        // A device that had trouble and got over it says so over a connection made with the
        // certificate: then, and after the trouble. Nothing less is believed.
        State::Requested(Requested { .. }) => {
            let made = back_in_use(record, about, uplink, route)?;
            count(&record.clone().without_superseded(made.id), made, uplink, route, settings, now)
        }
        State::Issuing(_) => Ok(Step::Busy),
        State::Reversing(_) | State::Withdrawing(_) => Ok(Step::NotYet),
        State::Acked(_)
        | State::Deactivating(_)
        | State::Inactive(_)
        | State::Retiring(_)
        | State::Retired(_) => again(record, about),
        State::Withdrawn(_) | State::Abandoned(_) => Err(Code::NoRotation),
    }
}

fn check_rotation(record: &Record, uplink: &Uplink<Ack>) -> Result<(), Code> {
    match &uplink.envelope.header.rotation {
        Some(id) if !record.answers_to(id) => Err(Code::OtherRotation),
        _ => Ok(()),
    }
}

/// The certificate that the ack is about, which must be the one that was issued last. One that
/// names none can mean it only if there never was another.
fn is_about<'a>(
    record: &Record,
    made: &'a Made,
    about: Option<CertificateId>,
    uplink: &Uplink<Ack>,
    route: Route,
) -> Result<&'a Made, Code> {
    let is_direct = route == Route::Direct && uplink.envelope.principal == made.id;
    match about {
        Some(id) if id == made.id => Ok(made),
        Some(id) if record.certificates().contains(&id) => Err(Reason::StaleAck.into()),
        Some(_) => Err(Reason::AckUnknown.into()),
        None if is_direct => Ok(made),
        None if route == Route::Direct => Err(Code::OtherPrincipal),
        None if record.superseded.is_empty() && record.failures == 0 => Ok(made),
        None => Err(Reason::StaleAck.into()),
    }
}

fn back_in_use<'a>(
    record: &'a Record,
    about: Option<CertificateId>,
    uplink: &Uplink<Ack>,
    route: Route,
) -> Result<&'a Made, Code> {
    let principal = uplink.envelope.principal;
    let is_new = record.last_failure.as_ref().is_none_or(|trouble| trouble.at < uplink.envelope.at);
    let made = record.superseded.last().map(|other| &other.made);
    made.filter(|made| made.id == principal && about.is_none_or(|id| id == made.id))
        .filter(|_| route == Route::Direct && is_new)
        .ok_or(Reason::StaleAck.into())
}

fn count(
    record: &Record,
    made: &Made,
    uplink: &Uplink<Ack>,
    route: Route,
    settings: &Settings,
    now: Timestamp,
) -> Result<Step, Code> {
    let proof = prove(record, made, uplink, route, settings)?;
    let acked = Acked { made: made.clone(), proof, since: now, until: now + grace(proof) };
    Ok(Step::Count(Box::new(record.clone().into_state(acked))))
}

/// What an ack about this certificate proves.
fn prove(
    record: &Record,
    made: &Made,
    uplink: &Uplink<Ack>,
    route: Route,
    settings: &Settings,
) -> Result<Proof, Code> {
    match (route, &uplink.body.ack.sig) {
        (Route::Direct, _) if uplink.envelope.principal == made.id => Ok(Proof::Direct),
        // It says that it uses the certificate, and does not.
        (Route::Direct, _) => Err(Code::OtherPrincipal),
        (Route::Relayed, Some(signature)) => {
            let text = proof::ack_text(record.thing(), made.id, record.nonce);
            let spki = spki(made)?;
            let verdict = proof::verify(&spki, &text, signature);
            verdict.map(|()| Proof::Signed).map_err(|_| Code::BadProof)
        }
        (Route::Relayed, None) if settings.require_proof => Err(Code::ProofMissing),
        (Route::Relayed, None) => Ok(relayed(uplink)),
    }
}

/// What the word of a core proves: it says how it knows which certificate the device meant.
fn relayed(uplink: &Uplink<Ack>) -> Proof {
    match (uplink.body.ack.certificate, uplink.body.how) {
        (AckName::Named(_), None | Some(AckProof::Named)) => Proof::Named,
        _ => Proof::Bare,
    }
}

fn spki(made: &Made) -> Result<Vec<u8>, Code> {
    let pem = pem::parse(&made.pem).map_err(|_| Code::NoCertificate)?;
    certrelay::x509::certificate_spki(pem.contents()).map_err(|refusal| Code::Reason(refusal.0))
}

fn again(record: &Record, about: Option<CertificateId>) -> Result<Step, Code> {
    let is_the_same = |id| record.state.made().is_some_and(|made| made.id == id);
    match about {
        None => Ok(Step::Again),
        Some(id) if is_the_same(id) => Ok(Step::Again),
        Some(id) if record.certificates().contains(&id) => Err(Reason::StaleAck.into()),
        Some(_) => Err(Reason::AckUnknown.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weaker_the_proof_the_longer_the_old_certificate_stays_active() {
        let hours = |proof| grace(proof).as_secs() / 3600;
        let proofs = [Proof::Direct, Proof::Signed, Proof::Named, Proof::Bare];
        assert_eq!(proofs.map(hours), [1, 24, 7 * 24, 14 * 24]);
        assert_eq!(KEPT_INACTIVE.as_secs(), 7 * 86_400);
    }
}
