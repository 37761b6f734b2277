//! Where the core's own credential is, by whichever source knows: the settings, the nucleus by IPC,
//! what the classic nucleus writes on disk.
//!
//! Sources are asked in that order, and both files come from the same one. An empty value is none:
//! `effectiveConfig.yaml` has such where the core was provisioned by a fleet. Only reads, opens none
//! of the credential's files, and never guesses a path.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where the nucleus' own files are read"
)]

mod effective;
mod path;
pub mod tlog;

use std::{
    env, fmt,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use aws_greengrass_ipc::{Client, Nucleus};
use serde_json::Value;

use super::probe::Target;
use crate::{config::Core, identity::Failure, install::PairFiles, reason::Reason, wire::escape};

/// The port of MQTT over TLS.
const MQTTS: u16 = 8883;

/// The largest `effectiveConfig.yaml` that is read, in bytes.
const MAX_EFFECTIVE: u64 = 8 * 1024 * 1024;

/// The variable in which a nucleus tells a component the path of its socket.
pub(super) const SOCKET: &str = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT";

const REMEDY: &str = "set core.certificateFile and core.keyFile";

/// Where the credential is, and to whom it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The certificate and its key: absolute paths.
    pub files: PairFiles,
    /// The CAs of the cloud's broker, if anybody says.
    pub ca: Option<PathBuf>,
    /// The cloud's broker, host and port, if anybody says.
    pub endpoint: Option<(String, u16)>,
    /// Who said where the files are.
    pub source: Source,
}

/// Who says where the credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The settings.
    Setting,
    /// Nucleus lite, by its `GetSystemConfig`.
    GetSystemConfig,
    /// The classic nucleus' log of its configuration.
    ConfigTlog(PathBuf),
    /// The configuration that the classic nucleus wrote when it last started or stopped.
    EffectiveConfig(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting => f.write_str("core.certificateFile and core.keyFile"),
            Self::GetSystemConfig => f.write_str("the nucleus (GetSystemConfig)"),
            Self::ConfigTlog(path) | Self::EffectiveConfig(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    /// Whom a probe connects to.
    pub fn target(&self) -> Result<Target, Failure> {
        let unknown = |what, remedy| unknown(format!("{what} is not known: set {remedy}"));
        let (host, port) =
            self.endpoint.clone().ok_or_else(|| unknown("the cloud's broker", "core.endpoint"))?;
        let ca = self.ca.clone().ok_or_else(|| unknown("its CA", "core.caFile"))?;
        Ok(Target { host, port, ca })
    }
}

/// What a nucleus' configuration says of the credential. None of it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct System {
    /// `system.certificateFilePath`.
    pub certificate: Option<String>,
    /// `system.privateKeyPath`.
    pub key: Option<String>,
    /// `system.rootCaPath`.
    pub ca: Option<String>,
    /// The nucleus' `iotDataEndpoint`.
    pub host: Option<String>,
    /// The nucleus' `mqtt.port`.
    pub port: Option<String>,
}

/// The folders that may be the nucleus' root: that of its socket, and that in which a component's
/// working directory is.
pub fn roots() -> Vec<PathBuf> {
    let socket = env::var_os(SOCKET).map(PathBuf::from);
    let by_socket = socket.as_deref().and_then(Path::parent).map(Path::to_owned);
    let work = env::current_dir().ok();
    let by_work = work.as_deref().and_then(|dir| dir.ancestors().nth(2)).map(Path::to_owned);
    let mut roots: Vec<PathBuf> = by_socket.into_iter().chain(by_work).collect();
    roots.dedup();
    roots
}

/// Finds the credential. `kind`: what `nucleus` is, once connected; `roots`: where a classic nucleus
/// may have its root.
pub async fn locate(
    core: &Core,
    nucleus: Option<&Client>,
    kind: Option<Nucleus>,
    roots: &[PathBuf],
) -> Result<Place, Failure> {
    let mut search = Search::new(core);
    if let (Some(client), Some(kind)) = (nucleus, kind) {
        search.ask(client, kind).await?;
    }
    let roots = roots.to_vec();
    tokio::task::spawn_blocking(move || search.read(&roots)?.end())
        .await
        .expect("no file's content makes its reader panic")
}

/// What was found so far, and what has been tried in vain.
struct Search {
    files: Option<(PairFiles, Source)>,
    ca: Option<PathBuf>,
    endpoint: Option<(String, u16)>,
    tried: Vec<String>,
    denied: Option<PathBuf>,
}

impl Search {
    fn new(core: &Core) -> Self {
        let files = core.files.clone().map(|files| {
            let pair = PairFiles { certificate: files.certificate, key: files.key };
            (pair, Source::Setting)
        });
        let (ca, endpoint) = (core.ca.clone(), core.endpoint.clone());
        Self { files, ca, endpoint, tried: Vec::new(), denied: None }
    }

    fn is_over(&self) -> bool {
        self.files.is_some() && self.ca.is_some() && self.endpoint.is_some()
    }

    async fn ask(&mut self, client: &Client, kind: Nucleus) -> Result<(), Failure> {
        if self.endpoint.is_none() {
            self.hear_endpoint(&ask_endpoint(client, kind).await);
        }
        if kind == Nucleus::Lite && (self.files.is_none() || self.ca.is_none()) {
            let system = self.ask_system(client).await;
            self.take(&Source::GetSystemConfig, &system)?;
        }
        Ok(())
    }

