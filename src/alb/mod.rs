//! `ELBv2` as a [`Balancer`]: reads one listener, its rules and our target groups, and carries out
//! single operations. It translates and nothing else; what to do is decided in `plan`.
//!
//! Three things are not obvious from the API:
//! - `CreateRule` is not idempotent, and an answer may be lost after the rule was made, so after any
//!   error the listener is read again and a rule with our tags counts as made ([`apply`]).
//! - The account's request rate is shared by all hosts and all programs in it, so what cannot change
//!   behind our back often is cached and read again in rotation ([`view`]), and calls go through a
//!   token bucket ([`limit`]).
//! - The SDK has no read timeout of its own; without one a hung connection would hang the pass.
//!
//! Invariant: a list that could not be read whole is an error, never a shorter list; nothing is
//! changed that does not carry our tags at that moment; no request body or credential is in an error.

mod apply;
mod cache;
mod calls;
pub mod checkup;
mod errors;
mod find;
mod imds;
mod limit;
pub mod secrets;
mod to_model;
mod view;

use crate::alb::cache::Cache;
use crate::alb::limit::Bucket;
use crate::model::balancer::{BalancerOp, BalancerView};
use crate::model::id::Stack;
use crate::world::{Answer, Balancer, Calls, TargetsToRead, WorldError};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_elasticloadbalancingv2::Client;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use limit::Rate;

/// For one try of one call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a call with all its tries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
/// To reach the endpoint at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For a whole look: many calls, each within its own time.
const VIEW_WITHIN: Duration = Duration::from_secs(120);
/// Tries of one call, the first included.
const ATTEMPTS_MAX: u32 = 3;

/// Where the listener is and who we are (`[aws]` of the settings).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlbConfig {
    /// The region; unset: from the ARN, else as the SDK finds it.
    pub region: Option<String>,
    /// The load balancer's ARN; its listener is found, HTTPS first.
    pub alb_arn: Option<String>,
    /// The listener's ARN; wins over `alb_arn`.
    pub listener_arn: Option<String>,
    /// The VPC; unset: the load balancer's.
    pub vpc_id: Option<String>,
    /// Another endpoint, for private ones and tests.
    pub endpoint_url: Option<String>,
    /// Another endpoint of the instance metadata service.
    pub imds_endpoint: Option<String>,
    /// Instance id or IP address; unset: from the instance metadata service.
    pub target_id: Option<String>,
    /// `instance` or `ip`.
    pub target_type: String,
    /// The owner in our tags.
    pub stack: Stack,
    /// How often the API may be called.
    pub rate: Rate,
}

impl AlbConfig {
    /// The region named in one of the ARNs: `arn:partition:elasticloadbalancing:REGION:…`.
    fn region_of_arns(&self) -> Option<String> {
        let arn = self.listener_arn.as_ref().or(self.alb_arn.as_ref())?;
        arn.split(':').nth(3).filter(|region| !region.is_empty()).map(str::to_owned)
    }
}

/// The SDK's settings: region, credentials chain, rustls with ring, timeouts, retries.
pub async fn sdk_config(config: &AlbConfig) -> SdkConfig {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX));
    if let Some(region) = config.region.clone().or_else(|| config.region_of_arns()) {
        loader = loader.region(Region::new(region));
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

/// One listener of one load balancer.
pub struct Alb {
    config: AlbConfig,
    client: Client,
    imds: imds::Imds,
    bucket: Bucket,
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for Alb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alb").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Alb {
    /// Prepares; asks nothing yet.
    #[must_use]
    pub fn new(config: AlbConfig, sdk: &SdkConfig) -> Self {
        Self::counting(config, sdk, Arc::default())
    }

    /// The same; every request to the API is counted in `calls`.
    #[must_use]
    pub fn counting(config: AlbConfig, sdk: &SdkConfig, calls: Arc<Calls>) -> Self {
        let imds = imds::Imds::new(&config, sdk);
        let bucket = Bucket::new(config.rate);
        let counted = aws_sdk_elasticloadbalancingv2::config::Builder::from(sdk)
            .interceptor(calls::Counter::new(calls))
            .build();
        let client = Client::from_conf(counted);
        Self { config, client, imds, bucket, cache: Mutex::new(Cache::default()) }
    }

    /// The VPC's IPv4 address blocks, from the instance metadata service.
    ///
    /// # Errors
    /// When the service does not answer, or this host is no instance.
    pub async fn vpc_cidrs(&self) -> Result<Vec<String>, WorldError> {
        self.imds.vpc_cidrs().await
    }

    /// What is cached; never held over an await. A poisoned lock is as good as any: the cache holds
    /// what was read, whole entries at a time.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Balancer for Alb {
    fn view<'a>(&'a self, read_targets: &'a TargetsToRead) -> Answer<'a, BalancerView> {
        Box::pin(async move {
            let late = || {
                let cause = format!("not done within {} s", VIEW_WITHIN.as_secs());
                trouble("reading the load balancer", crate::world::ErrorKind::TimedOut, cause)
            };
            tokio::time::timeout(VIEW_WITHIN, self.read(read_targets)).await.map_err(|_late| late())?
        })
    }

    fn apply<'a>(&'a self, op: &'a BalancerOp) -> Answer<'a, ()> {
        Box::pin(self.carry_out(op))
    }
}

/// A failure of our own making, without an answer of the API.
fn trouble(doing: impl Into<String>, kind: crate::world::ErrorKind, cause: impl Into<String>) -> WorldError {
    WorldError::new(doing, kind, cause)
}
