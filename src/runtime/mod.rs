//! The one loop: events into the core, its writes to the store, and only then its effects.
//!
//! Owns the order that everything rests on. Events that are ready are handled as one batch, whose
//! writes become durable as one transaction; the batch's effects are done after that, in order. One
//! commit is in flight at most; meanwhile the next batch is built, up to its bound, and then
//! nothing more is taken from the links. Decides nothing about a message.
//!
//! When a commit fails, or the core panics, the batch and the core are thrown away, the store is
//! opened anew and the core restored from it, and both links connect anew, so that their brokers
//! deliver again what was not acknowledged.

#![expect(clippy::disallowed_methods, reason = "the loop waits")]

mod clock;
mod options;
mod poison;
mod report;

use std::{collections::VecDeque, future::Future, pin::pin, time::Duration};

use tokio::{sync::mpsc::Receiver, time::sleep};

use self::{
    clock::Clock,
    poison::{Handled, Suspects},
    report::{Journal, Report},
};
use crate::{
    config::{CloudLink, Config, LocalLink},
    links::{
        Link, LinkCommand, LinkEvent, Publish, SendError,
        mqtt::{self, MqttError},
    },
    reason::Reason,
    relay::{Body, Counters, Effect, Event, Outcome, Outgoing, Relay, Side},
    schedule::{Backoff, Tick},
    store::{Answer, Fate, Job, Options, Start, StoreError, StoreThread},
    wire::ThingName,
    x509::{self, Refusal},
};

/// The most events in a batch.
const BATCH: usize = 256;

/// Pauses between attempts to open a store that fails.
const REOPEN: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };

/// What the store has to finish a commit and to close, each.
const CLOSES: Duration = Duration::from_secs(1);

/// Why the gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A link can't be made as it is configured.
    #[error("the {side} link: {error}")]
    Link {
        /// Which link.
        side: Side,
        /// Why.
        error: MqttError,
    },
    /// The store's thread can't be started.
    #[error("the store's thread can't be started: {0}")]
    Thread(std::io::Error),
    /// The store can't be used, and waiting won't help.
    #[error(transparent)]
    Store(StoreError),
    /// A link's task ended by itself.
    #[error("the {0} link ended by itself: please report this as a bug")]
    LinkEnded(Side),
    /// The core failed on something that can't be passed over.
    #[error("the core failed: please report this as a bug, with the log")]
    Broken,
}

/// Runs the gateway until `shutdown` is ready; then what was acknowledged is durable.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RuntimeError> {
    let mut gateway = Gateway::start(config)?;
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return gateway.end().await,
            turn = gateway.turn() => turn?,
        }
    }
}

/// The gateway: the core and everything around it.
struct Gateway {
    config: Config,
    clock: Clock,
    rng: fastrand::Rng,
    store: StoreThread,
    local: Link,
    cloud: Link,
    core: Core,
    /// How often the store failed since a commit succeeded.
    failures: u32,
    /// Completions of effects that were done here.
    completed: VecDeque<Event>,
    suspects: Suspects,
    journal: Journal,
    report: Report,
}

/// Whether there is a core, and what it waits for.
enum Core {
    /// The store is being opened.
    Opening(Before),
    /// The store is to be opened then.
    Waiting(Tick, Before),
    /// It works.
    Works(Box<Working>),
}

/// What the next core is to know of the one before.
#[derive(Default)]
struct Before {
    /// There was one, or the store failed: what the links said since then has been dropped.
    failed: bool,
    counters: Counters,
    /// The store had no room.
    full: bool,
}

struct Working {
    relay: Relay,
    /// What has been handled and not been handed to the store.
    batch: Outcome,
    /// How many events that is.
    events: usize,
    /// What is to be done when the store answers.
    in_flight: Option<InFlight>,
}

struct InFlight {
    effects: Vec<Effect>,
    reads: Vec<(ThingName, Body)>,
}

/// What a turn of the loop waited for.
enum Turn {
    Answered(Answer),
    Happened(Event),
    Link(Side, Option<LinkEvent>),
    TimeToOpen,
    TimeToReport,
}

