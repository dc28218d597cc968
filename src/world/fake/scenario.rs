//! A whole run from one number: files and their edits, images, others' things, acts, faults.
//!
//! Must never draw from anything but the seed, and never in an order that depends on a run.

use crate::model::balancer::BalancerPolicy;
use crate::model::desired::Desired;
use crate::model::id::{IdError, SectionId, ServerId, Stack};
use crate::model::memory::{Intent, Pause, Scope};
use crate::model::net::{HostPort, PortRange};
use crate::model::policy::{Ending, Policy};
use crate::model::server::{OomRaise, PullPolicy, RestartPolicy, RestartWhen, RouteWish, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::world::fake::FakeWorld;
use crate::world::fake::effect::START;
use crate::world::fake::events::{Act, Event, acts};
use crate::world::fake::faults::FaultPlan;
use crate::world::fake::image::{Behaviour, ImageFacts};
use crate::world::fake::rng::Rng;
use crate::world::fake::servers::{Entry, EntryKind, HTTP_PORT, server};
use crate::world::fake::state::State;
use std::fmt;
use std::sync::Arc;

/// Memory limit of the entries that have one: 256 MiB.
const MEMORY: i64 = 256 * 1024 * 1024;
/// Most entries in the files.
const ENTRIES_MAX: u64 = 8;
/// First port of the range.
const PORT_START: u16 = 8000;
/// Longest time with faults, in minutes.
const FAULT_MINUTES_MAX: u64 = 12;

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number it came from.
    pub seed: u64,
    /// Settings.
    pub policy: Policy,
    /// A listener is configured.
    pub balancer: bool,
    /// What the files say at first.
    pub desired: Arc<Desired>,
    /// Files and acts to come, by time.
    pub events: Vec<(Timestamp, Event)>,
    /// Faults.
    pub faults: FaultPlan,
    /// When faults, acts and edits have ended.
    pub until: Timestamp,
    /// Images in the registry by reference; true: on the engine as well.
    pub images: Vec<(String, ImageFacts, bool)>,
    /// Ports of the range that others' programs hold at first.
    pub foreign_ports: Vec<HostPort>,
    /// Legs that an earlier run left: of which server, and whether they still run.
    pub stale_legs: Vec<(ServerId, bool)>,
    /// Others' rules at first: priority and path.
    pub foreign_rules: Vec<(u32, String)>,
    /// Quotas of the balancer: rules and target groups.
    pub quotas: (usize, usize),
}

/// Makes another sequence of a seed.
const DRAINS: u64 = 0x6472_6169_6e73;

/// The scenario of `seed`.
///
/// # Errors
/// Never in practice: when the fixed name of the fake stack is no stack name.
pub fn generate(seed: u64) -> Result<Scenario, IdError> {
    let mut rng = Rng::new(seed);
    let until = START.after(Span::secs(60 * rng.between(1, FAULT_MINUTES_MAX)));
    let images = images(&mut rng);
    let mut files = Files::generate(&mut rng, &images, seed);
    let desired = Arc::new(files.desired());
    let mut events = files.edits(&mut rng, until);
    events.extend(acts(&mut rng, START, until));
    events.extend(intents(&mut rng, &desired, until));
    // Drawn apart, so that the rest of a seed stays what it is.
    let mut apart = Rng::new(!seed);
    events.extend(sessions(&mut apart, until));
    let stale_legs = stale_legs(&mut apart, &desired);
    events.extend(illness(&mut apart, &desired, until));
    events.extend(drains(seed, until));
    events.extend(calls(&mut apart, until));
    events.sort_by_key(|(at, _)| *at);
    let faults = FaultPlan::generate(&mut rng, START, until);
    let room = if rng.chance(150) { rng.between(0, 6) } else { ENTRIES_MAX + rng.between(4, 12) };
    let mut policy = policy(u16::try_from(room).unwrap_or(0))?;
    policy.allow_mass_delete = rng.chance(300);
    policy.replacements_max = usize::try_from(rng.between(1, 4)).unwrap_or(1);
    let quotas = if rng.chance(100) { (few(&mut rng), few(&mut rng)) } else { (100, 100) };
    policy.balancer.target_groups_max = quotas.1;
    let ports: Vec<HostPort> = policy.ports.ports().collect();
    let foreign_ports = (0..rng.below(3)).filter_map(|_| rng.pick(&ports).copied()).collect();
    let foreign_rules = foreign_rules(&mut rng, &policy, &desired);
    let balancer = rng.chance(700);
    Ok(Scenario {
        seed,
        policy,
        balancer,
        desired,
        events,
        faults,
        until,
        images,
        foreign_ports,
        stale_legs,
        foreign_rules,
        quotas,
    })
}

