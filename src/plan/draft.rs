//! A plan in the making: the small verbs that all deciding steps share.

use crate::model::balancer::RouteWant;
use crate::model::container::ContainerSpec;
use crate::model::id::ServerId;
use crate::model::memory::{Attempts, Memory};
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerHealth, ContainerState, Question, Seen};
use crate::model::op::{ContainerRef, EngineOp, Op};
use crate::model::time::Timestamp;
use crate::plan::action::Action;
use crate::plan::depends::Order;
use crate::plan::fleet::Fleet;
use crate::plan::report::{Reason, ReasonKind, Report, Row, RowState};
use crate::plan::{Input, Plan, ends};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the steps read and write.
pub(crate) struct Draft<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) fleet: Fleet<'a>,
    pub(crate) memory: Memory,
    pub(crate) report: Report,
    /// What each server wants of the load balancer.
    pub(crate) routes: BTreeMap<ServerId, RouteWant>,
    /// Servers whose objects must stay as they are.
    pub(crate) keep: BTreeSet<ServerId>,
    /// Of these, those whose targets go while this host is drained.
    pub(crate) leaving: BTreeSet<ServerId>,
    /// Nothing that no entry claims may be removed.
    pub(crate) keep_unclaimed: bool,
    /// Replacements in flight, and tries that failed.
    pub(crate) in_flight: BTreeSet<ServerId>,
    pub(crate) failed: BTreeSet<ServerId>,
    /// Servers whose targets the next pass must read.
    pub(crate) read_next: BTreeSet<ServerId>,
    /// Ports that may not be leased; made when first needed.
    pub(crate) taken_ports: Option<BTreeSet<HostPort>>,
    /// How many of the free ports were looked at.
    pub(crate) free_ports_seen: usize,
    /// Who comes first.
    pub(crate) order: Order,
    actions: Vec<Action>,
    questions: BTreeSet<Question>,
    next_look: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(input: Input<'a>) -> Self {
        let fleet = match &input.observed.containers {
            Seen::Known(containers) => Fleet::sort(containers, input.policy),
            Seen::Unknown(_) => Fleet::default(),
        };
        let report =
            Report { engine_known: input.observed.containers.known().is_some(), ..Report::default() };
        Self {
            input,
            fleet,
            memory: input.memory.clone(),
            report,
            routes: BTreeMap::new(),
            keep: BTreeSet::new(),
            leaving: BTreeSet::new(),
            keep_unclaimed: false,
            in_flight: BTreeSet::new(),
            failed: BTreeSet::new(),
            read_next: BTreeSet::new(),
            taken_ports: None,
            free_ports_seen: 0,
            order: Order::default(),
            actions: Vec::new(),
            questions: BTreeSet::new(),
            next_look: None,
        }
    }

    /// Adds an effect; the index is for later effects' `after`.
    pub(crate) fn act(&mut self, server: Option<&ServerId>, op: Op, why: &str, after: &[usize]) -> usize {
        if let Some(row) = server.and_then(|id| self.report.servers.get_mut(id))
            && matches!(
                row.state,
                RowState::Converged | RowState::Stopped | RowState::Asleep | RowState::Waiting
            )
        {
            row.state = RowState::Changing;
        }
        self.actions.push(Action { server: server.cloned(), op, why: why.to_owned(), after: after.to_vec() });
        self.actions.len() - 1
    }

    /// Adds an effect on the engine.
    pub(crate) fn engine(&mut self, server: &ServerId, op: EngineOp, why: &str, after: &[usize]) -> usize {
        self.act(Some(server), Op::Engine(op), why, after)
    }

    /// Stops (if it runs) and removes a container.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them are the sentence: what, of whom, why, after what"
    )]
    pub(crate) fn stop_and_remove(
        &mut self,
        server: &ServerId,
        container: &Container,
        volumes: Option<Vec<String>>,
        why: &str,
        after: &[usize],
    ) -> usize {
        let target = refer(container);
        let mut after = after.to_vec();
        if runs(container) {
            after.push(self.engine(server, EngineOp::Stop(target.clone()), why, &after.clone()));
        }
        self.engine(server, EngineOp::Remove { container: target, volumes }, why, &after)
    }

    /// The index of an equal effect that is already planned.
    pub(crate) fn planned(&self, op: &Op) -> Option<usize> {
        self.actions.iter().position(|action| action.op == *op)
    }

    /// Indices of the removals of a server's containers, where it is to be none any more.
    pub(crate) fn removals(&self, server: &ServerId) -> Vec<usize> {
        use crate::model::server::ServerKind;
        let wanted = self.input.desired.servers.get(server);
        if wanted.is_none_or(|server| matches!(server.kind, ServerKind::Container(_))) {
            return Vec::new();
        }
        let removes = |action: &Action| {
            action.server.as_ref() == Some(server) && matches!(action.op, Op::Engine(EngineOp::Remove { .. }))
        };
        let all = self.actions.iter().enumerate();
        all.filter(|(_, action)| removes(action)).map(|(index, _)| index).collect()
    }

    /// Asks for a fact.
    pub(crate) fn ask(&mut self, question: Question) {
        self.questions.insert(question);
    }

    /// Looks again at `at`, or earlier.
    pub(crate) fn look_at(&mut self, at: Timestamp) {
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    /// The row of a server.
    pub(crate) fn row(&mut self, id: &ServerId) -> &mut Row {
        self.report.servers.entry(id.clone()).or_insert_with(|| Row::new("none"))
    }

    /// Says why, and moves the row's state where the reason asks for it.
    pub(crate) fn say(&mut self, id: &ServerId, reason: Reason) {
        if let Some(until) = reason.until {
            self.look_at(until);
        }
        let row = self.row(id);
        match reason.kind {
            ReasonKind::BlockedBy => row.state = RowState::Blocked,
            ReasonKind::WaitingOn if !matches!(row.state, RowState::Blocked | RowState::Changing) => {
                row.state = RowState::Waiting;
            }
            ReasonKind::WaitingOn | ReasonKind::ChangedBecause | ReasonKind::LeftAlone | ReasonKind::Note => {
            }
        }
        if !row.reasons.contains(&reason) {
            row.reasons.push(reason);
        }
    }

    /// It goes on by itself.
    pub(crate) fn wait(&mut self, id: &ServerId, text: impl Into<String>, until: Option<Timestamp>) {
        let mut reason = Reason::new(ReasonKind::WaitingOn, text);
        reason.until = until;
        self.say(id, reason);
    }

    /// It does not go on by itself.
    pub(crate) fn block(&mut self, id: &ServerId, code: &'static str, text: impl Into<String>) {
        self.say(id, Reason::new(ReasonKind::BlockedBy, text).code(code));
    }

    /// Good to know.
    pub(crate) fn note(&mut self, id: &ServerId, text: impl Into<String>) {
        self.say(id, Reason::new(ReasonKind::Note, text));
    }

    /// Wants something of the load balancer; further instances of a server are behind its own listener.
    pub(crate) fn offer(&mut self, want: RouteWant) {
        if want.server.replica_number() == 1 {
            self.routes.insert(want.server.clone(), want);
        }
    }

    /// What went wrong lately; made when there is none.
    pub(crate) fn attempts(&mut self, id: &ServerId) -> &mut Attempts {
        self.memory.attempts.entry(id.clone()).or_default()
    }

    /// The leased port.
    pub(crate) fn port(&self, id: &ServerId) -> Option<HostPort> {
        self.memory.leases.get(id).map(|lease| lease.port)
    }

    /// The plan.
    pub(crate) fn finish(mut self) -> Plan {
        let moves = |id: &&ServerId| self.fleet.groups.get(*id).is_some_and(|group| !group.nexts.is_empty());
        self.report.in_flight = self.in_flight.iter().filter(moves).count();
        self.memory.attempts.retain(|_, attempts| *attempts != Attempts::default());
        for (id, row) in &mut self.report.servers {
            row.ends = ends::newest_first(&self.memory, id);
            row.reasons.sort_by_key(|reason| reason.kind);
        }
        self.report.put_together();
        Plan {
            actions: self.actions,
            report: self.report,
            memory: self.memory,
            questions: self.questions.into_iter().collect(),
            next_look: self.next_look,
            read_next: self.read_next,
        }
    }
}

