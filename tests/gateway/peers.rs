//! The scripted cloud and the scripted children.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use certrelay::{
    wire::{CertificateId, KeyDigest},
    x509,
};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::{
    harness::{CORE, DEADLINE, topic},
    support::{
        peer::{Login, Peer, Received},
        pki::{Authority, named},
        within,
    },
};

/// A message as a peer sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The child's name.
    pub name: String,
    /// The kind: the topic's last segment.
    pub kind: String,
    /// The payload; null if it is no JSON.
    pub body: Value,
}

impl Seen {
    /// Reads a message.
    pub fn read(message: &Received) -> Self {
        Self::of(&message.topic, &message.payload)
    }

    /// Reads a message that came by another way.
    pub fn of(topic: &str, payload: &[u8]) -> Self {
        let mut segments = topic.rsplit('/').map(str::to_owned);
        let (kind, name) = (segments.next(), segments.next());
        let body = serde_json::from_slice(payload).unwrap_or_default();
        Self { name: name.unwrap_or_default(), kind: kind.unwrap_or_default(), body }
    }

    /// A field that is a text.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

/// The cloud: it asks, issues and settles, when it is told to.
pub struct Cloud {
    peer: Peer,
    authority: Arc<Authority>,
    issued: HashMap<(String, KeyDigest), String>,
    unread: VecDeque<Seen>,
    /// The last of each kind that was said to each child.
    said: Mutex<HashMap<(String, String), Vec<u8>>>,
    /// The messages that [`Cloud::new_uplink`] has returned.
    heard: HashSet<String>,
    /// All uplinks, in order.
    pub seen: Vec<Seen>,
}

impl Cloud {
    /// A cloud on this connection.
    pub fn new(peer: Peer, authority: Arc<Authority>) -> Self {
        let (issued, unread, said) = (HashMap::new(), VecDeque::new(), Mutex::default());
        let heard = HashSet::new();
        Self { peer, authority, issued, unread, said, heard, seen: Vec::new() }
    }

    /// Goes on over another connection.
    pub fn reconnected(&mut self, peer: Peer) {
        self.peer = peer;
    }

    /// Who signs its certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sends anything downlink.
    pub async fn send(&self, name: &str, kind: &str, payload: impl Into<Vec<u8>>) {
        let payload = payload.into();
        let key = (name.to_owned(), kind.to_owned());
        self.said.lock().expect("whole").insert(key, payload.clone());
        self.peer.publish(&topic(name, kind), payload).await.expect("the broker takes it");
    }

    /// Says again what it last said of this kind to this child.
    pub async fn say_again(&self, name: &str, kind: &str) {
        let key = (name.to_owned(), kind.to_owned());
        let said = self.said.lock().expect("whole").get(&key).cloned();
        self.send(name, kind, said.expect("it was said once")).await;
    }

    /// Asks for a rotation.
    pub async fn request(&self, name: &str, body: &Value) {
        self.send(name, "csr_req", body.to_string()).await;
    }

    /// The next unread uplink of this kind from this child.
    pub async fn uplink(&mut self, name: &str, kind: &str) -> Seen {
        let what = format!("a {kind} of {name}");
        let fits = |seen: &Seen| seen.name == name && seen.kind == kind;
        within(DEADLINE, &what, self.next(fits)).await
    }

    /// The next unread uplink from this device, of any kind.
    pub async fn any_uplink(&mut self, name: &str) -> Seen {
        let what = format!("anything of {name}");
        within(DEADLINE, &what, self.next(|seen| seen.name == name)).await
    }

    async fn next(&mut self, fits: impl Fn(&Seen) -> bool) -> Seen {
        loop {
            if let Some(at) = self.unread.iter().position(&fits) {
                return self.unread.remove(at).expect("it is there");
            }
            let seen = Seen::read(&self.peer.next().await);
            self.seen.push(seen.clone());
            self.unread.push_back(seen);
        }
    }

    /// As [`Cloud::uplink`], but past what says once more what this has returned before.
    pub async fn new_uplink(&mut self, name: &str, kind: &str) -> Seen {
        let new_one = async {
            loop {
                let seen = self.uplink(name, kind).await;
                if self.heard.insert(seen.text("mid").to_owned()) {
                    return seen;
                }
            }
        };
        within(DEADLINE, &format!("a new {kind} of {name}"), new_one).await
    }

