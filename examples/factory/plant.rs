//! What stands on the factory's disk: keys and certificates, two brokers, the gateway's settings
//! and each device's folder. All of it in one folder, with the logs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use certrelay::{schedule::Timestamp, wire::ThingName};

use crate::{
    cloud::Cloud,
    process::{self, Process},
    support::{
        self,
        mosquitto::{Mosquitto, Setup},
        peer::Login,
        pki::{Authority, Files, Pair},
        proxy::Proxy,
    },
};

/// The gateway's thing name; also the common name of its certificate at the cloud.
pub const CORE: &str = "core-1";

/// The common name of the gateway's certificate on the floor, and its client id on both sides.
const GATEWAY: &str = "core-1-certrelay";

/// The cloud's common name and client id at its own broker.
const CLOUD: &str = "cloud";

/// The device whose application embeds the library; every other has an agent.
const APPLICATION: &str = "robot-25";

/// How many devices have an agent.
const AGENTS: usize = 24;

/// What the application may do beside rotating: what it is there for.
const TELEMETRY: &str = "pattern write telemetry/%u";

/// Who may do what at the cloud's broker. The gateway reads its own uplinks: that is its receipt.
const CLOUD_RULES: &str = "\
user cloud
topic read management/topic/+/csr_res
topic read management/topic/+/crt_ack
topic read management/topic/+/crt_err
topic write management/topic/+/csr_req
topic write management/topic/+/crt
topic write management/topic/+/result

user core-1
topic readwrite management/topic/+/csr_res
topic readwrite management/topic/+/crt_ack
topic readwrite management/topic/+/crt_err
topic read management/topic/+/csr_req
topic read management/topic/+/crt
topic read management/topic/+/result
topic readwrite certrelay/core-1/probe
";

/// The factory. Both brokers end when it is dropped.
pub struct Plant {
    dir: PathBuf,
    programs: PathBuf,
    servers_ca: PathBuf,
    cloud_broker: Mosquitto,
    floor: Mosquitto,
    /// The link between the gateway and the cloud's broker.
    pub uplink: Proxy,
    cloud_files: Files,
}

/// The way to a broker.
pub struct Way {
    port: u16,
    ca: PathBuf,
}

impl Way {
    /// For a device, with these two files.
    pub fn login(&self, device: &ThingName, certificate: &Path, key: &Path) -> Login {
        let (ca, certificate, key) = (self.ca.clone(), certificate.to_owned(), key.to_owned());
        Login::mtls(self.port, device.as_str(), &Files { ca, certificate, key })
    }
}

impl Plant {
    /// Builds it in `dir`, which is there and empty. The cloud that comes with it knows all devices.
    pub fn build(dir: &Path, now: Timestamp) -> anyhow::Result<(Self, Cloud)> {
        let programs = programs()?;
        for folder in ["cloud", "floor", "gateway", "devices"] {
            fs::create_dir(dir.join(folder))?;
        }
        let (clients, servers) = (Authority::new("factory devices"), Authority::new("servers"));
        let floor = Setup::floor(&clients, &servers).rule(TELEMETRY).start_in(&dir.join("floor"));
        let cloud_broker = cloud_broker(&clients, &servers).start_in(&dir.join("cloud"));
        let uplink = Proxy::start(cloud_broker.port());
        let servers_ca = servers.write(dir);
        let files = |name: &str| write_pair(&clients.client(name), dir, name, &servers_ca);
        let cloud_files = files(CLOUD);
        let plant = Self {
            dir: dir.to_owned(),
            programs,
            servers_ca: servers_ca.clone(),
            cloud_broker,
            floor,
            uplink,
            cloud_files,
        };
        let settings = plant.settings(&files(CORE), &files(GATEWAY), clients.certificate());
        support::write(&plant.settings_file(), settings);
        let mut cloud = Cloud::new(clients, core(), now);
        for name in all_devices() {
            let device = plant.device_dir(&name);
            fs::create_dir(&device)?;
            let pair = cloud.enrol(&name);
            support::write(&device.join("cert.pem"), &pair.certificate);
            support::write(&device.join("key.pem"), &pair.key);
        }
        Ok((plant, cloud))
    }

    /// The cloud's way to its own broker.
    pub fn cloud_login(&self) -> Login {
        Login::mtls(self.cloud_broker.port(), CLOUD, &self.cloud_files)
    }

