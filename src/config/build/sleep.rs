//! `startOnDemand` and `idleTimeout`: what they cannot go together with.
//!
//! Must never decide when a server sleeps; that is [`crate::plan`]'s.

use crate::config::build::{Builder, Work};
use crate::config::codes;
use crate::model::server::ServerKind;
use crate::model::time::Span;

/// Shorter times would stop servers between two requests of one conversation.
const IDLE_MIN: Span = Span::secs(1);

impl Builder<'_, '_> {
    /// Whether an entry's wish to sleep can be kept; what is wrong with it is in the sink.
    pub(super) fn check_sleep(&mut self, work: &Work<'_>, kind: &ServerKind) -> bool {
        if matches!(kind, ServerKind::Remote(_)) {
            return true;
        }
        let mut fine = true;
        let idle = work.merged.get("idleTimeout");
        if let Some(value) = idle
            && work.merged.span("idleTimeout").is_some_and(|after| after < IDLE_MIN)
        {
            self.sink.error(codes::INVALID_VALUE, value.node.at, "'idleTimeout' is at least 1s");
            fine = false;
        }
        let on_demand = work.merged.get("startOnDemand").filter(|value| value.node.as_bool() == Some(true));
        let named =
            on_demand.map(|value| ("startOnDemand", value)).or(idle.map(|value| ("idleTimeout", value)));
        if let Some((name, value)) = named
            && work.merged.text("route").as_deref() == Some("direct")
        {
            let message = format!("'{name}' needs the gateway, and 'route' is direct");
            self.sink.error(codes::INVALID_VALUE, value.node.at, message);
            self.sink.hint("requests that do not pass the gateway cannot start a server: use edge or auto");
            fine = false;
        }
        fine
    }
}
