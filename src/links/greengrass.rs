//! The link to the cloud through the nucleus: publishes and subscriptions of its IPC.
//!
//! Invariants:
//! - [`LinkEvent::Up`] comes when the nucleus has granted every downlink subscription and answered
//!   the others. A loopback that is refused is done without until the next time we subscribe.
//! - A yes to a publish is reported as [`LinkEvent::Sent`] and proves nothing: the core asks for
//!   more. A publish that is refused for want of room is tried again a few times.
//! - A link that goes deaf is told so by the core ([`LinkCommand::Reconnect`]). Lite's cure is to
//!   subscribe anew and close the old streams after that. The classic nucleus needs the opposite:
//!   while another subscription covers a filter it sends no SUBSCRIBE, and one sent before the
//!   UNSUBACK of the last is lost; so the streams are closed, and opened after a rest. (After a lost
//!   connection the client rests by itself.)
//! - A renewal ([`LinkCommand::Renew`]) opens the streams once more beside those that serve, and
//!   takes their place when all are granted. The link stays up, and misses nothing. It costs the
//!   classic nucleus no SUBSCRIBE but for filters that it has lost.
//! - It never ends by itself, whatever the nucleus does.
//!
//! Messages need no acknowledgement here, so what finds no room is shed and counted.

#![expect(clippy::disallowed_methods, reason = "a driver waits and runs as a task of its own")]

mod stage;
mod window;

use std::{collections::VecDeque, time::Duration};

use aws_greengrass_ipc::{
    CallError, Client, ErrorCode, IoTCoreMessage, Nucleus, PublishToIoTCore, Qos as IpcQos, State,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::{stage::Stage, window::Window};
use super::{
    ConnectionId, Link, LinkCommand, LinkEvent, Message, Publish, Qos, SendError,
    outlet::{Commands, Outlet},
    streams::{News, Streams, Verdict, Wanted},
};
use crate::wire::{Mid, escape};

/// Commands that may wait for the driver.
const COMMANDS: usize = 256;

/// Publishes that may wait for their turn; one more is answered as offline.
const WAITING: usize = 1024;

/// The classic nucleus is not subscribed to anew sooner after our streams were closed.
const REST: Duration = Duration::from_secs(10);

/// How often a publish is tried that a nucleus has no room for, and the first pause between.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// The largest topic and payload together, in bytes. Lite closes the connection over a request of
/// 10,000, and its MQTT client drops packets over 5,000.
const MOST_TO_LITE: usize = 4096;
const MOST_TO_CLASSIC: usize = 128 * 1024;

/// What the link is made of.
#[derive(Debug)]
pub struct Options {
    /// The connection to the nucleus.
    pub client: Client,
    /// What the cloud sends: the link is of no use without one of them.
    pub downlinks: Vec<String>,
    /// Our own messages that come back.
    pub loopbacks: Vec<String>,
    /// The most messages that have not come back.
    pub unconfirmed: usize,
    /// Events that may wait for the reader.
    pub events: usize,
}

/// Starts the link, on the tokio runtime that this is called on. It ends when the [`Link`] is
/// dropped.
pub fn spawn(options: Options) -> Link {
    let (commands, commanded) = mpsc::channel(COMMANDS);
    let (sender, events) = mpsc::channel(options.events.max(2));
    tokio::spawn(async move {
        let outlet = Outlet::new(sender);
        let commands = Commands::new(commanded, &outlet);
        tokio::select! {
            never = outlet.pump() => match never {},
            () = Driver::new(options, &outlet).run(commands) => {}
        }
    });
    Link { commands, events }
}

struct Driver<'a> {
    client: Client,
    wanted: Vec<Wanted>,
    outlet: &'a Outlet,
    state: watch::Receiver<State>,
    stage: Stage,
    /// The nucleus at the other end, and which connection to it; `None`: there is none.
    connected: Option<(u64, Nucleus)>,
    /// Connections of the link that were up so far.
    connections: u64,
    /// Why the link was last reported down.
    down: Option<String>,
    waiting: VecDeque<Attempt>,
    window: Window,
    unconfirmed: usize,
    calls: JoinSet<(Attempt, Result<(), CallError>)>,
    retries: VecDeque<(Instant, Attempt)>,
}

