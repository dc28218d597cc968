//! The panel document (`configSchemaVersion`, `globalDefaults`, `sections[].servers[]`) in our
//! names.
//!
//! A server's `runtimeDefinition` becomes the docker line it stands for, so that one parser gives
//! both their meaning.

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Member, Node, Value};
use crate::config::raw::{Raw, RawSection, RawServer};
use crate::config::snake::put_inner;

/// Image that runs `npx_command` servers when the document names none.
pub(crate) const NODE_IMAGE: &str = "node:22-alpine";

/// Keys of a section or server that hold settings.
const SETTINGS: &[&str] = &["environmentVars", "resourceLimits", "runtimeOptions", "securityContext"];
/// Keys under which a section may keep its settings.
const NESTED: &[&str] = &["settings", "defaults", "sectionDefaults", "overrides"];

/// Reads the document; `None` when its shape cannot be used.
pub(crate) fn read(root: &Node, sink: &mut Sink<'_>) -> Option<Raw> {
    let mut raw = Raw::default();
    if let Some(global) = root.get("globalDefaults") {
        raw.global = Some(settings(global, sink));
    }
    let Some(sections) = root.get("sections") else {
        if root.get("mcpServers").is_some() {
            let at = root.at;
            sink.error(codes::FILE_SHAPE, at, "a panel document has 'sections', not 'mcpServers'");
            sink.hint("remove 'configSchemaVersion', or put the servers into sections");
            return None;
        }
        return Some(raw);
    };
    let Value::List(sections) = &sections.value else {
        let message = format!("'sections' is {}, not a list", sections.kind());
        sink.error(codes::FILE_SHAPE, sections.at, message);
        return None;
    };
    for section in sections {
        read_section(section, &mut raw, sink);
    }
    Some(raw)
}

fn first<'n>(node: &'n Node, names: &[&str]) -> Option<&'n Node> {
    names.iter().find_map(|name| node.get(name))
}

fn read_section(section: &Node, raw: &mut Raw, sink: &mut Sink<'_>) {
    let name = first(section, &["id", "sectionId", "name"]);
    let text = name.and_then(Node::as_text).unwrap_or_default().to_owned();
    let at = name.map_or(section.at, |name| name.at);
    let mut block = settings(section, sink);
    for nested in NESTED.iter().filter_map(|name| section.get(name)) {
        if let Value::Object(members) = &mut block.value {
            members.extend(settings(nested, sink).members().iter().cloned());
        }
    }
    raw.sections.push(RawSection { name: text.clone(), at, settings: block });
    for server in section.get("servers").map(Node::items).unwrap_or_default() {
        let name = first(server, &["name", "serverName", "id", "serverId"]);
        let mark = sink.mark();
        let entry = entry(server, sink);
        raw.servers.push(RawServer {
            name: name.and_then(Node::as_text).unwrap_or_default().to_owned(),
            name_at: name.map_or(server.at, |name| name.at),
            section: Some(text.clone()),
            entry,
            said: (mark, sink.mark()),
        });
    }
}

/// The settings in `node` as an orchestrator block; `orchestrator` keys themselves pass.
fn settings(node: &Node, sink: &mut Sink<'_>) -> Node {
    let mut block: Vec<Member> = Vec::new();
    for member in node.members() {
        let value = &member.value;
        match member.key.as_str() {
            "environmentVars" => block.push(Member::new("env", member.key_at, pairs(value))),
            "resourceLimits" => limits(value, &mut block, sink),
            "runtimeOptions" => runtime_options(value, &mut block, sink),
            "securityContext" => security(value, &mut block, sink),
            "orchestrator" => block.extend(value.members().iter().cloned()),
            _ => {}
        }
    }
    Node::object(node.at, block)
}

/// `{A: b}` or `[{name: A, value: b}]` as an object.
fn pairs(node: &Node) -> Node {
    let Value::List(items) = &node.value else {
        return node.clone();
    };
    let members = items.iter().filter_map(|item| {
        let name = first(item, &["name", "key"])?;
        let value = item.get("value")?;
        Some(Member::new(name.as_text()?, name.at, value.clone()))
    });
    Node::object(node.at, members.collect())
}

fn renamed(member: &Member, name: &str) -> Member {
    Member::new(name, member.key_at, member.value.clone())
}

fn unsupported(block: &str, member: &Member, sink: &mut Sink<'_>) {
    let message = format!("'{}' in {block} is not supported and has no effect", member.key);
    sink.warning(codes::OTHER_FORMAT, member.key_at, message);
}

fn limits(node: &Node, block: &mut Vec<Member>, sink: &mut Sink<'_>) {
    for member in node.members() {
        let name = match member.key.as_str() {
            "memory" | "memoryLimit" | "mem" => "memory",
            "cpu" | "cpus" | "cpuLimit" => "cpus",
            "pids" | "pidsLimit" => "pids",
            _ => {
                unsupported("resourceLimits", member, sink);
                continue;
            }
        };
        put_inner(block, "limits", renamed(member, name));
    }
}

