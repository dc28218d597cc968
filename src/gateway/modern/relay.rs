//! A subscription of a modern client at a modern server, which outlives the connection it began on:
//! when another one serves, it is opened there anew, and its client hears that lists may have
//! changed.
//!
//! ```text
//! the server says          its client gets
//! acknowledged             that, the first time; later ones are ours
//! a notification           that
//! the result               that, and the end
//! an error before the      that, and the end
//! acknowledgment
//! an error after it        the result that ends a subscription in good order
//! nothing any more         nothing, until another connection serves, of its instance or of another; when the server was removed
//!                          or speaks the legacy era now, the result that ends it in good order
//! ```
//! Must never let a subscription end with an error because its connection was replaced.

use crate::gateway::flow::{Out, Tongue, failed};
use crate::gateway::hub::Entry;
use crate::gateway::metrics::Timed;
use crate::gateway::slot::Live;
use crate::gateway::streams::{Keep, Stream};
use crate::mcp::build;
use crate::mcp::listen::{self, ListenFilter};
use crate::mcp::wire::Era;
use crate::upstream::error::CallError;
use crate::upstream::leg::{Call, Leg, Running};
use crate::upstream::table::{FromServer, Notice};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::mpsc;

#[cfg(test)]
mod tests;

/// Notifications of one subscription that may wait.
const HEARD_MAX: usize = 256;

/// One subscription and its client.
pub(super) struct Relay {
    /// The instance of the server that holds it.
    pub(super) entry: Arc<Entry>,
    /// As its client wrote it.
    pub(super) id: Box<RawValue>,
    /// As its client wrote them.
    pub(super) params: Option<Box<RawValue>>,
    /// Where its client hears it.
    pub(super) stream: Arc<Stream>,
    /// Measures it.
    pub(super) timed: Timed,
}

/// A subscription at the server.
struct Upstream {
    running: Running,
    heard: mpsc::Receiver<FromServer>,
}

/// Why there is nothing more to hear of one.
enum End {
    /// The client went away.
    Gone,
    /// The server ended it.
    Ended(Box<RawValue>),
    /// It failed.
    Failed(CallError),
    /// The connection closed, or another one serves.
    Replaced,
}

impl Relay {
    /// Relays until either side ends it.
    pub(super) async fn run(mut self, live: Arc<Live>) {
        let _awake = self.entry.slot.touch.hold();
        let (mut live, mut acknowledged) = (live, None);
        loop {
            let end = match self.subscribe(&live.leg) {
                Ok(upstream) => self.hear(upstream, &mut acknowledged, live.generation).await,
                Err(CallError::Closed(_) | CallError::Unsent(_)) => End::Replaced,
                Err(error) => End::Failed(error),
            };
            match end {
                End::Gone => return,
                End::Ended(result) => {
                    let text = build::result(&self.id, &result);
                    self.timed.done(true, text.len());
                    self.stream.finish_with(&text);
                    return;
                }
                End::Failed(_) if acknowledged.is_some() => return self.in_good_order(),
                End::Failed(error) => {
                    let out = failed(&self.id, &Tongue::Modern, &error, &mut self.timed);
                    if let Out::Answer(_, text) | Out::Busy(text, _) = out {
                        self.stream.finish_with(&text);
                    }
                    return;
                }
                End::Replaced => {}
            }
            let next = tokio::select! {
                biased;
                () = self.stream.abandoned() => return,
                next = self.entry.other_than(live.generation) => next,
            };
            match next.filter(|(_, next)| next.leg.greeting().era == Era::Modern) {
                Some((entry, next)) => (self.entry, live) = (entry, next),
                None => return self.in_good_order(),
            }
        }
    }

    fn subscribe(&self, leg: &Leg) -> Result<Upstream, CallError> {
        let (sink, heard) = mpsc::channel(HEARD_MAX);
        let call = Call {
            own_id: Some(&self.id),
            events: Some(sink),
            ..Call::new(listen::LISTEN, self.params.as_deref())
        };
        Ok(Upstream { running: leg.start(call)?, heard })
    }

    /// Passes on what a subscription brings; dropping it tells the server.
    async fn hear(
        &self,
        mut upstream: Upstream,
        acknowledged: &mut Option<ListenFilter>,
        generation: u64,
    ) -> End {
        loop {
            tokio::select! {
                biased;
                () = self.stream.abandoned() => return End::Gone,
                Some(said) = upstream.heard.recv() => self.pass_on(said, acknowledged),
                answer = upstream.running.answered() => {
                    while let Ok(said) = upstream.heard.try_recv() {
                        self.pass_on(said, acknowledged);
                    }
                    return match answer {
                        Ok(result) => End::Ended(result),
                        Err(CallError::Closed(_) | CallError::Unsent(_)) => End::Replaced,
                        Err(error) => End::Failed(error),
                    };
                }
                _ = self.entry.slot.other_than(generation) => return End::Replaced,
            }
        }
    }

    fn pass_on(&self, said: FromServer, acknowledged: &mut Option<ListenFilter>) {
        let FromServer::Notice(Notice { method, params }) = said else { return };
        if method == listen::ACKNOWLEDGED {
            let granted = listen::listen_filter(params.as_deref()).unwrap_or_default();
            if acknowledged.replace(granted).is_some() {
                return self.lists_may_have_changed(acknowledged.as_ref());
            }
        }
        self.stream.push(&build::notification(&method, params.as_deref()), Keep::Must);
    }

    /// It is the first thing heard over another connection.
    fn lists_may_have_changed(&self, granted: Option<&ListenFilter>) {
        let Some(granted) = granted else { return };
        for (kind, wanted) in
            [("tools", granted.tools), ("prompts", granted.prompts), ("resources", granted.resources)]
        {
            if wanted {
                let method = format!("notifications/{kind}/list_changed");
                self.stream.push(&listen::tagged(&method, None, &self.id), Keep::Must);
            }
        }
    }

    fn in_good_order(mut self) {
        let text = build::result(&self.id, &listen::closed(&self.id));
        self.timed.done(true, text.len());
        self.stream.finish_with(&text);
    }
}
