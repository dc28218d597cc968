//! What must hold for any bytes, one function a target: the fuzz targets, the mutation loop and the
//! replay in `tests/it/fuzz.rs` call the same ones. A function panics when a promise is broken.

pub(crate) mod config;
pub(crate) mod docker_run;
pub(crate) mod lines;
pub(crate) mod settings;
pub(crate) mod sse;

/// A check: panics when the bytes break a promise.
pub(crate) type Check = fn(&[u8]);

/// Every target by name.
pub(crate) const TARGETS: &[(&str, Check)] = &[
    ("config", config::check),
    ("settings", settings::check),
    ("docker_run", docker_run::check),
    ("lines", lines::check),
    ("sse", sse::check),
];

/// No message, place or hint may show this; it is the value of everything secret.
pub(crate) const PLANTED: &str = "planted-7f3a91bc";

/// Problems are well-formed and stand in the file.
pub(crate) fn problems_are_sound(problems: &[mcp_orchestrator::config::error::Problem], bytes: &[u8]) {
    use mcp_orchestrator::config::{codes, error};
    let text = String::from_utf8_lossy(bytes);
    let columns: Vec<usize> = text.split('\n').map(|line| line.chars().count() + 1).collect();
    for problem in problems {
        assert!(codes::code_docs().iter().any(|doc| doc.code == problem.code), "{problem}");
        assert!(!problem.message.is_empty() && !problem.message.ends_with('.'), "{problem}");
        if problem.place.line == 0 {
            continue;
        }
        let line = columns.get(problem.place.line as usize - 1);
        let columns = line.unwrap_or_else(|| panic!("no such line: {problem}"));
        assert!((1..=*columns).contains(&(problem.place.column as usize)), "no such column: {problem}");
    }
    let shown = error::render(problems);
    assert!(contains(bytes, PLANTED) || !shown.contains(PLANTED), "{shown}");
}

/// Whether the input itself says `text`.
pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
