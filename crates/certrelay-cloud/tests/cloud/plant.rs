//! A device, its core and the cloud, in virtual time; and what must hold after every call.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use certrelay::{
    keys::{KeyKind, PrivateKey},
    proof,
    schedule::Timestamp,
    wire::{
        CertificateId, CertificateMessage, CsrReq, KeyDigest, Kind, Nonce, RotationId, ThingName,
        Topics,
    },
    x509,
};
use certrelay_cloud::{
    decide::{complete::grace, issue::csr_pem, request::Order},
    functions::{Done, Fault, audit, complete, due, issue, report, request, sweep},
    memory::{Authority, Memory, Plan, World},
    ports::{Call, Queue, Status},
    record::{Key, Proof, Record},
    settings::Settings,
};
use serde_json::{Value, json};

pub const POLICIES: [&str; 2] = ["device", "relay"];
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// What a function is called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Request(String),
    Uplink(Kind, Value),
    Due(Key),
    Audit(String),
}

impl Act {
    /// The template's name of the function that it is for.
    fn function(&self) -> &'static str {
        match self {
            Self::Request(_) => "Request",
            Self::Uplink(Kind::CsrRes, _) => "Issue",
            Self::Uplink(Kind::CrtAck, _) => "Complete",
            Self::Uplink(..) => "Report",
            Self::Due(_) => "Due",
            Self::Audit(_) => "Audit",
        }
    }
}

/// How a call of a function ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Done(Done),
    Fault(Fault),
    Killed,
}

/// How the device speaks to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Over its own connection.
    Direct,
    /// Its core relays; this is what the ack proves.
    Relayed(Proof),
}

pub struct Plant {
    pub cloud: Memory,
    pub settings: Settings,
    pub now: Timestamp,
    pub thing: ThingName,
    pub core: ThingName,
    pub core_certificate: CertificateId,
    pub way: Way,
    /// The certificate that the device began with.
    pub first: CertificateId,
    /// The certificate that it uses.
    pub in_use: CertificateId,
    pub keys: BTreeMap<KeyDigest, PrivateKey>,
    /// The key that it waits with for a certificate.
    pub waiting: Option<KeyDigest>,
    nonce: Option<Nonce>,
    /// The rotation that it was asked for last, and those that ended with an error: as a gateway it
    /// says no more of one than that it has ended.
    rotation: Option<RotationId>,
    ended: BTreeSet<String>,
    /// When it first said that it uses another certificate than the first.
    pub acked: Option<Timestamp>,
    /// What waits to be handed to a function.
    pub pending: VecDeque<Act>,
    /// The certificates that came.
    pub received: Vec<CertificateId>,
    /// The results that came: for what, and the code of a refusal.
    pub results: Vec<(String, Option<String>)>,
    /// How many points the last act passed, and what it called.
    pub points: usize,
    pub calls: Vec<Call>,
    /// Which function was seen to make which calls.
    pub seen: BTreeSet<(&'static str, Call)>,
    /// Whether the device has fallen back on what was given up, which nobody could foresee.
    pub has_fallen_back: bool,
    /// Whether a person has deactivated the first certificate.
    pub is_meddled_with: bool,
}

impl Plant {
    pub fn new(way: Way) -> Self {
        let now = Timestamp::from_unix_seconds(1_900_000_000);
        let mut world = World::new(Authority::new("a CA").expect("a CA"), now);
        world.takes_turns = true;
        let (thing, core): (ThingName, ThingName) = (name("press-1"), name("core-1"));
        let (key, first) = enrol(&mut world, &thing, now);
        let (_, core_certificate) = enrol(&mut world, &core, now);
        world.associations.insert((core.clone(), thing.clone()));
        Self {
            cloud: Memory::new(world),
            settings: Settings::default(),
            now,
            thing,
            core,
            core_certificate,
            way,
            first,
            in_use: first,
            keys: BTreeMap::from([(key.digest(), key)]),
            waiting: None,
            nonce: None,
            rotation: None,
            ended: BTreeSet::new(),
            acked: None,
            pending: VecDeque::new(),
            received: Vec::new(),
            results: Vec::new(),
            points: 0,
            calls: Vec::new(),
            seen: BTreeSet::new(),
            has_fallen_back: false,
            is_meddled_with: false,
        }
    }

    /// One whose first certificate is about to be rotated.
    pub fn ordered(way: Way) -> Self {
        let mut plant = Self::new(way);
        plant.pending.push_back(plant.order());
        plant
    }

