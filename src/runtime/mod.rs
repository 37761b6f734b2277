//! The one loop: events into the core, its writes to the store, and only then its effects.
//!
//! Owns the order that everything rests on. Events that are ready are handled as one batch, whose
//! writes become durable as one transaction; the batch's effects are done after that, in order. One
//! commit is in flight at most; meanwhile the next batch is built, up to its bound, and then
//! nothing more is taken from the links. Decides nothing about a message.

#![expect(clippy::disallowed_methods, reason = "the loop waits")]

mod clock;
mod core;
mod effects;
mod options;
mod own;
mod poison;
mod report;

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::pin,
    time::Duration,
};

use aws_greengrass_ipc::Client;
use tokio::{
    sync::{mpsc::Receiver, watch},
    time::sleep,
};

use self::{
    clock::Clock,
    core::{Before, Core},
    own::{Own, OwnTurn},
    poison::{Handled, Suspects},
    report::{Journal, Report},
};
use crate::{
    config::{Change, Config},
    expiry::Warning,
    links::{Link, LinkCommand, LinkEvent, mqtt::MqttError},
    nucleus::{self, News, Prewarm, Told},
    reason::Reason,
    relay::{Event, Note, Side, Weight},
    store::{Answer, Options, StoreError, StoreThread},
};

