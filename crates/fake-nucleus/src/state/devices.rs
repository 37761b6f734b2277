//! The client device auth component, where it is deployed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Answer, Failure, Reply, State, StreamKey, note,
    requests::{Arguments, not_handled},
};
use crate::{ClientDevices, message::NAMESPACE};

/// A request to the client device auth component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientDeviceCall {
    /// The operation, without its namespace.
    pub operation: String,
    /// For whom, where the operation says so.
    pub client_id: Option<String>,
    /// The certificate, in PEM.
    pub certificate: String,
}

impl State {
    pub(super) fn verify_client_device(&mut self, key: StreamKey, arguments: &Arguments) -> Answer {
        let credential = arguments.get("credential").unwrap_or(&Value::Null);
        let certificate = credential.get("clientDeviceCertificate");
        let call = call("VerifyClientDeviceIdentity", None, certificate)?;
        self.ask_devices(key, call, |accepts| Ok(json!({"isValidClientDevice": accepts})))
    }

    pub(super) fn client_device_token(&mut self, key: StreamKey, arguments: &Arguments) -> Answer {
        let credential = arguments.get("credential").and_then(|c| c.get("mqttCredential"));
        let credential = credential.unwrap_or(&Value::Null);
        let certificate = credential.get("certificatePem");
        let call = call("GetClientDeviceAuthToken", credential.get("clientId"), certificate)?;
        self.ask_devices(key, call, |accepts| {
            if accepts {
                return Ok(json!({"clientDeviceAuthToken": "a-token"}));
            }
            Err(Failure::coded("InvalidCredentialError", "Invalid client device credentials"))
        })
    }

    fn ask_devices(
        &mut self,
        key: StreamKey,
        call: ClientDeviceCall,
        answer: fn(bool) -> Result<Value, Failure>,
    ) -> Answer {
        let operation = call.operation.clone();
        let devices = self.settings.client_devices;
        let delay = match devices {
            ClientDevices::Absent => return Err(not_handled(&format!("{NAMESPACE}{operation}"))),
            ClientDevices::Accept | ClientDevices::Refuse => Duration::ZERO,
            ClientDevices::Slow(delay) => delay,
        };
        note(&mut self.record.client_devices, call);
        self.after(delay, move |state| {
            let answer = answer(devices != ClientDevices::Refuse).map(Reply::Done);
            state.answer(key, &operation, answer);
        });
        Ok(Reply::Later)
    }
}

fn call(
    operation: &str,
    client_id: Option<&Value>,
    certificate: Option<&Value>,
) -> Result<ClientDeviceCall, Failure> {
    let Some(certificate) = certificate.and_then(Value::as_str) else {
        return Err(Failure::invalid("A certificate is required"));
    };
    Ok(ClientDeviceCall {
        operation: operation.to_owned(),
        client_id: client_id.and_then(Value::as_str).map(str::to_owned),
        certificate: certificate.to_owned(),
    })
}
