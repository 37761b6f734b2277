use serde_json::{Value, json};

use super::*;
use crate::config::testing::{machine, read, read_tree};

const DOCUMENTED: &str = include_str!("../../../docs/settings.md");

/// Says of a key in the documentation's tables what stands in the last column.
fn documented(key: &str) -> &str {
    let named =
        |row: &&str| row.split('|').nth(1).is_some_and(|keys| keys.contains(&format!("`{key}`")));
    let row = DOCUMENTED.lines().find(named).unwrap_or_else(|| panic!("{key} is not documented"));
    row.rsplit('|').nth(1).expect("a last column").trim()
}

/// Settings from which each can be changed alone.
fn base(other: &[(&str, Value)]) -> Config {
    let tls = ["local.caFile", "local.certificateFile", "local.keyFile"];
    let files = ["ca", "cert", "key"].map(|file| json!(file));
    let ids = [("local.clientId", json!("a")), ("cloud.clientId", json!("b"))];
    let core = ["core.certificateFile", "core.keyFile"].map(|key| (key, json!("/file")));
    let tls: Vec<(&str, Value)> = tls.into_iter().zip(files).collect();
    read(&[&tls[..], &ids, &core, other].concat()).expect("valid")
}

fn shown(config: &Config) -> String {
    format!("{config:?}")
}

#[test]
fn what_concerns_the_gateway_alone_applies_at_once() {
    for (key, value) in [
        ("children", json!(["pump-*"])),
        ("rotationTtl", json!("1d")),
        ("minInterval", json!("1h")),
        ("cloud.messagesPerSecond", json!(5)),
        ("cloud.unconfirmed", json!(5)),
        ("cloud.probeInterval", json!("1m")),
        ("csr.commonName", json!("match")),
        ("csr.settle", json!("1s")),
        ("certificate.trustAnchorsFile", json!("anchors")),
        ("repeat.request", json!(["1s", "2s"])),
        ("repeat.certificate", json!(["1s", "2s"])),
        ("repeat.cloud", json!(["1s", "2s"])),
        ("core.certificateFile", json!("/other")),
        ("core.keyFile", json!("/other")),
        ("core.caFile", json!("/other")),
        ("core.endpoint", json!("iot.example.com:443")),
        ("core.keyAlgorithm", json!("p384")),
        ("core.keyRotation", json!("reuse")),
        ("core.restartCommand", json!(["reboot"])),
        ("core.restartWindow", json!("Sun 02:00-04:00")),
        ("core.drainTimeout", json!("1m")),
        ("core.maxRestartsPerDay", json!(3)),
        ("log.level", json!("debug")),
    ] {
        let new = base(&[(key, value)]);
        assert_ne!(shown(&base(&[])), shown(&new), "{key}");
        let change = base(&[]).change(new.clone());
        assert_eq!(shown(&change.config), shown(&new), "{key}");
        assert_eq!(change.needs_restart, [""; 0], "{key}");
        assert_eq!(documented(key), "at once", "{key}");
    }
}

#[test]
fn what_others_were_told_of_waits_for_a_restart_and_is_named() {
    for (key, value) in [
        ("thingName", json!("core-9")),
        ("workDir", json!("/data")),
        ("local.host", json!("10.0.0.1")),
        ("local.port", json!(1)),
        ("local.clientId", json!("c")),
        ("local.topicPrefix", json!("floor")),
        ("local.caFile", json!("cert")),
        ("local.certificateFile", json!("ca")),
        ("local.keyFile", json!("ca")),
        ("cloud.host", json!("10.0.0.1")),
        ("cloud.port", json!(1)),
        ("cloud.clientId", json!("c")),
        ("cloud.topicPrefix", json!("fleet")),
        ("cloud.caFile", json!("cert")),
        ("cloud.certificateFile", json!("ca")),
        ("cloud.keyFile", json!("ca")),
        ("store.maxBytes", json!("8MiB")),
        ("clock.trust", json!("always")),
        ("log.format", json!("json")),
    ] {
        let change = base(&[]).change(base(&[(key, value)]));
        assert_eq!(change.needs_restart, [key]);
        assert_eq!(documented(key), "restart", "{key}");
        assert_eq!(shown(&change.config), shown(&base(&[])), "{key}");
    }
}

#[test]
fn another_kind_of_link_is_named_by_the_kind_alone() {
    let of = |tree| read_tree(&machine(), tree).expect("valid");
    let nucleus = || of(json!({"local": {"link": "pubsub"}}));
    let mqtt = || of(json!({"cloud": {"link": "mqtt", "host": "::1", "port": 1883}}));
    assert_eq!(nucleus().change(mqtt()).needs_restart, ["local.link", "cloud.link"]);
    assert_eq!(mqtt().change(nucleus()).needs_restart, ["local.link", "cloud.link"]);
    assert_eq!(shown(&mqtt().change(nucleus()).config), shown(&mqtt()));
    assert_eq!((documented("local.link"), documented("cloud.link")), ("restart", "restart"));
}

#[test]
fn tls_that_comes_or_goes_waits_for_a_restart() {
    let of = |tls: &[(&str, Value)]| read(tls).expect("valid");
    let tls = ["local.caFile", "local.certificateFile", "local.keyFile"];
    let files: Vec<(&str, Value)> =
        tls.into_iter().zip(["ca", "cert", "key"].map(|file| json!(file))).collect();
    assert_eq!(of(&[]).change(of(&files)).needs_restart, tls);
    assert_eq!(of(&files).change(of(&[])).needs_restart, tls);
}

#[test]
fn new_settings_that_are_the_old_ones_change_nothing() {
    let change = base(&[]).change(base(&[]));
    assert_eq!((change.needs_restart.len(), shown(&change.config)), (0, shown(&base(&[]))));
}

#[test]
fn of_many_new_settings_each_is_taken_or_named() {
    let change = base(&[]).change(base(&[
        ("log.format", json!("json")),
        ("log.level", json!("debug")),
        ("workDir", json!("/data")),
        ("children", json!(["pump-*"])),
    ]));
    assert_eq!(change.needs_restart, ["workDir", "log.format"]);
    let taken = base(&[("log.level", json!("debug")), ("children", json!(["pump-*"]))]);
    assert_eq!(shown(&change.config), shown(&taken));
}
