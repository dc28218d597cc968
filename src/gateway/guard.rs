//! Who may come in: names that pages may be asked for under, sources that may connect, and tokens.
//!
//! A page of a foreign site can make its visitor's browser send requests to this host, under a
//! name of its own that resolves to it (DNS rebinding). Such a request says so in `Host` or
//! `Origin`, and is refused by them before anything else is looked at.
//!
//! | | main listener | edge port, shared listener |
//! |---|---|---|
//! | auth none | direct loopback clients | whoever may connect |
//! | bearer | `Bearer <token>`, `Basic <name>:<token>` | the same |
//! | jwt | `Bearer <token>`, signed by the issuer | the same |
//!
//! Must never hand credentials on, nor show them.

pub mod cors;
pub mod jwt;
pub mod key;
pub mod names;
mod resource;
pub mod sources;
pub mod tokens;

use crate::gateway::body::{Refusal, Response, json, problem};
use crate::gateway::guard::jwt::Jwt;
use crate::gateway::guard::key::Key;
use crate::gateway::guard::names::Names;
use crate::gateway::guard::tokens::TokenSet;
use crate::gateway::http::{Entry, Request};
use crate::model::access::Grant;
use crate::world::Clock;
use hyper::header::{AUTHORIZATION, FORWARDED, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// What is asked of clients that did not say who they are.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="mcp-orchestrator", Basic realm="mcp-orchestrator""#);
/// What a client is told whose token does not reach far enough.
const INSUFFICIENT: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="mcp-orchestrator", error="insufficient_scope""#);
/// The same where the key of the tool proxy is asked for: another realm, so that browsers keep the
/// two apart.
const KEY_CHALLENGE: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="mcp-orchestrator tools", Basic realm="mcp-orchestrator tools""#,
);
/// Who a client with the key of the tool proxy is.
const KEYHOLDER: &str = "openapi";
/// Who a client is without tokens.
pub(crate) const LOCAL: &str = "local";

/// Whose request it is: the name of the token's owner, or `local`; and what they may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name.
    pub name: Arc<str>,
    /// What they may use.
    pub grant: Arc<Grant>,
}

impl Principal {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How clients prove who they are (`[gateway] auth`).
#[derive(Debug, Default)]
pub enum Auth {
    /// They do not.
    #[default]
    None,
    /// By a token.
    Tokens(TokenSet),
    /// By a token that an issuer signed.
    Jwt(Arc<Jwt>),
}

/// What is allowed.
#[derive(Debug, Default)]
pub struct Policy {
    /// Names of this host.
    pub names: Names,
    /// How clients prove who they are.
    pub auth: Auth,
}

/// Looks at every request before its body is read.
pub struct Guard {
    policy: RwLock<Policy>,
    local: Principal,
    clock: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard with a policy; with one of an issuer within a tokio runtime.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        if let Auth::Jwt(jwt) = &policy.auth {
            jwt.issuer.begin();
        }
        Self {
            policy: RwLock::new(policy),
            local: Principal { name: Arc::from(LOCAL), grant: Arc::default() },
            clock: None,
        }
    }

    /// The same with a clock, without which nothing is good that expires.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Changes what is allowed, for requests from now on. Keys of an issuer that stays are kept.
    pub fn set(&self, policy: Policy) {
        let mut held = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        let auth = match (policy.auth, &held.auth) {
            (Auth::Jwt(new), Auth::Jwt(old)) => {
                let new = Jwt::new(new.rules.clone(), Arc::clone(&new.issuer));
                Auth::Jwt(Arc::new(new.taking_over(old)))
            }
            (auth, _) => auth,
        };
        if let Auth::Jwt(jwt) = &auth {
            jwt.issuer.begin();
        }
        *held = Policy { auth, ..policy };
    }

    /// Waits a moment for what judging a request needs and may come: an issuer's new key.
    pub async fn prepare(&self, request: &Request) {
        let jwt = match &self.policy.read().unwrap_or_else(PoisonError::into_inner).auth {
            Auth::Jwt(jwt) => Arc::clone(jwt),
            Auth::None | Auth::Tokens(_) => return,
        };
        if let Some(said) = request.headers.get(AUTHORIZATION).and_then(|said| said.to_str().ok()) {
            jwt.prepare(said).await;
        }
    }

    /// Whether a request comes under a name of this host, and from no page of another site.
    ///
    /// # Errors
    /// The refusal: 400 or 403.
    pub fn check_name(&self, request: &Request) -> Result<(), Refusal> {
        check_names(request, &self.policy.read().unwrap_or_else(PoisonError::into_inner).names)
    }

