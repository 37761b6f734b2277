//! The core's own credential in a world of its own: every crash, hostile orders, years in
//! milliseconds.
//!
//! The identity and every CSR and certificate are real; the disk, the nucleus, the relay, the cloud
//! and time are played. After every step the witness checks what must never be.

mod cloud;
mod disk;
mod nucleus;
mod pki;
mod relay;
mod stories;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use nucleus::Kind;
use stories::{STORIES, Story};
use world::{Act, MINUTE, Next, Tear, World};

const KINDS: [Kind; 2] = [Kind::Classic, Kind::Lite];

/// A process may end at so many effects of a story, and at every tenth or so after that.
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

fn cuts(points: usize) -> impl Iterator<Item = Cut> {
    let step = (points / 30).max(1);
    let at = (0..points.min(CLOSELY)).chain((CLOSELY..points).step_by(step));
    let tears = [Tear::Before, Tear::Torn, Tear::After];
    let nexts = [Next::Component, Next::Nucleus, Next::Power];
    at.flat_map(move |at| {
        tears.into_iter().flat_map(move |tear| nexts.map(|next| (at, tear, next)))
    })
}

#[test]
fn wherever_the_process_ends_a_rotation_ends_confirmed_or_reported() {
    let mut total = 0;
    let only = std::env::var("CERTRELAY_STORY").unwrap_or_default();
    let mut faults = vec![];
    for story in STORIES.iter().filter(|story| story.0.contains(&only)) {
        for kind in KINDS {
            let outcome = catch_unwind(AssertUnwindSafe(|| tell(story, kind, None).points));
            let Ok(points) = outcome else {
                faults.push(format!("{kind:?}: {}", story.0));
                continue;
            };
            let mut done = 0;
            for cut in cuts(points) {
                if catch_unwind(AssertUnwindSafe(|| tell(story, kind, Some(cut)))).is_err() {
                    faults.push(format!("{kind:?}: {} {cut:?}", story.0));
                    break;
                }
                done += 1;
            }
            println!("{kind:?}: {}: {done} cuts at {points} effects", story.0);
            total += done;
        }
    }
    println!("{total} cuts");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