impl Gateway {
    fn start(config: Config) -> Result<Self, RuntimeError> {
        let clock = Clock::start(config.clock);
        let store = Options { dir: config.work_dir.clone(), max_bytes: config.store_max_bytes };
        let mut store = StoreThread::spawn(store).map_err(RuntimeError::Thread)?;
        let (LocalLink::Mqtt(local), CloudLink::Mqtt(cloud)) = (&config.local, &config.cloud)
        else {
            panic!("the links through the nucleus have no driver yet");
        };
        let local = options::local(local, &config.relay);
        let cloud = options::cloud(cloud, &config.relay);
        let local =
            mqtt::spawn(local).map_err(|error| RuntimeError::Link { side: Side::Local, error })?;
        let cloud =
            mqtt::spawn(cloud).map_err(|error| RuntimeError::Link { side: Side::Cloud, error })?;
        store.open().expect("a store that was just started is not busy");
        let report = Report::new(&config, clock.reading());
        Ok(Self {
            config,
            clock,
            rng: fastrand::Rng::new(),
            store,
            local,
            cloud,
            core: Core::Opening(Before::default()),
            failures: 0,
            completed: VecDeque::new(),
            suspects: Suspects::default(),
            journal: Journal::default(),
            report,
        })
    }

    /// Waits for something to happen, and does all that follows at once.
    async fn turn(&mut self) -> Result<(), RuntimeError> {
        match self.next().await {
            Turn::Answered(Answer::Opened(opened)) => self.on_opened(opened).await?,
            Turn::Answered(Answer::Done(done)) => self.on_done(done).await?,
            Turn::Happened(event) => self.handle(event)?,
            Turn::Link(side, None) => return Err(RuntimeError::LinkEnded(side)),
            Turn::Link(side, Some(event)) => {
                self.on_link(side, event)?;
                self.drain()?;
            }
            Turn::TimeToOpen => self.reopen(),
            Turn::TimeToReport => self.write_report(false),
        }
        self.submit().await
    }

    async fn next(&mut self) -> Turn {
        if self.takes_events()
            && let Some(event) = self.completed.pop_front()
        {
            return Turn::Happened(event);
        }
        let takes = self.takes_events();
        let to_report = self.report_in();
        let wakeup = self.wakeup_in();
        let opens = match self.core {
            Core::Waiting(until, _) => Some(self.clock.until(until)),
            Core::Opening(_) | Core::Works(_) => None,
        };
        tokio::select! {
            biased;
            answer = self.store.answer() => Turn::Answered(answer),
            event = self.local.events.recv(), if takes => Turn::Link(Side::Local, event),
            event = self.cloud.events.recv(), if takes => Turn::Link(Side::Cloud, event),
            () = sleep(wakeup.unwrap_or_default()), if takes && wakeup.is_some() => {
                Turn::Happened(Event::Wakeup)
            }
            () = sleep(opens.unwrap_or_default()), if opens.is_some() => Turn::TimeToOpen,
            () = sleep(to_report) => Turn::TimeToReport,
        }
    }

    /// Whether an event may be taken: the batch has room, or there is no core any more and the
    /// event is dropped.
    fn takes_events(&self) -> bool {
        match &self.core {
            Core::Works(working) => working.events < BATCH,
            Core::Opening(before) | Core::Waiting(_, before) => before.failed,
        }
    }

    fn wakeup_in(&self) -> Option<Duration> {
        let Core::Works(working) = &self.core else { return None };
        working.relay.next_wakeup().map(|tick| self.clock.until(tick))
    }

    fn report_in(&self) -> Duration {
        let children = match &self.core {
            Core::Works(working) => working.relay.children(),
            Core::Opening(_) | Core::Waiting(..) => 0,
        };
        self.report.due_in(self.clock.tick(), children)
    }

