//! Reads the listener, its rules and our target groups.
//!
//! ```text
//! every pass        rules (paged), target groups (paged)
//! new objects       tags, deregistration delay, targets
//! not all healthy   targets
//! in rotation       tags of 20 objects, one deregistration delay, targets of as many as asked for
//! ```
//! So a pass in which nothing happens costs four calls and one for each target group in rotation,
//! however many servers there are. Tags of a group are read with its targets, because other hosts
//! speak through them.

use crate::alb::cache::turn;
use crate::alb::errors::world_error;
use crate::alb::{Alb, to_model, trouble};
use crate::model::balancer::{
    BalancerView, EMPTY_SINCE_TAG, HOST_TAG_PREFIX, Listener, Owner, Rule, Target, TargetGroup,
};
use crate::model::id::{RuleArn, TargetGroupArn};
use crate::model::mark;
use crate::model::observed::Seen;
use crate::world::{ErrorKind, TargetsToRead, WorldError};
use aws_sdk_elasticloadbalancingv2::types;
use futures_util::StreamExt as _;
use std::collections::{BTreeMap, BTreeSet};

/// Objects on a page; AWS's own maximum.
const PAGE_SIZE: i32 = 400;
/// ARNs in one `DescribeTags`; AWS's own maximum.
const TAG_ARNS_MAX: usize = 20;
/// What the names of our target groups start with; others' tags are of no interest.
const GROUP_PREFIX: &str = "mcp-";
/// Target groups read in one pass at most; the rest stays not read until the next.
const TARGET_READS_MAX: usize = 120;
/// Calls under way at once.
const PARALLEL_MAX: usize = 8;

/// What the listings say.
struct Listed {
    rules: Vec<types::Rule>,
    /// Those whose name may be ours.
    groups: Vec<types::TargetGroup>,
    in_use: usize,
}

impl Alb {
    /// See the module.
    pub(super) async fn read(&self, read: &TargetsToRead) -> Result<BalancerView, WorldError> {
        let listener = self.listener().await?;
        let (listed, target_id) = tokio::join!(self.list(&listener), self.imds.target_id());
        let mut listed = listed?;
        let health = self.read_tags_and_targets(&mut listed, read).await?;
        self.read_delays(&listed).await;
        let target_id = match target_id {
            Ok(id) => Seen::Known(id),
            Err(error) => Seen::Unknown(error.to_string()),
        };
        Ok(self.assemble(listener, &listed, health, target_id))
    }

    async fn list(&self, listener: &Listener) -> Result<Listed, WorldError> {
        let (rules, groups) = tokio::join!(self.list_rules(&listener.arn), self.list_groups());
        let (rules, mut groups) = (rules?, groups?);
        let uses =
            |group: &types::TargetGroup| group.load_balancer_arns().contains(&listener.load_balancer_arn);
        let in_use = groups.iter().filter(|group| uses(group)).count();
        groups.retain(|group| group.target_group_name().is_some_and(|name| name.starts_with(GROUP_PREFIX)));
        groups.retain(|group| group.target_group_arn().is_some());
        let arns = arns_of_rules(&rules).chain(arns_of_groups(&groups)).map(str::to_owned).collect();
        self.cache().retain(&arns);
        Ok(Listed { rules, groups, in_use })
    }

    /// Every rule but the default one.
    pub(super) async fn list_rules(&self, listener_arn: &str) -> Result<Vec<types::Rule>, WorldError> {
        let doing = "listing the rules of the listener";
        self.bucket.take().await;
        let pages =
            self.client.describe_rules().listener_arn(listener_arn).page_size(PAGE_SIZE).into_paginator();
        let rules: Result<Vec<types::Rule>, _> = pages.items().send().collect().await;
        let mut rules = rules.map_err(|error| {
            let error = world_error(doing, &error);
            if error.kind == ErrorKind::NotFound {
                self.cache().listener = None;
            }
            error
        })?;
        // Every listener has a default rule: a list without one is not the whole list.
        if !rules.iter().any(|rule| rule.is_default() == Some(true)) {
            return Err(trouble(
                doing,
                ErrorKind::Failed,
                "the list has no default rule, so it is not whole",
            ));
        }
        rules.retain(|rule| rule.is_default() != Some(true) && rule.rule_arn().is_some());
        Ok(rules)
    }