fn runtime_options(node: &Node, block: &mut Vec<Member>, sink: &mut Sink<'_>) {
    for member in node.members() {
        match member.key.as_str() {
            "restartPolicy" | "restart" => restart(member, block),
            "healthCheck" | "health" => health(&member.value, block, sink),
            "pullPolicy" | "imagePullPolicy" | "pull" => {
                let word = member.value.as_text().unwrap_or_default().to_lowercase();
                let word = match word.as_str() {
                    "ifnotpresent" | "if-not-present" => "missing",
                    other => other,
                };
                let node = Node::text_at(member.value.at, word);
                block.push(Member::new("pull", member.key_at, node));
            }
            "network" | "networkMode" => block.push(renamed(member, "network")),
            "init" => block.push(renamed(member, "init")),
            "priority" => block.push(renamed(member, "priority")),
            "transport" => block.push(renamed(member, "transport")),
            _ => unsupported("runtimeOptions", member, sink),
        }
    }
}

fn restart(member: &Member, block: &mut Vec<Member>) {
    let Value::Object(members) = &member.value.value else {
        put_inner(block, "restart", renamed(member, "policy"));
        return;
    };
    for inner in members {
        let name = match inner.key.as_str() {
            "name" | "policy" | "type" => "policy",
            "maximumRetryCount" | "maxRetries" | "maxAttempts" => "maxAttempts",
            "delay" | "delaySeconds" => "delay",
            other => other,
        };
        put_inner(block, "restart", renamed(inner, name));
    }
}

fn health(node: &Node, block: &mut Vec<Member>, sink: &mut Sink<'_>) {
    for member in node.members() {
        let name = match member.key.as_str() {
            "path" | "endpoint" => "path",
            "interval" | "intervalSeconds" => "interval",
            "timeout" | "timeoutSeconds" => "timeout",
            "retries" | "failureThreshold" => "failureThreshold",
            "recoveryThreshold" => "recoveryThreshold",
            "startPeriod" | "startPeriodSeconds" => "startPeriod",
            _ => {
                unsupported("healthCheck", member, sink);
                continue;
            }
        };
        put_inner(block, "health", renamed(member, name));
    }
}

fn security(node: &Node, block: &mut Vec<Member>, sink: &mut Sink<'_>) {
    for member in node.members() {
        match member.key.as_str() {
            "user" | "runAsUser" => {
                let text = member.value.scalar().unwrap_or_default();
                let node = Node::text_at(member.value.at, text);
                block.push(Member::new("user", member.key_at, node));
            }
            "capAdd" => block.push(renamed(member, "capAdd")),
            "capDrop" => block.push(renamed(member, "capDrop")),
            "capabilities" => {
                for inner in member.value.members() {
                    match inner.key.as_str() {
                        "add" => block.push(renamed(inner, "capAdd")),
                        "drop" => block.push(renamed(inner, "capDrop")),
                        _ => unsupported("capabilities", inner, sink),
                    }
                }
            }
            "readOnly" | "readOnlyRootFilesystem" | "readOnlyRootFs" => {
                block.push(renamed(member, "readOnly"));
            }
            "noNewPrivileges" => block.push(renamed(member, "noNewPrivileges")),
            "allowPrivilegeEscalation" => {
                let forbids = member.value.as_bool() == Some(false);
                let node = Node { at: member.value.at, value: Value::Bool(forbids) };
                block.push(Member::new("noNewPrivileges", member.key_at, node));
            }
            "privileged" if member.value.as_bool() == Some(false) => {}
            _ => unsupported("securityContext", member, sink),
        }
    }
}

/// A panel server as an entry.
fn entry(server: &Node, sink: &mut Sink<'_>) -> Node {
    if !server.is_object() {
        return server.clone();
    }
    let mut out: Vec<Member> = Vec::new();
    let mut block = settings(server, sink).members().to_vec();
    let mut env = None;
    block.retain(|member| {
        if member.key == "env" {
            env = Some(member.clone());
        }
        member.key != "env"
    });
    out.extend(env);
    for member in server.members() {
        match member.key.as_str() {
            name if SETTINGS.contains(&name) => {}
            "orchestrator" | "runtimeDefinition" | "ports" | "volumes" => {}
            "name" | "serverName" | "id" | "serverId" => {}
            "transport" => block.push(member.clone()),
            _ => out.push(member.clone()),
        }
    }
    let ports = ports(server, &mut block);
    if let Some(runtime) = server.get("runtimeDefinition") {
        let stdio = ports.is_empty() && !block.iter().any(|member| member.key == "containerPort");
        run_line(runtime, before_image(server, runtime, &ports, stdio), &mut out, sink);
    }
    if !block.is_empty() {
        out.push(Member::new("orchestrator", server.at, Node::object(server.at, block)));
    }
    Node::object(server.at, out)
}

