//! The core's own certificate in the loop: the identity, its jobs, and what it and the relay have
//! to say to each other.
//!
//! Before the nucleus is restarted the loop takes nothing more from the links and waits, for so
//! long as the settings allow, until what it took is durable and answered.

use std::{collections::VecDeque, path::Path, time::Duration};

use aws_greengrass_ipc::{Client, Nucleus, State};
use tokio::sync::{mpsc::Receiver, oneshot, watch};

use super::{Gateway, RuntimeError, core::Core};
use crate::{
    config::{self, Config},
    control::{self, Answer, Asked},
    core_device::{
        life,
        workshop::{Question, Tools, Workshop},
    },
    identity::{
        self, Command, Complaint, Conditions, Done, Effect, Event, Failure, Identity, Job, Life,
        Say, Settings,
    },
    local_time::local_time,
    reason::Reason,
    relay::{self, CloudState, ForCore, Outgoing},
    schedule::{Now, Tick, Timestamp},
    status::{CoreComplaint, CoreEnded, CoreFiles, CoreStatus},
};

/// A deployment that says no more for so long has ended, or will not.
const DEPLOYMENT: Duration = Duration::from_secs(3600);

/// The core's own certificate.
pub(super) struct Own {
    pub identity: Identity,
    pub workshop: Workshop,
    client: Option<Client>,
    kind: Option<Nucleus>,
    /// `certrelay core …`; `None`: nobody can be heard.
    commands: Option<Receiver<Asked>>,
    /// What the core has said and the relay has not heard: it may be opening its store.
    words: VecDeque<Say>,
    /// Who waits for the answer to the last command.
    asked: Option<oneshot::Sender<Answer>>,
    /// A deployment is under way, since then.
    deployment: Option<Tick>,
    /// The restart waits for what is under way, until then.
    drain: Option<Tick>,
    conditions: Conditions,
    /// Whether a deployment would come at a bad time.
    critical: watch::Sender<bool>,
    /// The failure that was logged last.
    told: Option<Failure>,
    /// The stage, and since when it stands.
    stage: (&'static str, Option<Timestamp>),
}

/// What happens to the core's own certificate.
pub(super) enum OwnTurn {
    Done(Done),
    Asked(Asked),
    Time,
}

impl Own {
    pub(super) fn new(
        config: &Config,
        client: Option<Client>,
        tick: Tick,
        critical: watch::Sender<bool>,
    ) -> Self {
        let uptime = life::uptime().saturating_sub(tick - Tick(0));
        let life = Life { run: life::run_id(), uptime };
        Self {
            identity: Identity::new(settings(config), life, fastrand::u64(..)),
            workshop: Workshop::default(),
            client,
            kind: None,
            commands: None,
            words: VecDeque::new(),
            asked: None,
            deployment: None,
            drain: None,
            conditions: Conditions::default(),
            critical,
            told: None,
            stage: ("unknown", None),
        }
    }

    /// Listens to `certrelay core`. The store is open, so no other gateway has this directory.
    pub(super) fn listen(&mut self, work_dir: &Path) {
        if self.commands.is_none() {
            match control::listen(work_dir) {
                Ok(commands) => self.commands = Some(commands),
                Err(error) => tracing::warn!(%error, "`certrelay core` can't reach this gateway"),
            }
        }
    }

    /// What happens next. Cancel-safe.
    pub(super) async fn next(&mut self, wakeup: Option<Duration>) -> OwnTurn {
        let may_ask = self.asked.is_none();
        tokio::select! {
            done = self.workshop.next() => OwnTurn::Done(done),
            Some(asked) = heard(&mut self.commands), if may_ask => OwnTurn::Asked(asked),
            () = super::sleep(wakeup.unwrap_or_default()), if wakeup.is_some() => OwnTurn::Time,
        }
    }

    /// What the relay is to hear next.
    pub(super) fn word(&mut self) -> Option<relay::Event> {
        self.words.pop_front().map(relay::Event::Own)
    }

    /// Whether nothing more is to be taken from the links.
    pub(super) fn drains(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.identity.reconfigure(settings(config));
    }

