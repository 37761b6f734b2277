//! The messages of the RPC protocol: their types, flags and streams, read from and written to frames.
//!
//! Invariants: a message that was read has all three headers that each must have, and stands on a
//! stream that suits its type. Unknown headers are passed over. Never judges what a message means.

use super::frame::{self, Frame, FrameError, HeaderOut, Value};

/// The number of a stream on its connection; 0 is the connection itself.
pub(crate) type StreamId = i32;

const ACCEPTED: i32 = 1;

/// The flag that ends a stream.
const TERMINATE: i32 = 2;

/// The version of the protocol, which both nuclei ask for.
const VERSION: &str = "0.1.0";

const JSON: &str = "application/json";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Application,
    ApplicationError,
    Ping,
    PingResponse,
    Connect,
    ConnectAck { is_accepted: bool },
    ProtocolError,
    InternalError,
}

/// A frame that is no message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message lacks the header {0}, or has it as another type")]
    Header(&'static str),
    #[error("a message is of the unknown type {0}")]
    Type(i32),
    #[error("a message of type {kind} stands on stream {stream}")]
    Stream { kind: i32, stream: StreamId },
}

/// A message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub kind: Kind,
    /// Whether it ends its stream.
    pub is_last: bool,
    pub stream: StreamId,
    /// What the payload is, in the words of the service's model.
    pub model: Option<&'a str>,
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message from a frame.
    pub fn read(frame: Frame<'a>) -> Result<Self, MessageError> {
        let mut fields = Fields::default();
        for header in frame.headers() {
            let (name, value) = header?;
            fields.take(name, value);
        }
        fields.message(frame.payload)
    }
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<i32>,
    flags: Option<i32>,
    stream: Option<StreamId>,
    model: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &[u8], value: Value<'a>) {
        match (name, value) {
            (b":message-type", Value::Int32(number)) => self.kind = Some(number),
            (b":message-flags", Value::Int32(number)) => self.flags = Some(number),
            (b":stream-id", Value::Int32(number)) => self.stream = Some(number),
            // What is no text is no name of the model either.
            (b"service-model-type", Value::String(text)) => {
                self.model = std::str::from_utf8(text).ok();
            }
            _ => (),
        }
    }

    fn message(self, payload: &'a [u8]) -> Result<Message<'a>, MessageError> {
        let number = self.kind.ok_or(MessageError::Header(":message-type"))?;
        let flags = self.flags.ok_or(MessageError::Header(":message-flags"))?;
        let stream = self.stream.ok_or(MessageError::Header(":stream-id"))?;
        let kind = kind(number, flags)?;
        let is_on_stream = matches!(kind, Kind::Application | Kind::ApplicationError);
        if if is_on_stream { stream <= 0 } else { stream != 0 } {
            return Err(MessageError::Stream { kind: number, stream });
        }
        let is_last = flags & TERMINATE != 0;
        Ok(Message { kind, is_last, stream, model: self.model, payload })
    }
}

fn kind(number: i32, flags: i32) -> Result<Kind, MessageError> {
    Ok(match number {
        0 => Kind::Application,
        1 => Kind::ApplicationError,
        2 => Kind::Ping,
        3 => Kind::PingResponse,
        4 => Kind::Connect,
        5 => Kind::ConnectAck { is_accepted: flags & ACCEPTED != 0 },
        6 => Kind::ProtocolError,
        7 => Kind::InternalError,
        unknown => return Err(MessageError::Type(unknown)),
    })
}

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outgoing<'a> {
    /// The first one on a connection.
    Connect { payload: &'a [u8] },
    /// Opens a stream.
    Request { stream: StreamId, operation: &'a str, model: &'a str, payload: &'a [u8] },
    /// Ends a stream.
    Terminate { stream: StreamId },
    /// Answers a ping, with what it brought.
    Pong { payload: &'a [u8] },
}

impl Outgoing<'_> {
    /// Puts the message at the end of `out`.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { payload } => {
                let version = (":version", HeaderOut::String(VERSION));
                let [kind, flags, stream] = common(4, 0, 0);
                frame::encode(out, &[kind, flags, stream, version, JSON_CONTENT], payload);
            }
            Self::Request { stream, operation, model, payload } => {
                frame::encode(out, &request(stream, operation, model), payload);
            }
            Self::Terminate { stream } => frame::encode(out, &common(0, TERMINATE, stream), &[]),
            Self::Pong { payload } => frame::encode(out, &common(3, 0, 0), payload),
        }
    }

    /// The size of a request's frame.
    pub fn request_size(operation: &str, model: &str, payload: usize) -> usize {
        frame::size_of(&request(0, operation, model), payload)
    }
}

