//! What the classic nucleus keeps of its configuration in its root folder.
//!
//! `config/config.tlog` is its journal: one change a line, the newest time of a path holds.
//! `config/effectiveConfig.yaml` is for people, and written at a start alone.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::Settings;

/// Writes both files as a start does. `is_first`: the first one on this machine.
pub(crate) fn write(root: &Path, settings: &Settings, is_first: bool) -> io::Result<()> {
    let folder = root.join("config");
    // For its owner alone.
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    fs::write(folder.join("config.tlog"), journal(settings))?;
    fs::write(folder.join("effectiveConfig.yaml"), for_people(settings, is_first))
}

fn journal(settings: &Settings) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let line = |time: u64, path: &[&str], value: &Value| {
        format!("{}\n", json!({"TS": time, "TP": path, "W": "changed", "V": value}))
    };
    let mut lines = String::new();
    for (name, value) in system(settings) {
        if settings.is_fleet_provisioned {
            lines += &line(1, &["system", &name], &json!(""));
        }
        lines += &line(now, &["system", &name], &json!(value));
    }
    let component = ["services", settings.nucleus_component(), "configuration"];
    leaves(&settings.nucleus_configuration(), &mut component.to_vec(), &mut |path, value| {
        lines += &line(now, path, value);
    });
    lines
}

/// YAML; JSON texts are YAML texts.
fn for_people(settings: &Settings, is_first: bool) -> String {
    let mut lines = "---\nsystem:\n".to_owned();
    for (name, value) in system(settings) {
        let is_known = !(settings.is_fleet_provisioned && is_first);
        let value = if is_known { value } else { String::new() };
        lines += &format!("  {name}: {}\n", json!(value));
    }
    let component = settings.nucleus_component();
    lines += &format!("services:\n  {component}:\n    componentType: \"NUCLEUS\"\n");
    lines += "    configuration:\n";
    let mut above = Vec::new();
    leaves(&settings.nucleus_configuration(), &mut Vec::new(), &mut |path, value| {
        for (depth, name) in path.iter().enumerate().take(path.len() - 1) {
            if above.get(depth).is_none_or(|last| last != name) {
                lines += &format!("{}{name}:\n", " ".repeat(6 + 2 * depth));
            }
        }
        let name = path.last().copied().unwrap_or_default();
        lines += &format!("{}{name}: {value}\n", " ".repeat(4 + 2 * path.len()));
        above = path.iter().map(|name| (*name).to_owned()).collect();
    });
    lines
}

fn system(settings: &Settings) -> impl Iterator<Item = (String, String)> {
    let thing = ("thingName".to_owned(), settings.thing_name.clone());
    settings.system().into_iter().chain([thing])
}

/// Each leaf with its path.
fn leaves<'a>(
    value: &'a Value,
    at: &mut Vec<&'a str>,
    each: &mut impl FnMut(&[&'a str], &'a Value),
) {
    let Some(members) = value.as_object() else { return each(at, value) };
    for (name, member) in members {
        at.push(name);
        leaves(member, at, each);
        at.pop();
    }
}
