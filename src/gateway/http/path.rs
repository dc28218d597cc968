//! Paths of requests, decoded once, so that nobody decodes them again.
//!
//! Must never let an escape become a separator: what a load balancer's rule matched must be what
//! is served here.

/// The path without escapes; `None` when it had none.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decoded(path: &str) -> Result<Option<Box<str>>, &'static str> {
    let plain = !path.contains('%');
    let text = if plain { None } else { Some(unescape(path)?) };
    let steps = text.as_deref().unwrap_or(path);
    if steps.split('/').any(|step| matches!(step, "." | "..")) {
        return Err("it has a step to itself or up");
    }
    Ok(text.map(String::into_boxed_str))
}

fn unescape(path: &str) -> Result<String, &'static str> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err("an escape is broken") };
        let byte = u8::try_from(high * 16 + low).unwrap_or_default();
        if matches!(byte, b'/' | b'\\') || byte.is_ascii_control() {
            return Err("an escape hides a separator or a control character");
        }
        out.push(byte);
    }
    String::from_utf8(out).map_err(|_bytes| "its escapes are not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn escapes_are_decoded_once_and_never_become_separators() {
        assert_eq!(decoded("/mcp/time"), Ok(None));
        for (path, text) in
            [("/mcp/%74ime", "/mcp/time"), ("/a%20b", "/a b"), ("/%2541", "/%41"), ("/%C3%A4", "/ä")]
        {
            assert_eq!(decoded(path).unwrap().as_deref(), Some(text));
        }
        for path in
            ["/%", "/%4", "/%zz", "/a%2fb", "/a%5Cb", "/%00", "/%0a", "/%ff", "/a/../b", "/%2e%2e/b", "/."]
        {
            assert!(decoded(path).is_err(), "{path}");
        }
    }
}
