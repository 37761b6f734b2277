//! One connection: the CONNACK, the subscriptions, the messages, the acknowledgements.
//!
//! Two loops run side by side until either ends: [`Session::poll`] moves the library on and hands
//! over what comes; [`Session::obey`] takes commands and reports what became of publishes.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    AsyncClient, ClientError, Event, EventLoop, ManualAck, Packet, PublishOptions, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{CONNECT_TIMEOUT, Commands, MAX_INCOMING, MAX_OUTGOING, Options, end::End};
use crate::{
    links::{
        ConnectionId, Delivery, LinkCommand, LinkEvent, Message, Publish, Qos, SendError,
        outlet::{Outlet, Overrun},
    },
    wire::Mid,
};

/// AWS IoT Core takes no more filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 8;

/// A broker that has not acknowledged a publish for this long is not believed to work.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// The most that is held, in bytes, of what comes before the link is up.
pub(super) const MAX_HELD: usize = 4 * MAX_INCOMING;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To carry messages, in the session that the broker keeps.
    Serve,
    /// To make the broker throw the session away, with a message in it that can't be read.
    Forget,
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
                Ok(Ok(event)) => inbound.take(event).await,
                Ok(Err(why)) => Err(End::of(why, purpose)),
                Err(_) => Err(End::Silent),
            };
            if let Err(end) = ended {
                return inbound.take_rest(&mut eventloop).err().unwrap_or(end);
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
                    // What it has sent is confirmed by the broker, and so are its subscriptions.
                    Some(LinkCommand::Unconfirmed(_) | LinkCommand::Renew) => {}
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
    held: Vec<Message>,
    held_bytes: usize,
    /// Messages so far.
    count: u64,
}

impl<'a> Inbound<'a> {
    fn new(session: &'a Session<'a>, purpose: Purpose) -> Self {
        Self {
            session,
            purpose,
            session_present: false,
            granted: 0,
            asked: 0,
            held: Vec::new(),
            held_bytes: 0,
            count: 0,
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) if self.purpose == Purpose::Serve => {
                self.session_present = ack.session_present;
                self.subscribe().await
            }
            Event::Incoming(Packet::ConnAck(_)) => {
                // The next poll ends the connection, or finds that it has ended.
                let _ = self.session.client.try_disconnect_now();
                Ok(())
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                self.check_granted(&ack)?;
                self.granted = self.asked;
                self.subscribe().await
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let message = self.message(publish);
                if self.session.is_up() {
                    self.hand_over(message).await
                } else {
                    self.hold(message)
                }
            }
            _ => Ok(()),
        }
    }

    /// What was read in one go with the end of the connection. A message can't be acknowledged any
    /// more, but behind it may be a packet for which the session will be thrown away; a refusal is
    /// a better reason than that the broker then hung up.
    fn take_rest(&mut self, eventloop: &mut EventLoop) -> Result<(), End> {
        for event in std::mem::take(&mut eventloop.state.events) {
            match event {
                Event::Incoming(Packet::Publish(publish)) if self.session.is_up() => {
                    let message = self.message(publish);
                    // Without room the broker delivers it again.
                    let _ = self.session.outlet.offer(message);
                }
                Event::Incoming(Packet::SubAck(ack)) => self.check_granted(&ack)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Subscribes to the next few filters, one SUBSCRIBE at a time; without any left the link is up.
    async fn subscribe(&mut self) -> Result<(), End> {
        let next = self.session.options.subscriptions.iter().skip(self.asked);
        let filters: Vec<SubscribeFilter> = next
            .take(FILTERS_AT_ONCE)
            .map(|(filter, qos)| SubscribeFilter::new(filter.clone(), quality(*qos)))
            .collect();
        let Some(first) = filters.first() else {
            return self.go_up().await;
        };
        self.asked += filters.len();
        let first = first.path.clone();
        // It takes any number of requests, so what it refuses is the filter.
        let asked = self.session.client.try_subscribe_many(filters);
        asked.map_err(|_| End::NotGranted { filter: first })
    }

    fn check_granted(&self, ack: &SubAck) -> Result<(), End> {
        let asked = self.session.options.subscriptions.iter().skip(self.granted);
        match ack.return_codes.iter().zip(asked).find(|(code, _)| is_refusal(code)) {
            Some((_, (filter, _))) => Err(End::NotGranted { filter: filter.clone() }),
            None => Ok(()),
        }
    }

    async fn go_up(&mut self) -> Result<(), End> {
        let Session { connection, outlet, up, .. } = self.session;
        up.store(true, Ordering::Relaxed);
        let session_present = self.session_present;
        outlet.report(LinkEvent::Up { connection: *connection, session_present });
        for message in std::mem::take(&mut self.held) {
            self.hand_over(message).await?;
        }
        Ok(())
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

    /// Keeps a message until the link is up.
    fn hold(&mut self, message: Message) -> Result<(), End> {
        let size = message.topic.len() + message.payload.len() + size_of::<Message>();
        let limit = if message.delivery.is_some() { MAX_HELD } else { MAX_HELD / 2 };
        if self.held_bytes + size <= limit {
            self.held_bytes += size;
            self.held.push(message);
        } else if message.delivery.is_some() {
            return Err(End::Overfull);
        } else {
            self.session.outlet.shed(1);
        }
        Ok(())
    }

    /// Waits for a slow reader as long as the broker is sure to wait for us.
    async fn hand_over(&self, message: Message) -> Result<(), End> {
        let Session { outlet, options, .. } = self.session;
        let handed_over = outlet.hand_over(message, options.keep_alive / 2).await;
        handed_over.map_err(|Overrun| End::Overrun)
    }
}

fn is_refusal(code: &SubscribeReasonCode) -> bool {
    matches!(code, SubscribeReasonCode::Failure)
}

fn quality(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}
