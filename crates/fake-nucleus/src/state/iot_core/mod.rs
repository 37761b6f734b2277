//! Publishing to IoT Core and subscribing there.
//!
//! The classic nucleus keeps one subscription in the cloud for all the filters that it covers, and
//! believes in it from the SUBACK to the UNSUBACK: who asks for the filter between the end of the
//! last stream and the UNSUBACK is told yes, and hears nothing. Lite asks for every filter anew,
//! and forgets all of them, in silence, when its MQTT daemon restarts.

mod java;
mod lite;

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde_json::{Value, json};

use self::java::{OFFLINE, not_subscribed};
use super::{
    Answer, Failure, Reply, State, StreamKey,
    cloud::Command,
    requests::{Arguments, text},
    spool::Spool,
};
use crate::{Message, Mode, Qos, settings::is_allowed, topic};

/// Lite: the largest MQTT packet that it takes.
const LITE_PACKET: usize = 5_000;

#[derive(Debug, Default)]
pub(super) struct IotCore {
    subscriptions: Vec<Subscription>,
    /// Java: the filters that the cloud has granted.
    granted: BTreeSet<String>,
    /// What the cloud has not answered.
    asked: BTreeMap<u64, Asked>,
    pub spool: Spool,
    /// Lite: the sizes of the publishes that are not acknowledged.
    unacknowledged: BTreeMap<u64, usize>,
}

#[derive(Debug)]
struct Subscription {
    key: StreamKey,
    filter: String,
    qos: Qos,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Java: the cloud is asked once there is a link for the first time.
    Withheld,
    /// Java: the cloud was asked.
    Asked,
    /// It counts, but the component has no answer yet.
    Unanswered,
    /// The component has its answer.
    Answered,
}

#[derive(Debug)]
enum Asked {
    Subscribe { key: StreamKey, filter: String },
    Unsubscribe { filter: String },
}

/// What components ask.
impl State {
    pub(super) fn publish_to_iot_core(&mut self, arguments: &Arguments) -> Answer {
        let message = self.read_publish(arguments)?;
        if !is_allowed(&self.settings.policy.mqtt_proxy, &message.topic) {
            return Err(self.unauthorized());
        }
        match self.mode() {
            Mode::Java => self.publish_java(message)?,
            Mode::Lite => self.publish_lite(message)?,
        }
        Ok(Reply::Done(json!({})))
    }

    pub(super) fn subscribe_to_iot_core(
        &mut self,
        key: StreamKey,
        arguments: &Arguments,
    ) -> Answer {
        let filter = self.read_topic(arguments)?;
        let is_ours = is_allowed(&self.settings.policy.mqtt_proxy, &filter);
        let qos = self.read_qos(arguments);
        match self.mode() {
            _ if !is_ours => Err(self.unauthorized()),
            Mode::Java => self.subscribe_java(key, filter, qos?),
            Mode::Lite => self.subscribe_lite(key, filter, qos?),
        }
    }

    /// A stream has ended: so has its subscription.
    pub(super) fn end_iot_core(&mut self, key: StreamKey) {
        let subscriptions = &mut self.iot_core.subscriptions;
        let Some(at) = subscriptions.iter().position(|s| s.key == key) else { return };
        let gone = subscriptions.remove(at);
        match self.mode() {
            Mode::Java => self.unsubscribe_java(),
            Mode::Lite => self.unsubscribe_lite(gone.filter),
        }
    }

    pub(super) fn unauthorized(&self) -> Failure {
        let message = match self.mode() {
            Mode::Java => "Not Authorized",
            Mode::Lite => "IPC Operation not authorized.",
        };
        Failure::coded("UnauthorizedError", message)
    }

    fn read_publish(&self, arguments: &Arguments) -> Result<Message, Failure> {
        let topic = self.read_topic(arguments)?;
        let payload = match (text(arguments, "payload"), self.mode()) {
            (Some(payload), _) => {
                BASE64.decode(payload.as_bytes()).map_err(|_| self.bad_base64())?
            }
            (None, Mode::Java) => return Err(Failure::invalid("Payload is required")),
            (None, Mode::Lite) => Vec::new(),
        };
        Ok(Message { topic, payload, qos: self.read_qos(arguments)? })
    }

    fn read_topic(&self, arguments: &Arguments) -> Result<String, Failure> {
        let topic = text(arguments, "topicName").map(str::to_owned);
        topic.ok_or_else(|| match self.mode() {
            Mode::Java => Failure::invalid("Topic is required"),
            Mode::Lite => Failure::service("Received invalid parameters."),
        })
    }

    fn read_qos(&self, arguments: &Arguments) -> Result<Qos, Failure> {
        match (arguments.get("qos"), self.mode()) {
            (Some(Value::String(qos)), _) if qos == "0" => Ok(Qos::AtMostOnce),
            (Some(Value::String(qos)), _) if qos == "1" => Ok(Qos::AtLeastOnce),
            (None | Some(Value::Null), Mode::Java) => Err(Failure::invalid("QoS is required")),
            (Some(other), Mode::Java) => {
                Err(Failure::invalid(format!("Invalid QoS value: {other}")))
            }
            (None | Some(Value::Null), Mode::Lite) => Ok(Qos::AtMostOnce),
            (Some(_), Mode::Lite) => Err(Failure::service("'qos' not a valid value.")),
        }
    }

