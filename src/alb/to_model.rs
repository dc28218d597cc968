//! `ELBv2`'s types as the model's.
//!
//! What the model has no words for must make an object differ from ours, never look like it.

use crate::model::balancer::{
    Conditions, HealthCheck, Owner, Rewrite, RuleAction, Target, TargetGroupFixed, TargetState,
};
use crate::model::id::{Stack, TargetGroupArn};
use crate::model::mark;
use aws_sdk_elasticloadbalancingv2::types;
use std::collections::BTreeMap;

/// Port of a health check that follows the target's own.
pub(super) const TRAFFIC_PORT: &str = "traffic-port";

/// Whose an object with these tags is.
pub(super) fn owner(tags: &BTreeMap<String, String>, stack: &Stack) -> Owner {
    let is = |key: &str, value: &str| tags.get(key).is_some_and(|v| v == value);
    if is(mark::MANAGED_BY, mark::MANAGER) && is(mark::STACK, stack.as_str()) {
        Owner::Ours { server: tags.get(mark::SERVER).cloned(), spec_hash: tags.get(mark::SPEC_HASH).cloned() }
    } else {
        Owner::Foreign
    }
}

/// Conditions, and transforms that are not url-rewrites.
pub(super) fn conditions(rule: &types::Rule) -> Conditions {
    let mut found = Conditions::default();
    for condition in rule.conditions() {
        let field = condition.field().unwrap_or("unknown");
        let path = condition.path_pattern_config();
        let regex = path.map(types::PathPatternConditionConfig::regex_values).unwrap_or_default();
        let is_plain = regex.is_empty() && condition.regex_values().is_empty();
        match (field, path) {
            ("path-pattern", Some(path)) if is_plain && !path.values().is_empty() => {
                found.paths.extend_from_slice(path.values());
            }
            ("path-pattern", _) if is_plain => found.paths.extend_from_slice(condition.values()),
            _ => found.other.push(words(field, condition)),
        }
    }
    for transform in rule.transforms() {
        if transform.r#type() != Some(&types::TransformTypeEnum::UrlRewrite) {
            let kind = transform.r#type().map_or("unknown transform", types::TransformTypeEnum::as_str);
            found.other.push(kind.to_owned());
        }
    }
    found
}

fn words(field: &str, condition: &types::RuleCondition) -> String {
    let mut values: Vec<&str> = Vec::new();
    values.extend(condition.values().iter().map(String::as_str));
    values.extend(condition.regex_values().iter().map(String::as_str));
    if values.is_empty() {
        values
            .extend(condition.host_header_config().into_iter().flat_map(|c| c.values()).map(String::as_str));
        values
            .extend(condition.http_header_config().into_iter().flat_map(|c| c.values()).map(String::as_str));
        values.extend(condition.source_ip_config().into_iter().flat_map(|c| c.values()).map(String::as_str));
        values.extend(
            condition.http_request_method_config().into_iter().flat_map(|c| c.values()).map(String::as_str),
        );
    }
    format!("{field} {}", values.join(" ")).trim_end().to_owned()
}

fn kind(action: &types::Action) -> &str {
    action.r#type().map_or("unknown", types::ActionTypeEnum::as_str)
}

/// What the rule does; plain forwarding to one group, however it is written, is one thing.
pub(super) fn action(rule: &types::Rule) -> RuleAction {
    let [action] = rule.actions() else {
        let all: Vec<&str> = rule.actions().iter().map(kind).collect();
        return RuleAction::Other(all.join(", then "));
    };
    if action.r#type() != Some(&types::ActionTypeEnum::Forward) {
        return RuleAction::Other(kind(action).to_owned());
    }
    let forward = action.forward_config();
    let sticky = forward
        .and_then(types::ForwardActionConfig::target_group_stickiness_config)
        .and_then(|s| s.enabled());
    let groups: Vec<&str> = match forward.map(types::ForwardActionConfig::target_groups) {
        Some(groups) if !groups.is_empty() => {
            groups.iter().filter_map(types::TargetGroupTuple::target_group_arn).collect()
        }
        Some(_) | None => action.target_group_arn().into_iter().collect(),
    };
    match (groups.as_slice(), sticky) {
        ([arn], None | Some(false)) => RuleAction::Forward(TargetGroupArn((*arn).to_owned())),
        ([_], Some(true)) => RuleAction::Other("forward with stickiness".to_owned()),
        (groups, _) => RuleAction::Other(format!("forward to {} target groups", groups.len())),
    }
}

