//! Audits: what begins today, in which order, and what does not.

use std::collections::BTreeSet;

use certrelay::{schedule::Timestamp, wire::CertificateId};
use certrelay_cloud::{
    decide::{audit::Job, request::Order},
    functions::{Done, audit},
    memory::Plan,
    ports::{Call, Finding, Queue},
};

use crate::plant::{Act, DAY, End, Plant, Way, run};

const EXPIRING: &str = "DEVICE_CERTIFICATE_EXPIRING_CHECK";
const AGE: &str = "DEVICE_CERTIFICATE_AGE_CHECK";

fn certificate(n: u32) -> CertificateId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    CertificateId(id)
}

/// A plant with so many findings of a task; the one with number `n` expires in `n % 100` days.
fn found(findings: u32) -> Plant {
    let plant = Plant::new(Way::Direct);
    let now = plant.now;
    let finding = |n| Finding { certificate: certificate(n), expires: Some(now + DAY * (n % 100)) };
    let all: Vec<_> = (0..findings).map(finding).collect();
    let unknown = Finding { certificate: certificate(1_000_000), expires: None };
    let mut world = plant.cloud.world();
    let aged = [all[0], unknown];
    world.findings.insert(("task".to_owned(), EXPIRING.to_owned()), all);
    world.findings.insert(("task".to_owned(), AGE.to_owned()), aged.to_vec());
    drop(world);
    plant
}

fn notify(plant: &Plant) -> Result<Done, certrelay_cloud::functions::Fault> {
    let message = format!(
        r#"{{"taskId":"task","auditDetails":[{{"checkName":"{EXPIRING}","nonCompliantResourcesCount":7}},
        {{"checkName":"{AGE}","nonCompliantResourcesCount":1}}]}}"#
    );
    run(audit::begin(&plant.cloud, message.as_bytes()))
}

/// Works the audit's queue off, with so many pages an invocation; the orders.
fn work(plant: &Plant, pages: usize) -> Vec<CertificateId> {
    let mut turns = 0;
    loop {
        let Some(job) = plant.cloud.world().take(Queue::Audit) else { break };
        turns += 1;
        assert!(turns < 1000, "no end");
        let left = std::cell::Cell::new(pages);
        let is_late = || {
            left.set(left.get() - 1);
            left.get() == 0
        };
        let job = audit::go_on(&plant.cloud, &plant.settings, job.as_bytes(), is_late, plant.now);
        run(job).expect("it goes well");
    }
    let mut orders = Vec::new();
    while let Some(order) = plant.cloud.world().take(Queue::Rotate) {
        let order: Order = serde_json::from_str(&order).expect("an order");
        orders.push(order.certificate_id);
    }
    orders
}

#[test]
fn those_that_expire_soonest_begin_within_the_days_budget_however_often_the_work_is_interrupted() {
    for pages in [1, 2, 1000] {
        let mut plant = found(1_000);
        plant.cloud.world().findings.remove(&("task".to_owned(), AGE.to_owned()));
        plant.settings.daily_budget = 25;
        assert_eq!(notify(&plant), Ok(Done::Did("audit queued")));
        let mut taken = work(&plant, pages);
        taken.sort_unstable();
        let soonest = |n: &u32| (n % 100, *n);
        let mut all: Vec<u32> = (0..1_000).collect();
        all.sort_by_key(soonest);
        let days: Vec<_> = all[..25].iter().map(|n| n % 100).collect();
        let number = |id: &CertificateId| u32::from_be_bytes(id.0[..4].try_into().expect("4"));
        let mut taken_days: Vec<_> = taken.iter().map(|id| number(id) % 100).collect();
        taken_days.sort_unstable();
        assert_eq!(taken_days, days, "{pages} pages an invocation");
        taken.dedup();
        assert_eq!(taken.len(), 25, "each once");
        // Another audit on the same day finds nothing left of the budget; one on the next day does.
        notify(&plant).expect("queued");
        assert_eq!(work(&plant, pages), []);
        plant.pass(DAY);
        notify(&plant).expect("queued");
        assert_eq!(work(&plant, pages).len(), 25);
    }
}

