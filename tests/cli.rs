//! The command line as a whole: what the real program prints, where, and with which exit code.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use certrelay::{
    control::{self, Answer, Asked},
    reason::Reason,
    schedule::Timestamp,
    status::{
        self, Counters, LinkKind, LinkState, LinkStatus, Links, Row, RowState, Store, Summary,
    },
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

const LEAST: &str =
    "thingName = 'core-1'\n[cloud]\nlink = 'mqtt'\nhost = 'localhost'\nport = 1883\n";

fn certrelay(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_certrelay"));
    command.args(arguments).current_dir(dir.path()).env_remove("AWS_IOT_THING_NAME");
    command
}

fn run(dir: &TempDir, arguments: &[&str]) -> Ended {
    certrelay(dir, arguments).output().expect("runs").into()
}

/// Runs `certrelay run --config FILE --check` on settings.
fn check(settings: &str) -> Ended {
    let dir = tempfile::tempdir().expect("a directory");
    check_in(&dir, settings)
}

fn check_in(dir: &TempDir, settings: &str) -> Ended {
    fs::write(dir.path().join("certrelay.toml"), settings).expect("written");
    run(dir, &["run", "--config", "certrelay.toml", "--check"])
}

#[derive(Debug, PartialEq)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn ended(code: i32, out: &str, err: &str) -> Ended {
    Ended { code: Some(code), out: out.into(), err: err.into() }
}

#[test]
fn good_settings_are_said_to_be_good_and_nothing_runs() {
    assert_eq!(check(LEAST), ended(0, "configuration ok\n", ""));
}

#[test]
fn an_unknown_key_is_refused_with_the_key_that_was_meant() {
    let settings = format!("{LEAST}[log]\nlevle = 'info'\n");
    let says = "certrelay: the configuration has 1 problem:\n  \
                log.levle: there is no such setting; did you mean log.level?\n";
    assert_eq!(check(&settings), ended(2, "", says));
}

#[test]
fn every_problem_stands_in_one_message() {
    let settings = "children = []\n[cloud]\nlink = 'mqtt'\nhost = 'localhost'\nport = 70000\n[log]\nlevel = 5\n";
    let says = "certrelay: the configuration has 4 problems:
  thingName: it is not set; set it, or AWS_IOT_THING_NAME, to the core device's thing name
  children: it is empty; give a list such as [\"pump-*\", \"press\"]
  cloud.port: 70000 is out of range; give a whole number from 1 to 65535
  log.level: 5 is not known; give \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"
";
    assert_eq!(check(settings), ended(2, "", says));
}

#[test]
fn a_missing_file_is_named_with_its_setting() {
    let tls = "caFile = 'no/ca.pem'\ncertificateFile = 'no/cert.pem'\nkeyFile = 'no/key.pem'\n";
    let ended = check(&format!("{LEAST}{tls}"));
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("  cloud.keyFile: \"no/key.pem\": No such file"), "{}", ended.err);
    assert!(ended.err.contains("3 problems"), "{}", ended.err);
}

#[test]
fn settings_that_can_not_be_read_are_named_by_file_and_line() {
    let ended = check("thingName = 'core-1'\n[cloud\n");
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("certrelay.toml: line 2: "), "{}", ended.err);

    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, says) in [
        (&["run", "--config", "gone.toml"][..], "gone.toml: No such file or directory"),
        (
            &["run"],
            "no file of settings is named, and no nucleus gives them: the environment variable",
        ),
        (&["run"], "is not set; a Greengrass nucleus sets it; run certrelay run --config FILE"),
        (&["fly"], "unrecognized subcommand"),
        (&[], "Usage:"),
    ] {
        let ended = run(&dir, arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.err.contains(says), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn a_link_through_a_nucleus_that_is_not_there_is_refused_with_what_to_do() {
    let ended = check("thingName = 'core-1'\n");
    assert_eq!(ended.code, Some(2));
    for says in
        ["cloud.link: the link goes through a nucleus, and none", "set cloud.link = \"mqtt\""]
    {
        assert!(ended.err.contains(says), "{}", ended.err);
    }
}

#[test]
fn the_thing_name_comes_from_the_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("c.toml"), "[cloud]\nlink = 'mqtt'\nhost = '::1'\nport = 1883\n")
        .expect("written");
    let mut command = certrelay(&dir, &["run", "--config", "c.toml", "--check"]);
    let output = command.env("AWS_IOT_THING_NAME", "core-7").output().expect("runs");
    assert_eq!(Ended::from(output), ended(0, "configuration ok\n", ""));
}

