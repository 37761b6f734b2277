//! Where a driver puts its events: the bounded channel to the reader, and what to do when it is full.
//!
//! Results and changes of the link are never lost and never waited for: what finds no room waits in
//! order, and goes before anything newer. That queue is bounded by the reader itself: it holds one
//! result for each publish that was commanded without reading events, and a driver does not connect
//! again before it is empty. A message that finds no room is shed if nobody acknowledges it; for
//! another the driver may wait, with a deadline. Half of the channel is kept from messages that are
//! not acknowledged, so that a flood of them does not stop the others.

#![expect(clippy::disallowed_methods, reason = "a driver waits for a slow reader, for a while")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{
        Notify,
        mpsc::{Receiver, Sender, error::TrySendError},
    },
    time::timeout,
};

use super::{LinkCommand, LinkEvent, Message};

/// The reader made no room for a message that must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun;

/// The driver's end of the event channel.
#[derive(Debug)]
pub(super) struct Outlet {
    sender: Sender<LinkEvent>,
    late: Mutex<Late>,
    added: Notify,
    drained: Notify,
}

/// What found no room.
#[derive(Debug, Default)]
struct Late {
    events: VecDeque<LinkEvent>,
    shed: u64,
}

impl Outlet {
    pub(super) fn new(sender: Sender<LinkEvent>) -> Self {
        let (added, drained) = (Notify::new(), Notify::new());
        Self { sender, late: Mutex::default(), added, drained }
    }

    /// Reports what must not be lost.
    pub(super) fn report(&self, event: LinkEvent) {
        let mut late = self.late();
        self.report_shed(&mut late);
        if late.events.is_empty() {
            match self.sender.try_send(event) {
                Err(TrySendError::Full(event)) => late.events.push_back(event),
                Ok(()) | Err(TrySendError::Closed(_)) => return,
            }
        } else {
            late.events.push_back(event);
        }
        self.added.notify_one();
    }

    /// Hands a message over at once, or sheds it, or gives it back for want of room.
    pub(super) fn offer(&self, message: Message) -> Result<(), Box<Message>> {
        let mut late = self.late();
        self.report_shed(&mut late);
        let is_acknowledged = message.delivery.is_some();
        let has_room = late.events.is_empty() && (is_acknowledged || self.is_half_empty());
        let message = match has_room.then(|| self.sender.try_reserve()) {
            Some(Ok(room)) => {
                room.send(LinkEvent::Message(message));
                return Ok(());
            }
            Some(Err(TrySendError::Closed(()))) => return Ok(()),
            Some(Err(TrySendError::Full(()))) | None => message,
        };
        if is_acknowledged {
            return Err(Box::new(message));
        }
        late.shed += 1;
        Ok(())
    }

    /// As [`Outlet::offer`], but waits for room until `patience` is over.
    pub(super) async fn hand_over(
        &self,
        message: Message,
        patience: Duration,
    ) -> Result<(), Overrun> {
        let Err(mut message) = self.offer(message) else { return Ok(()) };
        let waiting = async {
            loop {
                self.drained().await;
                // Room that the reader made; it is free again when the next offer is made.
                drop(self.sender.reserve().await);
                match self.offer(*message) {
                    Ok(()) => return,
                    Err(again) => message = again,
                }
            }
        };
        timeout(patience, waiting).await.map_err(|_| Overrun)
    }

    /// Counts messages that the driver itself had to shed.
    pub(super) fn shed(&self, count: u64) {
        self.late().shed += count;
    }

    /// Moves what waits into the channel as the reader makes room.
    pub(super) async fn pump(&self) -> Infallible {
        loop {
            self.added.notified().await;
            while !self.late().events.is_empty() {
                let Ok(room) = self.sender.reserve().await else { return pending().await };
                let mut late = self.late();
                if let Some(event) = late.events.pop_front() {
                    room.send(event);
                }
            }
            self.drained.notify_one();
        }
    }

    /// Waits until nothing waits.
    pub(super) async fn drained(&self) {
        while !self.late().events.is_empty() {
            self.drained.notified().await;
        }
    }

    /// Waits until the reader is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    fn report_shed(&self, late: &mut Late) {
        if late.shed > 0 && late.events.is_empty() && self.is_half_empty() {
            let event = LinkEvent::Shed { count: late.shed };
            if self.sender.try_send(event).is_ok() {
                late.shed = 0;
            }
        }
    }

    fn is_half_empty(&self) -> bool {
        self.sender.capacity() * 2 > self.sender.max_capacity()
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commands, until either end of the [`Link`](super::Link) is dropped.
pub(super) struct Commands<'a> {
    commands: Receiver<LinkCommand>,
    outlet: &'a Outlet,
}

impl<'a> Commands<'a> {
    pub(super) fn new(commands: Receiver<LinkCommand>, outlet: &'a Outlet) -> Self {
        Self { commands, outlet }
    }

    pub(super) async fn next(&mut self) -> Option<LinkCommand> {
        tokio::select! {
            biased;
            command = self.commands.recv() => command,
            () = self.outlet.closed() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::{
        links::{ConnectionId, Delivery},
        wire::Mid,
    };

    fn outlet(capacity: usize) -> (Outlet, Receiver<LinkEvent>) {
        let (sender, events) = channel(capacity);
        (Outlet::new(sender), events)
    }

    fn message(is_acknowledged: bool) -> Message {
        let delivery = Delivery { connection: ConnectionId(1), number: 1 };
        let (topic, payload) = ("a".to_owned(), Vec::new());
        let delivery = is_acknowledged.then_some(delivery);
        Message { topic, payload, dup: false, retain: false, delivery }
    }

    fn sent(number: u8) -> LinkEvent {
        LinkEvent::Sent { mid: Mid([number; 16]), outcome: Ok(()) }
    }

    #[tokio::test]
    async fn results_that_find_no_room_come_in_order_when_there_is_some() {
        let (outlet, mut events) = outlet(2);
        (0..100).for_each(|number| outlet.report(sent(number)));
        let read = async {
            for number in 0..100 {
                assert_eq!(events.recv().await, Some(sent(number)));
            }
            outlet.drained().await;
        };
        tokio::select! { never = outlet.pump() => match never {}, () = read => {} }
    }

    #[test]
    fn nothing_passes_a_result_that_waits() {
        let (outlet, mut events) = outlet(1);
        outlet.report(sent(0));
        outlet.report(sent(1));
        events.try_recv().expect("the first result");
        assert!(outlet.offer(message(true)).is_err());
    }

    #[test]
    fn a_flood_of_unacknowledged_messages_leaves_room_for_the_others_and_is_counted() {
        let (outlet, mut events) = outlet(8);
        for _ in 0..100 {
            assert_eq!(outlet.offer(message(false)), Ok(()));
        }
        assert_eq!(outlet.offer(message(true)), Ok(()));
        let read = std::iter::from_fn(|| events.try_recv().ok()).count();
        assert_eq!(read, 5);
        outlet.report(sent(0));
        assert_eq!(events.try_recv(), Ok(LinkEvent::Shed { count: 96 }));
        assert_eq!(events.try_recv(), Ok(sent(0)));
    }

    #[test]
    fn a_reader_that_is_gone_stops_nobody() {
        let (outlet, events) = outlet(1);
        drop(events);
        outlet.report(sent(0));
        assert_eq!(outlet.offer(message(true)), Ok(()));
    }
}
