//! MQTT messages to and from AWS IoT Core, through the nucleus' connection.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use super::{Nothing, Operation, StreamingOperation, base64_or_null, names};
use crate::connection::Names;

/// How surely a message is to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Qos {
    /// At most once.
    #[serde(rename = "0")]
    AtMostOnce,
    /// At least once.
    #[serde(rename = "1")]
    AtLeastOnce,
}

/// A message for AWS IoT Core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishToIoTCore {
    /// The topic.
    pub topic: String,
    /// The payload. A classic nucleus takes 128 KiB, a lite one some 7 kB, and under 5,000 bytes
    /// with the topic if the message is to come back to it.
    pub payload: Vec<u8>,
    /// How surely.
    pub qos: Qos,
}

impl Serialize for PublishToIoTCore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("PublishToIoTCore", 3)?;
        body.serialize_field("topicName", &self.topic)?;
        body.serialize_field("qos", &self.qos)?;
        body.serialize_field("payload", &BASE64.encode(&self.payload))?;
        body.end()
    }
}

impl Operation for PublishToIoTCore {
    const NAMES: Names = names!("PublishToIoTCore");
    const IS_ON_LITE: bool = true;
    type Response = Nothing;
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscribeToIoTCore {
    pub topic_name: String,
    pub qos: Qos,
}

impl StreamingOperation for SubscribeToIoTCore {
    const NAMES: Names = names!("SubscribeToIoTCore");
    const EVENT: &'static str = "aws.greengrass#IoTCoreMessage";
    const IS_ON_LITE: bool = true;
    const LINGERS: bool = true;
    type Event = IoTCoreMessage;
}

/// A message from AWS IoT Core.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Event")]
pub struct IoTCoreMessage {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Event {
    message: Message,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    topic_name: String,
    /// A classic nucleus leaves an empty payload away.
    #[serde(default, deserialize_with = "base64_or_null")]
    payload: Vec<u8>,
}

impl From<Event> for IoTCoreMessage {
    fn from(Event { message: Message { topic_name, payload } }: Event) -> Self {
        Self { topic: topic_name, payload }
    }
}
