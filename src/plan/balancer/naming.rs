//! Names, tags and priority slots: all deterministic, so that every host computes the same ones
//! without asking anybody.
//!
//! A deterministic target group name is a mutex that costs nothing; a deterministic first priority
//! makes two hosts that create a rule at once collide visibly instead of making two rules.

use crate::model::balancer::{HOST_TAG_PREFIX, TargetGroup, TargetGroupFixed};
use crate::model::fingerprint::sha256_hex;
use crate::model::id::{ServerId, Stack};
use crate::model::mark;
use std::collections::BTreeMap;

/// Longest target group name that `ELBv2` takes.
const GROUP_NAME_LEN_MAX: usize = 32;
/// Hex digits of the hash at the end of a target group name.
const HASH_LEN: usize = 8;
/// What every target group name of ours starts with; `packaging/iam-policy.json` relies on it.
const GROUP_PREFIX: &str = "mcp-";
/// What the hash of the shared group is over instead of a server id; no id can be this.
const SHARED: &str = "*shared*";

/// Name of a server's own target group. `fixed.port` is not part of it: every target of ours
/// overrides the port.
#[must_use]
pub fn group_name(stack: &Stack, listener_arn: &str, server: &str, fixed: &TargetGroupFixed) -> String {
    named(stack, listener_arn, server, server, fixed)
}

/// Name of the target group that servers share when target groups run out.
#[must_use]
pub fn shared_group_name(stack: &Stack, listener_arn: &str, fixed: &TargetGroupFixed) -> String {
    named(stack, listener_arn, SHARED, "shared", fixed)
}

fn named(stack: &Stack, listener_arn: &str, hashed: &str, shown: &str, fixed: &TargetGroupFixed) -> String {
    let TargetGroupFixed { protocol, port: _, vpc_id, target_type } = fixed;
    let text = [stack.as_str(), listener_arn, hashed, vpc_id, target_type, protocol].join("\0");
    let room = GROUP_NAME_LEN_MAX - GROUP_PREFIX.len() - HASH_LEN - 1;
    let mut short = String::with_capacity(room);
    for c in shown.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }) {
        if short.len() < room && !(c == '-' && (short.is_empty() || short.ends_with('-'))) {
            short.push(c);
        }
    }
    let short = short.trim_end_matches('-');
    let gap = if short.is_empty() { "" } else { "-" };
    format!("{GROUP_PREFIX}{short}{gap}{}", sha256_hex(&text, HASH_LEN))
}

/// Whether `group`, which bears our tags, was made for this listener: its name says so. One stack
/// may have groups on several listeners, and each listener's hosts look after their own.
pub(super) fn made_for(group: &TargetGroup, stack: &Stack, listener_arn: &str, server: Option<&str>) -> bool {
    let name = match server {
        Some(server) => group_name(stack, listener_arn, server, &group.fixed),
        None => shared_group_name(stack, listener_arn, &group.fixed),
    };
    group.name == name
}

/// Path patterns of a server's rule: the bare path is not covered by the pattern with the asterisk,
/// and `/mcp/{id}*` would catch other servers.
#[must_use]
pub fn rule_paths(server: &ServerId) -> Vec<String> {
    vec![format!("/mcp/{server}"), format!("/mcp/{server}/*")]
}

/// The tags that make an object ours, set in the call that creates it.
#[must_use]
pub fn owner_tags(stack: &Stack, server: Option<&ServerId>, spec_hash: &str) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        (mark::MANAGED_BY.to_owned(), mark::MANAGER.to_owned()),
        (mark::STACK.to_owned(), stack.to_string()),
        (mark::SPEC_HASH.to_owned(), spec_hash.to_owned()),
    ]);
    if let Some(server) = server {
        tags.insert(mark::SERVER.to_owned(), server.to_string());
    }
    tags
}

/// The tag with which the host `target_id` says what it wants.
pub(super) fn host_tag(target_id: &str) -> String {
    format!("{HOST_TAG_PREFIX}{target_id}")
}

/// Whether `key` is a tag that hosts change, as against the owner's.
#[cfg(test)]
pub(super) fn is_shared_tag(key: &str) -> bool {
    key == crate::model::balancer::EMPTY_SINCE_TAG || key.starts_with(HOST_TAG_PREFIX)
}

/// FNV-1a, 32 bit: where in the band a server's priority is looked for first.
pub(super) fn fnv1a(text: &str) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    text.bytes().fold(BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME))
}
