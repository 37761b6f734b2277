//! The power is cut before every change of every story.

use std::io::ErrorKind;

use certrelay::{
    core_device::files::FileJob,
    identity::Done,
    install::{Accesses, Files, Generation, Pair, PairFiles},
    wire::CertificateId,
};

use super::{
    drive::{self, Core, Goal, apart, beside, folders, pair},
    model::{Fault, Model},
};

/// What is made of each cut: nothing that was not synced is there, all of it, and so many random
/// choices.
const RANDOM: usize = 2;

/// A credential and what becomes of it.
pub struct Story {
    pub name: &'static str,
    pub disk: Model,
    pub at: PairFiles,
    pub goals: Vec<Goal>,
}

fn planted(at: &PairFiles) -> (Model, CertificateId) {
    let disk = Model::new();
    for folder in folders(at) {
        disk.plant_dir(&folder);
    }
    let id = plant(&disk, at);
    (disk, id)
}

/// Puts a plain pair there, by hand.
fn plant(disk: &Model, at: &PairFiles) -> CertificateId {
    let (facts, certificate, key) = pair();
    disk.plant(&at.certificate, certificate.as_bytes(), drive::CERTIFICATE);
    disk.plant(&at.key, key.as_bytes(), drive::KEY);
    facts.id
}

fn configured(disk: &Model, at: &PairFiles) -> CertificateId {
    Pair::read(disk, at).expect("a pair").facts().id
}

pub fn stories() -> Vec<Story> {
    let mut stories = Vec::new();
    for (at, name) in [(beside(), "beside"), (apart(), "apart")] {
        let (disk, old) = planted(&at);
        let mut add = |name, disk: &Model, goals| {
            stories.push(Story { name, disk: disk.fork(), at: at.clone(), goals });
        };
        add(name, &disk, vec![Goal::Rotated(old), Goal::Detached]);
        add("rolled back", &disk, vec![Goal::RolledBack(old), Goal::Detached]);

        Core::new(disk.clone(), at.clone()).reach(Goal::Rotated(old)).expect("reached");
        let second = configured(&disk, &at);
        add("a second rotation", &disk, vec![Goal::Rotated(second)]);
        add("a second one rolled back", &disk, vec![Goal::RolledBack(second)]);

        // As a life leaves it that ends between the two links.
        let half = disk.fork();
        let key = half.read(&at.key, 9999).expect("readable");
        half.remove(&at.key).expect("removed");
        half.plant(&at.key, &key, drive::KEY);
        add("half attached", &half, vec![Goal::Rotated(second)]);
        add("half attached, detached", &half, vec![Goal::Detached]);

        let by_hand = disk.fork();
        let newest = plant(&by_hand, &at);
        add("rotated by hand", &by_hand, vec![Goal::Rotated(newest), Goal::Detached]);
    }
    stories
}

/// Runs a story until it ends or the power does.
fn tell(disk: &Model, at: &PairFiles, goals: &[Goal]) -> bool {
    let mut core = Core::new(disk.clone(), at.clone());
    goals.iter().all(|goal| match core.reach(*goal) {
        Ok(()) => true,
        Err(stopped) => {
            assert!(disk.is_cut(), "{:?}", stopped.0);
            false
        }
    })
}

/// What a nucleus would find, and what anybody else must not.
pub fn assert_whole(disk: &Model, at: &PairFiles, context: &str) {
    let pair = Pair::read(disk, at);
    assert!(pair.is_ok(), "{context}: {pair:?}\n{disk:?}");
    let accesses = Accesses::read(disk, at).expect("there");
    let expected = Accesses { certificate: drive::CERTIFICATE, key: drive::KEY };
    assert_eq!(accesses, expected, "{context}\n{disk:?}");
    for (content, access) in disk.every_file() {
        let is_key = content.windows(11).any(|text| text == b"PRIVATE KEY");
        assert!(!is_key || access.mode == 0o600, "{context}: others can read a key\n{disk:?}");
    }
}

/// What is left at the end of a story that was not disturbed, or was.
pub fn assert_tidy(disk: &Model, at: &PairFiles, goal: Goal, context: &str) {
    for folder in folders(at) {
        let is_ours = folder == at.certificate.parent().expect("absolute");
        let mut expected = vec![];
        for path in [&at.certificate, &at.key] {
            if path.parent() == Some(&folder) {
                expected.push(path.file_name().expect("a name").to_str().expect("UTF-8"));
            }
        }
        if is_ours && goal != Goal::Detached {
            expected.push("certrelay");
        }
        expected.sort_unstable();
        assert_eq!(disk.list(&folder).expect("a folder"), expected, "{context}\n{disk:?}");
    }
}

fn chooser(seed: usize) -> impl FnMut(usize) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed.try_into().expect("small"));
    move |of| match seed {
        0 => 0,
        1 => of - 1,
        _ => rng.usize(..of),
    }
}

