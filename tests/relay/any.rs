//! Whatever happens, in whatever order: the relay never panics, never wants to be woken in the
//! past, never sends anything to the wrong device, and a restart finds it as it was.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use certrelay::{
    links::{ConnectionId, Message, SendError},
    relay::{Body, Children, Event, Lost, Outcome, Relay, Row, Settings, Side, Stage},
    schedule::{Backoff, Timestamp},
    wire::{CertificateMessage, CsrRes, Header, KeyDigest, Kind, ThingName},
    x509::{self, CommonNameRule},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    bench::{Answer, Bench, CORE, bytes, crt_payload, csr_payload, hours, minutes, name, settings},
    pki,
};

const NAMES: [&str; 4] = ["pump-1", "pump-2", "pump-3", CORE];

/// What happens next, as numbers: which, and two choices.
type Step = (u8, u32, u32);

fn pick<T: Copy>(list: &[T], number: u32) -> T {
    list[number as usize % list.len()]
}

/// A payload that a peer could send, right or wrong.
fn payload(b: &Bench, child: &str, a: u32, c: u32) -> Vec<u8> {
    let key = c % 4;
    let rotation = format!("r{}", c % 3);
    let id = pki::id(&pki::certificate(child, key, (c >> 4) % 2));
    match a % 15 {
        0 => bytes(json!({})),
        1 => bytes(json!({
            "rotationId": rotation, "core": CORE, "nonce": format!("{:032x}", (c >> 8) % 4)
        })),
        2 => bytes(json!({ "rotationId": rotation, "core": "core-2" })),
        3 => bytes(json!({ "core": CORE, "holdUntil": b.unix() + u64::from(c % 500_000) })),
        4 if c & 512 == 0 => csr_payload(&pki::csr(child, key)),
        4 => bytes(json!({
            "CSR": pki::pem("CERTIFICATE REQUEST", &pki::csr(child, key)),
            "rotationId": rotation, "sig": "AQID"
        })),
        5 => csr_payload(&pki::badly_signed_csr(child, key)),
        6 => csr_payload(&pki::csr("pump-2", key)),
        7 => crt_payload(&pki::certificate(child, key, (c >> 4) % 2)),
        8 => crt_payload(&pki::short_lived(child, key, 1, 5)),
        9 => bytes(json!({ "certificateId": id.to_string() })),
        10 => bytes(json!({ "error": "no", "code": pick(&["a", "b", "expired"], c) })),
        11 => {
            let mid = b.published.get(c as usize % b.published.len().max(1)).map(|p| p.mid());
            let about = pick(&["csr_res", "crt_ack", "crt_err"], c);
            let (ok, last) = (c & 64 == 0, c & 128 == 0);
            match mid {
                Some(mid) if c & 256 == 0 => bytes(json!({
                    "for": about, "ok": ok, "final": last, "mid": mid.to_string()
                })),
                _ => bytes(json!({
                    "for": about, "ok": ok, "final": last, "rotationId": rotation
                })),
            }
        }
        // One of ours, come back.
        12 => b
            .published
            .get(c as usize % b.published.len().max(1))
            .map_or_else(Vec::new, |p| p.payload.clone()),
        13 => vec![],
        _ => c.to_le_bytes().repeat(1 + (c as usize >> 8) % 6_000),
    }
}

fn damaged(mut payload: Vec<u8>, how: u32) -> Vec<u8> {
    if payload.is_empty() {
        return payload;
    }
    let at = (how >> 8) as usize % payload.len();
    match how % 3 {
        0 => payload[at] ^= 1 << (how >> 4 & 7),
        1 => payload.truncate(at),
        _ => payload.insert(at, how.to_le_bytes()[3]),
    }
    payload
}

/// What is remembered to check what the relay does.
#[derive(Default)]
struct Truth {
    /// The keys whose CSRs came under a name on the floor.
    keys: BTreeSet<(ThingName, KeyDigest)>,
    number: u64,
    checked: usize,
}

