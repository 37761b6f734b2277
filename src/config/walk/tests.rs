use std::num::NonZeroU32;

use serde_json::json;

use super::*;
use crate::{
    config::{
        CloudLink, LocalLink, MqttLink, TlsFiles,
        testing::{Fake, links, machine, read, read_on, read_tree},
    },
    wire::Topics,
};

#[test]
fn what_is_not_set_has_the_documented_default() {
    let config = read(&[]).expect("valid");
    let relay = &config.relay;
    assert_eq!(relay.core.as_str(), "core-1");
    assert_eq!(relay.local_topics, relay.cloud_topics);
    assert_eq!(relay.children, Children::new(["*"]));
    assert_eq!((relay.rotation_ttl, relay.min_interval), (DAY * 30, HOUR * 20));
    assert_eq!((relay.common_name, relay.settle), (CommonNameRule::AbsentOk, SECOND * 5));
    assert!(relay.anchors.is_none());
    assert_eq!(relay.request, Backoff { first: MINUTE * 10, longest: HOUR * 6 });
    assert_eq!(relay.certificate, Backoff { first: MINUTE, longest: HOUR });
    assert_eq!(relay.cloud, Backoff { first: MINUTE, longest: HOUR });
    assert_eq!(relay.messages_per_second, NonZeroU32::new(20));
    assert_eq!((relay.unconfirmed, relay.probe_interval), (8, MINUTE * 5));
    let local = MqttLink {
        host: "127.0.0.1".into(),
        port: 8883,
        client_id: "core-1-certrelay".into(),
        files: None,
    };
    assert_eq!(links(&config).0, &local);
    let files = TlsFiles { ca: "ca".into(), certificate: "cert".into(), key: "key".into() };
    let cloud = MqttLink { host: "iot.example.com".into(), files: Some(files), ..local };
    assert_eq!(links(&config).1, &cloud);
    assert_eq!((config.work_dir, config.store_max_bytes), (PathBuf::from("."), 64 << 20));
    assert_eq!(config.clock, ClockTrust::Auto);
    assert_eq!(config.log, Log { level: tracing::Level::INFO, format: LogFormat::Text });
}

#[test]
fn every_setting_is_taken() {
    let config = read(&[
        ("thingName", json!("core-9")),
        ("workDir", json!("/data")),
        ("children", json!(["pump-*", "press"])),
        ("rotationTtl", json!("10d")),
        ("minInterval", json!("0s")),
        ("local.link", json!("mqtt")),
        ("local.host", json!("10.0.0.1")),
        ("local.port", json!("1884")),
        ("local.clientId", json!("gate")),
        ("local.topicPrefix", json!("floor")),
        ("local.caFile", json!("ca")),
        ("local.certificateFile", json!("cert")),
        ("local.keyFile", json!("key")),
        ("cloud.link", json!("mqtt")),
        ("cloud.port", json!(443.0)),
        ("cloud.clientId", json!("core-9")),
        ("cloud.topicPrefix", json!("fleet/{thingName}")),
        ("cloud.messagesPerSecond", json!(0)),
        ("cloud.unconfirmed", json!(3)),
        ("cloud.probeInterval", json!("1s")),
        ("csr.commonName", json!("match")),
        ("csr.settle", json!("1s")),
        ("certificate.trustAnchorsFile", json!("anchors")),
        ("repeat.request", json!(["1s", "2s"])),
        ("repeat.certificate", json!(["3s", "4s"])),
        ("repeat.cloud", json!(["5s", "6s"])),
        ("store.maxBytes", json!("8MiB")),
        ("clock.trust", json!("never")),
        ("log.level", json!("debug")),
        ("log.format", json!("json")),
    ])
    .expect("valid");
    let relay = &config.relay;
    assert_eq!(relay.core.as_str(), "core-9");
    assert_eq!(relay.local_topics, Topics::parse("floor", &relay.core).expect("valid"));
    assert_eq!(relay.cloud_topics, Topics::parse("fleet/core-9", &relay.core).expect("valid"));
    assert_eq!(relay.children, Children::new(["pump-*", "press"]));
    assert_eq!((relay.rotation_ttl, relay.min_interval), (DAY * 10, Duration::ZERO));
    assert_eq!((relay.common_name, relay.settle), (CommonNameRule::Match, SECOND));
    assert!(relay.anchors.is_some());
    assert_eq!(relay.request, Backoff { first: SECOND, longest: SECOND * 2 });
    assert_eq!(relay.certificate, Backoff { first: SECOND * 3, longest: SECOND * 4 });
    assert_eq!(relay.cloud, Backoff { first: SECOND * 5, longest: SECOND * 6 });
    assert_eq!((relay.messages_per_second, relay.unconfirmed), (None, 3));
    assert_eq!(relay.probe_interval, SECOND);
    let (local, cloud) = links(&config);
    assert_eq!((local.host.as_str(), local.port), ("10.0.0.1", 1884));
    assert_eq!((local.client_id.as_str(), cloud.client_id.as_str()), ("gate", "core-9"));
    assert!(local.files.is_some());
    assert_eq!(cloud.port, 443);
    assert_eq!((config.work_dir, config.store_max_bytes), (PathBuf::from("/data"), 8 << 20));
    assert_eq!(config.clock, ClockTrust::Never);
    assert_eq!(config.log, Log { level: tracing::Level::DEBUG, format: LogFormat::Json });
}

