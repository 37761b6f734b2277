//! What can go wrong: with a connection, and with a call.
//!
//! Texts of the nucleus are escaped and cut before they get in here. No error holds a token.

use std::{fmt, io};

use serde_json::Value;

use crate::{
    text,
    wire::{FrameError, MessageError},
};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The operating system reported an error.
    #[error("could not {step}: {kind}")]
    Io {
        /// What was being done.
        step: Step,
        /// What was reported.
        kind: io::ErrorKind,
    },
    /// The nucleus took too long.
    #[error("could not {0} in time")]
    TimedOut(Step),
    /// The nucleus does not accept the token. A classic nucleus says so; a lite one hangs up, which
    /// it also does when it stops at that very moment, so one rejection proves little.
    #[error("the nucleus rejected the token")]
    Rejected,
    /// What came is no event stream, or breaks its rules.
    #[error("the nucleus broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The nucleus reported an error of the connection.
    #[error("the nucleus ended the connection: {0}")]
    Aborted(String),
    /// The nucleus hung up.
    #[error("the nucleus closed the connection")]
    Closed,
    /// All numbers for streams are used up; a new connection has new ones.
    #[error("the connection has no stream left")]
    StreamsExhausted,
}

/// What was being done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reaching the socket.
    Connect,
    /// Presenting the token.
    Handshake,
    /// Asking which nucleus it is.
    Recognition,
    /// Reading.
    Read,
    /// Writing.
    Write,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "reach the nucleus' socket",
            Self::Handshake => "present the token to the nucleus",
            Self::Recognition => "learn which nucleus it is",
            Self::Read => "read from the nucleus",
            Self::Write => "write to the nucleus",
        })
    }
}

/// How the nucleus broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame is no message, or one that has no place there.
    #[error("{0}")]
    Message(String),
}

impl From<MessageError> for ConnectError {
    fn from(error: MessageError) -> Self {
        Self::Protocol(match error {
            MessageError::Frame(error) => ProtocolError::Frame(error),
            other => ProtocolError::Message(other.to_string()),
        })
    }
}

impl From<FrameError> for ConnectError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(ProtocolError::Frame(error))
    }
}

impl ConnectError {
    pub(crate) fn io(step: Step) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { step, kind: error.kind() }
    }

    pub(crate) fn out_of_place(what: &str) -> Self {
        Self::Protocol(ProtocolError::Message(format!("{what} is out of place")))
    }

    /// From the payload of a message that reports an error of the connection.
    pub(crate) fn aborted(payload: &[u8]) -> Self {
        let object = serde_json::from_slice::<Value>(payload).ok();
        let text = object.as_ref().and_then(|object| object.get("message")?.as_str());
        Self::Aborted(text.map_or_else(|| text::clean_bytes(payload), text::clean))
    }
}

/// Why a call was not answered as was hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection; nothing was written.
    #[error("there is no connection to the nucleus")]
    NotConnected,
    /// The connection broke before the answer came: whether it was done is unknown.
    #[error("the connection to the nucleus broke before it answered")]
    ConnectionLost,
    /// The nucleus did not answer in time: whether it was done, or will be, is unknown.
    #[error("the nucleus did not answer in time")]
    TimedOut,
    /// The nucleus takes no frame as large as this one; nothing was written.
    #[error("the request has {size} bytes, over the nucleus' limit of {limit}")]
    TooLarge {
        /// The size of the request's frame.
        size: usize,
        /// What the nucleus takes.
        limit: usize,
    },
    /// This nucleus does not have the operation, or the plugin that has it is not deployed.
    #[error("the nucleus does not support the operation")]
    NotSupported,
    /// The nucleus answered with an error.
    #[error(transparent)]
    Service(ServiceError),
    /// The nucleus' answer can't be understood: whether it was done is unknown.
    #[error("the nucleus' answer can't be understood: {0}")]
    Malformed(String),
}

/// An error that the nucleus gives as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// Which.
    pub code: ErrorCode,
    /// What the nucleus says to it; escaped, cut, often empty.
    pub message: String,
}

