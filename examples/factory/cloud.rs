//! The cloud's side, by certrelay's own functions over a cloud in memory: what would run as Lambda
//! functions on AWS decides here, with a CA of the demo's.
//!
//! Its days are short: an hour of the cloud's passes in a second, so that what was lost is asked
//! for again while one looks on. At the end weeks pass at once, and the old certificates are retired
//! as they would be: no sooner than their grace. [`Cloud`] has no network; [`serve`] gives it one.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use anyhow::bail;
use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, CrtErr, Kind, ThingName, Topics},
    x509::{self, CommonNameRule},
};
use certrelay_cloud::{
    functions::{Done, Fault, audit, complete, due, issue, report, request, sweep},
    memory::{Ca, Memory, World},
    ports::{Finding, Queue, Status},
    record::{Acked, Record, State},
    settings::Settings,
};
use rcgen::{CertificateParams, SerialNumber};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::support::{
    peer::Peer,
    pki::{Authority, Pair, named},
};

/// How often the cloud sees what is due.
const TURN: Duration = Duration::from_millis(250);

/// How many of the cloud's seconds pass in one.
const PACE: u32 = 3600;

const DAY: Duration = Duration::from_secs(86_400);

/// How old the certificates are that the devices begin with.
const FIRST_AGE: Duration = Duration::from_secs(353 * 86_400);

/// A certificate that expires sooner than this is to be rotated.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// What the devices have when the demo begins expires then.
const FIRST_EXPIRY: Duration = Duration::from_secs(12 * 86_400);

/// A new certificate is valid from a little before: not every clock is right.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// The check of the audits.
const CHECK: &str = "DEVICE_CERTIFICATE_EXPIRING_CHECK";

/// What every device may do.
const POLICY: &str = "device";

/// A message to the cloud's broker: topic and payload.
pub type Message = (String, Vec<u8>);

/// What the cloud knows.
pub struct Cloud {
    memory: Memory,
    settings: Settings,
    signers: Signers,
    core: ThingName,
    topics: Topics,
    /// When it began, by its own clock.
    began: Timestamp,
    devices: BTreeMap<ThingName, Device>,
    audits: u32,
    /// Uplink messages that a function gave back to their queue.
    queue: VecDeque<(Kind, Vec<u8>)>,
}

/// One device, as the demo looks at it.
pub struct Device {
    /// The certificate that it began with …
    pub first: CertificateId,
    /// … and its serial number.
    pub first_serial: u64,
    /// How many CSRs of it arrived.
    pub csrs: u32,
    /// How many acks of it arrived.
    pub acks: u32,
    /// What became of it.
    pub outcome: Option<Outcome>,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device uses the new certificate; the word says how the cloud knows.
    Rotated(String),
    /// The cloud refused, or the device or the gateway reported an error: the code.
    Refused(String),
}

/// How many devices have come how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub asked: usize,
    pub csrs: usize,
    pub issued: usize,
    pub rotated: usize,
    pub refused: usize,
}

/// The CA that the brokers trust: it signs the first certificates and those for CSRs.
#[derive(Clone)]
struct Signers(Arc<Mutex<Signer>>);

struct Signer {
    authority: Authority,
    serials: u64,
}

impl Signers {
    fn next(&self) -> MutexGuard<'_, Signer> {
        let mut signer = self.0.lock().expect("nobody panics while signing");
        signer.serials += 1;
        signer
    }
}

impl Ca for Signers {
    fn sign(&mut self, csr: &str, now: Timestamp, life: Duration) -> Result<String, String> {
        let signer = self.next();
        let serial = SerialNumber::from(signer.serials);
        Ok(signer.authority.sign_csr_with(csr, |params| {
            validity(params, before(now, CLOCKS_APART), now + life);
            params.serial_number = Some(serial);
        }))
    }
}

impl Cloud {
    pub fn new(authority: Authority, core: ThingName, now: Timestamp) -> Self {
        let signers = Signers(Arc::new(Mutex::new(Signer { authority, serials: 0x1000 })));
        let mut world = World::new(signers.clone(), now);
        world.wall = Some(now);
        Self {
            topics: Topics::parse("management/topic", &core).expect("the usual prefix is valid"),
            memory: Memory::new(world),
            settings: Settings { common_name: CommonNameRule::Match, ..Settings::default() },
            signers,
            core,
            began: now,
            devices: BTreeMap::new(),
            audits: 0,
            queue: VecDeque::new(),
        }
    }

    /// Registers a device, behind the core unless it is the core itself: its first pair, which
    /// expires soon.
    pub fn enrol(&mut self, name: &ThingName) -> Pair {
        let signer = self.signers.next();
        let mut params = named(name.as_str());
        validity(&mut params, before(self.began, FIRST_AGE), self.began + FIRST_EXPIRY);
        params.serial_number = Some(signer.serials.into());
        let pair = signer.authority.issue(&params);
        let mut world = self.memory.world();
        let device = Device {
            first: world.enrol(&pair.certificate, name, false, &[POLICY]),
            first_serial: signer.serials,
            csrs: 0,
            acks: 0,
            outcome: None,
        };
        if *name != self.core {
            world.associations.insert((self.core.clone(), name.clone()));
        }
        self.devices.insert(name.clone(), device);
        pair
    }

