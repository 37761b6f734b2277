//! One gateway of a world: a real relay, a disk that keeps exactly what was committed, and the
//! broker session that it acknowledges to. It can be cut at every point between a commit and the
//! last of its effects.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use certrelay::{
    links::{ConnectionId, Delivery, Message},
    relay::{
        Body, Children, Effect, Event, Outcome, Record, Relay, Settings, Side, Snapshot, Stage,
        Write,
    },
    schedule::{Backoff, Now, Tick, Timestamp},
    wire::{ThingName, Topics},
    x509::CommonNameRule,
};

use crate::pki;

pub fn settings(core: &ThingName) -> Settings {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    Settings {
        core: core.clone(),
        cloud_topics: Topics::parse("management/topic", core).expect("valid"),
        local_topics: Topics::parse("management/topic", core).expect("valid"),
        children: Children::new(["*"]),
        rotation_ttl: minutes(30 * 24 * 60),
        min_interval: minutes(20 * 60),
        common_name: CommonNameRule::AbsentOk,
        settle: Duration::from_secs(5),
        anchors: None,
        request: Backoff { first: minutes(10), longest: minutes(360) },
        certificate: Backoff { first: minutes(1), longest: minutes(60) },
        cloud: Backoff { first: minutes(1), longest: minutes(60) },
        messages_per_second: std::num::NonZeroU32::new(20),
        unconfirmed: 8,
        most_under_way: 10_000,
        // Long, because probes are most of what happens in a month.
        probe_interval: minutes(6 * 60),
    }
}

/// Other settings, as a deployment may bring them at any time.
pub fn other_settings(core: &ThingName, rng: &mut fastrand::Rng) -> Settings {
    let hour = Duration::from_secs(3600);
    let mut pauses = || {
        let first = hour * rng.u32(1..6) / 6;
        Backoff { first, longest: first * rng.u32(1..40) }
    };
    let (request, certificate, cloud) = (pauses(), pauses(), pauses());
    let children = rng.choice(["*", "device-0 device-1", "device-?", "nobody"]).unwrap_or("*");
    Settings {
        children: Children::new(children.split(' ')),
        rotation_ttl: hour * rng.u32(1..1500),
        settle: Duration::from_secs(rng.u64(..60)),
        request,
        certificate,
        cloud,
        messages_per_second: std::num::NonZeroU32::new(rng.u32(..20)),
        unconfirmed: rng.usize(1..20),
        probe_interval: hour * rng.u32(1..12),
        ..settings(core)
    }
}

/// What survives a restart. Records go through their stored form.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    records: BTreeMap<ThingName, Vec<u8>>,
    bodies: BTreeMap<(ThingName, Body), Vec<u8>>,
    seen: Option<Timestamp>,
}

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Record(name, record) => {
                    let bytes = serde_json::to_vec(&record).expect("a record serialises");
                    self.records.insert(name, bytes);
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

    pub fn snapshot(&self) -> Snapshot {
        let read = |bytes: &Vec<u8>| serde_json::from_slice::<Record>(bytes).expect("readable");
        let records = self.records.iter().map(|(name, bytes)| (name.clone(), read(bytes)));
        Snapshot { records: records.collect(), damaged: vec![], seen: self.seen }
    }

    /// A body stands in the store exactly while the stage needs it.
    fn check_bodies(&self, name: &ThingName) {
        let Some(record) = self.records.get(name) else { return };
        let record: Record = serde_json::from_slice(record).expect("readable");
        let has = |body| self.bodies.contains_key(&(name.clone(), body));
        let (csr, certificate) = match record.stage {
            Stage::AwaitCsr(_) | Stage::Done(_) => (false, false),
            Stage::AwaitCert(_) => (true, false),
            Stage::AwaitAck(_) => (true, true),
        };
        assert_eq!(
            (has(Body::Csr), has(Body::Certificate)),
            (csr, certificate),
            "{name}: {record:?}"
        );
    }

    pub fn body(&self, name: &ThingName, body: Body) -> Option<&Vec<u8>> {
        self.bodies.get(&(name.clone(), body))
    }
}

