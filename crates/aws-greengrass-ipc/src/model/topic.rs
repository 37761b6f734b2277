//! Messages between the components of one nucleus.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Value, json};

use super::{Nothing, Operation, StreamingOperation, base64, names};
use crate::connection::Names;

/// What a local message carries.
#[derive(Debug, Clone, PartialEq)]
pub enum TopicPayload {
    /// JSON.
    Json(Value),
    /// Any bytes.
    Binary(Vec<u8>),
}

/// A message for the other components.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishToTopic {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: TopicPayload,
}

impl Serialize for PublishToTopic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = match &self.payload {
            TopicPayload::Json(value) => json!({ "jsonMessage": { "message": value } }),
            TopicPayload::Binary(bytes) => {
                json!({ "binaryMessage": { "message": BASE64.encode(bytes) } })
            }
        };
        let mut body = serializer.serialize_struct("PublishToTopic", 2)?;
        body.serialize_field("topic", &self.topic)?;
        body.serialize_field("publishMessage", &message)?;
        body.end()
    }
}

impl Operation for PublishToTopic {
    const NAMES: Names = names!("PublishToTopic");
    const IS_ON_LITE: bool = true;
    type Response = Nothing;
}

/// Whose messages a subscription gets. A lite nucleus does not care and gives all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ReceiveMode {
    /// Also the component's own.
    #[serde(rename = "RECEIVE_ALL_MESSAGES")]
    All,
    /// Only those of other components.
    #[serde(rename = "RECEIVE_MESSAGES_FROM_OTHERS")]
    FromOthers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscribeToTopic {
    pub topic: String,
    pub receive_mode: ReceiveMode,
}

impl StreamingOperation for SubscribeToTopic {
    const NAMES: Names = names!("SubscribeToTopic");
    const EVENT: &'static str = "aws.greengrass#SubscriptionResponseMessage";
    const IS_ON_LITE: bool = true;
    const LINGERS: bool = false;
    type Event = TopicMessage;
}

/// A message from a component.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Event")]
pub struct TopicMessage {
    /// The topic, which may have been subscribed by a wildcard. Nuclei before 2.6 don't say it; then
    /// it is empty.
    pub topic: String,
    /// The payload.
    pub payload: TopicPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    json_message: Option<Json>,
    binary_message: Option<Binary>,
}

#[derive(Deserialize)]
struct Json {
    message: Value,
    #[serde(default)]
    context: Context,
}

#[derive(Deserialize)]
struct Binary {
    #[serde(deserialize_with = "base64")]
    message: Vec<u8>,
    #[serde(default)]
    context: Context,
}

#[derive(Deserialize, Default)]
struct Context {
    #[serde(default)]
    topic: String,
}

impl TryFrom<Event> for TopicMessage {
    type Error = &'static str;

    fn try_from(event: Event) -> Result<Self, Self::Error> {
        let (topic, payload) = match (event.json_message, event.binary_message) {
            (Some(json), None) => (json.context.topic, TopicPayload::Json(json.message)),
            (None, Some(binary)) => (binary.context.topic, TopicPayload::Binary(binary.message)),
            _ => return Err("it is neither a jsonMessage nor a binaryMessage"),
        };
        Ok(Self { topic, payload })
    }
}
