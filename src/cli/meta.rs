//! Commands for packagers, editors and tests.

use crate::cli::args::{Cli, Runner};
use crate::cli::{complete, demo_server};
use crate::daemon::{self, Options};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use clap::CommandFactory;
use std::path::Path;

/// `completions SHELL`.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    output::data(&complete::script(shell)?);
    Ok(Exit::Done)
}

/// `man DIR`.
pub(super) fn man(dir: &Path) -> Result<Exit, Failure> {
    let failure = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("writing man pages to {}", dir.display())).cause(error.to_string())
    };
    std::fs::create_dir_all(dir).map_err(failure)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failure)?;
    Ok(Exit::Done)
}

/// `schema`.
pub(super) fn schema() -> Exit {
    output::line(&format!("{:#}", crate::config::schema::schema()));
    Exit::Done
}

/// `demo-server`.
pub(super) fn demo_server(http: Option<u16>) -> Result<Exit, Failure> {
    match http {
        Some(port) => super::block_on(async {
            demo_server::http::serve(std::net::SocketAddr::from(([0, 0, 0, 0], port)), crate::daemon::now)
                .await;
            Ok(Exit::Done)
        }),
        None => demo_server::serve(std::io::stdin().lock(), std::io::stdout(), crate::daemon::now)
            .map(|()| Exit::Done)
            .map_err(|error| Failure::new(Exit::Failed, "serving the demo").cause(error.to_string())),
    }
}

/// `runner`.
pub(super) fn runner(options: &Options, asked: Runner) -> Result<Exit, Failure> {
    let Runner { socket, allow_user, delegated, processes_max, one, cgroup } = asked;
    if one {
        daemon::runner::keep(options, cgroup)?;
    } else {
        let serve = daemon::runner::Serve {
            socket,
            allow: allow_user,
            delegated,
            processes_max: processes_max.into(),
        };
        daemon::runner::serve(options, &serve)?;
    }
    Ok(Exit::Done)
}

/// `simulate --seed N`.
pub(super) fn simulate(seed: u64) -> Result<Exit, Failure> {
    let run = crate::simulate::run(seed, true).map_err(|error| {
        Failure::new(Exit::Failed, format!("making world {seed}")).cause(error.to_string())
    })?;
    output::data(&run.transcript);
    Ok(if run.faults.is_empty() { Exit::Done } else { Exit::Failed })
}
