//! Counts every request to the API, retries included: each of them is one against the account's rate.
//!
//! Must never change a request or an answer, nor look further into one than its code.

use crate::world::Calls;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use std::sync::Arc;

/// Longest code that is taken from an answer, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Counter(Arc<Calls>);

impl Counter {
    pub(super) const fn new(calls: Arc<Calls>) -> Self {
        Self(calls)
    }
}

impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().map_or("unknown", Metadata::name);
        let response = context.response();
        let body = response.and_then(|response| response.body().bytes()).unwrap_or_default();
        let status = response.map(|response| response.status().as_u16());
        let result = match context.output_or_error() {
            Some(Ok(_)) => "ok".to_owned(),
            Some(Err(error)) if error.is_timeout_error() => "timeout".to_owned(),
            _ => status.map_or_else(|| "unreachable".to_owned(), |status| code(body, status)),
        };
        self.0.count(operation, &result);
        Ok(())
    }
}

/// The code of an error's body, else its status.
fn code(body: &[u8], status: u16) -> String {
    let found = std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.split_once("<Code>")?.1.split_once("</Code>"))
        .map(|(code, _)| code)
        .filter(|code| code.len() <= CODE_BYTES_MAX && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    found.filter(|code| !code.is_empty()).map_or_else(|| format!("http_{status}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn codes_are_read_and_nothing_else_is() {
        let body = b"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>slow down</Message></Error></ErrorResponse>";
        assert_eq!(code(body, 400), "Throttling");
        assert_eq!(code(b"<Code>a b\"</Code>", 400), "http_400");
        assert_eq!(code(b"<Code></Code>", 503), "http_503");
        assert_eq!(code(&[0xff, 0xfe], 502), "http_502");
        assert_eq!(code(format!("<Code>{}</Code>", "x".repeat(100)).as_bytes(), 400), "http_400");
    }
}
