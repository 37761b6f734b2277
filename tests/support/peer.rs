//! A plain MQTT client for tests: what a child, a cloud or an attacker sends and sees.
//!
//! It acknowledges what it receives, never reconnects, and waits with a deadline.

use std::{fs, time::Duration};

use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};

use super::pki::Files;

/// How long the broker may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Larger than anything that a test sends.
const MAX_PACKET: usize = 16 * 1024 * 1024;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Login {
    port: u16,
    client_id: String,
    files: Option<Files>,
    persistent: bool,
}

/// A connected client. Its connection breaks off when dropped.
pub struct Peer {
    client: AsyncClient,
    received: UnboundedReceiver<Received>,
    polling: JoinHandle<()>,
    session_present: bool,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The broker may have sent it before.
    pub dup: bool,
    /// The broker kept it for new subscribers.
    pub retain: bool,
    /// The broker wants to know that it came.
    pub qos1: bool,
}

impl Login {
    /// Over plain TCP.
    pub fn plain(port: u16, client_id: &str) -> Self {
        Self { port, client_id: client_id.to_owned(), files: None, persistent: false }
    }

    /// Over TLS, with a certificate.
    pub fn mtls(port: u16, client_id: &str, files: &Files) -> Self {
        Self { files: Some(files.clone()), ..Self::plain(port, client_id) }
    }

    /// The broker keeps the session, and queues for it, while the client is away.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Connects; an error is what the network or the broker said.
    pub async fn connect(self) -> Result<Peer, String> {
        let (client, mut eventloop) = AsyncClient::builder(self.options()).capacity(1000).build();
        eventloop.network_options.set_tcp_nodelay(true);
        let first = timeout(DEADLINE, eventloop.poll()).await.map_err(|_| "no answer")?;
        let session_present = match first.map_err(|why| why.to_string())? {
            Event::Incoming(Packet::ConnAck(ack)) => ack.session_present,
            other => return Err(format!("{other:?} instead of a CONNACK")),
        };
        let (sender, received) = unbounded_channel();
        let polling = tokio::spawn(poll(eventloop, sender));
        Ok(Peer { client, received, polling, session_present })
    }

    fn options(&self) -> MqttOptions {
        let host = if self.files.is_some() { "localhost" } else { "127.0.0.1" };
        let mut options = MqttOptions::new(self.client_id.clone(), (host, self.port));
        options.set_clean_session(!self.persistent);
        options.set_keep_alive(60);
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        if let Some(files) = &self.files {
            options.set_transport(Transport::tls_with_config(tls(files)));
        }
        options
    }
}

impl Peer {
    /// Whether the broker had kept the session.
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Whether the connection has ended.
    pub fn is_over(&self) -> bool {
        self.polling.is_finished()
    }

    /// Subscribes at QoS 1 and waits for the broker's word; an error is its refusal.
    pub async fn subscribe(&self, filter: &str) -> Result<(), String> {
        let asked = self.client.subscribe_tracked(filter, QoS::AtLeastOnce).await;
        let answer = timeout(DEADLINE, asked.map_err(|why| why.to_string())?.wait_async()).await;
        let ack = answer.map_err(|_| "no SUBACK")?.map_err(|why| why.to_string())?;
        match ack.return_codes.as_slice() {
            [SubscribeReasonCode::Success(_)] => Ok(()),
            codes => Err(format!("{codes:?}")),
        }
    }

    /// Sends at QoS 1 and waits for the PUBACK. A Mosquitto sends one for a message that its
    /// access rules forbid as well.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), String> {
        self.publish_with(topic, payload, PublishOptions::at_least_once()).await
    }

    /// Sends with these options and waits until the broker, or at QoS 0 the network, has it.
    pub async fn publish_with(
        &self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        options: PublishOptions,
    ) -> Result<(), String> {
        let sent = self.client.publish_tracked(topic, payload.into(), options).await;
        let sent = timeout(DEADLINE, sent.map_err(|why| why.to_string())?.wait_async()).await;
        sent.map_err(|_| "no PUBACK")?.map_err(|why| why.to_string())?;
        Ok(())
    }

    /// Sends at QoS 1 and does not wait for the PUBACK, but for room in the client.
    pub async fn queue(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), String> {
        let options = PublishOptions::at_least_once();
        let sent = self.client.publish_tracked(topic, payload.into(), options).await;
        sent.map(drop).map_err(|why| why.to_string())
    }

    /// The next message, if one comes within `deadline`. `None` as well when the connection ended.
    pub async fn receive(&mut self, deadline: Duration) -> Option<Received> {
        timeout(deadline, self.received.recv()).await.ok().flatten()
    }

    /// The next message; for who has a deadline of his own. Panics when the connection has ended.
    pub async fn next(&mut self) -> Received {
        self.received.recv().await.expect("the connection stands")
    }

    /// What has come so far. After [`Peer::flush`]: all that the broker had sent until then.
    pub fn received(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }

    /// Waits until all that the broker has sent to this client is here: a message that this client
    /// sends to itself on `topic` comes last. Returns what came before it.
    pub async fn flush(&mut self, topic: &str) -> Vec<Received> {
        self.subscribe(topic).await.expect("the topic is this client's own");
        self.publish(topic, "flush").await.expect("the topic is this client's own");
        let mut before = Vec::new();
        loop {
            let message = self.receive(DEADLINE).await.expect("one's own message comes back");
            if message.topic == topic {
                return before;
            }
            before.push(message);
        }
    }

    /// Ends the connection as MQTT wants it.
    pub async fn disconnect(mut self) {
        let _ = self.client.disconnect().await;
        let _ = timeout(DEADLINE, &mut self.polling).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

async fn poll(mut eventloop: EventLoop, sender: UnboundedSender<Received>) {
    while let Ok(event) = eventloop.poll().await {
        if let Event::Incoming(Packet::Publish(publish)) = event {
            let received = Received {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                dup: publish.dup,
                retain: publish.retain,
                qos1: publish.qos == QoS::AtLeastOnce,
            };
            if sender.send(received).is_err() {
                return;
            }
        }
    }
}

fn tls(files: &Files) -> TlsConfiguration {
    let read = |path| fs::read(path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
    TlsConfiguration::Simple {
        ca: read(&files.ca),
        alpn: None,
        client_auth: Some((read(&files.certificate), read(&files.key))),
    }
}