    /// Takes what else is ready, from both links in turn, as far as the batch has room.
    fn drain(&mut self) -> Result<(), RuntimeError> {
        loop {
            let mut took = false;
            for side in [Side::Local, Side::Cloud] {
                if !self.takes_events() || !matches!(self.core, Core::Works(_)) {
                    return Ok(());
                }
                if let Ok(event) = self.events_of(side).try_recv() {
                    took = true;
                    self.on_link(side, event)?;
                }
            }
            if !took {
                return Ok(());
            }
        }
    }

    fn events_of(&mut self, side: Side) -> &mut Receiver<LinkEvent> {
        match side {
            Side::Cloud => &mut self.cloud.events,
            Side::Local => &mut self.local.events,
        }
    }

    fn on_link(&mut self, side: Side, event: LinkEvent) -> Result<(), RuntimeError> {
        let event = match event {
            LinkEvent::Up { connection, session_present } => {
                tracing::info!(link = %side, session_present, "connected");
                Event::Up { side, connection, session_present }
            }
            LinkEvent::Down { why } => {
                tracing::warn!(link = %side, why, "not connected");
                self.report.down(side, why);
                Event::Down { side }
            }
            LinkEvent::Shed { count } => {
                tracing::warn!(link = %side, count, reason = %Reason::Shed);
                if let Core::Works(working) = &mut self.core {
                    working.relay.count(Some(side), Reason::Shed, count);
                }
                return Ok(());
            }
            LinkEvent::Message(message) => Event::Message { side, message },
            LinkEvent::Sent { mid, outcome } => Event::Sent { side, mid, outcome },
        };
        self.handle(event)
    }

    /// Lets the core handle an event. Without a core it is dropped: what was not acknowledged is
    /// delivered again when there is one.
    fn handle(&mut self, event: Event) -> Result<(), RuntimeError> {
        let Core::Works(working) = &mut self.core else { return Ok(()) };
        self.report.touch();
        working.events += 1;
        if self.suspects.is_poison(&event) {
            working.pass_over(event);
            return Ok(());
        }
        let now = self.clock.now();
        let handled = self.suspects.guard(&event, || {
            working.relay.handle(now, event.clone(), &mut working.batch);
        });
        match handled {
            Handled::Well => Ok(()),
            Handled::Panicked => {
                tracing::error!("the core failed on a message; it is restored from the store");
                self.reopen();
                Ok(())
            }
            Handled::Broken => Err(RuntimeError::Broken),
        }
    }