#[test]
fn a_check_finds_files_that_are_not_what_they_should_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = KeyPair::generate().expect("a key");
    let other = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["core-1".into()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate")
        .pem();
    for (file, text) in [
        ("cert.pem", certificate.as_str()),
        ("key.pem", &key.serialize_pem()),
        ("other.pem", &other.serialize_pem()),
        ("junk.pem", "junk"),
    ] {
        fs::write(dir.path().join(file), text).expect("written");
    }
    let check_files = |ca: &str, certificate: &str, key: &str| {
        let tls =
            format!("caFile = '{ca}'\ncertificateFile = '{certificate}'\nkeyFile = '{key}'\n");
        check_in(&dir, &format!("{LEAST}{tls}"))
    };
    let good = check_files("cert.pem", "cert.pem", "key.pem");
    assert_eq!(good, ended(0, "configuration ok\n", ""));

    let mixed = check_files("cert.pem", "cert.pem", "other.pem");
    assert_eq!(mixed.code, Some(2));
    assert!(
        mixed.err.contains("  cloud.keyFile: other.pem: the key is not the certificate's; give"),
        "{}",
        mixed.err
    );

    let place = dir.path().to_str().expect("text");
    let core = format!(
        "{LEAST}[core]\ncaFile = '{place}/junk.pem'\ncertificateFile = 'file://{place}/cert.pem'\n\
         keyFile = '{place}/other.pem'\n"
    );
    let core = check_in(&dir, &core);
    assert_eq!(core.code, Some(2));
    for says in [
        "2 problems".to_owned(),
        format!("core.caFile: {place}/junk.pem: no certificate is in it"),
        format!("core.keyFile: {place}/other.pem: the key is not the certificate's; give"),
    ] {
        assert!(core.err.contains(&says), "{says}: {}", core.err);
    }

    let junk = check_files("junk.pem", "key.pem", "cert.pem");
    assert_eq!(junk.code, Some(2));
    for says in [
        "3 problems",
        "cloud.caFile: junk.pem: no certificate is in it",
        "cloud.certificateFile: key.pem: no certificate is in it",
        "cloud.keyFile: cert.pem: no private key is in it",
    ] {
        assert!(junk.err.contains(says), "{says}: {}", junk.err);
    }
    assert!(!mixed.err.contains("BEGIN EC") && !mixed.err.contains("MIG"), "{}", mixed.err);
}

#[test]
fn the_version_is_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = concat!("certrelay ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&dir, &["--version"]), ended(0, says, ""));
}

#[test]
fn a_status_that_is_not_there_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = "certrelay: there is no status.json in .: start the gateway (certrelay run), or \
                name its workDir with --work-dir\n";
    assert_eq!(run(&dir, &["status"]), ended(1, "", says));
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_unix_seconds(now.as_secs())
}

/// Writes the snapshot of a gateway with one child; by this process, which is surely alive.
fn snapshot(dir: &Path, written_at: Timestamp, pid: u32) {
    let kind = LinkKind::Mqtt;
    let link = |state, why: Option<&str>| {
        let why = why.map(Into::into);
        LinkStatus { kind, state, since: None, why }
    };
    let summary = Summary {
        version: status::VERSION,
        written_at,
        clock_trusted: false,
        ended: false,
        pid,
        program: "0.1.0".into(),
        started_at: written_at,
        core: "core-1".parse().expect("valid"),
        nucleus: None,
        restart_needed: vec![],
        configuration_refused: None,
        client_devices: None,
        core_certificate: None,
        expire_soon: None,
        links: Links {
            local: link(LinkState::Up, None),
            cloud: link(LinkState::Down, Some("refused\n\u{1b}[2J")),
        },
        store: Store::default(),
        counters: Counters { local: BTreeMap::from([(Reason::Flood, 2)]), ..Counters::default() },
        totals: RowState::ALL.map(|state| (state, u64::from(state == RowState::AwaitAck))).into(),
    };
    let row = Row {
        child: "pump-1".parse().expect("valid"),
        state: RowState::AwaitAck,
        since: None,
        attempts: 3,
        expires: Some(Timestamp::from_unix_seconds(1_800_000_000)),
        expiry: None,
        reason: Some(Reason::CertificateAccepted),
        notices: 1,
    };
    status::write(dir, &summary, std::iter::once(row)).expect("written");
}