/// A publish, and how often it was tried.
#[derive(Debug, Clone)]
struct Attempt {
    publish: Publish,
    tries: u32,
}

/// What becomes of a publish that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is tried again at once, a few times.
    TryAgain,
    /// The core tries it again.
    Offline,
    /// It won't ever do.
    Refused,
}

impl<'a> Driver<'a> {
    fn new(options: Options, outlet: &'a Outlet) -> Self {
        let Options { client, downlinks, loopbacks, unconfirmed, .. } = options;
        let downlinks = downlinks.into_iter().map(Wanted::needed);
        let wanted = downlinks.chain(loopbacks.into_iter().map(Wanted::welcome)).collect();
        Self {
            state: client.state(),
            client,
            wanted,
            outlet,
            stage: Stage::Away,
            connected: None,
            connections: 0,
            down: None,
            waiting: VecDeque::new(),
            window: Window::new(Nucleus::Lite, unconfirmed),
            unconfirmed,
            calls: JoinSet::new(),
            retries: VecDeque::new(),
        }
    }

    async fn run(mut self, mut commands: Commands<'_>) {
        self.on_state();
        loop {
            let wakes = self.next_wakeup();
            tokio::select! {
                changed = self.state.changed() => match changed {
                    Ok(()) => self.on_state(),
                    Err(_) => return,
                },
                command = commands.next() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(done) = self.calls.join_next() => match done {
                    Ok((attempt, outcome)) => self.on_called(attempt, outcome),
                    Err(ended) => tracing::error!(%ended, "a publish ended by itself"),
                },
                news = self.stage.next() => self.on_news(news),
                () = sleep_until(wakes.unwrap_or_else(Instant::now)), if wakes.is_some() => {
                    self.on_time();
                }
            }
            self.publish_what_may();
        }
    }

    /// The connection to the nucleus has changed.
    fn on_state(&mut self) {
        let state = self.state.borrow_and_update().clone();
        match state {
            State::Connecting { why, .. } => {
                self.connected = None;
                if let Some(why) = why {
                    self.lose(escape(&format!("the nucleus: {why}")));
                }
            }
            State::Connected { generation, nucleus } => {
                self.connected = Some((generation, nucleus));
                if matches!(self.stage, Stage::Away) {
                    self.stage = Stage::Subscribes { fresh: self.subscribe(), old: None };
                }
            }
        }
    }

