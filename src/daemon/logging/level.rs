//! How much is said, changed while the daemon runs: by `log-level`, by signals, by settings.conf.
//!
//! ```text
//! [logging] level ──> configured ──┐
//! log-level, SIGUSR1 ──> by hand ──┴──> what is said: by hand while there is one, else configured
//! log-level reset, SIGUSR2, `--for` over, another configured level: by hand ends
//! ```
//! Must never leave the log silent because of an expression that cannot be used.

use crate::api::verbosity::{Refused, Verbosity, View};
use crate::config::settings::level::{self, Level, WORDS};
use crate::daemon::logging::expression;
use crate::model::time::{Span, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::reload;

/// Longest time that a level holds by `--for`.
const FOR_MAX: Span = Span::secs(7 * 86_400);

/// Changes the filter of a running process.
pub(super) type Handle = reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// The level of this process; cloning shares it.
#[derive(Clone, Debug)]
pub struct LevelSwitch {
    state: Arc<Mutex<State>>,
    handle: Option<Handle>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    configured: String,
    by_hand: Option<ByHand>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ByHand {
    level: String,
    until: Option<Timestamp>,
}

impl LevelSwitch {
    /// A switch at the level of the settings; without `handle` it only remembers.
    pub(super) fn new(configured: &str, handle: Option<Handle>) -> Self {
        let state = State { configured: shown(configured), by_hand: None };
        Self { state: Arc::new(Mutex::new(state)), handle, changed: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level of the settings is another: it holds, whatever was said by hand.
    pub fn configure(&self, level: &str) {
        let level = shown(level);
        if self.state().configured != level {
            self.change("settings.conf", |state| *state = State { configured: level, by_hand: None });
        }
    }

    /// DEBUG until [`Self::reset`].
    pub fn louder(&self, by: &str) {
        let debug = ByHand { level: "DEBUG".to_owned(), until: None };
        self.change(by, |state| state.by_hand = Some(debug));
    }

    /// The level of the settings again.
    pub fn reset(&self, by: &str) {
        self.change(by, |state| state.by_hand = None);
    }

    /// Ends levels whose time is over; runs as long as the daemon.
    pub async fn run(self, now: impl Fn() -> Timestamp + Send) {
        loop {
            let until = self.state().by_hand.as_ref().and_then(|by_hand| by_hand.until);
            let Some(until) = until else {
                self.changed.notified().await;
                continue;
            };
            let left = until.since(now());
            if left == Span::ZERO {
                self.reset("the end of its time");
                continue;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(left.0)) => {}
            }
        }
    }

    /// Changes the state and the filter with it, and says so while or once INFO is said.
    fn change(&self, by: &str, change: impl FnOnce(&mut State)) {
        let (before, after) = {
            let mut state = self.state();
            let before = state.level().to_owned();
            change(&mut state);
            (before, state.level().to_owned())
        };
        self.changed.notify_one();
        let filter = level::read(&after).ok().and_then(|level| expression(&level));
        if filter.is_none() {
            tracing::warn!("log level '{after}' cannot be used; what is said stays as it was");
        }
        let (Some(handle), Some(filter)) = (&self.handle, filter.filter(|_| before != after)) else { return };
        let said = tracing::enabled!(tracing::Level::INFO);
        if said {
            tracing::info!("log level is {after} from now on, by {by}; it was {before}");
        }
        if handle.reload(filter).is_ok() && !said {
            tracing::info!("log level is {after} from now on, by {by}; it was {before}");
        }
    }
}

impl State {
    fn level(&self) -> &str {
        self.by_hand.as_ref().map_or(&self.configured, |by_hand| &by_hand.level)
    }
}

impl Verbosity for LevelSwitch {
    fn show(&self) -> View {
        let state = self.state();
        View {
            level: state.level().to_owned(),
            configured: state.configured.clone(),
            until: state.by_hand.as_ref().and_then(|by_hand| by_hand.until),
        }
    }

    fn set(&self, text: &str, until: Option<Timestamp>, now: Timestamp) -> Result<View, Refused> {
        if until.is_some_and(|until| until > now.after(FOR_MAX)) {
            return Err(Refused { why: format!("a level holds for {FOR_MAX} at most"), hint: None });
        }
        let refused = |why: String| Refused { why, hint: Some(hint()) };
        let level = level::read(text).map_err(refused)?;
        if expression(&level).is_none() {
            return Err(refused(format!("'{text}' is no filter expression")));
        }
        let by_hand = ByHand { level: level.shown, until };
        self.change("hand", |state| state.by_hand = Some(by_hand));
        Ok(self.show())
    }

    fn reset(&self) -> View {
        Self::reset(self, "hand");
        self.show()
    }
}

/// What a level may be.
#[must_use]
pub fn hint() -> String {
    format!("{}, an expression such as info,access=debug, or reset", WORDS.join(", "))
}

/// As people see it.
fn shown(level: &str) -> String {
    level::read(level).map_or_else(|_unusable| level.to_owned(), |level: Level| level.shown)
}

#[cfg(test)]
mod tests {
    use super::LevelSwitch;
    use crate::api::verbosity::Verbosity;
    use crate::model::time::{Span, Timestamp};
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::reload;

    /// Whether a line of this level would be told.
    fn told(switch: &LevelSwitch) -> (String, bool) {
        (switch.show().level, tracing::enabled!(tracing::Level::DEBUG))
    }

    #[test]
    fn a_level_by_hand_holds_until_the_settings_say_another() {
        let (filter, handle) = reload::Layer::new(crate::daemon::logging::filter("INFO"));
        let switch = LevelSwitch::new("info", Some(handle));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter), || {
            assert_eq!(told(&switch), ("INFO".to_owned(), false));
            switch.louder("a test");
            assert_eq!(told(&switch), ("DEBUG".to_owned(), true));
            switch.configure("INFO");
            assert_eq!(told(&switch), ("DEBUG".to_owned(), true), "the settings say what they said");
            switch.configure("ERROR");
            assert_eq!(told(&switch), ("ERROR".to_owned(), false));
            switch.louder("a test");
            switch.reset("a test");
            assert_eq!(told(&switch), ("ERROR".to_owned(), false));
            let view = switch.set("warning,access=debug", None, Timestamp(0)).unwrap();
            assert_eq!((view.level.as_str(), view.configured.as_str()), ("warning,access=debug", "ERROR"));
        });
    }

    #[test]
    fn what_is_no_level_changes_nothing() {
        let switch = LevelSwitch::new("INFO", None);
        let refused = switch.set("DEBG", None, Timestamp(0)).unwrap_err();
        assert_eq!(refused.why, "'DEBG' is no level; did you mean DEBUG?");
        let refused = switch.set("a[b=debug", None, Timestamp(0)).unwrap_err();
        assert_eq!(refused.why, "'a[b=debug' is no filter expression");
        let late = Some(Timestamp(0).after(Span::secs(8 * 86_400)));
        assert_eq!(switch.set("DEBUG", late, Timestamp(0)).unwrap_err().why, "a level holds for 7 d at most");
        assert_eq!(switch.show().level, "INFO");
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_with_a_time_goes_by_itself() {
        let switch = LevelSwitch::new("INFO", None);
        let begin = tokio::time::Instant::now();
        let clock = move || Timestamp(i64::try_from(begin.elapsed().as_millis()).unwrap());
        let running = tokio::spawn(switch.clone().run(clock));
        switch.set("DEBUG", Some(Timestamp(60_000)), Timestamp(0)).unwrap();
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(switch.show().level, "DEBUG");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(switch.show().level, "INFO");
        running.abort();
    }
}
