//! What a child says: the uplink half of the transition table.
//!
//! The gravest mistake of all stands here: an ack that retires the wrong certificate strands a
//! child for good. So an ack counts only for the certificate that it names, or, where it names
//! none, after the child has shown that it received this very certificate.

use super::{
    child::{Child, Echo, Scene},
    event::Side,
    outbox::Complaint,
    record::{Done, Outcome, Stage},
};
use crate::{
    links::ConnectionId,
    reason::Reason,
    wire::{AckName, AckProof, CertificateId, CrtAck, CrtErr, CsrRes, RotationId, Signature},
    x509,
};

/// How a local message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It may have waited in the broker, or have been delivered before.
    Maybe,
    /// It was sent while this connection stood.
    Live(ConnectionId),
}

impl Child {
    /// `csr_res`.
    pub fn on_csr(&mut self, scene: &mut Scene<'_>, message: CsrRes, arrival: Arrival) {
        let rule = scene.settings.common_name;
        let key = match x509::accept_csr(&message.csr, scene.name, rule) {
            Ok(key) => key,
            Err(x509::Refusal(reason)) => {
                self.refuse(scene, Side::Local, reason);
                // What can't be read may be noise; what can be is a device that is set up wrong.
                if reason != Reason::BadCsr {
                    self.report(scene, reason, None);
                }
                return;
            }
        };
        // A key that was given up comes back only in a message that the broker kept, unless the
        // device says so now.
        let is_old = self.record.superseded_keys.contains(&key);
        if arrival == Arrival::Maybe && (is_old || self.record.current_key == Some(key)) {
            return self.refuse(scene, Side::Local, Reason::StaleKey);
        }
        if self.record.current_key == Some(key) {
            self.refuse(scene, Side::Local, Reason::KeyNotNew);
            return self.report(scene, Reason::KeyNotNew, None);
        }
        if self.answers_another(&message) {
            self.refuse(scene, Side::Local, Reason::Superseded);
            return self.sign_of_life(scene);
        }
        match &self.record.stage {
            Stage::AwaitCert(stage) if stage.csr.key == key => self.on_same_csr(scene, message.sig),
            Stage::AwaitAck(stage) if stage.csr.key == key => self.on_same_csr(scene, message.sig),
            _ => self.on_new_csr(scene, key, message),
        }
    }

    /// Whether the proof is for another rotation, by the device's own word: it has yet to get the
    /// newest request, and the cloud would refuse the CSR for good.
    fn answers_another(&self, message: &CsrRes) -> bool {
        let is_proof_wanted = self.is_under_way() && self.record.nonce.is_some();
        is_proof_wanted
            && message.sig.is_some()
            && self.is_foreign(message.header.rotation.as_ref())
    }

    /// The CSR that is in the store already; its proof may be about a newer request.
    pub(super) fn on_same_csr(&mut self, scene: &mut Scene<'_>, sig: Option<Signature>) {
        if sig.is_some() && sig != self.record.csr_sig {
            self.record.csr_sig = sig;
            self.changed = true;
        }
        match &self.record.stage {
            Stage::AwaitCert(_) => self.csr_due(scene),
            _ => self.sign_of_life(scene),
        }
        self.step(scene, Side::Local, Reason::Repeated);
    }

    /// A CSR for another key than the one that waits, if any does. The newest wins.
    pub(super) fn on_new_csr(
        &mut self,
        scene: &mut Scene<'_>,
        key: crate::wire::KeyDigest,
        message: CsrRes,
    ) {
        let unsolicited = match &self.record.stage {
            Stage::AwaitCsr(_) => false,
            Stage::AwaitCert(stage) => stage.csr.unsolicited,
            Stage::AwaitAck(stage) => stage.csr.unsolicited,
            Stage::Done(_) => true,
        };
        if matches!(self.record.stage, Stage::Done(_)) {
            self.record.began = crate::schedule::Stamp::now(scene.now);
            self.record.rotation.clone_from(&message.header.rotation);
            self.record.nonce = None;
        }
        self.await_cert(scene, key, message, unsolicited);
        self.step(scene, Side::Local, Reason::CsrAccepted);
    }

    /// The child is there: a copy that its broker keeps for it is worth while again.
    fn sign_of_life(&mut self, scene: &Scene<'_>) {
        if matches!(self.record.stage, Stage::AwaitCsr(_) | Stage::AwaitAck(_)) {
            self.live.sure_copy = None;
            self.copy_due(scene);
        }
    }