impl std::error::Error for ServiceError {}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the nucleus refused with {}", self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Which error the nucleus gave.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// One that the model of the service does not know; escaped, cut.
            Other(String),
        }

        impl ErrorCode {
            /// The name in the model of the service.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }

            fn read(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(text::clean(other)),
                }
            }
        }
    };
}

error_codes! {
    /// Any failure that has no error of its own.
    Service = "ServiceError",
    /// The component's recipe has no policy that allows it.
    Unauthorized = "UnauthorizedError",
    /// The nucleus does not like the request.
    InvalidArguments = "InvalidArgumentsError",
    /// What was asked for does not exist.
    ResourceNotFound = "ResourceNotFoundError",
    /// There is no such component.
    ComponentNotFound = "ComponentNotFoundError",
    /// Something else got there first.
    Conflict = "ConflictError",
    /// The value to update is not what the request expects.
    FailedUpdateConditionCheck = "FailedUpdateConditionCheckError",
    /// A token is not valid.
    InvalidToken = "InvalidTokenError",
    /// A client device's token is not valid.
    InvalidClientDeviceAuthToken = "InvalidClientDeviceAuthTokenError",
    /// A client device's credential is not valid.
    InvalidCredential = "InvalidCredentialError",
    /// The folder of recipes is not valid.
    InvalidRecipeDirectoryPath = "InvalidRecipeDirectoryPathError",
    /// The folder of artifacts is not valid.
    InvalidArtifactsDirectoryPath = "InvalidArtifactsDirectoryPathError",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error message as it came on a stream, before it is known which operation it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub shape: Shape,
    error: ServiceError,
}

/// Which nucleus writes errors like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// With `message`, or no JSON at all.
    Classic,
    /// What a classic nucleus says to an operation that it has never heard of.
    ClassicUnsupported,
    /// With nothing but `_message` and `_errorCode`.
    Lite,
}

