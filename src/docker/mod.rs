//! The Docker Engine as [`crate::world::Engine`]: translates, and nothing else.
//!
//! One list call tells all about a quiet fleet: our facts are in labels and in the list's own
//! status text, so nothing is inspected that no decision asks for. Must never decide, never log a
//! request body (it carries environment values), and never name another adapter.

pub mod attach;
pub mod checkup;
pub mod create;
pub mod credentials;
mod errors;
pub mod events;
mod foreign;
pub mod legs;
mod logs;
mod recent;
pub mod reference;
mod seen;
mod usage;

use crate::docker::create::ApiVersion;
use crate::docker::errors::{deadline, world_error};
use crate::docker::reference::ImageReference;
use crate::model::id::ContainerId;
use crate::model::mark::{MANAGED_BY, MANAGER};
use crate::model::observed::{Container, Details, Image, LogAsk, LogLine};
use crate::model::op::{ContainerRef, Create, EngineOp};
use crate::world::{Answer, Engine, ErrorKind, WorldError};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, PortBinding};
use bollard::query_parameters as query;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Longest wait for a list or an inspect.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// Longest wait for a sign of life: a start does not wait for an engine that hangs.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for creating, starting, renaming, removing.
const WRITE_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for a stop: the engine waits for the container's own timeout.
const STOP_WITHIN: Duration = Duration::from_secs(900);
/// Longest wait for one image.
const PULL_WITHIN: Duration = Duration::from_secs(3600);
/// Longest the HTTP client waits by itself; the waits above end earlier.
const CLIENT_SECS: u64 = 4000;

/// A Docker engine, reached when it is there.
pub struct DockerEngine {
    host: String,
    registry_config: Option<PathBuf>,
    client: Mutex<Option<(Docker, Option<ApiVersion>)>>,
    recent: recent::Recent,
}

impl std::fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerEngine").field("host", &self.host).finish_non_exhaustive()
    }
}

impl DockerEngine {
    /// An engine at `host` (`unix:///var/run/docker.sock`, `tcp://…`, `http://…`). Nothing is
    /// contacted yet. `registry_config` is the docker CLI's configuration directory, where
    /// registry credentials are looked up at each pull.
    pub fn new(host: impl Into<String>, registry_config: Option<PathBuf>) -> Self {
        Self {
            host: host.into(),
            registry_config,
            client: Mutex::new(None),
            recent: recent::Recent::default(),
        }
    }

    /// Where the engine is.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A client; the socket may appear later than this process.
    ///
    /// # Errors
    /// When the socket is not there or the address is not one.
    pub fn client(&self) -> Result<Docker, WorldError> {
        let mut slot = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((client, _)) = slot.as_ref() {
            return Ok(client.clone());
        }
        let connected = if let Some(path) = self.host.strip_prefix("unix://") {
            Docker::connect_with_unix(path, CLIENT_SECS, bollard::API_DEFAULT_VERSION)
        } else if self.host.starts_with('/') {
            Docker::connect_with_unix(&self.host, CLIENT_SECS, bollard::API_DEFAULT_VERSION)
        } else {
            let address = self.host.replacen("tcp://", "http://", 1);
            Docker::connect_with_http(&address, CLIENT_SECS, bollard::API_DEFAULT_VERSION)
        };
        let client =
            connected.map_err(|error| world_error(&format!("connecting to {}", self.host), error))?;
        let client = client.with_request_modifier(credentials::url_safe_header);
        *slot = Some((client.clone(), None));
        Ok(client)
    }

    /// The engine's API version, asked once.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn api_version(&self) -> Result<ApiVersion, WorldError> {
        let client = self.client()?;
        let known = || {
            self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref().and_then(|c| c.1)
        };
        if let Some(version) = known() {
            return Ok(version);
        }
        let doing = format!("asking {} for its version", self.host);
        let answer = deadline(&doing, READ_WITHIN, client.version()).await?;
        let version = answer.api_version.as_deref().and_then(parse_version).unwrap_or(ApiVersion::v1(41));
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some((client, Some(version)));
        Ok(version)
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn ping(&self) -> Result<(), WorldError> {
        let client = self.client()?;
        let doing = format!("reaching {}", self.host);
        deadline(&doing, ALIVE_WITHIN, client.ping()).await.map(drop)
    }