    async fn list_groups(&self) -> Result<Vec<types::TargetGroup>, WorldError> {
        self.bucket.take().await;
        let pages = self.client.describe_target_groups().page_size(PAGE_SIZE).into_paginator();
        let groups: Result<Vec<types::TargetGroup>, _> = pages.items().send().collect().await;
        groups.map_err(|error| world_error("listing the target groups", &error))
    }

    /// Tags of everything new, then targets of what needs it; tags again of what was read and is ours.
    async fn read_tags_and_targets(
        &self,
        listed: &mut Listed,
        read: &TargetsToRead,
    ) -> Result<BTreeMap<String, Seen<Vec<Target>>>, WorldError> {
        let unknown: Vec<String> = {
            let cache = self.cache();
            let all = arns_of_rules(&listed.rules).chain(arns_of_groups(&listed.groups));
            all.filter(|arn| !cache.tags.contains_key(*arn)).map(str::to_owned).collect()
        };
        let mut gone = self.read_tags(&unknown).await?;
        let (must, rotating) = self.choose_targets(listed, read);
        // Tags of groups that are asked for or in motion are read afresh, to the full call with the
        // rotation; those in mere rotation wait for their turn there.
        let known: BTreeSet<&String> = unknown.iter().collect();
        let mut fresh: Vec<String> = must.iter().filter(|arn| !known.contains(arn)).cloned().collect();
        fresh.extend(self.tags_in_rotation(listed, &fresh, &known));
        let every: Vec<String> = must.into_iter().chain(rotating).collect();
        let (stale, health) = tokio::join!(self.read_tags(&fresh), self.read_targets(every));
        gone.extend(stale?);
        listed.rules.retain(|rule| rule.rule_arn().is_some_and(|arn| !gone.contains(arn)));
        listed.groups.retain(|group| group.target_group_arn().is_some_and(|arn| !gone.contains(arn)));
        Ok(health)
    }

    /// Target groups whose targets are to be read: those that must be, and those whose turn it is.
    fn choose_targets(&self, listed: &Listed, read: &TargetsToRead) -> (Vec<String>, Vec<String>) {
        let mut cache = self.cache();
        let mut must = Vec::new();
        let mut rest: Vec<&str> = Vec::new();
        for arn in arns_of_groups(&listed.groups) {
            let Some(tags) = cache.tags.get(arn) else { continue };
            let Owner::Ours { server, .. } = to_model::owner(tags, &self.config.stack) else { continue };
            let asked = read.servers.iter().any(|id| Some(id.as_str()) == server.as_deref());
            let shared = server.is_none();
            if asked || shared || !cache.calm.contains(arn) {
                must.push(arn.to_owned());
            } else {
                rest.push(arn);
            }
        }
        must.truncate(TARGET_READS_MAX);
        let rotating: Vec<String> =
            turn(&rest, &cache.last_health, read.rotating).into_iter().map(str::to_owned).collect();
        if let Some(last) = rotating.last() {
            cache.last_health.clone_from(last);
        }
        (must, rotating)
    }

    /// As many ARNs as fill up the call for `fresh`, at their turn.
    fn tags_in_rotation(&self, listed: &Listed, fresh: &[String], known: &BTreeSet<&String>) -> Vec<String> {
        let room = TAG_ARNS_MAX - fresh.len() % TAG_ARNS_MAX;
        let all: Vec<&str> = arns_of_rules(&listed.rules)
            .chain(arns_of_groups(&listed.groups))
            .filter(|arn| !fresh.iter().any(|f| f == arn) && !known.contains(&(*arn).to_owned()))
            .collect();
        let mut cache = self.cache();
        let turn: Vec<String> = turn(&all, &cache.last_tags, room).into_iter().map(str::to_owned).collect();
        if let Some(last) = turn.last() {
            cache.last_tags.clone_from(last);
        }
        turn
    }

