//! The two clocks, read here and nowhere else, and the host's word on whether the wall clock is set.
//!
//! Whether the kernel counts its clock as synchronised is asked of `timedatectl`, which tells for
//! whichever program sets the clock. A host without it can't tell, and then plausibility decides.

#![expect(clippy::disallowed_types, reason = "the host is asked about its clock")]
#![expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]

use std::{
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{process::Command, sync::watch};

use crate::schedule::{ClockGuard, ClockTrust, Now, Tick, Timestamp};

/// When this version was made; no true clock is earlier. 2026-11-01.
const MADE: Timestamp = Timestamp(1_793_491_200_000);

/// How often the host is asked while its clock is not synchronised, and while it is.
const ASK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// The host answers in this time or not at all.
const ANSWERS: Duration = Duration::from_secs(5);

/// What the host says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It has not been asked yet.
    None,
    /// It can't tell.
    Unknown,
    /// It says this.
    Synchronised(bool),
}

/// The two clocks.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    guard: ClockGuard,
    word: watch::Receiver<Word>,
}

impl Clock {
    /// Starts the monotonic clock, and asks the host about the other, again and again, as long as
    /// the clock lives.
    pub(super) fn start(trust: ClockTrust) -> Self {
        let (tell, word) = watch::channel(Word::None);
        if trust == ClockTrust::Auto {
            tokio::spawn(keep_asking(tell));
        }
        Self { start: Instant::now(), guard: ClockGuard::new(trust, MADE), word }
    }

    /// No true clock is earlier than a time that was once trusted.
    pub(super) fn seen(&mut self, time: Timestamp) {
        self.guard.seen(time);
    }

    /// The instant, for the core.
    pub(super) fn now(&mut self) -> Now {
        let word = *self.word.borrow();
        let wall = match word {
            Word::None => self.guard.judge(self.reading(), Some(false)),
            Word::Unknown => self.guard.judge(self.reading(), None),
            Word::Synchronised(is) => self.guard.judge(self.reading(), Some(is)),
        };
        Now { tick: self.tick(), wall }
    }

    /// The wall clock's reading, trusted or not: for people only.
    pub(super) fn reading(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long until a tick.
    pub(super) fn until(&self, tick: Tick) -> Duration {
        tick - self.tick()
    }

    pub(super) fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

async fn keep_asking(tell: watch::Sender<Word>) {
    loop {
        let word = ask().await;
        tell.send_replace(word);
        let pause = if word == Word::Synchronised(true) { ASK.1 } else { ASK.0 };
        tokio::select! {
            () = tell.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn ask() -> Word {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(ANSWERS, command.output()).await {
        Ok(Ok(output)) => match output.stdout.trim_ascii() {
            b"yes" => Word::Synchronised(true),
            b"no" => Word::Synchronised(false),
            _ => Word::Unknown,
        },
        Ok(Err(_)) | Err(_) => Word::Unknown,
    }
}
