//! Base64 as in RFC 4648 section 4, and the form in which a header carries a text that is not plain
//! ASCII: `=?base64?…?=`.
//!
//! Strict: an alphabet's stranger, a wrong length, missing padding and bits left over are all
//! refused, because a header must have one meaning for everybody who reads it.
//!
//! Must never guess at a damaged value.

use std::borrow::Cow;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// Bytes as base64 with padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4_u32 {
            let digit = ALPHABET.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if at as usize > group.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

/// The bytes of a base64 text; `None` unless it is exactly what [`encode`] writes.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        bits = bits << 6 | value(byte)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    // The length is whole, so the padding is what the digits need; no bits may be left over.
    (bits & ((1 << count) - 1) == 0).then_some(out)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// The text that a header value stands for: itself, or what is encoded in it. White space around
/// it is not part of it. `None` when it has characters that a header must not have, or encodes
/// nothing readable.
#[must_use]
pub fn header_text(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim_matches([' ', '\t']);
    if !value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return None;
    }
    match value.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) {
        Some(encoded) => String::from_utf8(decode(encoded)?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

/// A text as a header value, encoded where it must be.
#[must_use]
pub fn header_value(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with(PREFIX) && text.ends_with(SUFFIX));
    if plain {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{PREFIX}{}{SUFFIX}", encode(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in
            ["Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm8", "Z===", "====", "=", "Z!==", "Zg==Zg==", "SGV!sbG8"]
        {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        for (text, value) in [
            ("north-2", "north-2"),
            ("naïve ☕", "=?base64?bmHDr3ZlIOKYlQ==?="),
            ("  indented", "=?base64?ICBpbmRlbnRlZA==?="),
            ("two\nlines", "=?base64?dHdvCmxpbmVz?="),
            ("=?base64?not really?=", "=?base64?PT9iYXNlNjQ/bm90IHJlYWxseT89?="),
            ("tab\tinside", "tab\tinside"),
            ("", ""),
        ] {
            assert_eq!(header_value(text), value);
            assert_eq!(header_text(value).as_deref(), Some(text));
        }
        // Half a mark is no mark.
        for plain in ["SGVsbG8=", "=?base64?SGVsbG8=", "SGVsbG8=?=", "=?BASE64?SGVsbG8=?=", "=?base64?="] {
            assert_eq!(header_text(plain).as_deref(), Some(plain));
        }
        assert_eq!(header_text("  plain \t").as_deref(), Some("plain"));
        for wrong in
            ["=?base64?SGVsbG8?=", "=?base64?SGV!sbG8?=", "=?base64?/w==?=", "ctrl\u{1}", "é", "a\nb"]
        {
            assert_eq!(header_text(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_a_header(text in any::<String>()) {
            let value = header_value(&text).into_owned();
            prop_assert!(value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')));
            let back = header_text(&value);
            prop_assert_eq!(back.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn nothing_else_is_taken_for_base64(text in "[A-Za-z0-9+/=]{0,12}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
