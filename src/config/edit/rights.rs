//! What a change over the network may not do: set `allow`, commands of processes, host paths or
//! `${file:}`. Whoever may do that has the host, and a password of the panel is not meant to be that.
//!
//! An entry that reaches further has a *core*: what runs, with what, and what it reaches. Over the
//! network the core of such an entry stays as it is; everything else of it may be changed. An entry
//! that reaches nothing may become anything else that reaches nothing.
//!
//! Must never decide on the strength of the text alone: what a line means is asked of the loader. An
//! entry that cannot be judged, because it has an error, may stay as it is written and not be changed.

use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::config::error::Sink;
use crate::config::ids::{self, Named};
use crate::config::load::{Loaded, Needs};
use crate::config::node::Node;
use crate::config::raw::{self, Raw};
use crate::config::text::decode;
use crate::model::container::{ContainerSpec, MountKind, dangers};
use crate::model::id::ServerId;
use crate::model::server::{Server, ServerKind};

/// One of two versions of a file.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Its path.
    pub file: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
    /// What came of it.
    pub loaded: &'a Loaded,
}

/// Something that a change over the network may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overreach {
    /// The server concerned, as the file names it.
    pub server: Option<String>,
    /// What it asks for.
    pub what: String,
}

/// Files that the new version refers to and the old one did not. Asked before any of them is read.
#[must_use]
pub fn new_files(old: &Needs, new: &Needs) -> Vec<Overreach> {
    let files = new.files.difference(&old.files);
    files.map(|path| Overreach { server: None, what: format!("the file {path}") }).collect()
}

/// What the new version does that the old one did not, and that is not for the network.
#[must_use]
pub fn overreach(old: Version<'_>, new: Version<'_>) -> Vec<Overreach> {
    let (before, after) = (Entries::of(old), Entries::of(new));
    let mut found = Vec::new();
    for (name, written) in &after.all {
        if before.all.get(name) == Some(written) {
            continue;
        }
        let server = name.1.clone();
        let Some(id) = after.ids.get(name) else {
            let what = "an entry without an id of its own".to_owned();
            found.push(Overreach { server: Some(server), what });
            continue;
        };
        let meant = |loaded: &Loaded| loaded.desired.as_ref().and_then(|all| all.servers.get(id).cloned());
        let Some(wanted) = meant(new.loaded) else {
            let what = "a changed entry with an error, which cannot be judged".to_owned();
            found.push(Overreach { server: Some(server), what });
            continue;
        };
        let reach = reach(&wanted, written);
        let same = || {
            let held = before.written(id).zip(meant(old.loaded));
            held.is_some_and(|(was, server)| core(&server, was) == core(&wanted, written))
        };
        if !reach.is_empty() && !same() {
            found.push(Overreach { server: Some(server), what: reach.join(", ") });
        }
    }
    found
}

/// An entry as it is written, with what it inherits.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    entry: Json,
    inherited: Json,
}

/// Entries of a version, by section and name.
struct Entries {
    all: BTreeMap<(Option<String>, String), Written>,
    ids: BTreeMap<(Option<String>, String), ServerId>,
}

impl Entries {
    fn of(version: Version<'_>) -> Self {
        let mut entries = Self { all: BTreeMap::new(), ids: BTreeMap::new() };
        let Ok(text) = decode(version.file, version.bytes) else { return entries };
        let mut sink = Sink::new(version.file, text);
        let Some(raw) = raw::read(version.file, text, &mut sink) else { return entries };
        let names = ids::assign(&raw.servers, &mut sink);
        for (server, named) in raw.servers.iter().zip(names) {
            let name = (server.section.clone(), server.name.clone());
            let own = server.entry.get("orchestrator").and_then(|block| block.get("section"));
            let section = server.section.clone().or_else(|| own.and_then(Node::scalar));
            let written =
                Written { entry: server.entry.to_json(), inherited: inherited(&raw, section.as_deref()) };
            match named {
                Named::Id(id) if !entries.all.contains_key(&name) => {
                    entries.ids.insert(name.clone(), id);
                }
                Named::Id(_) | Named::Collides(_) | Named::None => {
                    entries.ids.remove(&name);
                }
            }
            entries.all.insert(name, written);
        }
        entries
    }

