//! A compose file with the containers of the file, as far as compose can say what their lines say.
//!
//! ```text
//! compose.rs   the file; image, arguments, variables, identity, health, log
//! storage.rs   what is mounted          network.rs   ports, networks, names
//! limits.rs    what a container may use
//! ```
//! Variables are named and not shown: compose reads them from its own environment or `.env`. What compose
//! cannot say, or would have to show a secret for, is named in the file and to who asked for it: nothing of
//! a line is dropped in silence. Must never show a value that may be a secret.

mod limits;
mod network;
mod storage;

use crate::config::load::SecretValue;
use crate::config::redact;
use crate::model::container::{ContainerSpec, HealthCheck, HealthProbe, SecurityOption};
use crate::model::server::{ContainerDecl, PullPolicy, RestartWhen, Server, ServerKind};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Options of log drivers that hold no secret.
const LOG_OPTIONS: [&str; 10] = [
    "max-size",
    "max-file",
    "max-buffer-size",
    "compress",
    "mode",
    "tag",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
];
/// Fields of a declaration that are translated here or beside; any other is named as left out.
const TRANSLATED: [&str; 51] = [
    "image",
    "command",
    "entrypoint",
    "env",
    "labels",
    "annotations",
    "platform",
    "open_stdin",
    "user",
    "group_add",
    "working_dir",
    "hostname",
    "domainname",
    "init",
    "stop_signal",
    "stop_timeout_secs",
    "health",
    "binds",
    "anonymous_volumes",
    "mounts",
    "tmpfs",
    "volumes_from",
    "volume_driver",
    "storage_options",
    "read_only",
    "published",
    "exposed",
    "publish_all",
    "networks",
    "links",
    "extra_hosts",
    "dns",
    "dns_search",
    "dns_options",
    "resources",
    "shm_size_bytes",
    "sysctls",
    "privileged",
    "cap_add",
    "cap_drop",
    "security_options",
    "system_paths_unconfined",
    "pid",
    "ipc",
    "uts",
    "userns",
    "cgroupns",
    "runtime",
    "isolation",
    "log_driver",
    "log_options",
];

/// One container on its way into the file.
struct Service<'a> {
    decl: &'a ContainerDecl,
    lines: Vec<(&'static str, Value)>,
    left: Vec<String>,
}

/// What of all containers stands beside them.
#[derive(Default)]
struct Shared {
    volumes: BTreeMap<String, Map<String, Value>>,
    networks: BTreeMap<String, Value>,
}

impl Service<'_> {
    /// A key with its value; nothing and what is empty is not written.
    fn put(&mut self, key: &'static str, value: Value) {
        let nothing = match &value {
            Value::Null => true,
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if !nothing {
            self.lines.push((key, value));
        }
    }

    /// Where it is not zero.
    fn put_count(&mut self, key: &'static str, count: i64) {
        if count != 0 {
            self.put(key, json!(count));
        }
    }

    /// Where it is on.
    fn put_flag(&mut self, key: &'static str, on: bool) {
        if on {
            self.put(key, json!(true));
        }
    }

    /// What compose cannot say, as it stands on the line, and why.
    fn leave(&mut self, flag: &str, why: &str) {
        self.left.push(format!("{flag}: {why}"));
    }
}

