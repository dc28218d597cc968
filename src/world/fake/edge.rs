//! Behind the edge listeners: which container gets a server's requests, and the legs that the
//! gateway makes for single clients.
//!
//! A leg carries the run that made it. A run ends with the program under test, and the next one has
//! another id, so that what the last one left is told apart from what this one has.

use crate::model::fingerprint::{Fingerprint, Likeness};
use crate::model::id::{ImageId, ServerId};
use crate::model::mark::{Mark, Role};
use crate::model::observed::{ContainerHealth, ContainerState};
use crate::model::op::ContainerRef;
use crate::model::server::{Server, ServerKind};
use crate::model::time::Span;
use crate::world::ErrorKind;
use crate::world::fake::engine::{Unit, Volume};
use crate::world::fake::image::{End, KILLED};
use crate::world::fake::state::{No, State};

/// How long the gateway waits for the first answer of a container.
const ANSWER_WITHIN: Span = Span::secs(30);
/// Longest time that requests under way take to end, in milliseconds.
const REQUESTS_MILLIS_MAX: u64 = 3_000;
/// Longest life of a leg that ends by itself, in milliseconds.
const LEG_MILLIS_MAX: u64 = 60_000;

impl State {
    /// The id of the run that goes on now.
    pub(crate) fn run(&self) -> String {
        format!("run{}", self.runs)
    }

    fn named(&self, name: &str) -> Option<&Unit> {
        self.engine.containers.iter().find(|unit| unit.seen.name == name)
    }

    /// The name of a server's own container.
    fn own_name(&self, server: &ServerId) -> String {
        format!("{}{server}", self.policy.name_prefix)
    }

    /// Who gets the requests of a server: the one they were handed over to while it is up, else
    /// the server's own container.
    fn gets_requests(&self, server: &ServerId) -> Option<&Unit> {
        let chosen = self.host.handed_over.get(server);
        let up = |unit: &&Unit| unit.is_up() && Some(&unit.seen.id) == chosen;
        self.engine.containers.iter().find(up).or_else(|| self.named(&self.own_name(server)))
    }

    /// Moves requests once the new container answers.
    pub(crate) fn hand_over(&mut self, server: &ServerId, to: &ContainerRef) -> Result<(), No> {
        let Some(unit) = self.engine.find(to.key()).and_then(|at| self.engine.containers.get(at)) else {
            return No::new(ErrorKind::NotFound, format!("no such container: {}", to.key()));
        };
        let (id, serves_from) = (unit.seen.id.clone(), unit.serves_from);
        if unit.server() != Some(server) || !unit.ours {
            self.violation(format!("requests of {server} were sent to container {}", to.name()));
        }
        let wait = serves_from.map_or(ANSWER_WITHIN, |at| at.since(self.now));
        self.pass_time(wait.min(ANSWER_WITHIN));
        if !self.engine.containers.iter().any(|unit| unit.seen.id == id && unit.answers(self.now)) {
            return No::new(ErrorKind::TimedOut, format!("{} does not answer MCP", to.name()));
        }
        self.host.handed_over.insert(server.clone(), id);
        let took = self.rng.millis(0, REQUESTS_MILLIS_MAX);
        self.pass_time(took);
        Ok(())
    }

    /// Whether the program may stop what gets a server's requests: not while another container of
    /// it, as the entry declares it, answers and has not been handed them.
    pub(crate) fn check_handed_over(&mut self, at: usize) {
        let Some(unit) = self.engine.containers.get(at).filter(|unit| unit.ours && unit.is_up()) else {
            return;
        };
        let open = |id: &&ServerId| self.host.edges.iter().any(|(server, _)| *server == id.server());
        let Some(id) = unit.server().filter(open) else {
            return;
        };
        let Some(server) = self.desired.servers.get(id).filter(|server| self.is_to_run(server)) else {
            return;
        };
        let own = unit.seen.name == self.own_name(id) && !is_declared(server, unit);
        let gets = self.gets_requests(id).is_some_and(|gets| gets.seen.id == unit.seen.id);
        if !own || !gets {
            return;
        }
        let ready = |new: &&Unit| {
            let mark = new.seen.mark.as_ref();
            let edge = mark.is_some_and(|m| m.role != Some(Role::Leg) && m.route.as_deref() == Some("edge"));
            let settled = new.details.started.is_some_and(|at| at.after(self.policy.settle) <= self.now);
            edge && new.server() == Some(id)
                && new.seen.id != unit.seen.id
                && settled
                && new.answers(self.now)
                && is_declared(server, new)
        };
        if let Some(new) = self.engine.containers.iter().find(ready) {
            let text = format!(
                "container {} was stopped while it had the requests, although {} was ready",
                unit.seen.name, new.seen.name
            );
            self.violation(text);
        }
    }

    fn is_to_run(&self, server: &Server) -> bool {
        self.saved.intent(&server.id).map_or(server.enabled, |intent| intent.run)
    }

    /// Ends legs the way the gateway does: it closes their stdin, and removes those it still knows.
    pub(crate) fn end_legs(&mut self, legs: &[ContainerRef]) {
        let took = self.rng.millis(0, REQUESTS_MILLIS_MAX);
        self.pass_time(took);
        for leg in legs {
            let Some(at) = self.engine.find(leg.key()) else { continue };
            let now = self.now;
            let Some(unit) = self.engine.containers.get_mut(at).filter(|unit| unit.is_up()) else { continue };
            self.host.legs_let_go.insert(unit.seen.id.clone());
            match self.rng.below(3) {
                // It has forgotten this one.
                0 => {}
                1 => unit.ended(now, 0),
                _ => {
                    unit.ended(now, 0);
                    self.drop_leg(at);
                }
            }
        }
    }

