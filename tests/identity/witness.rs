//! What must never be, whatever happens; counted and remembered apart from the identity.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use certrelay::{
    identity::{Conditions, Job, Probed, Proof, Say, Stage, Told},
    install::Generation,
    reason::Reason,
    relay::CloudState,
    wire::CertificateId,
};

use crate::world::{DAY, HOUR, MINUTE, SECOND};

/// More jobs than any hour has.
const BUSY: usize = 400;

/// What was seen.
#[derive(Debug, Default)]
pub struct Witness {
    trail: VecDeque<String>,
    pub answers: Vec<Result<String, String>>,
    pub restarts: Vec<u64>,
    jobs: VecDeque<u64>,
    /// Refused where the old pair was taken, since the process started.
    bad: Vec<u64>,
    refused: bool,
    accepted: Option<u64>,
    taken: Vec<u64>,
    /// The pairs before, which certificate took their place, and when that was acknowledged.
    guarded: BTreeMap<Generation, (CertificateId, Option<u64>)>,
    failed: BTreeSet<CertificateId>,
    critical: Option<u64>,
    /// Somebody had the window passed over.
    pub forced: bool,
    /// Somebody put a hand in: a certificate in use may be reported as given up.
    pub by_hand: bool,
    /// The clock was believed, and wrong.
    pub clock_lied: bool,
    pub rolled_back: usize,
    pub told: Vec<Told>,
}

impl Witness {
    /// What was seen last.
    pub fn last(&self) -> String {
        self.trail.iter().map(|line| format!("  {line}\n")).collect()
    }

    fn note(&mut self, now: u64, what: &impl std::fmt::Debug) {
        let mut text = format!("{:>8} {what:?}", now / SECOND);
        text.truncate(text.char_indices().nth(260).map_or(text.len(), |(at, _)| at));
        self.trail.push_back(text);
        if self.trail.len() > 60 {
            self.trail.pop_front();
        }
    }

    /// A process has started, and knows of no probes.
    pub fn on_start(&mut self) {
        (self.bad, self.taken) = (Vec::new(), Vec::new());
        (self.refused, self.accepted, self.critical) = (false, None, None);
        self.trail.push_back("---".to_owned());
    }

    pub fn job(&mut self, now: u64, job: &Job) {
        self.note(now, job);
        self.jobs.push_back(now);
        while self.jobs.front().is_some_and(|at| now - at > HOUR) {
            self.jobs.pop_front();
        }
        assert!(self.jobs.len() < BUSY, "busy\n{}", self.last());
    }

    pub fn probed(&mut self, now: u64, is_old: bool, probed: &Probed) {
        self.note(now, &(is_old, probed));
        match (is_old, probed) {
            (false, Probed::Accepted) => {
                (self.bad, self.accepted) = (Vec::new(), Some(now));
                self.taken.push(now);
            }
            (false, Probed::Refused { .. }) => self.refused = true,
            (true, Probed::Accepted) if std::mem::take(&mut self.refused) => self.bad.push(now),
            (true, Probed::Refused { .. }) => (self.bad, self.refused) = (Vec::new(), false),
            _ => self.refused = false,
        }
    }

    /// A restart is asked for.
    pub fn restart(&mut self, now: u64, stage: &Stage, conditions: Conditions, most: u32) {
        let lately = self.restarts.iter().filter(|at| now - **at < DAY).count() + 1;
        let spare = usize::from(matches!(stage, Stage::Installed(_)));
        let most = usize::try_from(most).expect("small");
        assert!(
            lately + spare <= most || self.clock_lied,
            "{lately} restarts in a day\n{}",
            self.last()
        );
        assert!(!conditions.deployment, "no restart during a deployment\n{}", self.last());
        match stage {
            Stage::Installed(_) => {
                assert_ne!(conditions.link, CloudState::Down, "link down\n{}", self.last());
                assert!(conditions.window || self.forced, "the window is closed\n{}", self.last());
            }
            Stage::RollingBack(_) => {}
            other => panic!("a restart in {}", other.name()),
        }
    }

    /// A pair is about to be installed.
    pub fn install(&self, now: u64, stage: &Stage) {
        let Stage::AwaitWindow(stage) = stage else { panic!("an install in {}", stage.name()) };
        if stage.proof == Proof::Probed {
            let at = self.accepted.expect("probed in this life");
            assert!(now - at <= 10 * MINUTE + 11 * SECOND, "an old probe\n{}", self.last());
        }
    }

    pub fn switch(&mut self, from: Generation, to: Generation, new: Option<CertificateId>) {
        self.guarded.remove(&to);
        if let Some(new) = new.filter(|_| from != to) {
            self.guarded.insert(from, (new, None));
        }
    }

    pub fn wipe(&mut self, now: u64, generation: Generation) {
        let Some((_, acked)) = self.guarded.remove(&generation) else { return };
        let is_old = acked.is_some_and(|at| now - at >= 7 * DAY);
        assert!(is_old || self.clock_lied, "the pair before is wiped too soon\n{}", self.last());
    }

    pub fn unguard_but(&mut self, current: Option<Generation>) {
        self.guarded.retain(|generation, _| Some(*generation) == current);
    }

    pub fn settled(&mut self, certificate: CertificateId) {
        self.guarded.retain(|_, guarded| guarded.0 != certificate);
    }

    pub fn say(&mut self, now: u64, say: &Say, loaded: CertificateId) {
        match say {
            Say::Acked { certificate, .. } => {
                self.note(now, say);
                assert_eq!(*certificate, loaded, "an ack of what is not in use\n{}", self.last());
                assert!(!self.failed.contains(certificate), "acked, and failed\n{}", self.last());
                for guarded in self.guarded.values_mut().filter(|held| held.0 == *certificate) {
                    guarded.1.get_or_insert(now);
                }
            }
            Say::Failed { certificate: Some(certificate), ends: true, why, .. } => {
                self.note(now, say);
                let is_wrong = *certificate == loaded && !self.by_hand;
                assert!(!is_wrong, "{}: it is in use\n{}", why.code, self.last());
                self.failed.insert(*certificate);
            }
            Say::Failed { .. } => self.note(now, say),
            Say::Csr { rotation, .. } => self.note(now, &("csr", rotation)),
        }
    }

    pub fn told(&mut self, now: u64, told: &Told) {
        self.note(now, told);
        let is_over = |times: usize| {
            let spans = self.bad.first().zip(self.bad.last());
            self.bad.len() >= times
                && spans.is_some_and(|(a, z)| z - a >= 10 * MINUTE - 11 * SECOND)
        };
        match told {
            Told::RollingBack(_, reason) => {
                self.rolled_back += 1;
                let is_proven = *reason == Reason::RefusedAfterRestart && is_over(3);
                let ok = is_proven || self.by_hand;
                assert!(ok, "rolled back for {reason}, {:?}\n{}", self.bad, self.last());
            }
            Told::GaveUp(_, Reason::ProbeRefused) => {
                assert!(is_over(5), "given up, {:?}\n{}", self.bad, self.last());
            }
            _ => {}
        }
        self.told.push(told.clone());
    }

    pub fn critical(&mut self, now: u64, is_critical: bool) {
        match self.critical {
            Some(since) if is_critical => {
                assert!(now - since <= 6 * MINUTE, "critical for long\n{}", self.last());
            }
            None if is_critical => self.critical = Some(now),
            _ if !is_critical => self.critical = None,
            _ => {}
        }
    }
}
