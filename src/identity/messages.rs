//! What the identity makes of `csr_req`, `crt`, and what people ask for.

use std::time::Duration;

use super::{
    Command, Complaint, Effect, Identity, Job, Say, Stage, Told,
    machine::{Here, Task},
};
use crate::{
    install::Generation,
    reason::Reason,
    schedule::Now,
    wire::{CertificateId, CertificateMessage, CsrReq, KeyDigest, Kind, PayloadError, RotationId},
    x509::{self, CertificateFacts},
};

/// A request that is repeated for this long gets the same CSR.
const CSR_LIFETIME: Duration = Duration::from_secs(86_400);

impl Identity {
    /// What the relay has for the core; nothing is under way, and everything is saved.
    pub(super) fn on_message(
        &mut self,
        now: Now,
        kind: Kind,
        payload: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let outcome = match kind {
            Kind::CsrReq => CsrReq::parse(payload)
                .map(|request| self.on_request(now, request.header.rotation, effects)),
            Kind::Crt => CertificateMessage::parse(payload)
                .map(|message| self.on_certificate(&message, effects)),
            Kind::CsrRes | Kind::CrtAck | Kind::CrtErr | Kind::Result => return,
        };
        if let Err(PayloadError::TooLarge { .. }) = outcome {
            effects.push(Effect::Tell(Told::Ignored(Reason::TooLarge)));
        } else if outcome.is_err() {
            effects.push(Effect::Tell(Told::Ignored(Reason::Unreadable)));
        }
    }

    /// A repeated request gets the same CSR for a day. Once a pair is installed it is too late for
    /// another: the relay asks again when that is over.
    fn on_request(&mut self, now: Now, rotation: Option<RotationId>, effects: &mut Vec<Effect>) {
        if matches!(
            self.saved.stage,
            Stage::Installed(_) | Stage::Confirming(_) | Stage::RollingBack(_)
        ) {
            return effects.push(Effect::Tell(Told::Ignored(Reason::TooSoon)));
        }
        let lifetime = CSR_LIFETIME;
        match &mut self.csr {
            Some(csr)
                if self.saved.stage.generation().is_some()
                    && !csr.made.is_older_than(lifetime, now) =>
            {
                self.csr_due = true;
                self.retag(rotation);
            }
            _ => self.begin(rotation, effects),
        }
    }

    /// Begins a rotation, in place of one that has come to no installed pair.
    fn begin(&mut self, rotation: Option<RotationId>, effects: &mut Vec<Effect>) {
        self.start(Task::Preflight(rotation), Job::Preflight, effects);
    }

    fn retag(&mut self, newer: Option<RotationId>) {
        let Some(newer) = newer else { return };
        match &mut self.saved.stage {
            Stage::AwaitCertificate(waiting) => waiting.rotation = Some(newer),
            Stage::Probing(stage) => stage.candidate.rotation = Some(newer),
            Stage::AwaitWindow(stage) => stage.candidate.rotation = Some(newer),
            Stage::Idle | Stage::Installed(_) | Stage::Confirming(_) | Stage::RollingBack(_) => {}
        }
    }

    /// Has the relay take the CSR, which is durable.
    pub(super) fn say_csr(&mut self, effects: &mut Vec<Effect>) -> bool {
        if !std::mem::take(&mut self.csr_due) {
            return false;
        }
        let Some(csr) = &self.csr else { return false };
        let rotation = match &self.saved.stage {
            Stage::AwaitCertificate(waiting) => waiting.rotation.clone(),
            stage => stage.candidate().and_then(|candidate| candidate.rotation.clone()),
        };
        let csr = csr.der.clone();
        self.say(Say::Csr { csr, rotation }, effects);
        true
    }

    fn on_certificate(&mut self, message: &CertificateMessage, effects: &mut Vec<Effect>) {
        let rotation = message.header.rotation.clone();
        let leaf = message.chain.first().map_or(&[][..], Vec::as_slice);
        let facts = match x509::read_certificate(leaf) {
            Ok(facts) => facts,
            Err(refusal) => return self.refuse(refusal.0, None, rotation, effects),
        };
        if self.is_under_way(facts.id) {
            return self.retag(rotation);
        }
        if self.is_in_use(facts.id) {
            return self.on_current(&facts, rotation, effects);
        }
        if let Some(why) = self.failed_before(facts.id) {
            return self.complain(why, Some(facts.id), rotation, true, effects);
        }
        if let Some(generation) = self.waits_for(facts.key) {
            let chain = message.chain.clone();
            let job = Job::StoreCertificate { generation, chain };
            return self.start(Task::Storing(generation, rotation), job, effects);
        }
        if self.is_installed() {
            return effects.push(Effect::Tell(Told::Ignored(Reason::LateCertificate)));
        }
        self.refuse(Reason::NoWaitingCsr, Some(facts.id), rotation, effects);
    }

