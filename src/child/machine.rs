//! The child's state, and the order in which it does things: disk first, then the network.

use std::{collections::VecDeque, time::Duration};

use super::{
    Done, Effect, Event, Found, Job, Pair, Settings, Told,
    line::{Line, Trial},
    outgoing::Outgoing,
    proving::unsigned,
    saved::{AckNotice, ErrNotice, Finished, Notices, Saved, Stage, Trying, Waiting},
};
use crate::{
    install::Generation,
    reason::Reason,
    schedule::{Backoff, Now, Stamp, Tick},
    wire::{Kind, Nonce, RotationId, escape},
    x509::CertificateFacts,
};

/// Messages that may wait for a disk job. What finds no room is asked for again by the gateway.
const INBOX: usize = 8;

/// Pauses after a disk job that failed.
const DISK_RETRY: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };

/// A device's side of the rotation.
#[derive(Debug)]
pub struct Child {
    pub(super) settings: Settings,
    /// What is true; `stored` is what the disk knows of it.
    pub(super) saved: Saved,
    stored: Saved,
    /// The pair in use.
    pub(super) current: Pair,
    /// The certificate of the stage `Trying`.
    candidate: Option<CertificateFacts>,
    /// The CSR of the key under way.
    pub(super) asked: Option<Asked>,
    /// When the last rotation ended well.
    pub(super) finished: Option<Stamp>,
    youngest: Generation,
    task: Option<Task>,
    disk_failures: u32,
    disk_pause: Option<Tick>,
    wipes: Vec<Generation>,
    inbox: VecDeque<Received>,
    /// Notices that need not outlive the process: the gateway asks again.
    pub(super) passing: Notices,
    pub(super) csr_due: bool,
    pub(super) out: Outgoing,
    pub(super) line: Line,
    pub(super) trial: Trial,
    pub(super) connections: u64,
    pub(super) failures: u32,
    pub(super) rng: fastrand::Rng,
    /// What the start found out.
    news: Option<Told>,
}

/// The CSR of the key under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) made: Stamp,
    pub(super) csr: Vec<u8>,
}

/// A message that waits for its turn.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// The disk job under way.
#[derive(Debug)]
enum Task {
    Making(Generation, Option<RotationId>, Option<Nonce>),
    Storing(Trying),
    Signing(Vec<u8>),
    Promoting,
    Saving(Box<Saved>),
    Wiping,
}

impl Child {
    /// A child as its disk was found. The first event is [`Event::Wake`]. `seed` is for message ids
    /// and jitter; no secret depends on it.
    pub fn new(settings: Settings, found: Found, seed: u64) -> Self {
        let youngest = found.generations.iter().copied().max();
        let mut child = Self {
            settings,
            stored: found.saved.clone(),
            saved: found.saved,
            candidate: found.pending.facts,
            asked: None,
            finished: None,
            youngest: youngest.unwrap_or(found.current.generation),
            current: found.current,
            task: None,
            disk_failures: 0,
            disk_pause: None,
            wipes: Vec::new(),
            inbox: VecDeque::new(),
            passing: Notices::default(),
            csr_due: false,
            out: Outgoing::default(),
            line: Line::Down { retry: Tick(0) },
            trial: Trial::default(),
            connections: 0,
            failures: 0,
            rng: fastrand::Rng::with_seed(seed),
            news: None,
        };
        child.reconcile(found.pending.csr);
        child.finished = child.saved.finished.as_ref().map(|last| Stamp::from(last.at));
        let kept = [Some(child.current.generation), child.saved.previous, child.under_way()];
        child.wipes = found.generations;
        child.wipes.retain(|generation| !kept.contains(&Some(*generation)));
        child
    }

