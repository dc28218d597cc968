//! An error at the edge: what we were doing, why it failed, what helps, and the exit code.
//!
//! Must never print a cause twice: each layer says only its own part.

use crate::world::{ErrorKind, WorldError};
use std::fmt;

/// Exit codes of every command: fixed, public, documented in `docs/reference/exit-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to change.
    Done = 0,
    /// At least one server or AWS object did not converge.
    Failed = 1,
    /// Usage, or invalid settings or configuration given to a command.
    Usage = 2,
    /// `plan --exit-code`: there are changes.
    Changes = 3,
    /// The daemon cannot be reached.
    NoDaemon = 4,
    /// The container engine cannot be reached.
    NoEngine = 5,
    /// AWS cannot be reached.
    NoAws = 6,
}

impl Exit {
    /// Every code with its meaning.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Done, "done, or nothing to change"),
        (Self::Failed, "failed: at least one server or AWS object did not converge"),
        (Self::Usage, "usage, or invalid settings or configuration (the unit does not restart on it)"),
        (Self::Changes, "`plan --exit-code` only: there are changes"),
        (Self::NoDaemon, "the daemon cannot be reached"),
        (Self::NoEngine, "Docker cannot be reached"),
        (Self::NoAws, "AWS cannot be reached"),
    ];
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What we were doing, lower case, no final stop.
    pub message: String,
    /// Why it failed.
    pub cause: Option<String>,
    /// What helps.
    pub hint: Option<String>,
    /// A documented code.
    pub code: Option<&'static str>,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure with a message only.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, hint: None, code: None, exit }
    }

    /// With its cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// With what helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From a failure of the world; `unreachable` is the exit code for "nobody answers".
    #[must_use]
    pub fn world(error: WorldError, unreachable: Exit) -> Self {
        let exit = match error.kind {
            ErrorKind::Unreachable | ErrorKind::TimedOut => unreachable,
            _ => Exit::Failed,
        };
        let code = Some(error.kind.code());
        Self { message: error.doing, cause: Some(error.cause), hint: None, code, exit }
    }
}

impl fmt::Display for Failure {
    /// `error[CODE]: message`, then `cause:` and `hint:` lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "error[{code}]: {}", self.message)?,
            None => write!(f, "error: {}", self.message)?,
        }
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
