//! The command line: parse, do, print, exit with the contract's codes.
//!
//! Must never name an adapter: what needs one goes through [`crate::daemon`].

pub mod args;
pub mod client;
pub mod codes;
pub mod complete;
pub mod demo_server;
mod discover;
mod doctor;
mod editing;
pub mod export;
mod health;
mod inside;
pub mod json;
mod log_level;
mod meta;
mod offline;
mod online;
mod password;
mod records;
mod shown;
mod source;
mod usage;

use crate::daemon::handover::Handover;
use crate::daemon::{self, Home, Options, logging};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// Runs the program and tells how it ended.
#[must_use]
pub fn main() -> ExitCode {
    match complete::answer() {
        Ok(true) => return Exit::Done.into(),
        Ok(false) => {}
        Err(error) => {
            let _closed = error.print();
            return Exit::Usage.into();
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, usage errors to stderr with 2.
            let _closed = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::tell(&failure.to_string());
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let options = Options {
        config: cli.config,
        settings: cli.settings,
        log_level: cli.log_level,
        allow_mass_delete: cli.allow_mass_delete,
        no_dashboard: cli.no_dashboard,
    };
    if cli.one_shot {
        if cli.command.is_some() {
            return Err(Failure::new(Exit::Usage, "--one-shot stands alone, without a command")
                .hint("leave the command out to converge once, or --one-shot to run the command"));
        }
        return block_on(offline::one_shot(options));
    }
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run(options),
        Command::Plan { json, exit_code } => block_on(offline::plan(options, json.json, exit_code)),
        Command::Validate { json, elsewhere } => block_on(offline::validate(options, json.json, elsewhere)),
        Command::DemoServer { http } => meta::demo_server(http),
        Command::Runner(runner) => meta::runner(&options, runner),
        Command::Completions { shell } => meta::completions(shell),
        Command::Man { dir } => meta::man(&dir),
        Command::Schema => Ok(meta::schema()),
        Command::HashPassword => password::hash(),
        Command::Simulate { seed } => meta::simulate(seed),
        // What is no level is none without a daemon, too.
        Command::LogLevel { level, duration, json } => {
            let wanted = log_level::Wanted::of(level.as_deref(), duration.as_deref())?;
            block_on(log_level::run(options, wanted, json.json))
        }
        Command::Discover(asked) => block_on(discover::discover(options, asked)),
        Command::Export(export) => block_on(export::run(options, export)),
        Command::Import(asked) => block_on(discover::import(options, asked)),
        Command::Prepare { names, json } => block_on(offline::prepare(options, &names, json.json)),
        Command::Doctor { json } => block_on(doctor::doctor(options, json.json)),
        command => block_on(online::run(options, command)),
    }
}

fn run(options: Options) -> Result<Exit, Failure> {
    // First of all: it changes the environment, which must not be done beside other threads.
    let handover = Handover::begin();
    let home = Home::find(options)?;
    let log = logging::start(&home.settings.logging.level, home.settings.logging.format);
    for warning in &home.warnings {
        tracing::warn!(MCP_ERROR_CODE = warning.code, "{warning}");
    }
    block_on(daemon::run::run(home, (handover, log))).map(|()| Exit::Done)
}

/// A runtime for one command.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "starting the runtime").cause(error.to_string()))?;
    runtime.block_on(work)
}
