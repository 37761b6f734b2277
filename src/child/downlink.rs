//! What a child makes of `csr_req` and `crt`.

use std::time::Duration;

use super::{Child, Effect, Told, machine::Received, saved::Stage};
use crate::{
    reason::Reason,
    schedule::Now,
    wire::{CertificateMessage, CsrReq, Kind, Nonce, PayloadError, RotationId},
    x509::{CertificateFacts, accept_certificate, read_certificate},
};

/// A request without a rotation id that comes this soon after a rotation is a late copy of the one
/// that began it.
const LATE_COPY: Duration = Duration::from_secs(600);

impl Child {
    /// Reads one message; nothing is under way on disk, and everything is saved.
    pub(super) fn read(&mut self, now: Now, message: &Received, effects: &mut Vec<Effect>) {
        let outcome = match message.kind {
            Kind::CsrReq => CsrReq::parse(&message.payload).map(|request| {
                self.on_request(now, request.header.rotation, request.nonce, effects);
            }),
            Kind::Crt => CertificateMessage::parse(&message.payload)
                .map(|message| self.on_certificate(now, message, effects)),
            _ => return,
        };
        if let Err(error) = outcome {
            effects.push(Effect::Tell(Told::Ignored(reason_of(&error))));
        }
    }

    fn on_request(
        &mut self,
        now: Now,
        rotation: Option<RotationId>,
        nonce: Option<Nonce>,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_late_copy(now, rotation.as_ref()) {
            return self.acknowledge_again(None, nonce);
        }
        let lifetime = self.settings.csr_lifetime;
        match &mut self.asked {
            Some(asked) if !asked.made.is_older_than(lifetime, now) => {
                asked.made.settle(now);
                let made = asked.made.wall();
                self.ask_proof(rotation.as_ref(), nonce);
                self.retag(made, rotation);
                self.csr_due = true;
            }
            _ => self.make_key(rotation, nonce, effects),
        }
    }

    fn is_late_copy(&self, now: Now, rotation: Option<&RotationId>) -> bool {
        let (Stage::Idle, Some(last)) = (&self.saved.stage, &self.saved.finished) else {
            return false;
        };
        match rotation {
            Some(rotation) => last.rotation.as_ref() == Some(rotation),
            None => self.finished.is_some_and(|at| at.is_within(LATE_COPY, now)),
        }
    }

    /// Notes the newest name of the rotation, and when its key was made.
    fn retag(&mut self, made: Option<crate::schedule::Timestamp>, rotation: Option<RotationId>) {
        let Some(asked) = self.saved.stage.asked_mut() else { return };
        asked.made = made;
        if rotation.is_some() {
            asked.rotation = rotation;
        }
    }

    fn on_certificate(&mut self, now: Now, message: CertificateMessage, effects: &mut Vec<Effect>) {
        let rotation = message.header.rotation.clone();
        let leaf = message.chain.first().map_or(&[][..], Vec::as_slice);
        let facts = match read_certificate(leaf) {
            Ok(facts) => facts,
            Err(refusal) => return self.refuse(refusal.0, None, rotation, effects),
        };
        let asked = self.saved.stage.asked().map(|asked| asked.key);
        let trying = matches!(&self.saved.stage, Stage::Trying(t) if t.certificate == facts.id);
        if trying {
            effects.push(Effect::Tell(Told::Ignored(Reason::LateCertificate)));
        } else if facts.id == self.current.facts.id {
            self.acknowledge_again(rotation, None);
        } else if asked == Some(facts.key) || asked.is_none() && facts.key == self.current.facts.key
        {
            self.on_fitting(now, message, facts, effects);
        } else {
            self.refuse(Reason::NoWaitingCsr, Some(&facts), rotation, effects);
        }
    }

    fn on_fitting(
        &mut self,
        now: Now,
        message: CertificateMessage,
        facts: CertificateFacts,
        effects: &mut Vec<Effect>,
    ) {
        let rotation = message.header.rotation.or_else(|| self.rotation());
        let (thing, rule) = (&self.settings.thing, self.settings.common_name);
        match accept_certificate(&message.chain, thing, rule, now.wall, None) {
            Ok(facts) => self.store(&facts, rotation, message.chain, effects),
            Err(refusal) => self.refuse(refusal.0, Some(&facts), rotation, effects),
        }
    }

    fn refuse(
        &mut self,
        reason: Reason,
        facts: Option<&CertificateFacts>,
        rotation: Option<RotationId>,
        effects: &mut Vec<Effect>,
    ) {
        let certificate = facts.map(|facts| facts.id);
        self.complain(reason, reason.explain(), certificate, rotation);
        effects.push(Effect::Tell(Told::Refused(reason, certificate)));
    }
}

fn reason_of(error: &PayloadError) -> Reason {
    match error {
        PayloadError::Empty => Reason::EmptyPayload,
        PayloadError::TooLarge { .. } => Reason::TooLarge,
        _ => Reason::Unreadable,
    }
}
