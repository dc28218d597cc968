//! `export`: the servers of the file in the form of other programs' files.
//!
//! ```text
//! litellm   the mcp_servers: block of its config.yaml
//! claude    .mcp.json            vscode   .vscode/mcp.json      cursor   .cursor/mcp.json
//! mcpo      its config.json      compose  the containers, without this program
//! ```
//! All but compose lead to the gateway, with a place for the token where clients need one. Made from
//! the files alone, without a daemon. Must never write a secret: what is one, or came from one, is a
//! name to be filled in.

mod compose;

use crate::config::load::SecretValue;
use crate::config::settings::{GatewayAuth, Settings};
use crate::daemon::{Home, Options, files};
use crate::model::fingerprint::HashKey;
use crate::model::server::Server;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The variable that holds the token, where nobody names another.
const TOKEN_ENV: &str = "MCP_TOKEN";

/// Whose form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The `mcp_servers:` block of LiteLLM's config.yaml.
    Litellm,
    /// Claude Code's .mcp.json.
    Claude,
    /// VS Code's .vscode/mcp.json.
    Vscode,
    /// Cursor's .cursor/mcp.json.
    Cursor,
    /// mcpo's config.json.
    Mcpo,
    /// A compose file with the containers themselves.
    Compose,
}

/// What is exported.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Whose form.
    #[arg(value_enum)]
    pub format: Format,
    /// Where clients reach the gateway [default: the main listener on this host].
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Clients read the token from this variable.
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,
    /// Only servers of this section.
    #[arg(long, value_name = "NAME")]
    pub section: Option<String>,
    /// One entry for all servers (/mcp), instead of one for each.
    #[arg(long)]
    pub one: bool,
}

/// One line of what is exported: a name, and where it leads.
struct Entry<'a> {
    name: String,
    url: String,
    server: Option<&'a Server>,
}

/// Prints what is asked for.
pub(super) async fn run(options: Options, export: Export) -> Result<Exit, Failure> {
    if let Some(name) = export.token_env.as_deref().filter(|name| !is_variable(name)) {
        return Err(Failure::new(Exit::Usage, format!("'{name}' is no name of a variable")));
    }
    let home = Home::find(options)?;
    // Only likeness to itself matters here, so that any key will do.
    let read = files::read(&home, &HashKey::new([0; 32])).await;
    let Some(desired) = &read.loaded.desired else {
        let why = read.refused().unwrap_or_else(|| "it cannot be used".to_owned());
        return Err(Failure::new(Exit::Usage, format!("the file cannot be exported: {why}")));
    };
    for (id, why) in &desired.broken {
        output::tell(&format!("{id} is left out: {why}"));
    }
    let in_section = |server: &&Server| {
        let own = server.section.as_ref().map(|section| section.as_str());
        server.enabled && export.section.as_deref().is_none_or(|wanted| own == Some(wanted))
    };
    let servers: Vec<&Server> = desired.servers.values().filter(in_section).collect();
    if servers.is_empty() && export.section.is_some() {
        return Err(Failure::new(Exit::Usage, "no server is in that section"));
    }
    let text = match export.format {
        Format::Compose => {
            let (text, left) = compose::text(&servers, &read.loaded.secrets);
            for line in left {
                output::tell(&hidden(format!("left out, {line}"), &read.loaded.secrets));
            }
            text
        }
        _ => clients(&home, &export, &servers)?,
    };
    output::data(&hidden(text, &read.loaded.secrets));
    Ok(Exit::Done)
}

fn is_variable(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The last look: nothing that is known to be secret leaves.
fn hidden(mut text: String, secrets: &[SecretValue]) -> String {
    for secret in secrets {
        let value = secret.value.expose();
        if text.contains(value) {
            text = text.replace(value, "REDACTED");
        }
    }
    text
}

fn clients(home: &Home, export: &Export, servers: &[&Server]) -> Result<String, Failure> {
    let base = match export.base_url.as_deref().map(base_url) {
        Some(Some(url)) => url,
        Some(None) => {
            let why =
                "--base-url takes an http:// or https:// URL with a host, and without user, query or blanks";
            return Err(Failure::new(Exit::Usage, why));
        }
        None => default_base(&home.settings),
    };
    let wants_token = home.settings.gateway.auth != GatewayAuth::None || export.token_env.is_some();
    let token = wants_token.then(|| export.token_env.as_deref().unwrap_or(TOKEN_ENV));
    let entries: Vec<Entry<'_>> = if export.one {
        let path = export.section.as_ref().map_or_else(String::new, |section| format!("/~{section}"));
        let name = export.section.clone().unwrap_or_else(|| "mcp".to_owned());
        vec![Entry { name, url: format!("{base}/mcp{path}"), server: None }]
    } else {
        servers
            .iter()
            .map(|server| Entry {
                name: server.id.to_string(),
                url: format!("{base}/mcp/{}", server.id),
                server: Some(server),
            })
            .collect()
    };
    Ok(match export.format {
        Format::Litellm => litellm(&entries, token),
        Format::Vscode => vscode(&entries, token, export.token_env.is_some()),
        Format::Claude => plain(&entries, Some("http"), token.map(|name| format!("${{{name}}}")).as_deref()),
        Format::Cursor => plain(&entries, None, token.map(|name| format!("${{env:{name}}}")).as_deref()),
        Format::Mcpo | Format::Compose => {
            if let Some(name) = token {
                output::tell(&format!("mcpo reads no variables: put the token where ${{{name}}} stands"));
            }
            plain(&entries, Some("streamable-http"), token.map(|name| format!("${{{name}}}")).as_deref())
        }
    })
}