/// Every url-rewrite.
pub(super) fn rewrites(rule: &types::Rule) -> Vec<Rewrite> {
    let configs = rule.transforms().iter().filter_map(types::RuleTransform::url_rewrite_config);
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let rewrite = |config: &types::RewriteConfig| Rewrite {
        regex: text(config.regex()),
        replace: text(config.replace()),
    };
    configs.flat_map(|config| config.rewrites()).map(rewrite).collect()
}

/// Settings that cannot be changed.
pub(super) fn fixed(group: &types::TargetGroup) -> TargetGroupFixed {
    TargetGroupFixed {
        protocol: group.protocol().map(|p| p.as_str().to_owned()).unwrap_or_default(),
        port: group.port().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        vpc_id: group.vpc_id().unwrap_or_default().to_owned(),
        target_type: group.target_type().map(|t| t.as_str().to_owned()).unwrap_or_default(),
    }
}

/// The health check; one on another port or protocol gets a path that no check of ours has.
pub(super) fn check(group: &types::TargetGroup) -> HealthCheck {
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default();
    let path = group.health_check_path().unwrap_or_default();
    let plain = group.health_check_protocol() == Some(&types::ProtocolEnum::Http)
        && group.health_check_port() == Some(TRAFFIC_PORT)
        && group.health_check_enabled() != Some(false);
    let port = group.health_check_port().unwrap_or_default();
    HealthCheck {
        path: if plain { path.to_owned() } else { format!("{path} on port {port}") },
        matcher: group.matcher().and_then(types::Matcher::http_code).unwrap_or_default().to_owned(),
        interval: number(group.health_check_interval_seconds()),
        timeout: number(group.health_check_timeout_seconds()),
        healthy_threshold: number(group.healthy_threshold_count()),
        unhealthy_threshold: number(group.unhealthy_threshold_count()),
    }
}

/// A target; `None` when the answer names none.
pub(super) fn target(seen: &types::TargetHealthDescription) -> Option<Target> {
    let target = seen.target()?;
    let health = seen.target_health();
    let state = match health.and_then(types::TargetHealth::state) {
        Some(types::TargetHealthStateEnum::Initial) => TargetState::Initial,
        Some(types::TargetHealthStateEnum::Healthy) => TargetState::Healthy,
        Some(types::TargetHealthStateEnum::Unhealthy) => TargetState::Unhealthy,
        Some(types::TargetHealthStateEnum::Unused) => TargetState::Unused,
        Some(types::TargetHealthStateEnum::Draining | types::TargetHealthStateEnum::UnhealthyDraining) => {
            TargetState::Draining
        }
        Some(_) | None => TargetState::Unavailable,
    };
    let code = health.and_then(types::TargetHealth::reason).map(|reason| reason.as_str().to_owned());
    let text = health.and_then(types::TargetHealth::description).map(str::to_owned);
    let reason = match (code, text) {
        (Some(code), Some(text)) => Some(format!("{code}: {text}")),
        (code, text) => code.or(text),
    };
    let port = target.port().and_then(|port| u16::try_from(port).ok())?;
    Some(Target { id: target.id().unwrap_or_default().to_owned(), port, state, reason })
}

/// Tags as a map.
pub(super) fn tags(tags: &[types::Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}