#[test]
fn the_status_is_shown_as_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let written = now();
    snapshot(dir.path(), written, std::process::id());
    let shown = run(&dir, &["status"]);
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    let pid = std::process::id();
    let steady: Vec<&str> =
        shown.out.lines().filter(|line| !line.starts_with("snapshot")).collect();
    let expected = format!(
        r"gateway   core-1, certrelay 0.1.0, process {pid}
started   {written} (0s before the snapshot)
local     mqtt, up
cloud     mqtt, down: refused\n\u{{1b}}[2J
store     ok
children  1: 0 await-csr, 0 await-cert, 1 await-ack, 0 done

reason  local  cloud  gateway
flood   2      0      0

child   state      for  tries  certificate until     reason                notices
pump-1  await-ack  -    3      2027-01-15T08:00:00Z  certificate-accepted  1"
    );
    assert_eq!(steady.join("\n"), expected);
    assert!(shown.out.contains("the clock was not trusted"), "{}", shown.out);
}

#[test]
fn the_status_is_shown_as_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let written = now();
    snapshot(dir.path(), written, std::process::id());
    let nowhere = tempfile::tempdir().expect("a directory");
    let place = dir.path().to_str().expect("text");
    let shown = run(&nowhere, &["status", "--json", "--work-dir", place]);
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    let shown: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
    let expected = serde_json::json!({
        "version": 3,
        "writtenAt": written.to_string(),
        "clockTrusted": false,
        "ended": false,
        "pid": std::process::id(),
        "program": "0.1.0",
        "startedAt": written.to_string(),
        "core": "core-1",
        "links": {
            "local": {"kind": "mqtt", "state": "up"},
            "cloud": {"kind": "mqtt", "state": "down", "why": "refused\n\u{1b}[2J"},
        },
        "store": {},
        "counters": {"local": {"flood": 2}, "cloud": {}, "gateway": {}},
        "totals": {"await-csr": 0, "await-cert": 0, "await-ack": 1, "done": 0},
        "children": [{
            "child": "pump-1", "state": "await-ack", "attempts": 3,
            "expires": "2027-01-15T08:00:00Z", "reason": "certificate-accepted", "notices": 1,
        }],
    });
    assert_eq!(shown, expected);
}

#[test]
fn an_old_snapshot_is_shown_with_a_warning_on_top() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = Timestamp(now().0 - 3_600_000);
    snapshot(dir.path(), old, std::process::id());
    let shown = run(&dir, &["status"]);
    assert_eq!(shown.code, Some(0));
    assert!(shown.out.starts_with("WARNING: the snapshot is 1h 0m old: "), "{}", shown.out);

    let json = run(&dir, &["status", "--json"]);
    assert_eq!(json.code, Some(0));
    assert!(json.err.starts_with("certrelay: the snapshot is 1h 0m old: "), "{}", json.err);
    assert!(serde_json::from_str::<serde_json::Value>(&json.out).is_ok());
}

#[test]
fn the_snapshot_of_a_killed_gateway_is_shown_with_a_warning() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut gone = Command::new(env!("CARGO_BIN_EXE_certrelay"))
        .arg("--version")
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    gone.wait().expect("ends");
    snapshot(dir.path(), now(), gone.id());
    let shown = run(&dir, &["status"]);
    assert_eq!(shown.code, Some(0));
    assert!(
        shown.out.starts_with("WARNING: the gateway does not run here any more"),
        "{}",
        shown.out
    );
}

