//! Numbered invariants of every plan: one implementation for the property tests, the simulator and
//! production, where a broken one refuses the plan, is counted and shown, and stops nothing that
//! runs.
//!
//! | number | holds that |
//! |---|---|
//! | I1 | no container without our mark and stack is stopped, renamed, removed or started |
//! | I2 | no two servers hold one host port, and a published port is the server's own lease |
//! | I3 | with the engine unknown nothing is done on it |
//! | I4 | an action only needs earlier ones |
//! | I5 | a new container's name is free, or freed by an earlier action it needs |
//! | I6 | what a broken entry runs stays as it is |
//! | I7 | with removals held back nothing unclaimed is removed |
//! | I8 | no rule or target group that is not ours is changed |
//! | I9 | the old container of a server that is one is only removed when another of its own is there |
//! | I10 | a server's container with an open edge listener is only stopped beside its running replacement once requests were handed over to that one |
//! | I11 | a leg of this run is only stopped or removed once its sessions were ended |
//! | I12 | a server is only tried to be brought back on a verdict that it does not answer, not an old one, not while it is paused, and not beyond the bounds |
//! | I13 | while this host is drained no target of it is registered |
//! | I14 | a container's memory limit is the declared one, or the one step above it that is allowed |
//! | I15 | a server is only put to sleep by its own `idleTimeout`, when nobody has used it for that long, not while it is paused, and its container is only stopped after the gateway holds its requests |
//! | I16 | no container is made of an instance that no entry asks for, no further instance of a server holds a port or a listener, and of several that run one is replaced at a time |
//!
//! I6, I7 and I9 are about servers: a leg that has ended or whose run is over serves nobody and may
//! always go.

use crate::model::balancer::{BalancerOp, BalancerSeen, GroupRef, Owner};
use crate::model::id::{ContainerId, RuleArn, ServerId, TargetGroupArn};
use crate::model::mark::{Mark, Role};
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerState, Seen};
use crate::model::op::{ContainerRef, EdgeOp, EngineOp, Op};
use crate::model::server::{Server, ServerKind};
use crate::plan::action::Action;
use crate::plan::fleet::main_name;
use crate::plan::oom;
use crate::plan::recovery::{TRIES_MAX, recent};
use crate::plan::runs::{Want, paused, want};
use crate::plan::sweep::is_orphan;
use crate::plan::{Input, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub number: u8,
    /// What breaks it.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant I{}: {}", self.number, self.what)
    }
}

/// Every invariant that `plan` breaks; empty for a plan that may run.
#[must_use]
pub fn check(input: Input<'_>, plan: &Plan) -> Vec<Broken> {
    let desired = input.desired.instances();
    let input = Input { desired: &desired, ..input };
    let mut broken = Vec::new();
    ports(plan, &mut broken);
    let containers: &[Container] = match &input.observed.containers {
        Seen::Known(containers) => containers,
        Seen::Unknown(_) => &[],
    };
    let index_of = Index {
        by_id: containers.iter().map(|c| (c.id.as_str(), c)).collect(),
        by_name: containers.iter().map(|c| (c.name.as_str(), c)).collect(),
        replacements: replacements(input.policy, plan, containers),
    };
    for (index, action) in plan.actions.iter().enumerate() {
        if action.after.iter().any(|after| *after >= index) {
            broken
                .push(Broken { number: 4, what: format!("'{}' needs a later action", action.op.describe()) });
        }
        match &action.op {
            Op::Engine(op) => {
                if input.observed.containers.known().is_none() {
                    broken.push(Broken { number: 3, what: action.op.describe() });
                }
                let_go(input, plan, &index_of, action, op, &mut broken);
                engine(input, plan, &index_of, action, op, &mut broken);
                limit(input, action, op, &mut broken);
            }
            Op::Balancer(op) => {
                if plan.report.drained.is_some() && matches!(op, BalancerOp::Register { .. }) {
                    broken.push(Broken { number: 13, what: action.op.describe() });
                }
                balancer(input, action, op, &mut broken);
            }
            Op::Edge(EdgeOp::Sleep { server, .. }) => {
                if plan.memory.naps.get(server).is_none_or(|nap| nap.awake || !nap.idle) {
                    broken.push(Broken { number: 15, what: action.op.describe() });
                }
            }
            Op::Edge(_) => {}
        }
    }
    naps(input, plan, &mut broken);
    instances(input, plan, &index_of, &mut broken);
    removals(input, plan, &index_of, containers, &mut broken);
    recoveries(input, plan, &mut broken);
    broken
}

