//! Who waits for what on one connection: gives streams their numbers, and messages to who waits.
//!
//! Pure: no socket, no clock, no task. Invariants: numbers are given in order and without gaps, at
//! the moment when a request is written; one who waits is told exactly once, or has gone; nobody is
//! kept who has gone. A stream that the nucleus has ended is never terminated. What is kept grows
//! with those who wait alone, whatever the nucleus sends.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    error::{ConnectError, Refusal},
    queue::Queue,
    text,
    wire::{Kind, Message, StreamId},
};

/// Names one who waits, before and after a stream has been opened for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// What became of a call.
pub(crate) type Answer = Result<Vec<u8>, Failure>;

/// Why a call has no answer that its operation can read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NotWritten,
    Lost,
    Refused(Refusal),
    Malformed(String),
}

/// How a subscription ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It never began.
    Refused(Refusal),
    /// The nucleus ended it.
    Ended(Option<Refusal>),
    /// With its connection.
    Lost,
}

/// One who waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    Call { response: &'static str, answer: oneshot::Sender<Answer> },
    Subscription(Subscriber),
}

/// One who waits for events.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub response: &'static str,
    pub event: &'static str,
    pub queue: Arc<Queue>,
    /// Told when the nucleus says yes; it is gone after that.
    pub began: Option<oneshot::Sender<()>>,
    pub end: oneshot::Sender<End>,
}

/// What the writer has to write before any request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Terminate(StreamId),
    Pong(Vec<u8>),
}

/// Who waits on one connection.
#[derive(Debug)]
pub(crate) struct Demux {
    generation: u64,
    is_closed: bool,
    tickets: u64,
    last_stream: StreamId,
    unwritten: HashMap<Ticket, Waiter>,
    open: HashMap<StreamId, (Ticket, Waiter)>,
    streams: HashMap<Ticket, StreamId>,
    terminate: Vec<StreamId>,
    pong: Option<Vec<u8>>,
}

impl Demux {
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            is_closed: false,
            tickets: 0,
            last_stream: 0,
            unwritten: HashMap::new(),
            open: HashMap::new(),
            streams: HashMap::new(),
            terminate: Vec::new(),
            pong: None,
        }
    }

    /// Someone waits. On a connection that is over it is told so at once.
    pub fn enter(&mut self, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if self.is_closed {
            waiter.tell_unwritten();
        } else {
            self.unwritten.insert(ticket, waiter);
        }
        ticket
    }

    /// The number for the request that is written now; `None`: nobody waits for it any more.
    pub fn open(&mut self, ticket: Ticket) -> Result<Option<StreamId>, ConnectError> {
        let Some(waiter) = self.unwritten.remove(&ticket) else { return Ok(None) };
        let Some(stream) = self.last_stream.checked_add(1) else {
            waiter.tell_unwritten();
            return Err(ConnectError::StreamsExhausted);
        };
        self.last_stream = stream;
        self.open.insert(stream, (ticket, waiter));
        self.streams.insert(ticket, stream);
        Ok(Some(stream))
    }

    /// Someone has gone. A subscription is ended at the nucleus, unless the nucleus has ended it.
    pub fn leave(&mut self, ticket: Ticket) {
        self.unwritten.remove(&ticket);
        let Some(stream) = self.streams.remove(&ticket) else { return };
        let gone = self.open.remove(&stream);
        // The nucleus ends the stream of a call with its answer, which may be on its way.
        if let Some((_, Waiter::Subscription(_))) = gone {
            self.terminate.push(stream);
        }
    }

    /// What is to be written next.
    pub fn control(&mut self) -> Option<Control> {
        let stream = self.terminate.pop();
        stream.map(Control::Terminate).or_else(|| self.pong.take().map(Control::Pong))
    }

    /// Whether something is to be written.
    pub fn has_control(&self) -> bool {
        !self.terminate.is_empty() || self.pong.is_some()
    }

    /// Gives a message to who waits for it; an error ends the connection.
    pub fn receive(&mut self, message: Message<'_>) -> Result<(), ConnectError> {
        match message.kind {
            Kind::Application => self.application(message),
            Kind::ApplicationError => self.refusal(message),
            // One answer to several pings does: a flood of them must not pile up.
            Kind::Ping => self.pong = Some(message.payload.to_vec()),
            Kind::PingResponse => (),
            Kind::ProtocolError | Kind::InternalError => {
                return Err(ConnectError::aborted(message.payload));
            }
            Kind::Connect => return Err(ConnectError::out_of_place("CONNECT")),
            Kind::ConnectAck { .. } => return Err(ConnectError::out_of_place("CONNECT_ACK")),
        }
        Ok(())
    }

    /// The connection is over: everyone is told.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.unwritten.drain().for_each(|(_, waiter)| waiter.tell_unwritten());
        self.open.drain().for_each(|(_, (_, waiter))| waiter.tell_lost());
        self.streams.clear();
        self.terminate.clear();
        self.pong = None;
    }

    /// How many wait.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn held(&self) -> usize {
        assert_eq!(self.open.len(), self.streams.len());
        self.unwritten.len() + self.open.len()
    }

    fn application(&mut self, message: Message<'_>) {
        let generation = self.generation;
        let is_over = match self.open.get_mut(&message.stream) {
            // Late, or for one who has gone.
            None => return,
            Some((_, Waiter::Call { .. })) => true,
            Some((_, Waiter::Subscription(subscriber))) => {
                subscriber.receive(message, generation);
                message.is_last
            }
        };
        if is_over && let Some(waiter) = self.take(message.stream) {
            waiter.tell_answer(message);
        }
    }

    fn refusal(&mut self, message: Message<'_>) {
        if let Some(waiter) = self.take(message.stream) {
            waiter.tell_refusal(Refusal::read(message.model, message.payload));
        }
    }

    fn take(&mut self, stream: StreamId) -> Option<Waiter> {
        let (ticket, waiter) = self.open.remove(&stream)?;
        self.streams.remove(&ticket);
        Some(waiter)
    }
}