    pub fn order(&self) -> Act {
        let order = Order { certificate_id: self.first, hold_until: None };
        Act::Request(serde_json::to_string(&order).expect("an order"))
    }

    pub fn record(&self) -> Record {
        self.record_or_none().expect("a record")
    }

    pub fn record_or_none(&self) -> Option<Record> {
        self.cloud.world().latest(&self.thing).cloned()
    }

    pub fn state(&self) -> &'static str {
        self.record().state.name()
    }

    pub fn state_or_none(&self) -> Option<&'static str> {
        self.record_or_none().map(|record| record.state.name())
    }

    /// Whether nothing is left to be done for the device.
    pub fn is_over(&self) -> bool {
        self.record_or_none().is_none_or(|record| record.is_over())
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.cloud.world().now = self.now;
    }

    /// Does one act to its end, and lets the device hear what was said.
    pub fn perform(&mut self, act: &Act, plan: Option<Plan>) -> End {
        self.cloud.world().begin(plan);
        let (cloud, settings, now) = (self.cloud.clone(), self.settings.clone(), self.now);
        let mut work = pin!(function(&cloud, &settings, act, now));
        let end = loop {
            let polled = poll(work.as_mut());
            self.check();
            match polled {
                Some(Ok(done)) => break End::Done(done),
                Some(Err(fault)) => break End::Fault(fault),
                None if cloud.world().has_killed => break End::Killed,
                None => {}
            }
        };
        self.points = self.cloud.world().points();
        self.calls = self.cloud.world().calls.clone();
        self.seen.extend(self.calls.iter().map(|call| (act.function(), *call)));
        self.cloud.world().begin(None);
        self.listen();
        end
    }

    /// Does an act that is done at the first go.
    pub fn done(&mut self, act: &Act) -> Done {
        match self.perform(act, None) {
            End::Done(done) => done,
            other => panic!("{act:?} ended as {other:?}"),
        }
    }

    /// The next thing to happen; `None` once the rotation is over.
    pub fn next(&mut self) -> Option<Act> {
        if let Some(act) = self.pending.pop_front() {
            return Some(act);
        }
        let record = self.cloud.world().latest(&self.thing).cloned()?;
        let due = record.state.due()?;
        self.pass(due - self.now);
        Some(Act::Due(record.key))
    }

    /// Goes on until the rotation is over; what fails comes again.
    pub fn finish(&mut self) {
        for _ in 0..200 {
            let Some(act) = self.next() else { return };
            if !matches!(self.perform(&act, None), End::Done(_)) {
                self.again(act);
            }
        }
        panic!("no end: {:?}", self.record().state);
    }

    /// A queue hands something out once more, some time later.
    pub fn again(&mut self, act: Act) {
        self.pass(Duration::from_secs(90));
        if !matches!(act, Act::Due(_)) {
            self.pending.push_back(act);
        }
    }

    /// What the device hears and does.
    pub fn listen(&mut self) {
        loop {
            let Some((topic, payload)) = self.cloud.world().published.pop_front() else { return };
            let topics = Topics::parse("management/topic", &self.core).expect("a prefix");
            let (thing, kind) = topics.read(&topic).expect("one of our topics");
            if thing == self.thing {
                self.hear(kind, &payload);
            }
        }
    }

    fn hear(&mut self, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::CsrReq => {
                let request = CsrReq::parse(payload).expect("readable");
                (self.nonce, self.rotation) = (request.nonce, request.header.rotation);
                if self.rotation.as_ref().is_some_and(|id| self.ended.contains(id.as_str())) {
                    return;
                }
                let csr = self.csr();
                self.pending.push_back(csr);
            }
            Kind::Crt => {
                let message = CertificateMessage::parse(payload).expect("readable");
                let facts = x509::read_certificate(&message.chain[0]).expect("a certificate");
                assert!(self.keys.contains_key(&facts.key), "a certificate for a foreign key");
                if self.waiting == Some(facts.key) {
                    self.waiting = None;
                    self.in_use = facts.id;
                    self.received.push(facts.id);
                }
                if self.in_use == facts.id {
                    self.acked.get_or_insert(self.now);
                    let ack = self.ack(facts.id, facts.key);
                    self.pending.push_back(ack);
                }
            }
            Kind::Result => {
                let result: Value = serde_json::from_slice(payload).expect("JSON");
                let code = result["code"].as_str().map(str::to_owned);
                let is_put_off = matches!(code.as_deref(), Some("not-yet" | "superseded"));
                assert_eq!(result["ok"], json!(code.is_none()));
                assert_eq!(result["final"], json!(code.is_some() && !is_put_off));
                self.results.push((result["for"].as_str().expect("a kind").to_owned(), code));
            }
            Kind::CsrRes | Kind::CrtAck | Kind::CrtErr => panic!("{kind:?} is no downlink"),
        }
    }

    /// The CSR of the key that the device waits with; it makes one if it waits with none.
    pub fn csr(&mut self) -> Act {
        let key = match self.waiting {
            Some(key) => key,
            None => {
                let key = PrivateKey::generate(KeyKind::P256).expect("a key");
                let digest = key.digest();
                self.keys.insert(digest, key);
                *self.waiting.insert(digest)
            }
        };
        let csr = csr_pem(&self.keys[&key].csr(&self.thing).expect("a CSR"));
        let mut payload = json!({ "CSR": csr });
        if let (Way::Relayed(Proof::Signed), Some(nonce)) = (self.way, self.nonce) {
            payload["sig"] =
                json!(self.sign(self.in_use, &proof::csr_text(&self.thing, key, nonce)));
        }
        self.uplink(Kind::CsrRes, payload)
    }

    /// The ack of a certificate.
    pub fn ack(&mut self, id: CertificateId, key: KeyDigest) -> Act {
        let mut payload = json!({});
        match self.way {
            Way::Direct | Way::Relayed(Proof::Direct) => {}
            Way::Relayed(Proof::Bare) => payload = json!({ "certificateId": id, "ack": "bare" }),
            Way::Relayed(Proof::Named) => payload = json!({ "certificateId": id, "ack": "named" }),
            Way::Relayed(Proof::Signed) => {
                let text = proof::ack_text(&self.thing, id, self.nonce.unwrap_or(Nonce([0; 16])));
                let sig = self.keys[&key].sign(&text).expect("signs");
                payload = json!({ "certificateId": id, "ack": "named", "sig": sig });
            }
        }
        self.uplink(Kind::CrtAck, payload)
    }

    fn sign(&self, with: CertificateId, text: &[u8]) -> certrelay::wire::Signature {
        let pem = self.cloud.world().certificates[&with].pem.clone();
        let der = pem::parse(pem).expect("PEM").into_contents();
        let key = x509::read_certificate(&der).expect("a certificate").key;
        self.keys[&key].sign(text).expect("signs")
    }

    /// A message of the device's, as the rule hands it over.
    pub fn uplink(&mut self, kind: Kind, mut payload: Value) -> Act {
        if let (Some(rotation), None) = (&self.rotation, payload.get("rotationId")) {
            payload["rotationId"] = json!(rotation.as_str());
        }
        if kind == Kind::CrtErr {
            self.ended.extend(payload["rotationId"].as_str().map(str::to_owned));
        }
        match self.way {
            Way::Direct => self.uplink_by(kind, payload, self.thing.as_str(), self.in_use),
            Way::Relayed(_) => {
                self.uplink_by(kind, payload, &format!("{}#2", self.core), self.core_certificate)
            }
        }
    }

    /// A message as someone else sends it.
    pub fn uplink_by(
        &self,
        kind: Kind,
        mut payload: Value,
        client: &str,
        principal: CertificateId,
    ) -> Act {
        payload["thing"] = json!(self.thing);
        payload["client"] = json!(client);
        payload["principal"] = json!(principal);
        payload["at"] = json!(self.now.0);
        Act::Uplink(kind, payload)
    }

    /// What must hold at every instant.
    pub fn check(&self) {
        let world = self.cloud.world();
        let mut active: BTreeMap<KeyDigest, u32> = BTreeMap::new();
        for certificate in world.certificates.values() {
            if certificate.status == Status::Active {
                let der = pem::parse(&certificate.pem).expect("PEM").into_contents();
                *active.entry(x509::read_certificate(&der).expect("read").key).or_default() += 1;
            }
        }
        assert!(active.values().all(|n| *n == 1), "two ACTIVE certificates for one key");

        if self.has_fallen_back {
            return;
        }
        let used = world.certificates.get(&self.in_use).expect("what the device uses exists");
        assert_eq!(used.status, Status::Active, "what the device uses is ACTIVE");
        assert!(used.things.iter().any(|at| at.thing == self.thing), "and attached");
        assert!(POLICIES.iter().all(|policy| used.policies.contains(*policy)), "and permitted");

        let first = world.certificates.get(&self.first).map(|certificate| certificate.status);
        if first != Some(Status::Active) && !self.is_meddled_with {
            let acked = self.acked.expect("nothing is given up before an ack");
            let proof = match self.way {
                Way::Direct => Proof::Direct,
                Way::Relayed(proof) => proof,
            };
            assert!(self.now - acked >= grace(proof), "nor before the grace is over");
        }
    }

    /// What must hold once the rotation has ended well.
    pub fn check_end(&self) {
        self.check();
        assert_eq!(self.state(), "retired");
        let world = self.cloud.world();
        assert!(!world.certificates.contains_key(&self.first), "the old certificate is gone");
        assert_ne!(self.in_use, self.first);
        let attached = world.certificates.values();
        let attached = attached.filter(|c| c.things.iter().any(|at| at.thing == self.thing));
        assert_eq!(attached.count(), 1, "nothing else is left attached");
    }
}

