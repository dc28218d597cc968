//! Tokens of clients (`[gateway] tokens_file`), kept as digests.
//!
//! ```text
//! # one per line
//! ci:2f1c…                 name and token
//! 9d03…                    a token; its owner is called token-3, after the line
//! laptop:sha256:5e88…      name and SHA-256 of a token, in hex
//! ```
//! A name may have several tokens, so that one can be replaced without a gap. Behind a token may
//! stand what it is good for; a token alone is good for everything, always:
//!
//! ```text
//! bot:sha256:5e88… servers=time,git-* sections=ops tools=get_*,git/log read-only expires=2027-01-31
//! ```
//!
//! Must never show a token nor what may be part of one: problems name lines.

use crate::gateway::guard::Principal;
use crate::mcp::base64;
use crate::model::access::{Grant, PATTERN_BYTES_MAX, PATTERNS_MAX};
use crate::model::time::Timestamp;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;

/// Tokens a file may have.
pub const TOKENS_MAX: usize = 1024;
/// Bytes of a name.
const NAME_LEN_MAX: usize = 64;
/// Bytes of a token.
const TOKEN_LEN_MAX: usize = 4096;
/// What marks a digest in the place of a token.
const DIGEST_MARK: &str = "sha256:";

/// Tokens and their owners.
pub struct TokenSet {
    owners: Vec<Owner>,
}

struct Owner {
    principal: Principal,
    digest: [u8; 32],
    line: usize,
    /// Not good any more from then on.
    expires: Option<Timestamp>,
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSet({} tokens)", self.owners.len())
    }
}

/// What is wrong with a tokens file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProblem {
    /// Where, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What.
    pub text: String,
}

impl fmt::Display for TokenProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.text),
            line => write!(f, "line {line}: {}", self.text),
        }
    }
}

impl TokenSet {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// All its problems.
    pub fn parse(text: &str) -> Result<Self, Vec<TokenProblem>> {
        let mut owners: Vec<Owner> = Vec::new();
        let mut problems = Vec::new();
        for (line, content) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            match owner(line, content) {
                Ok(new) => match owners.iter().find(|known| known.digest == new.digest) {
                    Some(known) => {
                        let text = format!("the token is that of line {}", known.line);
                        problems.push(TokenProblem { line, text });
                    }
                    None => owners.push(new),
                },
                Err(text) => problems.push(TokenProblem { line, text: text.to_owned() }),
            }
        }
        if owners.is_empty() && problems.is_empty() {
            problems.push(TokenProblem { line: 0, text: "there is no token in it".to_owned() });
        }
        if owners.len() > TOKENS_MAX {
            let text = format!("there are more than {TOKENS_MAX} tokens in it");
            problems.push(TokenProblem { line: 0, text });
        }
        if problems.is_empty() { Ok(Self { owners }) } else { Err(problems) }
    }

    /// Whose `Authorization` header that is: `Bearer <token>`, or `Basic` with name and token. What
    /// expires is good only while `now` is known.
    #[must_use]
    pub fn owner(&self, header: &str, now: Option<Timestamp>) -> Option<Principal> {
        self.of(header, &|end| now.is_some_and(|now| now < end)).cloned()
    }

    /// Who came with a token that is not good any more.
    #[must_use]
    pub fn known(&self, header: &str) -> Option<Arc<str>> {
        self.of(header, &|_| true).map(|principal| Arc::clone(&principal.name))
    }

    fn of(&self, header: &str, is_good: &dyn Fn(Timestamp) -> bool) -> Option<&Principal> {
        let (scheme, rest) = header.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.find(None, rest.as_bytes(), is_good);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        // Some clients leave the padding out.
        let padding = "=".repeat(rest.len().wrapping_neg() % 4);
        let decoded = base64::decode(&format!("{rest}{padding}"))?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, token) = decoded.split_at_checked(colon)?;
        self.find(Some(name), token.get(1..)?, is_good)
    }

    /// Takes the same time wherever the token stands and whatever of it is right.
    fn find(
        &self,
        name: Option<&[u8]>,
        token: &[u8],
        is_good: &dyn Fn(Timestamp) -> bool,
    ) -> Option<&Principal> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for owner in &self.owners {
            let named = name.is_none_or(|name| name == owner.principal.as_str().as_bytes());
            let good = owner.expires.is_none_or(is_good);
            if equal(&owner.digest, &digest) && named && good {
                found = Some(&owner.principal);
            }
        }
        found
    }
}

