//! What a parameter of a query takes: said in the document and held before a route is asked.
//!
//! Must never let through what the document refuses.

use crate::api::usage::HOURS_MAX;
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
        words if words.contains('|') => words.split('|').any(|word| word == text),
        _ => true,
    };
    let takes = match kind {
        "integer" => format!("a whole number up to {MOST}"),
        "cursor" => format!("a whole number up to {LAST}"),
        "hours" => format!("a number above 0 and up to {HOURS_MAX}"),
        "boolean" => "true or false".to_owned(),
        words => words.replace('|', " or "),
    };
    (!good).then_some(takes)
}

#[cfg(test)]
mod tests {
    use super::{refused, schema};

    #[test]
    fn what_the_document_says_is_held() {
        for (kind, good, bad) in [
            ("integer", "2147483647", "2147483648"),
            ("integer", "0", "-1"),
            ("cursor", "1795301539780000000", "-1"),
            ("hours", "0.5", "0"),
            ("hours", "24", "24.1"),
            ("boolean", "true", "yes"),
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
