//! The two links: of which kind each is, what its kind needs, and what must hold between the two.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use rustls_pki_types::ServerName;
use serde_json::Value;

use super::{
    super::{
        CloudLink, Host, LocalLink, MqttLink, READ_REMEDY, TlsFiles, is_loopback,
        read::{Bad, Table},
        value::{choice, duration, number, quote, text},
    },
    DAY, MINUTE, SECOND, narrow,
};
use crate::wire::{MAX_THING_NAME, ThingName, Topics};

/// The port of MQTT over TLS.
const MQTT_PORT: u64 = 8883;

/// The name that stands in for the core's while other settings are checked, when its own is bad.
const STAND_IN: &str = "core";

/// What only an MQTT link has.
const MQTT_KEYS: [&str; 6] = ["host", "port", "clientId", TLS_KEYS[0], TLS_KEYS[1], TLS_KEYS[2]];

const TLS_KEYS: [&str; 3] = ["caFile", "certificateFile", "keyFile"];

pub(super) struct LocalSide {
    pub link: LocalLink,
    pub topics: Topics,
}

pub(super) struct CloudSide {
    pub link: CloudLink,
    pub topics: Topics,
    pub messages_per_second: Option<NonZeroU32>,
    pub unconfirmed: usize,
    pub probe_interval: Duration,
}

pub(super) fn local_side(
    table: &mut Table<'_>,
    core: Option<&ThingName>,
    host: &dyn Host,
) -> Option<LocalSide> {
    let link = match kind(table, ["mqtt", "pubsub"]) {
        Some("mqtt") => mqtt(table, Some("127.0.0.1"), core, host).map(LocalLink::Mqtt),
        other => other.map(|_| LocalLink::Pubsub),
    };
    let topics = topics(table, core, |prefix| match prefix.contains("{thingName}") {
        false => Ok(()),
        true => Err(Bad::new(
            "{thingName} has no place in it",
            "write it out: devices don't know which core relays for them",
        )),
    });
    Some(LocalSide { link: link?, topics: topics? })
}

pub(super) fn cloud_side(
    table: &mut Table<'_>,
    core: Option<&ThingName>,
    host: &dyn Host,
) -> Option<CloudSide> {
    let link = match kind(table, ["greengrass", "mqtt"]) {
        Some("mqtt") => mqtt(table, None, core, host).map(CloudLink::Mqtt),
        other => other.map(|_| CloudLink::Greengrass),
    };
    let topics = topics(table, core, |_| Ok(()));
    let messages_per_second = table.or("messagesPerSecond", 20, number(0..=10_000));
    let unconfirmed = table.or("unconfirmed", 8, number(1..=1000));
    let probe_interval = table.or("probeInterval", MINUTE * 5, duration(SECOND..=DAY));
    Some(CloudSide {
        link: link?,
        topics: topics?,
        messages_per_second: NonZeroU32::new(narrow(messages_per_second?)),
        unconfirmed: narrow(unconfirmed?),
        probe_interval: probe_interval?,
    })
}

/// Which of two kinds the link is; the first is the default. What only MQTT needs is refused beside
/// any other kind, and not judged when nobody knows which kind was meant.
fn kind(table: &mut Table<'_>, kinds: [&'static str; 2]) -> Option<&'static str> {
    let kind = table.or("link", kinds[0], choice(&kinds.map(|kind| (kind, kind))));
    let set_mqtt = format!("set {} = \"mqtt\", or remove it", table.key("link"));
    for key in MQTT_KEYS.into_iter().filter(|_| kind != Some("mqtt")) {
        table.optional(key, |_| match kind {
            Some(kind) => Err(Bad::new(format!("a {kind:?} link has no such setting"), &*set_mqtt)),
            None => Ok(()),
        });
    }
    kind
}

fn topics(
    table: &mut Table<'_>,
    core: Option<&ThingName>,
    allow: impl FnOnce(&str) -> Result<(), Bad>,
) -> Option<Topics> {
    let stand_in = STAND_IN.parse().expect("the stand-in is a thing name");
    let prefix = table.or("topicPrefix", "management/topic".to_owned(), text)?;
    let parsed = allow(&prefix).and_then(|()| {
        Topics::parse(&prefix, core.unwrap_or(&stand_in)).map_err(|why| {
            let what = format!("{} won't do: {}", quote(&prefix.as_str().into()), why);
            Bad::new(what, "give names joined by slashes, such as \"management/topic\"")
        })
    });
    table.accept("topicPrefix", parsed)
}

