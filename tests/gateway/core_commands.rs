//! What people ask of the core's own certificate, its window, and a gateway that lacks the rights.

use std::{fs, time::SystemTime};

use certrelay::{
    control::Command, identity::Weekday, local_time::local_time, reason::Reason,
    schedule::Timestamp, status::StatusSnapshot,
};

use crate::{
    core_site::{CoreSite, Plan},
    harness::{CORE, Via},
    peers::{Cloud, certificate_id},
};

under_each_nucleus!(
    core_show_tells_which_files_by_whom_and_what_a_rotation_would_come_to,
    a_rotation_that_somebody_asks_for_says_that_nobody_of_the_cloud_did,
    a_rollback_by_hand_brings_the_pair_before_back_and_says_so_over_it,
    detach_makes_plain_files_and_the_next_rotation_makes_links_again,
    a_restart_waits_for_its_window_and_comes_when_somebody_says_so,
);

async fn rotated(site: &CoreSite, cloud: &mut Cloud) -> crate::peers::Seen {
    let csr = site.asked(cloud, "r-1").await;
    cloud.certify(&csr).await;
    site.acked(cloud).await
}

fn stage(shown: &StatusSnapshot) -> &str {
    shown.summary.core_certificate.as_ref().map_or("none", |core| &core.stage)
}

async fn core_show_tells_which_files_by_whom_and_what_a_rotation_would_come_to(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    site.until_stage("idle").await;
    let (ok, text) = site.core_command(Command::Show);
    assert!(ok, "{text}");
    let source = match via {
        Via::Classic => "config.tlog",
        _ => "GetSystemConfig",
    };
    let certificate = site.files().certificate.to_string_lossy().into_owned();
    for part in [source, &certificate, &site.first().to_string(), "can be done", "plain files"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // It was tried, and nothing of that is left.
    let folder = site.files().certificate.parent().expect("a folder");
    assert_eq!(fs::read_dir(folder).expect("readable").count(), 2, "{text}");
}

async fn a_rotation_that_somebody_asks_for_says_that_nobody_of_the_cloud_did(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    site.until_stage("idle").await;
    let mut cloud = site.cloud().await;
    let (ok, text) = site.core_command(Command::Rotate);
    assert!(ok, "{text}");
    let csr = cloud.uplink(CORE, "csr_res").await;
    assert_eq!(csr.body["unsolicited"], true);
    assert!(!site.core_command(Command::Rotate).0, "one is under way");
    assert!(!site.core_command(Command::Detach).0, "one is under way");
    cloud.certify(&csr).await;
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
}

async fn a_rollback_by_hand_brings_the_pair_before_back_and_says_so_over_it(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let ack = rotated(&site, &mut cloud).await;
    site.until("the pair before is kept", |shown| {
        shown.summary.core_certificate.as_ref().is_some_and(|core| core.keeps_old_pair)
    })
    .await;
    let (ok, text) = site.core_command(Command::Rollback);
    assert!(ok, "{text}");
    let error = cloud.uplink(CORE, "crt_err").await;
    assert_eq!(error.text("code"), Reason::RolledBackByHand.as_str());
    assert_eq!(error.text("certificateId"), ack.text("certificateId"));
    assert_eq!((site.in_use(), site.configured()), (Some(site.first()), site.first()));
    assert_eq!(site.supervisor.asked(), 2);
    assert!(!site.core_command(Command::Rollback).0, "nothing is kept any more");
    site.no_pair_was_torn();
}

async fn detach_makes_plain_files_and_the_next_rotation_makes_links_again(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let ack = rotated(&site, &mut cloud).await;
    site.settled(&mut cloud, &ack).await;
    let (ok, text) = site.core_command(Command::Detach);
    assert!(ok, "{text}");
    let files = site.files();
    assert!(!files.certificate.is_symlink() && !files.key.is_symlink());
    assert_eq!(site.configured().to_string(), ack.text("certificateId"));
    let folder = files.certificate.parent().expect("a folder");
    assert!(!folder.join("certrelay").exists());
    site.nucleus_finds_a_pair().await;

    let csr = site.asked(&mut cloud, "r-2").await;
    cloud.certify(&csr).await;
    let id = certificate_id(&cloud.issue(&csr));
    let ack = site.acked(&mut cloud).await;
    assert_eq!(ack.text("certificateId"), id.to_string());
    assert!(files.certificate.is_symlink() && files.key.is_symlink());
    site.no_pair_was_torn();
}

/// A window that is neither open now nor tomorrow.
fn closed() -> &'static str {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    match local_time(Timestamp::from_unix_seconds(now.as_secs())).weekday {
        Weekday::Sun | Weekday::Mon | Weekday::Tue => "Thu 03:00-03:05",
        _ => "Mon 03:00-03:05",
    }
}

async fn a_restart_waits_for_its_window_and_comes_when_somebody_says_so(via: Via) {
    let site = Plan { window: Some(closed()), ..Plan::new(via) }.build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    cloud.certify(&csr).await;
    site.until("it waits for the window", |shown| {
        let core = shown.summary.core_certificate.as_ref();
        let waits = core.and_then(|core| core.waits_for.as_deref());
        stage(shown) == "await-window" && waits.is_some_and(|what| what.contains("Window"))
    })
    .await;
    assert_eq!((site.supervisor.asked(), site.configured()), (0, site.first()));
    let (ok, text) = site.core_command(Command::RestartNow);
    assert!(ok, "{text}");
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
}

#[tokio::test]
async fn a_gateway_without_the_rights_says_what_it_lacks_and_serves_the_floor() {
    let site = Plan { user: Some(65_534), ..Plan::new(Via::Classic) }.build();
    site.open_the_socket();
    site.started().await;
    let mut cloud = site.cloud().await;
    cloud.request(CORE, &serde_json::json!({"rotationId": "r-1", "core": CORE})).await;
    let error = site.hears(&mut cloud, "crt_err", "csr_req").await;
    assert_eq!(error.text("code"), Reason::NoPrivilege.as_str(), "{}", error.text("error"));
    assert_eq!((site.in_use(), site.configured()), (Some(site.first()), site.first()));
    assert!(!site.files().certificate.is_symlink());
    site.rotates_a_child(&mut cloud, "dev-a").await;
}
