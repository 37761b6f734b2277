//! The link to a broker that stands for IoT Core.
//!
//! One connection after the other, each with a client of its own. The classic nucleus forgets its
//! session when its process starts and keeps it from then on; lite never keeps one. A message is
//! acknowledged once it was handed over, so that a link that is frozen keeps it in the broker. With
//! a pair that is no good there is no connection.

use std::time::Duration;

use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, PublishOptions, QoS,
    SubscribeNoticeError, TlsConfiguration, Transport,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Message, Mode, Qos, Upstream,
    state::{Command, Pair, Shared, Wanted},
};

/// The largest packet, either way.
const PACKET: usize = 1 << 20;

/// Requests that may wait, acknowledgements included.
const REQUESTS: usize = 1 << 17;

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the broker is, and who connects.
struct Broker {
    host: String,
    port: u16,
    client_id: String,
    mode: Mode,
    unsubscribe: Duration,
    reconnect: Duration,
}

/// The acknowledgement of a command: its number, and whether it was granted.
type Acknowledged = Option<(u64, bool)>;

/// Connects for as long as it is polled.
pub(crate) async fn run(upstream: Upstream, nucleus: Shared) {
    let Some(broker) = Broker::new(upstream, &nucleus) else { return };
    let (mut commands, mut wanted) = nucleus.lock().attach();
    let mut life = None;
    while wanted.wait_for(|wanted| wanted.is_wanted).await.is_ok() {
        let now = *wanted.borrow_and_update();
        let is_first = life != Some(now.life);
        let pair = nucleus.lock().pair();
        if let Some((transport, certificate)) = transport(pair) {
            let has_past = is_first && broker.mode == Mode::Java;
            if has_past && !broker.forget(transport.clone()).await {
                sleep(broker.reconnect).await;
                continue;
            }
            life = Some(now.life);
            let connection = Connection { broker: &broker, nucleus: &nucleus, now, certificate };
            connection.serve(transport, &mut commands, wanted.clone()).await;
            nucleus.lock().broker_is_gone();
        }
        sleep(broker.reconnect).await;
    }
}

/// How to connect, and with which certificate; `None`: not at all.
fn transport(pair: Pair) -> Option<(Transport, Option<[u8; 32]>)> {
    match pair {
        Pair::None => Some((Transport::tcp(), None)),
        Pair::Good(loaded) => {
            let config = TlsConfiguration::Rustls(loaded.config);
            Some((Transport::tls_with_config(config), Some(loaded.certificate)))
        }
        Pair::Bad => None,
    }
}

impl Broker {
    fn new(upstream: Upstream, nucleus: &Shared) -> Option<Self> {
        let Upstream::Mqtt { host, port, client_id, .. } = upstream else { return None };
        let state = nucleus.lock();
        let timing = state.settings.timing;
        let mode = state.settings.mode;
        let (unsubscribe, reconnect) = (timing.unsubscribe, timing.reconnect);
        Some(Self { host, port, client_id, mode, unsubscribe, reconnect })
    }

    fn client(&self, transport: Transport, is_clean: bool) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(&self.client_id, (self.host.as_str(), self.port));
        options.set_transport(transport);
        options.set_clean_session(is_clean);
        options.set_keep_alive(60);
        options.set_max_packet_size(PACKET, PACKET);
        options.set_inflight(100);
        options.set_ack_mode(AckMode::Manual);
        let (client, mut eventloop) = AsyncClient::builder(options).capacity(REQUESTS).build();
        eventloop.network_options.set_tcp_nodelay(true);
        (client, eventloop)
    }

    /// Makes the broker forget the session of an earlier process.
    async fn forget(&self, transport: Transport) -> bool {
        let (client, mut eventloop) = self.client(transport, true);
        let connected = timeout(CONNECT, eventloop.poll()).await;
        // It is forgotten already; this only tells the broker that no error ended the connection.
        let _ = client.try_disconnect();
        let _ = timeout(CONNECT, async { while eventloop.poll().await.is_ok() {} }).await;
        matches!(connected, Ok(Ok(_)))
    }
}

