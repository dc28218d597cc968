//! An entry of somebody else's file as one of mcp.config.json.
//!
//! Clients start servers in the directory of the project that the file is in; an entry that moves
//! takes that directory with it. Everything that has a meaning here keeps its name; what only other
//! clients know is kept as well.

use serde_json::{Map, Value};

/// Most bytes of one entry: a longer one is no entry.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Programs that fetch and start a published package.
pub(super) const LAUNCHERS: [&str; 8] = ["npx", "uvx", "uv", "pipx", "bunx", "pnpm", "docker", "podman"];

/// Where the paths of an entry start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base<'a> {
    /// Nobody knows: a user's own settings.
    None,
    /// Those that are written as relative ones start here.
    File(&'a str),
    /// The client starts servers in this directory.
    Project(&'a str),
}

impl<'a> Base<'a> {
    const fn dir(self) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::File(dir) | Self::Project(dir) => Some(dir),
        }
    }
}

/// `written` as an entry, and what its reader should know; `None` when it names neither a program nor
/// an address.
#[must_use]
pub fn read(written: &Value, base: Base<'_>) -> Option<(Value, Vec<String>)> {
    let dir = base.dir();
    let map = written.as_object()?;
    let has = |key: &str| map.get(key).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    let address = ["url", "serverUrl", "httpUrl"].into_iter().any(has);
    if !(has("command") || address) || written.to_string().len() > ENTRY_BYTES_MAX {
        return None;
    }
    let mut entry = filled(written, dir).as_object()?.clone();
    let mut notes = Vec::new();
    if has("command") && address {
        // Bridges write both; what is started is what the client talks to.
        for key in ["url", "serverUrl", "httpUrl"] {
            entry.shift_remove(key);
        }
        notes.push("it names a program and an address: the program is taken".to_owned());
    }
    if let Some(dir) = dir.filter(|_| has("command")) {
        at_home(&mut entry, (dir, matches!(base, Base::Project(_))), &mut notes);
    }
    if let (Some(dir), Some(file)) = (dir, entry.get("envFile").and_then(Value::as_str).map(str::to_owned))
        && !file.is_empty()
        && !file.starts_with(['/', '$', '~'])
    {
        entry.insert("envFile".to_owned(), Value::String(joined(dir, &file)));
    }
    if entry.contains_key("envFile") {
        notes.push("its envFile is read when it starts".to_owned());
    }
    let entry = Value::Object(entry);
    if entry.to_string().contains("${input:") {
        notes.push("it has ${input:…}: write the value as ${NAME} or ${credential:NAME}".to_owned());
    }
    if entry.to_string().contains("${workspaceFolder") {
        notes.push("it has ${workspaceFolder}, which no file says: write the directory itself".to_owned());
    }
    Some((entry, notes))
}

