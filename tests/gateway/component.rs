//! The gateway as a component: its settings, deployments, and client device auth.

use std::time::Duration;

use certrelay::{
    reason::Reason,
    status::{Nucleus, StatusSnapshot},
};
use fake_nucleus::{ClientDevices, UpdateAnswer, Verdict};
use serde_json::{Value, json};

use crate::{
    harness::{CORE, DEADLINE, Site, Via, counted, topic},
    peers::{Seen, certificate_id, csr},
    support::eventually_async,
};

under_each_nucleus!(
    settings_that_a_deployment_changes_apply_at_once_or_say_that_they_wait,
    settings_that_are_wrong_change_nothing_and_say_why,
    a_component_that_is_set_up_wrongly_ends_and_says_what_to_mend,
    the_status_says_which_nucleus_it_is,
    a_child_behind_the_mqtt_bridge_rotates_and_the_status_warns_of_the_bridge,
);

/// How the gateway is configured, with one more member.
fn with(site: &Site, key: &str, value: Value) -> Value {
    let mut configuration = site.gateway.configuration();
    configuration[key] = value;
    // Greengrass' own, beside the component's.
    configuration["accessControl"] = json!({"aws.greengrass.ipc.mqttproxy": {}});
    configuration
}

async fn settings_that_a_deployment_changes_apply_at_once_or_say_that_they_wait(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    site.rotate(&mut cloud, "dev-a").await;

    let mut changed = with(&site, "children", json!(["pump-*"]));
    changed["store"] = json!({"maxBytes": "32MiB"});
    changed["log"] = json!({"format": "json", "level": "debug"});
    let verdict = site.gateway.nucleus().deploy(changed).await;
    let asked = if via == Via::Classic { Verdict::Accepted } else { Verdict::Unasked };
    assert_eq!(verdict, Some(asked));
    let waits = |shown: &StatusSnapshot| shown.summary.restart_needed == ["store.maxBytes"];
    site.gateway.until("the store's size waits", waits).await;

    cloud.request("dev-b", &json!({"core": CORE})).await;
    site.gateway.until_counted("cloud", Reason::NotServed, 1).await;
    site.rotate(&mut cloud, "pump-1").await;
}

async fn settings_that_are_wrong_change_nothing_and_say_why(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let wrong = with(&site, "minInterval", json!("often"));
    match (via, site.gateway.nucleus().deploy(wrong).await) {
        (Via::Classic, Some(Verdict::Rejected { message })) => {
            assert!(message.contains("minInterval"), "{message}");
            assert!(message.contains("often"), "{message}");
        }
        // Nobody asks the component there: it says so in its status.
        (Via::Lite, Some(Verdict::Unasked)) => {
            site.gateway
                .until("the refusal is shown", |shown| {
                    let why = shown.summary.configuration_refused.as_ref();
                    why.is_some_and(|why| why.contains("minInterval"))
                })
                .await;
        }
        (_, verdict) => panic!("{verdict:?}"),
    }
    site.rotate(&mut cloud, "dev-a").await;

    // What is right is taken again, and the refusal is over.
    let right = with(&site, "minInterval", json!("1h"));
    assert!(site.gateway.nucleus().deploy(right).await.is_some());
    site.gateway
        .until("no refusal is shown", |shown| shown.summary.configuration_refused.is_none())
        .await;
}

async fn a_component_that_is_set_up_wrongly_ends_and_says_what_to_mend(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.amend("[repeat.never]\nx = 1\n");
    site.gateway.start();
    let (code, _) = site.gateway.ended(Duration::from_secs(30)).await;
    assert_eq!(code, Some(2));
}

async fn the_status_says_which_nucleus_it_is(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let nucleus = if via == Via::Classic { "classic" } else { "lite" };
    site.gateway
        .until("the nucleus is known", |shown| {
            let expected = match via {
                Via::Classic => Nucleus::Classic,
                _ => Nucleus::Lite,
            };
            shown.summary.nucleus == Some(expected)
        })
        .await;
    let status = site.gateway.status();
    assert_eq!(status["nucleus"], nucleus);
    assert_eq!(status["links"]["cloud"]["kind"], "greengrass");
    assert_eq!(status["links"]["local"]["kind"], "mqtt");
}

