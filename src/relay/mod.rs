//! The relay: every child's rotation, from `csr_req` to `crt_ack` (DESIGN §5).
//!
//! Owns one [`Record`] a child and decides all that the gateway does for it. Sans-io: it is handed
//! the time and what happened, and returns writes and effects. The driver's contract:
//!
//! 1. [`Relay::restore`] with what the store holds, then [`Relay::handle`] for each event, and for
//!    [`Event::Wakeup`] no later than [`Relay::next_wakeup`]; [`Relay::reconfigure`] when the
//!    settings change.
//! 2. All writes of an [`Outcome`] are durable before the first of its effects is done; effects are
//!    done in order.
//! 3. When a commit fails, its effects are not done and the relay is thrown away: a new one is
//!    restored from the store, and both links are told to connect anew.
//!
//! A local message is therefore acknowledged only when all that follows from it is durable. The
//! relay reads no clock, waits for nothing and never logs.

mod child;
mod cloud;
mod due;
mod event;
mod from_child;
mod from_cloud;
mod intake;
mod local;
mod outbox;
mod own;
mod pace;
mod queues;
mod reconfigure;
mod record;
mod roster;
mod settings;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use child::{Child, Scene};
use cloud::Cloud;
use due::{Rank, Trial};
use local::Local;
use pace::Turns;

pub use cloud::CloudState;
pub use event::{Content, Effect, Event, ForCore, Lost, Note, Outcome, Outgoing, Side, Weight};
pub use record::{
    AwaitAck, AwaitCert, AwaitCsr, Body, Csr, Done, Notice, Occurred, Outbox, Outcome as Ended,
    REMEMBERED, Reached, Record, Says, Snapshot, Stage, Write,
};
pub use roster::Children;
pub use settings::Settings;
pub use status::{Counters, Row};

use crate::{
    links::SendError,
    reason::Reason,
    schedule::{Now, Tick, Timestamp},
    wire::{Mid, ThingName},
};

/// The most records that are kept.
pub const MOST_RECORDS: usize = 20_000;

/// The most devices that are tried without a record.
const MOST_TRIALS: usize = 1_000;

/// A store without room is tried again after so long.
const FULL_FOR: Duration = Duration::from_secs(600);

/// The newest time that was trusted is stored to this many milliseconds.
const SEEN_TO: u64 = 60_000;

/// Every child's rotation.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    rng: fastrand::Rng,
    /// Boxed: a map's nodes are half empty, and a child is large.
    children: BTreeMap<ThingName, Box<Child>>,
    trials: BTreeMap<ThingName, Trial>,
    /// When each child's, or trial's, time comes.
    agenda: BTreeSet<(Tick, ThingName)>,
    to_cloud: BTreeSet<(Rank, ThingName)>,
    to_floor: BTreeSet<(Tick, ThingName)>,
    /// Something is due to the core itself.
    core_is_due: bool,
    cloud: Cloud,
    local: Local,
    counters: Counters,
    unsolicited: Turns,
    /// Messages that were read lately of devices that have no record.
    strangers: BTreeMap<ThingName, pace::Rate>,
    /// How many rotations are under way.
    under_way: usize,
    /// The newest trusted time that is stored.
    seen: Option<Timestamp>,
    clock_is_trusted: bool,
    /// The store had no room; until then nothing is taken in that would make it grow.
    full_until: Option<Tick>,
}

