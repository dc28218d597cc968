//! The configuration against its fixtures, and what holds for any input.
//!
//! `tests/fixtures/config/NAME.json|yaml|conf` is loaded in a fixed world; what is wrong must be
//! `NAME.error.snap`, what it means `NAME.normalized.snap`. `UPDATE_SNAPSHOTS=1` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mcp_orchestrator::config::error::{Problem, render};
use mcp_orchestrator::config::load::{Contents, Input, Loaded, load, needs};
use mcp_orchestrator::config::settings::{self, PolicyWorld, Settings};
use mcp_orchestrator::config::{codes, schema};
use mcp_orchestrator::model::fingerprint::{HashKey, Likeness};
use mcp_orchestrator::model::id::ServerId;
use mcp_orchestrator::model::server::{Server, ServerKind};
use proptest::prelude::*;

/// Values planted as secrets; none may show in any output.
const PLANTED: &[&str] = &[
    "planted-env-7f3a",
    "planted-file-91bc",
    "planted-credential-44de",
    "planted-manager-c0ff",
    "planted-ssm-1234",
    "planted-literal-5678",
];

fn fixtures() -> PathBuf {
    root().join("tests/fixtures/config")
}

/// The project's directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn contents(pairs: &[(&str, &str)]) -> Contents {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Ok((*value).to_owned()))).collect()
}

fn default_settings() -> Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    let read = || read_settings(None).settings.expect("defaults are valid");
    SETTINGS.get_or_init(read).clone()
}

fn read_settings(file: Option<&[u8]>) -> settings::Loaded {
    settings::load(&settings::Input {
        file: file.map(|bytes| ("settings.conf", bytes)),
        env: &BTreeMap::new(),
        flags: &BTreeMap::new(),
    })
}

/// Loads `bytes` as `/etc/mcp/NAME` in the world of the fixtures.
fn load_in(name: &str, bytes: &[u8], key: &HashKey, env: &BTreeMap<String, String>) -> Loaded {
    let mut files = contents(&[
        ("/run/secrets/token", "planted-file-91bc\n"),
        ("/etc/mcp/search.env", "SEARCH_LEVEL=info\nSEARCH_TOKEN=planted-literal-5678\n"),
        ("/etc/mcp/extra.labels", "team=search\n"),
    ]);
    files.insert("/etc/mcp/missing.env".into(), Err("no such file".into()));
    let credentials = contents(&[("api", "planted-credential-44de")]);
    let secrets_manager = contents(&[("prod/mcp", "{\"token\": \"planted-manager-c0ff\", \"port\": 9}")]);
    let mut ssm = contents(&[("/mcp/key", "planted-ssm-1234")]);
    ssm.insert("/mcp/denied".into(), Err("access denied".into()));
    load(&Input {
        file: &format!("/etc/mcp/{name}"),
        bytes,
        env,
        files: &files,
        credentials: &credentials,
        secrets_manager: &secrets_manager,
        ssm: &ssm,
        settings: &default_settings(),
        key,
    })
}

fn world_env() -> BTreeMap<String, String> {
    map(&[
        ("HOME", "/home/op"),
        ("GITHUB_TOKEN", "planted-env-7f3a"),
        ("DATA_DIR", "/srv/data"),
        ("EMPTY", ""),
    ])
}

pub(crate) fn load_fixture(name: &str, bytes: &[u8]) -> Loaded {
    load_in(name, bytes, &HashKey::new([7; 32]), &world_env())
}

/// Everything that is meant, without secrets, in a stable text.
fn normalized(loaded: &Loaded) -> String {
    let mut out = String::new();
    let Some(desired) = &loaded.desired else {
        return "no usable configuration\n".to_owned();
    };
    for (id, server) in &desired.servers {
        describe(&mut out, server);
        for value in loaded.effective.get(id).into_iter().flatten() {
            let place =
                value.place.as_ref().map(|place| format!(" at line {}", place.line)).unwrap_or_default();
            let _ = writeln!(out, "    {} = {} ({:?}{place})", value.key, value.value, value.origin);
        }
        if let Some(kept) = loaded.kept.get(id) {
            let _ = writeln!(out, "  kept: {kept}");
        }
    }
    for (id, why) in &desired.broken {
        let _ = writeln!(out, "{id}: BROKEN {why}");
    }
    for why in &desired.nameless {
        let _ = writeln!(out, "NAMELESS {why}");
    }
    for secret in &loaded.secrets {
        let _ = writeln!(out, "hides {}", secret.reference);
    }
    out
}

