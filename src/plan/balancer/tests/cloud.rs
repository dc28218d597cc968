//! A listener as `ELBv2` behaves, without any AWS: enough to apply a plan and plan again.

use crate::model::balancer::{
    BalancerMemory, BalancerOp, BalancerPolicy, BalancerView, Conditions, GroupRef, HealthCheck, Listener,
    Owner, Rewrite, RouteKind, RouteWant, Rule, RuleAction, Target, TargetGroup, TargetGroupFixed,
    TargetState,
};
use crate::model::id::{RuleArn, ServerId, Stack, TargetGroupArn};
use crate::model::mark;
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::server::Transport;
use crate::model::time::{Span, Timestamp};
use crate::plan::balancer::{Input, Outcome, plan};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const LISTENER: &str = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/1/2";
pub(super) const BALANCER: &str = "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/a/1";

#[derive(Clone, Debug)]
pub(super) struct Cloud {
    pub(super) rules: Vec<CloudRule>,
    pub(super) groups: Vec<CloudGroup>,
    pub(super) now: Timestamp,
    pub(super) used_elsewhere: usize,
    pub(super) made: u32,
}

#[derive(Clone, Debug)]
pub(super) struct CloudRule {
    pub(super) rule: Rule,
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(super) struct CloudGroup {
    pub(super) arn: TargetGroupArn,
    pub(super) name: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) fixed: TargetGroupFixed,
    pub(super) check: HealthCheck,
    pub(super) delay: u32,
    /// Target id, port, until when it drains.
    pub(super) targets: BTreeMap<(String, u16), Option<Timestamp>>,
}

impl Default for Cloud {
    fn default() -> Self {
        Self { rules: Vec::new(), groups: Vec::new(), now: Timestamp(1_000_000), used_elsewhere: 0, made: 0 }
    }
}

pub(super) fn stack() -> Stack {
    Stack::new("default").unwrap()
}

pub(super) fn id(text: &str) -> ServerId {
    ServerId::new(text).unwrap()
}

pub(super) fn port(port: u16) -> HostPort {
    HostPort::new(port).unwrap()
}

pub(super) fn edge(server: &str, ports: &[u16]) -> RouteWant {
    let ports = ports.iter().map(|p| port(*p)).collect();
    RouteWant { server: id(server), kind: RouteKind::Edge, ports, health_path: None }
}

pub(super) fn direct(server: &str, ports: &[u16]) -> RouteWant {
    let kind = RouteKind::Direct { transport: Transport::Http, path: "/mcp".to_owned() };
    RouteWant { kind, ..edge(server, ports) }
}

impl Cloud {
    fn owner(tags: &BTreeMap<String, String>) -> Owner {
        let is = |key: &str, value: &str| tags.get(key).is_some_and(|v| v == value);
        if is(mark::MANAGED_BY, mark::MANAGER) && is(mark::STACK, stack().as_str()) {
            Owner::Ours {
                server: tags.get(mark::SERVER).cloned(),
                spec_hash: tags.get(mark::SPEC_HASH).cloned(),
            }
        } else {
            Owner::Foreign
        }
    }

    fn is_used(&self, arn: &TargetGroupArn) -> bool {
        self.rules.iter().any(|r| r.rule.action == RuleAction::Forward(arn.clone()))
    }

    pub(super) fn view(&mut self, target_id: &str, read: Option<&BTreeSet<ServerId>>) -> BalancerView {
        let now = self.now;
        for group in &mut self.groups {
            group.targets.retain(|_, until| until.is_none_or(|until| until > now));
        }
        let mut rules: Vec<Rule> =
            self.rules.iter().map(|r| Rule { owner: Self::owner(&r.tags), ..r.rule.clone() }).collect();
        rules.sort_by_key(|rule| rule.priority);
        let in_use = self.groups.iter().filter(|g| self.is_used(&g.arn)).count() + self.used_elsewhere;
        let target_groups = self.groups.iter().map(|group| self.seen(group, read)).collect();
        BalancerView {
            listener: Listener {
                arn: LISTENER.to_owned(),
                protocol: "HTTPS".to_owned(),
                port: 443,
                load_balancer_arn: BALANCER.to_owned(),
                dns_name: "a.elb".to_owned(),
                vpc_id: "vpc-1".to_owned(),
            },
            rules,
            target_groups,
            target_groups_in_use: in_use,
            target_id: Seen::Known(target_id.to_owned()),
        }
    }