    /// An audit finds the children whose certificates expire soon, and they are asked for CSRs.
    pub fn audit(&mut self) -> Vec<Message> {
        self.find(|name, core| name != core)
    }

    /// An audit finds the core, if its certificate expires soon.
    pub fn audit_core(&mut self) -> Vec<Message> {
        self.find(|name, core| name == core)
    }

    fn find(&mut self, whom: fn(&ThingName, &ThingName) -> bool) -> Vec<Message> {
        self.audits += 1;
        let task = format!("audit-{}", self.audits);
        let found = self.devices.iter().filter(|(name, _)| whom(name, &self.core));
        let found = found.filter_map(|(_, device)| self.expires_soon(device.first));
        let found: Vec<_> = found.collect();
        let details = json!([{ "checkName": CHECK, "nonCompliantResourcesCount": found.len() }]);
        let notification = json!({ "taskId": task, "auditDetails": details }).to_string();
        self.memory.world().findings.insert((task, CHECK.to_owned()), found);
        run(audit::begin(&self.memory, notification.as_bytes())).expect("it is one of ours");
        let now = self.now();
        while let Some(job) = self.take(Queue::Audit) {
            let job = job.as_bytes();
            let done = audit::go_on(&self.memory, &self.settings, job, || false, now);
            run(done).expect("nothing fails in memory");
        }
        while let Some(order) = self.take(Queue::Rotate) {
            let fresh = fastrand::u128(..).to_be_bytes();
            let order = order.as_bytes();
            let done = request::request(&self.memory, &self.settings, order, fresh, now);
            run(done).expect("nothing fails in memory");
        }
        self.said()
    }

    fn expires_soon(&self, certificate: CertificateId) -> Option<Finding> {
        let world = self.memory.world();
        let pem = &world.certificates.get(&certificate)?.pem;
        let facts = x509::read_certificate(&der(pem)).ok()?;
        let is_soon = facts.not_after < self.began + EXPIRES_SOON;
        is_soon.then_some(Finding { certificate, expires: Some(facts.not_after) })
    }

    /// A message arrived; what the cloud says then. `principal` is the certificate of the core's
    /// connection: everything comes over that.
    pub fn receive(
        &mut self,
        topic: &str,
        payload: &[u8],
        principal: Option<CertificateId>,
    ) -> Vec<Message> {
        let Some((name, kind)) = self.topics.read(topic) else { return Vec::new() };
        let event = self.rule(&name, payload, principal);
        if let Some(device) = self.devices.get_mut(&name) {
            match kind {
                Kind::CsrRes => device.csrs += 1,
                Kind::CrtAck => device.acks += 1,
                _ => {}
            }
        }
        self.handle(&name, kind, event);
        self.said()
    }

    /// The event that a topic rule makes of a message; see the template of the cloud side.
    fn rule(&self, thing: &ThingName, payload: &[u8], principal: Option<CertificateId>) -> Vec<u8> {
        let mut event: Value = serde_json::from_slice(payload).unwrap_or_else(|_| json!({}));
        event["thing"] = json!(thing);
        event["client"] = json!(self.core);
        event["principal"] = json!(principal);
        event["at"] = json!(self.now().0);
        event.to_string().into_bytes()
    }

    fn handle(&mut self, name: &ThingName, kind: Kind, event: Vec<u8>) {
        let (memory, settings, now) = (&self.memory, &self.settings, self.now());
        let done = match kind {
            Kind::CsrRes => run(issue::issue(memory, settings, &event, now)),
            Kind::CrtAck => run(complete::complete(memory, settings, &event, now)),
            Kind::CrtErr => run(report::report(memory, settings, &event, now)),
            Kind::CsrReq | Kind::Crt | Kind::Result => return,
        };
        let outcome = match (kind, done) {
            (_, Err(Fault::Unreadable(_))) => return,
            (_, Err(_)) => return self.queue.push_back((kind, event)),
            (Kind::CrtAck, Ok(Done::Did(_))) => Outcome::Rotated(self.proof(name).to_owned()),
            (Kind::CrtErr, Ok(_)) => {
                let error = CrtErr::parse(&event).unwrap_or_default();
                Outcome::Refused(error.code.unwrap_or(error.error))
            }
            (_, Ok(Done::Refused(code))) => Outcome::Refused(code.as_str().to_owned()),
            (_, Ok(_)) => return,
        };
        if let Some(device) = self.devices.get_mut(name) {
            device.outcome.get_or_insert(outcome);
        }
    }

