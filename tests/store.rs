//! The store's promise against kills, full disks and limits, on the real file system.
//!
//! A test that needs a process to kill or to limit runs this very binary again, with the name of a
//! `child_…` test and the environment variable that such a test waits for.

#[path = "support/alone.rs"]
mod alone;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use certrelay::{
    relay::{AwaitCsr, Body, Outbox, Record, Snapshot, Stage, Write},
    schedule::{Stamp, Timestamp},
    store::{DiskStore, Fate, OpenStore, Options, Store, StoreError},
    wire::ThingName,
};
use tempfile::TempDir;

use self::alone::is_alone;

const CHILD_DIR: &str = "CERTRELAY_TEST_STORE_DIR";
const MIB: u64 = 1024 * 1024;
const THINGS: u64 = 40;
const BODIES: [Body; 2] = [Body::Csr, Body::Certificate];

fn thing(number: u64) -> ThingName {
    format!("child-{number:05}").parse().expect("a thing name")
}

fn record(number: u64) -> Box<Record> {
    Box::new(Record {
        stage: Stage::AwaitCsr(AwaitCsr {
            since: Stamp::from(Some(Timestamp(number))),
            hold_until: None,
        }),
        rotation: None,
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
    })
}

fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut der = vec![0; bytes];
    fastrand::Rng::with_seed(number).fill(&mut der);
    der
}

fn open(dir: &Path) -> DiskStore {
    let mut options = Options { dir: dir.to_owned(), max_bytes: 64 * MIB };
    let opened = options.open().expect("opens");
    assert_eq!(opened.set_aside, None);
    opened.store
}

fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command.args(["--exact", test, "--nocapture"]).env(CHILD_DIR, dir);
    command
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Batch `number`, the same each time: one to eight writes, and its own number as the time seen.
fn batch(number: u64) -> Vec<Write> {
    let mut rng = fastrand::Rng::with_seed(number);
    let write = |rng: &mut fastrand::Rng| {
        let (name, of) = (thing(rng.u64(0..THINGS)), BODIES[rng.usize(0..2)]);
        match rng.u8(0..8) {
            0 => Write::Forget(name),
            1 => Write::DropBody(name, of),
            2..5 => Write::Record(name, record(number)),
            _ => Write::Body(name, of, body(number, rng.usize(0..4000))),
        }
    };
    let mut writes: Vec<_> = (0..rng.u8(1..=8)).map(|_| write(&mut rng)).collect();
    writes.push(Write::Seen(Timestamp(number)));
    writes
}

/// Commits batches, each after the last that is there, and prints the number of each that is
/// acknowledged, until it is killed.
#[test]
fn child_commits_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let mut store = open(&dir);
    let seen = store.load().expect("loads").seen;
    println!("\nopen");
    for number in seen.map_or(1, |seen| seen.0 + 1).. {
        store.commit(&batch(number)).expect("commits");
        println!("\nacknowledged {number}");
    }
}

#[derive(Default)]
struct Model {
    applied: u64,
    records: BTreeMap<ThingName, Record>,
    bodies: BTreeMap<(ThingName, Body), Vec<u8>>,
}

impl Model {
    fn advance_to(&mut self, number: u64) {
        for number in self.applied + 1..=number {
            batch(number).into_iter().for_each(|write| self.apply(write));
        }
        self.applied = number;
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Record(thing, record) => drop(self.records.insert(thing, *record)),
            Write::Body(thing, body, der) => drop(self.bodies.insert((thing, body), der)),
            Write::DropBody(thing, body) => drop(self.bodies.remove(&(thing, body))),
            Write::Forget(thing) => {
                self.records.remove(&thing);
                self.bodies.retain(|(of, _), _| *of != thing);
            }
            Write::Seen(_) => {}
        }
    }

    /// Everything is there that was acknowledged; at most the batch after it, and that one whole.
    fn assert_held_by(&mut self, store: &mut DiskStore, acknowledged: u64) {
        let snapshot = store.load().expect("loads");
        let seen = snapshot.seen.map_or(0, |seen| seen.0);
        assert!(seen >= acknowledged, "{acknowledged} acknowledged, {seen} there");
        self.advance_to(seen);
        let records = self.records.clone().into_iter().collect();
        let expected = Snapshot { records, damaged: vec![], seen: snapshot.seen };
        assert_eq!(snapshot, expected);
        for number in 0..THINGS {
            for of in BODIES {
                let held = store.body(&thing(number), of).expect("reads");
                assert_eq!(held.as_ref(), self.bodies.get(&(thing(number), of)));
            }
        }
    }
}

