//! How often one pair failed where another worked: the only evidence that a pair is bad.

use std::time::Duration;

use crate::schedule::Tick;

/// How much evidence is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// So often …
    pub times: u32,
    /// … and over at least so long.
    pub over: Duration,
}

/// A count, and when it began. Starts at nothing after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    times: u32,
    since: Option<Tick>,
}

impl Tally {
    /// Counts once more; returns how often it was.
    pub fn count(&mut self, now: Tick) -> u32 {
        self.times = self.times.saturating_add(1);
        self.since.get_or_insert(now);
        self.times
    }

    /// How often it was.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Whether that is enough.
    pub fn is_enough(&self, threshold: Threshold, now: Tick) -> bool {
        let over = self.since.map(|since| now - since);
        self.times >= threshold.times && over.is_some_and(|over| over >= threshold.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Threshold = Threshold { times: 3, over: Duration::from_secs(600) };

    #[test]
    fn it_takes_both_the_times_and_the_while() {
        let mut tally = Tally::default();
        (0..9).for_each(|n| {
            let _ = tally.count(Tick(n));
        });
        assert!(!tally.is_enough(ENOUGH, Tick(599_999)));
        assert!(tally.is_enough(ENOUGH, Tick(600_000)));
        let mut twice = Tally::default();
        (0..2).for_each(|n| {
            let _ = twice.count(Tick(n));
        });
        assert!(!twice.is_enough(ENOUGH, Tick(u64::MAX)));
    }
}