fn mqtt(
    table: &mut Table<'_>,
    default_host: Option<&str>,
    core: Option<&ThingName>,
    machine: &dyn Host,
) -> Option<MqttLink> {
    let host = host(table, default_host);
    let port = table.or("port", MQTT_PORT, number(1..=65_535));
    let client_id = client_id(table, core);
    let files = tls_files(table, machine);
    if let (Some(host), Some(None)) = (&host, &files) {
        table.accept("caFile", plain_allowed(host))?;
    }
    Some(MqttLink { host: host?, port: narrow(port?), client_id: client_id?, files: files? })
}

fn host(table: &mut Table<'_>, default: Option<&str>) -> Option<String> {
    const REMEDY: &str = "give the broker's DNS name or IP address alone: no scheme, no brackets";
    let parse = |value: &Value| {
        let host = text(value)?;
        match ServerName::try_from(host.as_str()) {
            Ok(_) => Ok(host),
            Err(_) => Err(Bad::new(format!("{} is no host", quote(value)), REMEDY)),
        }
    };
    let set = table.optional("host", parse)?.or_else(|| default.map(str::to_owned));
    table.accept("host", set.ok_or_else(|| Bad::new("it is not set", REMEDY)))
}

fn client_id(table: &mut Table<'_>, core: Option<&ThingName>) -> Option<String> {
    let set = table.optional("clientId", text)?;
    let id = match (set, core) {
        (Some(id), _) => id,
        (None, Some(core)) => format!("{core}-certrelay"),
        (None, None) => return None,
    };
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '+' | '#' | '/');
    let checked = match (1..=MAX_THING_NAME).contains(&id.len()) && id.chars().all(fits) {
        true => Ok(id),
        false => Err(Bad::new(
            format!("{} is no client id", quote(&id.into())),
            "set 1 to 128 printable characters, without spaces and + # /",
        )),
    };
    table.accept("clientId", checked)
}

/// The three files; the inner `None`: none of them is set.
fn tls_files(table: &mut Table<'_>, machine: &dyn Host) -> Option<Option<TlsFiles>> {
    let files = TLS_KEYS.map(|key| file(table, key, machine));
    if let [Some(None), Some(None), Some(None)] = files {
        return Some(None);
    }
    for (key, file) in TLS_KEYS.into_iter().zip(&files) {
        if let Some(None) = file {
            let remedy = "set caFile, certificateFile and keyFile together, or none of them";
            table.accept::<()>(key, Err(Bad::new("it is not set", remedy)));
        }
    }
    let [ca, certificate, key] = files;
    Some(Some(TlsFiles { ca: ca??, certificate: certificate??, key: key?? }))
}

fn file(table: &mut Table<'_>, key: &'static str, machine: &dyn Host) -> Option<Option<PathBuf>> {
    table.optional(key, |value| {
        let path = PathBuf::from(text(value)?);
        match machine.readable(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(Bad::new(format!("{}: {error}", quote(value)), READ_REMEDY)),
        }
    })
}

fn plain_allowed(host: &str) -> Result<(), Bad> {
    match is_loopback(host) {
        true => Ok(()),
        false => Err(Bad::new(
            format!("without TLS only this machine is spoken to, and {host} is another"),
            "set caFile, certificateFile and keyFile",
        )),
    }
}

/// Refuses two links that would talk to each other, or push each other off the broker. Only MQTT
/// links can: the nucleus keeps its own two systems apart.
pub(super) fn apart(root: &Table<'_>, local: &LocalSide, cloud: &CloudSide) {
    let (LocalLink::Mqtt(floor), CloudLink::Mqtt(network)) = (&local.link, &cloud.link) else {
        return;
    };
    let place = |link: &MqttLink| match link.is_loopback() {
        true => ("localhost".to_owned(), link.port),
        false => (link.host.to_ascii_lowercase(), link.port),
    };
    if place(floor) != place(network) {
        return;
    }
    if local.topics == cloud.topics {
        root.accept::<()>(
            "cloud.topicPrefix",
            Err(Bad::new(
                "both links use the same topics of the same broker: every message would come back",
                "give cloud.host another broker, or cloud.topicPrefix another prefix",
            )),
        );
    }
    if floor.client_id == network.client_id {
        root.accept::<()>("cloud.clientId", Err(Bad::new(
            "both links have the same client id at the same broker: each would push the other off",
            "give cloud.clientId or local.clientId another value",
        )));
    }
}
