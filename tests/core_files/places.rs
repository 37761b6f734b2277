//! Real disks that are full, read-only or mounted, and files that are somebody else's.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use certrelay::{
    core_device::files::{CoreFiles, FileJob},
    identity::{Done, Failure},
    install::{Disk, Generation, Pair, PairFiles, User},
    reason::Reason,
    wire::CertificateId,
};
use tempfile::TempDir;

use super::{
    alone::is_alone,
    drive::{Core, Goal, Stopped, issue, pair, plan},
    kill,
};

/// Somebody who is not root.
const NOBODY: u32 = 65_534;

/// Something mounted; `None` where this may not be done.
struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&OsStr], on: &Path) -> Option<Self> {
        let done = Command::new("mount").args(args).arg(on).output();
        done.is_ok_and(|done| done.status.success()).then(|| Self(on.to_owned()))
    }

    fn tmpfs(on: &Path) -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"].map(OsStr::new), on)
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", how]).arg(&self.0).status();
        assert!(done.is_ok_and(|done| done.success()), "{how}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Past the capture of the test's output: that it was not run is to be seen.
fn skip(what: &str) {
    writeln!(std::io::stderr(), "SKIPPED {what}: it takes root").expect("stderr is open");
}

fn temp() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
    dir
}

fn plant(dir: &Path) -> (PairFiles, CertificateId) {
    let at = PairFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    let (facts, certificate, key) = pair();
    fs::write(&at.certificate, certificate).expect("written");
    fs::write(&at.key, key).expect("written");
    set(&at.certificate, 0o644, None);
    set(&at.key, 0o600, None);
    (at, facts.id)
}

fn set(path: &Path, mode: u32, owner: Option<u32>) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    if let Some(owner) = owner {
        chown(path, Some(owner), Some(owner)).expect("given away");
    }
}

fn access(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).expect("there");
    (found.uid(), found.gid(), found.mode() & 0o777)
}

fn is_root(dir: &Path) -> bool {
    fs::metadata(dir).expect("there").uid() == 0
}

fn preflight(at: &PairFiles) -> Result<Done, Failure> {
    Core::new(Disk, at.clone()).perform(FileJob::Preflight).map_err(|Stopped(failure)| failure)
}

