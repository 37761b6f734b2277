//! Client devices, where the client device auth component is deployed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Operation, names};
use crate::connection::Names;

#[derive(Debug, Serialize)]
pub(crate) struct VerifyClientDeviceIdentity<'a> {
    pub credential: DeviceCertificate<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceCertificate<'a> {
    pub client_device_certificate: &'a str,
}

impl Operation for VerifyClientDeviceIdentity<'_> {
    const NAMES: Names = names!("VerifyClientDeviceIdentity");
    const IS_ON_LITE: bool = false;
    type Response = Verified;
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verified {
    pub is_valid_client_device: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct GetClientDeviceAuthToken<'a> {
    pub credential: Credential<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credential<'a> {
    pub mqtt_credential: MqttCredential<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MqttCredential<'a> {
    pub client_id: &'a str,
    pub certificate_pem: &'a str,
}

impl Operation for GetClientDeviceAuthToken<'_> {
    const NAMES: Names = names!("GetClientDeviceAuthToken");
    const IS_ON_LITE: bool = false;
    type Response = Granted;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Granted {
    pub client_device_auth_token: ClientDeviceAuthToken,
}

/// The token of a client device's session. It is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientDeviceAuthToken(String);

impl ClientDeviceAuthToken {
    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientDeviceAuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientDeviceAuthToken(..)")
    }
}