/// One connection.
struct Connection<'a> {
    broker: &'a Broker,
    nucleus: &'a Shared,
    /// What was wanted when it was made.
    now: Wanted,
    certificate: Option<[u8; 32]>,
}

impl Connection<'_> {
    async fn serve(
        &self,
        transport: Transport,
        commands: &mut mpsc::Receiver<Command>,
        wanted: watch::Receiver<Wanted>,
    ) {
        let (client, eventloop) = self.broker.client(transport, self.broker.mode == Mode::Lite);
        // Whatever is in there was meant for an earlier connection, and is sent again.
        while commands.try_recv().is_ok() {}
        tokio::select! {
            () = self.poll(eventloop, &client, wanted.clone()) => {}
            () = self.obey(&client, commands) => {}
            () = self.until_unwanted(wanted) => {}
        }
    }

    async fn until_unwanted(&self, mut wanted: watch::Receiver<Wanted>) {
        // It fails when the nucleus is gone.
        let _ = wanted.wait_for(|wanted| self.is_over(wanted)).await;
    }

    /// Whether another connection is wanted by now, or none.
    fn is_over(&self, wanted: &Wanted) -> bool {
        !wanted.is_wanted || (wanted.number, wanted.life) != (self.now.number, self.now.life)
    }

    /// Reads until the connection ends; on a frozen link nothing is read.
    async fn poll(
        &self,
        mut eventloop: EventLoop,
        client: &AsyncClient,
        mut wanted: watch::Receiver<Wanted>,
    ) {
        loop {
            let Ok(event) = eventloop.poll().await else { return };
            match wanted.wait_for(|wanted| !wanted.is_frozen).await {
                Ok(wanted) if !self.is_over(&wanted) => {}
                _ => return,
            }
            match event {
                Event::Incoming(Packet::ConnAck(ack)) => {
                    self.nucleus.lock().broker_is_there(ack.session_present, self.certificate);
                }
                Event::Incoming(Packet::Publish(publish)) => self.hand_over(client, publish),
                _ => {}
            }
        }
    }

    fn hand_over(&self, client: &AsyncClient, publish: Publish) {
        let ack = client.prepare_ack(&publish);
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let qos = if ack.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let message = Message { topic, payload: publish.payload.into(), qos };
        self.nucleus.lock().on_downlink(&message);
        if let Some(ack) = ack {
            // It fails when the connection is over.
            let _ = client.try_manual_ack(ack);
        }
    }

    /// Sends what the nucleus has for the broker, and tells it of acknowledgements.
    async fn obey(&self, client: &AsyncClient, commands: &mut mpsc::Receiver<Command>) {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.send(client, command, &mut under_way),
                    None => return,
                },
                Some(done) = under_way.join_next() => if let Ok(Some((id, is_granted))) = done {
                    self.nucleus.lock().acknowledged(id, is_granted);
                },
            }
        }
    }

    /// A command that can't be sent, as one with a bad topic, is never acknowledged.
    fn send(&self, client: &AsyncClient, command: Command, under_way: &mut JoinSet<Acknowledged>) {
        match command {
            Command::Publish { id, message: Message { topic, payload, qos } } => {
                let options = PublishOptions::new(quality(qos));
                if let Ok(notice) = client.try_publish_tracked(topic, payload, options) {
                    under_way.spawn(async move {
                        notice.wait_completion_async().await.ok().map(|()| (id, true))
                    });
                }
            }
            Command::Subscribe { id, filter, qos } => {
                if let Ok(notice) = client.try_subscribe_tracked(filter, quality(qos)) {
                    under_way.spawn(async move {
                        match notice.wait_completion_async().await {
                            Ok(()) => Some((id, true)),
                            Err(SubscribeNoticeError::V4SubAckFailure(_)) => Some((id, false)),
                            Err(_) => None,
                        }
                    });
                }
            }
            Command::Unsubscribe { id, filter } => {
                let delay = self.broker.unsubscribe;
                if let Ok(notice) = client.try_unsubscribe_tracked(filter) {
                    under_way.spawn(async move {
                        sleep(delay).await;
                        notice.wait_completion_async().await.ok().map(|()| (id, true))
                    });
                }
            }
        }
    }
}

fn quality(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}
