//! One sentence for each rule.

use certrelay::{
    identity::{Command, Event, Job, Pair, ProbeName, Saved, Stage, Told},
    reason::Reason,
    wire::Kind as Message,
};

use crate::{
    KINDS,
    cloud::Uplink,
    nucleus::{Kind, Restarts},
    relay::Stage as Relayed,
    stories::{close_window, down, open_window, up},
    world::{Clock, DAY, HOUR, MINUTE, SECOND, World},
};

fn asked(kind: Kind, prepare: impl Fn(&mut World)) -> World {
    asked_by(7, kind, prepare)
}

fn asked_by(seed: u64, kind: Kind, prepare: impl Fn(&mut World)) -> World {
    let mut world = World::new(kind, seed);
    prepare(&mut world);
    world.run(MINUTE);
    world.ask();
    world
}

fn when(world: &World, is: impl Fn(&Told) -> bool) -> u64 {
    world.witness.told.iter().find(|told| is(&told.1)).expect("it was told").0
}

fn stage(world: &World) -> &'static str {
    world.process.as_ref().expect("alive").identity.saved().stage.name()
}

fn restarts(world: &World) -> usize {
    world.witness.restarts.len()
}

#[test]
fn a_certificate_rotates_with_one_restart_and_the_old_pair_goes_when_that_is_settled() {
    for kind in KINDS {
        let mut world = asked(kind, |_| {});
        world.must_settle();
        world.run(5 * MINUTE);
        assert_eq!((world.cloud.acked.len(), restarts(&world)), (1, 1));
        assert!(world.cloud.errors.is_empty());
        assert_eq!(world.disk.generations.len(), 1);
    }
}

#[test]
fn a_pair_is_given_up_after_five_refusals_over_ten_minutes_and_nothing_was_touched() {
    for seed in 0..20 {
        let mut world = asked_by(seed, Kind::Classic, |world| world.cloud.refuses_new = true);
        world.run(30 * MINUTE);
        let begun = when(&world, |told| matches!(told, Told::ProbeRefused(1, _)));
        let ended = when(&world, |told| matches!(told, Told::GaveUp(_, Reason::ProbeRefused)));
        assert!((10 * MINUTE..20 * MINUTE).contains(&(ended - begun)), "{}", ended - begun);
        let touches = |job: &Job| matches!(job, Job::Attach | Job::Switch { .. } | Job::Restart);
        assert!(!world.witness.begun.iter().any(|(_, job)| touches(job)));
        assert_eq!(world.cloud.errors.last().expect("told").0, "probe-refused");
    }
}

#[test]
fn after_the_restart_three_refusals_over_ten_minutes_bring_the_old_pair_back() {
    for kind in KINDS {
        let mut world = asked(kind, |world| world.cloud.turns = true);
        let old = world.disk.configured().1.facts.id;
        world.run(HOUR);
        let begun = when(&world, |told| matches!(told, Told::Restarted(_)));
        let back = when(&world, |told| matches!(told, Told::RollingBack(..)));
        assert!((12 * MINUTE..25 * MINUTE).contains(&(back - begun)), "{}", back - begun);
        assert_eq!((world.nucleus.loaded, restarts(&world)), (old, 2));
        assert_eq!(world.cloud.errors.last().expect("told").0, "refused-after-restart");
    }
}

#[test]
fn the_name_of_the_nucleus_is_used_for_a_probe_only_after_it_had_ten_minutes() {
    let mut world = asked(Kind::Classic, |world| {
        (world.cloud.permits_probes, world.cloud.turns) = (false, true);
    });
    world.run(2 * HOUR);
    let restarted = when(&world, |told| matches!(told, Told::Restarted(_)));
    let in_place = |job: &Job| matches!(job, Job::Probe { name: ProbeName::InPlace, .. });
    let first = world.witness.begun.iter().find(|(_, job)| in_place(job)).expect("probed").0;
    assert!(first - restarted >= 10 * MINUTE, "{}", first - restarted);
    assert_eq!(world.witness.rolled_back, 1);
}

#[test]
fn where_probes_stop_being_permitted_after_the_restart_the_pair_is_tried_in_place() {
    let mut world = asked(Kind::Classic, |world| {
        world.cloud.turns = true;
        world.once.push(("Restarting", 0, |world| world.cloud.permits_probes = false));
    });
    world.run(2 * HOUR);
    assert_eq!(world.witness.rolled_back, 1);
}

