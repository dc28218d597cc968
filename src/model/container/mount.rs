//! Mounts: what `-v` and `--mount` can say, with every option.
//!
//! Why two types: the engine treats them apart. A `-v` bind makes a missing host directory, a
//! `--mount` fails; `-v` options are one free string checked by the engine, `--mount` options are
//! fields. Folding them into one would change what happens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::container::{Opaque, is_default};

/// `-v SOURCE:TARGET[:OPTIONS]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bind {
    /// Host path (starts with `/` or `~`) or the name of a volume.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Comma-separated options as written (`ro,z`, `nocopy`, `rslave`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
}

impl Bind {
    /// True when `source` is a path of the host, false when it names a volume.
    pub fn is_host_path(&self) -> bool {
        self.source.starts_with(['/', '~', '.'])
    }

    /// True when the options ask for a read-only mount.
    pub fn is_read_only(&self) -> bool {
        self.options.as_deref().is_some_and(|options| options.split(',').any(|option| option == "ro"))
    }
}

/// The `type=` of a `--mount`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// The file system of another image (Engine API 1.48).
    Image,
    /// A named pipe of a Windows host.
    Npipe,
    /// A Swarm cluster volume (Engine API 1.42).
    Cluster,
}

/// `bind-propagation=`: how later mounts below travel between host and container, in the kernel's
/// own words; `R…` holds for everything below as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way.
    Private,
    /// Neither way, recursively; the engine's default.
    Rprivate,
    /// Both ways.
    Shared,
    /// Both ways, recursively.
    Rshared,
    /// From the host into the container.
    Slave,
    /// From the host into the container, recursively.
    Rslave,
}

/// `--mount`. The option group of another kind than `kind` is always `None`; a group that is
/// `Some` with defaults only was named without effect (`bind-nonrecursive=false`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// `type=`.
    pub kind: MountKind,
    /// `source=`: host path, volume name or image; `None` for tmpfs and anonymous volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub source: Option<String>,
    /// `target=`, never empty.
    pub target: String,
    /// `readonly`.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// `consistency=`; without effect on Linux.
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: Option<String>,
    /// `bind-*`.
    #[serde(skip_serializing_if = "is_default")]
    pub bind: Option<BindOptions>,
    /// `volume-*`.
    #[serde(skip_serializing_if = "is_default")]
    pub volume: Option<VolumeOptions>,
    /// `tmpfs-*`.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: Option<TmpfsOptions>,
    /// `image-*`.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<ImageOptions>,
}

/// `bind-*` options of a `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// `bind-propagation=`.
    #[serde(skip_serializing_if = "is_default")]
    pub propagation: Option<Propagation>,
    /// `bind-recursive=disabled`.
    #[serde(skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    /// `bind-recursive=writable`.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_non_recursive: bool,
    /// `bind-recursive=readonly` (Engine API 1.44).
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_force_recursive: bool,
}

/// `volume-*` options of a `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// `volume-nocopy`.
    #[serde(skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// `volume-label=`, for a volume made by this mount.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `volume-subpath=` (Engine API 1.45).
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
    /// `volume-driver=`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// `volume-opt=`; opaque because network file systems take passwords here.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_options: BTreeMap<String, Opaque>,
}

/// `tmpfs-*` options of a `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// `tmpfs-size=`, bytes; zero: unbounded.
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: i64,
    /// `tmpfs-mode=`, permission bits.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
}

/// `image-*` options of a `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// `image-subpath=`.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
}
