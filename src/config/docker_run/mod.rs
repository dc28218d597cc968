//! The `docker run` line of a server entry, read as a declaration; and its way back to a line.
//!
//! Why it is so: users paste the line that works for them into `args`, so it must mean here what
//! it means to the docker command line client of version 28, flag by flag. A flag is applied with
//! the client's own meaning or refused by name with a reason, never skipped. Contents of files and
//! the environment are handed in, so that parsing is a pure function of its arguments.
//!
//! ```text
//! args --scan--> flags and operands --apply--> Draft --finish--> RunLine --print--> args
//!        (getopt rules)        (one entry per flag)   (cross checks)
//! ```
//!
//! Stricter than the client, on purpose and each with a message of its own: what every Linux
//! engine refuses anyway is refused here, so that `validate` finds it without an engine (paths in
//! the container that are not absolute, unknown mount types, propagations, IPC modes and restart
//! policies, Windows paths); unknown keys of `-p name=value`, which the client drops without a
//! word; numbers out of the 64-bit range, which it wraps around.
//!
//! Invariant: `parse(print(parse(x))) == parse(x)` (test `print_is_stable`).
//! Invariant: every flag of `tests/fixtures/docker-run/flags-28.txt` is in the table of flags
//! (test `every_flag_is_known`).
//! Invariant: no message contains the value of a variable or of an opaque option.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::container::{ContainerSpec, PullPolicy, RestartPolicy};

mod devices;
mod draft;
mod files;
mod flags;
mod forms;
mod image;
mod mounts;
mod networks;
mod ports;
mod print;
mod scan;
mod text;
mod values;

pub use self::print::{print, print_redacted};

/// Arguments in one line at most; more is taken for a mistake.
pub const ARGS_MAX: usize = 4_096;

/// Codes of [`RunProblem`]s.
pub mod code {
    /// The line is not a `docker run`.
    pub const NOT_RUN: &str = "run-not-a-run";
    /// A flag of `docker` itself stands before `run`.
    pub const GLOBAL_FLAG: &str = "run-global-flag";
    /// No such flag.
    pub const UNKNOWN_FLAG: &str = "run-unknown-flag";
    /// The flag exists and cannot be used here.
    pub const REFUSED_FLAG: &str = "run-refused-flag";
    /// The flag's value is missing.
    pub const MISSING_VALUE: &str = "run-missing-value";
    /// The flag's value is wrong.
    pub const INVALID_VALUE: &str = "run-invalid-value";
    /// Flags contradict each other.
    pub const CONFLICT: &str = "run-conflict";
    /// No image is named.
    pub const MISSING_IMAGE: &str = "run-missing-image";
    /// The image reference is malformed.
    pub const INVALID_IMAGE: &str = "run-invalid-image";
    /// A file the line names was not handed in.
    pub const MISSING_FILE: &str = "run-missing-file";
    /// A bound is exceeded.
    pub const TOO_MUCH: &str = "run-too-much";
}

/// What a line is read against.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// Environment for `-e NAME` and for bare names in `--env-file`.
    pub env: &'a BTreeMap<String, String>,
    /// Contents of the files of [`files_needed`], by path as written in the line.
    pub files: &'a BTreeMap<String, String>,
    /// Absolute directory that relative host paths start from.
    pub base_dir: &'a str,
    /// The one `--name` that is accepted.
    pub own_name: Option<&'a str>,
}

/// A parsed line: the container, and what concerns running it. (`--platform` is part of the
/// container: it stands in `spec`.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLine {
    /// The container itself.
    pub spec: ContainerSpec,
    /// `-i`: a stdio server; the same as `spec.open_stdin`.
    pub interactive: bool,
    /// `--name`, which then is the own name.
    pub name: Option<String>,
    /// `--rm`.
    pub remove: bool,
    /// `--restart`.
    pub restart: Option<RestartPolicy>,
    /// `--pull`.
    pub pull: Option<PullPolicy>,
}

/// One thing wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunProblem {
    /// Index into the arguments; their count when something is missing at the end.
    pub arg: usize,
    /// One of [`code`].
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Reads what follows the word `docker`.
///
/// # Errors
/// All problems of the line, in the order of the arguments.
pub fn parse(args: &[String], ctx: &RunContext<'_>) -> Result<RunLine, Vec<RunProblem>> {
    let scanned = scan::scan(args);
    let (line, mut problems) = draft::build(&scanned, args.len(), ctx);
    problems.extend(scanned.problems);
    problems.sort_by_key(|problem| problem.arg);
    if problems.is_empty() { Ok(line) } else { Err(problems) }
}

/// The files, as written in the line, whose contents `parse` needs: those of `--env-file`,
/// `--label-file` and `--security-opt seccomp=FILE`. Each once, in the order of the line.
pub fn files_needed(args: &[String]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for occurrence in scan::scan(args).flags {
        let file = match occurrence.flag.name {
            "env-file" | "label-file" => Some(occurrence.value.as_str()),
            "security-opt" => draft::seccomp_file(&occurrence.value),
            _ => None,
        };
        if let Some(file) = file
            && !files.iter().any(|known| known == file)
        {
            files.push(file.to_owned());
        }
    }
    files
}

/// Names of all flags known, with the reason where one is always refused.
pub fn known_flags() -> Vec<(&'static str, Option<&'static str>)> {
    flags::FLAGS.iter().map(|flag| (flag.name, flag.refusal())).collect()
}
