//! One connection: the CONNACK, the subscriptions, the messages, the acknowledgements.
//!
//! Two loops run side by side until either ends: [`Session::poll`] moves the library on and hands
//! over what comes; [`Session::obey`] takes commands and reports what became of publishes.

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event, EventLoop, ManualAck,
    Packet, PublishOptions, QoS, StateError, SubAck, SubscribeFilter, SubscribeReasonCode,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{CONNECT_TIMEOUT, Commands, MAX_INCOMING, MAX_OUTGOING, MqttError, Options};
use crate::{
    links::{
        ConnectionId, Delivery, LinkCommand, LinkEvent, Message, Publish, Qos, SendError,
        outlet::{Full, Outlet},
    },
    wire::{Mid, escape},
};

/// AWS IoT Core takes no more filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 8;

/// A broker that has not acknowledged a publish for this long is not believed to work.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To carry messages, in the session that the broker keeps.
    Serve,
    /// To make the broker throw the session away, with a message in it that can't be read.
    Forget,
}

/// How a connection ended, or why there was none.
#[derive(Debug)]
pub(super) enum End {
    /// It could not be begun.
    Unusable(MqttError),
    /// The network or the broker broke it.
    Lost(Box<ConnectionError>),
    /// A packet over the limit came.
    TooLarge { bytes: usize },
    /// The broker stopped answering.
    Silent,
    /// The broker refused a subscription.
    NotGranted { filter: String },
    /// The reader is too slow.
    Overrun,
    /// A new one was commanded.
    Renewed,
    /// The session is thrown away.
    Forgotten,
    /// The link was dropped.
    Closed,
}

/// A publish, and what became of it.
pub(super) type Notice = (Mid, Answer);

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The broker has it; at QoS 0: the network has it.
    Sent,
    /// The connection ended first.
    Lost,
    /// The broker did not answer within [`ACK_TIMEOUT`].
    Missing,
}

/// What both loops of a connection share.
pub(super) struct Session<'a> {
    client: AsyncClient,
    connection: ConnectionId,
    options: &'a Options,
    outlet: &'a Outlet,
    up: AtomicBool,
    unacknowledged: Mutex<HashMap<u64, ManualAck>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: AsyncClient,
        connection: ConnectionId,
        options: &'a Options,
        outlet: &'a Outlet,
    ) -> Self {
        let (up, unacknowledged) = (AtomicBool::new(false), Mutex::default());
        Self { client, connection, options, outlet, up, unacknowledged }
    }

    /// Whether [`LinkEvent::Up`] was reported.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Connects, and hands over what comes until the connection ends.
    pub(super) async fn poll(&self, purpose: Purpose, mut eventloop: EventLoop) -> End {
        let mut inbound = Inbound::new(self, purpose);
        loop {
            // An idle connection has something to tell at each keep-alive.
            let patience = (2 * self.options.keep_alive).max(CONNECT_TIMEOUT);
            let polled = timeout(patience + Duration::from_secs(1), eventloop.poll()).await;
            let ended = match polled {
                Ok(Ok(event)) => inbound.take(event),
                Ok(Err(why)) => Err(End::of(why, purpose)),
                Err(_) => Err(End::Silent),
            };
            if let Err(end) = ended {
                inbound.take_rest(&mut eventloop);
                return end;
            }
        }
    }

    /// Takes commands, and reports what became of publishes, until told to end.
    pub(super) async fn obey(
        &self,
        commands: &mut Commands<'_>,
        notices: &mut JoinSet<Notice>,
    ) -> End {
        loop {
            tokio::select! {
                command = commands.next() => match command {
                    None => return End::Closed,
                    Some(LinkCommand::Reconnect) => return End::Renewed,
                    Some(LinkCommand::Ack(delivery)) => self.acknowledge(delivery),
                    Some(LinkCommand::Publish(publish)) => self.publish(publish, notices),
                },
                Some(done) = notices.join_next() => {
                    let is_silent = matches!(done, Ok((_, Answer::Missing)));
                    report_sent(self.outlet, done);
                    if is_silent {
                        return End::Silent;
                    }
                }
            }
        }
    }

    /// Ends a connection that does not get as far as its subscriptions.
    pub(super) async fn watch(&self) -> End {
        sleep(2 * CONNECT_TIMEOUT).await;
        if self.is_up() {
            return std::future::pending().await;
        }
        End::Silent
    }

    /// Says goodbye once what was acknowledged and sent so far is out.
    pub(super) fn disconnect(&self) {
        // It fails when the connection is over already.
        let _ = self.client.try_disconnect_with_timeout(super::CLOSE_TIMEOUT);
    }

    fn acknowledge(&self, delivery: Delivery) {
        if delivery.connection != self.connection {
            return;
        }
        if let Some(ack) = self.unacknowledged().remove(&delivery.number) {
            // There is room for every one; it fails when the connection is over.
            let _ = self.client.try_manual_ack(ack);
        }
    }

    fn publish(&self, publish: Publish, notices: &mut JoinSet<Notice>) {
        let Publish { mid, topic, payload, qos } = publish;
        let refuse = |why| {
            self.outlet.report(LinkEvent::Sent { mid, outcome: Err(why) });
        };
        if topic.len() + payload.len() > MAX_OUTGOING || topic.len() > usize::from(u16::MAX) {
            return refuse(SendError::Refused);
        }
        if !self.is_up() || notices.len() >= self.options.queue {
            return refuse(SendError::Offline);
        }
        let options = PublishOptions::new(quality(qos));
        match self.client.try_publish_tracked(topic, payload, options) {
            Ok(notice) => {
                notices.spawn(async move {
                    match timeout(ACK_TIMEOUT, notice.wait_completion_async()).await {
                        Ok(Ok(())) => (mid, Answer::Sent),
                        Ok(Err(_)) => (mid, Answer::Lost),
                        Err(_) => (mid, Answer::Missing),
                    }
                });
            }
            Err(ClientError::InvalidRequest(_)) => refuse(SendError::Refused),
            Err(_) => refuse(SendError::Offline),
        }
    }

    fn unacknowledged(&self) -> MutexGuard<'_, HashMap<u64, ManualAck>> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports what became of a publish.
