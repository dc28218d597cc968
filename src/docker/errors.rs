//! What the engine said no with, as a [`WorldError`].

use crate::world::{ErrorKind, WorldError};
use bollard::errors::Error;
use std::future::Future;
use std::time::Duration;

/// Translates an error of the client.
pub(crate) fn world_error(doing: &str, error: Error) -> WorldError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            let kind = match status_code {
                400 => ErrorKind::Invalid,
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                429 => ErrorKind::Throttled,
                _ => kind_of(&message),
            };
            WorldError::new(doing, kind, message.trim().to_owned())
        }
        Error::DockerStreamError { error } => WorldError::new(doing, kind_of(&error), error),
        Error::RequestTimeoutError => WorldError::new(doing, ErrorKind::TimedOut, "no answer in time"),
        Error::SocketNotFoundError(path) => {
            WorldError::new(doing, ErrorKind::Unreachable, format!("no engine listens on {path}"))
        }
        Error::IOError { err } => WorldError::new(doing, ErrorKind::Unreachable, err.to_string()),
        error @ (Error::HyperResponseError { .. } | Error::HyperLegacyError { .. }) => {
            WorldError::new(doing, ErrorKind::Unreachable, chain(&error))
        }
        other => WorldError::new(doing, ErrorKind::Failed, other.to_string()),
    }
}

/// Where a status code says nothing (500), the engine's words do.
fn kind_of(message: &str) -> ErrorKind {
    let text = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["port is already allocated", "address already in use", "already in use by container"]) {
        ErrorKind::Conflict
    } else if has(&["unauthorized", "authentication required", "denied", "no basic auth credentials"]) {
        ErrorKind::Denied
    } else if has(&["not found", "no such image", "manifest unknown"]) {
        ErrorKind::NotFound
    } else if has(&["toomanyrequests", "rate limit"]) {
        ErrorKind::Throttled
    } else {
        ErrorKind::Failed
    }
}

/// An error with its causes in one line, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Waits for an answer, but not for ever.
pub(crate) async fn deadline<T>(
    doing: &str,
    within: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, WorldError> {
    match tokio::time::timeout(within, work).await {
        Ok(result) => result.map_err(|error| world_error(doing, error)),
        Err(_elapsed) => Err(WorldError::new(
            doing,
            ErrorKind::TimedOut,
            format!("no answer within {} s", within.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::kind_of;
    use crate::world::ErrorKind;

    #[test]
    fn words_tell_where_codes_do_not() {
        let taken = "driver failed programming external connectivity: Bind for 0.0.0.0:8000 failed: port is already allocated";
        assert_eq!(kind_of(taken), ErrorKind::Conflict);
        assert_eq!(kind_of("pull access denied for x"), ErrorKind::Denied);
        assert_eq!(kind_of("manifest for x:1 not found: manifest unknown"), ErrorKind::NotFound);
        assert_eq!(kind_of("boom"), ErrorKind::Failed);
    }
}
