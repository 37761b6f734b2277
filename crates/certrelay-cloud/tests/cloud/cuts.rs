//! Every function killed at every point, throttled at every call, its answers lost.

use certrelay::wire::Kind;
use certrelay_cloud::{memory::Plan, record::Proof};
use serde_json::json;

use crate::plant::{Act, End, HOUR, Plant, Way, sweep_once, swept};

const WAYS: [Way; 4] = [
    Way::Direct,
    Way::Relayed(Proof::Signed),
    Way::Relayed(Proof::Named),
    Way::Relayed(Proof::Bare),
];

/// How many points each act of an undisturbed rotation has.
fn points(way: Way) -> Vec<usize> {
    let mut plant = Plant::ordered(way);
    let mut points = Vec::new();
    while let Some(act) = plant.next() {
        plant.done(&act);
        points.push(plant.points);
    }
    plant.check_end();
    points
}

/// A rotation whose acts from number `disturbed` on meet these plans, one each.
fn disturbed(way: Way, from: usize, plans: &[Plan], comes_again: bool) {
    let mut plant = Plant::ordered(way);
    let mut plans = plans.iter();
    for n in 0..200 {
        let Some(act) = plant.next() else { break };
        let plan = if n >= from { plans.next().copied() } else { None };
        let end = plant.perform(&act, plan);
        // What was lost is in nobody's hands: only the sweep goes on, and what devices repeat.
        let is_kept = comes_again || plan.is_none() || matches!(act, Act::Request(_));
        if !matches!(end, End::Done(_)) && is_kept {
            plant.again(act);
        }
        assert!(n < 199, "no end: {:?}", plant.record().state);
    }
    plant.check_end();
}

#[test]
fn a_rotation_survives_a_kill_a_throttled_call_or_a_lost_answer_anywhere() {
    let mut stories = 0;
    for way in WAYS {
        for (act, points) in points(way).into_iter().enumerate() {
            for point in 0..points {
                for plan in [Plan::Kill(point), Plan::Throttle(point), Plan::LoseAnswer(point)] {
                    disturbed(way, act, &[plan], true);
                    stories += 1;
                }
            }
        }
    }
    println!("{stories} rotations, each disturbed at one point");
    assert!(stories > 400);
}

#[test]
fn a_rotation_survives_two_kills_in_a_row_anywhere() {
    let mut stories = 0;
    for way in [Way::Direct, Way::Relayed(Proof::Named)] {
        for (act, points) in points(way).into_iter().enumerate() {
            for first in 0..points {
                for second in 0..points {
                    disturbed(way, act, &[Plan::Kill(first), Plan::Kill(second)], true);
                    stories += 1;
                }
            }
        }
    }
    println!("{stories} rotations, each killed twice");
}

#[test]
fn a_message_that_is_lost_with_its_function_is_made_up_for_by_the_sweep() {
    let mut stories = 0;
    for way in WAYS {
        for (act, points) in points(way).into_iter().enumerate() {
            for point in 0..points {
                disturbed(way, act, &[Plan::Kill(point)], false);
                stories += 1;
            }
        }
    }
    println!("{stories} rotations, each with a message lost");
}

#[test]
fn lost_publishes_are_said_again() {
    for lost in 1..4 {
        for way in WAYS {
            let mut plant = Plant::ordered(way);
            plant.cloud.world().lose = lost;
            plant.finish();
            plant.check_end();
        }
    }
}

/// A plant whose device got its certificate, acked it if `days` says so, and so long ago.
fn in_use(days: Option<u32>) -> Plant {
    let mut plant = Plant::ordered(Way::Relayed(Proof::Named));
    while plant.received.is_empty() {
        let act = plant.next().expect("the certificate comes");
        plant.done(&act);
    }
    let ack = plant.pending.pop_front().expect("the ack");
    let Some(days) = days else { return plant };
    plant.done(&ack);
    while plant.state() == "acked" && days >= 7 {
        let act = plant.next().expect("the grace ends");
        plant.done(&act);
    }
    plant
}

#[test]
fn an_error_that_takes_back_what_was_given_up_survives_a_cut_anywhere() {
    let mut stories = 0;
    for (days, code) in [(None, "probe-refused"), (Some(1), "none"), (Some(8), "none")] {
        for point in 0..24 {
            for plan in [Plan::Kill(point), Plan::Throttle(point), Plan::LoseAnswer(point)] {
                let mut plant = in_use(days);
                let new = plant.in_use;
                (plant.in_use, plant.has_fallen_back) = (plant.first, true);
                let error = json!({ "error": "", "code": code, "certificateId": new });
                let error = plant.uplink(Kind::CrtErr, error);
                if !matches!(plant.perform(&error, Some(plan)), End::Done(_)) {
                    plant.again(error.clone());
                    while let Some(act) = plant.pending.pop_front() {
                        if !matches!(plant.perform(&act, None), End::Done(_)) {
                            plant.again(act);
                        }
                    }
                }
                (plant.has_fallen_back, plant.acked) = (false, None);
                plant.check();
                plant.finish();
                plant.check_end();
                stories += 1;
            }
        }
    }
    println!("{stories} errors, each disturbed at one point");
}

#[test]
fn a_sweep_that_is_cut_anywhere_loses_no_record_and_no_note() {
    for point in 0..12 {
        for plan in [Plan::Kill(point), Plan::Throttle(point), Plan::LoseAnswer(point)] {
            let mut plant = in_use(None);
            plant.settings.support_after = 1;
            let error = plant.uplink(Kind::CrtErr, json!({ "error": "x" }));
            plant.done(&error);
            plant.pending.push_back(plant.order());
            let order = plant.pending.pop_front().expect("the order");
            plant.done(&order);
            plant.pending.clear();
            plant.pass(HOUR);
            plant.cloud.world().begin(Some(plan));
            let _ = sweep_once(&plant);
            plant.cloud.world().begin(None);
            let (_, due) = swept(&plant);
            assert!(due.contains(&Act::Due(plant.record().key)), "{plan:?}");
            assert!(!plant.cloud.world().mails.is_empty(), "{plan:?}");
        }
    }
}