/// The containers that were seen, by id and by name.
struct Index<'a> {
    by_id: BTreeMap<&'a str, &'a Container>,
    by_name: BTreeMap<&'a str, &'a Container>,
    /// Running containers behind the gateway that the plan does not stop, by server.
    replacements: BTreeMap<&'a ServerId, Vec<&'a Container>>,
}

impl Index<'_> {
    /// The mark of a leg; `None` for everything else.
    fn leg(&self, id: &ContainerId) -> Option<&Mark> {
        let mark = self.by_id.get(id.as_str())?.mark.as_ref()?;
        (mark.role == Some(Role::Leg)).then_some(mark)
    }
}

fn replacements<'a>(
    policy: &crate::model::policy::Policy,
    plan: &Plan,
    containers: &'a [Container],
) -> BTreeMap<&'a ServerId, Vec<&'a Container>> {
    let stopped: BTreeSet<&str> = plan
        .actions
        .iter()
        .filter_map(|action| match &action.op {
            Op::Engine(EngineOp::Stop(container)) => Some(container.key()),
            _ => None,
        })
        .collect();
    let mut out: BTreeMap<&ServerId, Vec<&Container>> = BTreeMap::new();
    for container in containers.iter().filter(|c| matches!(c.state, ContainerState::Running(_))) {
        // Another stack on this engine may have a server of the same name.
        let server = |mark: &&Mark| mark.stack == policy.stack && mark.role != Some(Role::Leg);
        let Some(mark) = container.mark.as_ref().filter(server) else { continue };
        let behind = mark.route.as_deref() == Some("edge") && !stopped.contains(container.id.as_str());
        if let Some(server) = mark.server.as_ref().filter(|_| behind) {
            out.entry(server).or_default().push(container);
        }
    }
    out
}

/// I10 and I11: the gateway has let go of what is stopped.
#[expect(clippy::too_many_arguments, reason = "all of them are the sentence: what, of whom, why, after what")]
fn let_go(
    input: Input<'_>,
    plan: &Plan,
    seen: &Index<'_>,
    action: &Action,
    op: &EngineOp,
    broken: &mut Vec<Broken>,
) {
    let (EngineOp::Stop(ContainerRef::Id { id, .. })
    | EngineOp::Remove { container: ContainerRef::Id { id, .. }, .. }) = op
    else {
        return;
    };
    let edge_ops = || {
        let before = transitively(plan, action).into_iter();
        before.filter_map(|i| match &plan.actions.get(i)?.op {
            Op::Edge(op) => Some(op),
            _ => None,
        })
    };
    if let Some(mark) = seen.leg(id) {
        let ended = |op: &EdgeOp| matches!(op, EdgeOp::EndLegs { legs, .. } if legs.iter().any(|leg| leg.key() == id.as_str()));
        if !is_orphan(input.observed, mark) && !edge_ops().any(ended) {
            broken.push(Broken { number: 11, what: action.op.describe() });
        }
        return;
    }
    let Some(server) = action.server.as_ref().filter(|_| matches!(op, EngineOp::Stop(_))) else { return };
    let name = main_name(input.policy, server);
    if seen.by_name.get(name.as_str()).is_none_or(|main| main.id != *id) {
        return;
    }
    let sleeps = |server: &Server| {
        let container = matches!(server.kind, ServerKind::Container(_));
        container && want(input.policy, &plan.memory, server) == Want::Sleep
    };
    let held = |op: &EdgeOp| matches!(op, EdgeOp::Sleep { server: of, .. } if of == server);
    if input.desired.servers.get(server).is_some_and(sleeps) && !edge_ops().any(held) {
        broken.push(Broken { number: 13, what: action.op.describe() });
    }
    let open = input.observed.edges.as_ref().is_some_and(|edges| edges.contains_key(&server.server()));
    let Some(new) = seen.replacements.get(server).filter(|_| open) else { return };
    let handed_over = |op: &EdgeOp| {
        matches!(op, EdgeOp::HandOver { server: of, container }
            if of == server && new.iter().any(|new| new.id.as_str() == container.key()))
    };
    if !edge_ops().any(handed_over) {
        broken.push(Broken { number: 10, what: action.op.describe() });
    }
}

