//! The links: one driver a file, each a task of its own behind two bounded channels.
//!
//! A driver connects, subscribes and retries; it decides nothing about a message. A message that
//! finds the event channel full makes it stop reading for a while, then drop the connection, so that
//! the broker delivers again what was not acknowledged; results and changes of the link are kept in
//! order. It takes commands all the same, and who sends one may wait for it.

pub mod greengrass;
pub mod mqtt;
mod outlet;
pub mod pubsub;
mod streams;
pub mod tls;

use tokio::sync::mpsc;

use crate::wire::Mid;

/// Which connection of a link, counted from 1; a new one for each CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConnectionId(pub u64);

/// The right to acknowledge one message, on the connection that it came on and on no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// The connection.
    pub connection: ConnectionId,
    /// The driver's number for the message on that connection.
    pub number: u64,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload, of any size that the driver lets through.
    pub payload: Vec<u8>,
    /// It may have been delivered before.
    pub dup: bool,
    /// The broker kept it for new subscribers.
    pub retain: bool,
    /// How to acknowledge it; `None`: it needs no acknowledgement.
    pub delivery: Option<Delivery>,
}

/// How surely a message is to be delivered to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// At most once; not queued for who is absent.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
}

/// A message to send. Never retained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Which message, for [`LinkEvent::Sent`].
    pub mid: Mid,
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// How surely.
    pub qos: Qos,
}

/// What a link is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkCommand {
    /// Send a message.
    Publish(Publish),
    /// From now on so many messages may be unconfirmed: for a link to which a yes is no confirmation.
    Unconfirmed(usize),
    /// Acknowledge a message; nothing happens if its connection is over.
    Ack(Delivery),
    /// Drop the connection and make a new one, so that the broker delivers again; over a nucleus,
    /// which delivers nothing again: subscribe anew.
    Reconnect,
    /// Subscribe once more to everything, and only then close the subscriptions that there were: a
    /// nucleus may have lost one. A broker does not; nothing happens there.
    Renew,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection, or it broke before the broker answered.
    #[error("the link is down")]
    Offline,
    /// It is over a limit of the link, which will not change.
    #[error("the link refuses it")]
    Refused,
}

/// What a link reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is connected and has subscribed (every subscription was granted).
    Up {
        /// The new connection.
        connection: ConnectionId,
        /// The broker had kept our session.
        session_present: bool,
    },
    /// It is not connected, or could not connect. Reported once for each connection that ends and
    /// for each attempt that fails.
    Down {
        /// For people: what the broker or the network said. Escaped, no secrets.
        why: String,
    },
    /// A message came.
    Message(Message),
    /// Messages that need no acknowledgement came faster than they were read, and were dropped.
    Shed {
        /// How many since this was last reported.
        count: u64,
    },
    /// What became of a [`LinkCommand::Publish`]; exactly one for each. At QoS 1: the broker
    /// acknowledged it. At QoS 0: it was written.
    Sent {
        /// Which.
        mid: Mid,
        /// What became of it.
        outcome: Result<(), SendError>,
    },
}

/// The two ends of a running link. Dropping it ends the link.
#[derive(Debug)]
pub struct Link {
    /// Where commands go.
    pub commands: mpsc::Sender<LinkCommand>,
    /// Where events come from.
    pub events: mpsc::Receiver<LinkEvent>,
}
