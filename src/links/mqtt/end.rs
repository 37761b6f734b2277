//! How a connection ended, and how to say so to people.
//!
//! Text from the network is escaped; of our own files only the names are told.

use std::{error::Error, io};

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};

use super::{
    MAX_INCOMING, MqttError, Options,
    session::{MAX_HELD, Purpose},
};
use crate::wire::escape;

/// How a connection ended, or why there was none.
#[derive(Debug)]
pub(super) enum End {
    /// It could not be begun.
    Unusable(MqttError),
    /// The network or the broker broke it.
    Lost(Box<ConnectionError>),
    /// A packet over the limit came.
    TooLarge { bytes: usize },
    /// The broker stopped answering.
    Silent,
    /// The broker refused a subscription.
    NotGranted { filter: String },
    /// The reader is too slow.
    Overrun,
    /// More came before the subscriptions stood than is held.
    Overfull,
    /// A new one was commanded.
    Renewed,
    /// The session is thrown away.
    Forgotten,
    /// The link was dropped.
    Closed,
}

impl End {
    /// What an error of the library means.
    pub(super) fn of(why: ConnectionError, purpose: Purpose) -> Self {
        use rumqttc::Error::PayloadSizeLimitExceeded;
        match why {
            ConnectionError::MqttState(StateError::Deserialization(PayloadSizeLimitExceeded(
                bytes,
            ))) => Self::TooLarge { bytes },
            ConnectionError::MqttState(StateError::AwaitPingResp)
            | ConnectionError::NetworkTimeout
            | ConnectionError::FlushTimeout => Self::Silent,
            ConnectionError::RequestsDone if purpose == Purpose::Forget => Self::Forgotten,
            why => Self::Lost(Box::new(why)),
        }
    }

    /// For people: what happened and what to do about it.
    pub(super) fn explain(&self, options: &Options) -> String {
        match self {
            Self::Unusable(why) => why.to_string(),
            Self::Lost(why) => explain_loss(why, options),
            Self::TooLarge { bytes } => format!(
                "a packet of {bytes} bytes came, and {MAX_INCOMING} is the most; limit it at the \
                 broker (Mosquitto: message_size_limit)"
            ),
            Self::Silent => "the broker does not answer".to_owned(),
            Self::NotGranted { filter } => {
                format!("the broker refuses the subscription to {filter:?}; allow it there")
            }
            Self::Overrun => "messages are not handled in time".to_owned(),
            Self::Overfull => format!(
                "over {MAX_HELD} bytes came before the subscriptions stood; let the broker send \
                 less at once (Mosquitto: max_inflight_messages)"
            ),
            Self::Renewed => "a new connection is wanted".to_owned(),
            Self::Forgotten => "the session was thrown away".to_owned(),
            Self::Closed => "the link was closed".to_owned(),
        }
    }
}

fn explain_loss(why: &ConnectionError, options: &Options) -> String {
    match (tls_error(why), &options.tls) {
        (Some(rustls::Error::AlertReceived(alert)), Some(files)) => format!(
            "the broker refuses the certificate {} ({alert:?})",
            files.certificate.display()
        ),
        (Some(rustls::Error::InvalidCertificate(why)), Some(files)) => format!(
            "the broker's certificate is not good for {:?} by {}: {why}",
            options.host,
            files.ca.display()
        ),
        _ => match why {
            ConnectionError::ConnectionRefused(code) => explain_refusal(*code),
            why => escape(&causes(why).last().map_or_else(|| why.to_string(), ToString::to_string)),
        },
    }
}

fn explain_refusal(code: ConnectReturnCode) -> String {
    let why = match code {
        ConnectReturnCode::BadClientId => "it refuses the client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "it does not authorise this client"
        }
        _ => "it does not speak MQTT 3.1.1",
    };
    format!("the broker refuses the connection: {why}")
}

fn tls_error(why: &ConnectionError) -> Option<&rustls::Error> {
    let io = causes(why).find_map(|cause| cause.downcast_ref::<io::Error>())?;
    io.get_ref()?.downcast_ref()
}

/// An error and what caused it, outermost first.
fn causes(why: &ConnectionError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    fn cause<'a>(effect: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        Error::source(*effect)
    }
    std::iter::successors(Some(why as &(dyn Error + 'static)), cause)
}
