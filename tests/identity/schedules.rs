//! Schedules drawn from a seed: weeks of rotations, with any fault at any time.

use certrelay::identity::Command;

use crate::{
    nucleus::{Kind, Restarts},
    stories::{close_window, down, open_window, send_junk, send_stranger, up},
    world::{Act, Clock, DAY, HOUR, MINUTE, SECOND, World},
};

/// A fault, and how it ends.
type Fault = (fn(&mut World), fn(&mut World), u64);

fn nothing(_: &mut World) {}

fn restarts_work(world: &mut World) {
    world.nucleus.restarts = Restarts::Work;
}

fn clock_is_right(world: &mut World) {
    world.clock = Clock::True;
}

/// What may happen, and for how long at the most.
const FAULTS: &[Fault] = &[
    (down, up, 5 * DAY),
    (down, up, HOUR),
    (|w| w.restart_component(), nothing, 0),
    (|w| w.restart_component(), nothing, 0),
    (|w| w.restart_nucleus(), nothing, 0),
    (|w| w.restart_nucleus(), nothing, 0),
    (|w| w.cut_power(), nothing, 0),
    (close_window, open_window, 5 * DAY),
    (|w| w.deployment = true, |w| w.deployment = false, 2 * HOUR),
    (|w| w.cloud.refuses_all = true, |w| w.cloud.refuses_all = false, 6 * HOUR),
    (|w| w.cloud.refuses_new = true, |w| w.cloud.refuses_new = false, 2 * DAY),
    (|w| w.cloud.turns = true, |w| w.cloud.turns = false, 2 * DAY),
    (|w| w.cloud.tls_trouble = true, |w| w.cloud.tls_trouble = false, DAY),
    (|w| w.cloud.permits_probes = false, |w| w.cloud.permits_probes = true, 9 * DAY),
    (|w| w.nucleus.no_loopback = true, World::permit_loopback, 9 * DAY),
    (|w| w.cloud.settles = false, |w| w.cloud.settles = true, 20 * DAY),
    (|w| w.nucleus.restarts = Restarts::Fail, restarts_work, 2 * DAY),
    (|w| w.nucleus.restarts = Restarts::DoNothing, restarts_work, 2 * DAY),
    (|w| w.nucleus.restarts = Restarts::WrongUnit, restarts_work, 2 * DAY),
    (|w| w.nucleus.restarts = Restarts::Late(3), restarts_work, 2 * DAY),
    (|w| w.nucleus.restarts = Restarts::Late(25), restarts_work, 2 * DAY),
    (|w| w.clock = Clock::Unknown, clock_is_right, 5 * DAY),
    (|w| w.tell_lies(), clock_is_right, 5 * DAY),
    (|w| w.disk.fail = 3, nothing, 0),
    (|w| w.disk.unreadable = true, |w| w.disk.unreadable = false, DAY),
    (World::ask, nothing, 0),
    (World::ask, World::ask, HOUR),
    (World::withdraw, nothing, 0),
    (World::replace_certificate, nothing, 0),
    (send_stranger, send_junk, HOUR),
    (|w| w.command(Command::RestartNow), nothing, 0),
    (|w| w.command(Command::Rotate), nothing, 0),
    (|w| w.command(Command::Detach), nothing, 0),
    (|w| w.roll_back_while_it_is_safe(), nothing, 0),
];

/// A schedule that has run.
pub fn schedule(seed: u64) -> World {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let kind = if rng.bool() { Kind::Classic } else { Kind::Lite };
    let mut world = World::new(kind, seed);
    world.max_restarts = rng.u32(2..7);
    world.disk.reuse = rng.u8(..6) == 0;
    let days = rng.u64(3..40);
    let asks: Vec<u64> = (0..rng.u64(1..5)).map(|_| rng.u64(..days * DAY)).collect();
    for ask in &asks {
        world.later(*ask, Act::Do(World::ask));
    }
    for _ in 0..rng.u64(..24) {
        let (begin, end, longest) = *rng.choice(FAULTS).expect("some");
        // Most faults come close to a request, where something is under way.
        let ask = *rng.choice(&asks).expect("some");
        let at = match rng.u8(..8) {
            0..3 => ask + rng.u64(..20 * SECOND),
            3..5 => ask + rng.u64(..5 * MINUTE),
            5..7 => ask + rng.u64(..2 * HOUR),
            _ => rng.u64(..days * DAY),
        };
        let lasts = rng.u64(..=longest);
        if at < days * DAY {
            world.later(at, Act::Do(begin));
            world.later(at + lasts, Act::Do(end));
        }
    }
    world.run(days * DAY);
    world.heal();
    world
}
