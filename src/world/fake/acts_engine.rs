//! What others do to containers, images, ports and the program under test.

use crate::model::id::ImageId;
use crate::model::mark::{MANAGED_BY, MANAGER, Mark, SERVER, STACK};
use crate::model::memory::Memory;
use crate::model::net::HostPort;
use crate::model::observed::{ContainerHealth, ContainerState, Image};
use crate::world::fake::effect::By;
use crate::world::fake::engine::{Published, Unit};
use crate::world::fake::image::{Behaviour, ImageFacts, KILLED};
use crate::world::fake::state::State;
use std::collections::BTreeMap;

impl State {
    /// One of our containers for which `wanted` holds.
    fn pick_unit(&mut self, wanted: impl Fn(&Unit) -> bool) -> Option<usize> {
        let all = self.engine.containers.iter().enumerate();
        let at: Vec<usize> = all.filter(|(_, unit)| unit.ours && wanted(unit)).map(|(at, _)| at).collect();
        self.rng.pick(&at).copied()
    }

    pub(crate) fn pick_running(&mut self) -> Option<usize> {
        self.pick_unit(|unit| matches!(unit.seen.state, ContainerState::Running(_)))
    }

    fn name_of(&self, at: usize) -> Option<String> {
        self.engine.containers.get(at).map(|unit| unit.seen.name.clone())
    }

    pub(crate) fn end_by_hand(&mut self, exit: i64) -> Option<String> {
        let (at, now) = (self.pick_running()?, self.now);
        self.engine.containers.get_mut(at)?.ended(now, exit);
        self.name_of(at)
    }

    pub(crate) fn pause_by_hand(&mut self) -> Option<String> {
        let at = self.pick_running()?;
        self.engine.containers.get_mut(at)?.seen.state = ContainerState::Paused;
        self.name_of(at)
    }

    pub(crate) fn rename_by_hand(&mut self) -> Option<String> {
        let at = self.pick_running()?;
        let (old, new) = (self.name_of(at)?, format!("old-{}", self.ids.between(1000, 9999)));
        self.rename(at, &new).ok()?;
        Some(format!("{old} to {new}"))
    }

    pub(crate) fn remove_by_hand(&mut self) -> Option<String> {
        let (at, now) = (self.pick_unit(|_| true)?, self.now);
        let name = self.name_of(at)?;
        self.engine.containers.get_mut(at)?.ended(now, KILLED);
        self.remove(at, None, By::Person).ok()?;
        Some(name)
    }

    pub(crate) fn half_remove_by_hand(&mut self) -> Option<String> {
        let (at, now) = (self.pick_unit(|_| true)?, self.now);
        let unit = self.engine.containers.get_mut(at)?;
        unit.ended(now, KILLED);
        unit.seen.state = ContainerState::Dead;
        self.name_of(at)
    }

    pub(crate) fn start_by_hand(&mut self) -> Option<String> {
        let at = self.pick_unit(|unit| matches!(unit.seen.state, ContainerState::Exited(_)))?;
        self.start(at).ok()?;
        self.name_of(at)
    }

    /// Ends every container, also others'.
    pub(crate) fn restart_engine(&mut self) -> String {
        let now = self.now;
        for unit in self.engine.containers.iter_mut().filter(|unit| unit.is_up()) {
            unit.ended(now, KILLED);
        }
        String::new()
    }

    /// Ends the program under test, at times with its state file.
    pub(crate) fn restart_daemon(&mut self, lose_state: bool) -> String {
        self.crash();
        if lose_state {
            self.saved = Memory::default();
        }
        String::new()
    }

    /// `docker image prune -a`.
    pub(crate) fn prune_images(&mut self) -> String {
        let containers = &self.engine.containers;
        self.engine.local.retain(|id| containers.iter().any(|unit| unit.seen.image == *id));
        let local = &self.engine.local;
        self.engine.tags.retain(|_, id| local.contains(id));
        String::new()
    }

