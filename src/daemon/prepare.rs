//! Fetches ahead of time what servers need: images, and packages that `npx` and `uvx` would fetch at the
//! first start.
//!
//! A package lands in the cache of the user who fetches it. Where the installed runner starts processes,
//! that is another user, and its cache is left alone. Must never start a server.

use crate::config::settings::ProcessRunner;
use crate::daemon::{Home, files, random_bytes};
use crate::docker::DockerEngine;
use crate::model::fingerprint::HashKey;
use crate::model::id::ServerId;
use crate::model::op::EngineOp;
use crate::model::server::{ContainerDecl, ProcessDecl, PullPolicy, Server, ServerKind};
use crate::runner::{SOCKET, base_environment};
use crate::terminal::failure::{Exit, Failure};
use crate::world::Engine as _;
use futures_util::StreamExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// One package is given this long.
const FETCH_WITHIN: Duration = Duration::from_secs(600);
/// Columns of a program's last words.
const WORDS_MAX: usize = 200;

/// What became of a server's needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It was there already.
    There(String),
    /// It is there now.
    Fetched(String),
    /// There is nothing that could be done, and why.
    Left(String),
    /// It could not be fetched.
    Failed(String),
}

/// Prepares the servers `names`, or all that shall run; `tell` gets lines for people.
///
/// # Errors
/// A configuration that cannot be used, and names that it does not have.
pub async fn prepare(
    home: &Home,
    names: &[String],
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<Vec<(ServerId, Prepared)>, Failure> {
    let read = files::read(home, &HashKey::new(random_bytes()?)).await;
    let Some(desired) = read.loaded.desired else {
        let text = crate::config::error::render(&read.loaded.problems);
        return Err(Failure::new(
            Exit::Usage,
            format!("the configuration cannot be used\n{}", text.trim_end()),
        ));
    };
    let is = |server: &Server, name: &str| server.name == name || server.id.as_str() == name;
    if let Some(name) = names.iter().find(|name| !desired.servers.values().any(|server| is(server, name))) {
        return Err(Failure::new(Exit::Usage, format!("no server is called {name}")));
    }
    let named = |server: &&Server| match names {
        [] => server.enabled,
        _ => names.iter().any(|name| is(server, name)),
    };
    let engine = home.engine();
    let work = desired.servers.values().filter(named).map(|server| {
        let engine = &engine;
        async move { (server.id.clone(), one(home, engine, server, tell).await) }
    });
    Ok(futures_util::stream::iter(work).buffered(home.parallel().max(1)).collect().await)
}

async fn one(
    home: &Home,
    engine: &DockerEngine,
    server: &Server,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Prepared {
    match &server.kind {
        ServerKind::Container(decl) => image(engine, decl, server.pull, tell).await,
        ServerKind::Process(decl) => package(home, decl).await,
        ServerKind::Remote(_) => Prepared::Left("it runs elsewhere".to_owned()),
    }
}

async fn image(
    engine: &DockerEngine,
    decl: &ContainerDecl,
    pull: PullPolicy,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Prepared {
    let reference = &decl.spec.image;
    match (engine.has_image(reference).await, pull) {
        (Err(error), _) => return Prepared::Failed(error.to_string()),
        (Ok(true), PullPolicy::Missing | PullPolicy::Never) => {
            return Prepared::There(format!("image {reference}"));
        }
        (Ok(false), PullPolicy::Never) => {
            return Prepared::Failed(format!("image {reference} is not there and is never pulled"));
        }
        (Ok(_), _) => {}
    }
    let op = EngineOp::Pull { reference: reference.clone(), platform: decl.spec.platform.clone() };
    match engine.apply(&op, &|line| tell(line)).await {
        Ok(()) => Prepared::Fetched(format!("image {reference}")),
        Err(error) => Prepared::Failed(error.to_string()),
    }
}

async fn package(home: &Home, decl: &ProcessDecl) -> Prepared {
    let Some((what, line)) = fetching(&decl.command, &decl.args) else {
        return Prepared::Left(format!("{} fetches nothing", decl.command));
    };
    if has_runner(home) {
        return Prepared::Left(format!("{what} goes to the cache of the runner's user, at the first start"));
    }
    let mut command = tokio::process::Command::new(&decl.command);
    command.args(&line).env_clear().envs(base_environment(&home.env)).envs(&decl.env);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    match tokio::time::timeout(FETCH_WITHIN, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Prepared::Fetched(what),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: String = said
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or_default()
                .chars()
                .take(WORDS_MAX)
                .collect();
            Prepared::Failed(format!("{what}: {} ended with {}: {last}", decl.command, output.status))
        }
        Ok(Err(error)) => Prepared::Failed(format!("{what}: starting {}: {error}", decl.command)),
        Err(_late) => Prepared::Failed(format!("{what}: not done within {} s", FETCH_WITHIN.as_secs())),
    }
}

/// Whether another service, with a user of its own, starts processes.
fn has_runner(home: &Home) -> bool {
    match &home.settings.service.process_runner {
        ProcessRunner::At(_) => true,
        ProcessRunner::None => false,
        ProcessRunner::Auto => home.places.installed && Path::new(SOCKET).exists(),
    }
}

/// What `command` would fetch, and the arguments that fetch it and then do nothing.
fn fetching(command: &str, args: &[String]) -> Option<(String, Vec<String>)> {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    match command.rsplit('/').next()? {
        "npx" => {
            let package = named(args, &["-p", "--package"], &["-c", "--call", "--prefix", "--cache"])?;
            let line = text(&["--yes", "--package", &package, "--", "node", "-e", "0"]);
            Some((format!("package {package}"), line))
        }
        "uvx" => {
            let takes = ["--with", "--python", "-p", "--index-url", "--extra-index-url", "--index"];
            let package = named(args, &["--from"], &takes)?;
            // `name@version` is the short form of a requirement.
            let from = match package.split_once('@') {
                Some((name, "latest")) => name.to_owned(),
                Some((name, version)) if !package.contains("://") => format!("{name}=={version}"),
                _ => package.clone(),
            };
            Some((format!("package {package}"), text(&["--from", &from, "python", "-c", ""])))
        }
        _ => None,
    }
}

/// The value of one of `flags`, else the first word that is no flag and not the value of one that
/// `takes` one.
fn named(args: &[String], flags: &[&str], takes: &[&str]) -> Option<String> {
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if flags.contains(&word) {
            return words.next().map(str::to_owned);
        }
        if let Some((_, value)) = word.split_once('=').filter(|(flag, _)| flags.contains(flag)) {
            return Some(value.to_owned());
        }
        if takes.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::fetching;

    fn line(command: &str, args: &[&str]) -> Option<String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        fetching(command, &args).map(|(_, line)| line.join(" "))
    }

    #[test]
    fn packages_are_fetched_and_not_run() {
        let npx = |args: &[&str]| line("npx", args).unwrap();
        assert_eq!(npx(&["-y", "@a/b@1", "--port", "1"]), "--yes --package @a/b@1 -- node -e 0");
        assert_eq!(npx(&["--package=c", "d"]), "--yes --package c -- node -e 0");
        let uvx = |args: &[&str]| line("/usr/bin/uvx", args).unwrap();
        assert_eq!(uvx(&["mcp-server-time", "--utc"]), "--from mcp-server-time python -c ");
        assert_eq!(uvx(&["--with", "x", "a@1.2"]), "--from a==1.2 python -c ");
        assert_eq!(uvx(&["--from", "git+https://h/x@v1", "y"]), "--from git+https://h/x@v1 python -c ");
        assert_eq!(line("python", &["-m", "x"]), None);
        assert_eq!(line("npx", &["-y"]), None);
    }
}
