//! What becomes of the errors that devices report, of devices that never answer, and of the digest.

use std::collections::BTreeSet;

use certrelay::{reason::Reason, wire::Kind};
use certrelay_cloud::{
    decide::{code::Code, report::Note},
    functions::{Done, sweep},
    ports::{Call, Status},
    record::{Key, Proof, Record, State},
};
use serde_json::json;

use crate::plant::{Act, DAY, HOUR, Plant, Way, run, swept};

const NAMED: Way = Way::Relayed(Proof::Named);

/// A plant whose device got its certificate and has not said so yet.
fn issued() -> Plant {
    let mut plant = Plant::ordered(NAMED);
    while plant.received.is_empty() {
        let act = plant.next().expect("the certificate comes");
        plant.done(&act);
    }
    plant.pending.clear();
    plant
}

/// The device goes back to its first certificate and says why.
fn trouble(plant: &mut Plant, payload: serde_json::Value) {
    (plant.in_use, plant.acked) = (plant.first, None);
    let is_over = plant.is_over();
    let trouble = plant.uplink(Kind::CrtErr, payload);
    let expected = if is_over { Done::Refused(Code::NoRotation) } else { Done::Did("reported") };
    assert_eq!(plant.done(&trouble), expected);
}

#[test]
fn a_device_that_has_trouble_is_asked_again_and_not_at_once() {
    let mut plant = issued();
    trouble(&mut plant, json!({ "error": "no" }));
    let record = plant.record();
    assert_eq!((record.state.name(), record.failures), ("requested", 1));
    assert_eq!(record.state.due().expect("it is asked again") - plant.now, HOUR);
    plant.finish();
    plant.check_end();
    assert_eq!(plant.received.len(), 2);
}

#[test]
fn a_device_that_has_trouble_is_asked_by_another_name_since_its_attempt_is_over() {
    let mut plant = issued();
    let first = plant.record().rotation();
    trouble(&mut plant, json!({ "error": "no" }));
    let due = plant.next().expect("it is asked again");
    plant.done(&due);
    let second = plant.record().rotation();
    assert_ne!(first, second);
    // So it makes another, and what comes late of the first is known to be the first's.
    assert!(matches!(plant.pending.front(), Some(Act::Uplink(Kind::CsrRes, _))));
    let late = json!({ "error": "no", "rotationId": first.as_str() });
    trouble(&mut plant, late);
    assert_eq!((plant.record().failures, plant.record().rotation()), (1, second.clone()));
    // Asked once more for want of an answer, it is the same attempt.
    plant.pending.clear();
    let due = plant.next().expect("it is asked again");
    plant.done(&due);
    assert_eq!(plant.record().rotation(), second);
}

#[test]
fn trouble_with_a_certificate_in_use_is_heard_by_whichever_attempts_name_it_comes() {
    for (is_acked, names) in [(false, true), (true, true), (true, false)] {
        // It is offered in two attempts: the first one's never reached the device.
        let mut plant = issued();
        let first = plant.record().rotation();
        let (id, key) = (plant.in_use, plant.record().state.made().expect("made").key);
        trouble(&mut plant, json!({ "error": "", "code": "undelivered", "certificateId": id }));
        plant.waiting = Some(key);
        while plant.state() != if is_acked { "acked" } else { "issued" } {
            let act = plant.next().expect("it is offered again");
            plant.done(&act);
        }
        assert_ne!(plant.record().rotation(), first);
        plant.pending.clear();
        let mut error = json!({ "error": "no", "rotationId": first.as_str() });
        if names {
            error["certificateId"] = json!(id);
        }
        trouble(&mut plant, error);
        assert_eq!((plant.state(), plant.record().failures), ("requested", 2));
    }
}