    /// The registry has a new image under an old reference.
    pub(crate) fn move_tag(&mut self) -> Option<String> {
        let references: Vec<String> = self.engine.registry.keys().cloned().collect();
        let reference = self.rng.pick(&references)?.clone();
        let old = self.engine.registry.get(&reference).and_then(|id| self.engine.catalog.get(id))?.clone();
        let version = u32::try_from(self.engine.catalog.len()).unwrap_or(0) + 2;
        let behaviour = Behaviour::generate(&mut self.rng);
        let made = ImageFacts::new(&reference, version, behaviour);
        let image = Image { exposed: old.image.exposed.clone(), ..made.image };
        self.engine.publish_image(&reference, ImageFacts { image, behaviour, starts: 0, ..old });
        Some(reference)
    }

    /// An id that the files have.
    pub(crate) fn pick_server(&mut self) -> String {
        let ids: Vec<&str> = self.desired.servers.keys().map(crate::model::id::ServerId::as_str).collect();
        self.rng.pick(&ids).map_or_else(|| "x".to_owned(), ToString::to_string)
    }

    pub(crate) fn foreign_takes_name(&mut self) -> Option<String> {
        let server = self.pick_server();
        let name = format!("{}{server}", self.policy.name_prefix);
        self.add_foreign(&name, &BTreeMap::new(), None).then_some(name)
    }

    /// Our prefix and half of our labels.
    pub(crate) fn foreign_half_ours(&mut self) -> Option<String> {
        let name = format!("{}half-{}", self.policy.name_prefix, self.ids.between(1, 9999));
        let labels = BTreeMap::from([
            (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            (SERVER.to_owned(), self.pick_server()),
        ]);
        self.add_foreign(&name, &labels, None).then_some(name)
    }

    /// All of our labels, of another stack.
    pub(crate) fn foreign_other_stack(&mut self) -> Option<String> {
        let name = format!("their-{}", self.ids.between(1, 9999));
        let server = self.pick_server();
        let owned = [(MANAGED_BY, MANAGER), (STACK, "another"), (SERVER, server.as_str())];
        let labels = owned.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        self.add_foreign(&name, &labels, None).then_some(name)
    }

    /// Adds another's running container; false when the name is taken.
    pub(crate) fn add_foreign(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        port: Option<HostPort>,
    ) -> bool {
        let taken = port.is_some_and(|port| self.holder("", port).is_some());
        if taken || self.engine.containers.iter().any(|unit| unit.seen.name == name) {
            return false;
        }
        let mut unit = Unit::new(self.ids.hex64(), name, &ImageId("sha256:theirs".to_owned()), self.now);
        unit.seen.mark = Mark::parse(labels);
        unit.seen.state = ContainerState::Running(ContainerHealth::None);
        unit.details.started = Some(self.now);
        unit.publishes = port.map(|port| Published { ip: "0.0.0.0".to_owned(), port }).into_iter().collect();
        unit.seen.host_ports = port.into_iter().collect();
        unit.ran = true;
        self.engine.containers.push(unit);
        true
    }

    /// A leased port that is free for the moment, if there is one; else any of the range.
    fn pick_port(&mut self) -> Option<HostPort> {
        let is_free = |port: &HostPort| self.holder("", *port).is_none();
        let leased: Vec<HostPort> = self.saved.leases.values().map(|l| l.port).filter(is_free).collect();
        let range: Vec<HostPort> = self.policy.ports.ports().filter(is_free).collect();
        self.rng.pick(&leased).or(self.rng.pick(&range)).copied()
    }

    pub(crate) fn foreign_container_takes_port(&mut self) -> Option<String> {
        let port = self.pick_port()?;
        let name = format!("web-{}", self.ids.between(1, 9999));
        self.add_foreign(&name, &BTreeMap::new(), Some(port)).then(|| format!("{port} by {name}"))
    }

    pub(crate) fn foreign_program_takes_port(&mut self) -> Option<String> {
        let port = self.pick_port()?;
        let address = if self.rng.chance(500) { "0.0.0.0" } else { "127.0.0.1" };
        self.host.foreign.insert(port, address.to_owned());
        Some(format!("{port} at {address}"))
    }

    pub(crate) fn foreign_program_leaves(&mut self) -> Option<String> {
        let ports: Vec<HostPort> = self.host.foreign.keys().copied().collect();
        let port = *self.rng.pick(&ports)?;
        self.host.foreign.remove(&port);
        Some(port.to_string())
    }
}
