//! A compose file with the containers of the file: image, arguments, variables, volumes, ports and
//! limits.
//!
//! Variables are named and not shown: compose reads them from its own environment or `.env`.
//! Must never show a value that may be a secret.

use crate::config::load::SecretValue;
use crate::config::redact;
use crate::model::container::{ContainerSpec, HostPorts};
use crate::model::server::{ContainerDecl, Server, ServerKind};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The file.
pub(super) fn text(servers: &[&Server], secrets: &[SecretValue]) -> String {
    let (mut services, mut volumes, mut left) = (String::new(), Vec::new(), Vec::new());
    for server in servers {
        match &server.kind {
            ServerKind::Container(decl) => service(&mut services, server, decl, (secrets, &mut volumes)),
            ServerKind::Process(_) => left.push(format!("{}: a local process", server.id)),
            ServerKind::Remote(_) => left.push(format!("{}: a server elsewhere", server.id)),
        }
    }
    let mut out = String::new();
    for line in left {
        let _ok = writeln!(out, "# left out, {line}");
    }
    if services.is_empty() {
        out.push_str("services: {}\n");
        return out;
    }
    let _ok = write!(out, "services:\n{services}");
    volumes.sort();
    volumes.dedup();
    if !volumes.is_empty() {
        out.push_str("volumes:\n");
        for volume in volumes {
            let _ok = writeln!(out, "  {}: {{}}", json!(volume));
        }
    }
    out
}

fn service(
    out: &mut String,
    server: &Server,
    decl: &ContainerDecl,
    (secrets, volumes): (&[SecretValue], &mut Vec<String>),
) {
    let spec = &decl.spec;
    // Text cannot fail to be written.
    let _ok = writeln!(out, "  {}:", json!(server.id));
    let mut line = |key: &str, value: Value| {
        // What is named like a secret goes as well as what is known to be one. A dollar sign is compose's own.
        let shown = redact::value(&without(value, secrets));
        let _ok = writeln!(out, "    {key}: {}", shown.to_string().replace('$', "$$"));
    };
    line("image", json!(spec.image));
    let command: Vec<&str> = spec.command.iter().map(|argument| argument.expose()).collect();
    if !command.is_empty() {
        line("command", json!(command));
    }
    for (key, text) in
        [("entrypoint", &spec.entrypoint), ("user", &spec.user), ("working_dir", &spec.working_dir)]
    {
        if let Some(text) = text {
            line(key, json!(text));
        }
    }
    let names: Vec<&str> = spec.env.iter().map(|variable| variable.name.as_str()).collect();
    if !names.is_empty() {
        line("environment", json!(names));
    }
    let mut binds = Vec::new();
    for bind in &spec.binds {
        if !bind.is_host_path() {
            volumes.push(bind.source.clone());
        }
        let options = bind.options.as_ref().map_or_else(String::new, |options| format!(":{options}"));
        binds.push(format!("{}:{}{options}", bind.source, bind.target));
    }
    let lists = [
        ("volumes", binds),
        ("ports", ports(decl, spec)),
        ("cap_add", spec.cap_add.clone()),
        ("cap_drop", spec.cap_drop.clone()),
        ("extra_hosts", spec.extra_hosts.clone()),
    ];
    for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        line(key, json!(list));
    }
    let flags = [
        ("stdin_open", decl.interactive),
        ("init", spec.init == Some(true)),
        ("read_only", spec.read_only),
        ("privileged", spec.privileged),
    ];
    for (key, _) in flags.iter().filter(|(_, on)| *on) {
        line(key, json!(true));
    }
    for (key, limit) in
        [("mem_limit", spec.resources.memory_bytes), ("pids_limit", spec.resources.pids_limit)]
    {
        if limit > 0 {
            line(key, json!(limit));
        }
    }
    line("restart", json!("unless-stopped"));
}

fn ports(decl: &ContainerDecl, spec: &ContainerSpec) -> Vec<String> {
    let published = spec.published.iter().map(|port| {
        let ip = port.host_ip.as_ref().map_or_else(String::new, |ip| format!("{ip}:"));
        match port.host {
            HostPorts::One(host) if host > 0 => format!("{ip}{host}:{}", port.container),
            _ => port.container.to_string(),
        }
    });
    let mcp = decl.mcp_port.iter().map(|port| match port.host_port {
        Some(host) => format!("{host}:{}", port.container_port),
        None => port.container_port.to_string(),
    });
    published.chain(mcp).collect()
}

/// A value in which what is secret is a name to be filled in. It is looked for before it is written: there a
/// quotation mark, a backslash or a dollar sign in it would be another.
fn without(value: Value, secrets: &[SecretValue]) -> Value {
    match value {
        Value::String(text) => Value::String(
            secrets.iter().fold(text, |text, secret| text.replace(secret.value.expose(), "REDACTED")),
        ),
        Value::Array(items) => items.into_iter().map(|item| without(item, secrets)).collect(),
        other => other,
    }
}
