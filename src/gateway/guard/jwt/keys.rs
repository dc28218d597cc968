//! Public keys of an issuer (JWK Set, RFC 7517), and what they verify.
//!
//! ```text
//! RS256  PS256   kty RSA, 2048 to 8192 bits
//! ES256          kty EC, crv P-256
//! EdDSA          kty OKP, crv Ed25519
//! ```
//! There is no way here to take a public key for a shared secret: nothing in this program verifies an
//! HMAC of a token. Must never use a key for another algorithm than its own.

use crate::mcp::base64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Keys of a set that are looked at.
pub const KEYS_MAX: usize = 64;
/// Bytes of a key's id.
const KID_BYTES_MAX: usize = 256;
/// Bytes of one coordinate on the curve.
const COORDINATE_BYTES: usize = 32;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `RSASSA-PKCS1-v1_5` with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm with this name in a token's header, if it is one that is ever accepted.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// Whether it may have signed with this algorithm, by its kind and by what it says of itself.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = matches!(
            (algorithm, &self.material),
            (Algorithm::Rs256 | Algorithm::Ps256, Material::Rsa { .. })
                | (Algorithm::Es256, Material::P256(_))
                | (Algorithm::EdDsa, Material::Ed25519(_))
        );
        // RFC 9864 names the curve where older sets say EdDSA.
        let said = |name: &str| match (name, algorithm) {
            ("Ed25519", Algorithm::EdDsa) => true,
            (name, _) => Algorithm::named(name) == Some(algorithm),
        };
        kind && self.algorithm.as_deref().is_none_or(said)
    }

    /// Whether it signed `message`.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let verified = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Material::Rsa { n, e }, _) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature)
            }
            (Material::P256(point), _) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Material::Ed25519(point), _) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

/// Keys of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a set. Keys that are not for signatures, of other kinds or damaged are left out: a new
    /// kind beside the known ones must not lock everybody out.
    ///
    /// # Errors
    /// When it is no set, or has no key that can be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|_shows_values| "it is no JWK Set (an object with keys)")?;
        let keys: Vec<Key> = document.keys.iter().take(KEYS_MAX).filter_map(key).collect();
        if keys.is_empty() { Err("it has no key that can verify a token here") } else { Ok(Self(keys)) }
    }

    /// Whether a key has this id.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that may have signed a token: the one with its id, or without one all that fit.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        let named = move |key: &&Key| id.is_none_or(|id| key.id.as_deref() == Some(id));
        self.0.iter().filter(named).filter(move |key| key.fits(algorithm))
    }
}

fn key(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let operations = value.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|all| !all.iter().any(|one| one == "verify")) {
        return None;
    }
    let id = text("kid").filter(|id| id.len() <= KID_BYTES_MAX).map(str::to_owned);
    if value.get("kid").is_some() && id.is_none() {
        return None;
    }
    let number = |name: &str| text(name).and_then(decode);
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::Rsa { n: stripped(number("n")?), e: stripped(number("e")?) },
        ("EC", Some("P-256")) => {
            let (x, y) = (number("x")?, number("y")?);
            if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
                return None;
            }
            Material::P256([&[4], x.as_slice(), y.as_slice()].concat())
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(number("x").filter(|x| x.len() == COORDINATE_BYTES)?),
        _ => return None,
    };
    Some(Key { id, algorithm: text("alg").map(str::to_owned), material })
}

/// Without leading zeros, which some issuers write.
fn stripped(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.into_iter().skip(zeros).collect()
}

/// Base64url without padding (RFC 7515 section 2); `None` for anything else.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| matches!(byte, b'+' | b'/' | b'=')) {
        return None;
    }
    let plain: String = text
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let padding = match plain.len() % 4 {
        0 => "",
        2 => "==",
        3 => "=",
        _ => return None,
    };
    base64::decode(&format!("{plain}{padding}"))
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, KeySet, decode};
    use serde_json::json;

    #[test]
    fn base64url_has_one_spelling() {
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode(""), Some(Vec::new()));
        for wrong in ["+_8", "-/8", "-_8=", "a", "a b", "ä", "AB"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_that_are_for_something_else_are_left_out() {
        let rsa = |more: serde_json::Value| {
            let mut key = json!({"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"});
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes())
        };
        let set = rsa(json!({"use": "sig"})).unwrap();
        assert!(set.has("a") && !set.has("b"));
        assert_eq!(set.candidates(Some("a"), Algorithm::Ps256).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::Rs256).count(), 1);
        assert_eq!(set.candidates(Some("a"), Algorithm::Es256).count(), 0, "another kind");
        let only = rsa(json!({"alg": "PS256"})).unwrap();
        assert_eq!(only.candidates(Some("a"), Algorithm::Rs256).count(), 0, "it says what it is for");
        for wrong in [
            json!({"use": "enc"}),
            json!({"key_ops": ["encrypt"]}),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-384"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}),
            json!({"n": 5}),
            json!({"kid": 5}),
        ] {
            assert!(rsa(wrong.clone()).is_err(), "{wrong}");
        }
        for wrong in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[5]}"#] {
            assert!(KeySet::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_name_of_an_algorithm_stands_for_none_or_a_shared_secret() {
        for name in ["none", "None", "NONE", "HS256", "HS384", "HS512", "RS1", "rs256", "ES384", ""] {
            assert_eq!(Algorithm::named(name), None, "{name}");
        }
    }
}
