//! settings.conf: never a panic, every problem at a place of the file, settings exactly when there
//! is no error, the password in none of it.

use std::collections::BTreeMap;

use mcp_orchestrator::config::settings::{Input, load};

use super::{PLANTED, contains, problems_are_sound};

/// Bytes as the file, and the same bytes as the value of a variable and of a flag.
pub(crate) fn check(bytes: &[u8]) {
    let planted = pair("MCP_ORCHESTRATOR__DASHBOARD__PASSWORD", PLANTED);
    one(&Input { file: Some(("settings.conf", bytes)), env: &planted, flags: &BTreeMap::new() }, bytes);
    let text = String::from_utf8_lossy(bytes);
    let (name, value) = text.split_once('=').unwrap_or(("DASHBOARD__PORT", &text));
    let env = pair(&format!("MCP_ORCHESTRATOR__{name}"), value);
    // Flags are our own: only their values are anybody's.
    one(&Input { file: None, env: &env, flags: &pair("dashboard.port", value) }, bytes);
}

fn one(input: &Input<'_>, bytes: &[u8]) {
    let loaded = load(input);
    problems_are_sound(&loaded.problems, bytes);
    let good = !loaded.problems.iter().any(|problem| problem.is_error());
    assert_eq!(good, loaded.settings.is_some(), "{:?}", loaded.problems);
    let shown = format!("{loaded:?}");
    assert!(contains(bytes, PLANTED) || !shown.contains(PLANTED), "{shown}");
}

fn pair(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}
