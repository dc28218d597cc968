//! What in a declaration reaches beyond the container, and must therefore be asked for by name.
//!
//! Why here and not in the parser: the same question is put to a line from a file, to one from the
//! API and to settings merged over both. The answer names every way found, so that the person
//! sees what the permission would open.
//!
//! Invariant: a path is judged after lexical normalisation, so that `//run/../run/docker.sock/` is
//! the socket (test `paths_cannot_hide`). What symbolic links on the host make of it cannot be
//! known here; the usual ones (`/var/run` to `/run`) are.

use std::fmt;

use crate::model::container::{Bind, ContainerSpec, Mount, MountKind, Opaque, Propagation, SecurityOption};

/// One dangerous ask, by the permission that it needs. The text says what asked for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// `privileged`: the container can become root on the host.
    Privileged(String),
    /// `hostNetwork`: the host's interfaces and its loopback services.
    HostNetwork(String),
    /// `hostPid`: processes of the host or of another container.
    HostPid(String),
    /// `hostIpc`: shared memory of the host or of another container.
    HostIpc(String),
    /// `dockerSocket`: the engine itself, and with it the host.
    DockerSocket(String),
    /// `hostPaths`: system directories and `/`.
    HostPath(String),
    /// `devices`: devices of the host.
    Device(String),
}

impl Danger {
    /// The word in an entry's `allow` list that permits it.
    pub fn allow_name(&self) -> &'static str {
        match self {
            Self::Privileged(_) => "privileged",
            Self::HostNetwork(_) => "hostNetwork",
            Self::HostPid(_) => "hostPid",
            Self::HostIpc(_) => "hostIpc",
            Self::DockerSocket(_) => "dockerSocket",
            Self::HostPath(_) => "hostPaths",
            Self::Device(_) => "devices",
        }
    }

    /// What asked for it, as a flag with its value.
    pub fn asked_by(&self) -> &str {
        match self {
            Self::Privileged(by)
            | Self::HostNetwork(by)
            | Self::HostPid(by)
            | Self::HostIpc(by)
            | Self::DockerSocket(by)
            | Self::HostPath(by)
            | Self::Device(by) => by,
        }
    }
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Privileged(_) => "takes walls between container and host away",
            Self::HostNetwork(_) => "shares a network stack that is not its own",
            Self::HostPid(_) => "shares processes that are not its own",
            Self::HostIpc(_) => "shares memory that is not its own",
            Self::DockerSocket(_) => "gives command over the engine, and so over the host",
            Self::HostPath(_) => "opens system directories of the host",
            Self::Device(_) => "opens devices of the host",
        };
        write!(f, "{} {why}", self.asked_by())
    }
}

/// Capabilities that undo the container's walls: each is a known way to root on the host.
const PRIVILEGED_CAPABILITIES: &[&str] = &[
    "ALL",
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
];

/// Directories whose contents, or the contents below them, belong to the system.
const SYSTEM_TREES: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/cache",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/mcp-orchestrator",
    "/var/lib/systemd",
    "/var/log",
    "/var/spool",
];

/// Directories dangerous as a whole, while what lies deeper is somebody's own.
const SYSTEM_DIRECTORIES: &[&str] =
    &["/", "/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var", "/var/lib"];

/// Sockets that command an engine, after normalisation.
const ENGINE_SOCKETS: &[&str] = &[
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/containerd/containerd.sock",
    "/run/podman",
    "/run/podman/podman.sock",
    "/run/crio",
    "/run/crio/crio.sock",
    "/run/mcp-orchestrator",
    "/run/mcp-orchestrator/control.sock",
];

/// Directories that contain an engine's socket.
const SOCKET_PARENTS: &[&str] = &["/", "/run", "/var"];

/// All dangerous asks of `spec`, sorted, each once.
pub fn dangers(spec: &ContainerSpec) -> Vec<Danger> {
    let mut found = Vec::new();
    privileges(spec, &mut found);
    namespaces(spec, &mut found);
    paths(spec, &mut found);
    devices(spec, &mut found);
    found.sort();
    found.dedup();
    found
}