/// The function that an act is for.
async fn function(
    cloud: &Memory,
    settings: &Settings,
    act: &Act,
    now: Timestamp,
) -> Result<Done, Fault> {
    match act {
        Act::Request(order) => {
            request::request(cloud, settings, order.as_bytes(), [5; 16], now).await
        }
        Act::Uplink(kind, event) => {
            let event = event.to_string();
            match kind {
                Kind::CsrRes => issue::issue(cloud, settings, event.as_bytes(), now).await,
                Kind::CrtAck => complete::complete(cloud, settings, event.as_bytes(), now).await,
                Kind::CrtErr => report::report(cloud, settings, event.as_bytes(), now).await,
                other => panic!("{other:?} is no uplink"),
            }
        }
        Act::Due(key) => {
            let key = serde_json::to_string(key).expect("a key");
            due::due(cloud, settings, key.as_bytes(), now).await
        }
        Act::Audit(job) => audit::go_on(cloud, settings, job.as_bytes(), || false, now).await,
    }
}

/// Two acts at once: the first up to its point `i`, the second up to its point `j`, then each to its
/// end.
pub fn at_once(plant: &mut Plant, acts: [&Act; 2], i: usize, j: usize) -> [Result<Done, Fault>; 2] {
    plant.cloud.world().begin(None);
    let (cloud, settings, now) = (plant.cloud.clone(), plant.settings.clone(), plant.now);
    let mut one = pin!(function(&cloud, &settings, acts[0], now));
    let mut other = pin!(function(&cloud, &settings, acts[1], now));
    let first = go(plant, one.as_mut(), i);
    let second = go(plant, other.as_mut(), j);
    let first = first.or_else(|| go(plant, one.as_mut(), usize::MAX)).expect("an end");
    let second = second.or_else(|| go(plant, other.as_mut(), usize::MAX)).expect("an end");
    plant.listen();
    [first, second]
}

