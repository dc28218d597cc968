//! The journal's own protocol, and what becomes of lines while nobody listens there.
//!
//! The library drops what it cannot send without a word. The socket belongs to systemd and outlives
//! a restart of journald, so that this is rare: a journal that was stopped, or none at the start. A
//! line goes to stderr as JSON then, until the journal is back; without one at the start, for good.
//! Large values are handed over as sealed memory, so that nothing is cut.
//!
//! Must never write one event to both.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Between two looks whether it still does; a line that follows sooner goes where the last one went.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What entries are found by: `journalctl -t`.
const IDENTIFIER: &str = "mcp-orchestrator";

/// Levels as syslog has them, so that `journalctl -p info` shows what it says.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Lines for the journal, or for `instead` while it does not listen.
pub(super) struct Journal<L> {
    // None: there was no journal at the start. A library that comes late would not know the spans.
    native: Option<tracing_journald::Layer>,
    instead: L,
    look: Mutex<Look>,
}

/// The journal, with `instead` for when it cannot be reached.
pub(super) fn layer<L>(instead: L) -> Journal<L> {
    let native = tracing_journald::layer().ok().map(|layer| {
        // Field names are the contract's: no prefix, so that `journalctl MCP_SERVER=…` works.
        let layer = layer.with_field_prefix(None).with_syslog_identifier(IDENTIFIER.to_owned());
        layer.with_priority_mappings(PRIORITIES)
    });
    Journal { native, instead, look: Mutex::new(Look::new(Path::new(SOCKET))) }
}

impl<L> Journal<L> {
    /// Whether the journal gets the next line.
    fn native(&self) -> Option<&tracing_journald::Layer> {
        let native = self.native.as_ref()?;
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        look.listens(Instant::now()).then_some(native)
    }
}

// Both know all spans; each event is for one of them.
impl<S, L> Layer<S> for Journal<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(native) = &self.native {
            native.on_new_span(attrs, id, ctx.clone());
        }
        self.instead.on_new_span(attrs, id, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(native) = &self.native {
            native.on_record(id, values, ctx.clone());
        }
        self.instead.on_record(id, values, ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        match self.native() {
            Some(native) => native.on_event(event, ctx),
            None => self.instead.on_event(event, ctx),
        }
    }
}

/// Looks whether somebody listens.
struct Look {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    looked: Option<Instant>,
    listens: bool,
}

impl Look {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::unbound().ok();
        let socket = socket.filter(|socket| socket.set_nonblocking(true).is_ok());
        Self { path: path.to_owned(), socket, looked: None, listens: true }
    }

    fn listens(&mut self, now: Instant) -> bool {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_AGAIN) {
            self.looked = Some(now);
            // journald throws an empty entry away.
            let sent = self.socket.as_ref().map(|socket| socket.send_to(&[], &self.path));
            self.listens = match sent {
                Some(Ok(_)) => true,
                // It listens, and has much to do.
                Some(Err(error)) => error.kind() == std::io::ErrorKind::WouldBlock,
                None => true,
            };
        }
        self.listens
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK_AGAIN, Look};
    use std::os::unix::net::UnixDatagram;
    use std::time::Instant;

    #[test]
    fn a_journal_that_goes_and_comes_back_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut look = Look::new(&path);
        let begin = Instant::now();
        let at = |looks: u32| begin + LOOK_AGAIN * looks;
        assert!(!look.listens(at(0)), "nobody is there");
        let journal = UnixDatagram::bind(&path).unwrap();
        assert!(!look.listens(at(0)), "not asked for every line");
        assert!(look.listens(at(1)));
        journal.set_nonblocking(true).unwrap();
        assert_eq!(journal.recv(&mut [0; 8]).unwrap(), 0, "an empty entry");
        drop(journal);
        assert!(!look.listens(at(2)), "a socket nobody reads");
        std::fs::remove_file(&path).unwrap();
        assert!(!look.listens(at(3)));
    }
}
