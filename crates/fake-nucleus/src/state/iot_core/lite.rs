//! How nucleus lite publishes and subscribes: at once or not at all, and every filter anew.

use super::{IotCore, Stage, Subscription, packet_size};
use crate::{
    Message, Qos,
    state::{Answer, Failure, Reply, State, StreamKey, cloud::Command},
};

/// How many publishes at QoS 1 may be unacknowledged, and how many bytes of them.
const UNACKNOWLEDGED: (usize, usize) = (10, 15_000);

/// How many subscriptions there may be.
const SUBSCRIPTIONS: usize = 100;

impl State {
    pub(super) fn publish_lite(&mut self, message: Message) -> Result<(), Failure> {
        let size = packet_size(&message);
        let stored: usize = self.iot_core.unacknowledged.values().sum();
        let is_full = self.iot_core.unacknowledged.len() >= UNACKNOWLEDGED.0
            || stored + size > UNACKNOWLEDGED.1;
        if !self.cloud.is_online || (message.qos == Qos::AtLeastOnce && is_full) {
            return Err(Failure::service("Failed to publish the message."));
        }
        let id = self.cloud.id();
        if message.qos == Qos::AtLeastOnce {
            self.iot_core.unacknowledged.insert(id, size);
        }
        self.send_up(Command::Publish { id, message });
        Ok(())
    }

    pub(super) fn subscribe_lite(&mut self, key: StreamKey, filter: String, qos: Qos) -> Answer {
        let count = self.iot_core.subscriptions.len();
        if !self.cloud.is_online || filter.is_empty() || count >= SUBSCRIPTIONS {
            return Err(Failure::service("Failed to bind the subscription."));
        }
        let stage = Stage::Unanswered;
        let subscription = Subscription { key, filter: filter.clone(), qos, stage };
        self.iot_core.subscriptions.push(subscription);
        // Whether the cloud grants it nobody looks.
        let id = self.cloud.id();
        self.send_up(Command::Subscribe { id, filter, qos });
        self.answer_subscribe(key);
        Ok(Reply::Later)
    }

    pub(super) fn unsubscribe_lite(&mut self, filter: String) {
        let is_needed = self.iot_core.subscriptions.iter().any(|s| s.filter == filter);
        if self.cloud.is_online && !is_needed {
            let id = self.cloud.id();
            self.send_up(Command::Unsubscribe { id, filter });
        }
    }

    /// The daemon that holds the connection to the cloud restarts. Nobody tells the components.
    pub fn restart_iotcored(&mut self) {
        self.lose_link();
        self.iot_core = IotCore::default();
        self.renew_link();
    }
}
