//! Bounds: a rate that is never exceeded, and a memory of recent message ids.

use std::{
    collections::{HashSet, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use crate::{schedule::Tick, wire::Mid};

/// At most so many a second, with at most one second's worth at once (a GCRA: one number is all
/// its state).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rate {
    /// When a bucket that was full would be empty again, in microseconds of the tick clock.
    full_at: u64,
}

impl Rate {
    /// When the next one may go; not later than `now` means at once.
    pub fn next(self, per_second: NonZeroU32) -> Tick {
        let burst = 1_000_000 - interval(per_second);
        Tick(self.full_at.saturating_sub(burst).div_ceil(1000))
    }

    /// Takes one, if one may go now.
    pub fn take(&mut self, per_second: NonZeroU32, now: Tick) -> bool {
        let free = self.next(per_second) <= now;
        if free {
            self.full_at = self.full_at.max(now.0 * 1000) + interval(per_second);
        }
        free
    }
}

fn interval(per_second: NonZeroU32) -> u64 {
    1_000_000 / u64::from(per_second.get())
}

/// At most so many an interval, one by one: each asks for its turn and is told when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Turns {
    next: Tick,
}

impl Turns {
    /// The turn of whoever asks now; turns are `apart` from each other.
    pub fn take(&mut self, apart: Duration, now: Tick) -> Tick {
        let turn = self.next.max(now);
        self.next = turn + apart;
        turn
    }
}

/// The ids of the messages that went out lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    order: VecDeque<Mid>,
    set: HashSet<Mid>,
}

impl Recent {
    const MOST: usize = 1024;

    /// Remembers ids, and forgets the oldest if there are too many.
    pub fn extend(&mut self, mids: impl IntoIterator<Item = Mid>) {
        mids.into_iter().for_each(|mid| self.insert(mid));
    }

    fn insert(&mut self, mid: Mid) {
        if !self.set.insert(mid) {
            return;
        }
        self.order.push_back(mid);
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    /// Whether the id is one of them.
    pub fn contains(&self, mid: Mid) -> bool {
        self.set.contains(&mid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rate_is_held_over_every_stretch_and_never_wakes_in_vain(
            per_second in 1u32..500,
            steps in prop::collection::vec(0u64..400, 1..300),
        ) {
            let per_second = NonZeroU32::new(per_second).expect("at least 1");
            let (mut rate, mut now, mut taken) = (Rate::default(), Tick(0), Vec::new());
            for step in steps {
                now = now + Duration::from_millis(step);
                while rate.take(per_second, now) {
                    taken.push(now);
                }
                prop_assert!(rate.next(per_second) > now);
            }
            for (i, from) in taken.iter().enumerate() {
                let within = taken[i..].iter().filter(|t| **t - *from < Duration::from_secs(1));
                prop_assert!(within.count() <= 2 * per_second.get() as usize);
            }
        }
    }

    #[test]
    fn only_the_newest_ids_are_remembered() {
        let mut recent = Recent::default();
        let mid = |n: usize| Mid((n as u128).to_be_bytes());
        for n in 0..=Recent::MOST {
            recent.insert(mid(n));
            recent.insert(mid(n));
        }
        assert!(!recent.contains(mid(0)) && recent.contains(mid(1)));
        assert_eq!(recent.order.len(), recent.set.len());
    }
}