impl Refusal {
    /// Reads the error, from the type in the header if there is one, else from the body.
    pub fn read(model: Option<&str>, payload: &[u8]) -> Self {
        let Ok(Value::Object(body)) = serde_json::from_slice(payload) else {
            return Self::from_text(model, payload);
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let code = model.map(short).or(text("_errorCode"));
        let shape = match code {
            None if text("error") == Some("Unsupported Operation") => Shape::ClassicUnsupported,
            _ if body.contains_key("_message") && !body.contains_key("message") => Shape::Lite,
            _ => Shape::Classic,
        };
        let message = text("_message").or(text("message")).unwrap_or_default();
        let code = ErrorCode::read(code.or(text("error")).unwrap_or_default());
        Self { shape, error: ServiceError { code, message: text::clean(message) } }
    }

    fn from_text(model: Option<&str>, payload: &[u8]) -> Self {
        let text = text::clean_bytes(payload);
        let (code, message) = match model {
            Some(model) => (ErrorCode::read(short(model)), text),
            // `InternalServerError` is all that a classic nucleus says when it caught an exception.
            None => (ErrorCode::read(&text), String::new()),
        };
        Self { shape: Shape::Classic, error: ServiceError { code, message } }
    }

    /// What it means to a caller; `is_on_lite`: a lite nucleus has the operation.
    pub fn into_error(self, is_on_lite: bool) -> CallError {
        if self.is_unsupported(is_on_lite) {
            CallError::NotSupported
        } else {
            CallError::Service(self.error)
        }
    }

    fn is_unsupported(&self, is_on_lite: bool) -> bool {
        let ServiceError { code, message } = &self.error;
        match self.shape {
            Shape::ClassicUnsupported => true,
            Shape::Classic => message.ends_with("is not supported by Greengrass"),
            // An operation that a lite nucleus has can fail without a word as well.
            Shape::Lite => !is_on_lite && message.is_empty() && *code == ErrorCode::Service,
        }
    }
}

/// The name without its namespace.
fn short(model: &str) -> &str {
    model.rsplit_once('#').map_or(model, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(model: Option<&str>, body: &str, is_on_lite: bool) -> CallError {
        Refusal::read(model, body.as_bytes()).into_error(is_on_lite)
    }

    fn service(code: ErrorCode, message: &str) -> CallError {
        CallError::Service(ServiceError { code, message: message.to_owned() })
    }

    const UNAUTHORIZED: Option<&str> = Some("aws.greengrass#UnauthorizedError");

    const SERVICE: Option<&str> = Some("aws.greengrass#ServiceError");

    #[test]
    fn both_nuclei_errors_give_code_and_message() {
        let expected = service(ErrorCode::Unauthorized, "no");
        let classic = r#"{"message":"no","_service":"aws.greengrass#GreengrassCoreIPC",
            "_message":"no","_errorCode":"UnauthorizedError"}"#;
        let lite = r#"{"_message":"no","_errorCode":"UnauthorizedError"}"#;
        for body in [classic, lite] {
            assert_eq!(error(UNAUTHORIZED, body, true), expected);
            assert_eq!(error(None, body, true), expected);
        }
        assert_eq!(Refusal::read(None, classic.as_bytes()).shape, Shape::Classic);
        assert_eq!(Refusal::read(None, lite.as_bytes()).shape, Shape::Lite);
    }

    #[test]
    fn an_error_without_json_still_says_what_it_can() {
        let internal = ErrorCode::Other("InternalServerError".to_owned());
        assert_eq!(error(None, "InternalServerError", true), service(internal, ""));
        assert_eq!(
            error(SERVICE, "out of\nluck", true),
            service(ErrorCode::Service, "out of\\nluck")
        );
        assert_eq!(error(None, "", true), service(ErrorCode::Other(String::new()), ""));
        assert_eq!(error(SERVICE, "[1]", true), service(ErrorCode::Service, "[1]"));
        let odd = r#"{"_message":5,"_errorCode":null,"message":"hm"}"#;
        assert_eq!(error(SERVICE, odd, true), service(ErrorCode::Service, "hm"));
    }

    #[test]
    fn what_is_not_supported_is_told_apart_from_every_other_failure() {
        let unknown =
            r#"{ "error": "Unsupported Operation", "message": "x is an unsupported operation." }"#;
        assert_eq!(error(None, unknown, true), CallError::NotSupported);
        let absent = r#"{"message":"Operation aws.greengrass#X is not supported by Greengrass",
            "_errorCode":"ServiceError"}"#;
        assert_eq!(error(SERVICE, absent, false), CallError::NotSupported);
        let silent = r#"{"_message":"","_errorCode":"ServiceError"}"#;
        assert_eq!(error(SERVICE, silent, false), CallError::NotSupported);
        // A lite nucleus has this operation: it failed, and gave no reason.
        assert_eq!(error(SERVICE, silent, true), service(ErrorCode::Service, ""));
        assert_eq!(
            error(SERVICE, r#"{"_message":"full"}"#, false),
            service(ErrorCode::Service, "full")
        );
    }

    #[test]
    fn every_code_of_the_model_has_a_name_and_others_are_kept_and_escaped() {
        for code in [ErrorCode::Conflict, ErrorCode::InvalidCredential, ErrorCode::InvalidToken] {
            assert_eq!(ErrorCode::read(code.as_str()), code);
        }
        assert_eq!(ErrorCode::read("New\nError"), ErrorCode::Other("New\\nError".to_owned()));
    }

    #[test]
    fn an_error_of_the_connection_gives_its_text_escaped_and_cut() {
        let aborted = |text: &str| ConnectError::Aborted(text.to_owned());
        assert_eq!(ConnectError::aborted(br#"{"message":"bad\nid"}"#), aborted("bad\\nid"));
        assert_eq!(ConnectError::aborted(b"plain"), aborted("plain"));
        let ConnectError::Aborted(cut) = ConnectError::aborted(&[b'x'; 9000]) else { panic!() };
        assert!(cut.len() < 300);
    }
}
