//! Time, and all that happens in it, around one identity.

use std::{collections::BTreeMap, time::Duration};

use certrelay::{
    identity::{
        Command, Conditions, Done, Effect, Event, Failure, Identity, Job, Life, ProbeName, Probed,
        Say, Settings, Stage, Told,
    },
    reason::Reason,
    relay::CloudState,
    schedule::{Now, Tick, Timestamp},
    wire::{CertificateId, Kind as Message},
};

use crate::{
    cloud::{Cloud, Uplink},
    disk::Disk,
    nucleus::{Kind, Nucleus, Restarts},
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
    Do(fn(&mut World)),
    Command(Command),
}

/// The process.
pub struct Process {
    pub no: u32,
    pub identity: Identity,
    pub began: u64,
    pub has_job: bool,
    subscribed: bool,
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
    pub points: usize,
    pub was_cut: bool,
    pub witness: Witness,
    pub steps: u64,
    asks: u32,
    /// What happens once the identity tells of this, by its first words.
    pub once: Vec<(&'static str, u64, fn(&mut World))>,
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
            points: 0,
            was_cut: false,
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
        self.withdrawn(withdrawn);
    }

    fn withdrawn(&mut self, certificate: Option<CertificateId>) {
        if let Some(certificate) = certificate {
            self.hand(Event::Withdrawn(certificate));
        }
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
            Act::Issued(leaf) if self.process.is_some() => {
                let replaced = self.relay.on_certificate(self.now, leaf);
                self.withdrawn(replaced);
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

    /// What changes by itself: connections that the cloud ends, and what the process hears of it.
    fn watch(&mut self) {
        let is_taken = self.cloud.reachable && self.cloud.takes(self.nucleus.loaded);
        if self.nucleus.connected.is_some() && !is_taken {
            self.nucleus.disconnect();
            let after = self.rng.u64(SECOND..MINUTE);
            self.later(after, Act::Reconnect(self.nucleus.start_no()));
        }
        let conditions = Conditions {
            nucleus: self.nucleus.is_up(),
            link: self.nucleus.link,
            deployment: self.deployment,
            window: self.window && self.clock != Clock::Unknown,
        };
        let process = self.process.as_mut().filter(|process| process.subscribed);
        if let Some(process) = process.filter(|process| process.conditions != conditions) {
            process.conditions = conditions;
            self.hand(Event::Conditions(conditions));
        }
    }

    fn reconnect(&mut self, no: u32) {
        if !self.nucleus.is_up() || self.nucleus.connected.is_some() {
            return;
        }
        if self.nucleus.kind == Kind::Lite {
            let configured = self.disk.configured().1.facts.id;
            self.nucleus.loaded = configured;
            self.cloud.on_loaded(configured);
        }
        if self.cloud.reachable && self.cloud.takes(self.nucleus.loaded) {
            let connection = self.nucleus.connect();
            let after = self.rng.u64(SECOND..MINUTE);
            self.later(after, Act::LinkUp(connection));
        } else if self.cloud.reachable {
            let after = self.rng.u64(30 * SECOND..5 * MINUTE);
            self.later(after, Act::Reconnect(no));
        }
    }

    /// The network comes or goes.
    pub fn set_reachable(&mut self, reachable: bool) {
        self.cloud.reachable = reachable;
        if reachable {
            let after = self.rng.u64(SECOND..5 * MINUTE);
            self.later(after, Act::Reconnect(self.nucleus.start_no()));
        }
    }

    fn send_up(&mut self) {
        self.relay.up_due = Some(self.now + 5 * MINUTE);
        if self.nucleus.connected.is_none() {
            return;
        }
        for uplink in std::mem::take(&mut self.relay.up) {
            match uplink {
                Uplink::Csr(csr, rotation) => {
                    let leaf = self.cloud.hear_csr(&csr);
                    let after = self.rng.u64(SECOND..30 * SECOND);
                    self.later(after, Act::Issued(leaf));
                    if matches!(self.relay.stage, Relayed::AwaitCert(_)) {
                        self.relay.up.push(Uplink::Csr(csr, rotation));
                    }
                }
                Uplink::Ack(certificate) => {
                    self.cloud.hear_ack(certificate);
                    if self.cloud.settles {
                        let after = self.rng.u64(SECOND..MINUTE);
                        self.later(after, Act::Settled(certificate));
                    }
                }
                Uplink::Err { code, certificate, ends } => {
                    self.cloud.hear_error(code, certificate, ends);
                }
            }
        }
        if self.relay.up.is_empty() {
            self.relay.up_due = None;
        }
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
        self.kill();
        self.nucleus.stop();
        let after = self.rng.u64(SECOND..30 * SECOND);
        self.later(after, Act::NucleusUp(self.nucleus.start_no()));
    }

    /// The power is lost for a while.
    pub fn cut_power(&mut self) {
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
                self.points += 1;
            }
            if let Some((at, tear, next)) = self.cut.filter(|_| is_point)
                && at + 1 == self.points
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
        (self.cut, self.was_cut) = (None, true);
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
                self.before_files(job);
                self.disk.perform(job)
            }
        }
    }

    fn is_old(&self, leaf: Option<&Leaf>) -> bool {
        let saved = self.process.as_ref().map(|process| process.identity.saved().clone());
        let new = saved.and_then(|saved| saved.stage.candidate().map(|c| c.certificate));
        leaf.map(|leaf| leaf.facts.id) != new
    }

    /// Another client of the same name takes the place of the nucleus.
    fn push_off(&mut self) {
        self.nucleus.disconnect();
        let after = self.rng.u64(SECOND..MINUTE);
        self.later(after, Act::Reconnect(self.nucleus.start_no()));
    }

    fn do_restart(&mut self) -> Done {
        self.witness.restarts.push(self.now);
        match self.nucleus.restarts {
            Restarts::Work => {
                let after = self.rng.u64(SECOND..20 * SECOND);
                self.later(after, Act::RestartNucleus(self.nucleus.boot()));
            }
            Restarts::Late(minutes) => {
                self.later(minutes * MINUTE, Act::RestartNucleus(self.nucleus.boot()));
            }
            Restarts::Fail => return failed(Reason::CannotRestart),
            Restarts::WrongUnit => self.later(2 * SECOND, Act::Do(Self::restart_component)),
            Restarts::DoNothing => {}
        }
        Done::Asked
    }

    /// All that is around it works again.
    pub fn heal(&mut self) {
        self.set_reachable(true);
        (self.cloud.tls_trouble, self.cloud.refuses_all) = (false, false);
        (self.cloud.turns, self.cloud.refuses_new) = (false, false);
        (self.window, self.deployment, self.clock) = (true, false, Clock::True);
        self.nucleus.restarts = Restarts::Work;
        (self.disk.fail, self.disk.unreadable) = (0, false);
        self.cut = None;
    }

    /// Whether a rotation has come to its end, everywhere.
    pub fn is_at_rest(&self) -> bool {
        let idle = |process: &Process| {
            matches!(process.identity.saved().stage, Stage::Idle) && !process.has_job
        };
        self.relay.is_at_rest()
            && self.process.as_ref().is_some_and(idle)
            && self.nucleus.connected.is_some()
    }

    /// All comes to its end in a few days, and the nucleus is connected with the pair on disk.
    pub fn must_settle(&mut self) {
        let has_settled = self.run_until(4 * DAY, Self::is_at_rest);
        let process = self.process.as_ref().map(|process| process.identity.saved());
        let trail = self.witness.last();
        assert!(
            has_settled,
            "not at rest after days: {process:?}\n{:?} link {:?}\n{trail}",
            self.relay.stage, self.nucleus.link
        );
        let configured = self.disk.configured().1.facts.id;
        assert_eq!(self.nucleus.loaded, configured, "the nucleus runs what is configured\n{trail}");
        assert!(self.cloud.takes(configured), "the cloud takes it\n{trail}");
        let ended =
            self.cloud.acked.contains(&configured) || self.cloud.errors.iter().any(|error| error.2);
        assert!(ended || self.cloud.csrs == 0, "the cloud knows how it ended\n{trail}");
    }
}

