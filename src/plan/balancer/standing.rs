//! Where this host's target for one port stands, for whoever starts and stops containers.

use crate::model::balancer::{
    BalancerMemory, BalancerSeen, BalancerView, Owner, RuleAction, Standing, Target, TargetGroup, TargetState,
};
use crate::model::id::{ServerId, Stack};
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::time::{Span, Timestamp};
use crate::plan::balancer::{naming, targets};

/// How long a drain lasts that nobody remembers, in a group whose delay was not read: AWS's default.
const DRAIN_DEFAULT: Span = Span::secs(300);

/// Where `port` of `server` stands. In doubt it is [`Standing::Unknown`]: a container that may still
/// get requests is not stopped, one that is not known to be healthy does not count as up.
#[must_use]
#[expect(clippy::too_many_arguments, reason = "six facts of six types, none of which belongs to another")]
pub fn standing(
    seen: &BalancerSeen,
    memory: &BalancerMemory,
    stack: &Stack,
    server: &ServerId,
    port: HostPort,
    now: Timestamp,
) -> Standing {
    let view = match seen {
        BalancerSeen::Off(_) => return Standing::Absent,
        BalancerSeen::On(Seen::Unknown(why)) => return Standing::Unknown(why.clone()),
        BalancerSeen::On(Seen::Known(view)) => view,
    };
    let Some(target_id) = view.target_id.known().or(memory.target_id.as_ref()) else {
        return Standing::Unknown("this host's target id is not known".to_owned());
    };
    let groups = groups_of(view, stack, server);
    let of_group = |(group, shared): &(&TargetGroup, bool)| {
        let key = targets::drain_key(if *shared { targets::SHARED_KEY } else { server.as_str() }, port);
        let until = memory.draining.get(&key).copied();
        let targets = match &group.targets {
            Seen::Unknown(why) => {
                return until
                    .filter(|until| *until > now)
                    .map_or_else(|| Standing::Unknown(why.clone()), Standing::Draining);
            }
            Seen::Known(targets) => targets,
        };
        // In the shared group any port of this host serves every server.
        let found =
            targets.iter().find(|target| target.id == *target_id && (*shared || target.port == port.get()));
        found.map_or(Standing::Absent, |target| of_target(target, group, until, now))
    };
    groups.iter().map(of_group).min_by_key(rank).unwrap_or(Standing::Absent)
}

/// Our groups through which requests may come to `server`.
fn groups_of<'a>(view: &'a BalancerView, stack: &Stack, server: &ServerId) -> Vec<(&'a TargetGroup, bool)> {
    let mut groups = Vec::new();
    for group in &view.target_groups {
        let Owner::Ours { server: owner, .. } = &group.owner else { continue };
        if !naming::made_for(group, stack, &view.listener.arn, owner.as_deref()) {
            continue;
        }
        let shared = owner.is_none();
        let forwarded = view.rules.iter().any(|rule| {
            rule.action == RuleAction::Forward(group.arn.clone())
                && matches!(&rule.owner, Owner::Ours { server: Some(of), .. } if of == server.as_str())
        });
        if owner.as_deref() == Some(server.as_str()) || (shared && forwarded) {
            groups.push((group, shared));
        }
    }
    groups
}

fn of_target(target: &Target, group: &TargetGroup, until: Option<Timestamp>, now: Timestamp) -> Standing {
    let reason = target.reason.clone().unwrap_or_default();
    match target.state {
        TargetState::Healthy => Standing::Healthy,
        TargetState::Initial => Standing::Pending(or(reason, "the first health checks are running")),
        TargetState::Unavailable => Standing::Pending(or(reason, "the load balancer could not judge it")),
        TargetState::Unhealthy => Standing::Unhealthy(or(reason, "no reason given")),
        TargetState::Unused if reason.contains("NotRegistered") => Standing::Absent,
        // Stopped instance, unusable address: no check will ever run.
        TargetState::Unused if reason.contains("InvalidState") || reason.contains("IpUnusable") => {
            Standing::Unhealthy(reason)
        }
        TargetState::Unused => Standing::Pending(or(reason, "nothing makes the load balancer check it yet")),
        TargetState::Draining => {
            let delay =
                group.deregistration_delay.known().map_or(DRAIN_DEFAULT, |secs| Span::secs(u64::from(*secs)));
            match until.unwrap_or_else(|| now.after(delay)) {
                until if until > now => Standing::Draining(until),
                _ => Standing::Absent,
            }
        }
    }
}

fn or(reason: String, otherwise: &str) -> String {
    if reason.is_empty() { otherwise.to_owned() } else { reason }
}

/// Of several groups the one through which most may still come counts.
const fn rank(standing: &Standing) -> u8 {
    match standing {
        Standing::Healthy => 0,
        Standing::Pending(_) => 1,
        Standing::Unhealthy(_) => 2,
        Standing::Draining(_) => 3,
        Standing::Unknown(_) => 4,
        Standing::Absent => 5,
    }
}
