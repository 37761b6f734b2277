//! What an SDK error means to us, for every service.

use std::fmt::Debug;

use aws_sdk_iot::error::{ProvideErrorMetadata, SdkError};
use certrelay::wire::escape;

use crate::ports::{Call, CallError, Failure};

/// The errors of a call.
pub(super) fn of<E, R>(call: Call) -> impl Fn(SdkError<E, R>) -> CallError
where
    E: ProvideErrorMetadata,
    R: Debug,
{
    move |error| CallError { call, why: failure(&error) }
}

fn failure<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Failure {
    match error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            by_code(meta.code().unwrap_or_default(), meta.message().unwrap_or_default())
        }
        SdkError::TimeoutError(_) => Failure::Unavailable("it took too long".to_owned()),
        SdkError::DispatchFailure(_) => Failure::Unavailable("no connection".to_owned()),
        SdkError::ResponseError(_) => Failure::Unavailable("the answer can't be read".to_owned()),
        _ => Failure::Unavailable("the request can't be made".to_owned()),
    }
}

/// What AWS calls it, and what that is to us.
fn by_code(code: &str, message: &str) -> Failure {
    let text = || escape(&format!("{code}: {message}"));
    match code {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "RequestThrottled"
        | "ProvisionedThroughputExceededException"
        | "OverLimit" => Failure::Throttled,
        "ResourceNotFoundException" | "NotFoundException" => Failure::NotFound,
        "DeleteConflictException"
        | "CertificateStateException"
        | "ConflictException"
        | "ConflictingResourceUpdateException"
        | "TransactionConflictException" => Failure::Conflict,
        "InvalidRequestException"
        | "ValidationException"
        | "InvalidParameterException"
        | "MalformedCSRException"
        | "InvalidArgsException"
        | "CertificateValidationException" => Failure::Invalid(text()),
        "UnauthorizedException"
        | "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "ForbiddenException" => Failure::Denied(text()),
        _ => Failure::Unavailable(text()),
    }
}
