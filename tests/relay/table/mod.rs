//! The transition table of DESIGN §5: every event in every state.
//!
//! A cell says, in this order: the state after the event and the bodies that the store then holds
//! (K a key, C a certificate: K0 and C0 were superseded, K1 and C1 are what is waited for, the
//! others are new); what was published (^ to the cloud, v to the child); what was counted.

use std::collections::BTreeMap;

use certrelay::{
    reason::Reason,
    relay::{Event, Lost, Settings, Side, Stage},
    schedule::Backoff,
    wire::{CertificateId, Kind},
    x509::Refusal,
};
use serde_json::json;

use crate::{
    bench::{
        Bench, CORE, PUMP, bytes, crt_payload, crt_payload_for_core, days, hours, minutes, name,
        secs, settings,
    },
    pki,
};

/// The columns.
const STATES: [&str; 6] = ["none", "await-csr", "await-cert", "await-ack", "acked", "failed"];

/// A cell that another row of the table tells.
const ELSEWHERE: &str = "";

/// Repeats come so late that none falls into a row.
fn quiet() -> Settings {
    let never = Backoff { first: hours(1200), longest: hours(1200) };
    Settings { request: never, certificate: never, cloud: never, ..settings() }
}

/// A child in a state, two minutes after it came there, in rotation r1 with K0 and C0 superseded.
fn in_state(state: &str) -> Bench {
    let mut b = Bench::with(quiet());
    b.links_up();
    if state != "none" {
        b.reach_await_ack(PUMP, "r0", 0);
        b.reach_await_csr(PUMP, "r1");
    }
    if ["await-cert", "await-ack", "acked", "failed"].contains(&state) {
        b.csr(PUMP, 1);
        b.advance(secs(66));
    }
    if ["await-ack", "acked", "failed"].contains(&state) {
        b.crt(PUMP, 1, 1);
    }
    if state == "acked" {
        b.ack(PUMP, c(1, 1));
        b.settle(PUMP, Kind::CrtAck);
    }
    if state == "failed" {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "certificateId": c(1, 1), "code": "full" })));
        b.settle(PUMP, Kind::CrtErr);
    }
    b.advance(minutes(2));
    b.forget();
    b
}

fn c(key: u32, serial: u32) -> CertificateId {
    pki::id(&pki::certificate(PUMP, key, serial))
}

fn counts(b: &Bench) -> BTreeMap<(Option<Side>, Reason), u64> {
    b.relay.counters().iter().map(|(side, reason, n)| ((side, reason), n)).collect()
}

/// What an event does in a state, as a cell says it.
fn cell(state: &str, event: fn(&mut Bench)) -> String {
    let mut b = in_state(state);
    let before = counts(&b);
    event(&mut b);
    b.advance(secs(7));
    b.check_bodies();
    let mut after = vec![b.state(PUMP).to_owned()];
    let (key, certificate) = b.bodies(PUMP);
    after.extend(key.map(|key| {
        let number = (0..10).find(|n| pki::digest(*n) == key).expect("a key of the table");
        format!("K{number}")
    }));
    after.extend(certificate.map(|id| {
        let known = (0..10).flat_map(|key| (1..3).map(move |serial| (key, serial)));
        let mut known = known.filter(|(key, serial)| c(*key, *serial) == id);
        let (key, serial) = known.next().expect("a certificate of the table");
        format!("C{key}{}", if serial == 2 { "'" } else { "" })
    }));
    let sent = b.published.iter().map(|p| {
        let kind = p.kind.expect("only these are kept");
        let arrow = if p.side == Side::Cloud { '^' } else { 'v' };
        let about = match kind {
            Kind::CrtErr => p.field("code"),
            Kind::CrtAck => p.field("ack"),
            _ => None,
        };
        let about = about.map(|about| format!("({about})")).unwrap_or_default();
        let whose = if p.to == PUMP { String::new() } else { format!(" to {}", p.to) };
        format!("{arrow}{kind}{about}{whose}")
    });
    let sent: Vec<String> = sent.collect();
    let counted = counts(&b).into_iter().filter_map(|(key, n)| {
        let more = n - before.get(&key).copied().unwrap_or_default();
        let times = if more > 1 { format!("*{more}") } else { String::new() };
        (more > 0).then(|| format!("{}{times}", key.1))
    });
    let counted: Vec<String> = counted.collect();
    format!("{}; {}; {}", after.join(" "), sent.join(" "), counted.join(" "))
}

/// Compares a row with what the relay does; all that differs is told at once.
fn check(event: fn(&mut Bench), row: [&str; 6]) {
    let differs: Vec<String> = STATES
        .iter()
        .zip(row)
        .filter(|(_, expected)| *expected != ELSEWHERE)
        .filter_map(|(state, expected)| {
            let actual = cell(state, event);
            (actual != expected).then(|| format!("{state}\n  table: {expected}\n  relay: {actual}"))
        })
        .collect();
    assert!(differs.is_empty(), "\n{}", differs.join("\n"));
}

fn result(b: &mut Bench, fields: serde_json::Value) {
    b.verdict(PUMP, fields);
}

/// The id of the CSR's message, or else one that nobody knows.
fn csr_mid(b: &Bench) -> String {
    match b.relay.record(&name(PUMP)).map(|record| &record.stage) {
        Some(Stage::AwaitCert(stage)) => stage.csr.mid.to_string(),
        Some(Stage::AwaitAck(stage)) => stage.csr.mid.to_string(),
        _ => "0".repeat(32),
    }
}

macro_rules! table {
    ($($(#[$attribute:meta])* $name:ident: $event:expr => [$($cell:expr),+ $(,)?];)+) => {
        $($(#[$attribute])* #[test] fn $name() { check($event, [$($cell),+]); })+
    };
}

mod acks;
mod certificates;
mod requests;
mod results;
