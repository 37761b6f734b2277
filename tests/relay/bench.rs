//! The bench: one relay, a store that keeps exactly what it was told, and links whose answers a
//! test chooses. Effects are done at once; their completions come at once too, unless told not to.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use certrelay::{
    links::{ConnectionId, Delivery, Message, Qos, SendError},
    relay::{
        Body, Children, Content, Effect, Event, ForCore, Note, Outcome, Outgoing, Record, Relay,
        Settings, Side, Snapshot, Write,
    },
    schedule::{Backoff, Now, Tick, Timestamp},
    wire::{CertificateId, Header, KeyDigest, Kind, Mid, ThingName, Topics},
    x509::{self, CommonNameRule},
};
use serde_json::Value;

use crate::pki;

pub use crate::talk::{bytes, crt_payload, crt_payload_for_core, csr_payload};

pub const CORE: &str = "core-1";
pub const PUMP: &str = "pump-1";

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
pub const fn minutes(n: u64) -> Duration {
    secs(60 * n)
}
pub const fn hours(n: u64) -> Duration {
    minutes(60 * n)
}
pub const fn days(n: u64) -> Duration {
    hours(24 * n)
}

pub fn name(text: &str) -> ThingName {
    text.parse().expect("a valid name")
}

/// The defaults of the settings' documentation.
pub fn settings() -> Settings {
    Settings {
        core: name(CORE),
        cloud_topics: Topics::parse("cloud/{thingName}", &name(CORE)).expect("valid"),
        local_topics: Topics::parse("floor", &name(CORE)).expect("valid"),
        children: Children::new(["*"]),
        rotation_ttl: days(30),
        min_interval: hours(20),
        common_name: CommonNameRule::AbsentOk,
        settle: secs(5),
        anchors: None,
        request: Backoff { first: minutes(10), longest: hours(6) },
        certificate: Backoff { first: minutes(1), longest: hours(1) },
        cloud: Backoff { first: minutes(1), longest: hours(1) },
        messages_per_second: NonZeroU32::new(20),
        unconfirmed: 8,
        most_under_way: 30_000,
        probe_interval: minutes(5),
    }
}

/// What survives a restart; records go through their stored form.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    pub records: BTreeMap<ThingName, Vec<u8>>,
    pub bodies: BTreeMap<(ThingName, Body), Vec<u8>>,
    pub seen: Option<Timestamp>,
    pub commits: u64,
}

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        self.commits += u64::from(!writes.is_empty());
        for write in writes {
            match write {
                Write::Record(name, record) => {
                    self.records.insert(name, serde_json::to_vec(&record).expect("serialises"));
                }
                Write::Body(name, body, der) => drop(self.bodies.insert((name, body), der)),
                Write::DropBody(name, body) => drop(self.bodies.remove(&(name, body))),
                Write::Forget(name) => {
                    self.records.remove(&name);
                    self.bodies.retain(|(of, _), _| *of != name);
                }
                Write::Seen(time) => self.seen = self.seen.max(Some(time)),
            }
        }
    }

    pub fn record(&self, name: &ThingName) -> Option<Record> {
        self.records.get(name).map(|bytes| serde_json::from_slice(bytes).expect("readable"))
    }

    pub fn snapshot(&self) -> Snapshot {
        let records = self.records.keys().map(|name| {
            (name.clone(), self.record(name).expect("every key of the map has a record"))
        });
        Snapshot { records: records.collect(), damaged: vec![], seen: self.seen }
    }

    pub fn body(&self, name: &ThingName, body: Body) -> Option<&Vec<u8>> {
        self.bodies.get(&(name.clone(), body))
    }
}

/// What a link answers to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Taken.
    Took,
    /// `SendError::Offline`.
    Offline,
    /// `SendError::Refused`.
    Refused,
    /// Nothing, until a test says so.
    Nothing,
}

/// One message that the relay published.
#[derive(Debug, Clone)]
pub struct Published {
    pub at: Duration,
    pub side: Side,
    pub to: String,
    pub kind: Option<Kind>,
    pub qos: Qos,
    pub payload: Vec<u8>,
    pub copy: Mid,
}

impl Published {
    pub fn field(&self, name: &str) -> Option<String> {
        let value: Value = serde_json::from_slice(&self.payload).ok()?;
        value.get(name)?.as_str().map(str::to_owned)
    }

    pub fn mid(&self) -> Mid {
        Header::read(&self.payload).mid.expect("every message of ours has an id")
    }
}

