//! What a nucleus is to be like.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{Hub, topic};

/// Which of the two nuclei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The classic one, written in Java.
    Java,
    /// Nucleus lite, written in C.
    Lite,
}

/// What a nucleus is to be like. Begin with [`Settings::new`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which nucleus.
    pub mode: Mode,
    /// The core device's thing name; with [`Upstream::Hub`] its client id too.
    pub thing_name: String,
    /// The component whose token [`FakeNucleus::environment`](crate::FakeNucleus::environment)
    /// has.
    pub component: String,
    /// Its configuration. Lite turns every scalar into a string, as it does with a YAML recipe.
    pub configuration: Value,
    /// What the component may do.
    pub policy: Policy,
    /// The client device auth component.
    pub client_devices: ClientDevices,
    /// The cloud.
    pub upstream: Upstream,
    /// Whether there is a link to the cloud at the start.
    pub online: bool,
    /// Java: the library of before June 2025, which takes a TERMINATE of a stream that has ended
    /// for a breach of the protocol.
    pub old_crt: bool,
    /// Lite: what `GetSystemConfig` knows beside `thingName`, and beside the files of
    /// [`Upstream::Mqtt`].
    pub system: BTreeMap<String, String>,
    /// The nucleus' root folder, which is there; `None`: one of its own. In it is the socket, and,
    /// of the classic nucleus, the configuration that it keeps on disk.
    pub root: Option<PathBuf>,
    /// Java: the core was provisioned when the nucleus first ran. Until its next start the file
    /// that people look at (`effectiveConfig.yaml`) has empty paths.
    pub is_fleet_provisioned: bool,
    /// How long things take.
    pub timing: Timing,
}

impl Settings {
    /// A core `core` and a component `com.example.Component` that may do everything, without a
    /// configuration, client device auth or delays, on a cloud of its own.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            thing_name: "core".to_owned(),
            component: "com.example.Component".to_owned(),
            configuration: json!({}),
            policy: Policy::default(),
            client_devices: ClientDevices::Absent,
            upstream: Upstream::Hub(Hub::new()),
            online: true,
            old_crt: false,
            system: BTreeMap::new(),
            root: None,
            is_fleet_provisioned: false,
            timing: Timing::default(),
        }
    }
}

/// What the component may do, by topic filter. `*` is everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Publish to IoT Core and subscribe there.
    pub mqtt_proxy: Vec<String>,
    /// Publish to local topics and subscribe to them.
    pub pub_sub: Vec<String>,
}

impl Settings {
    /// The files of the core's credential, where the cloud is a broker that wants one.
    pub(crate) fn tls(&self) -> Option<&TlsFiles> {
        match &self.upstream {
            Upstream::Mqtt { tls, .. } => tls.as_ref(),
            Upstream::Hub(_) => None,
        }
    }

    /// What the nucleus knows under `system`, beside the thing's name.
    pub(crate) fn system(&self) -> BTreeMap<String, String> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut system = self.system.clone();
        if let Some(TlsFiles { ca, certificate, key }) = self.tls() {
            let files =
                [("rootCaPath", ca), ("certificateFilePath", certificate), ("privateKeyPath", key)];
            for (name, file) in files {
                system.entry(name.to_owned()).or_insert_with(|| path(file));
            }
        }
        system
    }

    /// The component that the nucleus itself is.
    pub(crate) fn nucleus_component(&self) -> &'static str {
        match self.mode {
            Mode::Java => "aws.greengrass.Nucleus",
            Mode::Lite => "aws.greengrass.NucleusLite",
        }
    }

    /// The configuration of that component. The port of lite is fixed, and stands nowhere.
    pub(crate) fn nucleus_configuration(&self) -> Value {
        let mut configuration = json!({"awsRegion": "eu-west-1"});
        if let Upstream::Mqtt { host, port, .. } = &self.upstream {
            configuration["iotDataEndpoint"] = json!(host);
            if self.mode == Mode::Java {
                configuration["mqtt"] = json!({"port": port});
            }
        }
        configuration
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { mqtt_proxy: vec!["*".to_owned()], pub_sub: vec!["*".to_owned()] }
    }
}

/// Whether one of `resources` allows `topic`, which may be a filter itself.
pub(crate) fn is_allowed(resources: &[String], topic: &str) -> bool {
    resources.iter().any(|resource| resource == "*" || topic::covers(resource, topic))
}

/// What the client device auth component does. It exists on the classic nucleus alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientDevices {
    /// It is not deployed.
    Absent,
    /// It takes every certificate.
    Accept,
    /// It takes none.
    Refuse,
    /// It takes every certificate, but not at once.
    Slow(Duration),
}

/// The cloud.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// In this process.
    Hub(Hub),
    /// A broker that stands for IoT Core.
    Mqtt {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// The core's client id.
        client_id: String,
        /// mTLS; `None`: plain TCP.
        tls: Option<TlsFiles>,
    },
}

/// The three files of mTLS; all PEM. The classic nucleus reads them when it starts and never again,
/// lite at every connect; lite sends the first certificate of its file alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CAs of the broker's certificate.
    pub ca: PathBuf,
    /// The core's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long things take. The default has the patience of the real nuclei, and no delays but the one
/// that is a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From a PUBLISH or SUBSCRIBE to its acknowledgement; with [`Upstream::Hub`].
    pub round_trip: Duration,
    /// From an UNSUBSCRIBE to its acknowledgement. A classic nucleus that is asked for the filter
    /// again meanwhile says yes and stays silent for good.
    pub unsubscribe: Duration,
    /// From a SUBACK to the answer to the component. What comes meanwhile is dropped by the classic
    /// nucleus, and overtakes the answer on lite.
    pub subscribe_gap: Duration,
    /// Java: how long a deployment waits for the component to judge a configuration.
    pub validation: Duration,
    /// Java: how long a deployment waits for the component to let an update go ahead.
    pub update: Duration,
    /// The pause before the next connect to a broker.
    pub reconnect: Duration,
    /// How long a client may leave its socket full before that is a violation. Lite serves nobody
    /// else meanwhile, and cuts the frame off after 5 s; here it only goes on record.
    pub full_socket: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            round_trip: Duration::ZERO,
            unsubscribe: Duration::from_millis(100),
            subscribe_gap: Duration::ZERO,
            validation: Duration::from_secs(20),
            update: Duration::from_secs(60),
            reconnect: Duration::from_millis(200),
            full_socket: Duration::from_secs(5),
        }
    }
}