fn refused(at: &PairFiles) -> Failure {
    preflight(at).expect_err("refused")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|it| it.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn files_keep_the_owner_group_and_permissions_of_either_nucleus() {
    let dir = temp();
    if !is_root(dir.path()) {
        return skip("files_keep_the_owner_…");
    }
    for (name, owner, modes) in [
        ("classic", 0, (0o644, 0o600)),
        ("lite", 4321, (0o600, 0o600)),
        ("bare", 4321, (0o440, 0o400)),
    ] {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("made");
        let (at, old) = plant(&folder);
        set(&at.certificate, modes.0, Some(owner));
        set(&at.key, modes.1, Some(owner));
        let is_kept = || {
            assert_eq!(access(&at.certificate), (owner, owner, modes.0), "{name}");
            assert_eq!(access(&at.key), (owner, owner, modes.1), "{name}");
        };
        let mut core = Core::new(Disk, at.clone());
        core.reach(Goal::Rotated(old)).expect("reached");
        is_kept();
        let ours = folder.join("certrelay");
        assert_eq!(access(&ours), (0, 0, 0o711), "{name}");
        assert_eq!(
            access(fs::canonicalize(&at.key).expect("there").parent().expect("one")),
            (0, 0, 0o711)
        );
        assert_eq!(access(&ours.join("state.json")), (0, 0, 0o600), "{name}");
        assert_eq!(fs::read_link(&at.key).expect("a link"), Path::new("certrelay/current/key.pem"));
        core.reach(Goal::Detached).expect("reached");
        is_kept();
        assert!(fs::symlink_metadata(&at.key).expect("there").is_file());
        assert_eq!(names(&folder), ["cert.pem", "key.pem"]);
    }
}

#[test]
fn a_pair_that_the_nucleus_user_can_not_reach_is_never_switched_to() {
    let dir = temp();
    if !is_root(dir.path()) {
        return skip("a_pair_that_the_nucleus_user_…");
    }
    let (at, _) = plant(dir.path());
    for path in [&at.certificate, &at.key] {
        set(path, 0o600, Some(NOBODY));
    }
    let user = User { uid: NOBODY, gid: NOBODY };
    let mut files = CoreFiles::new(Disk, plan(), Some(user));
    let make = |generation, files: &mut CoreFiles| {
        let made = files.perform(&at, FileJob::MakeKey(generation));
        let Done::KeyMade { csr, .. } = made else { panic!("{made:?}") };
        let stored = files.perform(&at, FileJob::StoreCertificate(generation, vec![issue(&csr)]));
        assert!(matches!(stored, Done::CertificateStored { .. }), "{stored:?}");
    };
    make(Generation(1), &mut files);
    let attached = files.perform(&at, FileJob::Attach);
    assert_eq!(attached, Done::Attached { current: Generation(2) });
    let before = fs::read(&at.certificate).expect("readable");

    let key = dir.path().join("certrelay/gen-1/key.pem");
    set(&key, 0o600, Some(0));
    let Done::Failed(failure) = files.perform(&at, FileJob::Switch(Generation(1))) else {
        panic!("switched")
    };
    assert_eq!(failure.reason, Reason::NotReadable, "{failure}");
    assert_eq!(fs::read(&at.certificate).expect("readable"), before);

    set(&key, 0o600, Some(NOBODY));
    let switched = files.perform(&at, FileJob::Switch(Generation(1)));
    assert!(matches!(switched, Done::Switched { .. }), "{switched:?}");

    // Where even what is in use can't be read as that user, nothing is known.
    set(&fs::canonicalize(&at.key).expect("there"), 0o600, Some(0));
    let switched = files.perform(&at, FileJob::Switch(Generation(2)));
    assert!(matches!(switched, Done::Switched { .. }), "{switched:?}");
}

/// The kernel gives the room back in its own time.
fn drain(dir: &Path) {
    let filler = dir.join("filler");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::write(&filler, [1; 256 * 1024]).is_err() {
        assert!(Instant::now() < deadline, "the disk stays full");
    }
    fs::remove_file(filler).expect("removed");
}

#[test]
fn a_full_disk_is_found_before_there_is_a_key_and_harms_nothing_later() {
    if !is_alone("places::a_full_disk_is_found_before_there_is_a_key_and_harms_nothing_later") {
        return;
    }
    let dir = temp();
    let Some(_disk) = Mounted::tmpfs(dir.path()) else { return skip("a_full_disk_…") };
    let (at, old) = plant(dir.path());
    let fill = || {
        let mut filler = fs::File::create(dir.path().join("filler")).expect("made");
        while filler.write_all(&[1; 512]).is_ok() {}
    };
    fill();
    let failure = refused(&at);
    assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
    assert_eq!(names(dir.path()), ["cert.pem", "filler", "key.pem"]);

    drain(dir.path());
    let mut core = Core::new(Disk, at.clone());
    core.perform(FileJob::MakeKey(Generation(1))).expect("made");
    fill();
    for job in [FileJob::Attach, FileJob::MakeKey(Generation(2))] {
        let Err(Stopped(failure)) = core.perform(job) else { panic!("done on a full disk") };
        assert_eq!(failure.reason, Reason::NoSpace, "{failure}");
        assert_eq!(Pair::read(&Disk, &at).expect("a pair").facts().id, old);
    }
    drain(dir.path());
    core.reach(Goal::Rotated(old)).expect("reached");
}

#[test]
fn a_disk_that_is_read_only_is_found_before_there_is_a_key_and_harms_nothing_later() {
    if !is_alone(
        "places::a_disk_that_is_read_only_is_found_before_there_is_a_key_and_harms_nothing_later",
    ) {
        return;
    }
    let dir = temp();
    let Some(disk) = Mounted::tmpfs(dir.path()) else {
        return skip("a_disk_that_is_read_only_…");
    };
    let (at, old) = plant(dir.path());
    disk.remount("remount,ro");
    let failure = refused(&at);
    assert_eq!(failure.reason, Reason::ReadOnly, "{failure}");
    assert!(failure.detail.contains("writable"), "{failure}");

    disk.remount("remount,rw");
    let mut core = Core::new(Disk, at.clone());
    core.perform(FileJob::MakeKey(Generation(1))).expect("made");
    // It holds a file open for writing, so the disk would be busy.
    drop(core);
    disk.remount("remount,ro");
    let mut core = Core::new(Disk, at.clone());
    for job in [FileJob::Attach, FileJob::Wipe(Generation(1)), FileJob::Detach] {
        let Err(Stopped(failure)) = core.perform(job) else { panic!("done on a read-only disk") };
        assert_eq!(failure.reason, Reason::ReadOnly, "{failure}");
        assert_eq!(Pair::read(&Disk, &at).expect("a pair").facts().id, old);
    }
    disk.remount("remount,rw");
    core.reach(Goal::Rotated(old)).expect("reached");
}

#[test]
fn a_file_that_is_a_mount_point_is_found_before_there_is_a_key() {
    let dir = temp();
    let folder = dir.path().join("a folder");
    fs::create_dir(&folder).expect("made");
    let (at, _) = plant(&folder);
    let source = dir.path().join("source");
    fs::copy(&at.key, &source).expect("copied");
    let Some(_mounted) = Mounted::new(&[OsStr::new("--bind"), source.as_os_str()], &at.key) else {
        return skip("a_file_that_is_a_mount_point_…");
    };
    let failure = refused(&at);
    assert_eq!(failure.reason, Reason::MountPoint, "{failure}");
    assert_eq!(names(&folder), ["cert.pem", "key.pem"]);
}

#[test]
fn an_unprivileged_user_is_told_so_and_changes_nothing() {
    let dir = temp();
    if !is_root(dir.path()) {
        return skip("an_unprivileged_user_…");
    }
    kill::plant(dir.path());
    let key = dir.path().join("keys/core.key");
    // Once the key can't be read, and once it can be but nothing can be written beside it.
    for mode in [0o600, 0o644] {
        set(&key, mode, None);
        let mut life = kill::life(dir.path(), "rotated", None);
        let output = life.uid(NOBODY).gid(NOBODY).current_dir("/").output();
        let said = output.as_ref().map(kill::said).unwrap_or_default();
        assert!(said.contains("stopped: no-privilege"), "{mode:o}: {said} {output:?}");
        assert_eq!(names(&dir.path().join("gg")), ["cert.pem"]);
        assert_eq!(names(&dir.path().join("keys")), ["core.key"]);
    }
}

#[test]
fn a_link_that_is_not_ours_stays_as_it_is() {
    let dir = temp();
    let elsewhere = temp();
    let (at, _) = plant(dir.path());
    let real = elsewhere.path().join("key.pem");
    fs::rename(&at.key, &real).expect("moved");
    symlink(&real, &at.key).expect("a link");
    let failure = refused(&at);
    assert_eq!(failure.reason, Reason::ForeignLink, "{failure}");
    assert!(failure.detail.contains(real.to_str().expect("UTF-8")), "{failure}");
    let Err(Stopped(failure)) = Core::new(Disk, at.clone()).perform(FileJob::Attach) else {
        panic!("attached")
    };
    assert_eq!(failure.reason, Reason::ForeignLink, "{failure}");
    assert_eq!(fs::read_link(&at.key).expect("a link"), real);
}

#[test]
fn a_link_of_ours_is_known_whichever_way_its_folder_is_spelt() {
    let dir = temp();
    let real = dir.path().join("real");
    let keys = dir.path().join("keys");
    fs::create_dir(&real).expect("made");
    fs::create_dir(&keys).expect("made");
    let alias = dir.path().join("alias");
    symlink(&real, &alias).expect("a link");
    let (at, old) = plant(&real);
    let key = keys.join("key.pem");
    fs::rename(&at.key, &key).expect("moved");
    let at = PairFiles { certificate: at.certificate, key: key.clone() };
    Core::new(Disk, at).reach(Goal::Rotated(old)).expect("reached");
    let at = PairFiles { certificate: alias.join("cert.pem"), key };
    let found = Core::new(Disk, at.clone()).look().expect("found");
    assert!(found.current.is_some());
    preflight(&at).expect("ready");
}
