//! The core and its store: batches become durable here, and a core that failed is made anew.
//!
//! When a commit fails, or the core panics, the batch and the core are thrown away, the store is
//! opened anew and the core restored from it, and both links connect anew, so that their brokers
//! deliver again what was not acknowledged.

use std::time::Duration;

use super::{Gateway, RuntimeError, effects::reads_of};
use crate::{
    links::LinkCommand,
    reason::Reason,
    relay::{Body, Counters, Effect, Event, Outcome, Relay, Side},
    schedule::{Backoff, Tick},
    store::{Fate, Job, Start, StoreError},
    wire::ThingName,
};

/// Pauses between attempts to open a store that fails.
const REOPEN: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };

/// Whether there is a core, and what it waits for.
pub(super) enum Core {
    /// The store is being opened.
    Opening(Before),
    /// The store is to be opened then.
    Waiting(Tick, Before),
    /// It works.
    Works(Box<Working>),
}

/// What the next core is to know of the one before.
#[derive(Default)]
pub(super) struct Before {
    /// There was one, or the store failed: what the links said since then has been dropped.
    pub failed: bool,
    pub counters: Counters,
    /// The store had no room.
    pub full: bool,
}

pub(super) struct Working {
    pub relay: Relay,
    /// What has been handled and not been handed to the store.
    pub batch: Outcome,
    /// How many events that is.
    pub events: usize,
    /// What is to be done when the store answers.
    pub in_flight: Option<InFlight>,
}

pub(super) struct InFlight {
    pub effects: Vec<Effect>,
    pub reads: Vec<(ThingName, Body)>,
}

impl Gateway {
    /// Hands the batch to the store; what needs nothing of it is done at once.
    pub(super) async fn submit(&mut self) -> Result<(), RuntimeError> {
        let Core::Works(working) = &mut self.core else { return Ok(()) };
        if working.in_flight.is_some() {
            return Ok(());
        }
        working.events = 0;
        let Outcome { writes, then: effects } = std::mem::take(&mut working.batch);
        let reads = reads_of(&effects);
        if writes.is_empty() && reads.is_empty() {
            return self.perform(effects, vec![], vec![]).await;
        }
        working.in_flight = Some(InFlight { effects, reads: reads.clone() });
        self.store.run(Job { writes, reads }).expect("only one commit is in flight");
        Ok(())
    }

    pub(super) async fn on_done(
        &mut self,
        done: Result<Vec<Option<Vec<u8>>>, StoreError>,
    ) -> Result<(), RuntimeError> {
        match done {
            Ok(bodies) => {
                let Core::Works(working) = &mut self.core else {
                    // The core was thrown away while its last commit was in flight.
                    self.reopen();
                    return Ok(());
                };
                self.failures = 0;
                let Some(InFlight { effects, reads }) = working.in_flight.take() else {
                    return Ok(());
                };
                self.report.store_works();
                self.perform(effects, reads, bodies).await
            }
            Err(error) => self.on_store_error(error),
        }
    }

    /// The store has been opened: the core takes up what it holds.
    pub(super) async fn on_opened(
        &mut self,
        opened: Result<Start, StoreError>,
    ) -> Result<(), RuntimeError> {
        let start = match opened {
            Ok(start) => start,
            Err(error) => return self.on_store_error(error),
        };
        let before = self.take_core();
        if before.failed {
            self.relay_forgets();
        }
        start.snapshot.seen.into_iter().for_each(|time| self.clock.seen(time));
        let (now, seed) = (self.clock.now(), self.rng.u64(..));
        let mut batch = Outcome::default();
        let settings = self.config.relay.clone();
        let mut relay = Relay::restore(settings, seed, now, start.snapshot, &mut batch);
        relay.count_on(before.counters);
        tracing::info!(children = relay.children(), "ready");
        self.core = Core::Works(Box::new(Working { relay, batch, events: 0, in_flight: None }));
        self.own.listen(&self.config.work_dir);
        if let Some(file) = start.set_aside {
            tracing::error!(file = %file.display(), "the store was damaged and is set aside");
            self.report.set_aside(&file);
            self.handle(Event::StoreLost)?;
        }
        if before.full {
            self.handle(Event::StoreFull)?;
        }
        if before.failed {
            self.command(Side::Local, LinkCommand::Reconnect).await?;
            self.command(Side::Cloud, LinkCommand::Reconnect).await?;
        }
        Ok(())
    }

    pub(super) fn on_store_error(&mut self, error: StoreError) -> Result<(), RuntimeError> {
        let wall = self.clock.now().wall;
        self.report.store_fails(error.to_string(), wall);
        if error.fate() == Fate::Operator {
            return Err(RuntimeError::Store(error));
        }
        tracing::error!(%error, "the store fails; nothing is acknowledged until it works");
        let before = Before { full: error.is_full(), ..self.take_core() };
        self.failures = self.failures.saturating_add(1);
        let until = self.clock.tick() + REOPEN.pause(self.failures, &mut self.rng);
        self.core = Core::Waiting(until, Before { failed: true, ..before });
        Ok(())
    }

    /// Opens the store anew, to restore the core from it. If a commit is in flight its answer comes
    /// first, and calls this again.
    pub(super) fn reopen(&mut self) {
        self.core = Core::Opening(Before { failed: true, ..self.take_core() });
        let _ = self.store.open();
    }

    /// Ends what the core had under way.
    pub(super) fn take_core(&mut self) -> Before {
        self.completed.clear();
        if let Some(beside) = &mut self.nucleus {
            beside.prewarm.clear();
        }
        match std::mem::replace(&mut self.core, Core::Opening(Before::default())) {
            Core::Opening(before) | Core::Waiting(_, before) => before,
            Core::Works(working) => {
                Before { counters: working.relay.counters().clone(), ..Before::default() }
            }
        }
    }
}

impl Working {
    /// Acknowledges a message that the core can't handle.
    pub(super) fn pass_over(&mut self, event: Event) {
        let Event::Message { side, message } = event else { return };
        tracing::error!(topic = crate::wire::escape(&message.topic), "passed over: poison");
        self.relay.count(Some(side), Reason::Poison, 1);
        let ack = message.delivery.map(|delivery| Effect::Ack(side, delivery));
        self.batch.then.extend(ack);
    }
}