fn ports(plan: &Plan, broken: &mut Vec<Broken>) {
    let mut held: BTreeMap<HostPort, &ServerId> = BTreeMap::new();
    for (id, lease) in &plan.memory.leases {
        for port in [Some(lease.port), lease.next].into_iter().flatten() {
            if let Some(other) = held.insert(port, id) {
                broken.push(Broken { number: 2, what: format!("{other} and {id} both hold port {port}") });
            }
        }
    }
}

/// Which container an operation on the engine changes, if it is an existing one.
const fn target(op: &EngineOp) -> Option<&ContainerRef> {
    match op {
        EngineOp::Pull { .. } | EngineOp::Create(_) => None,
        EngineOp::Start(container)
        | EngineOp::Stop(container)
        | EngineOp::Unpause(container)
        | EngineOp::Remove { container, .. }
        | EngineOp::Rename { container, .. } => Some(container),
    }
}

#[expect(clippy::too_many_arguments, reason = "all of them are the sentence: what, of whom, why, after what")]
fn engine(
    input: Input<'_>,
    plan: &Plan,
    seen: &Index<'_>,
    action: &Action,
    op: &EngineOp,
    broken: &mut Vec<Broken>,
) {
    let mut add = |number, what: String| broken.push(Broken { number, what });
    let claimed_broken = |id: &ServerId| input.desired.is_broken(id);
    let leg = matches!(target(op), Some(ContainerRef::Id { id, .. }) if seen.leg(id).is_some());
    if action.server.as_ref().is_some_and(claimed_broken) && !leg {
        add(6, action.op.describe());
    }
    match target(op) {
        Some(ContainerRef::Id { id, .. }) => {
            let mark = seen.by_id.get(id.as_str()).and_then(|container| container.mark.as_ref());
            if mark.is_none_or(|mark| mark.stack != input.policy.stack || mark.server != action.server) {
                add(1, action.op.describe());
            }
        }
        Some(ContainerRef::Planned(name)) => {
            let made = |i: &usize| makes(plan.actions.get(*i), name);
            if !transitively(plan, action).iter().any(made) {
                add(4, format!("'{}' without an action that makes it", action.op.describe()));
            }
        }
        None => {}
    }
    let new_name = match op {
        EngineOp::Create(create) => {
            if let Some(port) = create.publish.as_ref().and_then(|publish| publish.host_port) {
                let lease = action.server.as_ref().and_then(|id| plan.memory.leases.get(id));
                if lease.is_none_or(|lease| lease.port != port && lease.next != Some(port)) {
                    add(2, format!("{} publishes port {port} without a lease", create.name));
                }
            }
            Some(&create.name)
        }
        EngineOp::Rename { to, .. } => Some(to),
        _ => None,
    };
    let Some(name) = new_name else { return };
    let Some(holder) = seen.by_name.get(name.as_str()) else { return };
    let freed = |i: &usize| frees(plan.actions.get(*i), holder);
    if !transitively(plan, action).iter().any(freed) {
        add(5, action.op.describe());
    }
}

/// I14: nothing but the declaration says how much memory there may be.
fn limit(input: Input<'_>, action: &Action, op: &EngineOp, broken: &mut Vec<Broken>) {
    let EngineOp::Create(create) = op else { return };
    let Some(server) = action.server.as_ref().and_then(|id| input.desired.servers.get(id)) else { return };
    let ServerKind::Container(decl) = &server.kind else { return };
    let (declared, limit) = (decl.spec.resources.memory_bytes, create.spec.resources.memory_bytes);
    let step = oom::allowed(server).map(|(_, to)| to);
    if limit != declared && Some(limit) != step {
        broken.push(Broken { number: 14, what: format!("{} with {limit} bytes", action.op.describe()) });
    }
}

