//! A core whose own certificate is rotated: its nucleus uses the files, its brokers want mTLS, and a
//! small systemd runs nucleus and gateway.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certrelay::{
    control,
    status::{self, StatusSnapshot},
    wire::CertificateId,
};
use fake_nucleus::{FakeNucleus, Mode, TlsFiles, Upstream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    harness::{CORE, DEADLINE, PROGRAM, generous, topic},
    peers::{Cloud, Seen, certificate_id},
    support::{
        eventually_async, holds,
        mosquitto::{Mosquitto, Setup},
        now,
        peer::{Login, Peer},
        pki::{Authority, Files, Pair},
        proxy::Proxy,
        supervisor::{Program, RestartCommand, Supervisor},
        within,
    },
    way::Via,
};

/// How long the cloud waits before it says something again.
const AGAIN: Duration = Duration::from_millis(500);

/// The cloud's client id, and …
const CLOUD: &str = "core-1-cloud";

/// … the nucleus': a broker that takes no id but those that begin so knows no probes.
const NUCLEUS: &str = "core-1-nucleus";

/// What a site is to be like.
pub struct Plan {
    pub mode: Mode,
    /// Lines for the configuration of the cloud's broker.
    pub broker: &'static str,
    pub is_fleet_provisioned: bool,
    pub max_restarts: u32,
    /// When the nucleus may be restarted.
    pub window: Option<&'static str>,
    /// The user that the gateway runs as; `None`: that of the tests.
    pub user: Option<u32>,
}

/// The site. Nothing runs but the brokers and the nucleus, until [`CoreSite::started`].
pub struct CoreSite {
    dir: TempDir,
    authority: Arc<Authority>,
    pub floor: Mosquitto,
    pub broker: Mosquitto,
    pub network: Proxy,
    pub supervisor: Supervisor,
    files: Files,
    first: Pair,
}

impl Plan {
    /// Under this nucleus, with nothing special.
    pub fn new(via: Via) -> Self {
        let mode = match via {
            Via::Classic => Mode::Java,
            Via::Lite => Mode::Lite,
            Via::Mqtt => panic!("without a nucleus the core has no certificate to rotate"),
        };
        Self {
            mode,
            broker: "",
            is_fleet_provisioned: false,
            max_restarts: 24,
            window: None,
            user: None,
        }
    }

    pub fn build(self) -> CoreSite {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).expect("a folder");
            folder
        };
        let (core, root, work) = (folder("core"), folder("gg"), folder("work"));
        let authority = Arc::new(Authority::new("core devices CA"));
        let floor = generous(Setup::plain()).start();
        let broker = generous(Setup::mtls(&authority)).line(self.broker).start();
        let network = Proxy::start(broker.port());
        let first = authority.client(CORE);
        let (certificate, key) = first.write(&core, CORE);
        let files = Files { ca: authority.write(dir.path()), certificate, key };
        let command = RestartCommand::new(dir.path());
        let mut settings = fake_nucleus::Settings::new(self.mode);
        settings.thing_name = CORE.to_owned();
        settings.root = Some(root.clone());
        settings.is_fleet_provisioned = self.is_fleet_provisioned;
        settings.timing.unsubscribe = Duration::from_millis(5);
        settings.upstream = upstream(&files, network.port());
        settings.configuration = self.configuration(&work, &command, &floor, &network);
        let log = dir.path().join("gateway.log");
        let program = match self.user {
            None => Program { path: PROGRAM.into(), arguments: vec!["run".into()], log },
            Some(user) => as_user(user, &[dir.path(), &root], &work, log),
        };
        let nucleus = FakeNucleus::start(settings);
        let supervisor = Supervisor::new(nucleus, program, command);
        CoreSite { dir, authority, floor, broker, network, supervisor, files, first }
    }

    fn configuration(
        &self,
        work: &Path,
        command: &RestartCommand,
        floor: &Mosquitto,
        network: &Proxy,
    ) -> Value {
        let mut core =
            json!({"restartCommand": command.words(), "maxRestartsPerDay": self.max_restarts});
        if let Some(window) = self.window {
            core["restartWindow"] = json!(window);
        }
        if self.mode == Mode::Lite {
            // It knows no port but 8883, and its configuration says none.
            core["endpoint"] = json!(format!("localhost:{}", network.port()));
        }
        let pauses = ["200ms", "2s"];
        json!({
            "workDir": work,
            "minInterval": "0s",
            "csr": {"settle": "0s"},
            "clock": {"trust": "always"},
            "log": {"format": "json"},
            "local": {"host": "127.0.0.1", "port": floor.port()},
            "repeat": {"request": pauses, "certificate": pauses, "cloud": pauses},
            "cloud": {"messagesPerSecond": 0, "unconfirmed": 1000, "probeInterval": "1s"},
            "core": core,
        })
    }
}

