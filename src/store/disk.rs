//! The real store: one redb file.
//!
//! Owns the tables and what they hold. Tables: `records` (thing name → JSON), `csrs` and
//! `certificates` (thing name → DER), `meta`; every value in a [`frame`]. A commit is one
//! transaction, durable when it returns.
//!
//! **Opening** always has redb verify every page, not only after an unclean end, which redb knows
//! by a flag in its header. That flag can't speak for a file that was damaged at rest: measured,
//! redb then trusts it, panics, or yields other data. The check reads a file that is bounded by
//! `store.maxBytes` once, which is what redb's repair does after a crash anyway. A panic inside
//! redb counts as damage. A damaged file is set aside and a new one begun; a new one is made
//! beside and renamed, so that no crash leaves half of one.
//!
//! **Room.** A batch that makes the store larger is refused when its file could pass the cap, or
//! when the ballast (see [`super::place`]) is missing and can't be taken. A batch that does not is
//! always tried: that is how a full store is drained. It may pass the cap by the few pages that
//! it has to write before it can free others.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};

use super::{
    OpenStore, Opened, Store, StoreError,
    frame::{entry_bytes, frame, unframe},
    place::Place,
};
use crate::{
    relay::{Body, Record, Snapshot, Write},
    schedule::Timestamp,
    wire::ThingName,
};

/// The newest layout of the tables that is understood.
const SCHEMA: u32 = 1;
const SCHEMA_KEY: &str = "schema";
const SEEN_KEY: &str = "seen";

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;
type Entries<'t> = Table<'t, &'static str, &'static [u8]>;

const RECORDS: Definition = TableDefinition::new("records");
const CSRS: Definition = TableDefinition::new("csrs");
const CERTIFICATES: Definition = TableDefinition::new("certificates");
const META: Definition = TableDefinition::new("meta");

const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// Enough to commit a few hundred deletions into pages of their own.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;
/// A file below this is not worth compacting.
const COMPACT_FROM: u64 = 4 * 1024 * 1024;

/// Where the store is, and how large it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory; it must exist.
    pub dir: PathBuf,
    /// How much of the disk the database may take up, in bytes (`store.maxBytes`). The ballast, at
    /// most a quarter of it and 4 MiB, comes on top.
    pub max_bytes: u64,
}

impl OpenStore for Options {
    type Store = DiskStore;

    fn open(&mut self) -> Result<Opened<DiskStore>, StoreError> {
        let mut place = Place::take(&self.dir, BALLAST_BYTES.min(self.max_bytes / 4))?;
        let opened = open_or_set_aside(&place);
        if matches!(opened, Err(StoreError::DiskFull { .. })) {
            place.give_up_ballast();
        }
        let (contents, set_aside) = opened?;
        let Contents { database, held } = contents;
        let store = DiskStore { database: Some(database), held, max_bytes: self.max_bytes, place };
        Ok(Opened { store, set_aside })
    }
}

/// The store, open.
#[derive(Debug)]
pub struct DiskStore {
    /// `None`: spent by an error. Stands before the place, so that it is closed before the lock
    /// goes.
    database: Option<Database>,
    /// The bytes of all keys and framed values.
    held: u64,
    max_bytes: u64,
    place: Place,
}

impl Store for DiskStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let (snapshot, unreadable) = self.attempt(|database| read_all(&database.begin_read()?))?;
        if !unreadable.is_empty() {
            self.change(|tables| unreadable.iter().map(|key| tables.forget(key)).sum())?;
        }
        Ok(snapshot)
    }

    fn body(&mut self, thing: &ThingName, body: Body) -> Result<Option<Vec<u8>>, StoreError> {
        let key = thing.as_str();
        let found = self.attempt(|database| {
            let framed = database.begin_read()?.open_table(table_of(body))?.get(key)?;
            Ok(framed.map(|framed| unframe(key, framed.value()).map(<[u8]>::to_vec)))
        })?;
        if found == Some(None) {
            self.change(|tables| remove(tables.body(body), key))?;
        }
        Ok(found.flatten())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.change(|tables| writes.iter().map(|write| tables.apply(write)).sum())
    }
}

