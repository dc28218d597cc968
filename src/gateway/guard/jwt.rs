//! Tokens that an issuer signed (`[gateway] auth = jwt`): JSON Web Tokens, checked here.
//!
//! ```text
//! header    alg one of those allowed, kid one of the issuer's keys, typ JWT or at+jwt, no crit
//! claims    iss, aud as configured; exp, nbf, iat within the leeway; sub names the client
//! scopes    all that are required, else 403; those with the prefix say what may be used:
//!           mcp:server:git-*  mcp:section:ops  mcp:tool:git/log_*  mcp:read-only
//! ```
//! The keys come from [`issuer`]; what was verified once is remembered by its digest until it expires.
//!
//! Must never accept a token without a signature, nor show one.

pub mod issuer;
pub mod keys;

use crate::gateway::guard::jwt::issuer::{Held, Issuer};
use crate::gateway::guard::jwt::keys::{Algorithm, decode};
use crate::gateway::guard::{KEYHOLDER, LOCAL, Principal};
use crate::model::access::{Grant, PATTERN_BYTES_MAX, PATTERNS_MAX};
use crate::model::time::{Span, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Keys tried for a token that names none.
const CANDIDATES_MAX: usize = 8;
/// Tokens remembered as verified.
const VERIFIED_MAX: usize = 4096;
/// Bytes of a name in a claim.
const NAME_BYTES_MAX: usize = 255;
/// Audiences of one token.
const AUDIENCES_MAX: usize = 32;

/// What tokens must be like (`[jwt]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `iss`.
    pub issuer: String,
    /// One of them must be in `aud`; none: the URL of what is asked for.
    pub audiences: Vec<String>,
    /// `alg`.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ.
    pub leeway: Span,
    /// Scopes a token must have.
    pub required_scopes: Vec<String>,
    /// Claims that scopes stand in.
    pub scope_claims: Vec<String>,
    /// How scopes begin that say what may be used.
    pub scope_prefix: String,
    /// A token whose scopes name nothing may use everything.
    pub unscoped: bool,
    /// Where clients reach this host, without `/` at the end.
    pub public_url: Option<String>,
}

/// Why a token does not open the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// There is none.
    Missing,
    /// It is not one that counts.
    Invalid(&'static str),
    /// It lacks scopes that are required.
    Scope,
    /// Nobody can tell, because the issuer's keys are not there.
    NoKeys(String),
}

/// Checks tokens.
pub struct Jwt {
    /// What they must be like.
    pub rules: Rules,
    /// Whose keys verify them.
    pub issuer: Arc<Issuer>,
    verified: Mutex<Remembered>,
}

/// What was verified with one generation of keys.
#[derive(Default)]
struct Remembered {
    generation: u64,
    tokens: HashMap<[u8; 32], Arc<Verified>>,
}

/// A token whose signature and claims are good, but for the time and the audience.
struct Verified {
    principal: Principal,
    audiences: Vec<String>,
    /// Not good any more from then on.
    expires: Timestamp,
    has_scopes: bool,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// The three parts of a token.
struct Parts<'a> {
    header: Header,
    claims: &'a str,
    /// What is signed.
    message: &'a str,
    signature: &'a str,
}

/// The token of an `Authorization` header.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn parts(token: &str) -> Result<Parts<'_>, Wrong> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Wrong::Invalid("it is too long"));
    }
    let no_token = Wrong::Invalid("it is no signed JSON Web Token");
    let mut three = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (three.next(), three.next(), three.next(), three.next())
    else {
        return Err(no_token);
    };
    let message = token.get(..header.len() + 1 + claims.len()).unwrap_or_default();
    let read = decode(header).and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok());
    match read {
        Some(header) if !claims.is_empty() => Ok(Parts { header, claims, message, signature }),
        _ => Err(no_token),
    }
}

impl Jwt {
    /// A check with these rules and the keys of this issuer.
    #[must_use]
    pub fn new(rules: Rules, issuer: Arc<Issuer>) -> Self {
        Self { rules, issuer, verified: Mutex::default() }
    }

    /// The same with the keys that another one has already, where their issuer is the same.
    #[must_use]
    pub fn taking_over(mut self, other: &Self) -> Self {
        if self.issuer.source() == other.issuer.source() {
            self.issuer = Arc::clone(&other.issuer);
        }
        self
    }

