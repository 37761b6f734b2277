//! What the core says of its own certificate. To the cloud it is a child like any other; here it
//! needs no roster, no broker and no proof of whose words they are. Nor does it sign for the cloud: it
//! speaks over its own connection, which is the stronger proof, so the nonce of a request is ignored.

use super::{
    Effect, ForCore, Outcome as Out, Relay, Side,
    child::{Child, Scene},
    from_child::Arrival,
    outbox::Complaint,
    record::{Done, Outcome, Stage},
};
use crate::{
    identity::{self, Say},
    reason::Reason,
    schedule::Now,
    wire::{AckName, CertificateId, CrtAck, CsrRes, Header, RotationId},
    x509,
};

impl Relay {
    /// The core says something.
    pub(super) fn on_own(&mut self, now: Now, say: Say, out: &mut Out) {
        let core = self.settings.core.clone();
        // There is always room for this one; and what it says is taken in order.
        let _ = self.admit(now, &core);
        self.with_child(now, &core, out, |core, scene| match say {
            Say::Csr { csr, rotation } => core.on_own_csr(scene, csr, rotation),
            Say::Acked { certificate, rotation } => {
                let header = Header { rotation, ..Header::default() };
                let ack = CrtAck { header, certificate: AckName::Named(certificate), sig: None };
                core.on_ack(scene, &ack, Arrival::Maybe);
            }
            Say::Failed { why, certificate, rotation, ends } => {
                core.on_own_failure(scene, &why, certificate, rotation.as_ref(), ends);
            }
        });
        out.then.push(Effect::Core(ForCore::Taken));
    }
}

impl Child {
    /// The CSR of the core's new key, or of its old one: that is its own affair.
    fn on_own_csr(&mut self, scene: &mut Scene<'_>, csr: Vec<u8>, rotation: Option<RotationId>) {
        let key = match x509::csr_key(&csr) {
            Ok(key) => key,
            Err(x509::Refusal(reason)) => return self.refuse(scene, Side::Local, reason),
        };
        match self.waiting_key() {
            Some(waiting) if waiting == key => self.on_same_csr(scene, None),
            _ => {
                let header = Header { rotation, ..Header::default() };
                self.on_new_csr(scene, key, CsrRes { header, csr, sig: None });
            }
        }
    }

    /// The certificate that the last rotation ended with, as far as the cloud was told.
    fn acked_certificate(&self) -> Option<CertificateId> {
        match &self.record.stage {
            Stage::Done(Done { outcome: Outcome::Acked { certificate, .. }, .. }) => {
                Some(*certificate)
            }
            _ => None,
        }
    }

    fn on_own_failure(
        &mut self,
        scene: &mut Scene<'_>,
        why: &identity::Complaint,
        certificate: Option<CertificateId>,
        rotation: Option<&RotationId>,
        ends: bool,
    ) {
        let held = self.held_certificate();
        let was_acked = certificate.is_some() && self.acked_certificate() == certificate;
        let error = Complaint { code: why.code.as_str(), words: &why.error, certificate, rotation };
        self.refuse_with(scene, Side::Local, why.code, Some(why.error.clone()));
        let is_about_this = held.is_none() || certificate == held;
        // One that was never begun is asked for again: what stands in the way may be mended.
        let is_begun = matches!(self.record.stage, Stage::AwaitCert(_) | Stage::AwaitAck(_));
        if ends && was_acked {
            // It is not in use any more: to say once more that it is could cost the old one.
            self.take_back_ack();
        }
        if ends && (was_acked || is_begun && is_about_this) {
            self.report_end(scene, error);
            let reason: Reason = why.code;
            self.done(
                scene,
                Outcome::Failed { reason, code: None, certificate: held.or(certificate) },
            );
        } else {
            self.report_words(scene, error);
        }
    }
}
