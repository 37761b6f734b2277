//! How the classic nucleus publishes and subscribes: through its spool, and with one subscription in
//! the cloud for all the filters that it covers.

use serde_json::json;

use super::{Asked, IotCore, Stage, Subscription};
use crate::{
    Message, Qos,
    state::{Answer, Failure, Reply, State, StreamKey, cloud::Command},
    topic,
};

/// The largest payload, the longest topic, and how many slashes may be in it.
const PAYLOAD: usize = 128 << 10;
const TOPIC: (usize, usize) = (256, 7);

/// Why nothing can be subscribed to without a link.
pub(super) const OFFLINE: &str = "AWS_ERROR_MQTT5_OPERATION_FAILED_DUE_TO_OFFLINE_QUEUE_POLICY";

impl State {
    pub(super) fn publish_java(&mut self, message: Message) -> Result<(), Failure> {
        let topic = message.topic.clone();
        let refuse =
            |why: &str| Failure::service(format!("Publish to topic {topic} failed: {why}"));
        if let Some(why) = fault_of(&message) {
            return Err(refuse(&why));
        }
        if message.qos == Qos::AtMostOnce && !self.cloud.is_online {
            return Err(refuse("Device is offline. Dropping QoS 0 message."));
        }
        self.iot_core.spool.add(message).map_err(refuse)?;
        self.send_spool();
        Ok(())
    }

    pub(super) fn send_spool(&mut self) {
        while self.cloud.is_online {
            let id = self.cloud.id();
            let Some(message) = self.iot_core.spool.next(id) else { return };
            self.send_up(Command::Publish { id, message });
        }
    }

    pub(super) fn subscribe_java(&mut self, key: StreamKey, filter: String, qos: Qos) -> Answer {
        let is_covered = self.iot_core.granted.iter().any(|g| topic::covers(g, &filter));
        let stage = match () {
            () if is_covered => Stage::Answered,
            () if !self.cloud.was_online => Stage::Withheld,
            () if !self.cloud.is_online => return Err(not_subscribed(&filter, OFFLINE)),
            () => Stage::Asked,
        };
        let subscription = Subscription { key, filter: filter.clone(), qos, stage };
        self.iot_core.subscriptions.push(subscription);
        if stage == Stage::Answered {
            return Ok(Reply::Open(json!({})));
        }
        if stage == Stage::Asked {
            self.ask_for(key, filter, qos);
        }
        Ok(Reply::Later)
    }

    pub(super) fn ask_for(&mut self, key: StreamKey, filter: String, qos: Qos) {
        let id = self.cloud.id();
        self.iot_core.asked.insert(id, Asked::Subscribe { key, filter: filter.clone() });
        self.send_up(Command::Subscribe { id, filter, qos });
    }

    /// Gives up what no subscription needs any more. Without a link that fails, and it stays.
    pub(super) fn unsubscribe_java(&mut self) {
        if !self.cloud.is_online {
            return;
        }
        let IotCore { subscriptions, granted, .. } = &self.iot_core;
        let needed = |g: &&String| subscriptions.iter().any(|s| topic::covers(g, &s.filter));
        let dead: Vec<String> = granted.iter().filter(|g| !needed(g)).cloned().collect();
        for filter in dead {
            let id = self.cloud.id();
            self.iot_core.asked.insert(id, Asked::Unsubscribe { filter: filter.clone() });
            self.send_up(Command::Unsubscribe { id, filter });
        }
    }

    pub(super) fn on_suback(&mut self, key: StreamKey, filter: String, is_granted: bool) {
        let mut of_stream = self.iot_core.subscriptions.iter_mut();
        let Some(subscription) = of_stream.find(|s| s.key == key) else {
            // The component gave up meanwhile.
            let id = self.cloud.id();
            return self.send_up(Command::Unsubscribe { id, filter });
        };
        if !is_granted {
            return self.fail(key, &not_subscribed(&filter, "NOT_AUTHORIZED"));
        }
        subscription.stage = Stage::Unanswered;
        self.iot_core.granted.insert(filter);
        self.answer_subscribe(key);
    }
}

pub(super) fn not_subscribed(filter: &str, why: &str) -> Failure {
    Failure::service(format!("Subscribe to topic {filter} failed with error {why}"))
}

/// Why the classic nucleus does not take a message.
fn fault_of(message: &Message) -> Option<String> {
    let Message { topic, payload, .. } = message;
    let slashes = topic.bytes().filter(|byte| *byte == b'/').count();
    if payload.len() > PAYLOAD {
        return Some(format!(
            "The publishing message size {} bytes exceeds the configured limit of {PAYLOAD} \
             bytes",
            payload.len()
        ));
    }
    let is_bad = topic.len() > TOPIC.0 || slashes > TOPIC.1 || topic::is_filter(topic);
    is_bad.then(|| "The topic is not one that IoT Core takes".to_owned())
}