    async fn ask_system(&mut self, client: &Client) -> System {
        let mut heard = [const { None }; 3];
        let keys = ["certificateFilePath", "privateKeyPath", "rootCaPath"];
        for (value, key) in heard.iter_mut().zip(keys) {
            match client.get_system_config(key).await {
                Ok(found) => *value = some(&found),
                Err(why) => self.tried.push(format!("the nucleus, asked for {key}: {why}")),
            }
        }
        let [certificate, key, ca] = heard;
        System { certificate, key, ca, ..System::default() }
    }

    /// Reads what a classic nucleus has written, as far as it is still of use.
    fn read(mut self, roots: &[PathBuf]) -> Result<Self, Failure> {
        for config in roots.iter().map(|root| root.join("config")) {
            if !self.is_over() {
                let path = config.join("config.tlog");
                let system = read_tlog(&path);
                self.hear(Source::ConfigTlog(path.clone()), &path, system)?;
            }
            if !self.is_over() {
                let path = config.join("effectiveConfig.yaml");
                let system = read_effective(&path);
                self.hear(Source::EffectiveConfig(path.clone()), &path, system)?;
            }
        }
        Ok(self)
    }

    fn hear(
        &mut self,
        source: Source,
        path: &Path,
        system: io::Result<System>,
    ) -> Result<(), Failure> {
        match system {
            Ok(system) => return self.take(&source, &system),
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                self.denied.get_or_insert_with(|| path.to_owned());
            }
            Err(why) => self.tried.push(format!("{}: {why}", path.display())),
        }
        Ok(())
    }

    fn take(&mut self, source: &Source, system: &System) -> Result<(), Failure> {
        self.hear_endpoint(system);
        if let (None, Some(ca)) = (&self.ca, &system.ca) {
            // A probe without one says so.
            self.ca = path::parse(ca).ok();
        }
        match (&self.files, &system.certificate, &system.key) {
            (Some(_), ..) => {}
            (None, Some(certificate), Some(key)) => {
                let (certificate, key) = (path::parse(certificate)?, path::parse(key)?);
                self.files = Some((PairFiles { certificate, key }, source.clone()));
            }
            _ => self.tried.push(format!("{source}: it does not name both")),
        }
        Ok(())
    }

    fn hear_endpoint(&mut self, system: &System) {
        let host = system.host.as_ref().filter(|host| is_host(host));
        if let (None, Some(host)) = (&self.endpoint, host) {
            let port = system.port.as_ref().and_then(|port| port.parse().ok()).unwrap_or(MQTTS);
            self.endpoint = Some((host.clone(), port));
        }
    }

    fn end(self) -> Result<Place, Failure> {
        let Self { files, ca, endpoint, tried, denied } = self;
        match (files, denied) {
            (Some((files, source)), _) => Ok(Place { files, ca, endpoint, source }),
            (None, Some(path)) => Err(Failure {
                reason: Reason::NoPrivilege,
                detail: escape(&format!(
                    "{}: this user may not read it, so the core's certificate is not found; run as \
                     root, or {REMEDY}",
                    path.display()
                )),
            }),
            (None, None) if tried.is_empty() => {
                Err(unknown(format!("no nucleus started this process; {REMEDY}")))
            }
            (None, None) => Err(unknown(format!("{REMEDY}; tried: {}", tried.join("; ")))),
        }
    }
}

/// Only the host and the port are asked for. Silence is no error: others may know.
async fn ask_endpoint(client: &Client, kind: Nucleus) -> System {
    let host = match kind {
        Nucleus::Classic => ask_configuration(client, CLASSIC, &["iotDataEndpoint"]).await,
        Nucleus::Lite => ask_configuration(client, LITE, &["iotDataEndpoint"]).await,
    };
    let port = match kind {
        Nucleus::Classic => ask_configuration(client, CLASSIC, &["mqtt", "port"]).await,
        // It always takes 8883.
        Nucleus::Lite => None,
    };
    System { host, port, ..System::default() }
}

/// The components that a nucleus is in its own configuration.
const CLASSIC: &str = "aws.greengrass.Nucleus";
const LITE: &str = "aws.greengrass.NucleusLite";

async fn ask_configuration(client: &Client, component: &str, path: &[&str]) -> Option<String> {
    let found = client.get_configuration(Some(component), path).await;
    found.ok().and_then(|found| text(found.get(path.last()?)?))
}

fn read_tlog(path: &Path) -> io::Result<System> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    tlog::read(BufReader::new(file.take(length)))
}

fn read_effective(path: &Path) -> io::Result<System> {
    let mut text = Vec::new();
    open(path)?.take(MAX_EFFECTIVE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_EFFECTIVE {
        return Err(io::Error::other("it is larger than 8 MiB"));
    }
    Ok(effective::read(&String::from_utf8_lossy(&text)))
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// A string or a number, as text; an empty one is none.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn is_host(text: &str) -> bool {
    text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
}

fn unknown(detail: impl AsRef<str>) -> Failure {
    Failure { reason: Reason::CredentialUnknown, detail: escape(detail.as_ref()) }
}

#[cfg(test)]
mod tests;
