//! Bad input costs a counter and a log line.

use certrelay::{
    reason::Reason,
    relay::{Side, Weight},
    wire::Kind,
};
use serde_json::json;

use crate::{
    bench::{Bench, CORE, PUMP, bytes, crt_payload, csr_payload, days, hours, minutes, secs},
    pki,
};

#[test]
fn what_can_not_be_read_is_counted_and_makes_no_record_and_no_message() {
    let mut b = Bench::up();
    let large = vec![b'{'; 300_000];
    let payloads: [&[u8]; 6] = [b"", b"{", b"[]", b"\xff\xfe", b"-----BEGIN X-----", &large];
    for kind in [Kind::CsrRes, Kind::CrtAck, Kind::CrtErr] {
        for payload in payloads {
            b.local(PUMP, kind, payload);
            b.advance(secs(1));
        }
    }
    for kind in [Kind::CsrReq, Kind::Crt, Kind::Result] {
        for payload in payloads {
            b.cloud(PUMP, kind, payload);
        }
    }
    b.advance(days(1));
    assert!(b.disk.records.is_empty() && b.published.is_empty());
    for side in [Side::Cloud, Side::Local] {
        assert_eq!(b.counted(side, Reason::EmptyPayload), 3);
        assert_eq!(b.counted(side, Reason::TooLarge), 3);
        assert_eq!(b.counted(side, Reason::Unreadable), 12);
    }
}

#[test]
fn a_payload_of_sixteen_kibibytes_is_read_and_one_byte_more_is_not() {
    let mut b = Bench::up();
    let mut payload = csr_payload(&pki::csr(PUMP, 1));
    payload.resize(16 * 1024, b' ');
    b.local(PUMP, Kind::CsrRes, &payload);
    b.expect(PUMP, "await-cert");
    payload.push(b' ');
    b.local("pump-2", Kind::CsrRes, &payload);
    b.expect("pump-2", "none");
    assert_eq!(b.counted(Side::Local, Reason::TooLarge), 1);
}

#[test]
fn topics_that_are_not_ours_and_names_that_no_thing_has_are_dropped() {
    let mut b = Bench::up();
    for topic in ["floor/../csr_res", "floor/a/b/csr_res", "floor//csr_res", "x", "floor/p/CSR"] {
        b.message(Side::Local, topic, &csr_payload(&pki::csr(PUMP, 1)), false, false);
    }
    b.message(Side::Local, &format!("floor/{}/csr_res", "p".repeat(129)), b"{}", false, false);
    assert_eq!(b.counted(Side::Local, Reason::BadTopic), 6);
    assert!(b.disk.records.is_empty());
}

#[test]
fn a_refusal_of_what_is_well_formed_but_wrong_goes_upstream_with_its_code() {
    let mut b = Bench::up();
    b.reach_await_csr(PUMP, "r1");
    let weak = include_bytes!("../../fixtures/rsa1024.csr.der");
    b.local(PUMP, Kind::CsrRes, &csr_payload(weak));
    b.local(PUMP, Kind::CsrRes, &csr_payload(&pki::csr("pump-2", 1)));
    b.local(PUMP, Kind::CsrRes, &csr_payload(include_bytes!("../../fixtures/secp256k1.csr.der")));
    let mut codes = b.errors();
    codes.extend(b.record(PUMP).outbox.err.iter().map(|notice| format!("{:?}", notice.says)));
    let all = codes.join(" ");
    for code in ["weak-key", "wrong-subject", "unsupported-key"] {
        assert!(all.contains(code), "{code} in {all}");
    }
    b.expect(PUMP, "await-csr");
}

#[test]
fn the_key_of_the_certificate_in_use_is_not_new() {
    let mut b = Bench::up();
    b.reach_done(PUMP, "r1", 1);
    b.reach_await_csr(PUMP, "r2");
    b.forget();
    b.csr(PUMP, 1);
    b.expect(PUMP, "await-csr");
    assert_eq!(b.errors(), ["key-not-new"]);
}

#[test]
fn a_child_that_sends_more_than_ten_messages_a_second_is_not_read_and_is_acknowledged() {
    let mut b = Bench::up();
    b.csr(PUMP, 1);
    b.advance(secs(5));
    for _ in 0..100 {
        b.csr(PUMP, 1);
    }
    assert_eq!(b.counted(Side::Local, Reason::Repeated), 10);
    assert_eq!(b.counted(Side::Local, Reason::Flood), 90);
    b.csr("pump-2", 2);
    b.expect("pump-2", "await-cert");
    b.advance(secs(1));
    b.csr(PUMP, 1);
    assert_eq!(b.counted(Side::Local, Reason::Repeated), 11);
}

#[test]
fn a_stranger_that_floods_is_not_read_either() {
    let mut b = Bench::up();
    for _ in 0..100 {
        b.local(PUMP, Kind::CsrRes, b"{\"CSR\":\"x\"}");
    }
    assert_eq!(b.counted(Side::Local, Reason::Unreadable), 10);
    assert_eq!(b.counted(Side::Local, Reason::Flood), 90);
}

