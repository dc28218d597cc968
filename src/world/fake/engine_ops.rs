//! What the engine does when asked, with Docker's refusals.
//!
//! | state          | start | stop | unpause | rename | remove |
//! |----------------|-------|------|---------|--------|--------|
//! | created        | runs  | ok   | refused | ok     | ok     |
//! | running        | ok    | ends | refused | ok     | refused|
//! | paused         | refused| ends| runs    | ok     | refused|
//! | exited         | runs  | ok   | refused | ok     | ok     |
//! | dead, removing | refused| ok  | refused | refused| ok     |
//!
//! Invariant: whatever hits a container without our mark is recorded as such.

use crate::model::id::ServerId;
use crate::model::mark::Mark;
use crate::model::observed::{ContainerHealth, ContainerState};
use crate::model::op::{ContainerRef, Create, EngineOp};
use crate::model::server::ServerKind;
use crate::model::time::Span;
use crate::world::ErrorKind;
use crate::world::fake::effect::By;
use crate::world::fake::engine::{Published, Unit, Volume, ephemeral, plain_ports};
use crate::world::fake::health::Mood;
use crate::world::fake::image::KILLED;
use crate::world::fake::state::{No, State};

/// How long a pull takes, in milliseconds.
const PULL_MILLIS_MAX: u64 = 8_000;
/// How long a program takes to end when asked to, in milliseconds.
const STOP_MILLIS_MAX: u64 = 10_000;

/// What is done, and to which thing, in words.
pub(crate) fn words(op: &EngineOp) -> (&'static str, &str) {
    match op {
        EngineOp::Pull { reference, .. } => ("pull image", reference),
        EngineOp::Create(create) => ("create container", &create.name),
        EngineOp::Start(container) => ("start container", container.name()),
        EngineOp::Stop(container) => ("stop container", container.name()),
        EngineOp::Remove { container, .. } => ("remove container", container.name()),
        EngineOp::Rename { container, .. } => ("rename container", container.name()),
        EngineOp::Unpause(container) => ("unpause container", container.name()),
    }
}

impl State {
    pub(crate) fn engine_op(&mut self, op: &EngineOp) -> Result<(), No> {
        match op {
            EngineOp::Pull { reference, .. } => self.pull(reference),
            EngineOp::Create(create) => self.create(create),
            EngineOp::Start(container) => self.find(container).and_then(|at| self.start(at)),
            EngineOp::Stop(container) => match self.engine.find(container.key()) {
                Some(at) => self.stop(at),
                None => Ok(()),
            },
            EngineOp::Remove { container, volumes } => match self.engine.find(container.key()) {
                Some(at) => self.remove(at, volumes.as_deref(), By::Daemon),
                None => Ok(()),
            },
            EngineOp::Rename { container, to } => self.find(container).and_then(|at| self.rename(at, to)),
            EngineOp::Unpause(container) => self.find(container).and_then(|at| self.unpause(at)),
        }
    }

    fn find(&self, container: &ContainerRef) -> Result<usize, No> {
        match self.engine.find(container.key()) {
            Some(at) => Ok(at),
            None => No::new(ErrorKind::NotFound, format!("no such container: {}", container.key())),
        }
    }

    fn unit(&mut self, at: usize) -> Result<&mut Unit, No> {
        match self.engine.containers.get_mut(at) {
            Some(unit) => {
                self.hit_foreign |= !unit.ours;
                Ok(unit)
            }
            None => No::new(ErrorKind::NotFound, "no such container"),
        }
    }

    fn pull(&mut self, reference: &str) -> Result<(), No> {
        let took = self.rng.millis(100, PULL_MILLIS_MAX);
        self.pass_time(took);
        if self.engine.pull(reference) {
            Ok(())
        } else {
            No::new(ErrorKind::NotFound, format!("manifest for {reference} not found"))
        }
    }