    fn seen(&self, group: &CloudGroup, read: Option<&BTreeSet<ServerId>>) -> TargetGroup {
        let used = self.is_used(&group.arn);
        let targets = group.targets.iter().map(|((id, port), until)| Target {
            id: id.clone(),
            port: *port,
            state: match (until, used) {
                (Some(_), _) => TargetState::Draining,
                (None, true) => TargetState::Healthy,
                (None, false) => TargetState::Unused,
            },
            reason: (!used).then(|| "Target.NotInUse".to_owned()),
        });
        let asked =
            read.is_none_or(|read| group.tags.get(mark::SERVER).is_none_or(|s| read.contains(&id(s))));
        let shared = |key: &str| crate::plan::balancer::naming::is_shared_tag(key);
        TargetGroup {
            arn: group.arn.clone(),
            name: group.name.clone(),
            owner: Self::owner(&group.tags),
            fixed: group.fixed.clone(),
            check: group.check.clone(),
            deregistration_delay: Seen::Known(group.delay),
            load_balancers: if used { vec![BALANCER.to_owned()] } else { Vec::new() },
            targets: if asked {
                Seen::Known(targets.collect())
            } else {
                Seen::Unknown("not asked".to_owned())
            },
            tags: group.tags.iter().filter(|(k, _)| shared(k)).map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }

    fn arn(&mut self, what: &str) -> String {
        self.made += 1;
        format!("arn:aws:elasticloadbalancing:eu-west-1:1:{what}/{}", self.made)
    }

    fn find(&self, group: &GroupRef) -> Result<TargetGroupArn, String> {
        let found = self.groups.iter().find(|g| match group {
            GroupRef::Arn(arn) => g.arn == *arn,
            GroupRef::Planned(name) => g.name == *name,
        });
        found.map(|g| g.arn.clone()).ok_or_else(|| "TargetGroupNotFound".to_owned())
    }

    /// The group, which must be ours.
    fn ours(&mut self, group: &GroupRef) -> Result<&mut CloudGroup, String> {
        let arn = self.find(group)?;
        let group = self.groups.iter_mut().find(|g| g.arn == arn).unwrap();
        assert_ne!(Self::owner(&group.tags), Owner::Foreign, "touched a foreign group: {}", group.name);
        Ok(group)
    }

    fn our_rule(&mut self, rule: &RuleArn) -> Result<&mut CloudRule, String> {
        let found = self.rules.iter_mut().find(|r| r.rule.arn == *rule).ok_or("RuleNotFound")?;
        assert_ne!(
            Self::owner(&found.tags),
            Owner::Foreign,
            "touched a foreign rule: {}",
            found.rule.priority
        );
        Ok(found)
    }

    pub(super) fn add_rule(
        &mut self,
        priority: u32,
        paths: &[&str],
        to: RuleAction,
        tags: BTreeMap<String, String>,
    ) {
        let paths = paths.iter().map(|p| (*p).to_owned()).collect();
        let rule = Rule {
            arn: RuleArn(self.arn("listener-rule/app/a/1/2")),
            priority,
            owner: Owner::Foreign,
            conditions: Conditions { paths, other: Vec::new() },
            action: to,
            rewrites: Vec::new(),
        };
        self.rules.push(CloudRule { rule, tags });
    }

    pub(super) fn apply(&mut self, op: &BalancerOp, target: &str) -> Result<(), String> {
        match op {
            BalancerOp::CreateTargetGroup { name, fixed, check, tags } => {
                if !self.groups.iter().any(|g| g.name == *name) {
                    let arn = TargetGroupArn(self.arn(&format!("targetgroup/{name}")));
                    let (fixed, check) = (fixed.clone(), check.clone());
                    let group = CloudGroup {
                        arn,
                        name: name.clone(),
                        tags: tags.clone(),
                        fixed,
                        check,
                        delay: 300,
                        targets: BTreeMap::new(),
                    };
                    self.groups.push(group);
                }
            }
            BalancerOp::SetHealthCheck { group, check } => self.ours(group)?.check = check.clone(),
            BalancerOp::SetDeregistrationDelay { group, seconds } => self.ours(group)?.delay = *seconds,
            BalancerOp::SetTags { group, set, remove } => {
                let group = self.ours(group)?;
                assert!(
                    set.keys().chain(remove).all(|key| crate::plan::balancer::naming::is_shared_tag(key)),
                    "owner tags"
                );
                group.tags.retain(|key, _| !remove.contains(key));
                group.tags.extend(set.clone());
            }
            BalancerOp::Register { group, target_id, ports } => {
                assert_eq!(target_id, target, "registers another host");
                let group = self.ours(group)?;
                group.targets.extend(ports.iter().map(|port| ((target_id.clone(), port.get()), None)));
            }
            BalancerOp::Deregister { group, target_id, ports } => {
                assert_eq!(target_id, target, "deregisters another host");
                let now = self.now;
                let group = self.ours(group)?;
                let until = now.after(Span::secs(u64::from(group.delay)));
                for port in ports {
                    if let Some(drains) = group.targets.get_mut(&(target_id.clone(), port.get())) {
                        *drains = drains.or(Some(until));
                    }
                }
            }
            BalancerOp::CreateRule { .. }
            | BalancerOp::ModifyRule { .. }
            | BalancerOp::SetPriorities { .. }
            | BalancerOp::DeleteRule { .. }
            | BalancerOp::DeleteTargetGroup { .. } => return self.apply_to_rules(op),
        }
        Ok(())
    }

    fn apply_to_rules(&mut self, op: &BalancerOp) -> Result<(), String> {
        match op {
            BalancerOp::CreateRule { priority, paths, group, rewrites, tags, .. } => {
                let to = RuleAction::Forward(self.find(group)?);
                if self.rules.iter().any(|r| r.rule.priority == *priority) {
                    return Err("PriorityInUse".to_owned());
                }
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                self.add_rule(*priority, &paths, to, tags.clone());
                self.rules.last_mut().unwrap().rule.rewrites.clone_from(rewrites);
            }
            BalancerOp::ModifyRule { rule, paths, group, rewrites, tags } => {
                let to = self.find(group)?;
                let found = self.our_rule(rule)?;
                found.rule.conditions = Conditions { paths: paths.clone(), other: Vec::new() };
                found.rule.action = RuleAction::Forward(to);
                found.rule.rewrites = rewrites.clone();
                found.tags.extend(tags.clone());
            }
            BalancerOp::SetPriorities { moves } => {
                for (rule, priority) in moves {
                    self.our_rule(rule)?.rule.priority = *priority;
                }
                let all: BTreeSet<u32> = self.rules.iter().map(|r| r.rule.priority).collect();
                assert_eq!(all.len(), self.rules.len(), "two rules on one priority");
            }
            BalancerOp::DeleteRule { rule } => {
                if self.rules.iter().any(|r| r.rule.arn == *rule) {
                    self.our_rule(rule)?;
                    self.rules.retain(|r| r.rule.arn != *rule);
                }
            }
            BalancerOp::DeleteTargetGroup { group, .. } => {
                if self.is_used(group) {
                    return Err("ResourceInUse".to_owned());
                }
                if self.find(&GroupRef::Arn(group.clone())).is_ok() {
                    let gone = self.ours(&GroupRef::Arn(group.clone()))?;
                    assert!(gone.targets.is_empty(), "deleted a group with targets");
                    self.groups.retain(|g| g.arn != *group);
                }
            }
            BalancerOp::CreateTargetGroup { .. }
            | BalancerOp::SetHealthCheck { .. }
            | BalancerOp::SetDeregistrationDelay { .. }
            | BalancerOp::SetTags { .. }
            | BalancerOp::Register { .. }
            | BalancerOp::Deregister { .. } => unreachable!("not about rules"),
        }
        Ok(())
    }
}

/// One host of the stack.
#[derive(Clone, Debug)]
pub(super) struct HostOf {
    pub(super) target: String,
    pub(super) wants: BTreeMap<ServerId, RouteWant>,
    pub(super) keep: BTreeSet<ServerId>,
    pub(super) keep_unclaimed: bool,
    pub(super) memory: BalancerMemory,
    pub(super) policy: BalancerPolicy,
    /// Read only what the last pass asked for.
    pub(super) lazy: bool,
    read: BTreeSet<ServerId>,
}

impl HostOf {
    pub(super) fn new(target: &str, wants: impl IntoIterator<Item = RouteWant>) -> Self {
        Self {
            target: target.to_owned(),
            wants: wants.into_iter().map(|want| (want.server.clone(), want)).collect(),
            keep: BTreeSet::new(),
            keep_unclaimed: false,
            memory: BalancerMemory::default(),
            policy: BalancerPolicy {
                target_type: "instance".to_owned(),
                deregistration_delay: Span::secs(30),
                gc_grace: Span::secs(30),
                priority_start: 100,
                priority_end: 199,
                target_groups_max: 100,
                shared_port: None,
                leaving: false,
            },
            lazy: false,
            read: BTreeSet::new(),
        }
    }

