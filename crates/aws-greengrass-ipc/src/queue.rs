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
    /// on this connection if it was [`CallError::NotSupported`].
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
