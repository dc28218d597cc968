//! The load balancer as the last pass saw it: ours and others' rules side by side.
//!
//! Must never ask the load balancer itself: that is the loop's business.

use crate::api::view::Moment;
use crate::model::balancer::{BalancerSeen, BalancerView as Seen, Owner, Rule, RuleAction, TargetGroup};
use crate::model::id::TargetGroupArn;
use crate::model::observed::Seen as Known;
use crate::service::TargetsRead;
use schemars::JsonSchema;
use serde::Serialize;

/// The load balancer.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalancerView {
    /// `off`, `unknown` or `known`.
    pub state: String,
    /// In a few words.
    pub sentence: String,
    /// Why it is off, or why nothing is known.
    pub why: Option<String>,
    /// The listener.
    pub listener: Option<ListenerView>,
    /// Its rules by priority, ours and others'.
    pub rules: Vec<RuleView>,
    /// Target groups that are ours, or in the way of ours.
    pub target_groups: Vec<TargetGroupView>,
    /// Target groups the load balancer uses, ours and others'.
    pub target_groups_in_use: Option<usize>,
    /// What identifies this host in a target group.
    pub target_id: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerView {
    /// Its ARN.
    pub arn: String,
    /// `HTTP` or `HTTPS`.
    pub protocol: String,
    /// Its port.
    pub port: u16,
    /// The load balancer's DNS name.
    pub dns_name: String,
    /// The load balancer's VPC.
    pub vpc_id: String,
}

/// A listener rule.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// 1 to 50000; the lowest that matches decides.
    pub priority: u32,
    /// Whether it carries this stack's tags.
    pub ours: bool,
    /// The server in its tags.
    pub server: Option<String>,
    /// Its path patterns.
    pub paths: Vec<String>,
    /// Its other conditions, in words.
    pub conditions: Vec<String>,
    /// Where it sends requests: a target group's name, or the action in words.
    pub target: String,
}

/// A target group.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupView {
    /// Its name.
    pub name: String,
    /// Whether it carries this stack's tags.
    pub ours: bool,
    /// The server in its tags.
    pub server: Option<String>,
    /// Its health check: path and the codes that pass.
    pub check: String,
    /// Its targets as they were read last; `None` where they were not yet.
    pub targets: Option<Vec<TargetView>>,
    /// When they were read, in milliseconds since the epoch: a few groups are in each pass, those in
    /// transition always.
    pub targets_read: Option<i64>,
}

