//! Keeps a connection, for ever: connects, learns which nucleus it is, and begins anew when it ends.
//!
//! Owns what is known of the connection and tells it on two channels: the state for whoever wants to
//! know, the connection itself for the calls and subscriptions. Never gives up: whether so many
//! rejected tokens are too many is for the program to say.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    connection::{self, Accepted, Link, Names},
    demux::{Answer, Failure},
    error::{CallError, ConnectError, Shape, Step},
    model::{GetSystemConfig, Operation},
    options::Options,
    state::{Nucleus, State},
};

/// A connection that can be used.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    pub generation: u64,
    pub nucleus: Nucleus,
    pub link: Link,
}

impl Connected {
    /// Calls an operation, and waits for ever if need be.
    pub async fn call<O: Operation>(&self, operation: &O) -> Result<O::Response, CallError> {
        let payload = body(operation);
        self.check_size(O::NAMES, payload.len())?;
        read::<O>(self.link.call(O::NAMES, payload).await)
    }

    /// Whether the nucleus takes a request with so many bytes of payload.
    pub fn check_size(&self, names: Names, payload: usize) -> Result<(), CallError> {
        let (size, limit) = (names.request_size(payload), self.nucleus.largest_request());
        if size > limit { Err(CallError::TooLarge { size, limit }) } else { Ok(()) }
    }
}

/// The body of a request.
pub(crate) fn body(operation: &impl serde::Serialize) -> Vec<u8> {
    // Invariant: requests hold texts, numbers and JSON, all of which have a form in JSON.
    serde_json::to_vec(operation).expect("a request has a form in JSON")
}

fn read<O: Operation>(answer: Answer) -> Result<O::Response, CallError> {
    match answer {
        Ok(payload) => serde_json::from_slice(&payload)
            .map_err(|error| CallError::Malformed(crate::text::clean(&error.to_string()))),
        Err(Failure::NotWritten) => Err(CallError::NotConnected),
        Err(Failure::Lost) => Err(CallError::ConnectionLost),
        Err(Failure::Refused(refusal)) => Err(refusal.into_error(O::IS_ON_LITE)),
        Err(Failure::Malformed(why)) => Err(CallError::Malformed(why)),
    }
}

/// Works until nobody uses the connection any more.
pub(crate) async fn run(
    options: Options,
    state: watch::Sender<State>,
    links: watch::Sender<Option<Connected>>,
) {
    let links = &links;
    let supervisor =
        Supervisor { options, state, links, generation: 0, rejections: 0, since: None };
    tokio::select! {
        () = links.closed() => (),
        () = supervisor.keep_connected() => (),
    }
}

struct Supervisor<'a> {
    options: Options,
    state: watch::Sender<State>,
    links: &'a watch::Sender<Option<Connected>>,
    generation: u64,
    rejections: u32,
    /// When the connection came to be of use.
    since: Option<Instant>,
}

impl Supervisor<'_> {
    async fn keep_connected(mut self) {
        let backoff = self.options.backoff;
        let mut attempts = 0;
        loop {
            let why = self.connect_once().await;
            // One that breaks at once is no better than one that fails.
            if self.since.take().is_some_and(|since| since.elapsed() > backoff.longest) {
                attempts = 0;
            }
            self.links.send_replace(None);
            let rejections = self.rejections;
            self.state.send_replace(State::Connecting { rejections, why: Some(why) });
            sleep(backoff.pause(attempts)).await;
            attempts = attempts.saturating_add(1);
        }
    }

    /// Connects, and works for the connection until it ends.
    async fn connect_once(&mut self) -> ConnectError {
        match connection::connect(&self.options).await {
            Ok(accepted) => {
                self.rejections = 0;
                self.serve(accepted).await
            }
            Err(why) => {
                let is_rejection = why == ConnectError::Rejected;
                self.rejections = self.rejections.saturating_add(u32::from(is_rejection));
                why
            }
        }
    }

    async fn serve(&mut self, accepted: Accepted) -> ConnectError {
        let generation = self.generation + 1;
        let (link, pump) = connection::link(accepted, generation);
        let patience = self.options.timeouts.handshake;
        let mut pump = Box::pin(pump.run(self.options.timeouts.write));
        let nucleus = tokio::select! {
            why = &mut pump => return why,
            nucleus = recognise(&link, patience) => match nucleus {
                Ok(nucleus) => nucleus,
                Err(why) => return why,
            },
        };
        (self.generation, self.since) = (generation, Some(Instant::now()));
        self.links.send_replace(Some(Connected { generation, nucleus, link }));
        self.state.send_replace(State::Connected { generation, nucleus });
        pump.await
    }
}

/// Asks something that only a lite nucleus answers, or refuses in its own way.
async fn recognise(link: &Link, patience: Duration) -> Result<Nucleus, ConnectError> {
    let question = body(&GetSystemConfig { key: "thingName" });
    let answer = timeout(patience, link.call(GetSystemConfig::NAMES, question)).await;
    match answer.map_err(|_| ConnectError::TimedOut(Step::Recognition))? {
        Ok(_) => Ok(Nucleus::Lite),
        Err(Failure::Refused(refusal)) if refusal.shape == Shape::Lite => Ok(Nucleus::Lite),
        Err(Failure::Refused(_)) => Ok(Nucleus::Classic),
        Err(Failure::NotWritten | Failure::Lost) => Err(ConnectError::Closed),
        Err(Failure::Malformed(_)) => Err(ConnectError::out_of_place("an answer")),
    }
}
