//! The MQTT 3.1.1 driver: one broker, one persistent session, one connection after the other.
//!
//! Invariants:
//! - Every connection has a client of its own, thrown away with it: nothing that was pending on one
//!   is ever sent on the next. Who wants a message sent sends it again.
//! - [`LinkEvent::Up`] comes after the CONNACK and every SUBACK, before any message of the
//!   connection. What the broker delivers before that (its queue for our session) is held until
//!   then, up to 4 MiB.
//! - A message is acknowledged only when told to, and only on the connection that it came on.
//! - CA, certificate and key are read at each connect.
//! - The library's future is polled to its end or dropped with its connection, never in between.
//!
//! When its reader is slow it stops reading from the broker, always takes commands, and drops the
//! connection after half the keep-alive. (To drop it at once would never get through a queue that
//! the broker sends in one go and that is longer than the event channel.) It decides nothing about
//! a message and never speaks plain TCP to another machine. Publishes beyond [`Options::queue`] that the broker has not acknowledged are
//! answered [`SendError::Offline`] at once.

#![expect(clippy::disallowed_methods, reason = "a driver waits and runs as a task of its own")]

mod end;
mod session;

use std::{
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    time::Duration,
};

use rumqttc::{
    AckMode, AsyncClient, EventLoop, MqttOptions, TlsConfiguration, Transport,
    default_socket_connect,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{
    end::End,
    session::{Purpose, Session},
};
use super::{
    ConnectionId, Link, LinkCommand, LinkEvent, Qos, SendError,
    outlet::{Commands, Outlet},
    tls::{TlsError, TlsFiles},
};
use crate::schedule::Backoff;

/// The largest packet that is taken, in bytes. A larger one breaks the connection; two in a row
/// cost the session, for the broker would deliver the same one for ever.
pub const MAX_INCOMING: usize = 1024 * 1024;

/// The largest topic and payload together that are sent, in bytes: AWS IoT Core's limit.
pub const MAX_OUTGOING: usize = 128 * 1024;

/// How long a connect, and each write, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the link may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Commands that may wait for the driver.
const COMMANDS: usize = 256;

/// Packets over [`MAX_INCOMING`] in a row that cost the session.
const OVERSIZE_LIMIT: u32 = 2;

/// One link: to whom, as whom, for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The broker's name or address; with TLS its certificate must be for it.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// The client id: the name of the session, which no one else may use.
    pub client_id: String,
    /// mTLS; `None`: plain TCP, to this machine only.
    pub tls: Option<TlsFiles>,
    /// What to subscribe to, at each connect.
    pub subscriptions: Vec<(String, Qos)>,
    /// After this long without traffic the broker is asked whether it is there; after twice this
    /// long without an answer the connection is given up. Whole seconds.
    pub keep_alive: Duration,
    /// Publishes at QoS 1 that may be under way to the broker at once.
    pub inflight: u16,
    /// Publishes that may wait for the broker's acknowledgement, those under way included.
    pub queue: usize,
    /// Events that may wait for the reader.
    pub events: usize,
    /// Pauses between connects. Each is drawn between nothing and the pause that is due, and they
    /// start anew when a connection has held for the longest.
    pub reconnect: Backoff,
}

/// Why a link can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MqttError {
    /// Plain TCP to another machine.
    #[error(
        "plain TCP to {host:?} would let anyone on the network read and forge certificates: give \
         caFile, certificateFile and keyFile, or use a broker on 127.0.0.1"
    )]
    PlainTcp {
        /// The broker.
        host: String,
    },
    /// A session needs a name.
    #[error("the client id is empty: a session that is kept needs one")]
    NoClientId,
    /// One of the files of mTLS is no good.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Options {
    /// A link without TLS or subscriptions, and with the usual times and limits.
    pub fn new(host: &str, port: u16, client_id: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            client_id: client_id.to_owned(),
            tls: None,
            subscriptions: Vec::new(),
            keep_alive: Duration::from_secs(20),
            inflight: 100,
            queue: 1024,
            events: 1024,
            reconnect: Backoff {
                first: Duration::from_millis(500),
                longest: Duration::from_secs(30),
            },
        }
    }

    /// Whether a link can be made so: no plain TCP to others, files that fit together.
    pub fn check(&self) -> Result<(), MqttError> {
        if self.client_id.is_empty() {
            return Err(MqttError::NoClientId);
        }
        match &self.tls {
            Some(files) => check_files(files),
            None if is_loopback(&self.host) => Ok(()),
            None => Err(MqttError::PlainTcp { host: self.host.clone() }),
        }
    }

    /// A client for one connection.
    fn client(&self, purpose: Purpose) -> Result<(AsyncClient, EventLoop), MqttError> {
        let mut options = MqttOptions::new(&self.client_id, (self.host.as_str(), self.port));
        options.set_clean_session(purpose == Purpose::Forget);
        options.set_keep_alive(u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1));
        options.set_max_packet_size(MAX_INCOMING, 2 * MAX_OUTGOING);
        options.set_max_request_batch(64);
        options.set_inflight(self.inflight.max(1));
        options.set_ack_mode(AckMode::Manual);
        if let Some(files) = &self.tls {
            let config = TlsConfiguration::Rustls(files.load()?);
            options.set_transport(Transport::tls_with_config(config));
        }
        if self.host.parse::<Ipv6Addr>().is_ok() {
            let address = format!("[{}]:{}", self.host, self.port);
            options.set_socket_connector(move |_, network| {
                default_socket_connect(address.clone(), network)
            });
        }
        // An acknowledgement must always find room: there are at most 65,535 on a connection.
        let room = usize::from(u16::MAX) + self.queue;
        let (client, mut eventloop) = AsyncClient::builder(options).capacity(room).build();
        eventloop.network_options.set_tcp_nodelay(true);
        eventloop.network_options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        Ok((client, eventloop))
    }
}