    /// Waits a little for the key of a token that is not known yet, where that may help.
    pub async fn prepare(&self, header: &str) {
        let Some(Ok(parts)) = bearer(header).map(parts) else { return };
        let Parts { header: Header { alg, kid, .. }, .. } = parts;
        if self.allowed(&alg).is_some() {
            self.issuer.ready_for(kid.as_deref()).await;
        }
    }

    fn allowed(&self, name: &str) -> Option<Algorithm> {
        Algorithm::named(name).filter(|algorithm| self.rules.algorithms.contains(algorithm))
    }

    /// Whose request it is. `resource` is the URL of what is asked for, where one is configured.
    ///
    /// # Errors
    /// Why it does not open the door.
    pub fn check(
        &self,
        header: Option<&str>,
        resource: Option<&str>,
        now: Option<Timestamp>,
    ) -> Result<Principal, Wrong> {
        let token = header.and_then(bearer).filter(|token| !token.is_empty()).ok_or(Wrong::Missing)?;
        let now = now.ok_or(Wrong::Invalid("there is no clock to check its time by"))?;
        let held = self.issuer.held();
        let digest: [u8; 32] = Sha256::digest(token).into();
        let verified = match self.remembered(&digest, held.generation) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify(token, &held, now)?);
                self.remember(digest, held.generation, &verified);
                verified
            }
        };
        if now >= verified.expires {
            return Err(Wrong::Invalid("it has expired"));
        }
        if !self.is_meant(&verified.audiences, resource) {
            return Err(Wrong::Invalid("it is for another audience"));
        }
        if verified.has_scopes { Ok(verified.principal.clone()) } else { Err(Wrong::Scope) }
    }

    /// Who came with a token that was verified and is refused for its time, audience or scopes.
    #[must_use]
    pub fn known(&self, header: &str) -> Option<Arc<str>> {
        let digest: [u8; 32] = Sha256::digest(bearer(header)?).into();
        let verified = self.remembered(&digest, self.issuer.held().generation)?;
        Some(Arc::clone(&verified.principal.name))
    }

    fn remembered(&self, digest: &[u8; 32], generation: u64) -> Option<Arc<Verified>> {
        let all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        all.tokens.get(digest).filter(|_| all.generation == generation).cloned()
    }

    fn remember(&self, digest: [u8; 32], generation: u64, verified: &Arc<Verified>) {
        let mut all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if all.generation != generation || all.tokens.len() >= VERIFIED_MAX {
            all.tokens.clear();
            all.generation = generation;
        }
        all.tokens.insert(digest, Arc::clone(verified));
    }

    fn is_meant(&self, audiences: &[String], resource: Option<&str>) -> bool {
        let one = |wanted: &str| audiences.iter().any(|named| named.trim_end_matches('/') == wanted);
        if !self.rules.audiences.is_empty() {
            return self.rules.audiences.iter().any(|wanted| audiences.contains(wanted));
        }
        // A token for the host is one for all of it.
        resource.is_some_and(one) || self.rules.public_url.as_deref().is_some_and(one)
    }

    fn verify(&self, token: &str, held: &Held, now: Timestamp) -> Result<Verified, Wrong> {
        let Parts { header, claims, message, signature } = parts(token)?;
        let algorithm =
            self.allowed(&header.alg).ok_or(Wrong::Invalid("its algorithm is not one that is allowed"))?;
        let kind = header.typ.as_deref().unwrap_or("JWT");
        let kind = kind.strip_prefix("application/").unwrap_or(kind);
        if header.crit.is_some() || !["jwt", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            return Err(Wrong::Invalid("it is of a kind that is not known here"));
        }
        if held.set.is_empty() {
            return Err(Wrong::NoKeys(
                self.issuer.why().unwrap_or_else(|| "they are on their way".to_owned()),
            ));
        }
        let signature = decode(signature).ok_or(Wrong::Invalid("its signature is not readable"))?;
        let kid = header.kid.as_deref();
        if kid.is_some_and(|kid| !held.set.has(kid)) {
            return Err(Wrong::Invalid("its key is not one of the issuer's"));
        }
        let signed = held
            .set
            .candidates(kid, algorithm)
            .take(CANDIDATES_MAX)
            .any(|key| key.verifies(algorithm, message.as_bytes(), &signature));
        if !signed {
            return Err(Wrong::Invalid("its signature is wrong"));
        }
        let claims =
            decode(claims).and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
        self.judge(&claims.ok_or(Wrong::Invalid("its claims are not readable"))?, now)
    }

    fn judge(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Verified, Wrong> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.rules.issuer) {
            return Err(Wrong::Invalid("it is of another issuer"));
        }
        let leeway = i64::try_from(self.rules.leeway.0).unwrap_or(0);
        let expires = time(claims, "exp")?.ok_or(Wrong::Invalid("it says no time of its end (exp)"))?;
        let expires = Timestamp(expires.0.saturating_add(leeway));
        let begun =
            |name| Ok::<_, Wrong>(time(claims, name)?.is_none_or(|at| at.0 <= now.0.saturating_add(leeway)));
        if !begun("nbf")? || !begun("iat")? {
            return Err(Wrong::Invalid("it is not good yet"));
        }
        let scopes = self.scopes(claims);
        let has_scopes = self.rules.required_scopes.iter().all(|wanted| scopes.contains(&wanted.as_str()));
        let principal = Principal { name: Arc::from(name(claims)?), grant: Arc::new(self.grant(&scopes)) };
        Ok(Verified { principal, audiences: audiences(claims)?, expires, has_scopes })
    }

    /// Scopes, however the issuer writes them: words of a text, or a list.
    fn scopes<'a>(&self, claims: &'a Map<String, Value>) -> Vec<&'a str> {
        let mut scopes = Vec::new();
        for claim in &self.rules.scope_claims {
            match claims.get(claim) {
                Some(Value::String(text)) => scopes.extend(text.split_ascii_whitespace()),
                Some(Value::Array(list)) => scopes.extend(list.iter().filter_map(Value::as_str)),
                _ => {}
            }
        }
        scopes
    }

    /// What scopes allow, as the words behind a named token do.
    fn grant(&self, scopes: &[&str]) -> Grant {
        let mut grant = Grant::default();
        let ours = scopes.iter().filter_map(|scope| scope.strip_prefix(self.rules.scope_prefix.as_str()));
        for scope in ours {
            match scope.split_once(':') {
                Some(("server", pattern)) => put(&mut grant.servers, pattern),
                Some(("section", name)) => put(&mut grant.sections, name),
                Some(("tool", pattern)) => put(&mut grant.tools, pattern),
                None if scope == "read-only" => grant.read_only = true,
                _ => {}
            }
        }
        let named = !(grant.servers.is_empty() && grant.sections.is_empty() && grant.tools.is_empty());
        if !named && !self.rules.unscoped {
            // No id is empty: this describes no server.
            grant.servers.push(String::new());
        }
        grant
    }
}