    pub(super) fn plan(&mut self, cloud: &mut Cloud) -> Outcome {
        let view = cloud.view(&self.target, self.lazy.then_some(&self.read));
        let stack = stack();
        let outcome = plan(&Input {
            wants: &self.wants,
            keep: &self.keep,
            keep_unclaimed: self.keep_unclaimed,
            stack: &stack,
            view: &view,
            memory: &self.memory,
            policy: &self.policy,
            now: cloud.now,
        });
        check_order(&outcome);
        outcome
    }

    /// One pass; `fault` says what happens to the step with that index: refused, or done unheard.
    pub(super) fn pass(&mut self, cloud: &mut Cloud, fault: Option<(usize, bool)>) -> Outcome {
        let outcome = self.plan(cloud);
        self.memory = outcome.memory.clone();
        self.read = outcome.read_next.clone();
        let mut done = Vec::new();
        for (index, step) in outcome.steps.iter().enumerate() {
            let ready = step.after.iter().all(|earlier| done[*earlier]);
            let faulty = fault.filter(|(at, _)| *at == index);
            let result = match faulty {
                _ if !ready => Err("skipped".to_owned()),
                Some((_, false)) => Err("refused".to_owned()),
                Some((_, true)) => cloud.apply(&step.op, &self.target).and(Err("answer lost".to_owned())),
                None => cloud.apply(&step.op, &self.target),
            };
            done.push(result.is_ok());
        }
        outcome
    }

