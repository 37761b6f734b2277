//! A nucleus that does what the test says. Its codec is another implementation than the client's.
//!
//! Checks of every request what a classic nucleus checks: numbers of streams in order and without
//! gaps, and the headers.

use std::{collections::HashMap, time::Duration};

use aws_greengrass_ipc::{AuthToken, Backoff, Client, Nucleus, Options, State};
use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

pub const TOKEN: &str = "the-token";

const SOON: Duration = Duration::from_secs(10);

/// Waits, but not for ever.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("happens soon")
}

/// Waits until the state is such.
pub async fn until(states: &mut watch::Receiver<State>, is: impl FnMut(&State) -> bool) -> State {
    soon(states.wait_for(is)).await.expect("the client lives").clone()
}

/// Waits until the client has that connection.
pub async fn until_connected(client: &Client, wanted: u64) -> Nucleus {
    let is = |state: &State| matches!(state, State::Connected { generation, .. } if *generation == wanted);
    match until(&mut client.state(), is).await {
        State::Connected { nucleus, .. } => nucleus,
        State::Connecting { .. } => unreachable!("it is connected"),
    }
}

pub struct Peer {
    listener: UnixListener,
    dir: TempDir,
}

impl Peer {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(dir.path().join("socket")).expect("a socket");
        Self { listener, dir }
    }

    /// For a client that reconnects and subscribes again at once.
    pub fn options(&self) -> Options {
        let token = AuthToken::from(TOKEN.to_owned());
        let mut options = Options::new(self.dir.path().join("socket"), token);
        let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
        options.backoff = Backoff { first, longest };
        options.timeouts.unsubscribe = Duration::ZERO;
        options
    }

    /// A client, and its first connection.
    pub async fn client(nucleus: Nucleus) -> (Self, Client, Conn) {
        let peer = Self::new();
        let client = Client::spawn(peer.options());
        let conn = peer.greet(nucleus).await;
        assert_eq!(until_connected(&client, 1).await, nucleus);
        (peer, client, conn)
    }

    /// A connection that has not said anything yet.
    pub async fn accept(&self) -> Conn {
        let (stream, _) = soon(self.listener.accept()).await.expect("a connection");
        Conn { stream, buffer: Vec::new(), last_stream: 0 }
    }

    /// A connection whose token has been accepted and which knows who we are.
    pub async fn greet(&self, nucleus: Nucleus) -> Conn {
        let mut conn = self.accept().await;
        conn.accept_token().await;
        conn.introduce(nucleus).await;
        conn
    }
}

/// A message that came.
#[derive(Debug)]
pub struct Incoming {
    pub kind: i32,
    pub flags: i32,
    pub stream: i32,
    pub headers: HashMap<String, String>,
    pub payload: Vec<u8>,
}

impl Incoming {
    fn read(message: &Message) -> Self {
        let (mut numbers, mut headers) = (HashMap::new(), HashMap::new());
        for header in message.headers() {
            let name = header.name().as_str().to_owned();
            match header.value() {
                HeaderValue::Int32(number) => drop(numbers.insert(name, *number)),
                HeaderValue::String(text) => drop(headers.insert(name, text.as_str().to_owned())),
                other => panic!("a header {name} of {other:?}"),
            }
        }
        let [kind, flags, stream] =
            [":message-type", ":message-flags", ":stream-id"].map(|name| numbers[name]);
        Self { kind, flags, stream, headers, payload: message.payload().to_vec() }
    }

