//! `docker run` lines on the real engine: for every line of the fixture the real `docker create`
//! and our own create request make a container each, and `docker inspect` must tell no difference.
//!
//! Everything made here has names that start with `mcpo-test-`, and is removed at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::Docker;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use mcp_orchestrator::config::docker_run::{RunContext, RunLine, parse};
use mcp_orchestrator::docker::create::{ApiVersion, create_body};
use serde_json::Value;
use tokio::process::Command;

const LINES: &str = include_str!("../fixtures/docker-run/lines.txt");
const IMAGE: &str = "mcpo-test-tiny";

/// Lines made, inspected and removed together.
const BATCH: usize = 24;

/// Networks of the lines, with their subnets.
const NETWORKS: &[(&str, &str)] =
    &[("mcpo-test-net", "172.31.251.0/24"), ("mcpo-test-net2", "172.31.252.0/24")];

/// Directories of the host that lines mount.
const DIRECTORIES: &[&str] = &["/tmp/mcpo-test-x", "/tmp/mcpo-test-y"];

/// Containers that lines refer to.
const OTHERS: &[&str] = &["mcpo-test-other", "mcpo-test-third"];

/// Flags that `docker create` does not have, or that would ask a registry.
const NOT_FOR_CREATE: &[&str] = &["-d", "-di", "-id", "--detach", "--detach-keys", "--sig-proxy", "--pull"];

