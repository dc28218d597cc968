//! A container's declaration as the Engine API's create request, as the client of Docker 28 makes
//! it for `docker run --detach`.
//!
//! Why zero values are sent: the client sends them, and an engine tells "not said" from "said
//! zero" in some places (`MemorySwappiness`, `PidsLimit`, the DNS lists). Equal requests make
//! equal containers.
//!
//! What the engine's API version does not know is refused by name, because an older engine drops
//! unknown fields without a word, and the container would silently be another one.
//!
//! Invariant: stdin is never closed with the first client (`StdinOnce`), so that a stdio server
//! outlives our own restart; the engine's own restart policy is always `no`.
//! Invariant: the body equals the recorded one of the real client (test
//! `bodies_equal_the_clients`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig, PortBinding, PortMap,
    ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, ThrottleDevice,
};

use crate::model::container::{
    self, Bind, ContainerSpec, HealthCheck, HostPorts, MountKind, NetworkAttachment, Opaque, PortProtocol,
    Propagation, Resources, SecurityOption,
};

/// Version of the Engine API, such as 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Before the dot.
    pub major: u32,
    /// Behind the dot.
    pub minor: u32,
}

impl ApiVersion {
    /// `1.minor`.
    pub const fn v1(minor: u32) -> Self {
        Self { major: 1, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a version of the engine api");
        let (major, minor) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self {
            major: major.parse().map_err(|_error| bad())?,
            minor: minor.parse().map_err(|_error| bad())?,
        })
    }
}

/// Something declared that the engine is too old for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The flag, as the user writes it.
    pub feature: String,
    /// The first version that has it.
    pub needs: ApiVersion,
    /// The engine's version.
    pub has: ApiVersion,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, needs, has } = self;
        write!(f, "{feature} needs engine api {needs}, the engine has {has}")
    }
}

/// The body of `POST /containers/create`. The platform goes into the query, names, labels and
/// defaults of ours are added by the caller.
///
/// # Errors
/// Everything declared that an engine of version `api` lacks.
pub fn create_body(spec: &ContainerSpec, api: ApiVersion) -> Result<ContainerCreateBody, Vec<Unsupported>> {
    let missing = unsupported(spec, api);
    if !missing.is_empty() {
        return Err(missing);
    }
    let published = spec.published.iter().map(|published| published.container);
    let ports: Vec<PortProtocol> = published.chain(spec.exposed.iter().copied()).collect();
    Ok(ContainerCreateBody {
        hostname: text(&spec.hostname),
        domainname: text(&spec.domainname),
        user: text(&spec.user),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        exposed_ports: non_empty(&port_names(&ports)),
        tty: Some(false),
        open_stdin: Some(spec.open_stdin),
        stdin_once: Some(false),
        env: non_empty(&environment(spec)),
        cmd: non_empty(&clear(&spec.command)),
        healthcheck: spec.health.as_ref().map(health),
        image: Some(spec.image.clone()),
        volumes: Some(spec.anonymous_volumes.clone()),
        working_dir: text(&spec.working_dir),
        entrypoint: spec.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
        labels: Some(hash_map(&spec.labels)),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout_secs,
        host_config: Some(host_config(spec)),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints(spec)) }),
        ..ContainerCreateBody::default()
    })
}