    /// There is a connection to a nucleus.
    pub(super) fn on_nucleus(&mut self, kind: Nucleus) {
        self.kind = Some(kind);
    }

    /// A deployment begins or ends.
    pub(super) fn on_deployment(&mut self, is_under_way: bool, now: Tick) {
        self.deployment = is_under_way.then_some(now);
    }

    /// When something of it is due.
    pub(super) fn wakeup(&self, now: Now) -> Option<Tick> {
        self.identity.next_wakeup(now).into_iter().chain(self.drain).min()
    }

    /// How it stands.
    pub(super) fn status(&mut self, now: Now) -> CoreStatus {
        let view = self.identity.view(now);
        if self.stage.0 != view.stage {
            self.stage = (view.stage, now.wall);
        }
        let complaint = |why: Complaint| CoreComplaint { code: why.code, detail: why.error };
        let ended =
            view.ended.map(|ended| CoreEnded { at: ended.at, failed: ended.failed.map(complaint) });
        let blocked = view
            .blocked
            .map(|failure| CoreComplaint { code: failure.reason, detail: failure.detail });
        let files = self.workshop.place().map(|place| CoreFiles {
            certificate: place.files.certificate.clone(),
            key: place.files.key.clone(),
            source: place.source.to_string(),
        });
        CoreStatus {
            stage: view.stage.to_owned(),
            since: self.stage.1,
            waits_for: view.waits_for.map(|hold| hold.to_string()),
            files,
            certificate: view.certificate.map(|(id, _)| id),
            not_after: view.certificate.map(|(_, until)| until),
            expiry: None,
            generation: view.generation,
            keeps_old_pair: view.kept.is_some(),
            ended,
            blocked,
            restarts_within_a_day: u32::try_from(view.restarts).unwrap_or(u32::MAX),
            flags: view.unproven.then_some(Reason::ProbeNotPermitted).into_iter().collect(),
        }
    }

    fn is_connected(&self) -> bool {
        let state = self.client.as_ref().map(Client::state);
        state.is_some_and(|state| matches!(*state.borrow(), State::Connected { .. }))
    }

    fn conditions(&self, core: &config::Core, link: CloudState, now: Now) -> Conditions {
        let is_open = |wall: Option<Timestamp>| match &core.restart_window {
            None => true,
            Some(window) => wall.is_some_and(|wall| window.is_open(local_time(wall))),
        };
        let deployment = self.deployment.is_some_and(|since| now.tick - since < DEPLOYMENT);
        Conditions { nucleus: self.is_connected(), link, deployment, window: is_open(now.wall) }
    }
}

impl Gateway {
    /// Begins with what is on disk; without a nucleus nobody is asked before the cloud asks.
    pub(super) fn begin_own(&mut self) {
        if self.own.client.is_some() {
            self.own_event(Event::Wake);
        }
    }

    pub(super) async fn on_own_turn(&mut self, turn: OwnTurn) -> Result<(), RuntimeError> {
        match turn {
            OwnTurn::Done(done) => self.own_event(Event::Done(done)),
            OwnTurn::Asked(asked) => self.on_asked(asked),
            OwnTurn::Time => self.own_event(Event::Wake),
        }
        Ok(())
    }

    /// Tells the identity what has changed around it, and restarts the nucleus when all is done.
    pub(super) fn look_around(&mut self) {
        let now = self.clock.now();
        let link = match &self.core {
            Core::Works(working) => working.relay.cloud_state(),
            Core::Opening(_) | Core::Waiting(..) => CloudState::Down,
        };
        let conditions = self.own.conditions(&self.config.core, link, now);
        if std::mem::replace(&mut self.own.conditions, conditions) != conditions {
            self.own_event(Event::Conditions(conditions));
        }
        if self.own.drain.is_some_and(|until| until <= now.tick || self.is_drained()) {
            self.own.drain = None;
            self.start_job(Job::Restart);
        }
        let critical = self.own.identity.is_critical();
        self.own
            .critical
            .send_if_modified(|before| std::mem::replace(before, critical) != critical);
    }

