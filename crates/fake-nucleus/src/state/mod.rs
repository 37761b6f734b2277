//! All that a nucleus knows, behind one lock; what it does in answer to a frame, to the cloud, to
//! time, and to the test that holds it.
//!
//! Nothing here waits: frames leave through bounded queues, and time comes back as a call. A life is
//! the time between two restarts; what was set going in one does nothing in the next.

mod cloud;
mod configuration;
mod devices;
mod faults;
mod iot_core;
mod lifecycle;
mod local;
mod requests;
mod spool;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::Instant,
};

pub(crate) use cloud::{Command, Pair, Wanted};
pub use configuration::Verdict;
pub use devices::ClientDeviceCall;
pub use lifecycle::UpdateAnswer;
pub(crate) use wire::Next;

use crate::{
    Mode, Settings,
    fault::Armed,
    inbox::Inbox,
    message::{APPLICATION_ERROR, APPLICATION_MESSAGE, NAMESPACE, Outgoing, TERMINATE_STREAM},
};

/// Frames that may wait for one client.
const OUTBOX: usize = 65_536;

/// The longest frame of nucleus lite, either way.
pub(crate) const LITE_FRAME: usize = 10_000;

/// The longest frame of the classic nucleus.
pub(crate) const JAVA_FRAME: usize = 24 << 20;

/// Lines kept in one place of the record.
const RECORD: usize = 10_000;

/// The one nucleus, shared by its tasks and the test.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

/// One stream of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    connection: u64,
    stream: i32,
}

/// Something for the socket of a client.
#[derive(Debug)]
pub(crate) enum Out {
    Bytes(Vec<u8>),
    /// So many zeros.
    Pour(u64),
    /// From here on nothing is written, whatever comes.
    Gag,
    Close,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    outbox: mpsc::Sender<Out>,
    is_accepted: bool,
    latest: i32,
    streams: BTreeSet<i32>,
    paused_until: Option<Instant>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub calls: BTreeMap<String, u64>,
    pub states: Vec<String>,
    pub violations: Vec<String>,
    pub client_devices: Vec<ClientDeviceCall>,
    /// What the component published on local topics.
    pub local: Inbox,
    /// Messages that came between a SUBACK and the answer to the component.
    pub dropped: u64,
    /// What was wrong with the core's credential when it was loaded.
    pub pair_faults: Vec<String>,
    /// Connects to the broker that it took.
    pub connects: u64,
    /// The SHA-256 of the certificate of the newest of these.
    pub certificate: Option<[u8; 32]>,
    /// What the component said to each update, oldest first.
    pub update_answers: Vec<(String, UpdateAnswer)>,
}

/// Why a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// An error of the model.
    Coded { code: &'static str, message: String },
    /// Java: an exception that nobody caught.
    Internal,
    /// Java: an operation of which nobody has heard.
    Unknown { operation: String },
}

/// How a request is answered.
enum Reply {
    /// That was all.
    Done(Value),
    /// The stream stays open.
    Open(Value),
    /// Later, or never.
    Later,
}

type Answer = Result<Reply, Failure>;

/// All that a nucleus knows.
#[derive(Debug)]
pub(crate) struct State {
    pub settings: Settings,
    pub token: String,
    pub record: Record,
    pub armed: Armed,
    me: Weak<Mutex<State>>,
    handle: Handle,
    life: u64,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    cloud: cloud::Cloud,
    iot_core: iot_core::IotCore,
    local: Vec<local::Subscription>,
    configuration: configuration::Configuration,
    lifecycle: lifecycle::Lifecycle,
}

impl Shared {
    pub fn new(settings: Settings, token: String, handle: Handle) -> Self {
        Self(Arc::new_cyclic(|me| {
            let configuration = configuration::Configuration::new(&settings);
            let cloud = cloud::Cloud::new(&settings);
            Mutex::new(State {
                settings,
                token,
                record: Record::default(),
                armed: Armed::default(),
                me: Weak::clone(me),
                handle,
                life: 0,
                connections: BTreeMap::new(),
                next_connection: 0,
                cloud,
                iot_core: iot_core::IotCore::default(),
                local: Vec::new(),
                configuration,
                lifecycle: lifecycle::Lifecycle::default(),
            })
        }))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections.
impl State {
    /// A client has connected. Returns its number and what is to be written to it.
    pub fn open(&mut self) -> (u64, mpsc::Receiver<Out>) {
        let (outbox, out) = mpsc::channel(OUTBOX);
        self.next_connection += 1;
        let connection = Connection {
            outbox,
            is_accepted: false,
            latest: 0,
            streams: BTreeSet::new(),
            paused_until: None,
        };
        self.connections.insert(self.next_connection, connection);
        (self.next_connection, out)
    }

    /// A connection is gone.
    pub fn gone(&mut self, connection: u64) {
        let streams = self.connections.get(&connection).map(|c| c.streams.clone());
        for stream in streams.unwrap_or_default() {
            self.close_stream(StreamKey { connection, stream });
        }
        self.connections.remove(&connection);
    }

    /// Until when nothing is to be read from a connection.
    pub fn paused_until(&self, connection: u64) -> Option<Instant> {
        self.connections.get(&connection)?.paused_until
    }

    /// Closes every connection once what waits for it is written.
    pub fn close_all(&mut self) {
        for number in self.numbers() {
            self.put(number, Out::Close);
        }
    }

    /// The process starts.
    pub fn begin_life(&mut self) {
        self.load_pair();
        self.run_link(true);
    }

    /// The process ends, and with it all that it has in its memory.
    pub fn end_life(&mut self) {
        self.close_all();
        self.life += 1;
        self.connections.clear();
        self.run_link(false);
        self.iot_core = iot_core::IotCore::default();
        self.local.clear();
        self.configuration.end_life();
        self.lifecycle = lifecycle::Lifecycle::default();
    }

    /// Calls `act` after a while, unless this life is over by then; without a while, now.
    fn after(&mut self, delay: Duration, act: impl FnOnce(&mut Self) + Send + 'static) {
        if delay.is_zero() {
            return act(self);
        }
        let (me, life) = (Weak::clone(&self.me), self.life);
        self.handle.spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(me) = me.upgrade().map(Shared) else { return };
            let mut state = me.lock();
            if state.life == life {
                act(&mut state);
            }
        });
    }