/// What `spec` asks for and an engine of version `api` does not have, each with the version.
pub fn unsupported(spec: &ContainerSpec, api: ApiVersion) -> Vec<Unsupported> {
    let probe_interval = matches!(
        &spec.health,
        Some(HealthCheck::Probe(probe)) if probe.start_interval_nanos != 0
    );
    let kind = |kind| spec.mounts.iter().any(|mount| mount.kind == kind);
    let bind = |has: fn(&container::BindOptions) -> bool| {
        spec.mounts.iter().filter_map(|mount| mount.bind.as_ref()).any(has)
    };
    let mut volumes = spec.mounts.iter().filter_map(|mount| mount.volume.as_ref());
    let network = |has: fn(&NetworkAttachment) -> bool| spec.networks.iter().any(has);
    let asked = [
        (!spec.resources.gpus.is_empty(), "--gpus", 40),
        (bind(|bind| bind.non_recursive), "--mount bind-recursive=disabled", 40),
        (spec.platform.is_some(), "--platform", 41),
        (spec.cgroupns.is_some(), "--cgroupns", 41),
        (kind(MountKind::Cluster), "--mount type=cluster", 42),
        (!spec.annotations.is_empty(), "--annotation", 43),
        (probe_interval, "--health-start-interval", 44),
        (network(|network| network.mac_address.is_some()), "--mac-address", 44),
        (spec.networks.len() > 1, "more than one --network", 44),
        (bind(|bind| bind.read_only_force_recursive), "--mount bind-recursive=readonly", 44),
        (!spec.resources.cdi_devices.is_empty(), "--device VENDOR/CLASS=NAME", 44),
        (volumes.any(|volume| volume.subpath.is_some()), "--mount volume-subpath", 45),
        (kind(MountKind::Image), "--mount type=image", 48),
        (network(|network| network.gateway_priority != 0), "--network gw-priority", 48),
    ];
    asked
        .into_iter()
        .filter(|(asked, _, minor)| *asked && api < ApiVersion::v1(*minor))
        .map(|(_, feature, minor)| Unsupported {
            feature: feature.to_owned(),
            needs: ApiVersion::v1(minor),
            has: api,
        })
        .collect()
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let first_network = spec.networks.first();
    let paths = spec.system_paths_unconfined.then(Vec::new);
    HostConfig {
        binds: non_empty(&spec.binds.iter().map(bind).collect::<Vec<_>>()),
        log_config: Some(HostConfigLogConfig {
            typ: text(&spec.log_driver),
            config: Some(exposed_map(&spec.log_options)),
        }),
        network_mode: Some(first_network.map_or("default", |network| &network.name).to_owned()),
        port_bindings: Some(port_bindings(spec)),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: Some(0),
        }),
        auto_remove: Some(false),
        volume_driver: text(&spec.volume_driver),
        volumes_from: non_empty(&spec.volumes_from),
        mounts: non_empty(&spec.mounts.iter().map(mount).collect::<Vec<_>>()),
        annotations: Some(hash_map(&spec.annotations)).filter(|map| !map.is_empty()),
        cap_add: non_empty(&spec.cap_add),
        cap_drop: non_empty(&spec.cap_drop),
        cgroupns_mode: Some(match spec.cgroupns.as_deref() {
            Some("host") => HostConfigCgroupnsModeEnum::HOST,
            Some("private") => HostConfigCgroupnsModeEnum::PRIVATE,
            _ => HostConfigCgroupnsModeEnum::EMPTY,
        }),
        dns: Some(spec.dns.clone()),
        dns_options: Some(spec.dns_options.clone()),
        dns_search: Some(spec.dns_search.clone()),
        extra_hosts: non_empty(&spec.extra_hosts),
        group_add: non_empty(&spec.group_add),
        ipc_mode: text(&spec.ipc),
        links: non_empty(&spec.links),
        pid_mode: text(&spec.pid),
        privileged: Some(spec.privileged),
        publish_all_ports: Some(spec.publish_all),
        readonly_rootfs: Some(spec.read_only),
        security_opt: security_options(spec),
        storage_opt: Some(hash_map(&spec.storage_options)).filter(|map| !map.is_empty()),
        tmpfs: Some(hash_map(&spec.tmpfs)).filter(|map| !map.is_empty()),
        uts_mode: text(&spec.uts),
        userns_mode: text(&spec.userns),
        shm_size: Some(spec.shm_size_bytes.unwrap_or(0)),
        sysctls: Some(hash_map(&spec.sysctls)).filter(|map| !map.is_empty()),
        runtime: spec.runtime.clone(),
        isolation: Some(match spec.isolation {
            Some(_) => HostConfigIsolationEnum::DEFAULT,
            None => HostConfigIsolationEnum::EMPTY,
        }),
        masked_paths: paths.clone(),
        readonly_paths: paths,
        init: spec.init,
        ..resources(&spec.resources)
    }
}

