//! A page of figures in the text format of Prometheus, version 0.0.4.
//!
//! Families are declared in tables, from which `docs/reference/metrics.md` is written: a name that
//! is on the page is in the reference. Must never hold a sample whose family was not begun.

use crate::model::id::ServerId;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The label with the number of a server's instance; it is left out where there is only one.
pub const REPLICA: &str = "replica";
/// Which servers have several instances: their figures say of which they are.
#[derive(Debug)]
pub struct Several(BTreeSet<ServerId>);

impl Several {
    /// Those with a further instance among these.
    pub fn among<'a>(ids: impl Iterator<Item = &'a ServerId>) -> Self {
        Self(ids.filter(|id| id.replica_number() > 1).map(ServerId::server).collect())
    }

    /// The values of `server` and [`REPLICA`] for an instance; the second is empty where there is no other.
    #[must_use]
    pub fn labels(&self, id: &ServerId) -> [String; 2] {
        let server = id.server();
        let replica = if self.0.contains(&server) { id.replica_number().to_string() } else { String::new() };
        [server.to_string(), replica]
    }
}

/// What all names begin with.
pub const PREFIX: &str = "mcp_orchestrator_";
/// Type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, with their sum.
    Histogram,
}

impl Kind {
    /// The word of the format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One name with its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without [`PREFIX`]; ends with its unit, and with `_total` where it only grows.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Meaning, in one sentence.
    pub about: &'static str,
}

impl Family {
    /// A family.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self { name, kind, labels, about }
    }

    /// The unit of its numbers, as its name says.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let name = self.name.trim_end_matches("_total");
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
    }
}

/// A page being written.
#[derive(Clone, Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family: its samples follow.
    pub fn family(&mut self, family: &Family) {
        let Family { name, kind, labels: _, about } = family;
        let _infallible = write!(
            self.0,
            "# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} {kind}\n",
            kind = kind.as_str()
        );
    }

    /// One number of the family begun last; values in the order of its labels.
    pub fn sample(&mut self, family: &Family, values: &[&str], number: impl std::fmt::Display) {
        self.line(family, ("", None), values, number);
    }

    /// A family with one number.
    pub fn single(&mut self, family: &Family, number: impl std::fmt::Display) {
        self.family(family);
        self.sample(family, &[], number);
    }

    /// A histogram of the family begun last: counts by class, where classes end in microseconds (the
    /// last has no end), and the sum in microseconds.
    pub fn histogram(
        &mut self,
        family: &Family,
        values: &[&str],
        ends: &[u64],
        (counts, sum): (&[u64], u64),
    ) {
        let mut below = 0_u64;
        for (class, count) in counts.iter().enumerate() {
            below = below.saturating_add(*count);
            let end = ends.get(class).map_or_else(|| "+Inf".to_owned(), |end| seconds(*end));
            self.line(family, ("_bucket", Some(&end)), values, below);
        }
        self.line(family, ("_sum", None), values, seconds(sum));
        // What is counted while this is read must not make the classes larger than the count.
        self.line(family, ("_count", None), values, below);
    }

    fn line(
        &mut self,
        family: &Family,
        (ending, end): (&str, Option<&str>),
        values: &[&str],
        number: impl std::fmt::Display,
    ) {
        let named = family.labels.iter().copied().zip(values.iter().copied());
        let labels: Vec<String> = named
            .filter(|(name, value)| *name != REPLICA || !value.is_empty())
            .chain(end.map(|end| ("le", end)))
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.0, "{PREFIX}{}{ending}{labels} {number}", family.name);
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Microseconds as seconds, without the noise of a binary fraction.
#[must_use]
pub fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind, Page, seconds};

    #[test]
    fn samples_stand_under_their_head_with_escaped_labels() {
        const ODD: Family = Family::new("odd_total", Kind::Counter, &["a", "b"], "Odd things.");
        let mut page = Page::default();
        page.family(&ODD);
        page.sample(&ODD, &["x\"\n\\", "y"], 3);
        let expected = "# HELP mcp_orchestrator_odd_total Odd things.\n# TYPE mcp_orchestrator_odd_total counter\nmcp_orchestrator_odd_total{a=\"x\\\"\\n\\\\\",b=\"y\"} 3\n";
        assert_eq!(page.into_text(), expected);
        assert_eq!((seconds(100), seconds(2_000_000), seconds(0)), ("0.0001".into(), "2".into(), "0".into()));
    }
}
