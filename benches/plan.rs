//! How long the pure core thinks: a pass over a fleet where all is well, and one from nothing.
//!
//! `cargo bench --bench plan` prints medians, beside a floor taken in the same run: one walk over
//! the same containers and servers, one clone of the memory. Nothing is asserted about time: the
//! figures are for comparing two runs on one machine.
//!
//! Must never touch the world: what is seen is made from what was planned.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench is a program that prints a table")]

use mcp_orchestrator::execute::lanes;
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::{ContainerId, ImageId, ServerId};
use mcp_orchestrator::model::mark::Mark;
use mcp_orchestrator::model::memory::Memory;
use mcp_orchestrator::model::net::{HostPort, PortRange};
use mcp_orchestrator::model::observed::{Container, ContainerHealth, ContainerState, Image, Observed, Seen};
use mcp_orchestrator::model::op::{EngineOp, Op};
use mcp_orchestrator::model::policy::Policy;
use mcp_orchestrator::model::server::ServerKind;
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::check::check;
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::world::fake;
use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Servers in the fleets.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Measured runs: as many as fit into the time, within these.
const RUNS_MIN: usize = 31;
const RUNS_MAX: usize = 1_001;
const RUN_TIME: Duration = Duration::from_secs(2);
/// A case whose first run takes longer is measured only this often.
const SLOW: Duration = Duration::from_millis(500);
const SLOW_RUNS: usize = 3;
/// Ports that may be leased: enough for the largest fleet.
const PORTS: (u16, u16) = (10_000, 29_999);
/// The image of every second server, which listens, and of the others, which speak stdio.
const HTTP_IMAGE: &str = "example/http:1";
const STDIO_IMAGE: &str = "example/stdio:1";
/// When the fleet is made, and when it is looked at: everything has been up for an hour.
const BEGIN: Timestamp = Timestamp(1_700_000_000_000);
const LATER: Span = Span::secs(3600);

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A fleet and all that a decision about it is made from.
struct Fleet {
    desired: Desired,
    observed: Observed,
    memory: Memory,
    policy: Policy,
    now: Timestamp,
}

impl Fleet {
    /// `size` servers in the file, an empty engine.
    fn nothing(size: usize) -> Fallible<Self> {
        let port = |number| HostPort::new(number).ok_or("no port");
        let mut policy = fake::policy(0)?;
        policy.ports = PortRange { start: port(PORTS.0)?, end: port(PORTS.1)? };
        let servers = (0..size).filter_map(|number| {
            let (kind, image) = if number % 2 == 0 {
                (fake::EntryKind::Stdio, STDIO_IMAGE)
            } else {
                (fake::EntryKind::Http, HTTP_IMAGE)
            };
            fake::server(&fake::Entry::new(&format!("server-{number:05}"), kind, image))
        });
        let desired = Desired {
            servers: servers.map(|server| (server.id.clone(), server)).collect(),
            ..Desired::default()
        };
        let image = |name: &str, exposed| {
            let id = ImageId(format!("sha256:{name:0>64}"));
            (name.to_owned(), Seen::Known(Some(Image { id, digest: None, exposed })))
        };
        let observed = Observed {
            images: BTreeMap::from([image(HTTP_IMAGE, vec![8080]), image(STDIO_IMAGE, Vec::new())]),
            free_ports: Some(Seen::Known(policy.ports.ports().collect())),
            ..fake::nothing_seen()
        };
        Ok(Self { desired, observed, memory: Memory::default(), policy, now: BEGIN })
    }

    /// The same fleet an hour after its first plan was carried out.
    fn converged(size: usize) -> Fallible<Self> {
        let mut fleet = Self::nothing(size)?;
        let first = fleet.pass();
        let containers: Vec<Container> = first.actions.iter().filter_map(|action| made(&action.op)).collect();
        if containers.len() != size {
            return Err(format!("{} of {size} containers are planned", containers.len()).into());
        }
        fleet.memory = first.memory;
        for attempts in fleet.memory.attempts.values_mut() {
            attempts.up = true;
        }
        fleet.observed.containers = Seen::Known(containers);
        fleet.observed.images = BTreeMap::new();
        fleet.observed.free_ports = None;
        fleet.now = BEGIN.after(LATER);
        let second = fleet.pass();
        if !second.is_empty() || !second.questions.is_empty() || second.report.servers.len() != size {
            return Err("the fleet is not at rest".into());
        }
        Ok(fleet)
    }