/// A message that the local broker keeps until it is acknowledged.
#[derive(Debug, Clone)]
struct Kept {
    topic: String,
    payload: Vec<u8>,
    sent_on: Option<(ConnectionId, u64)>,
    dup: bool,
}

#[derive(Debug)]
pub struct Gateway {
    pub settings: Settings,
    pub relay: Relay,
    pub disk: Disk,
    boot: u64,
    pub trusted: bool,
    connections: u64,
    numbers: u64,
    pub floor: Option<ConnectionId>,
    session: VecDeque<Kept>,
    pub cloud_up: bool,
    /// Nothing of the cloud comes through.
    pub deaf: bool,
    /// Nothing of this kind comes through, and all else does.
    pub lost: Option<&'static str>,
    /// What the cloud's broker keeps, if it keeps anything.
    pub cloud_session: Option<VecDeque<(String, Vec<u8>)>>,
    /// So many points of a cut are passed before the power goes.
    pub cut: Option<u64>,
    pub points: u64,
    pub restarts: u64,
    pub wakeups_at: (u64, u32),
    pub planned_wakeup: Option<u64>,
    seeds: u64,
}

/// The power went.
pub struct Cut;

impl Gateway {
    pub fn new(name: &ThingName, cloud_keeps: bool) -> Self {
        let settings = settings(name);
        let mut disk = Disk::default();
        let relay = Self::start(&settings, &mut disk, 0, 0, true);
        Self {
            settings,
            relay,
            disk,
            boot: 0,
            trusted: true,
            connections: 0,
            numbers: 0,
            floor: None,
            session: VecDeque::new(),
            cloud_up: false,
            deaf: false,
            lost: None,
            cloud_session: cloud_keeps.then(VecDeque::new),
            cut: None,
            points: 0,
            restarts: 0,
            wakeups_at: (0, 0),
            planned_wakeup: None,
            seeds: 1,
        }
    }

    fn start(settings: &Settings, disk: &mut Disk, seed: u64, now: u64, trusted: bool) -> Relay {
        let wall = trusted.then(|| pki::BEGIN + Duration::from_millis(now));
        let mut out = Outcome::default();
        let now = Now { tick: Tick(0), wall };
        let relay = Relay::restore(settings.clone(), seed, now, disk.snapshot(), &mut out);
        // A sound store needs no work, unless the power went while new settings were committed.
        let served = |name: &ThingName| settings.children.serves(name);
        assert!(!out.writes.iter().filter_map(name_of).any(served), "{:?}", out.writes);
        assert!(out.then.iter().all(|effect| matches!(effect, Effect::Note(_))));
        disk.apply(out.writes);
        relay
    }

    /// The gateway starts anew from its disk; all connections are over.
    pub fn restart(&mut self, now: u64) {
        self.boot = now;
        self.seeds += 1;
        self.restarts += 1;
        self.relay = Self::start(&self.settings, &mut self.disk, self.seeds, now, self.trusted);
        (self.floor, self.cloud_up, self.deaf, self.lost) = (None, false, false, None);
    }

    pub fn clock(&self, now: u64) -> Now {
        let wall = self.trusted.then(|| pki::BEGIN + Duration::from_millis(now));
        Now { tick: Tick(now - self.boot), wall }
    }

    /// When the relay wants to be woken, in the world's time.
    pub fn next_wakeup(&self) -> Option<u64> {
        self.relay.next_wakeup().map(|tick| self.boot + tick.0)
    }

    /// Hands over events as one batch: commits, then returns the effects one by one, unless the
    /// power goes before.
    pub fn feed(
        &mut self,
        now: u64,
        events: Vec<Event>,
    ) -> Result<Vec<Effect>, (Vec<Effect>, Cut)> {
        let mut out = Outcome::default();
        for event in events {
            self.relay.handle(self.clock(now), event, &mut out);
        }
        self.commit(now, out)
    }

