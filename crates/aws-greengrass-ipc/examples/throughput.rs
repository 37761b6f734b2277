//! Measures a nucleus and the client together: events, publishes one by one, publishes at once.
//!
//! Run it as a component (it needs the environment of one, and leave to publish and subscribe to
//! `throughput/#`): `throughput [COUNT] [listen]`. With `listen` it waits for COUNT events that
//! someone else sends to `throughput/events`, instead of sending them itself.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use aws_greengrass_ipc::{
    CallError, Client, IoTCoreMessage, Options, PublishToIoTCore, Qos, State, Subscription, Update,
};
use tokio::task::JoinSet;

const TOPIC: &str = "throughput/events";

/// So many publishes wait for their answers at once.
const IN_FLIGHT: u64 = 64;

/// After so long without an event, no more are waited for.
const SILENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let listens = arguments.next().is_some_and(|word| word == "listen");

    let client = Client::spawn(Options::from_env()?);
    let mut state = client.state();
    let connected = state.wait_for(|state| matches!(state, State::Connected { .. })).await?;
    println!("{:?}; {}", *connected, memory());
    drop(connected);

    let mut events = client.subscribe_to_iot_core(TOPIC, Qos::AtLeastOnce);
    while !matches!(events.next().await, Update::Active { .. }) {}
    println!("subscribed to {TOPIC}");
    let sender = (!listens).then(|| tokio::spawn(publish_at_once(client.clone(), TOPIC, count)));
    receive(&mut events, count).await;
    if let Some(sender) = sender {
        sender.await??;
    }
    drop(events);

    let begun = Instant::now();
    for _ in 0..count {
        client.publish_to_iot_core(message("throughput/serial")).await?;
    }
    report("publishes one by one", count, begun);

    let begun = Instant::now();
    publish_at_once(client, "throughput/at-once", count).await?;
    report("publishes, 64 at once", count, begun);
    Ok(())
}

/// Counts events, from the first one on.
async fn receive(events: &mut Subscription<IoTCoreMessage>, count: u64) {
    let (mut seen, mut begun) = (0, Instant::now());
    while seen + events.shed() < count {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Update::Event(_)) if seen == 0 => (seen, begun) = (1, Instant::now()),
            Ok(Update::Event(_)) => seen += 1,
            Ok(other) => println!("{other:?}"),
            Err(_) => break,
        }
    }
    println!("{} events shed", events.shed());
    report("events of 256 bytes", seen, begun);
}

async fn publish_at_once(client: Client, topic: &'static str, count: u64) -> Result<(), CallError> {
    let mut tasks = JoinSet::new();
    for task in 0..IN_FLIGHT {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in (task..count).step_by(64) {
                client.publish_to_iot_core(message(topic)).await?;
            }
            Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

fn message(topic: &str) -> PublishToIoTCore {
    PublishToIoTCore { topic: topic.to_owned(), payload: vec![b'x'; 256], qos: Qos::AtLeastOnce }
}

fn report(what: &str, count: u64, begun: Instant) {
    let took = begun.elapsed();
    let per_second = u128::from(count) * 1000 / took.as_millis().max(1);
    println!("{count} {what} in {took:.2?}: {per_second}/s; {}", memory());
}

/// What the process occupies now, and at most so far.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("VmRSS") || line.starts_with("VmHWM");
    let words = status.lines().filter(wanted).flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ")
}
