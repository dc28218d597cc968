//! Image references and platforms, checked and normalised as the client does.

/// Longest repository name with its registry.
const NAME_CHARS_MAX: usize = 255;

/// Longest tag.
const TAG_CHARS_MAX: usize = 128;

/// Shortest hexadecimal part of a digest.
const DIGEST_CHARS_MIN: usize = 32;

/// Checks `[registry[:port]/]name[:tag][@digest]`, or an image id.
pub(super) fn check_reference(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the image is empty".to_owned());
    }
    if let Some((name, _)) = text.split_once('=') {
        // Not shown whole: this is a variable that lost its -e more often than not.
        return Err(format!(
            "{name:?}=… stands where the image should, a flag such as -e may be missing before it"
        ));
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(format!("{text:?} has a malformed digest"));
    }
    if digest.is_none() && is_digest(text) && text.starts_with("sha256:") {
        return Ok(());
    }
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(format!("{text:?} has a malformed tag"));
    }
    let path = match name.split_once('/') {
        Some((domain, path)) if is_registry(domain) => path,
        _ => name,
    };
    if !path.split('/').all(is_component) {
        let hint = if path.chars().any(|c| c.is_ascii_uppercase()) {
            ": repository names are lower case"
        } else {
            ""
        };
        return Err(format!("{text:?} is not an image reference{hint}"));
    }
    if name.len() > NAME_CHARS_MAX {
        return Err(format!("the image's name has more than {NAME_CHARS_MAX} characters"));
    }
    Ok(())
}

/// A registry has a dot, a port or upper case in it, or is `localhost`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[') {
        return address.ends_with(']');
    }
    let marked = port.is_some()
        || host == "localhost"
        || host.contains('.')
        || host.bytes().any(|b| b.is_ascii_uppercase());
    marked
        && host.split('.').all(|label| {
            label.starts_with(|c: char| c.is_ascii_alphanumeric())
                && label.ends_with(|c: char| c.is_ascii_alphanumeric())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Lower case and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let allowed = |c: char| edge(c) || matches!(c, '.' | '_' | '-');
    let separators: Vec<&str> = text.split(edge).filter(|part| !part.is_empty()).collect();
    let joined =
        separators.iter().all(|part| matches!(*part, "." | "_" | "__") || part.chars().all(|c| c == '-'));
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(allowed) && joined
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_CHARS_MAX
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.'))
            && hex.len() >= DIGEST_CHARS_MIN
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Operating systems known by a name alone.
const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd"];

/// Architectures known by a name alone.
const ARCHITECTURES: &[&str] =
    &["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

/// `--platform`: `os/arch[/variant]`, or an architecture alone (of Linux).
pub(super) fn platform(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not of the form os/arch[/variant]");
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    if !parts.iter().all(word) {
        return Err(bad());
    }
    let (system, (architecture, mut variant)) = match parts.as_slice() {
        [alone] if SYSTEMS.contains(&alone.to_lowercase().as_str()) => {
            return Err(format!("{text:?} names no architecture; write {text}/amd64 or another"));
        }
        [alone] => ("linux".to_owned(), architecture(alone, "")),
        [system, arch] => (system.to_lowercase(), architecture(arch, "")),
        [system, arch, variant] => (system.to_lowercase(), architecture(arch, variant)),
        _ => return Err(bad()),
    };
    if parts.len() == 1 && !ARCHITECTURES.contains(&architecture.as_str()) {
        return Err(format!("{text:?} is neither an operating system nor an architecture"));
    }
    let system = if system == "macos" { "darwin".to_owned() } else { system };
    if parts.len() < 3 && architecture == "arm" && variant == "v7" {
        variant.clear();
    }
    if parts.len() == 3 && architecture == "arm64" && variant.is_empty() {
        "v8".clone_into(&mut variant);
    }
    Ok(if variant.is_empty() {
        format!("{system}/{architecture}")
    } else {
        format!("{system}/{architecture}/{variant}")
    })
}

/// Common names of architectures brought to one.
fn architecture(name: &str, variant: &str) -> (String, String) {
    let (name, variant) = (name.to_lowercase(), variant.to_lowercase());
    let (name, variant) = match (name.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (name, variant) => (name, variant),
    };
    (name.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for text in [
            "a",
            "a/b:1",
            "localhost/a",
            "host:5000/a/b:v1.2-x",
            "Host/a",
            "a__b/c--d",
            "a@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            "[::1]:5000/a",
            "sha256:0123456789012345678901234567890123456789012345678901234567890123",
        ] {
            assert_eq!(check_reference(text), Ok(()), "{text}");
        }
        for text in ["", "A", "a/B", "a:", "a:-x", "a@sha256:1", "a___b", "a..b", "-a", "a//b", "a b"] {
            assert!(check_reference(text).is_err(), "{text}");
        }
    }

    #[test]
    fn platforms() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm", "linux/arm"),
            ("Linux/arm/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm"),
        ] {
            assert_eq!(platform(text).as_deref(), Ok(normal), "{text}");
        }
        for text in ["", "foo", "linux", "linux//x", "a/b/c/d", "linux/*"] {
            assert!(platform(text).is_err(), "{text}");
        }
    }
}
