//! A container from an entry with a `docker run` line.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::config::build::fingerprint::fingerprint;
use crate::config::build::ports::{args_at, fixed_ports};
use crate::config::build::{Builder, Env, Kind, Work, defaults, restart_policy, transport_wish};
use crate::config::codes;
use crate::config::docker_run::{self, RunContext, RunLine};
use crate::config::load::Origin;
use crate::config::node::Node;
use crate::config::vars::absolute;
use crate::model::container::{
    self, ContainerSpec, EnvVar, MountKind, Opaque, PullPolicy as LinePull, RestartPolicy as LineRestart,
};
use crate::model::server::{
    ContainerDecl, McpPort, PullPolicy, RestartPolicy, RestartWhen, ServerKind, Transport, TransportWish,
};

/// The word of `allow` for two instances on one writable mount.
const SHARED_WRITES: &str = "sharedWrites";

impl Builder<'_, '_> {
    /// The container that the entry's line declares.
    pub(super) fn container(&mut self, work: &mut Work<'_>) -> Option<Kind> {
        let args = self.args(work);
        let (inherited, own) = self.env(work);
        let args = args?;
        let line = self.line(work, &args, &own)?;
        let RunLine { mut spec, interactive, name: _, remove, restart, pull } = line;
        for variable in &spec.env {
            let key = format!("env.{}", variable.name);
            if !own.contains_key(&variable.name) {
                work.effect(&key, "[redacted]", Origin::RunLine);
            }
            if let Some(value) = &variable.value {
                work.keep_literal(&format!("env {}", variable.name), &variable.name, value.expose());
            }
        }
        merge_env(&mut spec, &inherited, &own);
        let is_stdio = match transport_wish(work) {
            TransportWish::Auto => interactive,
            TransportWish::Is(transport) => transport == Transport::Stdio,
        };
        if is_stdio && !interactive {
            spec.open_stdin = true;
            work.notes.push("stdin is kept open because the transport is stdio".to_owned());
        }
        let containers = &self.input.settings.containers;
        let twice = defaults::apply(work, &mut spec, containers, is_stdio);
        for key in twice {
            if let Some(value) = work.merged.get(key) {
                let message = format!("'{key}' is said by the docker line, too; the line holds");
                self.sink.warning(codes::SAID_TWICE, value.node.at, message);
            }
        }
        let restart = restart.map(|restart| self.line_restart(work, restart));
        let at = args_at(work.entry);
        let mcp_port = self.mcp_port(work, &mut spec, interactive, at);
        self.check_dangers(work, &spec);
        let pull = pull_policy(work, pull, containers.pull);
        let fixed_ports = fixed_ports(&spec, mcp_port.as_ref());
        let fingerprint = {
            let (whole, blanked) = texts(work, &spec, mcp_port.as_ref(), remove);
            fingerprint(self.input.key, &whole, blanked, &work.resolved)
        };
        Some(Kind {
            kind: ServerKind::Container(Box::new(ContainerDecl {
                spec,
                interactive,
                mcp_port,
                remove_volumes: remove,
                fingerprint,
            })),
            restart,
            pull,
            fixed_ports,
        })
    }

    /// The line parsed; `None` after an error. `-e NAME` takes the entry's `env` before the
    /// service's environment, as the client would that was started with it.
    fn line(&mut self, work: &Work<'_>, args: &[String], own: &Env) -> Option<RunLine> {
        let mut env = self.input.env.clone();
        for (name, value) in own {
            match value {
                Some(value) => env.insert(name.clone(), value.clone()),
                None => env.remove(name),
            };
        }
        let mut files = BTreeMap::new();
        let mut unreadable = false;
        for path in docker_run::files_needed(args) {
            match self.input.files.get(&absolute(&path, self.lookup.base_dir)) {
                Some(Ok(content)) => {
                    files.insert(path, content.clone());
                }
                Some(Err(why)) => {
                    let at = arg_at(work.entry, args.iter().position(|arg| arg.contains(&path)));
                    let message = format!("file '{path}' cannot be read: {why}");
                    self.sink.error(codes::SECRET_UNAVAILABLE, at, message);
                    unreadable = true;
                }
                None => {}
            }
        }
        if unreadable {
            return None;
        }
        let prefix = &self.input.settings.service.name_prefix;
        let own_name = work.id.map(|id| format!("{prefix}{id}"));
        let context = RunContext {
            env: &env,
            files: &files,
            base_dir: self.lookup.base_dir,
            own_name: own_name.as_deref(),
        };
        match docker_run::parse(args, &context) {
            Ok(line) => Some(line),
            Err(problems) => {
                for problem in problems {
                    let at = arg_at(work.entry, Some(problem.arg));
                    self.sink.error(codes::RUN_LINE, at, problem.message);
                    if let Some(hint) = problem.hint {
                        self.sink.hint(hint);
                    }
                }
                None
            }
        }
    }

    /// `--restart` says what this program does; a word of the orchestrator block beside it is one
    /// too many.
    fn line_restart(&mut self, work: &mut Work<'_>, line: LineRestart) -> RestartPolicy {
        if let Some(value) = work.merged.get("restart.policy")
            && value.origin == Origin::Server
        {
            let message = "'restart.policy' is said by --restart, too; the line holds";
            self.sink.warning(codes::SAID_TWICE, value.node.at, message);
        }
        work.effect("restart.policy", line.to_string(), Origin::RunLine);
        let base = restart_policy(work.merged, &self.input.settings.recovery.policy);
        let (when, attempts_max) = match line {
            LineRestart::No => (RestartWhen::Never, base.attempts_max),
            LineRestart::OnFailure { max_retries: 0 } => (RestartWhen::OnFailure, base.attempts_max),
            LineRestart::OnFailure { max_retries } => (RestartWhen::OnFailure, Some(max_retries)),
            LineRestart::Always | LineRestart::UnlessStopped => (RestartWhen::Always, base.attempts_max),
        };
        RestartPolicy { when, attempts_max, ..base }
    }

