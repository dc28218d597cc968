//! Carries out one operation.
//!
//! Before anything that was seen is changed or deleted, its tags are read again: what lost our tags
//! since is left alone. What was made a moment ago may not be found yet, so only for groups that
//! the same plan makes, `NotFound` is tried again.

use crate::alb::errors::world_error;
use crate::alb::to_model::{self, TRAFFIC_PORT};
use crate::alb::{Alb, trouble};
use crate::model::balancer::{BalancerOp, GroupRef, HealthCheck, Rewrite, RuleAction, TargetGroupFixed};
use crate::model::id::{RuleArn, TargetGroupArn};
use crate::model::mark;
use crate::model::net::HostPort;
use crate::world::{ErrorKind, WorldError};
use aws_sdk_elasticloadbalancingv2::types;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tries on an object that was made a moment ago.
const FRESH_ATTEMPTS_MAX: usize = 3;
/// Between them.
const FRESH_WAIT: Duration = Duration::from_secs(1);

/// A rule that is to be made.
struct NewRule<'a> {
    listener_arn: &'a str,
    priority: u32,
    paths: &'a [String],
    group: &'a TargetGroupArn,
    rewrites: &'a [Rewrite],
    tags: &'a BTreeMap<String, String>,
}

impl Alb {
    /// Carries out `op`.
    pub(super) async fn carry_out(&self, op: &BalancerOp) -> Result<(), WorldError> {
        let mut attempt = 1;
        loop {
            let result = self.try_once(op).await;
            let fresh = match op {
                BalancerOp::SetDeregistrationDelay { group, .. }
                | BalancerOp::SetTags { group, .. }
                | BalancerOp::Register { group, .. }
                | BalancerOp::CreateRule { group, .. }
                | BalancerOp::ModifyRule { group, .. } => matches!(group, GroupRef::Planned(_)),
                BalancerOp::CreateTargetGroup { .. }
                | BalancerOp::SetHealthCheck { .. }
                | BalancerOp::Deregister { .. }
                | BalancerOp::SetPriorities { .. }
                | BalancerOp::DeleteRule { .. }
                | BalancerOp::DeleteTargetGroup { .. } => false,
            };
            match result {
                Err(error) if fresh && error.kind == ErrorKind::NotFound && attempt < FRESH_ATTEMPTS_MAX => {
                    attempt += 1;
                    tokio::time::sleep(FRESH_WAIT).await;
                }
                result => return result,
            }
        }
    }

    async fn try_once(&self, op: &BalancerOp) -> Result<(), WorldError> {
        match op {
            BalancerOp::CreateTargetGroup { name, fixed, check, tags } => {
                self.create_group(name, fixed, check, tags).await
            }
            BalancerOp::SetHealthCheck { group, check } => self.set_check(group, check).await,
            BalancerOp::SetDeregistrationDelay { group, seconds } => self.set_delay(group, *seconds).await,
            BalancerOp::SetTags { group, set, remove } => {
                let arn = self.ours(group, "setting tags of").await?;
                self.set_tags(arn.as_str(), set, remove).await
            }
            BalancerOp::Register { group, target_id, ports } => self.register(group, target_id, ports).await,
            BalancerOp::Deregister { group, target_id, ports } => {
                self.deregister(group, target_id, ports).await
            }
            BalancerOp::CreateRule { listener_arn, priority, paths, group, rewrites, tags } => {
                let group = &self.resolve(group, "creating a rule for").await?;
                self.create_rule(&NewRule { listener_arn, priority: *priority, paths, group, rewrites, tags })
                    .await
            }
            BalancerOp::ModifyRule { rule, paths, group, rewrites, tags } => {
                self.guard(rule.as_str(), "modifying rule").await?;
                let group = self.resolve(group, "modifying a rule for").await?;
                self.modify_rule(rule, paths, &group, rewrites).await?;
                self.set_tags(rule.as_str(), tags, &[]).await
            }
            BalancerOp::SetPriorities { moves } => self.set_priorities(moves).await,
            BalancerOp::DeleteRule { rule } => gone_is_fine(self.delete_rule(rule).await),
            BalancerOp::DeleteTargetGroup { group, name } => {
                gone_is_fine(self.delete_group(group, name).await)
            }
        }
    }

