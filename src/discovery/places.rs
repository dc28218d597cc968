//! Where clients keep their settings, from a user's home.
//!
//! Must never look whether they are there.

use std::collections::BTreeMap;

/// Whose customs the places follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// XDG directories.
    Linux,
    /// `~/Library`.
    Mac,
}

/// Editors that keep settings as VS Code does.
const CODES: [&str; 3] = ["Code", "Code - Insiders", "VSCodium"];

/// Files of every known client, whether they are there or not; none without a home.
#[must_use]
pub fn files(env: &BTreeMap<String, String>, platform: Platform) -> Vec<String> {
    let var =
        |name: &str| env.get(name).filter(|value| value.starts_with('/')).map(|v| v.trim_end_matches('/'));
    let Some(home) = var("HOME") else { return Vec::new() };
    let config = match platform {
        Platform::Linux => var("XDG_CONFIG_HOME").map_or_else(|| format!("{home}/.config"), str::to_owned),
        Platform::Mac => format!("{home}/Library/Application Support"),
    };
    let mut found = vec![
        format!("{config}/Claude/claude_desktop_config.json"),
        format!("{home}/.claude.json"),
        format!("{home}/.cursor/mcp.json"),
        format!("{home}/.codeium/windsurf/mcp_config.json"),
        format!("{home}/.gemini/settings.json"),
        format!("{}/mcp-config.json", var("COPILOT_HOME").unwrap_or(&format!("{home}/.copilot"))),
        format!("{home}/.vscode-server/data/User/mcp.json"),
        format!("{home}/.vscode-server/data/Machine/settings.json"),
    ];
    let zed = if platform == Platform::Linux { config.clone() } else { format!("{home}/.config") };
    found.push(format!("{zed}/zed/settings.json"));
    let codex = var("CODEX_HOME").map_or_else(|| format!("{home}/.codex"), str::to_owned);
    found.push(format!("{codex}/config.toml"));
    for code in CODES {
        found.push(format!("{config}/{code}/User/mcp.json"));
        found.push(format!("{config}/{code}/User/settings.json"));
        found.push(format!(
            "{config}/{code}/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
        ));
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::{Platform, files};
    use crate::discovery::candidate;
    use std::collections::BTreeMap;

    #[test]
    fn every_place_is_a_candidate() {
        let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for platform in [Platform::Linux, Platform::Mac] {
            let found = files(&env(&[("HOME", "/home/ann/")]), platform);
            assert!(found.len() > 15 && found.iter().all(|path| path.starts_with("/home/ann/")), "{found:?}");
            for path in &found {
                assert!(candidate(path).is_some(), "{path}");
            }
        }
        let moved = env(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]);
        assert!(files(&moved, Platform::Linux).contains(&"/c/zed/settings.json".to_owned()));
        assert!(files(&env(&[]), Platform::Linux).is_empty());
        assert!(files(&env(&[("HOME", "relative")]), Platform::Linux).is_empty());
    }
}
