//! A site: the floor's broker, the cloud's broker, the gateway between them, and its peers.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{self, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use certrelay::{
    reason::Reason,
    status::{self, Row, RowState, StatusSnapshot},
};
use fake_nucleus::FakeNucleus;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    peers::{Cloud, Device, Seen},
    support::{
        eventually_async,
        mosquitto::{Mosquitto, Setup},
        now,
        peer::{Login, Peer},
        pki::{Authority, Files, Pair},
        proxy::Proxy,
        within,
    },
    way::{WayUp, say_again, toml},
};

/// Far more than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The gateway's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_certrelay");

pub use crate::way::Via;

/// The core device's thing name.
pub const CORE: &str = "core-1";

/// The gateway's identity at both brokers.
pub const GATEWAY: &str = "core-1-certrelay";

/// What the example says of access on the floor.
const RULES: &str = include_str!("../../examples/mosquitto/acl");

/// Two brokers, the network between gateway and cloud, and the gateway's place.
pub struct Site {
    via: Via,
    pub floor: Mosquitto,
    pub cloud: Mosquitto,
    pub network: Proxy,
    pub gateway: Gateway,
    secured: Option<Secured>,
}

/// With mTLS: who vouches for whom.
struct Secured {
    /// For everyone on the floor: the cloud signs the children's certificates with it.
    devices: Arc<Authority>,
    /// For everyone at the cloud's broker.
    cloud: Authority,
    files: TempDir,
}

/// Repeats that a test can wait for.
const QUICK: &str = "[repeat]\nrequest = ['200ms', '2s']\ncertificate = ['200ms', '2s']\n\
                     cloud = ['200ms', '2s']\n";

/// Settings of Mosquitto that keep it from losing or delaying what is queued.
pub fn generous(setup: Setup) -> Setup {
    setup
        .persistent()
        .line("max_queued_messages 0")
        .line("max_inflight_messages 100")
        .line("set_tcp_nodelay true")
}

impl Site {
    /// Plain TCP, no access rules; the gateway is not started, and will repeat quickly.
    pub fn plain(via: Via) -> Self {
        Self::plain_with(via, QUICK)
    }

    /// As [`Site::plain`], but the gateway repeats when it usually does, and reaches the cloud's
    /// broker directly.
    pub fn measured() -> Self {
        Self::plain_with(Via::Mqtt, "")
    }

    fn plain_with(via: Via, repeats: &str) -> Self {
        let (floor, cloud) = (generous(Setup::plain()).start(), generous(Setup::plain()).start());
        let network = Proxy::start(cloud.port());
        let port = if repeats.is_empty() { cloud.port() } else { network.port() };
        let way = WayUp::new(via, port, None);
        let gateway = Gateway::new(floor.port(), "", repeats, way);
        Self { via, floor, cloud, network, gateway, secured: None }
    }

    /// mTLS on both sides, and the example's access rules on the floor.
    pub fn mtls(via: Via) -> Self {
        let (devices, authority) =
            (Arc::new(Authority::new("devices CA")), Authority::new("cloud CA"));
        let files = tempfile::tempdir().expect("a folder");
        let floor = generous(Setup::mtls(&devices)).line("use_username_as_clientid true");
        let (floor, cloud) = (floor.acl(RULES).start(), generous(Setup::mtls(&authority)).start());
        let network = Proxy::start(cloud.port());
        let secured = Secured { devices, cloud: authority, files };
        let way = WayUp::new(via, network.port(), Some(secured.at_cloud(GATEWAY)));
        let gateway = Gateway::new(floor.port(), &toml(&secured.device(GATEWAY)), QUICK, way);
        Self { via, floor, cloud, network, gateway, secured: Some(secured) }
    }

    /// Someone on the floor; with mTLS under a certificate in this name.
    pub fn on_floor(&self, name: &str) -> Login {
        match &self.secured {
            None => Login::plain(self.floor.port(), name),
            Some(secured) => Login::mtls(self.floor.port(), name, &secured.device(name)),
        }
    }

    /// What a program on the floor needs for mTLS under this name.
    pub fn files_on_floor(&self, name: &str) -> Files {
        self.secured.as_ref().expect("a site with mTLS").device(name)
    }

