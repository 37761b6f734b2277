//! The child's procedure on a real disk, with a gateway and a broker that are played: it is cut off
//! at every effect, and driven by random events.

mod proofs;
mod world;

use std::time::Duration;

use certrelay::child::{Event, Stage, Told};
use proptest::prelude::*;
use world::{Tear, World};

const MINUTE: Duration = Duration::from_secs(60);

fn is_rolled_back(told: &Told) -> bool {
    matches!(told, Told::RolledBack(_))
}

#[test]
fn a_certificate_rotates_and_is_acknowledged_by_name_on_a_session_of_its_own() {
    let mut world = World::new();
    world.ask(Some("r-1"));
    world.settle();
    let issued = world.issued_last();
    assert_eq!(world.current().facts.id, issued);
    assert_eq!(world.acks, [(issued, Some("r-1".parse().expect("valid")))]);
    assert_eq!(world.keys_made(), 1);
    assert!(world.errors.is_empty());
}

#[test]
fn wherever_the_process_ends_a_rotation_is_finished_with_a_pair_that_works() {
    let mut cuts = 0;
    for tear in [Tear::Before, Tear::Torn] {
        for cut in 0.. {
            let mut world = World::new();
            world.cut_at(cut, tear);
            world.ask(Some("r-1"));
            world.settle();
            let issued = world.issued_last();
            assert_eq!(world.current().facts.id, issued, "cut {cut} {tear:?}");
            assert_eq!(world.acks.last().map(|ack| ack.0), Some(issued), "cut {cut} {tear:?}");
            assert!(world.keys_made() <= 2, "cut {cut} {tear:?}");
            assert_eq!(world.load().saved.stage, Stage::Idle);
            if !world.was_cut() {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    assert!(cuts >= 20, "only {cuts} cuts");
}

#[test]
fn wherever_the_process_ends_twice_a_rotation_is_finished() {
    for first in 0..14 {
        for second in 0..14 {
            let mut world = World::new();
            world.cut_at(first, Tear::Torn);
            world.ask(None);
            world.run_to_cut();
            world.cut_at(second, Tear::Torn);
            world.settle();
            let issued = world.issued_last();
            assert_eq!(world.current().facts.id, issued, "cuts {first}, {second}");
            assert_eq!(world.acks.last().map(|ack| ack.0), Some(issued), "{first}, {second}");
        }
    }
}

#[test]
fn wherever_the_process_ends_a_pair_that_is_refused_is_given_up_and_reported() {
    let mut cuts = 0;
    for tear in [Tear::Before, Tear::Torn] {
        for cut in 0.. {
            let mut world = World::new();
            let old = world.current().facts.id;
            world.refuse_new = true;
            world.cut_at(cut, tear);
            world.ask(Some("r-1"));
            world.settle();
            assert_eq!(world.current().facts.id, old, "cut {cut} {tear:?}");
            assert!(world.acks.is_empty());
            let error = world.errors.last().expect("a crt_err");
            assert_eq!(error.code.as_deref(), Some("connect-refused"), "cut {cut} {tear:?}");
            assert_eq!(error.certificate, Some(world.issued_last()));
            assert_eq!(world.load().generations.len(), 1, "cut {cut} {tear:?}");
            if !world.was_cut() {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    assert!(cuts >= 30, "only {cuts} cuts");
}

#[test]
fn a_refusal_is_believed_only_after_several_tries_over_minutes() {
    let mut world = World::new();
    world.refuse_new = true;
    world.ask(None);
    world.run_for(9 * MINUTE);
    assert!(!world.told.iter().any(is_rolled_back));
    world.run_for(9 * MINUTE);
    let rounds = world.told.iter().filter(|told| matches!(told, Told::TrialFailed { .. })).count();
    assert!(world.told.iter().any(is_rolled_back));
    assert!((5..20).contains(&rounds), "{rounds} rounds");
}

#[test]
fn a_broker_that_no_pair_reaches_decides_nothing() {
    let mut world = World::new();
    world.hold_certificate = true;
    world.ask(None);
    world.run_for(MINUTE);
    world.hold_certificate = false;
    world.deliver_held_then_cut_network();
    world.run_for(7 * 24 * 60 * MINUTE);
    assert!(!world.told.iter().any(is_rolled_back));
    assert!(world.connects < 40_000, "{} connects", world.connects);
    world.reachable = true;
    world.settle();
    assert_eq!(world.current().facts.id, world.issued_last());
}

#[test]
fn a_repeated_request_gets_the_same_csr_for_a_day_and_then_a_new_key() {
    let mut world = World::new();
    world.hold_certificate = true;
    world.ask(None);
    world.run_for(MINUTE);
    world.ask(Some("r-2"));
    world.run_for(MINUTE);
    assert_eq!((world.csrs.len(), world.keys_made()), (2, 1));
    assert_eq!(world.csrs[1].0, Some("r-2".parse().expect("valid")));
    world.restart();
    world.run_for(23 * 60 * MINUTE);
    world.ask(None);
    world.run_for(MINUTE);
    assert_eq!(world.keys_made(), 1);
    world.run_for(60 * MINUTE);
    world.ask(None);
    world.run_for(MINUTE);
    assert_eq!(world.keys_made(), 2);
    assert_eq!(world.load().generations.len(), 2);
}

#[test]
fn retained_and_empty_messages_are_none() {
    let mut world = World::new();
    world.run_for(MINUTE);
    let topic = "management/topic/pump-7/csr_req".to_owned();
    let empty = Event::Message { topic: topic.clone(), payload: vec![], retain: false };
    let retained = Event::Message { topic, payload: b"{}".to_vec(), retain: true };
    world.hand(empty);
    world.hand(retained);
    world.run_for(MINUTE);
    assert_eq!(world.keys_made(), 0);
    assert!(world.csrs.is_empty() && world.errors.is_empty());
}

#[test]
fn a_certificate_for_no_key_of_ours_is_reported_and_changes_nothing() {
    let mut world = World::new();
    world.hold_certificate = true;
    world.ask(None);
    world.run_for(MINUTE);
    let before = world.load();
    world.send_stranger();
    world.run_for(MINUTE);
    assert_eq!(world.errors.last().and_then(|e| e.code.clone()).as_deref(), Some("no-waiting-csr"));
    assert_eq!(world.load(), before);
}

#[test]
fn the_current_certificate_once_more_is_acknowledged_once_more() {
    let mut world = World::new();
    world.ask(Some("r-1"));
    world.settle();
    let acked = world.acks.clone();
    world.send_issued_again();
    world.run_for(MINUTE);
    assert_eq!(world.acks, [acked.clone(), acked].concat());
    assert_eq!(world.keys_made(), 1);
}

#[test]
fn another_certificate_for_the_current_key_takes_its_place() {
    let mut world = World::new();
    world.ask(Some("r-1"));
    world.settle();
    world.reissue();
    world.settle();
    let issued = world.issued_last();
    assert_eq!(world.current().facts.id, issued);
    assert_eq!(world.acks.last().map(|ack| ack.0), Some(issued));
    assert_eq!(world.keys_made(), 1);
}

#[test]
fn the_pair_before_is_kept_until_the_next_rotation_begins() {
    let mut world = World::new();
    world.ask(Some("r-1"));
    world.settle();
    world.restart();
    world.run_for(60 * MINUTE);
    let before = world.load();
    assert_eq!(before.generations.len(), 2);
    world.hold_certificate = true;
    world.ask(Some("r-2"));
    world.run_for(MINUTE);
    let begun = world.load();
    assert_eq!(begun.generations.len(), 2);
    assert!(!begun.generations.contains(&before.saved.previous.expect("one is kept")));
    world.hold_certificate = false;
    world.settle();
    assert_eq!(world.load().generations.len(), 2);
    assert_eq!(world.keys_made(), 2);
}

#[test]
fn a_late_copy_of_the_request_begins_no_rotation() {
    let mut world = World::new();
    world.ask(Some("r-1"));
    world.settle();
    world.ask(None);
    world.run_for(MINUTE);
    world.ask(Some("r-1"));
    world.run_for(MINUTE);
    assert_eq!((world.keys_made(), world.acks.len()), (1, 3));
    world.run_for(20 * MINUTE);
    world.ask(None);
    world.settle();
    assert_eq!(world.keys_made(), 2);
}

#[test]
fn an_ack_is_repeated_until_the_broker_has_it() {
    let mut world = World::new();
    world.lose_pubacks = true;
    world.ask(None);
    world.run_for(10 * MINUTE);
    assert_eq!(world.acks.len(), 1);
    world.drop_connection();
    world.run_for(10 * MINUTE);
    world.restart();
    world.run_for(10 * MINUTE);
    assert_eq!(world.acks.len(), 3);
    world.lose_pubacks = false;
    world.drop_connection();
    world.settle();
    world.restart();
    world.run_for(10 * MINUTE);
    assert_eq!(world.acks.len(), 4);
}

#[test]
fn no_csr_leaves_before_its_key_is_noted_on_disk() {
    let mut world = World::new();
    world.fail_saves = true;
    world.ask(None);
    world.run_for(60 * MINUTE);
    assert!(world.csrs.is_empty());
    world.fail_saves = false;
    world.settle();
    assert_eq!((world.keys_made(), world.current().facts.id), (1, world.issued_last()));
}

#[test]
fn the_switch_alone_decides_which_pair_is_in_use() {
    let seen = (0..40).any(|cut| {
        let mut world = World::new();
        world.cut_at(cut, Tear::Before);
        world.ask(Some("r-1"));
        world.run_to_cut();
        let disk = world.load();
        let between = disk.saved.stage.generation() == Some(disk.current.generation);
        if between {
            let believed = world.believed();
            assert_eq!(believed.stage, Stage::Idle);
            assert_eq!(believed.previous, Some(disk.generations[0]));
            let ack = believed.notices.ack.as_ref().expect("an ack is due");
            assert_eq!(ack.certificate, disk.current.facts.id);
            world.run_for(MINUTE);
            assert!(matches!(world.told.last(), Some(Told::Acked(_))));
            assert!(world.told.iter().any(|told| matches!(told, Told::Promoted { .. })));
        }
        between
    });
    assert!(seen, "no cut came between the switch and the note of it");
}

#[test]
fn a_session_with_one_certificate_proves_nothing_of_the_next() {
    let mut world = World::new();
    world.hold_certificate = true;
    world.ask(None);
    world.run_for(MINUTE);
    let old = world.current().facts.id;
    world.silent = true;
    world.send_another();
    world.run_for(Duration::from_secs(1));
    let first = world.connects;
    world.send_another();
    world.run_for(Duration::from_secs(1));
    world.answer_connect(first);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.current().facts.id, old);
    world.silent = false;
    world.hold_certificate = false;
    world.settle();
    assert_eq!(world.current().facts.id, world.issued_last());
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let mut world = World::new();
    world.fail_disk = 7;
    world.ask(None);
    world.run_for(60 * MINUTE);
    world.ask(None);
    world.settle();
    assert_eq!(world.current().facts.id, world.issued_last());
}

/// What may happen in a random life.
#[derive(Debug, Clone)]
enum Chance {
    Ask(Option<&'static str>),
    Stranger,
    Again,
    Reissue,
    Junk(Vec<u8>),
    Network(bool),
    RefuseNew(bool),
    Pubacks(bool),
    Drop,
    Crash(u8, bool),
    FailDisk(u8),
    Pass(u32),
    Clock(bool),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        4 => prop::sample::select(vec![None, Some("r-1"), Some("r-2"), Some("r-3")])
            .prop_map(Chance::Ask),
        1 => Just(Chance::Stranger),
        1 => Just(Chance::Again),
        1 => Just(Chance::Reissue),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Chance::Junk),
        2 => any::<bool>().prop_map(Chance::Network),
        2 => any::<bool>().prop_map(Chance::RefuseNew),
        2 => any::<bool>().prop_map(Chance::Pubacks),
        2 => Just(Chance::Drop),
        4 => (0u8..20, any::<bool>()).prop_map(|(n, torn)| Chance::Crash(n, torn)),
        1 => (0u8..4).prop_map(Chance::FailDisk),
        6 => (1u32..3_000).prop_map(Chance::Pass),
        1 => (80_000u32..100_000).prop_map(Chance::Pass),
        1 => any::<bool>().prop_map(Chance::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The world itself checks the invariants after every step.
    #[test]
    fn whatever_happens_the_pair_fits_and_the_child_comes_round(
        life in prop::collection::vec(chance(), 1..40),
    ) {
        let mut world = World::new();
        for chance in life {
            match chance {
                Chance::Ask(rotation) => world.ask(rotation),
                Chance::Stranger => world.send_stranger(),
                Chance::Again => world.send_issued_again(),
                Chance::Reissue => world.reissue(),
                Chance::Junk(payload) => world.send_junk(payload),
                Chance::Network(reachable) => world.set_reachable(reachable),
                Chance::RefuseNew(refuse) => world.refuse_new = refuse,
                Chance::Pubacks(lose) => world.lose_pubacks = lose,
                Chance::Drop => world.drop_connection(),
                Chance::Crash(after, true) => world.cut_at(after.into(), Tear::Torn),
                Chance::Crash(after, false) => world.cut_at(after.into(), Tear::Before),
                Chance::FailDisk(jobs) => world.fail_disk = jobs.into(),
                Chance::Pass(seconds) => world.run_for(Duration::from_secs(seconds.into())),
                Chance::Clock(trusted) => world.clock_trusted = trusted,
            }
        }
        world.heal();
        world.run_for(26 * 60 * MINUTE);
        world.ask(Some("r-last"));
        world.settle();
        let acked = world.acks.last().map(|ack| ack.0);
        prop_assert_eq!(acked, Some(world.current().facts.id));
        prop_assert_eq!(world.load().saved.stage, Stage::Idle);
    }
}
