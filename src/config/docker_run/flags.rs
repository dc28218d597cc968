//! The table of all flags of `docker run`, with what each does to the draft.
//!
//! Why a table: completeness can be seen and tested, and a flag's name, short form and meaning
//! stand in one place.

use crate::config::docker_run::draft::{Draft, Fault};
use crate::config::docker_run::{devices, image, mounts, networks, ports, text, values};
use crate::model::container::PullPolicy;

/// One flag.
pub(super) struct Flag {
    /// Long name without dashes.
    pub(super) name: &'static str,
    /// Letter of the short form.
    pub(super) short: Option<char>,
    /// True for spellings kept for old lines; never proposed.
    pub(super) hidden: bool,
    /// What it does.
    pub(super) action: Action,
}

/// Where in the draft a flag puts its value.
type Field<T> = for<'a, 'b> fn(&'a mut Draft<'b>) -> &'a mut T;

/// What a flag does.
pub(super) enum Action {
    /// Sets a switch.
    Switch(Field<bool>),
    /// Sets a switch that may be left open.
    Tristate(Field<Option<bool>>),
    /// Sets a text; the empty one is the default.
    Text(Field<Option<String>>),
    /// Sets an integer.
    Integer(Field<i64>),
    /// Sets a size.
    Bytes(Field<i64>),
    /// Sets a duration.
    Duration(Field<i64>),
    /// Adds a text to a list.
    List(Field<Vec<String>>),
    /// Anything else.
    Value(fn(&mut Draft<'_>, &str) -> Result<(), Fault>),
    /// A switch that means nothing here.
    AbsorbSwitch,
    /// A value that means nothing here.
    AbsorbValue,
    /// A switch refused when it has this value.
    RefuseSwitch(bool, &'static str, &'static str),
    /// A value that is always refused.
    RefuseValue(&'static str, &'static str),
}

impl Flag {
    /// True when the flag takes no value but behind `=`.
    pub(super) fn is_switch(&self) -> bool {
        matches!(
            self.action,
            Action::Switch(_) | Action::Tristate(_) | Action::AbsorbSwitch | Action::RefuseSwitch(..)
        )
    }

    /// Why the flag is refused, where it is.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        if let Action::RefuseSwitch(_, why, _) | Action::RefuseValue(why, _) = self.action {
            Some(why)
        } else {
            None
        }
    }
}

const fn flag(name: &'static str, action: Action) -> Flag {
    Flag { name, short: None, hidden: false, action }
}

const fn short(name: &'static str, letter: char, action: Action) -> Flag {
    Flag { name, short: Some(letter), hidden: false, action }
}

const fn hidden(name: &'static str, action: Action) -> Flag {
    Flag { name, short: None, hidden: true, action }
}

const WINDOWS: &str = "it works on Windows engines only";
const NO_WINDOWS: &str = "leave it out";

use Action::{
    AbsorbSwitch, AbsorbValue, Bytes, Duration, Integer, List, RefuseSwitch, RefuseValue, Switch, Text,
    Tristate, Value,
};