/// The file, and what is not in it, a line each.
pub(super) fn text(servers: &[&Server], secrets: &[SecretValue]) -> (String, Vec<String>) {
    let (mut services, mut shared, mut left) = (String::new(), Shared::default(), Vec::new());
    for server in servers {
        match &server.kind {
            ServerKind::Container(decl) => {
                let service = service(server, decl, &mut shared);
                write(&mut services, server, &service.lines, secrets);
                left.extend(service.left.into_iter().map(|what| format!("{}: {what}", server.id)));
                if server.replicas > 1 {
                    left.push(format!(
                        "{}: replicas: only the gateway can send to one of several",
                        server.id
                    ));
                }
            }
            ServerKind::Process(_) => left.push(format!("{}: a local process", server.id)),
            ServerKind::Remote(_) => left.push(format!("{}: a server elsewhere", server.id)),
        }
    }
    let mut out = String::new();
    // Text cannot fail to be written.
    for line in &left {
        let _ok = writeln!(out, "# left out, {}", line.replace(char::is_control, " "));
    }
    if services.is_empty() {
        out.push_str("services: {}\n");
        return (out, left);
    }
    let _ok = write!(out, "services:\n{services}");
    let volumes = shared.volumes.into_iter().map(|(name, volume)| (name, Value::Object(volume)));
    for (key, all) in [("volumes", volumes.collect()), ("networks", shared.networks)] {
        if !all.is_empty() {
            let _ok = writeln!(out, "{key}:");
        }
        for (name, value) in all {
            let _ok = writeln!(out, "  {}: {}", json!(name), shown(value, secrets));
        }
    }
    (out, left)
}

fn write(out: &mut String, server: &Server, lines: &[(&str, Value)], secrets: &[SecretValue]) {
    let _ok = writeln!(out, "  {}:", json!(server.id));
    for (key, value) in lines {
        let _ok = writeln!(out, "    {key}: {}", shown(value.clone(), secrets));
    }
}

/// As it may be seen: what is named like a secret goes as well as what is known to be one. A dollar sign is
/// compose's own.
fn shown(value: Value, secrets: &[SecretValue]) -> String {
    redact::value(&without(value, secrets)).to_string().replace('$', "$$")
}

fn service<'a>(server: &Server, decl: &'a ContainerDecl, shared: &mut Shared) -> Service<'a> {
    let mut service = Service { decl, lines: Vec::new(), left: Vec::new() };
    basics(&mut service);
    identity(&mut service);
    storage::put(&mut service, shared);
    network::put(&mut service, shared);
    limits::put(&mut service);
    walls(&mut service);
    health(&mut service);
    log(&mut service);
    let restart = match (server.restart.when, server.restart.attempts_max) {
        (RestartWhen::Always, _) => "unless-stopped".to_owned(),
        (RestartWhen::OnFailure, None) => "on-failure".to_owned(),
        (RestartWhen::OnFailure, Some(most)) => format!("on-failure:{most}"),
        (RestartWhen::Never, _) => "no".to_owned(),
    };
    service.put("restart", json!(restart));
    match server.pull {
        PullPolicy::Missing => {}
        PullPolicy::Always => service.put("pull_policy", json!("always")),
        PullPolicy::Never => service.put("pull_policy", json!("never")),
    }
    let whole = serde_json::to_value(&decl.spec).unwrap_or_default();
    for name in whole.as_object().into_iter().flat_map(Map::keys) {
        if !TRANSLATED.contains(&name.as_str()) {
            service.leave(name, "it is not known here");
        }
    }
    service
}

fn basics(service: &mut Service<'_>) {
    let spec: &ContainerSpec = &service.decl.spec;
    service.put("image", json!(spec.image));
    let command: Vec<&str> = spec.command.iter().map(|argument| argument.expose()).collect();
    service.put("command", json!(command));
    match spec.entrypoint.as_deref() {
        // A list without anything is not written, and takes the image's own away.
        Some("") => service.lines.push(("entrypoint", json!([]))),
        Some(entrypoint) => service.put("entrypoint", json!([entrypoint])),
        None => {}
    }
    service.put("platform", json!(spec.platform));
    let names: Vec<&str> = spec.env.iter().map(|variable| variable.name.as_str()).collect();
    service.put("environment", json!(names));
    service.put("labels", json!(spec.labels));
    service.put("annotations", json!(spec.annotations));
    service.put_flag("stdin_open", service.decl.interactive || spec.open_stdin);
    service.put("init", json!(spec.init));
    service.put("stop_signal", json!(spec.stop_signal));
    match spec.stop_timeout_secs {
        Some(secs @ 0..) => service.put("stop_grace_period", json!(format!("{secs}s"))),
        Some(_) => service.leave("--stop-timeout", "compose does not wait without end"),
        None => {}
    }
}