fn failed(reason: Reason) -> Done {
    Done::Failed(Failure { reason, detail: "as it was told".to_owned() })
}

/// What the witness is to see.
impl World {
    fn check_job(&mut self, job: &Job) {
        let process = self.process.as_ref().expect("alive");
        self.witness.job(self.now, job);
        if *job == Job::Restart {
            let saved = process.identity.saved();
            assert_eq!(
                self.disk.saved().as_ref(),
                Some(saved),
                "what the next life needs is saved"
            );
            self.witness.restart(self.now, &saved.stage, process.conditions, self.max_restarts);
        }
        if *job == Job::Attach {
            self.witness.install(self.now, &process.identity.saved().stage);
        }
    }

    fn before_files(&mut self, job: &Job) {
        match job {
            Job::Attach | Job::Detach => self.witness.unguard_but(self.disk.current()),
            Job::Switch { generation } => {
                let from = self.disk.current().expect("links");
                let new = self.disk.leaf(certrelay::identity::Pair::Generation(*generation));
                let is_new =
                    matches!(self.disk.saved().map(|saved| saved.stage), Some(Stage::Installed(_)));
                let new = new.filter(|_| is_new).map(|leaf| leaf.facts.id);
                self.witness.switch(from, *generation, new);
            }
            Job::Wipe { generation } => self.witness.wipe(self.now, *generation),
            _ => {}
        }
    }

    fn check_say(&mut self, say: &Say) {
        self.witness.say(self.now, say, self.nucleus.loaded);
        if let Say::Csr { csr, .. } = say {
            let generation = self.disk.saved().and_then(|saved| saved.stage.generation());
            let pair = generation.and_then(|generation| self.disk.generations.get(&generation));
            let durable = pair.and_then(|pair| pair.csr.as_ref());
            assert_eq!(durable, Some(csr), "a key is durable before its CSR leaves");
        }
        if matches!(say, Say::Acked { .. }) {
            let link = self.process.as_ref().expect("alive").conditions.link;
            assert_ne!(link, CloudState::Down, "an ack needs a link");
        }
    }

    fn check_told(&mut self, told: Told) {
        self.witness.told(self.now, &told);
        let name = format!("{told:?}");
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.once).into_iter().partition(|once| name.starts_with(once.0));
        self.once = rest;
        for (_, after, what) in due {
            self.later(after, Act::Do(what));
        }
    }

    fn check_critical(&mut self) {
        let is_critical =
            self.process.as_ref().is_some_and(|process| process.identity.is_critical());
        self.witness.critical(self.now, is_critical);
        assert!(self.disk.generations.len() <= 6, "{:?}", self.disk.generations.keys());
        self.disk.configured();
    }
}
