//! What of new settings may apply while the gateway runs, and what waits for its next start.
//!
//! Every setting is named here, so that the compiler asks where a new one belongs. What others were
//! already told of (names, topics, connections, files that are open) waits; it is named by its key.

use super::{CloudLink, Config, LocalLink, Log, MqttLink, TlsFiles};
use crate::relay;

/// What becomes of new settings.
#[derive(Debug, Clone)]
pub struct Change {
    /// The settings from now on.
    pub config: Config,
    /// The keys of those that differ but wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// These settings, with all of the new ones that may apply at once.
    pub fn change(&self, new: Self) -> Change {
        let mut waits = Waits::default();
        let Self { relay, local, cloud, work_dir, store_max_bytes, clock, core, log } = new;
        let relay = waits.relay(&self.relay, relay);
        let work_dir = waits.keep("workDir", &self.work_dir, work_dir);
        let local = waits.local(&self.local, local);
        let cloud = waits.cloud(&self.cloud, cloud);
        let store_max_bytes = waits.keep("store.maxBytes", &self.store_max_bytes, store_max_bytes);
        let clock = waits.keep("clock.trust", &self.clock, clock);
        let Log { level, format } = log;
        let log = Log { level, format: waits.keep("log.format", &self.log.format, format) };
        let config = Self { relay, local, cloud, work_dir, store_max_bytes, clock, core, log };
        Change { config, needs_restart: waits.0 }
    }
}

/// The keys of the settings that differ and stay as they were.
#[derive(Default)]
struct Waits(Vec<&'static str>);

impl Waits {
    /// The old value; the key is noted if the new one is another.
    fn keep<T: PartialEq + Clone>(&mut self, key: &'static str, old: &T, new: T) -> T {
        if *old != new {
            self.0.push(key);
        }
        old.clone()
    }

    fn relay(&mut self, old: &relay::Settings, new: relay::Settings) -> relay::Settings {
        let relay::Settings {
            core,
            cloud_topics,
            local_topics,
            children,
            rotation_ttl,
            min_interval,
            common_name,
            settle,
            anchors,
            request,
            certificate,
            cloud,
            messages_per_second,
            unconfirmed,
            // By store.maxBytes, which waits.
            most_under_way: _,
            probe_interval,
        } = new;
        relay::Settings {
            core: self.keep("thingName", &old.core, core),
            local_topics: self.keep("local.topicPrefix", &old.local_topics, local_topics),
            cloud_topics: self.keep("cloud.topicPrefix", &old.cloud_topics, cloud_topics),
            most_under_way: old.most_under_way,
            children,
            rotation_ttl,
            min_interval,
            common_name,
            settle,
            anchors,
            request,
            certificate,
            cloud,
            messages_per_second,
            unconfirmed,
            probe_interval,
        }
    }

    fn local(&mut self, old: &LocalLink, new: LocalLink) -> LocalLink {
        match (old, &new) {
            (LocalLink::Mqtt(old), LocalLink::Mqtt(new)) => self.mqtt(LOCAL, old, new),
            (LocalLink::Pubsub, LocalLink::Pubsub) => {}
            (LocalLink::Mqtt(_), LocalLink::Pubsub) | (LocalLink::Pubsub, LocalLink::Mqtt(_)) => {
                self.0.push("local.link");
            }
        }
        old.clone()
    }

    fn cloud(&mut self, old: &CloudLink, new: CloudLink) -> CloudLink {
        match (old, &new) {
            (CloudLink::Mqtt(old), CloudLink::Mqtt(new)) => self.mqtt(CLOUD, old, new),
            (CloudLink::Greengrass, CloudLink::Greengrass) => {}
            (CloudLink::Mqtt(_), CloudLink::Greengrass)
            | (CloudLink::Greengrass, CloudLink::Mqtt(_)) => self.0.push("cloud.link"),
        }
        old.clone()
    }

    fn mqtt(&mut self, keys: [&'static str; 6], old: &MqttLink, new: &MqttLink) {
        let MqttLink { host, port, client_id, files } = new;
        let [ca, certificate, key] = differences(old.files.as_ref(), files.as_ref());
        let (client_id, port) = (old.client_id != *client_id, old.port != *port);
        let differs = [old.host != *host, port, client_id, ca, certificate, key];
        self.0
            .extend(keys.into_iter().zip(differs).filter_map(|(key, other)| other.then_some(key)));
    }
}

const LOCAL: [&str; 6] = [
    "local.host",
    "local.port",
    "local.clientId",
    "local.caFile",
    "local.certificateFile",
    "local.keyFile",
];

const CLOUD: [&str; 6] = [
    "cloud.host",
    "cloud.port",
    "cloud.clientId",
    "cloud.caFile",
    "cloud.certificateFile",
    "cloud.keyFile",
];

fn differences(old: Option<&TlsFiles>, new: Option<&TlsFiles>) -> [bool; 3] {
    match (old, new) {
        (Some(old), Some(TlsFiles { ca, certificate, key })) => {
            [old.ca != *ca, old.certificate != *certificate, old.key != *key]
        }
        (old, new) => [old.is_some() != new.is_some(); 3],
    }
}

#[cfg(test)]
mod tests;
