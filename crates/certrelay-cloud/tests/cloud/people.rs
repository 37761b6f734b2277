//! What people do by hand beside the functions, and when people are told.

use certrelay::{schedule::Timestamp, wire::Kind};
use certrelay_cloud::{
    decide::code::Code,
    functions::Done,
    memory::{Ca, Plan},
    ports::{Attachment, Status},
    record::Proof,
};
use serde_json::json;

use crate::plant::{DAY, Plant, Way, name, swept};

const NAMED: Way = Way::Relayed(Proof::Named);

/// A plant up to where its record is in this state.
fn in_state(state: &str) -> Plant {
    let mut plant = Plant::ordered(NAMED);
    while plant.record_or_none().is_none_or(|record| record.state.name() != state) {
        let act = plant.next().expect("it comes");
        plant.done(&act);
    }
    plant
}

/// Someone sets the status of the device's first certificate by hand.
fn by_hand(plant: &Plant, status: Status) {
    let mut world = plant.cloud.world();
    world.certificates.get_mut(&plant.first).expect("there").status = status;
}

fn status(plant: &Plant) -> Status {
    plant.cloud.world().certificates[&plant.first].status
}

/// The codes that the support team is told.
fn told(plant: &Plant) -> Vec<String> {
    swept(plant);
    let mails = std::mem::take(&mut plant.cloud.world().mails);
    let lines = mails.iter().flat_map(|(_, text)| text.lines().skip(1));
    lines.filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect()
}

/// What the device reports: trouble with what it has.
fn trouble(plant: &mut Plant) {
    let trouble = plant.uplink(Kind::CrtErr, json!({ "error": "trouble" }));
    assert_eq!(plant.done(&trouble), Done::Did("reported"));
}

#[test]
fn a_device_whose_certificate_someone_has_deactivated_gets_no_other() {
    for status in [Status::Inactive, Status::Other] {
        let mut plant = in_state("requested");
        by_hand(&plant, status);
        plant.has_fallen_back = true;
        // Its core is honest and relays what it sends.
        let csr = plant.next().expect("the CSR");
        assert_eq!(plant.done(&csr), Done::Refused(Code::NotActive));
        assert_eq!(plant.state(), "abandoned");
        assert_eq!(plant.cloud.world().certificates.len(), 2, "the first, and the core's");
        assert_eq!(plant.results, [("csr_res".to_owned(), Some("not-active".to_owned()))]);
        assert_eq!(told(&plant), ["not-active"]);
        assert_eq!(plant.done(&plant.order()), Done::Refused(Code::NotActive));
    }
}

#[test]
fn nor_does_one_whose_certificate_was_being_made_or_waits_for_a_key_that_comes_back() {
    // Killed between the certificate's making and its activation; the sweep finds it.
    let mut plant = in_state("requested");
    let csr = plant.next().expect("the CSR");
    let whole = {
        let mut plant = in_state("requested");
        let csr = plant.next().expect("the CSR");
        plant.done(&csr);
        plant.calls.iter().position(|call| call.as_str() == "UpdateCertificate").expect("called")
    };
    plant.perform(&csr, Some(Plan::Kill(2 * whole)));
    assert_eq!(plant.state(), "issuing");
    by_hand(&plant, Status::Inactive);
    plant.has_fallen_back = true;
    let due = plant.next().expect("the lease ends");
    assert_eq!(plant.done(&due), Done::Refused(Code::NotActive));
    let made = plant.record().superseded[0].made.id;
    assert_eq!(plant.cloud.world().certificates[&made].status, Status::Inactive);
}

