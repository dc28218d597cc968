//! Where each server is, for the gateway: what the file says and what the last pass saw, put
//! together.
//!
//! Must never tell the gateway of a place that the loop has not seen to be up.

use crate::gateway::places::{Down, Offer, Place, Places, Retry, Source};
use crate::model::desired::Desired;
use crate::model::id::{ContainerId, ImageId};
use crate::model::server::{
    ContainerDecl, RemoteDecl, RemoteKind, RestartWhen, Server, ServerKind, Transport,
};
use crate::model::time::Span;
use crate::plan::report::{Hold, Report, Row, RowState};
use crate::service::FAILURE_CODES;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may say nothing while a request is under way, where the entry names no
/// `timeout`.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What a row says of a container whose image has a health check that fails.
const CHECK_FAILS: &str = "running (unhealthy)";
/// How a connection to a container is tried again: the loop starts containers, in its own time.
const RETRY_CONTAINER: Retry = Retry {
    delay: Duration::from_millis(100),
    delay_max: Duration::from_secs(5),
    stable: Duration::ZERO,
    grace: Duration::ZERO,
    when: RestartWhen::Always,
    restarts_max: None,
};
/// How a connection to a server elsewhere is tried again.
const RETRY_REMOTE: Retry = Retry {
    delay: Duration::from_millis(500),
    delay_max: Duration::from_secs(30),
    stable: Duration::from_secs(10),
    grace: Duration::ZERO,
    when: RestartWhen::Always,
    restarts_max: None,
};

/// All places, one for each instance of a server. A broken entry keeps those it had.
#[must_use]
pub fn all(desired: &Desired, report: &Report, before: &Places) -> Places {
    let instances = desired.instances();
    let mut places: Places = instances
        .servers
        .iter()
        .map(|(id, server)| {
            // What cannot be seen is where it was: a connection that works is not cut for it.
            let held = before.get(id).filter(|_| {
                !report.engine_known && matches!(server.kind, ServerKind::Container(_)) && server.enabled
            });
            let place = match held {
                // What is offered is the file's alone to say.
                Some(held) if *held.offer != *offer(server) => {
                    Arc::new(Place { offer: offer(server), ..(**held).clone() })
                }
                Some(held) => Arc::clone(held),
                None => Arc::new(one(server, report.instance(id))),
            };
            (id.clone(), place)
        })
        .collect();
    for (id, place) in before.iter().filter(|(id, _)| desired.is_broken(id)) {
        places.insert(id.clone(), Arc::clone(place));
    }
    places
}

fn one(server: &Server, row: Option<&Row>) -> Place {
    let (source, key, program) = match &server.kind {
        ServerKind::Process(decl) => {
            let hash = decl.fingerprint.to_string();
            (Source::Process(Box::new(decl.clone())), hash.clone(), hash)
        }
        ServerKind::Remote(decl) => {
            let hash = decl.fingerprint.to_string();
            (Source::Remote(Box::new(decl.clone())), hash.clone(), hash)
        }
        ServerKind::Container(decl) => container(server, decl, row),
    };
    let spec = match &server.kind {
        ServerKind::Process(_) | ServerKind::Remote(_) => declared(server),
        // Of the container that answers, which may be one that is being replaced.
        ServerKind::Container(_) => row.and_then(|row| row.spec.clone()).unwrap_or_default(),
    };
    Place {
        key,
        name: server.name.clone(),
        spec,
        program,
        container: row
            .filter(|_| matches!(server.kind, ServerKind::Container(_)))
            .and_then(|row| row.container_id.clone())
            .map(ContainerId),
        sharing: server.sharing,
        offer: offer(server),
        timeout: server.request_timeout.map_or(TIMEOUT, millis),
        priority: server.priority,
        retry: retry(server, row.is_some_and(|row| row.paused || row.hold != Hold::No)),
        health: server.health.clone(),
        check_fails: row.is_some_and(|row| row.container_state.as_deref() == Some(CHECK_FAILS)),
        on_demand: server.may_sleep().then(|| declared(server)),
        down: down(server, row, &source),
        source,
    }
}

