//! The container half: for every server what is wanted, what is there, and the step between.
//!
//! ```text
//! wanted        there              step
//! run           nothing            create, start            (steady::create_and_start)
//! run           the same           leave, start, wait       (steady)
//! run           another            replace the gentlest way (replace)
//! stop          runs               drain, stop
//! sleep         runs               hold requests, stop      (demand)
//! not in file   anything of ours   drain, stop, remove      (unless the guard says no)
//! broken entry  anything           leave as it is
//! paused        anything           leave as it is
//! any           unknown            leave as it is
//! ```
//! Must never touch a container without our mark: its name being in the way is a conflict that is
//! reported.

use crate::model::balancer::{BalancerSeen, RouteKind, RouteWant, Standing};
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerState, Seen};
use crate::model::op::EngineOp;
use crate::model::policy::Ending;
use crate::model::server::{ContainerDecl, RouteWish, Server, ServerKind, Transport};
use crate::plan::draft::{Draft, refer, runs, state_words};
use crate::plan::fleet::{Group, main_name};
use crate::plan::images::{self, Chosen};
use crate::plan::recovery::{self, Step};
use crate::plan::report::{Reason, ReasonKind, Row, RowState};
use crate::plan::runs::{Want, paused, restart_due, want};
use crate::plan::{demand, depends, drain, outside, pause, replace, replicas, steady};

/// Path of the MCP endpoint where nothing says another.
const HTTP_PATH: &str = "/mcp";
/// Path of the event stream of old servers where nothing says another.
const SSE_PATH: &str = "/sse";

/// A container server with every open question answered.
#[derive(Clone, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) server: &'a Server,
    pub(crate) decl: &'a ContainerDecl,
    pub(crate) group: Group<'a>,
    pub(crate) name: String,
    pub(crate) transport: Transport,
    /// Port inside; `None` for stdio.
    pub(crate) container_port: Option<u16>,
    /// Host address the port is published on; `None` when the gateway stands in front.
    pub(crate) direct: Option<String>,
    /// The leased port; further instances of a server have none.
    pub(crate) port: Option<HostPort>,
    /// The image, where a decision needed it.
    pub(crate) image: Option<Chosen>,
}

/// Decides for every server, in the order in which they start.
pub(crate) fn decide(draft: &mut Draft<'_>) {
    let desired = draft.input.desired;
    replace::count(draft);
    depends::prepare(draft);
    for server in depends::in_order(draft) {
        describe(draft, server);
        depends::refresh(draft, server);
        if busy(draft, &server.id) || pause::left_alone(draft, server) {
            continue;
        }
        match &server.kind {
            ServerKind::Container(decl) => container(draft, server, decl),
            ServerKind::Process(_) => outside::decide(draft, server, "a local process"),
            ServerKind::Remote(_) => outside::decide(draft, server, "a remote server"),
        }
    }
    for (id, problem) in &desired.broken {
        leave_broken(draft, id, problem);
    }
    let further = |id: &&ServerId| id.replica_number() > 1 && desired.is_broken(id);
    let of_broken: Vec<ServerId> = draft.fleet.groups.keys().filter(further).cloned().collect();
    for id in of_broken {
        leave_broken(draft, &id, desired.broken.get(&id.server()).map_or("", String::as_str));
    }
    let there = draft.fleet.groups.iter().filter(|(_, group)| !group.is_empty());
    let unclaimed: Vec<ServerId> =
        there.filter(|(id, _)| !desired.claims(id)).map(|(id, _)| id.clone()).collect();
    for id in unclaimed {
        if !busy(draft, &id) {
            remove_unclaimed(draft, &id);
        }
    }
}

/// Its last actions still run: nothing is decided, nothing of it is touched.
fn busy(draft: &mut Draft<'_>, id: &ServerId) -> bool {
    if !draft.input.observed.busy.contains(id) {
        return false;
    }
    show_untouched(draft, id);
    draft.wait(id, "its last actions, which are still running", None);
    draft.row(id).state = RowState::Changing;
    true
}

/// Its row shows what is there, and nothing of it is touched.
pub(crate) fn show_untouched<'a>(draft: &mut Draft<'a>, id: &ServerId) -> Option<&'a Container> {
    draft.keep.insert(id.clone());
    let group = draft.fleet.groups.get(id)?;
    let main = group.main.or_else(|| group.nexts.first().copied())?;
    show(draft, id, main);
    // It serves meanwhile: who passes requests on must know how, which its labels say.
    if let Some(mark) = &main.mark {
        let row = draft.row(id);
        row.transport = mark.transport;
        let direct = |route: &String| route.starts_with("direct");
        row.route = mark.route.as_ref().map(|route| if direct(route) { "direct" } else { "edge" });
    }
    Some(main)
}