/// A URL to which paths can be added; `None` for what is none, or has more than host and path.
fn base_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'\\<>{}|^`?#".contains(c);
    (!host.contains('@') && !url.contains(odd)).then(|| url.trim_end_matches('/').to_owned())
}

/// Where clients reach the gateway as far as the settings say.
fn default_base(settings: &Settings) -> String {
    let scheme = if settings.tls.cert_file.is_some() { "https" } else { "http" };
    let here = || format!("{scheme}://127.0.0.1:{}", settings.dashboard.port);
    settings.gateway.public_url.clone().unwrap_or_else(here)
}

/// `mcpServers` as most clients have it.
fn plain(entries: &[Entry<'_>], kind: Option<&str>, token: Option<&str>) -> String {
    let servers: Map<String, Value> =
        entries.iter().map(|entry| (entry.name.clone(), client(entry, kind, token))).collect();
    format!("{:#}\n", json!({ "mcpServers": servers }))
}

fn client(entry: &Entry<'_>, kind: Option<&str>, token: Option<&str>) -> Value {
    let mut one = Map::new();
    if let Some(kind) = kind {
        one.insert("type".to_owned(), kind.into());
    }
    one.insert("url".to_owned(), entry.url.clone().into());
    if let Some(token) = token {
        one.insert("headers".to_owned(), json!({ "Authorization": format!("Bearer {token}") }));
    }
    Value::Object(one)
}

fn vscode(entries: &[Entry<'_>], token: Option<&str>, from_env: bool) -> String {
    let place =
        token.map(|name| if from_env { format!("${{env:{name}}}") } else { "${input:mcp-token}".to_owned() });
    let servers: Map<String, Value> = entries
        .iter()
        .map(|entry| (entry.name.clone(), client(entry, Some("http"), place.as_deref())))
        .collect();
    let mut all = Map::new();
    if token.is_some() && !from_env {
        let input = json!([{
            "type": "promptString", "id": "mcp-token", "description": "Token for the MCP gateway", "password": true,
        }]);
        all.insert("inputs".to_owned(), input);
    }
    all.insert("servers".to_owned(), Value::Object(servers));
    format!("{:#}\n", Value::Object(all))
}

/// LiteLLM's block. Its names of servers have no `-`, which it puts between server and tool.
fn litellm(entries: &[Entry<'_>], token: Option<&str>) -> String {
    let mut out = "mcp_servers:\n".to_owned();
    if entries.is_empty() {
        return "mcp_servers: {}\n".to_owned();
    }
    let mut taken = BTreeSet::new();
    for entry in entries {
        let mut name = entry.name.replace('-', "_");
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        // YAML takes some plain words and numbers for something else.
        let name = if is_plain_key(&name) { name } else { json!(name).to_string() };
        // Text cannot fail to be written.
        let _ok = writeln!(out, "  {name}:\n    url: {}\n    transport: http", json!(entry.url));
        if let Some(token) = token {
            let value = json!(format!("os.environ/{token}"));
            let _ok = writeln!(out, "    auth_type: bearer_token\n    auth_value: {value}");
        }
        let tools = entry.server.map(|server| &server.tools);
        if let Some(allowed) = tools.and_then(allowed_tools) {
            let _ok = writeln!(out, "    allowed_tools: {}", json!(allowed));
        }
    }
    out
}

/// Whether YAML of any version reads a name of letters, digits and `_` as text.
fn is_plain_key(name: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    name.starts_with(|c: char| c.is_ascii_lowercase()) && !WORDS.contains(&name)
}

/// The tools that are offered, where the entry names them one by one.
fn allowed_tools(tools: &crate::model::access::ToolPolicy) -> Option<Vec<String>> {
    let allowed = tools.allow.as_ref()?;
    let exact = |name: &String| !name.contains(['*', '?']);
    let offered = |name: &&String| tools.admits(name, true);
    allowed
        .iter()
        .all(exact)
        .then(|| allowed.iter().filter(offered).map(|name| tools.shown(name).to_owned()).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::load::{self, Contents, Input, Loaded};
    use crate::config::settings;
    use std::collections::BTreeMap;

    const FILE: &str = r#"{"mcpServers": {
        "git-hub": {"command": "docker", "args": ["run", "-i", "-e", "TOKEN", "-v", "data:/data:ro", "mcp/github", "--key", "${KEY}"],
            "env": {"TOKEN": "ghp_planted"}, "orchestrator": {"tools": {"allow": ["log", "show"], "deny": ["show"], "rename": {"log": "history"}}}},
        "local": {"command": "uvx", "args": ["mcp-server-time"], "env": {"API_KEY": "planted-too"}},
        "off": {"url": "https://example.com/mcp", "disabled": true}
    }}"#;

    fn loaded() -> Loaded {
        loaded_of(FILE)
    }

    pub(super) fn loaded_of(file: &str) -> Loaded {
        let (env, none) = (BTreeMap::from([("KEY".to_owned(), "planted-key".to_owned())]), Contents::new());
        loaded_with(file, &env, &none)
    }

    fn loaded_with(file: &str, env: &BTreeMap<String, String>, none: &Contents) -> Loaded {
        let nothing = BTreeMap::new();
        let given = settings::Input { file: None, env: &nothing, flags: &nothing };
        let settings = settings::load(&given).settings.expect("settings");
        load::load(&Input {
            file: "/etc/x/mcp.config.json",
            bytes: file.as_bytes(),
            env,
            files: none,
            credentials: none,
            secrets_manager: none,
            ssm: none,
            settings: &settings,
            key: &HashKey::new([0; 32]),
        })
    }

    fn entries(loaded: &Loaded) -> Vec<Entry<'_>> {
        let servers = loaded.desired.as_ref().expect("servers").servers.values();
        let entry = |server| {
            let server: &Server = server;
            let url = format!("http://gw:5000/mcp/{}", server.id);
            Entry { name: server.id.to_string(), url, server: Some(server) }
        };
        servers.filter(|server| server.enabled).map(entry).collect()
    }

    #[test]
    fn litellm_gets_names_it_takes_and_the_tools_that_are_offered() {
        let loaded = loaded();
        let text = litellm(&entries(&loaded), Some("T"));
        let want = "mcp_servers:\n  git_hub:\n    url: \"http://gw:5000/mcp/git-hub\"\n    transport: http\n    auth_type: bearer_token\n    auth_value: \"os.environ/T\"\n    allowed_tools: [\"history\"]\n  local:\n    url: \"http://gw:5000/mcp/local\"\n    transport: http\n    auth_type: bearer_token\n    auth_value: \"os.environ/T\"\n";
        assert_eq!(text, want);
        assert_eq!(litellm(&[], None), "mcp_servers: {}\n");
    }

    #[test]
    fn each_client_gets_its_own_form_and_a_place_for_the_token() {
        let loaded = loaded();
        let entries = entries(&loaded);
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let claude = json(&plain(&entries, Some("http"), Some("${T}")));
        let local = &claude["mcpServers"]["local"];
        assert_eq!((&local["type"], &local["url"]), (&json!("http"), &json!("http://gw:5000/mcp/local")));
        assert_eq!(local["headers"]["Authorization"], "Bearer ${T}");
        let open = json(&plain(&entries, None, None));
        assert_eq!(open["mcpServers"]["local"], json!({"url": "http://gw:5000/mcp/local"}));
        let asked = json(&vscode(&entries, Some("T"), false));
        assert_eq!(asked["inputs"][0]["password"], true);
        assert_eq!(asked["servers"]["local"]["headers"]["Authorization"], "Bearer ${input:mcp-token}");
        let env = json(&vscode(&entries, Some("T"), true));
        assert!(env.get("inputs").is_none());
        assert_eq!(env["servers"]["local"]["headers"]["Authorization"], "Bearer ${env:T}");
    }

    #[test]
    fn each_format_as_a_whole() {
        let loaded = loaded_of(
            r#"{"mcpServers": {
            "1e3": {"url": "https://u:planted@example.com/mcp?key=planted", "headers": {"X-Key": "planted"}},
            "No": {"command": "uvx"}, "a-b": {"command": "uvx"}, "a_b": {"command": "uvx"},
            "Söme Näme": {"command": "uvx", "env": {"TOKEN": "planted"}},
            "broken": {}, "off": {"command": "uvx", "disabled": true}}}"#,
        );
        let entries = entries(&loaded);
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["1e3", "a-b", "a_b", "no", "s-me-n-me"], "neither what is off nor what is broken");
        let (one, url) = (&entries[..1], "http://gw:5000/mcp/1e3");
        let headers = |value: &str| json!({"Authorization": format!("Bearer {value}")});
        for (text, key, want) in [
            (
                plain(one, Some("http"), Some("${T}")),
                "mcpServers",
                json!({"type": "http", "url": url, "headers": headers("${T}")}),
            ),
            (
                plain(one, None, Some("${env:T}")),
                "mcpServers",
                json!({"url": url, "headers": headers("${env:T}")}),
            ),
            (
                plain(one, Some("streamable-http"), None),
                "mcpServers",
                json!({"type": "streamable-http", "url": url}),
            ),
            (vscode(one, None, false), "servers", json!({"type": "http", "url": url})),
        ] {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ key: {"1e3": want} }));
        }
        let yaml = litellm(&entries, None);
        let keys: Vec<&str> =
            yaml.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
        assert_eq!(
            keys,
            ["  \"1e3\":", "  a_b:", "  a_b_:", "  \"no\":", "  s_me_n_me:"],
            "text, and no name twice"
        );
        for text in [yaml, plain(&entries, None, None), vscode(&entries, Some("T"), false)] {
            assert!(!text.contains("planted"), "{text}");
        }
    }

    #[test]
    fn a_base_is_a_url_that_paths_can_be_added_to() {
        assert_eq!(base_url("https://mcp.example.com/x/").as_deref(), Some("https://mcp.example.com/x"));
        assert_eq!(base_url("http://[::1]:5000").as_deref(), Some("http://[::1]:5000"));
        for bad in [
            "",
            "http://",
            "http:///x",
            "ftp://x",
            "https://me:planted@x",
            "http://x?a",
            "http://x#a",
            "http://x y",
            "http://x\"y",
        ] {
            assert_eq!(base_url(bad), None, "{bad}");
        }
        let given = |text: &str| {
            let nothing = BTreeMap::new();
            let file = Some(("s.conf", text.as_bytes()));
            settings::load(&settings::Input { file, env: &nothing, flags: &nothing })
                .settings
                .expect("settings")
        };
        assert_eq!(default_base(&given("")), "http://127.0.0.1:5000");
        assert_eq!(default_base(&given("[tls]\ncert_file = /c\nkey_file = /k\n")), "https://127.0.0.1:5000");
        assert_eq!(
            default_base(&given("[gateway]\npublic_url = https://mcp.example.com/\n")),
            "https://mcp.example.com"
        );
    }

    #[test]
    fn secrets_of_any_form_stay_behind() {
        let env = r#"pl"anted$one\"#;
        let file = json!({"mcpServers": {"c": {"command": "docker", "args": ["run", "-i", "--entrypoint", "${KEY}", "mcp/x", "--api-key", "planted-two", "--token=planted-three", "-e", "A=planted-four",
            "https://u:planted-five@example.com", "$HOME", "plain"]}}}).to_string();
        let (env, none) = (BTreeMap::from([("KEY".to_owned(), env.to_owned())]), Contents::new());
        let loaded = loaded_with(&file, &env, &none);
        let servers: Vec<&Server> = loaded.desired.as_ref().expect("servers").servers.values().collect();
        assert_eq!(servers.len(), 1, "{:?}", loaded.problems);
        let text = hidden(compose::text(&servers, &loaded.secrets).0, &loaded.secrets);
        assert!(!text.contains("anted") && text.contains("$$HOME") && text.contains("\"plain\""), "{text}");
    }

    #[test]
    fn no_secret_leaves_with_the_containers() {
        let loaded = loaded();
        let servers: Vec<&Server> =
            loaded.desired.as_ref().expect("servers").servers.values().filter(|s| s.enabled).collect();
        let text = hidden(compose::text(&servers, &loaded.secrets).0, &loaded.secrets);
        assert!(!text.contains("planted"), "{text}");
        for line in [
            "# left out, local: a local process",
            "  \"git-hub\":",
            "    image: \"mcp/github\"",
            "    environment: [\"TOKEN\"]",
            "    volumes: [\"data:/data:ro\"]",
            "    stdin_open: true",
            "  \"data\": {}",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }
}
