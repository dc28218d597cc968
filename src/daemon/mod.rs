//! The composition root: the only place that names adapters and services together.
//!
//! Everything above it talks to handles; everything below it is told what it needs.

pub mod edges;
pub mod files;
pub mod listeners;
pub mod logging;
pub mod message;
pub mod observer;
pub mod one_shot;
pub mod opener;
pub mod places;
pub mod run;
mod serving;
pub mod watch;

use crate::alb;
use crate::alb::secrets::{self, SecretRef};
use crate::config::error::{Problem, render};
use crate::config::settings::{self, PolicyWorld, Settings};
use crate::docker::DockerEngine;
use crate::host::ThisHost;
use crate::host::clock::SystemClock;
use crate::host::lock::{self, Owner};
use crate::host::paths::{Places, Situation};
use crate::model::id::Stack;
use crate::model::policy::Policy;
use crate::store;
use crate::terminal::failure::{Exit, Failure};
use crate::world::{Balancer, Edges, Store, World, WorldError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the engine is when nothing says another place.
const DOCKER_HOST: &str = "unix:///var/run/docker.sock";

/// What the command line says about the whole program.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--settings`.
    pub settings: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--allow-mass-delete`.
    pub allow_mass_delete: bool,
    /// `--no-dashboard`.
    pub no_dashboard: bool,
}

/// Where this process is at home: files, settings, stack, engine.
#[derive(Clone, Debug)]
pub struct Home {
    /// The command line.
    pub options: Options,
    /// The files.
    pub places: Places,
    /// The settings.
    pub settings: Settings,
    /// Warnings about the settings.
    pub warnings: Vec<Problem>,
    /// The owner of everything made here.
    pub stack: Stack,
    /// The environment, as it was at the start.
    pub env: BTreeMap<String, String>,
    /// The engine's address.
    pub docker_host: String,
}

/// The environment; names and values that are not UTF-8 are left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Finds the files.
///
/// # Errors
/// When there is nowhere to keep state.
pub fn places(options: &Options, env: &BTreeMap<String, String>) -> Result<Places, Failure> {
    let cwd = std::env::current_dir().unwrap_or_else(|_gone| PathBuf::from("/"));
    let situation = Situation {
        uid: rustix::process::geteuid().as_raw(),
        env,
        cwd: &cwd,
        exists: &|path: &Path| path.exists(),
    };
    Places::find(options.config.as_deref(), options.settings.as_deref(), situation)
        .map_err(|error| Failure::world(error, Exit::Failed))
}

/// Reads settings.conf, the environment and the flags.
///
/// # Errors
/// When `--settings` names a file that is not there, or one that is cannot be read.
pub fn read_settings(
    options: &Options,
    places: &Places,
    env: &BTreeMap<String, String>,
) -> Result<settings::Loaded, Failure> {
    let name = places.settings.display().to_string();
    let bytes = match std::fs::read(&places.settings) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !places.settings_asked => None,
        Err(error) => {
            return Err(Failure::new(Exit::Usage, format!("reading {name}")).cause(error.to_string()));
        }
    };
    let mut flags = BTreeMap::new();
    if let Some(level) = &options.log_level {
        flags.insert("logging.level".to_owned(), level.clone());
    }
    let file = bytes.as_deref().map(|bytes| (name.as_str(), bytes));
    Ok(settings::load(&settings::Input { file, env, flags: &flags }))
}

impl Home {
    /// Reads the settings and finds out who we are.
    ///
    /// # Errors
    /// All problems of the settings at once.
    pub fn find(options: Options) -> Result<Self, Failure> {
        let env = environment();
        let places = places(&options, &env)?;
        let loaded = read_settings(&options, &places, &env)?;
        let Some(settings) = loaded.settings else {
            let text = render(&loaded.problems);
            return Err(Failure::new(
                Exit::Usage,
                format!("the settings cannot be used\n{}", text.trim_end()),
            ));
        };
        let uid = rustix::process::geteuid().as_raw();
        let stack = settings
            .stack(uid, &places.config.display().to_string())
            .ok_or_else(|| Failure::new(Exit::Usage, "the stack has no usable name"))?;
        let docker_host = settings
            .service
            .docker_host
            .clone()
            .or_else(|| env.get("DOCKER_HOST").filter(|host| !host.is_empty()).cloned())
            .unwrap_or_else(|| DOCKER_HOST.to_owned());
        Ok(Self { options, places, settings, warnings: loaded.problems, stack, env, docker_host })
    }

    /// The settings that a decision may depend on.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.settings.policy(&PolicyWorld {
            stack: self.stack.clone(),
            balancer_on: self.settings.balancer_on(),
            allow_mass_delete: self.options.allow_mass_delete,
        })
    }

    /// Opens the state store, and says what was lost or restored.
    ///
    /// # Errors
    /// When it cannot be used, with what helps.
    fn open_store(&self) -> Result<store::Opened, Failure> {
        let opened =
            store::open(&self.places.state(&self.stack), now(), random_bytes()?).map_err(|error| {
                let hint = store::hint(&error);
                let failure = Failure::world(error, Exit::Failed);
                hint.map_or(failure.clone(), |hint| failure.hint(hint))
            })?;
        if let Some(recovered) = &opened.recovered {
            tracing::warn!(MESSAGE_ID = message::STATE_LOST.id, MCP_ERROR_CODE = "MCPO-S001", "{recovered}");
        }
        Ok(opened)
    }

    /// Container starts at once.
    #[must_use]
    pub fn parallel(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        self.settings.service.max_parallel_operations.or(cores * 2)
    }

    /// The engine's adapter.
    #[must_use]
    pub fn engine(&self) -> DockerEngine {
        DockerEngine::new(&self.docker_host, crate::docker::credentials::config_dir(&self.env))
    }

    /// Names of the engine that locks are taken for: its address, and its own id when it answers, so
    /// that two addresses of one engine are one.
    pub async fn engine_names(&self, engine: &DockerEngine) -> Vec<String> {
        let mut names = vec![self.docker_host.clone()];
        names.extend(engine.id().await.ok().flatten().map(|id| id_name(&id)));
        names
    }

    /// The control socket of the process that a lock names, when it may be talked to: root's, our
    /// own, or that of the user whose state directory this is.
    ///
    /// # Errors
    /// When it is somebody else's: anybody can write a lock file.
    pub fn socket_of(&self, owner: &Owner) -> Result<Option<PathBuf>, Failure> {
        use std::os::unix::fs::MetadataExt as _;
        let state = self.places.state(&self.stack);
        let keeper = state.parent().and_then(|dir| std::fs::metadata(dir).ok()).map(|dir| dir.uid());
        let trusted: Vec<u32> = [0, rustix::process::geteuid().as_raw()].into_iter().chain(keeper).collect();
        lock::socket_of(owner, &trusted).map_err(|error| {
            Failure::world(error, Exit::Failed)
                .hint("end the process that holds the lock: `fuser -v` names it")
        })
    }

    /// The balancer's adapter, or why there is none.
    async fn balancer(&self) -> Result<Arc<dyn Balancer>, String> {
        if !self.settings.balancer_on() {
            let named = self.settings.aws.listener_arn.is_some() || self.settings.aws.alb_arn.is_some();
            let why = if named { "[aws] enabled = false" } else { "no listener configured" };
            return Err(why.to_owned());
        }
        let config = self.alb_config();
        let sdk = alb::sdk_config(&config).await;
        Ok(Arc::new(alb::Alb::new(config, &sdk)))
    }

    /// `[aws]` as the adapter wants it.
    fn alb_config(&self) -> alb::AlbConfig {
        let aws = &self.settings.aws;
        alb::AlbConfig {
            region: aws.region.clone(),
            alb_arn: aws.alb_arn.clone(),
            listener_arn: aws.listener_arn.clone(),
            vpc_id: aws.vpc_id.clone(),
            endpoint_url: aws.endpoint_url.clone(),
            target_id: aws.target_id.clone(),
            target_type: aws.target_type.as_str().to_owned(),
            stack: self.stack.clone(),
            imds_endpoint: self.env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").cloned(),
            rate: alb::Rate::default(),
        }
    }

    /// Values that AWS keeps: `${secretsmanager:…}` and `${ssm:…}`.
    pub(crate) async fn aws_secrets(
        &self,
        refs: &BTreeSet<SecretRef>,
    ) -> BTreeMap<SecretRef, Result<String, WorldError>> {
        let sdk = alb::sdk_config(&self.alb_config()).await;
        secrets::fetch(&sdk, self.settings.aws.endpoint_url.as_deref(), refs).await
    }

    /// The address blocks of the network this instance is in, as its metadata says.
    pub(crate) async fn vpc_blocks(&self) -> Result<Vec<String>, WorldError> {
        let config = self.alb_config();
        let sdk = alb::sdk_config(&config).await;
        alb::Alb::new(config, &sdk).vpc_cidrs().await
    }

    /// The whole world of this process.
    pub async fn world(
        &self,
        engine: Arc<DockerEngine>,
        store: Arc<dyn Store>,
        edges: Option<Arc<dyn Edges>>,
    ) -> World {
        World {
            engine,
            balancer: self.balancer().await,
            host: Arc::new(ThisHost),
            edges,
            store,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The name of the engine with this id, for locks.
#[must_use]
pub fn id_name(id: &str) -> String {
    format!("id {id}")
}

/// The time, for showing.
#[must_use]
pub fn now() -> crate::model::time::Timestamp {
    crate::world::Clock::now(&SystemClock)
}

/// 32 bytes nobody can guess.
///
/// # Errors
/// When the kernel has none to give.
pub fn random_bytes() -> Result<[u8; 32], Failure> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(
        |error| Failure::new(Exit::Failed, "reading random bytes from /dev/urandom").cause(error.to_string()),
    )?;
    Ok(bytes)
}
