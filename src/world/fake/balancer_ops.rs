//! What the load balancer does when asked, with the refusals of AWS.
//!
//! - A rule is unique by its priority only; a target group by its name, and making one again with
//!   equal settings gives the one there is.
//! - Deleting a group that a rule uses is refused; deleting what is gone succeeds.
//! - Deregistering what is not registered succeeds; registering what drains ends the draining.
//! - An object that lost our tags after it was last read answers Denied, as the shipped IAM policy
//!   makes it; one that was seen without them is a broken promise.

use crate::model::balancer::{BalancerOp, Conditions, GroupRef, RuleAction};
use crate::model::id::{RuleArn, TargetGroupArn};
use crate::model::net::HostPort;
use crate::model::time::Span;
use crate::world::ErrorKind;
use crate::world::fake::balancer::{
    BalancerState, FakeGroup, FakeRule, FakeTarget, LISTENER_ARN, TARGET_ID, is_ours,
};
use crate::world::fake::state::{No, State};
use std::collections::{BTreeMap, BTreeSet};

/// Highest priority of a rule.
const PRIORITY_MAX: u32 = 50_000;
/// Values that all conditions of a rule may have together.
const VALUES_MAX: usize = 5;
/// Longest path pattern.
const PATH_LEN_MAX: usize = 128;
/// Longest name of a target group.
const GROUP_NAME_LEN_MAX: usize = 32;
/// Deregistration delay of a group on which none was set, in seconds.
const DELAY_DEFAULT: u32 = 300;
/// Longest time in which reads show an older state, in milliseconds.
const LAG_MILLIS_MAX: u64 = 20_000;

/// What is done, and to which thing, in words.
pub(crate) fn words(op: &BalancerOp) -> (&'static str, String) {
    let group = |group: &GroupRef| match group {
        GroupRef::Arn(arn) => tail(arn.as_str()),
        GroupRef::Planned(name) => name.clone(),
    };
    let with = |reference: &GroupRef, ports: &[HostPort]| {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        format!("{} port {}", group(reference), ports.join(","))
    };
    match op {
        BalancerOp::CreateTargetGroup { name, .. } => ("create target group", name.clone()),
        BalancerOp::SetHealthCheck { group: g, .. } => ("set health check of", group(g)),
        BalancerOp::SetDeregistrationDelay { group: g, .. } => ("set delay of", group(g)),
        BalancerOp::SetTags { group: g, .. } => ("set tags of", group(g)),
        BalancerOp::Register { group: g, ports, .. } => ("register with", with(g, ports)),
        BalancerOp::Deregister { group: g, ports, .. } => ("deregister from", with(g, ports)),
        BalancerOp::CreateRule { priority, paths, .. } => {
            ("create rule", format!("{priority} {}", paths.first().map_or("", String::as_str)))
        }
        BalancerOp::ModifyRule { rule, .. } => ("modify rule", tail(rule.as_str())),
        BalancerOp::SetPriorities { moves } => ("set priorities of", format!("{} rules", moves.len())),
        BalancerOp::DeleteRule { rule } => ("delete rule", tail(rule.as_str())),
        BalancerOp::DeleteTargetGroup { name, .. } => ("delete target group", name.clone()),
    }
}

/// The readable end of an ARN.
fn tail(arn: &str) -> String {
    arn.split_once('/').map_or(arn, |(_, tail)| tail).to_owned()
}

/// What an operation wants a rule to be.
struct RuleWish<'a> {
    paths: &'a [String],
    group: &'a GroupRef,
}

impl State {
    pub(crate) fn balancer_op(&mut self, op: &BalancerOp) -> Result<(), No> {
        self.balancer.settle(self.now);
        let lags = self.faults.active(self.now) && self.rng.chance(self.faults.lag);
        let before = (lags && self.balancer.stale.is_none())
            .then(|| (self.balancer.rules.clone(), self.balancer.groups.clone()));
        let answer = self.balancer_do(op);
        if let Some((rules, groups)) = before {
            let until = self.now.after(self.rng.millis(1, LAG_MILLIS_MAX));
            self.balancer.stale = Some((until, rules, groups));
        }
        self.balancer.settle(self.now);
        answer
    }