/// The entry with the variables of editors that are known here.
fn filled(value: &Value, dir: Option<&str>) -> Value {
    match value {
        Value::String(text) => Value::String(variables(text, dir)),
        Value::Array(items) => Value::Array(items.iter().map(|item| filled(item, dir)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), filled(value, dir))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn variables(text: &str, dir: Option<&str>) -> String {
    if !text.contains("${") {
        return text.to_owned();
    }
    let mut out =
        text.replace("${userHome}", "${HOME}").replace("${pathSeparator}", "/").replace("${/}", "/");
    if let Some(dir) = dir {
        let name = dir.rsplit('/').next().unwrap_or_default();
        out = out.replace("${workspaceFolderBasename}", name);
        for name in
            ["${workspaceFolder}", "${workspaceRoot}", "${CLAUDE_PROJECT_DIR}", "${CLAUDE_PROJECT_DIR:-.}"]
        {
            out = out.replace(name, dir);
        }
    }
    out
}

/// Gives the entry the directory it was started in so far.
fn at_home(entry: &mut Map<String, Value>, (dir, project): (&str, bool), notes: &mut Vec<String>) {
    let command = entry.get("command").and_then(Value::as_str).unwrap_or_default().to_owned();
    if is_docker(&command) {
        let args = entry.get_mut("args").and_then(Value::as_array_mut);
        if args.is_some_and(|args| absolute_mounts(args, dir)) {
            notes.push(format!("relative paths of its mounts start from {dir}"));
        }
        return;
    }
    if command.starts_with("./") || command.starts_with("../") {
        entry.insert("command".to_owned(), Value::String(joined(dir, &command)));
    }
    let cwd = entry.get("cwd").and_then(Value::as_str).map(str::to_owned);
    let cwd = match cwd {
        Some(cwd) if cwd.starts_with(['/', '$', '~']) => Some(cwd),
        Some(cwd) if !cwd.is_empty() => Some(joined(dir, &cwd)),
        _ => project.then(|| dir.to_owned()),
    };
    if let Some(cwd) = cwd {
        entry.insert("cwd".to_owned(), Value::String(cwd));
    }
}

/// Whether the program is docker's command line client.
#[must_use]
pub fn is_docker(command: &str) -> bool {
    command == "docker" || command.ends_with("/docker")
}

/// Makes `./…` and `../…` of mounts and files absolute; says whether there were any.
fn absolute_mounts(args: &mut [Value], dir: &str) -> bool {
    let mut changed = false;
    let mut takes_path = false;
    for arg in args {
        let Some(text) = arg.as_str() else { continue };
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (format!("{flag}="), value),
            _ => (String::new(), text),
        };
        let of_path = |flag: &str| matches!(flag, "-v" | "--volume" | "--env-file" | "--label-file");
        let here = takes_path || of_path(flag.trim_end_matches('='));
        takes_path = of_path(text);
        if here && (value.starts_with("./") || value.starts_with("../")) {
            *arg = Value::String(format!("{flag}{}", joined(dir, value)));
            changed = true;
        }
    }
    changed
}

/// `path` below `dir`, without `.` and `..`.
#[must_use]
pub fn joined(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = if path.starts_with('/') { Vec::new() } else { dir.split('/').collect() };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    let inner: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("/{}", inner.join("/"))
}

/// The directory of `path`.
#[must_use]
pub fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((dir, _)) => dir,
        None => ".",
    }
}