fn makes(action: Option<&Action>, name: &str) -> bool {
    matches!(action.map(|a| &a.op), Some(Op::Engine(EngineOp::Create(create))) if create.name == name)
}

fn frees(action: Option<&Action>, holder: &Container) -> bool {
    matches!(
        action.map(|a| &a.op),
        Some(Op::Engine(EngineOp::Remove { container: ContainerRef::Id { id, .. }, .. } | EngineOp::Rename { container: ContainerRef::Id { id, .. }, .. }))
            if *id == holder.id
    )
}

/// Indices of everything an action needs, directly or not.
fn transitively(plan: &Plan, action: &Action) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<usize> = action.after.clone();
    while let Some(index) = open.pop() {
        if seen.insert(index)
            && let Some(action) = plan.actions.get(index)
        {
            open.extend(&action.after);
        }
    }
    seen
}

fn removals(
    input: Input<'_>,
    plan: &Plan,
    seen: &Index<'_>,
    containers: &[Container],
    broken: &mut Vec<Broken>,
) {
    let held_back = input.desired.stale.is_some() || !input.desired.nameless.is_empty();
    for action in &plan.actions {
        let Op::Engine(EngineOp::Remove { container: ContainerRef::Id { id, .. }, .. }) = &action.op else {
            continue;
        };
        let Some(server) = &action.server else { continue };
        let runs = seen.by_id.get(id.as_str()).is_some_and(|c| crate::plan::draft::runs(c));
        if seen.leg(id).is_some_and(|mark| !runs || is_orphan(input.observed, mark)) {
            continue;
        }
        let spare = input.desired.stale.is_none() && input.desired.is_spare(server);
        if held_back && !spare && !input.desired.claims(server) {
            broken.push(Broken { number: 7, what: action.op.describe() });
        }
        let of_server = |c: &&Container| {
            let mark = c.mark.as_ref().filter(|mark| mark.role != Some(Role::Leg));
            mark.is_some_and(|mark| mark.stack == input.policy.stack && mark.server.as_ref() == Some(server))
        };
        let others = containers.iter().filter(of_server).filter(|c| c.id != *id).count();
        let wanted = input.desired.servers.get(server);
        let is_container = wanted.is_some_and(|server| matches!(server.kind, ServerKind::Container(_)));
        if runs && others == 0 && seen.leg(id).is_none() && is_container {
            broken.push(Broken { number: 9, what: action.op.describe() });
        }
    }
}

/// I16: as many instances as asked for, behind one door, and never all of them at once in the workshop.
fn instances(input: Input<'_>, plan: &Plan, seen: &Index<'_>, broken: &mut Vec<Broken>) {
    let mut replaced: BTreeMap<ServerId, &ServerId> = BTreeMap::new();
    let mut add = |what: String| broken.push(Broken { number: 16, what });
    for id in plan.memory.leases.keys().filter(|id| id.replica_number() > 1) {
        add(format!("{id} holds a port"));
    }
    for action in &plan.actions {
        let Some(id) = &action.server else { continue };
        let further = id.replica_number() > 1;
        match &action.op {
            Op::Engine(EngineOp::Create(create)) => {
                let Some(server) = input.desired.servers.get(id) else {
                    add(format!("{} is not asked for", create.name));
                    continue;
                };
                let publishes = create.publish.as_ref().is_some_and(|publish| publish.host_port.is_some());
                if further && publishes {
                    add(format!("{} publishes a host port", create.name));
                }
                let name = main_name(input.policy, id);
                let main = seen.by_name.get(name.as_str()).filter(|main| create.name != main.name);
                let runs = main.is_some_and(|main| matches!(main.state, ContainerState::Running(_)));
                if server.replicas > 1
                    && runs
                    && let Some(other) = replaced.insert(id.server(), id)
                {
                    add(format!("{other} and {id} are replaced at once"));
                }
            }
            Op::Edge(EdgeOp::Open { server, .. }) if server.replica_number() > 1 => {
                add(format!("{server} has a listener"));
            }
            Op::Balancer(_) if further => add(action.op.describe()),
            Op::Engine(_) | Op::Edge(_) | Op::Balancer(_) => {}
        }
    }
}

