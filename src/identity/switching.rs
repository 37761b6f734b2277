//! The way of a new pair into use, and back: install, restart, and what a later life makes of it.

use std::time::Duration;

use super::{
    AwaitWindow, Candidate, Complaint, Conditions, Confirming, Effect, Hold, Identity, Installed,
    Job, Probing, Proof, RollingBack, RunId, Say, Stage, Told, ending::lost, machine::Task,
    probing::FRESH,
};
use crate::{
    install::Generation,
    reason::Reason,
    relay::CloudState,
    schedule::{Now, Tick},
    x509::CertificateFacts,
};

/// A restart that was asked for comes in this time, or it did not work.
const COMES: Duration = Duration::from_secs(300);

/// A restart that did not come is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(900);

/// A restart that was noted is asked for in this time, or noted anew: a day is counted from there.
const NOTED_FOR: Duration = Duration::from_secs(5);

/// The restart that was asked for in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    /// It was noted as asked for then; the command is next.
    noted: Option<Tick>,
    /// It is to come by then.
    comes_by: Option<Tick>,
    /// It is not asked for before then.
    not_before: Tick,
    /// The cloud was told that it does not come.
    told: bool,
}

impl Identity {
    pub(super) fn on_conditions(&mut self, _now: Now, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Whether the nucleus must not be disturbed by a deployment now: the pair is switched and the
    /// restart is about to come.
    pub fn is_critical(&self) -> bool {
        let is_switching = matches!(self.saved.stage, Stage::Installed(_) | Stage::RollingBack(_));
        is_switching && (self.is_busy() || self.restart.comes_by.is_some())
    }

    /// When the stage has something to do next.
    pub(super) fn next_try(&self, now: Now) -> Option<Tick> {
        match self.saved.stage {
            Stage::Idle | Stage::AwaitCertificate(_) => None,
            Stage::AwaitWindow(_) => self.limit_ends(now),
            Stage::Probing(_) | Stage::Confirming(_) => Some(self.next_probe()),
            Stage::Installed(_) | Stage::RollingBack(_) => {
                let probe = self.is_watched().then(|| self.next_probe());
                let pause = Some(self.restart.not_before).filter(|tick| *tick > now.tick);
                let restart = self.restart.comes_by.or(pause).or_else(|| self.limit_ends(now));
                restart.into_iter().chain(probe).min()
            }
        }
    }

    /// Why the nucleus is not restarted now, if it is not. `spare`: so many restarts of the day are
    /// to be left after this one.
    pub(super) fn hold(&self, now: Now, spare: usize) -> Option<Hold> {
        let Some(restarts) = self.now(now).map(|now| self.saved.restarts.within_a_day(&now)) else {
            return Some(Hold::Nucleus);
        };
        let is_limit = || (restarts + spare >= self.most_restarts()).then_some(Hold::RestartLimit);
        self.stands_against(now).or_else(is_limit)
    }

    /// The same, but for the restarts of the day.
    fn stands_against(&self, now: Now) -> Option<Hold> {
        let Conditions { nucleus, link, deployment, window } = self.conditions;
        if deployment || matches!(self.saved.stage, Stage::RollingBack(_)) {
            return deployment.then_some(Hold::Deployment);
        }
        let is_fresh = self.proven.is_some_and(|at| now.tick - at < FRESH);
        let is_reached = match link {
            CloudState::Up => true,
            CloudState::Unknown => is_fresh || matches!(self.saved.stage, Stage::Installed(_)),
            CloudState::Down => false,
        };
        match () {
            () if !nucleus => Some(Hold::Nucleus),
            () if !is_reached => Some(Hold::Link),
            () if !window && !self.forced => Some(Hold::Window),
            () => None,
        }
    }

    fn most_restarts(&self) -> usize {
        usize::try_from(self.settings.max_restarts).unwrap_or(usize::MAX)
    }

    /// When the restarts of the day are few enough again, if that is all that it waits for.
    fn limit_ends(&self, now: Now) -> Option<Tick> {
        let spare = self.spare();
        if self.hold(now, spare) != Some(Hold::RestartLimit) {
            return None;
        }
        let below = self.most_restarts().saturating_sub(spare);
        let instant = self.now(now)?;
        self.saved.restarts.fewer_in(&instant, below).map(|left| now.tick + left)
    }

    /// So many restarts of the day are left after this one: a pair that is installed may have to
    /// go again.
    pub(super) fn spare(&self) -> usize {
        usize::from(!matches!(self.saved.stage, Stage::RollingBack(_)))
    }

    /// Installs the new pair, once the nucleus may be restarted after it.
    pub(super) fn install(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Stage::AwaitWindow(AwaitWindow { candidate, proof }) = &self.saved.stage else {
            return false;
        };
        if now.wall.is_some_and(|wall| wall >= candidate.not_after) {
            let error = Reason::Expired.explain().to_owned();
            self.give_up(now, Complaint { code: Reason::Expired, error }, effects);
            return true;
        }
        // One restart of the day is left for the way back.
        if self.hold_but_probe(now, *proof).is_some() {
            return false;
        }
        let is_fresh = self.proven.is_some_and(|at| now.tick - at < FRESH);
        if *proof == Proof::Probed && !is_fresh {
            self.saved.stage = Stage::Probing(Probing { candidate: candidate.clone() });
            self.begin_rounds(now);
        } else {
            self.start(Task::Attaching, Job::Attach, effects);
        }
        true
    }

    /// What stands against a restart, but that the last probe is old: that can be helped.
    fn hold_but_probe(&self, now: Now, proof: Proof) -> Option<Hold> {
        let can_tell = proof == Proof::Probed && self.conditions.link == CloudState::Unknown;
        self.hold(now, 1).filter(|hold| !(can_tell && *hold == Hold::Link))
    }

    pub(super) fn on_attached(&mut self, now: Now, current: Generation, effects: &mut Vec<Effect>) {
        if let Some(here) = &mut self.here {
            here.current = Some(current);
            here.youngest = here.youngest.max(current);
        }
        let Some(run) = self.life.run.clone() else { return };
        if let Stage::AwaitWindow(AwaitWindow { candidate, proof }) = &self.saved.stage {
            let (candidate, proof) = (candidate.clone(), *proof);
            let stage = Installed { candidate, proof, previous: current, before: run };
            self.saved.stage = Stage::Installed(stage);
            self.restart = Asked { not_before: now.tick, ..Asked::default() };
            let older = self.saved.kept.as_ref().filter(|kept| kept.generation != current);
            match older.is_some() {
                true => self.wipe_kept(effects),
                false => self.forget_kept(),
            }
        }
    }

    /// Switches and restarts, one after the other.
    pub(super) fn go_on(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Stage::Installed(stage) = &self.saved.stage else { return false };
        let (to, before) = (stage.candidate.generation, stage.before.clone());
        self.switch_and_restart(now, to, &before, effects)
    }

    /// Whether a pair that no restart has brought into use may be at fault for a lost link: some
    /// nuclei load it when they reconnect.
    pub(super) fn is_watched(&self) -> bool {
        let Stage::Installed(stage) = &self.saved.stage else { return false };
        let current = self.here.as_ref().and_then(|here| here.current);
        self.conditions.link == CloudState::Down && current == Some(stage.candidate.generation)
    }

    /// The same, back to the old pair.
    pub(super) fn go_back(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Stage::RollingBack(stage) = &self.saved.stage else { return false };
        let (to, before) = (stage.to, stage.before.clone());
        self.switch_and_restart(now, to, &before, effects)
    }

    fn switch_and_restart(
        &mut self,
        now: Now,
        to: Generation,
        before: &RunId,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.restart.comes_by.is_some_and(|by| by <= now.tick) {
            let error = "the restart was asked for five minutes ago; the nucleus still runs: \
                         check core.restartCommand"
                .to_owned();
            let why = Complaint { code: Reason::RestartFailed, error };
            self.on_restart_failed(now, why, effects);
        }
        if self.restart.comes_by.is_some() || self.restart.not_before > now.tick {
            return false;
        }
        let is_switched = self.here.as_ref().is_some_and(|here| here.current == Some(to));
        let is_late = |noted: Tick| now.tick - noted > NOTED_FOR;
        let has_changed = |noted| is_late(noted) || self.stands_against(now).is_some();
        if self.restart.noted.is_some_and(has_changed) {
            // Something came up while it was saved. It counts all the same.
            self.restart.noted = None;
        }
        if self.restart.noted.is_some() {
            self.start(Task::Restarting, Job::Restart, effects);
            effects.push(Effect::Tell(Told::Restarting));
            return true;
        }
        if self.hold(now, self.spare()).is_some() {
            return false;
        }
        if is_switched {
            return self.note_restart(now);
        }
        if self.life.run.as_ref() != Some(before) {
            // The life in which the switch is made is the one that does not know the pair.
            return self.switch_in_this_life();
        }
        self.start(Task::Switching(to), Job::Switch { generation: to }, effects);
        true
    }

    fn switch_in_this_life(&mut self) -> bool {
        let Some(run) = self.life.run.clone() else { return false };
        match &mut self.saved.stage {
            Stage::Installed(stage) => stage.before = run,
            Stage::RollingBack(stage) => stage.before = run,
            _ => return false,
        }
        true
    }

    fn note_restart(&mut self, now: Now) -> bool {
        let Some(run) = self.life.run.clone() else { return false };
        let uptime = self.life.uptime + (now.tick - Tick(0));
        let instant = super::Instant { boot: &run.boot, uptime, wall: now.wall };
        self.saved.restarts.note(&instant);
        self.restart.noted = Some(now.tick);
        true
    }

    pub(super) fn on_switched(
        &mut self,
        now: Now,
        to: Generation,
        facts: CertificateFacts,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(here) = &mut self.here {
            (here.current, here.configured) = (Some(to), facts);
        }
        if let Stage::Installed(stage) = &self.saved.stage {
            effects.push(Effect::Tell(Told::Switched(stage.candidate.certificate)));
            self.begin_watch(now);
        }
    }

    /// A pair that the nucleus could not read is of no use; what else failed may work later.
    pub(super) fn on_switch_failed(&mut self, now: Now, why: Complaint, effects: &mut Vec<Effect>) {
        let is_new = matches!(self.saved.stage, Stage::Installed(_));
        if is_new && why.code == Reason::NotReadable {
            self.give_up(now, why, effects);
        } else {
            self.complain_of_candidate(why, effects);
        }
    }

    pub(super) fn on_restart_asked(&mut self, now: Now) {
        self.restart.noted = None;
        self.restart.comes_by = Some(now.tick + COMES);
    }

    /// No restart came of it. It is asked for again, and the cloud told once.
    pub(super) fn on_restart_failed(
        &mut self,
        now: Now,
        why: Complaint,
        effects: &mut Vec<Effect>,
    ) {
        let told = std::mem::replace(&mut self.restart.told, true);
        self.restart = Asked { not_before: now.tick + AGAIN, told: true, ..Asked::default() };
        if !told {
            self.complain_of_candidate(why, effects);
        }
    }

    /// A later life finds a switch begun.
    pub(super) fn take_up_switch(&mut self, now: Now, is_whole: bool, effects: &mut Vec<Effect>) {
        let current = self.here.as_ref().and_then(|here| here.current);
        let run = self.life.run.clone();
        let is_later = |before: &RunId| run.as_ref().is_some_and(|run| run.is_after(before));
        match self.saved.stage.clone() {
            _ if current.is_none() => self.give_way(now, effects),
            Stage::Installed(stage) if is_later(&stage.before) => {
                let Installed { candidate, proof, previous, .. } = stage;
                if current == Some(candidate.generation) {
                    effects.push(Effect::Tell(Told::Restarted(candidate.certificate)));
                    self.saved.stage = Stage::Confirming(Confirming { candidate, proof, previous });
                    self.begin_watch(now);
                }
            }
            Stage::Installed(stage) if !is_whole && current == Some(stage.previous) => {
                self.give_up(now, lost(), effects);
            }
            Stage::Confirming(_) if !is_whole => self.roll_back(lost(), effects),
            Stage::Confirming(stage) if current == Some(stage.candidate.generation) => {
                self.begin_watch(now);
            }
            Stage::Confirming(_) => self.give_way(now, effects),
            Stage::RollingBack(stage) if is_later(&stage.before) && current == Some(stage.to) => {
                self.rolled_back(now, stage, effects);
            }
            Stage::Installed(stage) if current == Some(stage.candidate.generation) => {
                self.begin_watch(now);
                self.take_up_restart(now);
            }
            Stage::RollingBack(stage) if current == Some(stage.to) => self.take_up_restart(now),
            _ => {}
        }
    }

    /// A restart that an earlier process asked for may still come. If it does not, that is told:
    /// a command that restarts this component alone would else go unnoticed.
    fn take_up_restart(&mut self, now: Now) {
        let age = self.now(now).and_then(|instant| self.saved.restarts.since_last(&instant));
        if let Some(age) = age {
            if age < COMES {
                self.restart.comes_by = Some(now.tick + (COMES - age));
            } else {
                self.restart.not_before = now.tick + (COMES + AGAIN).saturating_sub(age);
            }
        }
    }

    /// Somebody has put other files under the configured paths: they are the truth.
    fn give_way(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let error = "the configured files were replaced by hand".to_owned();
        self.give_up(now, Complaint { code: Reason::Superseded, error }, effects);
    }

    /// The nucleus reaches the cloud with the new pair.
    pub(super) fn confirmed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Stage::Confirming(stage) = std::mem::take(&mut self.saved.stage) else { return };
        let Candidate { certificate, rotation, .. } = stage.candidate;
        self.keep(now, stage.previous, certificate);
        self.end(now, Some(certificate), rotation.clone(), None);
        (self.csr, self.forced) = (None, false);
        effects.push(Effect::Tell(Told::Confirmed(certificate)));
        self.say(Say::Acked { certificate, rotation }, effects);
    }

