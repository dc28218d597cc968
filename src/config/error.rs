//! What can be wrong with the two files: one value per problem, with its place and a hint.
//!
//! Why it is so: people mend a file in one go when they see everything at once, so nothing here
//! stops at the first problem; readers collect and go on. The same value is printed for people,
//! as JSON, on the page and in the journal.
//!
//! Invariant: a message never holds a secret or the value of a variable
//! (`tests/it/config.rs`, `planted_secrets_stay_hidden`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::codes;
use crate::config::text::LineIndex;

/// Problems reported of one file. While reading all are kept, because what is broken is judged by
/// them; their number is bounded by the file's length.
pub const PROBLEMS_MAX: usize = 1_000;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The thing concerned cannot be used.
    Error,
    /// It is used, but perhaps not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Where something stands. Line 0 means the whole of `file`, which may also be the name of an
/// environment variable or a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Path as handed in, `environment variable NAME` or `flag --NAME`.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Place {
    /// The whole of `file`.
    #[must_use]
    pub fn whole(file: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One problem of the configuration or the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// `MCPO-C0xx`, see [`crate::config::codes`].
    pub code: &'static str,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// The server concerned, as the file names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What is wrong, lower case, no final stop.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// An error at `place`.
    #[must_use]
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, place, server: None, message: message.into(), hint: None }
    }

    /// A warning at `place`.
    #[must_use]
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the thing concerned cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: error[CODE]: server 'x': message`, then `  hint: …` on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, code, place, server, message, hint } = self;
        write!(f, "{place}: {severity}[{code}]: ")?;
        if let Some(server) = server {
            write!(f, "server '{server}': ")?;
        }
        f.write_str(message)?;
        match hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Orders problems as a reader goes through the files, errors before warnings at one place.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| {
        (&a.place, a.severity, a.code, &a.message).cmp(&(&b.place, b.severity, b.code, &b.message))
    });
}

/// Gives every error without a hint of its own the remedy of its code.
pub(crate) fn complete(problems: &mut [Problem]) {
    for problem in problems.iter_mut().filter(|problem| problem.is_error() && problem.hint.is_none()) {
        problem.hint = codes::remedy(problem.code);
    }
}

/// All problems for people, one after the other, and a line that counts them; empty for none.
#[must_use]
pub fn render(problems: &[Problem]) -> String {
    use fmt::Write as _;
    let mut out = String::new();
    for problem in problems {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{problem}");
    }
    if !problems.is_empty() {
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        let warnings = problems.len().saturating_sub(errors);
        let _ = writeln!(out, "{}, {}", counted(errors, "error"), counted(warnings, "warning"));
    }
    out
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// All problems as a JSON array of `{severity, code, file, line, column, server, message, hint}`.
#[must_use]
pub fn to_json(problems: &[Problem]) -> serde_json::Value {
    serde_json::to_value(problems).unwrap_or(serde_json::Value::Null)
}

/// Collects the problems of one text.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    /// The file's name as handed in.
    pub(crate) file: &'a str,
    lines: LineIndex<'a>,
    problems: Vec<Problem>,
}

impl<'a> Sink<'a> {
    /// A sink for `text` of `file`.
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, lines: LineIndex::new(text), problems: Vec::new() }
    }

    /// The place of the byte offset `at`.
    pub(crate) fn place(&self, at: usize) -> Place {
        let (line, column) = self.lines.line_column(at);
        Place { file: self.file.to_owned(), line, column }
    }

    /// Keeps `problem`.
    pub(crate) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// An error at `at`.
    pub(crate) fn error(&mut self, code: &'static str, at: usize, message: impl Into<String>) {
        let place = self.place(at);
        self.push(Problem::error(code, place, message));
    }

    /// A warning at `at`.
    pub(crate) fn warning(&mut self, code: &'static str, at: usize, message: impl Into<String>) {
        let place = self.place(at);
        self.push(Problem::warning(code, place, message));
    }

    /// Gives the problem pushed last a hint.
    pub(crate) fn hint(&mut self, hint: impl Into<String>) {
        if let Some(problem) = self.problems.last_mut() {
            problem.hint = Some(hint.into());
        }
    }

    /// How many problems there are so far: a mark for [`Sink::since`].
    pub(crate) fn mark(&self) -> usize {
        self.problems.len()
    }

    /// The problems pushed since `mark`.
    pub(crate) fn since(&mut self, mark: usize) -> &mut [Problem] {
        self.problems.get_mut(mark..).unwrap_or_default()
    }

    /// The problems between two marks.
    pub(crate) fn between(&mut self, marks: (usize, usize)) -> &mut [Problem] {
        self.problems.get_mut(marks.0..marks.1).unwrap_or_default()
    }

    /// All problems, sorted, at most [`PROBLEMS_MAX`].
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        sort(&mut self.problems);
        self.problems.truncate(PROBLEMS_MAX);
        complete(&mut self.problems);
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Problem, render, sort};

    #[test]
    fn problems_read_like_a_compiler_s() {
        let at = |line| Place { file: "a.json".into(), line, column: 3 };
        let mut problems = vec![
            Problem::warning("MCPO-C026", at(9), "key 'comand' is not known").hint("did you mean"),
            Problem::error("MCPO-C004", at(2), "key 'a' is there twice"),
        ];
        sort(&mut problems);
        assert_eq!(
            render(&problems),
            "a.json:2:3: error[MCPO-C004]: key 'a' is there twice\n\
             a.json:9:3: warning[MCPO-C026]: key 'comand' is not known\n  hint: did you mean\n\
             1 error, 1 warning\n"
        );
    }
}
