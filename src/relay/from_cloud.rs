//! What the cloud says to one child: the downlink half of the transition table, and receipts.

use std::time::Duration;

use super::{
    child::{COPIES_APART, CSR_APART, Child, Scene, Signature},
    event::{Lost, Side, Weight},
    outbox::Complaint,
    record::{AwaitAck, AwaitCert, AwaitCsr, Notice, Occurred, Outcome, Stage},
};
use crate::{
    reason::Reason,
    schedule::{Stamp, Tick},
    wire::{
        AckName, CertificateId, CertificateMessage, CsrReq, KeyDigest, Kind, Mid, Nonce,
        RotationId, Verdict,
    },
    x509::{self, CommonNameRule},
};

/// A request without a rotation id that comes sooner after the end of a rotation repeats it.
const DUPLICATE: Duration = Duration::from_secs(600);

impl Child {
    /// `csr_req`.
    pub fn on_request(&mut self, scene: &mut Scene<'_>, request: CsrReq) {
        if request.not_after.is_some() && request.not_after != self.record.not_after {
            self.record.not_after = request.not_after;
            self.changed = true;
        }
        let stage = AwaitCsr { since: Stamp::now(scene.now), hold_until: request.hold_until };
        let is_new =
            request.header.rotation.is_some() && request.header.rotation != self.record.rotation;
        let (named, before) = (request.header.rotation.is_some(), self.record.nonce);
        self.take_nonce(scene, request.nonce, is_new);
        if is_new {
            self.record.rotation = request.header.rotation;
            self.record.began = Stamp::now(scene.now);
            self.changed = true;
        }
        if self.record.nonce != before && self.must_sign_again(scene, before) {
            self.await_csr(scene, stage, scene.now.tick);
            return self.step(scene, Side::Cloud, Reason::Requested);
        }
        if is_new {
            return self.on_new_rotation(scene, stage);
        }
        match &self.record.stage {
            Stage::AwaitCsr(_) => self.step(scene, Side::Cloud, Reason::Repeated),
            Stage::AwaitCert(_) => self.csr_due(scene),
            Stage::AwaitAck(_) => self.copy_due(scene),
            // The cloud knows how that ended, for it was its own word: it wants another CSR.
            Stage::Done(done) if named && is_refused_by_cloud(&done.outcome) => {
                self.await_csr(scene, stage, scene.now.tick);
                self.step(scene, Side::Cloud, Reason::Requested);
            }
            Stage::Done(_) if named => self.say_again(scene),
            Stage::Done(_) => self.on_anonymous_request(scene, request.nonce, stage),
        }
    }

    /// Notes what the device's proofs are to be about from now on. The core gives none, and a request
    /// that is not heeded is about no rotation.
    fn take_nonce(&mut self, scene: &Scene<'_>, nonce: Option<Nonce>, is_new: bool) {
        let is_heeded = is_new || (self.is_under_way() && nonce.is_some());
        if is_heeded && !scene.is_core() && self.record.nonce != nonce {
            self.record.nonce = nonce;
            self.changed = true;
        }
    }

    /// The proofs are to be about something else than before. Whether the CSR that waits is to be
    /// asked for again by that: its proof is outdated, or the device could give none. It has the key
    /// still. A device that was asked for a proof and gave none will give none now.
    fn must_sign_again(&mut self, scene: &Scene<'_>, before: Option<Nonce>) -> bool {
        match &self.record.stage {
            _ if self.record.nonce.is_none() => false,
            Stage::AwaitCert(_) => before.is_none() || self.record.csr_sig.is_some(),
            Stage::AwaitCsr(_) => {
                self.copy_due(scene);
                false
            }
            Stage::AwaitAck(_) | Stage::Done(_) => false,
        }
    }

