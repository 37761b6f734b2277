//! Measurements: printed, and bounded only where a budget stands. `make bench` runs them.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    crowd::Crowd,
    harness::{DEADLINE, Gateway, PROGRAM, Site, Via, generous, memory},
    support::{eventually_async, mosquitto::Setup, now, peer::Login},
};

/// For a measurement on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// What is under way in the measurements of memory and of starts.
const MANY: usize = 10_000;

/// The rotations of one measurement of speed, and how often each is measured.
const ROTATIONS: usize = 2_000;
const ROUNDS: usize = 3;

fn resident(gateway: &Gateway) -> String {
    let [now, most] = ["VmRSS:", "VmHWM:"].map(|figure| memory(gateway.pid(), figure));
    format!("{:.1} MB (at most {:.1} MB)", mb(now), mb(most))
}

fn mb(kib: u64) -> f64 {
    Duration::from_millis(kib).as_secs_f64() * 1.024
}

#[tokio::test]
#[ignore = "a measurement"]
async fn figures_of_size_and_of_memory_and_of_starts() {
    let size = fs::metadata(PROGRAM).expect("the program").len();
    println!("program: {:.2} MB", mb(size / 1024));
    let mut site = Site::plain(Via::Mqtt);
    let crowd = Crowd::new(MANY);
    site.gateway.started().await;
    site.gateway.serves("cloud").await;
    println!("memory, idle: {}", resident(&site.gateway));

    let cloud = site.cloud_peer().await;
    let floor = crowd.serve_floor(site.on_floor("children"), false).await;
    crowd.ask_all(&cloud).await;
    crowd.until(LONG, "all are asked", |counts| counts.asked.len() == MANY).await;
    println!("memory, {MANY} await their CSR: {}", resident(&site.gateway));
    floor.abort();

    site.network.cut();
    let sender = site.on_floor("senders").connect().await.expect("connects");
    for name in crowd.names() {
        crowd.send_csr(&sender, name).await;
    }
    site.gateway.until("all CSRs are here", |shown| waits(shown, "await-cert")).await;
    println!("memory, {MANY} await their certificate: {}", resident(&site.gateway));

    let _cloud = crowd.serve_cloud(cloud);
    site.network.restore();
    site.gateway.until("all certificates are here", |shown| waits(shown, "await-ack")).await;
    println!("memory, {MANY} await their ack: {}", resident(&site.gateway));

    for round in 0..5 {
        site.gateway.kill();
        let ready = start(&mut site.gateway).await;
        println!("start {round} with {MANY} records after SIGKILL: {ready:?} to ready");
    }
    assert_eq!(site.gateway.terminate().await.0, Some(0));
    for round in 0..5 {
        let ready = start(&mut site.gateway).await;
        println!("start {round} with {MANY} records after SIGTERM: {ready:?} to ready");
        let (code, took) = site.gateway.terminate().await;
        println!("  its end: {took:?}");
        assert_eq!(code, Some(0));
    }
}

fn waits(shown: &certrelay::status::StatusSnapshot, state: &str) -> bool {
    shown.children.iter().filter(|row| row.state.as_str() == state).count() == MANY
}

/// From the start of the process to its word that it is ready.
async fn start(gateway: &mut Gateway) -> Duration {
    let begin = now();
    gateway.start();
    let mut ready: Option<Instant> = None;
    eventually_async(DEADLINE, "ready", async || {
        let log = gateway.timed_log();
        ready = log.iter().find(|(_, line)| line.contains("\"ready\"")).map(|(at, _)| *at);
        ready.is_some()
    })
    .await;
    ready.expect("it is").duration_since(begin)
}

#[tokio::test]
#[ignore = "a measurement"]
async fn figures_of_speed_beside_a_bridge() {
    for round in 0..ROUNDS {
        let ours = through_the_gateway().await;
        let bridged = through_a_bridge().await;
        println!(
            "round {round}: {ROTATIONS} rotations at once: gateway {ours:.0}/s, bridge \
             {bridged:.0}/s, ratio {:.2}",
            ours / bridged
        );
    }
}

async fn through_the_gateway() -> f64 {
    let mut site = Site::measured();
    site.gateway.started().await;
    site.gateway.serves("cloud").await;
    let up = |shown: &certrelay::status::StatusSnapshot| {
        shown.summary.links.cloud.state == certrelay::status::LinkState::Up
    };
    site.gateway.until("the cloud is up", up).await;
    let speed = rotate(site.floor.port(), site.cloud.port()).await;
    let each = cpu_time(site.gateway.pid()) / u32::try_from(ROTATIONS).expect("not so many");
    println!("  gateway: {each:?} of CPU a rotation, {}", resident(&site.gateway));
    speed
}

/// What the process has had of the CPU so far; a hundredth of a second is the least.
fn cpu_time(pid: u32) -> Duration {
    let all = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = all.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// The same topics over Mosquitto's own bridge, which keeps nothing.
async fn through_a_bridge() -> f64 {
    let cloud = generous(Setup::plain()).start();
    let mut bridge = generous(Setup::plain())
        .line("connection cloud")
        .line(&format!("address 127.0.0.1:{}", cloud.port()))
        .line("cleansession false");
    for (kind, way) in [("csr_req", "in"), ("crt", "in"), ("csr_res", "out"), ("crt_ack", "out")] {
        bridge = bridge.line(&format!("topic management/topic/+/{kind} {way} 1"));
    }
    let floor = bridge.start();
    eventually_async(DEADLINE, "the bridge subscribes", async || {
        cloud.log().matches("Sending SUBACK to").count() >= 1
    })
    .await;
    rotate(floor.port(), cloud.port()).await
}

/// All at once; children and cloud share one task, and certificates are made beforehand.
async fn rotate(floor: u16, cloud: u16) -> f64 {
    let crowd = Crowd::new(ROTATIONS);
    let asker = Login::plain(cloud, "asker").connect().await.expect("connects");
    let answerer = Login::plain(cloud, "cloud").connect().await.expect("connects");
    for kind in ["csr_res", "crt_ack", "crt_err"] {
        let filter = crate::harness::topic("+", kind);
        answerer.subscribe(&filter).await.expect("granted");
    }
    let _cloud = crowd.serve_cloud(answerer);
    let _floor = crowd.serve_floor(Login::plain(floor, "children"), true).await;
    let begin = now();
    crowd.ask_all(&asker).await;
    crowd.until(LONG, "all have acknowledged", |counts| counts.acked.len() == ROTATIONS).await;
    crowd.count(|counts| counts.acked.len()) as f64 / begin.elapsed().as_secs_f64()
}
