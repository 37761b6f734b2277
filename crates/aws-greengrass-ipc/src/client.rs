//! The client: one method for each operation, over whatever connection there is.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::{
    error::CallError,
    model::{
        self, ClientDeviceAuthToken, ComponentState, ComponentUpdate, ConfigurationUpdate,
        ConfigurationValidityReport, DeferComponentUpdate, IoTCoreMessage, Operation,
        PublishToIoTCore, PublishToTopic, Qos, ReceiveMode, StreamingOperation, TopicMessage,
        ValidateConfiguration,
    },
    options::Options,
    state::State,
    subscription::{self, Subscription, Surroundings},
    supervisor,
};

/// A client of the nucleus that runs the component. Clones share one connection.
///
/// Calls fail at once while there is no connection. They may be dropped at any time: a request that
/// was not written yet never is, and an answer that comes late is ignored.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Receiver<State>,
    patience: Duration,
    surroundings: Surroundings,
}

impl Client {
    /// Begins to connect, in the background, and to keep connected. This ends when the last clone
    /// and the last subscription have been dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn(options: Options) -> Self {
        let (state, states) = watch::channel(State::Connecting { rejections: 0, why: None });
        let (link, links) = watch::channel(None);
        let surroundings = Surroundings {
            runtime: Handle::current(),
            links,
            limits: options.queue,
            timeouts: options.timeouts,
        };
        let patience = options.timeouts.response;
        surroundings.runtime.spawn(supervisor::run(options, state, link));
        Self(Arc::new(Inner { state: states, patience, surroundings }))
    }

    /// How the connection fares, now and later. Does not keep the client alive.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.clone()
    }

    /// Publishes an MQTT message to AWS IoT Core.
    ///
    /// That a nucleus said yes does not mean that the message has arrived, or ever will: a classic
    /// one says so when the message is in its spool (in memory, unless configured otherwise), a lite
    /// one when it has been written to the socket.
    pub async fn publish_to_iot_core(&self, request: PublishToIoTCore) -> Result<(), CallError> {
        self.call(&request).await.map(drop)
    }

    /// Publishes a message to the other components.
    pub async fn publish_to_topic(&self, request: PublishToTopic) -> Result<(), CallError> {
        self.call(&request).await.map(drop)
    }

    /// The part of a component's configuration under the key; the component's own without a name,
    /// all of it with an empty path. What is no object comes in one, under the last key of the path.
    /// A lite nucleus has turned the numbers and booleans of a YAML recipe into strings.
    pub async fn get_configuration(
        &self,
        component: Option<&str>,
        key_path: &[&str],
    ) -> Result<serde_json::Value, CallError> {
        let request = model::GetConfiguration { component_name: component, key_path };
        self.call(&request).await.map(|found| found.value)
    }

    /// Reports that the component runs, or has failed.
    pub async fn update_state(&self, state: ComponentState) -> Result<(), CallError> {
        self.call(&model::UpdateState { state }).await.map(drop)
    }

    /// Says whether the configuration of a [`ValidateConfiguration`] is valid. Classic only.
    pub async fn send_configuration_validity_report(
        &self,
        report: ConfigurationValidityReport,
    ) -> Result<(), CallError> {
        self.call(&report).await.map(drop)
    }

    /// Answers a [`ComponentUpdate::Pre`]. Classic only.
    pub async fn defer_component_update(
        &self,
        request: DeferComponentUpdate,
    ) -> Result<(), CallError> {
        self.call(&request).await.map(drop)
    }

    /// Whether the PEM certificate is that of a client device of this core device. Classic with
    /// client device auth only.
    pub async fn verify_client_device_identity(
        &self,
        certificate_pem: &str,
    ) -> Result<bool, CallError> {
        let credential = model::DeviceCertificate { client_device_certificate: certificate_pem };
        let request = model::VerifyClientDeviceIdentity { credential };
        self.call(&request).await.map(|verified| verified.is_valid_client_device)
    }

    /// Opens a session for a client device, as a broker does when it connects. Classic with client
    /// device auth only.
    pub async fn get_client_device_auth_token(
        &self,
        client_id: &str,
        certificate_pem: &str,
    ) -> Result<ClientDeviceAuthToken, CallError> {
        let mqtt_credential = model::MqttCredential { client_id, certificate_pem };
        let credential = model::Credential { mqtt_credential };
        let request = model::GetClientDeviceAuthToken { credential };
        self.call(&request).await.map(|granted| granted.client_device_auth_token)
    }

    /// A value of the device's own configuration, such as `thingName` or `certificateFilePath`. Lite
    /// only, and not documented by AWS.
    pub async fn get_system_config(&self, key: &str) -> Result<String, CallError> {
        self.call(&model::GetSystemConfig { key }).await.map(|found| found.value)
    }

    /// Messages from AWS IoT Core on the topics that match the filter.
    ///
    /// A lite nucleus whose MQTT process restarts forgets the subscription without a word: who
    /// depends on it has to notice the silence.
    pub fn subscribe_to_iot_core(
        &self,
        filter: impl Into<String>,
        qos: Qos,
    ) -> Subscription<IoTCoreMessage> {
        self.subscribe(&model::SubscribeToIoTCore { topic_name: filter.into(), qos })
    }

    /// Messages of components on a topic.
    pub fn subscribe_to_topic(
        &self,
        topic: impl Into<String>,
        receive_mode: ReceiveMode,
    ) -> Subscription<TopicMessage> {
        self.subscribe(&model::SubscribeToTopic { topic: topic.into(), receive_mode })
    }

    /// Changes of a component's configuration under the key; without a name the component's own.
    pub fn subscribe_to_configuration_update(
        &self,
        component: Option<&str>,
        key_path: &[&str],
    ) -> Subscription<ConfigurationUpdate> {
        self.subscribe(&model::SubscribeToConfigurationUpdate {
            component_name: component.map(str::to_owned),
            key_path: key_path.iter().map(|&key| key.to_owned()).collect(),
        })
    }

    /// Deployments that want to change the component's configuration. Classic only.
    pub fn subscribe_to_validate_configuration_updates(
        &self,
    ) -> Subscription<ValidateConfiguration> {
        self.subscribe(&model::SubscribeToValidateConfigurationUpdates {})
    }

    /// Deployments that update components. Classic only.
    pub fn subscribe_to_component_updates(&self) -> Subscription<ComponentUpdate> {
        self.subscribe(&model::SubscribeToComponentUpdates {})
    }

    async fn call<O: Operation>(&self, operation: &O) -> Result<O::Response, CallError> {
        let connected = self.0.surroundings.links.borrow().clone();
        let connected = connected.ok_or(CallError::NotConnected)?;
        let answer = timeout(self.0.patience, connected.call(operation));
        answer.await.unwrap_or(Err(CallError::TimedOut))
    }

    fn subscribe<O: StreamingOperation>(&self, operation: &O) -> Subscription<O::Event> {
        subscription::subscribe(&self.0.surroundings, operation)
    }
}
