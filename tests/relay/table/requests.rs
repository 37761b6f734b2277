//! Rows of the table: `csr_req` and `csr_res`.

use super::*;

table! {
    // csr_req.
    csr_req_same_rotation: |b| b.request(PUMP, "r1") => [
        "await-csr; vcsr_req; requested",
        "await-csr; ; repeated",
        "await-cert K1; ^csr_res; ",
        "await-ack K1 C1; vcrt; ",
        "done; ^crt_ack(named); repeated",
        ELSEWHERE,
    ];
    csr_req_same_rotation_after_a_failure_says_the_same_again: |b| b.request(PUMP, "r1") => [
        ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE, ELSEWHERE,
        "done; ^crt_err(full); repeated",
    ];
    csr_req_new_rotation: |b| b.request(PUMP, "r2") => [
        "await-csr; vcsr_req; requested",
        "await-csr; ; requested",
        "await-cert K1; ^csr_res; requested",
        "await-csr; vcsr_req; requested",
        "await-csr; vcsr_req; requested",
        "await-csr; vcsr_req; requested",
    ];
    csr_req_without_id_two_minutes_later: |b| b.cloud(PUMP, Kind::CsrReq, b"{}")
        => [
        "none; vcsr_req; tried",
        "await-csr; ; repeated",
        "await-cert K1; ^csr_res; ",
        "await-ack K1 C1; vcrt; ",
        "done; ; too-soon",
        "done; ; too-soon",
    ];
    csr_req_without_id_eleven_minutes_later: |b| {
        b.advance(minutes(9));
        b.cloud(PUMP, Kind::CsrReq, b"{}");
    } => [
        "none; vcsr_req; tried",
        "await-csr; ; repeated",
        "await-cert K1; ^csr_res; ",
        "await-ack K1 C1; vcrt; ",
        "await-csr; vcsr_req; requested",
        "await-csr; vcsr_req; requested",
    ];
    csr_req_without_id_twice_in_the_interval: |b| {
        b.advance(minutes(9));
        b.cloud(PUMP, Kind::CsrReq, bytes(json!({ "core": CORE })).as_slice());
        let state = b.state(PUMP);
        if state == "await-csr" {
            // The first one's rotation is refused, so that the second finds nothing under way.
            b.csr(PUMP, 5);
            let mid = csr_mid(b);
            result(b, json!({ "for": "csr_res", "ok": false, "final": true, "mid": mid }));
        }
        b.advance(hours(19));
        b.cloud(PUMP, Kind::CsrReq, b"{}");
    } => [
        "done; vcsr_req; too-soon cloud-refused requested csr-accepted",
        "await-csr; vcsr_req; cloud-refused requested repeated csr-accepted",
        "await-cert K1; ^csr_res ^csr_res; ",
        "await-ack K1 C1; vcrt vcrt; ",
        "done; vcsr_req; too-soon cloud-refused requested csr-accepted",
        "done; vcsr_req; too-soon cloud-refused requested csr-accepted",
    ];
    csr_req_retained: |b| {
        let topic = format!("cloud/{CORE}/{PUMP}/csr_req");
        b.message(Side::Cloud, &topic, b"{}", false, true);
    } => [
        "none; ; retained",
        "await-csr; ; retained",
        "await-cert K1; ; retained",
        "await-ack K1 C1; ; retained",
        "done; ; retained",
        "done; ; retained",
    ];
    csr_req_empty: |b| b.cloud(PUMP, Kind::CsrReq, b"") => [
        "none; ; empty-payload",
        "await-csr; ; empty-payload",
        "await-cert K1; ; empty-payload",
        "await-ack K1 C1; ; empty-payload",
        "done; ; empty-payload",
        "done; ; empty-payload",
    ];
    csr_req_for_another_core: |b| {
        b.cloud(PUMP, Kind::CsrReq, &bytes(json!({ "core": "core-2", "rotationId": "r9" })));
    } => [
        "none; ; other-core",
        "await-csr; ; other-core",
        "await-cert K1; ; other-core",
        "await-ack K1 C1; ; other-core",
        "done; ; other-core",
        "done; ; other-core",
    ];

    // csr_res.
    csr_res_waiting_key: |b| b.csr(PUMP, 1) => [
        "await-cert K1; ^csr_res; csr-accepted",
        "await-cert K1; ^csr_res; csr-accepted",
        "await-cert K1; ^csr_res; repeated",
        "await-ack K1 C1; vcrt; repeated",
        "done; ^crt_err(key-not-new); key-not-new",
        "await-cert K1; ^csr_res; csr-accepted",
    ];
    csr_res_other_key: |b| b.csr(PUMP, 2) => [
        "await-cert K2; ^csr_res; csr-accepted",
        "await-cert K2; ^csr_res; csr-accepted",
        "await-cert K2; ^csr_res; csr-accepted",
        "await-cert K2; ^csr_res; csr-accepted",
        "await-cert K2; ^csr_res; csr-accepted",
        "await-cert K2; ^csr_res; csr-accepted",
    ];
    csr_res_superseded_key: |b| b.csr(PUMP, 0) => [
        "await-cert K0; ^csr_res; csr-accepted",
        "await-cert K0; ^csr_res; csr-accepted",
        "await-cert K0; ^csr_res; csr-accepted",
        "await-cert K0; ^csr_res; csr-accepted",
        "await-cert K0; ^csr_res; csr-accepted",
        "await-cert K0; ^csr_res; csr-accepted",
    ];
    csr_res_superseded_key_redelivered: |b| {
        b.local_dup(PUMP, Kind::CsrRes, &crate::bench::csr_payload(&pki::csr(PUMP, 0)));
    } => [
        "await-cert K0; ^csr_res; csr-accepted",
        "await-csr; ; stale-key",
        "await-cert K1; ; stale-key",
        "await-ack K1 C1; ; stale-key",
        "done; ; stale-key",
        "done; ; stale-key",
    ];
    csr_res_garbage: |b| b.local(PUMP, Kind::CsrRes, b"{\"CSR\":\"x\"}") => [
        "none; ; unreadable",
        "await-csr; ; unreadable",
        "await-cert K1; ; unreadable",
        "await-ack K1 C1; ; unreadable",
        "done; ; unreadable",
        "done; ; unreadable",
    ];
    csr_res_foreign_subject: |b| {
        b.local(PUMP, Kind::CsrRes, &crate::bench::csr_payload(&pki::csr("pump-2", 3)));
    } => [
        "done; ^crt_err(wrong-subject); wrong-subject",
        "await-csr; ^crt_err(wrong-subject); wrong-subject",
        "await-cert K1; ^crt_err(wrong-subject); wrong-subject",
        "await-ack K1 C1; ^crt_err(wrong-subject); wrong-subject",
        "done; ^crt_err(wrong-subject); wrong-subject",
        "done; ^crt_err(wrong-subject); wrong-subject",
    ];
    csr_res_badly_signed: |b| {
        let der = pki::badly_signed_csr(PUMP, 3);
        b.local(PUMP, Kind::CsrRes, &crate::bench::csr_payload(&der));
    } => [
        "done; ^crt_err(bad-signature); bad-signature csr-accepted",
        "await-csr; ^crt_err(bad-signature); bad-signature csr-accepted",
        "await-csr; ^crt_err(bad-signature); bad-signature csr-accepted",
        "await-csr; ^crt_err(bad-signature); bad-signature csr-accepted",
        "done; ^crt_err(bad-signature); bad-signature csr-accepted",
        "done; ^crt_err(bad-signature); bad-signature csr-accepted",
    ];
    csr_res_from_the_cloud: |b| {
        b.cloud(PUMP, Kind::CsrRes, &crate::bench::csr_payload(&pki::csr(PUMP, 2)));
    } => [
        "none; ; wrong-direction",
        "await-csr; ; wrong-direction",
        "await-cert K1; ; wrong-direction",
        "await-ack K1 C1; ; wrong-direction",
        "done; ; wrong-direction",
        "done; ; wrong-direction",
    ];
}
