//! Which pair to connect with, and when: one attempt at a time, and the trial of a new pair.
//!
//! A new pair is tried; where it fails the old one is tried at once, as the control. Only where
//! that works does the failure count. Otherwise the broker is out of reach, and both are tried by
//! turns, with growing pauses.

use std::time::Duration;

use super::{Child, Effect, Told};
use crate::{
    identity::Tally,
    install::Generation,
    schedule::{Now, Tick},
};

/// An attempt that nothing is heard of for this long has failed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);

/// The one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// None; the next attempt comes then.
    Down { retry: Tick },
    /// An attempt is under way.
    Connecting { connection: u64, generation: Generation, deadline: Tick },
    /// It is up.
    Up { connection: u64, generation: Generation },
}

impl Line {
    /// Which connection, with which pair.
    fn attempt(self) -> Option<(u64, Generation)> {
        match self {
            Self::Down { .. } => None,
            Self::Connecting { connection, generation, .. }
            | Self::Up { connection, generation } => Some((connection, generation)),
        }
    }
}

/// How the new pair has fared.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    /// It is tried, or promoted, not before then.
    pub(super) due: Tick,
    /// It failed just now; the old pair is being tried.
    failed: Option<String>,
    /// How often it failed where the old pair worked.
    tally: Tally,
}

impl Trial {
    /// A trial that may begin at once.
    pub(super) fn begin(now: Now) -> Self {
        Self { due: now.tick, ..Self::default() }
    }
}

impl Child {
    pub(super) fn on_up(&mut self, now: Now, connection: u64, effects: &mut Vec<Effect>) {
        let Line::Connecting { connection: expected, generation, .. } = self.line else {
            return;
        };
        if connection != expected {
            return;
        }
        self.line = Line::Up { connection, generation };
        self.failures = 0;
        effects.push(Effect::Tell(Told::Connected(generation)));
        if generation == self.current.generation && self.proven_on_disk().is_some() {
            self.control_worked(now, effects);
        }
    }

    pub(super) fn on_down(
        &mut self,
        now: Now,
        connection: u64,
        why: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some((expected, generation)) = self.line.attempt() else {
            return;
        };
        if connection != expected {
            return;
        }
        effects.push(Effect::Tell(Told::Disconnected(generation, why.clone())));
        self.forget_outgoing();
        let failed = matches!(self.line, Line::Connecting { .. });
        if failed && generation != self.current.generation {
            self.trial.failed = Some(why);
            self.line = Line::Down { retry: now.tick };
            return;
        }
        self.trial.failed = None;
        self.failures = self.failures.saturating_add(1);
        let pause = self.settings.retry.pause(self.failures, &mut self.rng);
        self.line = Line::Down { retry: now.tick + pause };
    }

    /// The certificate under trial is another now: a connection with the one before says nothing.
    pub(super) fn leave_candidate(&mut self) {
        if self.line.attempt().is_some_and(|(_, with)| with != self.current.generation) {
            self.forget_outgoing();
            self.line = Line::Down { retry: Tick(0) };
        }
    }

    /// Moves the connection where it should be.
    pub(super) fn connect(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let Line::Connecting { connection, deadline, .. } = self.line
            && deadline <= now.tick
        {
            self.on_down(now, connection, "no answer".to_owned(), effects);
        }
        let candidate = self.proven_on_disk().map(|trying| trying.generation);
        let current = self.current.generation;
        match self.line {
            Line::Down { retry } if retry <= now.tick => {
                let untried = candidate.filter(|_| self.trial.failed.is_none());
                self.attempt(now, untried.unwrap_or(current), effects);
            }
            Line::Up { generation, .. }
                if Some(generation) == candidate && self.trial.due <= now.tick =>
            {
                self.promote(generation, effects);
            }
            Line::Up { generation, .. } if generation == current => {
                if let Some(candidate) = candidate.filter(|_| self.trial.due <= now.tick) {
                    self.attempt(now, candidate, effects);
                }
            }
            Line::Up { generation, .. } | Line::Connecting { generation, .. }
                if generation != current && Some(generation) != self.saved.stage.generation() =>
            {
                self.attempt(now, current, effects);
            }
            _ => {}
        }
    }

    /// When [`Child::connect`] has something to do next.
    pub(super) fn next_connect(&self) -> Option<Tick> {
        match self.line {
            Line::Down { retry } => Some(retry),
            Line::Connecting { deadline, .. } => Some(deadline),
            Line::Up { .. } if self.is_busy() => None,
            Line::Up { .. } => self.proven_on_disk().map(|_| self.trial.due),
        }
    }

    fn attempt(&mut self, now: Now, generation: Generation, effects: &mut Vec<Effect>) {
        self.forget_outgoing();
        self.connections += 1;
        let connection = self.connections;
        let deadline = now.tick + CONNECT_DEADLINE;
        self.line = Line::Connecting { connection, generation, deadline };
        effects.push(Effect::Connect { connection, generation });
    }

    fn control_worked(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(why) = self.trial.failed.take() else {
            return;
        };
        let rounds = self.trial.tally.count(now.tick);
        effects.push(Effect::Tell(Told::TrialFailed { rounds }));
        if self.trial.tally.is_enough(self.settings.given_up, now.tick) {
            self.roll_back(&why, effects);
        } else {
            self.trial.due = now.tick + self.settings.trial.pause(rounds, &mut self.rng);
        }
    }
}
