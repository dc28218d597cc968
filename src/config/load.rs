//! From the bytes of mcp.config.json to what is wanted: the front door of the configuration.
//!
//! ```text
//! bytes --read--> Node --raw--> written entries --merge--> entries with inherited values
//!       --meant--> Server (or its problems)
//! ```
//!
//! Everything that lies outside the file (environment, files, credentials, secrets) is handed in:
//! [`needs`] says what a file asks for, the caller reads it, [`load`] gives the meaning.
//!
//! Invariant: a bad entry never stops another; it goes to `Desired.broken` with its problems.
//! Invariant: a file that cannot be read gives no `Desired` at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::config::assembly::{Assembly, Levels};
use crate::config::build::Builder;
use crate::config::docker_run;
use crate::config::error::{Place, Problem, Sink};
use crate::config::ids;
use crate::config::levels;
use crate::config::node::Node;
use crate::config::raw;
use crate::config::settings::Settings;
use crate::config::text::decode;
use crate::config::vars::{self, Lookup};
use crate::model::container::Opaque;
use crate::model::desired::Desired;
use crate::model::fingerprint::HashKey;
use crate::model::id::ServerId;

/// What was read for a reference, or why it could not be.
pub type Contents = BTreeMap<String, Result<String, String>>;

/// What a file asks the caller to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Absolute paths: `${file:}`, `--env-file`, `--label-file`, seccomp profiles, `envFile`.
    pub files: BTreeSet<String>,
    /// Names of systemd credentials.
    pub credentials: BTreeSet<String>,
    /// Ids of AWS Secrets Manager secrets, without `#key`.
    pub secrets_manager: BTreeSet<String>,
    /// Names of SSM parameters.
    pub ssm: BTreeSet<String>,
}

/// What is loaded, and everything it may refer to.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Absolute path of the file; `.yaml` and `.yml` are read as YAML, relative host paths start
    /// from its directory.
    pub file: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
    /// The environment for `${VAR}` and `-e NAME`.
    pub env: &'a BTreeMap<String, String>,
    /// Contents of [`Needs::files`].
    pub files: &'a Contents,
    /// Contents of [`Needs::credentials`].
    pub credentials: &'a Contents,
    /// Contents of [`Needs::secrets_manager`]: the whole secret string.
    pub secrets_manager: &'a Contents,
    /// Contents of [`Needs::ssm`].
    pub ssm: &'a Contents,
    /// The settings: defaults of containers, health and restarts, container name prefix.
    pub settings: &'a Settings,
    /// The key of this state store, for fingerprints.
    pub key: &'a HashKey,
}

/// A value that must not appear in any output, and what to show instead.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretValue {
    /// The reference as written (`${credential:NAME}`), or `env NAME` for a literal one.
    pub reference: String,
    /// The value itself.
    pub value: Opaque,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretValue").field(&self.reference).finish()
    }
}

/// Which level decided a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Built in.
    Default,
    /// settings.conf, environment or flag.
    Settings,
    /// `globalDefaults`.
    Global,
    /// A section's settings.
    Section(String),
    /// The entry's own keys.
    Server,
    /// The entry's docker line.
    RunLine,
}

/// One effective value of a server and where it came from; environment values are never in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveValue {
    /// Dotted key, such as `health.interval`.
    pub key: String,
    /// The value as text; `[redacted]` for environment values.
    pub value: String,
    /// Which level decided.
    pub origin: Origin,
    /// Where it is written, when it is.
    pub place: Option<Place>,
}

/// What servers inherit from one level, and from those above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelValues {
    /// The section; `None` for the global defaults.
    pub section: Option<String>,
    /// Effective values, sorted by key; environment values are never in it.
    pub values: Vec<EffectiveValue>,
}

/// What came of a file.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The servers; `None` when the file as a whole cannot be used.
    pub desired: Option<Desired>,
    /// All problems, sorted.
    pub problems: Vec<Problem>,
    /// Values that must not appear in any output.
    pub secrets: Vec<SecretValue>,
    /// Effective values of every whole server, sorted by key.
    pub effective: BTreeMap<ServerId, Vec<EffectiveValue>>,
    /// What servers inherit: the global defaults first, then each section in its order.
    pub levels: Vec<LevelValues>,
    /// Keys of other clients and of the gateway as written, without secrets, for passing through.
    pub kept: BTreeMap<ServerId, serde_json::Value>,
}