pub(super) fn report_sent(outlet: &Outlet, done: Result<Notice, JoinError>) {
    // A task that was cancelled belongs to a runtime that is ending, and its reader with it.
    if let Ok((mid, answer)) = done {
        let outcome = if answer == Answer::Sent { Ok(()) } else { Err(SendError::Offline) };
        outlet.report(LinkEvent::Sent { mid, outcome });
    }
}

/// What [`Session::poll`] alone knows.
struct Inbound<'a> {
    session: &'a Session<'a>,
    purpose: Purpose,
    session_present: bool,
    /// Subscriptions that were granted, and that were asked for.
    granted: usize,
    asked: usize,
    /// What came before the link was up.
    held: VecDeque<Message>,
    /// Messages so far.
    count: u64,
}

impl<'a> Inbound<'a> {
    fn new(session: &'a Session<'a>, purpose: Purpose) -> Self {
        let held = VecDeque::new();
        Self { session, purpose, session_present: false, granted: 0, asked: 0, held, count: 0 }
    }

    fn take(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) if self.purpose == Purpose::Serve => {
                self.session_present = ack.session_present;
                self.subscribe()
            }
            Event::Incoming(Packet::ConnAck(_)) => {
                // The next poll ends the connection, or finds that it has ended.
                let _ = self.session.client.try_disconnect_now();
                Ok(())
            }
            Event::Incoming(Packet::SubAck(ack)) => self.granted(&ack),
            Event::Incoming(Packet::Publish(publish)) => {
                let message = self.message(publish);
                self.hand_over(message)
            }
            _ => Ok(()),
        }
    }

    /// Hands over what was read before the connection ended. It can't be acknowledged any more,
    /// but a message behind a packet that can't be read may never come again.
    fn take_rest(&mut self, eventloop: &mut EventLoop) {
        let rest = std::mem::take(&mut eventloop.state.events);
        for event in rest.into_iter().filter(|_| self.session.is_up()) {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let message = self.message(publish);
                // Without room the broker delivers it again.
                let _ = self.hand_over(message);
            }
        }
    }

    /// Subscribes to the next few filters, one SUBSCRIBE at a time; without any left the link is up.
    fn subscribe(&mut self) -> Result<(), End> {
        let next = self.session.options.subscriptions.iter().skip(self.asked);
        let filters: Vec<SubscribeFilter> = next
            .take(FILTERS_AT_ONCE)
            .map(|(filter, qos)| SubscribeFilter::new(filter.clone(), quality(*qos)))
            .collect();
        let Some(first) = filters.first() else {
            return self.go_up();
        };
        self.asked += filters.len();
        let first = first.path.clone();
        // It takes any number of requests, so what it refuses is the filter.
        let asked = self.session.client.try_subscribe_many(filters);
        asked.map_err(|_| End::NotGranted { filter: first })
    }

    fn granted(&mut self, ack: &SubAck) -> Result<(), End> {
        let asked = self.session.options.subscriptions.iter().skip(self.granted);
        for (code, (filter, _)) in ack.return_codes.iter().zip(asked) {
            if *code == SubscribeReasonCode::Failure {
                return Err(End::NotGranted { filter: filter.clone() });
            }
        }
        self.granted = self.asked;
        self.subscribe()
    }

    fn go_up(&mut self) -> Result<(), End> {
        let Session { connection, outlet, up, .. } = self.session;
        up.store(true, Ordering::Relaxed);
        let session_present = self.session_present;
        outlet.report(LinkEvent::Up { connection: *connection, session_present });
        let held = std::mem::take(&mut self.held);
        held.into_iter().try_for_each(|message| self.hand_over(message))
    }

    fn message(&mut self, publish: rumqttc::Publish) -> Message {
        self.count += 1;
        let delivery = self.session.client.prepare_ack(&publish).map(|ack| {
            self.session.unacknowledged().insert(self.count, ack);
            Delivery { connection: self.session.connection, number: self.count }
        });
        Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.into(),
            dup: publish.dup,
            retain: publish.retain,
            delivery,
        }
    }

    fn hand_over(&mut self, message: Message) -> Result<(), End> {
        if self.session.is_up() {
            return self.session.outlet.offer(message).map_err(|Full| End::Overrun);
        }
        let limit = self.session.options.events;
        if self.held.len() < if message.delivery.is_some() { limit } else { limit / 2 } {
            self.held.push_back(message);
        } else if message.delivery.is_some() {
            return Err(End::Overrun);
        } else {
            self.session.outlet.shed();
        }
        Ok(())
    }
}

