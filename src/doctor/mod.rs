//! What is wrong with an installation, as checks: what was looked at, what was seen, what helps.
//!
//! Whoever collects the facts hands them to the judges here ([`judge`], [`balancer`]), which know no
//! clock, file or network, so that every verdict can be tested. What could not be found out is
//! [`Verdict::Unknown`] and never `ok`.
//!
//! Must never hold a secret: evidence names things, not their values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod balancer;
pub mod judge;
pub mod systemd;

use serde::Serialize;
use std::fmt::Write as _;

/// Columns of verdict and topic.
const VERDICT_COLUMNS: usize = 9;
const TOPIC_COLUMNS: usize = 13;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It works, but something will bite.
    Warn,
    /// Something does not work.
    Fail,
}

impl Verdict {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: one of a fixed list of words.
    pub topic: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// A check that ended well.
    #[must_use]
    pub fn ok(topic: &'static str, evidence: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Ok, evidence: evidence.into(), remedy: None }
    }

    /// Something that will bite.
    #[must_use]
    pub fn warn(topic: &'static str, evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..Self::ok(topic, evidence) }
    }

    /// Something that does not work.
    #[must_use]
    pub fn fail(topic: &'static str, evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(topic, evidence, remedy) }
    }

    /// Something that could not be found out.
    #[must_use]
    pub fn unknown(topic: &'static str, evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, ..Self::ok(topic, evidence) }
    }
}

/// All checks, in the order of their topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The worst verdict.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// `12 ok, 1 warn, 0 fail, 2 unknown`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        format!(
            "{} ok, {} warn, {} fail, {} unknown",
            count(Verdict::Ok),
            count(Verdict::Warn),
            count(Verdict::Fail),
            count(Verdict::Unknown)
        )
    }

    /// For people: verdict, topic and evidence in columns, remedies below, nothing wider than `width`.
    /// `paint` gives the verdict its colour.
    #[must_use]
    pub fn text(&self, width: usize, paint: &dyn Fn(Verdict, &str) -> String) -> String {
        let indent = VERDICT_COLUMNS + TOPIC_COLUMNS;
        let room = width.saturating_sub(indent).max(20);
        let mut out = String::new();
        for Check { topic, verdict, evidence, remedy } in &self.checks {
            let word = verdict.as_str();
            let pad = " ".repeat(VERDICT_COLUMNS.saturating_sub(word.len()));
            let head = format!("{}{pad}{topic:<TOPIC_COLUMNS$}", paint(*verdict, word));
            let remedy = remedy.iter().flat_map(|remedy| folded(&format!("-> {remedy}"), room));
            for (number, line) in folded(evidence, room).into_iter().chain(remedy).enumerate() {
                let start = if number == 0 { head.clone() } else { " ".repeat(indent) };
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{start}{line}");
            }
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schemaVersion": 1, "verdict": self.worst(), "sentence": self.sentence(), "checks": self.checks,
        })
    }
}

/// Where a word that is too long is cut: behind a mark in the second half of the line, else where it
/// ends.
fn cut(word: &[char], room: usize) -> usize {
    let line = word.get(..room).unwrap_or(word);
    let mark = line.iter().rposition(|c| matches!(c, ':' | '/' | ','));
    mark.map_or(room, |at| at + 1).max(room / 2).min(room)
}

/// `text` in lines of at most `room` columns; a longer word is cut through.
fn folded(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().filter(|c| !c.is_control()).collect();
        let used = line.chars().count();
        if used > 0 && used + 1 + word.len() > room {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > room {
            let rest = word.split_off(cut(&word, room));
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Check, Diagnosis, Verdict, folded};

    #[test]
    fn a_diagnosis_fits_and_says_the_worst() {
        let checks = vec![
            Check::ok("engine", "Docker 28.1.1"),
            Check::unknown("clock", "nobody to ask"),
            Check::fail(
                "ports",
                "the port range 8000-9000 of this host is completely used up by others and more text follows",
                "widen [service] port_range_end in settings.conf or end what listens there now",
            ),
        ];
        let found = Diagnosis { checks };
        let text = found.text(80, &|_, word| word.to_owned());
        let expected = "\
ok       engine       Docker 28.1.1
unknown  clock        nobody to ask
fail     ports        the port range 8000-9000 of this host is completely used
                      up by others and more text follows
                      -> widen [service] port_range_end in settings.conf or end
                      what listens there now
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert_eq!(
            (found.worst(), found.sentence().as_str()),
            (Verdict::Fail, "1 ok, 0 warn, 1 fail, 1 unknown")
        );
        assert_eq!(found.json()["verdict"], "fail");
    }

    #[test]
    fn long_words_are_cut_and_foreign_ones_paint_nothing() {
        assert_eq!(folded("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(folded("/usr/bin:/opt/x", 10), ["/usr/bin:/", "opt/x"]);
        assert_eq!(folded("a:bcdefghij", 8), ["a:bc", "defghij"], "no line is nearly empty");
        assert_eq!(folded("a\u{1b}[2Jb", 9), ["a[2Jb"]);
        assert_eq!(folded("", 9), [""]);
    }
}
