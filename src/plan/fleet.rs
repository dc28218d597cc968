//! The engine's containers, sorted by whose they are and which part they play.
//!
//! Must never count a container as ours by its name: the mark decides, the name only tells the
//! part.

use crate::model::id::ServerId;
use crate::model::mark::Role;
use crate::model::observed::Container;
use crate::model::policy::Policy;
use std::collections::BTreeMap;

/// Our containers by server, everybody's names.
#[derive(Debug, Default)]
pub(crate) struct Fleet<'a> {
    /// Ours, by server and instance of one.
    pub(crate) groups: BTreeMap<ServerId, Group<'a>>,
    /// Every container by name.
    pub(crate) names: BTreeMap<&'a str, &'a Container>,
    /// Ours without a readable server label: left alone, reported.
    pub(crate) unreadable: Vec<&'a Container>,
}

/// The containers of one server, or of one instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group<'a> {
    /// The one with the server's name.
    pub(crate) main: Option<&'a Container>,
    /// Server containers with another name: a replacement in flight, or a renamed one; by name.
    pub(crate) nexts: Vec<&'a Container>,
    /// Legs: they belong to a run of the daemon, not to the server; see [`crate::plan::legs`].
    pub(crate) legs: Vec<&'a Container>,
}

impl<'a> Group<'a> {
    /// All but the legs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Container> + '_ {
        self.main.iter().chain(&self.nexts).copied()
    }

    /// Whether nothing but legs is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// The name of a server's container.
pub(crate) fn main_name(policy: &Policy, id: &ServerId) -> String {
    format!("{}{id}", policy.name_prefix)
}

impl<'a> Fleet<'a> {
    /// Sorts the list.
    pub(crate) fn sort(containers: &'a [Container], policy: &Policy) -> Self {
        let mut fleet = Self::default();
        for container in containers {
            fleet.names.insert(&container.name, container);
            let Some(mark) = container.mark.as_ref().filter(|mark| mark.stack == policy.stack) else {
                continue;
            };
            let Some(server) = &mark.server else {
                fleet.unreadable.push(container);
                continue;
            };
            let group = fleet.groups.entry(server.clone()).or_default();
            match mark.role {
                Some(Role::Leg) => group.legs.push(container),
                Some(Role::Server | Role::Replica) | None if container.name == main_name(policy, server) => {
                    group.main = Some(container);
                }
                Some(Role::Server | Role::Replica) | None => group.nexts.push(container),
            }
        }
        for group in fleet.groups.values_mut() {
            group.nexts.sort_by(|a, b| a.name.cmp(&b.name));
            group.legs.sort_by(|a, b| a.name.cmp(&b.name));
        }
        fleet
    }
}