/// Kills the child after `life`; the last number that it acknowledged.
fn kill_after(mut child: Child, life: Duration) -> u64 {
    std::thread::sleep(life);
    child.kill().expect("is killed");
    let said = BufReader::new(child.stdout.take().expect("is piped"));
    let numbers = said.lines().map_while(Result::ok);
    let numbers = numbers.filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok());
    let last = numbers.last().unwrap_or(0);
    assert!(!child.wait().expect("ends").success());
    last
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_done_when_the_process_is_killed() {
    const KILLS: u32 = 60;
    let dir = TempDir::new().expect("a directory");
    let mut rng = fastrand::Rng::new();
    let (mut model, mut acknowledged, mut checks) = (Model::default(), 0, 0);
    for kill in 1..=KILLS {
        let mut command = child("child_commits_until_it_is_killed", dir.path());
        let running = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let life = if rng.u8(0..3) == 0 { 0..25_000 } else { 20_000..160_000 };
        acknowledged = kill_after(running, Duration::from_micros(rng.u64(life))).max(acknowledged);
        // Some are followed by the next at once: then recovery itself is cut.
        if rng.u8(0..3) > 0 || kill == KILLS {
            model.assert_held_by(&mut open(dir.path()), acknowledged);
            checks += 1;
        }
    }
    println!("{KILLS} kills, {checks} checks, {acknowledged} batches acknowledged");
    assert!(acknowledged > 100, "only {acknowledged} batches");
}

/// Holds the store until its input ends.
#[test]
fn child_holds_the_store() {
    let Some(dir) = child_dir() else { return };
    let _store = open(&dir);
    println!("\nopen");
    std::io::stdin().read_line(&mut String::new()).expect("reads");
}

#[test]
fn a_store_that_another_process_holds_is_locked_until_that_ends() {
    let dir = TempDir::new().expect("a directory");
    let mut command = child("child_holds_the_store", dir.path());
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut said = BufReader::new(holder.stdout.take().expect("is piped")).lines();
    assert!(said.by_ref().map_while(Result::ok).any(|line| line == "open"));
    let error = Options { dir: dir.path().to_owned(), max_bytes: MIB }.open().expect_err("fails");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(holder.stdin.take());
    assert!(holder.wait().expect("ends").success());
    drop(open(dir.path()));
}

/// Commits until it fails, and prints how and what was acknowledged before.
#[test]
fn child_commits_until_it_fails() {
    let Some(dir) = child_dir() else { return };
    let mut store = open(&dir);
    for number in 1.. {
        if let Err(error) = store.commit(&batch(number)) {
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            assert_eq!(error.fate(), Fate::Reopen);
            assert_eq!(store.commit(&batch(number)), Err(StoreError::Closed));
            println!("\nfailed {error}");
            return;
        }
        println!("\nacknowledged {number}");
    }
}

#[test]
fn a_failing_write_ends_the_handle_and_loses_nothing_acknowledged() {
    let dir = TempDir::new().expect("a directory");
    // The ballast first, which the limit would hit.
    open(dir.path()).commit(&[Write::Seen(Timestamp(0))]).expect("commits");
    let inner = child("child_commits_until_it_fails", dir.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$@\"", "sh"]);
    limited.arg(inner.get_program()).args(inner.get_args()).env(CHILD_DIR, dir.path());
    let output = limited.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("failed ") && said.contains("certrelay.redb"), "{said}");
    let mut numbers = said.lines().filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok());
    Model::default().assert_held_by(&mut open(dir.path()), numbers.next_back().expect("some"));
}