/// Whether digests are equal, without stopping at the first difference.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

fn owner(line: usize, content: &str) -> Result<Owner, &'static str> {
    let (name, token) = match content.split_once(':') {
        Some((name, token)) => (Some(name.trim_end()), token.trim_start()),
        None => (None, content),
    };
    let mut words = token.split_ascii_whitespace();
    let token = words.next().unwrap_or_default();
    let (grant, expires) = scopes(words)?;
    if let Some(name) = name {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(good) {
            return Err(
                "what stands before ':' is no name (letters, digits, '.', '_', '-', '@', at most 64)",
            );
        }
        if DIGEST_MARK.strip_suffix(':') == Some(name) {
            return Err("a SHA-256 has a name in front: NAME:sha256:HEX");
        }
    }
    let digest = match token.strip_prefix(DIGEST_MARK) {
        Some(hex) => decode_hex(hex).ok_or("a SHA-256 has 64 hex digits")?,
        None if token.is_empty() => return Err("there is no token after the name"),
        None if token.len() > TOKEN_LEN_MAX => return Err("the token is longer than 4096 bytes"),
        None if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err("a token has visible ASCII characters and no blanks");
        }
        None => Sha256::digest(token).into(),
    };
    let name = name.map_or_else(|| Arc::from(format!("token-{line}")), Arc::from);
    let principal = Principal { name, grant: Arc::new(grant) };
    Ok(Owner { principal, digest, line, expires })
}

/// What stands behind a token.
fn scopes<'a>(words: impl Iterator<Item = &'a str>) -> Result<(Grant, Option<Timestamp>), &'static str> {
    let (mut grant, mut expires) = (Grant::default(), None);
    for word in words {
        match word.split_once('=') {
            Some(("servers", list)) => patterns(list, &mut grant.servers)?,
            Some(("sections", list)) => patterns(list, &mut grant.sections)?,
            Some(("tools", list)) => patterns(list, &mut grant.tools)?,
            Some(("expires", day)) => {
                let end = day.parse::<jiff::Timestamp>().ok().or_else(|| {
                    day.parse::<jiff::civil::Date>()
                        .ok()?
                        .to_zoned(jiff::tz::TimeZone::UTC)
                        .ok()
                        .map(|z| z.timestamp())
                });
                let end = end.ok_or("'expires' takes a day such as 2027-01-31, or a time in UTC")?;
                expires = Some(Timestamp(end.as_millisecond()));
            }
            None if word == "read-only" => grant.read_only = true,
            // Not repeated: it may be part of a token.
            _ => return Err("behind a token stand servers=, sections=, tools=, expires= and read-only only"),
        }
    }
    Ok((grant, expires))
}

