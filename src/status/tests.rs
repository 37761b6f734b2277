use std::os::unix::fs::PermissionsExt;

use super::*;

fn at(text: &str) -> Timestamp {
    let time = humantime::parse_rfc3339(text).expect("a time");
    Timestamp::from_unix_seconds(
        time.duration_since(std::time::UNIX_EPOCH).expect("late").as_secs(),
    )
}

fn summary() -> Summary {
    Summary {
        version: VERSION,
        written_at: at("2026-11-23T12:00:00Z"),
        clock_trusted: true,
        ended: false,
        pid: 321,
        program: "0.1.0".into(),
        started_at: at("2026-11-22T10:00:00Z"),
        core: "core-1".parse().expect("valid"),
        nucleus: None,
        restart_needed: vec![],
        configuration_refused: None,
        client_devices: None,
        core_certificate: None,
        expire_soon: None,
        links: Links {
            local: LinkStatus {
                kind: LinkKind::Mqtt,
                state: LinkState::Up,
                since: None,
                why: None,
            },
            cloud: LinkStatus {
                kind: LinkKind::Greengrass,
                state: LinkState::Down,
                since: Some(at("2026-11-23T11:00:00Z")),
                why: Some("connection refused\u{1b}[2J".into()),
            },
        },
        store: Store {
            failing: Some(StoreFailing { since: None, why: "no space left".into() }),
            set_aside: Some("store.damaged-1".into()),
        },
        counters: Counters {
            local: BTreeMap::from([(Reason::ReservedName, 12), (Reason::Flood, 3)]),
            cloud: BTreeMap::from([(Reason::Flood, 40)]),
            gateway: BTreeMap::new(),
        },
        totals: BTreeMap::from([(RowState::AwaitCsr, 1), (RowState::Done, 1)]),
    }
}

/// The same, of a gateway under a nucleus, with all that may be said of that.
fn under_a_nucleus() -> Summary {
    let summary = summary();
    let local = LinkStatus { kind: LinkKind::Pubsub, ..summary.links.local };
    Summary {
        nucleus: Some(Nucleus::Lite),
        restart_needed: vec!["local.port".into(), "log.format".into()],
        configuration_refused: Some(
            "there are 2 problems:\n  a: bad\u{1b}; mend it\n  b: bad".into(),
        ),
        client_devices: Some(ClientDevices::NotPermitted),
        links: Links { local, ..summary.links },
        ..summary
    }
}

fn text_of(summary: Summary) -> String {
    let snapshot = StatusSnapshot { summary, children: vec![] };
    let mut text = String::new();
    let now = snapshot.summary.written_at;
    render(&mut text, &snapshot, now, Freshness::Fresh).expect("a string takes all");
    text
}

fn row(child: &str) -> Row {
    Row {
        child: child.parse().expect("valid"),
        state: RowState::AwaitCsr,
        since: Some(at("2026-11-23T09:30:00Z")),
        attempts: 4,
        expires: None,
        expiry: None,
        reason: Some(Reason::Requested),
        notices: 0,
    }
}

fn rows() -> Vec<Row> {
    let done = Row {
        state: RowState::Done,
        since: None,
        attempts: 0,
        expires: Some(at("2027-01-01T00:00:00Z")),
        reason: Some(Reason::AckedNamed),
        notices: 1,
        ..row("valve-with-a-longer-name")
    };
    vec![row("pump-1"), done]
}

#[test]
fn a_snapshot_reads_back_as_it_was_written_and_others_can_not_read_it() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &summary(), rows().into_iter()).expect("written");
    let read_back = read(dir.path()).expect("read");
    assert_eq!(read_back, StatusSnapshot { summary: summary(), children: rows() });
    let mode = fs::metadata(dir.path().join(FILE)).expect("there").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_new_snapshot_replaces_the_old_one_and_the_leftover_of_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "mine").expect("written");
    std::os::unix::fs::symlink(&elsewhere, dir.path().join(DRAFT)).expect("linked");
    write(dir.path(), &summary(), rows().into_iter()).expect("written");
    write(dir.path(), &summary(), std::iter::empty()).expect("written");
    assert_eq!(read(dir.path()).expect("read").children, []);
    assert_eq!(fs::read_to_string(&elsewhere).expect("read"), "mine");
    assert!(!dir.path().join(DRAFT).exists());
}

