//! Messages that came, for a test to look at and to wait for. The newest 100,000 are kept.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::{Message, Pending, topic};

/// Messages kept in one place.
const KEPT: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Oldest first.
    received: VecDeque<Message>,
    /// The same without what was taken.
    left: VecDeque<Message>,
    waiting: Vec<(String, oneshot::Sender<Message>)>,
    count: u64,
}

impl Inbox {
    /// A message has come.
    pub fn add(&mut self, message: Message) {
        self.count += 1;
        push(&mut self.received, message.clone());
        let mut message = Some(message);
        while let Some(next) = message.take() {
            let found = self.waiting.iter().position(|(f, _)| topic::matches(f, &next.topic));
            match found {
                // One that is not waited for any more gives the message back.
                Some(at) => message = self.waiting.remove(at).1.send(next).err(),
                None => push(&mut self.left, next),
            }
        }
    }

    /// Takes the oldest message that `filter` matches and that was not taken before, or the next
    /// to come.
    pub fn take(&mut self, filter: &str) -> Pending<Message> {
        let (sender, pending) = Pending::new();
        let found = self.left.iter().position(|m| topic::matches(filter, &m.topic));
        match found.and_then(|at| self.left.remove(at)) {
            // Its other end is in this function still.
            Some(message) => drop(sender.send(message)),
            None => self.waiting.push((filter.to_owned(), sender)),
        }
        pending
    }

    /// All that came.
    pub fn received(&self) -> Vec<Message> {
        self.received.iter().cloned().collect()
    }

    /// How many came.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Keeps a message; beyond the limit the oldest goes.
pub(crate) fn push(queue: &mut VecDeque<Message>, message: Message) {
    if queue.len() == KEPT {
        queue.pop_front();
    }
    queue.push_back(message);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Qos;

    fn message(topic: &str) -> Message {
        Message { topic: topic.to_owned(), payload: b"x".to_vec(), qos: Qos::AtLeastOnce }
    }

    #[test]
    fn a_message_is_taken_once_whether_it_came_before_or_after() {
        let mut inbox = Inbox::default();
        inbox.add(message("before"));
        assert!(inbox.take("before").wait(Duration::ZERO).is_some());
        assert!(inbox.take("before").wait(Duration::ZERO).is_none());
        let after = inbox.take("after");
        inbox.add(message("after"));
        assert!(after.wait(Duration::ZERO).is_some());
        assert!(inbox.take("after").wait(Duration::ZERO).is_none());
    }

    #[test]
    fn who_gave_up_waiting_takes_nothing_away() {
        let mut inbox = Inbox::default();
        drop(inbox.take("t"));
        let waiting = inbox.take("t");
        inbox.add(message("t"));
        assert!(waiting.wait(Duration::ZERO).is_some());
        assert_eq!((inbox.count(), inbox.received().len()), (1, 1));
    }
}