fn patterns(list: &str, into: &mut Vec<String>) -> Result<(), &'static str> {
    for pattern in list.split(',') {
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX || into.len() >= PATTERNS_MAX {
            return Err("a list of servers, sections or tools has patterns with commas between");
        }
        into.push(pattern.to_owned());
    }
    Ok(())
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Sha256, TOKENS_MAX, Timestamp, TokenSet, decode_hex};
    use sha2::Digest as _;
    use std::fmt::Write as _;

    fn owner(tokens: &TokenSet, header: &str) -> Option<String> {
        tokens.owner(header, None).map(|principal| principal.to_string())
    }

    fn hex(token: &str) -> String {
        Sha256::digest(token).iter().fold(String::new(), |mut out, byte| {
            write!(out, "{byte:02x}").unwrap();
            out
        })
    }

    #[test]
    fn every_form_of_line_and_header() {
        let text =
            format!("\u{feff}# tokens\n\n ci:alpha \r\nbeta+/=\nlaptop:sha256:{}\nci:second\n", hex("gamma"));
        let tokens = TokenSet::parse(&text).unwrap();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(owner(&tokens, "Bearer alpha"), some("ci"));
        assert_eq!(owner(&tokens, "bearer  second "), some("ci"));
        assert_eq!(owner(&tokens, "Bearer beta+/="), some("token-4"));
        assert_eq!(owner(&tokens, "Bearer gamma"), some("laptop"));
        assert_eq!(owner(&tokens, "Basic Y2k6YWxwaGE="), some("ci"));
        assert_eq!(owner(&tokens, "BASIC Y2k6YWxwaGE"), some("ci"));
        let digest = format!("Bearer {}", hex("gamma"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer alph",
            "Bearer alphaa",
            "Bearer ci:alpha",
            "alpha",
            "Digest alpha",
            "Basic alpha",
            "Basic ",
            "Basic Y2k6YWxwaGF4",
            "Basic Y2k6 YWxwaGE=",
            "Basic Y2k6YWxwaGE==",
            "Basic ä",
            "Basic Y3g6YWxwaGE=",
            "Basic OmFscGhh",
            &digest,
        ] {
            assert_eq!(owner(&tokens, wrong), None, "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "TokenSet(4 tokens)");
    }

    #[test]
    fn all_problems_at_once_and_no_secret_in_them() {
        let text =
            "good:alpha\nSECRET SECRET:x\n:x\nname:\nname:SEC RET\nname:sha256:5EC\nsha256:ab\nother:alpha\n";
        let problems: Vec<String> =
            TokenSet::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 7, "{problems:?}");
        for (problem, line) in problems.iter().zip(2..) {
            assert!(problem.starts_with(&format!("line {line}: ")), "{problem}");
            assert!(!problem.contains("SEC") && !problem.contains("alpha") && !problem.contains("5EC"));
        }
        assert_eq!(problems[6], "line 8: the token is that of line 1");
        assert_eq!(TokenSet::parse("# none\n").unwrap_err()[0].to_string(), "there is no token in it");
        let many: String = (0..=TOKENS_MAX).map(|number| format!("t{number}\n")).collect();
        assert_eq!(TokenSet::parse(&many).unwrap_err().len(), 1);
    }

    #[test]
    fn scopes_stand_behind_a_token_and_end_in_time() {
        let tokens = TokenSet::parse(
            "bot:s1 servers=time,git-* sections=ops tools=get_*,git/log read-only\nall:s2\nold:s3 expires=2027-01-31\nlate:s4 expires=2027-01-31T12:00:00Z\n",
        )
        .unwrap();
        let grant = |header: &str| tokens.owner(header, None).unwrap().grant;
        let bot = grant("Bearer s1");
        assert_eq!(
            (bot.servers.len(), bot.sections.as_slice(), bot.tools.len()),
            (2, &["ops".to_owned()][..], 2)
        );
        assert!(bot.read_only && grant("Bearer s2").is_all());
        let at = |text: &str| Some(Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()));
        let is_good = |header: &str, now| tokens.owner(header, now).is_some();
        assert!(
            is_good("Bearer s3", at("2027-01-30T23:59:59Z"))
                && !is_good("Bearer s3", at("2027-01-31T00:00:00Z"))
        );
        assert!(
            is_good("Bearer s4", at("2027-01-31T11:59:59Z"))
                && !is_good("Bearer s4", at("2027-01-31T12:00:00Z"))
        );
        assert!(!is_good("Bearer s3", None), "what expires needs a clock");
        for bad in ["a:t SECRET", "a:t servers=", "a:t servers=a,,b", "a:t expires=soon", "a:t scope=x"] {
            let problem = TokenSet::parse(bad).unwrap_err()[0].to_string();
            assert!(problem.starts_with("line 1: ") && !problem.contains("SECRET"), "{problem}");
        }
    }

    #[test]
    fn decoders_take_nothing_else() {
        assert!(decode_hex(&"0f".repeat(32)).is_some());
        for text in ["", "zz", &"+1".repeat(32), &"0f".repeat(33)] {
            assert_eq!(decode_hex(text), None, "{text}");
        }
    }
}
