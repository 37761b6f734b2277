//! A nucleus that fails, lies or talks nonsense: a rotation that is under way ends well, and the
//! gateway ends by itself only when it must.

use std::time::Duration;

use certrelay::status::{LinkState, StatusSnapshot};
use fake_nucleus::{Fault, Token};
use serde_json::json;

use crate::{
    harness::{CORE, Site, Via, memory, row},
    peers::{Cloud, Device, Seen},
    support::now,
};

under_each_nucleus!(
    a_nucleus_that_restarts_and_still_knows_us_is_connected_to_again,
    a_nucleus_that_restarts_and_knows_us_no_more_ends_the_gateway_in_time,
    a_gateway_that_was_offline_since_boot_serves_the_floor_and_catches_up,
    a_subscription_that_died_without_a_word_is_found_within_two_probe_intervals,
    one_subscription_that_was_lost_alone_is_made_anew,
    what_a_nucleus_said_yes_to_and_lost_is_sent_again,
    nonsense_from_the_nucleus_costs_a_connection_at_most,
    a_nucleus_that_stops_reading_holds_nothing_up_for_long,
    a_flood_of_events_is_shed_in_little_memory,
);

/// A rotation of `dev-a` that waits for its certificate.
async fn under_way(site: &mut Site) -> (Cloud, Device, Seen) {
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;
    device.send_csr(&asked).await;
    let csr = cloud.uplink("dev-a", "csr_res").await;
    (cloud, device, csr)
}

/// The rest of that rotation.
async fn goes_on(site: &mut Site, cloud: &mut Cloud, device: &mut Device, csr: &Seen) {
    cloud.certify(csr).await;
    let crt = site.downlink(cloud, device, "crt").await;
    device.ack(&crt).await;
    let ack = cloud.uplink("dev-a", "crt_ack").await;
    cloud.settle(&ack).await;
    site.finished(cloud, &ack).await;
}

fn cloud_is(state: LinkState) -> impl Fn(&StatusSnapshot) -> bool {
    move |shown| shown.summary.links.cloud.state == state
}

fn no_rule_was_broken(site: &mut Site) {
    let violations = site.gateway.nucleus().violations();
    assert!(violations.is_empty(), "{violations:#?}");
}

async fn a_nucleus_that_restarts_and_still_knows_us_is_connected_to_again(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;
    let process = site.gateway.pid();

    site.gateway.nucleus().stop();
    site.gateway.until("the link is down", cloud_is(LinkState::Down)).await;
    site.gateway.nucleus().restart(Token::Same);
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;

    assert_eq!(site.gateway.pid(), process);
    no_rule_was_broken(&mut site);
}

async fn a_nucleus_that_restarts_and_knows_us_no_more_ends_the_gateway_in_time(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;

    let began = now();
    site.gateway.nucleus().restart(Token::New);
    let (code, log) = site.gateway.ended(Duration::from_secs(90)).await;
    assert_eq!(code, Some(1), "{log:#?}");
    assert!(began.elapsed() > Duration::from_secs(20), "one rejection proves little");

    // Whoever supervises it starts it again, with the new token.
    site.gateway.started().await;
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    no_rule_was_broken(&mut site);
}

async fn a_gateway_that_was_offline_since_boot_serves_the_floor_and_catches_up(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.prepare(|nucleus| nucleus.online = false);
    site.gateway.started().await;
    let mut device = site.device("dev-a").await;
    let csr = crate::peers::csr("dev-a", &device.key);
    device.send("csr_res", json!({ "CSR": csr }).to_string()).await;
    site.gateway
        .until("the CSR is taken", |shown| {
            row(shown, "dev-a").is_some_and(|row| row.state.as_str() == "await-cert")
        })
        .await;
    assert_eq!(site.gateway.nucleus().states(), ["RUNNING"]);

    let mut cloud = site.cloud().await;
    site.gateway.nucleus().set_online(true);
    let csr = cloud.uplink("dev-a", "csr_res").await;
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    no_rule_was_broken(&mut site);
}

