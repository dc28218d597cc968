//! The demo server's tools.
//!
//! Wrong arguments are failures of the tool (`isError`), so that a model can see and mend them.
//!
//! Must never run longer than [`SECONDS_MAX`] or answer with more than it was given, apart from a
//! few lines.

use crate::cli::demo_server::Stop;
use crate::model::time::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::time::Duration;

/// The longest that `slow` takes.
pub const SECONDS_MAX: f64 = 300.0;
/// The most steps that `slow` reports.
pub const STEPS_MAX: u64 = 1000;
/// Addresses shown by `lookup`.
pub const ADDRESSES_MAX: usize = 16;
/// The longest host name there is.
const HOST_BYTES_MAX: usize = 253;
/// Offsets in use reach from -12:00 to +14:00; the notation allows no more than this.
const OFFSET_HOURS_MAX: i64 = 23;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// What time it is.
    Time,
    /// Says what it is told.
    Echo,
    /// Adds two numbers.
    Add,
    /// Takes its time.
    Slow,
    /// Looks a name up.
    Lookup,
    /// Fails.
    Fail,
}

/// How a call went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Well.
    Done {
        /// For people and models.
        text: String,
        /// For programs, where the tool declares a schema.
        structured: Option<Value>,
    },
    /// Badly.
    Failed(String),
    /// It was told to stop.
    Stopped,
}

const ALL: [Tool; 6] = [Tool::Time, Tool::Echo, Tool::Add, Tool::Slow, Tool::Lookup, Tool::Fail];

impl Tool {
    /// The tool of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|tool| tool.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Echo => "echo",
            Self::Add => "add",
            Self::Slow => "slow",
            Self::Lookup => "lookup",
            Self::Fail => "fail",
        }
    }

    /// Whether it is done at once.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        match self {
            Self::Time | Self::Echo | Self::Add | Self::Fail => true,
            Self::Slow | Self::Lookup => false,
        }
    }

    /// Runs it.
    #[must_use]
    pub fn run(self, arguments: &Value, now: Timestamp, stop: &Stop, progress: &dyn Fn(u64, u64)) -> Outcome {
        let outcome = match self {
            Self::Time => time(arguments, now),
            Self::Echo => echo(arguments),
            Self::Add => add(arguments),
            Self::Slow => slow(arguments, stop, progress),
            Self::Lookup => lookup(arguments),
            Self::Fail => Err("this tool always fails".to_owned()),
        };
        outcome.unwrap_or_else(Outcome::Failed)
    }

    fn describe(self) -> Value {
        let (description, input) = match self {
            Self::Time => (
                "What time it is, in UTC and, if asked, at an offset from it",
                object(
                    &json!({"offset": {"type": "string", "description": "such as +02:00 or -05:30"}}),
                    &[],
                ),
            ),
            Self::Echo => ("Says what it is told", object(&json!({"text": {"type": "string"}}), &["text"])),
            Self::Add => (
                "Adds two numbers",
                object(&json!({"a": {"type": "number"}, "b": {"type": "number"}}), &["a", "b"]),
            ),
            Self::Slow => (
                "Takes its time, with progress, and can be cancelled",
                object(
                    &json!({
                        "seconds": {"type": "number", "minimum": 0, "maximum": SECONDS_MAX, "default": 3},
                        "steps": {"type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 3},
                    }),
                    &[],
                ),
            ),
            Self::Lookup => (
                "Looks up the addresses of a host name",
                object(&json!({"host": {"type": "string"}}), &["host"]),
            ),
            Self::Fail => ("Fails, always", object(&json!({}), &[])),
        };
        let mut tool = json!({"name": self.name(), "description": description, "inputSchema": input});
        if self == Self::Add
            && let Some(tool) = tool.as_object_mut()
        {
            let output =
                json!({"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]});
            tool.insert("outputSchema".to_owned(), output);
        }
        tool
    }
}

/// Every tool as `tools/list` shows it.
#[must_use]
pub fn described() -> Vec<Value> {
    ALL.into_iter().map(Tool::describe).collect()
}

fn object(properties: &Value, required: &[&str]) -> Value {
    if required.is_empty() {
        return json!({"type": "object", "properties": properties});
    }
    json!({"type": "object", "properties": properties, "required": required})
}

type Run = Result<Outcome, String>;

const fn done(text: String) -> Outcome {
    Outcome::Done { text, structured: None }
}

fn text<'a>(arguments: &'a Value, key: &str) -> Result<&'a str, String> {
    arguments.get(key).and_then(Value::as_str).ok_or_else(|| format!("argument {key} must be a string"))
}

fn time(arguments: &Value, now: Timestamp) -> Run {
    let utc = civil(now, 0) + "Z";
    let Some(offset) = arguments.get("offset").filter(|offset| !offset.is_null()) else {
        return Ok(done(utc));
    };
    let wrong = || "argument offset must look like +02:00".to_owned();
    let minutes = offset.as_str().and_then(offset_minutes).ok_or_else(wrong)?;
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    let sign = if minutes < 0 { '-' } else { '+' };
    Ok(done(format!("{utc}\n{}{sign}{hours:02}:{rest:02}", civil(now, minutes))))
}