#[test]
fn a_downlink_for_another_core_is_passed_over_in_silence() {
    let mut b = Bench::up();
    b.forget();
    for kind in Kind::ALL {
        b.cloud(PUMP, kind, &bytes(json!({ "core": "core-2", "for": "csr_res", "ok": true })));
    }
    assert_eq!(b.counted(Side::Cloud, Reason::OtherCore), 6);
    assert!(b.notes.is_empty() && b.published.is_empty() && b.disk.records.is_empty());
}

#[test]
fn an_uplink_of_ours_that_comes_back_on_the_floor_is_a_loop() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    let looped = b.last(Side::Cloud, Kind::CsrRes).payload.clone();
    b.forget();
    b.local(PUMP, Kind::CsrRes, &looped);
    assert_eq!(b.counted(Side::Local, Reason::BridgeLoop), 1);
    assert_eq!(b.notes[0].weight, Weight::Alarm);
    b.advance(secs(30));
    assert!(b.sent(Side::Cloud, Kind::CsrRes).is_empty(), "it is not sent once more for it");

    b.fail(PUMP, "broken");
    let looped = b.last(Side::Cloud, Kind::CrtErr).payload.clone();
    b.local(PUMP, Kind::CrtErr, &looped);
    assert_eq!(b.counted(Side::Local, Reason::BridgeLoop), 2);
}

#[test]
fn an_uplink_of_ours_is_known_on_the_floor_after_a_restart_too() {
    let mut b = Bench::up();
    b.loopback = false;
    b.reach_await_cert(PUMP, "r1", 1);
    b.fail(PUMP, "broken");
    let csr = b.last(Side::Cloud, Kind::CsrRes).payload.clone();
    let error = b.last(Side::Cloud, Kind::CrtErr).payload.clone();
    b.restart();
    b.links_up();
    b.local(PUMP, Kind::CsrRes, &csr);
    b.local(PUMP, Kind::CrtErr, &error);
    assert_eq!(b.counted(Side::Local, Reason::BridgeLoop), 2);
}

#[test]
fn a_downlink_of_ours_that_comes_back_from_the_cloud_is_a_loop() {
    let mut b = Bench::up();
    b.reach_await_ack(PUMP, "r1", 1);
    let request = b.last(Side::Local, Kind::CsrReq).payload.clone();
    let crt = b.last(Side::Local, Kind::Crt).payload.clone();
    b.forget();
    b.cloud(PUMP, Kind::CsrReq, &request);
    b.cloud(PUMP, Kind::Crt, &crt);
    assert_eq!(b.counted(Side::Cloud, Reason::BridgeLoop), 2);
    assert!(b.notes.iter().all(|note| note.weight == Weight::Alarm));
    assert!(b.published.is_empty());
}

#[test]
fn a_loop_in_which_the_cloud_gets_our_trial_makes_no_record() {
    let mut b = Bench::up();
    b.cloud(PUMP, Kind::CsrReq, b"{}");
    let looped = b.last(Side::Local, Kind::CsrReq).payload.clone();
    b.cloud(PUMP, Kind::CsrReq, &looped);
    b.expect(PUMP, "none");
}

#[test]
fn a_certificate_reaches_only_the_child_whose_csr_carried_its_key() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    b.reach_await_cert("pump-2", "r1", 2);
    b.forget();
    // Under the right name with the other's key; under the other's name with the right key.
    b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::certificate(PUMP, 2, 1)));
    b.cloud("pump-2", Kind::Crt, &crt_payload(&pki::certificate(PUMP, 1, 1)));
    b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::certificate("pump-2", 1, 1)));
    b.advance(hours(1));
    assert!(b.sent(Side::Local, Kind::Crt).is_empty());
    assert_eq!(b.counted(Side::Cloud, Reason::NoWaitingCsr), 2);
    assert_eq!(b.counted(Side::Cloud, Reason::WrongSubject), 1);
}

#[test]
fn a_retained_request_or_ack_or_error_is_ignored_and_a_retained_csr_is_read() {
    let mut b = Bench::up();
    b.message(Side::Cloud, &format!("cloud/{CORE}/{PUMP}/csr_req"), b"{}", false, true);
    b.expect(PUMP, "none");
    let csr = csr_payload(&pki::csr(PUMP, 1));
    b.message(Side::Local, &format!("floor/{PUMP}/csr_res"), &csr, false, true);
    b.expect(PUMP, "await-cert");
    assert!(b.published.iter().all(|p| p.side == Side::Cloud));
}

#[test]
fn a_heap_of_bad_messages_leaves_the_rotation_of_a_good_child_alone() {
    let mut b = Bench::up();
    b.reach_await_cert(PUMP, "r1", 1);
    for n in 0..2_000_u32 {
        let from = format!("bad-{}", n % 50);
        match n % 4 {
            0 => b.csr(&from, 3),
            1 => b.local(&from, Kind::CsrRes, &csr_payload(&pki::csr(PUMP, 4))),
            2 => b.bare_ack(&from),
            _ => b.fail(&from, "broken"),
        }
    }
    b.advance(minutes(1));
    let id = b.crt(PUMP, 1, 1);
    b.ack(PUMP, id);
    b.advance(secs(5));
    assert!(b.sent(Side::Cloud, Kind::CrtAck).iter().any(|p| p.to == PUMP));
}
