//! Two functions at once, for one device, in every order of their calls.

use std::time::Duration;

use certrelay::wire::Kind;
use certrelay_cloud::{ports::Status, record::Proof};
use serde_json::json;

use crate::plant::{Act, Plant, Way, at_once};

const NAMED: Way = Way::Relayed(Proof::Named);

/// Every order of two acts, of which `make` makes the plant and them; `end` says what must come of it.
fn every_order(make: impl Fn() -> (Plant, [Act; 2]), end: impl Fn(Plant)) {
    let points = |which: usize| {
        let (mut plant, acts) = make();
        let _ = plant.perform(&acts[which], None);
        plant.points
    };
    // One more than there are: each is also done as a whole before the other begins.
    let (first, second) = (points(0) + 1, points(1) + 1);
    for i in 0..=first {
        for j in 0..=second {
            let (mut plant, acts) = make();
            let ends = at_once(&mut plant, [&acts[0], &acts[1]], i, j);
            for (act, result) in acts.into_iter().zip(ends) {
                if result.is_err() {
                    plant.again(act);
                }
            }
            end(plant);
        }
    }
    println!("{} orders", (first + 1) * (second + 1));
}

/// A plant just before the act that `is_it` picks.
fn before(way: Way, is_it: impl Fn(&Plant, &Act) -> bool) -> (Plant, Act) {
    let mut plant = Plant::ordered(way);
    loop {
        let act = plant.next().expect("it comes before the end");
        if is_it(&plant, &act) {
            return (plant, act);
        }
        plant.done(&act);
    }
}

fn is_uplink(kind: Kind) -> impl Fn(&Plant, &Act) -> bool {
    move |_, act| matches!(act, Act::Uplink(of, _) if *of == kind)
}

fn ends_well(mut plant: Plant) {
    plant.finish();
    plant.check_end();
}

#[test]
fn the_same_message_twice_at_once_makes_one_rotation_and_one_certificate() {
    let twice = |(plant, act): (Plant, Act)| (plant, [act.clone(), act]);
    let request = |_: &Plant, act: &Act| matches!(act, Act::Request(_));
    every_order(|| twice(before(NAMED, request)), ends_well);
    every_order(
        || twice(before(NAMED, is_uplink(Kind::CsrRes))),
        |plant| {
            let made = plant.cloud.world().certificates.len();
            assert!(made <= 3, "the first, the core's, and one more: {made}");
            ends_well(plant);
        },
    );
    every_order(|| twice(before(NAMED, is_uplink(Kind::CrtAck))), ends_well);
}

#[test]
fn each_turn_of_the_sweep_can_be_taken_twice_at_once() {
    for state in ["acked", "inactive"] {
        let due = |plant: &Plant, act: &Act| matches!(act, Act::Due(_)) && plant.state() == state;
        every_order(
            || {
                let (plant, act) = before(NAMED, due);
                (plant, [act.clone(), act])
            },
            ends_well,
        );
    }
}

#[test]
fn a_newer_key_at_the_same_time_as_the_one_before_ends_with_the_key_the_device_has() {
    every_order(
        || {
            let (mut plant, act) = before(NAMED, is_uplink(Kind::CsrRes));
            plant.waiting = None;
            plant.pass(Duration::from_millis(1));
            let newer = plant.csr();
            (plant, [act, newer])
        },
        ends_well,
    );
}

#[test]
fn trouble_at_the_same_time_as_the_old_certificate_is_given_up_never_strands_the_device() {
    let due = |plant: &Plant, act: &Act| matches!(act, Act::Due(_)) && plant.state() == "acked";
    every_order(
        || {
            let (mut plant, act) = before(NAMED, due);
            // The device falls back on what it had, and says so at the very end of the grace.
            (plant.in_use, plant.has_fallen_back) = (plant.first, true);
            let trouble =
                plant.uplink(Kind::CrtErr, json!({ "error": "no link with the new one" }));
            (plant, [trouble, act])
        },
        |mut plant| {
            while let Some(act) = plant.pending.pop_front() {
                plant.done(&act);
            }
            plant.has_fallen_back = false;
            plant.acked = None;
            let is_active = |plant: &Plant| {
                let world = plant.cloud.world();
                assert_eq!(world.certificates[&plant.first].status, Status::Active);
            };
            is_active(&plant);
            // Nothing ends it but an ack of another certificate.
            let due = plant.next().expect("the device is asked again");
            plant.done(&due);
            is_active(&plant);
            ends_well(plant);
        },
    );
}

#[test]
fn trouble_and_ack_at_once_leave_the_old_certificate_in_use_until_another_is_acked() {
    every_order(
        || {
            let (mut plant, act) = before(NAMED, is_uplink(Kind::CrtAck));
            let trouble = plant.uplink(Kind::CrtErr, json!({ "error": "trouble" }));
            (plant, [act, trouble])
        },
        |mut plant| {
            plant.pass(Duration::from_secs(1));
            plant.finish();
            plant.check();
        },
    );
}
