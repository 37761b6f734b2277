//! The link to the floor through Greengrass' MQTT bridge: local publish/subscribe over the nucleus' IPC.
//!
//! Weaker than a broker of one's own, and therefore off by default: any component that a pubsub
//! policy allows can speak for any child; nothing is kept or acknowledged, so what comes while the
//! gateway is away is lost, and a yes to a publish says only that the nucleus passed it on. The
//! children's and the gateway's repeats make up for that.
//!
//! Invariants: [`LinkEvent::Up`] comes when every subscription is granted; messages need no
//! acknowledgement, and what finds no room is shed and counted. It never ends by itself.

#![expect(clippy::disallowed_methods, reason = "a driver runs as a task of its own")]

use aws_greengrass_ipc::{
    CallError, Client, ErrorCode, PublishToTopic, ReceiveMode, State, TopicMessage, TopicPayload,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    ConnectionId, Link, LinkCommand, LinkEvent, Message, SendError,
    outlet::{Commands, Outlet},
    streams::{News, Streams, Verdict, Wanted},
};
use crate::wire::{Mid, escape};

/// Commands that may wait for the driver.
const COMMANDS: usize = 256;

/// Publishes that may be under way; one more is answered as offline.
const CALLS: usize = 256;

/// What the link is made of.
#[derive(Debug)]
pub struct Options {
    /// The connection to the nucleus.
    pub client: Client,
    /// The topics that are subscribed to; our own messages come back on them.
    pub topics: Vec<String>,
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
    /// Connections of the link that were up so far.
    connections: u64,
    calls: JoinSet<(Mid, Result<(), CallError>)>,
}

/// What the link waits for. A generation is one connection to the nucleus.
enum Stage {
    /// For a connection to the nucleus.
    Away,
    /// For the subscriptions to be granted.
    Subscribes { generation: u64, streams: Streams<TopicMessage> },
    /// For nothing: it is up.
    Serves { generation: u64, streams: Streams<TopicMessage> },
}

impl<'a> Driver<'a> {
    fn new(options: Options, outlet: &'a Outlet) -> Self {
        let Options { client, topics, .. } = options;
        Self {
            state: client.state(),
            client,
            wanted: topics.into_iter().map(Wanted::needed).collect(),
            outlet,
            stage: Stage::Away,
            connections: 0,
            calls: JoinSet::new(),
        }
    }