fn act(b: &mut Bench, truth: &mut Truth, (what, a, c): Step) {
    let side = pick(&[Side::Cloud, Side::Local], a);
    let child = pick(&NAMES, a >> 1);
    match what % 32 {
        0..=3 => b.advance(Duration::from_millis(u64::from(a % 20_000))),
        4 | 5 => b.advance(Duration::from_secs(u64::from(a % 8_000))),
        6 => b.advance(hours(u64::from(a % 60))),
        7 => b.cloud_up(),
        8 => b.cloud_down(),
        9 => b.floor_up(c & 1 == 0),
        10 => b.floor_down(),
        11 => {
            // An answer to anything that was ever sent, of any kind.
            let outcome = pick(&[Ok(()), Err(SendError::Offline), Err(SendError::Refused)], c);
            if let Some(p) = b.published.get(c as usize % b.published.len().max(1)) {
                let (side, mid) = (p.side, p.copy);
                b.feed(Event::Sent { side, mid, outcome });
            }
        }
        12 => {
            b.cloud_answer = pick(&[Answer::Took, Answer::Nothing, Answer::Refused], a);
            b.floor_answer = pick(&[Answer::Took, Answer::Took, Answer::Nothing], c);
            (b.loopback, b.probes_return) = (a & 8 == 0, a & 16 == 0);
            b.verify = c & 8 == 0;
        }
        13 => {
            let Some((child, key)) = b.verifies.get(c as usize % b.verifies.len().max(1)).cloned()
            else {
                return;
            };
            let body = b.disk.body(&child, Body::Csr);
            if let Some(der) = body.filter(|der| x509::csr_key(der) == Ok(key)) {
                let outcome = x509::verify_csr_signature(der);
                b.feed(Event::Verified { child, key, outcome });
            }
        }
        14 => {
            let (key, certificate) = b.bodies(child);
            let child = name(child);
            if let Some(key) = key.filter(|_| a & 8 == 0) {
                b.disk.bodies.remove(&(child.clone(), Body::Csr));
                b.feed(Event::BodyLost { child, lost: Lost::Csr(key) });
            } else if let Some(id) = certificate {
                b.disk.bodies.remove(&(child.clone(), Body::Certificate));
                b.feed(Event::BodyLost { child, lost: Lost::Certificate(id) });
            }
        }
        15 if c % 8 == 0 => b.feed(Event::StoreLost),
        15 if c % 8 == 1 => b.feed(Event::StoreFull),
        15 => b.trusted = !b.trusted,
        16 if c % 2 == 0 => b.restart(),
        16 => b.reconfigure(other_settings(a, c)),
        17..=22 => go_on(b, truth, pick(&NAMES[..3], a), c),
        _ => {
            let kind = pick(&Kind::ALL, c >> 3);
            // Mostly from the right side.
            let side = match (a & 48, kind.is_uplink()) {
                (0, _) => side,
                (_, true) => Side::Local,
                (_, false) => Side::Cloud,
            };
            let topics = match side {
                Side::Cloud => &b.settings.cloud_topics,
                Side::Local => &b.settings.local_topics,
            };
            let topic = topics.topic(&name(child), kind);
            // Mostly what fits the kind, else nothing would ever get far.
            let fitting: &[u32] = match kind {
                Kind::CsrReq => &[0, 1, 1, 2, 3, 12, 13],
                Kind::CsrRes => &[4, 4, 4, 5, 6, 12],
                Kind::Crt => &[7, 7, 7, 8, 12],
                Kind::CrtAck => &[0, 0, 9, 9, 9, 1, 12, 13],
                Kind::CrtErr => &[10, 9, 1, 12],
                Kind::Result => &[11],
            };
            let form = if what & 32 == 0 { pick(fitting, a >> 8) } else { a >> 8 };
            let mut payload = payload(b, child, form, c >> 6);
            if what & 192 == 192 {
                payload = damaged(payload, c);
            }
            if side == Side::Local
                && let Ok(message) = CsrRes::parse(&payload)
                && let Ok(key) = x509::csr_key(&message.csr)
            {
                truth.keys.insert((name(child), key));
            }
            let (dup, retain) = (a % 7 == 0, a % 11 == 0);
            b.message(side, &topic, &payload, dup, retain);
            truth.number += 1;
        }
    }
}

/// Settings that may come while the gateway runs, with pauses that a test of days can bear.
fn other_settings(a: u32, c: u32) -> Settings {
    let pauses = |n: u32| {
        let first = minutes(pick(&[10, 60, 10_080], n));
        Backoff { first, longest: first * (1 + (n >> 2) % 8) }
    };
    Settings {
        children: Children::new(pick(&["*", "pump-1 pump-2", "pump-?"], a).split(' ')),
        rotation_ttl: pick(&[hours(1), hours(720), hours(8760)], a >> 2),
        min_interval: pick(&[hours(0), hours(20)], a >> 4),
        common_name: pick(&[CommonNameRule::AbsentOk, CommonNameRule::Any], a >> 5),
        settle: pick(&[hours(0), Duration::from_secs(5), Duration::from_secs(600)], a >> 6),
        request: pauses(c >> 1),
        certificate: pauses(c >> 6),
        cloud: pauses(c >> 11),
        messages_per_second: NonZeroU32::new(pick(&[0, 1, 20], a >> 8)),
        unconfirmed: pick(&[1, 8, 1000], a >> 10),
        ..patient()
    }
}

