//! Counts what repeats itself: the same event of the same server is told once, then at most once
//! in [`WINDOW`] with how often it was.
//!
//! ```text
//! waiting, waiting, waiting …            told once, "repeated 37 times" when the window is over
//! waiting, well, waiting, well, …        each told three times, then counted: what is told last
//!                                        is what was so last
//! ```
//! What servers print themselves is not looked at word by word, but a server that floods the
//! journal would have it drop everybody's lines: beyond [`LINES_MAX`] in [`LINES_WITHIN`] they are
//! counted; `logs NAME` has the newest.
//!
//! Must never hold back the first of anything, and never more memory than [`KEYS_MAX`] texts.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How long the same event is counted instead of told.
pub const WINDOW: Duration = Duration::from_secs(300);
/// Between two looks at what was counted.
const LOOK: Duration = Duration::from_secs(5);
/// How often an event is told within a window when others came between.
const TOLD_MAX: u32 = 3;
/// Different events that are remembered; beyond that all are told.
const KEYS_MAX: usize = 2048;
/// Bytes kept of an event's text for telling how often it was.
const TEXT_BYTES_MAX: usize = 1024;
/// Target of what servers print.
const SERVER: &str = "server";
/// Target of what is told here; never counted.
const TARGET: &str = "repeats";
/// Lines of one server that are told within [`LINES_WITHIN`].
pub const LINES_MAX: u32 = 1000;
/// See [`LINES_MAX`].
pub const LINES_WITHIN: Duration = Duration::from_secs(10);

/// Holds events back and knows how often; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    events: HashMap<Key, Count>,
    /// The text that was said last at a place in the code for a server.
    newest: HashMap<(Identifier, Option<String>), u64>,
    lines: HashMap<String, Lines>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    place: Identifier,
    server: Option<String>,
    text: u64,
}

/// How often an event was within its window.
#[derive(Debug)]
struct Count {
    since: Instant,
    told: u32,
    held_back: u32,
    newest: Instant,
    said: Said,
}

/// What a server printed.
#[derive(Debug)]
struct Lines {
    since: Instant,
    told: u32,
    held_back: u32,
}

/// An event as it is told once more.
#[derive(Clone, Debug, Default)]
struct Said {
    text: String,
    server: Option<String>,
    code: Option<String>,
    id: Option<String>,
    level: Option<Level>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.text),
            "MCP_SERVER" if !value.is_empty() => self.server = Some(value.to_owned()),
            "MCP_ERROR_CODE" => self.code = Some(value.to_owned()),
            "MESSAGE_ID" => self.id = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if matches!(field.name(), "message" | "MCP_SERVER" | "MCP_ERROR_CODE" | "MESSAGE_ID") {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

impl Repeats {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells now and then what was counted; runs as long as the daemon.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.tell(false);
        }
    }

    /// Tells what was counted: where the window is over, or all of it at the end.
    pub fn tell(&self, all: bool) {
        // Told without the lock: telling comes by here again.
        let (events, lines) = {
            let mut held = self.held();
            (held.over(all), held.lines_over(all))
        };
        for (said, times) in events {
            again(&said, times);
        }
        for (server, lines) in lines {
            tracing::warn!(target: TARGET, MCP_SERVER = server, MCP_REPEATED = lines, "{server}: {lines} more lines in {} s; `mcp-orchestrator logs {server}` has the newest", LINES_WITHIN.as_secs());
        }
    }
}

