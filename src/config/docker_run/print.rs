//! A declaration as a command line again: one canonical spelling for each meaning.
//!
//! Files are not named again but where the engine is given the file itself (seccomp): variables
//! and labels stand with their values. So the line of [`print`] may hold secrets; what is shown
//! or logged is the line of [`print_redacted`].

use crate::config::docker_run::RunLine;
use crate::config::docker_run::text::join_record;
use crate::config::docker_run::values::{print_bytes, print_cpus, print_duration};
use crate::model::container::{
    Bind, ContainerSpec, DeviceRequest, HealthCheck, HostPorts, Mount, MountKind, NetworkAttachment, Opaque,
    Propagation, PublishedPort, Resources, SecurityOption,
};

/// What stands in the place of a value that may be a secret.
const REDACTED: &str = "***";

/// The canonical line, starting with `run`, values in clear.
pub fn print(line: &RunLine) -> Vec<String> {
    Printer { clear: true, args: Vec::new() }.line(line)
}

/// The canonical line with `***` for every value that may be a secret.
pub fn print_redacted(line: &RunLine) -> Vec<String> {
    Printer { clear: false, args: Vec::new() }.line(line)
}

struct Printer {
    clear: bool,
    args: Vec<String>,
}

impl Printer {
    fn line(mut self, line: &RunLine) -> Vec<String> {
        let RunLine { spec, interactive: _, name, remove, restart, pull } = line;
        self.args.push("run".to_owned());
        self.switch("interactive", spec.open_stdin);
        self.switch("rm", *remove);
        self.text("name", name.as_deref());
        self.text("pull", pull.map(|pull| pull.to_string()).as_deref());
        self.text("restart", restart.map(|policy| policy.to_string()).as_deref());
        self.process(spec);
        self.storage(spec);
        self.network(spec);
        self.resources(&spec.resources);
        self.block_io(&spec.resources);
        self.devices(&spec.resources);
        self.security(spec);
        self.args.push(spec.image.clone());
        for arg in &spec.command {
            let shown = self.opaque(arg);
            self.args.push(shown);
        }
        self.args
    }