    /// Reads tags into the cache; says which ARNs are gone.
    pub(super) async fn read_tags(&self, arns: &[String]) -> Result<BTreeSet<String>, WorldError> {
        let mut gone = BTreeSet::new();
        for chunk in arns.chunks(TAG_ARNS_MAX) {
            match self.read_tag_chunk(chunk).await {
                Ok(()) => {}
                // One that was deleted since it was listed spoils the call for all.
                Err(error) if error.kind == ErrorKind::NotFound => {
                    for arn in chunk {
                        match self.read_tag_chunk(std::slice::from_ref(arn)).await {
                            Ok(()) => {}
                            Err(error) if error.kind == ErrorKind::NotFound => drop(gone.insert(arn.clone())),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    async fn read_tag_chunk(&self, arns: &[String]) -> Result<(), WorldError> {
        let doing = "reading tags";
        self.bucket.take().await;
        let answer = self.client.describe_tags().set_resource_arns(Some(arns.to_vec())).send().await;
        let answer = answer.map_err(|error| world_error(doing, &error))?;
        let mut read = BTreeMap::new();
        for description in answer.tag_descriptions() {
            if let Some(arn) = description.resource_arn() {
                read.insert(arn.to_owned(), to_model::tags(description.tags()));
            }
        }
        if let Some(missing) = arns.iter().find(|arn| !read.contains_key(*arn)) {
            return Err(trouble(doing, ErrorKind::Failed, format!("the answer does not speak of {missing}")));
        }
        self.cache().tags.extend(read);
        Ok(())
    }

    /// Targets by target group ARN; one that could not be read is Unknown.
    async fn read_targets(&self, arns: Vec<String>) -> BTreeMap<String, Seen<Vec<Target>>> {
        let reads = arns.into_iter().map(|arn| async move {
            self.bucket.take().await;
            let answer = self.client.describe_target_health().target_group_arn(&arn).send().await;
            let seen = match answer {
                Ok(answer) => {
                    let all = answer.target_health_descriptions();
                    let targets: Vec<Target> = all.iter().filter_map(to_model::target).collect();
                    if targets.len() == all.len() {
                        Seen::Known(targets)
                    } else {
                        Seen::Unknown("the answer has a target without a port".to_owned())
                    }
                }
                Err(error) => Seen::Unknown(world_error("reading the targets", &error).to_string()),
            };
            (arn, seen)
        });
        let health: BTreeMap<String, Seen<Vec<Target>>> =
            futures_util::stream::iter(reads).buffer_unordered(PARALLEL_MAX).collect().await;
        let mut cache = self.cache();
        for (arn, seen) in &health {
            match seen {
                Seen::Known(targets) => cache.judge(arn, targets),
                Seen::Unknown(_) => drop(cache.calm.remove(arn)),
            }
        }
        drop(cache);
        health
    }

    /// Deregistration delays of our groups: those not known, and one in rotation. What could not be
    /// read stays Unknown.
    async fn read_delays(&self, listed: &Listed) {
        let arns: Vec<String> = {
            let mut cache = self.cache();
            let ours: Vec<&str> = arns_of_groups(&listed.groups)
                .filter(|arn| {
                    let tags = cache.tags.get(*arn);
                    tags.is_some_and(|tags| to_model::owner(tags, &self.config.stack) != Owner::Foreign)
                })
                .collect();
            let mut arns: Vec<String> = ours
                .iter()
                .filter(|arn| !cache.delays.contains_key(**arn))
                .map(|arn| (*arn).to_owned())
                .collect();
            if arns.is_empty() {
                arns.extend(turn(&ours, &cache.last_delay, 1).into_iter().map(str::to_owned));
            }
            if let Some(last) = arns.last() {
                cache.last_delay.clone_from(last);
            }
            arns
        };
        let reads = arns.into_iter().map(|arn| async move {
            self.bucket.take().await;
            let answer =
                self.client.describe_target_group_attributes().target_group_arn(&arn).send().await.ok()?;
            let is_delay =
                |a: &&types::TargetGroupAttribute| a.key() == Some("deregistration_delay.timeout_seconds");
            let value = answer.attributes().iter().find(is_delay)?.value()?.parse().ok()?;
            Some((arn, value))
        });
        let read: Vec<Option<(String, u32)>> =
            futures_util::stream::iter(reads).buffer_unordered(PARALLEL_MAX).collect().await;
        self.cache().delays.extend(read.into_iter().flatten());
    }

    fn assemble(
        &self,
        listener: Listener,
        listed: &Listed,
        mut health: BTreeMap<String, Seen<Vec<Target>>>,
        target_id: Seen<String>,
    ) -> BalancerView {
        let cache = self.cache();
        let tags = |arn: &str| cache.tags.get(arn).cloned().unwrap_or_default();
        let mut rules: Vec<Rule> = listed
            .rules
            .iter()
            .filter_map(|rule| {
                let arn = rule.rule_arn()?;
                Some(Rule {
                    arn: RuleArn(arn.to_owned()),
                    priority: rule.priority()?.parse().ok()?,
                    owner: to_model::owner(&tags(arn), &self.config.stack),
                    conditions: to_model::conditions(rule),
                    action: to_model::action(rule),
                    rewrites: to_model::rewrites(rule),
                })
            })
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        let group = |group: &types::TargetGroup| {
            let arn = group.target_group_arn()?;
            let mut tags = tags(arn);
            let owner = to_model::owner(&tags, &self.config.stack);
            tags.retain(|key, _| key == EMPTY_SINCE_TAG || key.starts_with(HOST_TAG_PREFIX));
            let not_read = || Seen::Unknown("not read in this pass".to_owned());
            Some(TargetGroup {
                arn: TargetGroupArn(arn.to_owned()),
                name: group.target_group_name()?.to_owned(),
                owner,
                fixed: to_model::fixed(group),
                check: to_model::check(group),
                deregistration_delay: cache
                    .delays
                    .get(arn)
                    .map_or_else(not_read_delay, |delay| Seen::Known(*delay)),
                load_balancers: group.load_balancer_arns().to_vec(),
                targets: health.remove(arn).unwrap_or_else(not_read),
                tags,
            })
        };
        let target_groups = listed.groups.iter().filter_map(group).collect();
        BalancerView { listener, rules, target_groups, target_groups_in_use: listed.in_use, target_id }
    }

    /// Whether the object carries our tags, read afresh; for a server if one is named.
    pub(super) async fn is_ours(&self, arn: &str, server: Option<&str>) -> Result<bool, WorldError> {
        let gone = self.read_tags(&[arn.to_owned()]).await?;
        if gone.contains(arn) {
            return Err(trouble("reading tags", ErrorKind::NotFound, format!("{arn} is gone")));
        }
        let cache = self.cache();
        let tags = cache.tags.get(arn).cloned().unwrap_or_default();
        let ours = to_model::owner(&tags, &self.config.stack) != Owner::Foreign;
        Ok(ours && server.is_none_or(|server| tags.get(mark::SERVER).is_some_and(|of| of == server)))
    }
}

fn not_read_delay() -> Seen<u32> {
    Seen::Unknown("not read in this pass".to_owned())
}

fn arns_of_rules(rules: &[types::Rule]) -> impl Iterator<Item = &str> {
    rules.iter().filter_map(types::Rule::rule_arn)
}

fn arns_of_groups(groups: &[types::TargetGroup]) -> impl Iterator<Item = &str> {
    groups.iter().filter_map(types::TargetGroup::target_group_arn)
}