    /// The link is not up any more. The client subscribes again by itself.
    fn lose(&mut self, why: String) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Serves { streams, .. } => Stage::Subscribes { fresh: streams, old: None },
            other => other,
        };
        self.go_down(why);
    }

    fn subscribe(&self) -> Streams<IoTCoreMessage> {
        Streams::new(&self.wanted, |filter| {
            self.client.subscribe_to_iot_core(filter, IpcQos::AtLeastOnce)
        })
    }

    fn on_command(&mut self, command: LinkCommand) {
        match command {
            LinkCommand::Ack(_) => {}
            LinkCommand::Reconnect => self.subscribe_anew(),
            LinkCommand::Renew => self.renew(),
            LinkCommand::Unconfirmed(most) => {
                self.unconfirmed = most;
                if let Some((_, nucleus)) = self.connected {
                    self.window.resize(nucleus, most);
                }
            }
            LinkCommand::Publish(publish) => self.on_publish(publish),
        }
    }

    /// The core hears nothing. A link that is not up will be by itself.
    fn subscribe_anew(&mut self) {
        let Some((_, nucleus)) = self.connected else { return };
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Away), nucleus) {
            (Stage::Serves { streams, .. }, Nucleus::Lite) => {
                Stage::Subscribes { fresh: self.subscribe(), old: Some(streams) }
            }
            (Stage::Serves { streams, fresh }, Nucleus::Classic) => {
                drop((streams, fresh));
                Stage::Rests { until: Instant::now() + REST }
            }
            (other, _) => return self.stage = other,
        };
        self.go_down("it takes messages and delivers none: subscribing anew".to_owned());
    }

    /// Subscriptions that a renewal still waits for are asked for by the client.
    fn renew(&mut self) {
        if !matches!(self.stage, Stage::Serves { fresh: None, .. }) {
            return;
        }
        let subscribed = self.subscribe();
        if let Stage::Serves { fresh, .. } = &mut self.stage {
            *fresh = Some(subscribed);
        }
    }

    fn on_publish(&mut self, publish: Publish) {
        let (size, mid) = (publish.topic.len() + publish.payload.len(), publish.mid);
        let most = match self.connected {
            Some((_, Nucleus::Classic)) => MOST_TO_CLASSIC,
            Some((_, Nucleus::Lite)) | None => MOST_TO_LITE,
        };
        if !matches!(self.stage, Stage::Serves { .. }) || self.waiting.len() >= WAITING {
            return self.answer(mid, Err(SendError::Offline));
        }
        if size > most {
            tracing::warn!(size, most, topic = publish.topic, "too large for the nucleus");
            return self.answer(mid, Err(SendError::Refused));
        }
        let attempt = Attempt { publish, tries: 0 };
        match attempt.publish.qos {
            // A probe waits for nothing, and takes nobody's room.
            Qos::AtMostOnce => self.call(attempt),
            Qos::AtLeastOnce => self.waiting.push_back(attempt),
        }
    }

    /// While a refused publish waits for its next try nothing else goes: that is what makes room.
    fn publish_what_may(&mut self) {
        while self.retries.is_empty()
            && let Some(attempt) = self.waiting.front()
            && self.window.has_room(&attempt.publish)
            && let Some(attempt) = self.waiting.pop_front()
        {
            self.window.hold(&attempt.publish);
            self.call(attempt);
        }
    }

    fn call(&mut self, mut attempt: Attempt) {
        let client = self.client.clone();
        attempt.tries += 1;
        self.calls.spawn(async move {
            let Publish { topic, payload, qos, .. } = attempt.publish.clone();
            let qos = match qos {
                Qos::AtMostOnce => IpcQos::AtMostOnce,
                Qos::AtLeastOnce => IpcQos::AtLeastOnce,
            };
            let outcome =
                client.publish_to_iot_core(PublishToIoTCore { topic, payload, qos }).await;
            (attempt, outcome)
        });
    }

    fn on_called(&mut self, attempt: Attempt, outcome: Result<(), CallError>) {
        let mid = attempt.publish.mid;
        let error = match outcome {
            Ok(()) => {
                self.window.taken(mid, Instant::now());
                return self.answer(mid, Ok(()));
            }
            Err(error) => error,
        };
        self.window.refused(mid);
        tracing::debug!(topic = attempt.publish.topic, %error, "the nucleus did not take it");
        match fate(&error, &attempt) {
            Fate::TryAgain if matches!(self.stage, Stage::Serves { .. }) => {
                let pause = TRY_AGAIN * 2_u32.pow(attempt.tries - 1);
                self.retries.push_back((Instant::now() + pause, attempt));
            }
            Fate::TryAgain | Fate::Offline => self.answer(mid, Err(SendError::Offline)),
            Fate::Refused => {
                let error = escape(&error.to_string());
                tracing::warn!(topic = attempt.publish.topic, error, "the nucleus refuses it");
                self.answer(mid, Err(SendError::Refused));
            }
        }
    }

    fn answer(&self, mid: Mid, outcome: Result<(), SendError>) {
        self.outlet.report(LinkEvent::Sent { mid, outcome });
    }

    fn on_news(&mut self, news: News<IoTCoreMessage>) {
        match news {
            News::Message(message) => self.on_message(message),
            News::Granted => {
                self.ask_the_refused_again();
                self.on_standing();
            }
            News::Standing => self.on_standing(),
        }
    }

    /// One was granted, so the cloud is within reach: the others need not wait for their turn.
    fn ask_the_refused_again(&mut self) {
        if let Stage::Subscribes { fresh, .. } = &mut self.stage {
            let client = &self.client;
            fresh.ask_again(|filter| client.subscribe_to_iot_core(filter, IpcQos::AtLeastOnce));
        }
    }

    fn on_message(&mut self, message: IoTCoreMessage) {
        let IoTCoreMessage { topic, payload, .. } = message;
        self.window.came_back(&topic, &payload);
        let message = Message { topic, payload, dup: false, retain: false, delivery: None };
        // What needs no acknowledgement is handed over or shed, never given back.
        let _ = self.outlet.offer(message);
        let shed = self.stage.take_shed();
        self.outlet.shed(shed);
    }

    /// A subscription was granted, refused or ended.
    fn on_standing(&mut self) {
        let verdict = match &self.stage {
            Stage::Serves { streams, .. } | Stage::Subscribes { fresh: streams, .. } => {
                streams.verdict()
            }
            Stage::Away | Stage::Rests { .. } => return,
        };
        match (std::mem::replace(&mut self.stage, Stage::Away), verdict) {
            (Stage::Subscribes { fresh, old }, Verdict::Granted) => {
                self.read_out(old);
                self.serve(fresh);
            }
            (Stage::Serves { streams, fresh: Some(mut fresh) }, Verdict::Granted)
                if fresh.verdict() == Verdict::Granted =>
            {
                self.read_out(Some(streams));
                // It was said when the link came up.
                fresh.give_up_refused();
                self.stage = Stage::Serves { streams: fresh, fresh: None };
            }
            (other, Verdict::Granted) => self.stage = other,
            (serves @ Stage::Serves { .. }, Verdict::Waiting) => {
                self.stage = serves;
                self.lose("the nucleus has ended a subscription".to_owned());
            }
            (other, Verdict::Waiting) => self.stage = other,
            (other, Verdict::Refused { why }) => {
                self.stage = other;
                self.lose(why);
            }
        }
    }

    /// What came before the new ones were granted came only by the old.
    fn read_out(&mut self, old: Option<Streams<IoTCoreMessage>>) {
        let unread = old.into_iter().flat_map(|mut old| old.unread());
        unread.for_each(|message| self.on_message(message));
    }

    fn serve(&mut self, mut streams: Streams<IoTCoreMessage>) {
        for why in streams.give_up_refused() {
            tracing::warn!(why, "done without: it is not known what arrives");
        }
        self.stage = Stage::Serves { streams, fresh: None };
        if let Some((_, nucleus)) = self.connected {
            self.window = Window::new(nucleus, self.unconfirmed);
        }
        self.down = None;
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        // The nucleus keeps nothing for a component.
        self.outlet.report(LinkEvent::Up { connection, session_present: false });
    }

    /// Nothing more is sent; what was under way may still be answered. The same reason twice in a
    /// row is reported once.
    fn go_down(&mut self, why: String) {
        let unsent = self.waiting.drain(..).chain(self.retries.drain(..).map(|(_, unsent)| unsent));
        for attempt in unsent.collect::<Vec<_>>() {
            self.answer(attempt.publish.mid, Err(SendError::Offline));
        }
        if self.down.as_ref() != Some(&why) {
            self.down = Some(why.clone());
            self.outlet.report(LinkEvent::Down { why });
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let rest = match self.stage {
            Stage::Rests { until } => Some(until),
            Stage::Away | Stage::Subscribes { .. } | Stage::Serves { .. } => None,
        };
        let retry = self.retries.iter().map(|(at, _)| *at).min();
        let room = self.window.next().filter(|_| !self.waiting.is_empty());
        [rest, retry, room].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if matches!(self.stage, Stage::Rests { until } if until <= now) {
            self.stage = Stage::Subscribes { fresh: self.subscribe(), old: None };
        }
        self.window.let_go(now);
        let (due, later) = self.retries.drain(..).partition(|(at, _)| *at <= now);
        self.retries = later;
        let due: VecDeque<(Instant, Attempt)> = due;
        due.into_iter().rev().for_each(|(_, attempt)| self.waiting.push_front(attempt));
    }
}

/// Where the fate of a failed publish is decided. A probe that is refused is the answer itself.
fn fate(error: &CallError, attempt: &Attempt) -> Fate {
    match error {
        CallError::Service(error) => match error.code {
            ErrorCode::Unauthorized | ErrorCode::InvalidArguments => Fate::Refused,
            _ if attempt.publish.qos == Qos::AtLeastOnce && attempt.tries < TRIES => Fate::TryAgain,
            _ => Fate::Offline,
        },
        CallError::TooLarge { .. } | CallError::NotSupported => Fate::Refused,
        CallError::NotConnected
        | CallError::ConnectionLost
        | CallError::TimedOut
        | CallError::Malformed(_) => Fate::Offline,
    }
}