    /// The cloud names a rotation that is new to us. Its word wins.
    fn on_new_rotation(&mut self, scene: &mut Scene<'_>, stage: AwaitCsr) {
        match &mut self.record.stage {
            Stage::AwaitCsr(waiting) => {
                let waited_for = std::mem::replace(&mut waiting.hold_until, stage.hold_until);
                if waited_for.is_some() {
                    self.copy_due(scene);
                }
            }
            Stage::AwaitCert(waiting) => {
                waiting.csr.unsolicited = false;
                self.csr_due(scene);
            }
            Stage::AwaitAck(_) | Stage::Done(_) => self.await_csr(scene, stage, scene.now.tick),
        }
        self.step(scene, Side::Cloud, Reason::Requested);
    }

    /// A request that names no rotation while nothing is under way: a new rotation, unless it
    /// repeats the one that has just ended or comes too soon after the last of its kind.
    fn on_anonymous_request(
        &mut self,
        scene: &mut Scene<'_>,
        nonce: Option<Nonce>,
        stage: AwaitCsr,
    ) {
        let now = scene.now;
        let repeats = matches!(&self.record.stage, Stage::Done(done)
            if done.outcome != Outcome::Nothing && done.since.is_within(DUPLICATE, now));
        let interval = scene.settings.min_interval;
        let too_soon = self.record.requested.is_some_and(|past| past.at.is_within(interval, now));
        if repeats || too_soon {
            return self.refuse(scene, Side::Cloud, Reason::TooSoon);
        }
        self.record.requested = Some(Occurred { at: Stamp::now(now) });
        self.record.rotation = None;
        self.record.nonce = nonce.filter(|_| !scene.is_core());
        self.record.began = Stamp::now(now);
        self.await_csr(scene, stage, now.tick);
        self.step(scene, Side::Cloud, Reason::Requested);
    }

    /// The CSR is to go to the cloud again, as soon as it may; the first time is planned already.
    pub fn csr_due(&mut self, scene: &Scene<'_>) {
        if self.live.csr.attempts > 0 {
            self.live.csr.hasten(scene.now.tick, CSR_APART);
        }
    }

    /// A copy is to go to the child, as soon as it may.
    pub fn copy_due(&mut self, scene: &Scene<'_>) {
        self.live.to_child.hasten(scene.now.tick, COPIES_APART);
    }

    /// `crt`.
    pub fn on_certificate(
        &mut self,
        scene: &mut Scene<'_>,
        key: KeyDigest,
        message: &CertificateMessage,
    ) {
        let waiting = match &self.record.stage {
            Stage::AwaitCert(stage) => Some(stage.csr),
            Stage::AwaitAck(stage) => Some(stage.csr),
            Stage::AwaitCsr(_) | Stage::Done(_) => None,
        };
        match waiting {
            Some(csr) if csr.key == key => self.on_fitting_certificate(scene, message),
            _ if self.record.superseded_keys.contains(&key) => {
                self.refuse(scene, Side::Cloud, Reason::SupersededKey);
                if matches!(self.record.stage, Stage::AwaitCert(_)) {
                    self.csr_due(scene);
                }
            }
            _ if self.record.current_key == Some(key) => {
                self.refuse(scene, Side::Cloud, Reason::LateCertificate);
            }
            _ => {
                self.refuse(scene, Side::Cloud, Reason::NoWaitingCsr);
                if message.header.core.as_ref() == Some(&scene.settings.core) {
                    self.report(scene, Reason::NoWaitingCsr, None);
                }
            }
        }
    }