    /// The engine's own id (`ID` of `docker info`), the same by whatever address it is reached;
    /// `None` for engines that have none.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn id(&self) -> Result<Option<String>, WorldError> {
        let client = self.client()?;
        let doing = format!("asking {} for its id", self.host);
        let info = deadline(&doing, ALIVE_WITHIN, client.info()).await?;
        Ok(info.id.filter(|id| !id.is_empty()))
    }

    async fn list(&self) -> Result<Vec<Container>, WorldError> {
        if let Some(list) = self.recent.without_asking() {
            return Ok(list);
        }
        let options = query::ListContainersOptionsBuilder::new().all(true).build();
        let asked = self.recent.ask();
        let client = self.client()?;
        let list = deadline("listing containers", READ_WITHIN, client.list_containers(Some(options))).await?;
        let mut containers: Vec<Container> = list.into_iter().map(seen::container).collect();
        self.recent.listed(&asked, &mut containers);
        Ok(containers)
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<Image>, WorldError> {
        let client = self.client()?;
        let doing = format!("inspecting image {reference}");
        match deadline(&doing, READ_WITHIN, client.inspect_image(reference)).await {
            Ok(image) => Ok(Some(seen::image(&image, reference))),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Details>, WorldError> {
        let client = self.client()?;
        let doing = format!("inspecting container {id}");
        let none: Option<query::InspectContainerOptions> = None;
        match deadline(&doing, READ_WITHIN, client.inspect_container(id.as_str(), none)).await {
            Ok(details) => Ok(Some(seen::details(&details))),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn carry_out(
        &self,
        op: &EngineOp,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), WorldError> {
        let client = self.client()?;
        let doing = op.describe();
        let none: Option<query::StartContainerOptions> = None;
        let _working = self.recent.working();
        match op {
            EngineOp::Pull { reference, platform } => {
                self.pull(reference, platform.as_deref(), progress).await
            }
            EngineOp::Create(create) => self.create(create).await,
            EngineOp::Start(container) => {
                deadline(&doing, WRITE_WITHIN, client.start_container(container.key(), none)).await
            }
            EngineOp::Stop(container) => {
                let options: Option<query::StopContainerOptions> = None;
                tolerate(deadline(&doing, STOP_WITHIN, client.stop_container(container.key(), options)).await)
            }
            EngineOp::Remove { container, volumes } => {
                self.remove(&doing, container, volumes.as_deref()).await
            }
            EngineOp::Rename { container, to } => {
                let options = query::RenameContainerOptionsBuilder::new().name(to).build();
                deadline(&doing, WRITE_WITHIN, client.rename_container(container.key(), options)).await
            }
            EngineOp::Unpause(container) => {
                deadline(&doing, WRITE_WITHIN, client.unpause_container(container.key())).await
            }
        }
    }

    /// Makes a container.
    async fn create(&self, create: &Create) -> Result<(), WorldError> {
        let (options, body) = self.create_request(create).await?;
        let client = self.client()?;
        let doing = creating(create);
        deadline(&doing, WRITE_WITHIN, client.create_container(Some(options), body)).await.map(|_| ())
    }

    /// What makes a container: by the pinned image, never by a tag that may have moved meanwhile.
    async fn create_request(
        &self,
        create: &Create,
    ) -> Result<(query::CreateContainerOptions, ContainerCreateBody), WorldError> {
        let doing = creating(create);
        let api = self.api_version().await?;
        let mut body = create::create_body(&create.spec, api).map_err(|missing| {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            WorldError::new(&doing, ErrorKind::Invalid, missing.join("; "))
        })?;
        let tagged =
            self.inspect_image(&create.spec.image).await?.is_some_and(|image| image.id == create.image);
        body.image = Some(if tagged { create.spec.image.clone() } else { create.image.0.clone() });
        dress(&mut body, create);
        let mut options = query::CreateContainerOptionsBuilder::new().name(&create.name);
        if let Some(platform) = &create.spec.platform {
            options = options.platform(platform);
        }
        Ok((options.build(), body))
    }

    async fn remove(
        &self,
        doing: &str,
        container: &ContainerRef,
        volumes: Option<&[String]>,
    ) -> Result<(), WorldError> {
        let client = self.client()?;
        let options = query::RemoveContainerOptionsBuilder::new().v(volumes.is_some()).build();
        tolerate(
            deadline(doing, WRITE_WITHIN, client.remove_container(container.key(), Some(options))).await,
        )?;
        let none: Option<query::RemoveVolumeOptions> = None;
        for volume in volumes.unwrap_or_default() {
            let doing = format!("removing volume {volume}");
            match deadline(&doing, WRITE_WITHIN, client.remove_volume(volume, none.clone())).await {
                // Somebody else uses it: then it is not ours alone, and stays.
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), WorldError> {
        let doing = format!("pulling image {reference}");
        let image = ImageReference::parse(reference)
            .map_err(|error| WorldError::new(&doing, ErrorKind::Invalid, error.to_string()))?;
        let mut lookup = credentials::find(self.registry_config.clone(), reference).await;
        let shown = lookup.credentials.take().map(credentials::RegistryCredentials::into_bollard);
        let mut options =
            query::CreateImageOptionsBuilder::new().from_image(&image.name()).tag(image.version());
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let client = self.client()?;
        let mut stream = Box::pin(client.create_image(Some(options.build()), None, shown));
        let work = async {
            let mut last = String::new();
            while let Some(line) = stream.next().await {
                let line = line.map_err(|error| lookup.explain(world_error(&doing, error)))?;
                let status = line.status.unwrap_or_default();
                if status != last {
                    progress(format!("{reference}: {status}"));
                    last = status;
                }
            }
            Ok(())
        };
        let late = || {
            WorldError::new(
                &doing,
                ErrorKind::TimedOut,
                format!("not done within {} s", PULL_WITHIN.as_secs()),
            )
        };
        tokio::time::timeout(PULL_WITHIN, work).await.map_err(|_elapsed| late())?
    }
}

fn creating(create: &Create) -> String {
    format!("creating container {}", create.name)
}

/// Adds what is ours to the body that the entry alone would give.
fn dress(body: &mut ContainerCreateBody, create: &Create) {
    let labels = body.labels.get_or_insert_default();
    labels.extend(create.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let host = body.host_config.get_or_insert_default();
    // A restart is ours to decide: the engine would start it behind our back, with its port taken.
    host.restart_policy = Some(bollard::models::RestartPolicy {
        name: Some(bollard::models::RestartPolicyNameEnum::NO),
        maximum_retry_count: None,
    });
    host.auto_remove = Some(false);
    let binds = create.carried_volumes.iter().map(|(volume, path)| format!("{volume}:{path}"));
    host.binds.get_or_insert_default().extend(binds);
    let Some(publish) = &create.publish else { return };
    let port = format!("{}/tcp", publish.container_port);
    let exposed = body.exposed_ports.get_or_insert_default();
    if !exposed.contains(&port) {
        exposed.push(port.clone());
    }
    let binding = PortBinding {
        host_ip: Some(publish.host_ip.clone()),
        host_port: Some(publish.host_port.map(|port| port.to_string()).unwrap_or_default()),
    };
    host.port_bindings.get_or_insert_default().entry(port).or_default().get_or_insert_default().push(binding);
}

/// Gone already, or stopped already, is what was wanted.
fn tolerate(result: Result<(), WorldError>) -> Result<(), WorldError> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn parse_version(text: &str) -> Option<ApiVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ApiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

impl Engine for DockerEngine {
    fn containers(&self) -> Answer<'_, Vec<Container>> {
        Box::pin(self.list())
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>> {
        Box::pin(self.inspect_image(reference))
    }

    fn details<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Option<Details>> {
        Box::pin(self.inspect(id))
    }

    fn log<'a>(&'a self, ask: &'a LogAsk) -> Answer<'a, Vec<LogLine>> {
        Box::pin(self.read_log(ask))
    }

    fn apply<'a>(&'a self, op: &'a EngineOp, progress: &'a (dyn Fn(String) + Send + Sync)) -> Answer<'a, ()> {
        Box::pin(self.carry_out(op, progress))
    }
}

/// Labels as the model has them.
fn labels(labels: Option<std::collections::HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}
