//! Any bytes as a nucleus: what is held stays bounded, and everyone who waits is told the end.
#![no_main]

use aws_greengrass_ipc::fuzz;
use libfuzzer_sys::fuzz_target;

// The first byte says whether the rest are bytes of the socket or messages in valid frames.
fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..128, bytes)) => fuzz::bytes(bytes),
        Some((_, bytes)) => fuzz::messages(bytes),
        None => (),
    }
});
