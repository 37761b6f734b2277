//! The floor broker of `examples/mosquitto`, with the files that stand there.
//!
//! A Mosquitto acknowledges what it forbids. So each test sends something that is allowed after it,
//! and sees that only this arrives.

mod support;

use std::time::Duration;

use support::{
    mosquitto::{Mosquitto, Setup},
    peer::{Login, Peer, Received},
    pki::{Authority, Files},
};
use tempfile::TempDir;

const GATEWAY: &str = "core-1-certrelay";
const SOON: Duration = Duration::from_secs(5);

struct Floor {
    authority: Authority,
    broker: Mosquitto,
    dir: TempDir,
}

impl Floor {
    fn start() -> Self {
        let authority = Authority::new("floor");
        let broker = Setup::floor(&authority, &authority).start();
        Self { authority, broker, dir: tempfile::tempdir().expect("a folder") }
    }

    fn files(&self, name: &str) -> Files {
        self.authority.client_files(self.dir.path(), name)
    }

    /// Someone with a certificate in this name, who asks for this client id.
    fn login(&self, name: &str, client_id: &str) -> Login {
        Login::mtls(self.broker.port(), client_id, &self.files(name))
    }

    async fn connect(&self, name: &str) -> Peer {
        self.login(name, name).connect().await.expect("connects")
    }

    /// The gateway, with its subscriptions.
    async fn gateway(&self) -> Peer {
        let gateway = self.connect(GATEWAY).await;
        for kind in ["csr_res", "crt_ack", "crt_err"] {
            subscribe(&gateway, &topic("+", kind)).await;
        }
        gateway
    }
}

fn topic(name: &str, kind: &str) -> String {
    format!("management/topic/{name}/{kind}")
}

async fn subscribe(peer: &Peer, filter: &str) {
    peer.subscribe(filter).await.expect("a Mosquitto grants every subscription");
}

async fn publish(peer: &Peer, topic: &str) {
    peer.publish(topic, "x").await.expect("a Mosquitto acknowledges everything");
}

async fn next(peer: &mut Peer) -> Received {
    peer.receive(SOON).await.expect("a message")
}

#[tokio::test]
async fn the_gateway_and_a_child_can_do_their_part() {
    let floor = Floor::start();
    let mut gateway = floor.gateway().await;
    let mut child = floor.connect("dev-a").await;
    for kind in ["csr_req", "crt"] {
        subscribe(&child, &topic("dev-a", kind)).await;
        publish(&gateway, &topic("dev-a", kind)).await;
        assert_eq!(next(&mut child).await.topic, topic("dev-a", kind));
    }
    for kind in ["csr_res", "crt_ack", "crt_err"] {
        publish(&child, &topic("dev-a", kind)).await;
        assert_eq!(next(&mut gateway).await.topic, topic("dev-a", kind));
    }
    assert_eq!(gateway.flush("certrelay/core-1/barrier").await, []);
}

#[tokio::test]
async fn a_child_speaks_neither_for_another_nor_for_the_core() {
    let floor = Floor::start();
    let mut gateway = floor.gateway().await;
    let mut victim = floor.connect("dev-b").await;
    let child = floor.connect("dev-a").await;
    for kind in ["csr_req", "crt"] {
        subscribe(&victim, &topic("dev-b", kind)).await;
        publish(&child, &topic("dev-b", kind)).await;
    }
    for name in ["dev-b", "core-1", GATEWAY, "dev-a/../dev-b", ""] {
        for kind in ["csr_res", "crt_ack", "crt_err"] {
            publish(&child, &topic(name, kind)).await;
        }
    }
    subscribe(&gateway, "certrelay/core-1/barrier").await;
    publish(&child, "certrelay/core-1/barrier").await;
    publish(&child, &topic("dev-a", "csr_res")).await;
    assert_eq!(next(&mut gateway).await.topic, topic("dev-a", "csr_res"));
    publish(&gateway, &topic("dev-b", "crt")).await;
    assert_eq!(next(&mut victim).await.topic, topic("dev-b", "crt"));
    assert_eq!((gateway.received(), victim.received()), (vec![], vec![]));
}

#[tokio::test]
async fn a_child_reads_nothing_that_is_for_another() {
    let floor = Floor::start();
    let gateway = floor.gateway().await;
    let mut child = floor.connect("dev-a").await;
    for filter in ["#", "management/topic/+/crt", "management/topic/dev-b/crt", "certrelay/#"] {
        subscribe(&child, filter).await;
    }
    publish(&gateway, &topic("dev-b", "csr_req")).await;
    publish(&gateway, &topic("dev-b", "crt")).await;
    publish(&gateway, "certrelay/core-1/barrier").await;
    publish(&floor.connect("dev-b").await, &topic("dev-b", "csr_res")).await;
    publish(&gateway, &topic("dev-a", "crt")).await;
    assert_eq!(next(&mut child).await.topic, topic("dev-a", "crt"));
}

#[tokio::test]
async fn a_child_that_takes_the_client_id_of_another_does_not_get_its_session() {
    let floor = Floor::start();
    let gateway = floor.gateway().await;
    let victim = floor.login("dev-b", "dev-b").persistent().connect().await.expect("connects");
    subscribe(&victim, &topic("dev-b", "crt")).await;
    victim.disconnect().await;
    publish(&gateway, &topic("dev-b", "crt")).await;
    let thief = floor.login("dev-a", "dev-b").connect().await.expect("connects");
    assert!(!thief.session_present());
    thief.disconnect().await;
    let mut victim = floor.login("dev-b", "dev-b").persistent().connect().await.expect("connects");
    assert!(victim.session_present());
    assert_eq!(next(&mut victim).await.topic, topic("dev-b", "crt"));
}

#[tokio::test]
async fn a_message_that_would_break_the_gateway_stays_at_the_broker() {
    let floor = Floor::start();
    let mut gateway = floor.gateway().await;
    let child = floor.connect("dev-a").await;
    // Whether the broker answers it or hangs up is its business.
    let _ = child.publish(&topic("dev-a", "csr_res"), vec![7; 65_537]).await;
    publish(&floor.connect("dev-a").await, &topic("dev-a", "crt_ack")).await;
    assert_eq!(next(&mut gateway).await.topic, topic("dev-a", "crt_ack"));
}

#[tokio::test]
async fn nobody_connects_without_a_certificate_of_the_floor() {
    let floor = Floor::start();
    let port = floor.broker.port();
    assert!(Login::plain(port, "dev-a").connect().await.is_err());
    let mut files = floor.files("dev-a");
    let foreign = Authority::new("elsewhere").client("dev-a");
    (files.certificate, files.key) = foreign.write(floor.dir.path(), "foreign");
    assert!(Login::mtls(port, "dev-a", &files).connect().await.is_err());
}