#[test]
fn a_pair_that_waited_for_its_window_is_tried_anew_before_it_is_installed() {
    let mut world = asked(Kind::Classic, close_window);
    world.run(3 * DAY);
    assert_eq!((stage(&world), restarts(&world)), ("await-window", 0));
    world.cloud.refuses_new = true;
    let new = world.disk.leaf(Pair::Generation(certrelay::install::Generation(1)));
    world.cloud.end(new.expect("stored").facts.id);
    open_window(&mut world);
    world.run(HOUR);
    assert_eq!(restarts(&world), 0, "the cloud has changed its mind meanwhile");
    assert_eq!(world.cloud.errors.last().expect("told").0, "probe-refused");
}

#[test]
fn one_restart_of_the_day_is_left_for_the_way_back_and_the_next_comes_a_day_later() {
    let mut world = asked(Kind::Classic, |world| world.nucleus.restarts = Restarts::DoNothing);
    world.run(HOUR);
    world.relay.down_due = None;
    world.run(22 * HOUR);
    assert_eq!(restarts(&world), 3);
    let gaps: Vec<u64> = world.witness.restarts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= 20 * MINUTE), "{gaps:?}");
    world.command(Command::Rollback);
    world.run(MINUTE);
    assert_eq!(restarts(&world), 4, "the way back may");
    world.run(DAY);
    assert!((5..=8).contains(&restarts(&world)), "it wakes up by itself: {}", restarts(&world));
}

#[test]
fn a_rotation_that_the_restarts_of_the_day_hold_up_goes_on_by_itself() {
    let mut world = asked(Kind::Classic, |world| world.max_restarts = 2);
    world.must_settle();
    world.ask();
    world.run(10 * MINUTE);
    world.relay.down_due = None;
    assert_eq!((stage(&world), restarts(&world)), ("await-window", 1));
    world.run(DAY);
    assert_eq!(restarts(&world), 2);
}

#[test]
fn a_day_is_counted_from_the_restart_however_long_its_note_took_to_save() {
    let mut world = asked(Kind::Classic, |world| {
        (world.max_restarts, world.nucleus.restarts) = (2, Restarts::DoNothing);
        world.once.push(("Switched", 0, |world| world.disk.fail = 4));
    });
    world.run(3 * DAY);
    assert!((2..=3).contains(&restarts(&world)), "{}", restarts(&world));
}

#[test]
fn a_way_back_on_which_the_wrong_unit_is_restarted_is_told_and_paced() {
    let mut world = asked(Kind::Classic, |world| {
        world.cloud.turns = true;
        world.once.push(("Restarted", 0, |world| world.nucleus.restarts = Restarts::WrongUnit));
    });
    world.run(25 * MINUTE);
    let back = when(&world, |told| matches!(told, Told::RollingBack(..)));
    let soon = |at: &&u64| (back..back + 15 * MINUTE).contains(*at);
    assert_eq!(world.witness.restarts.iter().filter(soon).count(), 1);
    world.run(20 * MINUTE);
    let waits = |up: &Uplink| matches!(up, Uplink::Err { code, .. } if code == "restart-failed");
    assert!(world.relay.up.iter().any(waits), "there is no link to tell it");
}

#[test]
fn without_a_loopback_the_pair_counts_as_confirmed_once_it_was_taken_over_ten_minutes() {
    let mut world = asked(Kind::Classic, |_| {});
    world.nucleus.no_loopback = true;
    world.run(HOUR);
    let restarted = when(&world, |told| matches!(told, Told::Restarted(_)));
    let confirmed = when(&world, |told| matches!(told, Told::Confirmed(_)));
    assert!(confirmed - restarted >= 12 * MINUTE, "{}", confirmed - restarted);
    assert_eq!(world.cloud.acked.len(), 1);
}

#[test]
fn one_acceptance_takes_back_all_refusals_before_it() {
    let mut world = asked(Kind::Classic, |world| {
        world.once.push(("Restarting", 0, |world| world.nucleus.stays_away = true));
    });
    world.run(MINUTE);
    let new = world.disk.configured().1.facts.id;
    for _ in 0..20 {
        let refusals = |world: &World| {
            let refused = |told: &&(u64, Told)| matches!(told.1, Told::ProbeRefused(..));
            world.witness.told.iter().filter(refused).count()
        };
        let so_far = refusals(&world);
        world.cloud.end(new);
        assert!(world.run_until(HOUR, |world| refusals(world) == so_far + 2));
        world.cloud.activate(new);
        world.run(10 * MINUTE);
    }
    assert_eq!((stage(&world), world.witness.rolled_back), ("confirming", 0));
}

