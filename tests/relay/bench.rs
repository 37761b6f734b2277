//! The bench: one relay, a store that keeps exactly what it was told, and links whose answers a
//! test chooses. Effects are done at once; their completions come at once too, unless told not to.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use certrelay::{
    links::{ConnectionId, Delivery, Message, Qos, SendError},
    reason::Reason,
    relay::{
        Body, Children, Content, Effect, Event, Note, Outcome, Record, Relay, Settings, Side,
        Snapshot, Stage, Write,
    },
    schedule::{Backoff, Now, Tick, Timestamp},
    wire::{CertificateId, Header, KeyDigest, Kind, Mid, ThingName, Topics},
    x509::{self, CommonNameRule},
};
use serde_json::{Value, json};

use crate::pki;

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
    pub topic: String,
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
    number: u64,
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

    /// Hands over an event, and the completions that follow from it.
    pub fn feed(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
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
        if let Some(due) = self.relay.next_wakeup() {
            assert!(due > self.now().tick, "the relay wants to be woken in the past");
        }
        self.perform(out, queue);
    }

    fn perform(&mut self, out: Outcome, queue: &mut VecDeque<Event>) {
        self.disk.apply(out.writes);
        for effect in out.then {
            match effect {
                Effect::Ack(side, delivery) => self.acks.push((side, delivery)),
                Effect::Note(note) => self.notes.push(note),
                Effect::Verify { child, key } => {
                    self.verifies.push((child.clone(), key));
                    if self.verify {
                        let body = self.disk.body(&child, Body::Csr).expect("the CSR is there");
                        let outcome = x509::verify_csr_signature(body);
                        queue.push_back(Event::Verified { child, key, outcome });
                    }
                }
                Effect::Publish(side, outgoing) => {
                    let body = match &outgoing.content {
                        Content::Ready(_) => vec![],
                        Content::Csr { child, .. } => {
                            self.disk.body(child, Body::Csr).expect("the CSR is there").clone()
                        }
                        Content::Certificate { child, .. } => self
                            .disk
                            .body(child, Body::Certificate)
                            .expect("the certificate is there")
                            .clone(),
                    };
                    let payload = outgoing.content.render(&body).expect("the body is the one");
                    self.publish(side, outgoing.copy, outgoing.topic, outgoing.qos, payload, queue);
                }
            }
        }
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
                topic: topic.clone(),
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

    /// A message, exactly as told.
    pub fn message(&mut self, side: Side, topic: &str, payload: &[u8], dup: bool, retain: bool) {
        self.number += 1;
        let delivery =
            Delivery { connection: ConnectionId(self.connection), number: self.number };
        let topic = topic.to_owned();
        let payload = payload.to_vec();
        let message = Message { topic, payload, dup, retain, delivery: Some(delivery) };
        self.feed(Event::Message { side, message });
        assert_eq!(self.acks.last(), Some(&(side, delivery)), "every message is acknowledged");
    }

    pub fn cloud(&mut self, to: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.cloud_topics.topic(&name(to), kind);
        self.message(Side::Cloud, &topic, payload, false, false);
    }

    pub fn local(&mut self, from: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.local_topics.topic(&name(from), kind);
        self.message(Side::Local, &topic, payload, false, false);
    }

    /// The same, redelivered.
    pub fn local_dup(&mut self, from: &str, kind: Kind, payload: &[u8]) {
        let topic = self.settings.local_topics.topic(&name(from), kind);
        self.message(Side::Local, &topic, payload, true, false);
    }

    /// `csr_req` for a rotation of this core.
    pub fn request(&mut self, to: &str, rotation: &str) {
        self.cloud(to, Kind::CsrReq, &bytes(json!({ "core": CORE, "rotationId": rotation })));
    }

    /// A CSR of a child for one of its keys.
    pub fn csr(&mut self, from: &str, key: u32) {
        self.local(from, Kind::CsrRes, &csr_payload(&pki::csr(from, key)));
    }

    /// A certificate of the cloud.
    pub fn crt(&mut self, to: &str, key: u32, serial: u32) -> CertificateId {
        let der = pki::certificate(to, key, serial);
        self.cloud(to, Kind::Crt, &crt_payload(&der));
        pki::id(&der)
    }

    pub fn ack(&mut self, from: &str, certificate: CertificateId) {
        self.local(
            from,
            Kind::CrtAck,
            &bytes(json!({ "certificateId": certificate.to_string() })),
        );
    }

    pub fn bare_ack(&mut self, from: &str) {
        self.local(from, Kind::CrtAck, b"{}");
    }

    pub fn fail(&mut self, from: &str, code: &str) {
        self.local(from, Kind::CrtErr, &bytes(json!({ "error": "no", "code": code })));
    }

    pub fn verdict(&mut self, to: &str, fields: Value) {
        self.cloud(to, Kind::Result, &bytes(fields));
    }

    /// The cloud says that it acted on what it last got of a kind.
    pub fn settle(&mut self, to: &str, kind: Kind) {
        let mid = self.last(Side::Cloud, kind).mid().to_string();
        self.verdict(to, json!({ "for": kind.as_str(), "ok": true, "mid": mid }));
    }

    /// A child comes to `AwaitCsr`.
    pub fn to_await_csr(&mut self, child: &str, rotation: &str) {
        self.request(child, rotation);
        self.expect(child, "await-csr");
    }

    /// A child comes to `AwaitCert`, and the cloud has its CSR.
    pub fn to_await_cert(&mut self, child: &str, rotation: &str, key: u32) {
        self.to_await_csr(child, rotation);
        self.csr(child, key);
        self.expect(child, "await-cert");
        self.advance(secs(66));
    }

    /// A child comes to `AwaitAck`.
    pub fn to_await_ack(&mut self, child: &str, rotation: &str, key: u32) -> CertificateId {
        self.to_await_cert(child, rotation, key);
        let id = self.crt(child, key, 1);
        self.expect(child, "await-ack");
        id
    }

    /// A child comes to `Done`, and the cloud has said that it knows.
    pub fn to_done(&mut self, child: &str, rotation: &str, key: u32) -> CertificateId {
        let id = self.to_await_ack(child, rotation, key);
        self.ack(child, id);
        self.expect(child, "done");
        self.settle(child, Kind::CrtAck);
        assert!(self.record(child).outbox.is_empty());
        id
    }

    pub fn expect(&self, child: &str, state: &str) {
        assert_eq!(self.state(child), state, "the state of {child}");
    }

    pub fn state(&self, child: &str) -> &'static str {
        self.relay.record(&name(child)).map_or("none", |record| record.stage.name())
    }

    pub fn record(&self, child: &str) -> &Record {
        self.relay.record(&name(child)).expect("there is a record")
    }

    pub fn counted(&self, side: impl Into<Option<Side>>, reason: Reason) -> u64 {
        self.relay.counters().of(side.into(), reason)
    }

    /// What was published of a kind, and not forgotten since.
    pub fn sent(&self, side: Side, kind: Kind) -> Vec<&Published> {
        self.published.iter().filter(|p| p.side == side && p.kind == Some(kind)).collect()
    }

    pub fn last(&self, side: Side, kind: Kind) -> &Published {
        self.sent(side, kind).last().copied().expect("one was sent")
    }

    /// The codes of the errors that went up.
    pub fn errors(&self) -> Vec<String> {
        let errors = self.sent(Side::Cloud, Kind::CrtErr);
        errors.iter().map(|p| p.field("code").expect("every error has a code")).collect()
    }

    /// Forgets what was published and noted so far.
    pub fn forget(&mut self) {
        self.published.clear();
        self.notes.clear();
        self.acks.clear();
        self.verifies.clear();
        self.probes.clear();
    }

    /// Which bodies the store holds for a child: keys and certificates.
    pub fn bodies(&self, child: &str) -> (Option<KeyDigest>, Option<CertificateId>) {
        let body = |body| self.disk.body(&name(child), body);
        (
            body(Body::Csr).map(|der| x509::csr_key(der).expect("readable")),
            body(Body::Certificate).map(|der| x509::certificate_id(&x509::split_chain(der)[0])),
        )
    }

    /// The bodies in the store are those that the stage of each record needs.
    pub fn check_bodies(&self) {
        for (child, record) in self.disk.snapshot().records {
            let needs = match record.stage {
                Stage::AwaitCsr(_) | Stage::Done(_) => (None, None),
                Stage::AwaitCert(stage) => (Some(stage.csr.key), None),
                Stage::AwaitAck(stage) => (Some(stage.csr.key), Some(stage.certificate)),
            };
            assert_eq!(self.bodies(child.as_str()), needs, "the bodies of {child}");
        }
    }
}

fn tick(time: Duration) -> Tick {
    Tick(u64::try_from(time.as_millis()).expect("tests are short"))
}

pub fn bytes(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub fn csr_payload(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "CSR": pki::pem("CERTIFICATE REQUEST", der) }))
}

pub fn crt_payload(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "certificatePem": pki::pem("CERTIFICATE", der) }))
}

/// The same, for this core by name.
pub fn crt_payload_for_core(der: &[u8]) -> Vec<u8> {
    bytes(json!({ "certificatePem": pki::pem("CERTIFICATE", der), "core": CORE }))
}
