//! What goes wrong while the core's own certificate is rotated: the certificate, the restart, the
//! link, everything at once. Whatever it is, the nucleus finds a pair, and no ack comes over a
//! connection that was made with another certificate than it names.
//!
//! What takes ten minutes by its nature, as giving up a pair that the cloud refuses, is tested where
//! time is a number: in `src/identity`.

use std::time::Duration;

use fake_nucleus::UpdateAnswer;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    core_site::{CoreSite, Plan},
    harness::{CORE, DEADLINE, Via},
    peers::{Cloud, certificate_id},
    support::{eventually_async, now, pki::Authority, supervisor::Manner},
};

under_each_nucleus!(
    a_certificate_for_another_key_changes_nothing_and_the_right_one_is_taken_after_it,
    a_certificate_that_the_cloud_refuses_is_not_installed,
    where_no_probe_is_permitted_nothing_is_restarted_in_haste,
    a_restart_command_that_fails_is_reported_and_a_restart_by_hand_will_do,
    a_restart_that_does_not_come_brings_no_ack_over_the_old_connection,
    a_restart_of_the_wrong_unit_brings_no_ack_and_is_not_repeated_for_ever,
    a_late_restart_is_waited_for,
    a_link_that_is_down_after_the_restart_rolls_nothing_back,
    a_component_that_is_removed_in_mid_rotation_leaves_a_pair_to_the_nucleus,
    kills_all_through_a_rotation_never_tear_the_pair,
);

/// A core that was given its new certificate.
async fn given(plan: Plan, manner: Manner) -> (CoreSite, Cloud) {
    let site = plan.build();
    site.supervisor.set_manner(manner);
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    cloud.certify(&csr).await;
    (site, cloud)
}

async fn until_restart_is_asked_for(site: &CoreSite, cloud: &Cloud) {
    eventually_async(DEADLINE * 2, "a restart is asked for", async || {
        let is_asked = site.supervisor.asked() > 0;
        if !is_asked {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cloud.say_again(CORE, "crt").await;
        }
        is_asked
    })
    .await;
}

/// The first pair is in use and configured, and nothing was restarted.
fn nothing_is_switched(site: &CoreSite) {
    assert_eq!((site.in_use(), site.configured()), (Some(site.first()), site.first()));
    assert_eq!((site.supervisor.asked(), site.supervisor.starts()), (0, 1));
    site.no_pair_was_torn();
}

async fn a_certificate_for_another_key_changes_nothing_and_the_right_one_is_taken_after_it(
    via: Via,
) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    let foreign = site.authority().client(CORE).certificate;
    let body = json!({"certificatePem": foreign, "rotationId": "r-1", "core": CORE});
    cloud.send(CORE, "crt", body.to_string()).await;
    let error = site.hears(&mut cloud, "crt_err", "crt").await;
    assert_eq!(error.text("code"), "no-waiting-csr");
    nothing_is_switched(&site);
    cloud.certify(&csr).await;
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
}

async fn a_certificate_that_the_cloud_refuses_is_not_installed(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    let certificate = Authority::new("unknown to the broker").sign_csr(csr.text("CSR"));
    let body = json!({"certificatePem": certificate, "rotationId": "r-1", "core": CORE});
    cloud.send(CORE, "crt", body.to_string()).await;
    // Only the pair in use, tried as the control, can get in.
    eventually_async(DEADLINE * 2, "both were tried", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cloud.say_again(CORE, "crt").await;
        site.broker.log().contains("as core-1#certrelay")
    })
    .await;
    site.until_stage("probing").await;
    site.rotates_a_child(&mut cloud, "dev-a").await;
    site.has_not_acked(&mut cloud).await;
    nothing_is_switched(&site);
}

async fn where_no_probe_is_permitted_nothing_is_restarted_in_haste(via: Via) {
    let site = Plan { broker: "clientid_prefixes core-1-", ..Plan::new(via) }.build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    let before = site.network.accepted();
    cloud.certify(&csr).await;
    eventually_async(DEADLINE * 2, "both were tried", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cloud.say_again(CORE, "crt").await;
        site.network.accepted() >= before + 2
    })
    .await;
    site.until_stage("probing").await;
    assert!(!site.broker.log().contains("as core-1#certrelay"));
    site.rotates_a_child(&mut cloud, "dev-a").await;
    nothing_is_switched(&site);
}

