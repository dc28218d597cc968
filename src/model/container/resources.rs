//! CPU, memory, block IO, process and device limits of a container.
//!
//! Zero means "no limit of ours", as it does for the engine; only where zero is a meaning of its
//! own is the field an `Option`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::container::is_default;

/// Limits and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `-m`/`--memory`, bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: i64,
    /// `--memory-reservation`, bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_reservation_bytes: i64,
    /// `--memory-swap`, bytes of memory and swap together; -1: unlimited swap.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap_bytes: i64,
    /// `--memory-swappiness`, 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swappiness: Option<i64>,
    /// `--oom-kill-disable`.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    /// `--oom-score-adj`, -1000 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i64,
    /// `--cpus`, in 10^-9 CPUs.
    #[serde(skip_serializing_if = "is_default")]
    pub nano_cpus: i64,
    /// `-c`/`--cpu-shares`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: i64,
    /// `--cpu-period`, microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period_micros: i64,
    /// `--cpu-quota`, microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota_micros: i64,
    /// `--cpu-rt-period`, microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_period_micros: i64,
    /// `--cpu-rt-runtime`, microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_runtime_micros: i64,
    /// `--cpuset-cpus`, a list such as `0-3,5`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`, a list such as `0,1`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; -1: unlimited.
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: i64,
    /// `--cgroup-parent`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: Option<String>,
    /// `--ulimit`, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `--blkio-weight`, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_weight: u16,
    /// `--blkio-weight-device`.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_weight_devices: Vec<BlkioWeightDevice>,
    /// `--device-read-bps`, bytes a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_bps: Vec<ThrottleDevice>,
    /// `--device-write-bps`, bytes a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_bps: Vec<ThrottleDevice>,
    /// `--device-read-iops`, operations a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_iops: Vec<ThrottleDevice>,
    /// `--device-write-iops`, operations a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_iops: Vec<ThrottleDevice>,
    /// `--device PATH`.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceMapping>,
    /// `--device VENDOR/CLASS=NAME` (container device interface).
    #[serde(skip_serializing_if = "is_default")]
    pub cdi_devices: Vec<String>,
    /// `--device-cgroup-rule`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_cgroup_rules: Vec<String>,
    /// `--gpus`.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: Vec<DeviceRequest>,
}

/// `--ulimit NAME=SOFT[:HARD]`; -1: unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// In force.
    pub soft: i64,
    /// As far as the process may raise the soft one.
    pub hard: i64,
}

/// `--blkio-weight-device PATH:WEIGHT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioWeightDevice {
    /// Device below `/dev/`.
    pub path: String,
    /// 10 to 1000, or zero.
    pub weight: u16,
}

/// `--device-{read,write}-{bps,iops} PATH:RATE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleDevice {
    /// Device below `/dev/`.
    pub path: String,
    /// Bytes or operations a second.
    pub rate: i64,
}

/// `--device HOST[:CONTAINER[:PERMISSIONS]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// `--gpus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `driver=`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// How many; -1: all; zero beside `device_ids`.
    #[serde(skip_serializing_if = "is_default")]
    pub count: i64,
    /// `device=`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_ids: Vec<String>,
    /// `capabilities=` with `gpu` behind them.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    /// `options=`.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}