#[test]
fn a_certificate_that_surely_nobody_uses_is_withdrawn_and_another_made() {
    let mut plant = issued();
    let refused = plant.received[0];
    trouble(&mut plant, json!({ "error": "", "code": "probe-refused", "certificateId": refused }));
    assert_eq!(plant.state(), "withdrawing");
    plant.finish();
    plant.check_end();
    assert!(!plant.cloud.world().certificates.contains_key(&refused));
}

#[test]
fn a_certificate_that_a_refusal_does_not_name_is_not_withdrawn_for_it() {
    let mut plant = issued();
    let sent = plant.received[0];
    trouble(&mut plant, json!({ "error": "", "code": "probe-refused" }));
    assert_eq!(plant.state(), "requested");
    assert_eq!(plant.cloud.world().certificates[&sent].status, Status::Active);
}

#[test]
fn a_certificate_that_the_device_had_trouble_with_is_not_offered_for_its_key_again() {
    for is_acked in [false, true] {
        let mut plant = issued();
        let (id, key) = (plant.in_use, plant.record().state.made().expect("made").key);
        if is_acked {
            let ack = plant.ack(id, key);
            plant.done(&ack);
        }
        trouble(&mut plant, json!({ "error": "no", "certificateId": id }));
        plant.waiting = Some(key);
        let csr = plant.csr();
        assert_eq!(plant.done(&csr), Done::Refused(Code::Reason(Reason::StaleKey)));
    }
}

#[test]
fn a_certificate_that_never_reached_its_device_is_sent_again_for_the_same_key() {
    let mut plant = issued();
    let (sent, key) = (plant.received[0], plant.record().state.made().expect("made").key);
    trouble(&mut plant, json!({ "error": "", "code": "undelivered", "certificateId": sent }));
    plant.waiting = Some(key);
    plant.finish();
    plant.check_end();
    assert_eq!(plant.in_use, sent, "no second certificate for the key");
}

#[test]
fn trouble_in_the_grace_keeps_the_old_certificate_and_after_it_brings_it_back() {
    for (days, state) in [(1, "acked"), (8, "inactive")] {
        let mut plant = issued();
        let (id, key) = (plant.in_use, plant.record().state.made().expect("made").key);
        let ack = plant.ack(id, key);
        plant.done(&ack);
        if state == "inactive" {
            let due = plant.next().expect("the grace ends");
            plant.done(&due);
        }
        assert_eq!(plant.state(), state);
        plant.pass(days * DAY / 8);
        plant.has_fallen_back = true;
        trouble(&mut plant, json!({ "error": "after all", "certificateId": id }));
        plant.has_fallen_back = false;
        plant.check();
        plant.finish();
        plant.check_end();
    }
}

#[test]
fn an_error_about_another_certificate_or_rotation_changes_nothing() {
    let mut plant = issued();
    let before = plant.record();
    let other = plant.core_certificate;
    trouble(&mut plant, json!({ "error": "", "code": "probe-refused", "certificateId": other }));
    assert_eq!(plant.record(), before);
    let stale = plant.uplink(Kind::CrtErr, json!({ "error": "", "rotationId": "1-other" }));
    assert_eq!(plant.done(&stale), Done::Refused(Code::OtherRotation));
    assert_eq!(plant.record(), before);
}

#[test]
fn after_three_errors_or_one_that_needs_a_person_the_support_team_is_told_once() {
    let mut plant = issued();
    for n in 1..=3 {
        let error = json!({ "error": format!("attempt {n}") });
        trouble(&mut plant, error.clone());
        // What its gateway says twice of one attempt is one error.
        trouble(&mut plant, error);
        if let (1..3, Some(due)) = (n, plant.next()) {
            assert_eq!(plant.done(&due), Done::Did("asked again"));
            plant.pending.clear();
        }
    }
    assert_eq!(plant.state(), "abandoned");
    let (first, _) = swept(&plant);
    let (second, _) = swept(&plant);
    assert_eq!((first.notes, second.notes), (1, 0), "a digest, not one mail an error");
    let mails = plant.cloud.world().mails.clone();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].1.contains("device-error: 1\n  press-1 (rotation 1)"), "{}", mails[0].1);

    let mut plant = issued();
    trouble(&mut plant, json!({ "error": "", "code": "read-only" }));
    assert_eq!((plant.state(), swept(&plant).0.notes), ("abandoned", 1));
}

