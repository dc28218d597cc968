//! Names of tools where HTTP has them: paths, operation ids, summaries, names of schemas.
//!
//! They are those that mcpo gives, so that its clients find what they know. Names that a path cannot
//! have get one made from their digest.
//!
//! Must never give two things of one document the same name.

use crate::model::fingerprint::sha256_hex;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Bytes of a tool's name in a path.
const PATH_BYTES_MAX: usize = 256;
/// Digits of a digest in a name.
const DIGEST_DIGITS: usize = 8;

/// The path of a tool below its server's, decoded: its name where that can stand in a path.
#[must_use]
pub fn path(tool: &str) -> Cow<'_, str> {
    let usable = !tool.is_empty()
        && tool.len() <= PATH_BYTES_MAX
        && !tool.chars().any(|c| c.is_control() || c == '\\')
        && tool.split('/').all(|step| !matches!(step, "" | "." | ".."));
    if usable { Cow::Borrowed(tool) } else { Cow::Owned(format!("tool-{}", digest(tool))) }
}

/// A decoded path as it stands in a URL and in a document's `paths`.
#[must_use]
pub fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
            out.extend([digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

/// The summary of a tool: every word of its name capitalised.
#[must_use]
pub fn summary(tool: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(tool.len());
    for c in tool.chars().map(|c| if c == '_' { ' ' } else { c }) {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// Operation ids of one document.
#[derive(Debug, Default)]
pub struct OperationIds(BTreeSet<String>);

impl OperationIds {
    /// The id of the operation at a decoded path, such as `/get_time` or `/clock/get_time`.
    ///
    /// Paths that differ in other characters than letters and digits only would get the same: all but
    /// the first have a digest of their path.
    pub fn of(&mut self, path: &str) -> String {
        let word = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
        let plain: String = format!("tool{path}").chars().map(word).collect();
        let id = format!("{plain}_post");
        if self.0.insert(id.clone()) {
            return id;
        }
        let id = format!("{plain}_{}_post", digest(path));
        self.0.insert(id.clone());
        id
    }
}

/// What the names of a tool's schemas begin with, in any document.
#[must_use]
pub fn component(server: &str, tool: &str, which: &str) -> String {
    format!("{server}.{}.{which}", word(tool))
}

/// A name as one of a schema: other characters than names may have are replaced, and a digest tells
/// it from its likes.
#[must_use]
pub fn word(name: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= PATH_BYTES_MAX && name.chars().all(good) {
        return name.to_owned();
    }
    let plain: String =
        name.chars().take(PATH_BYTES_MAX / 4).map(|c| if good(c) { c } else { '_' }).collect();
    format!("{plain}.{}", digest(name))
}

fn digest(text: &str) -> String {
    sha256_hex(text, DIGEST_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::{OperationIds, encoded, path, summary, word};

    #[test]
    fn names_are_those_that_clients_know() {
        for (tool, title, id) in [
            ("get_current_time", "Get Current Time", "tool_get_current_time_post"),
            ("convert-time", "Convert-Time", "tool_convert_time_post"),
            ("getURL2pdf", "Geturl2Pdf", "tool_getURL2pdf_post"),
            ("a.b/c", "A.B/C", "tool_a_b_c_post"),
        ] {
            let mut ids = OperationIds::default();
            assert_eq!((summary(tool).as_str(), ids.of(&format!("/{tool}")).as_str()), (title, id));
        }
    }

    #[test]
    fn every_tool_has_a_path_that_can_be_asked_for() {
        for tool in ["echo", "a b", "ä{x}?#%", "a/b"] {
            assert_eq!(path(tool), tool);
        }
        assert_eq!(encoded("ä{x}?/b c%"), "%C3%A4%7Bx%7D%3F/b%20c%25");
        let odd = ["", ".", "..", "a/../b", "a//b", "/a", "a/", "a\\b", "a\nb"];
        let paths: std::collections::BTreeSet<String> =
            odd.iter().map(|tool| path(tool).into_owned()).collect();
        assert_eq!(paths.len(), odd.len());
        assert!(paths.iter().all(|path| path.starts_with("tool-") && encoded(path) == *path));
        assert_eq!(path(&"x".repeat(300)).len(), 13);
    }

    #[test]
    fn no_two_operations_have_the_same_id() {
        let mut ids = OperationIds::default();
        let all: std::collections::BTreeSet<String> =
            ["/a_b/c", "/a/b_c", "/a-b/c", "/a/b.c", "/a/b_c_"].iter().map(|path| ids.of(path)).collect();
        assert_eq!(all.len(), 5, "{all:?}");
        assert_ne!(word("a b"), word("a_b"));
        assert_ne!(word("a b"), word("a-b"));
        assert_eq!(word("a-b_C1"), "a-b_C1");
    }
}
