//! What waits in a subscription until it is read: events, and how the subscription fares.
//!
//! Invariants: no more events and bytes than the limits, and no more than three changes of state
//! in a row; what a reader sees of the states is true and in order. Putting something in never
//! waits: an event that finds no room is shed, and counted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{error::CallError, options::QueueLimits};

/// Why a subscription gets no events now. It is made again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inactive {
    /// The nucleus refused it, or did not answer in time. It is asked again after a pause, but not
    /// on this connection if it was [`CallError::NotSupported`] or [`CallError::TooLarge`].
    Refused(CallError),
    /// The nucleus ended it, perhaps with an error. It is asked again after a pause.
    Ended(Option<CallError>),
    /// The connection broke. It is asked again on the next one.
    ConnectionLost,
}

/// An entry of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Active { generation: u64 },
    Event(Vec<u8>),
    Inactive(Inactive),
}

/// The queue of one subscription.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    events: usize,
    bytes: usize,
    shed: u64,
    reader: Option<Waker>,
}

impl Queue {
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// The nucleus has said yes.
    pub fn activate(&self, generation: u64) {
        self.put(|state| state.items.push_back(Item::Active { generation }));
    }

    /// There will be no events for now.
    pub fn deactivate(&self, why: Inactive) {
        self.put(|state| {
            // A reader who sleeps through it all needs to see only how it ended.
            if let Some(Item::Inactive(_)) = state.items.back() {
                state.items.pop_back();
            } else if let Some([Item::Inactive(_), Item::Active { .. }]) = state.last_two() {
                state.items.truncate(state.items.len() - 2);
            }
            state.items.push_back(Item::Inactive(why));
        });
    }

    /// An event came; it is copied only if there is room.
    pub fn event(&self, payload: &[u8]) {
        let limits = self.limits;
        self.put(|state| {
            let bytes = state.bytes.saturating_add(payload.len());
            if state.events >= limits.events || bytes > limits.bytes {
                state.shed += 1;
                return;
            }
            state.events += 1;
            state.bytes = bytes;
            state.items.push_back(Item::Event(payload.to_vec()));
        });
    }

    /// An event that can be put to no use.
    pub fn count_shed(&self) {
        self.lock().shed += 1;
    }

    /// How many events were shed so far.
    pub fn shed(&self) -> u64 {
        self.lock().shed
    }

    /// The next item.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut state = self.lock();
        let Some(item) = state.items.pop_front() else {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Item::Event(payload) = &item {
            state.events -= 1;
            state.bytes -= payload.len();
        }
        Poll::Ready(item)
    }

    /// How many items and how many bytes of events wait.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.items.len(), state.bytes)
    }

    fn put(&self, change: impl FnOnce(&mut State)) {
        let reader = {
            let mut state = self.lock();
            change(&mut state);
            if state.items.is_empty() { None } else { state.reader.take() }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn last_two(&self) -> Option<[&Item; 2]> {
        let before = self.items.len().checked_sub(2)?;
        Some([&self.items[before], &self.items[before + 1]])
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn drain(queue: &Queue) -> Vec<Item> {
        let mut items = Vec::new();
        while let Poll::Ready(item) = queue.poll(&mut Context::from_waker(Waker::noop())) {
            items.push(item);
        }
        items
    }

    fn lost() -> Item {
        Item::Inactive(Inactive::ConnectionLost)
    }

    #[test]
    fn events_over_either_limit_are_shed_and_counted_and_reading_makes_room() {
        let queue = Queue::new(QueueLimits { events: 2, bytes: 10 });
        queue.event(&[1; 4]);
        queue.event(&[2; 7]);
        queue.event(&[3; 6]);
        queue.event(&[]);
        assert_eq!(queue.shed(), 2);
        assert_eq!(drain(&queue), [Item::Event(vec![1; 4]), Item::Event(vec![3; 6])]);
        queue.event(&[4; 11]);
        queue.event(&[5; 10]);
        assert_eq!(queue.shed(), 3);
        assert_eq!(drain(&queue), [Item::Event(vec![5; 10])]);
    }

    #[test]
    fn a_full_queue_takes_changes_of_state_all_the_same() {
        let queue = Queue::new(QueueLimits { events: 1, bytes: 10 });
        queue.activate(1);
        queue.event(b"a");
        queue.deactivate(Inactive::ConnectionLost);
        queue.activate(2);
        queue.event(b"b");
        let seen = drain(&queue);
        let event = Item::Event(b"a".to_vec());
        let (first, second) = (Item::Active { generation: 1 }, Item::Active { generation: 2 });
        assert_eq!(seen, [first, event, lost(), second]);
    }

    #[test]
    fn a_reader_who_sleeps_sees_that_it_was_inactive_and_how_it_ended() {
        let queue = Queue::new(QueueLimits::default());
        for generation in 1..1000 {
            queue.activate(generation);
            queue.deactivate(Inactive::Refused(CallError::TimedOut));
            queue.deactivate(Inactive::ConnectionLost);
        }
        assert_eq!(drain(&queue), [Item::Active { generation: 1 }, lost()]);
        queue.activate(1000);
        assert_eq!(drain(&queue), [Item::Active { generation: 1000 }]);
    }

    proptest! {
        #[test]
        fn the_limits_hold_and_between_two_actives_is_an_inactive(
            steps in vec((0..4_u8, 0..40_usize), 0..200),
        ) {
            let limits = QueueLimits { events: 5, bytes: 100 };
            let queue = Queue::new(limits);
            let (mut seen, mut is_active, mut sent) = (Vec::new(), false, 0);
            for (generation, (what, size)) in (1..).zip(steps) {
                match what {
                    0 if is_active => {
                        queue.deactivate(Inactive::ConnectionLost);
                        is_active = false;
                    }
                    0 => {
                        queue.activate(generation);
                        is_active = true;
                    }
                    1 => seen.extend(drain(&queue)),
                    _ => {
                        queue.event(&vec![0; size]);
                        sent += 1;
                    }
                }
                let (items, bytes) = queue.held();
                prop_assert!(bytes <= limits.bytes && items <= 4 * limits.events + 3);
            }
            seen.extend(drain(&queue));
            let is_event = |item: &Item| matches!(item, Item::Event(_));
            let events = seen.iter().filter(|item| is_event(item)).count() as u64;
            prop_assert_eq!(events + queue.shed(), sent);
            let states: Vec<_> = seen.into_iter().filter(|item| !is_event(item)).collect();
            let is_state_active = |item: &Item| matches!(item, Item::Active { .. });
            for pair in states.windows(2) {
                prop_assert_ne!(is_state_active(&pair[0]), is_state_active(&pair[1]));
            }
            let last = states.last().is_some_and(is_state_active);
            prop_assert_eq!(last, is_active);
        }
    }
}