/// The declaration, in short.
fn declared(server: &Server) -> String {
    match &server.kind {
        ServerKind::Process(decl) => decl.fingerprint.short(),
        ServerKind::Remote(decl) => decl.fingerprint.short(),
        ServerKind::Container(decl) => decl.fingerprint.short(),
    }
}

fn offer(server: &Server) -> Arc<Offer> {
    let Server { section, tools, forward_headers, openapi_path, traffic, .. } = server;
    Arc::new(Offer {
        section: section.clone(),
        tools: tools.clone(),
        forward_headers: forward_headers.clone(),
        openapi_path: openapi_path.clone(),
        traffic: traffic.clone(),
    })
}

fn millis(span: Span) -> Duration {
    Duration::from_millis(span.0)
}

fn retry(server: &Server, left: bool) -> Retry {
    match server.kind {
        ServerKind::Container(_) => Retry { grace: millis(server.health.start_period), ..RETRY_CONTAINER },
        ServerKind::Remote(_) => RETRY_REMOTE,
        ServerKind::Process(_) => Retry {
            delay: millis(server.restart.delay),
            delay_max: millis(server.restart.delay_max),
            stable: millis(server.restart.reset_after),
            grace: Duration::ZERO,
            // What is paused, or waits for a section, is left as it is, also when it ends.
            when: if left { RestartWhen::Never } else { server.restart.when },
            restarts_max: server.restart.attempts_max,
        },
    }
}

fn container(server: &Server, decl: &ContainerDecl, row: Option<&Row>) -> (Source, String, String) {
    let program = format!(
        "{}@{}",
        decl.fingerprint.short(),
        row.and_then(|row| row.image_id.clone()).unwrap_or_default()
    );
    let Some(id) = row.and_then(|row| row.container_id.clone()) else {
        return (Source::Nowhere, String::new(), program);
    };
    let kind = match row.and_then(|row| row.transport) {
        None => return (Source::Nowhere, String::new(), program),
        Some(Transport::Stdio) => {
            let image = ImageId(row.and_then(|row| row.image_id.clone()).unwrap_or_default());
            return (Source::Container(ContainerId(id.clone()), image), id, program);
        }
        Some(Transport::Http) => RemoteKind::Http,
        Some(Transport::Sse) => RemoteKind::Sse,
    };
    let direct = row.is_some_and(|row| row.route == Some("direct"));
    let port = row.and_then(|row| if direct { row.port } else { row.published });
    let Some(port) = port else { return (Source::Nowhere, String::new(), program) };
    let path = server
        .http_path
        .clone()
        .unwrap_or_else(|| if kind == RemoteKind::Sse { "/sse".to_owned() } else { "/mcp".to_owned() });
    let host = decl.mcp_port.as_ref().and_then(|port| port.host_ip.clone()).filter(|_| direct);
    let host = host.filter(|host| host != "0.0.0.0").unwrap_or_else(|| "127.0.0.1".to_owned());
    let remote = RemoteDecl {
        url: format!("http://{host}:{port}{path}"),
        kind: Some(kind),
        headers: BTreeMap::new(),
        fingerprint: decl.fingerprint.clone(),
    };
    (Source::Remote(Box::new(remote)), format!("{id}:{port}"), program)
}

