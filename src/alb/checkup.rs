//! Questions that only somebody asks who looks for what is wrong: credentials, the balancer's idle
//! timeout, AWS's clock, who this host is.
//!
//! Must never show a credential, nor change anything.

use crate::alb::errors::world_error;
use crate::alb::{ATTEMPT_TIMEOUT, Alb, trouble};
use crate::model::time::Timestamp;
use crate::world::{ErrorKind, WorldError};
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;

/// The attribute with the idle timeout.
const IDLE_TIMEOUT: &str = "idle_timeout.timeout_seconds";

impl Alb {
    /// The load balancer's idle timeout, in seconds.
    ///
    /// # Errors
    /// When the listener or the attributes cannot be read.
    pub async fn idle_timeout(&self) -> Result<u64, WorldError> {
        let listener = self.listener().await?;
        let doing = "reading the load balancer's attributes";
        self.bucket.take().await;
        let asked =
            self.client.describe_load_balancer_attributes().load_balancer_arn(&listener.load_balancer_arn);
        let answer = asked.send().await.map_err(|error| world_error(doing, &error))?;
        let value = answer.attributes().iter().find(|attribute| attribute.key() == Some(IDLE_TIMEOUT));
        let seconds = value.and_then(|attribute| attribute.value()?.parse().ok());
        seconds.ok_or_else(|| trouble(doing, ErrorKind::Failed, "the answer has no idle timeout"))
    }

    /// What identifies this host in a target group.
    ///
    /// # Errors
    /// When the metadata service does not answer.
    pub async fn target_id(&self) -> Result<String, WorldError> {
        self.imds.target_id().await
    }
}

/// Where credentials come from, in the SDK's words; never what they are.
///
/// # Errors
/// When there are none.
pub async fn credentials(sdk: &SdkConfig) -> Result<String, WorldError> {
    let doing = "looking for AWS credentials";
    let provider = sdk
        .credentials_provider()
        .ok_or_else(|| trouble(doing, ErrorKind::Denied, "no provider is set up"))?;
    match tokio::time::timeout(ATTEMPT_TIMEOUT, provider.provide_credentials()).await {
        Err(late) => Err(trouble(doing, ErrorKind::TimedOut, late.to_string())),
        Ok(Err(error)) => Err(trouble(doing, ErrorKind::Denied, error.to_string())),
        Ok(Ok(found)) => Ok(format!(
            "credentials are there{}",
            if found.session_token().is_some() { " (temporary ones)" } else { "" }
        )),
    }
}

/// The time at AWS, as the `Date` of an answer says it: whole seconds.
///
/// # Errors
/// When nobody answers, or without a date.
pub async fn date(sdk: &SdkConfig, endpoint: Option<&str>) -> Result<Timestamp, WorldError> {
    let doing = "asking AWS for the time";
    let region = sdk.region().ok_or_else(|| trouble(doing, ErrorKind::Invalid, "no region is set"))?;
    let suffix = if region.as_ref().starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url =
        endpoint.map_or_else(|| format!("https://elasticloadbalancing.{region}.{suffix}"), str::to_owned);
    let mut request = HttpRequest::new(SdkBody::empty());
    let invalid = |cause: String| trouble(doing, ErrorKind::Invalid, cause);
    request.set_method("GET").map_err(|error| invalid(error.to_string()))?;
    request.set_uri(format!("{}/", url.trim_end_matches('/'))).map_err(|error| invalid(error.to_string()))?;
    let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
    let answer = match tokio::time::timeout(ATTEMPT_TIMEOUT, connector.call(request)).await {
        Err(late) => return Err(trouble(doing, ErrorKind::TimedOut, late.to_string())),
        Ok(Err(error)) => return Err(trouble(doing, ErrorKind::Unreachable, error.to_string())),
        Ok(Ok(answer)) => answer,
    };
    let date = answer.headers().get("date").and_then(of_header);
    date.ok_or_else(|| trouble(doing, ErrorKind::Failed, "the answer has no date"))
}

fn of_header(text: &str) -> Option<Timestamp> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok().map(|at| Timestamp(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::of_header;

    #[test]
    fn dates_of_answers_are_read() {
        let at = of_header("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(at.0, 784_111_777_000);
        assert_eq!(of_header("soon"), None);
    }
}