/// The most events in a batch.
const BATCH: usize = 256;

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
    /// A link is to go through a nucleus, and there is none.
    #[error("the {0} link goes through a nucleus, and none has started this process")]
    NoNucleus(Side),
    /// The nucleus does not know us any more.
    #[error(transparent)]
    Rejected(#[from] nucleus::Rejected),
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

/// What the gateway lives in.
pub struct Surroundings {
    /// The nucleus that started this process, if one did.
    pub nucleus: Option<Client>,
    /// Whether the settings come from that nucleus, and change with it.
    pub follow_settings: bool,
    /// Sets the least level that is logged.
    pub set_level: Box<dyn Fn(tracing::Level)>,
}

/// Runs the gateway until `shutdown` is ready; then what was acknowledged is durable.
pub async fn run(
    config: Config,
    surroundings: Surroundings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RuntimeError> {
    let mut gateway = Gateway::start(config, surroundings)?;
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
    nucleus: Option<Beside>,
    own: Own,
    set_level: Box<dyn Fn(tracing::Level)>,
    core: Core,
    /// How often the store failed since a commit succeeded.
    failures: u32,
    /// Completions of effects that were done here.
    completed: VecDeque<Event>,
    suspects: Suspects,
    journal: Journal,
    report: Report,
}

/// The nucleus that the gateway runs beside.
struct Beside {
    news: Receiver<News>,
    prewarm: Prewarm,
}

/// What a turn of the loop waited for.
enum Turn {
    Answered(Answer),
    Happened(Event),
    Link(Side, Option<LinkEvent>),
    News(News),
    Told(Told),
    Own(OwnTurn),
    TimeToOpen,
    TimeToReport,
}

impl Gateway {
    fn start(config: Config, surroundings: Surroundings) -> Result<Self, RuntimeError> {
        let Surroundings { nucleus: client, follow_settings, set_level } = surroundings;
        let clock = Clock::start(config.clock);
        let store = Options { dir: config.work_dir.clone(), max_bytes: config.store_max_bytes };
        let mut store = StoreThread::spawn(store).map_err(RuntimeError::Thread)?;
        let local = options::local(&config, client.as_ref())?;
        let cloud = options::cloud(&config, client.as_ref())?;
        let (critical, is_critical) = watch::channel(false);
        let own = Own::new(&config, client.clone(), clock.tick(), critical);
        let nucleus = client.map(|client| Beside {
            news: nucleus::live(client.clone(), follow_settings, is_critical),
            prewarm: Prewarm::new(client),
        });
        store.open().expect("a store that was just started is not busy");
        let report = Report::new(&config, clock.reading());
        let mut gateway = Self {
            config,
            clock,
            rng: fastrand::Rng::new(),
            store,
            local,
            cloud,
            nucleus,
            own,
            set_level,
            core: Core::Opening(Before::default()),
            failures: 0,
            completed: VecDeque::new(),
            suspects: Suspects::default(),
            journal: Journal::default(),
            report,
        };
        gateway.begin_own();
        Ok(gateway)
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
            Turn::News(news) => self.on_news(news).await?,
            Turn::Told(told) => self.on_told(told).await?,
            Turn::Own(turn) => self.on_own_turn(turn).await?,
            Turn::TimeToOpen => self.reopen(),
            Turn::TimeToReport => self.write_report(false),
        }
        self.submit().await?;
        self.look_around();
        Ok(())
    }

    async fn next(&mut self) -> Turn {
        if self.takes_events()
            && let Some(event) = self.completed.pop_front()
        {
            return Turn::Happened(event);
        }
        if matches!(self.core, Core::Works(_))
            && self.takes_events()
            && let Some(event) = self.own.word()
        {
            return Turn::Happened(event);
        }
        let takes = self.takes_events();
        let takes_more = takes && !self.own.drains();
        let now = self.clock.now();
        let own = self.own.wakeup(now).map(|tick| self.clock.until(tick));
        let to_report = self.report_in();
        let wakeup = self.wakeup_in();
        let opens = match self.core {
            Core::Waiting(until, _) => Some(self.clock.until(until)),
            Core::Opening(_) | Core::Works(_) => None,
        };
        tokio::select! {
            biased;
            answer = self.store.answer() => Turn::Answered(answer),
            turn = beside(&mut self.nucleus), if takes => turn,
            turn = self.own.next(own) => Turn::Own(turn),
            event = self.local.events.recv(), if takes_more => Turn::Link(Side::Local, event),
            event = self.cloud.events.recv(), if takes_more => Turn::Link(Side::Cloud, event),
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

    async fn on_news(&mut self, news: News) -> Result<(), RuntimeError> {
        match news {
            News::Nucleus(nucleus) => {
                tracing::info!(nucleus = nucleus.as_str(), "connected to the nucleus");
                if let Some(beside) = &mut self.nucleus {
                    beside.prewarm.on_nucleus(nucleus);
                }
                self.own.on_nucleus(nucleus);
                self.report.nucleus(nucleus.into());
            }
            News::Settings(config) => self.on_settings(*config).await?,
            News::Refused(error) => {
                tracing::error!(%error, "the new settings change nothing");
                self.report.refused(&error);
            }
            News::Deployment { is_under_way } => {
                self.own.on_deployment(is_under_way, self.clock.tick());
            }
            News::Rejected => return Err(nucleus::Rejected.into()),
        }
        Ok(())
    }

    /// What may change at once does; `status` says what waits for a restart.
    async fn on_settings(&mut self, new: Config) -> Result<(), RuntimeError> {
        let Change { config, needs_restart } = self.config.change(new);
        if !needs_restart.is_empty() {
            tracing::warn!(settings = needs_restart.join(", "), "wait for a restart");
        }
        (self.set_level)(config.log.level);
        self.report.configured(needs_restart);
        self.config = config;
        self.own.reconfigure(&self.config);
        let settings = self.config.relay.clone();
        let unconfirmed = LinkCommand::Unconfirmed(settings.unconfirmed);
        self.command(Side::Cloud, unconfirmed).await?;
        if let Core::Works(working) = &mut self.core {
            working.relay.reconfigure(self.clock.now(), settings, &mut working.batch);
        }
        Ok(())
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

    fn write_report(&mut self, ended: bool) {
        let relay = match &self.core {
            Core::Works(working) => Some(&working.relay),
            Core::Opening(_) | Core::Waiting(..) => None,
        };
        let core = Some(self.own.status(self.clock.now()));
        let dir = &self.config.work_dir;
        let warnings = self.report.write(dir, &mut self.clock, relay, core, ended);
        for warning in warnings {
            self.journal.log(&expires(warning), self.clock.tick());
        }
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

fn expires(warning: Warning) -> Note {
    let Warning { thing, not_after, level } = warning;
    Note {
        weight: Weight::Refused,
        side: None,
        child: Some(thing),
        state: "none",
        reason: Reason::ExpiresSoon,
        detail: Some(format!("{level}: {not_after}")),
    }
}

/// What comes of a nucleus; nothing, where there is none.
async fn beside(nucleus: &mut Option<Beside>) -> Turn {
    let Some(Beside { news, prewarm }) = nucleus else { return pending().await };
    tokio::select! {
        // Who sends the news ends with the last of it, a rejection.
        Some(news) = news.recv() => Turn::News(news),
        told = prewarm.next() => Turn::Told(told),
    }
}