pub struct Bench {
    pub relay: Relay,
    pub settings: Settings,
    pub disk: Disk,
    /// Since the test began; the wall clock runs along.
    pub time: Duration,
    boot: Duration,
    pub trusted: bool,
    pub connection: u64,
    pub number: u64,
    seed: u64,
    /// What the links answer.
    pub cloud_answer: Answer,
    pub floor_answer: Answer,
    /// Our own uplinks come back.
    pub loopback: bool,
    /// Our probes come back.
    pub probes_return: bool,
    /// Signatures are checked at once.
    pub verify: bool,
    pub published: Vec<Published>,
    pub notes: Vec<Note>,
    pub acks: Vec<(Side, Delivery)>,
    pub verifies: Vec<(ThingName, KeyDigest)>,
    pub probes: Vec<Duration>,
    /// When the link to the cloud was told to connect anew.
    pub cures: Vec<Duration>,
    /// When subscriptions were renewed.
    pub renewals: Vec<Duration>,
    /// What the core itself was handed, and when.
    pub for_core: Vec<(Duration, Kind, Vec<u8>)>,
    pub settled: Vec<CertificateId>,
    pub withdrawn: Vec<CertificateId>,
    /// How many of the core's words are durable.
    pub taken: u32,
    pub barriers: Vec<Mid>,
}

/// More events than this at one instant are a loop.
const STORM: u32 = 20_000;