/// What the client means otherwise since 20.10, which Debian 12 has: relative paths, names of
/// capabilities, empty labels of volumes, addresses on the default bridge. With such a client these
/// lines are held against the recorded requests of client 28 only (`tests/it/docker_run.rs`).
const CHANGED_SINCE_20: &[&str] =
    &["-v .", "-v './", "type=bind,src=.", "volume-label=", "--ip ", "--cap-add", "--cap-drop"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/docker-run/files")
        .canonicalize()
        .expect("the fixture's directory")
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Runs the real client; its output, or what it says is wrong.
async fn client(args: &[&str]) -> Result<String, String> {
    let home = std::env::temp_dir().join("mcpo-test-client");
    std::fs::create_dir_all(&home).expect("a directory");
    let host = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
    let done = Command::new("docker")
        .args(args)
        .current_dir(fixture())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &home)
        .env("DOCKER_CONFIG", &home)
        .env("DOCKER_HOST", host)
        .env("SET_VAR", "from the environment")
        .env("EMPTY_VAR", "")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("a docker client");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

async fn clean_up() {
    let found = client(&["ps", "-aq", "--filter", "name=mcpo-test-run-"]).await;
    let ids = found.unwrap_or_default();
    let mut remove = vec!["rm", "-f", "-v"];
    remove.extend(ids.lines());
    remove.extend(OTHERS);
    let _missing = client(&remove).await;
    for (name, _) in NETWORKS {
        let _missing = client(&["network", "rm", name]).await;
    }
    let volumes = client(&["volume", "ls", "-q", "--filter", "name=mcpo-test-vol"]).await;
    for volume in volumes.unwrap_or_default().lines() {
        let _in_use = client(&["volume", "rm", "-f", volume]).await;
    }
    let _missing = client(&["rmi", "-f", IMAGE]).await;
    for directory in DIRECTORIES {
        let _missing = std::fs::remove_dir(directory);
    }
}

async fn set_up() {
    clean_up().await;
    // An empty archive: two blocks of zeros.
    let archive = std::env::temp_dir().join("mcpo-test-empty.tar");
    std::fs::write(&archive, [0_u8; 1024]).expect("an archive");
    let archive = archive.to_str().expect("a path");
    // A command of its own, so that lines without one can be created.
    client(&["import", "-c", "CMD [\"/serve\"]", archive, IMAGE]).await.expect("an image");
    for (name, subnet) in NETWORKS {
        let subnet = format!("--subnet={subnet}");
        client(&["network", "create", &subnet, name]).await.expect("a network");
    }
    for directory in DIRECTORIES {
        std::fs::create_dir_all(directory).expect("a directory");
    }
    for name in OTHERS {
        client(&["create", "--name", name, "-v", "/shared", IMAGE]).await.expect("a container");
    }
}

/// Our container for a line; `None` where the engine's API is too old for it.
async fn create_ours(
    docker: &Docker,
    api: ApiVersion,
    name: &str,
    line: &RunLine,
) -> Option<Result<(), String>> {
    let body = create_body(&line.spec, api).ok()?;
    let options = CreateContainerOptionsBuilder::new().name(name);
    let options = match &line.spec.platform {
        Some(platform) => options.platform(platform),
        None => options,
    };
    let made = docker.create_container(Some(options.build()), body).await;
    Some(made.map(drop).map_err(|error| error.to_string()))
}

/// Takes out what differs between any two containers, and what the service decides itself.
fn comparable(mut container: Value) -> Value {
    let name = container["Name"].as_str().unwrap_or_default().to_owned();
    let id = container["Id"].as_str().unwrap_or_default().to_owned();
    let short = id.get(..12).unwrap_or_default().to_owned();
    let map = container.as_object_mut().expect("an object");
    for key in [
        "Id",
        "Created",
        "Name",
        "State",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "LogPath",
        "GraphDriver",
    ] {
        map.remove(key);
    }
    let config = container["Config"].as_object_mut().expect("a configuration");
    for key in ["AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"] {
        config.remove(key);
    }
    if config["Hostname"] == short.as_str() {
        config.remove("Hostname");
    }
    sort(&mut container["Config"]["Env"], |text| {
        let variable = text.as_str().unwrap_or_default();
        variable.split('=').next().unwrap_or_default().to_owned()
    });
    let host = container["HostConfig"].as_object_mut().expect("a host configuration");
    for key in ["AutoRemove", "RestartPolicy", "ConsoleSize"] {
        host.remove(key);
    }
    sort(&mut container["HostConfig"]["Binds"], Value::to_string);
    for link in container["HostConfig"]["Links"].as_array_mut().into_iter().flatten() {
        *link = link.as_str().unwrap_or_default().replace(&name, "/OWN").into();
    }
    // The engine keeps links in no order.
    sort(&mut container["HostConfig"]["Links"], Value::to_string);
    for mount in container["Mounts"].as_array_mut().into_iter().flatten() {
        let anonymous = mount["Name"].as_str().is_some_and(|name| name.len() == 64);
        if anonymous {
            mount["Name"] = "anonymous".into();
            mount["Source"] = "anonymous".into();
        }
    }
    sort(&mut container["Mounts"], |mount| mount["Destination"].to_string());
    for network in container["NetworkSettings"]["Networks"].as_object_mut().into_iter().flatten() {
        if let Some(aliases) = network.1["Aliases"].as_array_mut() {
            aliases.retain(|alias| alias != short.as_str());
        }
    }
    container
}

/// Sorts a list by a key; of equal keys the last stays.
fn sort(list: &mut Value, key: impl Fn(&Value) -> String) {
    if let Some(values) = list.as_array_mut() {
        let by_key: BTreeMap<String, Value> = values.drain(..).map(|value| (key(&value), value)).collect();
        values.extend(by_key.into_values());
    }
}

fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let below = format!("{path}.{key}");
                let (theirs, ours) = (a.get(key), b.get(key));
                let null = Value::Null;
                differences(&below, theirs.unwrap_or(&null), ours.unwrap_or(&null), found);
            }
        }
        (theirs, ours) if theirs == ours || (nothing(theirs) && nothing(ours)) => {}
        (theirs, ours) => found.push(format!("{path}: {theirs} != {ours}")),
    }
}

/// The older client says `null` where the newer one says `[]`; the engine takes both for nothing.
fn nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(|map| map.is_empty())
}

/// Whether the client is older than the one whose grammar is ours.
async fn client_is_old() -> bool {
    let version = client(&["version", "--format", "{{.Client.Version}}"]).await.expect("a docker client");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.expect("a client version") < 28
}