    /// A certificate for the key that waits.
    fn on_fitting_certificate(&mut self, scene: &mut Scene<'_>, message: &CertificateMessage) {
        let settings = scene.settings;
        // What the core is called to its nucleus and the cloud is not the CN's business.
        let rule = if scene.is_core() { CommonNameRule::Any } else { settings.common_name };
        let accepted = x509::accept_certificate(
            &message.chain,
            scene.name,
            rule,
            scene.now.wall,
            settings.anchors.as_ref(),
        );
        let facts = match accepted {
            Ok(facts) => facts,
            Err(x509::Refusal(reason)) => {
                self.refuse(scene, Side::Cloud, reason);
                let id = x509::certificate_id(&message.chain[0]);
                return self.report(scene, reason, Some(id));
            }
        };
        if !matches!(message.certificate, AckName::Bare)
            && message.certificate != AckName::Named(facts.id)
        {
            // That it is the SHA-256 of the DER is how AWS does it, and promised nowhere.
            self.refuse(scene, Side::Cloud, Reason::OddCertificateId);
        }
        let csr = match &self.record.stage {
            Stage::AwaitAck(held) if held.certificate == facts.id => {
                return self.on_same_certificate(scene);
            }
            Stage::AwaitCert(stage) => stage.csr,
            Stage::AwaitAck(stage) => stage.csr,
            Stage::AwaitCsr(_) | Stage::Done(_) => return,
        };
        // One that another took the place of comes late; unless there is no other any more.
        let is_replaced = matches!(self.record.stage, Stage::AwaitAck(_));
        if is_replaced && self.record.superseded_certificates.contains(&facts.id) {
            return self.refuse(scene, Side::Cloud, Reason::Superseded);
        }
        let stage = AwaitAck {
            since: Stamp::now(scene.now),
            csr,
            certificate: facts.id,
            not_after: facts.not_after,
            anchored: settings.anchors.is_some(),
            hold_until: message.hold_until,
        };
        self.await_ack(scene, stage, message.chain.concat());
        let anchored = settings.anchors.is_some();
        let reason = if anchored { Reason::CertificateAccepted } else { Reason::Unanchored };
        self.step(scene, Side::Cloud, reason);
    }

    /// The certificate that is already held: the cloud stands by it.
    fn on_same_certificate(&mut self, scene: &mut Scene<'_>) {
        self.live.confirmed = Stamp::now(scene.now);
        self.live.csr.stop();
        self.copy_due(scene);
        self.step(scene, Side::Cloud, Reason::Repeated);
    }

    /// `result`.
    pub fn on_verdict(&mut self, scene: &mut Scene<'_>, verdict: &Verdict) {
        let rotation = self.record.rotation.as_ref();
        let fits = match verdict.about {
            Kind::CsrRes => match &self.record.stage {
                Stage::AwaitCsr(_) => is_about(verdict, None, rotation),
                Stage::AwaitCert(stage) => is_about(verdict, Some(stage.csr.mid), rotation),
                Stage::AwaitAck(stage) => is_about(verdict, Some(stage.csr.mid), rotation),
                Stage::Done(_) => false,
            },
            Kind::CrtAck => notice_fits(verdict, self.record.outbox.ack.as_deref()),
            Kind::CrtErr => notice_fits(verdict, self.record.outbox.err.as_deref()),
            Kind::CsrReq | Kind::Crt | Kind::Result => false,
        };
        match verdict.about {
            _ if !fits => self.refuse(scene, Side::Cloud, Reason::StaleResult),
            Kind::CsrRes => self.on_csr_verdict(scene, verdict),
            about => self.on_notice_verdict(scene, about, verdict),
        }
    }

    fn on_csr_verdict(&mut self, scene: &mut Scene<'_>, verdict: &Verdict) {
        if verdict.ok {
            return self.step(scene, Side::Cloud, Reason::CloudTook);
        }
        if verdict.is_final {
            let certificate = self.held_certificate();
            let (reason, code) = (Reason::CloudRefused, verdict.code.clone());
            self.done(scene, Outcome::Failed { reason, code, certificate });
            self.refuse_with(scene, Side::Cloud, Reason::CloudRefused, verdict.code.clone());
        } else {
            self.refuse_with(scene, Side::Cloud, Reason::CloudDeferred, verdict.code.clone());
        }
    }

    /// The key of the CSR that waits or was answered, if there is one.
    pub fn waiting_key(&self) -> Option<KeyDigest> {
        match &self.record.stage {
            Stage::AwaitCert(stage) => Some(stage.csr.key),
            Stage::AwaitAck(stage) => Some(stage.csr.key),
            Stage::AwaitCsr(_) | Stage::Done(_) => None,
        }
    }

    /// The certificate that waits for its ack, if there is one.
    pub fn held_certificate(&self) -> Option<CertificateId> {
        match &self.record.stage {
            Stage::AwaitAck(stage) => Some(stage.certificate),
            _ => None,
        }
    }

