//! The load balancer as values: what was seen on one listener, and the effects a plan may ask for.
//!
//! Standard terms are `ELBv2`'s. Must never know an SDK type; `crate::alb` translates.

use crate::model::id::{RuleArn, ServerId, TargetGroupArn};
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::server::Transport;
use crate::model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tag, beside those of [`crate::model::mark`]: since when a target group has no targets, in
/// milliseconds since the epoch. Written once, taken away by whoever registers.
pub const EMPTY_SINCE_TAG: &str = "io.mcp-orchestrator.empty-since";
/// Start of the tag, one per host, with which a host says what it wants of a shared rule: the rest
/// of the key is the host's target id, the value its spec hash.
pub const HOST_TAG_PREFIX: &str = "io.mcp-orchestrator.host.";

/// What a pass knows about the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalancerSeen {
    /// No listener is configured; the reason in words.
    Off(String),
    /// Configured; what was seen, or why nothing was. Nothing is deleted on an Unknown.
    On(Seen<Box<BalancerView>>),
}

/// One listener, its rules, and our target groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerView {
    /// The listener.
    pub listener: Listener,
    /// Every rule but the default one, by ascending priority.
    pub rules: Vec<Rule>,
    /// Target groups whose name or tags make them ours or in the way of ours.
    pub target_groups: Vec<TargetGroup>,
    /// How many target groups the load balancer uses, ours and others', over all its listeners.
    pub target_groups_in_use: usize,
    /// What identifies this host in a target group: instance id or IP address.
    pub target_id: Seen<String>,
}

/// A listener and what is needed of its load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listener's ARN.
    pub arn: String,
    /// `HTTP` or `HTTPS`.
    pub protocol: String,
    /// Its port.
    pub port: u16,
    /// The load balancer's ARN.
    pub load_balancer_arn: String,
    /// The load balancer's DNS name.
    pub dns_name: String,
    /// The load balancer's VPC.
    pub vpc_id: String,
}

/// Who an AWS object belongs to, by its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ours: this stack. `server` is `None` for objects shared by all servers of the stack.
    Ours {
        /// The server id in the tag, as text: it may no longer be a valid id.
        server: Option<String>,
        /// The spec hash in the tag.
        spec_hash: Option<String>,
    },
    /// Somebody else's: no tag of ours, or another stack's.
    Foreign,
}

/// A listener rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its ARN.
    pub arn: RuleArn,
    /// 1 to 50000.
    pub priority: u32,
    /// Whose it is.
    pub owner: Owner,
    /// Its conditions.
    pub conditions: Conditions,
    /// Where it sends requests.
    pub action: RuleAction,
    /// Its url-rewrite transforms, in order; anything else that transforms makes it `other`.
    pub rewrites: Vec<Rewrite>,
}

/// Conditions of a rule, as far as ours have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Values of the path-pattern condition, as set.
    pub paths: Vec<String>,
    /// Other conditions in words; ours have none.
    pub other: Vec<String>,
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Forward to one target group.
    Forward(TargetGroupArn),
    /// Anything else, in words.
    Other(String),
}

/// One url-rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Regular expression over path and query.
    pub regex: String,
    /// Replacement.
    pub replace: String,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: TargetGroupArn,
    /// Its name: unique in account and region.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// What cannot be changed after creation.
    pub fixed: TargetGroupFixed,
    /// Its health check.
    pub check: HealthCheck,
    /// `deregistration_delay.timeout_seconds`, where it was read.
    pub deregistration_delay: Seen<u32>,
    /// Load balancers that use it.
    pub load_balancers: Vec<String>,
    /// Its targets, where they were read in this pass.
    pub targets: Seen<Vec<Target>>,
    /// Tags of ours beside the owner's, such as the time since when it has no targets.
    pub tags: BTreeMap<String, String>,
}

/// Settings of a target group that cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetGroupFixed {
    /// Always `HTTP` for ours.
    pub protocol: String,
    /// The default port, which every target of ours overrides.
    pub port: u16,
    /// The VPC.
    pub vpc_id: String,
    /// `instance` or `ip`.
    pub target_type: String,
}

/// A target group's health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Path that is asked with GET.
    pub path: String,
    /// HTTP codes that pass, such as `200` or `200-499`.
    pub matcher: String,
    /// Seconds between checks, 5 to 300.
    pub interval: u32,
    /// Seconds for one check, 2 to 120 and below the interval.
    pub timeout: u32,
    /// Passes in a row, 2 to 10.
    pub healthy_threshold: u32,
    /// Failures in a row, 2 to 10.
    pub unhealthy_threshold: u32,
}

/// A target in a target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Instance id or IP address.
    pub id: String,
    /// Its port.
    pub port: u16,
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining`, `unavailable`.
    pub state: TargetState,
    /// AWS's reason code and text, when it has one.
    pub reason: Option<String>,
}

/// Target health states of `ELBv2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Registered, not checked yet.
    Initial,
    /// Passing its checks.
    Healthy,
    /// Failing its checks.
    Unhealthy,
    /// Not used by any listener, or in a zone that is off.
    Unused,
    /// Deregistered, connections end.
    Draining,
    /// Health could not be determined, or is off.
    Unavailable,
}

impl TargetState {
    /// The word that AWS has for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What one server wants of the load balancer in this pass; decided by the container half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWant {
    /// The server.
    pub server: ServerId,
    /// Who answers on the ports.
    pub kind: RouteKind,
    /// Ports of this host that must be registered; every other port of this host in the server's
    /// target group is deregistered. Empty while draining, and for a server whose edge port no
    /// daemon serves.
    pub ports: Vec<HostPort>,
    /// `orchestrator.health.path`.
    pub health_path: Option<String>,
}

