//! The tests' own tools do what they say.

mod support;

use std::{path::Path, process::Command, time::Duration};

use fake_nucleus::{FakeNucleus, Mode, Settings};
use support::{
    eventually,
    mosquitto::Setup,
    peer::{Login, Peer},
    pki::Authority,
    proxy::Proxy,
    supervisor::{Manner, Program, RestartCommand, Supervisor},
};

const SOON: Duration = Duration::from_secs(5);

async fn connected(port: u16) -> Peer {
    Login::plain(port, "peer").persistent().connect().await.expect("connects")
}

#[tokio::test]
async fn a_saved_session_survives_the_death_of_the_broker() {
    let mut broker = Setup::plain().persistent().start();
    connected(broker.port()).await.subscribe("a").await.expect("granted");
    let other = Login::plain(broker.port(), "other").connect().await.expect("connects");
    other.publish("a", "one").await.expect("acknowledged");
    broker.save();
    broker.kill();
    broker.start();
    let mut peer = connected(broker.port()).await;
    assert!(peer.session_present());
    assert_eq!(peer.receive(SOON).await.expect("the message").payload, b"one");
}

#[tokio::test]
async fn only_a_client_with_a_certificate_of_the_authority_is_let_in() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let broker = Setup::mtls(&ours).start();
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = ours.client_files(dir.path(), "device");
    let peer = Login::mtls(broker.port(), "device", &files).connect().await.expect("connects");
    assert!(!peer.session_present());
    (files.certificate, files.key) = theirs.client("device").write(dir.path(), "foreign");
    assert!(Login::mtls(broker.port(), "device", &files).connect().await.is_err());
}

#[tokio::test]
async fn the_proxy_carries_and_freezes_and_cuts() {
    let broker = Setup::plain().start();
    let proxy = Proxy::start(broker.port());
    let mut peer = connected(proxy.port()).await;
    assert_eq!(peer.flush("own").await, []);
    proxy.freeze();
    let stuck = peer.publish("own", "stuck");
    assert!(tokio::time::timeout(Duration::from_millis(300), stuck).await.is_err());
    assert!(!peer.is_over());
    proxy.cut();
    assert_eq!(peer.receive(SOON).await, None);
    assert!(Login::plain(proxy.port(), "peer").connect().await.is_err());
    proxy.restore();
    connected(proxy.port()).await;
}

/// A component that says its token and then does this.
fn supervised(dir: &Path, then: &str) -> Supervisor {
    let program = Program {
        path: "/bin/sh".into(),
        arguments: ["-c".into(), format!("echo token $SVCUID; {then}").into()].into(),
        log: dir.join("component.log"),
    };
    let nucleus = FakeNucleus::start(Settings::new(Mode::Java));
    let supervisor = Supervisor::new(nucleus, program, RestartCommand::new(dir));
    supervisor.start();
    supervisor
}

/// Runs the restart command; whether it said yes.
fn ask(supervisor_of: &Path) -> bool {
    let words = RestartCommand::new(supervisor_of).words();
    Command::new(&words[0]).args(&words[1..]).status().expect("it runs").success()
}

fn has_said(supervisor: &Supervisor, tokens: &[&str]) -> bool {
    let lines: String = tokens.iter().map(|token| format!("token TOKEN{token:0>11}\n")).collect();
    supervisor.log() == lines
}

#[test]
fn the_supervisor_restarts_both_when_the_command_asks_and_as_it_is_told_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let supervisor = supervised(dir.path(), "exec sleep 1000");
    eventually(SOON, "it starts", || has_said(&supervisor, &["0"]));
    assert!(ask(dir.path()));
    eventually(SOON, "a new token", || has_said(&supervisor, &["0", "1"]));

    supervisor.set_manner(Manner::WrongUnit);
    assert!(ask(dir.path()));
    eventually(SOON, "the same token", || has_said(&supervisor, &["0", "1", "1"]));

    supervisor.set_manner(Manner::Fails);
    assert!(!ask(dir.path()));
    supervisor.set_manner(Manner::Ignores);
    assert!(ask(dir.path()));
    eventually(SOON, "it is asked", || supervisor.asked() == 3);
    assert!(has_said(&supervisor, &["0", "1", "1"]));

    supervisor.set_manner(Manner::Late(Duration::from_millis(200)));
    let asked = support::now();
    assert!(ask(dir.path()));
    eventually(SOON, "a new token", || has_said(&supervisor, &["0", "1", "1", "2"]));
    assert!(asked.elapsed() >= Duration::from_millis(200));
    assert_eq!((supervisor.starts(), supervisor.exits()), (4, vec![]));
}

#[test]
fn the_supervisor_starts_again_what_fails_but_not_what_was_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let supervisor = supervised(dir.path(), "exec sleep 1000");
    eventually(SOON, "it starts", || has_said(&supervisor, &["0"]));
    supervisor.crash();
    eventually(SOON, "it is started again", || has_said(&supervisor, &["0", "0"]));
    supervisor.cut_the_power();
    eventually(SOON, "a new token", || has_said(&supervisor, &["0", "0", "1"]));
    supervisor.kill();
    supervisor.restart();
    assert_eq!((supervisor.pid(), supervisor.starts()), (None, 3));

    let dir = tempfile::tempdir().expect("a folder");
    let supervisor = supervised(dir.path(), "exit 3");
    eventually(SOON, "it fails twice", || supervisor.exits().len() == 2);
    assert_eq!(supervisor.exits()[0], "exit status: 3");
}