    /// Whose request it is; takes the credentials out of it. Probes are everybody's.
    ///
    /// # Errors
    /// The answer instead: 400 and 403 for names, 404 for what OAuth clients look for, what browsers
    /// ask before a request ([`cors`]), 401 and 403 for clients that may not come in.
    pub fn admit(&self, request: &mut Request) -> Result<Principal, Refusal> {
        let credentials = request.headers.remove(AUTHORIZATION);
        if is_probe(request) {
            return Ok(self.local.clone());
        }
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        check_names(request, &policy.names)?;
        let looked_for = looked_for(&policy, request);
        let of_endpoint = request.path() == "/mcp" || request.path().starts_with("/mcp/");
        if cors::is_preflight(request) && (of_endpoint || looked_for.is_some()) {
            return Err(cors::preflight(request).into());
        }
        if let Some(answer) = looked_for {
            return Err(answer.into());
        }
        let admitted = self.authenticated(&policy, request, credentials.as_ref()).map_err(|mut answer| {
            // An allowed page may know why.
            cors::let_read(&mut answer, &request.headers);
            note_known(&mut answer, &policy, credentials.as_ref());
            (*answer).into()
        });
        hand_back(&policy, request, credentials);
        admitted
    }
}

impl Guard {
    /// Whose request it is by its credentials, as `[gateway] auth` has it.
    fn authenticated(
        &self,
        policy: &Policy,
        request: &Request,
        credentials: Option<&HeaderValue>,
    ) -> Result<Principal, Box<Response>> {
        let for_this_host = matches!(*request.entry, Entry::Main | Entry::Tools);
        let now = self.clock.as_ref().map(|clock| clock.now());
        match &policy.auth {
            Auth::Tokens(tokens) => {
                let owner = credentials.and_then(|value| tokens.owner(value.to_str().ok()?, now));
                owner.ok_or_else(|| Box::new(unauthorized()))
            }
            Auth::Jwt(jwt) => {
                let said = credentials.and_then(|value| value.to_str().ok());
                let url = resource::url(request, &jwt.rules);
                let checked = jwt.check(said, url.as_deref(), now);
                checked.map_err(|wrong| Box::new(resource::refusal(request, jwt, &wrong)))
            }
            Auth::None if for_this_host && !is_direct(request) => Err(Box::new(problem(
                StatusCode::FORBIDDEN,
                "MCPO-G003",
                "not from here",
                "with [gateway] auth = none this listener serves MCP to clients on this host alone, \
                 and not through a proxy; set auth = bearer and a tokens_file, or use the server's own port",
            ))),
            Auth::None => Ok(self.local.clone()),
        }
    }

    /// Whose request to the tool proxy it is; takes the credentials out of it. Its key, if it has one,
    /// is as good as a token.
    ///
    /// # Errors
    /// The answer instead, as [`Self::admit`] has it.
    pub fn admit_to_tools(&self, request: &mut Request, key: Option<&Key>) -> Result<Principal, Refusal> {
        let credentials = request.headers.remove(AUTHORIZATION);
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        check_names(request, &policy.names)?;
        if cors::is_preflight(request) {
            return Err(cors::preflight(request).into());
        }
        if let Some(answer) = looked_for(&policy, request) {
            return Err(answer.into());
        }
        let said = credentials.as_ref().and_then(|value| value.to_str().ok());
        let admitted = match key {
            Some(key) if said.is_some_and(|said| key.opens(said)) => {
                Ok(Principal { name: Arc::from(KEYHOLDER), grant: Arc::default() })
            }
            Some(_) if matches!(policy.auth, Auth::None) => Err(Box::new(locked(said))),
            Some(_) | None => self.authenticated(&policy, request, credentials.as_ref()),
        };
        let admitted = admitted.map_err(|mut answer| {
            cors::let_read(&mut answer, &request.headers);
            note_known(&mut answer, &policy, credentials.as_ref());
            (*answer).into()
        });
        if key.is_none() {
            hand_back(&policy, request, credentials);
        }
        admitted
    }

    /// What a client is told whose token does not reach this server.
    #[must_use]
    pub fn insufficient(&self, request: &Request, server: &str) -> HeaderValue {
        let told = match &self.policy.read().unwrap_or_else(PoisonError::into_inner).auth {
            Auth::Jwt(jwt) => resource::insufficient(request, jwt, server),
            Auth::None | Auth::Tokens(_) => None,
        };
        told.unwrap_or(INSUFFICIENT)
    }

