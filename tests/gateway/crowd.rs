//! Many children over a few connections, and a cloud that answers them all by itself.
//!
//! Keys, CSRs and certificates are made beforehand, so that a figure is the gateway's and the
//! brokers', not that of signing.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    harness::{CORE, topic},
    peers::{Seen, certificate_id, csr},
    support::{
        peer::{Login, Peer},
        pki::Authority,
    },
};

/// A cloud asks again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Children, each with one key and the certificate that it will get.
pub struct Crowd {
    members: BTreeMap<String, Member>,
    counts: Mutex<Counts>,
}

struct Member {
    csr: String,
    certificate: String,
    id: String,
}

/// What has happened so far.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Children that were asked for a CSR.
    pub asked: BTreeSet<String>,
    /// CSRs that came to the cloud, by child.
    pub csrs: BTreeMap<String, u64>,
    /// Children that got the certificate for their key.
    pub answered: BTreeSet<String>,
    /// Copies of certificates that came to children.
    pub certificates: u64,
    /// Children whose named ack came to the cloud, and what settles it.
    pub acked: BTreeMap<String, Value>,
    /// Whatever should not have come.
    pub wrong: Vec<Seen>,
}

impl Crowd {
    /// So many of them.
    pub fn new(size: usize) -> Arc<Self> {
        let authority = Authority::new("devices CA");
        let member = |number| {
            let name = format!("dev-{number:05}");
            let csr = csr(&name, &KeyPair::generate().expect("a P-256 key"));
            let certificate = authority.sign_csr(&csr);
            let id = certificate_id(&certificate).to_string();
            (name, Member { csr, certificate, id })
        };
        let members = (0..size).map(member).collect();
        Arc::new(Self { members, counts: Mutex::default() })
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// What has happened so far, as far as `look` wants to know.
    pub fn count<T>(&self, look: impl FnOnce(&Counts) -> T) -> T {
        look(&self.counts.lock().expect("no task panics with it"))
    }

    /// Waits until something has happened.
    pub async fn until(&self, deadline: Duration, what: &str, holds: impl Fn(&Counts) -> bool) {
        crate::support::eventually_async(deadline, what, async || self.count(&holds)).await;
        let wrong = self.count(|counts| counts.wrong.clone());
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// The cloud asks for a rotation of each.
    pub async fn ask_all(&self, peer: &Peer) {
        self.ask(peer, self.names()).await;
    }

    /// Asks those again that were not asked, until all are: a nucleus drops what comes too fast.
    pub async fn until_all_asked(&self, peer: &Peer, deadline: Duration) {
        let is_asked = |counts: &Counts| counts.asked.len() == self.members.len();
        let asked = self.until(deadline, "all are asked", is_asked);
        let again = async {
            loop {
                tokio::time::sleep(ASK_AGAIN).await;
                let asked = self.count(|counts| counts.asked.clone());
                self.ask(peer, self.names().filter(|name| !asked.contains(*name))).await;
            }
        };
        tokio::select! {
            () = asked => {}
            () = again => {}
        }
    }

    /// Settles all over and over: a nucleus drops what comes too fast.
    pub async fn settle_again(&self, peer: &Peer) -> Infallible {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            for (name, body) in self.count(|counts| counts.acked.clone()) {
                queue(peer, &name, "result", &body).await;
            }
        }
    }

    async fn ask(&self, peer: &Peer, names: impl Iterator<Item = &str>) {
        for name in names {
            let body = json!({"rotationId": format!("r-{name}"), "core": CORE});
            queue(peer, name, "csr_req", &body).await;
        }
    }

    /// A child sends its CSR.
    pub async fn send_csr(&self, peer: &Peer, name: &str) {
        let body = json!({"CSR": self.members[name].csr, "rotationId": format!("r-{name}")});
        queue(peer, name, "csr_res", &body).await;
    }

    /// The cloud: it answers each CSR with the one certificate for it, and each ack.
    pub fn serve_cloud(self: &Arc<Self>, mut peer: Peer) -> JoinHandle<()> {
        let crowd = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(message) = peer.receive(Duration::MAX).await {
                let seen = Seen::read(&message);
                if let Some((kind, body)) = crowd.cloud_hears(&seen) {
                    queue(&peer, &seen.name, kind, &body).await;
                }
            }
        })
    }

    fn cloud_hears(&self, seen: &Seen) -> Option<(&'static str, Value)> {
        let mut counts = self.counts.lock().expect("no task panics with it");
        let Some(member) = self.members.get(&seen.name) else {
            counts.wrong.push(seen.clone());
            return None;
        };
        match seen.kind.as_str() {
            "csr_res" if der(seen.text("CSR")) == der(&member.csr) => {
                *counts.csrs.entry(seen.name.clone()).or_default() += 1;
                let rotation = &seen.body["rotationId"];
                let certificate = &member.certificate;
                let body =
                    json!({"certificatePem": certificate, "rotationId": rotation, "core": CORE});
                Some(("crt", body))
            }
            "crt_ack" if seen.text("certificateId") == member.id => {
                let mid = &seen.body["mid"];
                let body =
                    json!({"core": CORE, "mid": mid, "for": "crt_ack", "ok": true, "final": true});
                counts.acked.insert(seen.name.clone(), body.clone());
                Some(("result", body))
            }
            _ => {
                counts.wrong.push(seen.clone());
                None
            }
        }
    }

    /// The children: each acknowledges its certificate, and if `answers` each request as well.
    pub async fn serve_floor(self: &Arc<Self>, login: Login, answers: bool) -> JoinHandle<()> {
        let mut peer = login.connect().await.expect("the children connect");
        for kind in ["csr_req", "crt"] {
            peer.subscribe(&topic("+", kind)).await.expect("granted");
        }
        let crowd = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(message) = peer.receive(Duration::MAX).await {
                let seen = Seen::read(&message);
                match crowd.floor_hears(&seen) {
                    Some(("csr_res", _)) if answers => crowd.send_csr(&peer, &seen.name).await,
                    Some(("crt_ack", body)) => queue(&peer, &seen.name, "crt_ack", &body).await,
                    _ => {}
                }
            }
        })
    }

    fn floor_hears(&self, seen: &Seen) -> Option<(&'static str, Value)> {
        let mut counts = self.counts.lock().expect("no task panics with it");
        let member = self.members.get(&seen.name)?;
        match seen.kind.as_str() {
            "csr_req" => {
                counts.asked.insert(seen.name.clone());
                Some(("csr_res", Value::Null))
            }
            "crt" if der(seen.text("certificatePem")) == der(&member.certificate) => {
                counts.certificates += 1;
                counts.answered.insert(seen.name.clone());
                Some(("crt_ack", json!({"certificateId": member.id})))
            }
            _ => {
                counts.wrong.push(seen.clone());
                None
            }
        }
    }
}

async fn queue(peer: &Peer, name: &str, kind: &str, body: &Value) {
    peer.queue(&topic(name, kind), body.to_string()).await.expect("the client runs");
}

fn der(pem: &str) -> Vec<u8> {
    pem::parse(pem).map(pem::Pem::into_contents).unwrap_or_default()
}