async fn a_subscription_that_died_without_a_word_is_found_within_two_probe_intervals(via: Via) {
    const INTERVAL: Duration = Duration::from_secs(20);
    let mut site = Site::plain(via);
    site.gateway.probe_every(INTERVAL);
    if via == Via::Classic {
        // Who subscribes again before the UNSUBACK has come is not heard.
        site.gateway.prepare(|nucleus| nucleus.timing.unsubscribe = Duration::from_secs(4));
    }
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;

    match via {
        Via::Classic => {
            site.gateway.kill();
            site.gateway.start();
            site.gateway.serves("cloud").await;
        }
        Via::Lite | Via::Mqtt => site.gateway.nucleus().restart_iotcored(),
    }
    let died = now();
    cloud.certify(&csr).await;
    site.downlink(&cloud, &mut device, "crt").await;
    let found = died.elapsed();
    assert!(found < INTERVAL * 2, "found after {found:?}");
    println!("{via:?}: found and cured after {found:?}, at an interval of {INTERVAL:?}");
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    no_rule_was_broken(&mut site);
}

async fn one_subscription_that_was_lost_alone_is_made_anew(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;
    site.gateway.nucleus().lose_subscription("management/topic/+/crt");
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    no_rule_was_broken(&mut site);
}

async fn what_a_nucleus_said_yes_to_and_lost_is_sent_again(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let mut device = site.device("dev-a").await;
    cloud.request("dev-a", &json!({"rotationId": "r-1", "core": CORE})).await;
    let asked = site.downlink(&cloud, &mut device, "csr_req").await;

    site.gateway.nucleus().freeze_link(true);
    let before = publishes(&mut site);
    device.send_csr(&asked).await;
    site.gateway
        .until("it is handed over", |shown| row(shown, "dev-a").is_some_and(|row| row.attempts > 0))
        .await;
    crate::support::eventually(Duration::from_secs(30), "the nucleus says yes", || {
        publishes(&mut site) > before
    });
    site.gateway.nucleus().lose_spool();
    site.gateway.nucleus().freeze_link(false);
    let csr = cloud.uplink("dev-a", "csr_res").await;
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    no_rule_was_broken(&mut site);
}

fn publishes(site: &mut Site) -> u64 {
    site.gateway.nucleus().calls().get("PublishToIoTCore").copied().unwrap_or_default()
}

async fn nonsense_from_the_nucleus_costs_a_connection_at_most(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let mut cloud = site.cloud().await;
    let process = site.gateway.pid();
    let nonsense = [
        Fault::Garbage,
        Fault::HalfFrame,
        Fault::CloseMidFrame,
        Fault::BadPreludeChecksum,
        Fault::BadChecksum,
        Fault::Announce(2 << 30),
        Fault::HeadersOverFrame,
        Fault::TruncatedHeader,
        Fault::UnknownHeader,
        Fault::UnknownStream,
        Fault::Ping,
        Fault::ProtocolError,
        Fault::EndStreams,
        Fault::Close,
    ];
    // Lite never sends a PING, and takes an answer to one for nonsense itself.
    let is_sent = |fault: &Fault| via == Via::Classic || *fault != Fault::Ping;
    for (number, fault) in nonsense.into_iter().filter(is_sent).enumerate() {
        if fault == Fault::HalfFrame {
            // Whoever holds the rest of a frame back looks like one that is slow: who is in a hurry
            // restarts it.
            site.gateway.nucleus().fault(fault);
            site.gateway.nucleus().restart(Token::Same);
        } else {
            site.gateway.nucleus().fault(fault);
        }
        site.rotate(&mut cloud, &format!("dev-{number}")).await;
    }
    assert_eq!(site.gateway.pid(), process);
    let most = memory(process, "VmHWM:");
    assert!(most < 25_000, "{most} KiB");
    no_rule_was_broken(&mut site);
}

async fn a_nucleus_that_stops_reading_holds_nothing_up_for_long(via: Via) {
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;
    let process = site.gateway.pid();
    site.gateway.nucleus().fault(Fault::StopReading(Duration::from_secs(10)));
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    assert_eq!(site.gateway.pid(), process);
}

async fn a_flood_of_events_is_shed_in_little_memory(via: Via) {
    const EVENTS: usize = 20_000;
    let mut site = Site::plain(via);
    site.gateway.started().await;
    let (mut cloud, mut device, csr) = under_way(&mut site).await;
    let process = site.gateway.pid();
    let poured = site.gateway.nucleus().flood(EVENTS, 4_000);
    poured.await.expect("the nucleus stays");
    goes_on(&mut site, &mut cloud, &mut device, &csr).await;
    let most = memory(process, "VmHWM:");
    assert!(most < 25_000, "{most} KiB");
    println!("{via:?}: {EVENTS} events on each subscription: at most {most} KiB");
}
