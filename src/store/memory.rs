//! The store's twin for tests: in memory, with faults on demand, and otherwise just like it.
//!
//! A [`MemoryDisk`] is the disk: it outlives the stores that are opened on it, so a restart is a
//! store dropped and another opened. Every clone is the same disk.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{OpenStore, Opened, Store, StoreError, frame::entry_bytes, tables::to_json};
use crate::{
    relay::{Body, Record, Snapshot, Write},
    schedule::Timestamp,
    wire::ThingName,
};

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None of it is durable.
    Before,
    /// All of it is durable, although it failed.
    After,
}

/// A disk that keeps what was committed to it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    held: Held,
    damaged: Vec<ThingName>,
    set_aside: Option<PathBuf>,
    commits: u64,
    faults: BTreeMap<u64, Fault>,
    failing_opens: u64,
    full: bool,
}

#[derive(Debug, Clone, Default)]
struct Held {
    records: BTreeMap<ThingName, Record>,
    bodies: BTreeMap<(ThingName, Body), Vec<u8>>,
    seen: Option<Timestamp>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many commits were tried, those that failed included and empty ones not.
    pub fn commits(&self) -> u64 {
        self.disk().commits
    }

    /// Makes a commit fail with an I/O error: the `nth` from now, counted from 1.
    pub fn fail_commit(&self, nth: u64, fault: Fault) {
        let mut disk = self.disk();
        let number = disk.commits + nth;
        disk.faults.insert(number, fault);
    }

    /// Makes that many openings fail with an I/O error, from the next on.
    pub fn fail_opens(&self, count: u64) {
        self.disk().failing_opens = count;
    }

    /// Whether the disk is full: only what does not grow the store is taken.
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// Damages a record, so that the next load reports it and removes it with its bodies.
    pub fn damage(&self, thing: &ThingName) {
        self.disk().damaged.push(thing.clone());
    }

    /// Damages the file, so that the next opening sets it aside and begins a new one.
    pub fn corrupt(&self) {
        let mut disk = self.disk();
        disk.held = Held::default();
        disk.damaged.clear();
        disk.set_aside = Some("memory.corrupt-1".into());
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A test that panicked is over; what it held is of no further use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStore for MemoryDisk {
    type Store = MemoryStore;

    fn open(&mut self) -> Result<Opened<MemoryStore>, StoreError> {
        let mut disk = self.disk();
        if disk.failing_opens > 0 {
            disk.failing_opens -= 1;
            return Err(io_error());
        }
        let set_aside = disk.set_aside.take();
        Ok(Opened { store: MemoryStore { disk: self.clone(), spent: false }, set_aside })
    }
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    spent: bool,
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let mut disk = self.open_disk()?;
        let mut damaged = std::mem::take(&mut disk.damaged);
        damaged.retain(|thing| disk.held.records.contains_key(thing));
        damaged.sort();
        damaged.dedup();
        for thing in &damaged {
            disk.held.forget(thing);
        }
        let records = disk.held.records.clone().into_iter().collect();
        Ok(Snapshot { records, damaged, seen: disk.held.seen })
    }

    fn body(&mut self, thing: &ThingName, body: Body) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.open_disk()?.held.bodies.get(&(thing.clone(), body)).cloned())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let outcome = self.open_disk()?.commit(writes);
        self.spent = outcome.is_err();
        outcome
    }
}

impl MemoryStore {
    fn open_disk(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        if self.spent { Err(StoreError::Closed) } else { Ok(self.disk.disk()) }
    }
}

impl Disk {
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.commits += 1;
        let fault = self.faults.remove(&self.commits);
        if fault == Some(Fault::Before) {
            return Err(io_error());
        }
        let mut held = self.held.clone();
        writes.iter().for_each(|write| held.apply(write));
        if self.full && held.bytes() > self.held.bytes() {
            return Err(StoreError::DiskFull { path: "memory".into(), what: "full".into() });
        }
        self.held = held;
        fault.map_or(Ok(()), |_| Err(io_error()))
    }
}

impl Held {
    fn apply(&mut self, write: &Write) {
        match write.clone() {
            Write::Record(thing, record) => drop(self.records.insert(thing, *record)),
            Write::Body(thing, body, der) => drop(self.bodies.insert((thing, body), der)),
            Write::DropBody(thing, body) => drop(self.bodies.remove(&(thing, body))),
            Write::Forget(thing) => self.forget(&thing),
            Write::Seen(time) => self.seen = Some(time),
        }
    }

    fn forget(&mut self, thing: &ThingName) {
        self.records.remove(thing);
        for body in [Body::Csr, Body::Certificate] {
            self.bodies.remove(&(thing.clone(), body));
        }
    }

    fn bytes(&self) -> u64 {
        let records = self.records.iter();
        let records = records.map(|(thing, record)| entry_bytes(thing.as_str(), &to_json(record)));
        let bodies = self.bodies.iter();
        let bodies = bodies.map(|((thing, _), der)| entry_bytes(thing.as_str(), der));
        let seen = self.seen.map(|time| entry_bytes("seen", &time.0.to_le_bytes()));
        records.sum::<u64>() + bodies.sum::<u64>() + seen.unwrap_or(0)
    }
}

fn io_error() -> StoreError {
    StoreError::from_io("memory".as_ref(), &std::io::Error::other("injected"))
}
