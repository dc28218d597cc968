//! What a plan makes of servers that are no containers: how they stand, and what is asked of them by hand.

use mcp_orchestrator::model::balancer::BalancerSeen;
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::ServerId;
use mcp_orchestrator::model::memory::{Intent, Lease, Memory};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{Contact, ContactState, Observed};
use mcp_orchestrator::model::op::{EdgeOp, Op};
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::report::{Row, RowState};
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::world::fake::{Entry, EntryKind, nothing_seen, policy, server};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Timestamp = Timestamp(1_000_000_000);

fn id() -> ServerId {
    ServerId::new("a").unwrap()
}

/// A world in which `a` is served on its port and stands so.
fn seen(contact: Option<Contact>) -> Observed {
    Observed {
        free_ports: None,
        balancer: BalancerSeen::Off("off".to_owned()),
        edges: Some([(id(), HostPort::new(8000).unwrap())].into()),
        contacts: Some(contact.map(|contact| (id(), contact)).into_iter().collect()),
        run: Some("now".to_owned()),
        ..nothing_seen()
    }
}

fn contact(state: ContactState, ends: u32) -> Contact {
    let last = if ends == 0 { String::new() } else { "it exited with code 3".to_owned() };
    Contact { state, uses: BTreeSet::new(), ends: (ends, last) }
}

fn lease() -> Memory {
    let lease = Lease { port: HostPort::new(8000).unwrap(), next: None, since: NOW, fixed: false };
    Memory { leases: [(id(), lease)].into(), ..Memory::default() }
}

fn planned(kind: EntryKind, observed: &Observed, memory: &Memory) -> Plan {
    let server = server(&Entry::new("a", kind, "r/x:1")).unwrap();
    let desired = Desired { servers: [(id(), server)].into(), ..Desired::default() };
    plan(Input { desired: &desired, observed, memory, policy: &policy(0).unwrap(), now: NOW })
}

fn row(plan: &Plan) -> &Row {
    &plan.report.servers[&id()]
}

fn restarts(plan: &Plan) -> bool {
    plan.actions.iter().any(|action| action.op == Op::Edge(EdgeOp::Restart { server: id() }))
}

fn asked(at: Timestamp) -> Memory {
    let by = "ada".to_owned();
    let intent = Intent { run: true, by, at, until: None, file_enabled: true, restart: Some(at) };
    Memory { intents: [(id(), intent)].into(), ..lease() }
}

#[test]
fn a_restart_by_hand_is_done_once_whatever_state_the_server_is_in() {
    let failed = ContactState::Failed { why: "no".to_owned(), next_try: NOW.after(Span::secs(60)) };
    let states = [
        ContactState::Up,
        ContactState::Starting,
        failed,
        ContactState::Left("it ended".to_owned()),
        ContactState::GaveUp("it ended".to_owned()),
    ];
    for kind in [EntryKind::Process, EntryKind::Remote] {
        for state in &states {
            let observed = seen(Some(contact(state.clone(), 0)));
            let first = planned(kind, &observed, &asked(NOW));
            assert!(restarts(&first), "{state:?}");
            assert_eq!(row(&first).state, RowState::Changing);
            assert_eq!(row(&first).reasons[0].text, "restart asked for by ada");
            let second = planned(kind, &observed, &first.memory);
            assert!(!restarts(&second) && second.memory.intents.is_empty(), "{state:?}");
        }
    }
    // Who keeps no connections cannot do it, and does not forget it.
    let elsewhere = Observed { contacts: None, edges: None, run: None, ..seen(None) };
    let plan = planned(EntryKind::Process, &elsewhere, &asked(NOW));
    assert!(!restarts(&plan) && plan.memory.intents.len() == 1);
}

#[test]
fn how_a_process_stands_decides_what_is_said_of_it() {
    let say = |state: ContactState, ends: u32| {
        let mut observed = seen(Some(contact(state.clone(), ends)));
        if matches!(state, ContactState::Left(_)) {
            // Its port is closed, as that of every server that is stopped.
            observed.edges = Some(BTreeMap::new());
        }
        let plan = planned(EntryKind::Process, &observed, &lease());
        let row = row(&plan).clone();
        let codes: Vec<&str> = row.reasons.iter().filter_map(|reason| reason.code).collect();
        (row.state, codes.join(" "), row.restarts, row.ended)
    };
    assert_eq!(say(ContactState::Up, 0), (RowState::Converged, String::new(), 0, false));
    // An end is told even when it is up again.
    assert_eq!(say(ContactState::Up, 2), (RowState::Converged, "MCPO-P042".to_owned(), 2, false));
    assert_eq!(say(ContactState::Starting, 1), (RowState::Waiting, "MCPO-P042".to_owned(), 1, false));
    let failed = ContactState::Failed { why: "no".to_owned(), next_try: NOW.after(Span::secs(60)) };
    assert_eq!(say(failed, 3), (RowState::Waiting, "MCPO-P043".to_owned(), 2, false));
    let left = ContactState::Left("it exited with code 0 and its restart policy leaves it so".to_owned());
    assert_eq!(say(left, 1), (RowState::Stopped, String::new(), 0, true));
    let gave_up = ContactState::GaveUp("gave up".to_owned());
    assert_eq!(say(gave_up, 4), (RowState::Blocked, "MCPO-P041".to_owned(), 3, false));
}

#[test]
fn a_try_that_is_under_way_is_not_looked_at_again_and_again() {
    let look = |next_try: Timestamp| {
        let failed = ContactState::Failed { why: "no".to_owned(), next_try };
        let plan = planned(EntryKind::Process, &seen(Some(contact(failed, 1))), &lease());
        (plan.next_look, row(&plan).next_try, row(&plan).state)
    };
    let later = NOW.after(Span::secs(60));
    assert_eq!(look(later), (Some(later), Some(later), RowState::Waiting));
    let soon = Some(NOW.after(Span::secs(1)));
    assert_eq!(look(NOW), (soon, None, RowState::Waiting));
    assert_eq!(look(Timestamp(NOW.0 - 3_000)), (soon, None, RowState::Waiting));
}
