//! Containers that belong to one client: made, attached to, started, and removed when it is gone.
//!
//! Attached before the start, because what a server says before anybody listens is lost. Made so
//! that its input ends with our connection (`StdinOnce`): whatever kills this process, the engine
//! closes the connection, the server reads its end and exits. A container of the planner's lives
//! on instead, see [`crate::docker::create`].
//!
//! Must never leave a container behind that nobody holds: making one goes on when its caller
//! stops waiting, so that there is always somebody who knows the id and removes it.

use crate::docker::errors::deadline;
use crate::docker::{DockerEngine, READ_WITHIN, WRITE_WITHIN, attach, tolerate};
use crate::model::id::ContainerId;
use crate::model::op::Create;
use crate::upstream::leg::LegIo;
use crate::world::{ErrorKind, WorldError};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters as query;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a server gets between its stop signal and the kill. It has seen the end of its input before,
/// so this is the second warning.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Longest wait for a stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Longest wait for a removal. The engine does not finish one while somebody holds an attached
/// connection that he does not read.
const REMOVE_WITHIN: Duration = Duration::from_secs(20);
/// How long an end may take to be seen by the engine after the streams have ended.
const EXIT_WITHIN: Duration = Duration::from_secs(2);

impl DockerEngine {
    /// Makes and starts a container whose life is bound to the streams that come back. What was
    /// made is removed when that fails, or when the caller does not wait for it.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the engine refused, in its words; `Conflict` when the name is taken.
    pub async fn start_leg(&self, create: &Create) -> Result<(ContainerId, LegIo), WorldError> {
        let (options, mut body) = self.create_request(create).await?;
        bind_to_client(&mut body);
        let (client, name) = (self.client()?, create.name.clone());
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let made = make(&client, &name, options, body).await;
            let unclaimed = made.map(|made| Unclaimed { client, made: Some(made) });
            let _nobody_waits = answer.send(unclaimed);
        });
        let lost = || WorldError::new(doing("starting", &create.name), ErrorKind::Failed, "it was given up");
        let mut unclaimed = answered.await.map_err(|_dropped| lost())??;
        unclaimed.made.take().ok_or_else(lost)
    }

    /// Ends and removes a container of [`start_leg`](Self::start_leg), with the volumes that only it
    /// had: stop signal, five seconds, kill. The streams must be closed or read until they end.
    /// Success when there is no such container any more.
    ///
    /// # Errors
    /// What the engine refused; `TimedOut` after some half a minute, and then it may still go.
    pub async fn end_leg(&self, id: &ContainerId) -> Result<(), WorldError> {
        let client = self.client()?;
        let options = query::StopContainerOptionsBuilder::new()
            .t(i32::try_from(STOP_GRACE.as_secs()).unwrap_or(i32::MAX))
            .build();
        let stop = client.stop_container(id.as_str(), Some(options));
        match deadline(&doing("stopping", id.as_str()), STOP_WITHIN, stop).await {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            // Whatever held up the stop, the kill may not be held up.
            Ok(()) | Err(_) => remove(&client, id).await,
        }
    }

    /// How a container ended: `exit code 1`. Waits a moment for an end that the engine is just
    /// about to see; `None` when it runs, or nothing is known of it.
    pub async fn leg_exit(&self, id: &ContainerId) -> Option<String> {
        let client = self.client().ok()?;
        let none: Option<query::WaitContainerOptions> = None;
        let mut ends = Box::pin(client.wait_container(id.as_str(), none));
        let _ended_or_late = tokio::time::timeout(EXIT_WITHIN, ends.next()).await;
        let none: Option<query::InspectContainerOptions> = None;
        let looking = doing("inspecting", id.as_str());
        let seen = deadline(&looking, READ_WITHIN, client.inspect_container(id.as_str(), none)).await;
        exit_text(&seen.ok()?.state?)
    }
}

/// A container on its way to the caller; removed unless he takes it.
struct Unclaimed {
    client: Docker,
    made: Option<(ContainerId, LegIo)>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some((id, io)) = self.made.take() else { return };
        drop(io);
        let client = self.client.clone();
        // Without a runtime the process is at its end, and the container's input with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _engine_gone = remove(&client, &id).await;
            });
        }
    }
}

fn doing(what: &str, name: &str) -> String {
    format!("{what} container {name}")
}

/// As `docker run -i` makes it: its input is open, and ends with its first client.
fn bind_to_client(body: &mut ContainerCreateBody) {
    body.open_stdin = Some(true);
    body.stdin_once = Some(true);
    body.attach_stdin = Some(true);
    body.attach_stdout = Some(true);
    body.attach_stderr = Some(true);
    // With a terminal, lines would be echoed, cut and mixed with what is for people.
    body.tty = Some(false);
}

async fn make(
    client: &Docker,
    name: &str,
    options: query::CreateContainerOptions,
    body: ContainerCreateBody,
) -> Result<(ContainerId, LegIo), WorldError> {
    let create = client.create_container(Some(options), body);
    let id = ContainerId(deadline(&doing("creating", name), WRITE_WITHIN, create).await?.id);
    let failed = match attach::attach(client, &id).await {
        Ok(io) => {
            let none: Option<query::StartContainerOptions> = None;
            let start = client.start_container(id.as_str(), none);
            match deadline(&doing("starting", name), WRITE_WITHIN, start).await {
                Ok(()) => return Ok((id, io)),
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    let _engine_gone = remove(client, &id).await;
    Err(failed)
}

/// Removes it whatever it does, with its volumes without a name.
async fn remove(client: &Docker, id: &ContainerId) -> Result<(), WorldError> {
    let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let remove = client.remove_container(id.as_str(), Some(options));
    let removed = deadline(&doing("removing", id.as_str()), REMOVE_WITHIN, remove).await;
    match tolerate(removed) {
        // Another removal is under way.
        Err(error) if error.kind == ErrorKind::Conflict => Ok(()),
        other => other,
    }
}

/// How it ended; `None` when it did not.
fn exit_text(state: &ContainerState) -> Option<String> {
    use ContainerStateStatusEnum as Status;
    if !matches!(state.status, Some(Status::EXITED | Status::DEAD)) {
        return None;
    }
    let code = state.exit_code.unwrap_or(-1);
    let words = state.error.as_deref().filter(|words| !words.is_empty());
    Some(match words {
        _ if state.oom_killed == Some(true) => format!("exit code {code} (out of memory)"),
        Some(words) => format!("exit code {code} ({words})"),
        None => format!("exit code {code}"),
    })
}

#[cfg(test)]
mod tests {
    use super::exit_text;
    use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};

    #[test]
    fn ends_are_told_with_their_cause() {
        let state = |status, code, oom, error: &str| ContainerState {
            status: Some(status),
            exit_code: Some(code),
            oom_killed: Some(oom),
            error: Some(error.to_owned()),
            ..ContainerState::default()
        };
        let text = |state| exit_text(&state).unwrap_or_default();
        assert_eq!(text(state(Status::RUNNING, 0, false, "")), "");
        assert_eq!(text(state(Status::EXITED, 3, false, "")), "exit code 3");
        assert_eq!(text(state(Status::EXITED, 137, true, "")), "exit code 137 (out of memory)");
        assert_eq!(text(state(Status::DEAD, 127, false, "no such file")), "exit code 127 (no such file)");
    }
}