/// What must be read before `bytes` of `file` can be loaded.
#[must_use]
pub fn needs(file: &str, bytes: &[u8], env: &BTreeMap<String, String>) -> Needs {
    let mut needs = Needs::default();
    let Ok(text) = decode(file, bytes) else {
        return needs;
    };
    let mut sink = Sink::new(file, text);
    let Some(raw) = raw::read(file, text, &mut sink) else {
        return needs;
    };
    let base_dir = base_dir(file);
    let blocks = raw.global.iter().chain(raw.sections.iter().map(|section| &section.settings));
    for variable in blocks.flat_map(|block| block.get("env").map(Node::members).unwrap_or_default()) {
        if let Some(text) = variable.value.as_text() {
            vars::collect(text, env, base_dir, &mut needs);
        }
    }
    for server in &raw.servers {
        needs_of_entry(&server.entry, env, base_dir, &mut needs);
    }
    needs
}

fn needs_of_entry(entry: &Node, env: &BTreeMap<String, String>, base_dir: &str, needs: &mut Needs) {
    let values = |key: &str| entry.get(key).map(Node::members).unwrap_or_default();
    let maps = values("env").iter().chain(values("headers")).chain(values("static_headers"));
    let singles = ["command", "cwd", "url", "serverUrl", "httpUrl", "host", "envFile", "auth_value"];
    let texts = singles
        .iter()
        .filter_map(|key| entry.get(key))
        .chain(maps.map(|member| &member.value))
        .chain(entry.get("args").map(Node::items).unwrap_or_default());
    for text in texts.filter_map(Node::as_text) {
        vars::collect(text, env, base_dir, needs);
    }
    // Paths may themselves have references to the environment in them.
    let nothing = Contents::new();
    let lookup = Lookup {
        env,
        files: &nothing,
        credentials: &nothing,
        secrets_manager: &nothing,
        ssm: &nothing,
        base_dir,
    };
    let expand = |node: &Node| {
        let text = node.scalar()?;
        Some(vars::expand(&text, &lookup, &mut Vec::new()).unwrap_or(text))
    };
    if let Some(path) = entry.get("envFile").and_then(expand) {
        needs.files.insert(vars::absolute(&path, base_dir));
    }
    let args = entry.get("args").map(Node::items).unwrap_or_default();
    let args: Vec<String> = args.iter().filter_map(expand).collect();
    let is_docker = entry
        .get("command")
        .and_then(expand)
        .is_some_and(|program| program == "docker" || program.ends_with("/docker"));
    if is_docker {
        for path in docker_run::files_needed(&args) {
            needs.files.insert(vars::absolute(&path, base_dir));
        }
    }
}

/// The directory of `file`.
fn base_dir(file: &str) -> &str {
    match file.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((dir, _)) => dir,
        None => ".",
    }
}

/// Loads a file.
#[must_use]
pub fn load(input: &Input<'_>) -> Loaded {
    let text = match decode(input.file, input.bytes) {
        Ok(text) => text,
        Err(problem) => {
            return Loaded { problems: vec![*problem], ..Loaded::default() };
        }
    };
    let mut sink = Sink::new(input.file, text);
    let Some(raw) = raw::read(input.file, text, &mut sink) else {
        return Loaded { problems: sink.finish(), ..Loaded::default() };
    };
    let levels = Levels::check(&raw, &mut sink);
    let names = ids::assign(&raw.servers, &mut sink);
    let mut all = Assembly::default();
    let lookup = Lookup {
        env: input.env,
        files: input.files,
        credentials: input.credentials,
        secrets_manager: input.secrets_manager,
        ssm: input.ssm,
        base_dir: base_dir(input.file),
    };
    let mut builder = Builder { input, lookup, sink: &mut sink };
    for (server, named) in raw.servers.iter().zip(&names) {
        all.add(server, named, &levels, &mut builder);
    }
    all.report_port_conflicts(&mut sink);
    all.report_path_conflicts(&mut sink);
    let values = levels::values(&raw, input.settings, &sink);
    Loaded { levels: values, ..all.finish(sink) }
}