#[test]
fn nothing_that_someone_has_deactivated_is_made_active_again() {
    // The device is locked out in the grace: both of its certificates.
    let mut plant = in_state("acked");
    by_hand(&plant, Status::Inactive);
    let new = plant.in_use;
    plant.cloud.world().certificates.get_mut(&new).expect("made").status = Status::Inactive;
    plant.has_fallen_back = true;
    let due = plant.next().expect("the grace ends");
    assert_eq!(plant.done(&due), Done::Refused(Code::NewNotActive));
    assert_eq!(status(&plant), Status::Inactive);
    assert_eq!(told(&plant), ["new-not-active"]);
    // And it does not come back by asking for another.
    plant.waiting = None;
    let csr = plant.csr();
    assert_eq!(plant.done(&csr), Done::Refused(Code::NotActive));

    // The old one alone, before it is given up: trouble later brings nothing back.
    let mut plant = in_state("acked");
    by_hand(&plant, Status::Inactive);
    while plant.state() == "acked" {
        let act = plant.next().expect("the grace ends");
        plant.done(&act);
    }
    assert_eq!(plant.state(), "inactive");
    trouble(&mut plant);
    assert_eq!((plant.state(), status(&plant)), ("requested", Status::Inactive));

    // Revoked while it is INACTIVE.
    let mut plant = in_state("inactive");
    by_hand(&plant, Status::Other);
    plant.has_fallen_back = true;
    trouble(&mut plant);
    assert_eq!((plant.state(), status(&plant)), ("requested", Status::Other));
}

#[test]
fn an_old_certificate_that_someone_has_made_active_again_is_kept_as_it_is() {
    let mut plant = in_state("inactive");
    by_hand(&plant, Status::Active);
    plant.finish();
    assert_eq!(plant.state(), "retired");
    let old = plant.cloud.world().certificates[&plant.first].clone();
    assert_eq!((old.status, old.things.len(), old.policies.len()), (Status::Active, 1, 2));
    assert!(old.detaching.is_empty());
    assert_eq!(told(&plant), ["kept"]);
    // The next audit finds it, and it is rotated like any other.
    plant.acked = None;
    plant.in_use = plant.first;
    plant.pending.push_back(plant.order());
    plant.finish();
    plant.check();
    assert!(!plant.cloud.world().certificates.contains_key(&plant.first));
}

#[test]
fn what_can_not_be_deleted_is_tried_ever_less_often_and_a_person_is_told_once() {
    let mut plant = in_state("inactive");
    // Someone has given it to another thing as well.
    let other = Attachment { thing: name("press-2"), is_exclusive: false };
    plant.cloud.world().certificates.get_mut(&plant.first).expect("there").things.push(other);
    let (mut turns, mut mails) = (0, Vec::new());
    let began = plant.now;
    while plant.now - began < DAY * 60 {
        let due = plant.next().expect("it goes on");
        plant.done(&due);
        turns += 1;
        mails.extend(told(&plant));
    }
    assert_eq!(plant.state(), "retiring");
    assert!((50..70).contains(&turns), "{turns}");
    assert_eq!(mails, ["not-deleted"]);
    // Meanwhile the device is heard.
    trouble(&mut plant);
    assert_eq!(told(&plant), ["too-late"]);
    plant.cloud.world().certificates.get_mut(&plant.first).expect("there").things.clear();
    plant.finish();
    plant.check_end();
}

#[test]
fn what_hangs_on_a_certificate_anew_while_it_is_deleted_is_taken_off_as_well() {
    let mut plant = in_state("retiring");
    let policies = |plant: &Plant| plant.cloud.world().certificates[&plant.first].policies.clone();
    assert!(policies(&plant).is_empty());
    let first = plant.first;
    let late = "late".to_owned();
    plant.cloud.world().certificates.get_mut(&first).expect("there").policies.insert(late);
    plant.finish();
    plant.check_end();
}

#[test]
fn what_someone_revokes_between_two_turns_of_giving_up_stays_revoked() {
    let mut plant = in_state("acked");
    let due = plant.next().expect("the grace ends");
    // Killed when the record says so and the old one is ACTIVE still.
    plant.perform(&due, Some(Plan::Throttle(2 * nth_call("UpdateCertificate"))));
    assert_eq!((plant.state(), status(&plant)), ("deactivating", Status::Active));
    by_hand(&plant, Status::Other);
    let due = plant.next().expect("the lease ends");
    assert_eq!(plant.done(&due), Done::Did("deactivated"));
    assert_eq!(status(&plant), Status::Other);
}

