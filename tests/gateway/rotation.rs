//! A rotation as it should be: with every field, and with the blog's messages alone.

use std::time::Duration;

use certrelay::reason::Reason;
use serde_json::json;

use crate::{
    harness::{CORE, Site, Via, counted, row},
    peers::certificate_id,
};

over_each_link!(
    a_child_rotates_over_mtls_and_the_status_says_so,
    peers_that_know_the_blog_alone_rotate_and_the_certificate_is_sent_twice,
    under_the_cores_own_name_nobody_on_the_floor_speaks_though_the_broker_lets_them,
    a_signal_ends_the_gateway_in_time_and_it_goes_on_where_it_was,
);

async fn a_child_rotates_over_mtls_and_the_status_says_so(via: Via) {
    let mut site = Site::mtls(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;

    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    assert_eq!((asked.text("rotationId"), asked.text("core")), ("r-1", CORE));
    device.send_csr(&asked).await;

    let csr = cloud.uplink("dev-a", "csr_res").await;
    assert_eq!((csr.text("rotationId"), csr.text("core")), ("r-1", CORE));
    assert_ne!(csr.text("mid"), "");
    cloud.certify(&csr).await;

    let crt = site.downlink(&cloud, &mut device, "crt").await;
    let certificate = cloud.issue(&csr);
    let id = certificate_id(crt.text("certificatePem"));
    assert_eq!((crt.text("rotationId"), id), ("r-1", certificate_id(&certificate)));

    // As the contract wants it: over a new session with the new pair.
    device.reconnected(site.on_floor_with("dev-a", &certificate, &device.key)).await;
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    assert_eq!((ack.text("certificateId"), ack.text("ack")), (&*id.to_string(), "named"));
    assert_eq!((ack.text("rotationId"), ack.text("core")), ("r-1", CORE));
    site.gateway
        .until("the notice is at the broker, and stays", |shown| {
            row(shown, "dev-a").is_some_and(|row| row.notices == 1)
        })
        .await;
    cloud.settle(&ack).await;
    site.gateway.until_done("dev-a").await;

    let status = site.gateway.status();
    let row = &status["children"][0];
    assert_eq!((&row["child"], &row["state"]), (&json!("dev-a"), &json!("done")));
    assert_eq!((&row["notices"], &row["reason"]), (&json!(0), &json!("settled")));
    assert_eq!(status["links"]["local"]["state"], "up");
    assert_eq!(status["links"]["cloud"]["state"], "up");
    assert_eq!(status["totals"]["done"], 1);
    assert_eq!(status["counters"]["local"]["acked-named"], 1);
}

async fn peers_that_know_the_blog_alone_rotate_and_the_certificate_is_sent_twice(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;

    cloud.request("dev-a", &json!({})).await;
    site.downlink(&cloud, &mut device, "csr_req").await;
    device
        .send("csr_res", json!({"CSR": crate::peers::csr("dev-a", &device.key)}).to_string())
        .await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    let certificate = cloud.issue(&csr);
    cloud.send("dev-a", "crt", json!({"certificatePem": certificate}).to_string()).await;

    let first = site.downlink(&cloud, &mut device, "crt").await;
    device.send("crt_ack", "{}").await;
    site.gateway.until_counted("local", Reason::EchoAsked, 1).await;
    // The gateway asks once more: only now the ack is surely about this certificate.
    let second = device.downlink("crt").await;
    assert_eq!(first.text("certificatePem"), second.text("certificatePem"));
    device.send("crt_ack", "{}").await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    let id = certificate_id(&certificate).to_string();
    assert_eq!((ack.text("certificateId"), ack.text("ack")), (&*id, "bare"));
    site.gateway.until("it is done", |shown| counted(shown, "local", Reason::AckedBare) == 1).await;
}

async fn under_the_cores_own_name_nobody_on_the_floor_speaks_though_the_broker_lets_them(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let intruder = site.device(CORE).await;
    let csr = crate::peers::csr(CORE, &intruder.key);
    intruder.send("csr_res", json!({"CSR": csr}).to_string()).await;
    intruder.send("crt_ack", json!({"certificateId": "0".repeat(64)}).to_string()).await;
    intruder.send("crt_err", "{}").await;
    site.gateway.until_counted("local", Reason::ReservedName, 3).await;
    // What the cloud says to the core is not for the floor either. This one has no certificate that
    // anybody knows of, and says so.
    cloud.request(CORE, &json!({"rotationId": "r-1", "core": CORE})).await;
    let error = cloud.uplink(CORE, "crt_err").await;
    assert_eq!((error.text("code"), error.text("rotationId")), ("credential-unknown", "r-1"));

    site.rotate(&mut cloud, "dev-a").await;
    let is_own = |seen: &crate::peers::Seen| seen.name == CORE && seen.kind == "crt_err";
    assert!(
        cloud.seen.iter().all(|seen| seen.name == "dev-a" || is_own(seen)),
        "{:#?}",
        cloud.seen
    );
    assert!(site.gateway.snapshot().is_some_and(|shown| row(&shown, CORE).is_none()));
}

async fn a_signal_ends_the_gateway_in_time_and_it_goes_on_where_it_was(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;

    let (code, took) = site.gateway.terminate().await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let last = site.gateway.snapshot().expect("a last snapshot");
    assert!(last.summary.ended);
    assert_eq!(row(&last, "dev-a").map(|row| row.state.as_str()), Some("await-cert"));

    // It comes while the gateway is away, and waits at the cloud's broker if that keeps sessions.
    cloud.certify(&csr).await;
    site.gateway.started().await;
    let crt = site.downlink(&cloud, &mut device, "crt").await;
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.gateway.until_done("dev-a").await;
}
