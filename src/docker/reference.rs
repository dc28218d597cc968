//! Image references as people write them, and as registries know them.
//!
//! `nginx` is `docker.io/library/nginx:latest`. The first part is a registry when it has a dot, a
//! colon or an upper-case letter, or is `localhost`; otherwise it belongs to Docker Hub. The grammar
//! is the distribution project's, which the engine and the docker CLI use.
//!
//! Must never look anything up: what a short name means does not depend on the engine.

use std::fmt;

/// The registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of references that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Where Docker Hub's official images are.
const OFFICIAL: &str = "library";
/// Another name of Docker Hub.
const OLD_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Longest registry and repository together, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;
/// Fewest hex digits of a digest.
const DIGEST_HEX_MIN: usize = 32;
/// Hex digits of an image id, which is no name.
const IMAGE_ID_HEX_LEN: usize = 64;

/// A reference, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageReference {
    /// Host, with port where it has one: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path there: `library/nginx`.
    pub repository: String,
    /// Tag, as written.
    pub tag: Option<String>,
    /// Digest, as written: `sha256:…`.
    pub digest: Option<String>,
}

/// Why a text is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceError {
    /// It is empty.
    Empty,
    /// The registry is no host name or address with an optional port.
    Registry,
    /// The path has parts other than `[a-z0-9]` joined by `.`, `_`, `__` or dashes.
    Repository,
    /// The path has upper-case letters.
    UpperCase,
    /// The tag is not `[A-Za-z0-9_][A-Za-z0-9_.-]*` of at most 128 bytes.
    Tag,
    /// The digest is not `algorithm:hex`.
    Digest,
    /// It is longer than 255 bytes.
    TooLong,
    /// It is an image id: the engine may know it, no registry does.
    ImageId,
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "has no image name",
            Self::Registry => "has a registry that is no host name with an optional port",
            Self::Repository => "may only have a-z, 0-9 and single '.', '_', '/', or dashes between them",
            Self::UpperCase => "must be lower case",
            Self::Tag => "has a tag that is none",
            Self::Digest => "has a digest that is none",
            Self::TooLong => "is longer than 255 characters",
            Self::ImageId => "is an image id, not a name",
        })
    }
}

impl std::error::Error for ReferenceError {}

impl ImageReference {
    /// Takes `text` apart: `[registry/]path[:tag][@digest]`.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == IMAGE_ID_HEX_LEN && is_hex(text) {
            return Err(ReferenceError::ImageId);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(checked(digest, is_digest, ReferenceError::Digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(name_start..).and_then(|last| last.split_once(':')) {
            Some((last, tag)) => (
                rest.get(..name_start + last.len()).unwrap_or_default(),
                Some(checked(tag, is_tag, ReferenceError::Tag)?),
            ),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (registry, repository) = split_name(name);
        check_registry(&registry)?;
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { registry, repository, tag, digest })
    }

    /// What the engine's `POST /images/create` takes as `fromImage`: registry and path.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What the engine takes as `tag`: the digest, else the tag, else `latest`. Never empty, which
    /// would fetch every tag there is.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// As people write it: without Docker Hub's host and `library/`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let name = match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, Some(official)) if !official.contains('/') => official.to_owned(),
            (DEFAULT_REGISTRY, _) => self.repository.clone(),
            _ => self.name(),
        };
        self.with_version(&name)
    }

    fn with_version(&self, name: &str) -> String {
        let tag = match (&self.tag, &self.digest) {
            (Some(tag), _) => format!(":{tag}"),
            (None, None) => format!(":{DEFAULT_TAG}"),
            (None, Some(_)) => String::new(),
        };
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{name}{tag}{digest}")
    }
}

impl fmt::Display for ImageReference {
    /// Canonical: registry, path, tag or digest, nothing left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.with_version(&self.name()))
    }
}

