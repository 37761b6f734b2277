//! The classic nucleus' spool: what waits in its memory for the cloud. Pure.
//!
//! Only payload bytes count. A message counts until it is acknowledged.

use std::collections::{BTreeMap, VecDeque};

use crate::{Message, Qos};

/// How many payload bytes fit.
pub(super) const CAPACITY: usize = 5 << 19;

/// How many messages of QoS 1 may be under way to the cloud.
const IN_FLIGHT: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Spool {
    queue: VecDeque<Message>,
    in_flight: BTreeMap<u64, Message>,
    bytes: usize,
}

impl Spool {
    /// Adds a message. One that finds no room drives those of QoS 0 out first.
    pub fn add(&mut self, message: Message) -> Result<(), &'static str> {
        let size = message.payload.len();
        if size > CAPACITY {
            return Err("Message is larger than the size of message spool.");
        }
        while self.bytes + size > CAPACITY {
            let lesser = self.queue.iter().position(|m| m.qos == Qos::AtMostOnce);
            let Some(dropped) = lesser.and_then(|at| self.queue.remove(at)) else {
                return Err("Message spool is full. Message could not be added.");
            };
            self.bytes -= dropped.payload.len();
        }
        self.bytes += size;
        self.queue.push_back(message);
        Ok(())
    }

    /// The next message to send, under the number `id`, if one may be sent now.
    pub fn next(&mut self, id: u64) -> Option<Message> {
        if self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        let message = self.queue.pop_front()?;
        if message.qos == Qos::AtLeastOnce {
            self.in_flight.insert(id, message.clone());
        } else {
            self.bytes -= message.payload.len();
        }
        Some(message)
    }

    /// A message arrived. Says whether it was one of these.
    pub fn acknowledge(&mut self, id: u64) -> bool {
        let Some(message) = self.in_flight.remove(&id) else { return false };
        self.bytes -= message.payload.len();
        true
    }

    /// The link broke: what was under way goes first next time, QoS 0 goes for good.
    pub fn interrupt(&mut self) {
        for message in std::mem::take(&mut self.in_flight).into_values().rev() {
            self.queue.push_front(message);
        }
        self.queue.retain(|message| message.qos == Qos::AtLeastOnce);
        self.bytes = self.queue.iter().map(|message| message.payload.len()).sum();
    }

    /// How many messages are in it.
    pub fn len(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(qos: Qos, size: usize) -> Message {
        Message { topic: "t".to_owned(), payload: vec![0; size], qos }
    }

    #[test]
    fn it_is_bounded_and_prefers_qos_1() {
        let mut spool = Spool::default();
        assert!(spool.add(message(Qos::AtLeastOnce, CAPACITY + 1)).is_err());
        assert_eq!(spool.add(message(Qos::AtMostOnce, CAPACITY)), Ok(()));
        assert_eq!(spool.add(message(Qos::AtLeastOnce, CAPACITY)), Ok(()));
        assert_eq!(spool.len(), 1);
        let why = spool.add(message(Qos::AtMostOnce, 1)).unwrap_err();
        assert_eq!(why, "Message spool is full. Message could not be added.");
    }

    #[test]
    fn a_message_takes_room_until_it_is_acknowledged() {
        let mut spool = Spool::default();
        spool.add(message(Qos::AtLeastOnce, CAPACITY)).unwrap();
        assert!(spool.next(7).is_some());
        assert!(spool.add(message(Qos::AtLeastOnce, 1)).is_err());
        assert!(spool.acknowledge(7));
        assert_eq!(spool.add(message(Qos::AtLeastOnce, 1)), Ok(()));
    }

    #[test]
    fn what_was_under_way_when_the_link_broke_goes_first_and_in_order() {
        let mut spool = Spool::default();
        for size in 1..=7 {
            spool.add(message(Qos::AtLeastOnce, size)).unwrap();
        }
        let sent: Vec<usize> =
            (0..7).filter_map(|id| spool.next(id)).map(|m| m.payload.len()).collect();
        assert_eq!(sent, [1, 2, 3, 4, 5]);
        spool.acknowledge(0);
        spool.interrupt();
        let sent: Vec<usize> =
            (8..20).filter_map(|id| spool.next(id)).map(|m| m.payload.len()).collect();
        assert_eq!(sent, [2, 3, 4, 5, 6]);
    }
}