fn privileges(spec: &ContainerSpec, found: &mut Vec<Danger>) {
    let mut add = |by: String| found.push(Danger::Privileged(by));
    if spec.privileged {
        add("--privileged".to_owned());
    }
    for capability in &spec.cap_add {
        if PRIVILEGED_CAPABILITIES.contains(&capability.as_str()) {
            add(format!("--cap-add {capability}"));
        }
    }
    if spec.system_paths_unconfined {
        add("--security-opt systempaths=unconfined".to_owned());
    }
    for option in &spec.security_options {
        match option {
            SecurityOption::Plain(text) if weakens(text) => add(format!("--security-opt {text}")),
            // A profile of one's own may allow anything, and is not read here.
            SecurityOption::SeccompProfile { path, profile: _ } => {
                add(format!("--security-opt seccomp={path}"));
            }
            SecurityOption::Plain(_) => {}
        }
    }
    if spec.userns.as_deref() == Some("host") {
        add("--userns host".to_owned());
    }
    if spec.cgroupns.as_deref() == Some("host") {
        add("--cgroupns host".to_owned());
    }
    if let Some(runtime) = spec.runtime.as_deref().filter(|name| !is_known_runtime(name)) {
        add(format!("--runtime {runtime}"));
    }
}

/// Runtimes that confine at least as well as the default.
fn is_known_runtime(name: &str) -> bool {
    matches!(name, "runc" | "io.containerd.runc.v2" | "crun" | "runsc" | "kata" | "kata-runtime" | "nvidia")
}

/// True for security options that switch a protection off.
fn weakens(option: &str) -> bool {
    let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
    match name {
        "seccomp" | "apparmor" => value == "unconfined",
        "label" => value == "disable" || value.starts_with("type:") || value.starts_with("user:"),
        "no-new-privileges" | "writable-cgroups" => name == "writable-cgroups" && value != "false",
        _ => false,
    }
}

fn namespaces(spec: &ContainerSpec, found: &mut Vec<Danger>) {
    for network in &spec.networks {
        if network.name == "host" || network.name.starts_with("container:") {
            found.push(Danger::HostNetwork(format!("--network {}", network.name)));
        }
    }
    if spec.uts.as_deref() == Some("host") {
        found.push(Danger::HostNetwork("--uts host".to_owned()));
    }
    if let Some(pid) = &spec.pid {
        found.push(Danger::HostPid(format!("--pid {pid}")));
    }
    if let Some(ipc) = spec.ipc.as_deref()
        && (ipc == "host" || ipc.starts_with("container:"))
    {
        found.push(Danger::HostIpc(format!("--ipc {ipc}")));
    }
}

fn paths(spec: &ContainerSpec, found: &mut Vec<Danger>) {
    for bind in spec.binds.iter().filter(|bind| bind.is_host_path()) {
        let Bind { source, target, options } = bind;
        let options = options.as_deref().map(|text| format!(":{text}")).unwrap_or_default();
        let by = format!("-v {source}:{target}{options}");
        path(source, by.clone(), found);
        if options.split([':', ',']).any(|option| matches!(option, "shared" | "rshared")) {
            found.push(Danger::HostPath(by));
        }
    }
    for mount in &spec.mounts {
        if mount.kind == MountKind::Bind
            && let Some(source) = &mount.source
        {
            let by = format!("--mount type=bind,source={source}");
            path(source, by.clone(), found);
            let propagation = mount.bind.as_ref().and_then(|bind| bind.propagation);
            if matches!(propagation, Some(Propagation::Shared | Propagation::Rshared)) {
                found.push(Danger::HostPath(by));
            }
        }
        local_driver_device(mount, found);
    }
    for container in &spec.volumes_from {
        // What that container mounts is not known here, the host's root may be among it.
        found.push(Danger::HostPath(format!("--volumes-from {container}")));
    }
}

