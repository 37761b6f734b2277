//! Rows of the table: `crt`.

use super::*;

table! {
    // crt.
    crt_waiting_key: |b| _ = b.crt(PUMP, 1, 1) => [
        "none; ; no-waiting-csr",
        "await-csr; ; no-waiting-csr",
        "await-ack K1 C1; vcrt; unanchored",
        "await-ack K1 C1; vcrt; repeated",
        "done; ; late-certificate",
        "done; ; superseded-key",
    ];
    crt_waiting_key_another_certificate: |b| _ = b.crt(PUMP, 1, 2) => [
        "none; ; no-waiting-csr",
        "await-csr; ; no-waiting-csr",
        "await-ack K1 C1'; vcrt; unanchored",
        "await-ack K1 C1'; vcrt; unanchored",
        "done; ; late-certificate",
        "done; ; superseded-key",
    ];
    crt_superseded_key: |b| _ = b.crt(PUMP, 0, 1) => [
        "none; ; no-waiting-csr",
        "await-csr; ; superseded-key",
        "await-cert K1; ^csr_res; superseded-key",
        "await-ack K1 C1; ; superseded-key",
        "done; ; superseded-key",
        "done; ; superseded-key",
    ];
    crt_unknown_key: |b| _ = b.crt(PUMP, 9, 1) => [
        "none; ; no-waiting-csr",
        "await-csr; ; no-waiting-csr",
        "await-cert K1; ; no-waiting-csr",
        "await-ack K1 C1; ; no-waiting-csr",
        "done; ; no-waiting-csr",
        "done; ; no-waiting-csr",
    ];
    crt_unknown_key_for_our_core: |b| {
        b.cloud(PUMP, Kind::Crt, &crt_payload_for_core(&pki::certificate(PUMP, 9, 1)));
    } => [
        "done; ^crt_err(no-waiting-csr); no-waiting-csr",
        "await-csr; ^crt_err(no-waiting-csr); no-waiting-csr",
        "await-cert K1; ^crt_err(no-waiting-csr); no-waiting-csr",
        "await-ack K1 C1; ^crt_err(no-waiting-csr); no-waiting-csr",
        "done; ^crt_err(no-waiting-csr); no-waiting-csr",
        "done; ^crt_err(no-waiting-csr); no-waiting-csr",
    ];
    crt_of_a_ca: |b| b.cloud(PUMP, Kind::Crt, &crt_payload(&pki::ca_certificate(PUMP, 1)))
        => [
        "none; ; no-waiting-csr",
        "await-csr; ; no-waiting-csr",
        "await-cert K1; ^crt_err(not-a-leaf); not-a-leaf",
        "await-ack K1 C1; ^crt_err(not-a-leaf); not-a-leaf",
        "done; ; late-certificate",
        "done; ; superseded-key",
    ];
    crt_garbage: |b| b.cloud(PUMP, Kind::Crt, &crt_payload(b"no certificate"))
        => [
        "none; ; bad-certificate",
        "await-csr; ; bad-certificate",
        "await-cert K1; ; bad-certificate",
        "await-ack K1 C1; ; bad-certificate",
        "done; ; bad-certificate",
        "done; ; bad-certificate",
    ];
    crt_from_the_floor: |b| {
        b.local(PUMP, Kind::Crt, &crt_payload(&pki::certificate(PUMP, 1, 1)));
    } => [
        "none; ; wrong-direction",
        "await-csr; ; wrong-direction",
        "await-cert K1; ; wrong-direction",
        "await-ack K1 C1; ; wrong-direction",
        "done; ; wrong-direction",
        "done; ; wrong-direction",
    ];
}