    /// One decision, checked.
    fn pass(&self) -> Plan {
        let Self { desired, observed, memory, policy, now } = self;
        let input = Input { desired, observed, memory, policy, now: *now };
        let plan = plan(input);
        let broken = check(input, &plan);
        assert!(broken.is_empty(), "the plan breaks {broken:?}");
        plan
    }

    /// What no planner can do without: sort the containers by server, look each server's up,
    /// compare what it was made from, carry the memory on.
    fn floor(&self) -> (usize, Memory) {
        let containers = self.observed.containers.known().map_or(&[][..], Vec::as_slice);
        let server = |container: &Container| container.mark.as_ref().and_then(|mark| mark.server.clone());
        let by_server: BTreeMap<ServerId, &Container> =
            containers.iter().filter_map(|container| Some((server(container)?, container))).collect();
        let same = self.desired.servers.iter().filter(|(id, server)| {
            let mark = by_server.get(id).and_then(|container| container.mark.as_ref());
            let ServerKind::Container(decl) = &server.kind else { return false };
            mark.and_then(|mark| mark.fingerprint.as_ref()) == Some(&decl.fingerprint)
        });
        (same.count(), self.memory.clone())
    }
}

/// The container that a creation leads to, running.
fn made(op: &Op) -> Option<Container> {
    let Op::Engine(EngineOp::Create(create)) = op else { return None };
    Some(Container {
        id: ContainerId(format!("{:0>64}", create.name)),
        name: create.name.clone(),
        mark: Mark::parse(&create.labels),
        state: ContainerState::Running(ContainerHealth::None),
        image: create.image.clone(),
        created: BEGIN,
        host_ports: create.publish.iter().filter_map(|publish| publish.host_port).collect(),
    })
}

/// Median of runs, and how many there were.
fn median<T>(mut work: impl FnMut() -> T) -> (Duration, usize) {
    let mut once = || {
        let begun = Instant::now();
        let out = black_box(work());
        let took = begun.elapsed();
        drop(out);
        took
    };
    let first = once();
    let fit = RUN_TIME.as_nanos() / first.as_nanos().max(1);
    let fit = usize::try_from(fit).unwrap_or(RUNS_MAX).clamp(RUNS_MIN, RUNS_MAX);
    let runs = if first > SLOW { SLOW_RUNS } else { fit };
    let mut times: Vec<Duration> = (0..runs).map(|_| once()).collect();
    times.sort_unstable();
    (times.get(runs / 2).copied().unwrap_or(first), runs)
}

/// Prints one line; the answer is the time per server, for the next line's growth.
fn row(
    what: &str,
    size: usize,
    measured: (Duration, usize),
    floor: Option<Duration>,
    last: Option<f64>,
) -> f64 {
    let (time, runs) = measured;
    let count = u32::try_from(size).map_or(1.0, f64::from);
    let micros = time.as_secs_f64() * 1e6;
    let each = micros / count;
    let growth = last.map_or_else(|| "-".to_owned(), |last| format!("{:.2}", each / last));
    let ratio =
        floor.map_or_else(|| "-".to_owned(), |floor| format!("{:.1}", micros / (floor.as_secs_f64() * 1e6)));
    println!("{what:<22} {size:>6} {micros:>12.1} {each:>10.3} {growth:>8} {ratio:>9} {runs:>6}");
    each
}

fn measure() -> Fallible<()> {
    println!(
        "{:<22} {:>6} {:>12} {:>10} {:>8} {:>9} {:>6}",
        "case", "n", "median us", "us/server", "growth", "x floor", "runs"
    );
    let mut last: Vec<Option<f64>> = vec![None; 4];
    for size in SIZES {
        let fleet = Fleet::converged(size)?;
        let nothing = Fleet::nothing(size)?;
        let actions = nothing.pass().actions;
        let floor = median(|| fleet.floor());
        let cases: [(&str, (Duration, usize), Option<Duration>); 4] = [
            ("floor", floor, None),
            ("no-op, plan + check", median(|| fleet.pass()), Some(floor.0)),
            ("from nothing", median(|| nothing.pass()), None),
            ("cutting into lanes", median(|| lanes(&actions)), None),
        ];
        for ((what, measured, floor), last) in cases.into_iter().zip(&mut last) {
            *last = Some(row(what, size, measured, floor, *last));
        }
    }
    println!("growth: time per server, against the line with a tenth of the servers; 1.00 is linear");
    Ok(())
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plan: {error}");
            ExitCode::FAILURE
        }
    }
}
