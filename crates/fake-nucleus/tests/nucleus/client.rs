//! A client that does what it is told, right or wrong. Its codec is not the stand-in's.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use fake_nucleus::FakeNucleus;
use serde_json::{Value, json};

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Client {
    pub socket: UnixStream,
    next: i32,
    early: VecDeque<Received>,
}

/// A message, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub kind: i32,
    pub flags: i32,
    pub stream: i32,
    pub model: Option<String>,
    pub content: Option<String>,
    pub headers: Vec<String>,
    pub payload: Vec<u8>,
}

/// An error: the model's code, if it has one, and the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub code: Option<String>,
    pub body: Value,
}

pub fn variable(nucleus: &FakeNucleus, name: &str) -> String {
    let environment: HashMap<_, _> = nucleus.environment().into_iter().collect();
    environment[name].clone()
}

pub fn socket(nucleus: &FakeNucleus) -> std::io::Result<UnixStream> {
    UnixStream::connect(variable(nucleus, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"))
}

/// The bytes of a message; no header where there is nothing to say.
pub fn bytes(
    kind: i32,
    flags: i32,
    stream: i32,
    texts: &[(&str, &str)],
    payload: &[u8],
) -> Vec<u8> {
    let numbers = [(":message-type", kind), (":message-flags", flags), (":stream-id", stream)];
    let mut message = Message::new(payload.to_vec());
    for (name, value) in numbers {
        message = message.add_header(Header::new(name, HeaderValue::Int32(value)));
    }
    for (name, value) in texts {
        let value = HeaderValue::String((*value).to_owned().into());
        message = message.add_header(Header::new((*name).to_owned(), value));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

impl Client {
    /// Connected, and nothing said.
    pub fn silent(nucleus: &FakeNucleus) -> Self {
        let socket = socket(nucleus).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { socket, next: 1, early: VecDeque::new() }
    }

    /// Connected, with the handshake done.
    pub fn connect(nucleus: &FakeNucleus) -> Self {
        let mut client = Self::silent(nucleus);
        let ack = client.shake_hands(&variable(nucleus, "SVCUID")).expect("an answer");
        assert_eq!((ack.kind, ack.flags, ack.stream), (5, 1, 0));
        client
    }

    pub fn shake_hands(&mut self, token: &str) -> Option<Received> {
        let payload = json!({"authToken": token}).to_string();
        self.write(&bytes(4, 0, 0, &[(":version", "0.1.0")], payload.as_bytes()));
        self.read()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next message; `None`: the connection was closed.
    pub fn read(&mut self) -> Option<Received> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).ok()?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.socket.read_exact(&mut rest).ok()?;
        let whole = [&length[..], &rest].concat();
        Some(Received::of(&read_message_from(&mut &whole[..]).expect("a frame")))
    }

    /// Whether the nucleus has closed the connection; what it said before goes unread.
    pub fn is_closed(&mut self) -> bool {
        while self.read().is_some() {}
        let mut byte = [0];
        matches!(self.socket.read(&mut byte), Ok(0) | Err(_))
    }

    /// Sends a request on the next stream.
    pub fn ask(&mut self, operation: &str, arguments: &Value) -> i32 {
        let stream = self.next;
        self.next += 1;
        self.ask_on(stream, operation, arguments);
        stream
    }

    pub fn ask_on(&mut self, stream: i32, operation: &str, arguments: &Value) {
        let name = if operation.contains('#') {
            operation.to_owned()
        } else {
            format!("aws.greengrass#{operation}")
        };
        let model = format!("{name}Request");
        let texts = [
            ("operation", &*name),
            ("service-model-type", &*model),
            (":content-type", "application/json"),
        ];
        self.write(&bytes(0, 0, stream, &texts, arguments.to_string().as_bytes()));
    }

    /// The next message on a stream; others are kept for later.
    pub fn next_on(&mut self, stream: i32) -> Received {
        if let Some(at) = self.early.iter().position(|m| m.stream == stream) {
            return self.early.remove(at).unwrap();
        }
        loop {
            let message = self.read().expect("the connection holds");
            if message.stream == stream {
                return message;
            }
            self.early.push_back(message);
        }
    }

    /// Whether nothing has come for a stream, as far as was read.
    pub fn has_nothing_on(&self, stream: i32) -> bool {
        self.early.iter().all(|message| message.stream != stream)
    }

    /// Asks, and waits for the answer.
    pub fn call(&mut self, operation: &str, arguments: &Value) -> Result<Value, Refused> {
        let stream = self.ask(operation, arguments);
        self.next_on(stream).answer()
    }

    /// Subscribes; the answer must be yes.
    pub fn subscribe(&mut self, filter: &str) -> i32 {
        let stream = self.ask("SubscribeToIoTCore", &json!({"topicName": filter, "qos": "1"}));
        assert_eq!(self.next_on(stream).answer(), Ok(json!({})), "{filter}");
        stream
    }

    pub fn publish(&mut self, topic: &str, payload: &str, qos: &str) -> Result<Value, Refused> {
        let payload = data_encoding::BASE64.encode(payload.as_bytes());
        self.call("PublishToIoTCore", &json!({"topicName": topic, "qos": qos, "payload": payload}))
    }

    /// Ends a stream.
    pub fn terminate(&mut self, stream: i32) {
        self.write(&bytes(0, 2, stream, &[], b""));
    }

    /// Waits until the nucleus has done all that was asked so far.
    pub fn settle(&mut self) {
        self.call("GetConfiguration", &json!({"keyPath": []})).expect("an answer");
    }

    /// The payload of the next message from the cloud on a stream.
    pub fn message(&mut self, stream: i32) -> String {
        let event = self.next_on(stream);
        assert_eq!((event.kind, event.flags), (0, 0), "{event:?}");
        assert_eq!(event.model.as_deref(), Some("aws.greengrass#IoTCoreMessage"));
        let body: Value = serde_json::from_slice(&event.payload).unwrap();
        let payload = body["message"]["payload"].as_str().unwrap();
        String::from_utf8(data_encoding::BASE64.decode(payload.as_bytes()).unwrap()).unwrap()
    }
}

impl Received {
    fn of(message: &Message) -> Self {
        let text = |name: &str| {
            let header = message.headers().iter().find(|h| h.name().as_str() == name)?;
            Some(header.value().as_string().ok()?.as_str().to_owned())
        };
        let number = |name: &str| {
            let header = message.headers().iter().find(|h| h.name().as_str() == name).unwrap();
            header.value().as_int32().unwrap()
        };
        Self {
            kind: number(":message-type"),
            flags: number(":message-flags"),
            stream: number(":stream-id"),
            model: text("service-model-type"),
            content: text(":content-type"),
            headers: message.headers().iter().map(|h| h.name().as_str().to_owned()).collect(),
            payload: message.payload().to_vec(),
        }
    }

    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.payload).into_owned()))
    }

    /// What it says as an answer.
    pub fn answer(&self) -> Result<Value, Refused> {
        if self.kind == 0 {
            return Ok(self.body());
        }
        assert_eq!((self.kind, self.flags), (1, 2), "{self:?}");
        let code = self.model.as_deref().and_then(|model| model.strip_prefix("aws.greengrass#"));
        Err(Refused { code: code.map(str::to_owned), body: self.body() })
    }
}

impl Refused {
    /// The message, as that nucleus writes it.
    pub fn message(&self) -> &str {
        self.body["_message"].as_str().unwrap_or_default()
    }
}

/// Waits until something is so.
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "it never was so");
        std::thread::sleep(Duration::from_millis(2));
    }
}
