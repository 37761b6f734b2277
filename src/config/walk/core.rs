//! The core's own certificate. Its files are named here, and looked at when they are used: what is
//! wrong with them must not keep the devices' rotations from running.

use std::{path::PathBuf, time::Duration};

use rustls_pki_types::ServerName;
use serde_json::Value;

use super::{
    super::{
        Core, CoreFiles, KeyRotation,
        read::{Bad, Table},
        value::{choice, duration, number, quote, text, texts},
    },
    MINUTE, narrow,
};
use crate::{identity::RestartWindow, keys::KeyKind};

/// The port of AWS IoT Core for MQTT.
const MQTT_PORT: u16 = 8883;

/// Of the two files of a credential, both or none are set.
const FILE_KEYS: [&str; 2] = ["certificateFile", "keyFile"];

pub(super) fn core_device(table: &mut Table<'_>) -> Option<Core> {
    let default = Core::default();
    let files = files(table);
    let ca = table.optional("caFile", path);
    let endpoint = table.optional("endpoint", endpoint);
    let kinds = KeyKind::ALL.map(|kind| (kind.as_str(), kind));
    let key_algorithm = table.optional("keyAlgorithm", choice(&kinds));
    let rotations = [("rotate", KeyRotation::Rotate), ("reuse", KeyRotation::Reuse)];
    let key_rotation = table.or("keyRotation", default.key_rotation, choice(&rotations));
    let restart_command = table.optional(
        "restartCommand",
        texts("[\"systemctl\", \"restart\", \"--no-block\", \"greengrass.service\"]"),
    );
    let restart_window = table.optional("restartWindow", window);
    let drain_timeout =
        table.or("drainTimeout", default.drain_timeout, duration(Duration::ZERO..=MINUTE * 10));
    // With fewer than two a day no rollback could follow a restart.
    let max_restarts_per_day =
        table.or("maxRestartsPerDay", default.max_restarts_per_day.into(), number(2..=24));
    Some(Core {
        files: files?,
        ca: ca?,
        endpoint: endpoint?,
        key_algorithm: key_algorithm?,
        key_rotation: key_rotation?,
        restart_command: restart_command?,
        restart_window: restart_window?,
        drain_timeout: drain_timeout?,
        max_restarts_per_day: narrow(max_restarts_per_day?),
    })
}

fn files(table: &mut Table<'_>) -> Option<Option<CoreFiles>> {
    let files = FILE_KEYS.map(|key| table.optional(key, path));
    if let [Some(None), Some(None)] = files {
        return Some(None);
    }
    for (key, file) in FILE_KEYS.into_iter().zip(&files) {
        if let Some(None) = file {
            let remedy = "set core.certificateFile and core.keyFile together, or neither";
            table.accept::<()>(key, Err(Bad::new("it is not set", remedy)));
        }
    }
    let [certificate, key] = files;
    Some(Some(CoreFiles { certificate: certificate??, key: key?? }))
}

/// An absolute path, or its `file://` URI, as the nucleus takes both.
fn path(value: &Value) -> Result<PathBuf, Bad> {
    const REMEDY: &str = "give an absolute path, or file:// and one";
    let text = text(value)?;
    if text.to_ascii_lowercase().starts_with("pkcs11:") {
        let remedy = "hardware keys can't be rotated yet: give a file, or remove it";
        return Err(Bad::new("it is in a hardware module", remedy));
    }
    let path = PathBuf::from(text.strip_prefix("file://").unwrap_or(&text));
    match path.is_absolute() {
        true => Ok(path),
        false => Err(Bad::new(format!("{} is no absolute path", quote(value)), REMEDY)),
    }
}

/// `host` or `host:port`. An IPv6 address with a port needs its brackets.
fn endpoint(value: &Value) -> Result<(String, u16), Bad> {
    const REMEDY: &str = "give a DNS name or IP address, with :port where it is not 8883";
    let text = text(value)?;
    let host_alone = |host: &str| ServerName::try_from(host).is_ok().then(|| host.to_owned());
    let with_port = || {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Some((host_alone(bare.unwrap_or(host))?, port))
    };
    let found = host_alone(&text).map(|host| (host, MQTT_PORT)).or_else(with_port);
    found.ok_or_else(|| Bad::new(format!("{} is no endpoint", quote(value)), REMEDY))
}

