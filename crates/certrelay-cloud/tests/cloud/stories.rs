//! Random stories: messages lost, doubled and out of order, functions killed and throttled anywhere, a
//! device that loses its key, refuses its certificate or goes back to its old one, a person who
//! deactivates what nobody uses. After every call what must always hold is checked, and every story
//! ends with a certificate in use that alone is attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use certrelay::wire::{CertificateId, Kind};
use certrelay_cloud::{
    memory::Plan,
    ports::{Call, Status},
    record::Proof,
};
use fastrand::Rng;
use serde_json::json;

use crate::plant::{Act, DAY, End, Plant, Way};

const WAYS: [Way; 4] = [
    Way::Direct,
    Way::Relayed(Proof::Signed),
    Way::Relayed(Proof::Named),
    Way::Relayed(Proof::Bare),
];

/// What a device says is wrong, and whether it names the certificate.
const TROUBLES: [(&str, bool); 6] = [
    ("", false),
    ("device-error", true),
    ("connect-refused", true),
    ("probe-refused", true),
    ("undelivered", true),
    ("bad-certificate", true),
];

struct Story {
    plant: Plant,
    rng: Rng,
    /// What the device has to tell until it is told that it was heard.
    trouble: Option<serde_json::Value>,
    /// What a person has deactivated, and what nobody may make ACTIVE again therefore.
    touched: BTreeMap<CertificateId, Status>,
    told: Vec<String>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plant = Plant::ordered(WAYS[rng.usize(0..WAYS.len())]);
        plant.settings.support_after = rng.u32(1..4);
        Self { plant, rng, trouble: None, touched: BTreeMap::new(), told: Vec::new() }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(format!("{} {}", self.plant.now.0, what.into()));
    }

    /// Something happens.
    fn step(&mut self) {
        match self.rng.u32(0..20) {
            0..8 => self.go_on(None),
            8..13 => {
                let point = self.rng.usize(0..24);
                let plans = [Plan::Kill(point), Plan::Throttle(point), Plan::LoseAnswer(point)];
                let plan = plans[self.rng.usize(0..3)];
                self.go_on(Some(plan));
            }
            13 => self.double(),
            14 => self.lose(),
            15 => self.rng.shuffle(self.plant.pending.make_contiguous()),
            16 => self.go_back(),
            17 => self.lose_key(),
            18 => self.meddle(),
            _ => {
                let time = Duration::from_secs(self.rng.u64(1..7200));
                self.plant.pass(time);
            }
        }
    }

    fn go_on(&mut self, plan: Option<Plan>) {
        self.say_trouble();
        let Some(act) = self.plant.next() else { return };
        let end = self.plant.perform(&act, plan);
        let what = match &act {
            Act::Uplink(kind, event) => {
                format!("{} {} {}", kind.as_str(), event["certificateId"], event["code"])
            }
            act => format!("{act:?}"),
        };
        let state = self.plant.record_or_none().map(|record| record.state.name());
        self.tell(format!("{what} meets {plan:?}: {end:?}; {state:?}"));
        if !matches!(end, End::Done(_)) {
            self.plant.again(act);
        }
        self.see();
    }

    /// The device says what is wrong until it is heard.
    fn say_trouble(&mut self) {
        let Some(trouble) = &self.trouble else { return };
        if !self.plant.pending.iter().any(|act| matches!(act, Act::Uplink(Kind::CrtErr, _))) {
            let act = self.plant.uplink(Kind::CrtErr, trouble.clone());
            self.plant.pending.push_back(act);
        }
    }

    /// What came of the last act.
    fn see(&mut self) {
        for (of, _) in std::mem::take(&mut self.plant.results) {
            if of == "crt_err" && self.trouble.take().is_some() {
                // What it went back to is ACTIVE, or comes back as soon as the record can be written.
                self.plant.has_fallen_back = !self.is_usable();
            }
        }
        if self.plant.has_fallen_back && self.trouble.is_none() {
            self.plant.has_fallen_back = !self.is_usable();
        }
        let world = self.plant.cloud.world();
        for (id, status) in &self.touched {
            let now = world.certificates.get(id).map(|certificate| certificate.status);
            assert!(now.is_none_or(|now| now == *status), "{id} was touched by a person: {now:?}");
        }
    }

    fn is_usable(&self) -> bool {
        let world = self.plant.cloud.world();
        let used = world.certificates.get(&self.plant.in_use);
        used.is_some_and(|certificate| certificate.status == Status::Active)
    }

    fn double(&mut self) {
        let pending = &mut self.plant.pending;
        if let Some(act) = pending.get(self.rng.usize(0..pending.len().max(1))).cloned() {
            pending.push_back(act);
        }
    }

    fn lose(&mut self) {
        let pending = &mut self.plant.pending;
        let n = self.rng.usize(0..pending.len().max(1));
        if matches!(pending.get(n), Some(Act::Uplink(..))) {
            pending.remove(n);
        }
    }

    /// The device goes back to what it had, while that can still come back, and says why.
    fn go_back(&mut self) {
        let state = self.plant.state_or_none();
        let can = matches!(state, Some("issued" | "acked" | "deactivating" | "inactive"));
        let is_back = self.plant.in_use == self.plant.first;
        let is_gone = self.touched.contains_key(&self.plant.first);
        if is_back || is_gone || !can || self.trouble.is_some() {
            return;
        }
        let (code, names) = TROUBLES[self.rng.usize(0..TROUBLES.len())];
        let refused = self.plant.in_use;
        (self.plant.in_use, self.plant.acked) = (self.plant.first, None);
        self.plant.has_fallen_back = true;
        self.plant.waiting = None;
        let mut trouble = json!({ "error": "trouble", "code": code });
        if names {
            trouble["certificateId"] = json!(refused);
        }
        self.tell(format!("goes back: {trouble}"));
        self.trouble = Some(trouble);
    }

    /// The device loses the key that it waits with, and sends a CSR for another.
    fn lose_key(&mut self) {
        if self.plant.waiting.take().is_some() {
            self.plant.pass(Duration::from_millis(1));
            let csr = self.plant.csr();
            self.plant.pending.push_back(csr);
        }
    }

    /// A person deactivates or revokes a certificate of the device's that it does not use.
    fn meddle(&mut self) {
        let (first, in_use, thing) = (self.plant.first, self.plant.in_use, &self.plant.thing);
        if self.trouble.is_some() || in_use == first {
            return;
        }
        // While certificates are being given up an INACTIVE one is taken for one of those.
        let is_clear = self.plant.state_or_none() != Some("deactivating");
        let mut world = self.plant.cloud.world();
        let status = if is_clear && self.rng.bool() { Status::Inactive } else { Status::Other };
        let others = world.certificates.iter_mut().filter(|(id, certificate)| {
            let is_its = certificate.things.iter().any(|at| at.thing == *thing);
            **id != in_use && is_its && certificate.status == Status::Active
        });
        let mut others: Vec<_> = others.collect();
        if !others.is_empty() {
            let (id, certificate) = others.swap_remove(self.rng.usize(0..others.len()));
            certificate.status = status;
            self.touched.insert(*id, status);
            let (id, is_first) = (*id, *id == first);
            drop(world);
            self.plant.is_meddled_with |= is_first;
            self.tell(format!("a person makes {id} {status:?}"));
        }
    }

    /// Everything works again. Rotations are begun until one has ended well.
    fn end(&mut self) {
        for _ in 0..4 {
            for _ in 0..200 {
                self.say_trouble();
                if self.plant.pending.is_empty() && self.plant.is_over() {
                    break;
                }
                self.go_on(None);
            }
            assert!(self.plant.is_over(), "no end: {:?}", self.plant.record().state);
            assert!(!self.plant.has_fallen_back, "what the device uses is not ACTIVE");
            self.plant.check();
            if self.plant.state() == "retired" {
                return self.check_end();
            }
            self.plant.pass(DAY);
            // What a person has deactivated, no audit finds: then it is the one in use.
            if self.touched.contains_key(&self.plant.first) {
                (self.plant.first, self.plant.acked) = (self.plant.in_use, None);
                self.plant.is_meddled_with = false;
            }
            let order = self.plant.order();
            self.plant.pending.push_back(order);
        }
        panic!("four rotations, and none has ended well");
    }

    fn check_end(&self) {
        let world = self.plant.cloud.world();
        let is_its = |id: &CertificateId| {
            let things = &world.certificates[id].things;
            things.iter().any(|at| at.thing == self.plant.thing)
        };
        for id in world.certificates.keys().filter(|id| is_its(id)) {
            let is_touched = self.touched.contains_key(id);
            assert!(*id == self.plant.in_use || is_touched, "{id} is left attached");
        }
    }
}

/// How many stories; `CERTRELAY_SCHEDULES` sets it, for a soak.
fn stories() -> u64 {
    std::env::var("CERTRELAY_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// The first one; `CERTRELAY_SEED` sets it, to see one again.
fn first() -> u64 {
    std::env::var("CERTRELAY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What happened is told when the story ends badly.
fn tell(seed: u64) {
    let mut story = Story::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..story.rng.usize(5..60) {
            story.step();
        }
        story.end();
    }));
    if let Err(why) = outcome {
        println!("story {seed}:\n{}", story.told.join("\n"));
        std::panic::resume_unwind(why);
    }
}

/// What the functions call in a hundred stories.
pub fn calls() -> BTreeSet<(&'static str, Call)> {
    let stories = (0..100).map(|seed| {
        let mut story = Story::new(seed);
        (0..60).for_each(|_| story.step());
        story.end();
        story.plant.seen
    });
    stories.flatten().collect()
}

#[test]
fn whatever_happens_the_device_ends_with_one_certificate_that_it_uses() {
    let seeds = first()..first() + stories();
    println!("{} stories", seeds.end - seeds.start);
    seeds.for_each(tell);
}