/// `-p` arguments of `ports`; the first port becomes `containerPort`.
fn ports(server: &Node, block: &mut Vec<Member>) -> Vec<Node> {
    let Some(node) = server.get("ports") else {
        return Vec::new();
    };
    let list = node.as_list().unwrap_or(std::slice::from_ref(node));
    let mut args = Vec::new();
    for item in list {
        let (container, host) = match item.scalar() {
            Some(text) => match text.rsplit_once(':') {
                Some((host, container)) => (container.to_owned(), Some(host.to_owned())),
                None => (text, None),
            },
            None => {
                let port = |names: &[&str]| first(item, names).and_then(Node::scalar);
                let container = port(&["containerPort", "container", "target"]);
                let host = port(&["hostPort", "host", "published"]);
                (container.unwrap_or_default(), host)
            }
        };
        if !block.iter().any(|member| member.key == "containerPort") {
            let number = container.split('/').next().unwrap_or_default().to_owned();
            let value = Node { at: item.at, value: Value::Number(number) };
            block.push(Member::new("containerPort", item.at, value));
        }
        let publish = match host {
            Some(host) => format!("{host}:{container}"),
            None => container,
        };
        args.push(Node::text_at(item.at, "-p"));
        args.push(Node::text_at(item.at, publish));
    }
    args
}

/// The docker line that `runtime` stands for, with the arguments `before` the image.
fn run_line(runtime: &Node, before: Vec<Node>, out: &mut Vec<Member>, sink: &mut Sink<'_>) {
    let kind = runtime.get("type");
    let mut args = before;
    match kind.and_then(Node::as_text) {
        Some("docker_image") => {
            args.extend(first(runtime, &["image", "dockerImage", "imageName"]).cloned());
            args.extend(words(runtime.get("command")));
        }
        Some("npx_command") => {
            let image = first(runtime, &["image", "nodeImage"]).cloned();
            args.push(image.unwrap_or_else(|| Node::text_at(runtime.at, NODE_IMAGE)));
            args.extend(npx_words(runtime));
        }
        other => {
            let node = kind.unwrap_or(runtime);
            let message = match other {
                Some(_) => "'type' in runtimeDefinition takes docker_image or npx_command",
                None => "'runtimeDefinition' has no 'type'",
            };
            sink.error(codes::INVALID_VALUE, node.at, message);
            return;
        }
    }
    args.extend(words(runtime.get("args")));
    let list = Node { at: runtime.at, value: Value::List(args) };
    out.push(Member::new("command", runtime.at, Node::text_at(runtime.at, "docker")));
    out.push(Member::new("args", runtime.at, list));
}

/// The arguments before the image: how it is reached, and its volumes.
fn before_image(server: &Node, runtime: &Node, ports: &[Node], stdio: bool) -> Vec<Node> {
    let mut args = vec![Node::text_at(runtime.at, "run")];
    if stdio {
        args.push(Node::text_at(runtime.at, "-i"));
    }
    args.extend(ports.iter().cloned());
    for volume in server.get("volumes").map(Node::items).unwrap_or_default() {
        args.push(Node::text_at(volume.at, "-v"));
        args.push(Node::text_at(volume.at, volume_text(volume)));
    }
    args
}

/// A list as it is, a string as the words in it.
fn words(node: Option<&Node>) -> Vec<Node> {
    let Some(node) = node else {
        return Vec::new();
    };
    match node.as_text() {
        Some(line) => line.split_whitespace().map(|word| Node::text_at(node.at, word)).collect(),
        None => node.items().to_vec(),
    }
}

/// `npx -y PACKAGE …` of a package, a command line or a list.
fn npx_words(runtime: &Node) -> Vec<Node> {
    let Some(node) = first(runtime, &["package", "packageName", "command", "npxCommand"]) else {
        return vec![Node::text_at(runtime.at, "npx")];
    };
    let mut words = words(Some(node));
    if words.first().and_then(Node::as_text) != Some("npx") {
        words.insert(0, Node::text_at(node.at, "npx"));
    }
    let asks = |word: &Node| matches!(word.as_text(), Some("-y" | "--yes"));
    if !words.iter().any(asks) {
        words.insert(1, Node::text_at(node.at, "-y"));
    }
    words
}

fn volume_text(volume: &Node) -> String {
    if let Some(text) = volume.as_text() {
        return text.to_owned();
    }
    let part = |names: &[&str]| first(volume, names).and_then(Node::scalar).unwrap_or_default();
    let source = part(&["hostPath", "source", "name"]);
    let target = part(&["containerPath", "target", "mountPath"]);
    let read_only = first(volume, &["readOnly", "ro"]).and_then(Node::as_bool) == Some(true);
    let options = if read_only { ":ro" } else { "" };
    format!("{source}:{target}{options}")
}
