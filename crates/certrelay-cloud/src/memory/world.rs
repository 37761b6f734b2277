//! What the cloud in memory holds, and how it changes by itself: things are detached some seconds
//! after they were asked to be.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
    x509,
};

use super::{Ca, Plan};
use crate::{
    decide::report::Note,
    ports::{Attachment, Call, Finding, Queue, Status},
    record::{Key, Record},
};

/// How long AWS takes to detach a thing, at most, in this world.
const DETACHING: Duration = Duration::from_secs(5);

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM.
    pub pem: String,
    /// Whether it may be used.
    pub status: Status,
    /// What it may do.
    pub policies: BTreeSet<String>,
    /// Whose it is.
    pub things: Vec<Attachment>,
    /// The things that are being detached, and when each is.
    pub detaching: Vec<(ThingName, Timestamp)>,
}

/// What the cloud in memory holds.
pub struct World {
    /// The time, as the cloud sees it.
    pub now: Timestamp,
    /// The time that certificates are made at, where it is another.
    pub wall: Option<Timestamp>,
    /// How long certificates are valid.
    pub validity: Duration,
    /// The CA.
    pub authority: Box<dyn Ca>,
    /// Every certificate.
    pub certificates: BTreeMap<CertificateId, Certificate>,
    /// Things that someone has deleted.
    pub deleted: BTreeSet<ThingName>,
    /// The devices of each core.
    pub associations: BTreeSet<(ThingName, ThingName)>,
    /// What audits found, by task and check.
    pub findings: BTreeMap<(String, String), Vec<Finding>>,
    /// The records.
    pub records: BTreeMap<Key, Record>,
    /// What was taken of each day's budget.
    pub budgets: BTreeMap<u64, u32>,
    /// What a person is to be told.
    pub notes: BTreeSet<Note>,
    /// What was published, topic and payload, oldest first.
    pub published: VecDeque<(String, Vec<u8>)>,
    /// How many publishes are lost from now on.
    pub lose: usize,
    /// The queues.
    pub queues: BTreeMap<Queue, VecDeque<String>>,
    /// What the support team was told: subject and text.
    pub mails: Vec<(String, String)>,
    /// Every call, in order.
    pub calls: Vec<Call>,
    /// What goes wrong.
    pub plan: Option<Plan>,
    /// Whether the plan's kill has struck.
    pub has_killed: bool,
    /// Whether callers give way to each other at each point.
    pub takes_turns: bool,
    /// The certificates that were made for a token by a CA that knows idempotency, if it is one.
    pub by_token: Option<BTreeMap<String, CertificateId>>,
    /// The points that were passed.
    points: usize,
}

impl World {
    /// A world without things.
    pub fn new(authority: impl Ca + 'static, now: Timestamp) -> Self {
        Self {
            now,
            wall: None,
            validity: Duration::from_secs(365 * 86_400),
            authority: Box::new(authority),
            certificates: BTreeMap::new(),
            deleted: BTreeSet::new(),
            associations: BTreeSet::new(),
            findings: BTreeMap::new(),
            records: BTreeMap::new(),
            budgets: BTreeMap::new(),
            notes: BTreeSet::new(),
            published: VecDeque::new(),
            lose: 0,
            queues: BTreeMap::new(),
            mails: Vec::new(),
            calls: Vec::new(),
            plan: None,
            has_killed: false,
            takes_turns: false,
            by_token: None,
            points: 0,
        }
    }

    /// Puts an ACTIVE certificate (PEM) of a thing into the world, with these policies.
    pub fn enrol(
        &mut self,
        pem: &str,
        thing: &ThingName,
        is_exclusive: bool,
        policies: &[&str],
    ) -> CertificateId {
        let id = certificate_id(pem);
        let certificate = Certificate {
            pem: pem.to_owned(),
            status: Status::Active,
            policies: policies.iter().map(|policy| (*policy).to_owned()).collect(),
            things: vec![Attachment { thing: thing.clone(), is_exclusive }],
            detaching: Vec::new(),
        };
        self.certificates.insert(id, certificate);
        id
    }

    /// The newest record of a thing.
    pub fn latest(&self, thing: &ThingName) -> Option<&Record> {
        let of = |seq| Key { thing: thing.clone(), seq };
        self.records.range(of(0)..=of(u32::MAX)).next_back().map(|(_, record)| record)
    }

    /// Takes the oldest message of a queue.
    pub fn take(&mut self, queue: Queue) -> Option<String> {
        self.queues.get_mut(&queue)?.pop_front()
    }

    /// Plans from here on, counting points from 0, and forgets the plan before.
    pub fn begin(&mut self, plan: Option<Plan>) {
        (self.plan, self.points, self.has_killed) = (plan, 0, false);
        self.calls.clear();
    }

    /// How many points were passed since the last plan began.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Detaches what is due to be.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        for certificate in self.certificates.values_mut() {
            let Certificate { things, detaching, .. } = certificate;
            detaching.retain(|(thing, at)| {
                let is_due = *at <= now;
                if is_due {
                    things.retain(|attachment| attachment.thing != *thing);
                }
                !is_due
            });
        }
    }

    /// When something that is asked for now is detached.
    pub(super) fn detached_at(&self) -> Timestamp {
        self.now + DETACHING
    }

    /// A call begins; the number of its first point. It has the next even one.
    pub(super) fn pass(&mut self, call: Call) -> usize {
        self.calls.push(call);
        self.points += 2;
        self.points - 2
    }

    /// The call's second point.
    pub(super) fn pass_back(&self) -> usize {
        self.points - 1
    }
}

/// AWS IoT's id of a certificate: the SHA-256 of its DER. Of what is no PEM, that of nothing.
pub(super) fn certificate_id(pem: &str) -> CertificateId {
    x509::certificate_id(
        pem::parse(pem).map(pem::Pem::into_contents).unwrap_or_default().as_slice(),
    )
}
