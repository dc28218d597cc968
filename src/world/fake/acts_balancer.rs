//! What others do on the load balancer: people in the console, another team, another host.

use crate::model::balancer::{Conditions, HealthCheck, RuleAction, TargetGroupFixed};
use crate::model::id::{RuleArn, TargetGroupArn};
use crate::model::time::Timestamp;
use crate::world::fake::balancer::{FakeGroup, FakeRule, FakeTarget, OTHER_TARGET_ID, VPC_ID, is_ours};
use crate::world::fake::state::State;
use std::collections::BTreeMap;

impl State {
    fn pick_rule(&mut self) -> Option<usize> {
        let stack = &self.policy.stack;
        let all = self.balancer.rules.iter().enumerate();
        let ours: Vec<usize> = all.filter(|(_, rule)| is_ours(&rule.tags, stack)).map(|(at, _)| at).collect();
        self.rng.pick(&ours).copied()
    }

    pub(crate) fn delete_rule_by_hand(&mut self) -> Option<String> {
        let at = self.pick_rule()?;
        let rule = self.balancer.rules.remove(at);
        Some(shown(&rule))
    }

    pub(crate) fn edit_rule_by_hand(&mut self) -> Option<String> {
        let at = self.pick_rule()?;
        let rule = self.balancer.rules.get_mut(at)?;
        let before = shown(rule);
        rule.conditions.paths = vec!["/edited/*".to_owned()];
        rule.rewrites.clear();
        Some(before)
    }

    pub(crate) fn strip_rule_tags(&mut self) -> Option<String> {
        let at = self.pick_rule()?;
        let rule = self.balancer.rules.get_mut(at)?;
        rule.tags.clear();
        Some(shown(rule))
    }

    pub(crate) fn foreign_rule(&mut self) -> Option<String> {
        let ids: Vec<String> = self.desired.servers.keys().map(ToString::to_string).collect();
        let path = match self.rng.pick(&ids) {
            Some(id) if self.rng.chance(500) => format!("/mcp/{id}/*"),
            _ => "/shop/*".to_owned(),
        };
        let (low, high) = (self.policy.balancer.priority_start, self.policy.balancer.priority_end);
        let priority = u32::try_from(self.rng.between(u64::from(low), u64::from(high))).ok()?;
        self.add_foreign_rule(priority, &path).then(|| format!("{priority} {path}"))
    }

    /// Adds another's rule; false when the priority is taken or there is no room.
    pub(crate) fn add_foreign_rule(&mut self, priority: u32, path: &str) -> bool {
        let taken = self.balancer.rules.iter().any(|rule| rule.priority == priority);
        if taken || self.balancer.rules.len() >= self.balancer.rules_max {
            return false;
        }
        let arn = RuleArn(self.balancer.arn("listener-rule", &format!("theirs-{priority}")));
        self.balancer.rules.push(FakeRule {
            arn,
            priority,
            tags: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
            conditions: Conditions {
                paths: vec![path.to_owned()],
                other: vec!["host-header shop.example".to_owned()],
            },
            action: RuleAction::Other("fixed-response 200".to_owned()),
            rewrites: Vec::new(),
        });
        true
    }

    /// Does `act` to one of our target groups.
    pub(crate) fn on_our_group(&mut self, act: impl FnOnce(&mut FakeGroup, Timestamp)) -> Option<String> {
        let stack = &self.policy.stack;
        let all = self.balancer.groups.iter().enumerate();
        let ours: Vec<usize> =
            all.filter(|(_, group)| is_ours(&group.tags, stack)).map(|(at, _)| at).collect();
        let at = *self.rng.pick(&ours)?;
        let now = self.now;
        let group = self.balancer.groups.get_mut(at)?;
        let name = group.name.clone();
        act(group, now);
        Some(name)
    }

    /// Deletes one of our groups with its rules.
    pub(crate) fn delete_group_by_hand(&mut self) -> Option<String> {
        let name = self.on_our_group(|_, _| ())?;
        let arn = self.balancer.groups.iter().find(|group| group.name == name)?.arn.clone();
        let forwards = |rule: &FakeRule| matches!(&rule.action, RuleAction::Forward(to) if *to == arn);
        self.balancer.rules.retain(|rule| !forwards(rule));
        self.balancer.groups.retain(|group| group.arn != arn);
        Some(name)
    }

    pub(crate) fn foreign_group(&mut self) -> Option<String> {
        let name = format!("mcp-theirs-{}", self.ids.between(1, 9999));
        self.add_foreign_group(&name).then_some(name)
    }

    /// Adds another's target group; false when the name is taken or there is no room.
    pub(crate) fn add_foreign_group(&mut self, name: &str) -> bool {
        let taken = self.balancer.groups.iter().any(|group| group.name == name);
        if taken || self.balancer.groups.len() >= self.balancer.groups_max {
            return false;
        }
        let arn = TargetGroupArn(self.balancer.arn("targetgroup", name));
        self.balancer.groups.push(FakeGroup {
            arn,
            name: name.to_owned(),
            tags: BTreeMap::new(),
            fixed: TargetGroupFixed {
                protocol: "HTTP".to_owned(),
                port: 80,
                vpc_id: VPC_ID.to_owned(),
                target_type: "instance".to_owned(),
            },
            check: HealthCheck {
                path: "/".to_owned(),
                matcher: "200".to_owned(),
                interval: 15,
                timeout: 5,
                healthy_threshold: 2,
                unhealthy_threshold: 2,
            },
            delay: 300,
            targets: Vec::new(),
            used_since: None,
        });
        true
    }
}

impl FakeGroup {
    pub(crate) fn remove_host(&mut self, id: &str) {
        self.targets.retain(|target| target.id != id);
    }

    pub(crate) fn add_other_host(&mut self, now: Timestamp) {
        self.remove_host(OTHER_TARGET_ID);
        let id = OTHER_TARGET_ID.to_owned();
        self.targets.push(FakeTarget { id, port: 8000, registered: now, drains_until: None });
    }
}

fn shown(rule: &FakeRule) -> String {
    format!("{} {:?}", rule.priority, rule.conditions.paths)
}
