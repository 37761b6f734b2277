//! A machine that tests of the settings read them on, and settings to begin with.

use std::{collections::BTreeMap, io, path::Path};

use serde_json::{Map, Value, json};

use super::{CloudLink, Config, Host, LocalLink, MqttLink};

/// A machine with the files, and the variables, of a test.
#[derive(Default)]
pub struct Fake {
    pub files: BTreeMap<&'static str, &'static str>,
    pub thing: Option<&'static str>,
}

impl Host for Fake {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "AWS_IOT_THING_NAME").then(|| self.thing.map(str::to_owned))?
    }

    fn readable(&self, file: &Path) -> io::Result<()> {
        self.read(file).map(|_| ())
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match path == Path::new(".") || path == Path::new("/data") {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let found = file.to_str().and_then(|path| self.files.get(path));
        found.map(|text| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into())
    }
}

const ANCHOR: &str = include_str!("../../tests/fixtures/anchor.pem");

pub fn machine() -> Fake {
    let files = [("ca", ""), ("cert", ""), ("key", ""), ("anchors", ANCHOR)];
    Fake { files: files.into(), thing: Some("core-1") }
}

/// The least that is a whole configuration with a connection of our own to the cloud.
fn least() -> Value {
    json!({"cloud": {
        "link": "mqtt", "host": "iot.example.com", "caFile": "ca", "certificateFile": "cert", "keyFile": "key",
    }})
}

/// The least, with dotted keys set (or, by a null, removed).
pub fn with(settings: &[(&str, Value)]) -> Value {
    let mut tree = least();
    for (key, value) in settings {
        let pointer = key.split('.').collect::<Vec<_>>();
        let (last, tables) = pointer.split_last().expect("a key");
        let mut table = &mut tree;
        for inner in tables {
            let map = table.as_object_mut().expect("a table");
            table = map.entry(*inner).or_insert_with(|| Value::Object(Map::new()));
        }
        table.as_object_mut().expect("a table").insert((*last).to_owned(), value.clone());
    }
    tree
}

pub fn read(settings: &[(&str, Value)]) -> Result<Config, Vec<String>> {
    read_on(&machine(), settings)
}

pub fn read_on(machine: &Fake, settings: &[(&str, Value)]) -> Result<Config, Vec<String>> {
    read_tree(machine, with(settings))
}

pub fn read_tree(machine: &Fake, tree: Value) -> Result<Config, Vec<String>> {
    Config::from_tree(tree, machine)
        .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

/// The links, where both are MQTT.
pub fn links(config: &Config) -> (&MqttLink, &MqttLink) {
    let (LocalLink::Mqtt(local), CloudLink::Mqtt(cloud)) = (&config.local, &config.cloud) else {
        panic!("{:?} {:?}", config.local, config.cloud);
    };
    (local, cloud)
}
