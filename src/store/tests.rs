//! The real store on real files, and its twin: what both promise, and what damage does.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use proptest::prelude::*;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tempfile::TempDir;

use super::{frame::frame, *};
use crate::{
    relay::{AwaitCsr, Done, Ended, Outbox, Record, Stage},
    schedule::{Stamp, Timestamp},
    wire::RotationId,
};

const MIB: u64 = 1024 * 1024;
const DATABASE: &str = "certrelay.redb";
const BODIES: [Body; 2] = [Body::Csr, Body::Certificate];
const RECORDS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("records");
const CSRS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("csrs");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

fn thing(number: usize) -> ThingName {
    format!("child-{number:05}").parse().expect("a thing name")
}

fn record(number: u64) -> Record {
    let since = Stamp::from(Some(Timestamp(number)));
    let stage = match number % 2 {
        0 => Stage::AwaitCsr(AwaitCsr { since, hold_until: None }),
        _ => Stage::Done(Done { since, outcome: Ended::Nothing }),
    };
    let rotation: Option<RotationId> =
        number.is_multiple_of(3).then(|| "r".repeat(100).parse().unwrap());
    Record {
        stage,
        rotation,
        began: Stamp::default(),
        nonce: None,
        csr_sig: None,
        not_after: None,
        requested: None,
        heard: None,
        current_key: None,
        superseded_keys: Vec::new(),
        superseded_certificates: Vec::new(),
        outbox: Outbox::default(),
    }
}

fn put_record(number: usize) -> Write {
    Write::Record(thing(number), Box::new(record(number as u64)))
}

fn put_body(number: usize, body: Body, bytes: usize) -> Write {
    Write::Body(thing(number), body, vec![u8::try_from(number % 256).unwrap(); bytes])
}

fn options(dir: &TempDir) -> Options {
    Options { dir: dir.path().to_owned(), max_bytes: 64 * MIB }
}

fn open(dir: &TempDir) -> DiskStore {
    let opened = options(dir).open().expect("opens");
    assert_eq!(opened.set_aside, None);
    opened.store
}

/// What a store should hold, told in the plainest way.
#[derive(Default)]
struct Model {
    records: BTreeMap<ThingName, Record>,
    bodies: BTreeMap<(ThingName, Body), Vec<u8>>,
    seen: Option<Timestamp>,
}

impl Model {
    fn apply(&mut self, write: &Write) {
        match write.clone() {
            Write::Record(thing, record) => drop(self.records.insert(thing, *record)),
            Write::Body(thing, body, der) => drop(self.bodies.insert((thing, body), der)),
            Write::DropBody(thing, body) => drop(self.bodies.remove(&(thing, body))),
            Write::Forget(thing) => {
                self.records.remove(&thing);
                self.bodies.retain(|(of, _), _| *of != thing);
            }
            Write::Seen(time) => self.seen = Some(time),
        }
    }

    fn assert_held_by(&self, store: &mut impl Store) {
        let snapshot = store.load().expect("loads");
        let records = self.records.clone().into_iter().collect();
        assert_eq!(snapshot, Snapshot { records, damaged: vec![], seen: self.seen });
        for number in 0..6 {
            for body in BODIES {
                let held = store.body(&thing(number), body).expect("reads");
                assert_eq!(held.as_ref(), self.bodies.get(&(thing(number), body)));
            }
        }
    }
}