    /// How the cloud knows that a device uses its certificate.
    fn proof(&self, name: &ThingName) -> &'static str {
        match self.memory.world().latest(name).map(|record| &record.state) {
            Some(State::Acked(Acked { proof, .. })) => proof.as_str(),
            _ => "-",
        }
    }

    /// The cloud's clock stands so far after its beginning: what is due by then is done.
    pub fn turn(&mut self, elapsed: Duration) -> Vec<Message> {
        let now = self.began + elapsed * PACE;
        if now > self.now() {
            self.memory.world().now = now;
        }
        self.sweep();
        for (kind, event) in std::mem::take(&mut self.queue) {
            let thing = serde_json::from_slice::<Value>(&event).ok();
            let thing = thing.and_then(|event| event["thing"].as_str()?.parse().ok());
            if let Some(thing) = thing {
                self.handle(&thing, kind, event);
            }
        }
        self.said()
    }

    /// Weeks pass, until the cloud has nothing left to do about what it was told; how many days.
    pub fn let_weeks_pass(&mut self) -> u64 {
        let from = self.now();
        for _ in 0..60 {
            self.sweep();
            let mut world = self.memory.world();
            world.now = world.now + DAY / 2;
            if world.records.values().all(Record::is_over) {
                break;
            }
        }
        (self.now() - from).as_secs() / DAY.as_secs()
    }

    fn sweep(&mut self) {
        let now = self.now();
        run(sweep::sweep(&self.memory, || false, now)).expect("nothing fails in memory");
        while let Some(key) = self.take(Queue::Due) {
            let done = due::due(&self.memory, &self.settings, key.as_bytes(), now);
            run(done).expect("nothing fails in memory");
        }
    }

    fn now(&self) -> Timestamp {
        self.memory.world().now
    }

    fn take(&self, queue: Queue) -> Option<String> {
        self.memory.world().take(queue)
    }

    fn said(&self) -> Vec<Message> {
        self.memory.world().published.drain(..).collect()
    }

    /// How far the children have come.
    pub fn count(&self) -> Count {
        let number =
            |of: fn(&Device) -> bool| self.children().filter(|(_, device)| of(device)).count();
        let world = self.memory.world();
        let records = self.children().filter_map(|(name, _)| world.latest(name));
        let (mut asked, mut issued) = (0, 0);
        for record in records {
            asked += 1;
            issued += usize::from(record.made > 0);
        }
        Count {
            asked,
            issued,
            csrs: number(|d| d.csrs > 0),
            rotated: number(|d| matches!(d.outcome, Some(Outcome::Rotated(_)))),
            refused: number(|d| matches!(d.outcome, Some(Outcome::Refused(_)))),
        }
    }

    /// The children, by name.
    pub fn children(&self) -> impl Iterator<Item = (&ThingName, &Device)> {
        self.devices.iter().filter(|(name, _)| **name != self.core)
    }

    /// The core, once it is enrolled.
    pub fn core(&self) -> Option<(&ThingName, &Device)> {
        self.devices.get_key_value(&self.core)
    }

    /// The certificate that the device uses, as far as the cloud knows.
    pub fn in_use(&self, name: &ThingName) -> Option<CertificateId> {
        let world = self.memory.world();
        world.latest(name)?.state.made().map(|made| made.id)
    }

    /// Whether a certificate is no longer to be used.
    pub fn has_retired(&self, certificate: CertificateId) -> bool {
        let world = self.memory.world();
        world.certificates.get(&certificate).is_none_or(|known| known.status != Status::Active)
    }
}

/// The cloud, for whoever looks at it while it works.
pub type Shared = Arc<Mutex<Cloud>>;

/// The cloud's state. Nobody panics while holding it.
pub fn lock(cloud: &Shared) -> MutexGuard<'_, Cloud> {
    cloud.lock().expect("nobody panics while holding the cloud")
}

/// Subscribes to the uplinks and answers them, sends what it is given, and does what is due, until
/// `outgoing` ends. `principal` says with which certificate the core is connected.
pub async fn serve(
    mut peer: Peer,
    cloud: Shared,
    mut outgoing: mpsc::Receiver<Message>,
    principal: impl Fn() -> Option<CertificateId>,
) -> anyhow::Result<()> {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_uplink()) {
        let filter = lock(&cloud).topics.filter(kind);
        peer.subscribe(&filter).await.map_err(anyhow::Error::msg)?;
    }
    let began = Instant::now();
    let mut turns = tokio::time::interval(TURN);
    loop {
        let to_send = tokio::select! {
            _ = turns.tick() => lock(&cloud).turn(began.elapsed()),
            message = outgoing.recv() => match message {
                Some(message) => vec![message],
                None => return Ok(()),
            },
            received = peer.receive(DAY) => match received {
                Some(message) => {
                    let principal = principal();
                    lock(&cloud).receive(&message.topic, &message.payload, principal)
                }
                None => bail!("the cloud has lost its broker"),
            },
        };
        for (topic, payload) in to_send {
            peer.publish(&topic, payload).await.map_err(anyhow::Error::msg)?;
        }
    }
}

/// A function's end. In memory nothing is ever waited for.
fn run<T>(function: impl Future<Output = T>) -> T {
    match pin!(function).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(end) => end,
        Poll::Pending => unreachable!("a world whose callers take no turns never gives way"),
    }
}

fn validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.unix_seconds());
    params.not_after = epoch + Duration::from_secs(until.unix_seconds());
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_seconds(time.unix_seconds() - by.as_secs())
}

fn der(pem_text: &str) -> Vec<u8> {
    pem::parse(pem_text).expect("written here").into_contents()
}

#[cfg(test)]
mod tests;