fn identity(service: &mut Service<'_>) {
    let spec = &service.decl.spec;
    service.put("user", json!(spec.user));
    service.put("group_add", json!(spec.group_add));
    service.put("working_dir", json!(spec.working_dir));
    service.put("hostname", json!(spec.hostname));
    service.put("domainname", json!(spec.domainname));
}

/// What is between a container and its host.
fn walls(service: &mut Service<'_>) {
    let spec = &service.decl.spec;
    service.put_flag("privileged", spec.privileged);
    service.put("cap_add", json!(spec.cap_add));
    service.put("cap_drop", json!(spec.cap_drop));
    let mut options: Vec<String> = spec.security_options.iter().map(option).collect();
    if spec.system_paths_unconfined {
        options.push("systempaths=unconfined".to_owned());
    }
    service.put("security_opt", json!(options));
    service.put("sysctls", json!(spec.sysctls));
    service.put("pid", json!(spec.pid));
    service.put("ipc", json!(spec.ipc));
    service.put("uts", json!(spec.uts));
    service.put("userns_mode", json!(spec.userns));
    service.put("cgroup", json!(spec.cgroupns));
    service.put("runtime", json!(spec.runtime));
    service.put("isolation", json!(spec.isolation));
}

fn option(option: &SecurityOption) -> String {
    match option {
        SecurityOption::SeccompProfile { path, .. } => format!("seccomp={path}"),
        SecurityOption::Plain(text) => text.clone(),
    }
}

fn health(service: &mut Service<'_>) {
    let probe = match &service.decl.spec.health {
        None => return,
        Some(HealthCheck::Disabled) => return service.put("healthcheck", json!({ "disable": true })),
        Some(HealthCheck::Probe(probe)) => probe,
    };
    let HealthProbe {
        command,
        interval_nanos,
        timeout_nanos,
        start_period_nanos,
        start_interval_nanos,
        retries,
    } = probe;
    let mut check = Map::new();
    if let Some(command) = command {
        check.insert("test".to_owned(), json!(["CMD-SHELL", command.expose()]));
    }
    for (key, nanos) in [
        ("interval", interval_nanos),
        ("timeout", timeout_nanos),
        ("start_period", start_period_nanos),
        ("start_interval", start_interval_nanos),
    ] {
        if *nanos > 0 {
            check.insert(key.to_owned(), json!(limits::micros(nanos / 1000)));
        }
    }
    if *retries > 0 {
        check.insert("retries".to_owned(), json!(retries));
    }
    service.put("healthcheck", Value::Object(check));
}

fn log(service: &mut Service<'_>) {
    let spec = &service.decl.spec;
    let (mut logging, mut options) = (Map::new(), Map::new());
    if let Some(driver) = &spec.log_driver {
        logging.insert("driver".to_owned(), json!(driver));
    }
    for (name, value) in &spec.log_options {
        if LOG_OPTIONS.contains(&name.as_str()) {
            options.insert(name.clone(), json!(value.expose()));
        } else {
            service.leave(&format!("--log-opt {name}"), "it may hold a secret");
        }
    }
    if !options.is_empty() {
        logging.insert("options".to_owned(), Value::Object(options));
    }
    service.put("logging", Value::Object(logging));
}

/// A value in which what is secret is a name to be filled in. It is looked for before it is written: there a
/// quotation mark, a backslash or a dollar sign in it would be another.
fn without(value: Value, secrets: &[SecretValue]) -> Value {
    match value {
        Value::String(text) => Value::String(
            secrets.iter().fold(text, |text, secret| text.replace(secret.value.expose(), "REDACTED")),
        ),
        Value::Array(items) => items.into_iter().map(|item| without(item, secrets)).collect(),
        Value::Object(all) => all.into_iter().map(|(key, value)| (key, without(value, secrets))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