    /// Whether clients need a token.
    #[must_use]
    pub fn wants_tokens(&self) -> bool {
        !matches!(self.policy.read().unwrap_or_else(PoisonError::into_inner).auth, Auth::None)
    }
}

/// Who was refused, when that is known although their token does not open the door: it is part of who
/// called what. Goes along with the answer and not out with it.
#[derive(Clone, Debug)]
pub struct Known(pub Arc<str>);

fn note_known(answer: &mut Response, policy: &Policy, credentials: Option<&HeaderValue>) {
    let said = credentials.and_then(|value| value.to_str().ok());
    let known = said.and_then(|said| match &policy.auth {
        Auth::Tokens(tokens) => tokens.known(said),
        Auth::Jwt(jwt) => jwt.known(said),
        Auth::None => None,
    });
    if let Some(name) = known {
        answer.extensions_mut().insert(Known(name));
    }
}

/// Where nobody proves who they are, credentials are for somebody behind us, if an entry says so.
fn hand_back(policy: &Policy, request: &mut Request, credentials: Option<HeaderValue>) {
    if let (Auth::None, Some(credentials)) = (&policy.auth, credentials) {
        request.headers.insert(AUTHORIZATION, credentials);
    }
}

/// The key of the tool proxy is missing or wrong. A wrong one that no browser asked its user for gets the
/// status that clients of tool proxies know.
fn locked(said: Option<&str>) -> Response {
    let wrong = said.is_some_and(|said| said.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("bearer ")));
    if wrong {
        return problem(StatusCode::FORBIDDEN, "MCPO-G068", "the key is wrong", "Invalid API key");
    }
    let why = "Missing or invalid Authorization header";
    let mut response = problem(StatusCode::UNAUTHORIZED, "MCPO-G068", "a key is needed", why);
    response.headers_mut().insert(WWW_AUTHENTICATE, KEY_CHALLENGE);
    response
}