    fn bad_base64(&self) -> Failure {
        match self.mode() {
            Mode::Java => Failure::Internal,
            Mode::Lite => Failure::service("'payload' is not valid base64."),
        }
    }
}

/// What the cloud does.
impl State {
    /// There is a link.
    pub(super) fn on_online(&mut self, is_first: bool, session_present: bool) {
        match self.mode() {
            Mode::Java => {
                self.ask_for_withheld();
                if !is_first && !session_present {
                    self.ask_again(self.iot_core.granted.clone());
                }
                self.send_spool();
            }
            Mode::Lite => {
                let filters = self.iot_core.subscriptions.iter().map(|s| s.filter.clone());
                self.ask_again(filters.collect());
            }
        }
    }

    /// There is none any more.
    pub(super) fn on_offline(&mut self) {
        self.iot_core.spool.interrupt();
        self.iot_core.unacknowledged.clear();
        for asked in std::mem::take(&mut self.iot_core.asked).into_values() {
            if let Asked::Subscribe { key, filter } = asked {
                self.fail(key, &not_subscribed(&filter, OFFLINE));
            }
        }
    }

    pub(super) fn on_acknowledged(&mut self, id: u64, is_granted: bool) {
        self.iot_core.unacknowledged.remove(&id);
        if self.iot_core.spool.acknowledge(id) {
            self.send_spool();
        }
        match self.iot_core.asked.remove(&id) {
            Some(Asked::Subscribe { key, filter }) => self.on_suback(key, filter, is_granted),
            Some(Asked::Unsubscribe { filter }) => {
                self.iot_core.granted.remove(&filter);
            }
            None => {}
        }
    }

    /// A message comes from the cloud.
    pub fn on_downlink(&mut self, message: &Message) {
        if self.mode() == Mode::Lite && packet_size(message) > LITE_PACKET {
            return;
        }
        let taking = self.iot_core.subscriptions.iter();
        let taking = taking.filter(|s| topic::matches(&s.filter, &message.topic));
        let taking: Vec<_> = taking.map(|s| (s.key, s.stage)).collect();
        for (key, stage) in taking {
            if self.mode() == Mode::Java && stage != Stage::Answered {
                self.record.dropped += 1;
            } else {
                self.event(key, "IoTCoreMessage", &event_body(self.mode(), message));
            }
        }
    }

    /// The streams that are subscribed to the cloud, each with a topic that it takes.
    pub fn listeners(&self) -> Vec<(StreamKey, String)> {
        let subscriptions = self.iot_core.subscriptions.iter();
        subscriptions.map(|s| (s.key, topic::example(&s.filter))).collect()
    }

    /// The cloud's part of a subscription is gone; the nucleus knows that, its components do not.
    pub fn lose_subscription(&mut self, filter: &str) {
        self.iot_core.granted.remove(filter);
        let (id, filter) = (self.cloud.id(), filter.to_owned());
        self.send_up(Command::Unsubscribe { id, filter });
    }

    /// How many messages are in the spool.
    pub fn spooled(&self) -> usize {
        self.iot_core.spool.len()
    }

    /// The spool is lost, as by a power cut, and nothing else.
    pub fn lose_spool(&mut self) {
        self.iot_core.spool = Spool::default();
    }

    /// The component hears that its subscription counts, after the gap.
    fn answer_subscribe(&mut self, key: StreamKey) {
        self.after(self.settings.timing.subscribe_gap, move |state| {
            let mut subscriptions = state.iot_core.subscriptions.iter_mut();
            if let Some(subscription) = subscriptions.find(|s| s.key == key) {
                subscription.stage = Stage::Answered;
                state.reply(key, "SubscribeToIoTCore", &json!({}), true);
            }
        });
    }

    fn ask_for_withheld(&mut self) {
        let withheld = self.iot_core.subscriptions.iter_mut();
        let withheld = withheld.filter(|s| s.stage == Stage::Withheld).map(|s| {
            s.stage = Stage::Asked;
            (s.key, s.filter.clone(), s.qos)
        });
        for (key, filter, qos) in withheld.collect::<Vec<_>>() {
            self.ask_for(key, filter, qos);
        }
    }

    fn ask_again(&mut self, filters: BTreeSet<String>) {
        for filter in filters {
            let id = self.cloud.id();
            self.send_up(Command::Subscribe { id, filter, qos: Qos::AtLeastOnce });
        }
    }
}

/// How long a PUBLISH is as an MQTT 5 packet.
fn packet_size(message: &Message) -> usize {
    let id = if message.qos == Qos::AtLeastOnce { 2 } else { 0 };
    let rest = 2 + message.topic.len() + id + 1 + message.payload.len();
    let length = if rest < 128 { 1 } else { 2 + usize::from(rest >= 1 << 14) };
    1 + length + rest
}

fn event_body(mode: Mode, message: &Message) -> Value {
    let payload = BASE64.encode(&message.payload);
    match mode {
        Mode::Java => json!({"message": {
            "topicName": message.topic, "payload": payload, "retain": false, "payloadFormat": "0",
        }}),
        Mode::Lite => json!({"message": {"topicName": message.topic, "payload": payload}}),
    }
}
