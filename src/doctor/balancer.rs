//! Verdicts on the load balancer: what it is set to, and what it says of our targets.

use crate::doctor::Check;
use crate::model::id::ServerId;
use std::collections::BTreeMap;

/// Targets named in one line.
const NAMED_MAX: usize = 5;

/// The balancer's idle timeout against the time between two signs of life on our streams, in seconds.
#[must_use]
pub fn idle_timeout(idle: u64, keep_alive: u64) -> Check {
    let said = format!("idle timeout {idle} s, our streams say something every {keep_alive} s");
    if idle <= keep_alive {
        let remedy = format!(
            "set the load balancer's idle_timeout.timeout_seconds above {keep_alive}: it cuts every quiet stream"
        );
        return Check::fail("alb", said, remedy);
    }
    if idle < keep_alive * 2 {
        return Check::warn(
            "alb",
            said,
            "one late sign of life is enough to be cut off: set it to 60 or more",
        );
    }
    Check::ok("alb", said)
}

/// A target of a server as the balancer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// The server.
    pub server: ServerId,
    /// `healthy`, `unhealthy`, `initial`, `draining`, `unused`, `unavailable`.
    pub state: String,
    /// The reason code, such as `Target.Timeout`; empty when healthy.
    pub reason: String,
}

/// This host's targets: one line for each reason.
#[must_use]
pub fn targets(found: &[TargetFacts], expected: usize) -> Vec<Check> {
    if found.is_empty() && expected > 0 {
        let remedy = "start the daemon (`systemctl start mcp-orchestrator`), then look at `status`";
        return vec![Check::warn(
            "targets",
            format!("this host is registered for none of {expected} servers"),
            remedy,
        )];
    }
    let mut by_reason: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for target in found.iter().filter(|target| target.state != "healthy") {
        by_reason.entry((&target.state, &target.reason)).or_default().push(target.server.as_str());
    }
    let healthy = found.iter().filter(|target| target.state == "healthy").count();
    let mut checks =
        vec![Check::ok("targets", format!("{healthy} of {} targets of this host are healthy", found.len()))];
    for ((state, reason), servers) in by_reason {
        checks.push(unwell(state, reason, &servers));
    }
    if checks.len() > 1 && healthy == 0 {
        checks.remove(0);
    }
    checks
}

fn unwell(state: &str, reason: &str, servers: &[&str]) -> Check {
    let shown: Vec<&str> = servers.iter().take(NAMED_MAX).copied().collect();
    let more = servers.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let said = format!("{state} ({reason}): {}{more}", shown.join(", "));
    let remedy = match reason {
        "Target.Timeout" => {
            "nothing comes back: let the balancer's security group in on the port range, and look at [gateway] host and allowed_sources"
        }
        "Target.ResponseCodeMismatch" => {
            "it answers, but not with success: set orchestrator.health.path, or look at `why NAME`"
        }
        "Target.FailedHealthChecks" => {
            "the connection is refused or cut: is the server up (`status`), is the port one of [gateway] host?"
        }
        "Elb.InternalError" => "the balancer's own fault: look at the AWS health dashboard",
        "Target.NotInUse" => {
            "its target group has no rule, or its zone is not enabled on the balancer: look at `plan`"
        }
        "Target.InvalidState" => "the instance is stopping or stopped",
        "Target.IpUnusable" => "the address is the balancer's own or not of its VPC: look at [aws] target_id",
        "Target.NotRegistered" => "look at `plan`: the next pass registers it",
        "Target.DeregistrationInProgress" => "it is leaving; wait for the deregistration delay",
        "Elb.RegistrationInProgress" | "Elb.InitialHealthChecking" => "wait for the first health checks",
        _ => "look at `why NAME`",
    };
    match state {
        "initial" | "draining" => Check::warn("targets", said, remedy),
        "unavailable" => Check { remedy: Some(remedy.to_owned()), ..Check::unknown("targets", said) },
        _ => Check::fail("targets", said, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{TargetFacts, idle_timeout, targets};
    use crate::doctor::Verdict;
    use crate::model::id::ServerId;

    #[test]
    fn streams_outlive_the_idle_timeout() {
        let verdicts = [10, 15, 20, 60].map(|idle| idle_timeout(idle, 15).verdict);
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Fail, Verdict::Warn, Verdict::Ok]);
    }

    #[test]
    fn reasons_are_symptoms() {
        let target = |server: &str, state: &str, reason: &str| TargetFacts {
            server: ServerId::new(server).unwrap(),
            state: state.into(),
            reason: reason.into(),
        };
        let found = [
            target("a", "healthy", ""),
            target("b", "unhealthy", "Target.Timeout"),
            target("c", "unhealthy", "Target.Timeout"),
            target("d", "initial", "Elb.InitialHealthChecking"),
        ];
        let checks = targets(&found, 4);
        let said: Vec<(Verdict, &str)> =
            checks.iter().map(|check| (check.verdict, check.evidence.as_str())).collect();
        let expected = [
            (Verdict::Ok, "1 of 4 targets of this host are healthy"),
            (Verdict::Warn, "initial (Elb.InitialHealthChecking): d"),
            (Verdict::Fail, "unhealthy (Target.Timeout): b, c"),
        ];
        assert_eq!(said, expected);
        assert!(checks[2].remedy.as_ref().unwrap().contains("security group"));
        assert_eq!(targets(&[], 3)[0].verdict, Verdict::Warn);
        assert_eq!(targets(&[], 0)[0].verdict, Verdict::Ok);
    }
}
