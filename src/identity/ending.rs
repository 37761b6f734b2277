//! How a rotation ends, what the cloud is told of it, and what is kept after.

use super::{Complaint, Effect, Ended, Identity, Kept, Say, Stage, Told};
use crate::{
    install::Generation,
    reason::Reason,
    schedule::{Now, Stamp},
    wire::{CertificateId, RotationId},
};

impl Identity {
    /// Gives the rotation under way up.
    pub(super) fn give_up(&mut self, now: Now, why: Complaint, effects: &mut Vec<Effect>) {
        let stage = std::mem::take(&mut self.saved.stage);
        let (certificate, rotation) = match &stage {
            Stage::AwaitCertificate(waiting) => (None, waiting.rotation.clone()),
            other => other.candidate().map_or((None, None), |candidate| {
                (Some(candidate.certificate), candidate.rotation.clone())
            }),
        };
        self.wipes.extend(stage.generation());
        (self.csr, self.csr_due, self.forced) = (None, false, false);
        effects.push(Effect::Tell(Told::GaveUp(certificate, why.code)));
        self.end(now, certificate, rotation, Some(why));
    }

    pub(super) fn end(
        &mut self,
        now: Now,
        certificate: Option<CertificateId>,
        rotation: Option<RotationId>,
        failed: Option<Complaint>,
    ) {
        let told = failed.is_none();
        self.saved.ended = Some(Ended { certificate, rotation, failed, told, at: now.wall });
    }

    /// Says something to the relay.
    pub(super) fn say(&mut self, say: Say, effects: &mut Vec<Effect>) {
        self.said.push_back(say.clone());
        effects.push(Effect::Say(say));
    }

    /// That a rotation failed is said once it is saved: what was said can't be taken back. And it
    /// is said again until the relay has it.
    pub(super) fn untold(&self) -> Option<Say> {
        self.end_to_tell().filter(|say| !self.said.contains(say))
    }

    fn end_to_tell(&self) -> Option<Say> {
        let ended = self.saved.ended.as_ref().filter(|ended| !ended.told)?;
        let (certificate, rotation) = (ended.certificate, ended.rotation.clone());
        let why = ended.failed.clone()?;
        Some(Say::Failed { why, certificate, rotation, ends: true })
    }

    /// The relay has the first of what was said and not taken yet.
    pub(super) fn on_taken(&mut self) {
        let taken = self.said.pop_front();
        if taken.is_some()
            && taken == self.end_to_tell()
            && let Some(ended) = &mut self.saved.ended
        {
            ended.told = true;
        }
    }

    /// The relay has lost what it had not taken. It asks anew for all but a CSR.
    pub(super) fn on_forgotten(&mut self) {
        self.said.clear();
        self.csr_due = self.csr.is_some() && self.saved.stage.generation().is_some();
    }

    /// The relay has nothing of this certificate any more: the cloud took it back, or it came to
    /// nothing in time.
    pub(super) fn on_withdrawn(&mut self, certificate: CertificateId, effects: &mut Vec<Effect>) {
        let is_tried = matches!(self.saved.stage, Stage::Probing(_) | Stage::AwaitWindow(_));
        let candidate = self.saved.stage.candidate().filter(|_| is_tried);
        if candidate.is_some_and(|candidate| candidate.certificate == certificate) {
            self.drop_stage();
            effects.push(Effect::Tell(Told::GaveUp(Some(certificate), Reason::CloudRefused)));
        }
    }

    /// Nothing is under way any more.
    pub(super) fn drop_stage(&mut self) {
        self.wipes.extend(std::mem::take(&mut self.saved.stage).generation());
        (self.csr, self.csr_due, self.forced) = (None, false, false);
    }

    /// Keeps the pair before, until the ack of `certificate` is settled.
    pub(super) fn keep(&mut self, now: Now, generation: Generation, certificate: CertificateId) {
        self.kept = Some(Stamp::now(now));
        self.saved.kept = Some(Kept { generation, until_settled: certificate, since: now.wall });
    }

    /// What was kept is needed again.
    pub(super) fn forget_kept(&mut self) {
        (self.kept, self.saved.kept) = (None, None);
    }

    /// What is kept is not any more.
    pub(super) fn wipe_kept(&mut self, effects: &mut Vec<Effect>) {
        self.kept = None;
        if let Some(kept) = self.saved.kept.take() {
            self.wipes.push(kept.generation);
            effects.push(Effect::Tell(Told::Wiped));
        }
    }

    pub(super) fn complain_of_candidate(&mut self, why: Complaint, effects: &mut Vec<Effect>) {
        let candidate = self.saved.stage.candidate();
        let rotation = candidate.and_then(|candidate| candidate.rotation.clone());
        let certificate = candidate.map(|candidate| candidate.certificate);
        self.complain(why, certificate, rotation, false, effects);
    }

    pub(super) fn complain(
        &mut self,
        why: Complaint,
        certificate: Option<CertificateId>,
        rotation: Option<RotationId>,
        ends: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.say(Say::Failed { why, certificate, rotation, ends }, effects);
    }
}

pub(super) fn lost() -> Complaint {
    let error = "the new key or certificate is gone from the disk".to_owned();
    Complaint { code: Reason::BodyLost, error }
}
