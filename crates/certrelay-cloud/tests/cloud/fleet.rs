//! A million devices in simulated time. What each function calls is recorded from a rotation in the
//! cloud in memory; quotas are AWS's published defaults. `docs/cloud.md` has the table that this
//! prints, and the test fails when it no longer is.

use std::collections::BTreeMap;

use certrelay_cloud::{ports::Call, record::Proof};

use crate::plant::{Act, Plant, Way};

const DEVICES: u64 = 1_000_000;
const DAY: u64 = 86_400;

/// Published default quotas, in calls a second, of those APIs that have one (README of the facts:
/// aws-cloud §3). DynamoDB, SQS and Publish are bound by nothing that matters here.
const QUOTAS: [(Call, u64); 10] = [
    (Call::ListPrincipalThings, 10),
    (Call::DescribeCertificate, 10),
    (Call::CreateCertificateFromCsr, 15),
    (Call::ListAttachedPolicies, 15),
    (Call::AttachPolicy, 15),
    (Call::DetachPolicy, 15),
    (Call::AttachThingPrincipal, 15),
    (Call::DetachThingPrincipal, 15),
    (Call::UpdateCertificate, 10),
    (Call::DeleteCertificate, 10),
];

/// The functions of a rotation, in order, and how many days pass before each at the earliest.
#[derive(Debug, Clone)]
struct Step {
    name: &'static str,
    after_days: u64,
    calls: BTreeMap<Call, u64>,
}

/// What a rotation's functions call, as recorded. Who speaks and for whom is looked up once a core
/// and some minutes, so it is no call of each rotation.
fn recorded() -> Vec<Step> {
    let mut plant = Plant::ordered(Way::Relayed(Proof::Named));
    let mut steps = Vec::new();
    let mut last = plant.now;
    while let Some(act) = plant.next() {
        let cached = matches!(act, Act::Uplink(..));
        let before = plant.record_or_none().map(|record| record.state.name());
        plant.done(&act);
        let mut calls = BTreeMap::new();
        for call in &plant.calls {
            *calls.entry(*call).or_default() += 1;
        }
        if cached {
            calls.remove(&Call::ListPrincipalThings);
            calls.remove(&Call::ListClientDevices);
        }
        // That is of another source of associations.
        calls.remove(&Call::DescribeThing);
        let name = match before {
            None => "request",
            Some("requested") => "issue",
            Some("issued") => "complete",
            Some("acked") => "deactivate",
            Some("inactive") => "retire",
            Some(_) => "retire again",
        };
        steps.push(Step { name, after_days: (plant.now - last).as_secs() / DAY, calls });
        last = plant.now;
    }
    steps
}

/// What a simulation found.
struct Found {
    days: u64,
    calls: BTreeMap<Call, u64>,
    peaks: BTreeMap<Call, u64>,
    throttled: u64,
}

/// So many devices, begun within so many a day; each API at `share` percent of its quota at most,
/// whatever the functions would like. Steps of five minutes are enough.
fn simulate(steps: &[Step], begun_a_day: u64, share: u64) -> Found {
    const TICK: u64 = 300;
    let quota: BTreeMap<_, _> =
        QUOTAS.iter().map(|(call, tps)| (*call, tps * TICK * share / 100)).collect();
    // How many devices wait for each step, by the tick from which they may take it.
    let mut waiting: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); steps.len()];
    let mut found = Found { days: 0, calls: BTreeMap::new(), peaks: BTreeMap::new(), throttled: 0 };
    let (mut begun, mut ended, mut tick) = (0, 0, 0);
    while ended < DEVICES {
        let today = tick * TICK / DAY;
        if (tick * TICK).is_multiple_of(DAY) && begun < DEVICES {
            let new = begun_a_day.min(DEVICES - begun);
            *waiting[0].entry(tick).or_default() += new;
            begun += new;
        }
        let mut left = quota.clone();
        // The later steps first: what is begun is ended.
        for n in (0..steps.len()).rev() {
            let ready: u64 = waiting[n].range(..=tick).map(|(_, devices)| devices).sum();
            let limit =
                steps[n].calls.iter().filter_map(|(call, times)| Some(left.get(call)? / times));
            let go = limit.min().unwrap_or(u64::MAX).min(ready);
            found.throttled += ready - go;
            for (call, times) in &steps[n].calls {
                let made = times * go;
                *found.calls.entry(*call).or_default() += made;
                if let Some(left) = left.get_mut(call) {
                    *left -= made;
                }
            }
            take(&mut waiting[n], tick, go);
            match steps.get(n + 1) {
                Some(next) => {
                    let from = tick + 1 + next.after_days * DAY / TICK;
                    *waiting[n + 1].entry(from).or_default() += go;
                }
                None => ended += go,
            }
        }
        for (call, most) in &quota {
            let made = (most - left[call]).div_ceil(TICK);
            let peak = found.peaks.entry(*call).or_default();
            *peak = (*peak).max(made);
        }
        found.days = today + 1;
        tick += 1;
    }
    found
}

fn take(waiting: &mut BTreeMap<u64, u64>, tick: u64, mut go: u64) {
    while go > 0 {
        let Some(mut first) = waiting.first_entry().filter(|first| *first.key() <= tick) else {
            return;
        };
        let taken = go.min(*first.get());
        go -= taken;
        *first.get_mut() -= taken;
        if *first.get() == 0 {
            first.remove();
        }
    }
}

fn table() -> String {
    let steps = recorded();
    let runs = [
        ("20,000 a day, half the quotas", simulate(&steps, 20_000, 50)),
        ("all at once, half the quotas", simulate(&steps, DEVICES, 50)),
        ("all at once, all of the quotas", simulate(&steps, DEVICES, 100)),
    ];
    let mut out = String::from("| API | quota, calls/s | calls a rotation | calls in all |");
    runs.iter().for_each(|(name, _)| out += &format!(" peak/s: {name} |"));
    out += "\n|---|---|---|---|---|---|---|\n";
    for (call, quota) in QUOTAS {
        let each: u64 = steps.iter().filter_map(|step| step.calls.get(&call)).sum();
        let all = runs[0].1.calls.get(&call).copied().unwrap_or_default();
        out += &format!("| {} | {quota} | {each} | {all} |", call.as_str());
        runs.iter().for_each(|(_, run)| out += &format!(" {} |", run.peaks[&call]));
        out += "\n";
    }
    out += "| **days from the first request to the last deletion** | | | |";
    runs.iter().for_each(|(_, run)| out += &format!(" **{}** |", run.days));
    out += "\n| minutes that rotations waited for a quota, on average | | | |";
    runs.iter().for_each(|(_, run)| out += &format!(" {} |", run.throttled * 5 / DEVICES));
    out + "\n"
}

#[test]
fn a_million_devices_rotate_as_the_document_says() {
    let table = table();
    println!("{table}");
    let document = include_str!("../../../../docs/cloud.md");
    assert!(document.contains(&table), "docs/cloud.md has another table than this:\n{table}");
}

#[test]
fn every_function_of_a_rotation_calls_what_it_must_and_no_more() {
    let steps = recorded();
    let names: Vec<_> = steps.iter().map(|step| step.name).collect();
    let expected = ["request", "issue", "complete", "deactivate", "retire", "retire again"];
    assert_eq!(names, expected);
    let calls = |call| steps.iter().filter_map(|step| step.calls.get(&call)).sum::<u64>();
    assert_eq!((calls(Call::CreateCertificateFromCsr), calls(Call::UpdateCertificate)), (1, 2));
    assert!(QUOTAS.iter().all(|(call, _)| calls(*call) > 0));
}