/// The row's facts that need no decision.
fn describe(draft: &mut Draft<'_>, server: &Server) {
    let kind = match server.kind {
        ServerKind::Container(_) => "container",
        ServerKind::Process(_) => "process",
        ServerKind::Remote(_) => "remote",
    };
    let port = draft.port(&server.id);
    let attempts = draft.memory.attempts.get(&server.id).cloned().unwrap_or_default();
    let asleep = server.may_sleep() && want(draft.input.policy, &draft.memory, server) != Want::Run;
    let row = draft.report.servers.entry(server.id.clone()).or_insert_with(|| Row::new(kind));
    row.kind = kind;
    row.port = port;
    row.restarts = attempts.crashes;
    // Also while actions run, its last or those of its stop: nobody is to reach it meanwhile.
    row.asleep = asleep;
    row.next_try = attempts.next_try;
    for note in &server.notes {
        draft.note(&server.id, note.clone());
    }
}

/// The row's facts about a container.
pub(crate) fn show(draft: &mut Draft<'_>, id: &ServerId, container: &Container) {
    let row = draft.row(id);
    row.container = Some(container.name.clone());
    row.container_id = Some(container.id.0.clone());
    row.image_id = Some(container.image.0.clone());
    row.spec = container.mark.as_ref().and_then(|mark| Some(mark.fingerprint.as_ref()?.short()));
    row.published = container.host_ports.first().copied();
    row.container_state = Some(state_words(container.state));
}

fn container<'a>(draft: &mut Draft<'a>, server: &'a Server, decl: &'a ContainerDecl) {
    let id = &server.id;
    draft.row(id).image = Some(decl.spec.image.clone());
    if let Seen::Unknown(why) = &draft.input.observed.containers {
        draft.wait(id, format!("the container engine: {why}"), None);
        draft.keep.insert(id.clone());
        return;
    }
    let group = draft.fleet.groups.get(id).cloned().unwrap_or_default();
    if let Some(main) = group.main.or_else(|| group.nexts.first().copied()) {
        show(draft, id, main);
    }
    let name = main_name(draft.input.policy, id);
    match want(draft.input.policy, &draft.memory, server) {
        Want::Stop { by_hand: true, .. } if !depends::may_stop(draft, server) => {}
        Want::Stop { why, by_hand } => stop(draft, id, &group, &why, by_hand),
        Want::Sleep => demand::container(draft, server, &group),
        Want::Run => {
            if let Some(other) = draft.fleet.names.get(name.as_str()).filter(|_| group.main.is_none()) {
                let whose =
                    if other.mark.is_some() { "of another stack or server" } else { "without our mark" };
                let text = format!(
                    "a container {whose} has the name {name}; rename or remove it, or set name_prefix"
                );
                draft.block(id, "MCPO-P030", text);
                draft.keep.insert(id.clone());
                return;
            }
            let Some(site) = resolve(draft, server, decl, group.clone(), name) else {
                draft.keep.insert(id.clone());
                drop_stale(draft, id, decl, &group);
                return;
            };
            if draft.input.policy.ending == Ending::Leave {
                return leave(draft, &site);
            }
            run(draft, &site);
        }
    }
}

fn show_site(draft: &mut Draft<'_>, site: &Site<'_>) {
    let row = draft.row(&site.server.id);
    row.transport = Some(site.transport);
    row.route = Some(if site.direct.is_some() { "direct" } else { "edge" });
}

/// Nothing reaches it through the load balancer any more; its container goes on running.
pub(crate) fn leave(draft: &mut Draft<'_>, site: &Site<'_>) {
    show_site(draft, site);
    want_route(draft, site, Vec::new());
}

fn run(draft: &mut Draft<'_>, site: &Site<'_>) {
    show_site(draft, site);
    // The route is wanted before anything is decided: a step that drains takes the ports out again.
    let ports = serving_ports(draft, site);
    want_route(draft, site, ports);
    match site.group.main {
        None => steady::without_main(draft, site),
        Some(main) => {
            let running = matches!(main.state, ContainerState::Running(_));
            let asked = restart_due(&draft.memory, &site.server.id).is_some();
            let looks = running && !asked;
            let step = if looks { recovery::decide(draft, site.server, Some(main)) } else { Step::None };
            match (replace::change(draft, site, main), step) {
                (None, Step::Restart(why)) => steady::restart(draft, site, main, &why),
                (None, Step::None | Step::Anew) => steady::keep(draft, site, main),
                (Some(why), _) if recovery::anew(draft, &site.server.id, main).is_some() => {
                    make_anew(draft, site, main, &why);
                }
                (Some(why), _) => replace::replace(draft, site, main, &why),
            }
            if site.direct.is_none() && matches!(main.state, ContainerState::Running(_)) {
                outside::say_silent(draft, &site.server.id);
            }
        }
    }
}

