//! The key of the tool proxy (`[openapi] api_key`), kept as a digest.
//!
//! Must never show the key.

use crate::mcp::base64;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A key: sent as `Bearer <key>`, or as the password of `Basic` with any user.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key; `None` for an empty one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Whether an `Authorization` header has it. Takes the same time whatever of it is right.
    #[must_use]
    pub fn opens(&self, header: &str) -> bool {
        let Some((scheme, rest)) = header.split_once(' ') else { return false };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(rest.as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        // Some clients leave the padding out.
        let padding = "=".repeat(rest.len().wrapping_neg() % 4);
        let decoded = base64::decode(&format!("{rest}{padding}")).unwrap_or_default();
        let colon = decoded.iter().position(|byte| *byte == b':');
        colon.and_then(|colon| decoded.get(colon + 1..)).is_some_and(|password| self.is(password))
    }

    fn is(&self, said: &[u8]) -> bool {
        let said: [u8; 32] = Sha256::digest(said).into();
        let differing = self.0.iter().zip(said).fold(0, |differing, (a, b)| differing | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Key;
    use crate::mcp::base64::encode;

    #[test]
    fn it_opens_as_bearer_and_as_anybodys_password() {
        let key = Key::new("top secret:x").expect("a key");
        let basic = |text: &str| format!("Basic {}", encode(text.as_bytes()));
        for header in [
            "Bearer top secret:x",
            "bearer  top secret:x",
            &basic("any:top secret:x"),
            &basic(":top secret:x"),
        ] {
            assert!(key.opens(header), "{header}");
        }
        assert!(key.opens(basic("a:top secret:x").trim_end_matches('=')));
        for header in [
            "",
            "top secret:x",
            "Bearer",
            "Bearer top",
            "Digest top secret:x",
            &basic("top secret:x"),
            "Basic %%%",
        ] {
            assert!(!key.opens(header), "{header}");
        }
        assert!(Key::new("").is_none());
        assert!(!format!("{key:?}").contains("top"));
    }
}
