//! The machine: one job at a time, what must be saved before anything else, and what each job's end
//! means. What a message or a command asks for stands in `messages`; what is tried of a new pair in
//! `probing`; the way into and out of use in `switching`; how it ends in `ending`.

use std::{collections::VecDeque, time::Duration};

use super::{
    AwaitCertificate, Candidate, Command, Complaint, Conditions, Done, Effect, Event, Failure,
    Found, Instant, Job, Life, Pair, Probed, Probing, Saved, Say, Settings, Stage, Told,
    ending::lost,
    probing::{Rounds, Tried},
    switching::Asked as RestartAsked,
};
use crate::{
    install::Generation,
    reason::Reason,
    schedule::{Backoff, Now, Stamp, Tick},
    wire::{Header, Kind, RotationId},
    x509::CertificateFacts,
};

/// Messages that may wait for a job. What finds no room is sent again by the relay.
const INBOX: usize = 8;

/// Pauses after a job that failed.
const RETRY: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };

/// The pair before is kept for so long, if nobody says that the cloud has settled the rotation.
const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);

/// The core's own credential.
#[derive(Debug)]
pub struct Identity {
    pub(super) settings: Settings,
    pub(super) life: Life,
    /// What is true; `stored` is what the disk knows of it.
    pub(super) saved: Saved,
    stored: Saved,
    /// What is on disk, once it was looked at.
    pub(super) here: Option<Here>,
    /// Why the credential could not be looked at, or switched, when that was last tried.
    pub(super) blocked: Option<Failure>,
    /// The CSR of the key under way.
    pub(super) csr: Option<Csr>,
    /// The CSR is to go to the relay.
    pub(super) csr_due: bool,
    /// Since when the pair before is kept.
    pub(super) kept: Option<Stamp>,
    task: Option<Task>,
    failures: u32,
    pause: Option<Tick>,
    pub(super) wipes: Vec<Generation>,
    /// What was said and the relay has not taken yet.
    pub(super) said: VecDeque<Say>,
    inbox: VecDeque<(Kind, Vec<u8>)>,
    /// Somebody waits for the links to be gone.
    pub(super) detach: bool,
    pub(super) conditions: Conditions,
    pub(super) rounds: Rounds,
    /// When the cloud last took the new pair.
    pub(super) proven: Option<Tick>,
    /// Somebody wants the nucleus restarted, whatever the window says.
    pub(super) forced: bool,
    /// The restart that was asked for last.
    pub(super) restart: RestartAsked,
    pub(super) rng: fastrand::Rng,
}

/// What is on disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Here {
    /// The certificate under the configured paths.
    pub configured: CertificateFacts,
    /// The generation that they lead to.
    pub current: Option<Generation>,
    /// No generation is younger.
    pub youngest: Generation,
}

/// The CSR of the key under way.
#[derive(Debug)]
pub(super) struct Csr {
    pub made: Stamp,
    pub der: Vec<u8>,
}

/// The job under way, and what it is for.
#[derive(Debug)]
pub(super) enum Task {
    Looking,
    Preflight(Option<RotationId>),
    Making(Generation, Option<RotationId>),
    Storing(Generation, Option<RotationId>),
    Saving(Box<Saved>),
    Attaching,
    Switching(Generation),
    Wiping,
    Detaching,
    Probing(Tried),
    Restarting,
}

impl Identity {
    /// An identity of which nothing is known yet. The first event is [`Event::Wake`]. `seed` is for
    /// jitter alone.
    pub fn new(settings: Settings, life: Life, seed: u64) -> Self {
        Self {
            settings,
            life,
            saved: Saved::default(),
            stored: Saved::default(),
            here: None,
            blocked: None,
            csr: None,
            csr_due: false,
            kept: None,
            task: None,
            failures: 0,
            pause: None,
            wipes: Vec::new(),
            said: VecDeque::new(),
            inbox: VecDeque::new(),
            detach: false,
            conditions: Conditions::default(),
            rounds: Rounds::default(),
            proven: None,
            forced: false,
            restart: RestartAsked::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Handles one event; what is to be done is appended to `effects`.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Wake => {}
            Event::Message { kind, payload } => self.on_arrival(kind, payload, effects),
            Event::Withdrawn(certificate) => self.on_withdrawn(certificate, effects),
            Event::Settled(certificate) => {
                if self.saved.kept.as_ref().is_some_and(|kept| kept.until_settled == certificate) {
                    self.wipe_kept(effects);
                }
            }
            Event::Taken => self.on_taken(),
            Event::Forgotten => self.on_forgotten(),
            Event::Conditions(conditions) => self.on_conditions(now, conditions),
            Event::Done(done) => self.on_done(now, done, effects),
            Event::Command(command) => self.on_command(now, command, effects),
        }
        self.work(now, effects);
    }

