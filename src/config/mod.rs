//! The settings: every value typed, defaulted and checked before anything else runs.
//!
//! Settings are read into one generic tree first and walked second, so that each source (the
//! Greengrass configuration, or a TOML file) has the same keys, checks and messages. A walk yields a whole [`Config`] or names
//! *every* problem at once, each with its remedy. The environment and the file system are reached
//! through [`Host`] only; the settings hold paths of keys, never keys.

mod change;
mod core;
mod files;
mod host;
mod read;
#[cfg(test)]
pub(crate) mod testing;
mod value;
mod walk;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;

pub use change::Change;
pub use core::{Core, CoreFiles, KeyRotation};
pub use host::{Host, ThisHost};

pub use crate::links::tls::TlsFiles;
use crate::{relay, schedule::ClockTrust, wire::escape};

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the relay goes by.
    pub relay: relay::Settings,
    /// How to reach the devices (`local`).
    pub local: LocalLink,
    /// How to reach the cloud (`cloud`).
    pub cloud: CloudLink,
    /// Where the store and the status snapshot stand (`workDir`); no private key ever does.
    pub work_dir: PathBuf,
    /// The store's file grows no larger, in bytes (`store.maxBytes`).
    pub store_max_bytes: u64,
    /// How far the wall clock is trusted (`clock.trust`).
    pub clock: ClockTrust,
    /// How the core's own certificate is rotated (`core`).
    pub core: Core,
    /// What is logged, and how (`log`).
    pub log: Log,
}

/// How to reach the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalLink {
    /// Through the nucleus' local topics, which an MQTT bridge joins to a broker
    /// (`link = "pubsub"`). Any component that may use those topics can speak for any device.
    Pubsub,
    /// Through the local broker (`link = "mqtt"`).
    Mqtt(MqttLink),
}

/// How to reach the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudLink {
    /// Through the nucleus and its connection (`link = "greengrass"`).
    Greengrass,
    /// Through a connection of our own (`link = "mqtt"`).
    Mqtt(MqttLink),
}

/// How to reach an MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttLink {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The MQTT client id; never the core's thing name by default, under which the nucleus
    /// itself is connected: each would push the other off the broker.
    pub client_id: String,
    /// mTLS; `None`: plain TCP, which only a loopback host gets.
    pub files: Option<TlsFiles>,
}

impl MqttLink {
    /// Whether the host is this machine, by its name or address alone.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least level that is logged.
    pub level: tracing::Level,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with the settings: all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one problem, in the order of the settings.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with the settings. All text is printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which setting, such as `cloud.port`; or which file.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Config {
    /// Reads and checks a TOML file.
    pub fn load(file: &Path, host: &dyn Host) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::one(file, format!("{error}"), READ_REMEDY);
        let bytes = host.read(file).map_err(unreadable)?;
        let not_text = |_| ConfigError::one(file, "it is not UTF-8".into(), "save it as UTF-8");
        let text = String::from_utf8(bytes).map_err(not_text)?;
        let tree = tree_of_toml(&text)
            .map_err(|what| ConfigError::one(file, what, "mend the line; it must be TOML"))?;
        Self::from_tree(tree, host)
    }

    /// Checks the configuration of a Greengrass component, as its nucleus hands it over: whole
    /// floats for numbers, or text for every scalar. `null` is no configuration. What the nucleus
    /// itself goes by is left to it.
    pub fn from_greengrass(mut tree: Value, host: &dyn Host) -> Result<Self, ConfigError> {
        if let Value::Object(settings) = &mut tree {
            settings.remove(ACCESS_CONTROL);
        }
        Self::from_tree(tree, host)
    }

    /// Checks a generic tree of settings.
    pub fn from_tree(tree: Value, host: &dyn Host) -> Result<Self, ConfigError> {
        walk::config(tree, host)
    }

    /// Whether a link goes through a nucleus.
    pub fn needs_nucleus(&self) -> bool {
        self.cloud == CloudLink::Greengrass || self.local == LocalLink::Pubsub
    }

    /// Goes deeper than loading does: whether the files of the MQTT links and of the core hold what they should, and
    /// each key fits its certificate. Not done at every start, since a pair may be half rotated
    /// for a moment and is read again at each connect.
    pub fn check_files(&self, host: &dyn Host) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if let LocalLink::Mqtt(link) = &self.local {
            problems.extend(files::check(link, "local", host));
        }
        if let CloudLink::Mqtt(link) = &self.cloud {
            problems.extend(files::check(link, "cloud", host));
        }
        problems.extend(files::check_core(&self.core, host));
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

/// What a component may do with the nucleus.
const ACCESS_CONTROL: &str = "accessControl";

const READ_REMEDY: &str = "check the path, and that the user that runs certrelay may read it";

impl ConfigError {
    fn one(file: &Path, what: String, remedy: &str) -> Self {
        let key = escape(&file.to_string_lossy());
        Self { problems: vec![Problem { key, what: escape(&what), remedy: remedy.to_owned() }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} problem{plural}:", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.what, self.remedy)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The text as a tree. The error quotes nothing of the file: someone may have pasted a key there.
fn tree_of_toml(text: &str) -> Result<Value, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("line {line}: {}", error.message())
    })?;
    Ok(generic(toml::Value::Table(table)))
}

/// What JSON can not say (dates, infinities) becomes text, which no setting takes for a value.
fn generic(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => number.to_string().into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(generic).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, generic(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_toml_is_placed_by_line_and_never_quoted() {
        let error = tree_of_toml("a = 1\nkey = \"-----BEGIN PRIVATE KEY-----\n").unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
    }

    #[test]
    fn toml_that_json_can_not_say_is_kept_as_text() {
        let tree = tree_of_toml("a = inf\nb = 2026-01-01\nc = [1, 2.5, true]").expect("TOML");
        assert_eq!(tree, serde_json::json!({"a": "inf", "b": "2026-01-01", "c": [1, 2.5, true]}));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "::", "localhost.example.com", "0.0.0.0", "128.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_error_names_every_problem_and_its_remedy() {
        let problem = |key: &str| Problem {
            key: key.into(),
            what: "it is off".into(),
            remedy: "turn it on".into(),
        };
        let mut error = ConfigError { problems: vec![problem("a")] };
        assert_eq!(
            error.to_string(),
            "the configuration has 1 problem:\n  a: it is off; turn it on"
        );
        error.problems.push(problem("b.c"));
        assert!(error.to_string().starts_with("the configuration has 2 problems:"));
        assert!(error.to_string().ends_with("\n  b.c: it is off; turn it on"));
    }
}
