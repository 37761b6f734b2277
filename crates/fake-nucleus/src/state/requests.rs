//! What may be asked, and of which nucleus.

use serde_json::{Map, Value};

use super::{Answer, Failure, Reply, State, StreamKey};
use crate::{Mode, message::NAMESPACE};

/// What nucleus lite does beside what both do.
const PRIVATE: &str = "aws.greengrass.private#GetSystemConfig";

/// What the classic nucleus knows of, but what takes a component that is not there.
const HANDLED_ELSEWHERE: &[&str] = &[
    "AuthorizeClientDeviceAction",
    "CancelLocalDeployment",
    "CreateDebugPassword",
    "CreateLocalDeployment",
    "DeleteThingShadow",
    "GetClientDeviceAuthToken",
    "GetComponentDetails",
    "GetLocalDeploymentStatus",
    "GetSecretValue",
    "GetThingShadow",
    "ListComponents",
    "ListLocalDeployments",
    "ListNamedShadowsForThing",
    "RestartComponent",
    "StopComponent",
    "SubscribeToCertificateUpdates",
    "UpdateThingShadow",
    "VerifyClientDeviceIdentity",
];

/// The members of a request.
pub(super) type Arguments = Map<String, Value>;

impl State {
    /// A request has come on a new stream.
    pub(super) fn on_request(&mut self, key: StreamKey, operation: &str, payload: &[u8]) {
        let name = operation.strip_prefix(NAMESPACE).unwrap_or(operation);
        *self.record.calls.entry(name.to_owned()).or_default() += 1;
        if self.is_answered_by_fault(key, name) {
            return;
        }
        let answer = match serde_json::from_slice(payload) {
            Ok(Value::Object(arguments)) => self.perform(key, name, operation, &arguments),
            _ => Err(self.unreadable()),
        };
        self.answer(key, name, answer);
    }

    fn perform(
        &mut self,
        key: StreamKey,
        name: &str,
        operation: &str,
        arguments: &Arguments,
    ) -> Answer {
        match (name, self.mode()) {
            ("PublishToIoTCore", _) => self.publish_to_iot_core(arguments),
            ("SubscribeToIoTCore", _) => self.subscribe_to_iot_core(key, arguments),
            ("PublishToTopic", _) => self.publish_to_topic(arguments),
            ("SubscribeToTopic", _) => self.subscribe_to_topic(key, arguments),
            ("GetConfiguration", _) => self.get_configuration(arguments),
            ("UpdateConfiguration", _) => self.update_configuration(arguments),
            ("SubscribeToConfigurationUpdate", _) => self.watch_configuration(key, arguments),
            ("UpdateState", _) => self.update_state(arguments),
            (PRIVATE, Mode::Lite) => self.get_system_config(arguments),
            (_, Mode::Lite) => Err(Failure::service("")),
            ("SubscribeToValidateConfigurationUpdates", _) => self.validate_configurations(key),
            ("SendConfigurationValidityReport", _) => self.take_validity_report(arguments),
            ("SubscribeToComponentUpdates", _) => self.watch_updates(key),
            ("DeferComponentUpdate", _) => self.defer_update(arguments),
            ("PutComponentMetric", _) => {
                Err(Failure::coded("UnauthorizedError", "Not an AWS component"))
            }
            ("VerifyClientDeviceIdentity", _) => self.verify_client_device(key, arguments),
            ("GetClientDeviceAuthToken", _) => self.client_device_token(key, arguments),
            _ if HANDLED_ELSEWHERE.contains(&name) => Err(not_handled(operation)),
            _ => Err(Failure::Unknown { operation: operation.to_owned() }),
        }
    }

    /// What is said to a request that can't be read.
    pub(super) fn unreadable(&self) -> Failure {
        match self.mode() {
            Mode::Java => Failure::Internal,
            Mode::Lite => Failure::service(""),
        }
    }

    fn get_system_config(&self, arguments: &Arguments) -> Answer {
        let Some(key) = text(arguments, "key") else {
            return Err(Failure::invalid("Received invalid parameters."));
        };
        let found = match key {
            "thingName" => Some(self.settings.thing_name.clone()),
            key => self.settings.system().remove(key),
        };
        match found {
            Some(value) => Ok(Reply::Done(serde_json::json!({"value": value}))),
            None => Err(Failure::service("Failed to read the system configuration.")),
        }
    }
}

/// What the classic nucleus says where the component that would answer is not deployed.
pub(super) fn not_handled(operation: &str) -> Failure {
    Failure::service(format!("Operation {operation} is not supported by Greengrass"))
}

/// A member that is a string.
pub(super) fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name)?.as_str()
}

/// A member that is a list of strings; none at all is an empty one.
pub(super) fn texts(arguments: &Arguments, name: &str) -> Option<Vec<String>> {
    match arguments.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        Some(_) => None,
    }
}