    /// The operation without its namespace; nothing for what is no request.
    pub fn operation(&self) -> &str {
        self.headers.get("operation").map_or("", |name| name.rsplit('#').next().expect("a part"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("JSON")
    }

    pub fn is_terminate(&self) -> bool {
        (self.kind, self.flags) == (0, 2) && self.payload.is_empty() && self.headers.is_empty()
    }

    fn check_request(&self, last_stream: i32) {
        assert_eq!((self.kind, self.flags), (0, 0));
        assert_eq!(self.stream, last_stream + 1, "the numbers have a gap");
        assert_eq!(self.headers[":content-type"], "application/json");
        let model = format!("{}Request", self.headers["operation"]);
        assert_eq!(self.headers["service-model-type"], model);
        assert!(self.json().is_object());
    }
}

pub struct Conn {
    pub stream: UnixStream,
    buffer: Vec<u8>,
    last_stream: i32,
}

impl Conn {
    /// The next message; `None`: the client hung up.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            if let Some(message) = self.take() {
                if message.headers.contains_key("operation") {
                    message.check_request(self.last_stream);
                    self.last_stream = message.stream;
                }
                return Some(message);
            }
            if soon(self.stream.read_buf(&mut self.buffer)).await.unwrap_or(0) == 0 {
                assert!(self.buffer.is_empty(), "the client hung up in the middle of a frame");
                return None;
            }
        }
    }

    /// A message, which must come.
    pub async fn read(&mut self) -> Incoming {
        self.next().await.expect("the client does not hang up")
    }

    /// A request, which must come.
    pub async fn request(&mut self, operation: &str) -> Incoming {
        let request = self.read().await;
        assert_eq!(request.operation(), operation, "{request:?}");
        request
    }

    fn take(&mut self) -> Option<Incoming> {
        let size = u32::from_be_bytes(*self.buffer.first_chunk()?) as usize;
        let frame = self.buffer.get(..size)?;
        let message = read_message_from(frame).expect("a frame");
        self.buffer.drain(..size);
        Some(Incoming::read(&message))
    }

    pub async fn accept_token(&mut self) {
        let connect = self.read().await;
        assert_eq!((connect.kind, connect.flags, connect.stream), (4, 0, 0));
        assert_eq!(connect.headers[":version"], "0.1.0");
        assert_eq!(connect.json(), serde_json::json!({ "authToken": TOKEN }));
        self.send(&frame([5, 1, 0], &[], "")).await;
    }

    pub async fn introduce(&mut self, nucleus: Nucleus) {
        let question = self.request("GetSystemConfig").await;
        assert_eq!(question.headers["operation"], "aws.greengrass.private#GetSystemConfig");
        assert_eq!(question.json(), serde_json::json!({ "key": "thingName" }));
        match nucleus {
            Nucleus::Classic => self.send(&unsupported(question.stream)).await,
            // Lite gives this answer no type.
            Nucleus::Lite => {
                self.send(&frame([0, 0, question.stream], &[JSON], r#"{"value":"core"}"#)).await;
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.expect("the client reads");
    }

    /// Says yes as a classic nucleus does: to a call with the end of the stream, to a subscription
    /// without.
    pub async fn answer(&mut self, request: &Incoming, body: &str) {
        let is_subscription = request.operation().starts_with("Subscribe");
        let model = format!("{}Response", request.headers["operation"]);
        let flags = if is_subscription { 0 } else { 2 };
        self.send(&frame([0, flags, request.stream], &[JSON, (MODEL, &model)], body)).await;
    }

    /// The subscription is asked for, and granted.
    pub async fn grant(&mut self, operation: &str) -> i32 {
        let request = self.request(operation).await;
        self.answer(&request, "{}").await;
        request.stream
    }

    /// Hangs up when the client has nothing more to say.
    pub async fn until_hung_up(&mut self) {
        while self.next().await.is_some() {}
    }
}

pub const JSON: (&str, &str) = (":content-type", "application/json");

pub const MODEL: &str = "service-model-type";

/// A frame with these common headers and others of text.
pub fn frame(common: [i32; 3], headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut message = Message::new(payload.as_bytes().to_vec());
    for (name, value) in headers {
        let value = HeaderValue::String((*value).to_owned().into());
        message = message.add_header(Header::new((*name).to_owned(), value));
    }
    for (name, value) in [":message-type", ":message-flags", ":stream-id"].into_iter().zip(common) {
        message = message.add_header(Header::new(name, HeaderValue::Int32(value)));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a frame");
    bytes
}

/// What a classic nucleus answers to an operation that it does not know.
pub fn unsupported(stream: i32) -> Vec<u8> {
    let body =
        r#"{ "error": "Unsupported Operation", "message": "X is an unsupported operation." }"#;
    frame([1, 2, stream], &[JSON], body)
}

/// An error as the nucleus writes it.
pub fn error(nucleus: Nucleus, stream: i32, code: &str, message: &str) -> Vec<u8> {
    let mut body = serde_json::json!({ "_message": message, "_errorCode": code });
    if nucleus == Nucleus::Classic {
        body["message"] = message.into();
        body["_service"] = "aws.greengrass#GreengrassCoreIPC".into();
    }
    let model = format!("aws.greengrass#{code}");
    frame([1, 2, stream], &[JSON, (MODEL, &model)], &body.to_string())
}

/// A message from AWS IoT Core.
pub fn iot_core_message(stream: i32, payload: &[u8]) -> Vec<u8> {
    let payload = data_encoding::BASE64.encode(payload);
    let body = serde_json::json!({ "message": { "topicName": "a/b", "payload": payload } });
    let model = (MODEL, "aws.greengrass#IoTCoreMessage");
    frame([0, 0, stream], &[JSON, model], &body.to_string())
}