#[test]
fn a_bad_setting_is_named_with_what_is_wrong_and_what_to_do() {
    let nothing = Value::Null;
    let long = json!("x".repeat(129));
    for (key, value, says) in [
        ("thingName", json!("a b"), "thingName: \"a b\" is no thing name: ' ' is not one of"),
        ("thingName", json!(5), "thingName: it is a number; put text in double quotes"),
        ("workDir", json!("/gone"), "workDir: /gone: entity not found; make the directory"),
        ("children", json!([]), "children: it is empty; give a list"),
        ("children", json!("*"), "children: it is text; give a list"),
        ("children", json!(["a", "b/c"]), "children: \"b/c\" matches no thing name; use a-z"),
        ("children", json!([long.clone()]), "children: \"xxx"),
        ("rotationTtl", json!("30"), "rotationTtl: \"30\" is no duration; give a duration from 1m"),
        (
            "rotationTtl",
            json!("2y"),
            "rotationTtl: \"2y\" is out of range; give a duration from 1m",
        ),
        ("minInterval", json!(20), "minInterval: 20 is no duration"),
        ("local", json!("mqtt"), "local: it is no table; put its settings into it"),
        (
            "local.link",
            json!("greengrass"),
            "local.link: \"greengrass\" is not known; give \"mqtt\" or \"pubsub\"",
        ),
        (
            "cloud.link",
            json!("pubsub"),
            "cloud.link: \"pubsub\" is not known; give \"greengrass\" or \"mqtt\"",
        ),
        (
            "local.topicPrefix",
            json!("a/{thingName}"),
            "local.topicPrefix: {thingName} has no place",
        ),
        (
            "local.topicPrefix",
            json!("/a"),
            "local.topicPrefix: \"/a\" won't do: it has an empty seg",
        ),
        (
            "local.host",
            json!("10.0.0.1"),
            "local.caFile: without TLS only this machine is spoken to",
        ),
        ("local.caFile", json!("ca"), "local.certificateFile: it is not set; set caFile, cert"),
        ("local.clientId", json!("a/b"), "local.clientId: \"a/b\" is no client id; set 1 to 128"),
        ("local.clientId", long.clone(), "local.clientId: \"xxx"),
        ("cloud.host", nothing.clone(), "cloud.host: it is not set; give the broker's DNS name"),
        ("cloud.host", json!("mqtts://a"), "cloud.host: \"mqtts://a\" is no host; give the broker"),
        ("cloud.host", json!("[::1]"), "cloud.host: \"[::1]\" is no host"),
        (
            "cloud.hots",
            json!("a"),
            "cloud.hots: there is no such setting; did you mean cloud.host?",
        ),
        (
            "cloud.port",
            json!(0),
            "cloud.port: 0 is out of range; give a whole number from 1 to 65535",
        ),
        ("cloud.keyFile", nothing, "cloud.keyFile: it is not set; set caFile, certificateFile and"),
        (
            "cloud.keyFile",
            json!("gone"),
            "cloud.keyFile: \"gone\": entity not found; check the path",
        ),
        ("cloud.messagesPerSecond", json!(-1), "cloud.messagesPerSecond: -1 is no whole number"),
        ("cloud.unconfirmed", json!(0), "cloud.unconfirmed: 0 is out of range"),
        ("cloud.probeInterval", json!("1ms"), "cloud.probeInterval: \"1ms\" is out of range"),
        (
            "csr.commonName",
            json!("x"),
            "csr.commonName: \"x\" is not known; give \"match\" or \"absent",
        ),
        ("csr.settle", json!("1h"), "csr.settle: \"1h\" is out of range"),
        ("certificate.trustAnchorsFile", json!("ca"), "certificate.trustAnchorsFile: \"ca\": "),
        (
            "certificate.trustAnchorsFile",
            json!("gone"),
            "certificate.trustAnchorsFile: \"gone\": en",
        ),
        ("repeat.cloud", json!(["1h", "1m"]), "repeat.cloud: the first pause is longer"),
        (
            "store.maxBytes",
            json!("1kB"),
            "store.maxBytes: \"1kB\" is out of range; give a size from",
        ),
        ("clock.trust", json!(true), "clock.trust: true is not known; give \"auto\" or"),
        ("log.level", json!("loud"), "log.level: \"loud\" is not known"),
        ("log.format", json!("xml"), "log.format: \"xml\" is not known; give \"text\" or \"json\""),
        (
            "banana",
            json!(1),
            "banana: there is no such setting; remove it; known here: thingName, ",
        ),
    ] {
        let problems = read(&[(key, value.clone())]).expect_err(key);
        assert!(problems[0].starts_with(says), "{key} = {value}: {problems:#?}");
        let expected = if key == "local.caFile" { 2 } else { 1 };
        assert_eq!(problems.len(), expected, "{key} = {value}: {problems:#?}");
    }
}