    /// Someone on the floor with a certificate that was just issued, and its key.
    pub fn on_floor_with(&self, name: &str, certificate: &str, key: &KeyPair) -> Login {
        let secured = self.secured.as_ref().expect("a site with mTLS");
        let key = key.serialize_pem();
        let pair = Pair { certificate: certificate.to_owned(), key };
        let files = secured.device(name);
        let (certificate, key) = pair.write(secured.files.path(), &format!("{name}-new"));
        Login::mtls(self.floor.port(), name, &Files { certificate, key, ..files })
    }

    /// The cloud, which hears all uplinks. It misses nothing while it is away.
    pub async fn cloud(&self) -> Cloud {
        let authority = self.secured.as_ref().map(|secured| Arc::clone(&secured.devices));
        let authority = authority.unwrap_or_else(|| Arc::new(Authority::new("devices")));
        Cloud::new(self.cloud_peer().await, authority)
    }

    /// A connection at the cloud's broker that is subscribed to all uplinks.
    pub async fn cloud_peer(&self) -> Peer {
        let login = match &self.secured {
            None => Login::plain(self.cloud.port(), "cloud"),
            Some(secured) => Login::mtls(self.cloud.port(), "cloud", &secured.at_cloud("cloud")),
        };
        let peer = login.persistent().connect().await.expect("the cloud connects");
        for kind in ["csr_res", "crt_ack", "crt_err"] {
            peer.subscribe(&topic("+", kind)).await.expect("granted");
        }
        peer
    }

    /// A child that listens to its topics.
    pub async fn device(&self, name: &str) -> Device {
        Device::new(name, self.on_floor(name).persistent()).await
    }

    /// The next message of this kind to a child, after one that may have been lost: a nucleus, and
    /// the cloud for a nucleus, keep none for a gateway that is away. The cloud says it again then.
    pub async fn downlink(&self, cloud: &Cloud, device: &mut Device, kind: &str) -> Seen {
        let what = format!("a {kind} for {}", device.name);
        let said_again = async {
            loop {
                tokio::select! {
                    seen = device.next(kind) => return seen,
                    () = self.say_again() => cloud.say_again(&device.name, kind).await,
                }
            }
        };
        within(DEADLINE, &what, said_again).await
    }

    /// Waits until a child's rotation is over, after the cloud has settled its notice: a word that
    /// may have been lost, too.
    pub async fn finished(&mut self, cloud: &Cloud, notice: &Seen) {
        let via = self.via;
        let done = self.gateway.until_done(&notice.name);
        let again = async {
            loop {
                say_again(via).await;
                cloud.settle(notice).await;
            }
        };
        tokio::select! {
            () = done => {}
            () = again => {}
        }
    }

    async fn say_again(&self) {
        say_again(self.via).await;
    }

    /// A whole rotation of a new child with named acks, until the gateway knows that it is over.
    pub async fn rotate(&mut self, cloud: &mut Cloud, name: &str) {
        let mut device = self.device(name).await;
        cloud.request(name, &json!({"rotationId": format!("r-{name}"), "core": CORE})).await;
        let asked = self.downlink(cloud, &mut device, "csr_req").await;
        device.send_csr(&asked).await;
        let csr = cloud.uplink(name, "csr_res").await;
        cloud.certify(&csr).await;
        let crt = self.downlink(cloud, &mut device, "crt").await;
        device.ack(&crt).await;
        let ack = cloud.uplink(name, "crt_ack").await;
        cloud.settle(&ack).await;
        self.finished(cloud, &ack).await;
    }
}

impl Secured {
    fn device(&self, name: &str) -> Files {
        self.devices.client_files(&self.folder("devices"), name)
    }

