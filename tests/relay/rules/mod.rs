//! The rules of DESIGN §5 that are prose there: a test a promise.

mod acks;
mod clock;
mod core;
mod intake;
mod link;
mod outbox;
mod proofs;
mod repeats;
mod settings;
mod store;
mod uplink;
mod whom;

/// Runs a test that would hang if it failed; it is given up after 20 seconds.
#[expect(clippy::disallowed_methods, reason = "a test that hangs must end")]
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match is_done.recv_timeout(std::time::Duration::from_secs(20)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().expect("the test passes"),
    }
}