    fn written(&self, id: &ServerId) -> Option<&Written> {
        let (name, _) = self.ids.iter().find(|(_, own)| *own == id)?;
        self.all.get(name)
    }
}

fn inherited(raw: &Raw, section: Option<&str>) -> Json {
    let block = section.and_then(|name| raw.sections.iter().find(|block| block.name == name));
    json!([raw.global.as_ref().map(Node::to_json), block.map(|block| block.settings.to_json())])
}

fn allow(written: &Written) -> Vec<String> {
    let words = written.entry.pointer("/orchestrator/allow").and_then(Json::as_array);
    words.into_iter().flatten().map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
}

/// What an entry reaches beyond a container of its own, in words.
fn reach(server: &Server, written: &Written) -> Vec<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let allow = allow(written);
    if !allow.is_empty() {
        found.insert(format!("allow {}", allow.join(", ")));
    }
    if written.entry.get("envFile").is_some_and(|file| !file.is_null()) {
        found.insert("envFile".to_owned());
    }
    if written.entry.to_string().contains("${file:") || written.inherited.to_string().contains("${file:") {
        found.insert("${file:}".to_owned());
    }
    match &server.kind {
        ServerKind::Container(declared) => of_container(&declared.spec, &mut found),
        ServerKind::Process(process) => {
            found.insert(format!("the command {}", process.command));
        }
        ServerKind::Remote(_) => {}
    }
    for arg in written.entry.get("args").and_then(Json::as_array).into_iter().flatten() {
        let arg = arg.as_str().unwrap_or_default();
        let reads = ["--env-file", "--label-file"].iter().any(|flag| arg.starts_with(flag));
        if reads && matches!(server.kind, ServerKind::Container(_)) {
            found.insert(arg.split('=').next().unwrap_or_default().to_owned());
        }
    }
    found.into_iter().collect()
}

fn of_container(spec: &ContainerSpec, found: &mut BTreeSet<String>) {
    for danger in dangers(spec) {
        found.insert(danger.asked_by().to_owned());
    }
    for bind in spec.binds.iter().filter(|bind| bind.is_host_path()) {
        found.insert(format!("the host path {}", bind.source));
    }
    for mount in &spec.mounts {
        let driven = mount
            .volume
            .as_ref()
            .is_some_and(|volume| volume.driver.is_some() || !volume.driver_options.is_empty());
        if mount.kind == MountKind::Bind {
            found.insert(format!("the host path {}", mount.source.as_deref().unwrap_or_default()));
        } else if driven {
            found.insert(format!("the volume driver's options at {}", mount.target));
        }
    }
    if spec.volume_driver.is_some() {
        found.insert("--volume-driver".to_owned());
    }
    found.extend(spec.volumes_from.iter().map(|other| format!("--volumes-from {other}")));
}

/// What may not change of an entry that reaches further: all that runs, but for what it may use.
fn core(server: &Server, written: &Written) -> Json {
    let what = match &server.kind {
        ServerKind::Container(declared) => {
            // Everything in a spec has a JSON form.
            let mut spec = serde_json::to_value(&declared.spec).unwrap_or(Json::Null);
            if let Some(spec) = spec.as_object_mut() {
                for free in ["resources", "log_driver", "log_options"] {
                    spec.shift_remove(free);
                }
            }
            spec
        }
        ServerKind::Process(process) => {
            json!([process.command, process.args, process.env, process.cwd])
        }
        ServerKind::Remote(_) => {
            let entry = &written.entry;
            let keys = [
                "url",
                "serverUrl",
                "httpUrl",
                "host",
                "port",
                "headers",
                "static_headers",
                "auth_value",
                "envFile",
            ];
            Json::Array(keys.iter().map(|key| entry.get(key).cloned().unwrap_or(Json::Null)).collect())
        }
    };
    json!([what, allow(written)])
}