fn go<T>(plant: &Plant, mut work: Pin<&mut impl Future<Output = T>>, points: usize) -> Option<T> {
    for _ in 0..points {
        let polled = poll(work.as_mut());
        plant.check();
        if polled.is_some() {
            return polled;
        }
    }
    None
}

fn poll<T>(work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match work.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Runs something that meets no cut.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Some(value) = poll(work.as_mut()) {
            return value;
        }
    }
}

/// A sweep that may meet a cut; `None` if it was killed.
pub fn sweep_once(plant: &Plant) -> Option<Result<sweep::Swept, Fault>> {
    let mut work = pin!(sweep::sweep(&plant.cloud, || false, plant.now));
    loop {
        match poll(work.as_mut()) {
            Some(end) => return Some(end),
            None if plant.cloud.world().has_killed => return None,
            None => {}
        }
    }
}

/// What a sweep queues, and what it tells.
pub fn swept(plant: &Plant) -> (sweep::Swept, Vec<Act>) {
    let swept = run(sweep::sweep(&plant.cloud, || false, plant.now)).expect("a sweep");
    let mut due = Vec::new();
    while let Some(key) = plant.cloud.world().take(Queue::Due) {
        due.push(Act::Due(serde_json::from_str(&key).expect("a key")));
    }
    (swept, due)
}

pub fn enrol(world: &mut World, thing: &ThingName, now: Timestamp) -> (PrivateKey, CertificateId) {
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = csr_pem(&key.csr(thing).expect("a CSR"));
    let pem = world.authority.sign(&csr, now, 60 * DAY).expect("a certificate");
    let id = world.enrol(&pem, thing, false, &POLICIES);
    (key, id)
}

pub fn name(text: &str) -> ThingName {
    text.parse().expect("a name")
}