    fn value(&mut self, name: &str, value: impl AsRef<str>) {
        self.args.push(format!("--{name}={}", value.as_ref()));
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    fn switch(&mut self, name: &str, on: bool) {
        if on {
            self.args.push(format!("--{name}"));
        }
    }

    fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.value(name, value.to_string());
        }
    }

    fn list(&mut self, name: &str, values: &[String]) {
        for value in values {
            self.value(name, value);
        }
    }

    fn opaque(&self, value: &Opaque) -> String {
        if self.clear { value.expose().to_owned() } else { REDACTED.to_owned() }
    }

    fn process(&mut self, spec: &ContainerSpec) {
        self.text("entrypoint", spec.entrypoint.as_deref());
        for var in &spec.env {
            match &var.value {
                Some(value) => {
                    let shown = self.opaque(value);
                    self.value("env", format!("{}={shown}", var.name));
                }
                None => self.value("env", &var.name),
            }
        }
        for (name, value) in &spec.labels {
            self.value("label", format!("{name}={value}"));
        }
        for (name, value) in &spec.annotations {
            self.value("annotation", format!("{name}={value}"));
        }
        self.text("platform", spec.platform.as_deref());
        self.text("user", spec.user.as_deref());
        self.list("group-add", &spec.group_add);
        self.text("workdir", spec.working_dir.as_deref());
        self.text("hostname", spec.hostname.as_deref());
        self.text("domainname", spec.domainname.as_deref());
        if let Some(init) = spec.init {
            self.value("init", init.to_string());
        }
        self.text("stop-signal", spec.stop_signal.as_deref());
        if let Some(seconds) = spec.stop_timeout_secs {
            self.value("stop-timeout", seconds.to_string());
        }
        self.health(spec.health.as_ref());
        self.text("log-driver", spec.log_driver.as_deref());
        for (name, value) in &spec.log_options {
            let shown = self.opaque(value);
            self.value("log-opt", format!("{name}={shown}"));
        }
    }

    fn health(&mut self, health: Option<&HealthCheck>) {
        let probe = match health {
            None => return,
            Some(HealthCheck::Disabled) => return self.switch("no-healthcheck", true),
            Some(HealthCheck::Probe(probe)) => probe,
        };
        if let Some(command) = &probe.command {
            let shown = self.opaque(command);
            self.value("health-cmd", shown);
        }
        for (name, nanos) in [
            ("health-interval", probe.interval_nanos),
            ("health-timeout", probe.timeout_nanos),
            ("health-start-period", probe.start_period_nanos),
            ("health-start-interval", probe.start_interval_nanos),
        ] {
            if nanos != 0 {
                self.value(name, print_duration(nanos));
            }
        }
        self.number("health-retries", probe.retries);
    }

    fn storage(&mut self, spec: &ContainerSpec) {
        for Bind { source, target, options } in &spec.binds {
            match options {
                Some(options) => self.value("volume", format!("{source}:{target}:{options}")),
                None => self.value("volume", format!("{source}:{target}")),
            }
        }
        self.list("volume", &spec.anonymous_volumes);
        for mount in &spec.mounts {
            let fields = self.mount(mount);
            self.value("mount", join_record(&fields));
        }
        for (path, options) in &spec.tmpfs {
            if options.is_empty() {
                self.value("tmpfs", path);
            } else {
                self.value("tmpfs", format!("{path}:{options}"));
            }
        }
        self.list("volumes-from", &spec.volumes_from);
        self.text("volume-driver", spec.volume_driver.as_deref());
        for (name, value) in &spec.storage_options {
            self.value("storage-opt", format!("{name}={value}"));
        }
        self.switch("read-only", spec.read_only);
    }

    fn mount(&self, mount: &Mount) -> Vec<String> {
        let Mount { kind, source, target, read_only, consistency, bind, volume, tmpfs, image } = mount;
        let mut fields = vec![format!("type={}", kind_name(*kind))];
        fields.extend(source.iter().map(|source| format!("source={source}")));
        fields.push(format!("target={target}"));
        fields.extend(read_only.then(|| "readonly".to_owned()));
        fields.extend(consistency.iter().map(|value| format!("consistency={value}")));
        if let Some(bind) = bind {
            let word = bind.propagation.map_or("", propagation_name);
            fields.push(format!("bind-propagation={word}"));
            for (on, word) in [
                (bind.non_recursive, "disabled"),
                (bind.read_only_non_recursive, "writable"),
                (bind.read_only_force_recursive, "readonly"),
            ] {
                fields.extend(on.then(|| format!("bind-recursive={word}")));
            }
        }
        if let Some(volume) = volume {
            fields.push(format!("volume-nocopy={}", volume.no_copy));
            fields.extend(volume.subpath.iter().map(|path| format!("volume-subpath={path}")));
            fields.extend(volume.driver.iter().map(|name| format!("volume-driver={name}")));
            for (name, value) in &volume.labels {
                fields.push(format!("volume-label={name}={value}"));
            }
            for (name, value) in &volume.driver_options {
                fields.push(format!("volume-opt={name}={}", self.opaque(value)));
            }
        }
        if let Some(tmpfs) = tmpfs {
            fields.push(format!("tmpfs-size={}", print_bytes(tmpfs.size_bytes)));
            fields.push(format!("tmpfs-mode={:o}", tmpfs.mode));
        }
        if let Some(image) = image {
            let subpath = image.subpath.as_deref().unwrap_or_default();
            fields.push(format!("image-subpath={subpath}"));
        }
        fields
    }

    fn network(&mut self, spec: &ContainerSpec) {
        for published in &spec.published {
            self.value("publish", publish(published));
        }
        for port in &spec.exposed {
            self.value("expose", port.to_string());
        }
        self.switch("publish-all", spec.publish_all);
        let mut networks = spec.networks.iter();
        if let Some(first) = networks.next() {
            self.first_network(first);
        }
        for network in networks {
            self.value("network", network_record(network));
        }
        self.list("link", &spec.links);
        self.list("add-host", &spec.extra_hosts);
        self.list("dns", &spec.dns);
        self.list("dns-search", &spec.dns_search);
        self.list("dns-option", &spec.dns_options);
    }

    /// Names and addresses as flags, because inside of `--network` the client folds case.
    fn first_network(&mut self, network: &NetworkAttachment) {
        let in_record = NetworkAttachment {
            name: network.name.clone(),
            driver_options: network.driver_options.clone(),
            gateway_priority: network.gateway_priority,
            ..NetworkAttachment::default()
        };
        self.value("network", network_record(&in_record));
        self.list("network-alias", &network.aliases);
        self.text("ip", network.ipv4.as_deref());
        self.text("ip6", network.ipv6.as_deref());
        self.text("mac-address", network.mac_address.as_deref());
        self.list("link-local-ip", &network.link_local_ips);
    }

    fn resources(&mut self, r: &Resources) {
        for (name, bytes) in [
            ("memory", r.memory_bytes),
            ("memory-reservation", r.memory_reservation_bytes),
            ("memory-swap", r.memory_swap_bytes),
        ] {
            if bytes != 0 {
                self.value(name, print_bytes(bytes));
            }
        }
        if let Some(percent) = r.memory_swappiness {
            self.value("memory-swappiness", percent.to_string());
        }
        self.switch("oom-kill-disable", r.oom_kill_disable);
        self.number("oom-score-adj", r.oom_score_adj);
        if r.nano_cpus != 0 {
            self.value("cpus", print_cpus(r.nano_cpus));
        }
        self.number("cpu-shares", r.cpu_shares);
        self.number("cpu-period", r.cpu_period_micros);
        self.number("cpu-quota", r.cpu_quota_micros);
        self.number("cpu-rt-period", r.cpu_rt_period_micros);
        self.number("cpu-rt-runtime", r.cpu_rt_runtime_micros);
        self.text("cpuset-cpus", r.cpuset_cpus.as_deref());
        self.text("cpuset-mems", r.cpuset_mems.as_deref());
        self.number("pids-limit", r.pids_limit);
        self.text("cgroup-parent", r.cgroup_parent.as_deref());
        for (name, limit) in &r.ulimits {
            self.value("ulimit", format!("{name}={}:{}", limit.soft, limit.hard));
        }
    }

    fn block_io(&mut self, r: &Resources) {
        self.number("blkio-weight", i64::from(r.blkio_weight));
        for device in &r.blkio_weight_devices {
            self.value("blkio-weight-device", format!("{}:{}", device.path, device.weight));
        }
        for (name, devices) in [
            ("device-read-bps", &r.device_read_bps),
            ("device-write-bps", &r.device_write_bps),
            ("device-read-iops", &r.device_read_iops),
            ("device-write-iops", &r.device_write_iops),
        ] {
            for device in devices {
                self.value(name, format!("{}:{}", device.path, device.rate));
            }
        }
    }

    fn devices(&mut self, r: &Resources) {
        for device in &r.devices {
            let (host, container) = (&device.host, &device.container);
            self.value("device", format!("{host}:{container}:{}", device.permissions));
        }
        self.list("device", &r.cdi_devices);
        self.list("device-cgroup-rule", &r.device_cgroup_rules);
        for request in &r.gpus {
            self.value("gpus", gpus(request));
        }
    }

    fn security(&mut self, spec: &ContainerSpec) {
        if let Some(bytes) = spec.shm_size_bytes {
            self.value("shm-size", print_bytes(bytes));
        }
        for (name, value) in &spec.sysctls {
            self.value("sysctl", format!("{name}={value}"));
        }
        self.switch("privileged", spec.privileged);
        self.list("cap-add", &spec.cap_add);
        self.list("cap-drop", &spec.cap_drop);
        for option in &spec.security_options {
            match option {
                SecurityOption::SeccompProfile { path, profile: _ } => {
                    self.value("security-opt", format!("seccomp={path}"));
                }
                SecurityOption::Plain(text) => self.value("security-opt", text),
            }
        }
        if spec.system_paths_unconfined {
            self.value("security-opt", "systempaths=unconfined");
        }
        self.text("pid", spec.pid.as_deref());
        self.text("ipc", spec.ipc.as_deref());
        self.text("uts", spec.uts.as_deref());
        self.text("userns", spec.userns.as_deref());
        self.text("cgroupns", spec.cgroupns.as_deref());
        self.text("runtime", spec.runtime.as_deref());
        self.text("isolation", spec.isolation.as_deref());
    }
}

