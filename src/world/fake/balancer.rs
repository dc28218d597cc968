//! The load balancer's state: one listener, its rules, target groups, and what a read shows of them.
//!
//! A target's state follows from what is so, it is never stored:
//!
//! | deregistered | group used by a rule | checked yet | answers | state                |
//! |--------------|----------------------|-------------|---------|----------------------|
//! | yes, recently| -                    | -           | -       | draining             |
//! | yes, long ago| -                    | -           | -       | (gone)               |
//! | no           | no                   | -           | -       | unused               |
//! | no           | yes                  | no          | -       | initial              |
//! | no           | yes                  | yes         | yes/no  | healthy / unhealthy  |

use crate::model::balancer::{
    BalancerView, Conditions, HealthCheck, Listener, Owner, Rewrite, Rule, RuleAction, Target, TargetGroup,
    TargetGroupFixed, TargetState,
};
use crate::model::id::{RuleArn, ServerId, Stack, TargetGroupArn};
use crate::model::mark::{MANAGED_BY, MANAGER, SERVER, SPEC_HASH, STACK};
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::time::{Span, Timestamp};
use crate::world::TargetsToRead;
use crate::world::fake::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// The listener's ARN.
pub const LISTENER_ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:111122223333:listener/app/fake/1/2";
/// The load balancer's ARN.
pub const LOAD_BALANCER_ARN: &str =
    "arn:aws:elasticloadbalancing:us-west-2:111122223333:loadbalancer/app/fake/1";
/// The VPC.
pub const VPC_ID: &str = "vpc-fake";
/// This host in a target group.
pub const TARGET_ID: &str = "i-0000000000000self";
/// Another host of the same stack.
pub const OTHER_TARGET_ID: &str = "i-000000000000other";

/// The load balancer.
#[derive(Debug)]
pub(crate) struct BalancerState {
    pub(crate) rules: Vec<FakeRule>,
    pub(crate) groups: Vec<FakeGroup>,
    /// Rules the listener may have.
    pub(crate) rules_max: usize,
    /// Target groups the load balancer may have.
    pub(crate) groups_max: usize,
    /// Counts up for ARNs.
    pub(crate) made: u64,
    /// What reads show until then: an older state.
    pub(crate) stale: Option<(Timestamp, Vec<FakeRule>, Vec<FakeGroup>)>,
    /// ARNs that the last read showed as ours, and those made since.
    pub(crate) known_ours: BTreeSet<String>,
    /// Where the rotation of target reads stands.
    pub(crate) rotation: usize,
    /// This host does not learn its own id.
    pub(crate) nameless: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeRule {
    pub(crate) arn: RuleArn,
    pub(crate) priority: u32,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) conditions: Conditions,
    pub(crate) action: RuleAction,
    pub(crate) rewrites: Vec<Rewrite>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeGroup {
    pub(crate) arn: TargetGroupArn,
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) fixed: TargetGroupFixed,
    pub(crate) check: HealthCheck,
    pub(crate) delay: u32,
    pub(crate) targets: Vec<FakeTarget>,
    /// Since when a rule uses it.
    pub(crate) used_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeTarget {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) registered: Timestamp,
    /// Deregistered; connections end until then.
    pub(crate) drains_until: Option<Timestamp>,
}

impl Default for BalancerState {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            groups: Vec::new(),
            rules_max: 100,
            groups_max: 100,
            made: 0,
            stale: None,
            known_ours: BTreeSet::new(),
            rotation: 0,
            nameless: false,
        }
    }
}

/// Whether tags make an object the stack's.
pub(crate) fn is_ours(tags: &BTreeMap<String, String>, stack: &Stack) -> bool {
    let is = |key: &str, value: &str| tags.get(key).is_some_and(|v| v == value);
    is(MANAGED_BY, MANAGER) && is(STACK, stack.as_str())
}

fn owner(tags: &BTreeMap<String, String>, stack: &Stack) -> Owner {
    if is_ours(tags, stack) {
        Owner::Ours { server: tags.get(SERVER).cloned(), spec_hash: tags.get(SPEC_HASH).cloned() }
    } else {
        Owner::Foreign
    }
}

impl BalancerState {
    /// The rules for `server` that carry our tags.
    pub(crate) fn rules_of(&self, server: &ServerId, stack: &Stack) -> Vec<&FakeRule> {
        let of = |rule: &&FakeRule| {
            is_ours(&rule.tags, stack) && rule.tags.get(SERVER).is_some_and(|s| s == server.as_str())
        };
        self.rules.iter().filter(of).collect()
    }

    /// Whether a rule forwards to the group.
    pub(crate) fn is_used(&self, group: &TargetGroupArn) -> bool {
        self.rules.iter().any(|rule| matches!(&rule.action, RuleAction::Forward(arn) if arn == group))
    }

    /// Brings what follows from rules up to date, and forgets targets that have drained.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let used: BTreeSet<TargetGroupArn> = self
            .rules
            .iter()
            .filter_map(|rule| match &rule.action {
                RuleAction::Forward(arn) => Some(arn.clone()),
                RuleAction::Other(_) => None,
            })
            .collect();
        for group in &mut self.groups {
            group.used_since = if used.contains(&group.arn) { group.used_since.or(Some(now)) } else { None };
            group.targets.retain(|target| target.drains_until.is_none_or(|until| now < until));
        }
        if self.stale.as_ref().is_some_and(|(until, _, _)| *until <= now) {
            self.stale = None;
        }
    }
}

