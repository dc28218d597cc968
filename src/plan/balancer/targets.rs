//! This host's targets, and never another host's.
//!
//! New ports are registered before old ones leave. A deregistered port may see requests until the
//! delay has passed, so its end is remembered: the container half stops nothing before it.

use crate::model::balancer::{BalancerOp, Target, TargetGroup, TargetState};
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::time::{Span, Timestamp};
use crate::plan::balancer::draft::Draft;
use crate::plan::balancer::groups::Group;
use crate::plan::balancer::route::Route;
use crate::plan::balancer::{HOSTS_DIFFER, NoteKind, OUTAGE};

/// What the key of a draining port of the shared group has instead of a server id.
pub(super) const SHARED_KEY: &str = "*";

/// How long the end of a drain is remembered while its port may still be listed: a listing that is
/// late must not make the wait begin anew.
const DRAIN_KEPT: Span = Span::secs(3600);

/// Ports of `target_id` in `targets`: in use, then draining.
pub(super) fn own_ports(targets: &[Target], target_id: &str) -> (Vec<HostPort>, Vec<HostPort>) {
    let own = targets.iter().filter(|target| target.id == target_id);
    let (draining, used): (Vec<&Target>, Vec<&Target>) =
        own.partition(|target| target.state == TargetState::Draining);
    let ports = |targets: Vec<&Target>| {
        let mut ports: Vec<HostPort> =
            targets.into_iter().filter_map(|target| HostPort::new(target.port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    (ports(used), ports(draining))
}

/// Key of [`crate::model::balancer::BalancerMemory::draining`].
pub(super) fn drain_key(server: &str, port: HostPort) -> String {
    format!("{server}:{port}")
}

/// Registers the wanted ports that are missing; says which steps the rule should wait for.
pub(super) fn register(
    draft: &mut Draft<'_>,
    route: &Route,
    group: &Group<'_>,
    target_id: &str,
    held: bool,
) -> Vec<usize> {
    let server = &route.server;
    let missing = match group.seen.map(|seen| (&seen.targets, seen)) {
        None => route.ports.clone(),
        Some((Seen::Unknown(_), seen)) => return unread(draft, route, seen),
        Some((Seen::Known(targets), _)) => {
            report_outage(draft, server, targets);
            let (used, _) = own_ports(targets, target_id);
            route.ports.iter().copied().filter(|port| !used.contains(port)).collect()
        }
    };
    if missing.is_empty() {
        draft.memory.registered.insert(server.clone(), route.ports.clone());
        return Vec::new();
    }
    draft.memory.registered.remove(server);
    if held {
        let text = format!("{} not registered: the rule is as another host wants it", ports_text(&missing));
        draft.note(server, NoteKind::Blocked, text, Some(HOSTS_DIFFER));
        return Vec::new();
    }
    for port in &missing {
        draft.memory.draining.remove(&drain_key(server.as_str(), *port));
    }
    let why = format!("{} should be registered in {}", ports_text(&missing), group.home.name);
    let op =
        BalancerOp::Register { group: group.to.clone(), target_id: target_id.to_owned(), ports: missing };
    vec![draft.step(Some(server), op, why, group.ready.clone())]
}

/// Without a reading, what was seen at the last one counts, unless the want has changed since, or
/// somebody waits for what a reading would show.
fn unread(draft: &mut Draft<'_>, route: &Route, seen: &TargetGroup) -> Vec<usize> {
    let known = draft.input.memory.registered.get(&route.server);
    let prefix = format!("{}:", route.server);
    let mut drains =
        draft.input.memory.draining.iter().filter(|(key, _)| key.starts_with(&prefix)).peekable();
    let nothing_to_do =
        known.map_or(route.ports.is_empty() && drains.peek().is_none(), |ports| *ports == route.ports);
    let over = drains.any(|(_, until)| *until <= draft.input.now);
    if !nothing_to_do {
        draft.must_read(&route.server);
        let text = format!("the targets of {} were not read in this pass", seen.name);
        draft.note(&route.server, NoteKind::Waiting, text, None);
    } else if over || route.ports.len() > 1 {
        // A drain should be over, or one port takes the place of another.
        draft.read_next.insert(route.server.clone());
    }
    Vec::new()
}

/// The load balancer forwards to all targets when none is healthy; that is an outage, not a success.
fn report_outage(draft: &mut Draft<'_>, server: &ServerId, targets: &[Target]) {
    let mut live = targets.iter().filter(|target| target.state != TargetState::Draining).peekable();
    if live.peek().is_none() {
        return;
    }
    let live: Vec<&Target> = live.collect();
    if live.iter().all(|target| target.state == TargetState::Unhealthy) {
        let reason = live
            .iter()
            .find_map(|target| target.reason.clone())
            .unwrap_or_else(|| "no reason given".to_owned());
        let text =
            format!("every target is unhealthy ({reason}); the load balancer forwards to them all the same");
        draft.note(server, NoteKind::Advice, text, Some(OUTAGE));
    }
}

/// Registers this host in the shared group, once a plan.
pub(super) fn register_shared<'a>(draft: &mut Draft<'a>, group: &Group<'a>, target_id: &str) -> Vec<usize> {
    if let Some((_, registered)) = &draft.shared {
        return registered.clone();
    }
    let Some(port) = draft.input.policy.shared_port else {
        let text = "servers share a target group, but [gateway] port is not set, so this host is not in it"
            .to_owned();
        draft.say(NoteKind::Blocked, text, None);
        draft.shared = Some((group.clone(), Vec::new()));
        return Vec::new();
    };
    let known = group.seen.map(|seen| &seen.targets);
    let (missing, extra) = match known {
        None => (true, Vec::new()),
        // Its targets are read with those of the first server in it.
        Some(Seen::Unknown(_)) => (false, Vec::new()),
        Some(Seen::Known(targets)) => {
            let (used, _) = own_ports(targets, target_id);
            let leaving = draft.input.policy.leaving;
            let missing = !leaving && !used.contains(&port);
            (missing, used.into_iter().filter(|used| leaving || *used != port).collect())
        }
    };
    let mut registered = Vec::new();
    if missing {
        let op = BalancerOp::Register {
            group: group.to.clone(),
            target_id: target_id.to_owned(),
            ports: vec![port],
        };
        draft.memory.draining.remove(&drain_key(SHARED_KEY, port));
        let why = format!("the gateway's port {port} should be registered in {}", group.home.name);
        registered.push(draft.step(None, op, why, group.ready.clone()));
    }
    if !extra.is_empty() {
        leave(draft, None, group, extra, registered.clone());
    }
    draft.shared = Some((group.clone(), registered.clone()));
    registered
}

/// Deregisters this host's ports that are no longer wanted, after the new ones stand.
pub(super) fn deregister(
    draft: &mut Draft<'_>,
    route: &Route,
    group: &Group<'_>,
    target_id: &str,
    after: Vec<usize>,
) {
    let Some(Seen::Known(targets)) = group.seen.map(|seen| &seen.targets) else { return };
    let (used, _) = own_ports(targets, target_id);
    let extra: Vec<HostPort> = used.into_iter().filter(|port| !route.ports.contains(port)).collect();
    if !extra.is_empty() {
        draft.memory.registered.remove(&route.server);
        leave(draft, Some(&route.server), group, extra, after);
    }
}

/// Deregisters `ports` and remembers until when they may be busy.
pub(super) fn leave(
    draft: &mut Draft<'_>,
    server: Option<&ServerId>,
    group: &Group<'_>,
    ports: Vec<HostPort>,
    after: Vec<usize>,
) {
    let Some(target_id) = draft.target_id.clone() else { return };
    let key = server.map_or(SHARED_KEY, ServerId::as_str).to_owned();
    // What the group says now holds when the change of it does not get through before.
    let said = group.seen.and_then(|seen| seen.deregistration_delay.known().copied());
    let said = Span::secs(said.map_or(0, u64::from));
    let until = draft.input.now.after(draft.input.policy.deregistration_delay.max(said));
    for port in &ports {
        draft.memory.draining.insert(drain_key(&key, *port), until);
    }
    draft.look_at(until);
    let why = format!("{} should leave {}", ports_text(&ports), group.home.name);
    let op = BalancerOp::Deregister { group: group.to.clone(), target_id, ports };
    draft.step(server, op, why, after);
}

fn ports_text(ports: &[HostPort]) -> String {
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!("{} {}", if list.len() == 1 { "port" } else { "ports" }, list.join(", "))
}

/// Forgets drains that are over and servers that are gone; waits for the others.
pub(super) fn tidy_memory(draft: &mut Draft<'_>) {
    let now = draft.input.now;
    let mut draining = std::mem::take(&mut draft.memory.draining);
    draining.retain(|key, until| now.since(*until) < DRAIN_KEPT && !is_gone(draft, key, *until));
    for until in draining.values().filter(|until| **until > now) {
        draft.look_at(*until);
    }
    draft.memory.draining = draining;
    let wants = draft.input.wants;
    let groups = &draft.groups;
    draft.memory.registered.retain(|server, ports| {
        wants.contains_key(server) || (ports.is_empty() && groups.contains_key(server.as_str()))
    });
    let names: Vec<&str> = draft.by_name.keys().copied().collect();
    let rules = &draft.rules;
    draft.memory.empty_since.retain(|name, _| {
        names.contains(&name.as_str()) || rules.keys().any(|server| format!("rule:{server}") == *name)
    });
}

/// Whether a port whose drain was remembered in an earlier pass is no longer listed.
fn is_gone(draft: &Draft<'_>, key: &str, until: Timestamp) -> bool {
    let Some((server, port)) = key.rsplit_once(':') else { return true };
    // Planned in this very pass: what was seen is from before.
    if draft.input.memory.draining.get(key) != Some(&until) {
        return false;
    }
    let groups: Vec<&TargetGroup> = if server == SHARED_KEY {
        draft.shared_groups.clone()
    } else {
        draft.groups.get(server).cloned().unwrap_or_default()
    };
    groups.iter().all(|group| {
        group.targets.known().is_some_and(|targets| {
            !targets.iter().any(|target| {
                Some(&target.id) == draft.target_id.as_ref()
                    && target.port.to_string() == port
                    && target.state == TargetState::Draining
            })
        })
    })
}
