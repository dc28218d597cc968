//! The engine's event stream: wake-ups, and what the next list will only show later.
//!
//! Must never decide anything, nor call a stream that is lost a quiet one.

use crate::docker::DockerEngine;
use crate::docker::errors::world_error;
use crate::docker::recent::Recent;
use crate::model::mark::{MANAGED_BY, MANAGER};
use crate::world::WorldError;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use std::collections::HashMap;

/// Things containers do that may change a plan.
const ACTIONS: [&str; 9] =
    ["die", "destroy", "start", "stop", "pause", "unpause", "rename", "oom", "health_status"];

impl DockerEngine {
    /// Calls `wake` with the event's name until the stream ends; the caller waits a little and
    /// calls again.
    ///
    /// # Errors
    /// When the engine cannot be reached or the stream breaks.
    pub async fn watch(&self, wake: impl Fn(&str)) -> Result<(), WorldError> {
        let ours = format!("{MANAGED_BY}={MANAGER}");
        let filters: HashMap<&str, Vec<&str>> =
            HashMap::from([("type", vec!["container"]), ("event", ACTIONS.to_vec()), ("label", vec![&ours])]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let client = self.client()?;
        let mut events = Box::pin(client.events(Some(options)));
        // From its end until the next one stands, nothing is heard.
        let _stream = Listening::begin(&self.recent);
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| world_error("watching events", error))?;
            if event.typ == Some(EventMessageTypeEnum::CONTAINER) {
                self.remember(&event);
                wake(event.action.as_deref().unwrap_or("event"));
            }
        }
        Ok(())
    }

    /// Keeps what the list will only show later.
    fn remember(&self, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let Some(id) = actor.id.clone() else { return };
        match event.action.as_deref() {
            Some("die") => {
                let code = actor.attributes.as_ref().and_then(|all| all.get("exitCode")?.parse().ok());
                self.recent.ended(id, code.unwrap_or(-1));
            }
            _ => self.recent.forget(&id),
        }
    }
}

/// An event stream while it stands.
struct Listening<'a>(&'a Recent);

impl<'a> Listening<'a> {
    fn begin(recent: &'a Recent) -> Self {
        recent.deaf();
        Self(recent)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.deaf();
    }
}