/// The same once more, from the very image that the container was made from.
fn make_anew(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, why: &str) {
    let image = if site.group.nexts.is_empty() {
        let Some(image) = images::same(draft, site.server, site.decl, main) else { return };
        Some(image)
    } else {
        None
    };
    replace::replace(draft, &Site { image, ..site.clone() }, main, why);
}

/// Transport, port and route, from the entry, then the container that was made from it, then the
/// image; `None` when the row says what is missing.
pub(crate) fn resolve<'a>(
    draft: &mut Draft<'a>,
    server: &'a Server,
    decl: &'a ContainerDecl,
    group: Group<'a>,
    name: String,
) -> Option<Site<'a>> {
    let id = &server.id;
    let said = server.said_transport();
    let said_port = decl.mcp_port.as_ref().map(|port| port.container_port);
    // What is left alone stays what its container was made as, and nothing is fetched for it.
    let held = paused(draft.input.policy, &draft.memory, server, draft.input.now).is_some();
    let made =
        group.main.into_iter().chain(group.nexts.iter().copied()).filter_map(|one| one.mark.as_ref()).find(
            |mark| {
                use crate::model::fingerprint::Likeness;
                let same = |made_from| {
                    matches!(
                        decl.fingerprint.likeness(made_from),
                        Likeness::Same | Likeness::SameButSecretsUnknown
                    )
                };
                held || mark.fingerprint.as_ref().is_some_and(same)
            },
        );
    let mut image = None;
    let (transport, container_port) = match (said, said_port) {
        (Some(Transport::Stdio), _) => (Transport::Stdio, None),
        (Some(transport), Some(port)) => (transport, Some(port)),
        _ => {
            if let Some((transport, port)) =
                made.and_then(|mark| Some((mark.transport?, mark.container_port)))
            {
                (transport, port)
            } else if held {
                return None;
            } else {
                let chosen = images::choose(draft, server, decl)?;
                let found = from_image(draft, id, &chosen, said)?;
                image = Some(chosen);
                found
            }
        }
    };
    let direct = route(draft, server, transport, decl)?;
    let port = draft.port(id);
    if port.is_none() && replicas::lacks_door(draft, id) {
        return None;
    }
    Some(Site { server, decl, group, name, transport, container_port, direct, port, image })
}

/// A server that waits or is blocked does not keep a replacement of an older declaration.
fn drop_stale(draft: &mut Draft<'_>, id: &ServerId, decl: &ContainerDecl, group: &Group<'_>) {
    use crate::model::fingerprint::Likeness;
    if group.main.is_none() {
        return;
    }
    for next in &group.nexts {
        let made_from = next.mark.as_ref().and_then(|mark| mark.fingerprint.as_ref());
        let stale =
            made_from.is_none_or(|made_from| decl.fingerprint.likeness(made_from) == Likeness::Changed);
        if stale && next.state != ContainerState::Removing {
            draft.stop_and_remove(id, next, Some(Vec::new()), "a replacement that is no longer wanted", &[]);
        }
    }
}

/// What an image's EXPOSE says about a server whose line says nothing.
fn from_image(
    draft: &mut Draft<'_>,
    id: &ServerId,
    image: &Chosen,
    said: Option<Transport>,
) -> Option<(Transport, Option<u16>)> {
    match (image.exposed.as_slice(), said) {
        ([port], _) => Some((said.unwrap_or(Transport::Http), Some(*port))),
        ([], None) => {
            draft.note(id, "the image exposes no port: taken for a stdio server; say -i to make it plain");
            Some((Transport::Stdio, None))
        }
        ([], Some(transport)) => {
            let text = format!(
                "transport is {} but neither the line nor the image names a port; set orchestrator.containerPort",
                transport.as_str()
            );
            draft.block(id, "MCPO-P031", text);
            None
        }
        (ports, _) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let text = format!(
                "the image exposes ports {}; set orchestrator.containerPort to the one that speaks MCP",
                ports.join(", ")
            );
            draft.block(id, "MCPO-P032", text);
            None
        }
    }
}