#[test]
fn a_budget_for_all_takes_each_once_whichever_checks_have_found_it() {
    let plant = found(300);
    notify(&plant).expect("queued");
    let mut taken = work(&plant, 3);
    assert_eq!(taken.len(), 301);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 301);
}

#[test]
fn what_is_under_way_is_skipped_and_uses_up_no_budget() {
    let mut plant = Plant::ordered(Way::Direct);
    let order = plant.next().expect("the order");
    plant.done(&order);
    let finding = |certificate| Finding { certificate, expires: Some(Timestamp(1)) };
    let findings = vec![finding(plant.first), finding(certificate(7))];
    plant.cloud.world().findings.insert(("task".to_owned(), EXPIRING.to_owned()), findings);
    plant.settings.daily_budget = 1;
    notify(&plant).expect("queued");
    assert_eq!(work(&plant, 1), [certificate(7)]);
}

#[test]
fn an_audit_that_concerns_nobody_is_dropped_and_a_broken_job_goes_back() {
    let plant = Plant::new(Way::Direct);
    assert_eq!(run(audit::begin(&plant.cloud, br#"{"taskId":"t"}"#)), Ok(Done::Nothing));
    assert!(run(audit::begin(&plant.cloud, b"?")).is_err());
    assert!(serde_json::from_str::<Job>("{}").is_err());
    let mut plant = plant;
    let end = plant.perform(&Act::Audit("{}".to_owned()), None);
    assert!(matches!(end, crate::plant::End::Fault(_)));
}

/// Works an audit off whose invocation with this number meets a plan; the orders, and at how many
/// points a plan could have met that invocation: 0 if there was none.
fn disturbed(plant: &mut Plant, turn: usize, plan: Option<Plan>) -> (Vec<CertificateId>, usize) {
    notify(plant).expect("queued");
    let mut points = 0;
    for n in 0..=turn {
        let Some(job) = plant.cloud.world().take(Queue::Audit) else { break };
        let act = Act::Audit(job);
        let end = plant.perform(&act, plan.filter(|_| n == turn));
        points = if n == turn { plant.points } else { 0 };
        if !matches!(end, End::Done(_)) {
            plant.done(&act);
        }
    }
    (work(plant, 1000), points)
}

#[test]
fn an_audit_that_is_cut_anywhere_begins_what_is_due_and_never_more_than_the_budget() {
    let (mut stories, mut unused) = (0, 0);
    for (budget, turn) in [(25, 0), (25, 1), (20_000, 0), (20_000, 1)] {
        let fresh = || {
            let mut plant = found(600);
            plant.settings.daily_budget = budget;
            plant
        };
        let (all, points) = disturbed(&mut fresh(), turn, None);
        assert_eq!(all.len(), if budget == 25 { 25 } else { 601 });
        assert!(points > 0);
        for point in 0..points {
            for plan in [Plan::Kill(point), Plan::Throttle(point), Plan::LoseAnswer(point)] {
                let mut plant = fresh();
                let (mut taken, _) = disturbed(&mut plant, turn, Some(plan));
                taken.sort_unstable();
                taken.dedup();
                // Only what was drawn and not written down is left for tomorrow.
                let is_drawn = taken.is_empty() && budget == 25 && turn == 0;
                assert!(is_drawn || taken.len() == all.len(), "{budget} {turn} {plan:?}");
                unused += u32::from(is_drawn);
                plant.pass(DAY);
                assert_eq!(disturbed(&mut plant, 0, None).0.len(), all.len());
                stories += 1;
            }
        }
    }
    println!("{stories} audits, each disturbed at one point; {unused} used no budget that day");
}

/// What the function calls when it works an audit off.
pub fn calls() -> BTreeSet<(&'static str, Call)> {
    let mut plant = found(300);
    notify(&plant).expect("queued");
    for _ in 0..2 {
        let job = plant.cloud.world().take(Queue::Audit).expect("a job");
        plant.done(&Act::Audit(job));
    }
    plant.seen
}
