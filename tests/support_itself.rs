//! The tests' own tools do what they say.

mod support;

use std::time::Duration;

use support::{
    mosquitto::Setup,
    peer::{Login, Peer},
    pki::Authority,
    proxy::Proxy,
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