/// Clients that get a leg of their own, in some runs.
fn sessions(rng: &mut Rng, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let many = rng.below(3) * rng.below(4);
    let at = |rng: &mut Rng| START.after(Span::millis(rng.below(until.since(START).0)));
    (0..many).map(|_| (at(rng), Event::Act(Act::OpenLeg))).collect()
}

/// Programs that hang or are slow, times in which nobody is asked, and pauses, in some runs. Drawn after
/// the stale legs were, in their own order.
fn illness(rng: &mut Rng, desired: &Desired, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let at = |rng: &mut Rng| START.after(Span::millis(rng.below(until.since(START).0)));
    let mut out = Vec::new();
    for _ in 0..rng.below(3) * rng.below(4) {
        let act = [Act::HangOurs, Act::HangOurs, Act::SlowOurs, Act::LoseQuestions];
        let act = rng.pick(&act).copied().unwrap_or(Act::HangOurs);
        out.push((at(rng), Event::Act(act)));
    }
    let ids: Vec<&ServerId> = desired.servers.keys().collect();
    for _ in 0..rng.below(3) * rng.below(2) {
        let from = at(rng);
        let scope = match rng.pick(&ids) {
            Some(id) if rng.chance(700) => Scope::Server((*id).clone()),
            _ => Scope::Host,
        };
        let end = from.after(rng.millis(1_000, 300_000)).min(until);
        out.push((from, Event::Pause(scope, Pause { by: "fake".to_owned(), at: from, until: Some(end) })));
    }
    out
}

/// Drains of this host, in some runs; they end with the faults at the latest. Drawn apart.
fn drains(seed: u64, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let mut rng = Rng::new(seed ^ DRAINS);
    let many = rng.below(2) * rng.below(3);
    let all = until.since(START).0;
    let one = |_| {
        let from = START.after(Span::millis(rng.below(all)));
        let end = from.after(rng.millis(1_000, 300_000)).min(until);
        (from, Event::Drain(Pause { by: "fake".to_owned(), at: from, until: Some(end) }))
    };
    (0..many).map(one).collect()
}

/// Calls of servers that may sleep, in some runs.
fn calls(rng: &mut Rng, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let many = rng.below(4) * rng.below(8);
    let at = |rng: &mut Rng| START.after(Span::millis(rng.below(until.since(START).0)));
    (0..many).map(|_| (at(rng), Event::Act(Act::CallSleeper))).collect()
}

/// What a kill left of the run before, in some runs: also of a server that no entry has.
fn stale_legs(rng: &mut Rng, desired: &Desired) -> Vec<(ServerId, bool)> {
    let gone = ServerId::new("gone").ok();
    let ids: Vec<ServerId> =
        desired.servers.keys().chain(desired.broken.keys()).chain(&gone).cloned().collect();
    let many = rng.below(2) * rng.below(4);
    (0..many).filter_map(|_| Some((rng.pick(&ids)?.clone(), rng.chance(500)))).collect()
}

fn few(rng: &mut Rng) -> usize {
    usize::try_from(rng.between(2, 8)).unwrap_or(2)
}

/// Settings of a fake world whose range has `room` ports beside the first.
///
/// # Errors
/// Never in practice: when the fixed name of the fake stack is no stack name.
pub fn policy(room: u16) -> Result<Policy, IdError> {
    Ok(Policy {
        stack: Stack::new("fake")?,
        name_prefix: "mcp-".to_owned(),
        ports: PortRange { start: port(PORT_START), end: port(PORT_START.saturating_add(room)) },
        host: "0.0.0.0".to_owned(),
        allow_mass_delete: false,
        replacements_max: 2,
        rollout_failures_max: 3,
        restarts_per_minute_max: 10,
        dependency_wait: Span::secs(30),
        settle: Span::secs(2),
        ending: Ending::None,
        balancer: BalancerPolicy {
            target_type: "instance".to_owned(),
            deregistration_delay: Span::secs(30),
            gc_grace: Span::secs(30),
            priority_start: 100,
            priority_end: 400,
            target_groups_max: 100,
            shared_port: None,
            leaving: false,
        },
    })
}

