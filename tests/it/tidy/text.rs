//! Reading Rust as text: literals blanked, words, `use` trees, functions.
//!
//! No parser: enough for rules about names and sizes, and it sees files that nothing compiles.

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Where `name` stands as a word; spaces in it match any white space. `whole`: it also ends there.
pub(super) fn words(code: &str, name: &str, whole: bool) -> Vec<usize> {
    let (bytes, name) = (code.as_bytes(), name.as_bytes());
    let mut found = Vec::new();
    for start in 0..bytes.len() {
        if (is_word(name.first()) && start > 0 && is_word(bytes.get(start - 1)))
            || bytes[start].is_ascii_whitespace()
        {
            continue;
        }
        let mut at = start;
        let fits = name.iter().all(|wanted| {
            if *wanted == b' ' {
                let from = at;
                while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                    at += 1;
                }
                return at > from;
            }
            at += 1;
            bytes.get(at - 1) == Some(wanted)
        });
        if fits && !(whole && is_word(name.last()) && is_word(bytes.get(at))) {
            found.push(start);
        }
    }
    found
}

/// Every path that begins with `root` (`crate::`), groups taken apart, two segments each.
pub(super) fn named(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for offset in words(code, root, false) {
        let mut paths = Vec::new();
        let mut rest = &code[offset + root.len()..];
        tree(&mut rest, "", &mut paths);
        found.extend(
            paths.into_iter().map(|path| (offset, path.split("::").take(2).collect::<Vec<_>>().join("::"))),
        );
    }
    found
}

/// Reads one tree of a `use`, leaving `rest` behind it.
fn tree(rest: &mut &str, prefix: &str, paths: &mut Vec<String>) {
    *rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('{') {
        *rest = inner;
        loop {
            *rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if rest.is_empty() || rest.starts_with('}') {
                *rest = rest.get(1..).unwrap_or_default();
                return;
            }
            let before = rest.len();
            tree(rest, prefix, paths);
            if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
                *rest = renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            }
            if rest.len() == before {
                *rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
    *rest = &rest[name.len()..];
    let path = if prefix.is_empty() { name } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::").map(str::trim_start) {
        Some(deeper)
            if deeper.starts_with(|c: char| c.is_alphabetic() || c == '{' || c == '_' || c == '*') =>
        {
            *rest = deeper;
            tree(rest, &path, paths);
        }
        _ if path.is_empty() => {}
        _ => paths.push(path),
    }
}

/// Functions with bodies: where, name, lines.
pub(super) fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for offset in words(code, "fn ", false) {
        let rest = &code[offset..];
        let name: String =
            rest[2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        let mut depth = 0_usize;
        let mut braces = 0_usize;
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                b';' if depth == 0 && braces == 0 => break,
                b'{' => braces += 1,
                b'}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 {
                        found.push((offset, name, rest[..at].matches('\n').count() + 1));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// The text with comments, strings and characters turned into spaces; lines stay where they are.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            out.push(if bytes[at].is_ascii() { bytes[at] } else { b'_' });
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

/// The end of the comment or literal that begins at `at`; `at` when none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let until = |from: usize, stop: &[u8]| {
        let found = rest[from..].windows(stop.len()).position(|window| window == stop);
        found.map_or(bytes.len(), |place| at + from + place + stop.len())
    };
    if rest.starts_with(b"//") {
        return rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |place| at + place);
    }
    if rest.starts_with(b"/*") {
        return until(2, b"*/");
    }
    let fresh = at == 0 || !is_word(bytes.get(at - 1)) || matches!(bytes[at - 1], b'b' | b'c');
    if rest[0] == b'r' && fresh && matches!(rest.get(1), Some(b'"' | b'#')) {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            return until(2 + hashes, &[b"\"".as_slice(), &b"#".repeat(hashes)].concat());
        }
    }
    let quote = rest[0];
    // A lifetime has no closing quote: `'a'` and `'\n'` are characters, `'a` is none.
    let character = quote == b'\''
        && (rest.get(1) == Some(&b'\\')
            || rest.iter().take(6).skip(2).any(|byte| *byte == b'\'') && !is_lifetime(rest));
    if quote != b'"' && !character {
        return at;
    }
    let mut end = 1;
    while end < rest.len() && rest[end] != quote {
        end += if rest[end] == b'\\' { 2 } else { 1 };
    }
    at + (end + 1).min(rest.len())
}

fn is_lifetime(rest: &[u8]) -> bool {
    is_word(rest.get(1)) && rest.get(2) != Some(&b'\'')
}
