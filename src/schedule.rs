//! Time as the core sees it: two clocks that never mix, back-off with jitter, and the guard that
//! says whether the wall clock may be believed.
//!
//! A [`Tick`] counts from the start of the process and never goes back: every retry and pause hangs
//! on it. A [`Timestamp`] is the wall clock and reaches the core only while it is trusted, so no
//! decision can rest on one that is not. Pure: the clocks are read elsewhere and handed in.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the process started; monotonic, meaningless after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

/// Milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From whole seconds since the Unix epoch, which is how times travel on the wire.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, to the second, UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// 9999-12-31, the last day that RFC 3339 can write.
        const LAST: u64 = 253_402_300_799;
        let time = std::time::UNIX_EPOCH + Duration::from_secs(self.unix_seconds().min(LAST));
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

macro_rules! instant_arithmetic {
    ($name:ident) => {
        impl Add<Duration> for $name {
            type Output = Self;

            fn add(self, pause: Duration) -> Self {
                Self(self.0.saturating_add(millis(pause)))
            }
        }

        impl Sub for $name {
            type Output = Duration;

            /// The time since `earlier`; zero when that is later.
            fn sub(self, earlier: Self) -> Duration {
                Duration::from_millis(self.0.saturating_sub(earlier.0))
            }
        }
    };
}

instant_arithmetic!(Tick);
instant_arithmetic!(Timestamp);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The instant at which an event is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub tick: Tick,
    /// The wall clock, while it is trusted.
    pub wall: Option<Timestamp>,
}

/// When something happened, by whichever clocks can tell. Stored as its wall time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<Timestamp>", into = "Option<Timestamp>")]
pub struct Stamp {
    wall: Packed,
    tick: Packed,
    /// The tick is that of a restart; it happened before.
    restored: bool,
}

/// An optional time in eight bytes: there are several in each of thousands of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    const NONE: Self = Self(u64::MAX);

    fn some(value: u64) -> Self {
        Self(value.min(u64::MAX - 1))
    }

    fn get(self) -> Option<u64> {
        Some(self.0).filter(|_| self != Self::NONE)
    }
}

impl Default for Packed {
    fn default() -> Self {
        Self::NONE
    }
}

impl Stamp {
    /// Happened now.
    pub fn now(now: Now) -> Self {
        let wall = now.wall.map_or(Packed::NONE, |wall| Packed::some(wall.0));
        Self { wall, tick: Packed::some(now.tick.0), restored: false }
    }

    /// The wall time, which is what outlives the process.
    pub fn wall(self) -> Option<Timestamp> {
        self.wall.get().map(Timestamp)
    }

    fn tick(self) -> Option<Tick> {
        self.tick.get().map(Tick)
    }

    /// Tells a stamp that came from the store when this process took it over: from then on it has
    /// an age even without a trusted clock.
    pub fn restore(&mut self, now: Now) {
        if self.tick().is_none() {
            self.tick = Packed::some(now.tick.0);
            self.restored = true;
        }
    }

    /// How long ago, at the least; `None` when no clock can tell.
    ///
    /// Within one process the monotonic clock alone counts, so that a wall clock that is set
    /// changes nothing. For an older stamp it is the time since the restart, or more where the
    /// trusted wall clock says so.
    pub fn elapsed(self, now: Now) -> Option<Duration> {
        let by_tick = self.tick().map(|tick| now.tick - tick);
        if by_tick.is_some() && !self.restored {
            return by_tick;
        }
        let by_wall = self.wall().zip(now.wall).map(|(then, wall)| wall - then);
        by_tick.max(by_wall)
    }

    /// Whether it is known to be at least `age` ago.
    pub fn is_older_than(self, age: Duration, now: Now) -> bool {
        self.elapsed(now).is_some_and(|elapsed| elapsed >= age)
    }

    /// Whether it is known to be less than `age` ago. For a stamp of an earlier process only a
    /// trusted wall clock can tell.
    pub fn is_within(self, age: Duration, now: Now) -> bool {
        let elapsed = match (self.restored, self.wall(), now.wall) {
            (false, ..) => self.elapsed(now),
            (true, Some(then), Some(wall)) => Some(wall - then),
            (true, ..) => None,
        };
        elapsed.is_some_and(|elapsed| elapsed < age)
    }

    /// When, on the monotonic clock, it will be `age` ago by what is known now.
    pub fn reaches(self, age: Duration, now: Now) -> Option<Tick> {
        self.elapsed(now).map(|elapsed| now.tick + age.saturating_sub(elapsed))
    }

    /// Fills in the wall time of a stamp that was taken without one. Returns whether it changed.
    pub fn settle(&mut self, now: Now) -> bool {
        let (None, Some(wall)) = (self.wall(), now.wall) else {
            return false;
        };
        let age = self.elapsed(now).unwrap_or_default();
        self.wall = Packed::some(wall.0.saturating_sub(millis(age)));
        true
    }
}

impl From<Option<Timestamp>> for Stamp {
    fn from(wall: Option<Timestamp>) -> Self {
        let wall = wall.map_or(Packed::NONE, |wall| Packed::some(wall.0));
        Self { wall, tick: Packed::NONE, restored: false }
    }
}

impl From<Stamp> for Option<Timestamp> {
    fn from(stamp: Stamp) -> Self {
        stamp.wall()
    }
}

/// Pauses that double from `first` up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first attempt.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after attempt number `attempts` (from 1), jittered to 75–100 %, so that what
    /// began together does not stay together.
    pub fn pause(self, attempts: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        jittered(pause, rng)
    }

    /// A point within the first pause: where work starts that was under way at a restart.
    pub fn spread(self, rng: &mut fastrand::Rng) -> Duration {
        Duration::from_millis(rng.u64(0..=millis(self.first)))
    }
}

