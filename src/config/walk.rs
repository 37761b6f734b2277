//! The walk: which settings there are, their defaults and limits, and what must hold between them.
//!
//! The only place that knows the keys. Reads through [`Table`], so every problem is noted and the
//! walk goes on; a `None` below means that one was.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use rustls_pki_types::ServerName;
use serde_json::Value;

use super::{
    Config, ConfigError, Host, Log, LogFormat, MqttLink, READ_REMEDY, TlsFiles, is_loopback,
    read::{Bad, Problems, Table},
    value::{choice, duration, number, pauses, quote, size, text, texts},
};
use crate::{
    relay::{self, Children},
    schedule::{Backoff, ClockTrust},
    wire::{MAX_THING_NAME, ThingName, Topics, escape},
    x509::{Anchors, CommonNameRule},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Pauses between repeats: short enough for trials, long enough for a child that is seldom on.
/// What one rotation may take in the store, in bytes: its record, CSR and certificate, and what the
/// store needs beside them.
const BYTES_A_ROTATION: u64 = 4096;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// The port of MQTT over TLS.
const MQTT_PORT: u64 = 8883;

/// The name that stands in for the core's while other settings are checked, when its own is bad.
const STAND_IN: &str = "core";

/// Checks the whole tree.
pub(super) fn config(tree: Value, host: &dyn Host) -> Result<Config, ConfigError> {
    let problems = Problems::default();
    let config = Table::root(tree, &problems, |root| whole(root, host));
    problems.judge(config)
}

fn whole(root: &mut Table<'_>, host: &dyn Host) -> Option<Config> {
    let core = thing_name(root, host);
    let work_dir = work_dir(root, host);
    let children = children(root);
    let rotation_ttl = root.or("rotationTtl", DAY * 30, duration(MINUTE..=DAY * 365));
    let min_interval = root.or("minInterval", HOUR * 20, duration(Duration::ZERO..=DAY * 30));
    let local = root.table("local", |local| local_side(local, core.as_ref(), host));
    let cloud = root.table("cloud", |cloud| cloud_side(cloud, core.as_ref(), host));
    if let (Some(local), Some(cloud)) = (&local, &cloud) {
        apart(root, local, &cloud.side);
    }
    let (common_name, settle) = root.table("csr", csr);
    let anchors = root.table("certificate", |certificate| anchors(certificate, host));
    let [request, certificate, cloud_pauses] = root.table("repeat", repeat);
    let store_max_bytes =
        root.table("store", |store| store.or("maxBytes", 64 << 20, size(4 << 20..=4 << 30)));
    let clock = root.table("clock", clock);
    let log = root.table("log", log);
    let (local, cloud) = (local?, cloud?);
    Some(Config {
        relay: relay::Settings {
            core: core?,
            cloud_topics: cloud.side.topics,
            local_topics: local.topics,
            children: children?,
            rotation_ttl: rotation_ttl?,
            min_interval: min_interval?,
            common_name: common_name?,
            settle: settle?,
            anchors: anchors?,
            request: request?,
            certificate: certificate?,
            cloud: cloud_pauses?,
            messages_per_second: cloud.messages_per_second,
            unconfirmed: cloud.unconfirmed,
            most_under_way: narrow(store_max_bytes? / BYTES_A_ROTATION),
            probe_interval: cloud.probe_interval,
        },
        local: local.link,
        cloud: cloud.side.link,
        work_dir: work_dir?,
        store_max_bytes: store_max_bytes?,
        clock: clock?,
        log: log?,
    })
}

fn thing_name(root: &mut Table<'_>, host: &dyn Host) -> Option<ThingName> {
    const REMEDY: &str = "set it, or AWS_IOT_THING_NAME, to the core device's thing name";
    let set = root.optional("thingName", text)?;
    let name = match set.or_else(|| host.variable("AWS_IOT_THING_NAME")) {
        Some(name) => name.parse().map_err(|why| {
            Bad::new(format!("{} is no thing name: {why}", quote(&name.into())), REMEDY)
        }),
        None => Err(Bad::new("it is not set", REMEDY)),
    };
    root.accept("thingName", name)
}

fn work_dir(root: &mut Table<'_>, host: &dyn Host) -> Option<PathBuf> {
    let dir = PathBuf::from(root.or("workDir", ".".to_owned(), text)?);
    let found = host.directory(&dir).map_err(|error| {
        let what = format!("{}: {error}", escape(&dir.to_string_lossy()));
        Bad::new(what, "make the directory, writable for the user that runs certrelay")
    });
    root.accept("workDir", found)?;
    Some(dir)
}

fn children(root: &mut Table<'_>) -> Option<Children> {
    let globs = root.or("children", vec!["*".to_owned()], |value| {
        let globs = texts(value)?;
        match globs.iter().find(|glob| !is_glob(glob)) {
            None => Ok(globs),
            Some(odd) => Err(Bad::new(
                format!("{} matches no thing name", quote(&odd.as_str().into())),
                "use a-z A-Z 0-9 : _ - and the wildcards * and ?, at most 128 characters",
            )),
        }
    })?;
    Some(Children::new(globs.iter().map(String::as_str)))
}

fn is_glob(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '*' | '?');
    (1..=MAX_THING_NAME).contains(&text.len()) && text.chars().all(fits)
}

