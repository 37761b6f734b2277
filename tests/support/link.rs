//! Driving an MQTT link of ours in a test, with a deadline for everything.

use std::time::Duration;

use certrelay::{
    links::{
        ConnectionId, Link, LinkCommand, LinkEvent, Message, Publish, Qos, SendError,
        mqtt::{self, Options},
    },
    schedule::Backoff,
    wire::Mid,
};
use tokio::time::timeout;

/// Far more than anything takes.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// A link to this port of 127.0.0.1 that subscribes to `in/#` and tries again soon.
pub fn options(port: u16) -> Options {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(100));
    Options {
        subscriptions: vec![("in/#".to_owned(), Qos::AtLeastOnce)],
        reconnect: Backoff { first, longest },
        ..Options::new("127.0.0.1", port, "link")
    }
}

/// Starts a link.
pub fn link(options: Options) -> Link {
    mqtt::spawn(options).expect("good options")
}

/// The next event.
pub async fn next(link: &mut Link) -> LinkEvent {
    timeout(DEADLINE, link.events.recv()).await.expect("an event").expect("the link runs")
}

/// The next connection, after any that failed, and whether the broker had kept the session.
pub async fn up(link: &mut Link) -> (ConnectionId, bool) {
    loop {
        match next(link).await {
            LinkEvent::Up { connection, session_present } => return (connection, session_present),
            LinkEvent::Down { .. } => {}
            other => panic!("{other:?} before the link is up"),
        }
    }
}

/// Why the link is down next, past any `Up`.
pub async fn down(link: &mut Link) -> String {
    loop {
        match next(link).await {
            LinkEvent::Down { why } => return why,
            LinkEvent::Up { .. } => {}
            other => panic!("{other:?} instead of Down"),
        }
    }
}

/// The next event, which is a message.
pub async fn message(link: &mut Link) -> Message {
    match next(link).await {
        LinkEvent::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

/// Gives a command.
pub async fn command(link: &Link, command: LinkCommand) {
    timeout(DEADLINE, link.commands.send(command)).await.expect("taken").expect("the link runs");
}

/// Acknowledges a message.
pub async fn ack(link: &Link, message: &Message) {
    command(link, LinkCommand::Ack(message.delivery.expect("it came at QoS 1"))).await;
}

/// Publishes on `out/a`; `number` is for [`mid`].
pub async fn publish(link: &Link, number: u8, payload: &[u8], qos: Qos) {
    let (topic, payload) = ("out/a".to_owned(), payload.to_vec());
    command(link, LinkCommand::Publish(Publish { mid: mid(number), topic, payload, qos })).await;
}

/// The next event, which is what became of a publish.
pub async fn sent(link: &mut Link) -> (Mid, Result<(), SendError>) {
    match next(link).await {
        LinkEvent::Sent { mid, outcome } => (mid, outcome),
        other => panic!("{other:?} instead of Sent"),
    }
}

/// A message id.
pub fn mid(number: u8) -> Mid {
    Mid([number; 16])
}