impl Bench {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        Self::from_disk(settings, Disk::default())
    }

    pub fn from_disk(settings: Settings, disk: Disk) -> Self {
        let relay = Relay::restore(
            settings.clone(),
            0,
            Now { tick: Tick(0), wall: None },
            Snapshot::default(),
            &mut Outcome::default(),
        );
        let mut bench = Self {
            relay,
            settings,
            disk,
            time: Duration::ZERO,
            boot: Duration::ZERO,
            trusted: true,
            connection: 0,
            number: 0,
            seed: 0,
            cloud_answer: Answer::Took,
            floor_answer: Answer::Took,
            loopback: true,
            probes_return: true,
            verify: true,
            published: vec![],
            notes: vec![],
            acks: vec![],
            verifies: vec![],
            probes: vec![],
            cures: vec![],
            renewals: vec![],
            for_core: vec![],
            settled: vec![],
            withdrawn: vec![],
            taken: 0,
            barriers: vec![],
        };
        bench.restart();
        bench
    }

    /// A bench with both links up and the barrier passed.
    pub fn up() -> Self {
        let mut bench = Self::new();
        bench.links_up();
        bench
    }

    pub fn links_up(&mut self) {
        self.cloud_up();
        self.floor_up(true);
        assert_eq!(self.relay.local_state(), (true, true));
    }

    pub fn cloud_up(&mut self) {
        self.feed(Event::Up {
            side: Side::Cloud,
            connection: ConnectionId(1),
            session_present: false,
        });
    }

    pub fn cloud_down(&mut self) {
        self.feed(Event::Down { side: Side::Cloud });
    }

    pub fn floor_up(&mut self, session_present: bool) {
        self.connection += 1;
        let connection = ConnectionId(self.connection);
        self.feed(Event::Up { side: Side::Local, connection, session_present });
    }

    pub fn floor_down(&mut self) {
        self.feed(Event::Down { side: Side::Local });
    }

    pub fn now(&self) -> Now {
        let wall = self.trusted.then(|| pki::BEGIN + self.time);
        Now { tick: tick(self.time - self.boot), wall }
    }

    /// The wall clock, in Unix seconds.
    pub fn unix(&self) -> u64 {
        (pki::BEGIN + self.time).unix_seconds()
    }

    /// The process starts anew from the store; both links are down.
    pub fn restart(&mut self) {
        self.restart_with(vec![]);
    }

    pub fn restart_with(&mut self, damaged: Vec<ThingName>) {
        self.boot = self.time;
        self.seed += 1;
        let snapshot = Snapshot { damaged, ..self.disk.snapshot() };
        let mut out = Outcome::default();
        self.relay =
            Relay::restore(self.settings.clone(), self.seed, self.now(), snapshot, &mut out);
        let mut queue = VecDeque::new();
        self.perform(out, &mut queue);
        assert!(queue.is_empty(), "a relay that has just started has no link to send on");
    }

    /// The settings change while the process runs.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings.clone();
        let mut out = Outcome::default();
        self.relay.reconfigure(self.now(), settings, &mut out);
        self.check_wakeup();
        let mut queue = VecDeque::new();
        self.perform(out, &mut queue);
        self.feed_all(queue);
    }

    /// Hands over an event, and the completions that follow from it.
    pub fn feed(&mut self, event: Event) {
        self.feed_all(VecDeque::from([event]));
    }

    fn feed_all(&mut self, mut queue: VecDeque<Event>) {
        let mut count = 0;
        while let Some(event) = queue.pop_front() {
            count += 1;
            assert!(count < STORM, "events make events without end: {event:?}");
            self.step(event, &mut queue);
        }
    }

    /// Hands over one event; completions are put into the queue.
    pub fn step(&mut self, event: Event, queue: &mut VecDeque<Event>) {
        let mut out = Outcome::default();
        self.relay.handle(self.now(), event, &mut out);
        self.check_wakeup();
        self.perform(out, queue);
    }

    fn check_wakeup(&self) {
        if let Some(due) = self.relay.next_wakeup() {
            assert!(due > self.now().tick, "the relay wants to be woken in the past");
        }
    }

    fn perform(&mut self, out: Outcome, queue: &mut VecDeque<Event>) {
        self.disk.apply(out.writes);
        for effect in out.then {
            match effect {
                Effect::Ack(side, delivery) => self.acks.push((side, delivery)),
                Effect::Note(note) => self.notes.push(note),
                Effect::Reconnect(side) => {
                    assert_eq!(side, Side::Cloud);
                    self.cures.push(self.time);
                }
                Effect::Renew(side) => {
                    assert_eq!(side, Side::Cloud);
                    self.renewals.push(self.time);
                }
                Effect::Verify { child, key } => {
                    self.verifies.push((child.clone(), key));
                    if self.verify {
                        let body = self.disk.body(&child, Body::Csr).expect("the CSR is there");
                        let outcome = x509::verify_csr_signature(body);
                        queue.push_back(Event::Verified { child, key, outcome });
                    }
                }
                Effect::Core(ForCore::Message(outgoing)) => {
                    let topic = outgoing.topic.clone();
                    let (_, kind) = self.settings.local_topics.read(&topic).expect("a topic");
                    let payload = self.payload(outgoing);
                    self.for_core.push((self.time, kind, payload));
                }
                Effect::Core(ForCore::Settled(id)) => self.settled.push(id),
                Effect::Core(ForCore::Withdrawn(id)) => self.withdrawn.push(id),
                Effect::Core(ForCore::Taken) => self.taken += 1,
                Effect::Publish(side, outgoing) => {
                    let Outgoing { copy, topic, qos, .. } = outgoing.clone();
                    let payload = self.payload(outgoing);
                    self.publish(side, copy, topic, qos, payload, queue);
                }
            }
        }
    }

    fn payload(&self, outgoing: Outgoing) -> Vec<u8> {
        let body = match &outgoing.content {
            Content::Ready(_) => vec![],
            Content::Csr { child, .. } => {
                self.disk.body(child, Body::Csr).expect("the CSR is there").clone()
            }
            Content::Certificate { child, .. } => {
                self.disk.body(child, Body::Certificate).expect("the certificate is there").clone()
            }
        };
        outgoing.content.render(&body).expect("the body is the one")
    }

    fn publish(
        &mut self,
        side: Side,
        copy: Mid,
        topic: String,
        qos: Qos,
        payload: Vec<u8>,
        queue: &mut VecDeque<Event>,
    ) {
        let answer = match side {
            Side::Cloud => self.cloud_answer,
            Side::Local => self.floor_answer,
        };
        let mut returns = answer == Answer::Took;
        let topics = match side {
            Side::Cloud => &self.settings.cloud_topics,
            Side::Local => &self.settings.local_topics,
        };
        if let Some((to, kind)) = topics.read(&topic) {
            returns &= side == Side::Cloud && self.loopback;
            self.published.push(Published {
                at: self.time,
                side,
                to: to.to_string(),
                kind: Some(kind),
                qos,
                payload: payload.clone(),
                copy,
            });
        } else if side == Side::Cloud {
            returns &= self.probes_return;
            self.probes.push(self.time);
            assert!(self.probes.len() < 200_000, "probes without end");
        } else {
            self.barriers.push(copy);
        }
        let outcome = match answer {
            Answer::Took => Ok(()),
            Answer::Offline => Err(SendError::Offline),
            Answer::Refused => Err(SendError::Refused),
            Answer::Nothing => return,
        };
        queue.push_back(Event::Sent { side, mid: copy, outcome });
        if returns {
            queue.push_back(Event::Message {
                side,
                message: Message { topic, payload, dup: false, retain: false, delivery: None },
            });
        }
    }

    /// Lets time pass; the relay is woken when it wants to be.
    pub fn advance(&mut self, by: Duration) {
        let end = self.time + by;
        let mut wakeups = 0_u32;
        while let Some(due) = self.relay.next_wakeup() {
            let due = self.boot + Duration::from_millis(due.0);
            if due > end {
                break;
            }
            wakeups += 1;
            assert!(wakeups < 500_000, "the relay never rests");
            self.time = due;
            self.feed(Event::Wakeup);
        }
        self.time = end;
        self.feed(Event::Wakeup);
    }
}

fn tick(time: Duration) -> Tick {
    Tick(u64::try_from(time.as_millis()).expect("tests are short"))
}
