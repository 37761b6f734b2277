//! The real agent against a real Mosquitto with mTLS.

mod support;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child as Process, Command, Output, Stdio},
    time::Duration,
};

use certrelay::{
    child::{Found, disk},
    install::Credentials,
    wire::{AckName, CertificateId, CrtAck, CsrRes, Header, render},
    x509::read_certificate,
};
use support::{
    eventually,
    mosquitto::{Mosquitto, Setup},
    now,
    peer::{Login, Peer},
    pki::Authority,
};
use tempfile::TempDir;

const AGENT: &str = env!("CARGO_BIN_EXE_certrelay-child");
const DEADLINE: Duration = Duration::from_secs(20);

/// A floor with one device.
struct Floor {
    dir: TempDir,
    authority: Authority,
    broker: Mosquitto,
}

impl Floor {
    fn new() -> Self {
        let authority = Authority::new("floor");
        let rules = "user core-1\ntopic readwrite #\npattern write management/topic/%u/csr_res\n\
                     pattern write management/topic/%u/crt_ack\n\
                     pattern write management/topic/%u/crt_err\n\
                     pattern read management/topic/%u/csr_req\npattern read management/topic/%u/crt";
        let broker =
            Setup::mtls(&authority).line("use_username_as_clientid true").acl(rules).start();
        let dir = tempfile::tempdir().expect("a folder");
        authority.write(dir.path());
        std::fs::create_dir(dir.path().join("pump-7")).expect("a folder");
        let floor = Self { dir, authority, broker };
        let pair = floor.authority.client("pump-7");
        support::write(&floor.device().join("cert.pem"), &pair.certificate);
        support::write(&floor.device().join("key.pem"), &pair.key);
        floor
    }

    fn device(&self) -> PathBuf {
        self.dir.path().join("pump-7")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(AGENT);
        command
            .args(["run", "--thing", "pump-7", "--broker"])
            .arg(format!("localhost:{}", self.broker.port()))
            .arg("--dir")
            .arg(self.device())
            .arg("--ca")
            .arg(self.dir.path().join("ca.pem"));
        command
    }

    fn start(&self) -> Agent {
        self.start_with(&[])
    }

    fn start_with(&self, arguments: &[&str]) -> Agent {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .expect("a log");
        let process = self.command().args(arguments).stderr(log).stdin(Stdio::null()).spawn();
        Agent { process: process.expect("the agent starts") }
    }

    fn found(&self) -> Option<Found> {
        disk::load(&Credentials::look(&self.device())).expect("readable")
    }

    fn in_use(&self) -> CertificateId {
        self.found().expect("a pair in use").current.facts.id
    }

    async fn gateway(&self) -> Gateway {
        let files = self.authority.client_files(self.dir.path(), "core-1");
        let peer = Login::mtls(self.broker.port(), "core-1", &files).connect().await;
        let peer = peer.expect("the gateway connects");
        for kind in ["csr_res", "crt_ack", "crt_err"] {
            peer.subscribe(&format!("management/topic/+/{kind}")).await.expect("granted");
        }
        Gateway { peer, rotation: 0, csr: None, issued: None, acked: None, rotated: 0 }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }
}

/// A running agent; killed when dropped.
struct Agent {
    process: Process,
}

impl Agent {
    fn kill(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it dies");
    }

