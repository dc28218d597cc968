//! Text that goes to a client and comes back: sealed, so that a changed one is known.
//!
//! A modern client that has to answer a request first sends its call again with the state it was
//! given. That state names the call that waits for it, whose it is, what it was and until when it
//! waits. It is readable by the client and holds nothing secret; the seal keeps it from being
//! written by anybody else. That a call goes on only once is not in the seal: the caller forgets
//! the call when it is resumed.
//!
//! Must never take a text for sealed that was not, nor compare seals in a time that tells where
//! they differ.

use crate::mcp::wire::{each_member, text_of};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a token begins with: the way it is made.
const VERSION: &str = "1";
/// What the seal is for, so that no other use of the same key can make one.
const PURPOSE: &[u8] = b"mcp request state\0";
/// Bytes of a token that is looked at.
pub const TOKEN_MAX: usize = 8 * 1024;
/// Levels of params that are put in order before they are digested; deeper ones as written.
const ORDERED_LEVELS: usize = 8;

/// A payload that only the holder of `key` can have written. Empty for a key that cannot be used.
#[must_use]
pub fn seal(key: &[u8], payload: &str) -> String {
    let Some(mac) = mac(key, payload) else { return String::new() };
    format!("{VERSION}.{}.{}", hex(payload.as_bytes()), hex(&mac.finalize().into_bytes()))
}

/// The payload of a token; `None` when it was not sealed with `key`.
#[must_use]
pub fn open(key: &[u8], token: &str) -> Option<String> {
    if token.len() > TOKEN_MAX {
        return None;
    }
    let (payload, seal) = token.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
    let payload = String::from_utf8(bytes(payload)?).ok()?;
    mac(key, &payload)?.verify_slice(&bytes(seal)?).ok()?;
    Some(payload)
}

fn mac(key: &[u8], payload: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(PURPOSE);
    mac.update(payload.as_bytes());
    Some(mac)
}

fn hex(bytes: &[u8]) -> String {
    crate::model::fingerprint::hex(bytes, bytes.len().saturating_mul(2))
}

/// Only the digits that [`hex`] writes: one payload has one token.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = hex.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}

/// What a state says: which call waits, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The call, as its holder named it.
    pub call: String,
    /// Who sent it.
    pub principal: String,
    /// [`digest`] of its method and params.
    pub digest: String,
    /// Until when it waits, in milliseconds of the Unix epoch.
    pub expires_ms: i64,
}

impl Parked {
    /// The state, to be sealed.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an opened state.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether a retry by `principal` with this digest at `now_ms` is the call's own.
    #[must_use]
    pub fn fits(&self, principal: &str, digest: &str, now_ms: i64) -> bool {
        self.principal == principal && self.digest == digest && now_ms < self.expires_ms
    }
}

/// What a call is, apart from who sends it and how often: method and params without `_meta` and
/// without what a retry adds. White space and the order of keys do not matter.
#[must_use]
pub fn digest(method: &str, params: Option<&RawValue>) -> String {
    let mut hash = Sha256::new();
    part(&mut hash, b'm', method.as_bytes());
    if let Some(params) = params {
        value(&mut hash, params, ORDERED_LEVELS, true);
    }
    hex(&hash.finalize())
}

