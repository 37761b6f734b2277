//! The connection to the local broker, its barrier, and how much may be handed to it.
//!
//! The barrier: after each connect a nonce goes through the broker and back. What the broker had
//! queued before comes before it, so what comes after it was sent while this connection stood.

use std::{collections::HashMap, time::Duration};

use super::{
    child::new_mid,
    event::{Content, Effect, Outgoing, Side},
    from_child::Arrival,
    pace::Recent,
};
use crate::{
    links::{ConnectionId, Message, Qos},
    schedule::Tick,
    wire::{Mid, ThingName, barrier_topic},
};

/// A barrier that did not come back in this time is sent again.
const BARRIER_RETURNS: Duration = Duration::from_secs(30);

/// So many messages to the local broker may be unanswered.
pub(super) const WINDOW: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Local {
    connection: Option<Connection>,
    /// The copies that nothing has answered, and whose they are.
    pub out: HashMap<Mid, ThingName>,
    /// The messages that went to the floor lately; one that comes back from the cloud is a loop.
    pub recent: Recent,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    barrier: Barrier,
}

#[derive(Debug)]
enum Barrier {
    /// To be sent then.
    Due(Tick),
    /// Sent, and not come back.
    Sent { nonce: Mid, at: Tick },
    /// Come back.
    Passed,
}

impl Local {
    pub fn on_connected(&mut self, id: ConnectionId, now: Tick) {
        self.connection = Some(Connection { id, barrier: Barrier::Due(now) });
    }

    pub fn on_disconnected(&mut self) {
        self.connection = None;
    }

    /// The connection that a message may go out on now.
    pub fn free(&self) -> Option<ConnectionId> {
        let connection = self.connection.as_ref()?;
        (self.out.len() < WINDOW).then_some(connection.id)
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether what comes now was sent while the connection stood.
    pub fn is_past_barrier(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| matches!(c.barrier, Barrier::Passed))
    }

    /// Whether the message was surely sent while the connection stood.
    pub fn arrival(&self, message: &Message) -> Arrival {
        match &self.connection {
            Some(Connection { id, barrier: Barrier::Passed })
                if !message.dup && !message.retain =>
            {
                Arrival::Live(*id)
            }
            _ => Arrival::Maybe,
        }
    }

    /// A message came on the barrier's topic.
    pub fn on_barrier(&mut self, message: &Message) {
        let nonce = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
        if let Some(connection) = &mut self.connection
            && let Barrier::Sent { nonce: sent, .. } = connection.barrier
            && nonce == Some(sent)
            && !message.retain
        {
            connection.barrier = Barrier::Passed;
        }
    }

    /// Sends the barrier if it is time.
    pub fn on_time(
        &mut self,
        now: Tick,
        core: &ThingName,
        rng: &mut fastrand::Rng,
    ) -> Option<Effect> {
        if self.next_wakeup()? > now {
            return None;
        }
        let nonce = new_mid(rng);
        self.connection.as_mut()?.barrier = Barrier::Sent { nonce, at: now };
        Some(Effect::Publish(
            Side::Local,
            Outgoing {
                copy: nonce,
                topic: barrier_topic(core),
                qos: Qos::AtLeastOnce,
                content: Content::Ready(nonce.to_string().into_bytes()),
            },
        ))
    }

    /// When [`Self::on_time`] has something to do.
    pub fn next_wakeup(&self) -> Option<Tick> {
        match self.connection.as_ref()?.barrier {
            Barrier::Due(at) => Some(at),
            Barrier::Sent { at, .. } => Some(at + BARRIER_RETURNS),
            Barrier::Passed => None,
        }
    }
}