fn recoveries(input: Input<'_>, plan: &Plan, broken: &mut Vec<Broken>) {
    let most = input.policy.restarts_per_minute_max;
    let all = plan.memory.unwanted.len() + recent(input.observed, input.now).count();
    let new = plan.memory.unwanted.contains(&input.now) && !input.memory.unwanted.contains(&input.now);
    if new && all > most {
        let what = format!("{all} restarts within a minute");
        broken.push(Broken { number: 12, what });
    }
    for (id, recovery) in &plan.memory.recoveries {
        let before = input.memory.recoveries.get(id).map_or(0, |before| before.tries);
        let Some(server) = input.desired.servers.get(id).filter(|_| recovery.tries > before) else {
            continue;
        };
        let ill = input.observed.health.get(id).is_some_and(|seen| {
            !seen.health.state.serves() && !seen.health.is_stale(input.now, &server.health)
        });
        let paused = paused(input.policy, &plan.memory, server, input.now).is_some();
        if !ill || paused || recovery.tries > TRIES_MAX {
            let what = format!("try {} of {id}", recovery.tries);
            broken.push(Broken { number: 12, what });
        }
    }
}

/// I13: who fell asleep in this plan had the right to.
fn naps(input: Input<'_>, plan: &Plan, broken: &mut Vec<Broken>) {
    for (id, _) in plan.memory.naps.iter().filter(|(_, nap)| nap.idle && !nap.awake) {
        if input.memory.naps.get(id).is_some_and(|before| !before.awake) {
            continue;
        }
        let server = input.desired.servers.get(id);
        let unused = server.and_then(|server| server.idle_timeout).is_some_and(|after| {
            let used = input.observed.uses.get(id);
            used.is_some_and(|used| used.waiting == 0 && !used.busy && used.idle >= after)
        });
        let left =
            server.is_some_and(|server| paused(input.policy, &plan.memory, server, input.now).is_some());
        if !unused || left {
            broken.push(Broken { number: 13, what: format!("{id} is put to sleep") });
        }
    }
}

fn balancer(input: Input<'_>, action: &Action, op: &BalancerOp, broken: &mut Vec<Broken>) {
    let BalancerSeen::On(Seen::Known(view)) = &input.observed.balancer else {
        broken.push(Broken { number: 8, what: format!("{} without a view", action.op.describe()) });
        return;
    };
    let ours = |owner: &Owner| matches!(owner, Owner::Ours { .. });
    let rule_ours = |arn: &RuleArn| view.rules.iter().any(|rule| rule.arn == *arn && ours(&rule.owner));
    let group_ours =
        |arn: &TargetGroupArn| view.target_groups.iter().any(|group| group.arn == *arn && ours(&group.owner));
    let ref_ours = |group: &GroupRef| match group {
        GroupRef::Arn(arn) => group_ours(arn),
        GroupRef::Planned(_) => true,
    };
    let fine = match op {
        BalancerOp::CreateTargetGroup { .. } => true,
        BalancerOp::SetHealthCheck { group, .. }
        | BalancerOp::SetDeregistrationDelay { group, .. }
        | BalancerOp::SetTags { group, .. }
        | BalancerOp::Register { group, .. }
        | BalancerOp::Deregister { group, .. }
        | BalancerOp::CreateRule { group, .. } => ref_ours(group),
        BalancerOp::ModifyRule { rule, group, .. } => rule_ours(rule) && ref_ours(group),
        BalancerOp::SetPriorities { moves } => moves.iter().all(|(rule, _)| rule_ours(rule)),
        BalancerOp::DeleteRule { rule } => rule_ours(rule),
        BalancerOp::DeleteTargetGroup { group, .. } => group_ours(group),
    };
    if !fine {
        broken.push(Broken { number: 8, what: action.op.describe() });
    }
}