#[test]
fn without_any_setting_the_nucleus_leads_to_the_cloud_and_a_local_broker_to_the_devices() {
    let config = read_tree(&machine(), json!({})).expect("valid");
    assert_eq!(config.cloud, CloudLink::Greengrass);
    let LocalLink::Mqtt(local) = config.local else { panic!("{:?}", config.local) };
    assert_eq!((local.host.as_str(), local.port), ("127.0.0.1", 8883));
}

#[test]
fn what_only_an_mqtt_link_has_is_refused_beside_another_kind_of_link() {
    let mqtt = json!({"host": "a", "port": 1, "clientId": "b", "caFile": "ca",
        "certificateFile": "cert", "keyFile": "key"});
    let with_link = |link: &str| {
        let mut table = mqtt.clone();
        table["link"] = json!(link);
        table
    };
    let problems = read_tree(&machine(), json!({"cloud": mqtt})).expect_err("no link is named");
    assert_eq!(problems.len(), 6, "{problems:#?}");
    assert_eq!(
        problems[0],
        "cloud.host: a \"greengrass\" link has no such setting; \
         set cloud.link = \"mqtt\", or remove it"
    );
    let tree = json!({"local": with_link("pubsub"), "cloud": with_link("greengrass")});
    assert_eq!(read_tree(&machine(), tree).expect_err("neither takes them").len(), 12);
    let tree = json!({"cloud": with_link("mqt")});
    assert_eq!(read_tree(&machine(), tree).expect_err("a slip").len(), 1);
}