impl Subscriber {
    /// A lite nucleus may send an event before the answer: only the type tells them apart.
    fn receive(&mut self, message: Message<'_>, generation: u64) {
        match message.model {
            Some(model) if model == self.event => self.queue.event(message.payload),
            Some(model) if model != self.response => self.queue.count_shed(),
            None if message.is_last => (),
            _ => self.begin(generation),
        }
    }

    fn begin(&mut self, generation: u64) {
        if let Some(began) = self.began.take() {
            self.queue.activate(generation);
            let _ = began.send(());
        }
    }
}

/// Who has gone meanwhile is not told: so the results of sending are nobody's business here.
impl Waiter {
    fn tell_answer(self, message: Message<'_>) {
        match self {
            Self::Call { response, answer } => {
                let _ = answer.send(check(message, response));
            }
            Self::Subscription(subscriber) => {
                let _ = subscriber.end.send(End::Ended(None));
            }
        }
    }

    fn tell_refusal(self, refusal: Refusal) {
        match self {
            Self::Call { answer, .. } => {
                let _ = answer.send(Err(Failure::Refused(refusal)));
            }
            Self::Subscription(Subscriber { began: Some(_), end, .. }) => {
                let _ = end.send(End::Refused(refusal));
            }
            Self::Subscription(Subscriber { began: None, end, .. }) => {
                let _ = end.send(End::Ended(Some(refusal)));
            }
        }
    }

    fn tell_lost(self) {
        self.tell_broken(Failure::Lost);
    }

    fn tell_unwritten(self) {
        self.tell_broken(Failure::NotWritten);
    }

    fn tell_broken(self, failure: Failure) {
        match self {
            Self::Call { answer, .. } => {
                let _ = answer.send(Err(failure));
            }
            Self::Subscription(subscriber) => {
                let _ = subscriber.end.send(End::Lost);
            }
        }
    }
}

/// The payload of an answer, if it is one. A lite nucleus gives some answers without a type.
fn check(message: Message<'_>, response: &str) -> Answer {
    match message.model {
        Some(model) if model != response => Err(Failure::Malformed(format!(
            "it is of the type {} instead of {response}",
            text::clean(model)
        ))),
        _ => Ok(message.payload.to_vec()),
    }
}

#[cfg(test)]
mod tests;