/// Refers to a container that was seen.
pub(crate) fn refer(container: &Container) -> ContainerRef {
    ContainerRef::Id { id: container.id.clone(), name: container.name.clone() }
}

/// Whether a process of it lives.
pub(crate) const fn runs(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running(_) | ContainerState::Paused | ContainerState::Restarting
    )
}

/// What a container does, in a word or two.
pub(crate) fn state_words(state: ContainerState) -> String {
    match state {
        ContainerState::Created => "created".to_owned(),
        ContainerState::Running(ContainerHealth::None) => "running".to_owned(),
        ContainerState::Running(ContainerHealth::Starting) => "running (health: starting)".to_owned(),
        ContainerState::Running(ContainerHealth::Healthy) => "running (healthy)".to_owned(),
        ContainerState::Running(ContainerHealth::Unhealthy) => "running (unhealthy)".to_owned(),
        ContainerState::Paused => "paused".to_owned(),
        ContainerState::Restarting => "restarting".to_owned(),
        ContainerState::Exited(code) => format!("exited ({code})"),
        ContainerState::Dead => "dead".to_owned(),
        ContainerState::Removing => "being removed".to_owned(),
    }
}

/// Whether two containers of this declaration can run at the same time without writing to the
/// same place or wanting the same address; the reason when not.
pub(crate) fn exclusive(spec: &ContainerSpec) -> Option<&'static str> {
    use crate::model::container::{HostPorts, MountKind};
    if spec.binds.iter().any(|bind| !bind.is_read_only()) {
        return Some("old and new would share a writable mount");
    }
    let writable =
        |kind: MountKind, read_only: bool| !read_only && !matches!(kind, MountKind::Tmpfs | MountKind::Image);
    if spec.mounts.iter().any(|mount| writable(mount.kind, mount.read_only) && mount.source.is_some()) {
        return Some("old and new would share a writable mount");
    }
    if !spec.volumes_from.is_empty() {
        return Some("old and new would share volumes of another container");
    }
    if !spec.resources.devices.is_empty()
        || !spec.resources.cdi_devices.is_empty()
        || !spec.resources.gpus.is_empty()
    {
        return Some("old and new would share a device");
    }
    if spec.published.iter().any(|port| matches!(port.host, HostPorts::One(port) if port != 0)) {
        return Some("old and new would publish the same host port");
    }
    let fixed_address = |network: &crate::model::container::NetworkAttachment| {
        network.ipv4.is_some() || network.ipv6.is_some() || network.mac_address.is_some()
    };
    if spec.networks.iter().any(fixed_address) {
        return Some("old and new would have the same network address");
    }
    if spec.networks.iter().any(|network| network.name == "host") {
        return Some("old and new would use the host's network");
    }
    None
}