/// The part of the host configuration that limits resources.
fn resources(r: &Resources) -> HostConfig {
    let requests: Vec<DeviceRequest> = r.gpus.iter().map(device_request).collect();
    let cdi = (!r.cdi_devices.is_empty()).then(|| DeviceRequest {
        driver: Some("cdi".to_owned()),
        count: Some(0),
        device_ids: Some(r.cdi_devices.clone()),
        ..DeviceRequest::default()
    });
    HostConfig {
        cpu_shares: Some(r.cpu_shares),
        memory: Some(r.memory_bytes),
        nano_cpus: Some(r.nano_cpus),
        cgroup_parent: text(&r.cgroup_parent),
        blkio_weight: Some(r.blkio_weight),
        blkio_weight_device: Some(r.blkio_weight_devices.iter().map(weight).collect()),
        blkio_device_read_bps: Some(throttles(&r.device_read_bps)),
        blkio_device_write_bps: Some(throttles(&r.device_write_bps)),
        blkio_device_read_iops: Some(throttles(&r.device_read_iops)),
        blkio_device_write_iops: Some(throttles(&r.device_write_iops)),
        cpu_period: Some(r.cpu_period_micros),
        cpu_quota: Some(r.cpu_quota_micros),
        cpu_realtime_period: Some(r.cpu_rt_period_micros),
        cpu_realtime_runtime: Some(r.cpu_rt_runtime_micros),
        cpuset_cpus: text(&r.cpuset_cpus),
        cpuset_mems: text(&r.cpuset_mems),
        devices: Some(r.devices.iter().map(device).collect()),
        device_cgroup_rules: non_empty(&r.device_cgroup_rules),
        device_requests: non_empty(&requests.into_iter().chain(cdi).collect::<Vec<_>>()),
        memory_reservation: Some(r.memory_reservation_bytes),
        memory_swap: Some(r.memory_swap_bytes),
        memory_swappiness: Some(r.memory_swappiness.unwrap_or(-1)),
        oom_kill_disable: Some(r.oom_kill_disable),
        oom_score_adj: Some(r.oom_score_adj),
        pids_limit: Some(r.pids_limit),
        ulimits: Some(r.ulimits.iter().map(ulimit).collect()),
        ..HostConfig::default()
    }
}

fn text(value: &Option<String>) -> Option<String> {
    Some(value.clone().unwrap_or_default())
}

fn non_empty<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn clear(values: &[Opaque]) -> Vec<String> {
    values.iter().map(|value| value.expose().to_owned()).collect()
}

fn hash_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn exposed_map(map: &BTreeMap<String, Opaque>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.expose().to_owned())).collect()
}

fn environment(spec: &ContainerSpec) -> Vec<String> {
    let line = |var: &container::EnvVar| match &var.value {
        Some(value) => format!("{}={}", var.name, value.expose()),
        None => var.name.clone(),
    };
    spec.env.iter().map(line).collect()
}

fn port_names(ports: &[PortProtocol]) -> Vec<String> {
    let mut names: Vec<String> = ports.iter().map(PortProtocol::to_string).collect();
    names.sort();
    names.dedup();
    names
}

fn port_bindings(spec: &ContainerSpec) -> PortMap {
    let mut bindings = PortMap::new();
    for published in &spec.published {
        let host_port = match published.host {
            HostPorts::Unspecified => String::new(),
            HostPorts::One(port) => port.to_string(),
            HostPorts::FirstFreeOf(first, last) => format!("{first}-{last}"),
        };
        let binding = PortBinding { host_ip: text(&published.host_ip), host_port: Some(host_port) };
        let of_port = bindings.entry(published.container.to_string()).or_default();
        of_port.get_or_insert_default().push(binding);
    }
    bindings
}

fn health(check: &HealthCheck) -> HealthConfig {
    let probe = match check {
        HealthCheck::Disabled => {
            return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
        }
        HealthCheck::Probe(probe) => probe,
    };
    let given = |value: i64| Some(value).filter(|value| *value != 0);
    HealthConfig {
        test: probe.command.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.expose().to_owned()]),
        interval: given(probe.interval_nanos),
        timeout: given(probe.timeout_nanos),
        retries: given(probe.retries),
        start_period: given(probe.start_period_nanos),
        start_interval: given(probe.start_interval_nanos),
    }
}

fn bind(bind: &Bind) -> String {
    let Bind { source, target, options } = bind;
    match options {
        Some(options) => format!("{source}:{target}:{options}"),
        None => format!("{source}:{target}"),
    }
}

fn mount(mount: &container::Mount) -> Mount {
    Mount {
        target: Some(mount.target.clone()),
        source: mount.source.clone(),
        typ: Some(match mount.kind {
            MountKind::Bind => MountType::BIND,
            MountKind::Volume => MountType::VOLUME,
            MountKind::Tmpfs => MountType::TMPFS,
            MountKind::Image => MountType::IMAGE,
            MountKind::Npipe => MountType::NPIPE,
            MountKind::Cluster => MountType::CLUSTER,
        }),
        read_only: Some(true).filter(|_| mount.read_only),
        consistency: mount.consistency.clone(),
        bind_options: mount.bind.as_ref().map(bind_options),
        volume_options: mount.volume.as_ref().map(volume_options),
        image_options: mount.image.as_ref().map(|image| MountImageOptions { subpath: image.subpath.clone() }),
        tmpfs_options: mount.tmpfs.as_ref().map(|tmpfs| MountTmpfsOptions {
            size_bytes: Some(tmpfs.size_bytes).filter(|size| *size != 0),
            mode: Some(i64::from(tmpfs.mode)).filter(|mode| *mode != 0),
            options: None,
        }),
    }
}