    /// The new pair strands the gateway, or somebody says so: the old one comes back.
    pub(super) fn roll_back(&mut self, why: Complaint, effects: &mut Vec<Effect>) {
        let Some(run) = self.life.run.clone() else { return };
        let (candidate, to) = match &self.saved.stage {
            Stage::Installed(stage) => (stage.candidate.clone(), stage.previous),
            Stage::Confirming(stage) => (stage.candidate.clone(), stage.previous),
            _ => return,
        };
        self.begin_rollback(candidate, to, run, why, effects);
    }

    fn begin_rollback(
        &mut self,
        candidate: Candidate,
        to: Generation,
        before: RunId,
        why: Complaint,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Tell(Told::RollingBack(candidate.certificate, why.code)));
        self.restart = Asked::default();
        self.saved.stage = Stage::RollingBack(RollingBack { candidate, to, before, why });
    }

    /// The nucleus uses the old pair again.
    fn rolled_back(&mut self, now: Now, stage: RollingBack, effects: &mut Vec<Effect>) {
        self.give_up(now, stage.why, effects);
    }

    /// Goes back by hand, whatever the stage.
    pub(super) fn roll_back_by_hand(
        &mut self,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let error = "somebody ran `certrelay core rollback`".to_owned();
        let why = Complaint { code: Reason::RolledBackByHand, error };
        match &self.saved.stage {
            Stage::AwaitCertificate(_) | Stage::Probing(_) | Stage::AwaitWindow(_) => {
                if self.is_busy() {
                    return Err("something is being done right now: try again in a moment".into());
                }
                self.give_up(now, why, effects);
                Ok("the rotation is given up; the pair in use stays".to_owned())
            }
            Stage::Installed(_) | Stage::Confirming(_) => {
                if self.is_busy() {
                    return Err("something is being done right now: try again in a moment".into());
                }
                self.roll_back(why, effects);
                Ok("the old pair comes back, and the nucleus is restarted".to_owned())
            }
            Stage::RollingBack(_) => Err("the old pair is on its way back already".to_owned()),
            Stage::Idle => self.back_to_kept(why, effects),
        }
    }

    /// Goes back to the pair before the last rotation, while that is kept.
    fn back_to_kept(
        &mut self,
        why: Complaint,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        const NONE: &str = "no pair before this one is kept: the cloud has settled the rotation, \
                            or there was none";
        if self.is_busy() {
            return Err("something is being done right now: try again in a moment".to_owned());
        }
        let here = self.here.as_ref().and_then(|here| here.current.zip(Some(here.configured)));
        let (Some((generation, facts)), Some(run)) = (here, self.life.run.clone()) else {
            return Err(NONE.to_owned());
        };
        let Some(kept) = self.saved.kept.take() else { return Err(NONE.to_owned()) };
        let ended = self.saved.ended.as_ref();
        let candidate = Candidate {
            generation,
            key: facts.key,
            certificate: facts.id,
            not_after: facts.not_after,
            rotation: ended.and_then(|ended| ended.rotation.clone()),
        };
        self.forget_kept();
        self.begin_rollback(candidate, kept.generation, run, why, effects);
        Ok("the pair before comes back, and the nucleus is restarted".to_owned())
    }
}
