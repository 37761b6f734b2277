//! The recipe: one for both nuclei, and no more rights than the program uses.

use std::{collections::BTreeSet, io, path::Path};

use certrelay::{
    config::{Config, Host},
    wire::{Kind, Topics, probe_topic},
};
use serde_json::{Value, json};

use crate::{MANIFEST, yaml};

pub const NAME: &str = "com.certrelay.CertRelay";
pub const RECIPE: &str = include_str!("../../recipe.yaml");
const GDK: &str = include_str!("../../gdk-config.json");

/// Lite reads a recipe into a buffer of this size.
const LITE_FILE: usize = 8196;
/// Lite keeps a recipe, decoded, in an arena of this size.
const LITE_RECIPE: usize = 16 * 1024;
/// Lite takes no value with more parts.
const LITE_PARTS: usize = 255;
/// Lite reads all policies of one service into an arena of this size, at every call.
const LITE_POLICIES: usize = 4096;

/// The keys that lite knows where no test below states all that stands there. Case matters to lite,
/// and not to classic.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "RecipeFormatVersion",
            "ComponentName",
            "ComponentVersion",
            "ComponentType",
            "ComponentDescription",
            "ComponentPublisher",
            "ComponentDependencies",
            "ComponentConfiguration",
            "Manifests",
        ],
    ),
    ("/ComponentDependencies/*", &["VersionRequirement", "DependencyType"]),
    ("/ComponentConfiguration", &["DefaultConfiguration"]),
];

pub fn recipe() -> Value {
    yaml::read(RECIPE)
}

/// What stands at a path in which `*` is every item.
fn at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('/').skip(1).fold(vec![value], |found, segment| {
        found.into_iter().flat_map(|value| step(value, segment)).collect()
    })
}

fn step<'a>(value: &'a Value, segment: &str) -> Vec<&'a Value> {
    match (value, segment) {
        (Value::Array(items), "*") => items.iter().collect(),
        (Value::Object(pairs), "*") => pairs.values().collect(),
        (value, key) => vec![&value[key]],
    }
}

fn access_control() -> Value {
    recipe()["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"].take()
}

/// Which resources the policies of a service allow for an operation, in a stable order.
pub fn allowed<'a>(access_control: &'a Value, service: &str, operation: &str) -> Vec<&'a str> {
    let policies = access_control[service].as_object().expect("policies").values();
    let fitting = policies.filter(|policy| texts(&policy["operations"]).contains(&operation));
    let mut resources: Vec<&str> = fitting.flat_map(|policy| texts(&policy["resources"])).collect();
    resources.sort_unstable();
    resources
}

pub fn texts(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a text")).collect()
}

/// The filters of the kinds under a prefix, for any core.
pub fn filters(prefix: &str, wanted: impl Fn(Kind) -> bool) -> Vec<String> {
    let core = "core-1".parse().expect("a name");
    let topics = Topics::parse(prefix, &core).expect("a prefix");
    let kinds = Kind::ALL.into_iter().filter(|kind| wanted(*kind));
    let mut filters: Vec<String> =
        kinds.map(|kind| topics.filter(kind).replace(core.as_str(), "+")).collect();
    filters.sort_unstable();
    filters
}

/// `filters`, and the probe's topic for any core.
fn with_probe(mut filters: Vec<String>) -> Vec<String> {
    let core = "core-1".parse().expect("a name");
    filters.push(probe_topic(&core).replace(core.as_str(), "+"));
    filters.sort_unstable();
    filters
}

/// What lite's arenas need for a value on a 64-bit machine: 11 bytes an item, 21 a pair, and the
/// texts.
pub fn lite_bytes(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 11 + lite_bytes(item)).sum(),
        Value::Object(pairs) => {
            pairs.iter().map(|(key, value)| 21 + key.len() + lite_bytes(value)).sum()
        }
        Value::String(text) => text.len(),
        scalar => panic!("{scalar} is no text"),
    }
}

fn parts(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + parts(item)).sum(),
        Value::Object(pairs) => pairs.values().map(|value| 1 + parts(value)).sum(),
        _ => 0,
    }
}

#[test]
fn the_recipe_the_gdk_and_the_program_agree_on_name_and_version() {
    let manifest: toml::Table = MANIFEST.parse().expect("a manifest");
    let version = manifest["workspace"]["package"]["version"].as_str().expect("a version");
    assert_eq!(recipe()["ComponentName"], NAME);
    assert_eq!(recipe()["ComponentVersion"], version);
    let gdk: Value = serde_json::from_str(GDK).expect("JSON");
    let components = gdk["component"].as_object().expect("a map");
    assert_eq!(components.keys().collect::<Vec<_>>(), [NAME]);
    assert_eq!(components[NAME]["version"], version);
    assert_eq!(components[NAME]["build"]["custom_build_command"], json!(["bash", "build.sh"]));
}

#[test]
fn every_key_of_the_recipe_is_spelt_as_lite_wants_it() {
    for (path, keys) in KEYS {
        for found in at(&recipe(), path) {
            let found = found.as_object().unwrap_or_else(|| panic!("no map at {path}"));
            let odd: Vec<_> = found.keys().filter(|key| !keys.contains(&key.as_str())).collect();
            assert!(odd.is_empty(), "{path} has {odd:?}");
        }
    }
}

