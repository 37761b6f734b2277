//! What is tried of a new pair, and what that proves.
//!
//! A refusal proves nothing by itself: the cloud may have changed its mind about the whole device,
//! or a policy may permit no probe. So after each refusal the pair that is in use, or was, is tried
//! as the control. Only a refusal beside an acceptance counts.

use std::time::Duration;

use super::{
    AwaitWindow, Complaint, Effect, Failure, Identity, Pair, ProbeName, Probed, Probing, Proof,
    Stage, Tally, Threshold, Told,
};
use crate::{
    install::Generation,
    reason::Reason,
    relay::CloudState,
    schedule::{Backoff, Now, Tick},
    wire::escape,
};

/// A new pair is given up when it was refused so often where the one in use was taken. As often,
/// both refused mean that no probe is permitted.
const BAD: Threshold = Threshold { times: 5, over: Duration::from_secs(600) };

/// After the restart the old pair comes back when it was taken so often where the new was refused.
const STRANDED: Threshold = Threshold { times: 3, over: Duration::from_secs(600) };

/// Without a loopback the new pair counts as confirmed when it was taken so often after the restart.
const TAKEN: Threshold = Threshold { times: 3, over: Duration::from_secs(600) };

/// Pauses between probes.
const PAUSE: Backoff =
    Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(240) };

/// The nucleus gets so long to reach the cloud before anything is tried beside it …
const PATIENCE: Duration = Duration::from_secs(120);

/// … and so long before its own name is used for that.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// A probe is good for so long: then it is made anew before the pair is installed.
pub(super) const FRESH: Duration = Duration::from_secs(600);

/// What was found so far, in this life.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The next probe is due then.
    due: Tick,
    /// The new pair was refused just now; the control is to be tried.
    refused: Option<String>,
    tries: u32,
    /// Why the cloud could not be asked, the last time.
    blind: Option<String>,
    /// Refused, and the control taken.
    bad: Tally,
    /// Refused, both.
    both: Tally,
    /// Beside the nucleus nothing can be learnt any more.
    in_place: bool,
    /// Taken.
    taken: Tally,
    /// When the rounds began.
    since: Tick,
}

/// A probe under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    pub name: ProbeName,
    /// It is that of the old pair.
    pub is_control: bool,
}

impl Identity {
    /// Begins to try the new pair.
    pub(super) fn begin_rounds(&mut self, now: Now) {
        self.rounds = Rounds { due: now.tick, since: now.tick, ..Rounds::default() };
        self.proven = None;
    }

    /// Begins to watch over the new pair after the restart.
    pub(super) fn begin_watch(&mut self, now: Now) {
        self.begin_rounds(now);
        self.rounds.due = now.tick + PATIENCE;
    }