/// A small file system of its own; `None` where this may not be done.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }

    /// Fills what is free with another file than the store's.
    fn fill(&self) {
        let mut file = fs::File::options().append(true).create(true).open(self.filler());
        let file = file.as_mut().expect("opens");
        for chunk in [64 * 1024, 1024] {
            while file.write_all(&vec![1; chunk]).is_ok() {}
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn ballast_bytes(&self) -> Option<u64> {
        let found = fs::metadata(self.0.path().join("certrelay.redb.ballast"));
        found.ok().map(|found| found.len())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_can_be_drained() {
    if !is_alone("a_full_disk_loses_nothing_and_can_be_drained") {
        return;
    }
    let Some(disk) = SmallDisk::mount("8m") else {
        // Past the capture of the test's output: that it was not run is to be seen.
        let said = "SKIPPED a_full_disk_…: no tmpfs can be mounted here, so no disk can be filled";
        writeln!(std::io::stderr(), "{said}").expect("stderr is open");
        return;
    };
    let dir = disk.0.path();
    let mut options = Options { dir: dir.to_owned(), max_bytes: 4 * MIB };
    let mut open = || options.open().expect("opens").store;
    let put =
        |n| [Write::Record(thing(n), record(n)), Write::Body(thing(n), Body::Csr, body(n, 1200))];
    let mut store = open();
    for number in 0..200 {
        store.commit(&put(number)).expect("commits");
    }
    assert_eq!(disk.ballast_bytes(), Some(MIB));
    disk.fill();

    let mut held = 200;
    let error = loop {
        match store.commit(&put(held)) {
            Ok(()) => held += 1,
            Err(error) => break error,
        }
        disk.fill();
    };
    println!("{error}; {held} records acknowledged");
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert_eq!((error.fate(), error.is_full()), (Fate::Reopen, true));
    assert_eq!(disk.ballast_bytes(), None, "the ballast is given up");

    drop(store);
    let mut store = open();
    let there = store.load().expect("loads").records.len() as u64;
    assert!((held..=held + 1).contains(&there), "{held} acknowledged, {there} there");
    let error = store.commit(&put(9999)).expect_err("may not grow");
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    drop(store);
    let mut store = open();
    for number in 0..150 {
        store
            .commit(&[Write::Forget(thing(number))])
            .expect("is drained although the disk is full");
    }
    drop(store);

    fs::remove_file(disk.filler()).expect("is removed");
    let mut store = open();
    store.commit(&put(9999)).expect("has room again");
    assert_eq!(disk.ballast_bytes(), Some(MIB), "the ballast is taken again");
    assert_eq!(store.load().expect("loads").records.len() as u64, there - 150 + 1);
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
#[expect(clippy::disallowed_methods, reason = "measures")]
fn measure_the_start_with_10_000_records() {
    let dir = TempDir::new().expect("a directory");
    let mut store = open(dir.path());
    for chunk in (0..10_000u64).collect::<Vec<_>>().chunks(64) {
        let put = |n: &u64| {
            [
                Write::Record(thing(*n), record(*n)),
                Write::Body(thing(*n), Body::Csr, body(*n, 1200)),
            ]
        };
        store.commit(&chunk.iter().flat_map(put).collect::<Vec<_>>()).expect("commits");
    }
    let killed = TempDir::new().expect("a directory");
    let copy = killed.path().join("certrelay.redb");
    fs::copy(dir.path().join("certrelay.redb"), copy).expect("copies");
    drop(store);
    for (how, dir) in [("a clean end", &dir), ("a kill", &killed), ("a clean end", &killed)] {
        let from = Instant::now();
        let mut store = open(dir.path());
        let opened = from.elapsed();
        assert_eq!(store.load().expect("loads").records.len(), 10_000);
        println!("after {how}: opened in {opened:?}, loaded in {:?}", from.elapsed() - opened);
    }
}

#[test]
#[ignore = "measures; says nothing about right or wrong"]
#[expect(clippy::disallowed_methods, reason = "measures")]
fn measure_durable_commits() {
    let dir = TempDir::new().expect("a directory");
    let mut store = open(dir.path());
    for (size, commits) in [(1u64, 300), (64, 100)] {
        let from = Instant::now();
        for commit in 0..commits {
            let put = |n| Write::Body(thing(n), Body::Csr, body(n, 1200));
            let all: Vec<_> = (commit * size..(commit + 1) * size).map(put).collect();
            store.commit(&all).expect("commits");
        }
        let rate = commits as f64 / from.elapsed().as_secs_f64();
        println!("batch of {size}: {rate:.0} commits/s, {:.0} writes/s", rate * size as f64);
    }
}
