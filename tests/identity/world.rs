//! Time, and all that happens in it, around one identity.

use std::{collections::BTreeMap, time::Duration};

use certrelay::{
    identity::{
        Command, Conditions, Done, Effect, Event, Failure, Identity, Job, Life, ProbeName, Probed,
        Settings,
    },
    reason::Reason,
    relay::CloudState,
    schedule::{Now, Tick, Timestamp},
    wire::{CertificateId, Kind as Message},
};

use crate::{
    cloud::Cloud,
    disk::Disk,
    nucleus::{Kind, Nucleus},
    pki::Leaf,
    relay::{Relay, Stage as Relayed},
    witness::Witness,
};

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// The wall clock when a world begins: 2027-01-01.
const BEGIN: u64 = 1_798_761_600_000;

/// What the wall clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    True,
    /// It is 1970 and nobody believes it.
    Unknown,
    /// It is 2100, and believed.
    Lies,
}

/// How a process ends at an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    Before,
    Torn,
    /// It took effect; the process never heard.
    After,
}

/// What comes after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Component,
    Nucleus,
    Power,
}

/// Something that is to happen.
pub enum Act {
    Start(u32),
    Subscribe(u32),
    NucleusUp(u32),
    Reconnect(u32),
    LinkUp(u32),
    RestartNucleus(u32),
    JobTakes(u32, Job),
    JobEnds(u32, Done),
    Issued(Leaf),
    Settled(CertificateId),
    Taken(u32),
    Do(fn(&mut World)),
    Command(Command),
}

