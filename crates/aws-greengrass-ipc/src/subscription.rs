//! Subscriptions that outlive connections.
//!
//! Each has a task that asks for it on every connection, and again when it was refused or ended, and
//! a queue that the connection fills. Invariant: at most one stream is open for it. Dropping the
//! subscription ends the task, and that ends the stream.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    connection::Names,
    demux::{End, Subscriber},
    error::{CallError, Refusal},
    model::StreamingOperation,
    options::{Backoff, QueueLimits, Timeouts},
    queue::{Inactive, Item, Queue},
    state::Nucleus,
    supervisor::{Connected, body},
    text,
};

/// The pauses between attempts to subscribe on one connection.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// What a subscription reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<E> {
    /// The nucleus has said yes; events come from now on. Between two of these is always an
    /// [`Update::Inactive`]: events may have been missed.
    Active {
        /// The connection that it is on.
        generation: u64,
    },
    /// An event. A lite nucleus may send one before it says yes.
    Event(E),
    /// No events come until the next [`Update::Active`]. Of several reasons that nobody has read,
    /// only the last is kept.
    Inactive(Inactive),
}

/// Events of a nucleus, over all connections. It must be read: what finds no room in its queue is
/// shed, so that one slow reader never holds up the nucleus.
///
/// Dropping it ends it at the nucleus. A classic nucleus must not get the same MQTT filter again
/// before its unsubscribe is through (some seconds): it would answer yes and deliver nothing. So
/// don't drop a subscription and make the same one at once: drop, wait, subscribe. After a broken
/// connection the subscription itself waits so long,
/// [`Timeouts::unsubscribe`](crate::Timeouts::unsubscribe).
#[derive(Debug)]
pub struct Subscription<E> {
    queue: Arc<Queue>,
    decode: fn(&[u8]) -> serde_json::Result<E>,
    task: JoinHandle<()>,
}

impl<E> Subscription<E> {
    /// Waits for the next update. Nothing is lost when this is dropped half way.
    pub async fn next(&mut self) -> Update<E> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for the next update.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Update<E>> {
        loop {
            let update = match std::task::ready!(self.queue.poll(cx)) {
                Item::Active { generation } => Update::Active { generation },
                Item::Inactive(why) => Update::Inactive(why),
                Item::Event(payload) => match self.read(&payload) {
                    Some(event) => Update::Event(event),
                    None => continue,
                },
            };
            return Poll::Ready(update);
        }
    }

    /// How many events were shed so far: because the queue was full, or because they could not be
    /// read (which is logged).
    pub fn shed(&self) -> u64 {
        self.queue.shed()
    }

    fn read(&self, payload: &[u8]) -> Option<E> {
        let event = (self.decode)(payload);
        event
            .inspect_err(|error| {
                let error = text::clean(&error.to_string());
                tracing::warn!(error, "the nucleus sent an event that can't be read");
                self.queue.count_shed();
            })
            .ok()
    }
}

impl<E> Drop for Subscription<E> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every subscription of a client needs.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub runtime: Handle,
    pub links: watch::Receiver<Option<Connected>>,
    pub limits: QueueLimits,
    pub timeouts: Timeouts,
}

/// Begins a subscription.
pub(crate) fn subscribe<O: StreamingOperation>(
    surroundings: &Surroundings,
    operation: &O,
) -> Subscription<O::Event> {
    let queue = Arc::new(Queue::new(surroundings.limits));
    let keeper = Keeper {
        names: O::NAMES,
        event: O::EVENT,
        is_on_lite: O::IS_ON_LITE,
        payload: body(operation),
        queue: Arc::clone(&queue),
        links: surroundings.links.clone(),
        patience: surroundings.timeouts.subscribe,
        lingers: if O::LINGERS { surroundings.timeouts.unsubscribe } else { Duration::ZERO },
    };
    let task = surroundings.runtime.spawn(keeper.run());
    Subscription { queue, decode, task }
}

fn decode<E: DeserializeOwned>(payload: &[u8]) -> serde_json::Result<E> {
    serde_json::from_slice(payload)
}

/// Asks for a subscription again and again.
struct Keeper {
    names: Names,
    event: &'static str,
    is_on_lite: bool,
    payload: Vec<u8>,
    queue: Arc<Queue>,
    links: watch::Receiver<Option<Connected>>,
    /// For the nucleus to answer.
    patience: Duration,
    /// For a classic nucleus to forget what has ended.
    lingers: Duration,
}