    /// Handles one event; what is to be done is appended to `effects`.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        effects.extend(self.news.take().map(Effect::Tell));
        match event {
            Event::Wake => {}
            Event::Up { connection } => self.on_up(now, connection, effects),
            Event::Down { connection, why } => self.on_down(now, connection, why, effects),
            Event::Message { topic, payload, retain } => {
                self.on_message(&topic, payload, retain, effects);
            }
            Event::Published { mid } => self.on_published(mid, effects),
            Event::Disk(done) => self.on_done(now, done, effects),
        }
        self.work(now, effects);
        self.connect(now, effects);
        self.publish(effects);
    }

    /// When to hand in [`Event::Wake`], if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Tick> {
        self.disk_pause.into_iter().chain(self.next_connect()).min()
    }

    /// The pair in use.
    pub fn current(&self) -> Pair {
        self.current
    }

    /// Where the rotation stands.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The new pair, once nothing of it could be lost.
    pub(super) fn proven_on_disk(&self) -> Option<&Trying> {
        match &self.saved.stage {
            Stage::Trying(trying) if self.is_durable() => Some(trying),
            _ => None,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.saved == self.stored
    }

    /// Begins a key, in place of what is under way.
    pub(super) fn make_key(
        &mut self,
        rotation: Option<RotationId>,
        nonce: Option<Nonce>,
        effects: &mut Vec<Effect>,
    ) {
        let generation = self.next_generation();
        self.start(Task::Making(generation, rotation, nonce), Job::MakeKey { generation }, effects);
    }

    /// Stores a certificate for the key under way, or for the current key.
    pub(super) fn store(
        &mut self,
        facts: &CertificateFacts,
        rotation: Option<RotationId>,
        chain: Vec<Vec<u8>>,
        effects: &mut Vec<Effect>,
    ) {
        let asked = self.saved.stage.asked().cloned();
        let (generation, key_of) = match &asked {
            Some(asked) => (asked.generation, asked.generation),
            None => (self.next_generation(), self.current.generation),
        };
        let replaces = self.current.generation;
        let trying = Trying { generation, certificate: facts.id, rotation, replaces, asked };
        let job = Job::StoreCertificate { generation, key_of, chain };
        self.start(Task::Storing(trying), job, effects);
    }

    pub(super) fn promote(&mut self, generation: Generation, effects: &mut Vec<Effect>) {
        if self.task.is_none() {
            self.start(Task::Promoting, Job::Promote { generation }, effects);
        }
    }

    /// Gives the new pair up.
    pub(super) fn roll_back(&mut self, error: &str, effects: &mut Vec<Effect>) {
        let Stage::Trying(trying) = std::mem::take(&mut self.saved.stage) else {
            return;
        };
        self.saved.notices.err = Some(ErrNotice {
            code: "connect-refused".to_owned(),
            error: escape(error),
            certificate: Some(trying.certificate),
            rotation: trying.rotation,
        });
        self.asked = None;
        self.csr_due = false;
        self.out.err = None;
        self.wipes.push(trying.generation);
        effects.push(Effect::Tell(Told::RolledBack(trying.certificate)));
    }

    fn under_way(&self) -> Option<Generation> {
        self.saved.stage.generation()
    }

    fn next_generation(&mut self) -> Generation {
        self.youngest = Generation(self.youngest.0.saturating_add(1));
        self.youngest
    }

    /// Brings what was saved and what is on disk together: the process may have ended between any
    /// two steps, and people do delete files.
    fn reconcile(&mut self, csr: Option<Vec<u8>>) {
        if self.under_way() == Some(self.current.generation) {
            // It ended between the switch and the note of it.
            if let Stage::Trying(trying) = std::mem::take(&mut self.saved.stage) {
                self.finish(trying, None);
                self.news = Some(promoted(&self.current.facts));
            }
            return;
        }
        let asked = self.saved.stage.asked().cloned();
        if let Stage::Trying(trying) = &self.saved.stage {
            let whole = self.candidate.is_some_and(|facts| facts.id == trying.certificate);
            if !whole {
                self.saved.stage = asked.clone().map_or(Stage::Idle, Stage::Waiting);
            }
        }
        match (csr, asked) {
            (Some(csr), Some(asked)) => {
                self.asked = Some(Asked { made: Stamp::from(asked.made), csr });
                self.csr_due = matches!(self.saved.stage, Stage::Waiting(_));
            }
            (None, _) if matches!(self.saved.stage, Stage::Waiting(_)) => {
                self.saved.stage = Stage::Idle;
            }
            _ => {}
        }
    }

    fn finish(&mut self, trying: Trying, at: Option<Now>) {
        self.wipes.extend(self.saved.previous.replace(trying.replaces));
        let at_wall = at.and_then(|now| now.wall);
        let nonce = self.nonce_of(&trying);
        let (certificate, rotation) = (trying.certificate, trying.rotation);
        self.saved.finished = Some(Finished { rotation: rotation.clone(), at: at_wall, nonce });
        self.finished = at.map(Stamp::now);
        let proof = nonce.map(unsigned);
        self.saved.notices.ack = Some(AckNotice { certificate, rotation, proof });
        self.asked = None;
        self.csr_due = false;
        self.out = Outgoing::default();
        self.passing.ack = None;
    }

    fn on_message(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        retain: bool,
        effects: &mut Vec<Effect>,
    ) {
        let ignored = match self.settings.topics.read(topic) {
            Some((name, kind)) if name == self.settings.thing && !kind.is_uplink() => {
                if retain {
                    Reason::Retained
                } else if self.inbox.len() >= INBOX {
                    Reason::Flood
                } else {
                    return self.inbox.push_back(Received { kind, payload });
                }
            }
            _ => Reason::BadTopic,
        };
        effects.push(Effect::Tell(Told::Ignored(ignored)));
    }

    fn on_done(&mut self, now: Now, done: Done, effects: &mut Vec<Effect>) {
        let Some(task) = self.task.take() else {
            return;
        };
        self.disk_failures = 0;
        match (task, done) {
            (Task::Making(generation, rotation, nonce), Done::KeyMade { key, csr }) => {
                self.wipes.extend(self.under_way());
                self.wipes.extend(self.saved.previous.take());
                let made = now.wall;
                let proof = nonce.map(unsigned);
                let waiting = Waiting { generation, key, made, rotation, proof };
                self.saved.stage = Stage::Waiting(waiting);
                self.asked = Some(Asked { made: Stamp::now(now), csr });
                self.csr_due = true;
                effects.push(Effect::Tell(Told::KeyMade(key)));
            }
            (Task::Storing(trying), Done::CertificateStored { facts }) => {
                let old = self.under_way().filter(|old| *old != trying.generation);
                self.wipes.extend(old);
                self.leave_candidate();
                self.trial = Trial::begin(now);
                self.candidate = Some(facts);
                self.csr_due = false;
                self.saved.stage = Stage::Trying(trying);
                effects.push(Effect::Tell(Told::CertificateTaken(facts.id)));
            }
            (Task::Signing(text), Done::Signed(sig)) => self.on_signed(&text, sig.as_ref()),
            (Task::Promoting, Done::Promoted) => self.on_promoted(now, effects),
            (Task::Saving(saved), Done::Saved) => self.stored = *saved,
            (Task::Wiping, Done::Wiped) => {}
            (task, done) => self.on_failed(now, &task, done, effects),
        }
    }

    fn on_promoted(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let stage = std::mem::take(&mut self.saved.stage);
        if let (Stage::Trying(trying), Some(facts)) = (stage, self.candidate.take()) {
            self.current = Pair { generation: trying.generation, facts };
            self.finish(trying, Some(now));
            effects.push(Effect::Tell(promoted(&facts)));
        }
    }

    /// A job that failed is done again after a pause: keys and certificates when the gateway asks
    /// again, the rest by itself. A wipe that fails is left to the next start.
    fn on_failed(&mut self, now: Now, task: &Task, done: Done, effects: &mut Vec<Effect>) {
        let why = match done {
            Done::Failed { why } => why,
            other => format!("{other:?} answers no job"),
        };
        let begun = match task {
            Task::Making(generation, ..) => Some(*generation),
            Task::Storing(trying) => Some(trying.generation),
            _ => None,
        };
        if begun.is_some() {
            self.complain(Reason::DeviceError, &why, None, self.rotation());
            self.wipes.extend(begun.filter(|begun| self.under_way() != Some(*begun)));
        }
        self.disk_failures = self.disk_failures.saturating_add(1);
        let pause = DISK_RETRY.pause(self.disk_failures, &mut self.rng);
        self.disk_pause = Some(now.tick + pause);
        self.trial.due = now.tick + pause;
        effects.push(Effect::Tell(Told::DiskFailed(why)));
    }

    /// Has something said upstream that need not outlive the process.
    pub(super) fn complain(
        &mut self,
        reason: Reason,
        error: &str,
        certificate: Option<crate::wire::CertificateId>,
        rotation: Option<RotationId>,
    ) {
        let (code, error) = (reason.as_str().to_owned(), escape(error));
        self.passing.err = Some(ErrNotice { code, error, certificate, rotation });
        self.out.err = None;
    }

    pub(super) fn rotation(&self) -> Option<RotationId> {
        match &self.saved.stage {
            Stage::Idle => None,
            Stage::Waiting(waiting) => waiting.rotation.clone(),
            Stage::Trying(trying) => trying.rotation.clone(),
        }
    }

    fn start(&mut self, task: Task, job: Job, effects: &mut Vec<Effect>) {
        self.task = Some(task);
        effects.push(Effect::Disk(job));
    }

    /// Starts the next disk job: what must be signed, what must be saved, then what must go, then what came.
    fn work(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.disk_pause.is_some_and(|until| until <= now.tick) {
            self.disk_pause = None;
        }
        while self.task.is_none() && self.disk_pause.is_none() {
            if let Some(text) = self.next_to_sign() {
                let generation = self.current.generation;
                self.start(Task::Signing(text.clone()), Job::Sign { generation, text }, effects);
            } else if !self.is_durable() {
                let saved = Box::new(self.saved.clone());
                self.start(Task::Saving(saved.clone()), Job::Save(saved), effects);
            } else if let Some(generation) = self.wipes.pop() {
                self.start(Task::Wiping, Job::Wipe { generation }, effects);
            } else if let Some(message) = self.inbox.pop_front() {
                self.read(now, &message, effects);
            } else {
                break;
            }
        }
    }
}

fn promoted(facts: &CertificateFacts) -> Told {
    Told::Promoted { certificate: facts.id, not_after: facts.not_after }
}
