//! How much is logged: one of the four words, or a filter expression.
//!
//! Why it is so: the filter takes any word for the name of a target, so that `DEBG` would silence
//! everything without an error. A word alone is a level here, and everything else names its level
//! behind `=`.

use crate::config::text::closest;

/// The words for people.
pub const WORDS: [&str; 4] = ["DEBUG", "INFO", "WARNING", "ERROR"];
/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1024;

/// Words that are levels, and what the filter calls them.
const LEVELS: &[(&str, &str)] = &[
    ("OFF", "off"),
    ("ERROR", "error"),
    ("WARN", "warn"),
    ("WARNING", "warn"),
    ("INFO", "info"),
    ("DEBUG", "debug"),
    ("TRACE", "trace"),
];

/// A level as it was written, known to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// As written; a word alone in capitals.
    pub shown: String,
    /// As the filter has it.
    pub filter: String,
    /// Whether it is a word alone.
    pub is_word: bool,
}

/// Reads `DEBUG`, `warning`, `info,access=debug`.
///
/// # Errors
/// What is wrong, with what may have been meant.
pub fn read(text: &str) -> Result<Level, String> {
    let text = text.trim();
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("the filter expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let parts: Vec<&str> = parts(text);
    let filters: Result<Vec<String>, String> = parts.iter().map(|part| directive(part.trim())).collect();
    let is_word = parts.len() == 1 && !text.contains('=');
    let shown = if is_word { text.to_ascii_uppercase() } else { text.to_owned() };
    let filter = filters?.join(",");
    Ok(Level { shown: if shown == "WARN" { "WARNING".to_owned() } else { shown }, filter, is_word })
}

/// The directives: commas within braces and brackets part nothing.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn directive(part: &str) -> Result<String, String> {
    match part.rsplit_once('=') {
        None if part.is_empty() => Err("a level is missing".to_owned()),
        None => word(part).map(str::to_owned),
        Some((target, level)) if !target.trim().is_empty() => {
            Ok(format!("{}={}", target.trim(), word(level.trim())?))
        }
        Some(_) => Err(format!("'{part}' names no target before '='")),
    }
}

fn word(text: &str) -> Result<&'static str, String> {
    let upper = text.to_ascii_uppercase();
    if let Some((_, filter)) = LEVELS.iter().find(|(name, _)| *name == upper) {
        return Ok(filter);
    }
    if text.contains("::") {
        return Err(format!("'{text}' names no level; write {text}=debug"));
    }
    let near = closest(text, LEVELS.iter().map(|(name, _)| *name));
    let meant = near.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    Err(format!("'{text}' is no level{meant}"))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn words_and_expressions_are_read() {
        for (text, shown, filter, is_word) in [
            ("INFO", "INFO", "info", true),
            (" warn ", "WARNING", "warn", true),
            ("Warning", "WARNING", "warn", true),
            ("off", "OFF", "off", true),
            ("info,access=DEBUG", "info,access=DEBUG", "info,access=debug", false),
            (
                "mcp_orchestrator::alb=warning",
                "mcp_orchestrator::alb=warning",
                "mcp_orchestrator::alb=warn",
                false,
            ),
            (
                "a[span{x=1,y=2}]=trace,error",
                "a[span{x=1,y=2}]=trace,error",
                "a[span{x=1,y=2}]=trace,error",
                false,
            ),
        ] {
            let level = read(text).unwrap();
            assert_eq!(
                (level.shown.as_str(), level.filter.as_str(), level.is_word),
                (shown, filter, is_word)
            );
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_what_was_meant() {
        for (text, why) in [
            ("DEBG", "'DEBG' is no level; did you mean DEBUG?"),
            ("", "a level is missing"),
            ("info,", "a level is missing"),
            ("access=loud", "'loud' is no level"),
            ("=debug", "'=debug' names no target before '='"),
            (
                "mcp_orchestrator::alb",
                "'mcp_orchestrator::alb' names no level; write mcp_orchestrator::alb=debug",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), why);
        }
        assert!(read(&"x".repeat(2000)).unwrap_err().contains("longer than"));
    }
}
