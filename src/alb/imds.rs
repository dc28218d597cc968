//! Who this host is, from the instance metadata service, version 2 only.
//!
//! Must never make an id up: an id that is not known is an error, and the last known one is the
//! memory's business.

use crate::alb::{AlbConfig, trouble};
use crate::world::{ErrorKind, WorldError};
use aws_config::SdkConfig;
use aws_config::imds::Client;
use aws_config::provider_config::ProviderConfig;
use std::sync::OnceLock;
use std::time::Duration;

/// To connect: the service is on the same machine or nowhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// For token and answer together; a pass waits no longer than this.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest id: an IPv6 address has 39 characters.
const ID_LEN_MAX: usize = 64;
/// Address blocks that are believed; a VPC has at most five unless the quota was raised.
const BLOCKS_MAX: usize = 50;
/// Tries of one request.
const ATTEMPTS_MAX: u32 = 2;

/// The metadata service, asked until it has answered once.
pub(super) struct Imds {
    client: Option<Client>,
    path: &'static str,
    /// The setting, or the answer.
    known: OnceLock<String>,
}

impl Imds {
    pub(super) fn new(config: &AlbConfig, sdk: &SdkConfig) -> Self {
        let provider = ProviderConfig::default().with_region(sdk.region().cloned());
        let provider = match sdk.http_client() {
            Some(http) => provider.with_http_client(http),
            None => provider,
        };
        let builder = Client::builder()
            .configure(&provider)
            .max_attempts(ATTEMPTS_MAX)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        let client = match &config.imds_endpoint {
            Some(url) => builder.endpoint(url).ok().map(aws_config::imds::client::Builder::build),
            None => Some(builder.build()),
        };
        let path = if config.target_type == "ip" {
            "/latest/meta-data/local-ipv4"
        } else {
            "/latest/meta-data/instance-id"
        };
        let known =
            config.target_id.clone().filter(|id| !id.is_empty()).map(OnceLock::from).unwrap_or_default();
        Self { client, path, known }
    }

    /// The VPC's IPv4 address blocks, of the host's first network interface.
    pub(super) async fn vpc_cidrs(&self) -> Result<Vec<String>, WorldError> {
        let doing = "asking the instance metadata service for the VPC's address blocks";
        let mac = self.ask("/latest/meta-data/mac", doing).await?;
        let path = format!("/latest/meta-data/network/interfaces/macs/{}/vpc-ipv4-cidr-blocks", mac.trim());
        let blocks = self.ask(&path, doing).await?;
        Ok(blocks.split_whitespace().take(BLOCKS_MAX).map(str::to_owned).collect())
    }

    async fn ask(&self, path: &str, doing: &str) -> Result<String, WorldError> {
        let Some(client) = &self.client else {
            return Err(trouble(doing, ErrorKind::Invalid, "its endpoint is not a URL"));
        };
        match tokio::time::timeout(WHOLE_TIMEOUT, client.get(path)).await {
            Err(late) => Err(trouble(doing, ErrorKind::TimedOut, late.to_string())),
            Ok(Err(error)) => Err(trouble(doing, ErrorKind::Unreachable, error.to_string())),
            Ok(Ok(text)) => Ok(String::from(text)),
        }
    }

    /// What identifies this host in a target group.
    pub(super) async fn target_id(&self) -> Result<String, WorldError> {
        if let Some(id) = self.known.get() {
            return Ok(id.clone());
        }
        let doing = "asking the instance metadata service who this host is";
        let text = self.ask(self.path, doing).await?;
        let id = text.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
        if id.is_empty() || id.len() > ID_LEN_MAX || !id.chars().all(plain) {
            return Err(trouble(doing, ErrorKind::Failed, "the answer is no id"));
        }
        Ok(self.known.get_or_init(|| id.to_owned()).clone())
    }
}
