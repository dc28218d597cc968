//! What a parameter of a query takes: said in the document and held before a route is asked.
//!
//! Must never let through what the document refuses.

use crate::api::usage::HOURS_MAX;
use crate::model::time::{Span, Timestamp};
use serde_json::{Value, json};

/// The most an integer may be; they count things.
const MOST: u32 = i32::MAX.unsigned_abs();
/// The most a place in a list may be: some are times in nanoseconds.
const LAST: i64 = i64::MAX;

/// The schema of a kind. Words with bars between them are all there is to choose from.
pub(super) fn schema(kind: &str) -> Value {
    match kind {
        "integer" => json!({ "type": kind, "minimum": 0, "maximum": MOST }),
        "cursor" => json!({ "type": "integer", "minimum": 0, "maximum": LAST }),
        "hours" => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": HOURS_MAX }),
        "since" => json!({ "type": "string", "pattern": "^([0-9]{1,5}[smhd]|[0-9]{1,15})$" }),
        words if words.contains('|') => {
            json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() })
        }
        kind => json!({ "type": kind }),
    }
}

/// What a kind takes, when `text` is something else.
pub(super) fn refused(kind: &str, text: &str) -> Option<String> {
    let good = match kind {
        "integer" => text.parse::<u32>().is_ok_and(|number| number <= MOST),
        "cursor" => text.parse::<i64>().is_ok_and(|place| place >= 0),
        "hours" => text.parse::<f64>().is_ok_and(|hours| hours > 0.0 && hours <= HOURS_MAX),
        "boolean" => matches!(text, "true" | "false"),
        "since" => since(text, Timestamp::default()).is_some(),
        words if words.contains('|') => words.split('|').any(|word| word == text),
        _ => true,
    };
    let takes = match kind {
        "integer" => format!("a whole number up to {MOST}"),
        "cursor" => format!("a whole number up to {LAST}"),
        "hours" => format!("a number above 0 and up to {HOURS_MAX}"),
        "boolean" => "true or false".to_owned(),
        "since" => {
            "a time back from now such as 90s, 30m, 2h or 7d, or milliseconds since the epoch".to_owned()
        }
        words => words.replace('|', " or "),
    };
    (!good).then_some(takes)
}

/// Digits of a time back from now, and of milliseconds since the epoch.
const BACK_DIGITS: usize = 5;
const MILLIS_DIGITS: usize = 15;

/// A point in time: `90s`, `30m`, `2h` or `7d` before `now`, or milliseconds since the epoch.
#[must_use]
pub(crate) fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    let digits = |text: &str, most| {
        let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<i64>().ok()).flatten()
    };
    let seconds = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return digits(text, MILLIS_DIGITS).map(Timestamp),
    };
    let count = digits(text.get(..text.len() - 1)?, BACK_DIGITS)?;
    let back = Span::secs(u64::try_from(count).ok()?.saturating_mul(seconds));
    Some(Timestamp(now.0.saturating_sub(i64::try_from(back.0).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::{refused, schema, since};
    use crate::model::time::Timestamp;

    #[test]
    fn points_in_time_are_read() {
        let now = Timestamp(1_800_000_000_000);
        for (text, at) in [
            ("90s", 1_799_999_910_000),
            ("30m", 1_799_998_200_000),
            ("2h", 1_799_992_800_000),
            ("7d", 1_799_395_200_000),
            ("1799999999999", 1_799_999_999_999),
            ("0", 0),
        ] {
            assert_eq!(since(text, now), Some(Timestamp(at)), "{text}");
        }
        for text in ["", "h", "-1h", "1 h", "yesterday", "1w", "123456h", "1234567890123456", "1é"] {
            assert_eq!(since(text, now), None, "{text}");
        }
    }

    #[test]
    fn what_the_document_says_is_held() {
        for (kind, good, bad) in [
            ("integer", "2147483647", "2147483648"),
            ("integer", "0", "-1"),
            ("cursor", "1795301539780000000", "-1"),
            ("hours", "0.5", "0"),
            ("hours", "24", "24.1"),
            ("boolean", "true", "yes"),
            ("since", "2h", "two hours"),
            ("move|delete", "move", ""),
        ] {
            assert_eq!(refused(kind, good), None, "{kind} {good}");
            assert!(refused(kind, bad).is_some(), "{kind} {bad}");
        }
        assert_eq!(refused("string", "anything"), None);
        assert_eq!(schema("move|delete")["enum"][1], "delete");
        assert_eq!(schema("integer")["maximum"], i32::MAX);
    }
}