#[test]
fn limits_and_prefixes_serve_every_kind_of_link() {
    let tree = json!({
        "local": {"link": "pubsub", "topicPrefix": "floor"},
        "cloud": {"link": "greengrass", "topicPrefix": "core/{thingName}", "unconfirmed": "3",
            "messagesPerSecond": "0", "probeInterval": "1m"},
    });
    let config = read_tree(&machine(), tree).expect("valid");
    assert_eq!((&config.local, &config.cloud), (&LocalLink::Pubsub, &CloudLink::Greengrass));
    let relay = &config.relay;
    assert_eq!(relay.local_topics, Topics::parse("floor", &relay.core).expect("valid"));
    assert_eq!(relay.cloud_topics, Topics::parse("core/core-1", &relay.core).expect("valid"));
    assert_eq!((relay.unconfirmed, relay.messages_per_second), (3, None));
    assert_eq!(relay.probe_interval, MINUTE);
}

#[test]
fn one_prefix_serves_both_links_through_a_nucleus() {
    for local in ["mqtt", "pubsub"] {
        let tree =
            json!({"local": {"link": local, "topicPrefix": "p"}, "cloud": {"topicPrefix": "p"}});
        assert!(read_tree(&machine(), tree).is_ok(), "{local}");
    }
}

/// Settings of every type, as a deployment sets them.
fn deployed() -> Value {
    json!({
        "accessControl": {"aws.greengrass.ipc.mqttproxy": {"certrelay:mqttproxy:1": {
            "operations": ["aws.greengrass#PublishToIoTCore"], "resources": ["*"]}}},
        "workDir": "/data",
        "children": ["pump-*", "7"],
        "minInterval": "0s",
        "local": {"port": 1884, "clientId": null},
        "cloud": {"unconfirmed": 3, "messagesPerSecond": 0, "topicPrefix": "fleet/{thingName}"},
        "certificate": {"trustAnchorsFile": "anchors"},
        "repeat": {"cloud": ["5s", "6s"]},
        "store": {"maxBytes": 8_388_608},
        "log": null,
    })
}

/// What a nucleus makes of each scalar.
fn every_scalar(tree: &Value, change: fn(&Value) -> Value) -> Value {
    match tree {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), every_scalar(value, change))).collect()
        }
        Value::Array(items) => items.iter().map(|item| every_scalar(item, change)).collect(),
        Value::Null => Value::Null,
        scalar => change(scalar),
    }
}

#[test]
fn the_configuration_of_a_component_may_hold_what_is_the_nucleus_own_and_what_is_unset() {
    let config = Config::from_greengrass(deployed(), &machine()).expect("valid");
    assert_eq!(config.relay.children, Children::new(["pump-*", "7"]));
    assert_eq!((config.store_max_bytes, config.relay.unconfirmed), (8 << 20, 3));
    let mut tree = deployed();
    tree.as_object_mut().expect("a map").remove("accessControl");
    let without = Config::from_greengrass(tree, &machine()).expect("valid");
    assert_eq!(format!("{config:?}"), format!("{without:?}"));
    assert!(read_tree(&machine(), deployed()).is_err(), "in a file nobody would heed it");
}

#[test]
fn no_setting_suffers_from_what_a_nucleus_makes_of_numbers() {
    let of = |tree| format!("{:?}", Config::from_greengrass(tree, &machine()).expect("valid"));
    let as_given = of(deployed());
    let as_text = every_scalar(&deployed(), |scalar| match scalar {
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    });
    assert_eq!(of(as_text), as_given);
    let as_float = every_scalar(&deployed(), |scalar| {
        scalar.as_f64().map_or_else(|| scalar.clone(), Value::from)
    });
    assert_eq!(of(as_float), as_given);
}