    fn balancer_do(&mut self, op: &BalancerOp) -> Result<(), No> {
        match op {
            BalancerOp::CreateTargetGroup { .. } => self.create_group(op),
            BalancerOp::SetHealthCheck { group, check } => {
                self.group(group, true).map(|g| g.check = check.clone())
            }
            BalancerOp::SetDeregistrationDelay { group, seconds } => {
                self.group(group, true).map(|g| g.delay = *seconds)
            }
            BalancerOp::SetTags { group, set, remove } => {
                let tags = &mut self.group(group, true)?.tags;
                tags.retain(|key, _| !remove.contains(key));
                tags.extend(set.clone());
                Ok(())
            }
            BalancerOp::Register { group, target_id, ports } => self.register(group, target_id, ports),
            BalancerOp::Deregister { group, target_id, ports } => self.deregister(group, target_id, ports),
            BalancerOp::CreateRule { .. } => self.create_rule(op),
            BalancerOp::ModifyRule { rule, paths, group, rewrites, tags } => {
                let arn = self.check_rule(&RuleWish { paths, group })?;
                let found = self.rule(rule)?;
                found.conditions = Conditions { paths: paths.clone(), other: Vec::new() };
                found.action = RuleAction::Forward(arn);
                found.rewrites.clone_from(rewrites);
                found.tags.extend(tags.clone());
                Ok(())
            }
            BalancerOp::SetPriorities { moves } => self.set_priorities(moves),
            BalancerOp::DeleteRule { rule } => self.delete_rule(rule),
            BalancerOp::DeleteTargetGroup { group, .. } => self.delete_group(group),
        }
    }

    /// May this object be changed? Must be asked before every change of one that exists.
    fn check_owner(&mut self, arn: &str, tags: &BTreeMap<String, String>) -> Result<(), No> {
        if is_ours(tags, &self.policy.stack) {
            return Ok(());
        }
        if self.balancer.known_ours.contains(arn) {
            return No::new(ErrorKind::Denied, format!("not authorized: {arn} has not the tags"));
        }
        self.hit_foreign = true;
        Ok(())
    }

    fn rule(&mut self, arn: &RuleArn) -> Result<&mut FakeRule, No> {
        let Some(tags) = self.balancer.rules.iter().find(|r| r.arn == *arn).map(|r| r.tags.clone()) else {
            return No::new(ErrorKind::NotFound, format!("rule {arn} not found"));
        };
        self.check_owner(arn.as_str(), &tags)?;
        match self.balancer.rules.iter_mut().find(|r| r.arn == *arn) {
            Some(rule) => Ok(rule),
            None => No::new(ErrorKind::NotFound, "rule not found"),
        }
    }

    fn group(&mut self, reference: &GroupRef, change: bool) -> Result<&mut FakeGroup, No> {
        let is = |group: &FakeGroup| match reference {
            GroupRef::Arn(arn) => group.arn == *arn,
            GroupRef::Planned(name) => group.name == *name,
        };
        let Some(at) = self.balancer.groups.iter().position(is) else {
            return No::new(ErrorKind::NotFound, format!("target group {reference:?} not found"));
        };
        if let Some((arn, tags)) = self.balancer.groups.get(at).map(|g| (g.arn.clone(), g.tags.clone()))
            && change
        {
            self.check_owner(arn.as_str(), &tags)?;
        }
        match self.balancer.groups.get_mut(at) {
            Some(group) => Ok(group),
            None => No::new(ErrorKind::NotFound, "target group not found"),
        }
    }

