//! Makes Greengrass' client device auth know a child's new certificate before the child is told.
//!
//! A broker that asks client device auth refuses a certificate that it never saw online. So each
//! time a certificate goes to a child, it is first verified and a token is asked for, which is what
//! the broker will do. The child is told all the same, whatever comes of it, after ten seconds at
//! the latest. That client device auth is not there is remembered until the next connection.

use std::{sync::Arc, time::Duration};

use aws_greengrass_ipc::{CallError, Client, ErrorCode, Nucleus};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{links::Publish, status::ClientDevices, wire::ThingName};

/// A child does not wait longer for this.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many are asked about at once: each may make client device auth ask the cloud.
const AT_ONCE: usize = 4;

/// What came of it.
#[derive(Debug)]
pub struct Told {
    /// Whose certificate.
    pub child: ThingName,
    /// The message to the child, which is to go now.
    pub publish: Publish,
    /// How client device auth stands.
    pub standing: ClientDevices,
    /// What it said, unless it accepted.
    pub why: Option<String>,
}

/// Certificates that are being made known. The messages to their children wait here.
#[derive(Debug)]
pub struct Prewarm {
    client: Client,
    /// `None`: nobody has been asked on this connection.
    standing: Option<ClientDevices>,
    gate: Arc<Semaphore>,
    asking: JoinSet<Told>,
}

impl Prewarm {
    /// Asks through this connection.
    pub fn new(client: Client) -> Self {
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, standing: None, gate, asking: JoinSet::new() }
    }

    /// There is a new connection to the nucleus. Lite has no client device auth.
    pub fn on_nucleus(&mut self, nucleus: Nucleus) {
        self.standing = match nucleus {
            Nucleus::Classic => None,
            Nucleus::Lite => Some(ClientDevices::Absent),
        };
    }

    /// Whether there is anyone to ask.
    pub fn is_wanted(&self) -> bool {
        !matches!(self.standing, Some(ClientDevices::Absent | ClientDevices::NotPermitted))
    }

    /// Makes a certificate known. The message comes back by [`Self::next`].
    pub fn start(&mut self, child: ThingName, pem: String, publish: Publish) {
        let (client, gate) = (self.client.clone(), Arc::clone(&self.gate));
        self.asking.spawn(async move {
            let asked = ask(&client, &gate, &child, &pem);
            let (standing, why) = match timeout(PATIENCE, asked).await {
                Ok(Ok(())) => (ClientDevices::Accepts, None),
                Ok(Err(refusal)) => (refusal.standing(), Some(refusal.to_string())),
                Err(_) => (ClientDevices::Fails, Some(Refusal::Slow.to_string())),
            };
            Told { child, publish, standing, why }
        });
    }

    /// The next message that may go. Cancel-safe.
    pub async fn next(&mut self) -> Told {
        loop {
            match self.asking.join_next().await {
                Some(Ok(told)) => {
                    self.standing = Some(told.standing);
                    return told;
                }
                Some(Err(ended)) => tracing::error!(%ended, "a question ended by itself"),
                None => std::future::pending().await,
            }
        }
    }

    /// Gives up what waits: the core that wanted it is gone.
    pub fn clear(&mut self) {
        self.asking = JoinSet::new();
    }
}

/// Why a certificate was not made known.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it is not the certificate of a client device")]
    NotValid,
    #[error("no answer in ten seconds")]
    Slow,
    #[error("{0}")]
    Call(#[from] CallError),
}

impl Refusal {
    fn standing(&self) -> ClientDevices {
        match self {
            Self::NotValid => ClientDevices::Refuses,
            Self::Slow => ClientDevices::Fails,
            Self::Call(CallError::NotSupported) => ClientDevices::Absent,
            Self::Call(CallError::Service(error)) => match error.code {
                ErrorCode::Unauthorized => ClientDevices::NotPermitted,
                ErrorCode::InvalidCredential | ErrorCode::InvalidArguments => {
                    ClientDevices::Refuses
                }
                _ => ClientDevices::Fails,
            },
            Self::Call(_) => ClientDevices::Fails,
        }
    }
}

/// The same two questions that the broker will ask.
async fn ask(
    client: &Client,
    gate: &Semaphore,
    child: &ThingName,
    pem: &str,
) -> Result<(), Refusal> {
    let _turn = gate.acquire().await.expect("the gate is never closed");
    if !client.verify_client_device_identity(pem).await? {
        return Err(Refusal::NotValid);
    }
    client.get_client_device_auth_token(child.as_str(), pem).await?;
    Ok(())
}