/// Runs the program beside a gateway that refuses to detach, and else says the word that it heard.
fn beside_a_gateway(dir: &TempDir, arguments: &[&str]) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut commands = control::listen(dir.path()).expect("listens");
        let mut command = certrelay(dir, arguments);
        let ended = tokio::task::spawn_blocking(move || command.output().expect("runs").into());
        let answering = async {
            while let Some(Asked { command, answer }) = commands.recv().await {
                let ok = command != control::Command::Detach;
                let text = format!("heard {}\n", command.as_str());
                answer.send(Answer { ok, text }).expect("it waits for the answer");
            }
        };
        tokio::select! {
            ended = ended => ended.expect("no panic"),
            () = answering => unreachable!("it listens until it is dropped"),
        }
    })
}

#[test]
fn what_the_gateway_says_of_its_core_is_printed_and_what_it_refuses_is_a_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    for command in ["show", "rotate", "restart-now", "rollback"] {
        let said = beside_a_gateway(&dir, &["core", command]);
        assert_eq!(said, ended(0, &format!("heard {command}\n"), ""));
    }
    let refused = beside_a_gateway(&dir, &["core", "detach"]);
    assert_eq!(refused, ended(1, "", "certrelay: heard detach\n"));
}

#[test]
fn a_gateway_is_asked_by_its_work_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().to_str().expect("text");
    let (_, inside) = place.rsplit_once('/').expect("a name");
    let outside = format!("../{inside}");
    for arguments in
        [["core", "show", "--work-dir", place], ["core", "--work-dir", &outside, "show"]]
    {
        assert_eq!(beside_a_gateway(&dir, &arguments), ended(0, "heard show\n", ""));
    }
}

#[test]
fn a_core_command_without_a_gateway_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = "certrelay: no gateway runs in .: start it, or name its workDir with --work-dir\n";
    assert_eq!(run(&dir, &["core", "show"]), ended(1, "", says));
    let long = "x/".repeat(100);
    let too_long = run(&dir, &["core", "show", "--work-dir", &long]);
    assert_eq!(too_long.code, Some(1));
    assert!(too_long.err.contains("is longer than 107 bytes"), "{}", too_long.err);
    for arguments in [&["core"][..], &["core", "fly"]] {
        assert_eq!(run(&dir, arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn the_help_says_what_becomes_of_the_pairs() {
    let dir = tempfile::tempdir().expect("a directory");
    for (command, says) in [
        ("rollback", ["installs the pair before", "restarts the nucleus", "rolled-back-by-hand"]),
        ("detach", ["plain files", "overwritten and removed", "is not restarted"]),
    ] {
        let help = run(&dir, &["core", command, "--help"]);
        let text = help.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(help.code, Some(0));
        says.iter().for_each(|says| assert!(text.contains(says), "{command}: {text}"));
    }
}

/// A running gateway, which no failed test leaves behind.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_signal_ends_the_gateway_within_3_seconds() {
    for (signal, format) in [("TERM", "json"), ("INT", "text")] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = format!("{LEAST}[log]\nlevel = 'info'\nformat = '{format}'\n");
        fs::write(dir.path().join("c.toml"), settings).expect("written");
        let mut command = certrelay(&dir, &["run", "--config", "c.toml"]);
        let mut gateway = Gateway(command.stdout(Stdio::piped()).spawn().expect("runs"));
        let mut lines = BufReader::new(gateway.0.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("it says that it starts").expect("text");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&first).is_ok(), format == "json");
        assert!(!first.contains('\u{1b}'), "{first}");

        let told = Instant::now();
        let kill = ["-s", signal, &gateway.0.id().to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(kill).status().expect("runs").success());
        let code = loop {
            match gateway.0.try_wait().expect("waits") {
                Some(status) => break status.code(),
                None if told.elapsed() > Duration::from_secs(3) => {
                    panic!("SIG{signal} did not end it")
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(code, Some(0), "SIG{signal}");
    }
}