#[test]
fn ten_thousand_rows_stream_through() {
    let dir = tempfile::tempdir().expect("a directory");
    let many = (0..10_000).map(|n| row(&format!("pump-{n}")));
    write(dir.path(), &summary(), many).expect("written");
    assert_eq!(read(dir.path()).expect("read").children.len(), 10_000);
}

#[test]
fn what_is_no_snapshot_of_ours_is_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let read_of = |text: &str| {
        fs::write(dir.path().join(FILE), text).expect("written");
        read(dir.path()).unwrap_err()
    };
    assert!(matches!(read_of("{\"version\":2}"), StatusError::OtherVersion { found: 2, .. }));
    assert!(matches!(read_of("{\"version\":3}"), StatusError::Malformed { .. }));
    assert!(matches!(read_of("no"), StatusError::Malformed { .. }));
    fs::remove_file(dir.path().join(FILE)).expect("removed");
    assert!(matches!(read(dir.path()), Err(StatusError::Missing { .. })));
}

#[test]
fn every_state_has_the_word_that_stands_in_the_json() {
    for state in RowState::ALL {
        let json = serde_json::to_string(&state).expect("serialises");
        assert_eq!(json, format!("{:?}", state.as_str()));
    }
}

#[test]
fn a_snapshot_is_fresh_only_while_its_gateway_lives_and_writes() {
    let now = |seconds| summary().written_at + Duration::from_secs(seconds);
    let of = |seconds, alive| Freshness::of(&summary(), now(seconds), alive);
    assert_eq!(of(60, Some(true)), Freshness::Fresh);
    assert_eq!(of(60, None), Freshness::Fresh);
    assert_eq!(of(61, Some(true)), Freshness::Stale(Duration::from_secs(61)));
    assert_eq!(of(0, Some(false)), Freshness::ProcessGone);
    let ended = Summary { ended: true, ..summary() };
    assert_eq!(Freshness::of(&ended, now(0), Some(false)), Freshness::Ended);
    let before = Timestamp(summary().written_at.0 - 5000);
    assert_eq!(Freshness::of(&summary(), before, None), Freshness::Fresh);
}