/// An unquoted date is a date to the GDK, and refused.
#[test]
fn the_version_of_the_format_is_text() {
    assert!(RECIPE.contains("\nRecipeFormatVersion: \"2020-01-25\"\n"));
}

#[test]
fn the_recipe_fits_into_the_buffers_of_lite() {
    assert!(RECIPE.len() <= LITE_FILE, "{} bytes", RECIPE.len());
    let recipe = recipe();
    assert!(lite_bytes(&recipe) <= LITE_RECIPE, "{} bytes", lite_bytes(&recipe));
    assert!(parts(&recipe) <= LITE_PARTS, "{} parts", parts(&recipe));
}

#[test]
fn the_policies_of_a_service_leave_room_for_those_that_a_deployment_adds() {
    for (service, policies) in access_control().as_object().expect("services") {
        let size = lite_bytes(policies);
        assert!(size <= LITE_POLICIES / 2, "{service}: {size} bytes");
    }
}

#[test]
fn the_component_may_publish_the_uplinks_and_the_probe_and_nothing_else() {
    let access = access_control();
    let may = allowed(&access, "aws.greengrass.ipc.mqttproxy", "aws.greengrass#PublishToIoTCore");
    assert_eq!(may, with_probe(filters("management/topic", Kind::is_uplink)));
}

#[test]
fn the_component_may_subscribe_to_the_six_kinds_and_the_probe_and_nothing_else() {
    let access = access_control();
    let may = allowed(&access, "aws.greengrass.ipc.mqttproxy", "aws.greengrass#SubscribeToIoTCore");
    assert_eq!(may, with_probe(filters("management/topic", |_| true)));
}

#[test]
fn the_component_may_do_no_more_than_the_four_operations_that_it_uses() {
    let mut granted = BTreeSet::new();
    for (service, policies) in access_control().as_object().expect("services") {
        for policy in at(policies, "/*/operations") {
            granted.extend(texts(policy).into_iter().map(|name| format!("{service} {name}")));
        }
    }
    assert_eq!(
        granted.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "aws.greengrass.clientdevices.Auth aws.greengrass#GetClientDeviceAuthToken",
            "aws.greengrass.clientdevices.Auth aws.greengrass#VerifyClientDeviceIdentity",
            "aws.greengrass.ipc.mqttproxy aws.greengrass#PublishToIoTCore",
            "aws.greengrass.ipc.mqttproxy aws.greengrass#SubscribeToIoTCore",
        ]
    );
}

/// Lite fails the whole deployment over a `?` or an unknown `${`; a variable in braces is filled in
/// by classic only on request; classic drops all policies of a component over an unknown key.
#[test]
fn both_nuclei_can_read_every_policy() {
    let access = access_control();
    check_policies(&access);
}

pub fn check_policies(access_control: &Value) {
    for policies in access_control.as_object().expect("services").values() {
        for (id, policy) in policies.as_object().expect("policies") {
            assert!(id.starts_with(&format!("{NAME}:")), "{id} is not unique on a device");
            let keys: Vec<_> = policy.as_object().expect("a policy").keys().collect();
            assert_eq!(keys, ["operations", "policyDescription", "resources"], "{id}");
            for resource in texts(&policy["resources"]) {
                assert!(!resource.contains(['?', '{', '$']), "{id}: {resource}");
                let mixed = resource.contains('*') && resource.contains(['+', '#']);
                assert!(!mixed, "{id}: {resource} mixes wildcards, which lite can't");
            }
        }
    }
}

/// A machine on which a component runs.
struct Gateway;

impl Host for Gateway {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "AWS_IOT_THING_NAME").then(|| "core-1".to_owned())
    }

    fn readable(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn settings(mut tree: Value) -> Config {
    tree.as_object_mut().expect("a map").remove("accessControl");
    Config::from_tree(tree, &Gateway).expect("good settings")
}

#[test]
fn the_default_configuration_says_what_holds_without_it() {
    let given = recipe()["ComponentConfiguration"]["DefaultConfiguration"].take();
    assert_eq!(format!("{:?}", settings(given)), format!("{:?}", settings(json!({}))));
}

#[test]
fn the_default_configuration_goes_with_either_local_link() {
    let mut tree = recipe()["ComponentConfiguration"]["DefaultConfiguration"].take();
    tree["local"]["link"] = json!("pubsub");
    settings(tree);
}

#[test]
fn each_manifest_runs_the_program_of_its_own_architecture_on_either_nucleus() {
    let platforms = [("x86_64", "amd64"), ("aarch64", "aarch64")];
    let manifests = recipe()["Manifests"].take();
    assert_eq!(manifests.as_array().expect("a list").len(), platforms.len());
    for (manifest, (arch, architecture)) in at(&manifests, "/*").into_iter().zip(platforms) {
        let uri = format!("s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/certrelay-{arch}");
        let expected = json!({
            "Name": format!("linux-{arch}"),
            "Platform": {"os": "linux", "architecture": architecture, "runtime": "*"},
            // exec: the nucleus' SIGTERM reaches the program. No Timeout: classic would kill it.
            "Lifecycle": {"run": {
                // The core's own certificate. Lite takes the word for the flag.
                "RequiresPrivilege": "true",
                "Script": format!("exec \"{{artifacts:path}}/certrelay-{arch}\" run"),
            }},
            "Artifacts": [{"Uri": uri, "Permission": {"Read": "OWNER", "Execute": "OWNER"}}],
        });
        assert_eq!(manifest, &expected);
    }
}