    /// Takes all that came up to now for read.
    pub async fn catch_up(&mut self) {
        let messages = self.peer.flush("cloud/flush").await;
        self.seen.extend(messages.iter().map(Seen::read));
        self.unread.clear();
    }

    /// The certificate for a CSR: the same for the same child and key.
    pub fn issue(&mut self, csr: &Seen) -> String {
        let pem = csr.text("CSR");
        let der = pem::parse(pem).expect("the gateway sends PEM").into_contents();
        let key = (csr.name.clone(), x509::csr_key(&der).expect("a CSR"));
        let authority = &self.authority;
        self.issued.entry(key).or_insert_with(|| authority.sign_csr(pem)).clone()
    }

    /// Answers a CSR with its certificate.
    pub async fn certify(&mut self, csr: &Seen) {
        let certificate = self.issue(csr);
        let rotation = &csr.body["rotationId"];
        let body = json!({"certificatePem": certificate, "rotationId": rotation, "core": CORE});
        self.send(&csr.name, "crt", body.to_string()).await;
    }

    /// Says that it acted on a notice.
    pub async fn settle(&self, notice: &Seen) {
        let body = json!({
            "core": CORE, "mid": notice.body["mid"], "for": notice.kind, "ok": true, "final": true,
        });
        self.send(&notice.name, "result", body.to_string()).await;
    }
}

/// A child with one new key.
pub struct Device {
    /// Its thing name.
    pub name: String,
    peer: Peer,
    /// The key of its CSR.
    pub key: KeyPair,
}

impl Device {
    /// Connects, and listens to its topics.
    pub async fn new(name: &str, login: Login) -> Self {
        let peer = login.connect().await.expect("the child connects");
        for kind in ["csr_req", "crt"] {
            peer.subscribe(&topic(name, kind)).await.expect("granted");
        }
        let key = KeyPair::generate().expect("a P-256 key");
        Self { name: name.to_owned(), peer, key }
    }

    /// Goes on over another connection.
    pub async fn reconnected(&mut self, login: Login) {
        let Self { peer, .. } = Self::new(&self.name, login).await;
        self.peer = peer;
    }

    /// The next message of this kind; others are passed over.
    pub async fn downlink(&mut self, kind: &str) -> Seen {
        let what = format!("a {kind} for {}", self.name);
        within(DEADLINE, &what, self.next(kind)).await
    }

    /// As [`Device::downlink`], for who has a deadline of his own.
    pub async fn next(&mut self, kind: &str) -> Seen {
        loop {
            let seen = Seen::read(&self.peer.next().await);
            if seen.kind == kind {
                return seen;
            }
        }
    }

    /// Takes all that came up to now for read.
    pub async fn catch_up(&mut self) {
        self.peer.flush(&format!("{}/flush", self.name)).await;
    }

    /// Sends anything uplink under its own name.
    pub async fn send(&self, kind: &str, payload: impl Into<Vec<u8>>) {
        self.peer.publish(&topic(&self.name, kind), payload).await.expect("the broker takes it");
    }

    /// Answers a request with its CSR.
    pub async fn send_csr(&self, asked: &Seen) {
        let body =
            json!({"CSR": csr(&self.name, &self.key), "rotationId": asked.body["rotationId"]});
        self.send("csr_res", body.to_string()).await;
    }

    /// Acknowledges a certificate by its name.
    pub async fn ack(&self, crt: &Seen) {
        let id = certificate_id(crt.text("certificatePem"));
        let rotation = &crt.body["rotationId"];
        let body = json!({"certificateId": id.to_string(), "rotationId": rotation});
        self.send("crt_ack", body.to_string()).await;
    }
}

/// A CSR for this common name, PEM.
pub fn csr(name: &str, key: &KeyPair) -> String {
    named(name).serialize_request(key).and_then(|csr| csr.pem()).expect("a CSR")
}

/// What a certificate is called.
pub fn certificate_id(pem: &str) -> CertificateId {
    x509::certificate_id(pem::parse(pem).expect("a certificate").contents())
}