#[test]
fn what_an_abandoned_rotation_leaves_is_given_up_by_the_next_that_ends_well() {
    let mut plant = issued();
    trouble(&mut plant, json!({ "error": "", "code": "read-only" }));
    assert_eq!(plant.state(), "abandoned");
    assert_eq!(plant.cloud.world().certificates.len(), 3, "nothing was given up");
    plant.pending.push_back(plant.order());
    plant.finish();
    plant.check_end();
    assert_eq!(plant.record().key.seq, 2);
    assert_eq!(plant.cloud.world().certificates.len(), 2, "the core's and the new one");
}

#[test]
fn a_rotation_has_three_certificates_at_most() {
    let mut plant = Plant::ordered(NAMED);
    for _ in 0..2 {
        let act = plant.next().expect("a rotation");
        plant.done(&act);
    }
    for made in 2..=4 {
        plant.pending.clear();
        plant.pass(HOUR);
        // It has lost its key.
        (plant.in_use, plant.acked, plant.waiting) = (plant.first, None, None);
        let csr = plant.csr();
        let end = plant.done(&csr);
        if made <= 3 {
            assert_eq!(end, Done::Did("issued"));
        } else {
            assert_eq!(end, Done::Refused(Code::TooManyCertificates));
            assert_eq!(
                plant.results.last().and_then(|r| r.1.as_deref()),
                Some("too-many-certificates")
            );
        }
    }
    assert_eq!(plant.record().made, 3);
    plant.check();
}

#[test]
fn a_device_that_is_off_is_asked_after_an_hour_then_six_then_daily_and_in_the_end_given_up() {
    let mut plant = Plant::ordered(NAMED);
    let mut asked = Vec::new();
    let mut last = plant.now;
    while let Some(act) = plant.next() {
        if matches!(act, Act::Uplink(..)) {
            continue;
        }
        plant.done(&act);
        asked.push(plant.now - last);
        last = plant.now;
    }
    assert_eq!(asked[1..5], [HOUR, 6 * HOUR, DAY, DAY]);
    assert!(asked[1..].iter().all(|pause| *pause >= HOUR));
    assert_eq!(plant.state(), "abandoned");
    assert_eq!(swept(&plant).0.notes, 1);
    let status = plant.cloud.world().certificates[&plant.first].status;
    assert_eq!(status, Status::Active, "and keeps what it has");
}

#[test]
fn nothing_is_given_up_for_a_certificate_that_someone_has_deactivated() {
    let mut plant = issued();
    let (id, key) = (plant.in_use, plant.record().state.made().expect("made").key);
    let ack = plant.ack(id, key);
    plant.done(&ack);
    (plant.in_use, plant.acked) = (plant.first, None);
    plant.cloud.world().certificates.get_mut(&id).expect("made").status = Status::Inactive;
    let due = plant.next().expect("the grace ends");
    assert_eq!(plant.done(&due), Done::Refused(Code::NewNotActive));
    assert_eq!(swept(&plant).0.notes, 1);
    plant.check();
    plant.finish();
    plant.check_end();
}

#[test]
fn an_exclusive_attachment_stays_exclusive() {
    let mut plant = Plant::ordered(NAMED);
    let first = plant.first;
    plant.cloud.world().certificates.get_mut(&first).expect("there").things[0].is_exclusive = true;
    plant.finish();
    plant.check_end();
    let world = plant.cloud.world();
    assert!(world.certificates[&plant.in_use].things[0].is_exclusive);
}