#[test]
fn a_restart_that_does_not_come_is_told_whether_this_process_lives_or_not() {
    for (mode, code) in [
        (Restarts::DoNothing, "restart-failed"),
        (Restarts::WrongUnit, "restart-failed"),
        (Restarts::Fail, "cannot-restart"),
    ] {
        let mut world = asked(Kind::Classic, |world| world.nucleus.restarts = mode);
        world.run(15 * MINUTE);
        let codes: Vec<&str> = world.cloud.errors.iter().map(|error| error.0.as_str()).collect();
        assert_eq!(codes, [code], "{mode:?}");
        assert_eq!(restarts(&world), 1, "{mode:?}");
        assert!(world.cloud.acked.is_empty());
    }
}

#[test]
fn the_old_pair_is_kept_for_seven_days_where_no_result_comes() {
    let mut world = asked(Kind::Classic, |world| world.cloud.settles = false);
    world.must_settle();
    for _ in 0..13 {
        world.run(12 * HOUR);
        world.restart_component();
    }
    assert_eq!(world.disk.generations.len(), 2);
    world.run(12 * HOUR + MINUTE);
    assert_eq!(world.disk.generations.len(), 1);
}

#[test]
fn no_link_for_days_rolls_nothing_back_and_restarts_nothing() {
    for before in [true, false] {
        let mut world = asked(Kind::Lite, |world| match before {
            true => close_window(world),
            false => world.once.push(("Restarting", 0, down)),
        });
        world.run(HOUR);
        down(&mut world);
        open_window(&mut world);
        let so_far = restarts(&world);
        world.run(10 * DAY);
        assert_eq!((restarts(&world), world.witness.rolled_back), (so_far, 0));
        up(&mut world);
        world.must_settle();
        assert_eq!(world.cloud.acked.len(), 1);
    }
}

#[test]
fn restart_now_passes_over_the_window_for_the_pair_that_waits_and_for_no_other() {
    let mut world = asked(Kind::Classic, close_window);
    world.run(HOUR);
    world.command(Command::RestartNow);
    world.run(MINUTE);
    assert_eq!(restarts(&world), 1);
    let mut world = asked(Kind::Classic, close_window);
    world.run(HOUR);
    world.deployment = true;
    world.command(Command::RestartNow);
    world.run(30 * HOUR);
    world.ask();
    world.run(10 * MINUTE);
    assert_eq!(world.disk.keys, 2, "the CSR was older than a day");
    world.deployment = false;
    world.run(HOUR);
    assert_eq!((stage(&world), restarts(&world)), ("await-window", 0));
}

#[test]
fn without_a_trusted_clock_the_window_is_opened_by_hand_alone() {
    let mut world = asked(Kind::Classic, |world| world.clock = Clock::Unknown);
    world.run(DAY);
    assert_eq!((stage(&world), restarts(&world)), ("await-window", 0));
    world.command(Command::RestartNow);
    world.run(HOUR);
    assert_eq!(world.cloud.acked.len(), 1);
}

#[test]
fn a_switch_is_critical_for_five_minutes_at_the_most() {
    let mut world = asked(Kind::Classic, |world| world.nucleus.restarts = Restarts::DoNothing);
    let mut critical = 0;
    for _ in 0..19 * 60 {
        world.run(SECOND);
        critical += u64::from(world.process.as_ref().is_some_and(|p| p.identity.is_critical()));
    }
    assert!((290..=305).contains(&critical), "{critical} s");
}

#[test]
fn a_repeated_request_gets_the_same_csr_and_a_second_one_waits_once_a_pair_is_installed() {
    let mut world = asked(Kind::Classic, down);
    world.run(MINUTE);
    world.ask();
    world.run(HOUR);
    assert_eq!(world.disk.keys, 1);
    world.nucleus.restarts = Restarts::Late(4);
    world.once.push(("Switched", 10, World::ask));
    up(&mut world);
    world.run(15 * MINUTE);
    assert!(world.witness.told.iter().any(|told| told.1 == Told::Ignored(Reason::TooSoon)));
    world.must_settle();
    assert_eq!((world.disk.keys, world.cloud.acked.len()), (2, 1), "the newer rotation counts");
}

#[test]
fn a_certificate_that_is_withdrawn_while_another_of_its_key_is_stored_takes_nothing_along() {
    let mut world = asked(Kind::Classic, |world| world.cloud.tls_trouble = true);
    world.run(MINUTE);
    let Relayed::AwaitAck(first) = world.relay.stage.clone() else { panic!("no certificate") };
    world.run(20 * SECOND);
    world.replace_certificate();
    let is_stored = |world: &World| {
        let stores = |(_, job): &&(u64, Job)| matches!(job, Job::StoreCertificate { .. });
        world.witness.begun.iter().filter(stores).count() == 2
    };
    assert!(world.run_until(MINUTE, is_stored));
    world.hand(Event::Withdrawn(first.facts.id));
    world.run(MINUTE);
    world.cloud.tls_trouble = false;
    world.must_settle();
    assert_eq!(world.cloud.acked.len(), 1);
}