/// Who answers on a server's host port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// The daemon's edge listener: it serves `/mcp/{id}` itself, health on `/healthz`.
    Edge,
    /// The container: the rule rewrites `/mcp/{id}` to its own endpoint.
    Direct {
        /// `http` or `sse`.
        transport: Transport,
        /// Path of its MCP endpoint.
        path: String,
    },
}

/// Where this host's target for a port of a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no load balancer, or the port is not registered (or drained): nothing can reach it
    /// that way. With a load balancer configured, a port that is yet to be registered is this too.
    Absent,
    /// Registered; the balancer has not judged it yet, or there is nothing that makes it judge.
    Pending(String),
    /// Registered and healthy.
    Healthy,
    /// Registered and not healthy, with AWS's reason.
    Unhealthy(String),
    /// Deregistered; connections may last until then.
    Draining(Timestamp),
    /// Not known, and why.
    Unknown(String),
}

/// What the balancer half keeps between passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerMemory {
    /// The last known target id of this host (IMDS may be down at boot).
    pub target_id: Option<String>,
    /// Until when connections to a port that was deregistered may last: `server:port`.
    pub draining: BTreeMap<String, Timestamp>,
    /// Since when a target group of ours was seen without targets, by name.
    pub empty_since: BTreeMap<String, Timestamp>,
    /// Ports of this host that were seen registered as wanted at the last reading, so that a pass
    /// need not read every target group.
    #[serde(default)]
    pub registered: BTreeMap<ServerId, Vec<HostPort>>,
}

/// Settings of the balancer half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerPolicy {
    /// `instance` or `ip`.
    pub target_type: String,
    /// How long connections may last after deregistration.
    pub deregistration_delay: Span,
    /// How long a rule and target group without targets wait before they go.
    pub gc_grace: Span,
    /// Lowest priority number for our rules.
    pub priority_start: u32,
    /// Highest priority number for our rules.
    pub priority_end: u32,
    /// Target groups one load balancer may have (fixed at 100 by AWS).
    pub target_groups_max: usize,
    /// Port of the shared listener (`[gateway] port`), for the shared-target-group mode.
    pub shared_port: Option<HostPort>,
    /// This host is to leave every target group.
    pub leaving: bool,
}

/// One effect on the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalancerOp {
    /// `CreateTargetGroup`, tagged.
    CreateTargetGroup {
        /// Deterministic name.
        name: String,
        /// Immutable settings.
        fixed: TargetGroupFixed,
        /// Health check.
        check: HealthCheck,
        /// Tags set in the call.
        tags: BTreeMap<String, String>,
    },
    /// `ModifyTargetGroup`: health check.
    SetHealthCheck {
        /// Which.
        group: GroupRef,
        /// The new check.
        check: HealthCheck,
    },
    /// `ModifyTargetGroupAttributes`: deregistration delay.
    SetDeregistrationDelay {
        /// Which.
        group: GroupRef,
        /// Seconds.
        seconds: u32,
    },
    /// `AddTags` and `RemoveTags` on a target group: what hosts tell each other, never the owner.
    SetTags {
        /// Which.
        group: GroupRef,
        /// Tags to set.
        set: BTreeMap<String, String>,
        /// Keys to take away.
        remove: Vec<String>,
    },
    /// `RegisterTargets` for this host's own ports.
    Register {
        /// Where.
        group: GroupRef,
        /// This host.
        target_id: String,
        /// Its ports.
        ports: Vec<HostPort>,
    },
    /// `DeregisterTargets` for this host's own ports.
    Deregister {
        /// Where.
        group: GroupRef,
        /// This host.
        target_id: String,
        /// Its ports.
        ports: Vec<HostPort>,
    },
    /// `CreateRule`, tagged.
    CreateRule {
        /// On which listener.
        listener_arn: String,
        /// Its priority.
        priority: u32,
        /// Path patterns.
        paths: Vec<String>,
        /// Where to.
        group: GroupRef,
        /// Url rewrites, at most one.
        rewrites: Vec<Rewrite>,
        /// Tags set in the call.
        tags: BTreeMap<String, String>,
    },
    /// `ModifyRule`: conditions, action and transforms at once.
    ModifyRule {
        /// Which.
        rule: RuleArn,
        /// Path patterns.
        paths: Vec<String>,
        /// Where to.
        group: GroupRef,
        /// Url rewrites; empty resets them.
        rewrites: Vec<Rewrite>,
        /// Tags to set beside it, such as the new spec hash.
        tags: BTreeMap<String, String>,
    },
    /// `SetRulePriorities` in one call.
    SetPriorities {
        /// Rule and new priority.
        moves: Vec<(RuleArn, u32)>,
    },
    /// `DeleteRule`; gone already is success.
    DeleteRule {
        /// Which.
        rule: RuleArn,
    },
    /// `DeleteTargetGroup`; gone already is success, in use leaves it for the next pass.
    DeleteTargetGroup {
        /// Which.
        group: TargetGroupArn,
        /// Its name, for people.
        name: String,
    },
}

/// Which target group an operation means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRef {
    /// One that was seen.
    Arn(TargetGroupArn),
    /// One that an earlier action of the same plan makes, by name.
    Planned(String),
}

impl GroupRef {
    /// The target group's name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            // arn:aws:elasticloadbalancing:…:targetgroup/<name>/<id>
            Self::Arn(arn) => arn.as_str().split('/').nth(1).unwrap_or(arn.as_str()),
            Self::Planned(name) => name,
        }
    }
}

impl RuleArn {
    /// The last part of the ARN, for people.
    #[must_use]
    pub fn tail(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or(self.as_str())
    }
}

impl BalancerSeen {
    /// Configured, but not read.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::On(Seen::Unknown(_)))
    }
}
