//! Other settings while the relay runs.
//!
//! What is planned keeps its time, unless that is further away than the new pauses would ever put
//! it. A time that is no pause is never brought forward: what the cloud holds, the turn of a CSR
//! that nobody asked for, the hour between two errors, the days after which a notice goes again.

use super::{
    Relay,
    child::{CSR_APART, Child, Repeat},
    event::Outcome,
    outbox::Slot,
    record::{Reached, Stage},
    settings::Settings,
};
use crate::{
    schedule::{Backoff, Now, Tick},
    wire::ThingName,
};

impl Relay {
    /// Goes by other settings from now on. What is under way for a device that they do not serve
    /// ends, as it does when a relay is restored with them. Name and topics have to be those of
    /// before: the peers know no others.
    pub fn reconfigure(&mut self, now: Now, settings: Settings, out: &mut Outcome) {
        self.trust_clock(now, out);
        self.settings = settings;
        self.cloud.draw_anew(now.tick, &self.settings, &mut self.rng);
        let children: Vec<ThingName> = self.children.keys().cloned().collect();
        for name in children {
            if let Some(child) = self.children.get_mut(&name) {
                child.draw_anew(now, &self.settings, &mut self.rng);
            }
            self.reschedule(&name, now);
        }
        self.leave_alone(now, out);
        self.draw_trials_anew(now);
        self.advance(now, out);
        self.remember_time(now, out);
    }

    fn draw_trials_anew(&mut self, now: Now) {
        let trials: Vec<ThingName> = self.trials.keys().cloned().collect();
        for name in trials {
            if !self.serves(&name) {
                self.end_trial(&name);
            } else if let Some(trial) = self.trials.get_mut(&name) {
                // Before the first copy the cloud says when.
                if trial.to_child.attempts > 0 {
                    trial.to_child.draw_anew(now.tick, self.settings.request, &mut self.rng);
                }
                self.reschedule(&name, now);
            }
        }
    }
}

impl Child {
    fn draw_anew(&mut self, now: Now, settings: &Settings, rng: &mut fastrand::Rng) {
        let to_child = match &self.record.stage {
            Stage::AwaitCsr(_) => Some(settings.request),
            Stage::AwaitAck(_) => Some(settings.certificate),
            Stage::AwaitCert(_) | Stage::Done(_) => None,
        };
        // While the cloud holds it, it is held once more when its time comes.
        if let Some(pauses) = to_child {
            self.live.to_child.draw_anew(now.tick, pauses, rng);
        }
        let planned = self.live.csr.due;
        self.live.csr.draw_anew(now.tick, settings.cloud, rng);
        let drawn = self.live.csr.due.max(self.csr_allowed(now, settings));
        self.live.csr.due = planned.min(drawn);
        for slot in Slot::ALL {
            if !self.is_dated(slot) {
                self.repeat_of(slot).draw_anew(now.tick, settings.cloud, rng);
            }
        }
    }

    /// Before when the CSR must not go.
    fn csr_allowed(&self, now: Now, settings: &Settings) -> Option<Tick> {
        let Stage::AwaitCert(stage) = &self.record.stage else { return None };
        let settled = stage.since.reaches(settings.settle, now);
        let apart = self.live.csr.last.map(|last| last + CSR_APART);
        settled.max(apart).max(self.live.turn)
    }

    /// Whether a notice waits for a time that is no pause.
    fn is_dated(&mut self, slot: Slot) -> bool {
        let Repeat { attempts, due, .. } = *self.repeat_of(slot);
        let is_at_broker = slot
            .notice(&self.record.outbox)
            .is_some_and(|notice| matches!(notice.reached, Reached::Broker { .. }));
        let is_held_back = slot == Slot::Err && {
            let mut errors = self.live.errors.iter();
            errors.any(|(_, at)| Some(*at) == due)
        };
        attempts == 0 && (is_at_broker || is_held_back)
    }
}

impl Repeat {
    /// Draws the time anew if it is further away than the longest pause.
    fn draw_anew(&mut self, now: Tick, pauses: Backoff, rng: &mut fastrand::Rng) {
        if self.due.is_some_and(|due| due > now + pauses.longest) {
            self.due = Some(now + pauses.pause(self.attempts, rng));
        }
    }
}
