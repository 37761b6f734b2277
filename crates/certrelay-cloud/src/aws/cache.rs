//! Answers that may be some minutes old: who is attached to what. Bounded; the oldest go first.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// How long an answer is good.
const GOOD: Duration = Duration::from_secs(300);

/// An answer that says no is asked for again after this.
const NO_GOOD: Duration = Duration::from_secs(30);

/// The most answers.
const MOST: usize = 2_000;

/// Answers, and when each was got.
pub(super) struct Cache<K, V> {
    answers: HashMap<K, (Instant, V)>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { answers: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, T: PartialEq> Cache<K, Vec<T>> {
    /// Whether the list of `key` holds `item`; `None` if that must be asked.
    pub(super) fn holds(&self, key: &K, item: &T, now: Instant) -> Option<bool> {
        let (at, list) = self.answers.get(key)?;
        let age = now.saturating_duration_since(*at);
        match list.contains(item) {
            true if age < GOOD => Some(true),
            false if age < NO_GOOD => Some(false),
            _ => None,
        }
    }

    /// Keeps an answer.
    pub(super) fn keep(&mut self, key: K, list: Vec<T>, now: Instant) {
        if self.answers.len() >= MOST {
            self.answers.retain(|_, (at, _)| now.saturating_duration_since(*at) < GOOD);
        }
        if self.answers.len() >= MOST {
            self.answers.clear();
        }
        self.answers.insert(key, (now, list));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_good_for_minutes_and_a_no_for_seconds() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        assert_eq!(cache.holds(&"core", &1, now), None);
        cache.keep("core", vec![1], now);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(cache.holds(&"core", &1, after(299)), Some(true));
        assert_eq!(cache.holds(&"core", &1, after(300)), None);
        assert_eq!(cache.holds(&"core", &2, after(29)), Some(false));
        assert_eq!(cache.holds(&"core", &2, after(30)), None);
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        (0..3 * MOST).for_each(|n| cache.keep(n, vec![n], now));
        assert!(cache.answers.len() <= MOST);
        assert_eq!(cache.holds(&(3 * MOST - 1), &(3 * MOST - 1), now), Some(true));
    }
}
