//! The engine's answers as model values.
//!
//! Must never panic on what an engine leaves out: a missing field is the least that can be said.

use crate::docker::labels;
use crate::docker::reference::ImageReference;
use crate::model::id::{ContainerId, ImageId};
use crate::model::mark::{Mark, VOLUMES};
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerHealth, ContainerState, Details, Image};
use crate::model::time::Timestamp;
use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, ImageInspect};

/// A row of `GET /containers/json`.
pub(crate) fn container(row: ContainerSummary) -> Container {
    let status = row.status.unwrap_or_default();
    let names = row.names.unwrap_or_default();
    let ports = row.ports.unwrap_or_default();
    let mut host_ports: Vec<HostPort> =
        ports.iter().filter_map(|port| HostPort::new(port.public_port?)).collect();
    host_ports.sort_unstable();
    host_ports.dedup();
    Container {
        id: ContainerId(row.id.unwrap_or_default()),
        // Links give a container further names with a slash inside; its own has none.
        name: names
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
            .to_owned(),
        mark: Mark::parse(&labels(row.labels)),
        state: state(row.state, &status),
        image: ImageId(row.image_id.unwrap_or_default()),
        created: Timestamp(row.created.unwrap_or_default().saturating_mul(1000)),
        host_ports,
    }
}

/// State and health: the list has them in its status text (`Up 3 seconds (healthy)`, `Exited (1) …`).
fn state(state: Option<ContainerSummaryStateEnum>, status: &str) -> ContainerState {
    use ContainerSummaryStateEnum as State;
    match state {
        Some(State::CREATED) => ContainerState::Created,
        Some(State::PAUSED) => ContainerState::Paused,
        Some(State::RESTARTING) => ContainerState::Restarting,
        Some(State::REMOVING) => ContainerState::Removing,
        Some(State::EXITED) => ContainerState::Exited(exit_code(status)),
        Some(State::RUNNING) => ContainerState::Running(health(status)),
        _ => ContainerState::Dead,
    }
}

fn exit_code(status: &str) -> i64 {
    let inside = status.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inside.and_then(|(code, _)| code.parse().ok()).unwrap_or(-1)
}

fn health(status: &str) -> ContainerHealth {
    if status.contains("(healthy)") {
        ContainerHealth::Healthy
    } else if status.contains("(unhealthy)") {
        ContainerHealth::Unhealthy
    } else if status.contains("(health: starting)") {
        ContainerHealth::Starting
    } else {
        ContainerHealth::None
    }
}

/// An image of `GET /images/{name}/json`.
pub(crate) fn image(image: &ImageInspect, reference: &str) -> Image {
    let exposed = image.config.as_ref().and_then(|config| config.exposed_ports.clone()).unwrap_or_default();
    let mut ports: Vec<u16> = exposed.iter().filter_map(|port| tcp_port(port)).collect();
    ports.sort_unstable();
    ports.dedup();
    let name = |text: &str| ImageReference::parse(text).map(|parsed| parsed.name()).ok();
    let asked = name(reference);
    let digests = image.repo_digests.clone().unwrap_or_default();
    let digest = digests.iter().find(|digest| name(digest) == asked).or_else(|| digests.first());
    Image { id: ImageId(image.id.clone().unwrap_or_default()), digest: digest.cloned(), exposed: ports }
}

fn tcp_port(text: &str) -> Option<u16> {
    match text.split_once('/') {
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// What an inspect tells.
pub(crate) fn details(answer: &ContainerInspectResponse) -> Details {
    let state = answer.state.as_ref();
    let time = |text: Option<&String>| text.and_then(|text| timestamp(text));
    Details {
        oom_killed: state.and_then(|state| state.oom_killed).unwrap_or(false),
        started: time(state.and_then(|state| state.started_at.as_ref())),
        finished: time(state.and_then(|state| state.finished_at.as_ref())),
        error: state.and_then(|state| state.error.clone()).filter(|error| !error.is_empty()),
        anonymous_volumes: anonymous_volumes(answer),
    }
}

/// Volumes the engine named, and those carried over from a predecessor, which look like named ones.
fn anonymous_volumes(answer: &ContainerInspectResponse) -> Vec<(String, String)> {
    let host = answer.host_config.as_ref();
    let binds = host.and_then(|host| host.binds.clone()).unwrap_or_default();
    let mounts = host.and_then(|host| host.mounts.clone()).unwrap_or_default();
    let named = |name: &str| {
        binds.iter().any(|bind| bind.split(':').next() == Some(name))
            || mounts.iter().any(|mount| mount.source.as_deref() == Some(name))
    };
    let label = answer
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref())
        .and_then(|labels| labels.get(VOLUMES));
    let carried = |name: &str| label.is_some_and(|label| label.split(',').any(|volume| volume == name));
    let all = answer.mounts.clone().unwrap_or_default();
    let volumes = all.into_iter().filter(|mount| mount.typ.as_deref() == Some("volume"));
    volumes
        .filter_map(|mount| Some((mount.name?, mount.destination?)))
        .filter(|(name, _)| carried(name) || !named(name))
        .collect()
}

/// RFC 3339; the engine's zero time (year 1) is none.
fn timestamp(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(at.as_millisecond())).filter(|at| at.0 > 0)
}

#[cfg(test)]
mod tests {
    use super::{exit_code, health, timestamp};
    use crate::model::observed::ContainerHealth;
    use crate::model::time::Timestamp;

    #[test]
    fn status_texts_are_read() {
        assert_eq!(exit_code("Exited (137) 3 seconds ago"), 137);
        assert_eq!(exit_code("Exited"), -1);
        assert_eq!(health("Up 3 seconds (healthy)"), ContainerHealth::Healthy);
        assert_eq!(health("Up 3 seconds (unhealthy)"), ContainerHealth::Unhealthy);
        assert_eq!(health("Up 1 second (health: starting)"), ContainerHealth::Starting);
        assert_eq!(health("Up 3 hours"), ContainerHealth::None);
    }

    #[test]
    fn the_engines_zero_time_is_no_time() {
        assert_eq!(timestamp("0001-01-01T00:00:00Z"), None);
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z"), Some(Timestamp(1500)));
    }
}