impl DiskStore {
    /// Runs `work`; spends the handle if it fails.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.take().ok_or(StoreError::Closed)?;
        let outcome = guarded(&self.place.database(), || work(&database));
        self.settle(database, outcome)
    }

    /// Makes one durable change, which says by how many bytes it grows what the store holds.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<i64, redb::Error>,
    ) -> Result<(), StoreError> {
        let database = self.database.take().ok_or(StoreError::Closed)?;
        let path = self.place.database();
        let outcome = guarded(&path, || {
            let transaction = database.begin_write()?;
            let growth = change(&mut Tables::open(&transaction)?)?;
            let held = self.held.saturating_add_signed(growth);
            if growth > 0
                && let Err(refused) = self.make_room(held)
            {
                transaction.abort()?;
                return Ok(Err(refused));
            }
            transaction.commit()?;
            self.held = held;
            Ok(Ok(()))
        });
        self.settle(database, outcome.flatten())
    }

    fn make_room(&mut self, held: u64) -> Result<(), StoreError> {
        let bytes = file_bytes(held);
        if bytes > self.max_bytes {
            let path = self.place.database();
            return Err(StoreError::Full { path, bytes, max_bytes: self.max_bytes });
        }
        self.place.take_ballast()
    }

    fn settle<T>(
        &mut self,
        database: Database,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &outcome {
            Ok(_) => self.database = Some(database),
            Err(error) => {
                if matches!(error, StoreError::DiskFull { .. }) {
                    self.place.give_up_ballast();
                }
                close(database);
            }
        }
        outcome
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close(database);
        }
    }
}

/// redb closes on drop. What it can't write then, the next opening recovers.
fn close(database: Database) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

/// What the file may take up on the disk when it holds so much: measured, pages are filled to
/// three quarters and more, and what a commit replaces is reused by the next but one.
fn file_bytes(held: u64) -> u64 {
    const BARE: u64 = 256 * 1024;
    held / 2 * 3 + BARE
}

/// Runs what calls into redb: its errors and its panics become ours.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| StoreError::from_redb(path, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let what = format!("the database panicked: {}", text.unwrap_or("no message"));
            Err(StoreError::Corrupt { path: path.to_owned(), what })
        }
    }
}

/// A database whose every page was verified, and how much it holds.
struct Contents {
    database: Database,
    held: u64,
}

fn open_or_set_aside(place: &Place) -> Result<(Contents, Option<PathBuf>), StoreError> {
    let set_aside = match open_existing(place) {
        Ok(Some(contents)) => return Ok((contents, None)),
        Ok(None) => None,
        Err(StoreError::Corrupt { .. }) => Some(place.set_aside()?),
        Err(error) => return Err(error),
    };
    create_new(place)?;
    let contents = open_existing(place)?;
    // It was created the line before, and the lock keeps others away from it.
    let gone = || StoreError::from_io(&place.database(), &std::io::ErrorKind::NotFound.into());
    Ok((contents.ok_or_else(gone)?, set_aside))
}

fn create_new(place: &Place) -> Result<(), StoreError> {
    let path = place.draft()?;
    guarded(&path, || {
        let database = builder().create(&path)?;
        let transaction = database.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        put(&mut tables.meta, SCHEMA_KEY, &SCHEMA.to_le_bytes())?;
        drop(tables);
        transaction.commit()?;
        Ok(database.close()?)
    })?;
    place.publish_draft()
}

fn open_existing(place: &Place) -> Result<Option<Contents>, StoreError> {
    let path = place.database();
    match place.database_len()? {
        None => return Ok(None),
        // redb would take it for a new one.
        Some(0) => {
            return Err(StoreError::Corrupt { path, what: "it is empty".to_owned() });
        }
        Some(_) => {}
    }
    let database = guarded(&path, || Ok(builder().open(&path)?))?;
    match guarded(&path, || read_schema(&database.begin_read()?))? {
        Some(found) if found > SCHEMA => {
            return Err(StoreError::NewerSchema { path, found, known: SCHEMA });
        }
        Some(_) => {}
        None => {
            return Err(StoreError::Corrupt { path, what: "it has no schema".to_owned() });
        }
    }
    let held = guarded(&path, || count(&database.begin_read()?))?;
    let mut contents = Contents { database, held };
    compact_if_worth_it(place, &mut contents)?;
    Ok(Some(contents))
}