    /// The settings change: commits what follows from it, as [`Self::feed`] does.
    pub fn reconfigure(
        &mut self,
        now: u64,
        settings: Settings,
    ) -> Result<Vec<Effect>, (Vec<Effect>, Cut)> {
        self.settings = settings.clone();
        let mut out = Outcome::default();
        self.relay.reconfigure(self.clock(now), settings, &mut out);
        self.commit(now, out)
    }

    fn commit(&mut self, now: u64, out: Outcome) -> Result<Vec<Effect>, (Vec<Effect>, Cut)> {
        if let Some(due) = self.relay.next_wakeup() {
            assert!(due > self.clock(now).tick, "the relay wants to be woken in the past");
        }
        if self.is_cut() {
            return Err((vec![], Cut));
        }
        let touched: Vec<ThingName> = out.writes.iter().filter_map(name_of).cloned().collect();
        self.disk.apply(out.writes);
        touched.iter().for_each(|name| self.disk.check_bodies(name));
        let mut done = vec![];
        for effect in out.then {
            if !matches!(effect, Effect::Note(_)) && self.is_cut() {
                return Err((done, Cut));
            }
            done.push(effect);
        }
        Ok(done)
    }

    fn is_cut(&mut self) -> bool {
        self.points += 1;
        match &mut self.cut {
            Some(0) => {
                self.cut = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The local broker has a connection for us; what it kept comes again.
    pub fn connect_floor(&mut self, session_present: bool) -> Vec<Event> {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.floor = Some(connection);
        if !session_present {
            self.session.clear();
        }
        let mut events = vec![Event::Up { side: Side::Local, connection, session_present }];
        for kept in &mut self.session {
            kept.dup = kept.sent_on.is_some();
            self.numbers += 1;
            kept.sent_on = Some((connection, self.numbers));
            events.push(message(kept, connection, self.numbers));
        }
        events
    }

    /// A message arrived at the local broker for us.
    pub fn arrive(&mut self, topic: String, payload: Vec<u8>) -> Option<Event> {
        let mut kept = Kept { topic, payload, sent_on: None, dup: false };
        let event = self.floor.map(|connection| {
            self.numbers += 1;
            kept.sent_on = Some((connection, self.numbers));
            message(&kept, connection, self.numbers)
        });
        self.session.push_back(kept);
        event
    }

    /// The broker delivers once more what was acknowledged before: a broker that lost its own
    /// notes, or a client that was restored from a copy.
    pub fn replay(&mut self, messages: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let kept = messages.into_iter().map(|(topic, payload)| Kept {
            topic,
            payload,
            sent_on: None,
            dup: false,
        });
        let mut session: VecDeque<Kept> = kept.collect();
        session.append(&mut self.session);
        self.session = session;
    }

    pub fn ack(&mut self, delivery: Delivery) -> Option<(String, Vec<u8>)> {
        let key = Some((delivery.connection, delivery.number));
        let at = self.session.iter().position(|kept| kept.sent_on == key)?;
        self.session.remove(at).map(|kept| (kept.topic, kept.payload))
    }
}

fn name_of(write: &Write) -> Option<&ThingName> {
    match write {
        Write::Record(name, _) | Write::Body(name, ..) | Write::DropBody(name, _) => Some(name),
        Write::Forget(name) => Some(name),
        Write::Seen(_) => None,
    }
}

fn message(kept: &Kept, connection: ConnectionId, number: u64) -> Event {
    Event::Message {
        side: Side::Local,
        message: Message {
            topic: kept.topic.clone(),
            payload: kept.payload.clone(),
            dup: kept.dup,
            retain: false,
            delivery: Some(Delivery { connection, number }),
        },
    }
}