    fn create(&mut self, create: &Create) -> Result<(), No> {
        if self.engine.containers.iter().any(|unit| unit.seen.name == create.name) {
            return No::new(
                ErrorKind::Conflict,
                format!("the container name \"/{}\" is already in use", create.name),
            );
        }
        let facts = match self.engine.catalog.get(&create.image) {
            Some(facts) if self.engine.local.contains(&create.image) => facts,
            _ => return No::new(ErrorKind::NotFound, format!("no such image: {}", create.image)),
        };
        let declared = facts.volumes.clone();
        let mut unit = Unit::new(self.ids.hex64(), &create.name, &create.image, self.now);
        unit.seen.mark = Mark::parse(&create.labels);
        unit.ours = unit.seen.mark.as_ref().is_some_and(|mark| mark.stack == self.policy.stack);
        unit.memory = create.spec.resources.memory_bytes;
        unit.publishes = plain_ports(&create.spec, &mut self.ids);
        if let Some(publish) = &create.publish {
            let port = publish.host_port.or_else(|| ephemeral(&mut self.ids));
            unit.publishes.extend(port.map(|port| Published { ip: publish.host_ip.clone(), port }));
        }
        if !unit.ours {
            self.violation(format!("container {} was created without our mark", create.name));
        }
        for (volume, path) in &create.carried_volumes {
            match self.engine.volumes.get_mut(volume) {
                Some(known) => known.left_on_purpose = false,
                // The engine makes a volume for a name it does not know.
                None => self.add_volume(&unit, volume),
            }
            unit.volumes.push((volume.clone(), path.clone()));
        }
        let covered = |path: &String| {
            let spec = &create.spec;
            spec.binds.iter().any(|bind| bind.target == *path)
                || spec.mounts.iter().any(|mount| mount.target == *path)
                || spec.tmpfs.contains_key(path)
        };
        let mut paths: Vec<String> = create.spec.anonymous_volumes.iter().chain(&declared).cloned().collect();
        paths.sort();
        paths.dedup();
        for path in paths.into_iter().filter(|path| !covered(path)) {
            if unit.volumes.iter().any(|(_, taken)| *taken == path) {
                continue;
            }
            let name = self.ids.hex64();
            self.add_volume(&unit, &name);
            unit.own_volumes.push(name.clone());
            unit.volumes.push((name, path));
        }
        self.engine.containers.push(unit);
        Ok(())
    }

    fn add_volume(&mut self, unit: &Unit, name: &str) {
        let volume = Volume {
            server: unit.server().cloned(),
            ours: unit.ours,
            holds_data: false,
            left_on_purpose: false,
        };
        self.engine.volumes.insert(name.to_owned(), volume);
    }

    /// Starts a container, for whoever asks.
    pub(crate) fn start(&mut self, at: usize) -> Result<(), No> {
        let publishes = match self.engine.containers.get(at) {
            Some(unit) => unit.publishes.clone(),
            None => return No::new(ErrorKind::NotFound, "no such container"),
        };
        let holder = publishes.iter().find_map(|p| self.holder(&p.ip, p.port).map(|holder| (p.port, holder)));
        let now = self.now;
        let unit = self.unit(at)?;
        match unit.seen.state {
            ContainerState::Running(_) | ContainerState::Restarting => return Ok(()),
            ContainerState::Paused => {
                return No::new(ErrorKind::Conflict, "cannot start a paused container, try unpause instead");
            }
            ContainerState::Dead | ContainerState::Removing => {
                return No::new(ErrorKind::Conflict, "container is marked for removal and cannot be started");
            }
            ContainerState::Created | ContainerState::Exited(_) => {}
        }
        if let Some((port, holder)) = holder {
            let cause = format!("port is already allocated: {port} by {holder}");
            unit.details.error = Some(cause.clone());
            return No::new(ErrorKind::Conflict, cause);
        }
        let image = unit.seen.image.clone();
        let Some(facts) = self.engine.catalog.get_mut(&image) else {
            return No::new(ErrorKind::NotFound, format!("no such image: {image}"));
        };
        let (behaviour, starts, health_check) = (facts.behaviour, facts.starts, facts.health_check);
        facts.starts += 1;
        let hung = self.engine.containers.get(at).is_some_and(|unit| unit.mood == Mood::Hung);
        // Some hang again.
        let cured = hung && self.rng.chance(600);
        let unit = self.unit(at)?;
        if cured {
            unit.mood = Mood::Well;
        }
        unit.ran = true;
        unit.details.started = Some(now);
        unit.details.error = None;
        unit.details.oom_killed = false;
        unit.end = behaviour.end(now, starts, unit.memory);
        unit.serves_from = behaviour.serves(now);
        unit.seen.host_ports = unit.publishes.iter().map(|p| p.port).collect();
        unit.seen.state = ContainerState::Running(if health_check {
            ContainerHealth::Starting
        } else {
            ContainerHealth::None
        });
        self.note_data(at);
        Ok(())
    }

    /// A server that runs under its own name may have written to its volumes.
    fn note_data(&mut self, at: usize) {
        let Some(unit) = self.engine.containers.get(at) else { return };
        let named = unit
            .server()
            .is_some_and(|server| unit.seen.name == format!("{}{server}", self.policy.name_prefix));
        if !(unit.ran && unit.ours && named) {
            return;
        }
        for (name, _) in &unit.volumes {
            if let Some(volume) = self.engine.volumes.get_mut(name) {
                volume.holds_data = true;
            }
        }
    }