/// `Some(Some(address))` for direct, `Some(None)` for edge, `None` when blocked.
#[expect(clippy::option_option, reason = "blocked, edge and direct are three things")]
fn route(
    draft: &mut Draft<'_>,
    server: &Server,
    transport: Transport,
    decl: &ContainerDecl,
) -> Option<Option<String>> {
    let address = || {
        let own = decl.mcp_port.as_ref().and_then(|port| port.host_ip.clone());
        own.unwrap_or_else(|| draft.input.policy.host.clone())
    };
    match (server.route, transport) {
        // Nobody but the gateway can send a request to one of several.
        _ if server.id.replica_number() > 1 => Some(None),
        (RouteWish::Direct, Transport::Stdio) => {
            draft.block(
                &server.id,
                "MCPO-P033",
                "route is direct but a stdio server has no port of its own; use edge or auto",
            );
            None
        }
        (RouteWish::Edge, _) | (RouteWish::Auto, Transport::Stdio) => Some(None),
        (RouteWish::Direct, _) => Some(Some(address())),
        (RouteWish::Auto, _) if server.gateway_reasons.is_empty() => Some(Some(address())),
        (RouteWish::Auto, _) => {
            let why = format!("goes through the gateway for: {}", server.gateway_reasons.join(", "));
            draft.note(&server.id, why);
            Some(None)
        }
    }
}

/// Where this host's target for a port stands.
pub(crate) fn standing(draft: &Draft<'_>, id: &ServerId, port: HostPort) -> Standing {
    let Draft { input, memory, .. } = draft;
    crate::plan::balancer::standing(
        &input.observed.balancer,
        &memory.balancer,
        &input.policy.stack,
        id,
        port,
        input.now,
    )
}

/// Whether a load balancer is configured.
pub(crate) const fn balancer_on(draft: &Draft<'_>) -> bool {
    matches!(draft.input.observed.balancer, BalancerSeen::On(_))
}

/// Ports to be registered for a server that runs: its own once it was seen to be up, and whatever
/// is registered already (a crash does not deregister; the balancer's own checks do their work).
fn serving_ports(draft: &Draft<'_>, site: &Site<'_>) -> Vec<HostPort> {
    let id = &site.server.id;
    if site.direct.is_none() {
        let served = draft.input.observed.edges.as_ref().and_then(|edges| edges.get(id)).copied();
        // The gateway answers while the container restarts: its health path tells the balancer.
        return served.filter(|port| Some(*port) == site.port).into_iter().collect();
    }
    // The container that carries the port, not the ledger, tells what answers now.
    let Some(main) = site.group.main.filter(|main| !matches!(main.state, ContainerState::Created)) else {
        return Vec::new();
    };
    let Some(port) = main.mark.as_ref().and_then(|mark| mark.port) else { return Vec::new() };
    let starting =
        draft.memory.attempts.get(id).is_some_and(|attempts| attempts.started.is_some() && !attempts.up);
    let registered = match standing(draft, id, port) {
        Standing::Healthy | Standing::Pending(_) | Standing::Unhealthy(_) => true,
        // Not read in this pass: what the last reading showed counts.
        Standing::Unknown(_) => {
            draft.memory.balancer.registered.get(id).is_some_and(|ports| ports.contains(&port))
        }
        Standing::Absent | Standing::Draining(_) => false,
    };
    if starting && !registered { Vec::new() } else { vec![port] }
}

/// Says what a server wants of the load balancer.
pub(crate) fn want_route(draft: &mut Draft<'_>, site: &Site<'_>, ports: Vec<HostPort>) {
    let server = site.server;
    let path = |default: &str| server.http_path.clone().unwrap_or_else(|| default.to_owned());
    let kind = match (&site.direct, site.transport) {
        (None, _) | (_, Transport::Stdio) => RouteKind::Edge,
        (Some(_), Transport::Http) => RouteKind::Direct { transport: Transport::Http, path: path(HTTP_PATH) },
        (Some(_), Transport::Sse) => RouteKind::Direct { transport: Transport::Sse, path: path(SSE_PATH) },
    };
    let health_path = server.health.path.clone();
    let ports = if drain::holds(draft) { Vec::new() } else { ports };
    draft.offer(RouteWant { server: server.id.clone(), kind, ports, health_path });
}

