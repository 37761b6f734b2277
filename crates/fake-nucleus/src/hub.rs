//! The cloud: what AWS IoT Core is to the devices that are connected to it.
//!
//! Every message goes to each session with a filter that takes it, the publisher's own included,
//! once. A session that is not clean keeps messages of QoS 1 while its device is away. Nothing here
//! knows of a nucleus: it is shared by any number of them, and by the test that stands for whatever
//! runs in the cloud.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    Pending,
    inbox::{Inbox, push},
    topic,
};

/// How surely a message is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// At most once.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// How surely it is to be delivered.
    pub qos: Qos,
}

/// The cloud. Cloning it gives another handle to the same one.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<String, Session>,
    inbox: Inbox,
}

#[derive(Debug)]
struct Session {
    filters: BTreeMap<String, Qos>,
    is_clean: bool,
    is_connected: bool,
    queue: VecDeque<Message>,
    wake: Arc<Notify>,
}

impl Hub {
    /// A cloud without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes a message at QoS 1, as something in the cloud does.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let payload = payload.into();
        let message = Message { topic: topic.to_owned(), payload, qos: Qos::AtLeastOnce };
        self.inner().deliver(&message);
    }

    /// The messages that devices published, oldest first; the newest 100,000 of them.
    pub fn received(&self) -> Vec<Message> {
        self.inner().inbox.received()
    }

    /// How many messages devices published.
    pub fn count(&self) -> u64 {
        self.inner().inbox.count()
    }

    /// Takes the oldest message of a device that `filter` matches and that was not taken before,
    /// or the next to come.
    pub fn take(&self, filter: &str) -> Pending<Message> {
        self.inner().inbox.take(filter)
    }

    /// The filters that a device is subscribed to.
    pub fn subscriptions(&self, client_id: &str) -> Vec<String> {
        let inner = self.inner();
        let session = inner.sessions.get(client_id);
        session.map_or_else(Vec::new, |session| session.filters.keys().cloned().collect())
    }

    /// A device connects. Says whether its session was kept. `wake` is told of each message for it.
    pub(crate) fn connect(&self, client_id: &str, is_clean: bool, wake: &Arc<Notify>) -> bool {
        let mut inner = self.inner();
        let kept = inner.sessions.remove(client_id).filter(|old| !is_clean && !old.is_clean);
        let session_present = kept.is_some();
        let mut session = kept.unwrap_or_else(|| Session::new(wake));
        (session.is_clean, session.is_connected) = (is_clean, true);
        session.wake.notify_one();
        inner.sessions.insert(client_id.to_owned(), session);
        session_present
    }

    /// A device connects without a past, and wants its session kept from now on.
    pub(crate) fn connect_afresh(&self, client_id: &str, wake: &Arc<Notify>) {
        let session = Session { is_clean: false, ..Session::new(wake) };
        self.inner().sessions.insert(client_id.to_owned(), session);
    }

    /// A device's connection is gone.
    pub(crate) fn disconnect(&self, client_id: &str) {
        let mut inner = self.inner();
        let Some(session) = inner.sessions.get_mut(client_id) else { return };
        session.is_connected = false;
        session.queue.retain(|message| message.qos == Qos::AtLeastOnce);
        if session.is_clean {
            inner.sessions.remove(client_id);
        }
    }

    pub(crate) fn subscribe(&self, client_id: &str, filter: &str, qos: Qos) {
        if let Some(session) = self.inner().sessions.get_mut(client_id) {
            session.filters.insert(filter.to_owned(), qos);
        }
    }

    pub(crate) fn unsubscribe(&self, client_id: &str, filter: &str) {
        if let Some(session) = self.inner().sessions.get_mut(client_id) {
            session.filters.remove(filter);
        }
    }

    /// A device publishes.
    pub(crate) fn accept(&self, message: Message) {
        let mut inner = self.inner();
        inner.deliver(&message);
        inner.inbox.add(message);
    }

    /// The next message for a device that is connected.
    pub(crate) fn next(&self, client_id: &str) -> Option<Message> {
        let mut inner = self.inner();
        let session = inner.sessions.get_mut(client_id)?;
        if session.is_connected { session.queue.pop_front() } else { None }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn deliver(&mut self, message: &Message) {
        for session in self.sessions.values_mut() {
            session.offer(message);
        }
    }
}

impl Session {
    fn new(wake: &Arc<Notify>) -> Self {
        Self {
            filters: BTreeMap::new(),
            is_clean: true,
            is_connected: true,
            queue: VecDeque::new(),
            wake: Arc::clone(wake),
        }
    }

    fn offer(&mut self, message: &Message) {
        let matching = self.filters.iter().filter(|(f, _)| topic::matches(f, &message.topic));
        let Some(qos) = matching.map(|(_, qos)| *qos.min(&message.qos)).max() else { return };
        if self.is_connected || (!self.is_clean && qos == Qos::AtLeastOnce) {
            push(&mut self.queue, Message { qos, ..message.clone() });
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, qos: Qos) -> Message {
        Message { topic: topic.to_owned(), payload: b"x".to_vec(), qos }
    }

    #[test]
    fn a_message_reaches_every_subscriber_once_its_own_publisher_too() {
        let hub = Hub::new();
        for client in ["a", "b"] {
            hub.connect(client, true, &Arc::default());
            hub.subscribe(client, "t/+", Qos::AtLeastOnce);
            hub.subscribe(client, "t/#", Qos::AtLeastOnce);
        }
        hub.accept(message("t/1", Qos::AtLeastOnce));
        for client in ["a", "b"] {
            assert_eq!(hub.next(client), Some(message("t/1", Qos::AtLeastOnce)));
            assert_eq!(hub.next(client), None);
        }
        assert_eq!(hub.received(), [message("t/1", Qos::AtLeastOnce)]);
    }

    #[test]
    fn a_kept_session_keeps_qos_1_while_its_device_is_away_and_a_clean_one_nothing() {
        let hub = Hub::new();
        let wake = Arc::default();
        hub.connect("clean", true, &wake);
        hub.connect_afresh("kept", &wake);
        for client in ["clean", "kept"] {
            hub.subscribe(client, "#", Qos::AtLeastOnce);
            hub.disconnect(client);
        }
        hub.publish("t", "1");
        hub.accept(message("q0", Qos::AtMostOnce));
        assert!(hub.connect("kept", false, &wake));
        assert!(!hub.connect("clean", true, &wake));
        assert_eq!(hub.next("kept").map(|m| m.topic), Some("t".to_owned()));
        assert_eq!(hub.next("kept"), None);
        assert_eq!(hub.next("clean"), None);
    }
}