fn bind_options(bind: &container::BindOptions) -> MountBindOptions {
    let on = |value: bool| value.then_some(true);
    MountBindOptions {
        propagation: bind.propagation.map(|propagation| match propagation {
            Propagation::Private => MountBindOptionsPropagationEnum::PRIVATE,
            Propagation::Rprivate => MountBindOptionsPropagationEnum::RPRIVATE,
            Propagation::Shared => MountBindOptionsPropagationEnum::SHARED,
            Propagation::Rshared => MountBindOptionsPropagationEnum::RSHARED,
            Propagation::Slave => MountBindOptionsPropagationEnum::SLAVE,
            Propagation::Rslave => MountBindOptionsPropagationEnum::RSLAVE,
        }),
        non_recursive: on(bind.non_recursive),
        create_mountpoint: None,
        read_only_non_recursive: on(bind.read_only_non_recursive),
        read_only_force_recursive: on(bind.read_only_force_recursive),
    }
}

fn volume_options(volume: &container::VolumeOptions) -> MountVolumeOptions {
    MountVolumeOptions {
        no_copy: volume.no_copy.then_some(true),
        labels: Some(hash_map(&volume.labels)).filter(|map| !map.is_empty()),
        driver_config: Some(MountVolumeOptionsDriverConfig {
            name: volume.driver.clone(),
            options: Some(exposed_map(&volume.driver_options)).filter(|map| !map.is_empty()),
        }),
        subpath: volume.subpath.clone(),
    }
}

fn security_options(spec: &ContainerSpec) -> Option<Vec<String>> {
    let options: Vec<String> = spec
        .security_options
        .iter()
        .map(|option| match option {
            SecurityOption::SeccompProfile { path: _, profile } => format!("seccomp={profile}"),
            SecurityOption::Plain(text) => text.clone(),
        })
        .collect();
    // The client leaves an empty list where it took systempaths out of it.
    Some(options).filter(|options| spec.system_paths_unconfined || !options.is_empty())
}

/// A single network without options of its own is named by the network mode alone.
fn endpoints(spec: &ContainerSpec) -> HashMap<String, EndpointSettings> {
    if spec.networks.is_empty() {
        return HashMap::from([("default".to_owned(), EndpointSettings::default())]);
    }
    let mut endpoints = HashMap::new();
    for (index, network) in spec.networks.iter().enumerate() {
        let linked = index == 0 && network.is_user_defined();
        let links = if linked { non_empty(&spec.links) } else { None };
        if spec.networks.len() == 1 && network.is_plain() && links.is_none() {
            continue;
        }
        endpoints.insert(network.name.clone(), endpoint(network, links));
    }
    endpoints
}

fn endpoint(network: &NetworkAttachment, links: Option<Vec<String>>) -> EndpointSettings {
    let addressed = network.ipv4.is_some() || network.ipv6.is_some() || !network.link_local_ips.is_empty();
    EndpointSettings {
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: network.ipv4.clone(),
            ipv6_address: network.ipv6.clone(),
            link_local_ips: non_empty(&network.link_local_ips),
        }),
        links,
        mac_address: network.mac_address.clone(),
        aliases: non_empty(&network.aliases),
        driver_opts: Some(hash_map(&network.driver_options)).filter(|map| !map.is_empty()),
        gw_priority: Some(network.gateway_priority).filter(|priority| *priority != 0),
        ..EndpointSettings::default()
    }
}

fn device(device: &container::DeviceMapping) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn device_request(request: &container::DeviceRequest) -> DeviceRequest {
    DeviceRequest {
        driver: text(&request.driver),
        count: Some(request.count),
        device_ids: non_empty(&request.device_ids),
        capabilities: Some(vec![request.capabilities.clone()]),
        options: Some(hash_map(&request.options)),
    }
}

fn ulimit((name, limit): (&String, &container::Ulimit)) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.clone()), soft: Some(limit.soft), hard: Some(limit.hard) }
}

fn weight(device: &container::BlkioWeightDevice) -> ResourcesBlkioWeightDevice {
    ResourcesBlkioWeightDevice { path: Some(device.path.clone()), weight: Some(usize::from(device.weight)) }
}

fn throttles(devices: &[container::ThrottleDevice]) -> Vec<ThrottleDevice> {
    devices
        .iter()
        .map(|device| ThrottleDevice { path: Some(device.path.clone()), rate: Some(device.rate) })
        .collect()
}
