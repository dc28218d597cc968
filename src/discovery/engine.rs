//! Finds among an engine's images and containers, and containers that other tools left behind.
//!
//! Labels are the proof here; a name is a hint. Other programs leave containers of MCP servers running
//! when their client ends without its container hearing of it; those are told of and never touched.

use crate::discovery::{Confidence, Find, Source};
use crate::model::foreign::{Foreign, ForeignContainer, ForeignImage};
use crate::model::time::Timestamp;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Labels by which an image says that it is an MCP server: the registry's, and Docker's catalog's.
const IMAGE_LABELS: [&str; 2] = ["io.modelcontextprotocol.server.name", "io.docker.server.metadata"];
/// Labels by which other tools mark containers of MCP servers, and the tool's name.
const TOOL_LABELS: [(&str, &str); 5] = [
    ("docker-mcp", "Docker MCP gateway"),
    ("com.mcpproxy.instance", "mcpproxy"),
    ("com.mcpproxy.managed", "mcpproxy"),
    ("toolhive", "ToolHive"),
    ("mcp.server.id", "Obot"),
];

/// A container of an MCP server that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stray {
    /// The engine's id, 12 digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The tool that made it, by its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<&'static str>,
    /// When it was created.
    pub created: Timestamp,
    /// Whether nobody is left who talks to it; `None` when that cannot be told.
    pub orphaned: Option<bool>,
    /// Why it is here, in words.
    pub why: String,
}

/// What is found on the engine.
#[must_use]
pub fn finds(foreign: &Foreign) -> Vec<Find> {
    let images = foreign.images.iter().filter_map(image);
    images.chain(foreign.containers.iter().filter_map(container)).collect()
}

/// Whether it is worth asking the engine for more about this image.
#[must_use]
pub fn concerns(labels: &BTreeMap<String, String>, image: &str) -> bool {
    is_labelled(labels) || tool(labels).is_some() || names_mcp(image)
}

fn is_labelled(labels: &BTreeMap<String, String>) -> bool {
    IMAGE_LABELS.iter().any(|label| labels.contains_key(*label))
}

fn tool(labels: &BTreeMap<String, String>) -> Option<&'static str> {
    let set = |label: &str| labels.get(label).is_some_and(|value| value != "false");
    TOOL_LABELS.iter().find(|(label, _)| set(label)).map(|(_, tool)| *tool)
}

/// `mcp/time`, `ghcr.io/x/y-mcp-server:1`: the word stands by itself.
fn names_mcp(image: &str) -> bool {
    let name = image.split(['@']).next().unwrap_or(image);
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("mcp"))
}

/// The last part of a repository.
fn short(reference: &str) -> &str {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.split(['@', ':']).next().unwrap_or(name)
}

fn image(image: &ForeignImage) -> Option<Find> {
    let ForeignImage { reference, labels, exposed } = image;
    if reference.starts_with("sha256:") || !concerns(labels, reference) {
        return None;
    }
    let named = labels.get("io.modelcontextprotocol.server.name").map(String::as_str);
    let name = named.and_then(|name| name.rsplit('/').next()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| short(reference));
    let (confidence, why) = if is_labelled(labels) {
        (Confidence::High, "its labels say that it is an MCP server")
    } else {
        (Confidence::Low, "its name has the word mcp")
    };
    let ports = exposed.as_deref().unwrap_or_default();
    let entry = if ports.len() == 1 {
        json!({"command": "docker", "args": ["run", "--rm", reference]})
    } else {
        json!({"command": "docker", "args": ["run", "-i", "--rm", reference]})
    };
    let confidence = if ports.is_empty() { confidence } else { confidence.min(Confidence::Medium) };
    let mut find = Find::new(name, Source::Image, reference, entry).because(confidence, why);
    match ports {
        [] => {}
        [port] => find.notes.push(format!("it exposes port {port}: add -i if it speaks over stdio")),
        _ => {
            find.notes.push("it exposes several ports: say which with orchestrator.containerPort".to_owned());
        }
    }
    Some(find)
}

/// A container with a port that speaks MCP can be reached; one on stdio belongs to whoever started it.
fn container(container: &ForeignContainer) -> Option<Find> {
    let ForeignContainer { name, labels, host_ports, .. } = container;
    let [port] = host_ports.as_slice() else { return None };
    let confidence =
        if is_labelled(labels) || tool(labels).is_some() { Confidence::Medium } else { return None };
    let entry = json!({"url": format!("http://127.0.0.1:{port}/mcp")});
    let mut find = Find::new(name.as_str(), Source::Container, name, entry)
        .because(confidence, "a labelled container that runs and publishes a port");
    find.notes.push("its path may be another one than /mcp".to_owned());
    Some(find)
}

