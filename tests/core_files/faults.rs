//! Every operation of a story fails, as a disk fails that is broken, full, or read-only.

use std::io::ErrorKind;

use certrelay::{
    core_device::files::FileJob,
    identity::Done,
    install::{Generation, Pair},
    reason::Reason,
};

use super::{
    drive::{Core, Stopped},
    model::{Fault, Model},
    power::{Story, assert_tidy, assert_whole, stories},
};

/// How it fails, what that is called, and whether every change after it fails as well.
const KINDS: [(ErrorKind, Reason, bool); 3] = [
    (ErrorKind::Other, Reason::DiskError, false),
    (ErrorKind::StorageFull, Reason::NoSpace, true),
    (ErrorKind::ReadOnlyFilesystem, Reason::ReadOnly, true),
];

/// What the same life does once the fault is gone: it looks, and goes on.
fn tell(disk: &Model, story: &Story, reason: Reason) -> bool {
    let mut core = Core::new(disk.clone(), story.at.clone());
    let mut has_failed = false;
    for goal in &story.goals {
        while let Err(Stopped(failure)) = core.reach(*goal) {
            assert!(disk.has_failed() && !has_failed, "{failure}");
            assert_eq!(failure.reason, reason, "{failure}");
            assert_whole(disk, &story.at, story.name);
            disk.fail(None);
            has_failed = true;
        }
    }
    // A fault that nobody noticed was one of no consequence.
    has_failed || disk.has_failed()
}

#[test]
fn whatever_operation_fails_the_pair_is_whole_and_the_rest_can_be_done_later() {
    let mut faults = 0;
    for story in stories().iter().step_by(2) {
        for (kind, reason, lasts) in KINDS {
            // One that lasts is met by the operations before it, too: every third will do.
            for at in (0..).step_by(if lasts { 3 } else { 1 }) {
                let disk = story.disk.fork();
                let at = disk.count() + at;
                disk.fail(Some(Fault { at, kind, lasts }));
                if !tell(&disk, story, reason) {
                    break;
                }
                faults += 1;
                assert_whole(&disk, &story.at, story.name);
                assert_tidy(&disk, &story.at, *story.goals.last().expect("one"), story.name);
            }
        }
    }
    println!("{faults} faults");
    assert!(faults > 5_000, "only {faults} faults");
}

#[test]
fn what_can_not_be_read_for_now_is_not_taken_for_damaged() {
    let mut faults = 0;
    for story in stories() {
        let length = {
            let disk = story.disk.fork();
            let before = disk.count();
            Core::new(disk.clone(), story.at.clone()).look().expect("found");
            disk.count() - before
        };
        let before = Core::new(story.disk.fork(), story.at.clone()).look().expect("found");
        for at in 0..length {
            let disk = story.disk.fork();
            disk.fail(Some(Fault { at: disk.count() + at, kind: ErrorKind::Other, lasts: false }));
            let mut core = Core::new(disk.clone(), story.at.clone());
            let Err(Stopped(failure)) = core.look() else {
                panic!("{}: operation {at} failed, and nobody noticed", story.name)
            };
            assert_eq!(failure.reason, Reason::DiskError, "{failure}");
            disk.fail(None);
            assert_eq!(core.look().expect("found"), before, "{}, {at}", story.name);
            faults += 1;
        }
    }
    println!("{faults} faults of a look");
}

#[test]
fn a_certificate_for_another_key_never_comes_near_the_configured_paths() {
    for story in stories() {
        let before = Pair::read(&story.disk, &story.at).expect("a pair").facts();
        let mut core = Core::new(story.disk.clone(), story.at.clone());
        let Done::KeyMade { .. } = core.perform(FileJob::MakeKey(Generation(70))).expect("made")
        else {
            panic!()
        };
        let Done::KeyMade { csr, .. } =
            core.perform(FileJob::MakeKey(Generation(71))).expect("made")
        else {
            panic!()
        };
        let chain = vec![super::drive::issue(&csr)];
        let job = FileJob::StoreCertificate(Generation(70), chain);
        let Err(Stopped(failure)) = core.perform(job) else { panic!("it was taken") };
        assert_eq!(failure.reason, Reason::CredentialUnusable, "{failure}");
        core.perform(FileJob::Attach).expect("attached");
        assert!(core.perform(FileJob::Switch(Generation(70))).is_err());
        assert!(core.perform(FileJob::Switch(Generation(99))).is_err());
        assert_eq!(Pair::read(&story.disk, &story.at).expect("a pair").facts(), before);
    }
}