#[test]
fn the_second_ack_of_a_certificate_gets_the_answer_of_the_first() {
    let mut plant = issued();
    let (id, key) = (plant.in_use, plant.record().state.made().expect("made").key);
    let ack = plant.ack(id, key);
    assert_eq!(plant.done(&ack), Done::Did("acked"));
    let State::Acked(first) = plant.record().state else { panic!("acked") };
    plant.pass(HOUR);
    assert_eq!(plant.done(&ack), Done::Did("acked again"));
    let State::Acked(second) = plant.record().state else { panic!("acked") };
    assert_eq!(first, second, "the grace does not begin anew");
    assert_eq!(plant.results, [("crt_ack".to_owned(), None), ("crt_ack".to_owned(), None)]);
}

#[test]
fn a_digest_counts_a_thousand_rotations_and_the_next_tells_of_the_rest() {
    let plant = issued();
    let key = plant.record().key;
    for seq in 0..1_250 {
        let note =
            Note { key: Key { seq, ..key.clone() }, code: "unanswered".to_owned(), at: plant.now };
        plant.cloud.world().notes.insert(note);
    }
    let told: Vec<_> = (0..3).map(|_| swept(&plant).0.notes).collect();
    assert_eq!(told, [1_000, 250, 0]);
    let mails = plant.cloud.world().mails.clone();
    assert!(mails[0].1.contains("unanswered: 1000\n"), "{}", mails[0].1);
    assert!(mails[0].1.contains("  and 980 more\n"), "{}", mails[0].1);
    assert!(mails[0].1.len() < 10_000, "it fits into a mail");
}

#[test]
fn a_sweep_whose_time_runs_out_leaves_the_rest_to_the_next() {
    let plant = issued();
    let record = plant.record();
    for n in 0..250 {
        let thing = format!("press-{n}").parse().expect("a name");
        let key = Key { thing, ..record.key.clone() };
        plant.cloud.world().records.insert(key.clone(), Record { key, ..record.clone() });
    }
    let sweep = |is_late| run(sweep::sweep(&plant.cloud, || is_late, plant.now + HOUR));
    assert_eq!(sweep(true).map(|swept| swept.due), Ok(100), "a page");
    assert_eq!(sweep(false).map(|swept| swept.due), Ok(250));
}

#[test]
fn without_a_record_nothing_is_done_and_every_sender_is_told() {
    for way in [Way::Direct, NAMED] {
        let mut plant = Plant::new(way);
        let (in_use, key) = (plant.in_use, *plant.keys.keys().next().expect("its key"));
        let acts = [plant.csr(), plant.ack(in_use, key), plant.uplink(Kind::CrtErr, json!({}))];
        for act in acts {
            assert_eq!(plant.done(&act), Done::Refused(Code::NoRotation), "{act:?}");
        }
        let told = ["csr_res", "crt_ack", "crt_err"].map(str::to_owned);
        let told = told.map(|kind| (kind, Some("no-rotation".to_owned())));
        assert_eq!(plant.results, told);
        let key = Key { thing: plant.thing.clone(), seq: 1 };
        assert_eq!(plant.done(&Act::Due(key)), Done::Nothing);
        assert_eq!(plant.record_or_none(), None);
        assert_eq!(plant.cloud.world().certificates.len(), 2);
    }
}

/// What a sweep calls that finds something due, and something to tell.
pub fn calls_of_a_sweep() -> BTreeSet<(&'static str, Call)> {
    let mut plant = issued();
    trouble(&mut plant, json!({ "error": "", "code": "read-only" }));
    plant.pending.push_back(plant.order());
    let order = plant.pending.pop_front().expect("the order");
    plant.done(&order);
    plant.pass(HOUR);
    plant.cloud.world().calls.clear();
    run(sweep::sweep(&plant.cloud, || false, plant.now)).expect("a sweep");
    plant.cloud.world().calls.iter().map(|call| ("Sweep", *call)).collect()
}
