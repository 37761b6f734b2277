//! Local topics, between the components of one core. Nothing is kept.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{
    Answer, Failure, Reply, State, StreamKey,
    requests::{Arguments, text},
};
use crate::{Message, Mode, Qos, settings::is_allowed, topic};

#[derive(Debug)]
pub(super) struct Subscription {
    pub key: StreamKey,
    filter: String,
    /// Java: not what the component itself publishes.
    is_for_others: bool,
}

/// A message as the request has it: of which kind, and what.
type Body<'a> = (&'static str, &'a Value);

impl State {
    pub(super) fn publish_to_topic(&mut self, arguments: &Arguments) -> Answer {
        let topic = self.local_topic(arguments)?;
        if !is_allowed(&self.settings.policy.pub_sub, &topic) {
            return Err(self.local_unauthorized("PublishToTopic", &topic));
        }
        if self.mode() == Mode::Java && (topic::is_filter(&topic) || topic.contains('*')) {
            return Err(Failure::invalid("Publish topic must not contain a wildcard."));
        }
        let body = body_of(arguments).ok_or_else(|| self.bad_message())?;
        let payload = payload_of(body).ok_or_else(|| self.bad_message())?;
        let message = Message { topic: topic.clone(), payload, qos: Qos::AtMostOnce };
        self.record.local.add(message);
        self.deliver_locally(&topic, body, true);
        Ok(Reply::Done(json!({})))
    }

    pub(super) fn subscribe_to_topic(&mut self, key: StreamKey, arguments: &Arguments) -> Answer {
        let filter = self.local_topic(arguments)?;
        if !is_allowed(&self.settings.policy.pub_sub, &filter) {
            return Err(self.local_unauthorized("SubscribeToTopic", &filter));
        }
        if filter.is_empty() {
            return Err(Failure::invalid("Subscribe topic must not be empty"));
        }
        let is_for_others = match text(arguments, "receiveMode") {
            _ if self.mode() == Mode::Lite => false,
            Some(mode) => mode == "RECEIVE_MESSAGES_FROM_OTHERS",
            None => topic::is_filter(&filter),
        };
        self.local.push(Subscription { key, filter, is_for_others });
        Ok(Reply::Open(json!({})))
    }

    /// Another component publishes bytes, as the MQTT bridge does.
    pub fn publish_locally(&mut self, topic: &str, payload: &[u8]) {
        let encoded = Value::String(BASE64.encode(payload));
        self.deliver_locally(topic, ("binaryMessage", &encoded), false);
    }

    fn deliver_locally(&mut self, topic: &str, (kind, message): Body<'_>, is_own: bool) {
        let body = json!({kind: {"message": message, "context": {"topic": topic}}});
        let taking = self.local.iter().filter(|s| topic::matches(&s.filter, topic));
        let taking: Vec<_> =
            taking.filter(|s| !(is_own && s.is_for_others)).map(|s| s.key).collect();
        for key in taking {
            self.event(key, "SubscriptionResponseMessage", &body);
        }
    }

    fn local_topic(&self, arguments: &Arguments) -> Result<String, Failure> {
        let topic = text(arguments, "topic").map(str::to_owned);
        topic.ok_or_else(|| match self.mode() {
            Mode::Java => Failure::invalid("Publish topic must not be null"),
            Mode::Lite => self.bad_message(),
        })
    }

    fn local_unauthorized(&self, operation: &str, topic: &str) -> Failure {
        let component = &self.settings.component;
        match self.mode() {
            Mode::Java => Failure::coded(
                "UnauthorizedError",
                format!(
                    "Principal {component} is not authorized to perform \
                     aws.greengrass.ipc.pubsub:aws.greengrass#{operation} on resource {topic}"
                ),
            ),
            Mode::Lite => self.unauthorized(),
        }
    }

    fn bad_message(&self) -> Failure {
        match self.mode() {
            Mode::Java => Failure::Internal,
            Mode::Lite => Failure::service("Received invalid parameters."),
        }
    }
}

/// The one message of a request.
fn body_of(arguments: &Arguments) -> Option<Body<'_>> {
    let publish = arguments.get("publishMessage")?.as_object()?;
    let mut found = ["jsonMessage", "binaryMessage"]
        .into_iter()
        .filter_map(|kind| Some((kind, publish.get(kind)?.get("message")?)));
    found.next().filter(|_| found.next().is_none())
}

fn payload_of((kind, message): Body<'_>) -> Option<Vec<u8>> {
    if kind == "binaryMessage" {
        return BASE64.decode(message.as_str()?.as_bytes()).ok();
    }
    Some(message.to_string().into_bytes())
}
