//! What fails in mid-rotation: the link to the cloud, either broker, the gateway itself.

use serde_json::json;

use crate::{
    harness::{CORE, Site, Via, row},
    peers::{Cloud, Device},
    support::peer::Login,
};

/// Asks for a rotation of `dev-a`.
const ASKED: &str = r#"{"rotationId": "r-1", "core": "core-1"}"#;

fn login(site: &Site, name: &str) -> Login {
    site.on_floor(name).persistent()
}

over_each_link!(
    a_rotation_survives_the_link_to_the_cloud_being_cut_at_every_step,
    a_csr_that_went_into_a_silent_connection_is_sent_again_on_the_next,
    a_rotation_survives_both_brokers_being_killed_with_all_that_they_had_queued,
    a_rotation_survives_sigkill_between_every_two_steps,
    a_rotation_survives_sigkill_right_after_each_message_was_sent,
);

async fn a_rotation_survives_the_link_to_the_cloud_being_cut_at_every_step(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;

    site.network.cut();
    cloud.send("dev-a", "csr_req", ASKED).await;
    site.network.restore();
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;

    site.network.cut();
    device.send_csr(&asked).await;
    // The floor does not notice: the gateway has taken it.
    site.gateway
        .until("the CSR is taken", |shown| {
            row(shown, "dev-a").is_some_and(|row| row.state.as_str() == "await-cert")
        })
        .await;
    site.network.restore();
    let csr = cloud.uplink("dev-a", "csr_res").await;

    site.network.cut();
    cloud.certify(&csr).await;
    site.network.restore();
    let crt = site.downlink(&cloud, &mut device, "crt").await;

    site.network.cut();
    device.ack(&crt).await;
    site.network.restore();
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    assert_eq!(ack.text("rotationId"), "r-1");
    cloud.settle(&ack).await;
    site.finished(&cloud, &ack).await;
}

async fn a_csr_that_went_into_a_silent_connection_is_sent_again_on_the_next(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    site.network.freeze();
    device.send_csr(&asked).await;
    site.gateway
        .until("the CSR is taken", |shown| row(shown, "dev-a").is_some_and(|row| row.attempts > 0))
        .await;
    site.network.restore();
    let csr = cloud.uplink("dev-a", "csr_res").await;
    cloud.certify(&csr).await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.finished(&cloud, &ack).await;
}

async fn a_rotation_survives_both_brokers_being_killed_with_all_that_they_had_queued(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    site.downlink(&cloud, &mut device, "csr_req").await;

    // The request is lost with the child's session; the gateway asks again.
    site.floor.kill();
    site.floor.start();
    device.reconnected(login(&site, "dev-a")).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    cloud.uplink("dev-a", "csr_res").await;

    // The cloud forgets that it heard it; the gateway says it again.
    site.cloud.kill();
    site.cloud.start();
    cloud.reconnected(site.cloud_peer().await);
    cloud.catch_up().await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    cloud.certify(&csr).await;
    site.downlink(&cloud, &mut device, "crt").await;

    site.floor.kill();
    site.floor.start();
    device.reconnected(login(&site, "dev-a")).await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.finished(&cloud, &ack).await;
}

/// The gateway dies, and another starts; what its peers read after that is from the new one.
async fn crash(site: &mut Site, cloud: &mut Cloud, device: &mut Device) {
    site.gateway.kill();
    cloud.catch_up().await;
    device.catch_up().await;
    site.gateway.started().await;
}

/// As [`crash`], but its peers may not have read what the old one sent.
async fn restart(site: &mut Site) {
    site.gateway.kill();
    site.gateway.started().await;
}

async fn a_rotation_survives_sigkill_between_every_two_steps(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;

    site.gateway.kill();
    cloud.send("dev-a", "csr_req", ASKED).await;
    site.gateway.started().await;
    site.downlink(&cloud, &mut device, "csr_req").await;
    crash(&mut site, &mut cloud, &mut device).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;

    site.gateway.kill();
    device.send_csr(&asked).await;
    site.gateway.started().await;
    cloud.uplink("dev-a", "csr_res").await;
    crash(&mut site, &mut cloud, &mut device).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    assert_eq!(csr.text("rotationId"), "r-1");

    site.gateway.kill();
    cloud.certify(&csr).await;
    site.gateway.started().await;
    site.downlink(&cloud, &mut device, "crt").await;
    crash(&mut site, &mut cloud, &mut device).await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;

    site.gateway.kill();
    device.ack(&crt).await;
    site.gateway.started().await;
    cloud.uplink("dev-a", "crt_ack").await;
    crash(&mut site, &mut cloud, &mut device).await;
    // At a broker it may still be that nobody acted on it: it stays stored.
    site.gateway
        .until("the notice is kept", |shown| {
            row(shown, "dev-a").is_some_and(|row| row.notices == 1)
        })
        .await;
    let ack = cloud.seen.iter().rfind(|seen| seen.kind == "crt_ack").cloned().expect("one came");

    site.gateway.kill();
    cloud.settle(&ack).await;
    site.gateway.started().await;
    site.finished(&cloud, &ack).await;
}

async fn a_rotation_survives_sigkill_right_after_each_message_was_sent(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = Device::new("dev-a", login(&site, "dev-a")).await;

    cloud.send("dev-a", "csr_req", ASKED).await;
    restart(&mut site).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    restart(&mut site).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    cloud.certify(&csr).await;
    restart(&mut site).await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;
    device.ack(&crt).await;
    restart(&mut site).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    restart(&mut site).await;
    site.finished(&cloud, &ack).await;
}