/// Where in the end of a grace this is called.
fn nth_call(call: &str) -> usize {
    let mut plant = in_state("acked");
    let due = plant.next().expect("the grace ends");
    plant.done(&due);
    plant.calls.iter().position(|made| made.as_str() == call).expect("it is called")
}

#[test]
fn what_was_given_up_for_a_certificate_that_turns_out_to_be_inactive_comes_back_at_once() {
    // Killed when the old one was INACTIVE already and the record did not say so yet.
    let mut plant = in_state("acked");
    let due = plant.next().expect("the grace ends");
    plant.perform(&due, Some(Plan::Kill(2 * nth_call("UpdateCertificate") + 2)));
    assert_eq!((plant.state(), status(&plant)), ("deactivating", Status::Inactive));
    let new = plant.in_use;
    plant.cloud.world().certificates.get_mut(&new).expect("made").status = Status::Inactive;
    plant.has_fallen_back = true;
    let due = plant.next().expect("the lease ends");
    assert_eq!(plant.done(&due), Done::Refused(Code::NewNotActive));
    assert_eq!((plant.state(), status(&plant)), ("requested", Status::Active));
}

#[test]
fn a_rotation_of_a_thing_that_is_deleted_meanwhile_ends() {
    let mut plant = in_state("requested");
    let thing = plant.thing.clone();
    plant.cloud.world().deleted.insert(thing);
    let csr = plant.next().expect("the CSR");
    assert_eq!(plant.done(&csr), Done::Refused(Code::NoThing));
    assert_eq!((plant.state(), told(&plant)), ("abandoned", vec!["no-thing".to_owned()]));
}

#[test]
fn a_certificate_with_more_policies_than_another_may_get_needs_a_person() {
    let mut plant = in_state("requested");
    let more = (0..9).map(|n| format!("policy-{n}"));
    let first = plant.first;
    plant.cloud.world().certificates.get_mut(&first).expect("there").policies.extend(more);
    let csr = plant.next().expect("the CSR");
    assert_eq!(plant.done(&csr), Done::Refused(Code::TooManyPolicies));
    assert_eq!((plant.state(), told(&plant)), ("abandoned", vec!["too-many-policies".to_owned()]));
}

/// A CA that refuses whatever it is asked.
struct Refuser;

impl Ca for Refuser {
    fn sign(&mut self, _: &str, _: Timestamp, _: std::time::Duration) -> Result<String, String> {
        Err("no such template".to_owned())
    }
}

#[test]
fn a_ca_that_refuses_every_csr_is_told_of_after_three() {
    let mut plant = Plant::ordered(NAMED);
    plant.cloud.world().authority = Box::new(Refuser);
    let mut refused = 0;
    while let Some(act) = plant.next() {
        let done = plant.done(&act);
        refused += u32::from(done == Done::Refused(Code::CaRefused));
        assert!(refused <= 3);
    }
    assert_eq!((refused, plant.state()), (3, "abandoned"));
    assert_eq!(told(&plant), ["ca-refused"]);
}

#[test]
fn what_a_device_says_while_its_certificate_is_taken_back_is_put_off_and_not_refused() {
    let mut plant = in_state("issued");
    let ack = plant.pending.pop_front().expect("the ack");
    let refused = plant.in_use;
    (plant.in_use, plant.acked) = (plant.first, None);
    let error = json!({ "error": "", "code": "probe-refused", "certificateId": refused });
    let error = plant.uplink(Kind::CrtErr, error);
    plant.done(&error);
    assert_eq!(plant.state(), "withdrawing");
    let before = plant.record();
    let csr = plant.csr();
    assert_eq!(plant.done(&csr), Done::PutOff(Code::NotYet));
    assert_eq!(plant.done(&ack), Done::PutOff(Code::NotYet));
    assert_eq!(plant.record(), before);
    // Then it is asked again, and answers with the key that it has made.
    plant.finish();
    plant.check_end();
    assert!(plant.next().is_none());
}