/// Registry and path of a name, with what was left out put in.
fn split_name(name: &str) -> (String, String) {
    let is_registry = |part: &str| {
        part.contains(['.', ':']) || part == "localhost" || part.chars().any(|c| c.is_ascii_uppercase())
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path),
        Some(_) | None => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == OLD_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return (registry.to_owned(), format!("{OFFICIAL}/{path}"));
    }
    (registry.to_owned(), path.to_owned())
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !registry.ends_with(']') => (host, Some(port)),
        Some(_) | None => (registry, None),
    };
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let bracketed = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let host_good = bracketed.map_or_else(|| host.split('.').all(label), address);
    let port_good =
        port.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if host_good && port_good { Ok(()) } else { Err(ReferenceError::Registry) }
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase);
    }
    if repository.split('/').all(is_path_part) { Ok(()) } else { Err(ReferenceError::Repository) }
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of dashes.
fn is_path_part(part: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separator = String::new();
    let mut before = false;
    for c in part.chars() {
        if inner(c) {
            let joined = separator.is_empty()
                || (before
                    && (matches!(separator.as_str(), "." | "_" | "__")
                        || separator.chars().all(|s| s == '-')));
            if !joined {
                return false;
            }
            separator.clear();
            before = true;
        } else if matches!(c, '.' | '_' | '-') {
            separator.push(c);
        } else {
            return false;
        }
    }
    before && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let algorithm_good = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .split(['+', '.', '-', '_'])
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let long_enough = if algorithm == "sha256" { hex.len() == 64 } else { hex.len() >= DIGEST_HEX_MIN };
        algorithm_good(algorithm) && long_enough && is_hex(hex)
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn checked(text: &str, good: fn(&str) -> bool, error: ReferenceError) -> Result<String, ReferenceError> {
    if good(text) { Ok(text.to_owned()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::{ImageReference, ReferenceError};

    #[test]
    fn names_are_completed_as_the_engine_does() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let at = |name: &str| format!("{name}@{digest}");
        // As written, in full, as people write it.
        let rows = [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine", "nginx:1.27-alpine"),
            ("mcp/time", "docker.io/mcp/time:latest", "mcp/time:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("index.docker.io/mcp/time", "docker.io/mcp/time:latest", "mcp/time:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:2", "localhost:5000/x:2", "localhost:5000/x:2"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("ghcr.io/o/i__m.a-b---c:v_1", "ghcr.io/o/i__m.a-b---c:v_1", "ghcr.io/o/i__m.a-b---c:v_1"),
            ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
            (
                "1.dkr.ecr.us-west-2.amazonaws.com/x",
                "1.dkr.ecr.us-west-2.amazonaws.com/x:latest",
                "1.dkr.ecr.us-west-2.amazonaws.com/x:latest",
            ),
        ];
        for (text, full, familiar) in rows {
            let found = ImageReference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((found.to_string().as_str(), found.familiar().as_str()), (full, familiar));
            assert_eq!(ImageReference::parse(full).map(|again| again.to_string()), Ok(full.to_owned()));
        }
        let pinned = ImageReference::parse(&at("nginx")).expect("digest");
        assert_eq!((pinned.to_string(), pinned.version()), (at("docker.io/library/nginx"), digest.as_str()));
        let both = ImageReference::parse(&at("h:1/x:t")).expect("both");
        assert_eq!(
            (both.name(), both.tag.as_deref(), both.version()),
            ("h:1/x".into(), Some("t"), digest.as_str())
        );
        assert_eq!(both.familiar(), at("h:1/x:t"));
    }

    #[test]
    fn what_is_none_is_refused() {
        let id = "f".repeat(64);
        let long = format!("h.x/{}", "a/".repeat(127) + "a");
        let rows = [
            ("", ReferenceError::Empty),
            (":tag", ReferenceError::Empty),
            ("a:", ReferenceError::Tag),
            ("a:.x", ReferenceError::Tag),
            ("a:b:c", ReferenceError::Tag),
            ("a@sha256:12", ReferenceError::Digest),
            ("a@", ReferenceError::Digest),
            ("Nginx", ReferenceError::UpperCase),
            ("x/Nginx", ReferenceError::UpperCase),
            ("-a", ReferenceError::Repository),
            ("a..b", ReferenceError::Repository),
            ("a___b", ReferenceError::Repository),
            ("a//b", ReferenceError::Repository),
            ("a/", ReferenceError::Repository),
            ("a b", ReferenceError::Repository),
            ("https://x/y", ReferenceError::Registry),
            ("a:b/c", ReferenceError::Registry),
            ("-a.b/c", ReferenceError::Registry),
            (&id, ReferenceError::ImageId),
            (&long, ReferenceError::TooLong),
        ];
        for (text, error) in rows {
            assert_eq!(ImageReference::parse(text), Err(error), "{text}");
        }
    }
}