    async fn run(mut self, mut commands: Commands<'_>) {
        self.on_state();
        loop {
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
                    Ok((mid, outcome)) => self.on_called(mid, outcome),
                    Err(ended) => tracing::error!(%ended, "a publish ended by itself"),
                },
                news = self.stage.next() => match news {
                    News::Message(message) => self.on_message(message),
                    News::Granted | News::Standing => self.on_standing(),
                },
            }
        }
    }

    fn on_state(&mut self) {
        let state = self.state.borrow_and_update().clone();
        match state {
            State::Connecting { why, .. } => {
                self.stage = Stage::Away;
                if let Some(why) = why {
                    self.report_down(escape(&format!("the nucleus: {why}")));
                }
            }
            State::Connected { generation, .. } if self.stage.generation() == Some(generation) => {}
            State::Connected { generation, .. } => {
                if self.stage.generation().is_some() {
                    self.report_down("the connection to the nucleus was over".to_owned());
                }
                self.subscribe(generation);
            }
        }
    }

    fn subscribe(&mut self, generation: u64) {
        let streams = Streams::new(&self.wanted, |topic| {
            self.client.subscribe_to_topic(topic, ReceiveMode::All)
        });
        self.stage = Stage::Subscribes { generation, streams };
    }

    fn on_command(&mut self, command: LinkCommand) {
        match (command, &self.stage) {
            // Local subscriptions are in the memory of the nucleus alone.
            (LinkCommand::Ack(_) | LinkCommand::Unconfirmed(_) | LinkCommand::Renew, _) => {}
            (LinkCommand::Reconnect, Stage::Away) => {}
            (
                LinkCommand::Reconnect,
                Stage::Serves { generation, .. } | Stage::Subscribes { generation, .. },
            ) => {
                let generation = *generation;
                self.report_down("subscribing anew".to_owned());
                self.subscribe(generation);
            }
            (LinkCommand::Publish(publish), Stage::Serves { .. }) if self.calls.len() < CALLS => {
                let client = self.client.clone();
                self.calls.spawn(async move {
                    let payload = TopicPayload::Binary(publish.payload);
                    let request = PublishToTopic { topic: publish.topic, payload };
                    (publish.mid, client.publish_to_topic(request).await)
                });
            }
            (LinkCommand::Publish(publish), _) => {
                self.answer(publish.mid, Err(SendError::Offline));
            }
        }
    }

    fn on_called(&self, mid: Mid, outcome: Result<(), CallError>) {
        let outcome = outcome.map_err(|error| {
            tracing::debug!(%error, "the nucleus did not pass it on");
            send_error(&error)
        });
        self.answer(mid, outcome);
    }

    fn answer(&self, mid: Mid, outcome: Result<(), SendError>) {
        self.outlet.report(LinkEvent::Sent { mid, outcome });
    }

    fn on_message(&mut self, message: TopicMessage) {
        let topic = message.topic;
        let payload = match message.payload {
            TopicPayload::Binary(bytes) => bytes,
            TopicPayload::Json(value) => value.to_string().into_bytes(),
        };
        let message = Message { topic, payload, dup: false, retain: false, delivery: None };
        // What needs no acknowledgement is handed over or shed, never given back.
        let _ = self.outlet.offer(message);
        let shed = self.stage.take_shed();
        self.outlet.shed(shed);
    }

    /// A subscription was granted, refused or ended.
    fn on_standing(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Away => Stage::Away,
            Stage::Subscribes { generation, streams } => match streams.verdict() {
                Verdict::Granted => {
                    self.connections += 1;
                    let connection = ConnectionId(self.connections);
                    self.outlet.report(LinkEvent::Up { connection, session_present: false });
                    Stage::Serves { generation, streams }
                }
                Verdict::Waiting => Stage::Subscribes { generation, streams },
                Verdict::Refused { why } => {
                    self.report_down(why);
                    Stage::Subscribes { generation, streams }
                }
            },
            Stage::Serves { generation, streams } => {
                let why = match streams.verdict() {
                    Verdict::Granted => return self.stage = Stage::Serves { generation, streams },
                    Verdict::Waiting => "the nucleus has ended a subscription".to_owned(),
                    Verdict::Refused { why } => why,
                };
                self.report_down(why);
                Stage::Subscribes { generation, streams }
            }
        };
    }

    fn report_down(&self, why: String) {
        self.outlet.report(LinkEvent::Down { why });
    }
}

impl Stage {
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Away => None,
            Self::Subscribes { generation, .. } | Self::Serves { generation, .. } => {
                Some(*generation)
            }
        }
    }

    fn streams(&mut self) -> Option<&mut Streams<TopicMessage>> {
        match self {
            Self::Away => None,
            Self::Subscribes { streams, .. } | Self::Serves { streams, .. } => Some(streams),
        }
    }

    async fn next(&mut self) -> News<TopicMessage> {
        match self.streams() {
            None => std::future::pending().await,
            Some(streams) => streams.next().await,
        }
    }

    fn take_shed(&mut self) -> u64 {
        self.streams().map_or(0, Streams::take_shed)
    }
}

fn send_error(error: &CallError) -> SendError {
    match error {
        CallError::Service(error) if error.code == ErrorCode::Unauthorized => SendError::Refused,
        CallError::TooLarge { .. } | CallError::NotSupported => SendError::Refused,
        _ => SendError::Offline,
    }
}