/// What both sides have.
struct Side {
    link: MqttLink,
    topics: Topics,
}

struct CloudSide {
    side: Side,
    messages_per_second: Option<NonZeroU32>,
    unconfirmed: usize,
    probe_interval: Duration,
}

fn local_side(table: &mut Table<'_>, core: Option<&ThingName>, host: &dyn Host) -> Option<Side> {
    let link = link(table, Some("127.0.0.1"), core, host);
    let topics = topics(table, core, |prefix| match prefix.contains("{thingName}") {
        false => Ok(()),
        true => Err(Bad::new(
            "{thingName} has no place in it",
            "write it out: devices don't know which core relays for them",
        )),
    });
    Some(Side { link: link?, topics: topics? })
}

fn cloud_side(
    table: &mut Table<'_>,
    core: Option<&ThingName>,
    host: &dyn Host,
) -> Option<CloudSide> {
    let link = link(table, None, core, host);
    let topics = topics(table, core, |_| Ok(()));
    let messages_per_second = table.or("messagesPerSecond", 20, number(0..=10_000));
    let unconfirmed = table.or("unconfirmed", 8, number(1..=1000));
    let probe_interval = table.or("probeInterval", MINUTE * 5, duration(SECOND..=DAY));
    Some(CloudSide {
        side: Side { link: link?, topics: topics? },
        messages_per_second: NonZeroU32::new(narrow(messages_per_second?)),
        unconfirmed: narrow(unconfirmed?),
        probe_interval: probe_interval?,
    })
}

fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("the range that it was read with fits")
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

fn link(
    table: &mut Table<'_>,
    default_host: Option<&str>,
    core: Option<&ThingName>,
    machine: &dyn Host,
) -> Option<MqttLink> {
    let kind = table.or("link", (), choice(&[("mqtt", ())]));
    let host = host(table, default_host);
    let port = table.or("port", MQTT_PORT, number(1..=65_535));
    let client_id = client_id(table, core);
    let files = tls_files(table, machine);
    if let (Some(host), Some(None)) = (&host, &files) {
        table.accept("caFile", plain_allowed(host))?;
    }
    kind?;
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
    const KEYS: [&str; 3] = ["caFile", "certificateFile", "keyFile"];
    let files = KEYS.map(|key| file(table, key, machine));
    if let [Some(None), Some(None), Some(None)] = files {
        return Some(None);
    }
    for (key, file) in KEYS.into_iter().zip(&files) {
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

/// Refuses two links that would talk to each other, or push each other off the broker.
fn apart(root: &Table<'_>, local: &Side, cloud: &Side) {
    let place = |link: &MqttLink| match link.is_loopback() {
        true => ("localhost".to_owned(), link.port),
        false => (link.host.to_ascii_lowercase(), link.port),
    };
    if place(&local.link) != place(&cloud.link) {
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
    if local.link.client_id == cloud.link.client_id {
        root.accept::<()>("cloud.clientId", Err(Bad::new(
            "both links have the same client id at the same broker: each would push the other off",
            "give cloud.clientId or local.clientId another value",
        )));
    }
}

fn csr(table: &mut Table<'_>) -> (Option<CommonNameRule>, Option<Duration>) {
    let rules = [
        ("match", CommonNameRule::Match),
        ("absent-ok", CommonNameRule::AbsentOk),
        ("any", CommonNameRule::Any),
    ];
    let rule = table.or("commonName", CommonNameRule::default(), choice(&rules));
    (rule, table.or("settle", SECOND * 5, duration(Duration::ZERO..=MINUTE * 10)))
}

fn anchors(table: &mut Table<'_>, machine: &dyn Host) -> Option<Option<Anchors>> {
    let anchors = table.optional("trustAnchorsFile", |value| {
        let path = PathBuf::from(text(value)?);
        let pem = machine
            .read(&path)
            .map_err(|error| Bad::new(format!("{}: {error}", quote(value)), READ_REMEDY))?;
        Anchors::from_pem(&pem).map_err(|why| {
            let what = format!("{}: {}", quote(value), escape(&why.to_string()));
            Bad::new(what, "give a PEM file of the CA certificates that issue for your devices")
        })
    })?;
    Some(anchors)
}

fn repeat(table: &mut Table<'_>) -> [Option<Backoff>; 3] {
    let mut read = |key, first, longest| {
        table.or(key, Backoff { first, longest }, pauses(SHORTEST_PAUSE..=LONGEST_PAUSE))
    };
    [
        read("request", MINUTE * 10, HOUR * 6),
        read("certificate", MINUTE, HOUR),
        read("cloud", MINUTE, HOUR),
    ]
}

fn clock(table: &mut Table<'_>) -> Option<ClockTrust> {
    let words =
        [("auto", ClockTrust::Auto), ("always", ClockTrust::Always), ("never", ClockTrust::Never)];
    table.or("trust", ClockTrust::default(), choice(&words))
}

fn log(table: &mut Table<'_>) -> Option<Log> {
    use tracing::Level;
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let level = table.or("level", Level::INFO, choice(&levels));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = table.or("format", LogFormat::Text, choice(&formats));
    Some(Log { level: level?, format: format? })
}

#[cfg(test)]
mod tests;