fn describe(out: &mut String, server: &Server) {
    let _ = writeln!(
        out,
        "{}: name {:?}, section {:?}, enabled {}",
        server.id,
        server.name,
        server.section.as_ref().map(|s| s.as_str()),
        server.enabled
    );
    match &server.kind {
        ServerKind::Container(decl) => {
            let mut spec = serde_json::to_value(&decl.spec).expect("a spec is JSON");
            let env = spec.get_mut("env").and_then(|env| env.as_array_mut());
            for variable in env.into_iter().flatten() {
                if variable.get("value").is_some() {
                    variable["value"] = "[redacted]".into();
                }
            }
            let _ = writeln!(out, "  container: {spec}");
            let _ = writeln!(
                out,
                "  interactive {}, mcp port {:?}, remove volumes {}",
                decl.interactive, decl.mcp_port, decl.remove_volumes
            );
            let _ = writeln!(out, "  fingerprint {}", decl.fingerprint);
        }
        ServerKind::Process(decl) => {
            let names: Vec<&String> = decl.env.keys().collect();
            let _ = writeln!(
                out,
                "  process: {} {} args, env {names:?}, cwd {:?}",
                decl.command,
                decl.args.len(),
                decl.cwd
            );
            let _ = writeln!(out, "  fingerprint {}", decl.fingerprint);
        }
        ServerKind::Remote(decl) => {
            let names: Vec<&String> = decl.headers.keys().collect();
            let _ = writeln!(out, "  remote: {:?}, headers {names:?}", decl.kind);
            let _ = writeln!(out, "  fingerprint {}", decl.fingerprint);
        }
    }
    let _ = writeln!(
        out,
        "  transport {:?}, route {:?}, http path {:?}, pull {:?}, priority {}",
        server.transport, server.route, server.http_path, server.pull, server.priority
    );
    let _ = writeln!(out, "  gateway because {:?}", server.gateway_reasons);
    let _ = writeln!(out, "  {:?}", server.restart);
    let _ = writeln!(out, "  {:?}", server.health);
    if !server.traffic.is_open() {
        let _ = writeln!(out, "  {:?}", server.traffic);
    }
    for note in &server.notes {
        let _ = writeln!(out, "  note: {note}");
    }
}

/// Compares `text` with a file beside the fixture; an empty text wants no file.
fn compare(path: &Path, text: &str, differing: &mut Vec<String>) {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let known = std::fs::read_to_string(path).unwrap_or_default();
    if known == text {
        return;
    }
    if update {
        if text.is_empty() {
            std::fs::remove_file(path).expect("an old snapshot goes");
        } else {
            std::fs::write(path, text).expect("a snapshot is written");
        }
        return;
    }
    differing.push(format!("--- {}\n{known}+++ now\n{text}", path.display()));
}

fn fixture_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .expect("the fixtures are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext != "snap"))
        .collect();
    files.sort();
    files
}

