//! The SDK's errors as [`WorldError`], decided once.
//!
//! Must never pass on more of AWS's words than code and message; the message of a signature
//! mismatch quotes the request with its session token, so it is left out.

use crate::world::{ErrorKind, WorldError};
use aws_sdk_elasticloadbalancingv2::config::http::HttpResponse;
use aws_sdk_elasticloadbalancingv2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use std::error::Error;

/// Longest cause that is passed on, in characters.
const CAUSE_LEN_MAX: usize = 400;

/// `error`, which happened while `doing`.
pub(super) fn world_error<E>(doing: &str, error: &SdkError<E, HttpResponse>) -> WorldError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let (kind, cause) = match error {
        SdkError::TimeoutError(_) => (ErrorKind::TimedOut, "no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (ErrorKind::TimedOut, "no connection or answer in time".to_owned())
        }
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => of_dispatch(&chain(error)),
        SdkError::ServiceError(service) => of_service(service.err(), service.raw().status().as_u16()),
        SdkError::ResponseError(_) => (ErrorKind::Failed, "an answer that cannot be read".to_owned()),
        _ => (ErrorKind::Failed, chain(error)),
    };
    WorldError::new(doing, kind, shorten(&cause))
}

/// What no answer came to: no credentials to sign with, or nobody there.
fn of_dispatch(cause: &str) -> (ErrorKind, String) {
    let about_credentials = cause.to_ascii_lowercase().contains("credential") || cause.contains("identity");
    let kind = if about_credentials { ErrorKind::Denied } else { ErrorKind::Unreachable };
    (kind, cause.to_owned())
}

fn of_service<E: ProvideErrorMetadata>(error: &E, status: u16) -> (ErrorKind, String) {
    let Some(code) = error.code() else {
        return (kind_of_status(status), format!("an answer of status {status} that is not ELBv2's"));
    };
    let message = if code.contains("Signature") { "" } else { error.message().unwrap_or_default() };
    let cause = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    (kind_of_code(code, status), cause)
}

const fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        429 => ErrorKind::Throttled,
        401 | 403 => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    }
}

/// `ELBv2`'s codes, and those that every AWS service may answer.
pub(super) fn kind_of_code(code: &str, status: u16) -> ErrorKind {
    const THROTTLED: [&str; 9] = [
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "SlowDown",
        "PriorRequestNotComplete",
    ];
    const DENIED: [&str; 14] = [
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
    ];
    const CONFLICT: [&str; 3] = ["PriorityInUse", "ResourceInUse", "DuplicateTargetGroupName"];
    match code {
        _ if THROTTLED.contains(&code) => ErrorKind::Throttled,
        _ if DENIED.contains(&code) => ErrorKind::Denied,
        "TargetGroupAssociationLimit" => ErrorKind::Quota,
        _ if CONFLICT.contains(&code) => ErrorKind::Conflict,
        _ if code.starts_with("TooMany") || code.ends_with("LimitExceeded") => ErrorKind::Quota,
        _ if code.contains("NotFound") => ErrorKind::NotFound,
        _ if status >= 500 => ErrorKind::Failed,
        _ if (400..500).contains(&status) => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    }
}

/// The error with its causes, on one line.
fn chain<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    DisplayErrorContext(error).to_string()
}

fn shorten(text: &str) -> String {
    // `DisplayErrorContext` ends with a debug print in brackets that helps nobody.
    let text = text.split(" (DispatchFailure").next().unwrap_or(text);
    let one_line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(CAUSE_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::kind_of_code;
    use crate::world::ErrorKind;

    #[test]
    fn codes_have_kinds() {
        let table = [
            ("Throttling", 400, ErrorKind::Throttled),
            ("RequestLimitExceeded", 503, ErrorKind::Throttled),
            ("ExpiredToken", 403, ErrorKind::Denied),
            ("PriorityInUse", 400, ErrorKind::Conflict),
            ("ResourceInUse", 400, ErrorKind::Conflict),
            ("TooManyRules", 400, ErrorKind::Quota),
            ("TooManyUniqueTargetGroupsPerLoadBalancer", 400, ErrorKind::Quota),
            ("TargetGroupAssociationLimit", 400, ErrorKind::Quota),
            ("RuleNotFound", 400, ErrorKind::NotFound),
            ("ValidationError", 400, ErrorKind::Invalid),
            ("InvalidTarget", 400, ErrorKind::Invalid),
            ("InternalFailure", 500, ErrorKind::Failed),
        ];
        for (code, status, kind) in table {
            assert_eq!(kind_of_code(code, status), kind, "{code}");
        }
    }
}
