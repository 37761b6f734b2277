//! How the connection of a client fares.

use crate::error::ConnectError;

/// How the connection of a [`Client`](crate::Client) fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is no connection; it is being made, or will be after a pause.
    Connecting {
        /// So many times in a row the nucleus rejected the token; other failures in between don't
        /// count. An accepted token sets it to 0.
        rejections: u32,
        /// Why there is none; `None` only before the first attempt has failed.
        why: Option<ConnectError>,
    },
    /// There is one.
    Connected {
        /// Which, counted from 1.
        generation: u64,
        /// The nucleus at its other end.
        nucleus: Nucleus,
    },
}

/// Which nucleus it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nucleus {
    /// AWS IoT Greengrass nucleus, in Java.
    Classic,
    /// AWS IoT Greengrass nucleus lite, in C.
    Lite,
}

impl Nucleus {
    /// The stable word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Lite => "lite",
        }
    }

    /// The largest frame that it takes. A lite nucleus closes the connection over a larger one. A
    /// classic one takes 24 MiB, of which its operations allow a fraction.
    pub(crate) fn largest_request(self) -> usize {
        match self {
            Self::Classic => 16 * 1024 * 1024,
            Self::Lite => 10_000,
        }
    }
}
