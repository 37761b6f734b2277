//! Any bytes as a topic and a payload: a value or an error, never a panic.
#![no_main]

use certrelay::wire::{
    CertificateMessage, CrtAck, CrtErr, CsrReq, CsrRes, Header, ThingName, Topics, Verdict, escape,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let core: ThingName = "core-1".parse().expect("valid");
    let topics = Topics::parse("management/topic", &core).expect("valid");
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some((name, kind)) = topics.read(text) {
            assert_eq!(topics.topic(&name, kind), text);
        }
        let _ = Topics::parse(text, &core);
        assert!(escape(text).len() <= 256);
    }
    let _ = (Header::read(bytes), CsrReq::parse(bytes), CsrRes::parse(bytes));
    let _ = (CertificateMessage::parse(bytes), CrtAck::parse(bytes));
    let _ = (CrtErr::parse(bytes), Verdict::parse(bytes));
});
