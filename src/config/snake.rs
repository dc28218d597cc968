//! Names of `mcp-config.yaml` to ours. Names that are not in the table pass unchanged.

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Member, Node, Value};

/// Where a translated value goes.
#[derive(Clone, Copy)]
enum To {
    /// To this key of the entry.
    Entry(&'static str),
    /// To this key of the orchestrator block.
    Block(&'static str),
    /// To a key of a block inside the orchestrator block.
    Inner(&'static str, &'static str),
}

const NAMES: &[(&str, To)] = &[
    ("connection_type", To::Entry("type")),
    ("working_directory", To::Entry("cwd")),
    ("environment", To::Entry("env")),
    ("env_file", To::Entry("envFile")),
    ("request_timeout", To::Entry("timeout")),
    ("startup_timeout", To::Inner("health", "startPeriod")),
    ("health_check_path", To::Inner("health", "path")),
    ("health_check_interval", To::Inner("health", "interval")),
    ("health_check_timeout", To::Inner("health", "timeout")),
    ("failure_threshold", To::Inner("health", "failureThreshold")),
    ("recovery_threshold", To::Inner("health", "recoveryThreshold")),
    ("restart_delay", To::Inner("restart", "delay")),
    ("max_restart_attempts", To::Inner("restart", "maxAttempts")),
    ("max_retries", To::Inner("retry", "maxRetries")),
    ("retry_delay", To::Inner("retry", "delay")),
    ("max_concurrent_requests", To::Block("maxConcurrentRequests")),
    ("request_rate_limit", To::Block("rateLimit")),
    ("priority", To::Block("priority")),
    ("section", To::Block("section")),
];

/// Keys of a block, and the settings that say the same.
type Keys = &'static [(&'static str, &'static str)];

/// Blocks at the top of such a file, the section of settings.conf that is about the same, and which
/// key there says what a key of the block does. The names are those that are in use; a name that ends
/// with one of them counts as well.
const BLOCKS: &[(&str, &str, Keys)] = &[
    (
        "discovery",
        "discovery",
        &[("enabled", "enabled"), ("paths", "paths"), ("interval", "interval_seconds")],
    ),
    (
        "health_monitoring",
        "health",
        &[
            ("interval", "interval_seconds"),
            ("startup_timeout", "start_period_seconds"),
            ("timeout", "timeout_seconds"),
            ("failure_threshold", "failure_threshold"),
            ("recovery_threshold", "recovery_threshold"),
            ("concurrent_checks", "max_parallel_probes"),
        ],
    ),
    (
        "recovery",
        "recovery",
        &[
            ("max_delay", "delay_max_seconds"),
            ("delay", "delay_seconds"),
            ("attempts", "max_attempts"),
            ("reset_after", "reset_after_seconds"),
        ],
    ),
    (
        "performance",
        "service",
        &[("workers", "max_parallel_operations"), ("operations", "max_parallel_operations")],
    ),
    ("storage", "storage", &[("retention_days", "audit_days"), ("backups", "config_backups")]),
    (
        "api",
        "dashboard",
        &[("host", "host"), ("port", "port"), ("username", "username"), ("password", "password")],
    ),
    ("logging", "logging", &[("level", "level"), ("format", "format")]),
];

/// Names every setting in top-level blocks, none of which is read from this file: with the setting
/// that says the same, or as one that there is none for.
pub(crate) fn report_blocks(root: &Node, sink: &mut Sink<'_>) {
    for member in root.members() {
        let Some((name, section, keys)) = BLOCKS.iter().find(|(name, ..)| *name == member.key) else {
            continue;
        };
        let settings = member.value.members();
        if settings.is_empty() {
            let message = format!("block '{name}' is not read from this file");
            sink.warning(codes::OTHER_FORMAT, member.key_at, message);
            sink.hint(format!("set [{section}] in settings.conf"));
        }
        for setting in settings {
            let known = keys.iter().find(|(key, _)| setting.key.ends_with(key));
            let message = match known {
                Some(_) => format!("'{name}.{}' is not read from this file", setting.key),
                None => format!("'{name}.{}' is not supported", setting.key),
            };
            sink.warning(codes::OTHER_FORMAT, setting.key_at, message);
            sink.hint(match known {
                Some((_, ours)) => format!("set {ours} in [{section}] of settings.conf"),
                None => format!("the settings there are of this kind stand in [{section}] of settings.conf"),
            });
        }
    }
}

/// `entry` in our names.
pub(crate) fn translate(entry: &Node, sink: &mut Sink<'_>) -> Node {
    if !entry.is_object() {
        return entry.clone();
    }
    let mut out: Vec<Member> = Vec::new();
    let mut block: Vec<Member> = Vec::new();
    for member in entry.members() {
        let known = NAMES.iter().find(|(name, _)| *name == member.key);
        match (known.map(|(_, to)| *to), member.key.as_str()) {
            (Some(To::Entry(name)), _) => out.push(renamed(member, name)),
            (Some(To::Block(name)), _) => block.push(renamed(member, name)),
            (Some(To::Inner(outer, inner)), _) => {
                put_inner(&mut block, outer, renamed(member, inner));
            }
            (None, "auto_restart") => put_inner(&mut block, "restart", auto_restart(member)),
            (None, "orchestrator") => block.extend(member.value.members().iter().cloned()),
            (None, "command") => split_command(member, &mut out),
            (None, "health_check_enabled") => {
                sink.warning(
                    codes::OTHER_FORMAT,
                    member.key_at,
                    "'health_check_enabled' is not supported; servers are always checked",
                );
            }
            (None, _) => out.push(member.clone()),
        }
    }
    if !block.is_empty() {
        let at = block.first().map_or(entry.at, |member| member.key_at);
        out.push(Member::new("orchestrator", at, Node::object(at, block)));
    }
    Node::object(entry.at, out)
}

fn renamed(member: &Member, name: &str) -> Member {
    Member::new(name, member.key_at, member.value.clone())
}

/// Adds `member` to the object `outer` of `block`.
pub(crate) fn put_inner(block: &mut Vec<Member>, outer: &str, member: Member) {
    if let Some(found) = block.iter_mut().find(|found| found.key == outer) {
        if let Value::Object(members) = &mut found.value.value {
            members.push(member);
        }
        return;
    }
    let at = member.key_at;
    block.push(Member::new(outer, at, Node::object(at, vec![member])));
}

fn auto_restart(member: &Member) -> Member {
    let value = match member.value.as_bool() {
        Some(true) => Node::text_at(member.value.at, "always"),
        Some(false) => Node::text_at(member.value.at, "never"),
        None => member.value.clone(),
    };
    Member::new("policy", member.key_at, value)
}

/// `command: [python, -m, x]` is command and arguments in one.
fn split_command(member: &Member, out: &mut Vec<Member>) {
    let Value::List(items) = &member.value.value else {
        out.push(member.clone());
        return;
    };
    if let Some((program, args)) = items.split_first() {
        out.push(Member::new("command", member.key_at, program.clone()));
        if !args.is_empty() {
            let list = Node {
                at: args.first().map_or(member.value.at, |first| first.at),
                value: Value::List(args.to_vec()),
            };
            out.push(Member::new("args", member.key_at, list));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BLOCKS;
    use crate::config::settings::table::KEYS;

    #[test]
    fn what_is_offered_instead_is_a_setting() {
        for (_, section, keys) in BLOCKS {
            for (_, ours) in *keys {
                assert!(
                    KEYS.iter().any(|key| key.section == *section && key.key == *ours),
                    "{section}.{ours}"
                );
            }
        }
    }
}