/// Not to run: take it out of the balancer, then stop it. The container stays, so that `start` is
/// quick and nothing of it is lost.
fn stop(draft: &mut Draft<'_>, id: &ServerId, group: &Group<'_>, why: &str, by_hand: bool) {
    draft.row(id).state = RowState::Stopped;
    draft.say(id, Reason::new(ReasonKind::LeftAlone, why.to_owned()));
    // One whose name somebody took away stands for the server all the same.
    let main = group.main.or_else(|| group.nexts.first().copied());
    for next in group.nexts.iter().filter(|next| main.is_some_and(|main| main.id != next.id)) {
        draft.stop_and_remove(id, next, Some(Vec::new()), "a replacement that is no longer wanted", &[]);
    }
    let running: Vec<&Container> = group.all().filter(|container| runs(container)).collect();
    if running.is_empty() {
        forget_start(draft, id);
        return;
    }
    if !drained(draft, id, group, by_hand) {
        return;
    }
    for container in running.into_iter().filter(|c| main.is_none_or(|main| main.id == c.id)) {
        draft.engine(id, EngineOp::Stop(refer(container)), why, &[]);
    }
    forget_start(draft, id);
}

/// A stopped server starts its count of crashes anew.
pub(crate) fn forget_start(draft: &mut Draft<'_>, id: &ServerId) {
    draft.memory.recoveries.remove(id);
    if let Some(attempts) = draft.memory.attempts.get_mut(id) {
        attempts.crashes = 0;
        attempts.started = None;
        attempts.down_since = None;
        attempts.up = false;
    }
}

/// Whether no request can reach the server's published ports any more; else the row says until when.
pub(crate) fn drained(draft: &mut Draft<'_>, id: &ServerId, group: &Group<'_>, by_hand: bool) -> bool {
    if !balancer_on(draft) {
        return true;
    }
    let ports: Vec<HostPort> = group.all().filter_map(|container| container.mark.as_ref()?.port).collect();
    let mut all = true;
    for port in ports {
        all &= port_drained(draft, id, port, by_hand);
    }
    all
}

/// [`drained`] for one port.
pub(crate) fn port_drained(draft: &mut Draft<'_>, id: &ServerId, port: HostPort, by_hand: bool) -> bool {
    let standing = standing(draft, id, port);
    if standing != Standing::Absent {
        // The next step depends on what becomes of this target.
        draft.read_next.insert(id.clone());
    }
    match standing {
        Standing::Absent => true,
        Standing::Draining(until) => {
            draft.wait(
                id,
                format!("connections through the load balancer to end (port {port})"),
                Some(until),
            );
            false
        }
        Standing::Unknown(why) if by_hand => {
            draft.note(id, format!("stopped although the load balancer could not be asked: {why}"));
            true
        }
        Standing::Unknown(why) => {
            draft.wait(id, format!("the load balancer, before port {port} is taken away: {why}"), None);
            false
        }
        Standing::Pending(_) | Standing::Healthy | Standing::Unhealthy(_) => {
            draft.wait(id, format!("port {port} to be deregistered"), None);
            false
        }
    }
}

/// The file has the entry, but wrong: whatever runs stays as it is.
fn leave_broken(draft: &mut Draft<'_>, id: &ServerId, problem: &str) {
    let group = draft.fleet.groups.get(id).cloned().unwrap_or_default();
    draft.row(id).kind = "container";
    draft.row(id).port = draft.port(id);
    if let Some(main) = group.main {
        show(draft, id, main);
        draft.say(
            id,
            Reason::new(ReasonKind::LeftAlone, "its entry has a problem; its container stays as it is"),
        );
    }
    draft.block(id, "MCPO-P034", problem.to_owned());
}

/// No entry has it, or its server asks for fewer instances: drain, stop, remove; anonymous volumes go where
/// the line had `--rm`.
fn remove_unclaimed(draft: &mut Draft<'_>, id: &ServerId) {
    let spare = draft.input.desired.is_spare(id);
    let group = draft.fleet.groups.get(id).cloned().unwrap_or_default();
    if let Some(main) = group.main.or_else(|| group.all().next()) {
        show(draft, id, main);
    }
    if draft.keep_unclaimed && !(spare && draft.input.desired.stale.is_none()) {
        draft.keep.insert(id.clone());
        draft.row(id).state = RowState::Blocked;
        draft.say(id, Reason::new(ReasonKind::LeftAlone, "removal is held back").code("MCPO-P004"));
        return;
    }
    let why = if spare { "the file asks for fewer instances" } else { "the file no longer has it" };
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, why));
    if !drained(draft, id, &group, false) || (spare && replicas::still_serves(draft, id, &group)) {
        return;
    }
    for container in group.all() {
        if container.state == ContainerState::Removing {
            continue;
        }
        let volumes =
            container.mark.as_ref().filter(|mark| mark.remove_volumes).map(|mark| mark.volumes.clone());
        draft.stop_and_remove(id, container, volumes, why, &[]);
    }
}
