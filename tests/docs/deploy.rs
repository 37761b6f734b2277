//! The examples of `docs/deploy.md` grant what the program uses.

use std::collections::BTreeSet;

use certrelay::wire::{Kind, barrier_topic, probe_topic};
use serde_json::Value;

use crate::recipe::{NAME, allowed, check_policies, filters, lite_bytes, recipe, texts};

const DEPLOY: &str = include_str!("../../docs/deploy.md");

/// The first JSON example after a text.
fn example(after: &str) -> Value {
    let (_, rest) = DEPLOY.split_once(after).unwrap_or_else(|| panic!("no {after:?}"));
    let (_, json) = rest.split_once("```json\n").expect("an example");
    serde_json::from_str(json.split_once("```").expect("an end").0).expect("JSON")
}

fn is_downlink_to_a_device(kind: Kind) -> bool {
    matches!(kind, Kind::CsrReq | Kind::Crt)
}

/// `filters`, and the barrier's topic, in the one wildcard of pubsub policies.
fn for_pubsub(mut filters: Vec<String>) -> Vec<String> {
    let core = "core-1".parse().expect("a name");
    filters.push(barrier_topic(&core).replace(core.as_str(), "+"));
    filters.sort_unstable();
    filters.into_iter().map(|filter| filter.replace('+', "*")).collect()
}

#[test]
fn the_policy_for_aws_iot_core_is_what_the_program_uses_and_fits_there() {
    let policy = example("**In AWS IoT Core**");
    let mut granted = BTreeSet::new();
    for statement in policy["Statement"].as_array().expect("statements") {
        let actions = match &statement["Action"] {
            Value::String(action) => vec![action.as_str()],
            list => texts(list),
        };
        for resource in texts(&statement["Resource"]) {
            let topic = resource.strip_prefix("arn:aws:iot:REGION:ACCOUNT:").expect("an ARN");
            granted.extend(actions.iter().map(|action| format!("{action} {topic}")));
        }
    }
    let probe = probe_topic(&"CORE".parse().expect("a name"));
    let mut used = BTreeSet::new();
    for (action, on, kinds) in [
        ("iot:Publish", "topic", filters("management/topic", Kind::is_uplink)),
        ("iot:Receive", "topic", filters("management/topic", |_| true)),
        ("iot:Subscribe", "topicfilter", filters("management/topic", |_| true)),
    ] {
        // In a policy `*` is the wildcard; a `+` there is a `+` in the filter.
        let wild = if on == "topic" { "*" } else { "+" };
        let all = kinds.iter().map(|filter| filter.replace('+', wild)).chain([probe.clone()]);
        used.extend(all.map(|topic| format!("{action} {on}/{topic}")));
    }
    used.insert("iot:Connect client/CORE#certrelay".to_owned());
    assert_eq!(granted, used);
    let real =
        policy.to_string().replace("REGION", "ap-southeast-1").replace("ACCOUNT", "123456789012");
    assert!(real.len() <= 2048, "{} characters", real.len());
}

#[test]
fn the_example_of_another_prefix_grants_that_prefix_and_fits_into_lite() {
    let merge = example("## Another topic prefix");
    let prefix = merge["cloud"]["topicPrefix"].as_str().expect("a prefix");
    let access = &merge["accessControl"];
    check_policies(access);
    let may = |operation| allowed(access, "aws.greengrass.ipc.mqttproxy", operation);
    assert_eq!(may("aws.greengrass#PublishToIoTCore"), filters(prefix, Kind::is_uplink));
    assert_eq!(may("aws.greengrass#SubscribeToIoTCore"), filters(prefix, |_| true));
    let mut policies = recipe()["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]
        ["aws.greengrass.ipc.mqttproxy"]
        .take();
    let both = policies.as_object_mut().expect("policies");
    for (id, policy) in access["aws.greengrass.ipc.mqttproxy"].as_object().expect("policies") {
        assert_eq!(both.insert(id.clone(), policy.clone()), None, "{id} is the recipe's");
    }
    assert!(lite_bytes(&policies) <= 4096, "{} bytes", lite_bytes(&policies));
}

#[test]
fn the_example_for_pubsub_grants_what_the_local_side_uses() {
    let merge = example("## A local broker through the MQTT bridge");
    let access = &merge["accessControl"];
    check_policies(access);
    let may = |operation| allowed(access, "aws.greengrass.ipc.pubsub", operation);
    let to_devices = filters("management/topic", is_downlink_to_a_device);
    assert_eq!(may("aws.greengrass#PublishToTopic"), for_pubsub(to_devices));
    let from_devices = filters("management/topic", Kind::is_uplink);
    assert_eq!(may("aws.greengrass#SubscribeToTopic"), for_pubsub(from_devices));
}

#[test]
fn the_bridge_maps_each_kind_in_its_one_direction_and_none_to_the_cloud() {
    let bridge = example("The bridge's own configuration.");
    let mappings = bridge["mqttTopicMapping"].as_object().expect("mappings").values();
    let from = |side: &str, other: &str| {
        let side = |mapping: &&Value| mapping["source"] == side && mapping["target"] == other;
        let mut topics: Vec<_> = mappings
            .clone()
            .filter(side)
            .map(|mapping| mapping["topic"].as_str().expect("a text"))
            .collect();
        topics.sort_unstable();
        topics
    };
    let down = from("Pubsub", "LocalMqtt");
    let up = from("LocalMqtt", "Pubsub");
    assert_eq!(down, filters("management/topic", is_downlink_to_a_device));
    assert_eq!(up, filters("management/topic", Kind::is_uplink));
    assert_eq!(mappings.len(), down.len() + up.len());
}

/// Two local deployments, one from the cloud, a file's name and a path.
#[test]
fn every_command_names_the_component_and_its_version() {
    let version = recipe()["ComponentVersion"].take();
    let version = version.as_str().expect("a version");
    assert_eq!(DEPLOY.matches(version).count(), 5);
    assert_eq!(DEPLOY.matches(&format!("{NAME}={version}")).count(), 2);
}