    /// What the signature check of the CSR found.
    pub fn on_verified(&mut self, scene: &mut Scene<'_>, outcome: Result<(), x509::Refusal>) {
        match outcome {
            Ok(()) => self.live.signature = Signature::Good,
            Err(x509::Refusal(reason)) => {
                self.live.signature = Signature::Unchecked;
                // It has just shown that it answers badly: it is asked no sooner than one that
                // does not answer.
                let pause = scene.settings.request.pause(1, scene.rng);
                self.give_up_csr(scene, reason, scene.now.tick + pause);
                self.refuse(scene, Side::Local, reason);
                self.report(scene, reason, None);
            }
        }
    }

    /// The CSR is of no use: the child is asked for another at `due`, if anybody wants one.
    fn give_up_csr(&mut self, scene: &mut Scene<'_>, reason: Reason, due: Tick) {
        let unsolicited = match &self.record.stage {
            Stage::AwaitCert(stage) => stage.csr.unsolicited,
            Stage::AwaitAck(stage) => stage.csr.unsolicited,
            Stage::AwaitCsr(_) | Stage::Done(_) => return,
        };
        let certificate = self.held_certificate();
        if unsolicited {
            self.done(scene, Outcome::Failed { reason, code: None, certificate });
        } else {
            let stage = AwaitCsr { since: Stamp::now(scene.now), hold_until: None };
            self.await_csr(scene, stage, due);
        }
    }

    /// The store does not hold the CSR or the certificate, which the child may not need any more.
    pub fn on_lost(&mut self, scene: &mut Scene<'_>, lost: Lost) {
        match lost {
            Lost::Csr(key) if self.waiting_key() == Some(key) => {
                self.give_up_csr(scene, Reason::BodyLost, scene.now.tick);
            }
            Lost::Certificate(id) if self.held_certificate() == Some(id) => self.ask_again(scene),
            Lost::Csr(_) | Lost::Certificate(_) => return,
        }
        self.note(scene, Weight::Alarm, None, Reason::BodyLost, None);
    }

    /// There is no certificate to hand over any more: the CSR goes to the cloud once more.
    pub fn ask_again(&mut self, scene: &mut Scene<'_>) {
        let Stage::AwaitAck(held) = &self.record.stage else { return };
        let (csr, certificate) = (held.csr, held.certificate);
        self.supersede_certificate(certificate);
        self.go(Stage::AwaitCert(AwaitCert { since: Stamp::now(scene.now), csr }));
        self.live.csr.restart(scene.now.tick);
    }

    /// Says again how the rotation ended: the cloud asks for it by name once more.
    fn say_again(&mut self, scene: &mut Scene<'_>) {
        let Stage::Done(done) = &self.record.stage else { return };
        match done.outcome.clone() {
            Outcome::Acked { certificate, proof, sig, .. } => match &self.record.outbox.ack {
                Some(_) => self.live.ack.hasten(scene.now.tick, CSR_APART),
                None => self.say_acked(scene, certificate, proof, sig),
            },
            Outcome::Failed { reason, code, certificate } => match &self.record.outbox.err {
                Some(_) => self.live.err.hasten(scene.now.tick, CSR_APART),
                None => {
                    let code = code.as_deref().unwrap_or(reason.as_str());
                    let words = reason.explain();
                    let error = Complaint { code, words, certificate, rotation: None };
                    self.say_failed(scene, error, scene.now.tick);
                }
            },
            Outcome::Nothing => {}
        }
        self.step(scene, Side::Cloud, Reason::Repeated);
    }
}

fn is_refused_by_cloud(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { reason: Reason::CloudRefused, .. })
}

/// Whether a `result` is about the message with this id, or about this rotation.
fn is_about(verdict: &Verdict, mid: Option<Mid>, rotation: Option<&RotationId>) -> bool {
    let header = &verdict.header;
    match header.mid {
        Some(theirs) => mid == Some(theirs),
        None => header.rotation.is_some() && header.rotation.as_ref() == rotation,
    }
}

fn notice_fits(verdict: &Verdict, notice: Option<&Notice>) -> bool {
    notice.is_some_and(|n| is_about(verdict, Some(n.mid), n.rotation.as_ref()))
}
