//! The real store: one redb file.
//!
//! Owns the database's life: opening, room, errors. What stands in it is [`super::tables`]'. A
//! commit is one transaction, durable when it returns.
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
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase};

use super::{
    OpenStore, Opened, Store, StoreError,
    place::Place,
    tables::{self, SCHEMA, Tables},
};
use crate::{
    relay::{Body, Snapshot, Write},
    wire::ThingName,
};

const CACHE_BYTES: usize = 1024 * 1024;
/// Enough to commit a few hundred deletions into pages of their own.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;
/// A file below this is not worth compacting.
const COMPACT_FROM: u64 = 4 * 1024 * 1024;

/// Where the store is, and how large it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory; it must exist.
    pub dir: PathBuf,
    /// How much of the disk the database may take up, in bytes (`store.maxBytes`); below 1 MiB
    /// hardly anything fits. The ballast, at most a quarter of it and 4 MiB, comes on top.
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
        let (snapshot, unreadable) =
            self.attempt(|database| tables::read_all(&database.begin_read()?))?;
        if !unreadable.is_empty() {
            self.change(|tables| unreadable.iter().map(|key| tables.forget(key)).sum())?;
        }
        Ok(snapshot)
    }

    fn body(&mut self, thing: &ThingName, body: Body) -> Result<Option<Vec<u8>>, StoreError> {
        let key = thing.as_str();
        let found =
            self.attempt(|database| tables::read_body(&database.begin_read()?, key, body))?;
        if found == Some(None) {
            self.change(|tables| tables.drop_body(key, body))?;
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
        // A crash, or a full disk, came between setting one aside and beginning the next. Nobody
        // was told yet.
        Ok(None) => place.last_set_aside()?,
        Err(StoreError::Corrupt { .. }) => Some(place.set_aside()?),
        Err(error) => return Err(error),
    };
    create_new(place)?;
    let contents = open_existing(place)?;
    // It was created the line before, and the lock keeps others away from it.
    let gone = || StoreError::from_io(&place.database(), &ErrorKind::NotFound.into());
    Ok((contents.ok_or_else(gone)?, set_aside))
}

fn create_new(place: &Place) -> Result<(), StoreError> {
    let path = place.draft()?;
    guarded(&path, || {
        let database = builder().create(&path)?;
        let transaction = database.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        tables.put_schema()?;
        drop(tables);
        transaction.commit()?;
        Ok(database.close()?)
    })?;
    place.publish_draft()
}

fn open_existing(place: &Place) -> Result<Option<Contents>, StoreError> {
    let path = place.database();
    let database = match guarded(&path, || Ok(builder().open(&path)?)) {
        Err(StoreError::Io { kind: ErrorKind::NotFound, .. }) => return Ok(None),
        outcome => outcome?,
    };
    match guarded(&path, || tables::read_schema(&database.begin_read()?))? {
        Some(found) if found > SCHEMA => {
            return Err(StoreError::NewerSchema { path, found, known: SCHEMA });
        }
        Some(_) => {}
        None => {
            return Err(StoreError::Corrupt { path, what: "it has no schema".to_owned() });
        }
    }
    let held = guarded(&path, || tables::count(&database.begin_read()?))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Timestamp;

    fn open(dir: &Path) -> DiskStore {
        let mut options = Options { dir: dir.to_owned(), max_bytes: 1 << 26 };
        options.open().expect("opens").store
    }

    fn body(thing: &str, der: &[u8]) -> Write {
        Write::Body(thing.parse().expect("a thing name"), Body::Csr, der.to_vec())
    }

    #[test]
    fn what_is_counted_along_the_way_is_what_is_counted_at_the_next_opening() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(dir.path());
        let thing = |name: &str| name.parse().expect("a thing name");
        let first = [body("a", &[1; 999]), body("a", &[2; 10]), Write::Forget(thing("b"))];
        let second = [body("b", &[3; 70]), Write::DropBody(thing("a"), Body::Csr)];
        let third = [Write::Seen(Timestamp(1)), Write::Seen(Timestamp(2)), body("a", &[])];
        for batch in [&first[..], &second, &third] {
            store.commit(batch).expect("commits");
            let held = store.held;
            drop(store);
            store = open(dir.path());
            assert_eq!(store.held, held);
        }
    }

    #[test]
    fn a_panic_of_the_database_spends_the_handle_and_a_sound_file_opens_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = open(dir.path());
        store.commit(&[body("a", &[1])]).expect("commits");
        let error = store
            .change(|tables| {
                tables.forget("a")?;
                panic!("torn page")
            })
            .expect_err("panics");
        assert!(error.to_string().contains("torn page"), "{error}");
        assert!(matches!(error, StoreError::Corrupt { .. }));
        assert_eq!(store.load(), Err(StoreError::Closed));
        let mut options = Options { dir: dir.path().to_owned(), max_bytes: 1 << 26 };
        assert!(matches!(options.open(), Err(StoreError::Locked { .. })), "it is still ours");
        drop(store);
        let thing = "a".parse().expect("a thing name");
        assert_eq!(open(dir.path()).body(&thing, Body::Csr), Ok(Some(vec![1])));
    }
}