/// File systems whose `device=` is not a path of the host.
const REMOTE_FILE_SYSTEMS: &[&str] = &["cifs", "nfs", "nfs4", "smb3", "tmpfs"];

/// A volume of the local driver is a bind or device mount in disguise where it is given `device=`.
fn local_driver_device(mount: &Mount, found: &mut Vec<Danger>) {
    let Some(volume) = &mount.volume else {
        return;
    };
    let option = |name: &str| volume.driver_options.get(name).map(Opaque::expose);
    let remote = option("type").is_some_and(|name| REMOTE_FILE_SYSTEMS.contains(&name));
    let Some(device) = option("device").filter(|_| !remote) else {
        return;
    };
    let by = format!("--mount type=volume,volume-opt=device={device}");
    let before = found.len();
    path(device, by.clone(), found);
    if found.len() == before {
        found.push(Danger::HostPath(by));
    }
}

fn path(source: &str, by: String, found: &mut Vec<Danger>) {
    let clean = normalize_path(source);
    let socket = ENGINE_SOCKETS.contains(&clean.as_str())
        || SOCKET_PARENTS.contains(&clean.as_str())
        || clean.ends_with("/docker.sock")
        || clean.ends_with("/podman.sock");
    if socket {
        found.push(Danger::DockerSocket(by.clone()));
    }
    if clean == "/dev" || clean.starts_with("/dev/") {
        // Shared memory is no device, but its directory is the host's own all the same.
        found.push(Danger::Device(by.clone()));
    }
    let system = SYSTEM_DIRECTORIES.contains(&clean.as_str())
        || SYSTEM_TREES.iter().any(|tree| clean == *tree || below(&clean, tree))
        || !clean.starts_with('/');
    let only_socket = socket && !SOCKET_PARENTS.contains(&clean.as_str());
    if system && !only_socket {
        found.push(Danger::HostPath(by));
    }
}

fn below(path: &str, tree: &str) -> bool {
    path.strip_prefix(tree).is_some_and(|rest| rest.starts_with('/'))
}

fn devices(spec: &ContainerSpec, found: &mut Vec<Danger>) {
    let r = &spec.resources;
    let mut add = |by: String| found.push(Danger::Device(by));
    for device in &r.devices {
        add(format!("--device {}", device.host));
    }
    for name in &r.cdi_devices {
        add(format!("--device {name}"));
    }
    for rule in &r.device_cgroup_rules {
        add(format!("--device-cgroup-rule {rule:?}"));
    }
    if !r.gpus.is_empty() {
        add("--gpus".to_owned());
    }
}

