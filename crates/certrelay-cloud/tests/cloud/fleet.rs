//! A million devices in simulated time. What each function calls is recorded from a rotation in the
//! cloud in memory; quotas are AWS's published defaults, and a function is no faster than the template
//! lets it be. `docs/cloud.md` has the table that this prints, and the test fails when it no longer is.

use std::collections::{BTreeMap, VecDeque};

use certrelay_cloud::{functions::sweep::MOST_DUE, ports::Call, record::Proof};

use crate::plant::{Act, Plant, Way};

const DEVICES: u64 = 1_000_000;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Published default quotas, in calls a second, of those APIs that have one. DynamoDB,
/// SQS and Publish are bound by nothing that matters here.
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

/// The template's defaults: CallsPerSecond times Concurrency.
const AS_INSTALLED: u64 = 2;

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

/// A way to rotate them all.
struct Plan {
    /// How many begin a day.
    begun_a_day: u64,
    /// How much of its quota each API may be called, percent.
    share: u64,
    /// How often a function may call an API in a second, all its instances together; as much as it
    /// likes, if `None`.
    pace: Option<u64>,
}

/// What a simulation found.
struct Found {
    days: u64,
    calls: BTreeMap<Call, u64>,
    peaks: BTreeMap<Call, u64>,
    /// The longest that a CSR has waited, in minutes.
    csr_waited: u64,
}

/// Devices that became ready for a step, and the tick when they did, the first first.
#[derive(Default)]
struct Line(VecDeque<(u64, u64)>);

impl Line {
    fn join(&mut self, tick: u64, devices: u64) {
        if devices > 0 {
            self.0.push_back((tick, devices));
        }
    }

    /// How many are ready by this tick, and since when the first of them.
    fn ready(&self, tick: u64) -> (u64, u64) {
        let ready = self.0.iter().take_while(|(at, _)| *at <= tick);
        let first = self.0.front().map_or(tick, |(at, _)| *at);
        (ready.map(|(_, devices)| devices).sum(), first)
    }

    fn take(&mut self, mut go: u64) {
        while let Some((_, devices)) = self.0.front_mut().filter(|_| go > 0) {
            let taken = go.min(*devices);
            (go, *devices) = (go - taken, *devices - taken);
            if *devices == 0 {
                self.0.pop_front();
            }
        }
    }
}

/// The function that does a step.
fn function(name: &str) -> &str {
    match name {
        "deactivate" | "retire" | "retire again" => "due",
        name => name,
    }
}

/// In steps of five minutes, which are enough. What is due waits for the sweep of the hour.
fn simulate(steps: &[Step], plan: &Plan) -> Found {
    const TICK: u64 = 300;
    let quota: BTreeMap<_, _> =
        QUOTAS.iter().map(|(call, tps)| (*call, tps * TICK * plan.share / 100)).collect();
    let mut lines: Vec<Line> = steps.iter().map(|_| Line::default()).collect();
    // What was swept and not done yet, of each step.
    let mut swept = vec![0; steps.len()];
    let mut found =
        Found { days: 0, calls: BTreeMap::new(), peaks: BTreeMap::new(), csr_waited: 0 };
    let (mut begun, mut ended, mut tick) = (0, 0, 0);
    while ended < DEVICES {
        if (tick * TICK).is_multiple_of(DAY) && begun < DEVICES {
            let new = plan.begun_a_day.min(DEVICES - begun);
            lines[0].join(tick, new);
            begun += new;
        }
        if (tick * TICK).is_multiple_of(HOUR) {
            let mut room = u64::try_from(MOST_DUE).expect("it fits");
            for n in (0..steps.len()).filter(|n| function(steps[*n].name) == "due") {
                swept[n] = lines[n].ready(tick).0.min(room);
                room -= swept[n];
            }
        }
        let mut left = quota.clone();
        let mut paced: BTreeMap<(&str, Call), u64> = BTreeMap::new();
        // The later steps first: what is begun is ended.
        for (n, step) in steps.iter().enumerate().rev() {
            let function = function(step.name);
            let (mut ready, since) = lines[n].ready(tick);
            if function == "due" {
                ready = swept[n];
            }
            if function == "issue" && ready > 0 {
                found.csr_waited = found.csr_waited.max((tick - since) * TICK / 60);
            }
            let within = |call: &Call| {
                let quota = *left.get(call)?;
                let spent = paced.get(&(function, *call)).copied().unwrap_or_default();
                Some(plan.pace.map_or(quota, |pace| quota.min(pace * TICK - spent)))
            };
            let limit = step.calls.iter().filter_map(|(call, times)| Some(within(call)? / times));
            let go = limit.min().unwrap_or(u64::MAX).min(ready);
            for (call, times) in &step.calls {
                let made = times * go;
                *found.calls.entry(*call).or_default() += made;
                *paced.entry((function, *call)).or_default() += made;
                if let Some(left) = left.get_mut(call) {
                    *left -= made;
                }
            }
            lines[n].take(go);
            swept[n] = swept[n].saturating_sub(go);
            match steps.get(n + 1) {
                Some(next) => lines[n + 1].join(tick + 1 + next.after_days * DAY / TICK, go),
                None => ended += go,
            }
        }
        for (call, most) in &quota {
            let made = (most - left[call]).div_ceil(TICK);
            let peak = found.peaks.entry(*call).or_default();
            *peak = (*peak).max(made);
        }
        found.days = tick * TICK / DAY + 1;
        tick += 1;
    }
    found
}

fn table() -> String {
    let steps = recorded();
    let as_installed = Plan { begun_a_day: 20_000, share: 100, pace: Some(AS_INSTALLED) };
    let at_once = |share| Plan { begun_a_day: DEVICES, share, pace: None };
    let runs = [
        ("as installed, 20,000 a day", simulate(&steps, &as_installed)),
        ("all at once, half the quotas", simulate(&steps, &at_once(50))),
        ("all at once, all of the quotas", simulate(&steps, &at_once(100))),
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
    out += "\n| the longest that a CSR waits, hours | | | |";
    runs.iter().for_each(|(_, run)| out += &format!(" {:.1} |", run.csr_waited as f64 / 60.0));
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