/// Port `number`, or 1 for 0.
fn port(number: u16) -> HostPort {
    HostPort::new(number).unwrap_or_else(|| port(1))
}

impl Scenario {
    /// The world in which it runs.
    #[must_use]
    pub fn world(&self) -> Arc<FakeWorld> {
        let mut state = State::new(self.seed, self.policy.clone());
        state.balancer_in_use = self.balancer;
        state.desired = Arc::new(self.desired.instances().into_owned());
        state.events = self.events.iter().cloned().collect();
        state.faults = self.faults.clone();
        (state.balancer.rules_max, state.balancer.groups_max) = self.quotas;
        for (reference, facts, local) in &self.images {
            state.engine.publish_image(reference, facts.clone());
            if *local {
                state.engine.pull(reference);
            }
        }
        for port in &self.foreign_ports {
            state.host.foreign.insert(*port, "0.0.0.0".to_owned());
        }
        for (server, runs) in &self.stale_legs {
            state.add_stale_leg(server, *runs);
        }
        for (priority, path) in &self.foreign_rules {
            state.add_foreign_rule(*priority, path);
        }
        FakeWorld::with_state(state)
    }
}

impl fmt::Display for Scenario {
    /// What is set before it starts, in a few lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, policy, balancer, desired, events, faults, until, images, .. } = self;
        let Self { foreign_ports, stale_legs, foreign_rules, quotas, .. } = self;
        let minutes = until.since(START);
        writeln!(f, "seed {seed}: {minutes} with faults, {} events, ports {}", events.len(), policy.ports)?;
        writeln!(
            f,
            "ports held by others: {foreign_ports:?}; removing all allowed: {}",
            policy.allow_mass_delete
        )?;
        for (server, runs) in stale_legs {
            writeln!(
                f,
                "leg of {server} left by an earlier run, {}",
                if *runs { "running" } else { "ended" }
            )?;
        }
        if *balancer {
            let (rules, groups) = quotas;
            writeln!(f, "balancer: {rules} rules, {groups} target groups, others' rules {foreign_rules:?}")?;
        } else {
            writeln!(f, "no balancer")?;
        }
        let FaultPlan { before, after, crash, lag, partial, grab, outages, until: _ } = faults;
        writeln!(
            f,
            "per mille: {before} errors, {after} lost answers, {crash} kills, {lag} late reads, {partial} partial reads, {grab} ports taken"
        )?;
        for outage in outages {
            let (from, to) = (outage.from.since(START), outage.until.since(START));
            writeln!(f, "{:?} answers {:?} from {from} to {to}", outage.side, outage.kind)?;
        }
        for (reference, facts, local) in images {
            let place = if *local { "on the engine" } else { "in the registry" };
            writeln!(f, "image {reference} {place}: {:?}", facts.behaviour)?;
        }
        for server in desired.servers.values() {
            let kind = match &server.kind {
                ServerKind::Container(decl) if decl.interactive => format!("stdio {}", decl.spec.image),
                ServerKind::Container(decl) => format!("http {} port {:?}", decl.spec.image, decl.mcp_port),
                ServerKind::Process(_) => "process".to_owned(),
                ServerKind::Remote(_) => "remote".to_owned(),
            };
            let several =
                if server.replicas > 1 { format!(", {} instances", server.replicas) } else { String::new() };
            writeln!(
                f,
                "server {}: {kind}{several}{}",
                server.id,
                if server.enabled { "" } else { ", disabled" }
            )?;
        }
        Ok(())
    }
}

fn foreign_rules(rng: &mut Rng, policy: &Policy, desired: &Desired) -> Vec<(u32, String)> {
    let ids: Vec<&ServerId> = desired.servers.keys().collect();
    let (low, high) = (u64::from(policy.balancer.priority_start), u64::from(policy.balancer.priority_end));
    let mut out = Vec::new();
    for _ in 0..rng.below(4) {
        let path = rng.pick(&ids).map_or_else(|| "/shop/*".to_owned(), |id| format!("/mcp/{id}/*"));
        out.push((u32::try_from(rng.between(low, high)).unwrap_or(1), path));
    }
    out
}