/// Whether it is a health probe, which load balancers send under the target's address.
#[must_use]
pub fn is_probe(request: &Request) -> bool {
    let path = request.path();
    let one = |path: &str| path == "/healthz" || path == "/readyz";
    one(path) || path.strip_prefix("/healthz/").is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

/// A client on this very host, without a proxy between.
fn is_direct(request: &Request) -> bool {
    let proxied = |headers: &HeaderMap| {
        headers.contains_key(FORWARDED)
            || headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
    };
    request.peer.ip().to_canonical().is_loopback() && !proxied(&request.headers)
}

fn check_names(request: &Request, names: &Names) -> Result<(), Refusal> {
    let own = request.local.ip();
    let mut hosts = request.headers.get_all(HOST).iter();
    // An absolute request target outranks the header.
    let host = match (request.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let Some(host) = host else {
        let why = "a request has one Host header with the name it was sent to";
        return Err(problem(StatusCode::BAD_REQUEST, "MCPO-G001", "no usable Host header", why).into());
    };
    // A page that had its name pointed at this host reaches it from this host. From afar, clients
    // know the host by names that nobody told us (a load balancer's), unless somebody did.
    let near = request.peer.ip().to_canonical().is_loopback();
    if (near || !names.is_empty()) && !names.is_host(host, own) {
        let why = "the Host header names neither this host nor a name of [gateway] allowed_origins";
        return Err(problem(StatusCode::FORBIDDEN, "MCPO-G001", "not a name of this host", why).into());
    }
    let foreign = |origin: &HeaderValue| !origin.to_str().is_ok_and(|text| names.is_origin(text, own));
    if request.headers.get_all(ORIGIN).iter().any(foreign) {
        let why =
            "pages of other sites may not use this server; allowed ones stand in [gateway] allowed_origins";
        return Err(problem(StatusCode::FORBIDDEN, "MCPO-G002", "not from this site", why).into());
    }
    Ok(())
}

/// What clients look for before they ask for a password, readable for an allowed page.
fn looked_for(policy: &Policy, request: &Request) -> Option<Response> {
    let metadata = match &policy.auth {
        Auth::Jwt(jwt) => resource::metadata(request, &jwt.rules),
        Auth::None | Auth::Tokens(_) => None,
    };
    let mut answer = metadata.or_else(|| well_known(request.path()))?;
    cors::let_read(&mut answer, &request.headers);
    Some(answer)
}

/// Where no OAuth is, a page or a 401 in its place would confuse them.
#[must_use]
pub fn well_known(path: &str) -> Option<Response> {
    let name = path.split_once("/.well-known/")?.1;
    let looked_for = name.starts_with("oauth-") || name.starts_with("openid-");
    looked_for.then(|| {
        json(
            StatusCode::NOT_FOUND,
            r#"{"error":"not_found","error_description":"no OAuth is configured here"}"#,
        )
    })
}

fn unauthorized() -> Response {
    let why = "a request has the header 'Authorization: Bearer <token>', or Basic with name and token";
    let mut response = problem(StatusCode::UNAUTHORIZED, "MCPO-G004", "a token is needed", why);
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}

#[cfg(test)]
mod tests {
    use super::names::Names;
    use super::tokens::TokenSet;
    use super::{Auth, Guard, Policy};
    use crate::gateway::http::{Addresses, Entry, Request};
    use crate::model::id::ServerId;
    use std::sync::Arc;

    fn request(entry: Entry, peer: &str, uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut head = hyper::Request::get(uri);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let addresses = Addresses { peer: peer.parse().unwrap(), local: "10.0.0.5:8001".parse().unwrap() };
        Request::new(head.body(()).unwrap(), Arc::new(entry), addresses).unwrap()
    }

    fn edge() -> Entry {
        Entry::Edge(ServerId::new("time").unwrap())
    }

    /// The principal, or the status and the challenge.
    fn verdict(guard: &Guard, mut request: Request) -> Result<String, (u16, bool)> {
        let admitted = guard.admit(&mut request);
        assert!(!request.headers.contains_key("authorization"), "credentials are taken out");
        admitted
            .map(|principal| principal.to_string())
            .map_err(|answer| (answer.status().as_u16(), answer.headers().contains_key("www-authenticate")))
    }

    const NEAR: &str = "127.0.0.1:4000";
    const FAR: &str = "10.0.0.9:4000";

    #[test]
    fn names_are_checked_on_all_but_probes() {
        let guard = Guard::new(Policy { names: Names::new(["mcp.example.com"]), auth: Auth::None });
        let ask = |uri: &str, headers: &[(&str, &str)]| verdict(&guard, request(edge(), FAR, uri, headers));
        let local = Ok("local".to_owned());
        assert_eq!(ask("/mcp", &[("host", "localhost:8001")]), local);
        assert_eq!(ask("/mcp", &[("host", "MCP.example.com")]), local);
        assert_eq!(ask("/mcp", &[("host", "10.0.0.5:8001"), ("origin", "https://mcp.example.com")]), local);
        assert_eq!(ask("http://localhost/mcp", &[("host", "localhost")]), local);
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "localhost"), ("origin", "http://evil.example")],
            &[("host", "localhost"), ("origin", "null")],
            &[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")],
        ] {
            assert_eq!(ask("/mcp", headers), Err((403, false)), "{headers:?}");
            assert_eq!(ask("/healthz", headers), local);
        }
        assert_eq!(ask("http://evil.example/mcp", &[("host", "localhost")]), Err((403, false)));
        assert_eq!(ask("/mcp", &[]), Err((400, false)));
        assert_eq!(ask("/mcp", &[("host", "localhost"), ("host", "localhost")]), Err((400, false)));
        assert_eq!(ask("/healthz/time", &[]), local);
        assert_eq!(ask("/healthz/time/mcp", &[]), Err((400, false)));
    }

    #[test]
    fn names_nobody_told_us_are_good_from_afar_and_pages_of_others_are_not() {
        let guard = Guard::new(Policy::default());
        let balancer = ("host", "alb-1.us-west-2.elb.amazonaws.com");
        let ask = |peer, headers: &[(&str, &str)]| verdict(&guard, request(edge(), peer, "/mcp/a", headers));
        assert_eq!(ask(FAR, &[balancer]), Ok("local".to_owned()));
        assert_eq!(ask(NEAR, &[balancer]), Err((403, false)));
        assert_eq!(ask(FAR, &[balancer, ("origin", "http://evil.example")]), Err((403, false)));
    }

    #[test]
    fn browsers_ask_without_a_token_and_pages_of_others_get_no_answer() {
        let policy = || Policy {
            names: Names::new(["https://chat.example.com"]),
            auth: Auth::Tokens(TokenSet::parse("ci:s3cret\n").unwrap()),
        };
        let guard = Guard::new(policy());
        let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
            let mut request = request(edge(), FAR, path, headers);
            request.method = method.parse().unwrap();
            *guard.admit(&mut request).unwrap_err()
        };
        let page = ("origin", "https://chat.example.com");
        let question = [
            ("host", "localhost"),
            page,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,mcp-session-id, Mcp-Param-City,x-evil"),
        ];
        let answer = ask("OPTIONS", "/mcp/time", &question);
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(answer.status(), 204);
        assert_eq!(header("access-control-allow-origin").as_deref(), Some(page.1));
        assert_eq!(header("access-control-allow-methods").as_deref(), Some("GET, POST, DELETE"));
        let allowed = header("access-control-allow-headers").unwrap();
        for name in
            ["Authorization", "Last-Event-ID", "Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Param-City"]
        {
            assert!(allowed.contains(name), "{allowed}");
        }
        assert!(!allowed.contains("evil") && header("vary").unwrap().starts_with("Origin"));
        // Not a preflight, or not of an endpoint: as any other request.
        assert_eq!(ask("OPTIONS", "/mcp/time", &question[..2]).status(), 401);
        assert_eq!(ask("OPTIONS", "/api/v1/status", &question).status(), 401);
        let mut evil = question;
        evil[1] = ("origin", "https://evil.example");
        let answer = ask("OPTIONS", "/mcp/time", &evil);
        assert_eq!(answer.status(), 403);
        assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
        // A page that is allowed may read that a token is needed.
        let answer = ask("POST", "/mcp/time", &[("host", "localhost"), page]);
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["access-control-allow-origin"], page.1);
        let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("Mcp-Session-Id") && exposed.contains("WWW-Authenticate"), "{exposed}");
        let answer = ask("POST", "/mcp/time", &[("host", "localhost")]);
        assert!(!answer.headers().contains_key("access-control-allow-origin"), "nobody asked");
    }

    #[test]
    fn without_tokens_the_main_listener_is_for_this_host_alone() {
        let guard = Guard::new(Policy::default());
        let host = ("host", "localhost");
        let ask =
            |entry, peer, headers: &[(&str, &str)]| verdict(&guard, request(entry, peer, "/mcp/a", headers));
        assert!(ask(Entry::Main, NEAR, &[host]).is_ok());
        assert!(ask(Entry::Main, "[::ffff:127.0.0.1]:4000", &[host]).is_ok());
        assert_eq!(ask(Entry::Main, FAR, &[host]), Err((403, false)));
        for proxied in ["Forwarded", "X-Forwarded-For", "x-forwarded-proto"] {
            assert_eq!(ask(Entry::Main, NEAR, &[host, (proxied, "x")]), Err((403, false)));
            assert!(ask(edge(), FAR, &[host, (proxied, "x")]).is_ok());
            assert!(ask(Entry::Shared, FAR, &[host, (proxied, "x")]).is_ok());
        }
    }

    #[test]
    fn tokens_say_whose_request_it_is() {
        let tokens = TokenSet::parse("ci:s3cret\n").unwrap();
        let guard = Guard::new(Policy { names: Names::default(), auth: Auth::Tokens(tokens) });
        let host = ("host", "localhost");
        let ask = |headers: &[(&str, &str)]| verdict(&guard, request(Entry::Main, FAR, "/mcp/a", headers));
        assert_eq!(ask(&[host, ("authorization", "Bearer s3cret")]), Ok("ci".to_owned()));
        assert_eq!(ask(&[host, ("authorization", "Basic Y2k6czNjcmV0")]), Ok("ci".to_owned()));
        assert_eq!(ask(&[host]), Err((401, true)));
        assert_eq!(ask(&[host, ("authorization", "Bearer other")]), Err((401, true)));
        guard
            .set(Policy { names: Names::default(), auth: Auth::Tokens(TokenSet::parse("b:other").unwrap()) });
        let ask = |headers: &[(&str, &str)]| verdict(&guard, request(Entry::Main, FAR, "/mcp/a", headers));
        assert_eq!(ask(&[host, ("authorization", "Bearer other")]), Ok("b".to_owned()));
    }

    #[test]
    fn what_oauth_clients_look_for_is_not_there_and_needs_no_token() {
        let auth = Auth::Tokens(TokenSet::parse("t").unwrap());
        let guard = Guard::new(Policy { names: Names::default(), auth });
        let ask = |uri: &str| verdict(&guard, request(edge(), FAR, uri, &[("host", "localhost")]));
        for path in [
            "/.well-known/oauth-protected-resource/mcp/time",
            "/.well-known/oauth-authorization-server",
            "/mcp/time/.well-known/openid-configuration",
        ] {
            assert_eq!(ask(path), Err((404, false)));
        }
        assert_eq!(ask("/.well-known/other"), Err((401, true)));
    }
}
