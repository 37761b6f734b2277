//! What the integration tests share: a throw-away CA, a real Mosquitto, a network that can be cut,
//! a plain MQTT client, and waiting for a condition with a deadline.
//!
//! Use it with `mod support;`. Everything stops when it is dropped, binds to 127.0.0.1 only, and
//! panics with a sentence that says what is missing.

#![allow(dead_code, reason = "compiled into each test binary, and each uses a part of it")]

pub mod link;
pub mod mosquitto;
pub mod peer;
pub mod pki;
pub mod proxy;
pub mod supervisor;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; panics with `what` when it does not within `deadline`.
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// As [`eventually`], for a test on a tokio runtime: there the other would stop every task.
pub async fn eventually_async(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let start = now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// What comes of this; panics with `what` when nothing does within `deadline`, however much goes on
/// meanwhile.
pub async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(deadline, work).await;
    done.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"))
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Writes a file; panics when it can't.
#[expect(clippy::disallowed_methods, reason = "a test's files need no atomic writes")]
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap_or_else(|why| panic!("write {}: {why}", path.display()));
}

/// Whether a file in a folder, however deep, holds a text. Links are not followed.
pub fn holds(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.is_symlink() {
        true => false,
        false if path.is_dir() => holds(&path, text),
        false => std::fs::read(&path).is_ok_and(|all| String::from_utf8_lossy(&all).contains(text)),
    })
}

/// A port of 127.0.0.1 that is free now, and that no other test of this process was given. Below the
/// range that the kernel takes for outgoing connections, so that a stopped server finds it free again.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let port = fastrand::u16(12_000..32_000);
        let is_new = GIVEN.lock().expect("nobody panics with it").insert(port);
        if is_new && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12000 and 32000 on 127.0.0.1");
}
