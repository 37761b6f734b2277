//! Messages of event stream RPC, as each nucleus writes them. Pure.

use serde_json::Value as Json;

use crate::{
    Mode,
    frame::{Frame, Value},
};

pub(crate) const APPLICATION_MESSAGE: i32 = 0;
pub(crate) const APPLICATION_ERROR: i32 = 1;
pub(crate) const PING: i32 = 2;
pub(crate) const PING_RESPONSE: i32 = 3;
pub(crate) const CONNECT: i32 = 4;
pub(crate) const CONNECT_ACK: i32 = 5;
pub(crate) const PROTOCOL_ERROR: i32 = 6;

/// One more than the last type.
pub(crate) const TYPES: i32 = 8;

pub(crate) const CONNECTION_ACCEPTED: i32 = 1;
pub(crate) const TERMINATE_STREAM: i32 = 2;

pub(crate) const TYPE: &str = ":message-type";
pub(crate) const FLAGS: &str = ":message-flags";
pub(crate) const STREAM: &str = ":stream-id";
pub(crate) const CONTENT_TYPE: &str = ":content-type";
pub(crate) const MODEL: &str = "service-model-type";
pub(crate) const OPERATION: &str = "operation";
pub(crate) const VERSION: &str = ":version";

/// What comes before the name of every operation and type.
pub(crate) const NAMESPACE: &str = "aws.greengrass#";

const JSON: &str = "application/json";

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    kind: i32,
    flags: i32,
    stream: i32,
    others: Vec<(&'static str, String)>,
    payload: Vec<u8>,
}

impl Outgoing {
    /// A message without other headers or a payload.
    pub fn bare(kind: i32, flags: i32, stream: i32) -> Self {
        Self { kind, flags, stream, others: Vec::new(), payload: Vec::new() }
    }

    /// A message of type `model`, without its namespace.
    pub fn json(kind: i32, flags: i32, stream: i32, model: Option<&str>, body: &Json) -> Self {
        let mut others = vec![(CONTENT_TYPE, JSON.to_owned())];
        others.extend(model.map(|model| (MODEL, format!("{NAMESPACE}{model}"))));
        let payload = body.to_string().into_bytes();
        Self { others, payload, ..Self::bare(kind, flags, stream) }
    }

    /// What the classic nucleus says when something in it broke.
    pub fn internal_error(stream: i32) -> Self {
        Self {
            others: vec![(CONTENT_TYPE, "text/plain".to_owned())],
            payload: b"InternalServerError".to_vec(),
            ..Self::bare(APPLICATION_ERROR, TERMINATE_STREAM, stream)
        }
    }

    /// With one more header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.others.push((name, value.to_owned()));
        self
    }

    /// With another payload.
    pub fn carrying(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// The frame, with the headers in the order of that nucleus.
    pub fn bytes(&self, mode: Mode) -> Vec<u8> {
        let common = [(TYPE, self.kind), (FLAGS, self.flags), (STREAM, self.stream)];
        let common = common.map(|(name, value)| (name.to_owned(), Value::Int(value)));
        let others = self.others.iter().map(|(n, v)| ((*n).to_owned(), Value::Text(v.clone())));
        let headers = match mode {
            Mode::Java => others.chain(common).collect(),
            Mode::Lite => common.into_iter().chain(others).collect(),
        };
        Frame { headers, payload: self.payload.clone() }.bytes()
    }
}