    fn on_arrival(&mut self, kind: Kind, payload: Vec<u8>, effects: &mut Vec<Effect>) {
        if self.inbox.len() >= INBOX {
            return effects.push(Effect::Tell(Told::Ignored(Reason::Flood)));
        }
        self.inbox.push_back((kind, payload));
        if self.here.is_none() {
            // What stood in the way may have been mended, and who asks is to hear it if not.
            self.pause = None;
        }
    }

    /// When to hand in [`Event::Wake`], if nothing else happens before.
    pub fn next_wakeup(&self, now: Now) -> Option<Tick> {
        if self.task.is_some() {
            return None;
        }
        if let Some(until) = self.pause {
            return Some(until);
        }
        let kept = self.kept.and_then(|since| since.reaches(KEPT_FOR, now));
        self.next_try(now).into_iter().chain(kept).min()
    }

    /// New settings.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Where the rotation stands.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    pub(super) fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    pub(super) fn start(&mut self, task: Task, job: Job, effects: &mut Vec<Effect>) {
        self.task = Some(task);
        effects.push(Effect::Do(job));
    }

    pub(super) fn now<'a>(&'a self, now: Now) -> Option<Instant<'a>> {
        let boot = &self.life.run.as_ref()?.boot;
        Some(Instant { boot, uptime: self.life.uptime + (now.tick - Tick(0)), wall: now.wall })
    }

    /// The generation for a new key: younger than all.
    pub(super) fn next_generation(&mut self) -> Option<Generation> {
        let here = self.here.as_mut()?;
        here.youngest = Generation(here.youngest.0.saturating_add(1));
        Some(here.youngest)
    }

    /// Starts what comes next: what must be looked at, then what must be saved, then what must go,
    /// then what came, then what the stage is for.
    fn work(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.pause.is_some_and(|until| until <= now.tick) {
            self.pause = None;
        }
        while self.task.is_none() && self.pause.is_none() {
            if self.here.is_none() {
                self.start(Task::Looking, Job::Look, effects);
            } else if self.saved != self.stored {
                let saved = Box::new(self.saved.clone());
                self.start(Task::Saving(saved.clone()), Job::Save(saved), effects);
            } else if let Some(say) = self.untold() {
                self.say(say, effects);
            } else if let Some(generation) = self.wipes.pop() {
                self.start(Task::Wiping, Job::Wipe { generation }, effects);
            } else if std::mem::take(&mut self.detach) {
                self.start(Task::Detaching, Job::Detach, effects);
            } else if let Some((kind, payload)) = self.inbox.pop_front() {
                self.on_message(now, kind, &payload, effects);
            } else if !self.advance(now, effects) {
                break;
            }
        }
    }

    /// Does what the stage is for. Returns whether anything changed.
    fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        if self.kept.is_some_and(|since| since.is_older_than(KEPT_FOR, now)) {
            self.wipe_kept(effects);
            return true;
        }
        match self.saved.stage {
            Stage::Idle => false,
            Stage::AwaitCertificate(_) => self.say_csr(effects),
            Stage::Probing(_) => self.say_csr(effects) || self.try_new(now, effects),
            Stage::AwaitWindow(_) => self.say_csr(effects) || self.install(now, effects),
            Stage::Installed(_) => self.go_on(now, effects) || self.watch_installed(now, effects),
            Stage::Confirming(_) => self.confirm(now, effects),
            Stage::RollingBack(_) => self.go_back(now, effects),
        }
    }

    fn on_done(&mut self, now: Now, done: Done, effects: &mut Vec<Effect>) {
        let Some(task) = self.task.take() else { return };
        let task = match done {
            Done::Failed(failure) => return self.on_failed(now, task, failure, effects),
            done => (task, done),
        };
        self.failures = 0;
        match task {
            (Task::Looking, Done::Found(found)) => self.on_found(now, *found, effects),
            (Task::Preflight(rotation), Done::Ready(found)) => {
                self.blocked = None;
                self.see(&found);
                if let Some(generation) = self.next_generation() {
                    let task = Task::Making(generation, rotation);
                    self.start(task, Job::MakeKey { generation }, effects);
                }
            }
            (Task::Making(generation, rotation), Done::KeyMade { key, csr }) => {
                self.wipes.extend(self.saved.stage.generation());
                let made = now.wall;
                let waiting = AwaitCertificate { generation, key, made, rotation };
                self.saved.stage = Stage::AwaitCertificate(waiting);
                self.csr = Some(Csr { made: Stamp::now(now), der: csr });
                (self.csr_due, self.forced) = (true, false);
                effects.push(Effect::Tell(Told::KeyMade(key)));
            }
            (Task::Storing(generation, rotation), Done::CertificateStored { facts }) => {
                self.on_stored(now, generation, rotation, facts, effects);
            }
            (Task::Saving(saved), Done::Saved) => self.stored = *saved,
            (Task::Attaching, Done::Attached { current }) => {
                self.on_attached(now, current, effects);
            }
            (Task::Switching(to), Done::Switched { facts }) => {
                self.on_switched(now, to, facts, effects);
            }
            (Task::Wiping, Done::Wiped) => {}
            (Task::Detaching, Done::Detached) => self.on_detached(effects),
            (Task::Probing(tried), Done::Probed(probed)) => {
                self.on_probed(now, tried, probed, effects);
            }
            (Task::Restarting, Done::Asked) => self.on_restart_asked(now),
            (task, done) => {
                let detail = format!("{done:?} answers no job: please report this as a bug");
                let failure = Failure { reason: Reason::DiskError, detail };
                self.on_failed(now, task, failure, effects);
            }
        }
    }

    /// A job that failed is done again after a pause: keys and certificates when the relay asks
    /// again, the rest by itself. A wipe that fails is left to the next start.
    fn on_failed(&mut self, now: Now, task: Task, failure: Failure, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(Told::Failed(failure.clone())));
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(now.tick + RETRY.pause(self.failures, &mut self.rng));
        let why = Complaint { code: failure.reason, error: failure.detail.clone() };
        match task {
            Task::Looking => {
                self.blocked = Some(failure);
                self.turn_away(&why, effects);
            }
            Task::Preflight(rotation) => {
                self.blocked = Some(failure);
                self.complain(why, None, rotation, true, effects);
            }
            Task::Making(generation, rotation) => {
                self.wipes.push(generation);
                self.complain(why, None, rotation, true, effects);
            }
            Task::Storing(_, rotation) => self.complain(why, None, rotation, false, effects),
            Task::Attaching => {
                self.blocked = Some(failure);
                self.complain_of_candidate(why, effects);
            }
            Task::Switching(_) => self.on_switch_failed(now, why, effects),
            Task::Restarting => self.on_restart_failed(now, why, effects),
            Task::Detaching => effects.push(Effect::Answer(Err(failure.to_string()))),
            Task::Probing(tried) => {
                let why = failure.to_string();
                self.on_probed(now, tried, Probed::Unreachable { why }, effects);
            }
            Task::Saving(_) | Task::Wiping => {}
        }
    }

    /// Who asked for a rotation hears why there is none.
    fn turn_away(&mut self, why: &Complaint, effects: &mut Vec<Effect>) {
        for (kind, payload) in std::mem::take(&mut self.inbox) {
            if kind == Kind::CsrReq {
                let rotation = Header::read(&payload).rotation;
                self.complain(why.clone(), None, rotation, true, effects);
            }
        }
    }

    fn see(&mut self, found: &Found) {
        let youngest = found.generations.iter().copied().max().unwrap_or(Generation(0));
        let before = self.here.as_ref().map_or(Generation(0), |here| here.youngest);
        self.here = Some(Here {
            configured: found.configured.facts,
            current: found.current,
            youngest: youngest.max(before),
        });
    }

    /// The first look of a life: what the life before left is brought together with what is on
    /// disk, for it may have ended between any two steps, and people do move files.
    fn on_found(&mut self, now: Now, found: Found, effects: &mut Vec<Effect>) {
        self.blocked = None;
        self.see(&found);
        self.stored = found.saved.clone().unwrap_or_default();
        self.saved = self.stored.clone();
        self.kept = self.saved.kept.as_ref().map(|kept| {
            let mut since = Stamp::from(kept.since);
            since.restore(now);
            since
        });
        self.reconcile(now, &found, effects);
        let stage = &self.saved.stage;
        let mut needed = vec![found.current, stage.generation()];
        needed.push(self.saved.kept.as_ref().map(|kept| kept.generation));
        needed.push(match stage {
            Stage::Installed(stage) => Some(stage.previous),
            Stage::Confirming(stage) => Some(stage.previous),
            Stage::RollingBack(stage) => Some(stage.to),
            _ => None,
        });
        let spare = |generation: &Generation| !needed.contains(&Some(*generation));
        self.wipes = found.generations.into_iter().filter(spare).collect();
    }

    fn reconcile(&mut self, now: Now, found: &Found, effects: &mut Vec<Effect>) {
        let made = match &self.saved.stage {
            Stage::AwaitCertificate(waiting) => waiting.made,
            _ => None,
        };
        self.csr = found.csr.clone().map(|der| {
            let mut made = Stamp::from(made);
            made.restore(now);
            Csr { made, der }
        });
        let whole = |candidate: &Candidate| {
            found.candidate.is_some_and(|facts| facts.id == candidate.certificate)
        };
        match &self.saved.stage {
            Stage::Idle => {}
            Stage::AwaitCertificate(_) if self.csr.is_some() => self.csr_due = true,
            Stage::AwaitCertificate(_) => self.give_up(now, lost(), effects),
            Stage::Probing(Probing { candidate }) if !whole(candidate) => {
                self.give_up(now, lost(), effects);
            }
            Stage::AwaitWindow(stage) if !whole(&stage.candidate) => {
                self.give_up(now, lost(), effects);
            }
            Stage::Probing(_) | Stage::AwaitWindow(_) => {}
            Stage::Installed(_) | Stage::Confirming(_) | Stage::RollingBack(_) => {
                let is_whole = self.saved.stage.candidate().is_some_and(whole);
                self.take_up_switch(now, is_whole, effects);
            }
        }
    }

    fn on_stored(
        &mut self,
        now: Now,
        generation: Generation,
        rotation: Option<RotationId>,
        facts: CertificateFacts,
        effects: &mut Vec<Effect>,
    ) {
        let (key, certificate, not_after) = (facts.key, facts.id, facts.not_after);
        let candidate = Candidate { generation, key, certificate, not_after, rotation };
        self.saved.stage = Stage::Probing(Probing { candidate });
        self.begin_rounds(now);
        // The one before it may have been withdrawn meanwhile, of the same key.
        self.wipes.retain(|wiped| *wiped != generation);
        (self.csr_due, self.forced) = (false, false);
        effects.push(Effect::Tell(Told::CertificateTaken(certificate, not_after)));
    }

    fn on_detached(&mut self, effects: &mut Vec<Effect>) {
        // Nothing is left on disk. While this process lives it remembers what bounds restarts.
        let Saved { ended, restarts, .. } = std::mem::take(&mut self.saved);
        self.saved = Saved { ended, restarts, ..Saved::default() };
        self.stored = self.saved.clone();
        (self.kept, self.csr) = (None, None);
        self.wipes.clear();
        if let Some(here) = &mut self.here {
            here.current = None;
        }
        let done = "the configured paths are plain files again, with the pair in use";
        effects.push(Effect::Answer(Ok(done.to_owned())));
    }

    fn on_command(&mut self, now: Now, command: Command, effects: &mut Vec<Effect>) {
        match self.obey(now, command, effects) {
            Some(answer) => effects.push(Effect::Answer(answer)),
            None => self.detach = true,
        }
    }

    pub(super) fn probe(&mut self, tried: Tried, with: Pair, effects: &mut Vec<Effect>) {
        let name = tried.name;
        self.start(Task::Probing(tried), Job::Probe { with, name }, effects);
    }
}