    /// Passes until nothing is left to do and nothing is waited for; panics when that never comes.
    pub(super) fn settle(&mut self, cloud: &mut Cloud) -> usize {
        for pass in 0..20 {
            let outcome = self.pass(cloud, None);
            if outcome.steps.is_empty() && outcome.next_look.is_none() {
                return pass;
            }
            cloud.now = cloud.now.after(Span::secs(40));
        }
        panic!("does not settle: {:#?}", self.plan(cloud).steps);
    }
}

/// Creations and changes before deletions, and only backward references.
fn check_order(outcome: &Outcome) {
    let deletes =
        |op: &BalancerOp| matches!(op, BalancerOp::DeleteRule { .. } | BalancerOp::DeleteTargetGroup { .. });
    let makes = |op: &BalancerOp| {
        matches!(
            op,
            BalancerOp::CreateTargetGroup { .. }
                | BalancerOp::CreateRule { .. }
                | BalancerOp::ModifyRule { .. }
        )
    };
    let first_delete = outcome.steps.iter().position(|step| deletes(&step.op)).unwrap_or(usize::MAX);
    for (index, step) in outcome.steps.iter().enumerate() {
        assert!(!makes(&step.op) || index < first_delete, "{} comes after a deletion", step.why);
        assert!(step.after.iter().all(|earlier| *earlier < index), "{} waits for a later step", step.why);
    }
}

/// Tags that make an object the stack's.
pub(super) fn our_tags(server: &str) -> BTreeMap<String, String> {
    crate::plan::balancer::owner_tags(&stack(), Some(&id(server)), "0")
}

/// A rewrite nobody planned.
pub(super) fn odd_rewrite() -> Rewrite {
    Rewrite { regex: "^/x$".to_owned(), replace: "/y".to_owned() }
}
