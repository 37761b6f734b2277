//! What the link over a nucleus waits for, and the streams that it has meanwhile.
//!
//! Whatever stream there is is read. When one takes another's place the driver decides.

use aws_greengrass_ipc::IoTCoreMessage;
use tokio::time::Instant;

use crate::links::streams::{News, Streams};

/// What the link waits for.
pub(super) enum Stage {
    /// For the first connection to the nucleus.
    Away,
    /// Until streams may be opened again.
    Rests { until: Instant },
    /// For the subscriptions to be granted. The old ones are heard until then.
    Subscribes { fresh: Streams<IoTCoreMessage>, old: Option<Streams<IoTCoreMessage>> },
    /// For nothing: it is up. While it is renewed, for the streams that are to take its place.
    Serves { streams: Streams<IoTCoreMessage>, fresh: Option<Streams<IoTCoreMessage>> },
}

impl Stage {
    /// What a stream says next; nothing, while there is none. Cancel-safe.
    pub async fn next(&mut self) -> News<IoTCoreMessage> {
        match self {
            Self::Away | Self::Rests { .. } => std::future::pending().await,
            Self::Serves { streams, fresh: None }
            | Self::Subscribes { fresh: streams, old: None } => streams.next().await,
            Self::Serves { streams, fresh: Some(fresh) } => tokio::select! {
                news = streams.next() => news,
                news = fresh.next() => news,
            },
            Self::Subscribes { fresh, old: Some(old) } => loop {
                return tokio::select! {
                    news = fresh.next() => news,
                    news = old.next() => match news {
                        News::Message(_) => news,
                        // How the old ones stand is of no matter any more.
                        News::Granted | News::Standing => continue,
                    },
                };
            },
        }
    }

    /// How many messages were shed since this was last asked.
    pub fn take_shed(&mut self) -> u64 {
        match self {
            Self::Away | Self::Rests { .. } => 0,
            Self::Serves { streams, fresh } => {
                streams.take_shed() + fresh.as_mut().map_or(0, Streams::take_shed)
            }
            Self::Subscribes { fresh, old } => {
                fresh.take_shed() + old.as_mut().map_or(0, Streams::take_shed)
            }
        }
    }
}