fn window(value: &Value) -> Result<RestartWindow, Bad> {
    const REMEDY: &str =
        "give days and local times, such as \"Sun 02:00-04:00\" or \"daily 22:00-04:00\"";
    text(value)?
        .parse()
        .map_err(|why| Bad::new(format!("{} is no window: {why}", quote(value)), REMEDY))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{
        Config,
        testing::{machine, read},
    };

    fn core(settings: &[(&str, Value)]) -> Core {
        read(settings).expect("valid").core
    }

    #[test]
    fn without_settings_the_core_is_found_and_rotated_by_itself() {
        assert_eq!(core(&[]), Core::default());
        assert_eq!(
            (Core::default().drain_timeout, Core::default().max_restarts_per_day),
            (MINUTE / 2, 4)
        );
    }

    #[test]
    fn every_setting_of_the_core_is_taken() {
        let command = ["systemctl", "restart", "greengrass.service"];
        let taken = core(&[
            ("core.certificateFile", json!("/greengrass/v2/thingCert.crt")),
            ("core.keyFile", json!("file:///greengrass/v2/privKey.key")),
            ("core.caFile", json!("/greengrass/v2/rootCA.pem")),
            ("core.endpoint", json!("iot.example.com:443")),
            ("core.keyAlgorithm", json!("rsa4096")),
            ("core.keyRotation", json!("reuse")),
            ("core.restartCommand", json!(command)),
            ("core.restartWindow", json!("Sun 02:00-04:00")),
            ("core.drainTimeout", json!("1m")),
            ("core.maxRestartsPerDay", json!("2")),
        ]);
        let files = CoreFiles {
            certificate: "/greengrass/v2/thingCert.crt".into(),
            key: "/greengrass/v2/privKey.key".into(),
        };
        let expected = Core {
            files: Some(files),
            ca: Some("/greengrass/v2/rootCA.pem".into()),
            endpoint: Some(("iot.example.com".into(), 443)),
            key_algorithm: Some(KeyKind::Rsa4096),
            key_rotation: KeyRotation::Reuse,
            restart_command: Some(command.map(str::to_owned).into()),
            restart_window: Some("Sun 02:00-04:00".parse().expect("a window")),
            drain_timeout: MINUTE,
            max_restarts_per_day: 2,
        };
        assert_eq!(taken, expected);
    }

    #[test]
    fn an_endpoint_is_a_host_with_or_without_a_port() {
        for (text, host, port) in [
            ("a1-ats.iot.eu-west-1.amazonaws.com", "a1-ats.iot.eu-west-1.amazonaws.com", 8883),
            ("localhost:1883", "localhost", 1883),
            ("10.0.0.1:443", "10.0.0.1", 443),
            ("::1", "::1", 8883),
            ("[::1]:443", "::1", 443),
        ] {
            assert_eq!(core(&[("core.endpoint", json!(text))]).endpoint, Some((host.into(), port)));
        }
    }

    #[test]
    fn a_bad_setting_of_the_core_is_named_with_what_is_wrong_and_what_to_do() {
        for (key, value, says) in [
            ("caFile", json!("ca.pem"), "\"ca.pem\" is no absolute path; give an absolute path"),
            ("caFile", json!("file://ca.pem"), "\"file://ca.pem\" is no absolute path"),
            ("caFile", json!(""), "it is empty"),
            ("endpoint", json!("mqtts://a"), "\"mqtts://a\" is no endpoint; give a DNS name or"),
            ("endpoint", json!("a:0"), "\"a:0\" is no endpoint"),
            ("endpoint", json!("a:65536"), "\"a:65536\" is no endpoint"),
            ("endpoint", json!(":443"), "\":443\" is no endpoint"),
            (
                "keyAlgorithm",
                json!("rsa1024"),
                "\"rsa1024\" is not known; give \"p256\" or \"p384\"",
            ),
            ("keyRotation", json!(true), "true is not known; give \"rotate\" or \"reuse\""),
            ("restartCommand", json!("reboot"), "it is text; give a list such as [\"systemctl\""),
            ("restartCommand", json!([]), "it is empty; give a list such as"),
            ("restartCommand", json!(["reboot", 5]), "it is a number; put text"),
            ("restartWindow", json!("night"), "\"night\" is no window: \"night\" names no days"),
            ("restartWindow", json!("Sun 2-4"), "\"Sun 2-4\" is no window: \"2\" is no time from"),
            (
                "drainTimeout",
                json!("11m"),
                "\"11m\" is out of range; give a duration from 0ms to 10m",
            ),
            ("maxRestartsPerDay", json!(1), "1 is out of range; give a whole number from 2 to 24"),
            ("maxRestartsPerDay", json!(25), "25 is out of range"),
            (
                "restartWindows",
                json!(1),
                "there is no such setting; did you mean core.restartWindow?",
            ),
        ] {
            let key = format!("core.{key}");
            let problems = read(&[(&key, value.clone())]).expect_err(&key);
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert!(problems[0].starts_with(&format!("{key}: {says}")), "{problems:#?}");
        }
    }

    #[test]
    fn the_two_files_are_set_together() {
        for (one, other) in [("keyFile", "certificateFile"), ("certificateFile", "keyFile")] {
            let problems = read(&[(&format!("core.{one}"), json!("/x"))]).expect_err(one);
            let says = format!("core.{other}: it is not set; set core.certificateFile and");
            assert!(problems.len() == 1 && problems[0].starts_with(&says), "{problems:#?}");
        }
    }

    #[test]
    fn a_hardware_key_is_refused_with_the_reason() {
        let key = json!("pkcs11:object=core;type=private");
        let files = [("core.certificateFile", json!("/x")), ("core.keyFile", key)];
        let problems = read(&files).expect_err("hardware");
        let says = "core.keyFile: it is in a hardware module; hardware keys can't be rotated yet";
        assert!(problems.len() == 1 && problems[0].starts_with(says), "{problems:#?}");
    }

    #[test]
    fn what_a_nucleus_makes_text_of_is_taken() {
        let of = |most: Value| {
            let tree = json!({"core": {"maxRestartsPerDay": most, "drainTimeout": "0s",
                "restartCommand": ["reboot", "7"], "restartWindow": null}});
            Config::from_greengrass(tree, &machine()).expect("valid").core
        };
        assert_eq!(of(json!(3.0)), of(json!("3")));
        assert_eq!(of(json!(3)).max_restarts_per_day, 3);
    }
}
