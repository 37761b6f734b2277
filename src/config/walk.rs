//! The walk: which settings there are, their defaults and limits, and what must hold between them.
//!
//! The only place that knows the keys. Reads through [`Table`], so every problem is noted and the
//! walk goes on; a `None` below means that one was.

mod core;
mod links;

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use self::{
    core::core_device,
    links::{apart, cloud_side, local_side},
};
use super::{
    Config, ConfigError, Host, Log, LogFormat, READ_REMEDY,
    read::{Bad, Problems, Table},
    value::{choice, duration, pauses, quote, size, text, texts},
};
use crate::{
    relay::{self, Children},
    schedule::{Backoff, ClockTrust},
    wire::{MAX_THING_NAME, ThingName, escape},
    x509::{Anchors, CommonNameRule},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What one rotation may take in the store, in bytes: its record, CSR and certificate, and what the
/// store needs beside them.
const BYTES_A_ROTATION: u64 = 4096;

/// Pauses between repeats: short enough for trials, long enough for a child that is seldom on.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

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
        apart(root, local, cloud);
    }
    let (common_name, settle) = root.table("csr", csr);
    let anchors = root.table("certificate", |certificate| anchors(certificate, host));
    let [request, certificate, cloud_pauses] = root.table("repeat", repeat);
    let store_max_bytes =
        root.table("store", |store| store.or("maxBytes", 64 << 20, size(4 << 20..=4 << 30)));
    let clock = root.table("clock", clock);
    let core_certificate = root.table("core", core_device);
    let log = root.table("log", log);
    let (local, cloud) = (local?, cloud?);
    Some(Config {
        relay: relay::Settings {
            core: core?,
            cloud_topics: cloud.topics,
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
        cloud: cloud.link,
        work_dir: work_dir?,
        store_max_bytes: store_max_bytes?,
        clock: clock?,
        core: core_certificate?,
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
        let globs = texts("[\"pump-*\", \"press\"]")(value)?;
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

fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("the range that it was read with fits")
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