    /// `crt_ack`.
    pub fn on_ack(&mut self, scene: &mut Scene<'_>, message: &CrtAck, arrival: Arrival) {
        let held = self.held_certificate();
        match message.certificate {
            AckName::Named(id) if held == Some(id) => {
                self.acked(scene, AckProof::Named, message.sig.clone());
            }
            AckName::Named(id) if self.knew(id) => self.stale_ack(scene),
            AckName::Named(id) => {
                self.refuse(scene, Side::Local, Reason::AckUnknown);
                self.report(scene, Reason::AckUnknown, Some(id));
            }
            AckName::Unreadable => self.refuse(scene, Side::Local, Reason::Unreadable),
            AckName::Bare if self.is_foreign(message.header.rotation.as_ref()) => {
                self.stale_ack(scene);
            }
            AckName::Bare => self.on_bare_ack(scene, message, arrival),
        }
    }

    /// An ack that names no certificate; see [`Echo`].
    fn on_bare_ack(&mut self, scene: &mut Scene<'_>, message: &CrtAck, arrival: Arrival) {
        let Arrival::Live(connection) = arrival else {
            return self.stale_ack(scene);
        };
        if self.held_certificate().is_none() || self.live.given != Some(connection) {
            return self.stale_ack(scene);
        }
        match self.live.echo {
            Echo::Sent(on) if on == connection => {
                self.acked(scene, AckProof::Bare, message.sig.clone());
            }
            Echo::Owed => self.step(scene, Side::Local, Reason::Repeated),
            Echo::Silent | Echo::Sent(..) => {
                self.live.echo = Echo::Owed;
                self.live.sure_copy = None;
                self.live.to_child.due = Some(scene.now.tick);
                self.step(scene, Side::Local, Reason::EchoAsked);
            }
        }
    }

    fn stale_ack(&mut self, scene: &mut Scene<'_>) {
        self.sign_of_life(scene);
        self.refuse(scene, Side::Local, Reason::StaleAck);
    }

    /// The child uses the held certificate.
    fn acked(&mut self, scene: &mut Scene<'_>, proof: AckProof, sig: Option<Signature>) {
        let Stage::AwaitAck(held) = &self.record.stage else { return };
        let (certificate, not_after) = (held.certificate, held.not_after);
        self.record.not_after = Some(not_after);
        self.done(scene, Outcome::Acked { certificate, proof, sig: sig.clone(), not_after });
        self.say_acked(scene, certificate, proof, sig);
        let reason = match proof {
            AckProof::Named => Reason::AckedNamed,
            AckProof::Bare => Reason::AckedBare,
        };
        self.step(scene, Side::Local, reason);
    }

    /// `crt_err`.
    pub fn on_error(&mut self, scene: &mut Scene<'_>, message: &CrtErr, arrival: Arrival) {
        let held = self.held_certificate();
        let rotation = message.header.rotation.as_ref();
        let code = message.code.as_deref().unwrap_or(Reason::DeviceError.as_str());
        let certificate = message.certificate.or(held);
        let error = Complaint { code, words: &message.error, certificate, rotation };
        let known = held.or_else(|| self.ended_with());
        let is_about_another = message.certificate.is_some() && message.certificate != known;
        let words = Some(message.error.clone());
        if is_about_another || self.is_foreign(rotation) {
            // The cloud hears it all the same: it can only make the cloud keep an old certificate.
            self.refuse_with(scene, Side::Local, Reason::StaleError, words);
            return self.report_words(scene, error);
        }
        self.refuse_with(scene, Side::Local, Reason::DeviceError, words);
        let is_certain = message.certificate.is_some() || arrival != Arrival::Maybe;
        if held.is_some() && is_certain {
            self.report_end(scene, error);
            let (reason, code) = (Reason::DeviceError, Some(code.to_owned()));
            self.done(scene, Outcome::Failed { reason, code, certificate: held });
        } else {
            self.report_words(scene, error);
        }
    }

    /// Whether the message is about a rotation that is not the one under way.
    fn is_foreign(&self, rotation: Option<&RotationId>) -> bool {
        rotation.is_some()
            && self.record.rotation.is_some()
            && rotation != self.record.rotation.as_ref()
    }

    /// Whether the certificate was the child's here.
    fn knew(&self, id: CertificateId) -> bool {
        self.ended_with() == Some(id) || self.record.superseded_certificates.contains(&id)
    }

    /// The certificate that the last rotation ended with.
    fn ended_with(&self) -> Option<CertificateId> {
        match &self.record.stage {
            Stage::Done(Done { outcome: Outcome::Acked { certificate, .. }, .. }) => {
                Some(*certificate)
            }
            Stage::Done(Done { outcome: Outcome::Failed { certificate, .. }, .. }) => *certificate,
            _ => None,
        }
    }
}
