//! What a change of mcp.config.json would look like, without secrets.

use crate::config::redact;
use similar::TextDiff;

/// Lines around a change.
const AROUND: usize = 3;

/// The difference of two texts of `file` as `diff -u` shows it; empty when nothing that may be shown
/// differs.
#[must_use]
pub fn unified(file: &str, before: &str, after: &str) -> String {
    let (before, after) = (redact::text(before), redact::text(after));
    let diff = TextDiff::from_lines(&before, &after);
    diff.unified_diff().context_radius(AROUND).header(file, &format!("{file} (new)")).to_string()
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn a_difference_shows_lines_and_no_secret() {
        let before = "{\n  \"mcpServers\": {\n    \"a\": {\"command\": \"x\", \"env\": {\"T\": \"old-s3cret\"}}\n  }\n}\n";
        let after = before
            .replace("}}\n", "}},\n    \"b\": {\"command\": \"y\", \"env\": {\"T\": \"new-s3cret\"}}\n");
        let shown = unified("mcp.config.json", before, &after);
        assert!(
            shown.contains("+    \"b\": {\"command\": \"y\", \"env\": {\"T\": \"[redacted]\"}}\n"),
            "{shown}"
        );
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(unified("x", "{}", "{}"), "");
    }
}
