//! The complete declaration of a container, as the `docker run` command line can state it.
//!
//! Why it is so: what a server entry asks for must be comparable, hashable and printable without
//! an engine. So this module holds values only: every field is what the user said, normalised as
//! far as two spellings mean one thing (`-m 1g` and `-m 1024m`), and `None`, zero or empty always
//! means "Docker's own default". Fields with their default value are left out when serialised, so
//! that a field added later does not change the hash of containers that do not use it.
//!
//! Invariant: no engine's or client library's type or name occurs here; the mapping to the Engine
//! API lives in `docker::create` (test: `config::docker_run` tests compare it with recorded
//! requests of the real client).
//! Invariant: `Debug` never shows a value that may carry a secret (test `debug_redacts_secrets`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

mod danger;
mod mount;
mod network;
mod policy;
mod resources;

pub use self::danger::{Danger, dangers, normalize_path};
pub use self::mount::{
    Bind, BindOptions, ImageOptions, Mount, MountKind, Propagation, TmpfsOptions, VolumeOptions,
};
pub use self::network::{HostPorts, NetworkAttachment, PortProtocol, Protocol, PublishedPort};
pub use self::policy::{HealthCheck, HealthProbe, PullPolicy, RestartPolicy, SecurityOption};
pub use self::resources::{
    BlkioWeightDevice, DeviceMapping, DeviceRequest, Resources, ThrottleDevice, Ulimit,
};

/// Used by `skip_serializing_if`: true for the value that means "Docker's own default".
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A string that may carry a secret: compared and serialised as it is, never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Opaque(String);

impl Opaque {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value in clear, for the request to the engine and for hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Opaque {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Opaque {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

/// Name and value of an environment variable (`-e`, `--env`, a line of `--env-file`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnvVar {
    /// Everything before the first `=`; never empty.
    pub name: String,
    /// Everything behind the first `=`. `None` (`-e NAME` with `NAME` unset) takes a variable of
    /// that name set by the image away, as the engine does with a bare name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Opaque>,
}

impl EnvVar {
    /// `name=value`.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(Opaque::new(value)) }
    }
}

/// A container as `docker run` declares it, without what concerns the run only (name, pull,
/// restart, detaching: see `config::docker_run::RunLine`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Image reference as written (`IMAGE`).
    pub image: String,
    /// Arguments behind the image; empty: the image's own `CMD`.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Vec<Opaque>,
    /// `--entrypoint`; `Some("")` takes the image's entrypoint away.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoint: Option<String>,
    /// `--env-file` contents, then `-e`/`--env`; each name once, with the last value given.
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<EnvVar>,
    /// `--label-file` contents, then `-l`/`--label`.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `--annotation`, passed to the OCI runtime (Engine API 1.43).
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// `--platform`, `os[/arch[/variant]]`.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<String>,

    /// `-i`/`--interactive`: stdin is kept open.
    #[serde(skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    /// `-u`/`--user`, `name|uid[:group|gid]`.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// `--group-add`.
    #[serde(skip_serializing_if = "is_default")]
    pub group_add: Vec<String>,
    /// `-w`/`--workdir`.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// `-h`/`--hostname`.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    /// `--domainname`.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// `--init`; `None`: the engine's setting.
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    /// `--stop-signal`, name or number.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: Option<String>,
    /// `--stop-timeout`, seconds; -1 waits for ever.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_timeout_secs: Option<i64>,
    /// `--health-*`, `--no-healthcheck`; `None`: the image's own check.
    #[serde(skip_serializing_if = "is_default")]
    pub health: Option<HealthCheck>,

    /// `-v` with a source (bind mounts and named volumes), sorted.
    #[serde(skip_serializing_if = "is_default")]
    pub binds: Vec<Bind>,
    /// `-v` with a path in the container only, sorted.
    #[serde(skip_serializing_if = "is_default")]
    pub anonymous_volumes: Vec<String>,
    /// `--mount`, in the order written.
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// `--tmpfs`: path in the container to its mount options (`size=64m,mode=1777`).
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: BTreeMap<String, String>,
    /// `--volumes-from`, `container[:ro|rw]`.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes_from: Vec<String>,
    /// `--volume-driver`, for the named and anonymous volumes of `-v`.
    #[serde(skip_serializing_if = "is_default")]
    pub volume_driver: Option<String>,
    /// `--storage-opt`.
    #[serde(skip_serializing_if = "is_default")]
    pub storage_options: BTreeMap<String, String>,
    /// `--read-only`: root file system read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,

    /// `-p`/`--publish`, one entry for each container port, sorted by it (order kept within one).
    #[serde(skip_serializing_if = "is_default")]
    pub published: Vec<PublishedPort>,
    /// `--expose` but what is published anyway, sorted, without doubles.
    #[serde(skip_serializing_if = "is_default")]
    pub exposed: Vec<PortProtocol>,
    /// `-P`/`--publish-all`.
    #[serde(skip_serializing_if = "is_default")]
    pub publish_all: bool,
    /// `--network` with `--network-alias`, `--ip`, `--ip6`, `--link-local-ip`, `--mac-address` in
    /// the first; empty: the default bridge.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<NetworkAttachment>,
    /// `--link`, `container[:alias]`.
    #[serde(skip_serializing_if = "is_default")]
    pub links: Vec<String>,
    /// `--add-host`, normalised to `name:address` or `name:host-gateway`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// `--dns`, addresses in canonical form.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<String>,
    /// `--dns-search`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_options: Vec<String>,

    /// CPU, memory, block IO, devices, ulimits.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// `--shm-size`, bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size_bytes: Option<i64>,
    /// `--sysctl`.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,

    /// `--privileged`.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// `--cap-add`, `CAP_…` or `ALL`, sorted, without doubles.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    /// `--cap-drop`, like `cap_add`.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    /// `--security-opt` but `systempaths=unconfined`.
    #[serde(skip_serializing_if = "is_default")]
    pub security_options: Vec<SecurityOption>,
    /// `--security-opt systempaths=unconfined`: `/proc` and `/sys` neither masked nor read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub system_paths_unconfined: bool,
    /// `--pid`: `host` or `container:NAME`.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<String>,
    /// `--ipc`: `none`, `private`, `shareable`, `host` or `container:NAME`.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<String>,
    /// `--uts`: `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub uts: Option<String>,
    /// `--userns`: `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub userns: Option<String>,
    /// `--cgroupns`: `host` or `private`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroupns: Option<String>,
    /// `--runtime`.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
    /// `--isolation`; on Linux only `default`.
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: Option<String>,

    /// `--log-driver`.
    #[serde(skip_serializing_if = "is_default")]
    pub log_driver: Option<String>,
    /// `--log-opt`; values are opaque because drivers take tokens here.
    #[serde(skip_serializing_if = "is_default")]
    pub log_options: BTreeMap<String, Opaque>,
}