    /// The ARN behind a reference.
    async fn resolve(&self, group: &GroupRef, doing: &str) -> Result<TargetGroupArn, WorldError> {
        let name = match group {
            GroupRef::Arn(arn) => return Ok(arn.clone()),
            GroupRef::Planned(name) => name,
        };
        if let Some(arn) = self.cache().made.get(name).cloned() {
            return Ok(arn);
        }
        let doing = format!("{doing} target group {name}");
        let found = self.find_group(name).await?;
        found.ok_or_else(|| {
            trouble(doing, ErrorKind::NotFound, "there is no target group of this name with our tags")
        })
    }

    /// Our target group of this name, if there is one.
    async fn find_group(&self, name: &str) -> Result<Option<TargetGroupArn>, WorldError> {
        self.bucket.take().await;
        let answer = match self.client.describe_target_groups().names(name).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = world_error(&format!("looking for target group {name}"), &error);
                return if error.kind == ErrorKind::NotFound { Ok(None) } else { Err(error) };
            }
        };
        let Some(arn) = answer.target_groups().first().and_then(types::TargetGroup::target_group_arn) else {
            return Ok(None);
        };
        if !self.is_ours(arn, None).await? {
            return Ok(None);
        }
        let arn = TargetGroupArn(arn.to_owned());
        self.cache().made.insert(name.to_owned(), arn.clone());
        Ok(Some(arn))
    }

    /// Refuses to go on with an object that does not carry our tags.
    async fn guard(&self, arn: &str, doing: &str) -> Result<(), WorldError> {
        if self.is_ours(arn, None).await? {
            return Ok(());
        }
        Err(trouble(
            format!("{doing} {arn}"),
            ErrorKind::Denied,
            "it does not carry our tags any more, so it is left alone",
        ))
    }

    /// The ARN of a group that may be changed.
    async fn ours(&self, group: &GroupRef, doing: &str) -> Result<TargetGroupArn, WorldError> {
        let arn = self.resolve(group, doing).await?;
        if let GroupRef::Arn(arn) = group {
            self.guard(arn.as_str(), doing).await?;
        }
        Ok(arn)
    }

    async fn create_group(
        &self,
        name: &str,
        fixed: &TargetGroupFixed,
        check: &HealthCheck,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), WorldError> {
        let doing = format!("creating target group {name}");
        self.bucket.take().await;
        let answer = self
            .client
            .create_target_group()
            .name(name)
            .protocol(types::ProtocolEnum::from(fixed.protocol.as_str()))
            .port(i32::from(fixed.port))
            .vpc_id(&fixed.vpc_id)
            .target_type(types::TargetTypeEnum::from(fixed.target_type.as_str()))
            .health_check_enabled(true)
            .health_check_protocol(types::ProtocolEnum::Http)
            .health_check_port(TRAFFIC_PORT)
            .health_check_path(&check.path)
            .health_check_interval_seconds(number(check.interval))
            .health_check_timeout_seconds(number(check.timeout))
            .healthy_threshold_count(number(check.healthy_threshold))
            .unhealthy_threshold_count(number(check.unhealthy_threshold))
            .matcher(types::Matcher::builder().http_code(&check.matcher).build())
            .set_tags(Some(sdk_tags(&doing, tags)?))
            .send()
            .await;
        match answer {
            Ok(answer) => {
                if let Some(arn) =
                    answer.target_groups().first().and_then(types::TargetGroup::target_group_arn)
                {
                    let mut cache = self.cache();
                    cache.made.insert(name.to_owned(), TargetGroupArn(arn.to_owned()));
                    // An earlier one of ours may have been answered with: its tags are not these.
                    cache.tags.remove(arn);
                }
                Ok(())
            }
            // The answer may have been lost after the group was made.
            Err(error) => match self.find_group(name).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) | Err(_) => Err(world_error(&doing, &error)),
            },
        }
    }

    async fn set_check(&self, group: &GroupRef, check: &HealthCheck) -> Result<(), WorldError> {
        let doing = format!("setting the health check of target group {}", group.name());
        let arn = self.ours(group, "setting the health check of").await?;
        self.bucket.take().await;
        let answer = self
            .client
            .modify_target_group()
            .target_group_arn(arn.as_str())
            .health_check_enabled(true)
            .health_check_protocol(types::ProtocolEnum::Http)
            .health_check_port(TRAFFIC_PORT)
            .health_check_path(&check.path)
            .health_check_interval_seconds(number(check.interval))
            .health_check_timeout_seconds(number(check.timeout))
            .healthy_threshold_count(number(check.healthy_threshold))
            .unhealthy_threshold_count(number(check.unhealthy_threshold))
            .matcher(types::Matcher::builder().http_code(&check.matcher).build())
            .send()
            .await;
        answer.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn set_delay(&self, group: &GroupRef, seconds: u32) -> Result<(), WorldError> {
        let doing = format!("setting the deregistration delay of target group {}", group.name());
        let arn = self.ours(group, "setting the deregistration delay of").await?;
        self.bucket.take().await;
        let attribute = types::TargetGroupAttribute::builder()
            .key("deregistration_delay.timeout_seconds")
            .value(seconds.to_string())
            .build();
        let call =
            self.client.modify_target_group_attributes().target_group_arn(arn.as_str()).attributes(attribute);
        let answer = call.send().await;
        self.cache().delays.remove(arn.as_str());
        answer.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn set_tags(
        &self,
        arn: &str,
        set: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<(), WorldError> {
        let doing = format!("setting tags of {arn}");
        let known = self.cache().tags.get(arn).cloned().unwrap_or_default();
        let set: BTreeMap<String, String> = set
            .iter()
            .filter(|(key, value)| known.get(*key) != Some(value))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.cache().tags.remove(arn);
        if !set.is_empty() {
            self.bucket.take().await;
            let call = self.client.add_tags().resource_arns(arn).set_tags(Some(sdk_tags(&doing, &set)?));
            call.send().await.map_err(|error| world_error(&doing, &error))?;
        }
        if !remove.is_empty() {
            self.bucket.take().await;
            let call = self.client.remove_tags().resource_arns(arn).set_tag_keys(Some(remove.to_vec()));
            call.send().await.map_err(|error| world_error(&doing, &error))?;
        }
        Ok(())
    }

    async fn register(
        &self,
        group: &GroupRef,
        target_id: &str,
        ports: &[HostPort],
    ) -> Result<(), WorldError> {
        let doing = format!("registering {target_id} in target group {}", group.name());
        let arn = self.ours(group, "registering in").await?;
        self.bucket.take().await;
        self.cache().calm.remove(arn.as_str());
        let call = self.client.register_targets().target_group_arn(arn.as_str());
        let answer = call.set_targets(Some(targets(target_id, ports))).send().await;
        answer.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn deregister(
        &self,
        group: &GroupRef,
        target_id: &str,
        ports: &[HostPort],
    ) -> Result<(), WorldError> {
        let doing = format!("deregistering {target_id} from target group {}", group.name());
        let arn = self.ours(group, "deregistering from").await?;
        self.bucket.take().await;
        self.cache().calm.remove(arn.as_str());
        let call = self.client.deregister_targets().target_group_arn(arn.as_str());
        let answer = call.set_targets(Some(targets(target_id, ports))).send().await;
        answer.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn create_rule(&self, rule: &NewRule<'_>) -> Result<(), WorldError> {
        let doing = format!("creating rule {} ({})", rule.priority, rule.paths.join(", "));
        self.bucket.take().await;
        let answer = self
            .client
            .create_rule()
            .listener_arn(rule.listener_arn)
            .priority(number(rule.priority))
            .conditions(path_condition(rule.paths))
            .actions(forward(rule.group))
            .set_transforms(transforms(rule.rewrites))
            .set_tags(Some(sdk_tags(&doing, rule.tags)?))
            .send()
            .await;
        let Err(error) = answer else { return Ok(()) };
        match self.is_made(rule).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(world_error(&doing, &error)),
        }
    }

    /// Whether the listener has a rule of ours for the same server that forwards to the same group:
    /// made by a call whose answer was lost, or by another host.
    async fn is_made(&self, rule: &NewRule<'_>) -> Result<bool, WorldError> {
        let server = rule.tags.get(mark::SERVER).map(String::as_str);
        let to = RuleAction::Forward(rule.group.clone());
        for seen in self.list_rules(rule.listener_arn).await? {
            let Some(arn) = seen.rule_arn() else { continue };
            if to_model::action(&seen) == to && self.is_ours(arn, server).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn modify_rule(
        &self,
        rule: &RuleArn,
        paths: &[String],
        group: &TargetGroupArn,
        rewrites: &[Rewrite],
    ) -> Result<(), WorldError> {
        let doing = format!("modifying rule {}", rule.tail());
        self.bucket.take().await;
        let call = self
            .client
            .modify_rule()
            .rule_arn(rule.as_str())
            .conditions(path_condition(paths))
            .actions(forward(group));
        // An empty list means "as it is", so that taking the last one away has its own word.
        let call = match transforms(rewrites) {
            Some(transforms) => call.set_transforms(Some(transforms)),
            None => call.reset_transforms(true),
        };
        call.send().await.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn set_priorities(&self, moves: &[(RuleArn, u32)]) -> Result<(), WorldError> {
        let doing = format!("setting the priority of {} rules", moves.len());
        let mut pairs = Vec::with_capacity(moves.len());
        for (rule, priority) in moves {
            self.guard(rule.as_str(), "setting the priority of").await?;
            pairs.push(
                types::RulePriorityPair::builder()
                    .rule_arn(rule.as_str())
                    .priority(number(*priority))
                    .build(),
            );
        }
        self.bucket.take().await;
        let answer = self.client.set_rule_priorities().set_rule_priorities(Some(pairs)).send().await;
        answer.map(drop).map_err(|error| world_error(&doing, &error))
    }

    async fn delete_rule(&self, rule: &RuleArn) -> Result<(), WorldError> {
        self.guard(rule.as_str(), "deleting rule").await?;
        self.bucket.take().await;
        let answer = self.client.delete_rule().rule_arn(rule.as_str()).send().await;
        answer.map(drop).map_err(|error| world_error(&format!("deleting rule {}", rule.tail()), &error))
    }

    async fn delete_group(&self, group: &TargetGroupArn, name: &str) -> Result<(), WorldError> {
        self.guard(group.as_str(), "deleting target group").await?;
        self.bucket.take().await;
        let answer = self.client.delete_target_group().target_group_arn(group.as_str()).send().await;
        self.cache().made.remove(name);
        answer.map(drop).map_err(|error| world_error(&format!("deleting target group {name}"), &error))
    }
}

/// Deleting what is gone is done.
fn gone_is_fine(result: Result<(), WorldError>) -> Result<(), WorldError> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// `ELBv2`'s numbers are signed; ours are small.
fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn sdk_tags(doing: &str, tags: &BTreeMap<String, String>) -> Result<Vec<types::Tag>, WorldError> {
    let built = tags.iter().map(|(key, value)| types::Tag::builder().key(key).value(value).build());
    let all: Vec<types::Tag> = built.collect();
    if all.is_empty() {
        return Err(trouble(doing, ErrorKind::Invalid, "nothing is made without tags"));
    }
    Ok(all)
}

fn targets(target_id: &str, ports: &[HostPort]) -> Vec<types::TargetDescription> {
    let target = |port: &HostPort| {
        types::TargetDescription::builder().id(target_id).port(i32::from(port.get())).build()
    };
    ports.iter().map(target).collect()
}

fn path_condition(paths: &[String]) -> types::RuleCondition {
    let values = types::PathPatternConditionConfig::builder().set_values(Some(paths.to_vec())).build();
    types::RuleCondition::builder().field("path-pattern").path_pattern_config(values).build()
}

fn forward(group: &TargetGroupArn) -> types::Action {
    types::Action::builder().r#type(types::ActionTypeEnum::Forward).target_group_arn(group.as_str()).build()
}

/// At most one transform with at most one rewrite, as `ELBv2` has it.
fn transforms(rewrites: &[Rewrite]) -> Option<Vec<types::RuleTransform>> {
    let rewrite = rewrites.first()?;
    let config = types::RewriteConfig::builder().regex(&rewrite.regex).replace(&rewrite.replace).build();
    let config = types::UrlRewriteConfig::builder().rewrites(config).build();
    let transform = types::RuleTransform::builder()
        .r#type(types::TransformTypeEnum::UrlRewrite)
        .url_rewrite_config(config)
        .build();
    Some(vec![transform])
}