/// The next step of a rotation, as a good cloud and a good child take it.
fn go_on(b: &mut Bench, truth: &mut Truth, child: &str, c: u32) {
    let key = c % 4;
    match b.relay.record(&name(child)).map(|record| record.stage.clone()) {
        Some(Stage::AwaitCsr(_)) => {
            truth.keys.insert((name(child), pki::digest(key)));
            b.csr(child, key);
        }
        Some(Stage::AwaitCert(stage)) => {
            // A damaged CSR may have a key that nobody knows; then this one does not fit.
            let key = (0..4).find(|n| pki::digest(*n) == stage.csr.key).unwrap_or(key);
            b.crt(child, key, c >> 4 & 1);
        }
        Some(Stage::AwaitAck(_)) if c & 3 == 0 => b.bare_ack(child),
        Some(Stage::AwaitAck(stage)) => b.ack(child, stage.certificate),
        Some(Stage::Done(_)) if c & 1 == 0 && !b.sent(Side::Cloud, Kind::CrtAck).is_empty() => {
            b.settle(child, Kind::CrtAck);
        }
        Some(Stage::Done(_)) | None => b.request(child, &format!("r{}", c % 5)),
    }
}

/// What must hold after each event.
fn check(b: &Bench, truth: &mut Truth) {
    let known = b.disk.records.len();
    assert_eq!(b.relay.children(), known, "as many records as are stored");
    for (child, stored) in &b.disk.records {
        let record = b.relay.record(child).expect("stored, so known");
        let running: serde_json::Value = serde_json::to_value(record).expect("serialises");
        let stored: serde_json::Value = serde_json::from_slice(stored).expect("readable");
        assert_eq!(running, stored, "the record of {child}");
        assert!(record.superseded_keys.len() <= 4 && record.superseded_certificates.len() <= 4);
    }
    b.check_bodies();
    let restored =
        Relay::restore(b.settings.clone(), 7, b.now(), b.disk.snapshot(), &mut Outcome::default());
    let rows = |relay: &Relay| relay.rows().map(|row| seen(&row)).collect::<Vec<_>>();
    assert_eq!(rows(&restored), rows(&b.relay), "a restart finds it as it was");
    for p in &b.published[truth.checked..] {
        let header = Header::read(&p.payload);
        assert_eq!(header.core, Some(name(CORE)));
        match p.side {
            Side::Local => assert_ne!(p.to, CORE, "nothing for the core on the floor"),
            Side::Cloud => assert!(p.to != CORE || p.kind == Some(Kind::CrtErr)),
        }
        if p.kind == Some(Kind::Crt) {
            let message = CertificateMessage::parse(&p.payload).expect("readable");
            let facts = x509::read_certificate(&message.chain[0]).expect("a certificate");
            assert!(truth.keys.contains(&(name(&p.to), facts.key)), "{} asked for it", p.to);
        }
    }
    truth.checked = b.published.len();
}

fn seen(row: &Row<'_>) -> (ThingName, &'static str, Option<Timestamp>, Option<Timestamp>, u8) {
    (row.child.clone(), row.state, row.since, row.not_after, row.notices)
}

fn run(settings: Settings, steps: Vec<Step>) {
    let mut b = Bench::with(settings);
    let mut truth = Truth::default();
    b.links_up();
    for step in steps {
        act(&mut b, &mut truth, step);
        check(&b, &mut truth);
    }
}

fn patient() -> Settings {
    Settings { probe_interval: hours(6), ..settings() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_order_of_events_breaks_the_relay_of_devices_on_its_roster(
        steps in prop::collection::vec(any::<Step>(), 1..120),
    ) {
        let children = Children::new(["pump-1", "pump-2", "pump-3"]);
        run(Settings { children, ..patient() }, steps);
    }

    #[test]
    fn no_order_of_events_breaks_the_relay_of_any_devices(
        steps in prop::collection::vec(any::<Step>(), 1..120),
    ) {
        run(patient(), steps);
    }

    #[test]
    fn no_bytes_on_any_topic_break_the_relay(
        topic in "(floor|cloud/core-1|certrelay/core-1|[a-z/+#]{0,9})/[a-z0-9/-]{0,12}/(csr_req|csr_res|crt|crt_ack|crt_err|result|probe|barrier)",
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        local in any::<bool>(),
    ) {
        let mut b = Bench::up();
        let side = if local { Side::Local } else { Side::Cloud };
        b.message(side, &topic, &bytes, false, false);
        let mut queue = VecDeque::new();
        let (payload, delivery) = (bytes, None);
        let message = Message { topic, payload, dup: true, retain: true, delivery };
        b.step(Event::Message { side, message }, &mut queue);
        b.step(Event::Up { side, connection: ConnectionId(9), session_present: true }, &mut queue);
        check(&b, &mut Truth::default());
    }
}
