//! Rows of the table: `crt_ack` and `crt_err`.

use super::*;

table! {
    // crt_ack.
    crt_ack_named_held: |b| b.ack(PUMP, c(1, 1)) => [
        "done; ^crt_err(ack-unknown); ack-unknown",
        "await-csr; ^crt_err(ack-unknown); ack-unknown",
        "await-cert K1; ^crt_err(ack-unknown); ack-unknown",
        "done; ^crt_ack(named); acked-named",
        "done; ; stale-ack",
        "done; ; stale-ack",
    ];
    crt_ack_named_superseded: |b| b.ack(PUMP, c(0, 1)) => [
        "done; ^crt_err(ack-unknown); ack-unknown",
        "await-csr; vcsr_req; stale-ack",
        "await-cert K1; ; stale-ack",
        "await-ack K1 C1; vcrt; stale-ack",
        "done; ; stale-ack",
        "done; ; stale-ack",
    ];
    crt_ack_named_unknown: |b| b.ack(PUMP, c(9, 1)) => [
        "done; ^crt_err(ack-unknown); ack-unknown",
        "await-csr; ^crt_err(ack-unknown); ack-unknown",
        "await-cert K1; ^crt_err(ack-unknown); ack-unknown",
        "await-ack K1 C1; ^crt_err(ack-unknown); ack-unknown",
        "done; ^crt_err(ack-unknown); ack-unknown",
        "done; ^crt_err(ack-unknown); ack-unknown",
    ];
    crt_ack_named_unreadably: |b| {
        b.local(PUMP, Kind::CrtAck, b"{\"certificateId\":\"latest\"}");
    } => [
        "done; ; unreadable",
        "await-csr; ; unreadable",
        "await-cert K1; ; unreadable",
        "await-ack K1 C1; ; unreadable",
        "done; ; unreadable",
        "done; ; unreadable",
    ];
    crt_ack_bare: |b| b.bare_ack(PUMP) => [
        "done; ; stale-ack",
        "await-csr; vcsr_req; stale-ack",
        "await-cert K1; ; stale-ack",
        "await-ack K1 C1; vcrt; echo-asked",
        "done; ; stale-ack",
        "done; ; stale-ack",
    ];
    crt_ack_bare_twice: |b| {
        b.bare_ack(PUMP);
        b.advance(secs(1));
        b.bare_ack(PUMP);
    } => [
        "done; ; stale-ack*2",
        "await-csr; vcsr_req; stale-ack*2",
        "await-cert K1; ; stale-ack*2",
        "done; vcrt ^crt_ack(bare); acked-bare echo-asked",
        "done; ; stale-ack*2",
        "done; ; stale-ack*2",
    ];
    crt_ack_bare_redelivered: |b| b.local_dup(PUMP, Kind::CrtAck, b"{}")
        => [
        "done; ; stale-ack",
        "await-csr; vcsr_req; stale-ack",
        "await-cert K1; ; stale-ack",
        "await-ack K1 C1; vcrt; stale-ack",
        "done; ; stale-ack",
        "done; ; stale-ack",
    ];
    crt_ack_retained: |b| {
        let topic = format!("floor/{PUMP}/crt_ack");
        let named = bytes(json!({ "certificateId": c(1, 1) }));
        b.message(Side::Local, &topic, &named, false, true);
    } => [
        "none; ; retained",
        "await-csr; ; retained",
        "await-cert K1; ; retained",
        "await-ack K1 C1; ; retained",
        "done; ; retained",
        "done; ; retained",
    ];
    crt_ack_empty: |b| b.local(PUMP, Kind::CrtAck, b"") => [
        "none; ; empty-payload",
        "await-csr; ; empty-payload",
        "await-cert K1; ; empty-payload",
        "await-ack K1 C1; ; empty-payload",
        "done; ; empty-payload",
        "done; ; empty-payload",
    ];

    // crt_err from the child.
    crt_err: |b| b.fail(PUMP, "no-room") => [
        "done; ^crt_err(no-room); device-error",
        "await-csr; ^crt_err(no-room); device-error",
        "await-cert K1; ^crt_err(no-room); device-error",
        "done; ^crt_err(no-room); device-error",
        "done; ^crt_err(no-room); device-error",
        "done; ^crt_err(no-room); device-error",
    ];
    crt_err_redelivered: |b| b.local_dup(PUMP, Kind::CrtErr, b"{\"code\":\"no-room\"}") => [
        "done; ^crt_err(no-room); device-error",
        "await-csr; ^crt_err(no-room); device-error",
        "await-cert K1; ^crt_err(no-room); device-error",
        ELSEWHERE,
        "done; ^crt_err(no-room); device-error",
        "done; ^crt_err(no-room); device-error",
    ];
    // It may be about an earlier certificate: the cloud hears it, the rotation goes on.
    crt_err_redelivered_ends_nothing:
        |b| b.local_dup(PUMP, Kind::CrtErr, b"{\"code\":\"no-room\"}") => [
        ELSEWHERE, ELSEWHERE, ELSEWHERE,
        "await-ack K1 C1; ^crt_err(no-room); device-error",
        ELSEWHERE, ELSEWHERE,
    ];
    crt_err_named_held: |b| {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "certificateId": c(1, 1) })));
    } => [
        ELSEWHERE, ELSEWHERE, ELSEWHERE,
        "done; ^crt_err(device-error); device-error",
        ELSEWHERE, ELSEWHERE,
    ];
    crt_err_named_not_held_goes_to_the_cloud: |b| {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "certificateId": c(1, 1) })));
    } => [
        "done; ^crt_err(device-error); stale-error",
        "await-csr; ^crt_err(device-error); stale-error",
        "await-cert K1; ^crt_err(device-error); stale-error",
        ELSEWHERE,
        "done; ^crt_err(device-error); device-error",
        "done; ^crt_err(device-error); device-error",
    ];
    crt_err_named_superseded: |b| {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "certificateId": c(0, 1) })));
    } => [
        ELSEWHERE, ELSEWHERE, ELSEWHERE,
        "await-ack K1 C1; ^crt_err(device-error); stale-error",
        ELSEWHERE, ELSEWHERE,
    ];
    crt_err_of_another_rotation_goes_to_the_cloud: |b| {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "rotationId": "r0" })));
    } => [
        "done; ^crt_err(device-error); device-error",
        "await-csr; ^crt_err(device-error); stale-error",
        "await-cert K1; ^crt_err(device-error); stale-error",
        ELSEWHERE,
        "done; ^crt_err(device-error); stale-error",
        "done; ^crt_err(device-error); stale-error",
    ];
    crt_err_of_another_rotation_does_not_end_the_one_under_way: |b| {
        b.local(PUMP, Kind::CrtErr, &bytes(json!({ "rotationId": "r0" })));
    } => [
        ELSEWHERE, ELSEWHERE, ELSEWHERE,
        "await-ack K1 C1; ^crt_err(device-error); stale-error",
        ELSEWHERE, ELSEWHERE,
    ];
}
