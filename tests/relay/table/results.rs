//! Rows of the table: `result`, and what only the gateway can tell.

use super::*;

table! {
    // result.
    result_final_refusal_of_the_rotation: |b| {
        let code = "weak-key";
        result(b, json!({ "for": "csr_res", "ok": false, "final": true, "rotationId": "r1",
            "code": code }));
    } => [
        "none; ; stale-result",
        "done; ; cloud-refused",
        "done; ; cloud-refused",
        "done; ; cloud-refused",
        "done; ; stale-result",
        "done; ; stale-result",
    ];
    result_final_refusal_of_the_csr: |b| {
        let mid = csr_mid(b);
        result(b, json!({ "for": "csr_res", "ok": false, "final": true, "mid": mid }));
    } => [
        "none; ; stale-result",
        "await-csr; ; stale-result",
        "done; ; cloud-refused",
        "done; ; cloud-refused",
        "done; ; stale-result",
        "done; ; stale-result",
    ];
    result_not_final: |b| {
        result(b, json!({ "for": "csr_res", "ok": false, "rotationId": "r1" }));
    } => [
        "none; ; stale-result",
        "await-csr; ; cloud-deferred",
        "await-cert K1; ; cloud-deferred",
        "await-ack K1 C1; ; cloud-deferred",
        "done; ; stale-result",
        "done; ; stale-result",
    ];
    result_ok: |b| {
        result(b, json!({ "for": "csr_res", "ok": true, "rotationId": "r1" }));
    } => [
        "none; ; stale-result",
        "await-csr; ; cloud-took",
        "await-cert K1; ; cloud-took",
        "await-ack K1 C1; ; cloud-took",
        "done; ; stale-result",
        "done; ; stale-result",
    ];
    result_of_another_rotation: |b| {
        result(b, json!({ "for": "csr_res", "ok": false, "final": true, "rotationId": "r0" }));
    } => [
        "none; ; stale-result",
        "await-csr; ; stale-result",
        "await-cert K1; ; stale-result",
        "await-ack K1 C1; ; stale-result",
        "done; ; stale-result",
        "done; ; stale-result",
    ];
    result_for_a_notice_that_is_not_there: |b| {
        result(b, json!({ "for": "crt_ack", "ok": true, "rotationId": "r1" }));
    } => [
        "none; ; stale-result",
        "await-csr; ; stale-result",
        "await-cert K1; ; stale-result",
        "await-ack K1 C1; ; stale-result",
        "done; ; stale-result",
        "done; ; stale-result",
    ];

    // What only the gateway can tell.
    csr_lost_from_the_store: |b| {
        b.disk.bodies.remove(&(name(PUMP), certrelay::relay::Body::Csr));
        b.feed(Event::BodyLost { child: name(PUMP), lost: Lost::Csr(pki::digest(1)) });
    } => [
        "none; ; ",
        "await-csr; ; ",
        "await-csr; vcsr_req; body-lost",
        "await-csr; vcsr_req; body-lost",
        "done; ; ",
        "done; ; ",
    ];
    certificate_lost_from_the_store: |b| {
        b.disk.bodies.remove(&(name(PUMP), certrelay::relay::Body::Certificate));
        b.feed(Event::BodyLost { child: name(PUMP), lost: Lost::Certificate(c(1, 1)) });
    } => [
        "none; ; ",
        "await-csr; ; ",
        "await-cert K1; ; ",
        "await-cert K1; ^csr_res; body-lost",
        "done; ; ",
        "done; ; ",
    ];
    another_certificate_lost_from_the_store: |b| {
        b.feed(Event::BodyLost { child: name(PUMP), lost: Lost::Certificate(c(0, 1)) });
    } => [
        "none; ; ",
        "await-csr; ; ",
        "await-cert K1; ; ",
        "await-ack K1 C1; ; ",
        "done; ; ",
        "done; ; ",
    ];
    signature_of_another_key_is_bad: |b| {
        let outcome = Err(Refusal(Reason::BadSignature));
        b.feed(Event::Verified { child: name(PUMP), key: pki::digest(0), outcome });
    } => [
        "none; ; ",
        "await-csr; ; ",
        "await-cert K1; ; ",
        "await-ack K1 C1; ; ",
        "done; ; ",
        "done; ; ",
    ];
    ttl: |b| b.advance(days(30)) => [
        "none; ; ",
        "done; ^crt_err(expired); expired",
        "done; ^crt_err(expired); expired",
        "done; ^crt_err(undelivered); undelivered",
        "done; ; ",
        "done; ; ",
    ];
}