/// The shortest absolute path of the same meaning: without `.`, `..`, doubled or trailing slashes,
/// and with `/var/run`, `/var/lock` and `/proc/1/root` replaced by what they point to on any
/// current distribution.
pub fn normalize_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
        match parts.as_slice() {
            ["var", "run"] => parts = vec!["run"],
            ["var", "lock"] => parts = vec!["run", "lock"],
            ["proc", "self" | "1" | "thread-self", "root"] => parts.clear(),
            _ => {}
        }
    }
    if path.starts_with('~') {
        return parts.join("/");
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::{DeviceMapping, NetworkAttachment, VolumeOptions};

    fn names(spec: &ContainerSpec) -> Vec<&'static str> {
        let mut names: Vec<&str> = dangers(spec).iter().map(Danger::allow_name).collect();
        names.dedup();
        names
    }

    fn of_bind(source: &str) -> Vec<&'static str> {
        names(&ContainerSpec {
            binds: vec![Bind { source: source.into(), target: "/x".into(), options: None }],
            ..ContainerSpec::default()
        })
    }

    #[test]
    fn paths_cannot_hide() {
        for source in [
            "/var/run/docker.sock",
            "/run/docker.sock/",
            "//run//docker.sock",
            "/srv/../run/docker.sock",
            "/var/./run/../run/docker.sock",
            "/home/me/docker.sock",
            "/proc/1/root/run/docker.sock",
        ] {
            assert_eq!(of_bind(source), ["dockerSocket"], "{source}");
        }
        for source in ["/", "/run", "/var/run/", "/var", "/proc/self/root", "/x/.."] {
            assert_eq!(of_bind(source), ["dockerSocket", "hostPaths"], "{source}");
        }
        for source in [
            "/etc",
            "/etc/ssl/certs",
            "/usr/share",
            "/home",
            "/root/.ssh",
            "/sys/fs",
            "/home/x/../../etc",
            "~/x",
            "/var/lib/docker/volumes",
        ] {
            assert_eq!(of_bind(source), ["hostPaths"], "{source}");
        }
        assert_eq!(of_bind("/dev"), ["hostPaths", "devices"]);
        for source in [
            "/srv/data",
            "/home/me/project",
            "/opt/tool",
            "/tmp/x",
            "/data",
            "/etcetera",
            "name",
            "/var/lib/myapp",
        ] {
            assert!(of_bind(source).is_empty(), "{source}: {:?}", of_bind(source));
        }
    }

    #[test]
    fn every_other_way_is_seen() {
        let with = |change: fn(&mut ContainerSpec)| {
            let mut spec = ContainerSpec::default();
            change(&mut spec);
            names(&spec)
        };
        assert_eq!(with(|s| s.privileged = true), ["privileged"]);
        assert_eq!(with(|s| s.cap_add = vec!["CAP_SYS_ADMIN".into()]), ["privileged"]);
        assert!(with(|s| s.cap_add = vec!["CAP_NET_BIND_SERVICE".into()]).is_empty());
        for text in ["seccomp=unconfined", "apparmor:unconfined", "label=disable", "label:disable"] {
            let spec = ContainerSpec {
                security_options: vec![SecurityOption::Plain(text.into())],
                ..ContainerSpec::default()
            };
            assert_eq!(names(&spec), ["privileged"], "{text}");
        }
        assert!(
            with(|s| s.security_options = vec![SecurityOption::Plain("no-new-privileges".into())]).is_empty()
        );
        assert_eq!(with(|s| s.userns = Some("host".into())), ["privileged"]);
        assert_eq!(with(|s| s.cgroupns = Some("host".into())), ["privileged"]);
        assert_eq!(with(|s| s.uts = Some("host".into())), ["hostNetwork"]);
        assert_eq!(with(|s| s.networks = vec![NetworkAttachment::named("host")]), ["hostNetwork"]);
        assert_eq!(with(|s| s.networks = vec![NetworkAttachment::named("container:a")]), ["hostNetwork"]);
        assert_eq!(with(|s| s.pid = Some("container:a".into())), ["hostPid"]);
        assert_eq!(with(|s| s.ipc = Some("host".into())), ["hostIpc"]);
        assert!(with(|s| s.ipc = Some("private".into())).is_empty());
        assert_eq!(with(|s| s.volumes_from = vec!["a".into()]), ["hostPaths"]);
        assert_eq!(with(|s| s.resources.device_cgroup_rules = vec!["a *:* rwm".into()]), ["devices"]);
        assert_eq!(with(|s| s.resources.devices = vec![DeviceMapping::default()]), ["devices"]);
        let disguised = ContainerSpec {
            mounts: vec![Mount {
                target: "/x".into(),
                volume: Some(VolumeOptions {
                    driver_options: [("device".to_owned(), Opaque::from("/"))].into(),
                    ..VolumeOptions::default()
                }),
                ..Mount::default()
            }],
            ..ContainerSpec::default()
        };
        assert_eq!(names(&disguised), ["dockerSocket", "hostPaths"]);
    }

    #[test]
    fn debug_redacts_secrets() {
        let spec = ContainerSpec {
            env: vec![crate::model::container::EnvVar::new("TOKEN", "hunter2")],
            command: vec![Opaque::from("--key=hunter2")],
            log_options: [("token".to_owned(), Opaque::from("hunter2"))].into(),
            ..ContainerSpec::default()
        };
        let shown = format!("{spec:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
