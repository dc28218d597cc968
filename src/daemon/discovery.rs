//! Looks for MCP servers: walks directories and clients' files, asks the engine, and has the pure part
//! judge what is found.
//!
//! Only names are walked; a file is opened when its name says that it may hold a server, and only so
//! much of it is read. Must never run what it finds, write anything, or read as another user than the
//! one who asks: the daemon sees what its own user sees.

use crate::daemon::Home;
use crate::discovery::engine::{self, Stray};
use crate::discovery::places::{self, Platform};
use crate::discovery::{Find, Looked, arrange, candidate, look, look_any, proof};
use crate::docker::DockerEngine;
use crate::host::walk::{self, Bounds};
use crate::model::foreign::Foreign;
use crate::terminal::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes of one file that are read: histories make some clients' settings long.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of all files together.
const ALL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Finds of one search.
const FINDS_MAX: usize = 2_000;
/// Files with something wrong that are named.
const NAMED_MAX: usize = 5;
/// The engine is given this long altogether.
const ENGINE_WITHIN: Duration = Duration::from_secs(20);

/// What is searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Directories, and single files.
    pub roots: Vec<PathBuf>,
    /// The settings of clients in the user's home.
    pub clients: bool,
    /// Images and containers.
    pub engine: bool,
}

impl Search {
    /// What is searched when nobody names anything: clients' settings, the engine, the directories of
    /// `[discovery]`, and the current directory unless it is the root or the user's home.
    #[must_use]
    pub fn usual(home: &Home, cwd: &Path) -> Self {
        let mut roots: Vec<PathBuf> = home.settings.discovery.paths.iter().map(PathBuf::from).collect();
        let own = home.env.get("HOME").is_some_and(|home| Path::new(home) == cwd);
        if roots.is_empty() && !own && cwd != Path::new("/") {
            roots.push(cwd.to_owned());
        }
        Self { roots, clients: true, engine: true }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The finds, the surest first.
    pub finds: Vec<Find>,
    /// Containers of other tools.
    pub strays: Vec<Stray>,
    /// What its reader should know, a line each.
    pub notes: Vec<String>,
    /// Entries of directories looked at.
    pub entries: usize,
    /// Files read.
    pub files: usize,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl Found {
    /// For programs and pages: without secrets.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self { finds, strays, notes, entries, files, millis } = self;
        let finds: Vec<Value> = finds.iter().map(Find::shown).collect();
        json!({
            "schemaVersion": 1, "finds": finds, "strays": strays, "notes": notes,
            "searched": { "entries": entries, "files": files, "millis": millis },
        })
    }
}

/// Searches.
pub async fn search(home: &Home, wanted: Search) -> Found {
    let began = Instant::now();
    let asked = wanted.engine.then(|| home.engine());
    let env = home.env.clone();
    let own = home.places.config.clone();
    // A thread of its own: the end of the program does not wait for it, as it would for the runtime's.
    let (tell, disk) = oneshot::channel();
    let walking = std::thread::Builder::new().name("discovery".to_owned()).spawn(move || {
        let _nobody_waits = tell.send(on_disk(&wanted, &env, &own));
    });
    let (disk, on_engine) = tokio::join!(disk, async {
        match &asked {
            Some(engine) => Some(tokio::time::timeout(ENGINE_WITHIN, on_engine(engine)).await),
            None => None,
        }
    });
    let mut found = disk.unwrap_or_else(|_gone| {
        let why = walking.err().map_or_else(|| "it ended early".to_owned(), |error| error.to_string());
        Found { notes: vec![format!("the search of directories failed: {why}")], ..Found::default() }
    });
    match on_engine {
        Some(Ok(Ok((mut finds, strays)))) => {
            found.finds.append(&mut finds);
            found.strays = strays;
        }
        Some(Ok(Err(why))) => found.notes.push(format!("images and containers: {why}")),
        Some(Err(_late)) => found.notes.push("images and containers: the engine takes too long".to_owned()),
        None => {}
    }
    arrange(&mut found.finds);
    found.millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    found
}

async fn on_engine(engine: &DockerEngine) -> Result<(Vec<Find>, Vec<Stray>), String> {
    let foreign: Foreign = engine.foreign(&engine::concerns).await.map_err(|error| error.to_string())?;
    let clients = tokio::task::spawn_blocking(walk::docker_clients).await;
    let clients = clients.ok().and_then(Result::ok);
    Ok((engine::finds(&foreign), engine::strays(&foreign, clients.as_deref())))
}

/// What a search of the disk keeps count of.
#[derive(Default)]
struct Reading {
    files: usize,
    bytes: usize,
    unreadable: Vec<String>,
    broken: Vec<String>,
}

fn on_disk(wanted: &Search, env: &std::collections::BTreeMap<String, String>, own: &Path) -> Found {
    let is_candidate = |path: &str| candidate(path).is_some();
    let walked = walk::walk(&directories(&wanted.roots), Bounds::default(), &is_candidate);
    let mut paths: BTreeSet<String> = walked.found.clone();
    if wanted.clients {
        let platform = if cfg!(target_os = "macos") { Platform::Mac } else { Platform::Linux };
        paths.extend(places::files(env, platform).into_iter().filter(|path| Path::new(path).is_file()));
    }
    let named = wanted.roots.iter().filter(|root| root.is_file()).filter_map(|root| root.canonicalize().ok());
    paths.extend(named.filter_map(|path| path.to_str().map(str::to_owned)));
    paths.retain(|path| Path::new(path) != own);
    let mut reading = Reading::default();
    let mut finds = Vec::new();
    for path in &paths {
        finds.extend(one(path, &mut reading).finds);
        if finds.len() >= FINDS_MAX || reading.bytes >= ALL_BYTES_MAX {
            break;
        }
    }
    finds.truncate(FINDS_MAX);
    for find in &mut finds {
        judge(find, &mut reading);
    }
    let mut notes = walked.notes();
    notes.extend(few("not readable", &reading.unreadable));
    notes.extend(few("cannot be understood", &reading.broken));
    if reading.bytes >= ALL_BYTES_MAX || finds.len() >= FINDS_MAX {
        notes.push("not everything was looked at: there is too much of it; name a directory".to_owned());
    }
    Found { finds, notes, entries: walked.entries, files: reading.files, ..Found::default() }
}

fn directories(roots: &[PathBuf]) -> Vec<PathBuf> {
    roots.iter().filter(|root| !root.is_file()).cloned().collect()
}

fn few(what: &str, named: &[String]) -> Option<String> {
    let shown = named.get(..named.len().min(NAMED_MAX))?.join("; ");
    let more = named.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("{what}: {shown}{more}"))
}