/// Gives back the room of a large file that is nearly empty. Not without the ballast: compacting
/// needs room itself.
fn compact_if_worth_it(place: &Place, contents: &mut Contents) -> Result<(), StoreError> {
    let on_disk = place.database_on_disk();
    let sparse = on_disk >= COMPACT_FROM && on_disk / 4 > contents.held;
    if sparse && place.is_ballasted() {
        guarded(&place.database(), || Ok(contents.database.compact()?))?;
    }
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn table_of(body: Body) -> Definition {
    match body {
        Body::Csr => CSRS,
        Body::Certificate => CERTIFICATES,
    }
}

fn read_schema(transaction: &ReadTransaction) -> Result<Option<u32>, redb::Error> {
    read_meta(transaction, SCHEMA_KEY).map(|schema| schema.map(u32::from_le_bytes))
}

fn read_meta<const N: usize>(
    transaction: &ReadTransaction,
    key: &str,
) -> Result<Option<[u8; N]>, redb::Error> {
    let framed = transaction.open_table(META)?.get(key)?;
    Ok(framed.and_then(|framed| unframe(key, framed.value())?.try_into().ok()))
}

fn count(transaction: &ReadTransaction) -> Result<u64, redb::Error> {
    let mut held = 0;
    for definition in [RECORDS, CSRS, CERTIFICATES, META] {
        held += transaction.open_table(definition)?.stats()?.stored_bytes();
    }
    Ok(held)
}

/// The snapshot, and the keys of the records that can't be read.
fn read_all(transaction: &ReadTransaction) -> Result<(Snapshot, Vec<String>), redb::Error> {
    let seen = read_meta(transaction, SEEN_KEY)?.map(|seen| Timestamp(u64::from_le_bytes(seen)));
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (key, framed) = entry?;
        match read_record(key.value(), framed.value()) {
            Some(record) => records.push(record),
            None => unreadable.push(key.value().to_owned()),
        }
    }
    let damaged = unreadable.iter().filter_map(|key| key.parse().ok()).collect();
    Ok((Snapshot { records, damaged, seen }, unreadable))
}

fn read_record(key: &str, framed: &[u8]) -> Option<(ThingName, Record)> {
    Some((key.parse().ok()?, serde_json::from_slice(unframe(key, framed)?).ok()?))
}

/// The tables in a transaction. Every change says by how many bytes it grows what they hold.
struct Tables<'t> {
    records: Entries<'t>,
    csrs: Entries<'t>,
    certificates: Entries<'t>,
    meta: Entries<'t>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            csrs: transaction.open_table(CSRS)?,
            certificates: transaction.open_table(CERTIFICATES)?,
            meta: transaction.open_table(META)?,
        })
    }

    fn apply(&mut self, write: &Write) -> Result<i64, redb::Error> {
        match write {
            Write::Record(thing, record) => {
                put(&mut self.records, thing.as_str(), &to_json(record))
            }
            Write::Body(thing, body, der) => put(self.body(*body), thing.as_str(), der),
            Write::DropBody(thing, body) => remove(self.body(*body), thing.as_str()),
            Write::Forget(thing) => self.forget(thing.as_str()),
            Write::Seen(time) => put(&mut self.meta, SEEN_KEY, &time.0.to_le_bytes()),
        }
    }

    fn body(&mut self, body: Body) -> &mut Entries<'t> {
        match body {
            Body::Csr => &mut self.csrs,
            Body::Certificate => &mut self.certificates,
        }
    }

    fn forget(&mut self, key: &str) -> Result<i64, redb::Error> {
        Ok(remove(&mut self.records, key)?
            + remove(&mut self.csrs, key)?
            + remove(&mut self.certificates, key)?)
    }
}

/// A record as it is stored.
pub(super) fn to_json(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is plain data with text keys")
}

fn put(table: &mut Entries<'_>, key: &str, value: &[u8]) -> Result<i64, redb::Error> {
    let before = table.insert(key, frame(key, value).as_slice())?;
    let before = before.map_or(0, |old| (key.len() + old.value().len()) as u64);
    Ok(entry_bytes(key, value).wrapping_sub(before).cast_signed())
}

fn remove(table: &mut Entries<'_>, key: &str) -> Result<i64, redb::Error> {
    let before = table.remove(key)?.map_or(0, |old| (key.len() + old.value().len()) as u64);
    Ok(0u64.wrapping_sub(before).cast_signed())
}
