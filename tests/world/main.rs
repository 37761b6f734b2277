//! The relay in a world of its own: months in milliseconds, with every fault that we can think of.
//!
//! The cloud, the gateways and the children are simulated; the relay, its records and every CSR and
//! certificate are real. After every step the world checks that no device is stranded, that no
//! certificate is acknowledged by an ack about another, and that nothing grows.

mod cloud;
mod device;
mod gateway;
mod pki;
mod world;

use cloud::Manners;
use device::Nature;
use world::{Act, DAY, HOUR, MINUTE, Weather, World};

const MODERN: Manners = Manners { rotation_ids: true, names_core: true, results: true };
const PLAIN: Manners = Manners { rotation_ids: false, names_core: false, results: false };

#[test]
fn every_kind_of_device_rotates_in_fair_weather() {
    for manners in [MODERN, PLAIN] {
        let natures = [
            (Nature::Contract, false),
            (Nature::Blog, false),
            (Nature::Blog, true),
            (Nature::Broken, false),
        ];
        let mut world = World::new(1, manners, &natures, 1);
        world.must_converge();
        println!(
            "{manners:?}: {} steps, {} CSRs, {} acks",
            world.steps, world.cloud.csrs, world.cloud.acks
        );
    }
}

/// A schedule drawn from a seed.
fn schedule(seed: u64) -> World {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let manners = Manners { rotation_ids: rng.bool(), names_core: rng.bool(), results: rng.bool() };
    let gateways = 1 + rng.usize(..2);
    let natures: Vec<(Nature, bool)> = (0..rng.usize(1..6))
        .map(|_| {
            (
                *rng.choice(&[Nature::Contract, Nature::Blog, Nature::Broken]).expect("some"),
                rng.bool(),
            )
        })
        .collect();
    let mut world = World::new(seed, manners, &natures, gateways);
    let delay = *rng.choice(&[50, 5_000, 10 * MINUTE]).expect("some");
    world.weather = Weather { lose: rng.u8(..30), double: rng.u8(..30), delay };
    let days = rng.u64(5..90);
    let mut asks = vec![];
    for device in 0..natures.len() {
        let every = rng.u64(DAY..20 * DAY);
        let mut at = rng.u64(..every);
        while at < days * DAY {
            world.later(at, Act::Ask(device));
            asks.push(at);
            at += every;
        }
    }
    for _ in 0..rng.u64(..days * 4) {
        let gateway = rng.usize(..gateways);
        let device = rng.usize(..natures.len());
        // Half of the faults come close to a request, where something is under way.
        let at = match rng.choice(&asks) {
            Some(ask) if rng.bool() => ask + rng.u64(..2 * HOUR),
            _ => rng.u64(..days * DAY),
        };
        let (off, on, lasts) = match rng.u8(..14) {
            0 | 1 => (Act::CloudDown(gateway), Act::CloudUp(gateway), rng.u64(..5 * DAY)),
            2 => (Act::FloorDown(gateway), Act::FloorUp(gateway), rng.u64(..DAY)),
            3 => (Act::FloorForgets(gateway), Act::FloorUp(gateway), 0),
            4 => (Act::Crash(gateway), Act::CutAfter(gateway, rng.u64(..40)), rng.u64(..HOUR)),
            5 | 6 => (Act::DeviceOff(device), Act::DeviceOn(device), rng.u64(..6 * DAY)),
            7 => (Act::DeviceBlinks(device), Act::DeviceBlinks(device), rng.u64(..HOUR)),
            9 => {
                let [one, other] = [rng.u64(..), rng.u64(..)];
                let back = Some(other).filter(|_| rng.bool());
                let (one, other) =
                    (Act::Reconfigure(gateway, Some(one)), Act::Reconfigure(gateway, back));
                (one, other, rng.u64(..10 * DAY))
            }
            10 => (Act::Deaf(gateway), Act::Deaf(gateway), rng.u64(..DAY)),
            11 => {
                let kind = *rng.choice(&["/csr_req", "/crt", "/result"]).expect("some");
                (Act::LosesOne(gateway, kind), Act::LosesOne(gateway, kind), rng.u64(..DAY))
            }
            8 => (Act::ClockLost(gateway), Act::ClockFound(gateway), rng.u64(..10 * DAY)),
            _ => (Act::Mischief(gateway), Act::Mischief(gateway), rng.u64(..DAY)),
        };
        world.later(at, off);
        world.later(at + lasts, on);
    }
    world.run(days * DAY);
    world
}

/// How many schedules; a soak sets more.
fn schedules() -> u64 {
    std::env::var("CERTRELAY_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[test]
fn no_schedule_strands_a_device_or_confuses_two_certificates() {
    let first = std::env::var("CERTRELAY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    let (mut steps, mut restarts) = (0, 0);
    for seed in first..first + schedules() {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = schedule(seed);
            world.must_converge();
            (world.steps, world.gateways.iter().map(|g| g.restarts).sum::<u64>())
        });
        let (s, r) = outcome.unwrap_or_else(|_| panic!("schedule {seed} fails"));
        steps += s;
        restarts += r;
    }
    println!("{} schedules, {steps} steps, {restarts} restarts", schedules());
}

/// A short story in which everything that is committed happens once.
fn story(manners: Manners, cut: Option<u64>) -> World {
    let natures = [(Nature::Contract, false), (Nature::Blog, false), (Nature::Broken, false)];
    let mut world = World::new(7, manners, &natures, 1);
    (world.gateways[0].cut, world.gateways[0].points) = (cut, 0);
    for device in 0..natures.len() {
        world.act(Act::Ask(device));
    }
    world.run(DAY);
    world.act(Act::CloudDown(0));
    world.act(Act::DeviceOff(0));
    for device in 0..natures.len() {
        world.act(Act::Ask(device));
    }
    world.run(2 * DAY);
    world.act(Act::CloudUp(0));
    world.run(HOUR);
    world.act(Act::DeviceOn(0));
    world.run(DAY);
    world
}

#[test]
fn a_cut_at_any_point_between_commit_and_effects_is_made_good_from_the_store_alone() {
    let mut points = 0;
    for manners in [MODERN, PLAIN] {
        let count = story(manners, None).gateways[0].points;
        assert!(count > 100, "the story has only {count} points");
        for cut in 0..count {
            let mut world = story(manners, Some(cut));
            assert_eq!(world.gateways[0].restarts, 1, "point {cut} was not reached");
            world.must_converge();
        }
        points += count;
    }
    println!("{points} crash points");
}

#[test]
fn messages_that_are_delivered_again_after_a_restart_acknowledge_nothing() {
    let mut replays = 0;
    for manners in [MODERN, PLAIN] {
        let count = story(manners, None).acknowledged.len();
        assert!(count > 10, "only {count} messages");
        for prefix in 1..=count {
            for under_way in [false, true] {
                let mut world = story(manners, None);
                if under_way {
                    (0..world.devices.len()).for_each(|device| world.act(Act::DeviceOff(device)));
                    (0..world.devices.len()).for_each(|device| world.act(Act::Ask(device)));
                    world.run(MINUTE);
                }
                let acks = world.cloud.acks;
                let acked = world.acked.clone();
                world.act(Act::Replay(0, prefix));
                world.run(10 * MINUTE);
                assert_eq!(
                    world.acked, acked,
                    "a replay of {prefix} messages acknowledged something"
                );
                assert!(world.cloud.acks <= acks + 6);
                world.must_converge();
                replays += 1;
            }
        }
    }
    println!("{replays} replays");
}
