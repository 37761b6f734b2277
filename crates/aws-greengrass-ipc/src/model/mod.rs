//! What can be asked of a nucleus: one small type for each operation, with its names and its JSON.
//!
//! Pure: values in, JSON out and back. The names and fields are those of the service's Smithy model.

mod component;
mod configuration;
mod device;
mod iot_core;
mod topic;

pub use component::{ComponentState, ComponentUpdate, DeferComponentUpdate};
pub use configuration::{
    ConfigurationUpdate, ConfigurationValidityReport, ValidateConfiguration, Validity,
};
pub use device::ClientDeviceAuthToken;
pub use iot_core::{IoTCoreMessage, PublishToIoTCore, Qos};
pub use topic::{PublishToTopic, ReceiveMode, TopicMessage, TopicPayload};

pub(crate) use component::{SubscribeToComponentUpdates, UpdateState};
pub(crate) use configuration::{
    GetConfiguration, GetSystemConfig, SubscribeToConfigurationUpdate,
    SubscribeToValidateConfigurationUpdates,
};
pub(crate) use device::{
    Credential, DeviceCertificate, GetClientDeviceAuthToken, MqttCredential,
    VerifyClientDeviceIdentity,
};
pub(crate) use iot_core::SubscribeToIoTCore;
pub(crate) use topic::SubscribeToTopic;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::connection::Names;

/// An operation: serializes as the body of its request.
pub(crate) trait Operation: Serialize {
    /// Its names on the wire.
    const NAMES: Names;
    /// Whether a lite nucleus has it.
    const IS_ON_LITE: bool;
    /// The body of the answer.
    type Response: DeserializeOwned;
}

/// An operation that is answered by events, after an answer that says nothing.
pub(crate) trait StreamingOperation: Serialize {
    /// Its names on the wire.
    const NAMES: Names;
    /// The type of its events on the wire.
    const EVENT: &'static str;
    /// Whether a lite nucleus has it.
    const IS_ON_LITE: bool;
    /// Whether a classic nucleus takes a while to end it.
    const LINGERS: bool;
    /// The body of an event, and what is made of it.
    type Event: DeserializeOwned;
}

/// The body of an answer that says nothing.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Nothing {}

/// The names of an operation.
macro_rules! names {
    ($name:literal) => {
        names!("aws.greengrass", $name)
    };
    ($space:literal, $name:literal) => {
        crate::connection::Names {
            operation: concat!($space, "#", $name),
            request: concat!($space, "#", $name, "Request"),
            response: concat!($space, "#", $name, "Response"),
        }
    };
}
use names;

/// Reads a string of base64.
fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    data_encoding::BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// Reads what may be absent or null as empty.
fn base64_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    data_encoding::BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