    fn at_cloud(&self, name: &str) -> Files {
        self.cloud.client_files(&self.folder("cloud"), name)
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.files.path().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

/// A topic, the same on both brokers.
pub fn topic(name: &str, kind: &str) -> String {
    format!("management/topic/{name}/{kind}")
}

/// The gateway's program, settings and work directory. Killed when dropped.
pub struct Gateway {
    dir: TempDir,
    running: Option<Running>,
    way: WayUp,
}

struct Running {
    process: process::Child,
    log: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Gateway {
    fn new(floor: u16, tls: &str, repeats: &str, way: WayUp) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let host = if tls.is_empty() { "127.0.0.1" } else { "localhost" };
        let all = format!(
            "workDir = {:?}\nminInterval = '0s'\n\
             [csr]\nsettle = '0s'\n[clock]\ntrust = 'always'\n[log]\nformat = 'json'\n\
             [local]\nhost = '{host}'\nport = {floor}\n{tls}\
             {repeats}[cloud]\nmessagesPerSecond = 0\n\
             unconfirmed = 1000\nprobeInterval = '1s'\n{}",
            dir.path(),
            way.settings(),
        );
        let gateway = Self { dir, running: None, way };
        gateway.set(&all);
        gateway
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("certrelay.toml")
    }

    fn set(&self, settings: &str) {
        crate::support::write(&self.settings(), settings);
    }

    /// Adds a table to its settings, from its next start on.
    pub fn amend(&mut self, table: &str) {
        let settings = std::fs::read_to_string(self.settings()).expect("written by new");
        self.set(&(settings + "\n" + table));
    }

    /// Changes what its nucleus is like. Before the first start.
    pub fn prepare(&mut self, change: impl FnOnce(&mut fake_nucleus::Settings)) {
        match &mut self.way {
            WayUp::Nucleus(settings, None) => change(settings),
            _ => panic!("no nucleus is to be started"),
        }
    }

    /// Has it speak to the floor through Greengrass' MQTT bridge. Before the first start.
    pub fn speak_through_the_bridge(&mut self, floor: u16) {
        let settings = fs::read_to_string(self.settings()).expect("written by new");
        let broker = format!("host = '127.0.0.1'\nport = {floor}\n");
        assert!(settings.contains(&broker), "{settings}");
        self.set(&settings.replace(&broker, "link = 'pubsub'\n"));
    }

    /// Sets how often the link to the cloud is probed. Before the first start.
    pub fn probe_every(&mut self, interval: Duration) {
        let settings = fs::read_to_string(self.settings()).expect("written by new");
        let interval = format!("probeInterval = '{}s'", interval.as_secs());
        self.set(&settings.replace("probeInterval = '1s'", &interval));
    }

    /// Its settings, as JSON.
    pub fn configuration(&self) -> Value {
        let text = fs::read_to_string(self.settings()).expect("written by new");
        toml::from_str(&text).expect("TOML that JSON can say")
    }

    /// The nucleus that it is a component of.
    pub fn nucleus(&mut self) -> &mut FakeNucleus {
        match &mut self.way {
            WayUp::Nucleus(_, Some(nucleus)) => nucleus,
            _ => panic!("no nucleus runs"),
        }
    }

    /// Starts it.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "the gateway runs already");
        let mut process = Command::new(PROGRAM);
        process.env("AWS_IOT_THING_NAME", CORE).arg("run");
        let (settings, configuration) = (self.settings(), self.configuration());
        match &mut self.way {
            WayUp::Mqtt(_) => drop(process.arg("--config").arg(settings)),
            WayUp::Nucleus(wanted, nucleus) => {
                wanted.configuration = configuration;
                let nucleus = nucleus.get_or_insert_with(|| FakeNucleus::start((**wanted).clone()));
                process.envs(nucleus.environment());
            }
        }
        let mut process = process
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let lines = lines.map_while(Result::ok).map(|line| (now(), line));
            lines.for_each(|line| written.lock().expect("whole").push(line));
        });
        self.running = Some(Running { process, log });
    }

    /// Starts it and waits until it serves the floor.
    pub async fn started(&mut self) {
        self.start();
        self.serves("local").await;
        // What is said before that is lost: a nucleus keeps nothing for a component.
        if self.way.is_online() {
            self.serves("cloud").await;
        }
    }

    /// Waits until this process is ready and has connected to this side.
    pub async fn serves(&mut self, side: &str) {
        let connected = format!("\"link\":\"{side}\"");
        eventually_async(DEADLINE, "the gateway connects", async || {
            self.check_alive();
            let is_up = |line: &String| line.contains("connected\"") && line.contains(&connected);
            let log = self.log();
            log.iter().any(|line| line.contains("\"ready\""))
                && log.iter().any(|line| is_up(line) && !line.contains("not connected"))
        })
        .await;
    }

    /// What this process has logged.
    pub fn log(&self) -> Vec<String> {
        self.timed_log().into_iter().map(|(_, line)| line).collect()
    }

    /// What this process has logged, and when that came.
    pub fn timed_log(&self) -> Vec<(Instant, String)> {
        self.running.as_ref().expect("it runs").log.lock().expect("whole").clone()
    }

    /// Waits until it ends by itself. Returns its exit code and what it logged.
    pub async fn ended(&mut self, deadline: Duration) -> (Option<i32>, Vec<String>) {
        let mut running = self.running.take().expect("it runs");
        let mut ended = None;
        eventually_async(deadline, "the gateway ends by itself", async || {
            ended = running.process.try_wait().expect("its status");
            ended.is_some()
        })
        .await;
        let log = running.log.lock().expect("whole").iter().map(|(_, line)| line.clone()).collect();
        (ended.and_then(|status| status.code()), log)
    }

    fn check_alive(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        if let Some(status) = running.process.try_wait().expect("its status") {
            panic!("the gateway ended with {status}:\n{}", self.log().join("\n"));
        }
    }

    /// Ends it with SIGKILL. Returns the most memory it had, in KiB.
    pub fn kill(&mut self) -> u64 {
        let Some(mut running) = self.running.take() else { return 0 };
        let memory = memory(running.process.id(), "VmHWM:");
        running.process.kill().and_then(|()| running.process.wait()).expect("it dies");
        memory
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").process.id()
    }

    /// Ends it with SIGTERM. Returns its exit code and how long that took.
    pub async fn terminate(&mut self) -> (Option<i32>, Duration) {
        let mut running = self.running.take().expect("it runs");
        let (told, pid) = (now(), running.process.id().to_string());
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let mut ended = None;
        eventually_async(DEADLINE, "the gateway ends", async || {
            ended = running.process.try_wait().expect("its status");
            ended.is_some()
        })
        .await;
        (ended.and_then(|status| status.code()), told.elapsed())
    }

    /// What `certrelay status --json` prints.
    pub fn status(&self) -> Value {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["status", "--json", "--work-dir"]).arg(self.dir.path()).output();
        let output = output.expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The snapshot that stands in the work directory, whoever wrote it.
    pub fn snapshot(&self) -> Option<StatusSnapshot> {
        status::read(self.dir.path()).ok()
    }

    /// Waits for a snapshot of this process of which something is true.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&StatusSnapshot) -> bool) {
        self.until_within(DEADLINE, what, holds).await;
    }

    /// As [`Gateway::until`], for what takes long.
    pub async fn until_within(
        &mut self,
        deadline: Duration,
        what: &str,
        holds: impl Fn(&StatusSnapshot) -> bool,
    ) {
        let pid = self.pid();
        let mut last = None;
        let start = now();
        loop {
            self.check_alive();
            last = self.snapshot().filter(|shown| shown.summary.pid == pid).or(last);
            if last.as_ref().is_some_and(&holds) {
                return;
            }
            let log = || self.log().join("\n");
            assert!(start.elapsed() < deadline, "{what}: {last:#?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a child's rotation is over and the cloud knows of it.
    pub async fn until_done(&mut self, name: &str) {
        let is_done = |row: &Row| row.state == RowState::Done && row.notices == 0;
        self.until(name, |shown| row(shown, name).is_some_and(is_done)).await;
    }

    /// Waits until messages of the floor met this reason so often.
    pub async fn until_counted(&mut self, side: &str, reason: Reason, times: u64) {
        let what = format!("{side} {reason} {times} times");
        self.until(&what, |shown| counted(shown, side, reason) >= times).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() && self.running.is_some() {
            eprintln!("--- gateway ---\n{}", self.log().join("\n"));
        }
        self.kill();
    }
}

/// A figure of the process's memory, in KiB; 0 where the system does not say.
pub fn memory(pid: u32, figure: &str) -> u64 {
    let all = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = all.lines().find_map(|line| line.strip_prefix(figure)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// A child's row in a snapshot.
pub fn row<'a>(shown: &'a StatusSnapshot, name: &str) -> Option<&'a Row> {
    shown.children.iter().find(|row| row.child.as_str() == name)
}

/// How often messages of a side met a reason.
pub fn counted(shown: &StatusSnapshot, side: &str, reason: Reason) -> u64 {
    let counters = &shown.summary.counters;
    let of = match side {
        "local" => &counters.local,
        "cloud" => &counters.cloud,
        _ => &counters.gateway,
    };
    of.get(&reason).copied().unwrap_or_default()
}
