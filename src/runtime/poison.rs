//! Events that make the core panic: the first time the core is restored and the event comes again;
//! the second time it is taken for poison and passed over.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::relay::Event;

/// The most suspects that are remembered.
const MOST: usize = 1024;

/// What came of letting the core handle an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    /// It did.
    Well,
    /// It panicked, for the first time on this event; its state is not to be used any more.
    Panicked,
    /// It panicked on something that can't be passed over: a timer, or a link's state.
    Broken,
}

/// The events that made the core panic.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    seen: HashMap<u64, u32>,
}

impl Suspects {
    /// Whether the event has made the core panic before, and is to be passed over.
    pub(super) fn is_poison(&self, event: &Event) -> bool {
        !self.seen.is_empty()
            && fingerprint(event).is_some_and(|mark| self.seen.contains_key(&mark))
    }

    /// Runs `handle`, which has the core handle the event.
    pub(super) fn guard(&mut self, event: &Event, handle: impl FnOnce()) -> Handled {
        let mark = fingerprint(event);
        // The core is thrown away when it panics, so no one sees it half-changed.
        if catch_unwind(AssertUnwindSafe(handle)).is_ok() {
            return Handled::Well;
        }
        match mark {
            Some(mark) if self.seen.len() < MOST => {
                *self.seen.entry(mark).or_default() += 1;
                Handled::Panicked
            }
            _ => Handled::Broken,
        }
    }
}

/// What stays the same when a message is delivered again.
fn fingerprint(event: &Event) -> Option<u64> {
    let Event::Message { side, message } = event else { return None };
    let mut hasher = DefaultHasher::new();
    (side, &message.topic, &message.payload).hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{links::Message, relay::Side};

    fn message(payload: &[u8], dup: bool) -> Event {
        let (topic, payload) = ("management/topic/a/csr_res".to_owned(), payload.to_vec());
        let message = Message { topic, payload, dup, retain: false, delivery: None };
        Event::Message { side: Side::Local, message }
    }

    #[test]
    fn a_message_that_makes_the_core_panic_is_poison_when_it_comes_again() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.guard(&message(b"good", false), || {}), Handled::Well);
        assert!(!suspects.is_poison(&message(b"bad", false)));
        let handled = suspects.guard(&message(b"bad", false), || panic!("on purpose"));
        assert_eq!(handled, Handled::Panicked);
        assert!(suspects.is_poison(&message(b"bad", true)));
        assert!(!suspects.is_poison(&message(b"good", true)));
    }

    #[test]
    fn a_panic_on_a_timer_can_not_be_passed_over() {
        let mut suspects = Suspects::default();
        let handled = suspects.guard(&Event::Wakeup, || panic!("on purpose"));
        assert_eq!(handled, Handled::Broken);
        assert!(!suspects.is_poison(&Event::Wakeup));
    }
}