/// Every flag, by name.
pub(super) static FLAGS: &[Flag] = &[
    flag("add-host", Value(|d, v| push(&mut d.spec.extra_hosts, networks::extra_host(v)))),
    flag(
        "annotation",
        Value(|d, v| {
            let (name, value) = v.split_once('=').unwrap_or((v, ""));
            d.spec.annotations.insert(name.to_owned(), value.to_owned());
            Ok(())
        }),
    ),
    short(
        "attach",
        'a',
        RefuseValue(
            "the service itself attaches to stdin, stdout and stderr",
            "leave it out, -i is enough for a stdio server",
        ),
    ),
    flag(
        "blkio-weight",
        Value(|d, v| {
            let weight = values::integer(values::without_sign(v)?)?;
            d.spec.resources.blkio_weight =
                u16::try_from(weight).map_err(|_error| format!("{v:?} is out of range"))?;
            Ok(())
        }),
    ),
    flag(
        "blkio-weight-device",
        Value(|d, v| push(&mut d.spec.resources.blkio_weight_devices, devices::weight(v))),
    ),
    flag("cap-add", List(|d| &mut d.spec.cap_add)),
    flag("cap-drop", List(|d| &mut d.spec.cap_drop)),
    flag("cgroup-parent", Text(|d| &mut d.spec.resources.cgroup_parent)),
    flag(
        "cgroupns",
        Value(|d, v| {
            d.spec.cgroupns = one_of(v, &["host", "private"])?;
            Ok(())
        }),
    ),
    flag(
        "cidfile",
        RefuseValue(
            "the service keeps the container's id itself, and replaces the container",
            "leave it out; list-servers shows the id",
        ),
    ),
    hidden("cpu-count", RefuseValue(WINDOWS, NO_WINDOWS)),
    hidden("cpu-percent", RefuseValue(WINDOWS, NO_WINDOWS)),
    flag("cpu-period", Integer(|d| &mut d.spec.resources.cpu_period_micros)),
    flag("cpu-quota", Integer(|d| &mut d.spec.resources.cpu_quota_micros)),
    flag("cpu-rt-period", Integer(|d| &mut d.spec.resources.cpu_rt_period_micros)),
    flag("cpu-rt-runtime", Integer(|d| &mut d.spec.resources.cpu_rt_runtime_micros)),
    short("cpu-shares", 'c', Integer(|d| &mut d.spec.resources.cpu_shares)),
    flag(
        "cpus",
        Value(|d, v| {
            d.spec.resources.nano_cpus = values::nano_cpus(v)?;
            Ok(())
        }),
    ),
    flag("cpuset-cpus", Text(|d| &mut d.spec.resources.cpuset_cpus)),
    flag("cpuset-mems", Text(|d| &mut d.spec.resources.cpuset_mems)),
    short("detach", 'd', AbsorbSwitch),
    flag("detach-keys", AbsorbValue),
    flag(
        "device",
        Value(|d, v| {
            match devices::device(v)? {
                devices::Device::Mapping(device) => d.spec.resources.devices.push(device),
                devices::Device::Cdi(name) => d.spec.resources.cdi_devices.push(name),
            }
            Ok(())
        }),
    ),
    flag(
        "device-cgroup-rule",
        Value(|d, v| push(&mut d.spec.resources.device_cgroup_rules, devices::cgroup_rule(v))),
    ),
    flag(
        "device-read-bps",
        Value(|d, v| push(&mut d.spec.resources.device_read_bps, devices::rate_in_bytes(v))),
    ),
    flag(
        "device-read-iops",
        Value(|d, v| push(&mut d.spec.resources.device_read_iops, devices::rate_in_operations(v))),
    ),
    flag(
        "device-write-bps",
        Value(|d, v| push(&mut d.spec.resources.device_write_bps, devices::rate_in_bytes(v))),
    ),
    flag(
        "device-write-iops",
        Value(|d, v| push(&mut d.spec.resources.device_write_iops, devices::rate_in_operations(v))),
    ),
    flag(
        "disable-content-trust",
        RefuseSwitch(
            false,
            "images are pinned by digest, Docker Content Trust is not spoken",
            "name the image by digest: IMAGE@sha256:…",
        ),
    ),
    flag("dns", Value(|d, v| push(&mut d.spec.dns, text::ip_address(v)))),
    hidden("dns-opt", List(|d| &mut d.spec.dns_options)),
    flag("dns-option", List(|d| &mut d.spec.dns_options)),
    flag("dns-search", Value(|d, v| push(&mut d.spec.dns_search, networks::search_domain(v)))),
    flag("domainname", Text(|d| &mut d.spec.domainname)),
    flag(
        "entrypoint",
        Value(|d, v| {
            d.spec.entrypoint = Some(v.to_owned());
            Ok(())
        }),
    ),
    short("env", 'e', Value(|d, v| d.env(v))),
    flag("env-file", Value(|d, v| d.env_file(v))),
    flag(
        "expose",
        Value(|d, v| {
            d.spec.exposed.extend(ports::expose(v)?);
            d.bound_ports()
        }),
    ),
    flag("gpus", Value(|d, v| push(&mut d.spec.resources.gpus, devices::gpus(v)))),
    flag("group-add", List(|d| &mut d.spec.group_add)),
    flag(
        "health-cmd",
        Value(|d, v| {
            d.health.command = Some(v.into()).filter(|_| !v.is_empty());
            Ok(())
        }),
    ),
    flag("health-interval", Duration(|d| &mut d.health.interval_nanos)),
    flag("health-retries", Integer(|d| &mut d.health.retries)),
    flag("health-start-interval", Duration(|d| &mut d.health.start_interval_nanos)),
    flag("health-start-period", Duration(|d| &mut d.health.start_period_nanos)),
    flag("health-timeout", Duration(|d| &mut d.health.timeout_nanos)),
    flag("help", RefuseSwitch(true, "it prints help and starts nothing", "leave it out")),
    short("hostname", 'h', Text(|d| &mut d.spec.hostname)),
    flag("init", Tristate(|d| &mut d.spec.init)),
    short("interactive", 'i', Switch(|d| &mut d.spec.open_stdin)),
    hidden("io-maxbandwidth", RefuseValue(WINDOWS, NO_WINDOWS)),
    hidden("io-maxiops", RefuseValue(WINDOWS, NO_WINDOWS)),
    flag("ip", Text(|d| &mut d.first_network.ipv4)),
    flag("ip6", Text(|d| &mut d.first_network.ipv6)),
    flag(
        "ipc",
        Value(|d, v| {
            d.spec.ipc = match v.strip_prefix("container:") {
                Some(_) => Some(v.to_owned()),
                None => one_of(v, &["none", "private", "host", "shareable"])?,
            };
            Ok(())
        }),
    ),
    flag(
        "isolation",
        Value(|d, v| {
            if v == "process" || v == "hyperv" {
                return Err(Fault::refused(WINDOWS, NO_WINDOWS));
            }
            d.spec.isolation = one_of(v, &["default"])?;
            Ok(())
        }),
    ),
    flag(
        "kernel-memory",
        RefuseValue(
            "kernels no longer enforce it, and the engine dropped it with API 1.42",
            "use --memory, which covers kernel memory too",
        ),
    ),
    short("label", 'l', Value(|d, v| d.label(v))),
    flag("label-file", Value(|d, v| d.label_file(v))),
    flag("link", Value(|d, v| push(&mut d.spec.links, networks::link(v)))),
    flag("link-local-ip", List(|d| &mut d.first_network.link_local_ips)),
    flag("log-driver", Text(|d| &mut d.spec.log_driver)),
    flag(
        "log-opt",
        Value(|d, v| {
            let (name, value) = v.split_once('=').unwrap_or((v, ""));
            d.spec.log_options.insert(name.to_owned(), value.into());
            Ok(())
        }),
    ),
    flag(
        "mac-address",
        Value(|d, v| {
            if !v.is_empty() {
                text::mac_address(v)?;
            }
            d.first_network.mac_address = Some(v.to_owned()).filter(|v| !v.is_empty());
            Ok(())
        }),
    ),
    short("memory", 'm', Bytes(|d| &mut d.spec.resources.memory_bytes)),
    flag("memory-reservation", Bytes(|d| &mut d.spec.resources.memory_reservation_bytes)),
    flag(
        "memory-swap",
        Value(|d, v| {
            d.spec.resources.memory_swap_bytes = if v == "-1" { -1 } else { values::bytes(v)? };
            Ok(())
        }),
    ),
    flag(
        "memory-swappiness",
        Value(|d, v| {
            d.spec.resources.memory_swappiness = match values::integer(v)? {
                -1 => None,
                percent @ 0..=100 => Some(percent),
                other => return Err(format!("{other} is not between 0 and 100").into()),
            };
            Ok(())
        }),
    ),
    flag("mount", Value(|d, v| push(&mut d.spec.mounts, mounts::mount(v, d.ctx.base_dir)))),
    flag("name", Value(|d, v| d.name(v))),
    hidden("net", Value(|d, v| push(&mut d.spec.networks, networks::network(v)))),
    hidden("net-alias", List(|d| &mut d.first_network.aliases)),
    flag("network", Value(|d, v| push(&mut d.spec.networks, networks::network(v)))),
    flag("network-alias", List(|d| &mut d.first_network.aliases)),
    flag("no-healthcheck", Switch(|d| &mut d.no_healthcheck)),
    flag("oom-kill-disable", Switch(|d| &mut d.spec.resources.oom_kill_disable)),
    flag("oom-score-adj", Integer(|d| &mut d.spec.resources.oom_score_adj)),
    flag(
        "pid",
        Value(|d, v| {
            d.spec.pid = match v.strip_prefix("container:") {
                Some(name) if !name.is_empty() => Some(v.to_owned()),
                _ => one_of(v, &["host"])?,
            };
            Ok(())
        }),
    ),
    flag("pids-limit", Integer(|d| &mut d.spec.resources.pids_limit)),
    flag(
        "platform",
        Value(|d, v| {
            d.spec.platform = if v.is_empty() { None } else { Some(image::platform(v)?) };
            Ok(())
        }),
    ),
    flag("privileged", Switch(|d| &mut d.spec.privileged)),
    short(
        "publish",
        'p',
        Value(|d, v| {
            d.spec.published.extend(ports::publish(v)?);
            d.bound_ports()
        }),
    ),
    short("publish-all", 'P', Switch(|d| &mut d.spec.publish_all)),
    flag(
        "pull",
        Value(|d, v| {
            d.pull = match v {
                "" => None,
                "missing" => Some(PullPolicy::Missing),
                "always" => Some(PullPolicy::Always),
                "never" => Some(PullPolicy::Never),
                other => return Err(format!("{other:?} is none of missing, always, never").into()),
            };
            Ok(())
        }),
    ),
    short("quiet", 'q', AbsorbSwitch),
    flag("read-only", Switch(|d| &mut d.spec.read_only)),
    flag("restart", Value(|d, v| d.restart(v))),
    flag("rm", Switch(|d| &mut d.remove)),
    flag("runtime", Text(|d| &mut d.spec.runtime)),
    flag("security-opt", Value(|d, v| d.security(v))),
    flag("shm-size", Bytes(|d| d.spec.shm_size_bytes.get_or_insert_default())),
    flag("sig-proxy", AbsorbSwitch),
    flag("stop-signal", Text(|d| &mut d.spec.stop_signal)),
    flag(
        "stop-timeout",
        Value(|d, v| {
            d.spec.stop_timeout_secs = Some(values::integer(v)?);
            Ok(())
        }),
    ),
    flag(
        "storage-opt",
        Value(|d, v| {
            let (name, value) =
                v.split_once('=').ok_or_else(|| format!("{v:?} is not of the form name=value"))?;
            d.spec.storage_options.insert(name.to_owned(), value.to_owned());
            Ok(())
        }),
    ),
    flag("sysctl", Value(|d, v| d.sysctl(v))),
    flag(
        "tmpfs",
        Value(|d, v| {
            let (path, options) = v.split_once(':').unwrap_or((v, ""));
            d.spec.tmpfs.insert(path.to_owned(), options.to_owned());
            Ok(())
        }),
    ),
    short(
        "tty",
        't',
        RefuseSwitch(
            true,
            "a terminal rewrites line ends and mixes stderr in, which breaks JSON-RPC",
            "write -i without -t",
        ),
    ),
    flag(
        "ulimit",
        Value(|d, v| {
            let (name, limit) = devices::ulimit(v)?;
            d.spec.resources.ulimits.insert(name, limit);
            Ok(())
        }),
    ),
    flag(
        "use-api-socket",
        RefuseSwitch(
            true,
            "it copies the registry credentials of whoever runs the client into the container",
            "mount the socket with -v and allow dockerSocket",
        ),
    ),
    short("user", 'u', Text(|d| &mut d.spec.user)),
    flag(
        "userns",
        Value(|d, v| {
            d.spec.userns = one_of(v, &["host"])?;
            Ok(())
        }),
    ),
    flag(
        "uts",
        Value(|d, v| {
            d.spec.uts = one_of(v, &["host"])?;
            Ok(())
        }),
    ),
    short(
        "volume",
        'v',
        Value(|d, v| {
            match mounts::volume(v, d.ctx.base_dir)? {
                mounts::Volume::Anonymous(path) => d.spec.anonymous_volumes.push(path),
                mounts::Volume::Bind(bind) => d.spec.binds.push(bind),
            }
            Ok(())
        }),
    ),
    flag("volume-driver", Text(|d| &mut d.spec.volume_driver)),
    flag("volumes-from", List(|d| &mut d.spec.volumes_from)),
    short("workdir", 'w', Text(|d| &mut d.spec.working_dir)),
];

/// Adds what was read.
fn push<T>(list: &mut Vec<T>, item: Result<T, String>) -> Result<(), Fault> {
    list.push(item?);
    Ok(())
}

/// One of the words, or nothing for the empty text.
fn one_of(text: &str, words: &[&str]) -> Result<Option<String>, String> {
    if text.is_empty() {
        Ok(None)
    } else if words.contains(&text) {
        Ok(Some(text.to_owned()))
    } else {
        Err(format!("{text:?} is none of {}", words.join(", ")))
    }
}
