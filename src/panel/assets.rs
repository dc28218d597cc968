//! Style, script and icon, from this binary, under names that change with their content.
//!
//! Must never name another host.

use crate::model::fingerprint::sha256_hex;
use crate::panel::squeeze;
use bytes::Bytes;
use std::sync::LazyLock;

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Its name: changes with its content, so that it may be kept for ever.
    pub name: String,
    /// Its media type.
    pub kind: &'static str,
    /// Its content.
    pub text: String,
    /// The same compressed.
    pub small: Bytes,
    /// Its digest as pages name it, so that nothing else is taken for it.
    pub integrity: String,
}

fn asset(stem: &str, extension: &str, kind: &'static str, text: &'static str) -> Asset {
    use sha2::Digest as _;
    let text = squeezed(text);
    let name = format!("{stem}-{}.{extension}", sha256_hex(&text, 12));
    let digest = sha2::Sha256::digest(text.as_bytes());
    let integrity = format!("sha256-{}", crate::mcp::base64::encode(digest.as_slice()));
    let small = squeeze::gzip(text.as_bytes(), true);
    Asset { name, kind, text, small, integrity }
}

/// Without what only its writers need: indents, and lines that are comments.
fn squeezed(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The style.
pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("panel", "css", "text/css; charset=utf-8", include_str!("assets/panel.css")));
/// The script.
pub static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("panel", "js", "text/javascript; charset=utf-8", include_str!("assets/panel.js")));
/// What pages that write have as well.
pub static EDITOR: LazyLock<Asset> =
    LazyLock::new(|| asset("edit", "js", "text/javascript; charset=utf-8", include_str!("assets/edit.js")));
/// The icon.
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| asset("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// A file by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Asset> {
    [&*STYLE, &*SCRIPT, &*EDITOR, &*ICON].into_iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::{EDITOR, ICON, SCRIPT, STYLE, find};

    /// What the first look at a page may weigh beside the page itself.
    const BYTES_MAX: usize = 52 * 1024;

    #[test]
    fn assets_are_small_complete_and_of_this_host() {
        let first = [&*STYLE, &*SCRIPT, &*ICON];
        assert!(first.iter().map(|asset| asset.text.len()).sum::<usize>() < BYTES_MAX);
        for asset in first.into_iter().chain([&*EDITOR]) {
            assert!(find(&asset.name).is_some_and(|found| found.text == asset.text));
            let foreign = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("://") && !foreign.contains("@import"), "{}", asset.name);
        }
        assert!(find("panel.css").is_none() && find("../mod.rs").is_none());
    }

    #[test]
    fn the_script_does_nothing_that_the_policy_forbids() {
        for word in
            ["eval(", "innerHTML", "outerHTML", "insertAdjacentHTML", "new Function", "document.write"]
        {
            assert!(!SCRIPT.text.contains(word) && !EDITOR.text.contains(word), "{word}");
        }
    }
}
