//! Promises, checked: some hold always, some once the world is at rest.
//!
//! Always ([`State::check`]): nothing foreign was touched; no data was lost; one lease for a port;
//! no two running containers of ours on one port.
//! At rest ([`State::leaks`], [`State::unmet`]): nothing of ours is left without an entry; every
//! entry that can run runs once, under its own name, as declared, on its own port, with one rule.

use crate::model::balancer::RuleAction;
use crate::model::container::ContainerSpec;
use crate::model::desired::Desired;
use crate::model::fingerprint::Likeness;
use crate::model::id::ServerId;
use crate::model::mark::{Role, SERVER};
use crate::model::memory::Lease;
use crate::model::net::HostPort;
use crate::model::observed::ContainerState;
use crate::model::server::{ContainerDecl, PullPolicy, RestartWhen, Server, ServerKind};
use crate::world::fake::balancer::{TARGET_ID, is_ours};
use crate::world::fake::balancer_ops::is_anothers;
use crate::world::fake::engine::Unit;
use crate::world::fake::state::State;
use std::collections::BTreeMap;

impl State {
    /// Broken promises of the kind that must hold at every moment.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut out = self.violations.clone();
        let mut leased: BTreeMap<HostPort, &ServerId> = BTreeMap::new();
        for (server, lease) in &self.saved.leases {
            for port in std::iter::once(lease.port).chain(lease.next) {
                if let Some(other) = leased.insert(port, server) {
                    out.push(format!("port {port} is leased to {other} and {server}"));
                }
            }
        }
        let mut bound: BTreeMap<HostPort, &str> = BTreeMap::new();
        for unit in self.engine.containers.iter().filter(|unit| unit.ours && unit.is_up()) {
            for port in &unit.publishes {
                if let Some(other) = bound.insert(port.port, &unit.seen.name) {
                    out.push(format!(
                        "containers {other} and {} both have port {}",
                        unit.seen.name, port.port
                    ));
                }
            }
        }
        out
    }

    /// What is left over once the world is at rest.
    pub(crate) fn leaks(&self, desired: &Desired) -> Vec<String> {
        let desired = &*desired.instances();
        let mut out = Vec::new();
        let claimed =
            |id: &ServerId| desired.claims(id) || !desired.nameless.is_empty() || desired.stale.is_some();
        for unit in self.engine.containers.iter().filter(|unit| unit.ours) {
            match unit.server() {
                Some(server) if desired.is_spare(server) => {
                    out.push(format!("container {} is one instance too many", unit.seen.name));
                }
                Some(server) if claimed(server) => {}
                _ => out.push(format!("container {} has no entry", unit.seen.name)),
            }
        }
        out.extend(self.left_legs());
        for (server, wanted) in &desired.servers {
            let units = self.units_of(server);
            if !matches!(wanted.kind, ServerKind::Container(_)) {
                out.extend(
                    units
                        .iter()
                        .map(|unit| format!("{} is of a server that is no container", unit.seen.name)),
                );
            }
            if units.len() > 1 {
                let names: Vec<&str> = units.iter().map(|unit| unit.seen.name.as_str()).collect();
                out.push(format!("server {server} has {} containers: {}", units.len(), names.join(", ")));
            }
        }
        for (name, volume) in &self.engine.volumes {
            if volume.ours && !volume.left_on_purpose && !self.engine.in_use(name, None) {
                out.push(format!("volume {name:.12} of {:?} is left over", volume.server));
            }
        }
        let text_claimed = |id: &str| ServerId::instance(id).is_ok_and(|id| claimed(&id));
        for rule in self.balancer.rules.iter().filter(|rule| is_ours(&rule.tags, &self.policy.stack)) {
            let server = rule.tags.get(SERVER);
            let shared = match &rule.action {
                RuleAction::Forward(arn) => self.balancer.groups.iter().any(|g| {
                    g.arn == *arn
                        && (!is_ours(&g.tags, &self.policy.stack) || g.targets.iter().any(is_anothers))
                }),
                RuleAction::Other(_) => false,
            };
            if !shared && server.is_some_and(|id| !text_claimed(id)) {
                out.push(format!("rule {} {:?} has no entry", rule.priority, rule.conditions.paths));
            }
        }
        for group in self.balancer.groups.iter().filter(|group| is_ours(&group.tags, &self.policy.stack)) {
            let unclaimed = group.tags.get(SERVER).is_some_and(|id| !text_claimed(id));
            // A rule that lost our tags by hand keeps its group: nobody may delete either.
            let held = self.balancer.rules.iter().any(|rule| {
                !is_ours(&rule.tags, &self.policy.stack)
                    && matches!(&rule.action, RuleAction::Forward(to) if *to == group.arn)
            });
            if unclaimed && !held && !group.targets.iter().any(is_anothers) {
                out.push(format!("target group {} has no entry", group.name));
            }
        }
        for server in desired.servers.keys() {
            let rules = self.balancer.rules_of(server, &self.policy.stack);
            if rules.len() > 1 {
                out.push(format!("server {server} has {} rules", rules.len()));
            }
        }
        out
    }

    fn units_of(&self, server: &ServerId) -> Vec<&Unit> {
        let of = |unit: &&Unit| {
            let role = unit.seen.mark.as_ref().and_then(|mark| mark.role);
            unit.ours && unit.server() == Some(server) && role != Some(Role::Leg)
        };
        self.engine.containers.iter().filter(of).collect()
    }

    /// Entries that could run and do not. Those that something outside our power stands in the way
    /// of are not named: a foreign name or port, a missing image, a restart policy that ends.
    pub(crate) fn unmet(&self, desired: &Desired) -> Vec<String> {
        let desired = &*desired.instances();
        let mut out = Vec::new();
        for server in desired.servers.values() {
            let served = match &server.kind {
                ServerKind::Container(decl) => self.unmet_container(server, decl, &mut out),
                ServerKind::Process(_) | ServerKind::Remote(_) => self.unmet_edge(server, &mut out),
            };
            if served && self.balancer_in_use && server.id.replica_number() == 1 {
                self.unmet_route(server, &mut out);
            }
        }
        out
    }

    /// True when the container is up and should be.
    fn unmet_container(&self, server: &Server, decl: &ContainerDecl, out: &mut Vec<String>) -> bool {
        let id = &server.id;
        let up: Vec<&Unit> = self.units_of(id).into_iter().filter(|unit| unit.is_up()).collect();
        let started_by_hand = self.saved.intent(id).is_some_and(|intent| intent.run);
        if !server.enabled && !started_by_hand {
            out.extend(
                up.iter().map(|unit| format!("{} runs although its entry is disabled", unit.seen.name)),
            );
            return false;
        }
        if self.is_blocked(server, decl) {
            return false;
        }
        let edge = || self.host.edges.iter().any(|(server, _)| *server == id.server());
        if server.may_sleep() && up.is_empty() {
            if self.is_waited_for(id) {
                out.push(format!("a call waits for server {id}, which sleeps"));
            }
            if !edge() {
                out.push(format!("nobody waits for requests of server {id}, which sleeps"));
            }
            return edge();
        }
        if server.idle_timeout.is_some() && !self.is_used(id) {
            out.push(format!("server {id} runs although nobody uses it"));
        }
        let name = format!("{}{id}", self.policy.name_prefix);
        let [unit] = up.as_slice() else {
            out.push(format!("server {id} has {} running containers", up.len()));
            return false;
        };
        if unit.seen.name != name {
            out.push(format!("server {id} runs as {}", unit.seen.name));
        }
        if unit.seen.state == ContainerState::Paused {
            out.push(format!("container {name} is paused"));
        }
        let print = unit.seen.mark.as_ref().and_then(|mark| mark.fingerprint.as_ref());
        let like = print.map(|made_from| decl.fingerprint.likeness(made_from));
        if !matches!(like, Some(Likeness::Same | Likeness::SameButSecretsUnknown)) {
            out.push(format!("container {name} is not what the entry declares"));
        }
        let lease = self.saved.leases.get(&id.server()).map(|lease| lease.port);
        let direct = unit.publishes.iter().any(|p| Some(p.port) == lease);
        let edge =
            self.host.edges.iter().any(|(server, port)| *server == id.server() && Some(*port) == lease);
        if !direct && !edge {
            out.push(format!("nothing serves server {id} on its port {lease:?}"));
        }
        direct || edge
    }

    /// Whether something outside our power keeps the server from running.
    fn is_blocked(&self, server: &Server, decl: &ContainerDecl) -> bool {
        let name = format!("{}{}", self.policy.name_prefix, server.id);
        let foreign_name = self.engine.containers.iter().any(|unit| !unit.ours && unit.seen.name == name);
        let reference = decl.spec.image.as_str();
        let local = self.engine.image(reference).is_some();
        let no_image =
            !local && (server.pull == PullPolicy::Never || self.engine.in_registry(reference).is_none());
        let gives_up = server.restart.when != RestartWhen::Always || server.restart.attempts_max.is_some();
        let stopped_by_hand = self.saved.intent(&server.id).is_some_and(|intent| !intent.run);
        let failed = self.saved.attempts.get(&server.id).and_then(|attempts| attempts.failed_spec.as_ref());
        let gave_up = failed.is_some_and(|spec| *spec == decl.fingerprint.short());
        foreign_name || no_image || gives_up || stopped_by_hand || gave_up || self.port_is_taken(server, decl)
    }

    fn port_is_taken(&self, server: &Server, decl: &ContainerDecl) -> bool {
        let fixed = decl.mcp_port.as_ref().and_then(|mcp| mcp.host_port);
        let plain = fixed_ports(&decl.spec);
        let by_others = |port: &HostPort| {
            let foreign = self.host.foreign.contains_key(port);
            let edge = self.host.edges.iter().any(|(id, p)| p == port && *id != server.id);
            let unit = |unit: &Unit| {
                unit.is_up()
                    && unit.server() != Some(&server.id)
                    && unit.publishes.iter().any(|p| p.port == *port)
            };
            let leased = self
                .saved
                .leases
                .iter()
                .any(|(id, l)| *id != server.id && (l.port == *port || l.next == Some(*port)));
            foreign || edge || leased || self.engine.containers.iter().any(unit)
        };
        let lease = self.saved.leases.get(&server.id.server()).map(|lease| lease.port);
        let nowhere_to_go = self.range_is_full() && lease.as_ref().is_none_or(by_others);
        fixed.iter().chain(&plain).any(by_others) || nowhere_to_go
    }

    fn range_is_full(&self) -> bool {
        let held = |port: HostPort| {
            self.holder("", port).is_some()
                || self.saved.leases.values().any(|l| l.port == port || l.next == Some(port))
        };
        self.policy.ports.ports().all(held)
    }

    fn unmet_edge(&self, server: &Server, out: &mut Vec<String>) -> bool {
        let id = &server.id.server();
        let serves = self.host.edges.iter().any(|(server, _)| server == id);
        let lost = |lease: &Lease| {
            self.host.foreign.contains_key(&lease.port) || self.engine.publisher("", lease.port).is_some()
        };
        let blocked = self.range_is_full() && self.saved.leases.get(id).is_none_or(lost);
        let stopped_by_hand = self.saved.intent(id).is_some_and(|intent| !intent.run);
        if server.enabled && !serves && !blocked && !stopped_by_hand {
            out.push(format!("server {id} has no edge listener"));
        }
        server.enabled && serves
    }

    /// One rule for it, to one group, in which this host's port is registered.
    fn unmet_route(&self, server: &Server, out: &mut Vec<String>) {
        let id = &server.id;
        let full = self.balancer.rules.len() >= self.balancer.rules_max
            || self.balancer.groups.len()
                >= self.balancer.groups_max.min(self.policy.balancer.target_groups_max);
        let stripped = self
            .balancer
            .groups
            .iter()
            .any(|g| !is_ours(&g.tags, &self.policy.stack) && g.name.starts_with(&format!("mcp-{id}")));
        if full || stripped || self.balancer.nameless {
            return;
        }
        let rules = self.balancer.rules_of(id, &self.policy.stack);
        let Some(rule) = rules.first() else {
            out.push(format!("server {id} has no rule"));
            return;
        };
        let wanted = format!("/mcp/{id}");
        if !rule.conditions.paths.contains(&wanted) {
            out.push(format!("the rule of server {id} has the paths {:?}", rule.conditions.paths));
        }
        let registered = |arn| {
            let group = self.balancer.groups.iter().find(|g| g.arn == arn);
            group.is_some_and(|g| g.targets.iter().any(|t| t.id == TARGET_ID && t.drains_until.is_none()))
        };
        match &rule.action {
            RuleAction::Forward(arn) if registered(arn.clone()) => {}
            RuleAction::Forward(_) | RuleAction::Other(_) => {
                out.push(format!("server {id} is not registered behind its rule ({:?})", rule.action));
            }
        }
    }
}

/// Host ports that the declaration's plain ports name.
fn fixed_ports(spec: &ContainerSpec) -> Vec<HostPort> {
    use crate::model::container::HostPorts;
    let one = |host: &HostPorts| match host {
        HostPorts::One(port) => HostPort::new(*port),
        HostPorts::Unspecified | HostPorts::FirstFreeOf(..) => None,
    };
    spec.published.iter().filter_map(|p| one(&p.host)).collect()
}
