//! The ways from the gateway to the cloud's broker: by itself, or through a nucleus.

use std::time::Duration;

use fake_nucleus::{FakeNucleus, Mode, TlsFiles, Upstream};

use crate::{
    harness::{CORE, GATEWAY},
    support::pki::Files,
};

/// How the gateway reaches the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Mqtt,
    Classic,
    Lite,
}

/// How long the cloud waits before it says something again; a broker keeps what it said.
pub async fn say_again(via: Via) {
    match via {
        Via::Mqtt => std::future::pending().await,
        Via::Classic | Via::Lite => tokio::time::sleep(Duration::from_millis(500)).await,
    }
}

/// The way from the gateway to the cloud's broker.
pub enum WayUp {
    /// A table of settings.
    Mqtt(String),
    /// Through this one, once it is there.
    Nucleus(Box<fake_nucleus::Settings>, Option<FakeNucleus>),
}

impl WayUp {
    /// The way over this port, with these files for mTLS.
    pub fn new(via: Via, port: u16, files: Option<Files>) -> Self {
        let host = if files.is_some() { "localhost" } else { "127.0.0.1" };
        let mode = match via {
            Via::Classic => Mode::Java,
            Via::Lite => Mode::Lite,
            Via::Mqtt => {
                let tls = files.as_ref().map(toml).unwrap_or_default();
                return Self::Mqtt(format!("link = 'mqtt'\nhost = '{host}'\nport = {port}\n{tls}"));
            }
        };
        let mut settings = fake_nucleus::Settings::new(mode);
        settings.thing_name = CORE.to_owned();
        settings.timing.unsubscribe = Duration::from_millis(5);
        settings.upstream = Upstream::Mqtt {
            host: host.to_owned(),
            port,
            client_id: GATEWAY.to_owned(),
            tls: files.map(|Files { ca, certificate, key }| TlsFiles { ca, certificate, key }),
        };
        Self::Nucleus(Box::new(settings), None)
    }

    /// Whether it goes through a nucleus that is online.
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Nucleus(settings, _) if settings.online)
    }

    /// What stands in the settings of it.
    pub fn settings(&self) -> &str {
        match self {
            Self::Mqtt(table) => table,
            Self::Nucleus(..) => "",
        }
    }
}

/// The settings for mTLS.
pub fn toml(files: &Files) -> String {
    let Files { ca, certificate, key } = files;
    format!("caFile = {ca:?}\ncertificateFile = {certificate:?}\nkeyFile = {key:?}\n")
}
