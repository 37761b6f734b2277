//! The world itself: virtual time, links that lose, double, delay and reorder, and the invariants
//! that hold after every step.

mod acts;
mod invariants;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use certrelay::{
    links::{Message, Qos, SendError},
    relay::{Body, Effect, Event, Lost, Outgoing, Side},
    wire::{KeyDigest, Kind, Mid, ThingName, Topics},
};

pub use acts::Act;

use crate::{
    cloud::{Cloud, Downlink, Manners},
    device::{Device, Nature, Said},
    gateway::{Cut, Gateway, settings},
};

pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// How bad the links are, in percent.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub lose: u8,
    pub double: u8,
    /// The longest delay, in milliseconds.
    pub delay: u64,
}

pub const FAIR: Weather = Weather { lose: 0, double: 0, delay: 50 };

/// The longest that a message takes on the floor, in milliseconds. A device that keeps no session,
/// knows only bare acks and starts twice within this time can't be told from one that has received
/// its certificate; so it is kept realistic.
const LOCAL_DELAY: u64 = 1_000;

/// How long it takes to subscribe anew, in milliseconds.
const RESUBSCRIBES: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Act(Act),
    Sweep,
    Wake(usize),
    AtCloud { from: usize, topic: String, payload: Vec<u8> },
    AtGateway { to: usize, topic: String, payload: Vec<u8> },
    AtFloor { gateway: usize, topic: String, payload: Vec<u8> },
    AtDevice { device: usize, boot: u32, kind: Kind, payload: Vec<u8>, sure: bool },
    Sent { gateway: usize, restarts: u64, cloud: bool, mid: [u8; 16], ok: bool },
    Verified { gateway: usize, restarts: u64, child: ThingName, key: KeyDigest },
    Lost { gateway: usize, restarts: u64, child: ThingName, lost: Lost },
}

impl Happening {
    fn brief(&self) -> String {
        match self {
            Self::AtCloud { topic, payload, .. }
            | Self::AtGateway { topic, payload, .. }
            | Self::AtFloor { topic, payload, .. } => {
                let header = certrelay::wire::Header::read(payload);
                let name = format!("{self:?}");
                let name = name.split(' ').next().unwrap_or_default().to_owned();
                format!("{name} {topic} {:?} {:?}", header.rotation, header.core)
            }
            Self::AtDevice { device, kind, .. } => format!("AtDevice {device} {kind}"),
            other => format!("{other:?}"),
        }
    }
}

pub struct World {
    pub now: u64,
    rng: fastrand::Rng,
    pub weather: Weather,
    pub cloud: Cloud,
    pub gateways: Vec<Gateway>,
    cores: Vec<ThingName>,
    pub devices: Vec<Device>,
    homes: Vec<usize>,
    boots: Vec<u32>,
    by_name: BTreeMap<ThingName, usize>,
    heap: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    sequence: u64,
    topics: Topics,
    /// Every local message that a gateway acknowledged, in order.
    pub acknowledged: Vec<(String, Vec<u8>)>,
    pub steps: u64,
    /// Every step is printed.
    trace: bool,
    /// Certificates that were acknowledged to the cloud.
    pub acked: BTreeSet<(ThingName, certrelay::wire::CertificateId)>,
}

impl World {
    pub fn new(seed: u64, manners: Manners, natures: &[(Nature, bool)], gateways: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cores: Vec<ThingName> =
            (0..gateways).map(|n| format!("core-{n}").parse().expect("valid")).collect();
        let mut cloud = Cloud::new(manners);
        let mut world_devices = vec![];
        let mut homes = vec![];
        for (no, (nature, clean)) in natures.iter().enumerate() {
            let device = Device::new(u32::try_from(no).expect("few"), *nature, *clean);
            homes.push(no % gateways);
            cloud.register(&device.name, device.no, no % gateways);
            world_devices.push(device);
        }
        let keeps = rng.bool();
        let by_name = world_devices.iter().enumerate().map(|(i, d)| (d.name.clone(), i)).collect();
        let mut world = Self {
            now: 0,
            rng,
            weather: FAIR,
            cloud,
            gateways: cores.iter().map(|core| Gateway::new(core, keeps)).collect(),
            topics: settings(&cores[0]).cloud_topics,
            cores,
            boots: vec![0; world_devices.len()],
            devices: world_devices,
            homes,
            by_name,
            heap: BinaryHeap::new(),
            sequence: 0,
            acknowledged: vec![],
            steps: 0,
            trace: std::env::var_os("CERTRELAY_TRACE").is_some(),
            acked: BTreeSet::new(),
        };
        world.plan(DAY, Happening::Sweep);
        for gateway in 0..gateways {
            world.act(Act::FloorUp(gateway));
            world.act(Act::CloudUp(gateway));
        }
        world
    }