fn down(server: &Server, row: Option<&Row>, source: &Source) -> Option<Down> {
    let coming = |why: &str| Some(Down::Coming(why.to_owned()));
    let Some(row) = row else { return coming("the first pass has not ended yet") };
    let reason = || row.reasons.first().map(|reason| reason.text.clone());
    // One that ended by itself and is left so is at its place as before: `restart-server` starts it there.
    if row.state == RowState::Stopped && !row.ended {
        return Some(Down::Stopped(reason().unwrap_or_else(|| "it is stopped".to_owned())));
    }
    if row.asleep && !row.paused && row.state != RowState::Blocked {
        return Some(Down::Asleep(reason().unwrap_or_else(|| "it is asleep".to_owned())));
    }
    if !matches!(server.kind, ServerKind::Container(_)) {
        let waits = || reason().unwrap_or_else(|| "it waits for a section".to_owned());
        return (row.hold == Hold::Start).then(|| Down::Coming(waits()));
    }
    let runs = row.container_state.as_deref().is_some_and(|state| state.starts_with("running"));
    if runs && *source != Source::Nowhere {
        return None;
    }
    let failed = |code: Option<&str>| code.is_some_and(|code| FAILURE_CODES.contains(&code));
    let failure = row.reasons.iter().find(|reason| failed(reason.code));
    match (row.state, failure) {
        (RowState::Blocked, _) => Some(Down::Stopped(reason().unwrap_or_else(|| "it is blocked".to_owned()))),
        (RowState::Waiting, Some(failure)) => Some(Down::Failed(failure.text.clone(), failure.until)),
        _ => Some(Down::Coming(reason().unwrap_or_else(|| "its container is starting".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Places, all};
    use crate::gateway::places::{Down, Source};
    use crate::model::desired::Desired;
    use crate::model::id::ServerId;
    use crate::model::server::{RestartWhen, Transport};
    use crate::plan::report::{Hold, Report, Row, RowState};
    use crate::world::fake::{Entry, EntryKind, server};

    fn id() -> ServerId {
        ServerId::new("time").expect("an id")
    }

    fn desired() -> Desired {
        let entry = Entry::new("time", EntryKind::Stdio, "time:1");
        let server = server(&entry).expect("a server");
        let mut desired = Desired::default();
        desired.servers.insert(id(), server);
        desired
    }

    fn report(state: RowState, container: Option<&str>) -> Report {
        let mut row = Row::new("container");
        (row.state, row.transport, row.route) = (state, Some(Transport::Stdio), Some("edge"));
        row.container_id = container.map(str::to_owned);
        row.container_state = container.map(|_| "running".to_owned());
        let mut report = Report { engine_known: true, ..Report::default() };
        report.servers.insert(id(), row);
        report
    }

    #[test]
    fn a_container_that_runs_is_a_place_and_one_that_does_not_is_coming() {
        let up = all(&desired(), &report(RowState::Converged, Some("c1")), &Places::new());
        let place = up.get(&id()).expect("a place");
        assert!(place.down.is_none() && matches!(&place.source, Source::Container(id, _) if id.0 == "c1"));
        let coming = all(&desired(), &report(RowState::Changing, None), &up);
        assert!(matches!(coming.get(&id()).expect("a place").down, Some(Down::Coming(_))));
        let stopped = all(&desired(), &report(RowState::Stopped, Some("c1")), &up);
        assert!(matches!(stopped.get(&id()).expect("a place").down, Some(Down::Stopped(_))));
    }

    #[test]
    fn a_process_that_waits_for_a_section_is_not_started_and_one_that_runs_is_not_started_again() {
        let process = server(&Entry::new("time", EntryKind::Process, "time")).expect("a server");
        let desired = Desired { servers: [(id(), process)].into(), ..Desired::default() };
        let with = |hold| {
            let mut report = report(RowState::Converged, None);
            report.servers.get_mut(&id()).expect("a row").hold = hold;
            let place = all(&desired, &report, &Places::new()).get(&id()).expect("a place").clone();
            (place.down.is_some(), place.retry.when)
        };
        assert_eq!(with(Hold::No), (false, RestartWhen::Always));
        assert_eq!(with(Hold::Ends), (false, RestartWhen::Never));
        assert_eq!(with(Hold::Start), (true, RestartWhen::Never));
    }

    #[test]
    fn an_engine_that_is_away_and_a_broken_entry_keep_the_place() {
        let up = all(&desired(), &report(RowState::Converged, Some("c1")), &Places::new());
        let mut away = report(RowState::Waiting, None);
        away.engine_known = false;
        assert_eq!(all(&desired(), &away, &up), up);
        let mut broken = Desired::default();
        broken.broken.insert(id(), "wrong".to_owned());
        assert_eq!(all(&broken, &report(RowState::Blocked, Some("c1")), &up), up);
    }
}
