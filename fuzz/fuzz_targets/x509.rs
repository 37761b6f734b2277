//! Any bytes as a CSR, a certificate, a chain and trust anchors: facts or a refusal, never a panic.
#![no_main]

use certrelay::{
    wire::ThingName,
    x509::{self, Anchors, CommonNameRule},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name: ThingName = "pump-7".parse().expect("valid");
    let _ = x509::accept_csr(bytes, &name, CommonNameRule::AbsentOk);
    let _ = x509::verify_csr_signature(bytes);
    let _ = x509::read_certificate(bytes);
    let chain = x509::split_chain(bytes);
    assert_eq!(x509::join_chain(&chain), bytes);
    let _ = x509::accept_certificate(&chain, &name, CommonNameRule::Match, None, None);
    let _ = Anchors::from_pem(bytes);
});