#[test]
fn a_component_without_configuration_has_the_defaults() {
    let of = |tree| Config::from_greengrass(tree, &machine());
    let nothing = format!("{:?}", of(json!({})).expect("valid"));
    assert_eq!(format!("{:?}", of(Value::Null).expect("valid")), nothing);
    let problems = of(json!("")).expect_err("text").problems;
    assert_eq!((problems.len(), problems[0].key.as_str()), (1, "the configuration"));
}

#[test]
fn all_problems_come_at_once_whatever_table_they_are_in() {
    let problems = read(&[
        ("thingName", json!("")),
        ("local.port", json!("x")),
        ("cloud.topicPrefix", json!("a//b")),
        ("log.levle", json!("info")),
        ("repeat.request", json!("1m")),
    ])
    .expect_err("five are wrong");
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn the_thing_name_comes_from_the_environment_only_when_it_is_not_set() {
    let set = [("thingName", json!("core-2"))];
    assert_eq!(read(&set).expect("valid").relay.core.as_str(), "core-2");
    let nameless = Fake { thing: None, ..machine() };
    let problems = read_on(&nameless, &[]).expect_err("no name");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("thingName: it is not set; set it, or AWS_IOT_THING_NAME"));
}

#[test]
fn a_long_thing_name_needs_a_client_id_of_its_own() {
    let name = "x".repeat(128);
    let problems = read(&[("thingName", json!(name))]).expect_err("139 characters");
    assert!(problems[0].starts_with("local.clientId: "), "{problems:#?}");
    assert!(problems[1].starts_with("cloud.clientId: "), "{problems:#?}");
    let ids = [("local.clientId", json!("a")), ("cloud.clientId", json!("b"))];
    assert!(read(&[&[("thingName", json!(name))], &ids[..]].concat()).is_ok());
}

#[test]
fn the_two_links_can_not_feed_or_evict_each_other() {
    let same = |local: &str, cloud: &str, more: &[(&str, Value)]| {
        let hosts = [("local.host", json!(local)), ("cloud.host", json!(cloud))];
        let tls = ["caFile", "certificateFile", "keyFile"].map(|key| format!("local.{key}"));
        let files = ["ca", "cert", "key"].map(|file| json!(file));
        let tls: Vec<(&str, Value)> = tls.iter().map(String::as_str).zip(files).collect();
        read(&[&hosts[..], &tls, more].concat()).map(|_| ())
    };
    for (local, cloud) in [
        ("broker", "BROKER"),
        ("127.0.0.1", "localhost"),
        ("::1", "127.0.0.1"),
        ("10.1.1.1", "10.1.1.1"),
    ] {
        let problems = same(local, cloud, &[]).expect_err("a loop");
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems[0].starts_with("cloud.topicPrefix: both links use the same topics"));
        assert!(problems[1].starts_with("cloud.clientId: both links have the same client id"));
    }
    let prefix = ("cloud.topicPrefix", json!("fleet"));
    let id = ("cloud.clientId", json!("other"));
    assert_eq!(same("a", "a", std::slice::from_ref(&prefix)).expect_err("evicts").len(), 1);
    assert_eq!(same("a", "a", std::slice::from_ref(&id)).expect_err("feeds").len(), 1);
    assert!(same("a", "a", &[prefix, id]).is_ok());
    assert!(same("a", "b", &[]).is_ok());
    assert!(same("a", "a", &[("cloud.port", json!(443))]).is_ok());
}

#[test]
fn plain_tcp_is_for_this_machine_alone() {
    let plain = |host: &str| {
        let none = ["cloud.caFile", "cloud.certificateFile", "cloud.keyFile"];
        let none = none.map(|key| (key, Value::Null));
        let settings = [("cloud.host", json!(host)), ("cloud.port", json!(1883))];
        read(&[&none[..], &settings].concat())
    };
    for host in ["127.0.0.1", "127.1.2.3", "::1", "localhost"] {
        assert!(plain(host).is_ok(), "{host}");
    }
    for host in ["10.0.0.1", "broker", "localhost.example.com", "::2", "0.0.0.0"] {
        assert!(plain(host).is_err(), "{host}");
    }
}