/// Containers of others. `clients` are the command lines of docker clients that run on this host;
/// `None` when they cannot be seen.
#[must_use]
pub fn strays(foreign: &Foreign, clients: Option<&[Vec<String>]>) -> Vec<Stray> {
    let labelled: BTreeMap<&str, bool> =
        foreign.images.iter().map(|image| (image.reference.as_str(), is_labelled(&image.labels))).collect();
    let mut concerned: Vec<&ForeignContainer> = foreign
        .containers
        .iter()
        .filter(|one| concerns(&one.labels, &one.image) || labelled.get(one.image.as_str()) == Some(&true))
        .collect();
    // The newest first: what has a client is more likely to be new.
    concerned.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: Vec<Stray> = concerned
        .into_iter()
        .map(|one| {
            let alive = clients.map(|clients| clients_of(&one.image, clients));
            let used = held.entry(&one.image).or_default();
            let orphaned = match (one.interactive, alive) {
                (Some(true), Some(alive)) => {
                    *used += 1;
                    Some(*used > alive)
                }
                _ => None,
            };
            stray(one, orphaned)
        })
        .collect();
    found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    found
}

fn stray(one: &ForeignContainer, orphaned: Option<bool>) -> Stray {
    let tool = tool(&one.labels);
    let what = match (tool, is_labelled(&one.labels)) {
        (Some(tool), _) => format!("made by {tool}"),
        (None, true) => "its image is labelled as an MCP server".to_owned(),
        (None, false) => "its image's name has the word mcp".to_owned(),
    };
    let end = match (tool, orphaned) {
        // Tools speak to the engine themselves; the absence of a docker client says nothing.
        (None, Some(true)) => "; started with -i, and no docker client is left that talks to it",
        (None, Some(false)) => "; a docker client talks to it",
        _ => "",
    };
    Stray {
        id: one.id.chars().take(12).collect(),
        name: one.name.clone(),
        image: one.image.clone(),
        tool,
        created: one.created,
        orphaned: orphaned.filter(|_| tool.is_none()),
        why: format!("{what}{end}"),
    }
}

/// How many clients run this image.
fn clients_of(image: &str, clients: &[Vec<String>]) -> usize {
    let bare = image.strip_suffix(":latest").unwrap_or(image);
    clients.iter().filter(|line| line.iter().any(|word| word == image || word == bare)).count()
}

#[cfg(test)]
mod tests {
    use super::{finds, names_mcp, strays};
    use crate::discovery::Confidence;
    use crate::model::foreign::{Foreign, ForeignContainer, ForeignImage};
    use crate::model::time::Timestamp;
    use std::collections::BTreeMap;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn image(reference: &str, of: &[(&str, &str)], exposed: &[u16]) -> ForeignImage {
        ForeignImage { reference: reference.into(), labels: labels(of), exposed: Some(exposed.to_vec()) }
    }

    fn container(name: &str, image: &str, created: i64) -> ForeignContainer {
        ForeignContainer {
            id: format!("{name:0<64}"),
            name: name.into(),
            image: image.into(),
            created: Timestamp(created),
            interactive: Some(true),
            ..ForeignContainer::default()
        }
    }

    #[test]
    fn labels_prove_and_names_hint() {
        let label = ("io.modelcontextprotocol.server.name", "io.github.x/weather");
        let foreign = Foreign {
            images: vec![
                image("ghcr.io/x/w:1", &[label], &[]),
                image("ghcr.io/x/h:1", &[label], &[8080]),
                image("mcp/time:latest", &[], &[]),
                image("nginx:1", &[("maintainer", "mcp")], &[80]),
                image("x/mcp23017-tools:1", &[], &[]),
            ],
            containers: Vec::new(),
        };
        let found: Vec<(String, Confidence)> =
            finds(&foreign).into_iter().map(|find| (find.name, find.confidence)).collect();
        let expected =
            [("weather", Confidence::High), ("weather", Confidence::Medium), ("time", Confidence::Low)];
        assert_eq!(found, expected.map(|(name, sure)| (name.to_owned(), sure)));
        assert!(names_mcp("a/b-mcp-server:1") && !names_mcp("a/mcpx") && !names_mcp("x@sha256:mcp"));
    }

    #[test]
    fn containers_without_anybody_to_talk_to_are_told_of() {
        let mut gateway = container("g", "mcp/fetch:1", 5);
        gateway.labels = labels(&[("docker-mcp", "true")]);
        let foreign = Foreign {
            images: Vec::new(),
            containers: vec![
                container("old", "mcp/time:latest", 1),
                container("new", "mcp/time:latest", 9),
                gateway,
                container("db", "postgres:17", 1),
            ],
        };
        let clients =
            vec![vec!["docker".to_owned(), "run".to_owned(), "-i".to_owned(), "mcp/time".to_owned()]];
        let found = strays(&foreign, Some(&clients));
        let said: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.orphaned, one.tool)).collect();
        assert_eq!(
            said,
            [("g", None, Some("Docker MCP gateway")), ("new", Some(false), None), ("old", Some(true), None)]
        );
        assert!(strays(&foreign, None).iter().all(|one| one.orphaned.is_none()), "unknown is no verdict");
    }
}