/// A target.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetView {
    /// Instance id or address.
    pub id: String,
    /// Its port.
    pub port: u16,
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining` or `unavailable`.
    pub state: String,
    /// AWS's reason.
    pub reason: Option<String>,
}

/// As the last pass saw it.
pub(crate) fn of(moment: &Moment) -> BalancerView {
    let sentence = moment.snapshot.report.balancer.clone();
    let bare = |state: &str, why: Option<String>| BalancerView {
        state: state.to_owned(),
        sentence: sentence.clone(),
        why,
        ..BalancerView::default()
    };
    let read = |arn: &TargetGroupArn| moment.snapshot.seen.as_ref()?.targets.get(arn).cloned();
    match moment.snapshot.seen.as_ref().map(|seen| &seen.balancer) {
        None => bare("unknown", Some("no pass has ended yet".to_owned())),
        Some(BalancerSeen::Off(why)) => bare("off", Some(why.clone())),
        Some(BalancerSeen::On(Known::Unknown(why))) => bare("unknown", Some(why.clone())),
        Some(BalancerSeen::On(Known::Known(seen))) => known(seen, sentence, read),
    }
}

fn known(
    seen: &Seen,
    sentence: String,
    read: impl Fn(&TargetGroupArn) -> Option<TargetsRead>,
) -> BalancerView {
    let listener = &seen.listener;
    BalancerView {
        state: "known".to_owned(),
        sentence,
        why: None,
        listener: Some(ListenerView {
            arn: listener.arn.clone(),
            protocol: listener.protocol.clone(),
            port: listener.port,
            dns_name: listener.dns_name.clone(),
            vpc_id: listener.vpc_id.clone(),
        }),
        rules: seen.rules.iter().map(|rule| RuleView::of(rule, seen)).collect(),
        target_groups: seen
            .target_groups
            .iter()
            .map(|group| TargetGroupView::of(group, read(&group.arn)))
            .collect(),
        target_groups_in_use: Some(seen.target_groups_in_use),
        target_id: seen.target_id.known().cloned(),
    }
}

fn owner(owner: &Owner) -> (bool, Option<String>) {
    match owner {
        Owner::Ours { server, spec_hash: _ } => (true, server.clone()),
        Owner::Foreign => (false, None),
    }
}

impl RuleView {
    fn of(rule: &Rule, seen: &Seen) -> Self {
        let (ours, server) = owner(&rule.owner);
        let target = match &rule.action {
            RuleAction::Forward(arn) => {
                let group = seen.target_groups.iter().find(|group| group.arn == *arn);
                let tail = || arn.as_str().split('/').nth(1).unwrap_or(arn.as_str()).to_owned();
                group.map_or_else(tail, |group| group.name.clone())
            }
            RuleAction::Other(words) => words.clone(),
        };
        Self {
            priority: rule.priority,
            ours,
            server,
            paths: rule.conditions.paths.clone(),
            conditions: rule.conditions.other.clone(),
            target,
        }
    }
}

impl TargetGroupView {
    fn of(group: &TargetGroup, read: Option<TargetsRead>) -> Self {
        let (ours, server) = owner(&group.owner);
        let targets_read = read.as_ref().map(|read| read.at.0);
        let targets = read.map(|TargetsRead { targets, .. }| {
            let view = |target: &crate::model::balancer::Target| TargetView {
                id: target.id.clone(),
                port: target.port,
                state: target.state.word().to_owned(),
                reason: target.reason.clone(),
            };
            targets.iter().map(view).collect()
        });
        Self {
            name: group.name.clone(),
            ours,
            server,
            check: format!("{} ({})", group.check.path, group.check.matcher),
            targets,
            targets_read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::known;
    use crate::model::balancer::{
        BalancerView, Conditions, HealthCheck, Listener, Owner, Rule, RuleAction, Target, TargetGroup,
        TargetGroupFixed, TargetState,
    };
    use crate::model::id::{RuleArn, TargetGroupArn};
    use crate::model::observed::Seen;
    use crate::model::time::Timestamp;
    use crate::service::TargetsRead;
    use std::collections::BTreeMap;

    fn rule(priority: u32, owner: Owner, path: &str, action: RuleAction) -> Rule {
        let conditions = Conditions { paths: vec![path.to_owned()], other: Vec::new() };
        Rule {
            arn: RuleArn(format!("arn:{priority}")),
            priority,
            owner,
            conditions,
            action,
            rewrites: Vec::new(),
        }
    }

    #[test]
    fn ours_are_told_from_others_and_targets_say_why_they_are_unhealthy() {
        let arn = TargetGroupArn("arn:targetgroup/mcp-time-1a2b/9".to_owned());
        let ours = Owner::Ours { server: Some("time".to_owned()), spec_hash: None };
        let check = HealthCheck {
            path: "/healthz".to_owned(),
            matcher: "200".to_owned(),
            interval: 30,
            timeout: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        };
        let fixed = TargetGroupFixed {
            protocol: "HTTP".to_owned(),
            port: 80,
            vpc_id: "vpc-1".to_owned(),
            target_type: "instance".to_owned(),
        };
        let target = Target {
            id: "i-1".to_owned(),
            port: 8001,
            state: TargetState::Unhealthy,
            reason: Some("Target.Timeout: Request timed out".to_owned()),
        };
        let group = TargetGroup {
            arn: arn.clone(),
            name: "mcp-time-1a2b".to_owned(),
            owner: ours.clone(),
            fixed,
            check,
            deregistration_delay: Seen::Unknown("not asked".to_owned()),
            load_balancers: Vec::new(),
            targets: Seen::Unknown("not asked".to_owned()),
            tags: BTreeMap::new(),
        };
        let listener = Listener {
            arn: "arn:listener".to_owned(),
            protocol: "HTTPS".to_owned(),
            port: 443,
            load_balancer_arn: "arn:lb".to_owned(),
            dns_name: "lb.example".to_owned(),
            vpc_id: "vpc-1".to_owned(),
        };
        let elsewhere = RuleAction::Forward(TargetGroupArn("arn:targetgroup/shop/1".to_owned()));
        let seen = BalancerView {
            listener,
            rules: vec![
                rule(5, Owner::Foreign, "/shop/*", elsewhere),
                rule(20_000, ours, "/mcp/time", RuleAction::Forward(arn)),
            ],
            target_groups: vec![group],
            target_groups_in_use: 7,
            target_id: Seen::Known("i-1".to_owned()),
        };
        let kept = TargetsRead { at: Timestamp(7), targets: vec![target] };
        let view = known(&seen, "in sync".to_owned(), |_| Some(kept.clone()));
        let rules: Vec<(u32, bool, &str)> =
            view.rules.iter().map(|rule| (rule.priority, rule.ours, rule.target.as_str())).collect();
        assert_eq!(rules, [(5, false, "shop"), (20_000, true, "mcp-time-1a2b")]);
        let group = view.target_groups.first().expect("a target group");
        assert_eq!((group.server.as_deref(), group.check.as_str()), (Some("time"), "/healthz (200)"));
        let target = group.targets.as_ref().and_then(|targets| targets.first()).expect("a target");
        assert_eq!((target.state.as_str(), group.targets_read), ("unhealthy", Some(7)));
        assert!(target.reason.as_deref().is_some_and(|reason| reason.starts_with("Target.Timeout")));
    }
}
