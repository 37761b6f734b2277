//! The wire: frames of the event stream encoding, and the messages of the RPC protocol in them.
//!
//! Pure: bytes in, bytes out. Nothing here knows a socket, a stream or an operation.

mod frame;
mod message;

pub(crate) use frame::Decoder;
pub use frame::FrameError;
pub(crate) use message::{Kind, Message, MessageError, Outgoing, StreamId};

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use message::frame_for_tests;
