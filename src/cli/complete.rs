//! Completions: the words of the command line, and the names of servers and sections as they are now.
//!
//! Shells call the program with `COMPLETE=SHELL` and the words so far. Must never print anything but
//! candidates, never take longer than [`WITHIN`], and never read a secret.

use crate::cli::args::Cli;
use crate::cli::client::Client;
use crate::cli::shown::text;
use crate::daemon::{self, Home, Options};
use crate::terminal::failure::{Exit, Failure};
use clap::CommandFactory as _;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// The name that shells know the program by.
const NAME: &str = "mcp-orchestrator";
/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";
/// How long a daemon may take to name its servers.
const WITHIN: Duration = Duration::from_millis(700);
/// zsh loads the script at the first completion: that one must be answered as well.
const ZSH_FIRST: &str =
    "\n[ \"$funcstack[1]\" = \"_mcp-orchestrator\" ] && _clap_dynamic_completer_mcp_orchestrator \"$@\"\n";

/// Answers a shell; false when no shell asked.
///
/// # Errors
/// What the shell asked for that is not there.
pub(super) fn answer() -> Result<bool, clap::Error> {
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .bin(NAME)
        .completer(NAME)
        .try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref())
}

/// The script that makes a shell ask.
pub(super) fn script(shell: clap_complete::Shell) -> Result<String, Failure> {
    let name = shell.to_string();
    let unknown = || Failure::new(Exit::Usage, format!("no completions for {name}"));
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(unknown)?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, NAME, NAME, NAME, &mut script)
        .map_err(|error| unknown().cause(error.to_string()))?;
    let mut script = String::from_utf8_lossy(&script).trim_start().to_owned();
    if name == "zsh" {
        script.push_str(ZSH_FIRST);
    }
    Ok(script)
}

/// The installation that the words on the command line mean.
fn home() -> Option<Home> {
    let words: Vec<String> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let options = Options {
        config: value_of(&words, "--config"),
        settings: value_of(&words, "--settings"),
        ..Options::default()
    };
    Home::find_past_errors(options).ok()
}

/// What the daemon says to a path, if there is one that answers in time.
fn asked(home: &Home, path: &str) -> Result<Value, Failure> {
    crate::cli::block_on(async {
        let client = Client::new(home.places.socket(&home.stack));
        let listed = tokio::time::timeout(WITHIN, client.get(path)).await;
        listed.unwrap_or_else(|_late| Err(Failure::new(Exit::NoDaemon, "too late")))
    })
}

/// Ids of sections: the daemon's, else those that the file declares.
pub(super) fn sections() -> Vec<CompletionCandidate> {
    let Some(home) = home() else { return Vec::new() };
    let ids = match asked(&home, "/api/v1/sections") {
        Ok(sections) => {
            sections.as_array().into_iter().flatten().map(|section| text(section, "id")).collect()
        }
        Err(_alone) => daemon::look::sections(&home),
    };
    ids.into_iter().map(CompletionCandidate::new).collect()
}

/// Names of servers with their states: the daemon's, else the file's.
pub(super) fn servers() -> Vec<CompletionCandidate> {
    let Some(home) = home() else { return Vec::new() };
    let Ok(status) = asked(&home, "/api/v1/status?wait=0") else {
        return daemon::look::names(&home).into_iter().map(CompletionCandidate::new).collect();
    };
    let rows = status.pointer("/snapshot/report/servers").and_then(Value::as_object);
    let candidate = |(id, row): (&String, &Value)| {
        CompletionCandidate::new(id.clone()).help(Some(text(row, "state").into()))
    };
    rows.into_iter().flatten().map(candidate).collect()
}

/// The value of a flag that stands before the command.
fn value_of(words: &[String], flag: &str) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == flag {
            return words.next().map(PathBuf::from);
        }
        if let Some(value) = word.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            return Some(PathBuf::from(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{script, value_of};
    use clap_complete::Shell;

    #[test]
    fn scripts_call_the_program_for_candidates() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell).expect("a script");
            assert!(script.contains("COMPLETE") && script.contains("mcp-orchestrator"), "{script}");
        }
        let zsh = script(Shell::Zsh).expect("a script");
        assert!(zsh.starts_with("#compdef mcp-orchestrator"), "{zsh}");
        let function = zsh.lines().find_map(|line| line.strip_prefix("function ")?.split('(').next());
        let function = function.expect("a function").to_owned();
        assert!(zsh.trim_end().ends_with(&format!("{function} \"$@\"")), "{zsh}");
    }

    #[test]
    fn flags_before_the_command_say_which_files() {
        let words = ["x", "--", "mcp-orchestrator", "--settings=/s", "--config", "/c", "why", ""];
        let words = words.map(str::to_owned);
        assert_eq!(value_of(&words, "--config"), Some("/c".into()));
        assert_eq!(value_of(&words, "--settings"), Some("/s".into()));
        assert_eq!(value_of(&words, "--stack"), None);
    }
}