    fn terminate(&mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill runs").success());
        let mut code = None;
        eventually(DEADLINE, "the agent ends", || {
            code = self.process.try_wait().expect("a child of ours");
            code.is_some()
        });
        code.and_then(|code| code.code())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Plays the gateway and the cloud behind it.
struct Gateway {
    peer: Peer,
    rotation: u32,
    csr: Option<Vec<u8>>,
    issued: Option<String>,
    acked: Option<CertificateId>,
    rotated: u32,
}

impl Gateway {
    fn header(&self) -> Header {
        let rotation = format!("r-{}", self.rotation).parse().expect("valid");
        Header { rotation: Some(rotation), ..Header::default() }
    }

    async fn send(&self, kind: &str, payload: Vec<u8>) {
        let topic = format!("management/topic/pump-7/{kind}");
        self.peer.publish(&topic, payload).await.expect("the broker has it");
    }

    async fn ask(&mut self) {
        self.rotation += 1;
        (self.csr, self.issued) = (None, None);
        self.repeat().await;
    }

    /// Says again what the device has not answered.
    async fn repeat(&self) {
        match &self.issued {
            None => self.send("csr_req", render::csr_req(&self.header(), None, None)).await,
            Some(certificate) => self.send("crt", self.certificate(certificate)).await,
        }
    }

    fn certificate(&self, pem: &str) -> Vec<u8> {
        let der = pem::parse(pem).expect("PEM").into_contents();
        render::crt(&self.header(), [der.as_slice()])
    }

    fn issued_id(&self) -> Option<CertificateId> {
        let der = pem::parse(self.issued.as_ref()?).expect("PEM").into_contents();
        Some(read_certificate(&der).expect("readable").id)
    }

    /// Hears and answers what comes within a moment. Whether anything came.
    async fn turn(&mut self, authority: &Authority) -> bool {
        let Some(message) = self.peer.receive(Duration::from_millis(50)).await else {
            return false;
        };
        if message.topic.ends_with("csr_res") {
            let csr = CsrRes::parse(&message.payload).expect("readable").csr;
            if self.csr.as_ref() != Some(&csr) {
                let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", csr.clone()));
                (self.csr, self.issued) = (Some(csr), Some(authority.sign_csr(&pem)));
            }
            self.repeat().await;
        } else if message.topic.ends_with("crt_ack") {
            let ack = CrtAck::parse(&message.payload).expect("readable");
            let AckName::Named(id) = ack.certificate else { panic!("a bare ack") };
            self.acked = Some(id);
            if self.issued_id() == Some(id) {
                self.rotated += 1;
            }
        }
        true
    }

    async fn rotate(&mut self, authority: &Authority) -> CertificateId {
        self.ask().await;
        let start = now();
        let mut quiet = 0;
        while self.issued.is_none() || self.acked != self.issued_id() {
            assert!(start.elapsed() < DEADLINE, "no rotation within {DEADLINE:?}");
            quiet = if self.turn(authority).await { 0 } else { quiet + 1 };
            if quiet == 20 {
                quiet = 0;
                self.repeat().await;
            }
        }
        self.issued_id().expect("just issued")
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn show(dir: &Path) -> Output {
    Command::new(AGENT).arg("show").arg("--dir").arg(dir).output().expect("it runs")
}

#[tokio::test]
async fn the_agent_adopts_its_first_pair_rotates_and_ends_cleanly() {
    let floor = Floor::new();
    let done = floor.dir.path().join("done");
    let exec = format!("cat \"$CERTRELAY_DIR\"/current/cert.pem > {}", done.display());
    let mut agent = floor.start_with(&["--exec", &exec, "--key", "p384"]);
    // What is asked before that is lost: there is no session to keep it.
    eventually(DEADLINE, "the agent is there", || floor.log().contains("connected with gen-1"));
    let first = floor.in_use();
    let mut gateway = floor.gateway().await;
    let acked = gateway.rotate(&floor.authority).await;
    assert_ne!(acked, first);
    assert_eq!(floor.in_use(), acked);
    eventually(DEADLINE, "--exec has run", || {
        std::fs::read(&done).is_ok_and(|left| {
            let current = std::fs::read(floor.device().join("current/cert.pem"));
            !left.is_empty() && current.is_ok_and(|current| current == left)
        })
    });
    for file in ["gen-2/key.pem", "gen-2/cert.pem", "gen-2/csr.der", "gen-1/key.pem", "child.json"]
    {
        assert_eq!(mode(&floor.device().join(file)), 0o600, "{file}");
    }
    let shown = show(&floor.device());
    assert!(shown.status.success());
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&acked.to_string()));
    assert_eq!(agent.terminate(), Some(0));
    let log = floor.log();
    assert!(!log.contains("PRIVATE") && !log.contains("BEGIN"), "{log}");
}

#[tokio::test]
async fn killed_at_any_instant_the_agent_comes_back_with_a_pair_and_finishes() {
    let floor = Floor::new();
    let mut agent = floor.start();
    eventually(DEADLINE, "the first pair is adopted", || floor.found().is_some());
    let mut gateway = floor.gateway().await;
    gateway.rotate(&floor.authority).await;
    let mut rng = fastrand::Rng::with_seed(7);
    let start = now();
    for _ in 0..30 {
        let life = now();
        let until = Duration::from_millis(rng.u64(5..500));
        gateway.ask().await;
        while life.elapsed() < until {
            gateway.turn(&floor.authority).await;
        }
        agent.kill();
        let found = floor.found().expect("a pair in use");
        assert!(found.generations.len() <= 4, "{:?}", found.generations);
        agent = floor.start();
    }
    let killing = start.elapsed();
    let acked = gateway.rotate(&floor.authority).await;
    assert_eq!(floor.in_use(), acked);
    assert!(killing < Duration::from_secs(30), "{killing:?}");
    println!("30 kills in {killing:?}, {} rotations finished", gateway.rotated);
    assert_eq!(agent.terminate(), Some(0));
}

#[tokio::test]
async fn a_certificate_that_the_broker_refuses_leaves_the_device_within_reach() {
    let floor = Floor::new();
    let mut agent = floor.start();
    // What is asked before that is lost: there is no session to keep it.
    eventually(DEADLINE, "the agent is there", || floor.log().contains("connected with gen-1"));
    let first = floor.in_use();
    let mut gateway = floor.gateway().await;
    let stranger = Authority::new("stranger");
    gateway.ask().await;
    let start = now();
    while !floor.log().contains("failed where the old one works") {
        assert!(start.elapsed() < DEADLINE, "the new pair was not tried: {}", floor.log());
        gateway.turn(&stranger).await;
    }
    assert_eq!(floor.in_use(), first);
    // The same key under the right CA works.
    let acked = gateway.rotate(&floor.authority).await;
    assert_eq!(floor.in_use(), acked);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn without_a_usable_pair_the_agent_says_so_and_ends_with_2() {
    let floor = Floor::new();
    let refused = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(Command::new(AGENT).args(["run"])).contains("--broker"));
    assert!(refused(floor.command().args(["--key", "rsa1024"])).contains("p256"));
    assert!(refused(floor.command().args(["--prefix", "a/#"])).contains("prefix"));
    let other = floor.authority.client("pump-7");
    support::write(&floor.device().join("key.pem"), &other.key);
    assert!(refused(&mut floor.command()).contains("does not fit"));
    std::fs::remove_file(floor.device().join("key.pem")).expect("removed");
    assert!(refused(&mut floor.command()).contains("key.pem"));
    let shown = show(&floor.device());
    assert_eq!(shown.status.code(), Some(2));
}
