//! What events said after the last list.
//!
//! The engine's list shows a container as running for up to 60 ms after the `die` event that says
//! it is not (measured on 20.10), and an inspect sent meanwhile is held back. What the engine said
//! last is what counts, whichever way it said it.
//!
//! And a list of a hundred containers takes longer than a restart may wait for. While the event
//! stream stands, the last list and the ends since then are what a new list would say; so the one
//! look that follows an end is answered from them. Anything else that happened, by us or by others,
//! is a reason to ask again.
//!
//! Must never decide anything, never answer twice from one list, and never from a list that an
//! event could have missed.

use crate::model::observed::{Container, ContainerState};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the list may lag behind an event.
const LAG: Duration = Duration::from_secs(1);
/// Ends that are remembered; with more at once the list is read again soon anyway.
const ENDS_MAX: usize = 1024;

/// Ends since the last list, and that list while it is known to hold.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Exit codes by container, with the time of the event.
    ends: BTreeMap<String, (Instant, i64)>,
    /// Whether the event stream that stands has brought something: only then it surely stands.
    heard: bool,
    /// Counts what makes a list old.
    changes: u64,
    /// Our own operations under way, whose events may be late.
    working: usize,
    list: Option<Vec<Container>>,
}

impl Known {
    fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        self.list = None;
    }

    fn correct(&self, containers: &mut [Container]) {
        for container in containers {
            let end = self.ends.get(container.id.as_str()).filter(|(at, _)| at.elapsed() < LAG);
            if let (Some((_, code)), ContainerState::Running(_)) = (end, container.state) {
                container.state = ContainerState::Exited(*code);
            }
        }
    }
}

/// Where things stood when a list was asked for.
#[derive(Debug)]
pub(crate) struct Asked(u64);

/// An operation of ours, while it runs.
#[derive(Debug)]
pub(crate) struct Working<'a>(&'a Recent);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.working = known.working.saturating_sub(1);
        known.changed();
    }
}

impl Recent {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event stream begins or is lost: what happens meanwhile is not heard.
    pub(crate) fn deaf(&self) {
        let mut known = self.known();
        known.heard = false;
        known.changed();
    }

    /// Container `id` ended.
    pub(crate) fn ended(&self, id: String, code: i64) {
        let mut known = self.known();
        known.heard = true;
        known.ends.retain(|_, (at, _)| at.elapsed() < LAG);
        if known.ends.len() < ENDS_MAX {
            known.ends.insert(id, (Instant::now(), code));
        } else {
            known.changed();
        }
    }

    /// Something else happened to container `id`, such as a start.
    pub(crate) fn forget(&self, id: &str) {
        let mut known = self.known();
        known.heard = true;
        known.ends.remove(id);
        known.changed();
    }

    /// An operation of ours begins.
    pub(crate) fn working(&self) -> Working<'_> {
        let mut known = self.known();
        known.working += 1;
        known.changed();
        Working(self)
    }

    /// Before a list is asked for.
    pub(crate) fn ask(&self) -> Asked {
        Asked(self.known().changes)
    }

    /// Puts into a list what events said later, and keeps it if nothing else was said meanwhile.
    pub(crate) fn listed(&self, asked: &Asked, containers: &mut [Container]) {
        let mut known = self.known();
        known.correct(containers);
        let holds = known.heard && known.working == 0 && known.changes == asked.0;
        known.list = holds.then(|| containers.to_vec());
    }

    /// The list as it must be now, right after an end, once; `None` when the engine must be asked.
    pub(crate) fn without_asking(&self) -> Option<Vec<Container>> {
        let mut known = self.known();
        if !known.ends.values().any(|(at, _)| at.elapsed() < LAG) {
            return None;
        }
        let mut list = known.list.take()?;
        known.correct(&mut list);
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;
    use crate::model::id::{ContainerId, ImageId};
    use crate::model::observed::{Container, ContainerHealth, ContainerState};
    use crate::model::time::Timestamp;

    const RUNS: ContainerState = ContainerState::Running(ContainerHealth::None);

    fn list() -> Vec<Container> {
        let row = |id: &str| Container {
            id: ContainerId(id.to_owned()),
            name: id.to_owned(),
            mark: None,
            state: RUNS,
            image: ImageId(String::new()),
            created: Timestamp(0),
            host_ports: Vec::new(),
        };
        vec![row("a"), row("b")]
    }

    /// A list was read while the stream stood.
    fn known() -> Recent {
        let recent = Recent::default();
        recent.forget("b");
        let asked = recent.ask();
        recent.listed(&asked, &mut list());
        recent
    }

    fn states(list: Option<Vec<Container>>) -> Option<Vec<ContainerState>> {
        list.map(|list| list.into_iter().map(|container| container.state).collect())
    }

    #[test]
    fn an_end_is_answered_once_from_the_last_list() {
        let recent = known();
        assert_eq!(states(recent.without_asking()), None, "nothing ended");
        recent.ended("a".to_owned(), 137);
        assert_eq!(states(recent.without_asking()), Some(vec![ContainerState::Exited(137), RUNS]));
        assert_eq!(states(recent.without_asking()), None, "a second look asks");
    }

    #[test]
    fn a_list_that_lags_behind_its_event_is_corrected() {
        let recent = known();
        let asked = recent.ask();
        recent.ended("b".to_owned(), 1);
        let mut late = list();
        recent.listed(&asked, &mut late);
        assert_eq!(states(Some(late)), Some(vec![RUNS, ContainerState::Exited(1)]));
    }

    #[test]
    fn whatever_else_happens_makes_the_list_old() {
        type Spoil = fn(&Recent);
        let spoil: [(&str, Spoil); 4] = [
            ("another event", |recent| recent.forget("b")),
            ("a lost stream", Recent::deaf),
            ("an operation that began", |recent| drop(recent.working())),
            ("a list asked for before an event", |recent| {
                let asked = recent.ask();
                recent.forget("b");
                recent.listed(&asked, &mut list());
            }),
        ];
        for (what, spoil) in spoil {
            let recent = known();
            spoil(&recent);
            recent.ended("a".to_owned(), 1);
            assert_eq!(states(recent.without_asking()), None, "{what}");
        }
    }

    #[test]
    fn a_stream_that_has_said_nothing_yet_proves_nothing() {
        let recent = Recent::default();
        recent.deaf();
        let asked = recent.ask();
        recent.listed(&asked, &mut list());
        recent.ended("a".to_owned(), 1);
        assert_eq!(states(recent.without_asking()), None);
    }

    #[test]
    fn a_list_read_while_we_work_is_not_kept() {
        let recent = known();
        let working = recent.working();
        let asked = recent.ask();
        recent.listed(&asked, &mut list());
        drop(working);
        recent.ended("a".to_owned(), 1);
        assert_eq!(states(recent.without_asking()), None);
    }
}
