//! Facts about AWS: credentials, clock, who this host is, the balancer and our targets.

use crate::alb::{self, Alb, checkup};
use crate::daemon::doctor::Case;
use crate::daemon::now;
use crate::doctor::balancer::{TargetFacts, idle_timeout, targets};
use crate::doctor::{Check, judge};
use crate::gateway::streams::KEEP_ALIVE;
use crate::model::balancer::{BalancerView, Owner};
use crate::model::id::ServerId;
use crate::model::observed::Seen;
use crate::world::{Balancer as _, ErrorKind, TargetsToRead, WorldError};

/// Codes by which AWS refuses whoever asks, not what is asked.
const REFUSED: [&str; 10] = [
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "InvalidAccessKeyId",
];
/// What the shipped policy allows.
const POLICY: &str = "attach the shipped IAM policy (docs/operations.md) to the instance's role";

pub(super) async fn checks(case: &Case<'_>) -> Vec<Check> {
    if !case.home.settings.balancer_on() {
        return vec![Check::ok("alb", "no load balancer is configured")];
    }
    let config = case.home.alb_config();
    let sdk = alb::sdk_config(&config).await;
    let endpoint = config.endpoint_url.clone();
    let balancer = Alb::new(config, &sdk);
    let (credentials, date, id) = tokio::join!(
        checkup::credentials(&sdk),
        checkup::date(&sdk, endpoint.as_deref()),
        balancer.target_id()
    );
    let mut checks = vec![match &credentials {
        Ok(said) => Check::ok("credentials", format!("AWS: {said}")),
        Err(error) => {
            Check::fail("credentials", error.to_string(), "give the instance a role, or set AWS_PROFILE")
        }
    }];
    checks.push(match date {
        Ok(time) => judge::aws_clock(now().0.saturating_sub(time.0)),
        Err(error) => Check::unknown("clock", error.to_string()),
    });
    checks.push(match id {
        Ok(id) => Check::ok("imds", format!("this host is {id}")),
        Err(error) => Check::fail(
            "imds",
            error.to_string(),
            "allow IMDSv2 with a hop limit of 2, or set [aws] target_id",
        ),
    });
    if credentials.is_err() {
        checks.push(Check::unknown("alb", "not asked without credentials"));
        return checks;
    }
    checks.extend(of_balancer(case, &balancer).await);
    checks
}

async fn of_balancer(case: &Case<'_>, balancer: &Alb) -> Vec<Check> {
    let servers: Vec<ServerId> = case.servers().map(|server| server.id.clone()).collect();
    let read = TargetsToRead { servers: servers.clone(), rotating: 0 };
    let (idle, view) = tokio::join!(balancer.idle_timeout(), balancer.view(&read));
    let mut checks = vec![match idle {
        Ok(idle) => idle_timeout(idle, KEEP_ALIVE.as_secs()),
        Err(error) => failed(&error),
    }];
    match view {
        Ok(view) => {
            let listener = &view.listener;
            let said =
                format!("{} listener on port {} of {}", listener.protocol, listener.port, listener.dns_name);
            checks.push(Check::ok("alb", said));
            checks.extend(of_targets(&view, servers.len()));
        }
        Err(error) => checks.push(failed(&error)),
    }
    // Both questions begin with the listener: what is wrong there is told once.
    checks.dedup();
    checks
}

fn failed(error: &WorldError) -> Check {
    if error.kind == ErrorKind::Denied && REFUSED.iter().any(|code| error.cause.contains(code)) {
        let remedy = "AWS does not take these credentials: look at clock, key and `aws sts get-caller-identity`; a role of the instance renews itself";
        return Check::fail("credentials", error.to_string(), remedy);
    }
    let remedy = match error.kind {
        ErrorKind::Denied => POLICY,
        ErrorKind::NotFound => "look at [aws] listener_arn, alb_arn and region",
        ErrorKind::Unreachable | ErrorKind::TimedOut => "look at network, proxy and [aws] endpoint_url",
        _ => "try again; `journalctl -u mcp-orchestrator` has the answers",
    };
    Check::fail("alb", error.to_string(), remedy)
}

fn of_targets(view: &BalancerView, expected: usize) -> Vec<Check> {
    let Seen::Known(own) = &view.target_id else {
        return vec![Check::unknown("targets", "which of them are this host's is not known")];
    };
    let mut found = Vec::new();
    let mut unread = 0;
    for group in &view.target_groups {
        let Owner::Ours { server: Some(server), .. } = &group.owner else { continue };
        let Ok(server) = ServerId::new(server) else { continue };
        match &group.targets {
            Seen::Unknown(_) => unread += 1,
            Seen::Known(targets) => {
                for target in targets.iter().filter(|target| target.id == *own) {
                    let reason = target.reason.clone().unwrap_or_default();
                    let reason = reason.split(':').next().unwrap_or_default().to_owned();
                    let state = target.state.word().to_owned();
                    found.push(TargetFacts { server: server.clone(), state, reason });
                }
            }
        }
    }
    let mut checks = targets(&found, expected);
    if unread > 0 {
        checks.push(Check::unknown("targets", format!("{unread} target groups could not be read")));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::failed;
    use crate::world::{ErrorKind, WorldError};

    #[test]
    fn who_is_refused_is_told_from_what_is_refused() {
        let of = |kind, cause: &str| {
            let check = failed(&WorldError::new("reading the listener", kind, cause.to_owned()));
            (check.topic, check.remedy.unwrap_or_default())
        };
        let (topic, remedy) = of(ErrorKind::Denied, "ExpiredTokenException: The security token is expired");
        assert!(topic == "credentials" && remedy.contains("sts get-caller-identity"), "{remedy}");
        let (topic, remedy) = of(ErrorKind::Denied, "AccessDenied: not authorized to perform: Describe");
        assert!(topic == "alb" && remedy.contains("IAM policy"), "{remedy}");
        let (topic, remedy) = of(ErrorKind::NotFound, "ListenerNotFound");
        assert!(topic == "alb" && remedy.contains("listener_arn"), "{remedy}");
    }
}
