//! The rules of the wire, which differ from one nucleus to the other: who may say what, and what
//! happens to who breaks them.

use serde_json::{Value, json};

use super::{Failure, Out, State, StreamKey};
use crate::{
    Mode,
    frame::Frame,
    message::{
        APPLICATION_ERROR, APPLICATION_MESSAGE, CONNECT, CONNECT_ACK, CONNECTION_ACCEPTED, FLAGS,
        OPERATION, Outgoing, PING, PING_RESPONSE, PROTOCOL_ERROR, STREAM, TERMINATE_STREAM, TYPE,
        TYPES, VERSION,
    },
};

const PROTOCOL_VERSION: &str = "0.1.0";

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It goes on.
    Read,
    /// Nothing more is read from it; what waits is written.
    Drain,
    /// It is closed at once.
    Close,
}

impl State {
    /// A frame has come.
    pub fn on_frame(&mut self, connection: u64, frame: &Frame) -> Next {
        match self.mode() {
            Mode::Java => self.on_java_frame(connection, frame),
            Mode::Lite => self.on_lite_frame(connection, frame),
        }
    }

    /// What came was no frame, or too long a one.
    pub fn on_bad_frame(&mut self, connection: u64, why: &str) -> Next {
        self.violation(format!("connection {connection}: {why}"));
        Next::Close
    }

    fn on_java_frame(&mut self, connection: u64, frame: &Frame) -> Next {
        let common = (frame.int(TYPE), frame.int(FLAGS), frame.int(STREAM));
        let (Some(kind), Some(flags), Some(stream)) = common else {
            return self.breach(connection, "a common header is missing or of another type");
        };
        let Some(known) = self.connections.get(&connection) else { return Next::Close };
        if !known.is_accepted && kind != CONNECT {
            return self.breach(connection, "a message before the handshake");
        }
        if stream == 0 {
            return self.on_java_control(connection, kind, frame);
        }
        if stream < 0 || !(APPLICATION_MESSAGE..=APPLICATION_ERROR).contains(&kind) {
            return self.breach(connection, &format!("type {kind} on stream {stream}"));
        }
        let is_new = stream > known.latest;
        let key = StreamKey { connection, stream };
        if is_new && stream != known.latest + 1 {
            let what = format!("stream {stream} where {} is next", known.latest + 1);
            return self.breach(connection, &what);
        }
        if is_new {
            let Some(operation) = frame.text(OPERATION).filter(|o| !o.is_empty()) else {
                return self.breach(connection, &format!("stream {stream} without an operation"));
            };
            self.begin(key, operation, &frame.payload);
        } else if !self.is_open(key) && (flags & TERMINATE_STREAM == 0 || self.settings.old_crt) {
            return self.breach(connection, &format!("stream {stream} has ended"));
        }
        if flags & TERMINATE_STREAM != 0 {
            self.close_stream(key);
        }
        Next::Read
    }

    fn on_java_control(&mut self, connection: u64, kind: i32, frame: &Frame) -> Next {
        let is_accepted = self.connections.get(&connection).is_some_and(|c| c.is_accepted);
        match kind {
            CONNECT if is_accepted => self.breach(connection, "a second CONNECT"),
            CONNECT => self.on_java_connect(connection, frame),
            PING => {
                let answer = Outgoing::bare(PING_RESPONSE, 0, 0).carrying(&frame.payload);
                self.send(StreamKey { connection, stream: 0 }, &answer);
                Next::Read
            }
            PING_RESPONSE..TYPES => Next::Read,
            _ => self.breach(connection, &format!("type {kind} on stream 0")),
        }
    }

    fn on_java_connect(&mut self, connection: u64, frame: &Frame) -> Next {
        if let Some(next) = self.connect_fault() {
            return next;
        }
        let said: Option<Value> = serde_json::from_slice(&frame.payload).ok();
        let token = said.as_ref().and_then(|said| said.get("authToken")?.as_str());
        let is_good = token == Some(&self.token) && frame.text(VERSION) == Some(PROTOCOL_VERSION);
        if self.greet(connection, is_good, None) { Next::Read } else { Next::Drain }
    }

    /// Answers a CONNECT as the classic nucleus does. Says whether it was taken.
    fn greet(&mut self, connection: u64, is_good: bool, svcuid: Option<&str>) -> bool {
        let flags = if is_good { CONNECTION_ACCEPTED } else { 0 };
        let mut ack = Outgoing::bare(CONNECT_ACK, flags, 0);
        if let Some(svcuid) = svcuid {
            ack = ack.with("svcuid", svcuid);
        }
        self.send(StreamKey { connection, stream: 0 }, &ack);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.is_accepted = is_good;
        }
        if !is_good {
            self.put(connection, Out::Close);
        }
        is_good
    }

    /// A rule of the protocol was broken: the classic nucleus says so and hangs up.
    fn breach(&mut self, connection: u64, what: &str) -> Next {
        self.violation(format!("connection {connection}: {what}"));
        let body = json!({"message": what});
        let error = Outgoing::json(PROTOCOL_ERROR, 0, 0, None, &body);
        self.send(StreamKey { connection, stream: 0 }, &error);
        self.put(connection, Out::Close);
        Next::Drain
    }

    fn on_lite_frame(&mut self, connection: u64, frame: &Frame) -> Next {
        let number = |name| frame.int(name).unwrap_or(0);
        let (kind, flags, stream) = (number(TYPE), number(FLAGS), number(STREAM));
        let Some(known) = self.connections.get(&connection) else { return Next::Close };
        if !known.is_accepted {
            return self.on_lite_connect(connection, (kind, flags, stream), frame);
        }
        let key = StreamKey { connection, stream };
        if stream == 0 {
            return self.on_bad_frame(connection, &format!("type {kind} on stream 0"));
        }
        if flags & TERMINATE_STREAM != 0 {
            self.close_stream(key);
            return Next::Read;
        }
        let operation = frame.text(OPERATION);
        match operation {
            Some(operation) if kind == APPLICATION_MESSAGE && flags == 0 => {
                self.begin(key, operation, &frame.payload);
            }
            _ => {
                self.violation(format!(
                    "connection {connection}: type {kind} with flags {flags} and operation \
                     {operation:?} on stream {stream}"
                ));
                self.register(key);
                self.fail(key, &Failure::service(""));
            }
        }
        Next::Read
    }

    fn on_lite_connect(
        &mut self,
        connection: u64,
        (kind, flags, stream): (i32, i32, i32),
        frame: &Frame,
    ) -> Next {
        let is_version =
            frame.header(VERSION).is_none() || frame.text(VERSION) == Some(PROTOCOL_VERSION);
        if (kind, flags, stream) != (CONNECT, 0, 0) || !is_version {
            return self.on_bad_frame(connection, "no CONNECT");
        }
        if let Some(next) = self.connect_fault() {
            return next;
        }
        let said: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        let is_me = text("componentName").is_none_or(|name| name == self.settings.component);
        let svcuid = match text("authToken") {
            Some(token) if token == self.token && is_me => None,
            None if is_me && text("componentName").is_some() => Some(self.token.clone()),
            // Nothing is said: the socket is closed.
            _ => return Next::Close,
        };
        self.greet(connection, true, svcuid.as_deref());
        Next::Read
    }

    fn begin(&mut self, key: StreamKey, operation: &str, payload: &[u8]) {
        self.register(key);
        self.on_request(key, operation, payload);
    }

    fn register(&mut self, key: StreamKey) {
        if let Some(connection) = self.connections.get_mut(&key.connection) {
            connection.latest = connection.latest.max(key.stream);
            connection.streams.insert(key.stream);
        }
    }
}