    fn check_dangers(&mut self, work: &Work<'_>, spec: &ContainerSpec) {
        let allowed = work.merged.words("allow").unwrap_or_default();
        let mut complain = |word: &str, at: usize, message: String| {
            if !allowed.iter().any(|allowed| allowed == word) {
                self.sink.error(codes::NOT_ALLOWED, at, message);
                self.sink
                    .hint(format!("if that is meant, add \"orchestrator\": {{\"allow\": [\"{word}\"]}}"));
            }
        };
        for danger in container::dangers(spec) {
            let at = place_of_ask(work.entry, danger.asked_by());
            complain(danger.allow_name(), at, danger.to_string());
        }
        let replicas: u32 = work.merged.number("replicas").unwrap_or(1);
        let isolated = work.merged.text("sharing").as_deref() == Some("isolated");
        if (replicas > 1 || isolated)
            && let Some(target) = writable_mount(spec)
        {
            let message = format!("several instances would write to one mount at '{target}'");
            complain(SHARED_WRITES, args_at(work.entry), message);
        }
    }
}

/// Where argument `index` of `entry` stands; where the arguments do when there is no such one.
fn arg_at(entry: &Node, index: Option<usize>) -> usize {
    let items = entry.get("args").map(Node::items).unwrap_or_default();
    index.and_then(|index| items.get(index).or(items.last())).map_or_else(|| args_at(entry), |item| item.at)
}

/// Where what asked for something dangerous stands: the last argument that is part of the text.
fn place_of_ask(entry: &Node, asked_by: &str) -> usize {
    let items = entry.get("args").map(Node::items).unwrap_or_default();
    let index = items.iter().rposition(|item| {
        item.as_text().is_some_and(|arg| arg.len() > 1 && (asked_by.contains(arg) || arg.contains(asked_by)))
    });
    arg_at(entry, index.or(Some(usize::MAX)).filter(|_| index.is_some()))
}

/// The target of the first mount that two instances would write to.
fn writable_mount(spec: &ContainerSpec) -> Option<&str> {
    let bind = spec.binds.iter().find(|bind| !bind.is_read_only());
    let mount = spec.mounts.iter().find(|mount| {
        matches!(mount.kind, MountKind::Bind | MountKind::Volume)
            && mount.source.is_some()
            && !mount.read_only
    });
    bind.map(|bind| bind.target.as_str()).or_else(|| mount.map(|mount| mount.target.as_str()))
}

/// Lays the inherited environment under the line's, the entry's own over it.
fn merge_env(spec: &mut ContainerSpec, inherited: &Env, own: &Env) {
    for (name, value) in inherited {
        if !spec.env.iter().any(|known| known.name == *name) {
            spec.env.push(variable(name, value.as_ref()));
        }
    }
    for (name, value) in own {
        let new = variable(name, value.as_ref());
        match spec.env.iter_mut().find(|known| known.name == *name) {
            Some(known) => *known = new,
            None => spec.env.push(new),
        }
    }
}

fn variable(name: &str, value: Option<&String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: value.map(|value| Opaque::new(value.clone())) }
}

/// `--pull`, else the inherited word, else the setting.
fn pull_policy(work: &mut Work<'_>, line: Option<LinePull>, setting: PullPolicy) -> PullPolicy {
    if let Some(line) = line {
        work.effect("pull", line.to_string(), Origin::RunLine);
        return match line {
            LinePull::Missing => PullPolicy::Missing,
            LinePull::Always => PullPolicy::Always,
            LinePull::Never => PullPolicy::Never,
        };
    }
    match work.merged.text("pull").as_deref() {
        Some("always") => PullPolicy::Always,
        Some("never") => PullPolicy::Never,
        Some(_) => PullPolicy::Missing,
        None => {
            let word = match setting {
                PullPolicy::Missing => "missing",
                PullPolicy::Always => "always",
                PullPolicy::Never => "never",
            };
            work.effect("pull", word, Origin::Settings);
            setting
        }
    }
}

/// The whole declaration, and the same without environment values.
fn texts(work: &Work<'_>, spec: &ContainerSpec, mcp_port: Option<&McpPort>, remove: bool) -> (Json, Json) {
    let transport = match transport_wish(work) {
        TransportWish::Auto => "auto",
        TransportWish::Is(transport) => transport.as_str(),
    };
    let port = mcp_port.map(|port| {
        json!({
            "containerPort": port.container_port,
            "hostPort": port.host_port,
            "hostIp": port.host_ip,
        })
    });
    let text = |spec: &ContainerSpec| {
        // Everything in a spec has a JSON form.
        let spec = serde_json::to_value(spec).unwrap_or(Json::Null);
        json!({"spec": spec, "mcpPort": port, "transport": transport, "remove": remove})
    };
    let mut blanked = spec.clone();
    blanked.env.sort_by(|a, b| a.name.cmp(&b.name));
    let mut whole = blanked.clone();
    whole.env.sort_by(|a, b| a.name.cmp(&b.name));
    for variable in &mut blanked.env {
        variable.value = None;
    }
    (text(&whole), text(&blanked))
}