fn some_write() -> impl Strategy<Value = Write> {
    let body = || prop::sample::select(&BODIES[..]);
    let name = || (0..6usize).prop_map(thing);
    prop_oneof![
        3 => (name(), any::<u32>()).prop_map(|(n, r)| Write::Record(n, Box::new(record(r.into())))),
        3 => (name(), body(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(n, b, der)| Write::Body(n, b, der)),
        1 => (name(), body()).prop_map(|(n, b)| Write::DropBody(n, b)),
        1 => name().prop_map(Write::Forget),
        1 => any::<u32>().prop_map(|t| Write::Seen(Timestamp(t.into()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_file_and_its_twin_hold_what_was_committed_whenever_they_are_reopened(
        batches in prop::collection::vec(
            (prop::collection::vec(some_write(), 0..6), prop::bool::weighted(0.3)), 1..12),
    ) {
        let dir = TempDir::new().expect("a directory");
        let mut disk = MemoryDisk::new();
        let mut model = Model::default();
        let mut file = open(&dir);
        let mut twin = disk.open().expect("opens").store;
        for (batch, reopen) in batches {
            file.commit(&batch).expect("commits");
            twin.commit(&batch).expect("commits");
            batch.iter().for_each(|write| model.apply(write));
            if reopen {
                drop(file);
                file = open(&dir);
                twin = disk.open().expect("opens").store;
                model.assert_held_by(&mut file);
                model.assert_held_by(&mut twin);
            }
        }
        model.assert_held_by(&mut file);
        model.assert_held_by(&mut twin);
    }
}

#[test]
fn nobody_else_can_read_the_files() {
    let dir = TempDir::new().expect("a directory");
    let mut store = open(&dir);
    store.commit(&[put_record(1)]).expect("commits");
    for entry in fs::read_dir(dir.path()).expect("a directory") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn an_empty_commit_writes_nothing() {
    let dir = TempDir::new().expect("a directory");
    let mut store = open(&dir);
    store.commit(&[put_record(1)]).expect("commits");
    let before = fs::read(dir.path().join(DATABASE)).expect("reads");
    store.commit(&[]).expect("does nothing");
    assert_eq!(fs::read(dir.path().join(DATABASE)).expect("reads"), before);
}

#[test]
fn a_store_that_is_open_elsewhere_is_locked_and_not_damaged() {
    let dir = TempDir::new().expect("a directory");
    let mut first = open(&dir);
    first.commit(&[put_record(1)]).expect("commits");
    let error = options(&dir).open().expect_err("is locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert_eq!(error.fate(), Fate::Reopen);
    first.commit(&[put_record(2)]).expect("is undisturbed");
    drop(first);
    assert_eq!(open(&dir).load().expect("loads").records.len(), 2);
}

#[test]
fn a_missing_directory_is_for_the_operator() {
    let dir = TempDir::new().expect("a directory");
    let missing = dir.path().join("missing");
    let error = Options { dir: missing, max_bytes: MIB }.open().expect_err("fails");
    assert!(error.to_string().contains("missing/certrelay.redb.lock"), "{error}");
    assert_eq!(error.fate(), Fate::Operator);
}

fn alter(dir: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(dir.path().join(DATABASE)).expect("opens");
    let transaction = database.begin_write().expect("begins");
    change(&transaction);
    transaction.commit().expect("commits");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_keeps_what_it_holds() {
    let dir = TempDir::new().expect("a directory");
    open(&dir).commit(&[put_record(1)]).expect("commits");
    let schema = |version: u32| frame("schema", &version.to_le_bytes());
    let set_schema = |version| {
        alter(&dir, |transaction| {
            let mut meta = transaction.open_table(META).expect("a table");
            meta.insert("schema", schema(version).as_slice()).expect("inserts");
        });
    };
    set_schema(2);
    let error = options(&dir).open().expect_err("is refused");
    assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1, .. }), "{error}");
    assert_eq!(error.fate(), Fate::Operator);
    let names = fs::read_dir(dir.path()).expect("a directory").map(|e| e.expect("an entry"));
    assert!(!names.into_iter().any(|e| e.file_name().to_string_lossy().contains("corrupt")));
    set_schema(1);
    assert_eq!(open(&dir).load().expect("loads").records, [(thing(1), record(1))]);
}

#[test]
fn a_record_that_can_not_be_read_is_reported_once_and_goes_with_its_bodies() {
    let dir = TempDir::new().expect("a directory");
    let all: Vec<_> = (0..4).flat_map(|n| [put_record(n), put_body(n, Body::Csr, 500)]).collect();
    open(&dir).commit(&all).expect("commits");
    alter(&dir, |transaction| {
        let mut records = transaction.open_table(RECORDS).expect("a table");
        let (bad_crc, bad_json) = (thing(1), thing(2));
        records.insert(bad_crc.as_str(), b"12345".as_slice()).expect("inserts");
        let framed = frame(bad_json.as_str(), b"{");
        records.insert(bad_json.as_str(), framed.as_slice()).expect("inserts");
        records.insert("no name/", framed.as_slice()).expect("inserts");
    });
    let mut store = open(&dir);
    let snapshot = store.load().expect("loads");
    assert_eq!(snapshot.damaged, [thing(1), thing(2)]);
    assert_eq!(snapshot.records, [(thing(0), record(0)), (thing(3), record(3))]);
    for (number, there) in [(0, true), (1, false), (2, false), (3, true)] {
        let body = store.body(&thing(number), Body::Csr).expect("reads");
        assert_eq!(body.is_some(), there);
    }
    let again = store.load().expect("loads");
    assert_eq!(again, Snapshot { damaged: vec![], ..snapshot });
    drop(store);
    let database = Database::open(dir.path().join(DATABASE)).expect("opens");
    let records = database.begin_read().expect("begins").open_table(RECORDS).expect("a table");
    assert_eq!(records.iter().expect("iterates").count(), 2, "the nameless one is gone too");
}

#[test]
fn a_body_that_can_not_be_read_is_removed_and_reads_as_missing() {
    let dir = TempDir::new().expect("a directory");
    let writes = [put_record(1), put_body(1, Body::Csr, 500), put_body(1, Body::Certificate, 9)];
    open(&dir).commit(&writes).expect("commits");
    alter(&dir, |transaction| {
        let mut csrs = transaction.open_table(CSRS).expect("a table");
        csrs.insert(thing(1).as_str(), b"12345".as_slice()).expect("inserts");
    });
    let mut store = open(&dir);
    assert_eq!(store.body(&thing(1), Body::Csr), Ok(None));
    assert_eq!(store.body(&thing(1), Body::Certificate), Ok(Some(vec![1; 9])));
    drop(store);
    let database = Database::open(dir.path().join(DATABASE)).expect("opens");
    let csrs = database.begin_read().expect("begins").open_table(CSRS).expect("a table");
    assert_eq!(csrs.iter().expect("iterates").count(), 0);
}

#[test]
fn a_full_store_refuses_what_grows_it_takes_what_shrinks_it_and_stays_under_its_cap() {
    let dir = TempDir::new().expect("a directory");
    let max_bytes = 3 * MIB;
    let mut options = Options { dir: dir.path().to_owned(), max_bytes };
    let mut store = options.open().expect("opens").store;
    let on_disk = || fs::metadata(dir.path().join(DATABASE)).expect("there").blocks() * 512;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut put = 0;
    let error = loop {
        let batch: Vec<_> = (put..put + 16)
            .flat_map(|n| [put_record(n), put_body(n, Body::Csr, rng.usize(600..2500))])
            .collect();
        match store.commit(&batch) {
            Ok(()) => put += 16,
            Err(error) => break error,
        }
    };
    println!("{put} records, {} bytes on the disk: {error}", on_disk());
    assert!(matches!(error, StoreError::Full { max_bytes: 3_145_728, .. }), "{error}");
    assert!(error.is_full() && error.fate() == Fate::Reopen);
    assert!(put > 600, "only {put} records of 1.7 kB in 3 MiB");
    assert_eq!(store.commit(&[Write::Forget(thing(0))]), Err(StoreError::Closed));

    drop(store);

    // Churn at the cap, over and over.
    let mut store = options.open().expect("opens").store;
    for _ in 0..60 {
        let batch: Vec<_> = (0..16)
            .flat_map(|_| {
                let n = rng.usize(0..put);
                [Write::DropBody(thing(n), Body::Csr), put_body(n, Body::Csr, rng.usize(1..600))]
            })
            .collect();
        store.commit(&batch).expect("does not grow");
        assert!(on_disk() <= max_bytes, "{} bytes on the disk", on_disk());
    }
    drop(store);
    let mut store = Options { max_bytes: MIB, ..options }.open().expect("opens").store;
    store.commit(&[Write::Forget(thing(0))]).expect("shrinks, if not below the lowered cap");
    let all: Vec<_> = (0..put).map(|n| Write::Forget(thing(n))).collect();
    store.commit(&all).expect("is drained");
    store.commit(&[put_record(1), put_body(1, Body::Csr, 2000)]).expect("has room again");
    assert!(on_disk() <= max_bytes + 256 * 1024, "{} bytes on the disk", on_disk());
}

#[test]
fn a_large_file_that_is_nearly_empty_gives_its_room_back_when_it_is_opened() {
    let dir = TempDir::new().expect("a directory");
    let on_disk = || fs::metadata(dir.path().join(DATABASE)).expect("there").blocks() * 512;
    let mut store = open(&dir);
    let all: Vec<_> = (0..4000).map(|n| put_body(n, Body::Csr, 2000)).collect();
    store.commit(&all).expect("commits");
    let dropped = (0..4000).filter(|n| n % 500 != 250);
    let drops: Vec<_> = dropped.map(|n| Write::DropBody(thing(n), Body::Csr)).collect();
    store.commit(&drops).expect("commits");
    drop(store);
    assert!(on_disk() > 5 * MIB, "{} bytes on the disk", on_disk());
    assert_eq!(open(&dir).body(&thing(250), Body::Csr), Ok(Some(vec![250; 2000])));
    assert!(on_disk() < MIB, "{} bytes on the disk", on_disk());
}

#[test]
fn damaged_files_are_set_aside_and_reported_and_only_the_newest_are_kept() {
    let dir = TempDir::new().expect("a directory");
    for round in 1..=4u8 {
        drop(open(&dir));
        overwrite(&dir.path().join(DATABASE), &vec![round; 9000 * usize::from(round % 4)]);
        let opened = options(&dir).open().expect("opens");
        let aside = dir.path().join(format!("{DATABASE}.corrupt-{round}"));
        assert_eq!(opened.set_aside.as_ref(), Some(&aside));
        assert_eq!(fs::read(&aside).expect("reads"), vec![round; 9000 * usize::from(round % 4)]);
    }
    let kept = |round: u8| dir.path().join(format!("{DATABASE}.corrupt-{round}")).exists();
    assert_eq!([1, 2, 3, 4].map(kept), [false, false, true, true]);

    // As after a crash between the two, or when there was no room for a new one.
    fs::remove_file(dir.path().join(DATABASE)).expect("is removed");
    let set_aside = options(&dir).open().expect("opens").set_aside;
    assert_eq!(set_aside, Some(dir.path().join(format!("{DATABASE}.corrupt-4"))));
    drop(open(&dir));
}

#[test]
fn damage_anywhere_in_the_file_is_found_or_harmless() {
    const TRIALS: u64 = 120;
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join(DATABASE);
    let mut model = Model::default();
    let mut store = open(&dir);
    for n in 0..150 {
        let batch =
            [put_record(n), put_body(n, Body::Csr, 900), put_body(n, Body::Certificate, 5000)];
        let batch = &batch[..1 + n % 3];
        store.commit(batch).expect("commits");
        batch.iter().for_each(|write| model.apply(write));
    }
    drop(store);
    let sound = fs::read(&path).expect("reads");
    let (mut intact, mut aside) = (0, 0);
    for trial in 0..TRIALS {
        let mut rng = fastrand::Rng::with_seed(trial);
        overwrite(&path, &damaged(&sound, &mut rng));
        let opened = options(&dir).open().unwrap_or_else(|error| panic!("trial {trial}: {error}"));
        let (mut store, lost) = (opened.store, opened.set_aside.is_some());
        let snapshot = store.load().expect("loads");
        assert_eq!(snapshot.damaged, [], "trial {trial}");
        if lost {
            aside += 1;
            assert_eq!(snapshot, Snapshot::default(), "trial {trial}");
            continue;
        }
        intact += 1;
        assert_eq!(snapshot.records.len(), model.records.len(), "trial {trial}");
        for ((name, record), held) in model.records.iter().zip(&snapshot.records) {
            assert_eq!((name, record), (&held.0, &held.1), "trial {trial}");
        }
        for ((name, body), der) in &model.bodies {
            assert_eq!(store.body(name, *body).as_ref(), Ok(&Some(der.clone())), "trial {trial}");
        }
    }
    println!("{TRIALS} damaged files: {intact} harmless, {aside} set aside");
    assert!(intact > 0 && aside > TRIALS / 2);
}

/// Flips bits, zeroes a page, or cuts the end off.
fn damaged(sound: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut bytes = sound.to_vec();
    match rng.u8(0..4) {
        0 | 1 => {
            (0..rng.u8(1..=8)).for_each(|_| bytes[rng.usize(0..sound.len())] ^= 1 << rng.u8(0..8));
        }
        2 => bytes.truncate(rng.usize(0..sound.len())),
        _ => {
            let page = rng.usize(0..sound.len() / PAGE) * PAGE;
            bytes[page..page + PAGE].fill(0);
        }
    }
    bytes
}

fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().write(true).truncate(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("writes");
}

#[test]
fn the_twin_fails_on_demand_and_tells_the_truth_after_a_reopening() {
    let mut disk = MemoryDisk::new();
    disk.fail_opens(1);
    assert!(matches!(disk.open(), Err(StoreError::Io { .. })));
    let mut store = disk.open().expect("opens").store;
    disk.fail_commit(2, Fault::Before);
    disk.fail_commit(3, Fault::After);
    store.commit(&[put_record(1)]).expect("commits");
    assert!(store.commit(&[put_record(2)]).is_err());
    assert_eq!(store.commit(&[put_record(2)]), Err(StoreError::Closed));
    let mut store = disk.open().expect("opens").store;
    assert!(store.commit(&[put_record(3)]).is_err());
    disk.set_full(true);
    let mut store = disk.open().expect("opens").store;
    assert!(store.commit(&[put_record(4)]).expect_err("is full").is_full());
    let mut store = disk.open().expect("opens").store;
    store.commit(&[Write::Forget(thing(1))]).expect("shrinks");
    assert_eq!(store.load().expect("loads").records, [(thing(3), record(3))]);
    disk.damage(&thing(3));
    assert_eq!(store.load().expect("loads").damaged, [thing(3)]);
    assert_eq!(store.load(), Ok(Snapshot::default()));
    disk.corrupt();
    assert!(disk.open().expect("opens").set_aside.is_some());
    assert_eq!(disk.open().expect("opens").set_aside, None);
    assert_eq!(disk.commits(), 5);
}