/// Whether the three files can be read and fit together.
pub fn check_files(files: &TlsFiles) -> Result<(), MqttError> {
    files.load()?;
    Ok(())
}

/// Starts a link, on the tokio runtime that this is called on. It ends, with a DISCONNECT where
/// that is possible within a second, when the [`Link`] is dropped.
pub fn spawn(options: Options) -> Result<Link, MqttError> {
    options.check()?;
    let (commands, commanded) = mpsc::channel(COMMANDS);
    let (sender, events) = mpsc::channel(options.events.max(2));
    tokio::spawn(run(options, commanded, Outlet::new(sender)));
    Ok(Link { commands, events })
}

async fn run(options: Options, commands: mpsc::Receiver<LinkCommand>, outlet: Outlet) {
    let mut driver = Driver {
        options: &options,
        commands: Commands::new(commands, &outlet),
        outlet: &outlet,
        connections: 0,
        attempts: 0,
        oversize: 0,
        rng: fastrand::Rng::new(),
    };
    tokio::select! {
        never = outlet.pump() => match never {},
        () = driver.run() => {}
    }
}

/// The one loop of a link.
struct Driver<'a> {
    options: &'a Options,
    commands: Commands<'a>,
    outlet: &'a Outlet,
    /// Connections that were up so far.
    connections: u64,
    /// Attempts since a connection last held.
    attempts: u32,
    /// Packets over the limit in a row.
    oversize: u32,
    rng: fastrand::Rng,
}

impl Driver<'_> {
    async fn run(&mut self) {
        loop {
            match self.connect().await {
                End::Closed => return,
                End::Forgotten => self.oversize = 0,
                end => {
                    self.report_down(&end);
                    if !self.pause().await {
                        return;
                    }
                }
            }
        }
    }

    /// One connection, from the first packet to the last.
    async fn connect(&mut self) -> End {
        let purpose = if self.oversize < OVERSIZE_LIMIT { Purpose::Serve } else { Purpose::Forget };
        let (client, eventloop) = match self.options.client(purpose) {
            Ok(pair) => pair,
            Err(why) => {
                self.attempts += 1;
                return End::Unusable(why);
            }
        };
        let started = now();
        let connection = ConnectionId(self.connections + 1);
        let session = Session::new(client, connection, self.options, self.outlet);
        let mut notices = JoinSet::new();
        let end = self.serve(&session, purpose, eventloop, &mut notices).await;
        if session.is_up() {
            self.connections += 1;
        }
        let has_held = session.is_up() && started.elapsed() >= self.options.reconnect.longest;
        self.count(&end, has_held);
        // With the client gone every notice resolves at once.
        drop(session);
        while let Some(done) = notices.join_next().await {
            session::report_sent(self.outlet, done);
        }
        end
    }

    async fn serve(
        &mut self,
        session: &Session<'_>,
        purpose: Purpose,
        eventloop: EventLoop,
        notices: &mut JoinSet<session::Notice>,
    ) -> End {
        let mut polling = pin!(session.poll(purpose, eventloop));
        let end = tokio::select! {
            end = &mut polling => return end,
            end = session.obey(&mut self.commands, notices) => end,
            end = session.watch() => end,
        };
        if matches!(end, End::Closed) {
            session.disconnect();
            // Best effort: whoever dropped the link does not wait for it.
            let _ = timeout(CLOSE_TIMEOUT, polling).await;
        }
        end
    }

    fn count(&mut self, end: &End, has_held: bool) {
        if has_held {
            (self.attempts, self.oversize) = (0, 0);
        }
        self.attempts = self.attempts.saturating_add(1);
        if matches!(end, End::TooLarge { .. }) {
            self.oversize += 1;
        }
    }

    fn report_down(&self, end: &End) {
        let Options { host, port, .. } = self.options;
        let mut why = format!("{host}:{port}: {}", end.explain(self.options));
        if matches!(end, End::TooLarge { .. }) && self.oversize >= OVERSIZE_LIMIT {
            why += "; it is the second in a row, so the broker's queue for us is thrown away";
            tracing::warn!(link = %self.options.client_id, "{why}");
        }
        self.outlet.report(LinkEvent::Down { why });
    }

    /// Waits before the next connect, and until the reader has caught up. Says whether the link is
    /// still wanted.
    async fn pause(&mut self) -> bool {
        let longest = self.options.reconnect.pause(self.attempts, &mut self.rng);
        let pause = longest.mul_f64(self.rng.f64());
        let outlet = self.outlet;
        let mut rest = pin!(async {
            sleep(pause).await;
            outlet.drained().await;
        });
        loop {
            tokio::select! {
                () = &mut rest => return true,
                command = self.commands.next() => match command {
                    None => return false,
                    Some(LinkCommand::Publish(publish)) => {
                        let outcome = Err(SendError::Offline);
                        outlet.report(LinkEvent::Sent { mid: publish.mid, outcome });
                    }
                    Some(
                        LinkCommand::Ack(_)
                        | LinkCommand::Reconnect
                        | LinkCommand::Renew
                        | LinkCommand::Unconfirmed(_),
                    ) => {}
                },
            }
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[expect(clippy::disallowed_methods, reason = "how long a connection held is no decision's input")]
fn now() -> Instant {
    Instant::now()
}