/// `+02:00` in minutes.
fn offset_minutes(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<u8>().ok().map(i64::from))?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= OFFSET_HOURS_MAX && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Date and time of day, `minutes` east of UTC.
fn civil(now: Timestamp, minutes: i64) -> String {
    let secs = now.0.div_euclid(1000).saturating_add(minutes * 60);
    let (day, time) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Years are counted from March, so that a leap day is the last of its year.
    let shifted = day + 719_468;
    let (cycle, day_of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let leaps = day_of_cycle / 1_460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leaps) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

fn echo(arguments: &Value) -> Run {
    Ok(done(text(arguments, "text")?.to_owned()))
}

fn add(arguments: &Value) -> Run {
    let number = |key: &str| {
        let value = arguments.get(key).filter(|value| value.is_number());
        value.ok_or_else(|| format!("argument {key} must be a number"))
    };
    let (a, b) = (number("a")?, number("b")?);
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b)).map(Value::from);
    let broken = || Some(a.as_f64()? + b.as_f64()?).filter(|sum| sum.is_finite()).map(Value::from);
    let sum = whole.or_else(broken).ok_or("sum is too large")?;
    Ok(Outcome::Done { text: sum.to_string(), structured: Some(json!({"sum": sum})) })
}

fn slow(arguments: &Value, stop: &Stop, progress: &dyn Fn(u64, u64)) -> Run {
    let seconds = arguments.get("seconds").map_or(Some(3.0), Value::as_f64);
    let seconds = seconds.filter(|s| (0.0..=SECONDS_MAX).contains(s));
    let seconds =
        seconds.ok_or_else(|| format!("argument seconds must be a number from 0 to {SECONDS_MAX}"))?;
    let steps = arguments.get("steps").map_or(Some(3), Value::as_u64).filter(|s| (1..=STEPS_MAX).contains(s));
    let steps =
        steps.ok_or_else(|| format!("argument steps must be a whole number from 1 to {STEPS_MAX}"))?;
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let pause = whole / u32::try_from(steps).unwrap_or(1);
    for done in 1..=steps {
        if stop.sleep(pause) {
            return Ok(Outcome::Stopped);
        }
        progress(done, steps);
    }
    Ok(done(format!("took {seconds} s in {steps} steps")))
}

fn lookup(arguments: &Value) -> Run {
    let host = text(arguments, "host")?;
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err("argument host must be a host name".to_owned());
    }
    let found = (host, 0).to_socket_addrs().map_err(|error| format!("looking up {host}: {error}"))?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    let shown: Vec<String> = addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
    Ok(done(shown.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tool: Tool, arguments: &Value) -> Outcome {
        tool.run(arguments, Timestamp(1_709_210_096_000), &Stop::default(), &|_, _| {})
    }

    fn said(tool: Tool, arguments: &Value) -> String {
        match run(tool, arguments) {
            Outcome::Done { text, .. } | Outcome::Failed(text) => text,
            Outcome::Stopped => "stopped".to_owned(),
        }
    }

    #[test]
    fn dates_are_right() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_210_096, "2024-02-29T12:34:56"),
            (4_102_444_799, "2099-12-31T23:59:59"),
            (-1, "1969-12-31T23:59:59"),
        ] {
            assert_eq!(civil(Timestamp(secs * 1000), 0), text);
        }
        assert_eq!(said(Tool::Time, &json!({})), "2024-02-29T12:34:56Z");
        assert_eq!(
            said(Tool::Time, &json!({"offset": "-12:30"})),
            "2024-02-29T12:34:56Z\n2024-02-29T00:04:56-12:30"
        );
        for wrong in ["2", "+2:00", "+24:00", "+02:60", "+0é:0", ""] {
            assert_eq!(said(Tool::Time, &json!({"offset": wrong})), "argument offset must look like +02:00");
        }
    }

    #[test]
    fn sums_stay_exact_while_they_can() {
        assert_eq!(said(Tool::Add, &json!({"a": 9_007_199_254_740_993_i64, "b": 1})), "9007199254740994");
        assert_eq!(said(Tool::Add, &json!({"a": 0.5, "b": 1})), "1.5");
        assert_eq!(said(Tool::Add, &json!({"a": "1", "b": 1})), "argument a must be a number");
        assert_eq!(said(Tool::Add, &json!({"a": 1e308, "b": 1e308})), "sum is too large");
    }

    #[test]
    fn names_are_looked_up() {
        let found = said(Tool::Lookup, &json!({"host": "localhost"}));
        assert!(found.contains("127.0.0.1") || found.contains("::1"), "{found}");
        let missing = run(Tool::Lookup, &json!({"host": "no-such-host.invalid"}));
        assert!(
            matches!(missing, Outcome::Failed(why) if why.starts_with("looking up no-such-host.invalid: "))
        );
    }

    #[test]
    fn slow_can_be_stopped() {
        let stop = Stop::default();
        stop.tell();
        let outcome = Tool::Slow.run(&json!({"seconds": 60}), Timestamp(0), &stop, &|_, _| {});
        assert_eq!(outcome, Outcome::Stopped);
        assert!(said(Tool::Slow, &json!({"seconds": -1})).starts_with("argument seconds must be"));
    }
}