async fn a_restart_command_that_fails_is_reported_and_a_restart_by_hand_will_do(via: Via) {
    let (site, mut cloud) = given(Plan::new(via), Manner::Fails).await;
    let error = site.hears(&mut cloud, "crt_err", "crt").await;
    assert_eq!(error.text("code"), "restart-failed");
    assert!(error.text("error").contains("Unit not found"), "{}", error.text("error"));
    site.rotates_a_child(&mut cloud, "dev-a").await;
    site.has_not_acked(&mut cloud).await;
    assert_eq!(site.supervisor.starts(), 1);
    site.supervisor.restart();
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
    site.no_pair_was_torn();
}

async fn a_restart_that_does_not_come_brings_no_ack_over_the_old_connection(via: Via) {
    let (site, mut cloud) = given(Plan::new(via), Manner::Ignores).await;
    until_restart_is_asked_for(&site, &cloud).await;
    site.until_stage("installed").await;
    site.rotates_a_child(&mut cloud, "dev-a").await;
    // Lite uses the new pair from its next connect on; that is no proof either.
    site.network.cut();
    site.network.restore();
    site.started().await;
    site.rotates_a_child(&mut cloud, "dev-b").await;
    site.has_not_acked(&mut cloud).await;
    site.supervisor.restart();
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
    assert_eq!(site.supervisor.asked(), 1);
    site.no_pair_was_torn();
}

async fn a_restart_of_the_wrong_unit_brings_no_ack_and_is_not_repeated_for_ever(via: Via) {
    let (site, mut cloud) = given(Plan::new(via), Manner::WrongUnit).await;
    until_restart_is_asked_for(&site, &cloud).await;
    eventually_async(DEADLINE, "the component was restarted", async || {
        site.supervisor.starts() > 1
    })
    .await;
    site.until_stage("installed").await;
    site.started().await;
    site.rotates_a_child(&mut cloud, "dev-a").await;
    site.has_not_acked(&mut cloud).await;
    assert_eq!(site.supervisor.asked(), 1, "the one that was asked for may still come");
    site.supervisor.set_manner(Manner::Obeys);
    site.supervisor.restart();
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
    site.no_pair_was_torn();
}

async fn a_late_restart_is_waited_for(via: Via) {
    let late = Manner::Late(Duration::from_secs(4));
    let (site, mut cloud) = given(Plan::new(via), late).await;
    until_restart_is_asked_for(&site, &cloud).await;
    site.rotates_a_child(&mut cloud, "dev-a").await;
    let ack = site.acked(&mut cloud).await;
    assert_eq!((site.supervisor.asked(), site.supervisor.starts()), (1, 2));
    site.settled(&mut cloud, &ack).await;
    site.no_pair_was_torn();
}

async fn a_link_that_is_down_after_the_restart_rolls_nothing_back(via: Via) {
    let late = Manner::Late(Duration::from_secs(2));
    let (site, mut cloud) = given(Plan::new(via), late).await;
    until_restart_is_asked_for(&site, &cloud).await;
    site.network.cut();
    eventually_async(DEADLINE, "the restart comes", async || site.supervisor.starts() == 2).await;
    site.until_stage("confirming").await;
    let new = site.configured();
    assert_ne!(new, site.first());
    for _ in 0..2 {
        site.supervisor.cut_the_power();
        site.until_stage("confirming").await;
        assert_eq!(site.configured(), new);
    }
    site.has_not_acked(&mut cloud).await;
    site.network.restore();
    let ack = site.acked(&mut cloud).await;
    assert_eq!((ack.text("certificateId"), site.supervisor.asked()), (&*new.to_string(), 1));
    site.settled(&mut cloud, &ack).await;
    site.no_pair_was_torn();
}

async fn a_component_that_is_removed_in_mid_rotation_leaves_a_pair_to_the_nucleus(via: Via) {
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    site.asked(&mut cloud, "r-1").await;
    site.supervisor.kill();
    site.nucleus_finds_a_pair().await;
    assert_eq!(site.configured(), site.first());

    let (site, cloud) = given(Plan::new(via), Manner::Ignores).await;
    until_restart_is_asked_for(&site, &cloud).await;
    site.supervisor.kill();
    for _ in 0..3 {
        site.nucleus_finds_a_pair().await;
    }
    assert_ne!(site.configured(), site.first());
}

/// Rotations, and kills in each.
const CYCLES: usize = 3;
const KILLS: usize = 6;