impl Relay {
    /// Takes up what the store holds. `seed` is random; the same seed and events give the same
    /// outcomes.
    pub fn restore(
        settings: Settings,
        seed: u64,
        now: Now,
        snapshot: Snapshot,
        out: &mut Outcome,
    ) -> Self {
        let mut relay = Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            children: BTreeMap::new(),
            trials: BTreeMap::new(),
            agenda: BTreeSet::new(),
            to_cloud: BTreeSet::new(),
            to_floor: BTreeSet::new(),
            core_is_due: false,
            cloud: Cloud::new(),
            local: Local::default(),
            counters: Counters::default(),
            unsolicited: Turns::default(),
            strangers: BTreeMap::new(),
            under_way: 0,
            seen: snapshot.seen,
            clock_is_trusted: false,
            full_until: None,
        };
        for (name, record) in snapshot.records {
            let child = Child::restored(record, now, &relay.settings, &mut relay.rng);
            relay.under_way += usize::from(child.is_under_way());
            relay.children.insert(name.clone(), Box::new(child));
            relay.reschedule(&name, now);
        }
        relay.leave_alone(now, out);
        for name in snapshot.damaged {
            relay.on_damaged(now, &name, out);
        }
        relay
    }

    /// Takes one event. What is to be written and done is added to `out`.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Outcome) {
        self.trust_clock(now, out);
        match event {
            Event::Up { side: Side::Cloud, .. } => self.cloud.on_connected(now.tick),
            Event::Up { side: Side::Local, connection, session_present } => {
                self.local.on_connected(connection, now.tick);
                if !session_present {
                    self.on_session_lost(now);
                }
            }
            Event::Down { side: Side::Cloud } => self.cloud.on_disconnected(),
            Event::Down { side: Side::Local } => self.local.on_disconnected(),
            Event::Message { side, message } => self.on_message(now, side, message, out),
            Event::Sent { side, mid, outcome } => self.on_sent(now, side, mid, outcome, out),
            Event::Verified { child, key, outcome } => {
                self.cloud.checking = self.cloud.checking.saturating_sub(1);
                self.with_child(now, &child, out, |child, scene| {
                    if child.waiting_key() == Some(key) {
                        child.on_verified(scene, outcome);
                    }
                });
            }
            Event::BodyLost { child, lost } => {
                self.with_child(now, &child, out, |child, scene| child.on_lost(scene, lost));
            }
            Event::StoreLost => self.on_store_lost(now, out),
            Event::StoreFull => self.full_until = Some(now.tick + FULL_FOR),
            Event::Own(say) => self.on_own(now, say, out),
            Event::Wakeup => {}
        }
        self.advance(now, out);
        self.remember_time(now, out);
    }

    /// When [`Event::Wakeup`] is due, if at all.
    pub fn next_wakeup(&self) -> Option<Tick> {
        let agenda = self.agenda.first().map(|(tick, _)| *tick);
        let send = match self.to_cloud.is_empty() {
            true => None,
            false => self.cloud.next_free(&self.settings),
        };
        [agenda, send, self.cloud.next_wakeup(&self.settings), self.local.next_wakeup()]
            .into_iter()
            .flatten()
            .min()
    }

    /// How often each thing was decided.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Goes on counting from what an earlier relay of the same process counted.
    pub fn count_on(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// Counts what only the driver can see, so many times.
    pub fn count(&mut self, side: Option<Side>, reason: Reason, times: u64) {
        self.counters.count_many(side, reason, times);
    }

    /// What is known of the link to the cloud.
    pub fn cloud_state(&self) -> CloudState {
        self.cloud.state
    }

    /// Whether the local link stands, and whether its barrier has come back.
    pub fn local_state(&self) -> (bool, bool) {
        (self.local.is_up(), self.local.is_past_barrier())
    }

    /// How many records there are.
    pub fn children(&self) -> usize {
        self.children.len()
    }

    /// A child's record.
    pub fn record(&self, child: &ThingName) -> Option<&Record> {
        self.children.get(child).map(|child| &child.record)
    }

    /// Does something with a child, if there is a record of it; then writes the record if it has
    /// changed, and plans anew what is due.
    fn with_child<T>(
        &mut self,
        now: Now,
        name: &ThingName,
        out: &mut Outcome,
        act: impl FnOnce(&mut Child, &mut Scene<'_>) -> T,
    ) -> Option<T> {
        let child = self.children.get_mut(name)?;
        let mut scene = Scene {
            now,
            name,
            settings: &self.settings,
            rng: &mut self.rng,
            counters: &mut self.counters,
            unsolicited: &mut self.unsolicited,
            out,
        };
        let was_under_way = child.is_under_way();
        let result = act(child, &mut scene);
        self.under_way += usize::from(child.is_under_way());
        self.under_way -= usize::from(was_under_way);
        if std::mem::take(&mut child.changed) {
            out.writes.push(Write::Record(name.clone(), Box::new(child.record.clone())));
        }
        self.reschedule(name, now);
        Some(result)
    }

    /// Makes a record for a child that has none. `None`: there are too many. The core itself always
    /// has room.
    fn admit(&mut self, now: Now, name: &ThingName) -> Option<()> {
        if self.children.contains_key(name) {
            return Some(());
        }
        let is_core = *name == self.settings.core;
        if !is_core && self.children.len() >= MOST_RECORDS {
            self.counters.count(None, Reason::TooManyRecords);
            return None;
        }
        if !is_core && self.is_full(now) {
            self.counters.count(None, Reason::StoreFull);
            return None;
        }
        self.end_trial(name);
        self.children.insert(name.clone(), Box::new(Child::new(now)));
        Some(())
    }

    /// Whether nothing is taken in that would make the store grow.
    fn is_full(&self, now: Now) -> bool {
        self.full_until.is_some_and(|until| now.tick < until)
    }

    /// Whether there is room for a rotation of this device, if none is under way.
    fn has_room_for(&self, name: &ThingName) -> bool {
        self.under_way < self.settings.most_under_way
            || self.children.get(name).is_some_and(|child| child.is_under_way())
    }

    fn on_sent(
        &mut self,
        now: Now,
        side: Side,
        copy: Mid,
        outcome: Result<(), SendError>,
        out: &mut Outcome,
    ) {
        if side == Side::Cloud && outcome == Err(SendError::Offline) {
            self.cloud.on_refused(now.tick, &self.settings, &mut self.rng);
        }
        let waiting = match side {
            Side::Cloud => &mut self.cloud.out,
            Side::Local => &mut self.local.out,
        };
        let Some(name) = waiting.remove(&copy) else { return };
        if let Some(trial) = self.trials.get_mut(&name) {
            trial.to_child.flying = None;
            if outcome.is_err() {
                trial.to_child.due = Some(now.tick + self.settings.request.first);
            }
            return self.reschedule(&name, now);
        }
        let link_is_up = self.cloud.state == CloudState::Up;
        self.with_child(now, &name, out, |child, scene| match side {
            Side::Cloud => child.cloud_sent(scene, copy, outcome, link_is_up),
            Side::Local => child.local_sent(scene, copy, outcome),
        });
    }

    fn on_session_lost(&mut self, now: Now) {
        let names: Vec<ThingName> = self.children.keys().cloned().collect();
        for name in names {
            if let Some(child) = self.children.get_mut(&name) {
                child.on_session_lost(&self.settings, now.tick, &mut self.rng);
            }
            self.reschedule(&name, now);
        }
    }

    /// The link to the cloud has come up: all that the cloud has yet to hear is due.
    fn on_cloud_up(&mut self, now: Now) {
        let names: Vec<ThingName> = self.children.keys().cloned().collect();
        for name in names {
            if let Some(child) = self.children.get_mut(&name) {
                child.on_cloud_up(now);
            }
            self.reschedule(&name, now);
        }
    }

    /// The record of a child could not be read: it is gone, and the cloud is to hear of it.
    fn on_damaged(&mut self, now: Now, name: &ThingName, out: &mut Outcome) {
        if self.admit(now, name).is_some() {
            self.with_child(now, name, out, |child, scene| {
                child.note(scene, Weight::Alarm, None, Reason::StoreLost, None);
                child.report(scene, Reason::StoreLost, None);
            });
        }
    }

    /// What is under way for a device that is not served any more ends.
    fn leave_alone(&mut self, now: Now, out: &mut Outcome) {
        let others: Vec<ThingName> = self
            .children
            .iter()
            .filter(|(name, child)| child.is_under_way() && !self.serves(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in others {
            self.with_child(now, &name, out, |child, scene| {
                let (reason, certificate) = (Reason::NotServed, child.held_certificate());
                child.report_end(scene, outbox::Complaint::ours(reason, certificate));
                child.done(scene, Ended::Failed { reason, code: None, certificate });
                child.note(scene, Weight::Alarm, None, reason, None);
            });
        }
    }

    /// Whether the device is one of ours, by its name; the core itself is.
    fn serves(&self, name: &ThingName) -> bool {
        *name == self.settings.core || self.settings.children.serves(name)
    }

    /// All records are gone: the cloud is to hear of it under the core's own name.
    fn on_store_lost(&mut self, now: Now, out: &mut Outcome) {
        let core = self.settings.core.clone();
        self.on_damaged(now, &core, out);
    }

    /// Once the clock is trusted, what happened before gets its time.
    fn trust_clock(&mut self, now: Now, out: &mut Outcome) {
        if std::mem::replace(&mut self.clock_is_trusted, now.wall.is_some()) || now.wall.is_none() {
            return;
        }
        let names: Vec<ThingName> = self.children.keys().cloned().collect();
        for name in names {
            self.with_child(now, &name, out, |child, _| {
                let changed = &mut child.changed;
                child.record.each_stamp(|stamp| *changed |= stamp.settle(now));
            });
        }
    }

    /// The newest trusted time goes with a transaction that is due anyway.
    fn remember_time(&mut self, now: Now, out: &mut Outcome) {
        let Some(wall) = now.wall.filter(|_| !out.writes.is_empty()) else { return };
        if self.seen.is_none_or(|seen| wall.0 >= seen.0.saturating_add(SEEN_TO)) {
            self.seen = Some(wall);
            out.writes.push(Write::Seen(wall));
        }
    }
}
