//! The configuration of components, and what lite keeps of the device's own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Nothing, Operation, StreamingOperation, names};
use crate::connection::Names;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GetConfiguration<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_name: Option<&'a str>,
    pub key_path: &'a [&'a str],
}

impl Operation for GetConfiguration<'_> {
    const NAMES: Names = names!("GetConfiguration");
    const IS_ON_LITE: bool = true;
    type Response = Found<Value>;
}

/// An answer of which only the value counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Found<T> {
    pub value: T,
}

/// Only a lite nucleus has it, under a name of its own.
#[derive(Debug, Serialize)]
pub(crate) struct GetSystemConfig<'a> {
    pub key: &'a str,
}

impl Operation for GetSystemConfig<'_> {
    const NAMES: Names = names!("aws.greengrass.private", "GetSystemConfig");
    const IS_ON_LITE: bool = true;
    type Response = Found<String>;
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscribeToConfigurationUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_name: Option<String>,
    pub key_path: Vec<String>,
}

impl StreamingOperation for SubscribeToConfigurationUpdate {
    const NAMES: Names = names!("SubscribeToConfigurationUpdate");
    const EVENT: &'static str = "aws.greengrass#ConfigurationUpdateEvents";
    const IS_ON_LITE: bool = true;
    const LINGERS: bool = false;
    type Event = ConfigurationUpdate;
}

/// Something in a configuration has changed. It does not say to what: get it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "ConfigurationUpdateEvents")]
pub struct ConfigurationUpdate {
    /// The component.
    pub component: String,
    /// The path of the key.
    pub key_path: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationUpdateEvents {
    configuration_update_event: ConfigurationUpdateEvent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationUpdateEvent {
    component_name: String,
    #[serde(default)]
    key_path: Vec<String>,
}

impl From<ConfigurationUpdateEvents> for ConfigurationUpdate {
    fn from(events: ConfigurationUpdateEvents) -> Self {
        let ConfigurationUpdateEvent { component_name, key_path } =
            events.configuration_update_event;
        Self { component: component_name, key_path }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct SubscribeToValidateConfigurationUpdates {}

impl StreamingOperation for SubscribeToValidateConfigurationUpdates {
    const NAMES: Names = names!("SubscribeToValidateConfigurationUpdates");
    const EVENT: &'static str = "aws.greengrass#ValidateConfigurationUpdateEvents";
    const IS_ON_LITE: bool = false;
    const LINGERS: bool = false;
    type Event = ValidateConfiguration;
}

/// A deployment wants to change the component's configuration, and waits (20 s unless it says
/// otherwise) for a [`ConfigurationValidityReport`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "ValidateConfigurationUpdateEvents")]
pub struct ValidateConfiguration {
    /// The whole configuration as it would be.
    pub configuration: Value,
    /// The deployment, for the report.
    pub deployment_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidateConfigurationUpdateEvents {
    validate_configuration_update_event: ValidateConfigurationUpdateEvent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidateConfigurationUpdateEvent {
    #[serde(default)]
    configuration: Value,
    deployment_id: String,
}

impl From<ValidateConfigurationUpdateEvents> for ValidateConfiguration {
    fn from(events: ValidateConfigurationUpdateEvents) -> Self {
        let ValidateConfigurationUpdateEvent { configuration, deployment_id } =
            events.validate_configuration_update_event;
        Self { configuration, deployment_id }
    }
}

/// What the component thinks of a [`ValidateConfiguration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationValidityReport {
    /// The deployment that asked.
    pub deployment_id: String,
    /// What the component thinks.
    pub validity: Validity,
}

/// Whether a configuration is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// It is.
    Accepted,
    /// It is not, and the deployment is to fail.
    Rejected {
        /// Why, for the operator of the deployment.
        message: String,
    },
}

impl Serialize for ConfigurationValidityReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, message) = match &self.validity {
            Validity::Accepted => ("ACCEPTED", None),
            Validity::Rejected { message } => ("REJECTED", Some(message.as_str())),
        };
        let deployment_id = self.deployment_id.as_str();
        Report { configuration_validity_report: Inner { status, deployment_id, message } }
            .serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    configuration_validity_report: Inner<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    status: &'a str,
    deployment_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl Operation for ConfigurationValidityReport {
    const NAMES: Names = names!("SendConfigurationValidityReport");
    const IS_ON_LITE: bool = false;
    type Response = Nothing;
}