    fn create_group(&mut self, op: &BalancerOp) -> Result<(), No> {
        let BalancerOp::CreateTargetGroup { name, fixed, check, tags } = op else { return Ok(()) };
        let shape = name.len() <= GROUP_NAME_LEN_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if !shape {
            return No::new(ErrorKind::Invalid, format!("target group name '{name}' is not valid"));
        }
        if let Some(there) = self.balancer.groups.iter().find(|g| g.name == *name) {
            return if there.fixed == *fixed && there.check == *check {
                Ok(())
            } else {
                No::new(ErrorKind::Conflict, format!("a target group with the same name '{name}' exists"))
            };
        }
        if self.balancer.groups.len() >= self.balancer.groups_max {
            return No::new(ErrorKind::Quota, "too many target groups");
        }
        if !is_ours(tags, &self.policy.stack) {
            self.violation(format!("target group {name} was created without our tags"));
        }
        let arn = TargetGroupArn(self.balancer.arn("targetgroup", name));
        self.balancer.known_ours.insert(arn.to_string());
        self.balancer.groups.push(FakeGroup {
            arn,
            name: name.clone(),
            tags: tags.clone(),
            fixed: fixed.clone(),
            check: check.clone(),
            delay: DELAY_DEFAULT,
            targets: Vec::new(),
            used_since: None,
        });
        Ok(())
    }

    fn delete_group(&mut self, arn: &TargetGroupArn) -> Result<(), No> {
        if !self.balancer.groups.iter().any(|g| g.arn == *arn) {
            return Ok(());
        }
        let name = self.group(&GroupRef::Arn(arn.clone()), true)?.name.clone();
        if self.balancer.is_used(arn) {
            return No::new(ErrorKind::Conflict, format!("target group '{name}' is currently in use"));
        }
        let others = |g: &FakeGroup| g.arn == *arn && g.targets.iter().any(is_anothers);
        if self.balancer.groups.iter().any(others) {
            self.violation(format!("target group {name} was deleted although another host is in it"));
        }
        self.balancer.groups.retain(|g| g.arn != *arn);
        Ok(())
    }

    fn delete_rule(&mut self, arn: &RuleArn) -> Result<(), No> {
        if !self.balancer.rules.iter().any(|rule| rule.arn == *arn) {
            return Ok(());
        }
        let rule = self.rule(arn)?.clone();
        self.balancer.rules.retain(|rule| rule.arn != *arn);
        let RuleAction::Forward(group) = &rule.action else { return Ok(()) };
        // Of a group that lost our tags nobody can say who is behind it.
        let stack = &self.policy.stack;
        let cut_off =
            |g: &FakeGroup| g.arn == *group && is_ours(&g.tags, stack) && g.targets.iter().any(is_anothers);
        if !self.balancer.is_used(group) && self.balancer.groups.iter().any(cut_off) {
            self.violation(format!("rule {} was deleted although another host is behind it", rule.priority));
        }
        Ok(())
    }

    fn register(&mut self, group: &GroupRef, target_id: &str, ports: &[HostPort]) -> Result<(), No> {
        let now = self.now;
        if target_id != TARGET_ID {
            return No::new(ErrorKind::Invalid, format!("the instance '{target_id}' is not running"));
        }
        let group = self.group(group, true)?;
        for port in ports.iter().map(|port| port.get()) {
            let same = |t: &&mut FakeTarget| t.id == target_id && t.port == port;
            match group.targets.iter_mut().find(same) {
                Some(target) if target.drains_until.is_none() => {}
                Some(target) => {
                    target.drains_until = None;
                    target.registered = now;
                }
                None => group.targets.push(FakeTarget {
                    id: target_id.to_owned(),
                    port,
                    registered: now,
                    drains_until: None,
                }),
            }
        }
        Ok(())
    }