#[test]
fn the_text_shows_all_of_it_in_columns() {
    let snapshot = StatusSnapshot { summary: summary(), children: rows() };
    let now = summary().written_at + Duration::from_secs(90);
    let mut text = String::new();
    let freshness = Freshness::of(&snapshot.summary, now, None);
    render(&mut text, &snapshot, now, freshness).expect("a string takes all");
    assert_eq!(
        text,
        r"WARNING: the snapshot is 1m 30s old: the gateway does not run, or can't write its workDir; what follows is how things stood then

gateway   core-1, certrelay 0.1.0, process 321
started   2026-11-22T10:00:00Z (1d 2h before the snapshot)
snapshot  2026-11-23T12:00:00Z (1m 30s ago)
local     mqtt, up
cloud     greengrass, down for 1h 1m: connection refused\u{1b}[2J
store     FAILING: no space left; a damaged store was set aside as store.damaged-1
children  2: 1 await-csr, 0 await-cert, 0 await-ack, 1 done

reason         local  cloud  gateway
reserved-name  12     0      0
flood          3      40     0

child                     state      for     tries  certificate until     reason       notices
pump-1                    await-csr  2h 31m  4      -                     requested    0
valve-with-a-longer-name  done       -       0      2027-01-01T00:00:00Z  acked-named  1
"
    );
}

#[test]
fn the_text_says_what_a_nucleus_and_new_settings_have_to_do_with_it() {
    let text = text_of(under_a_nucleus());
    let lines: Vec<&str> = text.lines().skip(3).take(10).collect();
    assert_eq!(
        lines,
        [
            "nucleus   lite",
            "auth      client device auth: NOT PERMITTED: allow \
             aws.greengrass.clientdevices.Auth in accessControl",
            "settings  a restart is needed for local.port, log.format",
            "settings  REFUSED, those of before are in use:",
            "            there are 2 problems:",
            r"            a: bad\u{1b}; mend it",
            "            b: bad",
            "local     pubsub, up",
            "          WARNING: any component with a pubsub policy can speak for any child",
            "cloud     greengrass, down for 1h 0m: connection refused\\u{1b}[2J",
        ]
    );
}

#[test]
fn what_a_nucleus_and_new_settings_have_to_do_with_it_reads_back_in_stable_words() {
    let json = serde_json::to_value(under_a_nucleus()).expect("serialises");
    assert_eq!(
        (&json["nucleus"], &json["clientDevices"]),
        (&"lite".into(), &"not-permitted".into())
    );
    assert_eq!(json["restartNeeded"], serde_json::json!(["local.port", "log.format"]));
    assert!(json["configurationRefused"].is_string());
    assert_eq!(json["links"]["local"]["kind"], "pubsub");
    assert_eq!(json["links"]["cloud"]["kind"], "greengrass");
    let read_back: Summary = serde_json::from_value(json).expect("reads back");
    assert_eq!(read_back, under_a_nucleus());
}

#[test]
fn what_client_device_auth_says_is_shown_in_words() {
    for (says, word, text) in [
        (ClientDevices::Absent, "absent", "auth: absent\n"),
        (ClientDevices::Accepts, "accepts", "auth: accepts new"),
        (ClientDevices::Refuses, "refuses", "auth: REFUSES new"),
        (ClientDevices::NotPermitted, "not-permitted", "auth: NOT PERMITTED"),
        (ClientDevices::Fails, "fails", "auth: FAILS"),
    ] {
        assert_eq!(serde_json::to_value(says).expect("serialises"), word);
        let shown = text_of(Summary { client_devices: Some(says), ..summary() });
        assert!(shown.contains(text), "{shown}");
    }
}

/// A core whose certificate is about to be switched, with all that may be said of it.
fn core() -> CoreStatus {
    let complaint = |code, detail: &str| CoreComplaint { code, detail: detail.into() };
    CoreStatus {
        stage: "await-window".into(),
        since: Some(at("2026-11-23T09:30:00Z")),
        waits_for: Some("its window, Sun 02:00-04:00\u{1b}".into()),
        files: Some(CoreFiles {
            certificate: "/greengrass/v2/thingCert.crt".into(),
            key: "/greengrass/v2/priv\nKey.key".into(),
            source: "config.tlog".into(),
        }),
        certificate: Some("ab".repeat(32).parse().expect("an id")),
        not_after: Some(at("2026-12-01T00:00:00Z")),
        expiry: Some(Expiry::FourteenDays),
        generation: Some(crate::install::Generation(3)),
        keeps_old_pair: true,
        ended: Some(CoreEnded {
            at: Some(at("2026-11-22T12:00:00Z")),
            failed: Some(complaint(Reason::ProbeRefused, "5 times in 10m\u{1b}[2J")),
        }),
        blocked: Some(complaint(Reason::NoSpace, "12 bytes are left\n")),
        restarts_within_a_day: 2,
        flags: vec![Reason::ProbeNotPermitted],
    }
}

/// The least that may be said of a core.
fn quiet_core() -> CoreStatus {
    CoreStatus {
        stage: "idle".into(),
        since: None,
        waits_for: None,
        files: None,
        certificate: None,
        not_after: None,
        expiry: None,
        generation: None,
        keeps_old_pair: false,
        ended: None,
        blocked: None,
        restarts_within_a_day: 0,
        flags: vec![],
    }
}

#[test]
fn the_text_shows_how_the_core_stands_between_the_gateway_and_the_children() {
    let text = text_of(Summary { core_certificate: Some(core()), ..summary() });
    let (_, section) = text.split_once("1 done\n\n").expect("after the header");
    let (section, rest) = section.split_once("\n\n").expect("a section of its own");
    assert!(rest.starts_with("reason "), "{rest}");
    assert_eq!(
        section,
        r"core      await-window for 2h 30m, waits for its window, Sun 02:00-04:00\u{1b}
blocked   no-space: 12 bytes are left\n
in use    abababababababababababababababababababababababababababababababab
until     2026-12-01T00:00:00Z (within 14 days)
cert      /greengrass/v2/thingCert.crt
key       /greengrass/v2/priv\nKey.key
found by  config.tlog
pair      generation 3, the pair before is kept
last      FAILED, 1d 0h ago: probe-refused: 5 times in 10m\u{1b}[2J
restarts  2 within a day
flag      probe-not-permitted: No probe is permitted; the core's new certificate is installed unproven."
    );
}

#[test]
fn of_a_core_of_which_nothing_is_known_no_more_is_shown_than_that() {
    let shown = |core: &CoreStatus| {
        let mut text = String::new();
        render_core(&mut text, core, summary().written_at).expect("a string takes all");
        text
    };
    assert_eq!(shown(&quiet_core()), "core      idle\npair      plain files\n");
    let ended = CoreEnded { at: None, failed: None };
    let ended = shown(&CoreStatus { ended: Some(ended), ..quiet_core() });
    assert!(ended.ends_with("\nlast      ok\n"), "{ended}");
}

#[test]
fn the_core_reads_back_as_it_was_written_in_stable_words() {
    for core in [core(), quiet_core()] {
        let summary = Summary { core_certificate: Some(core), expire_soon: Some(7), ..summary() };
        let json = serde_json::to_value(&summary).expect("serialises");
        assert_eq!(serde_json::from_value::<Summary>(json).expect("reads back"), summary);
    }
    let json = serde_json::to_value(core()).expect("serialises");
    let expected = serde_json::json!({
        "stage": "await-window",
        "since": "2026-11-23T09:30:00Z",
        "waitsFor": "its window, Sun 02:00-04:00\u{1b}",
        "files": {
            "certificate": "/greengrass/v2/thingCert.crt",
            "key": "/greengrass/v2/priv\nKey.key",
            "source": "config.tlog",
        },
        "certificate": "ab".repeat(32),
        "notAfter": "2026-12-01T00:00:00Z",
        "expiry": "14-days",
        "generation": 3,
        "keepsOldPair": true,
        "ended": {
            "at": "2026-11-22T12:00:00Z",
            "failed": {"code": "probe-refused", "detail": "5 times in 10m\u{1b}[2J"},
        },
        "blocked": {"code": "no-space", "detail": "12 bytes are left\n"},
        "restartsWithinADay": 2,
        "flags": ["probe-not-permitted"],
    });
    assert_eq!(json, expected);
}

#[test]
fn what_expires_soon_is_counted_and_marked() {
    let soon = Row {
        expires: Some(at("2026-11-25T00:00:00Z")),
        expiry: Some(Expiry::ThreeDays),
        ..row("pump-1")
    };
    let gone = Row { expiry: Some(Expiry::Expired), ..soon.clone() };
    assert_eq!(serde_json::to_value(&soon).expect("serialises")["expiry"], "3-days");
    let summary = Summary { expire_soon: Some(2), ..summary() };
    let snapshot = StatusSnapshot { summary, children: vec![soon, gone] };
    let mut text = String::new();
    let now = snapshot.summary.written_at;
    render(&mut text, &snapshot, now, Freshness::Fresh).expect("a string takes all");
    assert!(text.contains("\nexpiry    WARNING: 2 expired, or within 30 days\n"), "{text}");
    assert!(text.contains(" 2026-11-25T00:00:00Z (within 3 days)  requested "), "{text}");
    assert!(text.contains(" 2026-11-25T00:00:00Z (EXPIRED)        requested "), "{text}");
}

#[test]
fn when_nothing_expires_soon_nothing_is_said_of_it() {
    for count in [None, Some(0)] {
        assert!(!text_of(Summary { expire_soon: count, ..summary() }).contains("expiry"));
    }
}