    /// Whether all that was taken from the links is durable and answered.
    fn is_drained(&self) -> bool {
        match &self.core {
            Core::Works(working) => working.in_flight.is_none() && working.events == 0,
            Core::Opening(_) | Core::Waiting(..) => true,
        }
    }

    /// The relay begins anew with its store.
    pub(super) fn relay_forgets(&mut self) {
        self.own.words.clear();
        self.own_event(Event::Forgotten);
    }

    /// What the relay has for the core.
    pub(super) fn for_core(&mut self, what: ForCore, body: Option<Option<&[u8]>>) {
        match what {
            ForCore::Settled(certificate) => self.own_event(Event::Settled(certificate)),
            ForCore::Withdrawn(certificate) => self.own_event(Event::Withdrawn(certificate)),
            ForCore::Taken => self.own_event(Event::Taken),
            ForCore::Message(Outgoing { topic, content, .. }) => {
                let Some((_, kind)) = self.config.relay.local_topics.read(&topic) else { return };
                let loss = content.loss();
                let payload = match body {
                    None => content.render(&[]),
                    Some(Some(body)) => content.render(body),
                    Some(None) => {
                        let lost = |(child, lost)| relay::Event::BodyLost { child, lost };
                        self.completed.extend(loss.map(lost));
                        None
                    }
                };
                if let Some(payload) = payload {
                    self.own_event(Event::Message { kind, payload });
                }
            }
        }
    }

    /// Lets the identity handle an event, and does what follows.
    pub(super) fn own_event(&mut self, event: Event) {
        let now = self.clock.now();
        let mut effects = Vec::new();
        self.own.identity.handle(now, event, &mut effects);
        self.report.touch();
        for effect in effects {
            match effect {
                Effect::Do(Job::Restart) => {
                    self.own.drain = Some(now.tick + self.config.core.drain_timeout);
                }
                Effect::Do(job) => self.start_job(job),
                Effect::Say(say) => self.own.words.push_back(say),
                Effect::Tell(told) => self.own.log(&told),
                Effect::Answer(answer) => self.own.answer(answer),
            }
        }
    }

    fn start_job(&mut self, job: Job) {
        let tools = self.tools();
        self.own.workshop.start(job, tools);
    }

    fn tools(&self) -> Tools {
        Tools {
            thing: self.config.relay.core.clone(),
            core: self.config.core.clone(),
            client: self.own.client.clone(),
            kind: self.own.kind,
        }
    }

    fn on_asked(&mut self, asked: Asked) {
        let Asked { command, answer } = asked;
        let command = match command {
            control::Command::Show => {
                let saved = self.own.identity.saved().clone();
                let question = Question { saved, wall: self.clock.now().wall, tools: self.tools() };
                return self.own.workshop.show(question, answer);
            }
            control::Command::Rotate => Command::Rotate,
            control::Command::RestartNow => Command::RestartNow,
            control::Command::Rollback => Command::Rollback,
            control::Command::Detach => Command::Detach,
        };
        tracing::info!(command = ?command, "somebody asks for this");
        self.own.asked = Some(answer);
        self.own_event(Event::Command(command));
    }
}

impl Own {
    fn answer(&mut self, answer: Result<String, String>) {
        let Some(asked) = self.asked.take() else { return };
        let answer = answer.map_or_else(Answer::refused, Answer::done);
        // Who has left wants no answer.
        let _ = asked.send(answer);
    }

    /// What fails again and again for the same reason is said once.
    fn log(&mut self, told: &identity::Told) {
        if let identity::Told::Failed(failure) = told {
            if self.told.as_ref() == Some(failure) {
                return;
            }
            self.told = Some(failure.clone());
        }
        match told.is_grave() {
            true => tracing::warn!(core = true, "{told}"),
            false => tracing::info!(core = true, "{told}"),
        }
    }
}

async fn heard(commands: &mut Option<Receiver<Asked>>) -> Option<Asked> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

fn settings(config: &Config) -> Settings {
    Settings { max_restarts: config.core.max_restarts_per_day }
}