/// Makes one line both ways; what is wrong, or the names of the two to be inspected.
async fn make(
    docker: &Docker,
    (api, old): (ApiVersion, bool),
    number: usize,
    line: &str,
) -> Result<Option<(String, String)>, String> {
    let (theirs, ours) = (format!("mcpo-test-run-{number}-a"), format!("mcpo-test-run-{number}-b"));
    let arguments = words(line);
    let mut run = vec!["run".to_owned()];
    run.extend(arguments.iter().cloned());
    let directory = fixture();
    let mut files = BTreeMap::new();
    for name in mcp_orchestrator::config::docker_run::files_needed(&run) {
        let content = std::fs::read_to_string(directory.join(&name)).expect("a fixture file");
        files.insert(name, content);
    }
    let env = [("SET_VAR", "from the environment"), ("EMPTY_VAR", "")];
    let env: BTreeMap<String, String> = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let context = RunContext {
        env: &env,
        files: &files,
        base_dir: directory.to_str().expect("a path"),
        own_name: None,
    };
    let parsed = parse(&run, &context).map_err(|problems| format!("not parsed: {problems:?}"))?;
    let Some(own) = create_ours(docker, api, &ours, &parsed).await else {
        return Ok(None);
    };
    let mut create = vec!["create", "--pull=never", "--name", &theirs];
    create.extend(arguments.iter().map(String::as_str));
    let real = client(&create).await;
    match (real, own) {
        (Ok(_), Ok(())) => Ok(Some((theirs, ours))),
        (Err(_), Err(_)) => Ok(None),
        (Ok(_), Err(error)) => Err(format!("only ours fails: {error}")),
        // Debian 12's own client is older than the grammar: what it does not know is compared with
        // the recorded requests of client 28 (`tests/it/docker_run.rs`), not here.
        (Err(error), Ok(())) if old && !error.contains("Error response from daemon") => Ok(None),
        (Err(error), Ok(())) => Err(format!("only docker create fails: {error}")),
    }
}

#[tokio::test]
async fn containers_equal_the_clients() {
    set_up().await;
    let docker = Docker::connect_with_defaults().expect("an engine");
    let docker = docker.negotiate_version().await.expect("an engine");
    let version = docker.version().await.expect("an engine");
    let api: ApiVersion = version.api_version.unwrap_or_default().parse().expect("a version");
    let lines: Vec<&str> = LINES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| {
            !words(line).iter().any(|word| {
                let flag = word.split('=').next().unwrap_or_default();
                NOT_FOR_CREATE.contains(&flag)
            })
        })
        .collect();
    let old = client_is_old().await;
    let mut report = Vec::new();
    let mut compared = 0;
    for (batch, lines) in lines.chunks(BATCH).enumerate() {
        let mut pairs = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            if old && CHANGED_SINCE_20.iter().any(|part| line.contains(part)) {
                println!("other with a client before 28: {line}");
                continue;
            }
            match make(&docker, (api, old), batch * BATCH + index, line).await {
                Ok(Some(names)) => pairs.push((*line, names)),
                Ok(None) => println!("on neither side: {line}"),
                Err(problem) => report.push(format!("{line}\n    {problem}")),
            }
        }
        let names: Vec<&str> = pairs.iter().flat_map(|(_, (a, b))| [a.as_str(), b.as_str()]).collect();
        if !names.is_empty() {
            let inspected = client(&[&["inspect"], names.as_slice()].concat()).await;
            let inspected: Vec<Value> =
                serde_json::from_str(&inspected.expect("an inspection")).expect("a list");
            for ((line, _), both) in pairs.iter().zip(inspected.chunks(2)) {
                let mut found = Vec::new();
                let (theirs, ours) = (comparable(both[0].clone()), comparable(both[1].clone()));
                differences("", &theirs, &ours, &mut found);
                if !found.is_empty() {
                    report.push(format!("{line}\n    {}", found.join("\n    ")));
                }
                compared += 1;
            }
            let _removed = client(&[&["rm", "-f", "-v"], names.as_slice()].concat()).await;
        }
    }
    clean_up().await;
    let temporary = std::env::temp_dir();
    let _missing = std::fs::remove_dir_all(temporary.join("mcpo-test-client"));
    let _missing = std::fs::remove_file(temporary.join("mcpo-test-empty.tar"));
    println!("{compared} of {} lines compared on api {api}", lines.len());
    assert!(report.is_empty(), "{}", report.join("\n"));
    assert!(compared >= 300, "only {compared} lines could be compared");
}
