//! mcp.config.json, YAML and the panel document: never a panic, always the same answer, every
//! problem at a place of the file, no secret in any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use mcp_orchestrator::config::codes;
use mcp_orchestrator::config::load::{Contents, Input, Loaded, Needs, load, needs};
use mcp_orchestrator::config::settings::{self, Settings};
use mcp_orchestrator::model::fingerprint::HashKey;

use super::{PLANTED, contains, problems_are_sound};

/// Bytes read as JSON and as YAML; the reader finds out for itself whether it is a panel document.
pub(crate) fn check(bytes: &[u8]) {
    for file in ["/etc/mcp/mcp.config.json", "/etc/mcp/mcp.config.yaml"] {
        let wants = needs(file, bytes, env());
        let loaded = read(file, bytes, &wants);
        problems_are_sound(&loaded.problems, bytes);
        let usable = loaded.desired.is_some();
        assert!(usable || loaded.problems.iter().any(|p| p.is_error()), "{file}: unusable and no error");
        let shown = format!("{loaded:?}");
        // A value from a file or parameter may be plain; where it is shown that is said. Labels are shown.
        let said = loaded.problems.iter().any(|problem| problem.code == codes::SECRET_SHOWN);
        let known = said || contains(bytes, PLANTED) || contains(bytes, "label-file");
        assert!(known || !shown.contains(PLANTED), "{file}: {shown}");
        let again = read(file, bytes, &wants);
        assert_eq!(shown, format!("{again:?}"), "{file}: another answer");
        let Some(desired) = &loaded.desired else { continue };
        for id in desired.servers.keys() {
            assert!(!desired.broken.contains_key(id), "{file}: {id} is whole and broken");
            assert!(loaded.effective.contains_key(id), "{file}: {id} has no values");
        }
    }
}

fn read(file: &str, bytes: &[u8], wants: &Needs) -> Loaded {
    load(&Input {
        file,
        bytes,
        env: env(),
        files: &contents(&wants.files, "TOKEN="),
        credentials: &contents(&wants.credentials, ""),
        secrets_manager: &contents(&wants.secrets_manager, ""),
        ssm: &contents(&wants.ssm, ""),
        settings: default_settings(),
        key: &HashKey::new([7; 32]),
    })
}

/// Half of what is asked for is there.
fn contents(names: &BTreeSet<String>, prefix: &str) -> Contents {
    let content = |name: &String| match name.len() % 2 {
        0 => Ok(format!("{prefix}{PLANTED}\n")),
        _ => Err("no such file".to_owned()),
    };
    names.iter().map(|name| (name.clone(), content(name))).collect()
}

fn env() -> &'static BTreeMap<String, String> {
    static ENV: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    ENV.get_or_init(|| {
        let pairs = [("HOME", "/home/op"), ("DATA_DIR", "/srv/data"), ("EMPTY", "")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    })
}

fn default_settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let nothing = BTreeMap::new();
        let input = settings::Input { file: None, env: &nothing, flags: &nothing };
        settings::load(&input).settings.expect("the defaults are valid")
    })
}