impl End {
    fn of(why: ConnectionError, purpose: Purpose) -> Self {
        use rumqttc::Error::PayloadSizeLimitExceeded;
        match why {
            ConnectionError::MqttState(StateError::Deserialization(PayloadSizeLimitExceeded(
                bytes,
            ))) => Self::TooLarge { bytes },
            ConnectionError::MqttState(StateError::AwaitPingResp)
            | ConnectionError::NetworkTimeout
            | ConnectionError::FlushTimeout => Self::Silent,
            ConnectionError::RequestsDone if purpose == Purpose::Forget => Self::Forgotten,
            why => Self::Lost(Box::new(why)),
        }
    }

    /// For people: what happened and what to do about it.
    pub(super) fn explain(&self, options: &Options) -> String {
        match self {
            Self::Unusable(why) => why.to_string(),
            Self::Lost(why) => explain_loss(why, options),
            Self::TooLarge { bytes } => format!(
                "a packet of {bytes} bytes came, and {MAX_INCOMING} is the most; limit it at the \
                 broker (Mosquitto: message_size_limit)"
            ),
            Self::Silent => "the broker does not answer".to_owned(),
            Self::NotGranted { filter } => {
                format!("the broker refuses the subscription to {filter:?}; allow it there")
            }
            Self::Overrun => "messages come faster than they can be handled".to_owned(),
            Self::Renewed => "a new connection is wanted".to_owned(),
            Self::Forgotten => "the session was thrown away".to_owned(),
            Self::Closed => "the link was closed".to_owned(),
        }
    }
}

fn explain_loss(why: &ConnectionError, options: &Options) -> String {
    match (tls_error(why), &options.tls) {
        (Some(rustls::Error::AlertReceived(alert)), Some(files)) => format!(
            "the broker refuses the certificate {} ({alert:?})",
            files.certificate.display()
        ),
        (Some(rustls::Error::InvalidCertificate(why)), Some(files)) => format!(
            "the broker's certificate is not good for {:?} by {}: {why}",
            options.host,
            files.ca.display()
        ),
        _ => match why {
            ConnectionError::ConnectionRefused(code) => explain_refusal(*code),
            why => escape(&causes(why).last().map_or_else(|| why.to_string(), ToString::to_string)),
        },
    }
}

fn explain_refusal(code: ConnectReturnCode) -> String {
    let why = match code {
        ConnectReturnCode::BadClientId => "it refuses the client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "it does not authorise this client"
        }
        _ => "it does not speak MQTT 3.1.1",
    };
    format!("the broker refuses the connection: {why}")
}

fn tls_error(why: &ConnectionError) -> Option<&rustls::Error> {
    let io = causes(why).find_map(|cause| cause.downcast_ref::<io::Error>())?;
    io.get_ref()?.downcast_ref()
}

/// An error and what caused it, outermost first.
fn causes(why: &ConnectionError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    fn cause<'a>(effect: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        Error::source(*effect)
    }
    std::iter::successors(Some(why as &(dyn Error + 'static)), cause)
}

fn quality(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}