/// Kind and length stand before each part, so that no two calls read as the same bytes.
fn part(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn value(hash: &mut Sha256, value_: &RawValue, levels: usize, top: bool) {
    let text = value_.get();
    match text.as_bytes().first() {
        Some(b'{') if levels > 0 => {
            let mut members: BTreeMap<Cow<'_, str>, Vec<&RawValue>> = BTreeMap::new();
            let _always_an_object = each_member(text, &mut |key, member| {
                let of_the_try = top && matches!(key.as_ref(), "_meta" | "inputResponses" | "requestState");
                if !of_the_try {
                    members.entry(key).or_default().push(member);
                }
            });
            part(hash, b'{', &(members.len() as u64).to_be_bytes());
            for (key, values) in members {
                for one in values {
                    part(hash, b'k', key.as_bytes());
                    value(hash, one, levels - 1, false);
                }
            }
            part(hash, b'}', b"");
        }
        Some(b'[') if levels > 0 => {
            let list: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            part(hash, b'[', &(list.len() as u64).to_be_bytes());
            for one in list {
                value(hash, one, levels - 1, false);
            }
        }
        Some(b'"') => match text_of(value_) {
            Some(string) => part(hash, b's', string.as_bytes()),
            None => part(hash, b'r', text.as_bytes()),
        },
        _ => part(hash, b'r', text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn a_seal_is_of_one_key_and_one_payload() {
        let token = seal(KEY, "payload é");
        assert_eq!(open(KEY, &token).as_deref(), Some("payload é"));
        assert_eq!(open(b"another key", &token), None);
        // Known answer: HMAC-SHA256 of purpose and payload.
        assert_eq!(seal(b"k", "p"), "1.70.998b0d3ba9b57ee97e28a58ca993bbdd5357edd975439d157b2d859dcdfea507");
        for wrong in
            ["", "1", "1.", "1..", "1.70.", "2.70.00", "1.7.00", &token[1..], &token[..token.len() - 2]]
        {
            assert_eq!(open(KEY, wrong), None, "{wrong}");
        }
        assert_eq!(open(KEY, &token.to_uppercase()), None);
        assert_eq!(open(KEY, &seal(KEY, &"x".repeat(TOKEN_MAX))), None);
    }

    #[test]
    fn a_parked_call_is_found_again_by_its_owner_in_time() {
        let parked = Parked {
            call: "leg 1/7".into(),
            principal: "an\"na".into(),
            digest: "d".into(),
            expires_ms: 1000,
        };
        assert_eq!(Parked::from_text(&parked.to_text()).as_ref(), Some(&parked));
        assert!(parked.fits("an\"na", "d", 999));
        assert!(
            !parked.fits("an\"na", "d", 1000)
                && !parked.fits("bob", "d", 0)
                && !parked.fits("an\"na", "e", 0)
        );
        assert_eq!(Parked::from_text("{}"), None);
        assert_eq!(Parked::from_text("not json"), None);
    }

    #[test]
    fn a_retry_has_the_digest_of_its_call() {
        let call = digest(
            "tools/call",
            Some(&raw(r#"{"name":"t","arguments":{"b":[1, 2],"a":"\u0061"},"_meta":{"progressToken":1}}"#)),
        );
        let retry = r#"{ "requestState":"s", "inputResponses":{"k":{}}, "arguments" : {"a":"a","b":[1,2]} ,"name":"t","_meta":{"progressToken":2}}"#;
        assert_eq!(call, digest("tools/call", Some(&raw(retry))));
        for (method, other) in [
            ("prompts/get", retry.to_owned()),
            ("tools/call", retry.replace(r#""t""#, r#""u""#)),
            ("tools/call", retry.replace("[1,2]", "[2,1]")),
            ("tools/call", retry.replace("[1,2]", "[1.0,2]")),
            ("tools/call", retry.replace("[1,2]", "[[1],2]")),
            ("tools/call", retry.replace("[1,2]", r#"["1",2]"#)),
            ("tools/call", retry.replace(r#""b":[1,2]"#, r#""b":[1,2],"_meta":1"#)),
        ] {
            assert_ne!(call, digest(method, Some(&raw(&other))), "{method} {other}");
        }
        assert_ne!(digest("m", None), digest("m", Some(&raw("{}"))));
        assert_eq!(digest("m", None).len(), 64);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_a_changed_one_does_not(payload in any::<String>(), at in any::<usize>(), by in 1_u8..255) {
            let token = seal(KEY, &payload);
            prop_assert_eq!(open(KEY, &token), Some(payload));
            let mut bytes = token.into_bytes();
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(by);
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert_eq!(open(KEY, &changed), None);
            }
        }
    }
}