/// Tells an event once more.
fn again(said: &Said, times: u32) {
    let Said { text, server, code, id, level } = said;
    let (server, code, id) = (server.as_deref(), code.as_deref(), id.as_deref());
    let count = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    match *level {
        Some(Level::ERROR) => {
            tracing::error!(target: TARGET, MESSAGE_ID = id, MCP_SERVER = server, MCP_ERROR_CODE = code, MCP_REPEATED = times, "{text} (repeated {count})");
        }
        Some(Level::WARN) => {
            tracing::warn!(target: TARGET, MESSAGE_ID = id, MCP_SERVER = server, MCP_ERROR_CODE = code, MCP_REPEATED = times, "{text} (repeated {count})");
        }
        _ => {
            tracing::info!(target: TARGET, MESSAGE_ID = id, MCP_SERVER = server, MCP_ERROR_CODE = code, MCP_REPEATED = times, "{text} (repeated {count})");
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _ctx: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut said = Said { level: Some(*metadata.level()), ..Said::default() };
        event.record(&mut said);
        let now = Instant::now();
        match (metadata.target(), &said.server) {
            (SERVER, Some(server)) => self.held().line(server.clone(), now),
            _ => self.held().event(metadata.callsite(), said, now),
        }
    }
}

impl Held {
    /// Whether an event is told.
    fn event(&mut self, place: Identifier, mut said: Said, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        // The same words about another kind of event are another event.
        (&said.text, &said.id).hash(&mut hasher);
        let text = hasher.finish();
        let key = Key { place: place.clone(), server: said.server.clone(), text };
        if !self.events.contains_key(&key) && self.events.len() >= KEYS_MAX {
            return true;
        }
        let others_between = self.newest.insert((place, said.server.clone()), text) != Some(text);
        truncate(&mut said.text);
        let count = self.events.entry(key).or_insert_with(|| Count {
            since: now,
            told: 0,
            held_back: 0,
            newest: now,
            said: said.clone(),
        });
        // A window in which nothing was held back ends unseen.
        if count.held_back == 0 && now.duration_since(count.since) >= WINDOW {
            (count.since, count.told) = (now, 0);
        }
        count.newest = now;
        let told = count.told == 0 || (others_between && count.told < TOLD_MAX);
        if told {
            count.told += 1;
        } else {
            count.held_back += 1;
        }
        told
    }

    /// Events whose window is over and that were held back, the newest last.
    fn over(&mut self, all: bool) -> Vec<(Said, u32)> {
        let now = Instant::now();
        let mut over: Vec<(Instant, Said, u32)> = Vec::new();
        self.events.retain(|_, count| {
            if !all && now.duration_since(count.since) < WINDOW {
                return true;
            }
            if count.held_back == 0 {
                return false;
            }
            over.push((count.newest, count.said.clone(), count.held_back));
            // It was told just now: the next one is counted again.
            (count.since, count.told, count.held_back) = (now, TOLD_MAX, 0);
            true
        });
        let events = &self.events;
        self.newest.retain(|(place, server), text| {
            events.contains_key(&Key { place: place.clone(), server: server.clone(), text: *text })
        });
        over.sort_by_key(|(newest, ..)| *newest);
        over.into_iter().map(|(_, said, times)| (said, times)).collect()
    }

    /// Whether a server's line is told.
    fn line(&mut self, server: String, now: Instant) -> bool {
        if !self.lines.contains_key(&server) && self.lines.len() >= KEYS_MAX {
            return true;
        }
        let lines = self.lines.entry(server).or_insert(Lines { since: now, told: 0, held_back: 0 });
        if lines.held_back == 0 && now.duration_since(lines.since) >= LINES_WITHIN {
            (lines.since, lines.told) = (now, 0);
        }
        let told = lines.told < LINES_MAX;
        if told {
            lines.told += 1;
        } else {
            lines.held_back += 1;
        }
        told
    }

    fn lines_over(&mut self, all: bool) -> Vec<(String, u32)> {
        let now = Instant::now();
        let mut over = Vec::new();
        self.lines.retain(|server, lines| {
            if !all && now.duration_since(lines.since) < LINES_WITHIN {
                return true;
            }
            if lines.held_back > 0 {
                over.push((server.clone(), lines.held_back));
            }
            false
        });
        over
    }
}

/// Cuts a text, and says so.
fn truncate(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, LINES_WITHIN, Repeats, WINDOW};
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
        }
    }

    /// What is told, and a guard while it is.
    fn logging() -> (Lines, Repeats, tracing::subscriber::DefaultGuard) {
        let (lines, repeats) = (Lines::default(), Repeats::default());
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false);
        let guard = tracing::subscriber::set_default(
            tracing_subscriber::registry().with(repeats.clone()).with(layer),
        );
        (lines, repeats, guard)
    }

    fn say(server: &str, text: &str) {
        tracing::warn!(MCP_SERVER = server, "{text}");
    }

    /// The same as a server that prints.
    fn print(server: &str, text: &str) {
        tracing::info!(target: "server", MCP_SERVER = %server, "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_of_one_server_is_told_once_and_then_how_often() {
        let (lines, repeats, _guard) = logging();
        for _ in 0..38 {
            say("time", "it ended");
        }
        say("maps", "it ended");
        assert_eq!(lines.take(), ["it ended MCP_SERVER=\"time\"", "it ended MCP_SERVER=\"maps\""]);
        repeats.tell(false);
        assert_eq!(lines.take(), [""; 0]);
        tokio::time::advance(WINDOW).await;
        repeats.tell(false);
        let again = "it ended (repeated 37 times) MCP_SERVER=\"time\" MCP_REPEATED=37";
        assert_eq!(lines.take(), [again]);
        say("time", "it ended");
        assert_eq!(lines.take(), [""; 0], "it was told just now");
        tokio::time::advance(WINDOW).await;
        repeats.tell(false);
        assert_eq!(lines.take(), ["it ended (repeated once) MCP_SERVER=\"time\" MCP_REPEATED=1"]);
        tokio::time::advance(WINDOW).await;
        repeats.tell(false);
        say("time", "it ended");
        assert_eq!(lines.take(), ["it ended MCP_SERVER=\"time\""], "a window without is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn going_to_and_fro_is_told_three_times_and_the_last_word_is_what_was_so_last() {
        let (lines, repeats, _guard) = logging();
        for _ in 0..10 {
            for text in ["it waits", "it is well"] {
                say("time", text);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        say("time", "it waits");
        assert_eq!(lines.take().len(), 6);
        tokio::time::advance(WINDOW).await;
        repeats.tell(false);
        let told = lines.take();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("it is well (repeated 7 times)"), "{told:?}");
        assert!(told[1].starts_with("it waits (repeated 8 times)"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_server_is_bounded_and_no_line_of_another_is_lost() {
        let (lines, repeats, _guard) = logging();
        for _ in 0..LINES_MAX + 5 {
            print("loud", "x");
        }
        print("quiet", "y");
        assert_eq!(lines.take().len(), 1001);
        tokio::time::advance(LINES_WITHIN).await;
        repeats.tell(false);
        let told = lines.take();
        assert!(told[0].starts_with("loud: 5 more lines in 10 s; `mcp-orchestrator logs loud`"), "{told:?}");
        print("loud", "x");
        assert_eq!(lines.take().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_is_told_at_the_end_and_debug_is_never_counted() {
        let (lines, repeats, _guard) = logging();
        for _ in 0..3 {
            say("", "no server");
            tracing::debug!("small things");
        }
        assert_eq!(lines.take().len(), 4);
        repeats.tell(true);
        assert_eq!(lines.take(), ["no server (repeated 2 times) MCP_REPEATED=2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let (lines, repeats, _guard) = logging();
        for n in 0..3000 {
            say("time", &format!("{n}"));
        }
        assert_eq!(lines.take().len(), 3000, "all are different");
        assert!(repeats.held().events.len() <= super::KEYS_MAX);
        say("time", &"long ".repeat(1000));
        tokio::time::advance(WINDOW).await;
        repeats.tell(false);
        assert!(repeats.held().events.is_empty() && repeats.held().newest.is_empty());
    }
}