    fn is_under_way(&self, certificate: CertificateId) -> bool {
        let candidate = self.saved.stage.candidate();
        candidate.is_some_and(|candidate| candidate.certificate == certificate)
    }

    /// Whether a certificate is that under the configured paths, and no new one stands there.
    fn is_in_use(&self, certificate: CertificateId) -> bool {
        let is = |here: &Here| here.configured.id == certificate;
        !self.is_installed() && self.here.as_ref().is_some_and(is)
    }

    /// The certificate that is in use anyway: the cloud may answer a CSR of the same key with it.
    /// To try it as a new one could only end in a failure of the pair in use.
    fn on_current(
        &mut self,
        facts: &CertificateFacts,
        rotation: Option<RotationId>,
        effects: &mut Vec<Effect>,
    ) {
        let certificate = facts.id;
        let ended = self.saved.ended.as_ref();
        let is_confirmed = ended
            .is_some_and(|ended| ended.certificate == Some(certificate) && ended.failed.is_none());
        if !is_confirmed {
            // Nothing proves that the nucleus uses it; and it must not be named as one that failed.
            let why = "the certificate that came is the one that is configured already".to_owned();
            let why = Complaint { code: Reason::LateCertificate, error: why };
            effects.push(Effect::Tell(Told::Ignored(Reason::LateCertificate)));
            return self.complain(why, None, rotation, false, effects);
        }
        if self.waits_for(facts.key).is_some() {
            self.drop_stage();
        }
        self.say(Say::Acked { certificate, rotation }, effects);
    }

    /// The generation that waits for a certificate of this key, or could do with another one.
    fn waits_for(&self, key: KeyDigest) -> Option<Generation> {
        match &self.saved.stage {
            Stage::AwaitCertificate(waiting) if waiting.key == key => Some(waiting.generation),
            Stage::Probing(stage) if stage.candidate.key == key => Some(stage.candidate.generation),
            Stage::AwaitWindow(stage) if stage.candidate.key == key => {
                Some(stage.candidate.generation)
            }
            _ => None,
        }
    }

    /// Why a certificate was given up, if it was. The cloud was told, and may have ended it: it is
    /// not tried again, even if its key waits once more.
    fn failed_before(&self, certificate: CertificateId) -> Option<Complaint> {
        let ended = self.saved.ended.as_ref();
        ended.filter(|ended| ended.certificate == Some(certificate))?.failed.clone()
    }

    fn is_installed(&self) -> bool {
        matches!(
            self.saved.stage,
            Stage::Installed(_) | Stage::Confirming(_) | Stage::RollingBack(_)
        )
    }

    fn refuse(
        &mut self,
        reason: Reason,
        certificate: Option<CertificateId>,
        rotation: Option<RotationId>,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Tell(Told::Ignored(reason)));
        let why = Complaint { code: reason, error: reason.explain().to_owned() };
        self.complain(why, certificate, rotation, true, effects);
    }

    /// Does what somebody asks for. `None`: the answer comes when it is done.
    pub(super) fn obey(
        &mut self,
        now: Now,
        command: Command,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<String, String>> {
        let stage = self.saved.stage.name();
        if self.here.is_none() {
            let why = self.blocked.as_ref().map(ToString::to_string);
            let why = why.unwrap_or_else(|| "the credential is being looked for".to_owned());
            return Some(Err(why));
        }
        match command {
            Command::Rotate => Some(self.rotate(stage, effects)),
            Command::RestartNow => Some(self.restart_now(stage)),
            Command::Rollback => Some(self.roll_back_by_hand(now, effects)),
            Command::Detach if matches!(self.saved.stage, Stage::Idle) && !self.is_busy() => None,
            Command::Detach => Some(Err(format!(
                "a rotation is under way ({stage}): wait for its end, or give it up with `certrelay core rollback`"
            ))),
        }
    }

    fn rotate(&mut self, stage: &str, effects: &mut Vec<Effect>) -> Result<String, String> {
        if !matches!(self.saved.stage, Stage::Idle) || self.is_busy() || self.detach {
            return Err(format!("a rotation is under way already ({stage})"));
        }
        self.begin(None, effects);
        Ok("a new key is being made; `certrelay core show` tells how it goes on".to_owned())
    }

    fn restart_now(&mut self, stage: &str) -> Result<String, String> {
        if !matches!(
            self.saved.stage,
            Stage::AwaitWindow(_) | Stage::Installed(_) | Stage::RollingBack(_)
        ) {
            return Err(format!("no new pair waits for a restart ({stage})"));
        }
        self.forced = true;
        Ok("the window is passed over; `certrelay core show` tells what else it waits for".into())
    }
}