    /// Plans an act, so many milliseconds from now.
    pub fn later(&mut self, after: u64, act: Act) {
        self.plan(after, Happening::Act(act));
    }

    fn plan(&mut self, after: u64, what: Happening) {
        self.sequence += 1;
        self.heap.push(Reverse((self.now + after, self.sequence, what)));
    }

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, time: u64) {
        let end = self.now + time;
        while let Some(Reverse((at, _, _))) = self.heap.peek()
            && *at <= end
        {
            let Reverse((at, _, what)) = self.heap.pop().expect("peeked");
            self.now = at;
            self.steps += 1;
            if self.trace {
                println!("{at} {}", what.brief());
            }
            self.happen(what);
            self.check();
        }
        self.now = end;
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Act(act) => self.act(act),
            Happening::Sweep => {
                let downlinks = self.cloud.sweep(self.now, &self.cores);
                self.send_down(downlinks);
                self.plan(DAY, Happening::Sweep);
            }
            Happening::Wake(gateway) => {
                self.gateways[gateway].planned_wakeup = None;
                if self.gateways[gateway].next_wakeup().is_some_and(|at| at <= self.now) {
                    self.count_wakeup(gateway);
                    self.feed(gateway, vec![Event::Wakeup]);
                }
            }
            Happening::AtCloud { from, topic, payload } => self.at_cloud(from, topic, payload),
            Happening::AtGateway { to, topic, payload } => self.at_gateway(to, topic, payload),
            Happening::AtFloor { gateway, topic, payload } => {
                let event = self.gateways[gateway].arrive(topic, payload);
                self.feed(gateway, event.into_iter().collect());
            }
            Happening::AtDevice { device, boot, kind, payload, sure } => {
                if self.devices[device].online && self.boots[device] == boot {
                    let said = self.devices[device].receive(self.now, kind, &payload);
                    self.say(device, said);
                } else {
                    self.undelivered(device, kind, payload, sure);
                }
            }
            Happening::Sent { gateway, restarts, cloud, mid, ok } => {
                if self.gateways[gateway].restarts == restarts {
                    let side = if cloud { Side::Cloud } else { Side::Local };
                    let outcome = if ok { Ok(()) } else { Err(SendError::Offline) };
                    self.feed(gateway, vec![Event::Sent { side, mid: Mid(mid), outcome }]);
                }
            }
            Happening::Lost { gateway, restarts, child, lost } => {
                if self.gateways[gateway].restarts == restarts {
                    self.feed(gateway, vec![Event::BodyLost { child, lost }]);
                }
            }
            Happening::Verified { gateway, restarts, child, key } => {
                if self.gateways[gateway].restarts == restarts {
                    self.feed(gateway, vec![Event::Verified { child, key, outcome: Ok(()) }]);
                }
            }
        }
    }

    fn count_wakeup(&mut self, gateway: usize) {
        let (at, count) = &mut self.gateways[gateway].wakeups_at;
        *count = if *at == self.now { *count + 1 } else { 0 };
        *at = self.now;
        assert!(*count < 5, "the relay wants to be woken again and again");
    }

    fn at_home(&self, gateway: usize) -> Vec<usize> {
        (0..self.devices.len()).filter(|device| self.homes[*device] == gateway).collect()
    }

    /// A device's messages arrive at its broker in order.
    fn say(&mut self, device: usize, said: Vec<Said>) {
        let gateway = self.homes[device];
        for (kind, payload) in said {
            let topic = self.topics.topic(&self.devices[device].name, kind);
            self.plan(1, Happening::AtFloor { gateway, topic, payload });
        }
    }

    fn deliver(&mut self, device: usize, kind: Kind, payload: Vec<u8>, sure: bool) {
        let boot = self.boots[device];
        let after = 1 + self.rng.u64(..LOCAL_DELAY);
        self.plan(after, Happening::AtDevice { device, boot, kind, payload, sure });
    }

    /// The broker keeps what the device did not take, if the device has a session to keep it in.
    fn undelivered(&mut self, device: usize, kind: Kind, payload: Vec<u8>, sure: bool) {
        if !sure || self.devices[device].clean_session {
            return;
        }
        if self.devices[device].online {
            self.deliver(device, kind, payload, sure);
        } else {
            self.devices[device].queue.push_back((kind, payload));
        }
    }

    fn send_down(&mut self, downlinks: Vec<Downlink>) {
        for (name, kind, payload) in downlinks {
            let topic = self.topics.topic(&name, kind);
            for to in 0..self.gateways.len() {
                self.travel(|| Happening::AtGateway {
                    to,
                    topic: topic.clone(),
                    payload: payload.clone(),
                });
            }
        }
    }

    /// Through the weather: never, once or twice, sooner or later.
    fn travel(&mut self, what: impl Fn() -> Happening) {
        if self.rng.u8(..100) < self.weather.lose {
            return;
        }
        let copies = 1 + u8::from(self.rng.u8(..100) < self.weather.double);
        for _ in 0..copies {
            let after = 1 + self.rng.u64(..self.weather.delay);
            self.plan(after, what());
        }
    }

    fn at_gateway(&mut self, to: usize, topic: String, payload: Vec<u8>) {
        let gateway = &mut self.gateways[to];
        if gateway.deaf || gateway.lost.is_some_and(|kind| topic.ends_with(kind)) {
            return;
        }
        if gateway.cloud_up {
            let (dup, retain, delivery) = (false, false, None);
            let message = Message { topic, payload, dup, retain, delivery };
            self.feed(to, vec![Event::Message { side: Side::Cloud, message }]);
        } else if let Some(session) = &mut gateway.cloud_session {
            session.push_back((topic, payload));
        }
    }

    fn at_cloud(&mut self, from: usize, topic: String, payload: Vec<u8>) {
        // IoT Core gives a client its own messages back, and the other gateways' as well.
        for to in 0..self.gateways.len() {
            self.travel(|| Happening::AtGateway {
                to,
                topic: topic.clone(),
                payload: payload.clone(),
            });
        }
        if topic.ends_with("/probe") {
            return;
        }
        let (name, kind) = self.topics.read(&topic).expect("one of ours");
        assert!(kind.is_uplink(), "gateway {from} sent a {kind} up");
        self.check_ack(&name, kind, &payload);
        let downlinks = self.cloud.receive(self.now, &name, kind, &payload, &self.cores);
        self.send_down(downlinks);
    }

    /// No certificate is acknowledged by an ack that was about another.
    fn check_ack(&mut self, name: &ThingName, kind: Kind, payload: &[u8]) {
        if kind != Kind::CrtAck {
            return;
        }
        let fields: serde_json::Value = serde_json::from_slice(payload).expect("an object");
        let id = fields["certificateId"].as_str().expect("named").parse().expect("an id");
        let device = &self.devices[self.by_name[name]];
        assert!(
            device.acked_about.contains(&id),
            "{name} ({:?}) never acknowledged {id}, only {:?}",
            device.nature,
            device.acked_about
        );
        self.acked.insert((name.clone(), id));
    }

    /// Hands events to a gateway, does its effects, and plans its next wakeup.
    fn feed(&mut self, gateway: usize, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let result = self.gateways[gateway].feed(self.now, events);
        self.take_up(gateway, result);
    }

    fn take_up(&mut self, gateway: usize, result: Result<Vec<Effect>, (Vec<Effect>, Cut)>) {
        let (effects, is_cut) = match result {
            Ok(effects) => (effects, false),
            Err((effects, _)) => (effects, true),
        };
        for effect in effects {
            self.perform(gateway, effect);
        }
        if is_cut {
            self.crash(gateway);
        }
        let wakeup = self.gateways[gateway].next_wakeup();
        if let Some(at) = wakeup.filter(|_| self.gateways[gateway].planned_wakeup != wakeup) {
            self.gateways[gateway].planned_wakeup = wakeup;
            self.plan(at.saturating_sub(self.now), Happening::Wake(gateway));
        }
    }

    fn perform(&mut self, gateway: usize, effect: Effect) {
        let restarts = self.gateways[gateway].restarts;
        match effect {
            Effect::Ack(Side::Local, delivery) => {
                let acked = self.gateways[gateway].ack(delivery);
                self.acknowledged.extend(acked.filter(|_| gateway == 0));
            }
            Effect::Note(note) if self.trace => {
                println!("{} note {:?} {} {}", self.now, note.child, note.state, note.reason);
            }
            // Nothing is ever for the core here.
            Effect::Ack(Side::Cloud, _) | Effect::Core(_) | Effect::Note(_) => {}
            Effect::Reconnect(side) => {
                assert_eq!(side, Side::Cloud);
                (self.gateways[gateway].deaf, self.gateways[gateway].lost) = (false, None);
                if self.gateways[gateway].cloud_up {
                    self.plan(0, Happening::Act(Act::CloudDown(gateway)));
                    self.plan(RESUBSCRIBES, Happening::Act(Act::CloudUp(gateway)));
                }
            }
            Effect::Renew(side) => {
                assert_eq!(side, Side::Cloud);
                self.gateways[gateway].lost = None;
            }
            Effect::Verify { child, key } => {
                self.plan(1, Happening::Verified { gateway, restarts, child, key });
            }
            Effect::Publish(side, outgoing) => self.publish(gateway, side, outgoing),
        }
    }

    fn publish(&mut self, gateway: usize, side: Side, outgoing: Outgoing) {
        let restarts = self.gateways[gateway].restarts;
        let Outgoing { copy, topic, qos, content } = outgoing;
        let loss = content.loss();
        let needed = match &loss {
            Some((name, Lost::Csr(_))) => Some((name, Body::Csr)),
            Some((name, Lost::Certificate(_))) => Some((name, Body::Certificate)),
            None => None,
        };
        let body = needed.map(|(name, body)| self.gateways[gateway].disk.body(name, body).cloned());
        let payload = match body {
            Some(None) => {
                // A later event of the batch has dropped it.
                let (child, lost) = loss.expect("it was needed");
                self.plan(1, Happening::Lost { gateway, restarts, child, lost });
                None
            }
            Some(Some(body)) => content.render(&body),
            None => content.render(&[]),
        };
        let is_up = match side {
            Side::Cloud => self.gateways[gateway].cloud_up,
            Side::Local => self.gateways[gateway].floor.is_some(),
        };
        let cloud = side == Side::Cloud;
        let ok = is_up && payload.is_some();
        self.plan(1, Happening::Sent { gateway, restarts, cloud, mid: copy.0, ok });
        let Some(payload) = payload.filter(|_| is_up) else { return };
        match side {
            Side::Cloud => self.travel(|| Happening::AtCloud {
                from: gateway,
                topic: topic.clone(),
                payload: payload.clone(),
            }),
            Side::Local => self.publish_on_floor(gateway, topic, qos, payload),
        }
    }

    fn publish_on_floor(&mut self, gateway: usize, topic: String, qos: Qos, payload: Vec<u8>) {
        if topic.ends_with("/barrier") {
            return self.plan(1, Happening::AtFloor { gateway, topic, payload });
        }
        let (name, kind) = self.topics.read(&topic).expect("one of ours");
        assert!(!kind.is_uplink(), "a {kind} went down");
        assert!(!self.cores.contains(&name), "something went to the floor under the core's name");
        let Some(device) = self.by_name.get(&name).copied() else { return };
        if self.homes[device] != gateway {
            return;
        }
        let sure = qos == Qos::AtLeastOnce;
        if self.devices[device].online {
            self.deliver(device, kind, payload, sure);
        } else {
            self.undelivered(device, kind, payload, sure);
        }
    }
}
