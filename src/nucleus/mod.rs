//! Life as a component of a nucleus: where the settings come from, what the nucleus asks of a
//! component and is told by it, and when there is no use in going on.
//!
//! Decides nothing about a rotation. What the runtime is to know comes to it as [`News`]. The
//! nucleus may be slow, offline or restarting; none of that ends the gateway. Only a token that is
//! refused again and again does: a nucleus that was started anew gives a new one to a new process.

#![expect(clippy::disallowed_methods, reason = "this is a driver: it waits and runs tasks")]

mod life;
mod prewarm;

use std::time::Duration;

use aws_greengrass_ipc::{
    CallError, Client, EnvError, ErrorCode, Nucleus, Options, QueueLimits, State,
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

pub use life::live;
pub use prewarm::{Prewarm, Told};

use crate::{
    config::{Config, ConfigError},
    schedule::Backoff,
    status,
    wire::escape,
};

/// So many refusals of the token in a row, over so long, end the gateway. A nucleus that is going
/// down may refuse for a moment what it gave.
const REJECTIONS: u32 = 5;
const REJECTED_FOR: Duration = Duration::from_secs(30);

/// Pauses between questions for the settings.
const ASK_AGAIN: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// What the runtime learns from the nucleus.
#[derive(Debug)]
pub enum News {
    /// It is connected to a nucleus of this kind; once for each connection.
    Nucleus(Nucleus),
    /// The settings have changed, and are good.
    Settings(Box<Config>),
    /// The settings have changed, and are of no use.
    Refused(ConfigError),
    /// A deployment begins to update components, or has done so.
    Deployment {
        /// Which.
        is_under_way: bool,
    },
    /// The token is refused again and again.
    Rejected,
}

/// The nucleus refuses the token that it gave us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the nucleus refuses the token of this process (SVCUID): it was restarted since it gave it; \
     it gives a new one to the process that it starts next"
)]
pub struct Rejected;

/// What may wait in a subscription until the loop takes it: many small messages.
const QUEUE: QueueLimits = QueueLimits { events: 1024, bytes: 1 << 20 };

/// Connects to the nucleus that started this process.
pub fn connect() -> Result<Client, EnvError> {
    let options = Options::from_env()?;
    Ok(Client::spawn(Options { queue: QUEUE, ..options }))
}

/// Asks for the component's configuration until the nucleus gives it.
pub async fn settings(client: &Client) -> Result<Value, Rejected> {
    tokio::select! {
        tree = until_answered(client) => Ok(tree),
        rejected = rejected(client.state()) => Err(rejected),
    }
}

async fn until_answered(client: &Client) -> Value {
    let mut rng = fastrand::Rng::new();
    let mut attempts = 0;
    loop {
        connected(&mut client.state()).await;
        match configuration(client).await {
            Ok(tree) => return tree,
            Err(error) => {
                attempts += 1;
                let error = escape(&error.to_string());
                tracing::warn!(error, "the nucleus does not give the settings; asking again");
                sleep(ASK_AGAIN.pause(attempts, &mut rng)).await;
            }
        }
    }
}

/// Our own configuration. A component that has none has the defaults.
async fn configuration(client: &Client) -> Result<Value, CallError> {
    match client.get_configuration(None, &[]).await {
        Err(CallError::Service(error)) if error.code == ErrorCode::ResourceNotFound => {
            Ok(Value::Object(serde_json::Map::new()))
        }
        answer => answer,
    }
}

/// Waits for a connection.
async fn connected(state: &mut watch::Receiver<State>) {
    // An error means that the client is gone; then nobody waits for this either.
    let _ = state.wait_for(|state| matches!(state, State::Connected { .. })).await;
}

/// Waits until there is no more hope that the nucleus takes our token.
async fn rejected(mut state: watch::Receiver<State>) -> Rejected {
    loop {
        rejections(&mut state, 1).await;
        let since = Instant::now();
        let accepted = state.wait_for(|state| matches!(state, State::Connected { .. }));
        let was_accepted = timeout_at(since + REJECTED_FOR, accepted).await.is_ok();
        if was_accepted {
            continue;
        }
        let mut counted = state.clone();
        tokio::select! {
            () = rejections(&mut counted, REJECTIONS) => return Rejected,
            () = connected(&mut state) => {}
        }
    }
}

async fn rejections(state: &mut watch::Receiver<State>, least: u32) {
    let enough = |state: &State| matches!(state, State::Connecting { rejections, .. } if *rejections >= least);
    if state.wait_for(enough).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl From<Nucleus> for status::Nucleus {
    fn from(nucleus: Nucleus) -> Self {
        match nucleus {
            Nucleus::Classic => Self::Classic,
            Nucleus::Lite => Self::Lite,
        }
    }
}