async fn kills_all_through_a_rotation_never_tear_the_pair(via: Via) {
    let mut random = fastrand::Rng::new();
    println!("{via:?}: seed {}", random.get_seed());
    let site = Plan::new(via).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let mut asked = 0;
    for cycle in 0..CYCLES {
        let rotation = format!("r-{cycle}");
        let before = site.configured();
        cloud.request(CORE, &json!({"rotationId": rotation, "core": CORE})).await;
        for _ in 0..KILLS {
            answers_for(&site, &mut cloud, Duration::from_millis(random.u64(0..2_500))).await;
            match random.u8(0..3) {
                0 => site.supervisor.crash(),
                1 => site.supervisor.cut_the_power(),
                _ => site.supervisor.restart(),
            }
            site.no_pair_was_torn();
        }
        ends(&site, &mut cloud, &rotation).await;
        assert_ne!(site.configured(), before);
        assert_eq!(site.in_use(), Some(site.configured()));
        site.no_pair_was_torn();
        let restarts = site.supervisor.asked() - asked;
        asked += restarts;
        println!("{via:?}: rotation {cycle}: {KILLS} kills, {restarts} restarts asked for");
    }
    assert!(!site.has_first_key());
}

/// The cloud answers whatever the core says, for so long. Whether it heard the end of a rotation.
async fn answers_for(site: &CoreSite, cloud: &mut Cloud, time: Duration) -> Option<String> {
    let began = now();
    let mut ended = None;
    while let Some(left) = time.checked_sub(began.elapsed()) {
        let Ok(seen) = timeout(left, cloud.any_uplink(CORE)).await else { break };
        match seen.kind.as_str() {
            "csr_res" => cloud.certify(&seen).await,
            "crt_ack" => {
                cloud.settle(&seen).await;
                ended = Some(seen.text("rotationId").to_owned());
            }
            _ => panic!("{seen:?}\n{}", site.supervisor.log()),
        }
    }
    ended
}

/// Nothing is killed any more: the rotation ends with an ack over its certificate.
async fn ends(site: &CoreSite, cloud: &mut Cloud, rotation: &str) {
    let began = now();
    let is_over = || {
        let core = site.snapshot().and_then(|shown| shown.summary.core_certificate);
        core.is_some_and(|c| c.stage == "idle" && !c.keeps_old_pair && c.certificate.is_some())
    };
    let mut is_acked =
        cloud.seen.iter().any(|seen| seen.kind == "crt_ack" && seen.text("rotationId") == rotation);
    while !(is_acked && is_over()) {
        assert!(began.elapsed() < DEADLINE * 3, "{rotation}\n{}", site.supervisor.log());
        if !is_acked {
            cloud.say_again(CORE, "csr_req").await;
        }
        let ended = answers_for(site, cloud, Duration::from_secs(1)).await;
        is_acked |= ended.as_deref() == Some(rotation);
    }
    let ack = cloud.seen.iter().rfind(|seen| seen.kind == "crt_ack").expect("one came");
    assert_eq!(ack.text("certificateId"), site.configured().to_string());
    assert_eq!(certificate_id_of_files(site), ack.text("certificateId"));
}

fn certificate_id_of_files(site: &CoreSite) -> String {
    let pem = std::fs::read_to_string(&site.files().certificate).expect("it is there");
    certificate_id(&pem).to_string()
}

#[tokio::test]
async fn an_update_between_the_switch_and_the_restart_is_put_off() {
    let (site, cloud) = given(Plan::new(Via::Classic), Manner::Ignores).await;
    until_restart_is_asked_for(&site, &cloud).await;
    let pending = site.supervisor.nucleus().announce_update("deployment-1", false);
    let recheck_after = Some(Duration::from_secs(30));
    assert_eq!(pending.await, Some(UpdateAnswer::Deferred { recheck_after, message: None }));
}

#[tokio::test]
async fn a_restart_waits_for_the_end_of_a_deployment() {
    let site = Plan::new(Via::Classic).build();
    site.started().await;
    let mut cloud = site.cloud().await;
    let csr = site.asked(&mut cloud, "r-1").await;
    let pending = site.supervisor.nucleus().announce_update("deployment-1", true);
    assert_eq!(pending.await, Some(UpdateAnswer::GoAhead));
    cloud.certify(&csr).await;
    site.until("it waits for the deployment", |shown| {
        let core = shown.summary.core_certificate.as_ref();
        let waits = core.and_then(|core| core.waits_for.as_deref());
        waits.is_some_and(|what| what.contains("deployment"))
    })
    .await;
    nothing_is_switched(&site);
    site.supervisor.nucleus().finish_update("deployment-1");
    let ack = site.acked(&mut cloud).await;
    site.settled(&mut cloud, &ack).await;
}
