//! What the factory is made of: keys and certificates, two brokers, the nucleus with the gateway's
//! configuration, and each device's folder. All on disk is in one folder, with the logs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use certrelay::{
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
    x509,
};
use fake_nucleus::{FakeNucleus, Mode, Policy, TlsFiles, Upstream};
use serde_json::{Value, json};

use crate::{
    cloud::Cloud,
    process::{self, Process},
    support::{
        self,
        mosquitto::{Mosquitto, Setup},
        peer::Login,
        pki::{Authority, Files, Pair},
        proxy::Proxy,
        supervisor::{Program, RestartCommand, Supervisor},
    },
};

/// The core's thing name: its nucleus' client id at the cloud, and the common name there.
pub const CORE: &str = "core-1";

/// The common name of the gateway's certificate on the floor, and its client id there.
const GATEWAY: &str = "core-1-certrelay";

/// The cloud's common name and client id at its own broker.
const CLOUD: &str = "cloud";

/// The device whose application embeds the library; every other has an agent.
const APPLICATION: &str = "robot-25";

/// How many devices have an agent.
const AGENTS: usize = 24;

/// What the application may do beside rotating: what it is there for.
const TELEMETRY: &str = "pattern write telemetry/%u";

/// Who may do what at the cloud's broker. The core reads its own uplinks: that is the gateway's
/// receipt.
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

/// What the nucleus lets the gateway send and hear: what the recipe asks for.
const COMPONENT_RULES: [&str; 7] = [
    "management/topic/+/csr_req",
    "management/topic/+/csr_res",
    "management/topic/+/crt",
    "management/topic/+/crt_ack",
    "management/topic/+/crt_err",
    "management/topic/+/result",
    "certrelay/+/probe",
];

/// The factory. Both brokers end when it is dropped.
pub struct Plant {
    dir: PathBuf,
    programs: PathBuf,
    servers_ca: PathBuf,
    cloud_broker: Mosquitto,
    floor: Mosquitto,
    /// The link between the nucleus and the cloud's broker.
    pub uplink: Proxy,
    cloud_files: Files,
    /// Where the core's credential is, as its nucleus is configured. It begins with this key.
    core_files: Files,
    first_core_key: String,
    gateway_files: Files,
    anchors: PathBuf,
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
        for folder in ["cloud", "floor", "core", "greengrass", "gateway", "devices"] {
            fs::create_dir(dir.join(folder))?;
        }
        let (clients, servers) = (Authority::new("factory devices"), Authority::new("servers"));
        let floor = Setup::floor(&clients, &servers).rule(TELEMETRY).start_in(&dir.join("floor"));
        let cloud_broker = cloud_broker(&clients, &servers).start_in(&dir.join("cloud"));
        let uplink = Proxy::start(cloud_broker.port());
        let servers_ca = servers.write(dir);
        let files = |name: &str| write_pair(&clients.client(name), dir, name, &servers_ca);
        let (cloud_files, gateway_files) = (files(CLOUD), files(GATEWAY));
        let anchors = dir.join("devices-ca.pem");
        support::write(&anchors, clients.certificate());
        let mut cloud = Cloud::new(clients, core(), now);
        let core = cloud.enrol(&core());
        let core_files = write_pair(&core, &dir.join("core"), CORE, &servers_ca);
        let plant = Self {
            dir: dir.to_owned(),
            programs,
            servers_ca: servers_ca.clone(),
            cloud_broker,
            floor,
            uplink,
            cloud_files,
            core_files,
            first_core_key: core.key,
            gateway_files,
            anchors,
        };
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

    /// The nucleus, which connects to the cloud as the core and has the gateway's configuration, and
    /// what restarts it and the gateway. The gateway is not started: its nucleus' environment tells
    /// it all.
    pub fn supervisor(&self, mode: Mode) -> Supervisor {
        let command = RestartCommand::new(&self.dir);
        let gateway = Program {
            path: self.programs.join("certrelay"),
            arguments: vec!["run".into()],
            log: self.dir.join("gateway.log"),
        };
        Supervisor::new(self.nucleus(mode, &command), gateway, command)
    }

    fn nucleus(&self, mode: Mode, command: &RestartCommand) -> FakeNucleus {
        let mut settings = fake_nucleus::Settings::new(mode);
        settings.thing_name = CORE.to_owned();
        settings.configuration = self.configuration(mode, command);
        settings.root = Some(self.dir.join("greengrass"));
        let mqtt_proxy = COMPONENT_RULES.map(str::to_owned).into();
        settings.policy = Policy { mqtt_proxy, pub_sub: Vec::new() };
        let Files { ca, certificate, key } = self.core_files.clone();
        settings.upstream = Upstream::Mqtt {
            host: "localhost".to_owned(),
            port: self.uplink.port(),
            client_id: CORE.to_owned(),
            tls: Some(TlsFiles { ca, certificate, key }),
        };
        FakeNucleus::start(settings)
    }

    /// Whether no copy of the key that the core began with is left.
    pub fn core_key_is_wiped(&self) -> bool {
        !support::holds(&self.dir.join("core"), self.first_core_key.trim())
    }

    /// The core's way to the cloud with what its nucleus is configured to use, and that certificate.
    pub fn core_login(&self) -> anyhow::Result<(Login, CertificateId)> {
        let pem = fs::read(&self.core_files.certificate)?;
        let facts = x509::read_certificate(pem::parse(pem)?.contents())?;
        let login = Login::mtls(self.cloud_broker.port(), "core-1#report", &self.core_files);
        Ok((login, facts.id))
    }

    /// Whether the nucleus has been connected to the cloud.
    pub fn nucleus_was_connected(&self) -> bool {
        self.cloud_broker.log().contains(&format!(" as {CORE} "))
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

    /// As a factory would have it, but for the pauses: nobody wants to watch for an hour.
    fn configuration(&self, mode: Mode, command: &RestartCommand) -> Value {
        let Files { ca, certificate, key } = &self.gateway_files;
        let mut core = json!({"restartCommand": command.words()});
        if mode == Mode::Lite {
            // It knows no port but 8883, and its configuration says none.
            core["endpoint"] = json!(format!("localhost:{}", self.uplink.port()));
        }
        json!({
            "workDir": self.work_dir(),
            "local": {
                "host": "localhost", "port": self.floor.port(),
                "caFile": ca, "certificateFile": certificate, "keyFile": key,
            },
            "cloud": {"probeInterval": "1s"},
            "core": core,
            "csr": {"commonName": "match", "settle": "0s"},
            "certificate": {"trustAnchorsFile": self.anchors},
            "repeat": {
                "request": ["1s", "2s"], "certificate": ["1s", "2s"], "cloud": ["1s", "2s"],
            },
        })
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
