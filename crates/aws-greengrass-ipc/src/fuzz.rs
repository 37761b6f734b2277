//! Any bytes as a nucleus: through the decoder and to those who wait. For the fuzz target and the
//! tests; needs no socket.
//!
//! Panics when an invariant does not hold: what is held is bounded, and in the end everyone knows.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    connection::receive,
    demux::{Answer, Control, Demux, End, Subscriber, Ticket, Waiter},
    error::ConnectError,
    options::QueueLimits,
    queue::Queue,
    wire::{Decoder, Message},
};

const CAP: usize = 2048;

const LIMITS: QueueLimits = QueueLimits { events: 4, bytes: 1024 };

const RESPONSE: &str = "aws.greengrass#SubscribeToIoTCoreResponse";

const EVENT: &str = "aws.greengrass#IoTCoreMessage";

/// The bytes as they come over the socket, in pieces of the first byte's size.
pub fn bytes(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let piece = usize::from(piece) + 1;
    let mut crowd = Crowd::new();
    let mut decoder = Decoder::new(CAP);
    for bytes in bytes.chunks(piece) {
        decoder.push(bytes);
        let outcome = receive(&mut decoder, &mut crowd.demux);
        assert!(decoder.held() <= 2 * (CAP + piece));
        crowd.check();
        if outcome.is_err() {
            break;
        }
    }
    crowd.close();
}

/// The bytes as messages in valid frames: each begins with its length, type, flags, stream and model.
pub fn messages(mut bytes: &[u8]) {
    let mut crowd = Crowd::new();
    while let [length, kind, flags, stream, model, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let headers = [i32::from(*kind) % 10, i32::from(*flags), i32::from(*stream) % 8];
        let model = [None, Some(RESPONSE), Some(EVENT), Some("other")][usize::from(*model) % 4];
        if crowd.take(headers, model, payload).is_err() {
            break;
        }
        crowd.check();
    }
    crowd.close();
}

/// Calls and subscriptions on streams 1 to 4; one who has gone on stream 5, one not written.
struct Crowd {
    demux: Demux,
    queue: Arc<Queue>,
    calls: Vec<oneshot::Receiver<Answer>>,
    ends: Vec<(Ticket, oneshot::Receiver<End>)>,
}

impl Crowd {
    fn new() -> Self {
        let queue = Arc::new(Queue::new(LIMITS));
        let (calls, ends) = (Vec::new(), Vec::new());
        let mut crowd = Self { demux: Demux::new(1), queue, calls, ends };
        for _ in 0..2 {
            let (call, subscription) = (crowd.call(), crowd.subscribe());
            crowd.open(call);
            crowd.open(subscription);
        }
        let gone = crowd.subscribe();
        crowd.open(gone);
        crowd.demux.leave(gone);
        assert_eq!(crowd.demux.control(), Some(Control::Terminate(5)));
        crowd.call();
        crowd
    }

    fn call(&mut self) -> Ticket {
        let (answer, answered) = oneshot::channel();
        self.calls.push(answered);
        self.demux.enter(Waiter::Call { response: RESPONSE, answer })
    }

    fn subscribe(&mut self) -> Ticket {
        let (end, ended) = oneshot::channel();
        let (began, queue) = (Some(oneshot::channel().0), Arc::clone(&self.queue));
        let subscriber = Subscriber { response: RESPONSE, event: EVENT, queue, began, end };
        let ticket = self.demux.enter(Waiter::Subscription(subscriber));
        self.ends.push((ticket, ended));
        ticket
    }

    fn open(&mut self, ticket: Ticket) {
        assert!(matches!(self.demux.open(ticket), Ok(Some(_))));
    }

    fn take(
        &mut self,
        headers: [i32; 3],
        model: Option<&str>,
        payload: &[u8],
    ) -> Result<(), ConnectError> {
        let mut decoder = Decoder::new(CAP);
        decoder.push(&crate::wire::frame_for_tests(headers, model, payload));
        let frame = decoder.frame()?.expect("the frame is complete");
        self.demux.receive(Message::read(frame)?)
    }

    fn check(&self) {
        let (items, bytes) = self.queue.held();
        assert!(bytes <= LIMITS.bytes && items <= 5 * LIMITS.events);
        assert!(self.demux.held() <= 5);
    }

    fn close(mut self) {
        for (ticket, _) in &self.ends[..1] {
            self.demux.leave(*ticket);
        }
        self.demux.close();
        assert_eq!((self.demux.held(), self.demux.has_control()), (0, false));
        for mut call in self.calls {
            assert_ne!(call.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        for (_, mut end) in self.ends {
            assert_ne!(end.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn whatever_a_nucleus_sends_nothing_panics_and_everyone_is_told(
            bytes in vec(any::<u8>(), 0..400),
        ) {
            super::bytes(&bytes);
            super::messages(&bytes);
        }
    }
}