    /// Who is to be told of messages from the cloud.
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.cloud.wake)
    }

    fn numbers(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    fn mode(&self) -> Mode {
        self.settings.mode
    }

    fn put(&mut self, connection: u64, out: Out) {
        let Some(to) = self.connections.get(&connection) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = to.outbox.try_send(out) {
            self.has_stopped_reading(connection);
        }
    }

    /// A client leaves its socket full.
    pub fn has_stopped_reading(&mut self, connection: u64) {
        self.violation(format!("connection {connection} has stopped reading"));
    }

    fn violation(&mut self, what: String) {
        note(&mut self.record.violations, what);
    }
}

/// Streams.
impl State {
    fn send(&mut self, key: StreamKey, message: &Outgoing) {
        self.put(key.connection, Out::Bytes(message.bytes(self.mode())));
    }

    fn is_open(&self, key: StreamKey) -> bool {
        self.connections.get(&key.connection).is_some_and(|c| c.streams.contains(&key.stream))
    }

    /// Ends a stream, whoever wished it: nothing more is sent on it.
    fn close_stream(&mut self, key: StreamKey) {
        if let Some(connection) = self.connections.get_mut(&key.connection) {
            connection.streams.remove(&key.stream);
        }
        self.end_iot_core(key);
        self.local.retain(|subscription| subscription.key != key);
        self.configuration.close(key);
        self.lifecycle.close(key);
    }

    fn answer(&mut self, key: StreamKey, operation: &str, answer: Answer) {
        match answer {
            Ok(Reply::Done(body)) => self.reply(key, operation, &body, false),
            Ok(Reply::Open(body)) => self.reply(key, operation, &body, true),
            Ok(Reply::Later) => {}
            Err(failure) => self.fail(key, &failure),
        }
    }

    fn reply(&mut self, key: StreamKey, operation: &str, body: &Value, stays_open: bool) {
        if !self.is_open(key) {
            return;
        }
        // The private operation of nucleus lite has no type.
        let model = (!operation.contains('#')).then(|| format!("{operation}Response"));
        let ends = self.mode() == Mode::Java && !stays_open;
        let flags = if ends { TERMINATE_STREAM } else { 0 };
        let reply = Outgoing::json(APPLICATION_MESSAGE, flags, key.stream, model.as_deref(), body);
        if self.is_too_long(&reply) {
            return self.fail(key, &Failure::coded("ServiceError", ""));
        }
        self.send(key, &reply);
        if !stays_open {
            self.close_stream(key);
        }
    }

    /// Answers with an error, which ends the stream.
    fn fail(&mut self, key: StreamKey, failure: &Failure) {
        if self.is_open(key) {
            let message = failure.message(self.mode(), key.stream);
            self.send(key, &message);
            self.close_stream(key);
        }
    }

    /// Sends an event; lite drops one that is too long.
    fn event(&mut self, key: StreamKey, model: &str, body: &Value) {
        let event = Outgoing::json(APPLICATION_MESSAGE, 0, key.stream, Some(model), body);
        if self.is_open(key) && !self.is_too_long(&event) {
            self.send(key, &event);
        }
    }

    fn is_too_long(&self, message: &Outgoing) -> bool {
        self.mode() == Mode::Lite && message.bytes(Mode::Lite).len() > LITE_FRAME
    }
}

impl Failure {
    fn coded(code: &'static str, message: impl Into<String>) -> Self {
        Self::Coded { code, message: message.into() }
    }

    fn service(message: impl Into<String>) -> Self {
        Self::coded("ServiceError", message)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::coded("InvalidArgumentsError", message)
    }

    fn message(&self, mode: Mode, stream: i32) -> Outgoing {
        let json = |model: Option<&str>, body: &Value| {
            Outgoing::json(APPLICATION_ERROR, TERMINATE_STREAM, stream, model, body)
        };
        match self {
            Self::Coded { code, message } => json(Some(code), &error_body(mode, code, message)),
            Self::Internal => Outgoing::internal_error(stream),
            Self::Unknown { operation } => {
                let message = format!("{operation} is an unsupported operation.");
                json(None, &json!({"error": "Unsupported Operation", "message": message}))
            }
        }
    }
}

fn error_body(mode: Mode, code: &str, message: &str) -> Value {
    match mode {
        Mode::Java => json!({
            "message": message,
            "_service": format!("{NAMESPACE}GreengrassCoreIPC"),
            "_message": message,
            "_errorCode": code,
        }),
        Mode::Lite => json!({"_message": message, "_errorCode": code}),
    }
}

/// Notes a line, as long as there is room.
fn note<T>(lines: &mut Vec<T>, line: T) {
    if lines.len() < RECORD {
        lines.push(line);
    }
}