fn one(path: &str, reading: &mut Reading) -> Looked {
    let content = match walk::read(Path::new(path), FILE_BYTES_MAX) {
        Ok(content) if content.cut => {
            reading.unreadable.push(format!("{path} (longer than {FILE_BYTES_MAX} bytes)"));
            return Looked::default();
        }
        Ok(content) => content,
        Err(error) => {
            reading.unreadable.push(format!("{path} ({error})"));
            return Looked::default();
        }
    };
    reading.files += 1;
    reading.bytes += content.bytes.len();
    let looked = match candidate(path) {
        Some(_) => look(path, &content.bytes, content.executable),
        // Somebody named it, or a variable led to it.
        None => look_any(path, &content.bytes),
    };
    reading.broken.extend(looked.problem.clone());
    looked
}

/// Reads what would prove a find, and what it needs to run.
fn judge(find: &mut Find, reading: &mut Reading) {
    let mut read = |path: &str| {
        let content = walk::read(Path::new(path), proof::SOURCE_BYTES_MAX).ok()?;
        reading.files += 1;
        Some(String::from_utf8_lossy(&content.bytes).into_owned())
    };
    proof::prove(find, &mut read);
    if let Some((path, entry)) = find.better.take()
        && Path::new(&path).exists()
    {
        find.entry = entry;
    }
    if let Some(program) = find.runs.take()
        && !Path::new(&program).exists()
    {
        find.confidence = find.confidence.min(crate::discovery::Confidence::Medium);
        find.notes.push(format!("{program} is not there: build the project first"));
    }
}

/// Reads one file of somebody else's format, for `import`.
///
/// # Errors
/// When it cannot be read, or holds no servers.
pub fn import(path: &Path) -> Result<Found, Failure> {
    let doing = || format!("importing {}", path.display());
    let real =
        path.canonicalize().map_err(|error| Failure::new(Exit::Usage, doing()).cause(error.to_string()))?;
    let content = walk::read(&real, FILE_BYTES_MAX)
        .map_err(|error| Failure::new(Exit::Usage, doing()).cause(error.to_string()))?;
    if content.cut {
        let cause = format!("it is longer than {FILE_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, doing()).cause(cause));
    }
    let looked = look_any(&real.display().to_string(), &content.bytes);
    if looked.finds.is_empty() {
        let cause = looked.problem.unwrap_or_else(|| "it has no MCP servers".to_owned());
        return Err(Failure::new(Exit::Usage, doing()).cause(cause).hint(
            "it may be a client's settings, with mcpServers, servers, context_servers or [mcp_servers.NAME], or mcp-config.yaml",
        ));
    }
    Ok(Found {
        finds: looked.finds,
        notes: looked.problem.into_iter().collect(),
        files: 1,
        ..Found::default()
    })
}
