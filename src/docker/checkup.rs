//! Questions that only somebody asks who looks for what is wrong: which engine this is, what time it
//! has, and whether a registry would give an image.
//!
//! Must never pull anything.

use crate::docker::errors::{deadline, world_error};
use crate::docker::reference::ImageReference;
use crate::docker::{DockerEngine, credentials};
use crate::model::time::Timestamp;
use crate::world::{ErrorKind, WorldError};
use std::time::Duration;

/// Longest wait for the engine's own facts.
const FACTS_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for a registry, which the engine asks for us.
const REGISTRY_WITHIN: Duration = Duration::from_secs(20);

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// `28.1.1`.
    pub version: String,
    /// `1.49`.
    pub api: String,
    /// The system it runs on.
    pub system: String,
    /// Its clock, when it answered.
    pub time: Option<Timestamp>,
    /// What it warns of itself.
    pub warnings: Vec<String>,
}

impl DockerEngine {
    /// The engine's facts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn facts(&self) -> Result<EngineFacts, WorldError> {
        let client = self.client()?;
        let doing = format!("asking {} about itself", self.host());
        let version = deadline(&doing, FACTS_WITHIN, client.version()).await?;
        let info = deadline(&doing, FACTS_WITHIN, client.info()).await?;
        let time = info.system_time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(EngineFacts {
            version: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
            system: info.operating_system.unwrap_or_default(),
            time: time.map(|time| Timestamp(time.as_millisecond())),
            warnings: info.warnings.unwrap_or_default(),
        })
    }

    /// Whether the image is on the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn has_image(&self, reference: &str) -> Result<bool, WorldError> {
        Ok(self.inspect_image(reference).await?.is_some())
    }

    /// Whether the registry would give `reference`: its digest.
    ///
    /// # Errors
    /// `NotFound`, `Denied` with why there were no credentials, `Unreachable`, `TimedOut`.
    pub async fn pullable(&self, reference: &str) -> Result<String, WorldError> {
        let doing = format!("asking the registry for {reference}");
        ImageReference::parse(reference)
            .map_err(|error| WorldError::new(&doing, ErrorKind::Invalid, error.to_string()))?;
        let mut lookup = credentials::find(self.registry_config.clone(), reference).await;
        let shown = lookup.credentials.take().map(credentials::RegistryCredentials::into_bollard);
        let client = self.client()?;
        let asked = tokio::time::timeout(REGISTRY_WITHIN, client.inspect_registry_image(reference, shown));
        match asked.await {
            Ok(Ok(found)) => Ok(found.descriptor.digest.unwrap_or_default()),
            Ok(Err(error)) => Err(unreachable(lookup.explain(world_error(&doing, error)))),
            Err(_late) => Err(WorldError::new(doing, ErrorKind::TimedOut, "the registry does not answer")),
        }
    }
}

/// The engine's words for a registry that is not there come as a failure of its own.
fn unreachable(mut error: WorldError) -> WorldError {
    let text = error.cause.to_ascii_lowercase();
    let words = ["no such host", "connection refused", "i/o timeout", "network is unreachable", "dial tcp"];
    if error.kind == ErrorKind::Failed && words.iter().any(|word| text.contains(word)) {
        error.kind = ErrorKind::Unreachable;
    }
    error
}
