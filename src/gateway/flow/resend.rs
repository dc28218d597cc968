//! A call that is sent again, over another connection of the same era: as the entry asks for it, and to
//! another instance of the server when the one it was for could not be sent any of it.
//!
//! Must never send what its client has taken back, and never what may have been done already unless
//! doing it twice is what doing it once is: the [`Pass`] says which.

use crate::gateway::flow::{Again, EVENTS_MAX, Flow, Out, failed};
use crate::gateway::hub::Entry;
use crate::gateway::instances::{Tried, home};
use crate::gateway::sessions::in_flight::Marker;
use crate::gateway::slot::Unavailable;
use crate::gateway::tool_of;
use crate::gateway::traffic::Pass;
use crate::mcp::build;
use crate::mcp::wire::{Era, INTERNAL_ERROR};
use crate::upstream::error::{CallError, CloseReason};
use crate::upstream::leg::{Call, OnDrop};
use hyper::StatusCode;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a call needs to be sent again.
#[derive(Debug)]
pub(crate) struct Resend {
    /// The instance that it is for.
    entry: Arc<Entry>,
    /// Those that could not be sent any of it.
    tried: Tried,
    method: String,
    params: Option<Box<RawValue>>,
    on_drop: OnDrop,
    era: Era,
    /// When; `None` while it is under way.
    at: Option<Instant>,
    /// Where its client finds it to take it back.
    marker: Option<Marker>,
}

impl Resend {
    /// The instance that it is for.
    pub(super) const fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

/// What a flow was begun with, to begin it anew.
pub(crate) struct Sent<'a> {
    /// The instance that it is for.
    pub(crate) entry: &'a Arc<Entry>,
    /// The method.
    pub(crate) method: &'a str,
    /// The params, as they went out.
    pub(crate) params: Option<&'a RawValue>,
    /// What becomes of it when its client goes away.
    pub(crate) on_drop: OnDrop,
    /// Where its client finds it to take it back.
    pub(crate) marker: Option<Marker>,
}

/// Resolves when the client takes back what waits to be sent again; it can only in a session.
async fn taken_back(marker: Option<&Marker>) {
    match marker {
        Some(marker) => marker.taken_back().await,
        None => std::future::pending().await,
    }
}

impl Flow {
    /// The same, with what was let through for it. Only what went over the connection that clients share
    /// may be `sent` again.
    #[must_use]
    pub(crate) fn with_pass(mut self, pass: Option<Box<Pass>>, sent: Option<Sent<'_>>) -> Self {
        let tries = pass.as_ref().is_some_and(|pass| pass.has_tries());
        self.resend = sent.filter(|sent| tries || !sent.entry.is_one()).map(|sent| {
            let Sent { entry, method, params, on_drop, marker } = sent;
            let (entry, method, params) =
                (Arc::clone(entry), method.to_owned(), params.map(ToOwned::to_owned));
            let (tried, era) = (0, self.leg.greeting().era);
            Box::new(Resend { entry, tried, method, params, on_drop, era, at: None, marker })
        });
        self.pass = pass;
        self
    }

    /// Whether it waits to be sent again.
    pub(super) fn is_to_be_sent(&self) -> bool {
        self.resend.as_ref().is_some_and(|resend| resend.at.is_some())
    }

    /// Whether what failed so is sent again; notes when.
    pub(super) fn sends_again(&mut self, error: &CallError) -> bool {
        let Some(resend) = &mut self.resend else { return false };
        let wait = if resend.entry.may_go_elsewhere(error, &mut resend.tried) {
            Some(Duration::ZERO)
        } else {
            resend.tried = 0;
            self.pass.as_mut().and_then(|pass| pass.again(error))
        };
        let Some(wait) = wait else { return false };
        resend.at = Some(Instant::now() + wait);
        if let Some(marker) = &resend.marker {
            marker.unsent();
        }
        true
    }

    /// Waits until it is time and sends it again; gives the answer if that cannot be done. Cancel-safe.
    pub(super) async fn send_again(&mut self) -> Option<Out> {
        let resend = self.resend.as_mut()?;
        let at = resend.at?;
        let ready = tokio::select! {
            biased;
            ready = async {
                tokio::time::sleep_until(at).await;
                let session = resend.marker.as_ref().map(Marker::session);
                home::reach_again(&resend.entry, session, resend.tried).await
            } => ready,
            () = taken_back(resend.marker.as_ref()) => {
                return Some(failed(&self.id, &self.tongue, &CallError::Cancelled, &mut self.timed));
            }
        };
        resend.at = None;
        let era = resend.era;
        let live = match ready {
            Ok((found, live)) if live.leg.greeting().era == era => {
                if let Some(found) = found {
                    if let Some(pass) = &mut self.pass {
                        pass.goes_to(&found, resend.tried != 0);
                    }
                    let tool = tool_of(&resend.method, resend.params.as_deref());
                    self.timed.moves_to(&found.metrics, (&resend.method, &tool));
                    resend.entry = found;
                }
                live
            }
            Ok(_) => {
                let error = CallError::Unsent(CloseReason::LetGo);
                return Some(failed(&self.id, &self.tongue, &error, &mut self.timed));
            }
            Err(why) => {
                let gone = matches!(why, Unavailable::Stopped(_));
                if !gone && self.sends_again(&CallError::Unsent(CloseReason::LetGo)) {
                    return None;
                }
                self.timed.done(false, 0);
                let text = build::error(
                    Some(&self.id),
                    INTERNAL_ERROR,
                    &format!("the server is not available: {why}"),
                );
                let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
                return Some(Out::Busy(text, Again { status, secs: why.retry_after_secs() }));
            }
        };
        let resend = self.resend.as_ref()?;
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let call = Call {
            method: &resend.method,
            params: resend.params.as_deref(),
            own_id: None,
            events: Some(sink),
            on_drop: resend.on_drop,
        };
        match live.leg.start(call) {
            Ok(running) => {
                if resend.marker.as_ref().is_some_and(|marker| marker.sent_as(&live.leg, running.id())) {
                    live.leg.cancel(running.id(), None);
                }
                (self.running, self.events, self.quiet_since) = (running, events, Instant::now());
                self.leg = live.leg.clone();
                None
            }
            Err(error) if self.sends_again(&error) => None,
            Err(error) => Some(failed(&self.id, &self.tongue, &error, &mut self.timed)),
        }
    }
}