    /// The gateway removes a leg with the volumes that are only its own.
    fn drop_leg(&mut self, at: usize) {
        let Some(unit) = self.engine.containers.get(at) else { return };
        let (id, volumes) = (unit.seen.id.clone(), unit.own_volumes.clone());
        self.engine.containers.retain(|unit| unit.seen.id != id);
        for volume in volumes {
            self.engine.volumes.remove(&volume);
        }
    }

    /// Whether the program may end the leg at `at`: sessions of this run are ended first.
    pub(crate) fn check_let_go(&mut self, at: usize) {
        let Some(unit) = self.engine.containers.get(at).filter(|unit| unit.ours) else { return };
        let Some(mark) = unit.seen.mark.as_ref().filter(|mark| mark.role == Some(Role::Leg)) else { return };
        let known = mark.run == Some(self.run()) && unit.is_up();
        if known && !self.host.legs_let_go.contains(&unit.seen.id) {
            let text = format!("leg {} was stopped while it had a session", unit.seen.name);
            self.violation(text);
        }
    }

    /// A client with a session of its own comes: the gateway makes a leg of a server that it
    /// serves. Some end by themselves, and the gateway does not get to removing them.
    pub(crate) fn open_leg(&mut self) -> Option<String> {
        if self.crashed {
            return None;
        }
        let open: Vec<ServerId> = self.host.edges.iter().map(|(server, _)| server.clone()).collect();
        let server = self.rng.pick(&open)?.clone();
        let main = self.named(&self.own_name(&server)).filter(|unit| unit.ours && unit.is_up())?;
        let made_from = main.seen.mark.as_ref().and_then(|mark| mark.fingerprint.clone());
        let image = main.seen.image.clone();
        let run = self.run();
        let name = self.add_leg(&server, &run, made_from, &image);
        if self.rng.chance(300) {
            let life = self.rng.millis(1, LEG_MILLIS_MAX);
            let at = self.now.after(life);
            if let Some(unit) = self.engine.containers.last_mut() {
                unit.end = Some(End { at, exit: 0, oom: false });
            }
        }
        Some(name)
    }

    /// A leg of an earlier run, as a kill leaves it: some ended with their stdin, some did not.
    pub(crate) fn add_stale_leg(&mut self, server: &ServerId, runs: bool) {
        let now = self.now;
        self.add_leg(server, "earlier", None, &ImageId("sha256:earlier".to_owned()));
        if let Some(unit) = self.engine.containers.last_mut().filter(|_| !runs) {
            unit.ended(now, KILLED);
        }
    }

    fn add_leg(
        &mut self,
        server: &ServerId,
        run: &str,
        made_from: Option<Fingerprint>,
        image: &ImageId,
    ) -> String {
        let id = self.ids.hex64();
        let name = format!("{}-L{id:.8}", self.own_name(server));
        let mut unit = Unit::new(id, &name, image, self.now);
        unit.seen.mark = Some(Mark {
            stack: self.policy.stack.clone(),
            server: Some(server.clone()),
            role: Some(Role::Leg),
            fingerprint: made_from,
            port: None,
            container_port: None,
            transport: None,
            route: Some("edge".to_owned()),
            image_digest: None,
            volumes: Vec::new(),
            remove_volumes: false,
            run: Some(run.to_owned()),
            raised: None,
        });
        unit.ours = true;
        unit.ran = true;
        unit.seen.state = ContainerState::Running(ContainerHealth::None);
        unit.details.started = Some(self.now);
        let volume = self.ids.hex64();
        let owned =
            Volume { server: Some(server.clone()), ours: true, holds_data: false, left_on_purpose: false };
        self.engine.volumes.insert(volume.clone(), owned);
        unit.own_volumes.push(volume.clone());
        unit.volumes.push((volume, "/data".to_owned()));
        self.engine.containers.push(unit);
        name
    }

    /// Legs that should be gone once the world is at rest.
    pub(crate) fn left_legs(&self) -> Vec<String> {
        let mut out = Vec::new();
        for unit in self.engine.containers.iter().filter(|unit| unit.ours) {
            let Some(mark) = unit.seen.mark.as_ref().filter(|mark| mark.role == Some(Role::Leg)) else {
                continue;
            };
            let name = &unit.seen.name;
            if mark.run != Some(self.run()) {
                out.push(format!("leg {name} of an earlier run is left over"));
            } else if !unit.is_up() {
                out.push(format!("leg {name} has ended and is left over"));
            } else if let Some(server) = mark.server.as_ref().and_then(|id| self.desired.servers.get(id)) {
                let main = self.named(&self.own_name(&server.id)).and_then(|main| main.seen.mark.as_ref());
                let serving = main.is_some_and(|main| main.fingerprint == mark.fingerprint);
                if !self.is_to_run(server) {
                    out.push(format!("leg {name} runs although its server is not to"));
                } else if !serving && !is_declared(server, unit) {
                    out.push(format!("leg {name} is not what its server runs"));
                }
            }
        }
        out
    }
}

/// Whether a container was made from what the entry declares.
fn is_declared(server: &Server, unit: &Unit) -> bool {
    let ServerKind::Container(decl) = &server.kind else { return false };
    let made_from = unit.seen.mark.as_ref().and_then(|mark| mark.fingerprint.as_ref());
    made_from.is_some_and(|made_from| {
        matches!(decl.fingerprint.likeness(made_from), Likeness::Same | Likeness::SameButSecretsUnknown)
    })
}