fn jittered(pause: Duration, rng: &mut fastrand::Rng) -> Duration {
    let whole = millis(pause);
    Duration::from_millis(whole - rng.u64(0..=whole / 4))
}

/// How far the wall clock is trusted (`clock.trust`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockTrust {
    /// When it is plausible and, where the kernel says whether it is synchronised, the kernel says so.
    #[default]
    Auto,
    /// When it is plausible: for hosts that set the clock without telling the kernel.
    Always,
    /// Never.
    Never,
}

/// Decides whether a reading of the wall clock may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockGuard {
    trust: ClockTrust,
    floor: Timestamp,
}

impl ClockGuard {
    /// `built` is when the program was built; no true reading is earlier.
    pub fn new(trust: ClockTrust, built: Timestamp) -> Self {
        Self { trust, floor: built }
    }

    /// Raises the floor to a time that was once trusted.
    pub fn seen(&mut self, time: Timestamp) {
        self.floor = self.floor.max(time);
    }

    /// The reading, if it is trusted. `synchronised` is the kernel's word, where it gives one.
    pub fn judge(&mut self, reading: Timestamp, synchronised: Option<bool>) -> Option<Timestamp> {
        let believed = match self.trust {
            ClockTrust::Never => false,
            ClockTrust::Always => true,
            ClockTrust::Auto => synchronised.unwrap_or(true),
        };
        if !believed || reading < self.floor {
            return None;
        }
        self.floor = reading;
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(tick: u64, wall: Option<u64>) -> Now {
        Now { tick: Tick(tick), wall: wall.map(Timestamp) }
    }

    #[test]
    fn a_stamp_of_this_process_ages_by_the_monotonic_clock_alone() {
        let stamp = Stamp::now(at(1_000, Some(5_000)));
        assert_eq!(stamp.elapsed(at(4_000, Some(9_000_000))), Some(Duration::from_secs(3)));
        assert_eq!(stamp.elapsed(at(4_000, None)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_stored_stamp_is_as_old_as_the_trusted_clock_says_and_never_younger_than_the_process() {
        let mut stamp = Stamp::from(Some(Timestamp(5_000)));
        assert_eq!(stamp.elapsed(at(0, None)), None);
        assert_eq!(stamp.elapsed(at(0, Some(8_000))), Some(Duration::from_secs(3)));
        stamp.restore(at(1_000, None));
        assert_eq!(stamp.elapsed(at(3_000, None)), Some(Duration::from_secs(2)));
        assert_eq!(stamp.elapsed(at(3_000, Some(10_000))), Some(Duration::from_secs(5)));
        assert_eq!(stamp.elapsed(at(3_000, Some(1))), Some(Duration::from_secs(2)));
        assert!(!stamp.is_within(DAY, at(3_000, None)));
        assert!(stamp.is_within(DAY, at(3_000, Some(10_000))));
    }

    #[test]
    fn a_stamp_taken_without_a_trusted_clock_keeps_its_true_age_once_there_is_one() {
        let mut stamp = Stamp::now(at(1_000, None));
        assert!(!stamp.settle(at(2_000, None)));
        assert!(stamp.settle(at(3_000, Some(1_000_000))));
        assert_eq!(stamp.wall(), Some(Timestamp(998_000)));
        assert!(!stamp.settle(at(9_000, Some(2_000_000))));
    }

    #[test]
    fn a_stamp_reaches_an_age_when_the_rest_of_it_has_passed() {
        let stamp = Stamp::now(at(1_000, None));
        assert_eq!(stamp.reaches(DAY, at(3_000, None)), Some(Tick(1_000) + DAY));
        assert!(!stamp.is_older_than(DAY, at(3_000, None)));
        assert!(stamp.is_older_than(Duration::from_secs(2), at(3_000, None)));
    }

    #[test]
    fn an_unsynchronised_clock_is_not_believed_unless_told_to() {
        let built = Timestamp(100);
        let judge =
            |trust, reading, sync| ClockGuard::new(trust, built).judge(Timestamp(reading), sync);
        assert_eq!(judge(ClockTrust::Auto, 200, Some(false)), None);
        assert_eq!(judge(ClockTrust::Auto, 200, Some(true)), Some(Timestamp(200)));
        assert_eq!(judge(ClockTrust::Auto, 200, None), Some(Timestamp(200)));
        assert_eq!(judge(ClockTrust::Always, 200, Some(false)), Some(Timestamp(200)));
        assert_eq!(judge(ClockTrust::Never, 200, Some(true)), None);
    }

    #[test]
    fn a_clock_before_the_build_or_before_a_stored_time_is_not_believed() {
        let mut guard = ClockGuard::new(ClockTrust::Always, Timestamp(100));
        assert_eq!(guard.judge(Timestamp(99), Some(true)), None);
        guard.seen(Timestamp(500));
        assert_eq!(guard.judge(Timestamp(499), Some(true)), None);
        assert_eq!(guard.judge(Timestamp(500), Some(true)), Some(Timestamp(500)));
        assert_eq!(guard.judge(Timestamp(499), Some(true)), None);
    }

    proptest! {
        #[test]
        fn a_pause_grows_to_the_longest_and_never_past_it(attempts in 0u32..1000, seed: u64) {
            let backoff = Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(3600) };
            let pause = backoff.pause(attempts, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(pause >= Duration::from_secs(45));
            prop_assert!(pause <= Duration::from_secs(3600));
            if attempts >= 7 {
                prop_assert!(pause >= Duration::from_secs(2700));
            }
        }
    }
}
