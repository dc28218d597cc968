//! The composition root: the only place that names adapters and services together.
//!
//! Everything above it talks to handles; everything below it is told what it needs.

pub mod dashboard;
pub mod discovery;
pub mod doctor;
pub mod edges;
mod editor;
pub mod files;
mod finder;
pub mod first;
pub mod handover;
pub mod importing;
pub mod listeners;
pub mod logging;
pub mod look;
pub mod message;
pub mod observer;
mod offers;
pub mod one_shot;
pub mod opener;
pub mod places;
pub mod prepare;
mod reload;
pub mod run;
pub mod runner;
mod serving;
mod settings_editor;
mod supervision;
pub mod tls;
mod usage;
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
use crate::world::{Balancer, Calls, Edges, Engine, MANAGER_VARIABLES, Store, World, WorldError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the engine is when nothing says another place.
const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// Longest settings.conf that is read, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;

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
    /// SHA-256 of settings.conf in hexadecimal; `None` where there is no such file.
    pub settings_sha256: Option<String>,
    /// Requests to the load balancer's API so far.
    pub calls: Arc<Calls>,
}

/// The environment, without what is between the service manager and this process alone; names and
/// values that are not UTF-8 are left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    let mut env = whole_environment();
    env.retain(|name, _| !MANAGER_VARIABLES.contains(&name.as_str()));
    env
}

fn whole_environment() -> BTreeMap<String, String> {
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
    Ok(parse_settings(options, places, env, settings_bytes(places)?.as_deref()))
}

/// The content of settings.conf.
fn settings_bytes(places: &Places) -> Result<Option<Vec<u8>>, Failure> {
    match files::bounded(&places.settings, SETTINGS_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !places.settings_asked => Ok(None),
        Err(error) => {
            let what = format!("reading {}", places.settings.display());
            let hint = "mcp-orchestrator --settings FILE names another one";
            Err(Failure::new(Exit::Usage, what).cause(error.to_string()).hint(hint))
        }
    }
}

fn parse_settings(
    options: &Options,
    places: &Places,
    env: &BTreeMap<String, String>,
    bytes: Option<&[u8]>,
) -> settings::Loaded {
    let name = places.settings.display().to_string();
    let mut flags = BTreeMap::new();
    if let Some(level) = &options.log_level {
        flags.insert("logging.level".to_owned(), level.clone());
    }
    let file = bytes.map(|bytes| (name.as_str(), bytes));
    settings::load(&settings::Input { file, env, flags: &flags })
}

impl Home {
    /// Reads the settings and finds out who we are.
    ///
    /// # Errors
    /// All problems of the settings at once.
    pub fn find(options: Options) -> Result<Self, Failure> {
        let env = environment();
        let places = places(&options, &env)?;
        let bytes = settings_bytes(&places)?;
        let loaded = parse_settings(&options, &places, &env, bytes.as_deref());
        let Some(settings) = loaded.settings else {
            let text = render(&loaded.problems);
            return Err(Failure::new(
                Exit::Usage,
                format!("the settings cannot be used\n{}", text.trim_end()),
            ));
        };
        let settings_sha256 = bytes.as_deref().map(sha256);
        Self::with(options, places, env, settings).map(|home| Self {
            warnings: loaded.problems,
            settings_sha256,
            ..home
        })
    }

    /// The home for looking what is wrong with both files at once: with the default in place of every
    /// wrong setting. Whether all settings are good, and what is wrong with them.
    ///
    /// # Errors
    /// When there is nowhere to keep state, or settings.conf cannot be read at all.
    pub fn assumed(options: Options) -> Result<(Option<Self>, bool, Vec<Problem>), Failure> {
        let env = environment();
        let places = places(&options, &env)?;
        let loaded = read_settings(&options, &places, &env)?;
        let good = loaded.settings.is_some();
        let home = loaded.assumed.map(|settings| Self::with(options, places, env, settings));
        // Without a stack the file's entries mean nothing else; the reason is among the problems.
        Ok((home.and_then(Result::ok), good, loaded.problems))
    }

    /// Finds the home of a daemon to talk to, whatever is wrong with settings.conf: the daemon that
    /// refused the file still runs, and is to be asked why.
    ///
    /// # Errors
    /// When there is nowhere to keep state, or the file cannot be read at all.
    pub fn find_past_errors(options: Options) -> Result<Self, Failure> {
        let env = environment();
        let places = places(&options, &env)?;
        let loaded = read_settings(&options, &places, &env)?;
        let known = ["service.stack", "service.docker_host"].into_iter();
        let value = |name: &str| Some((name.to_owned(), loaded.effective.get(name)?.value.clone()?));
        let flags: BTreeMap<String, String> = known.filter_map(value).collect();
        let nothing = BTreeMap::new();
        let settings = settings::load(&settings::Input { file: None, env: &nothing, flags: &flags }).settings;
        let settings =
            settings.ok_or_else(|| Failure::new(Exit::Usage, "the settings name no usable stack"))?;
        Self::with(options, places, env, settings)
    }

    fn with(
        options: Options,
        places: Places,
        env: BTreeMap<String, String>,
        settings: Settings,
    ) -> Result<Self, Failure> {
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
        let (warnings, settings_sha256, calls) = (Vec::new(), None, Arc::default());
        Ok(Self { options, places, settings, warnings, stack, env, docker_host, settings_sha256, calls })
    }

    /// The settings as settings.conf has them now; everything else of this home stays. A file that
    /// went away or was emptied since is refused: both happen for a moment while a file is written,
    /// and without it the gateway would be open to everybody.
    ///
    /// # Errors
    /// What is wrong with the file, as `validate` says it.
    fn read_again(&self) -> Result<Self, String> {
        let file = self.places.settings.display();
        let refused = |what: &str| format!("{file}: error[{}]: {what}", crate::config::codes::UNREADABLE);
        let bytes = settings_bytes(&self.places).map_err(|failure| {
            refused(&format!("reading the file: {}", failure.cause.unwrap_or_default()))
        })?;
        let settings_sha256 = bytes.as_deref().map(sha256);
        if settings_sha256.is_none() && self.settings_sha256.is_some() {
            return Err(refused("the file is gone"));
        }
        let empty = bytes.as_ref().is_some_and(|bytes| bytes.trim_ascii().is_empty());
        if empty && self.settings_sha256 != settings_sha256 {
            return Err(refused("the file is empty"));
        }
        let loaded = parse_settings(&self.options, &self.places, &self.env, bytes.as_deref());
        let Some(settings) = loaded.settings else {
            let errors: Vec<String> = loaded
                .problems
                .iter()
                .filter(|problem| problem.is_error())
                .map(ToString::to_string)
                .collect();
            return Err(errors.join("\n"));
        };
        Ok(Self { settings, warnings: loaded.problems, settings_sha256, ..self.clone() })
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
        Ok(Arc::new(alb::Alb::counting(config, &sdk, Arc::clone(&self.calls))))
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
        engine: Arc<dyn Engine>,
        store: Arc<dyn Store>,
        edges: Option<Arc<dyn Edges>>,
    ) -> World {
        World {
            engine,
            balancer: self.balancer().await,
            host: Arc::new(ThisHost::default()),
            edges,
            store,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The SHA-256 of a file's content in hexadecimal, as `sha256sum` prints it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    crate::model::fingerprint::sha256_bytes(bytes)
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