    /// Hands the batch to the store; what needs nothing of it is done at once.
    async fn submit(&mut self) -> Result<(), RuntimeError> {
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

    async fn on_done(
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

    /// Does a batch's effects. `bodies` are what `reads` named.
    async fn perform(
        &mut self,
        effects: Vec<Effect>,
        reads: Vec<(ThingName, Body)>,
        bodies: Vec<Option<Vec<u8>>>,
    ) -> Result<(), RuntimeError> {
        let found: std::collections::HashMap<_, _> = reads.into_iter().zip(bodies).collect();
        for effect in effects {
            let needed = effect.needs().map(|(name, body)| (name.clone(), body));
            let body = needed.map(|needed| found.get(&needed).and_then(Option::as_deref));
            match effect {
                Effect::Ack(side, delivery) => {
                    self.command(side, LinkCommand::Ack(delivery)).await?;
                }
                Effect::Publish(side, outgoing) => self.publish(side, outgoing, body).await?,
                Effect::Verify { child, key } => {
                    let outcome = body.flatten().map_or(Err(Refusal(Reason::BodyLost)), |csr| {
                        x509::verify_csr_signature(csr)
                    });
                    self.completed.push_back(Event::Verified { child, key, outcome });
                }
                Effect::Note(note) => self.journal.log(&note, self.clock.tick()),
            }
        }
        Ok(())
    }

    /// `body`: the one that is needed, if one is, and if the store holds it.
    async fn publish(
        &mut self,
        side: Side,
        outgoing: Outgoing,
        body: Option<Option<&[u8]>>,
    ) -> Result<(), RuntimeError> {
        let Outgoing { copy: mid, topic, qos, content } = outgoing;
        let payload = match body {
            None => content.render(&[]),
            Some(Some(body)) => content.render(body),
            Some(None) => {
                let lost = content.loss().map(|(child, lost)| Event::BodyLost { child, lost });
                self.completed.extend(lost);
                None
            }
        };
        let Some(payload) = payload else {
            let outcome = Err(SendError::Refused);
            self.completed.push_back(Event::Sent { side, mid, outcome });
            return Ok(());
        };
        self.command(side, LinkCommand::Publish(Publish { mid, topic, payload, qos })).await
    }

    /// A link always takes commands; one that does not is gone.
    async fn command(&mut self, side: Side, command: LinkCommand) -> Result<(), RuntimeError> {
        let link = match side {
            Side::Cloud => &self.cloud,
            Side::Local => &self.local,
        };
        link.commands.send(command).await.map_err(|_| RuntimeError::LinkEnded(side))
    }

    /// The store has been opened: the core takes up what it holds.
    async fn on_opened(&mut self, opened: Result<Start, StoreError>) -> Result<(), RuntimeError> {
        let start = match opened {
            Ok(start) => start,
            Err(error) => return self.on_store_error(error),
        };
        let before = self.take_core();
        start.snapshot.seen.into_iter().for_each(|time| self.clock.seen(time));
        let (now, seed) = (self.clock.now(), self.rng.u64(..));
        let mut batch = Outcome::default();
        let settings = self.config.relay.clone();
        let mut relay = Relay::restore(settings, seed, now, start.snapshot, &mut batch);
        relay.count_on(before.counters);
        tracing::info!(children = relay.children(), "ready");
        self.core = Core::Works(Box::new(Working { relay, batch, events: 0, in_flight: None }));
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

    fn on_store_error(&mut self, error: StoreError) -> Result<(), RuntimeError> {
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
    fn reopen(&mut self) {
        self.core = Core::Opening(Before { failed: true, ..self.take_core() });
        let _ = self.store.open();
    }

    /// Ends what the core had under way.
    fn take_core(&mut self) -> Before {
        self.completed.clear();
        match std::mem::replace(&mut self.core, Core::Opening(Before::default())) {
            Core::Opening(before) | Core::Waiting(_, before) => before,
            Core::Works(working) => {
                Before { counters: working.relay.counters().clone(), ..Before::default() }
            }
        }
    }

    fn write_report(&mut self, ended: bool) {
        let relay = match &self.core {
            Core::Works(working) => Some(&working.relay),
            Core::Opening(_) | Core::Waiting(..) => None,
        };
        self.report.write(&self.config.work_dir, &mut self.clock, relay, ended);
    }

    /// Ends in order: the commit in flight is finished and acknowledged; what was only in the batch
    /// was not, and comes again.
    async fn end(mut self) -> Result<(), RuntimeError> {
        let is_committing =
            matches!(&self.core, Core::Works(working) if working.in_flight.is_some());
        if is_committing
            && let Ok(Answer::Done(done)) = tokio::time::timeout(CLOSES, self.store.answer()).await
        {
            self.on_done(done).await?;
        }
        self.write_report(true);
        if let Err(error) = self.store.close(CLOSES).await {
            tracing::warn!(%error, "ending all the same");
        }
        Ok(())
    }
}

impl Working {
    /// Acknowledges a message that the core can't handle.
    fn pass_over(&mut self, event: Event) {
        let Event::Message { side, message } = event else { return };
        tracing::error!(topic = crate::wire::escape(&message.topic), "passed over: poison");
        self.relay.count(Some(side), Reason::Poison, 1);
        let ack = message.delivery.map(|delivery| Effect::Ack(side, delivery));
        self.batch.then.extend(ack);
    }
}

/// The bodies that the effects need, each once.
fn reads_of(effects: &[Effect]) -> Vec<(ThingName, Body)> {
    let mut reads: Vec<(ThingName, Body)> =
        effects.iter().filter_map(Effect::needs).map(|(name, body)| (name.clone(), body)).collect();
    reads.sort();
    reads.dedup();
    reads
}