/// Any message, for tests: its type, flags and stream, its model and its payload.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn frame_for_tests(common: [i32; 3], model: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let [kind, flags, stream] = self::common(common[0], common[1], common[2]);
    let mut headers = vec![kind, flags, stream];
    headers.extend(model.map(|model| ("service-model-type", HeaderOut::String(model))));
    let mut out = Vec::new();
    frame::encode(&mut out, &headers, payload);
    out
}

type Header<'a> = (&'a str, HeaderOut<'a>);

const JSON_CONTENT: Header<'static> = (":content-type", HeaderOut::String(JSON));

fn request<'a>(stream: StreamId, operation: &'a str, model: &'a str) -> [Header<'a>; 6] {
    let [kind, flags, stream] = common(0, 0, stream);
    let operation = ("operation", HeaderOut::String(operation));
    let model = ("service-model-type", HeaderOut::String(model));
    [kind, flags, stream, JSON_CONTENT, model, operation]
}

fn common(kind: i32, flags: i32, stream: StreamId) -> [Header<'static>; 3] {
    [
        (":message-type", HeaderOut::Int32(kind)),
        (":message-flags", HeaderOut::Int32(flags)),
        (":stream-id", HeaderOut::Int32(stream)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;

    fn read(headers: &[Header<'_>]) -> Result<(Kind, bool, StreamId), MessageError> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, headers, b"{}");
        let mut decoder = Decoder::new(1000);
        decoder.push(&bytes);
        let frame = decoder.frame().expect("a frame").expect("is complete");
        Message::read(frame).map(|message| (message.kind, message.is_last, message.stream))
    }

    #[test]
    fn each_type_stands_on_streams_or_on_the_connection_and_no_other_is_known() {
        for (number, stream) in [(0, 1), (1, 1), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)] {
            assert!(read(&common(number, 0, stream)).is_ok());
            let wrong = 1 - stream;
            let error = MessageError::Stream { kind: number, stream: wrong };
            assert_eq!(read(&common(number, 0, wrong)), Err(error));
        }
        assert!(read(&common(0, 0, -1)).is_err());
        assert_eq!(read(&common(8, 0, 0)), Err(MessageError::Type(8)));
    }

    #[test]
    fn flags_say_what_is_accepted_and_what_ends() {
        let accepted = |flags| read(&common(5, flags, 0)).expect("a message").0;
        assert_eq!(accepted(1), Kind::ConnectAck { is_accepted: true });
        assert_eq!(accepted(0), Kind::ConnectAck { is_accepted: false });
        assert_eq!(read(&common(0, TERMINATE, 7)), Ok((Kind::Application, true, 7)));
        assert_eq!(read(&common(0, 0, 7)), Ok((Kind::Application, false, 7)));
    }

    #[test]
    fn the_common_headers_come_in_any_order_among_others_but_must_all_be_there() {
        let [kind, flags, stream] = common(0, 0, 3);
        let other = ("x-new", HeaderOut::String("?"));
        assert_eq!(read(&[stream, other, flags, kind]), Ok((Kind::Application, false, 3)));
        let missing = Err(MessageError::Header(":stream-id"));
        assert_eq!(read(&[kind, flags]), missing);
        assert_eq!(read(&[kind, flags, (":stream-id", HeaderOut::String("3"))]), missing);
        assert_eq!(read(&[kind, stream]), Err(MessageError::Header(":message-flags")));
        assert_eq!(read(&[flags, stream]), Err(MessageError::Header(":message-type")));
    }
}