impl State {
    /// What a read of the balancer shows.
    pub(crate) fn balancer_view(&mut self, read: &TargetsToRead) -> BalancerView {
        self.balancer.settle(self.now);
        let (rules, groups) = match &self.balancer.stale {
            Some((_, rules, groups)) => (rules.clone(), groups.clone()),
            None => (self.balancer.rules.clone(), self.balancer.groups.clone()),
        };
        let stack = self.policy.stack.clone();
        let mut rules: Vec<Rule> = rules.into_iter().map(|rule| seen_rule(rule, &stack)).collect();
        rules.sort_by_key(|rule| rule.priority);
        let concerns_us = |group: &FakeGroup| is_ours(&group.tags, &stack) || group.name.starts_with("mcp-");
        let groups: Vec<FakeGroup> = groups.into_iter().filter(concerns_us).collect();
        let rotating = self.rotate(&groups, read);
        let target_groups: Vec<TargetGroup> =
            groups.into_iter().map(|group| self.seen_group(group, read, &rotating)).collect();
        let ours = |owner: &Owner| matches!(owner, Owner::Ours { .. });
        self.balancer.known_ours = rules
            .iter()
            .filter(|rule| ours(&rule.owner))
            .map(|rule| rule.arn.to_string())
            .chain(target_groups.iter().filter(|group| ours(&group.owner)).map(|group| group.arn.to_string()))
            .collect();
        let partial = self.partial();
        let target_id = if self.balancer.nameless || partial {
            Seen::Unknown("the metadata service does not answer".to_owned())
        } else {
            Seen::Known(TARGET_ID.to_owned())
        };
        // Groups of ours that no rule uses yet are the planner's to count.
        let used = |arn: &TargetGroupArn| {
            self.balancer.rules.iter().any(|rule| rule.action == RuleAction::Forward(arn.clone()))
        };
        let counts = |group: &&FakeGroup| used(&group.arn) || !is_ours(&group.tags, &self.policy.stack);
        let target_groups_in_use = self.balancer.groups.iter().filter(counts).count();
        BalancerView { listener: listener(), rules, target_groups, target_groups_in_use, target_id }
    }

    fn partial(&mut self) -> bool {
        self.faults.active(self.now) && self.rng.chance(self.faults.partial)
    }

    /// The groups whose turn it is in the rotation.
    fn rotate(&mut self, groups: &[FakeGroup], read: &TargetsToRead) -> BTreeSet<TargetGroupArn> {
        if groups.is_empty() {
            return BTreeSet::new();
        }
        let from = self.balancer.rotation % groups.len();
        self.balancer.rotation = from + read.rotating;
        let turn = groups.iter().cycle().skip(from).take(read.rotating.min(groups.len()));
        turn.map(|group| group.arn.clone()).collect()
    }

    fn seen_group(
        &mut self,
        group: FakeGroup,
        read: &TargetsToRead,
        rotating: &BTreeSet<TargetGroupArn>,
    ) -> TargetGroup {
        let named = group.tags.get(SERVER).is_some_and(|s| read.servers.iter().any(|id| id.as_str() == s));
        let targets = if !named && !rotating.contains(&group.arn) {
            Seen::Unknown("not asked in this pass".to_owned())
        } else if self.partial() {
            Seen::Unknown("rate exceeded".to_owned())
        } else {
            Seen::Known(group.targets.iter().map(|target| self.seen_target(&group, target)).collect())
        };
        let deregistration_delay =
            if self.partial() { Seen::Unknown("rate exceeded".to_owned()) } else { Seen::Known(group.delay) };
        let load_balancers = group.used_since.map(|_| LOAD_BALANCER_ARN.to_owned()).into_iter().collect();
        let owner = owner(&group.tags, &self.policy.stack);
        let FakeGroup { arn, name, mut tags, fixed, check, .. } = group;
        tags.retain(|key, _| {
            key.starts_with("io.mcp-orchestrator.") && ![STACK, SERVER, SPEC_HASH].contains(&key.as_str())
        });
        TargetGroup { arn, name, owner, fixed, check, deregistration_delay, load_balancers, targets, tags }
    }

    fn seen_target(&self, group: &FakeGroup, target: &FakeTarget) -> Target {
        let interval = Span::secs(u64::from(group.check.interval));
        let judged = |since: Timestamp| since.max(target.registered).after(interval) <= self.now;
        let answers =
            target.id != TARGET_ID || HostPort::new(target.port).is_some_and(|port| self.serves(port));
        let (state, reason) = match (target.drains_until, group.used_since) {
            (Some(_), _) => (TargetState::Draining, Some("Target.DeregistrationInProgress")),
            (None, None) => (TargetState::Unused, Some("Target.NotInUse")),
            (None, Some(since)) if !judged(since) => {
                (TargetState::Initial, Some("Elb.InitialHealthChecking"))
            }
            (None, Some(_)) if answers => (TargetState::Healthy, None),
            (None, Some(_)) => (TargetState::Unhealthy, Some("Target.FailedHealthChecks")),
        };
        Target { id: target.id.clone(), port: target.port, state, reason: reason.map(str::to_owned) }
    }
}

fn seen_rule(rule: FakeRule, stack: &Stack) -> Rule {
    let owner = owner(&rule.tags, stack);
    let FakeRule { arn, priority, conditions, action, rewrites, tags: _ } = rule;
    Rule { arn, priority, owner, conditions, action, rewrites }
}

fn listener() -> Listener {
    Listener {
        arn: LISTENER_ARN.to_owned(),
        protocol: "HTTPS".to_owned(),
        port: 443,
        load_balancer_arn: LOAD_BALANCER_ARN.to_owned(),
        dns_name: "fake-1.us-west-2.elb.amazonaws.com".to_owned(),
        vpc_id: VPC_ID.to_owned(),
    }
}