impl Keeper {
    async fn run(mut self) {
        let mut past = Past { used_up: 0, attempts: 0, forgotten: Instant::now() };
        while let Some(connected) = self.connection_after(past.used_up).await {
            let Connected { generation, nucleus, .. } = connected;
            if self.ends_within(past.lingers(nucleus), generation).await {
                continue;
            }
            let begun = Instant::now();
            let why = self.ask(&connected).await;
            let pause = past.learn(&why, generation, begun, self.lingers);
            self.queue.deactivate(why);
            self.ends_within(pause, generation).await;
        }
    }

    /// The first connection after that one; `None`: the client has ended.
    async fn connection_after(&mut self, generation: u64) -> Option<Connected> {
        let is_later = |link: &Option<Connected>| {
            link.as_ref().is_some_and(|connected| connected.generation > generation)
        };
        self.links.wait_for(is_later).await.ok()?.clone()
    }

    /// Waits, but not longer than that connection lasts; whether it has ended.
    async fn ends_within(&mut self, pause: Duration, generation: u64) -> bool {
        let is_another = |link: &Option<Connected>| {
            link.as_ref().is_none_or(|connected| connected.generation != generation)
        };
        timeout(pause, self.links.wait_for(is_another)).await.is_ok()
    }

    /// Asks on this connection, and returns when there are no events any more.
    async fn ask(&self, connected: &Connected) -> Inactive {
        if let Err(error) = connected.check_size(self.names, self.payload.len()) {
            return Inactive::Refused(error);
        }
        let (began, has_begun) = oneshot::channel();
        let (end, has_ended) = oneshot::channel();
        let asking = async {
            let open = self.open(connected, began, end).await;
            // A sender that is gone has ended without a beginning.
            let _ = has_begun.await;
            open
        };
        let Ok(_open) = timeout(self.patience, asking).await else {
            return Inactive::Refused(CallError::TimedOut);
        };
        self.explain(has_ended.await.unwrap_or(End::Lost))
    }

    async fn open(
        &self,
        connected: &Connected,
        began: oneshot::Sender<()>,
        end: oneshot::Sender<End>,
    ) -> crate::connection::Open {
        let subscriber = Subscriber {
            response: self.names.response,
            event: self.event,
            queue: Arc::clone(&self.queue),
            began: Some(began),
            end,
        };
        connected.link.subscribe(self.names, self.payload.clone(), subscriber).await
    }

    fn explain(&self, end: End) -> Inactive {
        let error = |refusal: Refusal| refusal.into_error(self.is_on_lite);
        match end {
            End::Refused(refusal) => Inactive::Refused(error(refusal)),
            End::Ended(refusal) => Inactive::Ended(refusal.map(error)),
            End::Lost => Inactive::ConnectionLost,
        }
    }
}

/// What counts of the attempts so far.
struct Past {
    /// The last connection on which it makes no sense to ask again.
    used_up: u64,
    /// So many have failed in a row.
    attempts: u32,
    /// When a classic nucleus has forgotten what has ended.
    forgotten: Instant,
}

impl Past {
    /// How long not to ask, lest the unsubscribe of the last stream hits the next one.
    fn lingers(&self, nucleus: Nucleus) -> Duration {
        match nucleus {
            Nucleus::Classic => self.forgotten.saturating_duration_since(Instant::now()),
            Nucleus::Lite => Duration::ZERO,
        }
    }

    /// Takes in how an attempt ended; how long to wait before the next on the same connection.
    fn learn(
        &mut self,
        why: &Inactive,
        generation: u64,
        begun: Instant,
        lingers: Duration,
    ) -> Duration {
        let now = Instant::now();
        if now - begun > RETRY.longest {
            self.attempts = 0;
        }
        if was_granted(why) {
            self.forgotten = now + lingers;
        }
        if is_final(why) {
            (self.used_up, self.attempts) = (generation, 0);
            return Duration::ZERO;
        }
        self.attempts = self.attempts.saturating_add(1);
        RETRY.pause(self.attempts - 1)
    }
}

/// Whether the nucleus had, or may have had, a stream that has ended.
fn was_granted(why: &Inactive) -> bool {
    !matches!(why, Inactive::Refused(error) if *error != CallError::TimedOut)
}

/// Whether it makes no sense to ask again on the same connection.
fn is_final(why: &Inactive) -> bool {
    use CallError::{NotSupported, TooLarge};
    matches!(why, Inactive::ConnectionLost | Inactive::Refused(NotSupported | TooLarge { .. }))
}
