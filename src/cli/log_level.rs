//! `log-level`: how much the daemon logs.
//!
//! Must never send what is no level: it is refused here as by the daemon, so that a typing error is
//! one without a daemon, too.

use crate::cli::online::{client, seconds};
use crate::cli::shown::text;
use crate::config::settings::level;
use crate::daemon::logging::level::hint;
use crate::daemon::{self, Options};
use crate::model::time::Timestamp;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Value, json};

/// The word that goes back to the level of the settings.
const RESET: &str = "reset";
/// Where the daemon tells and takes it.
const PATH: &str = "/api/v1/log-level";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To see it.
    Show,
    /// The level of the settings.
    Reset,
    /// This level, for as many seconds.
    Level(String, Option<u64>),
}

impl Wanted {
    /// Reads the arguments.
    pub(super) fn of(level: Option<&str>, duration: Option<&str>) -> Result<Self, Failure> {
        let Some(word) = level else { return Ok(Self::Show) };
        let time = duration.map(|duration| {
            seconds(duration).filter(|secs| *secs > 0).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("'{duration}' is not a time")).hint("write 90s, 30m or 2h")
            })
        });
        let time = time.transpose()?;
        if word.eq_ignore_ascii_case(RESET) {
            return match time {
                None => Ok(Self::Reset),
                Some(_) => Err(Failure::new(Exit::Usage, "reset takes no --for")
                    .hint("reset goes back to the level of settings.conf at once")),
            };
        }
        level::read(word)
            .map_err(|why| Failure::new(Exit::Usage, why).hint(format!("a level is {}", hint())))?;
        Ok(Self::Level(word.to_owned(), time))
    }
}

/// Shows or changes it, and shows what came of it.
pub(super) async fn run(options: Options, wanted: Wanted, as_json: bool) -> Result<Exit, Failure> {
    let client = client(options).await?;
    let view = match wanted {
        Wanted::Show => client.get(PATH).await?,
        Wanted::Reset => client.delete(PATH).await?,
        Wanted::Level(level, secs) => {
            client.put(PATH, json!({ "level": level, "forSeconds": secs }).to_string()).await?
        }
    };
    if as_json {
        output::line(&view.to_string());
    } else {
        output::line(&sentence(&view, daemon::now()));
    }
    Ok(Exit::Done)
}

/// `INFO`, `DEBUG (INFO in settings.conf)`, `DEBUG for 10 min, then INFO`.
fn sentence(view: &Value, now: Timestamp) -> String {
    let (level, configured) = (text(view, "level"), text(view, "configured"));
    let until = view.get("until").and_then(Value::as_i64).map(Timestamp);
    match until {
        Some(until) => format!("{level} for {}, then {configured}", until.since(now)),
        None if level == configured => level,
        None => format!("{level} until reset, settings say {configured}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted, sentence};
    use crate::model::time::Timestamp;
    use crate::terminal::failure::Exit;
    use serde_json::json;

    #[test]
    fn arguments_are_read_before_anybody_is_asked() {
        assert_eq!(Wanted::of(None, None), Ok(Wanted::Show));
        assert_eq!(Wanted::of(Some("RESET"), None), Ok(Wanted::Reset));
        let level = Wanted::Level("info,access=debug".to_owned(), Some(600));
        assert_eq!(Wanted::of(Some("info,access=debug"), Some("10m")), Ok(level));
        for (level, time, why) in [
            ("DEBG", None, "'DEBG' is no level; did you mean DEBUG?"),
            ("DEBUG", Some("soon"), "'soon' is not a time"),
            ("DEBUG", Some("0s"), "'0s' is not a time"),
            ("reset", Some("5m"), "reset takes no --for"),
        ] {
            let failure = Wanted::of(Some(level), time).unwrap_err();
            assert_eq!((failure.message.as_str(), failure.exit), (why, Exit::Usage));
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn what_holds_is_a_sentence() {
        let shown = |view| sentence(&view, Timestamp(0));
        assert_eq!(shown(json!({"level": "INFO", "configured": "INFO"})), "INFO");
        assert_eq!(
            shown(json!({"level": "DEBUG", "configured": "INFO"})),
            "DEBUG until reset, settings say INFO"
        );
        assert_eq!(
            shown(json!({"level": "DEBUG", "configured": "INFO", "until": 600_000})),
            "DEBUG for 10 min, then INFO"
        );
    }
}