/// What makes two entries the same server: program and arguments, or address, and the environment; and,
/// where a program or script is found from it, the directory. Spelling that changes nothing is left out.
#[must_use]
pub fn signature(entry: &Value) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let address = text("url").or_else(|| text("serverUrl")).or_else(|| text("httpUrl"));
    if let Some(address) = address {
        return format!("url {}", address.trim_end_matches('/'));
    }
    let command = text("command").unwrap_or_default();
    let args = entry.get("args").and_then(Value::as_array);
    let args: Vec<String> = args.into_iter().flatten().map(plain).collect();
    let idle: &[&str] = if is_docker(command) {
        &["-i", "--interactive", "--rm", "-t", "-it", "-d", "--detach"]
    } else if matches!(command, "npx" | "pnpm" | "bunx") {
        &["-y", "--yes"]
    } else {
        &[]
    };
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !idle.contains(arg)).collect();
    let mut env: Vec<String> = entry
        .get("env")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    env.sort_unstable();
    // `node server.js` is another server in another directory; `npx a-server` is the same one.
    let packaged = is_docker(command) || LAUNCHERS.contains(&command.rsplit('/').next().unwrap_or_default());
    let cwd = text("cwd").filter(|_| !packaged).map(|cwd| cwd.trim_end_matches('/'));
    let command = if is_docker(command) { "docker" } else { command };
    serde_json::json!(["command", command, args, env, cwd]).to_string()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{Base, joined, read, signature};
    use serde_json::json;

    #[test]
    fn an_entry_takes_its_directory_with_it() {
        let (entry, notes) =
            read(&json!({"command": "./run.sh", "args": ["${workspaceFolder}/x"]}), Base::Project("/p"))
                .unwrap();
        assert_eq!(entry, json!({"command": "/p/run.sh", "args": ["/p/x"], "cwd": "/p"}));
        assert!(notes.is_empty());
        let docker = json!({"command": "docker", "args": ["run", "-v", "./d:/d", "--env-file=../e", "-v", "v:/v", "x", "./y"]});
        let (entry, notes) = read(&docker, Base::File("/p/q")).unwrap();
        assert_eq!(
            entry["args"],
            json!(["run", "-v", "/p/q/d:/d", "--env-file=/p/e", "-v", "v:/v", "x", "./y"])
        );
        assert_eq!(notes.len(), 1);
        let remote = json!({"url": "https://h/mcp"});
        assert_eq!(read(&remote, Base::Project("/p")).unwrap().0, remote);
        for nothing in [
            json!({}),
            json!({"command": ""}),
            json!({"command": ["a"]}),
            json!([]),
            json!("x"),
            json!({"args": []}),
        ] {
            assert!(read(&nothing, Base::None).is_none(), "{nothing}");
        }
    }

    #[test]
    fn variables_of_editors_are_filled_in_where_they_are_known() {
        let written = json!({"command": "x", "args": ["${workspaceFolderBasename}${/}a", "${userHome}"],
            "envFile": ".env"});
        let (entry, notes) = read(&written, Base::Project("/w/shop")).unwrap();
        let expected = json!({"command": "x", "args": ["shop/a", "${HOME}"], "envFile": "/w/shop/.env",
            "cwd": "/w/shop"});
        assert_eq!((entry, notes.len()), (expected, 1));
        for file in ["/etc/env", "${HOME}/env", "~/env"] {
            let (entry, _) = read(&json!({"command": "x", "envFile": file}), Base::Project("/w")).unwrap();
            assert_eq!(entry["envFile"], file);
        }
        let (entry, notes) = read(&json!({"command": "${workspaceFolder}/x"}), Base::None).unwrap();
        assert_eq!(entry["command"], "${workspaceFolder}/x");
        assert!(notes[0].contains("write the directory itself"), "{notes:?}");
    }

    #[test]
    fn paths_are_joined_without_climbing_out() {
        assert_eq!(joined("/a/b", "../c/./d"), "/a/c/d");
        assert_eq!(joined("/a", "../../../x"), "/x");
        assert_eq!(joined("/a", "/x/../y"), "/y");
    }

    #[test]
    fn the_same_server_is_recognised_whatever_its_spelling() {
        let one = signature(&json!({"command": "npx", "args": ["-y", "a"], "env": {"A": "1", "B": "2"}}));
        assert_eq!(
            one,
            signature(
                &json!({"command": "npx", "args": ["a"], "env": {"B": "2", "A": "1"}, "disabled": true})
            )
        );
        assert_ne!(one, signature(&json!({"command": "npx", "args": ["a"], "env": {"A": "2", "B": "2"}})));
        let script = |cwd: &str| signature(&json!({"command": "node", "args": ["server.js"], "cwd": cwd}));
        assert_ne!(script("/a"), script("/b"), "two projects");
        assert_eq!(script("/a"), script("/a/"));
        let package = |cwd: &str| signature(&json!({"command": "npx", "args": ["-y", "a"], "cwd": cwd}));
        assert_eq!(package("/a"), package("/b"), "the same package");
        let docker =
            signature(&json!({"command": "/usr/bin/docker", "args": ["run", "-i", "--rm", "mcp/time"]}));
        assert_eq!(docker, signature(&json!({"command": "docker", "args": ["run", "mcp/time"]})));
        assert_eq!(
            signature(&json!({"url": "http://h/mcp/"})),
            signature(&json!({"serverUrl": "http://h/mcp"}))
        );
    }
}