#[test]
fn the_certificate_in_use_is_acknowledged_once_more_and_never_tried_as_a_new_one() {
    let mut world = asked(Kind::Classic, |world| world.disk.reuse = true);
    world.must_settle();
    world.ask();
    world.run(HOUR);
    assert_eq!((world.cloud.acked.len(), restarts(&world)), (2, 1));
    assert_eq!(world.cloud.acked[0], world.cloud.acked[1]);
    assert_eq!(stage(&world), "idle");
}

#[test]
fn nothing_is_detached_while_a_rotation_is_under_way_and_all_of_it_after() {
    let mut world = asked(Kind::Classic, close_window);
    world.run(HOUR);
    world.command(Command::Detach);
    assert!(world.witness.answers.last().expect("an answer").is_err());
    open_window(&mut world);
    world.must_settle();
    let current = world.disk.configured();
    world.command(Command::Detach);
    world.run(MINUTE);
    assert!(world.witness.answers.last().expect("an answer").is_ok());
    assert_eq!((world.disk.current(), world.disk.configured()), (None, current));
    assert!(world.disk.generations.is_empty() && world.disk.saved.is_none());
}

#[test]
fn files_that_somebody_put_under_the_configured_paths_are_the_truth() {
    let mut world = asked(Kind::Classic, |world| world.nucleus.restarts = Restarts::DoNothing);
    world.run(2 * MINUTE);
    world.witness.by_hand = true;
    world.witness.unguard_all();
    world.disk.replace_by_hand(0, crate::pki::leaf(0, 0));
    world.restart_component();
    world.run(10 * MINUTE);
    assert_eq!(stage(&world), "idle");
    assert_eq!(world.cloud.errors.last().expect("told").0, "superseded");
    assert_eq!(world.disk.current(), None);
}

#[test]
fn more_messages_than_have_room_are_dropped_and_told() {
    let mut world = World::new(Kind::Classic, 7);
    world.run(MINUTE);
    (0..20).for_each(|_| world.send(Message::CsrReq, b"{}".to_vec()));
    let floods =
        world.witness.told.iter().filter(|told| told.1 == Told::Ignored(Reason::Flood)).count();
    assert_eq!(floods, 11);
    world.run(MINUTE);
    assert_eq!(world.disk.keys, 1);
}

/// What is on the disks of those who update.
#[test]
fn the_forms_on_disk_are_read_back() {
    let id = "ab".repeat(32);
    let candidate = format!(
        r#"{{"generation":2,"key":"{id}","certificate":"{id}","notAfter":1900000000000,"rotation":"r-1"}}"#
    );
    let run = r#"{"boot":"b","token":"t","socket":"s"}"#;
    let why = r#"{"code":"refused-after-restart","error":"hung up"}"#;
    let stages = [
        (r#"{"is":"idle"}"#.to_owned(), "idle"),
        (
            format!(r#"{{"is":"awaitCertificate","generation":2,"key":"{id}","made":5}}"#),
            "await-certificate",
        ),
        (format!(r#"{{"is":"probing","candidate":{candidate}}}"#), "probing"),
        (
            format!(r#"{{"is":"awaitWindow","candidate":{candidate},"proof":"not-permitted"}}"#),
            "await-window",
        ),
        (
            format!(
                r#"{{"is":"installed","candidate":{candidate},"proof":"probed","previous":1,"before":{run}}}"#
            ),
            "installed",
        ),
        (
            format!(
                r#"{{"is":"confirming","candidate":{candidate},"proof":"probed","previous":1}}"#
            ),
            "confirming",
        ),
        (
            format!(
                r#"{{"is":"rollingBack","candidate":{candidate},"to":1,"before":{run},"why":{why}}}"#
            ),
            "rolling-back",
        ),
    ];
    for (stage, name) in stages {
        let json = format!(
            r#"{{"stage":{stage},"kept":{{"generation":1,"untilSettled":"{id}","since":7}},"ended":{{"certificate":"{id}","failed":{why},"told":true,"at":9}},"restarts":[{{"boot":"b","uptime":3,"wall":4}}]}}"#
        );
        let saved: Saved = serde_json::from_str(&json).expect("readable");
        assert_eq!(saved.stage.name(), name);
        assert_eq!(serde_json::to_string(&saved).expect("writes"), json);
    }
    let least: Saved = serde_json::from_str(r#"{"stage":{"is":"idle"}}"#).expect("readable");
    assert_eq!((least.stage.clone(), least), (Stage::Idle, Saved::default()));
}