/// A pattern that cannot be kept still leaves out what it does not name.
fn put(list: &mut Vec<String>, pattern: &str) {
    let kept = if pattern.len() > PATTERN_BYTES_MAX { "" } else { pattern };
    if list.len() < PATTERNS_MAX {
        list.push(kept.to_owned());
    }
}

/// A time in seconds since the epoch, with or without a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Wrong> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let millis = match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) => seconds.checked_mul(1000),
        #[expect(clippy::cast_possible_truncation, reason = "its size was looked at")]
        (None, Some(seconds)) if seconds.abs() < 1e12 => Some((seconds * 1000.0) as i64),
        _ => None,
    };
    millis.map(|millis| Some(Timestamp(millis))).ok_or(Wrong::Invalid("a time in it is none"))
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Wrong> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            Ok(list.iter().take(AUDIENCES_MAX).filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => Err(Wrong::Invalid("it names no audience (aud)")),
    }
}

/// Who it is: `sub`, and the program that asks for them where it is another: `alice (cli)`. Whatever the
/// issuer writes, two of them are never one name, and none is one of ours.
fn name(claims: &Map<String, Value>) -> Result<String, Wrong> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (subject, client) = (text("sub"), text("client_id").or_else(|| text("azp")));
    if [subject, client].iter().flatten().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(Wrong::Invalid("a name in it is too long"));
    }
    let name = match (subject, client) {
        (None, None) => return Err(Wrong::Invalid("it names nobody (sub)")),
        (Some(subject), client) if client.is_none_or(|client| client == subject) => written(subject),
        (subject, client) => {
            format!("{} ({})", written(subject.unwrap_or_default()), written(client.unwrap_or_default()))
        }
    };
    Ok(if [LOCAL, KEYHOLDER].contains(&name.as_str()) { format!("{name} ()") } else { name })
}

/// With escapes for all that is not plain.
fn written(name: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_graphic() && !b"%()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
