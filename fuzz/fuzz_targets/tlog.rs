//! Any bytes as the classic nucleus' log of its configuration: values or none, never a panic.
#![no_main]

use certrelay::core_device::locate::tlog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = tlog::read(bytes);
});
