//! The port ledger: keep, then rebuild from labels, then lowest free. A port never changes while
//! its server exists, except when something else on the host took it, in two phases.
//!
//! Must never lease a port that was not seen to be free, and never one port to two servers.

use crate::model::id::ServerId;
use crate::model::memory::Lease;
use crate::model::net::HostPort;
use crate::model::observed::{Question, Seen};
use crate::model::server::{Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::plan::draft::Draft;
use crate::plan::report::{Reason, ReasonKind};
use std::collections::BTreeSet;

/// How long a lease taken by something else waits for it to go away.
const TAKEN_GRACE: Span = Span::secs(10);

/// Brings the ledger up to date.
pub(crate) fn lease(draft: &mut Draft<'_>) {
    rebuild(draft);
    forget(draft);
    // Clients of further instances come in by their server's port.
    draft.memory.leases.retain(|id, _| id.replica_number() == 1);
    let first = |server: &&Server| server.id.replica_number() == 1;
    let servers: Vec<&Server> = draft.input.desired.servers.values().filter(first).collect();
    for server in &servers {
        if let Some(port) = fixed_port(server) {
            lease_fixed(draft, server, port);
        }
    }
    for server in servers {
        let new = !draft.memory.leases.contains_key(&server.id);
        if new && fixed_port(server).is_none() && wants_port(draft, server) {
            if let Some(port) = lowest_free(draft, &server.id) {
                let since = draft.input.now;
                draft
                    .memory
                    .leases
                    .insert(server.id.clone(), Lease { port, next: None, since, fixed: false });
            }
        } else {
            if let Some(lease) =
                draft.memory.leases.get_mut(&server.id).filter(|_| fixed_port(server).is_none())
            {
                lease.fixed = false;
            }
            move_taken(draft, &server.id);
        }
    }
}

/// A server that is not to run gets its port when it first runs.
fn wants_port(draft: &Draft<'_>, server: &Server) -> bool {
    use crate::plan::runs::{Want, want};
    !matches!(want(draft.input.policy, &draft.memory, server), Want::Stop { .. })
}

/// `-p H:C` of a container.
fn fixed_port(server: &Server) -> Option<HostPort> {
    match &server.kind {
        ServerKind::Container(decl) => decl.mcp_port.as_ref().and_then(|port| port.host_port),
        ServerKind::Process(_) | ServerKind::Remote(_) => None,
    }
}

/// Labels are enough: a lost ledger comes back from the containers.
fn rebuild(draft: &mut Draft<'_>) {
    let now = draft.input.now;
    let found: Vec<(ServerId, HostPort)> = draft
        .fleet
        .groups
        .iter()
        .filter(|(id, _)| !draft.memory.leases.contains_key(id))
        .filter_map(|(id, group)| {
            let port = group.all().find_map(|container| container.mark.as_ref()?.port)?;
            Some((id.clone(), port))
        })
        .collect();
    for (id, port) in found {
        if holder(draft, port).is_none() {
            draft.memory.leases.insert(id, Lease { port, next: None, since: now, fixed: false });
        }
    }
}

/// Drops leases of servers that no entry claims and that have nothing left on the engine.
fn forget(draft: &mut Draft<'_>) {
    if draft.keep_unclaimed || !draft.report.engine_known {
        return;
    }
    let (desired, groups) = (draft.input.desired, &draft.fleet.groups);
    draft.memory.leases.retain(|id, _| desired.claims(id) || groups.contains_key(id));
    draft.memory.attempts.retain(|id, _| desired.claims(id) || groups.contains_key(id));
    draft.memory.pins.retain(|id, _| desired.claims(id) || groups.contains_key(id));
}

/// Who holds `port`.
fn holder(draft: &Draft<'_>, port: HostPort) -> Option<ServerId> {
    let holds = |lease: &Lease| lease.port == port || lease.next == Some(port);
    draft.memory.leases.iter().find(|(_, lease)| holds(lease)).map(|(id, _)| id.clone())
}

/// The file chose the port: a conflict is this server's error.
fn lease_fixed(draft: &mut Draft<'_>, server: &Server, port: HostPort) {
    if let Some(other) = holder(draft, port).filter(|other| *other != server.id) {
        let text =
            format!("host port {port} is leased to {other}; choose another port or leave it to the range");
        draft.block(&server.id, "MCPO-P010", text);
        return;
    }
    let since = draft
        .memory
        .leases
        .get(&server.id)
        .filter(|lease| lease.port == port)
        .map_or(draft.input.now, |l| l.since);
    draft.memory.leases.insert(server.id.clone(), Lease { port, next: None, since, fixed: true });
}

/// What came of looking for a port.
pub(crate) enum Free {
    /// The lowest one that is free, not leased and not chosen by an entry.
    Port(HostPort),
    /// None is.
    None,
    /// Not known yet, and why.
    Unknown(String),
}

/// Looks for a port; asks where that is needed.
pub(crate) fn free_port(draft: &mut Draft<'_>) -> Free {
    let free = match &draft.input.observed.free_ports {
        None => {
            draft.ask(Question::FreePorts);
            return Free::Unknown("the free ports of this host".to_owned());
        }
        Some(Seen::Unknown(why)) => return Free::Unknown(format!("the free ports of this host: {why}")),
        Some(Seen::Known(free)) => free,
    };
    if draft.taken_ports.is_none() {
        draft.taken_ports = Some(taken(draft));
    }
    let range = draft.input.policy.ports;
    let taken = draft.taken_ports.get_or_insert_default();
    // What was passed over in this plan stays taken: the search goes on where the last one ended.
    let mut rest = free.iter().enumerate().skip(draft.free_ports_seen);
    let found = rest.find(|(_, port)| range.contains(**port) && !taken.contains(port));
    let Some((index, port)) = found else { return Free::None };
    draft.free_ports_seen = index + 1;
    Free::Port(*port)
}

/// Ports that are leased, published by somebody's container, or chosen by an entry.
fn taken(draft: &Draft<'_>) -> BTreeSet<HostPort> {
    let leases = draft.memory.leases.values().flat_map(|lease| [Some(lease.port), lease.next]).flatten();
    let published = draft.fleet.names.values().flat_map(|container| container.host_ports.iter().copied());
    let fixed = draft.input.desired.servers.values().filter_map(fixed_port);
    leases.chain(published).chain(fixed).collect()
}

/// A port for a server; else the row says why there is none.
fn lowest_free(draft: &mut Draft<'_>, id: &ServerId) -> Option<HostPort> {
    let found = free_port(draft);
    port_or_reason(draft, id, found)
}

fn port_or_reason(draft: &mut Draft<'_>, id: &ServerId, found: Free) -> Option<HostPort> {
    match found {
        Free::Port(port) => Some(port),
        Free::Unknown(why) => {
            draft.wait(id, why, None);
            None
        }
        Free::None => {
            let (range, leased) = (draft.input.policy.ports, draft.memory.leases.len());
            let text = format!("no port of {range} is free ({leased} leased); widen port_range_end");
            draft.block(id, "MCPO-P011", text);
            None
        }
    }
}

/// Nobody but the other process can make room: the file chose the port, or it is outside a range that is
/// full. The next start tells whether it did.
fn wait_for_fixed(draft: &mut Draft<'_>, id: &ServerId, port: HostPort, since: Timestamp) {
    let next_try = draft.memory.attempts.get(id).and_then(|attempts| attempts.next_try);
    let again = since.after(TAKEN_GRACE).max(next_try.unwrap_or(since));
    if draft.input.now < again {
        let text = format!("host port {port} to be free again (another process listens on it)");
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P012").until(again));
    } else {
        draft.attempts(id).port_taken = None;
    }
}

/// A lease whose port something else holds: wait a little, then move (unless the file chose it).
fn move_taken(draft: &mut Draft<'_>, id: &ServerId) {
    let Some(since) = draft.memory.attempts.get(id).and_then(|attempts| attempts.port_taken) else { return };
    let Some(lease) = draft.memory.leases.get(id).cloned() else { return };
    if lease.fixed {
        return wait_for_fixed(draft, id, lease.port, since);
    }
    // Of an earlier range, or of an entry that chose it once: nobody looks there, and the refusal is all
    // that is known.
    let outside = !draft.input.policy.ports.contains(lease.port);
    let free = match &draft.input.observed.free_ports {
        _ if outside => false,
        Some(Seen::Known(free)) => free.contains(&lease.port),
        Some(Seen::Unknown(_)) => return,
        None => {
            draft.ask(Question::FreePorts);
            return;
        }
    };
    let port = lease.port;
    if free {
        draft.attempts(id).port_taken = None;
        return;
    }
    let moves_at = since.after(TAKEN_GRACE);
    if draft.input.now < moves_at {
        let text =
            format!("host port {port} to be free again (another process listens on it), else a new port");
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P012").until(moves_at));
        return;
    }
    let found = free_port(draft);
    if outside && matches!(found, Free::None) {
        return wait_for_fixed(draft, id, port, since);
    }
    if let Some(new) = port_or_reason(draft, id, found) {
        let now = draft.input.now;
        draft.memory.leases.insert(id.clone(), Lease { port: new, next: None, since: now, fixed: false });
        let attempts = draft.attempts(id);
        (attempts.port_taken, attempts.failed_spec, attempts.next_try) = (None, None, None);
        let text = format!("another process took host port {port}: moved to {new}");
        draft.say(id, Reason::new(ReasonKind::ChangedBecause, text).code("MCPO-P012"));
    }
}
