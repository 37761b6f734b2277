//! Any bytes as the event of a topic rule or as an audit's notification: a value or an error, never a
//! panic, and no speaker but the one that AWS IoT vouches for.
#![no_main]

use certrelay::wire::{CrtErr, CsrRes};
use certrelay_cloud::decide::{
    audit,
    uplink::{Ack, Body, Uplink, UplinkError, named},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let body = serde_json::from_slice(bytes).ok();
    check::<CsrRes>(bytes, body.as_ref());
    check::<CrtErr>(bytes, body.as_ref());
    if let Some(uplink) = check::<Ack>(bytes, body.as_ref()) {
        let _ = named(&uplink.body);
    }
    if let Ok(Some(job)) = audit::read(bytes) {
        let json = serde_json::to_vec(&job).expect("a job can be written");
        assert_eq!(serde_json::from_slice::<audit::Job>(&json).expect("and read"), job);
    }
});

fn check<B: Body>(event: &[u8], json: Option<&serde_json::Value>) -> Option<Uplink<B>> {
    let (envelope, uplink) = match Uplink::parse(event) {
        Ok(uplink) => (uplink.envelope.clone(), Some(uplink)),
        Err(UplinkError::Refused { envelope, .. }) => (*envelope, None),
        Err(UplinkError::Stray(_) | UplinkError::Nobody) => return None,
    };
    // A value that nobody reads may hold bytes that are no text: serde passes over them.
    if let Some(json) = json {
        let speaker = json["client"].as_str().and_then(|client| client.split('#').next());
        assert_eq!(speaker, Some(envelope.speaker.as_str()));
        assert_eq!(json["thing"].as_str(), Some(envelope.thing.as_str()));
    }
    uplink
}