/// The gateway's program as another user, who may pass these folders and owns `work`.
fn as_user(user: u32, passes: &[&Path], work: &Path, log: PathBuf) -> Program {
    use std::os::unix::fs::{PermissionsExt, chown};
    for folder in passes {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    chown(work, Some(user), Some(user)).expect("tests of other users run as root");
    // Where the build is, others may not go.
    let program = work.join("certrelay");
    fs::copy(PROGRAM, &program).expect("copied");
    let id = user.to_string();
    let words = ["--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(Into::into);
    let command = [program.into(), "run".into()];
    let arguments = words.into_iter().chain(command).collect();
    Program { path: "setpriv".into(), arguments, log }
}

fn upstream(files: &Files, port: u16) -> Upstream {
    let Files { ca, certificate, key } = files.clone();
    let (host, client_id) = ("localhost".to_owned(), NUCLEUS.to_owned());
    Upstream::Mqtt { host, port, client_id, tls: Some(TlsFiles { ca, certificate, key }) }
}

impl CoreSite {
    /// Starts the gateway, and waits until it hears the cloud.
    pub async fn started(&self) {
        self.supervisor.start();
        let shown = |shown: &StatusSnapshot| {
            let links = &shown.summary.links;
            [&links.local, &links.cloud].iter().all(|link| link.state == status::LinkState::Up)
        };
        self.until("both links are up", shown).await;
    }

    /// The cloud, which hears all uplinks.
    pub async fn cloud(&self) -> Cloud {
        let files = self.authority.client_files(&self.work(""), CLOUD);
        let peer = Login::mtls(self.broker.port(), CLOUD, &files).persistent();
        let peer = peer.connect().await.expect("the cloud connects");
        for kind in ["csr_res", "crt_ack", "crt_err"] {
            peer.subscribe(&topic("+", kind)).await.expect("granted");
        }
        Cloud::new(peer, Arc::clone(&self.authority))
    }

    /// Someone at the floor's broker.
    pub async fn on_floor(&self, name: &str) -> Peer {
        Login::plain(self.floor.port(), name).connect().await.expect("connects")
    }

    /// The next uplink of this kind from the core; meanwhile the cloud says again what it last said
    /// of that kind: a nucleus keeps nothing for a gateway that is away.
    pub async fn hears(&self, cloud: &mut Cloud, kind: &str, saying: &str) -> Seen {
        let said_again = async {
            loop {
                match timeout(AGAIN, cloud.uplink(CORE, kind)).await {
                    Ok(seen) => return seen,
                    Err(_) => cloud.say_again(CORE, saying).await,
                }
            }
        };
        within(DEADLINE, &format!("a {kind} of the core"), said_again).await
    }

    /// Asks for a rotation; the CSR.
    pub async fn asked(&self, cloud: &mut Cloud, rotation: &str) -> Seen {
        cloud.request(CORE, &json!({"rotationId": rotation, "core": CORE})).await;
        let this_one = async {
            loop {
                let csr = self.hears(cloud, "csr_res", "csr_req").await;
                if csr.text("rotationId") == rotation {
                    return csr;
                }
            }
        };
        within(DEADLINE, &format!("a csr_res for {rotation}"), this_one).await
    }

    /// The core's ack, which came over the certificate that it names.
    pub async fn acked(&self, cloud: &mut Cloud) -> Seen {
        let ack = self.hears(cloud, "crt_ack", "crt").await;
        self.check_principal(&ack);
        ack
    }

    /// No ack came up to now.
    pub async fn has_not_acked(&self, cloud: &mut Cloud) {
        cloud.catch_up().await;
        let acks = cloud.seen.iter().filter(|seen| seen.name == CORE && seen.kind == "crt_ack");
        assert_eq!(acks.count(), 0);
    }

    /// What AWS IoT would see: the connection's certificate is the one that the ack names.
    pub fn check_principal(&self, ack: &Seen) {
        let principal = self.in_use().expect("the nucleus is connected");
        assert_eq!(ack.text("certificateId"), principal.to_string());
    }

    /// Settles an ack, until the old pair is wiped.
    pub async fn settled(&self, cloud: &mut Cloud, ack: &Seen) {
        let old = self.first.key.trim();
        eventually_async(DEADLINE, "the old pair is wiped", async || {
            cloud.settle(ack).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            !holds(&self.core(), old)
        })
        .await;
    }

    /// Rotates a child, which proves that the gateway serves the floor and the cloud hears it.
    pub async fn rotates_a_child(&self, cloud: &mut Cloud, name: &str) {
        let login = Login::plain(self.floor.port(), name);
        let mut device = crate::peers::Device::new(name, login).await;
        cloud.request(name, &json!({"rotationId": format!("r-{name}"), "core": CORE})).await;
        let asked = self.downlink(cloud, &mut device, "csr_req").await;
        device.send_csr(&asked).await;
        let csr = cloud.uplink(name, "csr_res").await;
        cloud.certify(&csr).await;
        let crt = self.downlink(cloud, &mut device, "crt").await;
        device.ack(&crt).await;
        cloud.uplink(name, "crt_ack").await;
    }

    async fn downlink(&self, cloud: &Cloud, device: &mut crate::peers::Device, kind: &str) -> Seen {
        let what = format!("a {kind} for {}", device.name);
        let said_again = async {
            loop {
                match timeout(AGAIN, device.next(kind)).await {
                    Ok(seen) => return seen,
                    Err(_) => cloud.say_again(&device.name, kind).await,
                }
            }
        };
        within(DEADLINE, &what, said_again).await
    }

    /// The certificate that the nucleus is connected with, or was last.
    pub fn in_use(&self) -> Option<CertificateId> {
        self.supervisor.nucleus().upstream_certificate().map(CertificateId)
    }

    /// The certificate under the path that the nucleus is configured with.
    pub fn configured(&self) -> CertificateId {
        certificate_id(&fs::read_to_string(&self.files.certificate).expect("it is there"))
    }

    /// The certificate that the core began with.
    pub fn first(&self) -> CertificateId {
        certificate_id(&self.first.certificate)
    }

    /// The configured paths, and the CA.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether the key that the core began with is anywhere beside the certificate.
    pub fn has_first_key(&self) -> bool {
        holds(&self.core(), self.first.key.trim())
    }

    /// Who signs the certificates that the cloud's broker takes.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The nucleus has found a pair at every load.
    pub fn no_pair_was_torn(&self) {
        assert_eq!(self.supervisor.nucleus().pair_faults(), [""; 0]);
    }

    /// The nucleus alone is started anew, and connects with what it finds.
    pub async fn nucleus_finds_a_pair(&self) {
        let before = self.supervisor.nucleus().upstream_connects();
        self.supervisor.restart();
        eventually_async(DEADLINE, "the nucleus connects", async || {
            self.supervisor.nucleus().upstream_connects() > before
        })
        .await;
        assert_eq!(self.in_use(), Some(self.configured()));
        self.no_pair_was_torn();
    }

    /// Waits until the core's rotation is in this stage.
    pub async fn until_stage(&self, stage: &str) {
        let is = |shown: &StatusSnapshot| {
            shown.summary.core_certificate.as_ref().is_some_and(|c| c.stage == stage)
        };
        self.until(stage, is).await;
    }

    /// Waits for a snapshot of the gateway's process that runs.
    pub async fn until(&self, what: &str, holds: impl Fn(&StatusSnapshot) -> bool) {
        let mut last = None;
        let began = now();
        loop {
            let pid = self.supervisor.pid();
            last = self.snapshot().filter(|shown| Some(shown.summary.pid) == pid).or(last);
            if last.as_ref().is_some_and(&holds) {
                return;
            }
            let log = || self.supervisor.log();
            assert!(began.elapsed() < DEADLINE, "{what}: {last:#?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the gateway says of itself.
    pub fn snapshot(&self) -> Option<StatusSnapshot> {
        status::read(&self.work("work")).ok()
    }

    /// What `certrelay core …` says, and whether it was done.
    pub fn core_command(&self, command: control::Command) -> (bool, String) {
        let answer = control::ask(&self.work("work"), command).expect("the gateway answers");
        (answer.ok, answer.text)
    }

    /// What anybody can see of the socket of the nucleus.
    pub fn open_the_socket(&self) {
        use std::os::unix::fs::PermissionsExt;
        let socket = self.work("gg").join("ipc.socket");
        fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).expect("it is ours");
    }

    fn core(&self) -> PathBuf {
        self.work("core")
    }

    fn work(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