fn kind_name(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
        MountKind::Npipe => "npipe",
        MountKind::Cluster => "cluster",
    }
}

fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
    }
}

fn publish(published: &PublishedPort) -> String {
    let host = match published.host {
        HostPorts::Unspecified => String::new(),
        HostPorts::One(port) => port.to_string(),
        HostPorts::FirstFreeOf(first, last) => format!("{first}-{last}"),
    };
    let container = published.container;
    match &published.host_ip {
        Some(ip) if ip.contains(':') => format!("[{ip}]:{host}:{container}"),
        Some(ip) => format!("{ip}:{host}:{container}"),
        None if host.is_empty() => container.to_string(),
        None => format!("{host}:{container}"),
    }
}

fn network_record(network: &NetworkAttachment) -> String {
    if network.is_plain() {
        return network.name.clone();
    }
    let NetworkAttachment {
        name,
        aliases,
        ipv4,
        ipv6,
        link_local_ips,
        mac_address,
        driver_options,
        gateway_priority,
    } = network;
    let mut fields = vec![format!("name={name}")];
    fields.extend(aliases.iter().map(|alias| format!("alias={alias}")));
    fields.extend(ipv4.iter().map(|ip| format!("ip={ip}")));
    fields.extend(ipv6.iter().map(|ip| format!("ip6={ip}")));
    fields.extend(link_local_ips.iter().map(|ip| format!("link-local-ip={ip}")));
    fields.extend(mac_address.iter().map(|mac| format!("mac-address={mac}")));
    for (name, value) in driver_options {
        fields.push(format!("driver-opt={name}={value}"));
    }
    if *gateway_priority != 0 {
        fields.push(format!("gw-priority={gateway_priority}"));
    }
    join_record(&fields)
}

fn gpus(request: &DeviceRequest) -> String {
    let DeviceRequest { driver, count, device_ids, capabilities, options } = request;
    let mut fields: Vec<String> = driver.iter().map(|name| format!("driver={name}")).collect();
    if device_ids.is_empty() || *count != 0 {
        let count = if *count == -1 { "all".to_owned() } else { count.to_string() };
        fields.push(format!("count={count}"));
    }
    if !device_ids.is_empty() {
        fields.push(format!("device={}", device_ids.join(",")));
    }
    // The last one, "gpu", is put there by reading.
    let asked = capabilities.split_last().map(|(_, asked)| asked).unwrap_or_default();
    if !asked.is_empty() {
        fields.push(format!("capabilities={}", asked.join(",")));
    }
    if !options.is_empty() {
        let pairs: Vec<String> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        fields.push(format!("options={}", join_record(&pairs)));
    }
    join_record(&fields)
}
