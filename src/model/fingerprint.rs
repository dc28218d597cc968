//! The spec hash that labels carry, so that "has it changed?" is never guessed.
//!
//! A label is readable by everyone who may talk to the engine, so values that may be secret enter
//! it only under a key that lives in the state store. `<plain>.<keyed>.<key id>`: `plain` covers
//! the declaration with every secret and every environment value blanked, `keyed` covers all of it
//! under HMAC-SHA-256, `key id` names the key. With the key lost, the keyed part says nothing and
//! must not cause a restart.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Hex digits kept of each hash: 64 bits, plenty against accident, and the key guards the rest.
const HEX_LEN: usize = 16;
/// Hex digits of a key id.
const KEY_ID_LEN: usize = 8;

/// The key of this state store; its bytes are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey {
    id: String,
    bytes: [u8; 32],
}

impl HashKey {
    /// A key from 32 random bytes, handed in by the caller.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mcp-orchestrator key id\0");
        hash.update(bytes);
        Self { id: hex(&hash.finalize(), KEY_ID_LEN), bytes }
    }

    /// The key's bytes, for the state store only.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A hash of `text` that only this store can make, in 16 hexadecimal digits: equal for equal texts,
    /// and nothing to try guesses against.
    #[must_use]
    pub fn keyed(&self, text: &str) -> String {
        self.mac(text)
    }

    fn mac(&self, text: &str) -> String {
        // An HMAC takes a key of any length, so this arm is never taken; it must still not panic.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.bytes) else { return String::new() };
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes(), HEX_LEN)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a label says about the declaration a container was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fingerprint {
    plain: String,
    keyed: String,
    key_id: String,
}

/// How two fingerprints stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// The same declaration.
    Same,
    /// The visible part is the same; the secret part was made with another key and cannot be compared.
    SameButSecretsUnknown,
    /// The visible part differs.
    Changed,
    /// Only secrets or environment values differ.
    SecretsChanged,
}

impl Fingerprint {
    /// The fingerprint of a declaration: `blanked` is its canonical text without secrets,
    /// `whole` with them.
    #[must_use]
    pub fn new(key: &HashKey, blanked: &str, whole: &str) -> Self {
        Self {
            plain: hex(&Sha256::digest(blanked.as_bytes()), HEX_LEN),
            keyed: key.mac(whole),
            key_id: key.id.clone(),
        }
    }

    /// Reads a label's text; `None` when it is not of our form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (plain, keyed, key_id) = (parts.next()?, parts.next()?, parts.next()?);
        let hex = |s: &str, n| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
        (parts.next().is_none() && hex(plain, HEX_LEN) && hex(keyed, HEX_LEN) && hex(key_id, KEY_ID_LEN))
            .then(|| Self { plain: plain.to_owned(), keyed: keyed.to_owned(), key_id: key_id.to_owned() })
    }

    /// Compares what is wanted (`self`) with what a container was made from.
    #[must_use]
    pub fn likeness(&self, made_from: &Self) -> Likeness {
        if self.plain != made_from.plain {
            return Likeness::Changed;
        }
        if self.key_id != made_from.key_id {
            return Likeness::SameButSecretsUnknown;
        }
        if self.keyed == made_from.keyed { Likeness::Same } else { Likeness::SecretsChanged }
    }

    /// Eight hex digits that tell this fingerprint from others of the same server in a name.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&Sha256::digest(format!("{}.{}", self.plain, self.keyed).as_bytes()), 8)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.plain, self.keyed, self.key_id)
    }
}

impl From<Fingerprint> for String {
    fn from(print: Fingerprint) -> Self {
        print.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is not a spec hash"))
    }
}

/// The first `len` hex digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8], len: usize) -> String {
    use fmt::Write as _;
    let mut out = bytes.iter().fold(String::with_capacity(len + 1), |mut out, byte| {
        if out.len() < len {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
        }
        out
    });
    out.truncate(len);
    out
}

/// The SHA-256 of `bytes`, all 64 hex digits.
#[must_use]
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes), 64)
}

/// The first `len` hex digits of the SHA-256 of `text`.
#[must_use]
pub fn sha256_hex(text: &str, len: usize) -> String {
    hex(&Sha256::digest(text.as_bytes()), len)
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, HashKey, Likeness};

    #[test]
    fn likeness_tells_secrets_from_shape() {
        let (key, other) = (HashKey::new([1; 32]), HashKey::new([2; 32]));
        let made = Fingerprint::new(&key, "image=a", "image=a TOKEN=1");
        let like = |key: &HashKey, blanked, whole| Fingerprint::new(key, blanked, whole).likeness(&made);
        assert_eq!(like(&key, "image=a", "image=a TOKEN=1"), Likeness::Same);
        assert_eq!(like(&key, "image=a", "image=a TOKEN=2"), Likeness::SecretsChanged);
        assert_eq!(like(&key, "image=b", "image=b TOKEN=1"), Likeness::Changed);
        assert_eq!(like(&other, "image=a", "image=a TOKEN=1"), Likeness::SameButSecretsUnknown);
        assert_eq!(like(&other, "image=b", "image=b TOKEN=1"), Likeness::Changed);
    }

    #[test]
    fn labels_round_trip_and_keys_stay_hidden() {
        let key = HashKey::new([7; 32]);
        let print = Fingerprint::new(&key, "a", "b");
        assert_eq!(Fingerprint::parse(&print.to_string()), Some(print));
        assert_eq!(Fingerprint::parse("abc"), None);
        assert!(!format!("{key:?}").contains("7, 7"));
    }
}
