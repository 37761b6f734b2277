//! The process itself: how it starts, ends, and starts again.

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use fake_nucleus::{FakeNucleus, Mode, Settings, TlsFiles, Token, Upstream};
use serde_json::{Value, json};

use crate::client::{Client, DEADLINE, socket, variable};

fn path(nucleus: &FakeNucleus) -> String {
    variable(nucleus, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT")
}

#[test]
fn the_classic_one_takes_its_socket_with_it() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    nucleus.stop();
    assert!(client.is_closed());
    assert!(!Path::new(&path(&nucleus)).exists());
    assert!(socket(&nucleus).is_err());
    nucleus.restart(Token::Same);
    Client::connect(&nucleus).settle();
}

#[test]
fn the_socket_of_lite_stays_and_whoever_connects_waits() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Lite));
    let mut client = Client::connect(&nucleus);
    nucleus.stop();
    assert!(client.is_closed());
    let mut waiting = socket(&nucleus).expect("a socket that systemd holds");
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(waiting.read(&mut [0]).is_err());
    nucleus.restart(Token::Same);
    Client::connect(&nucleus).settle();
}

#[test]
fn a_token_holds_over_a_restart_or_is_replaced() {
    for mode in [Mode::Java, Mode::Lite] {
        let mut nucleus = FakeNucleus::start(Settings::new(mode));
        let old = variable(&nucleus, "SVCUID");
        nucleus.restart(Token::Same);
        assert_eq!(variable(&nucleus, "SVCUID"), old);
        nucleus.restart(Token::New);
        assert_ne!(variable(&nucleus, "SVCUID"), old);
        Client::connect(&nucleus).settle();
        let mut client = Client::silent(&nucleus);
        let answer = client.shake_hands(&old);
        assert_eq!(answer.map(|ack| ack.flags), (mode == Mode::Java).then_some(0));
    }
}

#[test]
fn a_restart_makes_the_socket_anew() {
    for mode in [Mode::Java, Mode::Lite] {
        let mut nucleus = FakeNucleus::start(Settings::new(mode));
        let before = file_of_socket(&nucleus);
        nucleus.restart(Token::Same);
        assert_ne!(file_of_socket(&nucleus), before);
        Client::connect(&nucleus).settle();
    }
}

/// What tells a file from one of the same name that took its place.
fn file_of_socket(nucleus: &FakeNucleus) -> (u64, i64, i64) {
    let socket = std::fs::metadata(path(nucleus)).unwrap();
    (socket.ino(), socket.ctime(), socket.ctime_nsec())
}

/// The values of a journal, by path: of each the newest.
fn journal(root: &Path) -> BTreeMap<String, Value> {
    let mut newest = BTreeMap::new();
    for line in std::fs::read_to_string(root.join("config/config.tlog")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path: Vec<String> = serde_json::from_value(line["TP"].clone()).unwrap();
        let time = line["TS"].as_u64().unwrap();
        let known = newest.entry(path.join(" ")).or_insert((0, Value::Null));
        if time >= known.0 {
            *known = (time, line["V"].clone());
        }
    }
    newest.into_iter().map(|(path, (_, value))| (path, value)).collect()
}

#[test]
fn the_classic_one_keeps_where_its_credential_is_and_tells_people_late() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| PathBuf::from(format!("/etc/core/{name}"));
    let tls = TlsFiles { ca: file("ca.pem"), certificate: file("c.pem"), key: file("k.pem") };
    let (host, client_id) = ("localhost".to_owned(), "core".to_owned());
    let upstream = Upstream::Mqtt { host, port: 8884, client_id, tls: Some(tls) };
    let mut nucleus = FakeNucleus::start(Settings {
        upstream,
        online: false,
        root: Some(root.path().to_owned()),
        is_fleet_provisioned: true,
        ..Settings::new(Mode::Java)
    });
    assert!(path(&nucleus).starts_with(&*root.path().to_string_lossy()));
    let mode = std::fs::metadata(root.path().join("config")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    let journal = journal(root.path());
    for (path, value) in [
        ("system certificateFilePath", json!("/etc/core/c.pem")),
        ("system privateKeyPath", json!("/etc/core/k.pem")),
        ("system rootCaPath", json!("/etc/core/ca.pem")),
        ("system thingName", json!("core")),
        ("services aws.greengrass.Nucleus configuration iotDataEndpoint", json!("localhost")),
        ("services aws.greengrass.Nucleus configuration mqtt port", json!(8884)),
    ] {
        assert_eq!(journal.get(path), Some(&value), "{path}");
    }
    let told = || std::fs::read_to_string(root.path().join("config/effectiveConfig.yaml")).unwrap();
    let first = "---\nsystem:\n  certificateFilePath: \"\"\n  privateKeyPath: \"\"\n";
    assert!(told().starts_with(first), "{}", told());
    nucleus.restart(Token::New);
    let whole = "---\n\
        system:\n  \
          certificateFilePath: \"/etc/core/c.pem\"\n  \
          privateKeyPath: \"/etc/core/k.pem\"\n  \
          rootCaPath: \"/etc/core/ca.pem\"\n  \
          thingName: \"core\"\n\
        services:\n  \
          aws.greengrass.Nucleus:\n    \
            componentType: \"NUCLEUS\"\n    \
            configuration:\n      \
              awsRegion: \"eu-west-1\"\n      \
              iotDataEndpoint: \"localhost\"\n      \
              mqtt:\n        \
                port: 8884\n";
    assert_eq!(told(), whole);
}

#[test]
fn a_restart_forgets_what_was_pending_and_keeps_the_configuration() {
    let mut nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let mut client = Client::connect(&nucleus);
    let stream = client.ask("SubscribeToComponentUpdates", &json!({}));
    client.next_on(stream).answer().expect("a yes");
    let pending = nucleus.announce_update("d", true);
    assert!(nucleus.deploy(json!({"a": 1})).wait(DEADLINE).is_some());
    nucleus.restart(Token::Same);
    assert_eq!(pending.wait(DEADLINE), None);
    let mut client = Client::connect(&nucleus);
    let whole = client.call("GetConfiguration", &json!({"keyPath": []})).unwrap();
    assert_eq!(whole["value"], json!({"a": 1}));
}

#[test]
fn nothing_is_left_of_one_that_was_dropped() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Lite));
    let (path, mut client) = (path(&nucleus), Client::connect(&nucleus));
    drop(nucleus);
    assert!(client.is_closed());
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_pending_answer_can_be_awaited_on_any_runtime() {
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let verdict = runtime.block_on(async { nucleus.deploy(json!({"a": 1})).await });
    assert!(verdict.is_some());
}