fn assert_goes_on(disk: &Model, story: &Story, context: &str) {
    assert_whole(disk, &story.at, context);
    assert!(tell(disk, &story.at, &story.goals), "{context}");
    assert_whole(disk, &story.at, context);
    assert_tidy(disk, &story.at, *story.goals.last().expect("one"), context);
}

#[test]
fn whenever_the_power_is_cut_there_is_a_matching_pair_and_the_rest_can_be_done() {
    let (mut cuts, mut choices) = (0, 0);
    for story in stories() {
        for cut in 0.. {
            let disk = story.disk.fork();
            disk.cut_at(Some(cut));
            if tell(&disk, &story.at, &story.goals) {
                let goal = *story.goals.last().expect("one");
                assert_tidy(&disk.after_kill(), &story.at, goal, story.name);
                break;
            }
            cuts += 1;
            for seed in 0..RANDOM + 2 {
                let context = format!("{}, cut {cut}, choice {seed}", story.name);
                let after = disk.after_cut(chooser(seed));
                choices += 1;
                assert_goes_on(&after, &story, &context);
            }
        }
    }
    println!("{cuts} points of a power cut, {choices} outcomes");
    assert!(cuts > 900, "only {cuts} cuts");
}

#[test]
fn what_a_killed_process_had_not_synced_is_durable_before_the_next_one_builds_on_it() {
    let mut outcomes = 0;
    let mut rng = fastrand::Rng::with_seed(7);
    for story in stories() {
        for kill in 0.. {
            let disk = story.disk.fork();
            disk.cut_at(Some(kill));
            if tell(&disk, &story.at, &story.goals) {
                break;
            }
            let second = disk.after_kill();
            let length = {
                let rest = second.fork();
                let before = rest.changes();
                assert!(tell(&rest, &story.at, &story.goals));
                rest.changes() - before
            };
            for _ in 0..2 {
                let cut = rng.usize(..length.max(1));
                let disk = second.fork();
                disk.cut_at(Some(cut));
                tell(&disk, &story.at, &story.goals);
                let seed = rng.usize(2..1_000_000);
                let context = format!("{}, kill {kill}, cut {cut}, choice {seed}", story.name);
                outcomes += 1;
                assert_goes_on(&disk.after_cut(chooser(seed)), &story, &context);
            }
        }
    }
    println!("{outcomes} outcomes of a kill and a power cut");
}

#[test]
fn what_a_failed_switch_may_leave_in_use_is_wiped_only_when_that_is_durable() {
    let mut is_over = false;
    for at in 0.. {
        if is_over {
            break;
        }
        for cut in 0..20 {
            let (disk, _) = planted(&beside());
            let mut core = Core::new(disk.clone(), beside());
            let made = core.perform(FileJob::MakeKey(Generation(1))).expect("made");
            let Done::KeyMade { csr, .. } = made else { panic!("{made:?}") };
            let job = FileJob::StoreCertificate(Generation(1), vec![drive::issue(&csr)]);
            core.perform(job).expect("stored");
            core.perform(FileJob::Attach).expect("attached");
            let at = disk.count() + at;
            disk.fail(Some(Fault { at, kind: ErrorKind::Other, lasts: false }));
            is_over = core.perform(FileJob::Switch(Generation(1))).is_ok();
            disk.fail(None);
            disk.cut_at(Some(cut));
            let wiped = core.perform(FileJob::Wipe(Generation(2))).is_ok();
            let context = format!("fault {at}, cut {cut}, wiped {wiped}");
            assert_whole(&disk.after_cut(chooser(0)), &beside(), &context);
        }
    }
}

#[test]
fn no_copy_of_a_superseded_key_is_left_anywhere() {
    for story in stories() {
        let disk = story.disk.fork();
        assert!(tell(&disk, &story.at, &story.goals));
        let keys = disk
            .every_file()
            .into_iter()
            .filter(|(content, _)| content.windows(11).any(|text| text == b"PRIVATE KEY"));
        // What was put over our links by hand took a name from a file that we never had.
        assert_eq!(keys.count(), 1, "{}\n{disk:?}", story.name);
    }
}

#[test]
fn a_look_makes_nothing() {
    let (disk, _) = planted(&apart());
    let before = disk.tree();
    Core::new(disk.clone(), apart()).look().expect("found");
    assert_eq!((disk.tree(), disk.changes()), (before, 0));
}

#[test]
fn no_job_but_a_save_or_a_new_key_makes_the_folder_of_ours() {
    let (disk, _) = planted(&beside());
    let mut core = Core::new(disk.clone(), beside());
    core.perform(FileJob::Preflight).expect("ready");
    assert_eq!(core.perform(FileJob::Detach).expect("nothing to do"), Done::Detached);
    assert_eq!(disk.list("/gg".as_ref()).expect("a folder"), ["cert.pem", "key.pem"]);
    core.perform(FileJob::MakeKey(Generation(1))).expect("made");
    let mode = disk.facts("/gg/certrelay".as_ref()).expect("there").access.mode;
    assert_eq!(mode, 0o711);
}
