//! A process is killed before every change that it makes on a real disk.
//!
//! It is this program itself, started again to live one life of the core.

use std::{
    cell::Cell,
    env, fs, io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    rc::Rc,
};

use certrelay::{
    install::{Disk, Facts, Files, Owner, Pair, PairFiles, User},
    lock::FileLock,
    wire::CertificateId,
};
use zeroize::Zeroizing;

use super::drive::{Core, Goal, Stopped, pair};

/// Where the life's credential is, and its certificate's id before it was rotated.
const DIR: &str = "CORE_FILES_DIR";
/// Before which change it ends.
const END: &str = "CORE_FILES_END";
/// What it is to reach.
const GOALS: &str = "CORE_FILES_GOALS";

/// The real disk, and death.
#[derive(Debug, Clone)]
struct Mortal(Rc<Cell<Option<usize>>>);

impl Mortal {
    fn live(&self) {
        let Some(left) = self.0.get() else { return };
        if left == 0 {
            let me = std::process::id().to_string();
            let killed = Command::new("kill").args(["-KILL", &me]).status();
            panic!("this process should be gone: {killed:?}");
        }
        self.0.set(Some(left - 1));
    }
}

macro_rules! pass_on {
    ($(see $see:ident($($seen:ident: $sight:ty),*) -> $view:ty;)+ $(change $change:ident($($changed:ident: $what:ty),*) -> $outcome:ty;)+) => {
        $(fn $see(&self, $($seen: $sight),*) -> io::Result<$view> { Disk.$see($($seen),*) })+
        $(fn $change(&self, $($changed: $what),*) -> io::Result<$outcome> {
            self.live();
            Disk.$change($($changed),*)
        })+
    };
}

impl Files for Mortal {
    type Handle = fs::File;
    type Lock = FileLock;

    pass_on! {
        see facts(path: &Path) -> Facts;
        see target_facts(path: &Path) -> Facts;
        see read(path: &Path, most: u64) -> Zeroizing<Vec<u8>>;
        see read_link(path: &Path) -> PathBuf;
        see list(dir: &Path) -> Vec<String>;
        see open(path: &Path) -> fs::File;
        see handle_facts(file: &fs::File) -> Facts;
        see is_mount_point(path: &Path) -> bool;
        see can_read(user: User, paths: &[&Path]) -> bool;
        change create(path: &Path) -> fs::File;
        change write(file: &mut fs::File, content: &[u8]) -> ();
        change set_owner(file: &fs::File, owner: Owner) -> ();
        change set_mode(file: &fs::File, mode: u32) -> ();
        change sync(file: &fs::File) -> ();
        change rename(from: &Path, to: &Path) -> ();
        change symlink(target: &Path, link: &Path) -> ();
        change remove(path: &Path) -> ();
        change make_dir(dir: &Path, mode: u32) -> ();
        change set_dir_mode(dir: &Path, mode: u32) -> ();
        change remove_dir(dir: &Path) -> ();
        change sync_dir(dir: &Path) -> ();
        change lock(path: &Path) -> Option<FileLock>;
    }
}

fn at(dir: &Path) -> PairFiles {
    PairFiles { certificate: dir.join("gg/cert.pem"), key: dir.join("keys/core.key") }
}

fn goals(words: &str, old: CertificateId) -> Vec<Goal> {
    let goal = |word| match word {
        "rotated" => Goal::Rotated(old),
        "rolled-back" => Goal::RolledBack(old),
        "detached" => Goal::Detached,
        other => panic!("{other}"),
    };
    words.split(',').map(goal).collect()
}

/// Not a test of its own: what the others start.
#[test]
fn one_life_of_the_core() {
    let Some(dir) = env::var_os(DIR) else { return };
    let end = env::var(END).ok().map(|end| end.parse().expect("a number"));
    let at = at(Path::new(&dir));
    let old = fs::read_to_string(Path::new(&dir).join("old")).expect("readable");
    let old = old.parse().expect("an id");
    let mut core = Core::new(Mortal(Rc::new(Cell::new(end))), at);
    for goal in goals(&env::var(GOALS).expect("set"), old) {
        if let Err(Stopped(failure)) = core.reach(goal) {
            println!("stopped: {failure}");
            return;
        }
    }
    println!("reached");
}

/// Lives one life.
pub fn life(dir: &Path, goals: &str, end: Option<usize>) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "kill::one_life_of_the_core", "--nocapture"]);
    command.env(DIR, dir).env(GOALS, goals);
    if let Some(end) = end {
        command.env(END, end.to_string());
    }
    command
}

/// A plain credential.
pub fn plant(dir: &Path) -> CertificateId {
    let at = at(dir);
    let (facts, certificate, key) = pair();
    for (path, content, mode) in [(&at.certificate, certificate, 0o644), (&at.key, key, 0o600)] {
        fs::create_dir_all(path.parent().expect("absolute")).expect("a folder");
        fs::write(path, content).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }
    fs::write(dir.join("old"), facts.id.to_string()).expect("written");
    facts.id
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn wherever_the_process_is_killed_there_is_a_matching_pair_and_the_rest_can_be_done() {
    let mut kills = 0;
    for words in ["rotated,detached", "rolled-back"] {
        for end in 0.. {
            let dir = temp();
            plant(dir.path());
            let output = life(dir.path(), words, Some(end)).output().expect("runs");
            let found = Pair::read(&Disk, &at(dir.path()));
            assert!(found.is_ok(), "{words}, kill {end}: {found:?}");
            if output.status.signal() != Some(9) {
                assert!(said(&output).contains("reached"), "{}", said(&output));
                break;
            }
            kills += 1;
            let output = life(dir.path(), words, None).output().expect("runs");
            assert!(said(&output).contains("reached"), "{words}, kill {end}: {}", said(&output));
            let found = Pair::read(&Disk, &at(dir.path()));
            assert!(found.is_ok(), "{words}, after kill {end}: {found:?}");
        }
    }
    println!("{kills} kills");
    assert!(kills > 200, "only {kills} kills");
}

#[test]
fn another_process_is_kept_out() {
    let dir = temp();
    let old = plant(dir.path());
    let mut core = Core::new(Disk, at(dir.path()));
    core.reach(Goal::Rotated(old)).expect("reached");
    let output = life(dir.path(), "detached", None).output().expect("runs");
    assert!(said(&output).contains("stopped: disk-error"), "{}", said(&output));
    assert!(said(&output).contains("in use by another process"), "{}", said(&output));
    drop(core);
    let output = life(dir.path(), "detached", None).output().expect("runs");
    assert!(said(&output).contains("reached"), "{}", said(&output));
}