/// Starts and stops by hand of servers that the files have at first.
fn intents(rng: &mut Rng, desired: &Desired, until: Timestamp) -> Vec<(Timestamp, Event)> {
    let servers: Vec<(&ServerId, bool)> =
        desired.servers.iter().map(|(id, server)| (id, server.enabled)).collect();
    let mut out = Vec::new();
    for _ in 0..rng.below(12).saturating_sub(9) {
        let at = START.after(Span::millis(rng.below(until.since(START).0)));
        let Some((server, file_enabled)) = rng.pick(&servers).copied() else { continue };
        let expires = rng.chance(500).then(|| at.after(rng.millis(10_000, 600_000)));
        let restart = rng.chance(300).then_some(at);
        let run = restart.is_some() || rng.chance(500);
        let intent = Intent { run, by: "fake".to_owned(), at, until: expires, file_enabled, restart };
        out.push((at, Event::Intent(server.clone(), intent)));
    }
    out
}

fn images(rng: &mut Rng) -> Vec<(String, ImageFacts, bool)> {
    let mut out = Vec::new();
    for at in 0..6 {
        let http = at % 2 == 1;
        let reference = format!("r/{}-{at}:1", if http { "http" } else { "stdio" });
        let mut facts = ImageFacts::new(&reference, 1, Behaviour::generate(rng));
        if http {
            facts.image.exposed = vec![HTTP_PORT];
        }
        facts.health_check = rng.chance(300);
        if rng.chance(200) {
            facts.volumes = vec!["/var/lib/own".to_owned()];
        }
        out.push((reference, facts, rng.chance(500)));
    }
    out
}

/// The section of entry number `number`, and those it waits for: every other one is in none.
fn place(number: u32) -> (Option<SectionId>, Vec<SectionId>) {
    let section = |name: &str| SectionId(name.to_owned());
    match number % 6 {
        1 => (Some(section("base")), Vec::new()),
        2 => (Some(section("app")), vec![section("base")]),
        3 => (None, vec![section("app"), section("base")]),
        _ => (None, Vec::new()),
    }
}

/// The files while they are edited.
struct Files {
    entries: Vec<Entry>,
    images: Vec<String>,
    /// Draws what each entry has of its own.
    seed: u64,
    /// Counts up for names.
    made: u32,
    nameless: bool,
    empty: bool,
    stale: bool,
    /// What was last read well.
    last_good: Desired,
}

impl Files {
    fn generate(rng: &mut Rng, images: &[(String, ImageFacts, bool)], seed: u64) -> Self {
        let images = images.iter().map(|(reference, ..)| reference.clone()).collect();
        let last_good = Desired::default();
        let mut files = Self {
            entries: Vec::new(),
            images,
            seed,
            made: 0,
            nameless: false,
            empty: false,
            stale: false,
            last_good,
        };
        for _ in 0..rng.below(ENTRIES_MAX + 1) {
            files.add(rng);
        }
        files
    }

    fn add(&mut self, rng: &mut Rng) {
        let name = format!("s{}", self.made);
        let number = u16::try_from(self.made).unwrap_or(0);
        self.made += 1;
        let kind = match rng.below(12) {
            0..=3 => EntryKind::Stdio,
            4..=6 => EntryKind::Http,
            7 => EntryKind::HttpByImage,
            8 => EntryKind::HttpFixed(if rng.chance(500) { PORT_START + number } else { 18_000 + number }),
            9 | 10 => EntryKind::Process,
            _ => EntryKind::Remote,
        };
        let mut entry = Entry::new(&name, kind, &self.image(rng, kind));
        entry.anonymous_volume = rng.chance(200);
        entry.bind = rng.chance(250);
        entry.plain_port = rng.chance(100).then_some(19_000 + number);
        entry.remove_volumes = rng.chance(400);
        entry.enabled = !rng.chance(100);
        entry.restart = restart(rng);
        entry.pull = match rng.below(10) {
            0 => PullPolicy::Never,
            1 => PullPolicy::Always,
            _ => PullPolicy::Missing,
        };
        if rng.chance(200) {
            entry.route = RouteWish::Edge;
        }
        entry.broken = rng.chance(40);
        (entry.section, entry.depends_on) = place(self.made);
        if self.made.is_multiple_of(3) {
            entry.memory = MEMORY;
            entry.restart.oom_raise = if self.made.is_multiple_of(2) { OomRaise::Half } else { OomRaise::No };
        }
        // Drawn apart, so that the rest of a seed stays what it is.
        let mut own = Rng::new(self.seed.rotate_left(17) ^ u64::from(number));
        if own.chance(300) {
            entry.on_demand = own.chance(700);
            entry.idle_timeout = own.chance(700).then(|| Span::secs(own.between(5, 120)));
        }
        if own.chance(300) {
            entry.replicas = u32::try_from(own.between(2, 4)).unwrap_or(2);
        }
        self.entries.push(entry);
    }

