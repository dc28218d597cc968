//! `hash-password`: the Argon2id hash of a password, for `[dashboard] password_hash`.
//!
//! Must never take the password from the command line, where everybody sees it, nor show it.

use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead as _, IsTerminal as _, Read as _};

/// Longest password, in bytes.
const BYTES_MAX: u64 = 1024;
/// Shorter ones are guessed.
const CHARS_MIN: usize = 8;

/// Reads a password, twice from a terminal and once from anything else, and prints its hash.
pub(super) fn hash() -> Result<Exit, Failure> {
    let password = if std::io::stdin().is_terminal() { asked()? } else { line()? };
    if password.chars().count() < CHARS_MIN {
        let failure =
            Failure::new(Exit::Usage, format!("the password is shorter than {CHARS_MIN} characters"));
        return Err(failure.hint("a long sentence is easier to keep in mind than a short riddle"));
    }
    output::line(&crate::daemon::dashboard::hash_password(&password)?);
    Ok(Exit::Done)
}

fn asked() -> Result<String, Failure> {
    let _hidden = Hidden::new();
    output::prompt("Password: ");
    let first = line()?;
    output::prompt("\nAgain: ");
    let again = line()?;
    output::prompt("\n");
    if first == again { Ok(first) } else { Err(Failure::new(Exit::Usage, "the two differ")) }
}

fn line() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(BYTES_MAX).read_line(&mut text).map_err(|error| {
        Failure::new(Exit::Usage, "reading the password from standard input").cause(error.to_string())
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn new() -> Self {
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let _shown = tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet);
        Self(Some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _stays = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}
