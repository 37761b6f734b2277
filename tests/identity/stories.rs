//! What may come of a rotation, told with a crash at every effect.

use certrelay::{
    identity::Command,
    wire::{Header, Kind as Message, render},
};

use crate::{
    nucleus::Restarts,
    pki,
    world::{Act, Clock, DAY, HOUR, MINUTE, World},
};

/// A story: its name, what is prepared, and how long it goes on before all is well again.
pub type Story = (&'static str, fn(&mut World), u64);

fn down(world: &mut World) {
    world.set_reachable(false);
}

fn up(world: &mut World) {
    world.set_reachable(true);
}

fn roll_back(world: &mut World) {
    world.command(Command::Rollback);
}

fn close_window(world: &mut World) {
    world.window = false;
}

fn open_window(world: &mut World) {
    world.window = true;
}

fn send_stranger(world: &mut World) {
    let leaf = pki::leaf(99, 1);
    world.send(Message::Crt, render::crt(&Header::default(), [&leaf.der[..]]));
}

fn send_junk(world: &mut World) {
    for payload in [&b""[..], b"{", b"{\"certificatePem\":7}", &[0xff; 300]] {
        world.send(Message::Crt, payload.to_vec());
        world.send(Message::CsrReq, payload.to_vec());
    }
}

fn confirm_without_loopback(world: &mut World) {
    world.nucleus.no_loopback = true;
}

/// All of them.
pub const STORIES: &[Story] = &[
    ("all is well", |_| {}, HOUR),
    ("refused at the probe", |w| w.cloud.refuses_new = true, HOUR),
    ("no probe is permitted", |w| w.cloud.permits_probes = false, 2 * HOUR),
    (
        "no probe is permitted, and refused after the restart",
        |w| {
            (w.cloud.permits_probes, w.cloud.turns) = (false, true);
        },
        3 * HOUR,
    ),
    ("taken at the probe, refused after the restart", |w| w.cloud.turns = true, 2 * HOUR),
    ("the restart fails", |w| w.nucleus.restarts = Restarts::Fail, HOUR),
    ("the restart is late", |w| w.nucleus.restarts = Restarts::Late(4), HOUR),
    ("the restart is very late", |w| w.nucleus.restarts = Restarts::Late(12), HOUR),
    ("the wrong unit is restarted", |w| w.nucleus.restarts = Restarts::WrongUnit, 3 * HOUR),
    ("the restart does nothing", |w| w.nucleus.restarts = Restarts::DoNothing, 3 * HOUR),
    ("no link for days after the restart", |w| w.once.push(("Restarting", 0, down)), 3 * DAY),
    (
        "no link for an hour from the first",
        |w| {
            down(w);
            w.later(2 * HOUR, Act::Do(up));
        },
        3 * HOUR,
    ),
    ("no result ever comes", |w| w.cloud.settles = false, 9 * DAY),
    ("no loopback", confirm_without_loopback, 2 * HOUR),
    (
        "the window is closed for days",
        |w| {
            close_window(w);
            w.later(3 * DAY, Act::Do(open_window));
        },
        3 * DAY + HOUR,
    ),
    (
        "somebody passes over the window",
        |w| {
            close_window(w);
            w.later(HOUR, Act::Command(Command::RestartNow));
        },
        2 * HOUR,
    ),
    (
        "the window closes after the switch",
        |w| {
            w.once.push(("Switched", 0, close_window));
            w.later(DAY, Act::Do(open_window));
        },
        DAY + HOUR,
    ),
    (
        "a deployment is under way",
        |w| {
            w.deployment = true;
            w.later(HOUR, Act::Do(|w| w.deployment = false));
        },
        2 * HOUR,
    ),
    (
        "a deployment begins after the switch",
        |w| {
            w.once.push(("Switched", 0, |w| w.deployment = true));
            w.later(HOUR, Act::Do(|w| w.deployment = false));
        },
        2 * HOUR,
    ),
    ("a second request once there is a key", |w| w.once.push(("KeyMade", 50, World::ask)), HOUR),
    (
        "a second request while it is tried",
        |w| {
            w.once.push(("CertificateTaken", 500, World::ask));
        },
        HOUR,
    ),
    (
        "a second request while the window is closed",
        |w| {
            close_window(w);
            w.later(30 * HOUR, Act::Do(World::ask));
            w.later(40 * HOUR, Act::Do(open_window));
        },
        2 * DAY,
    ),
    (
        "a second request once it is installed",
        |w| {
            w.nucleus.restarts = Restarts::Late(4);
            w.once.push(("Switched", 50, World::ask));
        },
        HOUR,
    ),
    (
        "a second request while it is confirmed",
        |w| w.once.push(("Restarted", 50, World::ask)),
        HOUR,
    ),
    ("two rotations, one after the other", |w| w.later(2 * HOUR, Act::Do(World::ask)), 4 * HOUR),
    (
        "rolled back by hand with a key alone",
        |w| {
            w.once.push(("KeyMade", 900, roll_back));
        },
        HOUR,
    ),
    (
        "rolled back by hand while it is tried",
        |w| {
            w.cloud.tls_trouble = true;
            w.later(30 * MINUTE, Act::Do(roll_back));
        },
        HOUR,
    ),
    (
        "rolled back by hand while the window is closed",
        |w| {
            close_window(w);
            w.later(30 * MINUTE, Act::Do(roll_back));
        },
        HOUR,
    ),
    (
        "rolled back by hand once it is installed",
        |w| {
            w.nucleus.restarts = Restarts::Late(10);
            w.once.push(("Restarting", MINUTE, roll_back));
        },
        3 * HOUR,
    ),
    (
        "rolled back by hand while it is confirmed",
        |w| {
            w.once.push(("Restarting", 0, down));
            w.once.push(("Restarted", 2 * MINUTE, roll_back));
        },
        3 * HOUR,
    ),
    (
        "rolled back by hand after the end",
        |w| {
            (w.cloud.settles, w.cloud.retires) = (false, false);
            w.later(HOUR, Act::Do(roll_back));
        },
        3 * HOUR,
    ),
    ("detached after the end", |w| w.later(HOUR, Act::Command(Command::Detach)), 2 * HOUR),
    (
        "detached, and rotated again",
        |w| {
            w.later(HOUR, Act::Command(Command::Detach));
            w.later(2 * HOUR, Act::Do(World::ask));
        },
        4 * HOUR,
    ),
    ("asked for by hand", |w| w.later(2 * HOUR, Act::Command(Command::Rotate)), 4 * HOUR),
    (
        "a certificate for another key",
        |w| {
            for name in ["KeyMade", "CertificateTaken", "Switched", "Restarted", "Confirmed"] {
                w.once.push((name, 70, send_stranger));
                w.once.push((name, 80, send_junk));
            }
        },
        HOUR,
    ),
    ("the key is used again", |w| w.disk.reuse = true, HOUR),
    (
        "the cloud takes it back at once",
        |w| w.once.push(("CertificateTaken", 0, World::withdraw)),
        HOUR,
    ),
    (
        "the cloud takes it back before the window",
        |w| {
            close_window(w);
            w.later(HOUR, Act::Do(World::withdraw));
        },
        2 * HOUR,
    ),
    ("jobs fail", |w| w.disk.fail = 4, 2 * HOUR),
    ("the nucleus' user can't read it", |w| w.disk.unreadable = true, HOUR),
    ("the clock is of 1970", |w| w.clock = Clock::Unknown, 2 * HOUR),
    (
        "the clock is of 2100",
        |w| {
            w.witness.clock_lied = true;
            w.clock = Clock::Lies;
        },
        2 * HOUR,
    ),
    (
        "the clock goes to 2100 after the end",
        |w| {
            w.witness.clock_lied = true;
            w.once.push(("Confirmed", 0, |w| w.clock = Clock::Lies));
        },
        2 * HOUR,
    ),
    (
        "the cloud takes nothing for a while",
        |w| {
            w.once.push(("CertificateTaken", 0, |w| w.cloud.refuses_all = true));
            w.later(3 * HOUR, Act::Do(|w| w.cloud.refuses_all = false));
        },
        4 * HOUR,
    ),
    (
        "the cloud takes nothing for a while after the restart",
        |w| {
            w.once.push(("Restarting", 0, |w| w.cloud.refuses_all = true));
            w.later(6 * HOUR, Act::Do(|w| w.cloud.refuses_all = false));
        },
        7 * HOUR,
    ),
];