    /// A device's way to the floor's broker.
    pub fn way_to_the_floor(&self) -> Way {
        Way { port: self.floor.port(), ca: self.servers_ca.clone() }
    }

    /// The gateway's program; it is not started.
    pub fn gateway(&self) -> Process {
        let config = self.settings_file();
        let arguments = ["run".into(), "--config".into(), config.into()];
        Process::new(&self.programs.join("certrelay"), arguments, self.dir.join("gateway.log"))
    }

    /// A device's agent; it is not started.
    pub fn agent(&self, device: &ThingName) -> Process {
        let broker = format!("localhost:{}", self.floor.port());
        let arguments = [
            "run".into(),
            "--broker".into(),
            broker.into(),
            "--thing".into(),
            device.as_str().into(),
            "--dir".into(),
            self.device_dir(device).into(),
            "--ca".into(),
            self.servers_ca.clone().into(),
        ];
        let log = self.dir.join("devices").join(format!("{device}.log"));
        Process::new(&self.programs.join("certrelay-child"), arguments, log)
    }

    /// What `certrelay status --json` prints.
    pub fn status(&self) -> anyhow::Result<Vec<u8>> {
        let arguments = ["status".into(), "--json".into(), "--work-dir".into()];
        let arguments = arguments.into_iter().chain([self.work_dir().into()]);
        process::output(&self.programs.join("certrelay"), arguments)
    }

    /// The gateway's work directory.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("gateway")
    }

    /// Where a device keeps its credentials.
    pub fn device_dir(&self, device: &ThingName) -> PathBuf {
        self.dir.join("devices").join(device.as_str())
    }

    fn settings_file(&self) -> PathBuf {
        self.dir.join("certrelay.toml")
    }

    /// As a factory would have it, but for the pauses: nobody wants to watch for an hour.
    fn settings(&self, cloud: &Files, floor: &Files, anchors: &str) -> String {
        let anchors_file = self.dir.join("devices-ca.pem");
        support::write(&anchors_file, anchors);
        format!(
            "thingName = {CORE:?}\nworkDir = {:?}\n\
             [local]\nhost = \"localhost\"\nport = {}\n{}\
             [cloud]\nlink = \"mqtt\"\nhost = \"localhost\"\nport = {}\nprobeInterval = \"1s\"\n{}\
             [csr]\ncommonName = \"match\"\nsettle = \"0s\"\n\
             [certificate]\ntrustAnchorsFile = {anchors_file:?}\n\
             [repeat]\nrequest = [\"1s\", \"2s\"]\ncertificate = [\"1s\", \"2s\"]\n\
             cloud = [\"1s\", \"2s\"]\n",
            self.work_dir(),
            self.floor.port(),
            files_settings(floor),
            self.uplink.port(),
            files_settings(cloud),
        )
    }
}

/// The core's thing name.
pub fn core() -> ThingName {
    CORE.parse().expect("a valid name")
}

/// The devices with an agent.
pub fn agents() -> Vec<ThingName> {
    (1..=AGENTS).map(|n| format!("pump-{n:02}").parse().expect("a valid name")).collect()
}

/// The device with an application.
pub fn application() -> ThingName {
    APPLICATION.parse().expect("a valid name")
}

fn all_devices() -> Vec<ThingName> {
    let mut names = agents();
    names.push(application());
    names
}

fn cloud_broker(clients: &Authority, servers: &Authority) -> Setup {
    Setup::mtls_between(clients, servers).line("set_tcp_nodelay true").acl(CLOUD_RULES)
}

fn write_pair(pair: &Pair, dir: &Path, stem: &str, ca: &Path) -> Files {
    let (certificate, key) = pair.write(dir, stem);
    Files { ca: ca.to_owned(), certificate, key }
}

fn files_settings(files: &Files) -> String {
    let Files { ca, certificate, key } = files;
    format!("caFile = {ca:?}\ncertificateFile = {certificate:?}\nkeyFile = {key:?}\n")
}

/// Where cargo has put the programs: beside the folder of this example.
fn programs() -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe().context("where is this program?")?;
    let dir = example.ancestors().nth(2).context("this program is in no folder")?;
    for program in ["certrelay", "certrelay-child"] {
        if !dir.join(program).is_file() {
            bail!("{program} is not in {}: run `make demo`, which builds it", dir.display());
        }
    }
    Ok(dir.to_owned())
}
