//! Any messages from either broker to a relay that is connected: no panic, no wakeup in the past.
#![no_main]

use std::{num::NonZeroU32, time::Duration};

use certrelay::{
    links::{ConnectionId, Message},
    relay::{Children, Event, Outcome, Relay, Settings, Side, Snapshot},
    schedule::{Backoff, Now, Tick, Timestamp},
    wire::{Kind, ThingName, Topics},
    x509::CommonNameRule,
};
use libfuzzer_sys::fuzz_target;

fn settings() -> Settings {
    let core: ThingName = "core-1".parse().expect("valid");
    let topics = Topics::parse("management/topic", &core).expect("valid");
    let backoff = Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(3600) };
    Settings {
        core,
        cloud_topics: topics.clone(),
        local_topics: topics,
        children: Children::new(["*"]),
        rotation_ttl: Duration::from_secs(30 * 86_400),
        min_interval: Duration::from_secs(20 * 3600),
        common_name: CommonNameRule::AbsentOk,
        settle: Duration::ZERO,
        anchors: None,
        request: backoff,
        certificate: backoff,
        cloud: backoff,
        messages_per_second: NonZeroU32::new(20),
        unconfirmed: 8,
        most_under_way: 10_000,
        probe_interval: Duration::from_secs(300),
    }
}

// The first byte of each piece says what it is; zero bytes part the pieces.
fuzz_target!(|bytes: &[u8]| {
    let mut out = Outcome::default();
    let mut now = Now { tick: Tick(0), wall: Some(Timestamp(1_800_000_000_000)) };
    let mut relay = Relay::restore(settings(), 1, now, Snapshot::default(), &mut out);
    for side in [Side::Cloud, Side::Local] {
        let up = Event::Up { side, connection: ConnectionId(1), session_present: true };
        relay.handle(now, up, &mut out);
    }
    for piece in bytes.split(|byte| *byte == 0) {
        let [what, payload @ ..] = piece else { continue };
        now.tick = now.tick + Duration::from_secs(u64::from(*what) * 7);
        let side = if what & 1 == 0 { Side::Cloud } else { Side::Local };
        let kind = Kind::ALL[usize::from(what >> 1) % Kind::ALL.len()];
        let topic = format!("management/topic/pump-{}/{kind}", what >> 6);
        let (dup, retain) = (what & 16 != 0, what & 32 != 0);
        let message = Message { topic, payload: payload.to_vec(), dup, retain, delivery: None };
        relay.handle(now, Event::Message { side, message }, &mut out);
        assert!(relay.next_wakeup().is_none_or(|due| due > now.tick));
    }
});