    /// Why the cloud can't be asked about the new pair, if it can't.
    pub(super) fn blind(&self) -> Option<Failure> {
        let detail = self.rounds.blind.as_deref().map(escape)?;
        Some(Failure { reason: Reason::ProbeUnreachable, detail })
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Tick {
        self.rounds.due
    }

    /// Tries the new pair before it is installed.
    pub(super) fn try_new(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Stage::Probing(Probing { candidate }) = &self.saved.stage else { return false };
        let candidate = Pair::Generation(candidate.generation);
        self.try_pair(now, ProbeName::Beside, candidate, Pair::Configured, effects)
    }

    /// Whether the new pair is in use and reaches the cloud; else it is tried, beside the old one.
    pub(super) fn confirm(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        let Stage::Confirming(stage) = &self.saved.stage else { return false };
        let (new, old) = (stage.candidate.generation, stage.previous);
        let is_taken = self.rounds.taken.is_enough(TAKEN, now.tick);
        let reaches = match self.conditions.link {
            CloudState::Up => true,
            CloudState::Unknown => is_taken,
            CloudState::Down => false,
        };
        if reaches && self.conditions.nucleus {
            self.confirmed(now, effects);
            return true;
        }
        let proof = stage.proof;
        self.watch(now, proof, new, old, effects)
    }

    /// Tries the new pair beside the old one where a nucleus that was not restarted has no link.
    pub(super) fn watch_installed(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        if !self.is_watched() {
            return false;
        }
        let Stage::Installed(stage) = &self.saved.stage else { return false };
        let (proof, new, old) = (stage.proof, stage.candidate.generation, stage.previous);
        self.watch(now, proof, new, old, effects)
    }

    fn watch(
        &mut self,
        now: Now,
        proof: Proof,
        new: Generation,
        old: Generation,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let name = match proof {
            Proof::Probed if !self.rounds.in_place => ProbeName::Beside,
            Proof::Probed | Proof::NotPermitted => ProbeName::InPlace,
        };
        let is_early = now.tick - self.rounds.since < LONG_PATIENCE;
        if name == ProbeName::InPlace && is_early {
            self.rounds.due = self.rounds.due.max(self.rounds.since + LONG_PATIENCE);
        }
        self.try_pair(now, name, Pair::Generation(new), Pair::Generation(old), effects)
    }

    fn try_pair(
        &mut self,
        now: Now,
        name: ProbeName,
        new: Pair,
        control: Pair,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.rounds.refused.is_some() {
            self.probe(Tried { name, is_control: true }, control, effects);
        } else if self.rounds.due <= now.tick {
            self.probe(Tried { name, is_control: false }, new, effects);
        } else {
            return false;
        }
        true
    }

    pub(super) fn on_probed(
        &mut self,
        now: Now,
        tried: Tried,
        probed: Probed,
        effects: &mut Vec<Effect>,
    ) {
        let refused = self.rounds.refused.take();
        self.rounds.blind = None;
        self.rounds.tries = self.rounds.tries.saturating_add(1);
        let pause = PAUSE.pause(self.rounds.tries, &mut self.rng);
        self.rounds.due = now.tick + pause;
        match (tried.is_control, probed, refused) {
            (_, Probed::Unreachable { why }, _) => {
                self.rounds.blind = Some(why.clone());
                effects.push(Effect::Tell(Told::ProbeFailed(why)));
            }
            (false, Probed::Accepted, _) => self.on_accepted(now, effects),
            (false, Probed::Refused { why }, _) => self.rounds.refused = Some(why),
            (true, Probed::Accepted, Some(why)) => self.on_bad(now, why, effects),
            (true, Probed::Refused { .. }, Some(why)) => self.on_both_refused(now, why, effects),
            (true, _, None) => {}
        }
    }

    fn on_accepted(&mut self, now: Now, effects: &mut Vec<Effect>) {
        (self.rounds.bad, self.rounds.both) = (Tally::default(), Tally::default());
        self.rounds.taken.count(now.tick);
        self.pass(now, Proof::Probed, effects);
    }

    /// The new pair is refused where the old one is taken.
    fn on_bad(&mut self, now: Now, why: String, effects: &mut Vec<Effect>) {
        (self.rounds.both, self.rounds.taken) = (Tally::default(), Tally::default());
        let rounds = self.rounds.bad.count(now.tick);
        effects.push(Effect::Tell(Told::ProbeRefused(rounds, why.clone())));
        let is_bad = |threshold| self.rounds.bad.is_enough(threshold, now.tick);
        match self.saved.stage {
            Stage::Probing(_) if is_bad(BAD) => {
                let why = Complaint { code: Reason::ProbeRefused, error: escape(&why) };
                self.give_up(now, why, effects);
            }
            Stage::Installed(_) | Stage::Confirming(_) if is_bad(STRANDED) => {
                let why = Complaint { code: Reason::RefusedAfterRestart, error: escape(&why) };
                self.roll_back(why, effects);
            }
            _ => {}
        }
    }

    /// Both are refused: that says nothing of the new one.
    fn on_both_refused(&mut self, now: Now, why: String, effects: &mut Vec<Effect>) {
        (self.rounds.bad, self.rounds.taken) = (Tally::default(), Tally::default());
        self.rounds.both.count(now.tick);
        effects.push(Effect::Tell(Told::ProbeFailed(why)));
        if self.rounds.both.is_enough(BAD, now.tick) {
            // What was permitted before the restart may not be any more.
            self.rounds.in_place = true;
            self.pass(now, Proof::NotPermitted, effects);
        }
    }

    /// A pair that was tried before it is installed waits for its time.
    fn pass(&mut self, now: Now, proof: Proof, effects: &mut Vec<Effect>) {
        let Stage::Probing(Probing { candidate }) = &self.saved.stage else { return };
        let (id, candidate) = (candidate.certificate, candidate.clone());
        self.saved.stage = Stage::AwaitWindow(AwaitWindow { candidate, proof });
        effects.push(Effect::Tell(match proof {
            Proof::Probed => {
                self.proven = Some(now.tick);
                Told::ProbeAccepted(id)
            }
            Proof::NotPermitted => Told::ProbeNotPermitted(id),
        }));
    }
}