    fn image(&self, rng: &mut Rng, kind: EntryKind) -> String {
        if rng.chance(40) {
            return "r/nowhere:1".to_owned();
        }
        let http = matches!(kind, EntryKind::HttpByImage);
        let fit: Vec<&String> = self.images.iter().filter(|i| !http || i.contains("http")).collect();
        rng.pick(&fit).map(ToString::to_string).unwrap_or_default()
    }

    /// What the files mean now.
    fn desired(&mut self) -> Desired {
        if self.stale {
            return Desired { stale: Some("line 3: expected ','".to_owned()), ..self.last_good.clone() };
        }
        let mut out = Desired::default();
        for entry in self.entries.iter().filter(|_| !self.empty) {
            let Some(server) = server(entry) else { continue };
            if entry.broken {
                out.broken.insert(server.id, "unknown flag --foo".to_owned());
            } else {
                out.servers.insert(server.id.clone(), server);
            }
        }
        out.nameless = self.nameless.then(|| "***".to_owned()).into_iter().collect();
        self.last_good = out.clone();
        out
    }

    /// Edits until `until`; after the last of them the files can be read and are not empty.
    fn edits(&mut self, rng: &mut Rng, until: Timestamp) -> Vec<(Timestamp, Event)> {
        let mut times: Vec<u64> = (0..rng.below(8)).map(|_| rng.below(until.since(START).0)).collect();
        times.sort_unstable();
        let mut out = Vec::new();
        let last = times.len();
        for (nth, at) in times.into_iter().enumerate() {
            (self.empty, self.stale) = (false, false);
            self.edit(rng, nth + 1 == last);
            out.push((START.after(Span::millis(at)), Event::Files(Arc::new(self.desired()))));
        }
        out
    }

    fn edit(&mut self, rng: &mut Rng, last: bool) {
        self.nameless &= !last;
        match rng.below(14) {
            0 => return self.add(rng),
            1 if !last => self.empty = true,
            2 if !last => self.stale = true,
            3 => self.nameless = !self.nameless && !last,
            _ => {}
        }
        let many = u64::try_from(self.entries.len()).unwrap_or(0);
        let at = usize::try_from(rng.below(many)).unwrap_or(0);
        let draw = rng.below(16);
        let chosen = self.entries.get(at).cloned();
        let (Some(entry), Some(old)) = (self.entries.get_mut(at), chosen) else { return };
        match draw {
            0 | 1 => {
                self.entries.remove(at);
            }
            2 => {
                entry.name = format!("s{}", self.made);
                self.made += 1;
            }
            3 | 4 => {
                let image = self.image(rng, old.kind);
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.image = image;
                }
            }
            5 | 6 => entry.env += 1,
            7 => entry.enabled = !entry.enabled,
            8 | 9 => entry.broken = !entry.broken,
            10 => entry.bind = !entry.bind,
            11 => {
                entry.kind = match entry.kind {
                    EntryKind::Http => EntryKind::HttpFixed(18_500 + u16::try_from(at).unwrap_or(0)),
                    EntryKind::HttpFixed(_) => EntryKind::Process,
                    EntryKind::Stdio if entry.env % 2 == 0 => EntryKind::Process,
                    EntryKind::Stdio => EntryKind::Http,
                    EntryKind::HttpByImage => EntryKind::Remote,
                    EntryKind::Process => EntryKind::Stdio,
                    EntryKind::Remote => EntryKind::Http,
                }
            }
            12 if entry.env % 2 == 0 => entry.replicas = entry.replicas % 4 + 1,
            12 => entry.restart = restart(rng),
            13 => {
                entry.route = if entry.route == RouteWish::Auto { RouteWish::Edge } else { RouteWish::Auto };
            }
            _ => self.add(rng),
        }
    }
}

fn restart(rng: &mut Rng) -> RestartPolicy {
    let when = match rng.below(10) {
        0 => RestartWhen::Never,
        1 => RestartWhen::OnFailure,
        _ => RestartWhen::Always,
    };
    RestartPolicy { when, attempts_max: rng.chance(100).then_some(3), ..RestartPolicy::default() }
}
