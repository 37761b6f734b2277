//! What can go wrong on the wire.

use std::time::Duration;

use crate::{
    Mode,
    frame::{self, Frame, Value},
    message::{
        APPLICATION_MESSAGE, FLAGS, MODEL, NAMESPACE, Outgoing, PING, PROTOCOL_ERROR, STREAM, TYPE,
    },
    state::Out,
};

/// Something that goes wrong. Those without a `times` happen at once, on every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed.
    Close,
    /// The connection is closed in the middle of a frame.
    CloseMidFrame,
    /// A frame whose prelude has a bad checksum.
    BadPreludeChecksum,
    /// A frame with a bad checksum at its end.
    BadChecksum,
    /// A good prelude that announces this many bytes, and that many zeros after it: over the cap of
    /// 10,000 bytes on lite and 24 MiB on the classic nucleus, or 2 GiB.
    Announce(u32),
    /// A good prelude whose headers are longer than its frame.
    HeadersOverFrame,
    /// A frame that ends in the middle of a header.
    TruncatedHeader,
    /// A harmless frame with headers of names and types that the protocol does not use; on a stream
    /// that there is not.
    UnknownHeader,
    /// A message on a stream that there is not.
    UnknownStream,
    /// A PING, with a payload.
    Ping,
    /// A PROTOCOL_ERROR; the connection is closed after it.
    ProtocolError,
    /// 200 bytes that are no frame.
    Garbage,
    /// Half a frame, and nothing ever after it.
    HalfFrame,
    /// Every subscription to IoT Core is ended by the nucleus.
    EndStreams,
    /// Nothing is read for a while.
    StopReading(Duration),
    /// The next requests of an operation are answered otherwise.
    Answer {
        /// Which operation, without its namespace; or `CONNECT`, which takes
        /// [`WrongAnswer::Nothing`] and [`WrongAnswer::Close`] alone.
        operation: &'static str,
        /// How.
        with: WrongAnswer,
        /// How many requests; `u32::MAX` is for good.
        times: u32,
    },
}

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrongAnswer {
    /// Nothing.
    Nothing,
    /// An error of the model.
    Error {
        /// Its code.
        code: &'static str,
        /// Its message.
        message: String,
    },
    /// `InternalServerError` as plain text, without a type.
    InternalServerError,
    /// To `SubscribeToIoTCore`: an event on the topic `early`, then the answer.
    EventFirst,
    /// Nothing, and the connection is closed.
    Close,
}

/// Wrong answers to come.
pub(crate) type Armed = Vec<(&'static str, WrongAnswer, u32)>;

/// Takes the wrong answer to a request, if there is one.
pub(crate) fn take(armed: &mut Armed, operation: &str) -> Option<WrongAnswer> {
    let at = armed.iter().position(|(name, _, times)| *name == operation && *times > 0)?;
    let (_, with, times) = armed.get_mut(at)?;
    *times -= 1;
    Some(with.clone())
}

impl Fault {
    /// What is written to a connection.
    pub(crate) fn writes(&self, mode: Mode) -> Vec<Out> {
        let mut good = Outgoing::bare(APPLICATION_MESSAGE, 0, i32::MAX).bytes(mode);
        let half = good.len() / 2;
        match self {
            Self::Close => vec![Out::Close],
            Self::CloseMidFrame => vec![Out::Bytes(good[..half].to_vec()), Out::Close],
            Self::HalfFrame => vec![Out::Bytes(good[..half].to_vec()), Out::Gag],
            Self::BadPreludeChecksum => {
                good[8] ^= 1;
                vec![Out::Bytes(good)]
            }
            Self::BadChecksum => {
                let last = good.len() - 1;
                good[last] ^= 1;
                vec![Out::Bytes(good)]
            }
            Self::Announce(length) => {
                let prelude = frame::prelude(*length, 0).to_vec();
                vec![Out::Bytes(prelude), Out::Pour(u64::from(*length)), Out::Gag]
            }
            Self::HeadersOverFrame => {
                vec![Out::Bytes([&frame::prelude(32, 1_000)[..], &[0; 20]].concat())]
            }
            Self::TruncatedHeader => vec![Out::Bytes(frame::assemble(&[13, b':', b'm'], b""))],
            Self::UnknownHeader => vec![Out::Bytes(with_unknown_headers())],
            Self::UnknownStream => vec![Out::Bytes(good)],
            Self::Ping => {
                vec![Out::Bytes(Outgoing::bare(PING, 0, 0).carrying(b"are you there").bytes(mode))]
            }
            Self::ProtocolError => {
                let body = serde_json::json!({"message": "a fault"});
                let error = Outgoing::json(PROTOCOL_ERROR, 0, 0, None, &body);
                vec![Out::Bytes(error.bytes(mode)), Out::Close]
            }
            Self::Garbage => {
                vec![Out::Bytes((0..200_u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect())]
            }
            Self::EndStreams | Self::StopReading(_) | Self::Answer { .. } => Vec::new(),
        }
    }
}

/// A frame with a header of every type that there is.
fn with_unknown_headers() -> Vec<u8> {
    let common = [(TYPE, APPLICATION_MESSAGE), (FLAGS, 0), (STREAM, i32::MAX)];
    let mut headers: Vec<_> = common.map(|(n, v)| (n.to_owned(), Value::Int(v))).into();
    headers.push((MODEL.to_owned(), Value::Text(format!("{NAMESPACE}Unheard"))));
    let known = Frame { headers, payload: Vec::new() }.bytes();
    let mut headers = known[frame::PRELUDE..known.len() - 4].to_vec();
    let odd: [(u8, &[u8]); 8] = [
        (0, &[]),
        (1, &[]),
        (2, &[1]),
        (3, &[1, 2]),
        (5, &[0; 8]),
        (6, &[0, 2, 9, 9]),
        (8, &[0; 8]),
        (9, &[0; 16]),
    ];
    for (kind, value) in odd {
        headers.extend_from_slice(&[2, b'x', b'0' + kind, kind]);
        headers.extend_from_slice(value);
    }
    frame::assemble(&headers, b"{}")
}