#[test]
fn fixtures_mean_what_their_snapshots_say() {
    let mut differing = Vec::new();
    let files = fixture_files();
    assert!(files.len() >= 40, "{} fixtures", files.len());
    for path in &files {
        let bytes = std::fs::read(path).expect("a fixture is read");
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let (problems, meaning) = if name.ends_with(".conf") {
            let loaded = read_settings(Some(&bytes));
            let meaning = match &loaded.settings {
                Some(_) => changed(&loaded),
                None => "no usable settings\n".to_owned(),
            };
            (loaded.problems, meaning)
        } else {
            let loaded = load_fixture(name, &bytes);
            (loaded.problems.clone(), normalized(&loaded))
        };
        for problem in &problems {
            assert_place(problem, &bytes);
        }
        let errors = render(&problems);
        for planted in PLANTED {
            let shown = [&errors, &meaning].iter().any(|text| text.contains(planted));
            assert!(!shown, "{name} shows {planted}");
        }
        compare(&path.with_extension("error.snap"), &errors, &mut differing);
        let normal = path.with_extension("normalized.snap");
        compare(&normal, &meaning, &mut differing);
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Settings that differ from their defaults.
fn changed(loaded: &settings::Loaded) -> String {
    let mut out = String::new();
    for (name, row) in &loaded.effective {
        if row.layer != settings::Layer::Default {
            let _ = writeln!(out, "{name} = {:?} ({})", row.value, row.place);
        }
    }
    let _ = writeln!(out, "{:?}", loaded.settings);
    out
}

fn assert_place(problem: &Problem, bytes: &[u8]) {
    assert!(codes::code_docs().iter().any(|doc| doc.code == problem.code));
    assert!(!problem.is_error() || problem.hint.is_some(), "nothing says what to do: {problem}");
    if problem.place.line == 0 {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').collect();
    let line = lines.get(problem.place.line as usize - 1);
    let line = line.unwrap_or_else(|| panic!("no such line: {problem}"));
    assert!(problem.place.column as usize <= line.chars().count() + 1, "no such column: {problem}");
}

#[test]
fn planted_secrets_stay_hidden_in_debug() {
    let bytes = std::fs::read(fixtures().join("references.json")).expect("the fixture");
    let loaded = load_fixture("references.json", &bytes);
    let shown = format!("{loaded:?}");
    for planted in PLANTED {
        assert!(!shown.contains(planted), "{planted}");
    }
    assert!(loaded.secrets.iter().any(|s| s.value.expose() == "planted-ssm-1234"));
}

#[test]
fn a_secret_where_it_would_be_shown_is_refused_and_a_plain_value_warned_of() {
    let entry = |args: &str| {
        let text = format!(r#"{{"mcpServers":{{"a":{{"command":"docker","args":["run",{args}]}}}}}}"#);
        let loaded = load_fixture("a.json", text.as_bytes());
        let errors = loaded.problems.iter().filter(|problem| problem.is_error()).count();
        let codes: Vec<&str> = loaded.problems.iter().map(|problem| problem.code).collect();
        let whole = loaded.desired.as_ref().is_some_and(|desired| !desired.servers.is_empty());
        assert!(!render(&loaded.problems).contains("planted"), "{:?}", loaded.problems);
        assert!(whole || !format!("{loaded:?}").contains("planted"), "{loaded:?}");
        (whole, errors, codes.join(" "))
    };
    for hidden in [
        "-e T=${credential:api} img",
        "img --key=${credential:api}",
        "-e T=${secretsmanager:prod/mcp#token} img",
    ] {
        let args: Vec<String> = hidden.split(' ').map(|word| format!("\"{word}\"")).collect();
        assert_eq!(entry(&format!("\"-i\",{}", args.join(","))), (true, 0, String::new()), "{hidden}");
    }
    for shown in ["\"-l\",\"t=${credential:api}\"", "\"--hostname\",\"${secretsmanager:prod/mcp#token}\""] {
        assert_eq!(entry(&format!("\"-i\",{shown},\"img\"")), (false, 1, "MCPO-C034".to_owned()), "{shown}");
    }
    let plain = entry("\"-i\",\"-l\",\"t=${ssm:/mcp/key}\",\"img\"");
    assert_eq!(plain, (true, 0, "MCPO-C034".to_owned()), "a parameter may be plain");
}

#[test]
fn needs_name_everything_a_file_refers_to() {
    let bytes = std::fs::read(fixtures().join("references.json")).expect("the fixture");
    let needs = needs("/etc/mcp/references.json", &bytes, &world_env());
    let files: Vec<&str> = needs.files.iter().map(String::as_str).collect();
    assert_eq!(files, ["/etc/mcp/search.env", "/run/secrets/token"]);
    assert!(needs.credentials.contains("api"));
    assert!(needs.secrets_manager.contains("prod/mcp"));
    assert!(needs.ssm.contains("/mcp/key"));
}

fn container_print(
    text: &str,
    key: u8,
    env: &BTreeMap<String, String>,
) -> mcp_orchestrator::model::fingerprint::Fingerprint {
    let loaded = load_in("a.json", text.as_bytes(), &HashKey::new([key; 32]), env);
    let desired = loaded.desired.expect("a configuration");
    let server = &desired.servers.get(&ServerId::new("a").expect("an id"));
    let server = server.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    match &server.kind {
        ServerKind::Container(decl) => decl.fingerprint.clone(),
        ServerKind::Process(decl) => decl.fingerprint.clone(),
        ServerKind::Remote(decl) => decl.fingerprint.clone(),
    }
}

fn line(args: &str, env: &str) -> String {
    format!(r#"{{"mcpServers":{{"a":{{"command":"docker","args":[{args}],"env":{{{env}}}}}}}}}"#)
}

#[test]
fn fingerprints_tell_secrets_from_shape() {
    let world = world_env();
    let other = map(&[("GITHUB_TOKEN", "another-value-0000")]);
    let args = r#""run","-i","-e","T=${GITHUB_TOKEN}","img:1","--key","${GITHUB_TOKEN}""#;
    let made = container_print(&line(args, r#""X":"1""#), 1, &world);
    let same = container_print(&line(args, r#""X":"1""#), 1, &world);
    assert_eq!(same.likeness(&made), Likeness::Same);
    let value = container_print(&line(args, r#""X":"2""#), 1, &world);
    assert_eq!(value.likeness(&made), Likeness::SecretsChanged);
    let secret = container_print(&line(args, r#""X":"1""#), 1, &other);
    assert_eq!(secret.likeness(&made), Likeness::SecretsChanged);
    let lost_key = container_print(&line(args, r#""X":"1""#), 2, &other);
    assert_eq!(lost_key.likeness(&made), Likeness::SameButSecretsUnknown);
    let shape = container_print(&line(&args.replace("img:1", "img:2"), r#""X":"1""#), 1, &world);
    assert_eq!(shape.likeness(&made), Likeness::Changed);
}

#[test]
fn fingerprints_do_not_depend_on_spelling() {
    let world = world_env();
    let one = line(r#""run","-i","--env","A=1","-e","B=2","-m","1g","img""#, "");
    let two = line(r#""run","-e","B=2","--interactive","-eA=1","--memory=1024m","img""#, "");
    let (one, two) = (container_print(&one, 1, &world), container_print(&two, 1, &world));
    assert_eq!(one.likeness(&two), Likeness::Same);
}

#[test]
fn a_bad_entry_stops_no_other() {
    let text = r#"{"mcpServers": {
        "good": {"command": "docker", "args": ["run", "-i", "img"]},
        "bad": {"command": "docker", "args": ["run", "--no-such-flag", "img"]},
        "worse": 5,
        "unset": {"command": "npx", "args": ["${NO_SUCH_VARIABLE}"]}
    }}"#;
    let loaded = load_fixture("a.json", text.as_bytes());
    let desired = loaded.desired.expect("a configuration");
    let ids: Vec<&str> = desired.servers.keys().map(ServerId::as_str).collect();
    let broken: Vec<&str> = desired.broken.keys().map(ServerId::as_str).collect();
    assert_eq!(ids, ["good"]);
    assert_eq!(broken, ["bad", "unset", "worse"]);
}

#[test]
fn empty_files_are_empty_and_broken_ones_are_nothing() {
    for (name, text) in [
        ("a.json", ""),
        ("a.json", "{}"),
        ("a.json", "\u{feff}{\"mcpServers\": {}}"),
        ("a.yaml", ""),
        ("a.yaml", "servers:\n"),
    ] {
        let loaded = load_fixture(name, text.as_bytes());
        let desired = loaded.desired.unwrap_or_else(|| panic!("{name} {text:?}"));
        assert!(desired.servers.is_empty() && desired.broken.is_empty());
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    }
    for (name, text) in [
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", "{\"mcpServer\": {}}"),
        ("a.json", "{\"mcpServers\": []}"),
        ("a.json", "{\"mcpServers\": {}, \"mcpServers\": {}}"),
        ("a.yaml", "a: [1\n"),
    ] {
        let loaded = load_fixture(name, text.as_bytes());
        assert!(loaded.desired.is_none(), "{name} {text:?}");
        assert!(loaded.problems.iter().any(Problem::is_error));
    }
}

#[test]
fn the_shipped_files_are_good_and_current() {
    let path = root().join("etc/mcp-orchestrator/settings.conf");
    let wanted = settings::render::settings_conf();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &wanted).expect("settings.conf is written");
    }
    let shipped = std::fs::read_to_string(&path).expect("settings.conf is there");
    assert_eq!(shipped, wanted, "regenerate with UPDATE_SNAPSHOTS=1");
    let loaded = read_settings(Some(shipped.as_bytes()));
    assert_eq!(loaded.settings, Some(default_settings()));
    let uncommented: String = wanted
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let loaded = read_settings(Some(uncommented.as_bytes()));
    assert!(loaded.problems.is_empty(), "{}", render(&loaded.problems));
    let config = root().join("etc/mcp-orchestrator/mcp.config.json");
    let bytes = std::fs::read(config).expect("mcp.config.json is there");
    let loaded = load_fixture("mcp.config.json", &bytes);
    assert!(loaded.problems.is_empty(), "{}", render(&loaded.problems));
    let desired = loaded.desired.expect("a configuration");
    let ids: Vec<&str> = desired.servers.keys().map(ServerId::as_str).collect();
    assert_eq!(ids, ["example-mcp-server"]);
}

#[test]
fn bad_environment_values_are_named_as_such() {
    let env = map(&[
        ("MCP_ORCHESTRATOR__DASHBOARD__PORT", "http"),
        ("MCP_ORCHESTRATOR__DASHBORD__PORT", "1"),
        ("MCP_ORCHESTRATOR_OTHER", "x"),
    ]);
    let loaded = settings::load(&settings::Input { file: None, env: &env, flags: &BTreeMap::new() });
    assert!(loaded.settings.is_none());
    assert_eq!(
        render(&loaded.problems),
        "environment variable MCP_ORCHESTRATOR__DASHBOARD__PORT: error[MCPO-C014]: [dashboard] port: \
         'http' is no whole number from 1 to 65535, a TCP port\n  \
         hint: takes: port, 1 to 65535; default: 5000\n\
         environment variable MCP_ORCHESTRATOR__DASHBORD__PORT: error[MCPO-C016]: it has our prefix \
         and names no setting\n  hint: did you mean MCP_ORCHESTRATOR__DASHBOARD__PORT?\n\
         2 errors, 0 warnings\n"
    );
}

#[test]
fn stacks_are_told_apart() {
    let settings = default_settings();
    let of = |uid, path| settings.stack(uid, path).expect("a stack").to_string();
    assert_eq!(of(0, settings::INSTALLED_CONFIG), "default");
    assert_ne!(of(0, "/home/a/mcp.config.json"), of(1, "/home/a/mcp.config.json"));
    assert_ne!(of(0, "/home/a/mcp.config.json"), of(0, "/home/b/mcp.config.json"));
    assert!(of(0, "/x").starts_with("dev-") && of(0, "/x").len() == 12);
}

#[test]
fn what_is_left_open_is_resolved_with_the_world() {
    let text = "[aws]\nlistener_arn = arn:x\n[dashboard]\npassword = long enough\n[gateway]\nport = 7000\n";
    let said = read_settings(Some(text.as_bytes())).settings.expect("valid");
    let shipped = default_settings();
    assert!(said.balancer_on() && !shipped.balancer_on());
    let world = |on| PolicyWorld {
        stack: said.stack(0, settings::INSTALLED_CONFIG).expect("a stack"),
        balancer_on: on,
        allow_mass_delete: true,
    };
    let policy = said.policy(&world(true));
    assert_eq!(policy.host, "0.0.0.0");
    assert_eq!(said.policy(&world(false)).host, "127.0.0.1");
    assert_eq!(policy.ports.to_string(), "8000-9000");
    assert!(policy.allow_mass_delete);
    assert_eq!(policy.balancer.shared_port.map(|port| port.get()), Some(7000));
}

#[test]
fn the_schema_knows_every_key_the_reader_knows() {
    let schema = schema::schema();
    let entry = &schema["$defs"]["entry"]["properties"];
    for name in ["command", "args", "env", "url", "headers", "disabled"] {
        assert!(entry[name].is_object(), "{name}");
    }
    let block = &entry["orchestrator"]["properties"];
    for name in ["transport", "containerPort", "allow", "health", "priority", "rateLimit"] {
        assert!(block[name].is_object(), "{name}");
    }
    assert!(block["env"].is_null());
}

/// Text that is nearly a configuration.
fn near_config() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(":".to_owned()),
        Just(",".to_owned()),
        Just("\n".to_owned()),
        Just("- ".to_owned()),
        Just("${A:-${B}}".to_owned()),
        Just("\u{feff}é".to_owned()),
        Just("null".to_owned()),
        Just("\"command\": \"docker\", \"args\": [\"run\", \"-i\", \"x\"]".to_owned()),
        Just("{\"mcpServers\": {\"a\": {".to_owned()),
        Just("\"orchestrator\": {\"globalDefaults\": {\"health\": 1}}".to_owned()),
        Just("configSchemaVersion: 1\nsections:\n  - servers:\n".to_owned()),
        "\"[a-z]{0,4}\"",
        "[ -~]{0,6}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for name in ["a.json", "a.yaml"] {
            for problem in load_fixture(name, &bytes).problems {
                assert_place(&problem, &bytes);
            }
        }
        for problem in read_settings(Some(&bytes)).problems {
            assert_place(&problem, &bytes);
        }
    }

    #[test]
    fn nearly_good_text(text in near_config()) {
        for name in ["a.json", "a.yaml"] {
            for problem in load_fixture(name, text.as_bytes()).problems {
                assert_place(&problem, text.as_bytes());
            }
        }
        for problem in read_settings(Some(text.as_bytes())).problems {
            assert_place(&problem, text.as_bytes());
        }
    }

    #[test]
    fn the_highest_layer_decides(
        file in proptest::option::of(1_u16..),
        env in proptest::option::of(1_u16..),
        flag in proptest::option::of(1_u16..),
    ) {
        let text = file.map(|port| format!("[dashboard]\nport = {port}\n"));
        let variable = "MCP_ORCHESTRATOR__DASHBOARD__PORT".to_owned();
        let env_map: BTreeMap<String, String> =
            env.map(|port| (variable, port.to_string())).into_iter().collect();
        let flags: BTreeMap<String, String> =
            flag.map(|port| ("dashboard.port".to_owned(), port.to_string())).into_iter().collect();
        let loaded = settings::load(&settings::Input {
            file: text.as_deref().map(|text| ("s.conf", text.as_bytes())),
            env: &env_map,
            flags: &flags,
        });
        let wanted = flag.or(env).or(file).unwrap_or(5000);
        prop_assert_eq!(loaded.settings.expect("valid").dashboard.port.get(), wanted);
    }

    #[test]
    fn inheritance_takes_the_nearest_level(
        levels in proptest::array::uniform3(proptest::option::of(1_u32..1000)),
    ) {
        let block = |value: Option<u32>| match value {
            Some(value) => format!("{{\"health\": {{\"interval\": {value}}}}}"),
            None => "{}".to_owned(),
        };
        let [global, section, own] = levels;
        let own_block = block(own).replacen('{', "{\"section\": \"s\"COMMA", 1);
        let own_block = own_block.replace("COMMA}", "}").replace("COMMA", ", ");
        let text = format!(
            "{{\"orchestrator\": {{\"globalDefaults\": {}, \"sections\": {{\"s\": {}}}}}, \
             \"mcpServers\": {{\"a\": {{\"command\": \"x\", \"orchestrator\": {own_block}}}}}}}",
            block(global), block(section)
        );
        let loaded = load_fixture("a.json", text.as_bytes());
        let desired = loaded.desired.expect("a configuration");
        let server = desired.servers.values().next().expect("the server");
        let wanted = own.or(section).or(global).unwrap_or(30);
        prop_assert_eq!(server.health.interval.0, u64::from(wanted) * 1000);
    }
}