/// What is told, and what happens so long after it, once.
pub type Once = (&'static str, u64, fn(&mut World));

/// The process.
pub struct Process {
    pub no: u32,
    pub identity: Identity,
    pub began: u64,
    pub has_job: bool,
    pub subscribed: bool,
    pub conditions: Conditions,
    wake: Option<u64>,
}

/// One core device and all that is around it.
pub struct World {
    pub now: u64,
    agenda: BTreeMap<(u64, u64), Act>,
    seq: u64,
    pub rng: fastrand::Rng,
    pub process: Option<Process>,
    processes: u32,
    pub disk: Disk,
    pub nucleus: Nucleus,
    pub cloud: Cloud,
    pub relay: Relay,
    pub clock: Clock,
    pub window: bool,
    pub deployment: bool,
    pub max_restarts: u32,
    pub cut: Option<(usize, Tear, Next)>,
    /// The effects so far, and whether each may be cut in its midst.
    pub points: Vec<bool>,
    pub witness: Witness,
    pub steps: u64,
    asks: u32,
    /// What happens once the identity tells of this, by its first words.
    pub once: Vec<Once>,
}

impl World {
    /// A gateway that was never rotated.
    pub fn new(kind: Kind, seed: u64) -> Self {
        let disk = Disk::new();
        let nucleus = Nucleus::new(kind, disk.configured().1.facts.id);
        let mut world = Self {
            now: 0,
            agenda: BTreeMap::new(),
            seq: 0,
            rng: fastrand::Rng::with_seed(seed),
            process: None,
            processes: 0,
            disk,
            nucleus,
            cloud: Cloud::new(),
            relay: Relay::new(),
            clock: Clock::True,
            window: true,
            deployment: false,
            max_restarts: 4,
            cut: None,
            points: Vec::new(),
            witness: Witness::default(),
            steps: 0,
            asks: 0,
            once: Vec::new(),
        };
        world.now = HOUR;
        world.later(0, Act::Reconnect(world.nucleus.start_no()));
        world.start_later();
        world
    }

    /// Something happens after so long.
    pub fn later(&mut self, after: u64, act: Act) {
        self.seq += 1;
        self.agenda.insert((self.now + after, self.seq), act);
    }

    /// The cloud wants a rotation.
    pub fn ask(&mut self) {
        self.asks += 1;
        let rotation = format!("r-{}", self.asks);
        let replaced = self.relay.on_request(self.now, &rotation);
        self.withdrawn(replaced);
    }

    /// The cloud takes back the certificate that it sent.
    pub fn withdraw(&mut self) {
        let withdrawn = self.relay.withdraw(self.now);
        self.cloud.withdrew |= withdrawn.is_some();
        self.withdrawn(withdrawn);
    }

    /// The cloud sends another certificate for the same key.
    pub fn replace_certificate(&mut self) {
        if let Relayed::AwaitAck(leaf) = self.relay.stage.clone() {
            let other = self.cloud.reissue(&leaf);
            self.relay.on_certificate(self.now, other);
        }
    }

    fn withdrawn(&mut self, certificate: Option<CertificateId>) {
        if let Some(certificate) = certificate {
            self.hand(Event::Withdrawn(certificate));
        }
    }

    /// The clock is of 2100, and believed.
    pub fn tell_lies(&mut self) {
        self.witness.clock_lied = true;
        self.clock = Clock::Lies;
    }

    /// Something that no relay would send.
    pub fn send(&mut self, kind: Message, payload: Vec<u8>) {
        self.hand(Event::Message { kind, payload });
    }

    /// Somebody asks for something.
    pub fn command(&mut self, command: Command) {
        self.witness.by_hand |= command == Command::Rollback;
        self.witness.forced |= command == Command::RestartNow;
        self.hand(Event::Command(command));
    }

    /// Lets time pass.
    pub fn run(&mut self, time: u64) {
        let end = self.now + time;
        let mut spins = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            spins = if next > self.now { 0 } else { spins + 1 };
            assert!(spins < 2000, "it never comes to rest: {:?}", self.witness.last());
            self.now = self.now.max(next);
            self.steps += 1;
            self.step();
            self.watch();
        }
        self.now = end;
    }

    /// Lets time pass until something is so, or for so long.
    pub fn run_until(&mut self, longest: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + longest;
        while !is_so(self) && self.now < end {
            let next = self.next_time().unwrap_or(end).min(end);
            self.run(next.saturating_sub(self.now));
            if next == end {
                break;
            }
        }
        is_so(self)
    }

    fn next_time(&self) -> Option<u64> {
        let alive = self.process.as_ref();
        let mut times = vec![
            self.agenda.keys().next().map(|key| key.0),
            alive.and_then(|process| process.wake),
        ];
        if alive.is_some() {
            times.extend([self.relay.down_due, self.relay.up_due]);
        }
        times.into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let alive = self.process.is_some();
        if self.agenda.keys().next().is_some_and(|key| key.0 <= now) {
            let (_, act) = self.agenda.pop_first().expect("there is one");
            self.act(act);
        } else if alive && is_due(self.relay.down_due) {
            if let Some((kind, payload)) = self.relay.message(now) {
                self.hand(Event::Message { kind, payload });
            }
        } else if alive && is_due(self.relay.up_due) {
            self.send_up();
        } else if self.process.as_ref().is_some_and(|process| is_due(process.wake)) {
            self.hand(Event::Wake);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start(no) if no == self.processes && self.nucleus.is_up() => self.start(),
            Act::Subscribe(no) => {
                if let Some(process) = self.process.as_mut().filter(|process| process.no == no) {
                    process.subscribed = true;
                    self.relay.on_start(self.now);
                }
            }
            Act::NucleusUp(no) if no == self.nucleus.start_no() && !self.nucleus.is_up() => {
                let configured = self.disk.configured().1.facts.id;
                self.nucleus.start(configured);
                self.cloud.on_loaded(configured);
                self.later(SECOND, Act::Reconnect(no));
                self.start_later();
            }
            Act::Reconnect(no) if no == self.nucleus.start_no() => self.reconnect(no),
            Act::LinkUp(connection) if self.nucleus.connected == Some(connection) => {
                let link =
                    if self.nucleus.no_loopback { CloudState::Unknown } else { CloudState::Up };
                self.nucleus.link = link;
            }
            Act::RestartNucleus(boot) if boot == self.nucleus.boot() => self.restart_nucleus(),
            Act::JobTakes(no, job) if self.is_alive(no) => self.take_job(no, job),
            Act::JobEnds(no, done) if self.is_alive(no) => {
                self.process.as_mut().expect("alive").has_job = false;
                self.hand(Event::Done(done));
            }
            Act::Taken(no) if self.is_alive(no) => self.hand(Event::Taken),
            Act::Issued(leaf) if self.process.is_some() => {
                self.relay.on_certificate(self.now, leaf);
            }
            Act::Settled(certificate) if self.process.is_some() => {
                self.witness.settled(certificate);
                self.hand(Event::Settled(certificate));
            }
            Act::Do(what) => what(self),
            Act::Command(command) => self.command(command),
            _ => {}
        }
    }

    fn is_alive(&self, no: u32) -> bool {
        self.process.as_ref().is_some_and(|process| process.no == no)
    }

    /// The process ends.
    pub fn kill(&mut self) {
        self.process = None;
        self.processes += 1;
    }

    fn start_later(&mut self) {
        let after = self.rng.u64(SECOND..10 * SECOND);
        self.later(after, Act::Start(self.processes));
    }

    /// The component restarts, in the same life of the nucleus.
    pub fn restart_component(&mut self) {
        self.kill();
        if self.rng.bool() {
            self.nucleus.new_token();
        }
        self.start_later();
    }

    /// The nucleus restarts, and all components with it.
    pub fn restart_nucleus(&mut self) {
        if self.nucleus.is_off(self.now) {
            return;
        }
        self.kill();
        self.nucleus.stop();
        let after = self.rng.u64(SECOND..30 * SECOND);
        self.later(after, Act::NucleusUp(self.nucleus.start_no()));
    }

    /// The power is lost for a while.
    pub fn cut_power(&mut self) {
        if self.nucleus.is_off(self.now) {
            return;
        }
        self.kill();
        let off = self.rng.u64(10 * SECOND..HOUR);
        self.nucleus.cut(self.now + off);
        self.later(off + 20 * SECOND, Act::NucleusUp(self.nucleus.start_no()));
    }

    fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let settings = Settings { max_restarts: self.max_restarts };
        let uptime = Duration::from_millis(self.nucleus.uptime(self.now));
        let life = Life { run: Some(self.nucleus.run()), uptime };
        self.processes += 1;
        let no = self.processes;
        let identity = Identity::new(settings, life, self.rng.u64(..));
        self.witness.on_start();
        self.process = Some(Process {
            no,
            identity,
            began: self.now,
            has_job: false,
            subscribed: false,
            conditions: Conditions::default(),
            wake: None,
        });
        let after = self.rng.u64(SECOND..5 * SECOND);
        self.later(after, Act::Subscribe(no));
        self.hand(Event::Wake);
    }

    fn instant(&self) -> Now {
        let began = self.process.as_ref().map_or(self.now, |process| process.began);
        let wall = match self.clock {
            Clock::True => Some(Timestamp(BEGIN + self.now)),
            Clock::Unknown => None,
            Clock::Lies => Some(Timestamp(4_102_444_800_000 + self.now)),
        };
        Now { tick: Tick(self.now - began), wall }
    }

    /// Hands an event to the process, if there is one, and does what it wants.
    pub fn hand(&mut self, event: Event) {
        let now = self.instant();
        let Some(process) = &mut self.process else { return };
        let mut effects = Vec::new();
        process.identity.handle(now, event, &mut effects);
        for effect in effects {
            let is_point = matches!(effect, Effect::Do(_) | Effect::Say(_));
            if is_point {
                self.points.push(is_long(&effect));
            }
            if let Some((at, tear, next)) = self.cut.filter(|_| is_point)
                && at + 1 == self.points.len()
            {
                return self.end(effect, tear, next);
            }
            self.perform(effect);
        }
        let now = self.instant();
        if let Some(process) = &mut self.process {
            let wake = process.identity.next_wakeup(now);
            process.wake = wake.map(|tick| process.began + tick.0);
        }
        self.check_critical();
    }

    /// The process ends here.
    fn end(&mut self, effect: Effect, tear: Tear, next: Next) {
        self.cut = None;
        match (tear, effect) {
            (Tear::Before, _) => {}
            (Tear::Torn, Effect::Do(job)) => self.disk.tear(&job),
            (Tear::Torn, _) => {}
            (Tear::After, Effect::Do(job)) => {
                self.check_job(&job);
                self.do_job(&job);
            }
            (Tear::After, effect) => self.perform(effect),
        }
        match next {
            Next::Component => self.restart_component(),
            Next::Nucleus => self.restart_nucleus(),
            Next::Power => self.cut_power(),
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Do(job) => {
                self.check_job(&job);
                let process = self.process.as_mut().expect("alive");
                assert!(!process.has_job, "one job at a time");
                process.has_job = true;
                let (no, after) = (process.no, self.rng.u64(1..200));
                self.later(after, Act::JobTakes(no, job));
            }
            Effect::Say(say) => {
                self.check_say(&say);
                self.relay.hear(self.now, say);
                let (no, after) = (self.processes, self.rng.u64(1..100));
                self.later(after, Act::Taken(no));
            }
            Effect::Tell(told) => self.check_told(told),
            Effect::Answer(answer) => self.witness.answers.push(answer),
        }
    }

    fn take_job(&mut self, no: u32, job: Job) {
        let done = self.do_job(&job);
        let after = match job {
            Job::Probe { .. } => self.rng.u64(SECOND..10 * SECOND),
            _ => self.rng.u64(1..200),
        };
        self.later(after, Act::JobEnds(no, done));
    }

    fn do_job(&mut self, job: &Job) -> Done {
        match job {
            Job::Probe { with, name } => {
                let leaf = self.disk.leaf(*with);
                let probed = self.cloud.probe(*name, leaf.as_ref());
                if *name == ProbeName::InPlace && probed == Some(Probed::Accepted) {
                    self.push_off();
                }
                let is_old = self.is_old(leaf.as_ref());
                let Some(probed) = probed else { return failed(Reason::CredentialUnusable) };
                self.witness.probed(self.now, is_old, &probed);
                Done::Probed(probed)
            }
            Job::Restart => self.do_restart(),
            job => {
                let before = self.disk.current();
                let done = self.disk.perform(job);
                self.check_files(job, before, &done);
                done
            }
        }
    }

    fn is_old(&self, leaf: Option<&Leaf>) -> bool {
        let saved = self.process.as_ref().map(|process| process.identity.saved().clone());
        let new = saved.and_then(|saved| saved.stage.candidate().map(|c| c.certificate));
        leaf.map(|leaf| leaf.facts.id) != new
    }
}

/// Whether it does several things to files, one after the other.
fn is_long(effect: &Effect) -> bool {
    matches!(effect, Effect::Do(Job::MakeKey { .. } | Job::Attach | Job::Wipe { .. } | Job::Detach))
}

pub fn failed(reason: Reason) -> Done {
    Done::Failed(Failure { reason, detail: "as it was told".to_owned() })
}