    fn deregister(&mut self, group: &GroupRef, target_id: &str, ports: &[HostPort]) -> Result<(), No> {
        let now = self.now;
        if target_id != TARGET_ID {
            self.violation(format!("deregistered the host {target_id}, which is not this one"));
        }
        let group = self.group(group, true)?;
        let until = now.after(Span::secs(u64::from(group.delay)));
        for target in &mut group.targets {
            let meant = target.id == target_id && ports.iter().any(|port| port.get() == target.port);
            if meant && target.drains_until.is_none() {
                target.drains_until = Some(until);
            }
        }
        Ok(())
    }

    fn check_rule(&mut self, wish: &RuleWish<'_>) -> Result<TargetGroupArn, No> {
        let good = |path: &String| {
            !path.is_empty()
                && path.len() <= PATH_LEN_MAX
                && path.chars().all(|c| c.is_ascii_alphanumeric() || "_-.$/~\"'@:+&*?".contains(c))
        };
        if wish.paths.is_empty() || wish.paths.len() > VALUES_MAX || !wish.paths.iter().all(good) {
            return No::new(ErrorKind::Invalid, format!("condition values {:?} are not valid", wish.paths));
        }
        self.group(wish.group, false).map(|group| group.arn.clone())
    }

    fn create_rule(&mut self, op: &BalancerOp) -> Result<(), No> {
        let BalancerOp::CreateRule { listener_arn, priority, paths, group, rewrites, tags } = op else {
            return Ok(());
        };
        if listener_arn != LISTENER_ARN {
            return No::new(ErrorKind::NotFound, format!("listener '{listener_arn}' not found"));
        }
        if *priority == 0 || *priority > PRIORITY_MAX {
            return No::new(ErrorKind::Invalid, format!("priority {priority} is not within 1 and 50000"));
        }
        let arn = self.check_rule(&RuleWish { paths, group })?;
        if self.balancer.rules.iter().any(|rule| rule.priority == *priority) {
            return No::new(ErrorKind::Conflict, format!("priority '{priority}' is currently in use"));
        }
        if self.balancer.rules.len() >= self.balancer.rules_max {
            return No::new(ErrorKind::Quota, "too many rules");
        }
        if !is_ours(tags, &self.policy.stack) {
            self.violation(format!("rule {priority} was created without our tags"));
        }
        let own = RuleArn(self.balancer.arn("listener-rule", &priority.to_string()));
        self.balancer.known_ours.insert(own.to_string());
        self.balancer.rules.push(FakeRule {
            arn: own,
            priority: *priority,
            tags: tags.clone(),
            conditions: Conditions { paths: paths.clone(), other: Vec::new() },
            action: RuleAction::Forward(arn),
            rewrites: rewrites.clone(),
        });
        Ok(())
    }

    /// All or nothing, judged by the new order: swaps are fine.
    fn set_priorities(&mut self, moves: &[(RuleArn, u32)]) -> Result<(), No> {
        for (arn, priority) in moves {
            self.rule(arn)?;
            if *priority == 0 || *priority > PRIORITY_MAX {
                return No::new(ErrorKind::Invalid, format!("priority {priority} is not within 1 and 50000"));
            }
        }
        let new = |rule: &FakeRule| {
            moves.iter().find(|(arn, _)| *arn == rule.arn).map_or(rule.priority, |(_, priority)| *priority)
        };
        let order: BTreeSet<u32> = self.balancer.rules.iter().map(new).collect();
        if order.len() != self.balancer.rules.len() {
            return No::new(ErrorKind::Conflict, "a priority is currently in use");
        }
        for rule in &mut self.balancer.rules {
            rule.priority = new(rule);
        }
        Ok(())
    }
}

impl BalancerState {
    /// A new ARN.
    pub(crate) fn arn(&mut self, kind: &str, name: &str) -> String {
        self.made += 1;
        format!("arn:aws:elasticloadbalancing:us-west-2:111122223333:{kind}/{name}/{:x}", self.made)
    }
}

/// Whether the target is another host's and takes requests.
pub(crate) fn is_anothers(target: &FakeTarget) -> bool {
    target.id != TARGET_ID && target.drains_until.is_none()
}
