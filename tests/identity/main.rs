//! The core's own credential in a world of its own: every crash, hostile orders, years in
//! milliseconds.
//!
//! The identity and every CSR and certificate are real; the disk, the nucleus, the relay, the cloud
//! and time are played. After every step the witness checks what must never be.

mod checks;
mod cloud;
mod disk;
mod nucleus;
mod outside;
mod pki;
mod relay;
mod rules;
mod schedules;
mod stories;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use nucleus::Kind;
use stories::{STORIES, Story};
use world::{Act, MINUTE, Next, Tear, World};

const KINDS: [Kind; 2] = [Kind::Classic, Kind::Lite];

/// A process is ended at so many effects of a story, and at every tenth or so after that.
const CLOSELY: usize = 90;

type Cut = (usize, Tear, Next);

fn tell((_, prepare, time): &Story, kind: Kind, cut: Option<Cut>) -> World {
    let mut world = World::new(kind, 1);
    world.cut = cut;
    world.later(MINUTE, Act::Do(World::ask));
    prepare(&mut world);
    world.run(*time);
    world.heal();
    world.must_settle();
    world
}

fn cuts(points: &[bool]) -> Vec<Cut> {
    let step = (points.len() / 30).max(1);
    let at = (0..points.len().min(CLOSELY)).chain((CLOSELY..points.len()).step_by(step));
    let mut cuts = vec![];
    for at in at {
        let tears = [Some(Tear::Before), points[at].then_some(Tear::Torn), Some(Tear::After)];
        for tear in tears.into_iter().flatten() {
            cuts.extend([Next::Component, Next::Nucleus, Next::Power].map(|next| (at, tear, next)));
        }
    }
    cuts
}

#[test]
fn wherever_the_process_ends_a_rotation_on_the_classic_nucleus_ends_confirmed_or_reported() {
    cut_everywhere(Kind::Classic);
}

#[test]
fn wherever_the_process_ends_a_rotation_on_the_lite_nucleus_ends_confirmed_or_reported() {
    cut_everywhere(Kind::Lite);
}

fn cut_everywhere(kind: Kind) {
    let (mut total, mut faults) = (0, vec![]);
    for story in STORIES {
        let points = tell(story, kind, None).points;
        let cuts = cuts(&points);
        for cut in &cuts {
            if catch_unwind(AssertUnwindSafe(|| tell(story, kind, Some(*cut)))).is_err() {
                faults.push(format!("{}: {cut:?}", story.0));
                break;
            }
        }
        println!("{}: {} cuts at {} effects", story.0, cuts.len(), points.len());
        total += cuts.len();
    }
    println!("{kind:?}: {} stories, {total} cuts", STORIES.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// How many schedules; a soak sets more.
fn schedules() -> u64 {
    std::env::var("CERTRELAY_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[test]
fn no_schedule_strands_the_core_or_confuses_two_certificates() {
    let first = std::env::var("CERTRELAY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    let mut totals = [0; 5];
    for seed in first..first + schedules() {
        let outcome = catch_unwind(|| {
            let mut world = schedules::schedule(seed);
            world.must_settle();
            world
        });
        let world = outcome.unwrap_or_else(|_| panic!("schedule {seed} fails"));
        let counts = [
            world.points.len(),
            world.cloud.acked.len(),
            world.cloud.errors.iter().filter(|error| error.2).count(),
            world.witness.rolled_back,
            world.witness.restarts.len(),
        ];
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    let [effects, acks, failures, back, restarts] = totals;
    println!(
        "{} schedules: {effects} effects, {acks} acks, {failures} failures told, {back} rolled back, {restarts} restarts",
        schedules()
    );
    assert!(acks > 0 && failures > 0 && back > 0);
}