    fn stop(&mut self, at: usize) -> Result<(), No> {
        self.check_may_end(at, "stopped");
        self.check_handed_over(at);
        self.check_let_go(at);
        if self.engine.containers.get(at).is_some_and(Unit::is_up) {
            let took = self.rng.millis(1, STOP_MILLIS_MAX);
            self.pass_time(took);
        }
        let now = self.now;
        let unit = self.unit(at)?;
        if unit.is_up() {
            let exit = if now.0 % 4 == 0 { KILLED } else { 0 };
            unit.ended(now, exit);
        }
        Ok(())
    }

    /// Removes a container, for whoever asks.
    pub(crate) fn remove(&mut self, at: usize, volumes: Option<&[String]>, by: By) -> Result<(), No> {
        let unit = self.unit(at)?.clone();
        if unit.is_up() {
            return No::new(ErrorKind::Conflict, "you cannot remove a running container, stop it before");
        }
        self.engine.containers.retain(|other| other.seen.id != unit.seen.id);
        let desired = &self.desired;
        let is_container = |id: &ServerId| {
            desired.servers.get(id).is_none_or(|server| matches!(server.kind, ServerKind::Container(_)))
        };
        let claimed = unit.server().is_some_and(|server| desired.claims(server) && is_container(server));
        let with_server = unit.seen.mark.as_ref().is_some_and(|mark| mark.remove_volumes);
        let Some(named) = volumes else {
            for (name, _) in &unit.volumes {
                let left = by != By::Daemon || !(claimed || with_server);
                let in_use = self.engine.in_use(name, None);
                if let Some(volume) = self.engine.volumes.get_mut(name) {
                    volume.left_on_purpose = !in_use && left;
                }
            }
            return Ok(());
        };
        for name in unit.own_volumes.iter().chain(named) {
            if self.engine.in_use(name, None) {
                continue;
            }
            let Some(volume) = self.engine.volumes.remove(name) else { continue };
            self.hit_foreign |= !volume.ours;
            if by == By::Daemon && volume.holds_data && (claimed || !with_server) {
                self.violation(format!(
                    "data lost: volume {:.12} went with container {}",
                    name, unit.seen.name
                ));
            }
        }
        for (name, _) in &unit.volumes {
            if !self.engine.in_use(name, None)
                && let Some(volume) = self.engine.volumes.get_mut(name)
            {
                volume.left_on_purpose = by != By::Daemon || !(claimed || with_server);
            }
        }
        Ok(())
    }

    /// Renames a container, for whoever asks.
    pub(crate) fn rename(&mut self, at: usize, to: &str) -> Result<(), No> {
        if self.engine.containers.iter().any(|unit| unit.seen.name == to) {
            return No::new(ErrorKind::Conflict, format!("the container name \"/{to}\" is already in use"));
        }
        let unit = self.unit(at)?;
        if matches!(unit.seen.state, ContainerState::Dead | ContainerState::Removing) {
            return No::new(ErrorKind::Conflict, "container is marked for removal and cannot be renamed");
        }
        to.clone_into(&mut unit.seen.name);
        self.note_data(at);
        Ok(())
    }

    fn unpause(&mut self, at: usize) -> Result<(), No> {
        let now = self.now;
        let unit = self.unit(at)?;
        if unit.seen.state != ContainerState::Paused {
            return No::new(ErrorKind::Conflict, "container is not paused");
        }
        let image = unit.seen.image.clone();
        unit.seen.state = ContainerState::Running(ContainerHealth::None);
        if let Some(end) = &mut unit.end {
            end.at = end.at.max(now.after(Span::millis(1)));
        }
        if self.engine.catalog.get(&image).is_some_and(|facts| facts.health_check) {
            self.unit(at)?.seen.state = ContainerState::Running(ContainerHealth::Starting);
        }
        Ok(())
    }

    /// Whether the program under test may end what runs in the container at `at`.
    fn check_may_end(&mut self, at: usize, done: &str) {
        let Some(unit) = self.engine.containers.get(at).filter(|unit| unit.ours && unit.is_up()) else {
            return;
        };
        let Some(server) = unit.server() else { return };
        let main = unit.seen.name == format!("{}{server}", self.policy.name_prefix);
        let desired = &self.desired;
        let why = if !main {
            return;
        } else if desired.is_broken(server) {
            "although its entry is only broken"
        } else if desired.stale.is_some() && !desired.claims(server) {
            "although the file could not be read"
        } else if desired.servers.is_empty() && desired.broken.is_empty() && !self.policy.allow_mass_delete {
            "although removing all servers was not allowed"
        } else if !desired.nameless.is_empty() && !desired.claims(server) && !desired.is_spare(server) {
            "although it may belong to an entry whose name is broken"
        } else {
            return;
        };
        let text = format!("container {} was {done} {why}", unit.seen.name);
        self.violation(text);
    }
}