/// The last message of this kind that the bridge would give to `dev-a`, once there is one.
async fn bridged(site: &mut Site, kind: &str) -> Seen {
    let mut found = None;
    eventually_async(DEADLINE, kind, async || {
        let passed = site.gateway.nucleus().pubsub_received();
        let last = passed.iter().rev().find(|passed| passed.topic == topic("dev-a", kind));
        found = last.map(|passed| Seen::of(&passed.topic, &passed.payload));
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

async fn a_child_behind_the_mqtt_bridge_rotates_and_the_status_warns_of_the_bridge(via: Via) {
    let mut site = Site::plain(via);
    let floor = site.floor.port();
    site.gateway.speak_through_the_bridge(floor);
    site.gateway.started().await;
    site.gateway.serves("cloud").await;
    let mut cloud = site.cloud().await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    assert_eq!(bridged(&mut site, "csr_req").await.text("rotationId"), "r-1");

    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = json!({"CSR": csr("dev-a", &key), "rotationId": "r-1"}).to_string();
    site.gateway.nucleus().pubsub_publish(&topic("dev-a", "csr_res"), csr.as_bytes());
    let csr = cloud.uplink("dev-a", "csr_res").await;
    cloud.certify(&csr).await;
    let crt = bridged(&mut site, "crt").await;
    let id = certificate_id(crt.text("certificatePem")).to_string();
    let ack = json!({"certificateId": id, "rotationId": "r-1"}).to_string();
    site.gateway.nucleus().pubsub_publish(&topic("dev-a", "crt_ack"), ack.as_bytes());
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    assert_eq!(ack.text("certificateId"), id);
    cloud.settle(&ack).await;
    site.finished(&cloud, &ack).await;
    assert_eq!(site.gateway.status()["links"]["local"]["kind"], "pubsub");
}

#[tokio::test]
async fn every_update_may_go_ahead_at_once() {
    let mut site = Site::plain(Via::Classic);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    site.rotate(&mut cloud, "dev-a").await;
    for (number, is_restarting) in [false, true].into_iter().enumerate() {
        let deployment = format!("deployment-{number}");
        let answer = site.gateway.nucleus().announce_update(&deployment, is_restarting).await;
        assert_eq!(answer, Some(UpdateAnswer::GoAhead));
    }
}

#[tokio::test]
async fn client_device_auth_knows_a_certificate_before_its_child_does() {
    let mut site = Site::plain(Via::Classic);
    site.gateway.prepare(|nucleus| nucleus.client_devices = ClientDevices::Accept);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    cloud.certify(&csr).await;
    let crt = device.downlink("crt").await;
    let calls = site.gateway.nucleus().client_device_calls();
    let asked: Vec<_> = calls.iter().map(|call| call.operation.as_str()).collect();
    assert_eq!(asked[..2], ["VerifyClientDeviceIdentity", "GetClientDeviceAuthToken"]);
    assert_eq!(calls[1].client_id.as_deref(), Some("dev-a"));
    for call in &calls {
        assert_eq!(certificate_id(&call.certificate), certificate_id(crt.text("certificatePem")));
    }
    // And again with each copy, until the child has acknowledged it.
    device.downlink("crt").await;
    assert!(site.gateway.nucleus().client_device_calls().len() >= 4);
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.finished(&cloud, &ack).await;
    assert_eq!(site.gateway.status()["clientDevices"], "accepts");
}

#[tokio::test]
async fn a_certificate_that_client_device_auth_refuses_goes_to_its_child_all_the_same() {
    let mut site = Site::plain(Via::Classic);
    site.gateway.prepare(|nucleus| nucleus.client_devices = ClientDevices::Refuse);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    site.rotate(&mut cloud, "dev-a").await;
    site.gateway
        .until("it is counted", |shown| counted(shown, "gateway", Reason::PrewarmRefused) > 0)
        .await;
    assert_eq!(site.gateway.status()["clientDevices"], "refuses");
}

#[tokio::test]
async fn client_device_auth_that_is_not_there_is_asked_once() {
    let mut site = Site::plain(Via::Classic);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    for name in ["dev-a", "dev-b", "dev-c"] {
        site.rotate(&mut cloud, name).await;
    }
    let calls = site.gateway.nucleus().calls();
    assert_eq!(calls.get("VerifyClientDeviceIdentity"), Some(&1), "{calls:?}");
    assert_eq!(calls.get("GetClientDeviceAuthToken"), None, "{calls:?}");
    assert_eq!(site.gateway.status()["clientDevices"], "absent");
}
