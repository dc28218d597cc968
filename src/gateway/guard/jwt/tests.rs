//! Tokens over real HTTP: an issuer in this process whose keys rotate and which goes away, and a gateway
//! that asks it.

mod stand_in;

use super::issuer::{AGAIN_AFTER, Issuer, Source};
use super::keys::Algorithm;
use super::{Jwt, Rules, TOKEN_BYTES_MAX, name, written};
use crate::gateway::Gateway;
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::names::Names;
use crate::gateway::guard::sources::Sources;
use crate::gateway::guard::{Auth, Guard, Policy};
use crate::gateway::http::{Entry, Limits, Service, serve};
use crate::gateway::played::{Act, RETRY, RuntimeClock, Stage, id, place, shared};
use crate::gateway::toolproxy::ToolProxy;
use crate::mcp::wire::Era;
use crate::model::time::Span;
use crate::world::Clock;
use crate::world::fake::FakeSessions;
use serde_json::{Value, json};
use stand_in::{Signer, StandIn, url_safe};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A gateway over real HTTP.
struct Site {
    address: SocketAddr,
    guard: Arc<Guard>,
    _end: watch::Sender<bool>,
    _on_stage: mpsc::UnboundedReceiver<crate::gateway::played::Played>,
}

/// An answer: status, head in small letters, body.
struct Said(u16, String, String);

impl Said {
    fn header(&self, name: &str) -> &str {
        let line = self.1.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default()
    }
}

fn rules(issuer: &StandIn) -> Rules {
    Rules {
        issuer: issuer.url.clone(),
        audiences: vec!["mcp".to_owned()],
        algorithms: ["RS256", "PS256", "ES256", "EdDSA"].iter().filter_map(|a| Algorithm::named(a)).collect(),
        leeway: Span::secs(30),
        required_scopes: Vec::new(),
        scope_claims: vec!["scope".to_owned(), "scp".to_owned()],
        scope_prefix: "mcp:".to_owned(),
        unscoped: true,
        public_url: None,
    }
}

fn policy(rules: Rules, jwks_url: Option<String>) -> Policy {
    let source = Source { issuer: rules.issuer.clone(), jwks_url, keep: Duration::from_secs(3600) };
    Policy { names: Names::default(), auth: Auth::Jwt(Arc::new(Jwt::new(rules, Issuer::new(source)))) }
}

impl Site {
    async fn start(policy: Policy) -> Self {
        let (stage, on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        let places = [(id("time"), place("a", RETRY)), (id("git"), place("b", RETRY))];
        gateway.set_places(&places.into_iter().collect());
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::default());
        let guard = Arc::new(Guard::new(policy).with_clock(clock));
        let front = Arc::new(GatewayFront {
            gateway,
            guard: Arc::clone(&guard),
            tools: Arc::new(ToolProxy::new(None)),
            beside: OnceLock::new(),
            tls: Arc::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ending) = watch::channel(false);
        let service = Service {
            entry: Arc::new(Entry::Main),
            limits: Limits::default(),
            sources: Arc::new(Sources::any()),
            meter: Arc::default(),
            tls: Arc::default(),
        };
        tokio::spawn(serve(listener, front, service, ending));
        Self { address, guard, _end: end, _on_stage: on_stage }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Said {
        let body = if method == "POST" {
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#
        } else {
            ""
        };
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        text.push_str("Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut all)).await;
        let _length = read.expect("an answer in time").expect("an answer");
        let all = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((all.as_str(), ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let lower: String = head
            .lines()
            .map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
                None => format!("{line}\n"),
            })
            .collect();
        Said(status, lower, body.to_owned())
    }

    /// `initialize` of a server with this token.
    async fn with(&self, server: &str, token: &str) -> Said {
        self.ask("POST", &format!("/mcp/{server}"), &[("Authorization", &format!("Bearer {token}"))]).await
    }

    async fn until(&self, wanted: u16, token: &str) {
        let begun = tokio::time::Instant::now();
        loop {
            let said = self.with("time", token).await;
            if said.0 == wanted {
                return;
            }
            assert!(begun.elapsed() < LONG, "never {wanted}: {} {}", said.0, said.2);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Seconds of the clock that the gateway has.
const NOW: i64 = 1_000_000;

fn claims(issuer: &StandIn, more: Value) -> Value {
    let mut claims =
        json!({"iss": issuer.url, "aud": "mcp", "sub": "alice", "exp": NOW + 300, "iat": NOW - 5});
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(key);
        } else {
            claims[key] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn tokens_of_every_algorithm_open_the_door() {
    let (rsa, es, ed) = (Signer::rsa(), Signer::es(), Signer::ed());
    let issuer = StandIn::start(vec![rsa.jwk("r"), es.jwk("e"), ed.jwk("d")]).await;
    let site = Site::start(policy(rules(&issuer), None)).await;
    let good = claims(&issuer, json!({}));
    let all = [(&rsa, "RS256", "r"), (&rsa, "PS256", "r"), (&es, "ES256", "e"), (&ed, "EdDSA", "d")];
    for (signer, algorithm, kid) in all {
        let said = site.with("time", &signer.token(algorithm, kid, &good)).await;
        assert_eq!(said.0, 200, "{algorithm} {}", said.2);
        assert!(!said.header("mcp-session-id").is_empty());
    }
    let nameless = es.token_with(&json!({"alg": "ES256"}), &good);
    assert_eq!(site.with("time", &nameless).await.0, 200, "the one key that fits");
    assert_eq!(
        site.with("time", &es.token_with(&json!({"alg": "ES256", "typ": "at+jwt"}), &good)).await.0,
        200
    );
}

/// What each is, and the token.
fn wrong_tokens(
    issuer: &StandIn,
    (rsa, es): (&Signer, &Signer),
    good: &Value,
    whole: &str,
) -> Vec<(&'static str, String)> {
    let public = rsa.jwk("r")["n"].as_str().unwrap().to_owned();
    let unsigned = |alg: &str| {
        let header = url_safe(json!({"alg": alg, "kid": "r"}).to_string().as_bytes());
        format!("{header}.{}", url_safe(good.to_string().as_bytes()))
    };
    // A shared secret that is no secret: the public key.
    let confused = {
        let message = unsigned("HS256");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
        format!("{message}.{}", url_safe(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
    };
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let other = Signer::es().token("ES256", "e", good);
    let token = |more| es.token("ES256", "e", &claims(issuer, more));
    vec![
        ("none", format!("{}.", unsigned("none"))),
        ("none, signed", format!("{}.{signature}", unsigned("none"))),
        ("HS256", confused),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("four parts", format!("{whole}.x")),
        ("padding", format!("{whole}=")),
        ("another key", other),
        ("another's kid", es.token("ES256", "d", good)),
        ("another algorithm", es.token("RS256", "e", good)),
        ("critical", es.token_with(&json!({"alg": "ES256", "kid": "e", "crit": ["exp"]}), good)),
        ("another type", es.token_with(&json!({"alg": "ES256", "kid": "e", "typ": "logout+jwt"}), good)),
        ("expired", token(json!({"exp": NOW - 31}))),
        ("no end", token(json!({"exp": null}))),
        ("an end in words", token(json!({"exp": "tomorrow"}))),
        ("not yet", token(json!({"nbf": NOW + 120}))),
        ("of the future", token(json!({"iat": NOW + 120}))),
        ("another audience", token(json!({"aud": ["x", "mcp2"]}))),
        ("no audience", token(json!({"aud": null}))),
        ("another issuer", token(json!({"iss": "https://evil.example"}))),
        ("nearly the issuer", token(json!({"iss": format!("{}/", issuer.url)}))),
        ("nobody", token(json!({"sub": null}))),
        ("a long name", token(json!({"sub": "x".repeat(300)}))),
        ("too long", token(json!({"more": "x".repeat(TOKEN_BYTES_MAX)}))),
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
    ]
}

#[tokio::test]
async fn no_other_tokens_open_the_door_and_none_is_shown() {
    let (rsa, es, ed) = (Signer::rsa(), Signer::es(), Signer::ed());
    let issuer = StandIn::start(vec![rsa.jwk("r"), es.jwk("e"), ed.jwk("d")]).await;
    let site = Site::start(policy(rules(&issuer), None)).await;
    let good = claims(&issuer, json!({}));
    let whole = es.token("ES256", "e", &good);
    let signature = whole.rsplit('.').next().unwrap();
    let wrong = wrong_tokens(&issuer, (&rsa, &es), &good, &whole);
    assert!(wrong.len() > 20);
    for (what, token) in wrong {
        let said = site.with("time", &token).await;
        assert_eq!(said.0, 401, "{what}: {}", said.2);
        let challenge = said.header("www-authenticate");
        assert!(challenge.contains(r#"error="invalid_token""#), "{what}: {challenge}");
        assert!(!(said.1 + &said.2).contains(signature), "{what} shows a token");
    }
    let token = |more| es.token("ES256", "e", &claims(&issuer, more));
    // Within the leeway, and lists of audiences.
    for more in [
        json!({"exp": NOW - 10}),
        json!({"nbf": NOW + 10}),
        json!({"aud": ["x", "mcp"]}),
        json!({"exp": 1.5e9}),
    ] {
        assert_eq!(site.with("time", &token(more.clone())).await.0, 200, "{more}");
    }
    // Where a token does not belong.
    for path in [format!("/mcp/time?access_token={whole}"), format!("/mcp/time?token={whole}")] {
        let said = site.ask("POST", &path, &[]).await;
        assert_eq!(said.0, 401);
        assert!(!said.header("www-authenticate").contains("error="), "nothing was presented");
    }
    for (name, value) in [("Authorization", format!("Basic {whole}")), ("X-Access-Token", whole.clone())] {
        assert_eq!(site.ask("POST", "/mcp/time", &[(name, &value)]).await.0, 401);
    }
}

#[tokio::test]
async fn scopes_say_what_may_be_used() {
    let es = Signer::es();
    let issuer = StandIn::start(vec![es.jwk("e")]).await;
    let needs = Rules { required_scopes: vec!["mcp".to_owned()], ..rules(&issuer) };
    let site = Site::start(policy(needs, None)).await;
    let token = |more| es.token("ES256", "e", &claims(&issuer, more));
    for scopes in
        [json!({"scope": "mcp"}), json!({"scp": ["x", "mcp"]}), json!({"scope": "a mcp mcp:server:ti*"})]
    {
        assert_eq!(site.with("time", &token(scopes.clone())).await.0, 200, "{scopes}");
    }
    let lacking = site.with("time", &token(json!({"scope": "mcp:server:time"}))).await;
    let challenge = lacking.header("www-authenticate");
    assert_eq!(lacking.0, 403, "{}", lacking.2);
    assert!(
        challenge.contains(r#"error="insufficient_scope""#) && challenge.contains(r#"scope="mcp""#),
        "{challenge}"
    );
    let elsewhere = site.with("git", &token(json!({"scope": "mcp mcp:server:ti*"}))).await;
    let challenge = elsewhere.header("www-authenticate");
    assert_eq!(elsewhere.0, 403);
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains(r#"scope="mcp mcp:server:git""#),
        "{challenge}"
    );
}

#[tokio::test]
async fn challenges_lead_to_the_issuer_under_the_name_that_clients_know() {
    let es = Signer::es();
    let issuer = StandIn::start(vec![es.jwk("e")]).await;
    let needs = Rules { required_scopes: vec!["mcp".to_owned()], ..rules(&issuer) };
    let site = Site::start(policy(needs, None)).await;
    let token = |more| es.token("ES256", "e", &claims(&issuer, more));
    // Nobody said anything yet: no error, and the way to a token.
    let base = format!("http://{}", site.address);
    for (path, metadata) in [
        ("/mcp/time", "/mcp/time/.well-known/oauth-protected-resource"),
        ("/mcp", "/.well-known/oauth-protected-resource/mcp"),
        ("/mcp/~ops", "/.well-known/oauth-protected-resource/mcp/~ops"),
        ("/openapi/time/openapi.json", "/.well-known/oauth-protected-resource"),
    ] {
        let said = site.ask("GET", path, &[]).await;
        let challenge = said.header("www-authenticate");
        assert_eq!(said.0, 401, "{path}");
        assert!(challenge.contains(&format!(r#"resource_metadata="{base}{metadata}""#)), "{challenge}");
        assert!(!challenge.contains("error"), "{challenge}");
        let said = site.ask("GET", metadata, &[]).await;
        let document: Value = serde_json::from_str(&said.2).unwrap();
        let resource = if path.starts_with("/mcp") { path } else { "" };
        assert_eq!(
            (said.0, document["resource"].as_str().unwrap()),
            (200, format!("{base}{resource}").as_str())
        );
        assert_eq!(document["authorization_servers"], json!([issuer.url]));
        assert_eq!(
            (&document["scopes_supported"], &document["bearer_methods_supported"]),
            (&json!(["mcp"]), &json!(["header"]))
        );
    }
    let suffixed = site.ask("GET", "/.well-known/oauth-protected-resource/mcp/time", &[]).await;
    assert_eq!(suffixed.0, 200, "where the standard has it");
    for nothing in
        ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/etc/passwd"]
    {
        assert_eq!(site.ask("GET", nothing, &[]).await.0, 404, "{nothing}");
    }
    // Behind a balancer the client knows another name.
    let balanced = Rules {
        public_url: Some("https://mcp.example.com".to_owned()),
        audiences: Vec::new(),
        ..rules(&issuer)
    };
    site.guard.set(policy(balanced, None));
    let said = site.ask("GET", "/mcp/time", &[]).await;
    let wanted =
        r#"resource_metadata="https://mcp.example.com/mcp/time/.well-known/oauth-protected-resource""#;
    assert!(said.header("www-authenticate").contains(wanted), "{}", said.1);
    // The audience is the endpoint, or the host.
    for (audience, status) in [
        ("https://mcp.example.com/mcp/time", 200),
        ("https://mcp.example.com/", 200),
        ("https://mcp.example.com/mcp/git", 401),
        ("https://mcp.example.com/mcp", 401),
        ("mcp", 401),
    ] {
        assert_eq!(site.with("time", &token(json!({"aud": audience}))).await.0, status, "{audience}");
    }
}

#[tokio::test]
async fn keys_rotate_and_an_issuer_that_goes_away_takes_none_with_it() {
    let (old, new) = (Signer::es(), Signer::ed());
    let issuer = StandIn::start(vec![old.jwk("1")]).await;
    let site = Site::start(policy(rules(&issuer), Some(format!("{}/jwks", issuer.url)))).await;
    let (first, second) = {
        let claims = claims(&issuer, json!({}));
        (old.token("ES256", "1", &claims), new.token("EdDSA", "2", &claims))
    };
    assert_eq!(site.with("time", &first).await.0, 200);
    assert_eq!(issuer.asked(), 1);
    issuer.set(|answers| answers.keys = vec![new.jwk("2")]);
    assert_eq!(site.with("time", &first).await.0, 200, "nobody has noticed yet");
    // Many ask with a key that is not known: the issuer is asked once.
    let begun = tokio::time::Instant::now();
    let tries: Vec<Said> = futures_util::future::join_all((0..20).map(|_| site.with("time", &second))).await;
    assert!(issuer.asked() <= 2, "{} times", issuer.asked());
    if begun.elapsed() < AGAIN_AFTER / 2 {
        assert!(tries.iter().all(|said| said.0 == 401) && issuer.asked() == 1);
    }
    site.until(200, &second).await;
    assert!(issuer.asked() <= 3, "{} times", issuer.asked());
    assert_eq!(site.with("time", &first).await.0, 401, "its key is gone, whatever was remembered");
    // Away: who has a key that is known goes on.
    issuer.set(|answers| answers.down = true);
    let unknown = new.token("EdDSA", "3", &claims(&issuer, json!({})));
    tokio::time::sleep(AGAIN_AFTER).await;
    assert_eq!(site.with("time", &unknown).await.0, 401);
    assert_eq!(site.with("time", &second).await.0, 200);
    // A reload that leaves the issuer as it is leaves its keys.
    let strict = Rules { required_scopes: vec!["x".to_owned()], ..rules(&issuer) };
    site.guard.set(policy(strict, Some(format!("{}/jwks", issuer.url))));
    assert_eq!(site.with("time", &second).await.0, 403);
}

#[tokio::test]
async fn without_the_issuers_keys_nobody_comes_in_until_they_are_there() {
    let es = Signer::es();
    let issuer = StandIn::start(vec![es.jwk("e")]).await;
    issuer.set(|answers| answers.down = true);
    let site = Site::start(policy(rules(&issuer), None)).await;
    let token = es.token("ES256", "e", &claims(&issuer, json!({})));
    let said = site.with("time", &token).await;
    assert_eq!((said.0, said.header("retry-after")), (503, "5"), "{}", said.2);
    assert!(said.2.contains("MCPO-G080") && said.2.contains("HTTP status 500"), "{}", said.2);
    assert_eq!(site.ask("POST", "/mcp/time", &[]).await.0, 401, "without a token there is nothing to check");
    assert_eq!(site.ask("GET", "/healthz", &[]).await.0, 200);
    issuer.set(|answers| answers.down = false);
    site.until(200, &token).await;
    // What is no set of keys is none.
    issuer.set(|answers| answers.keys = vec![json!({"kty": "oct", "k": "AQAB"})]);
    assert_eq!(site.with("time", &token).await.0, 200);
}

#[test]
fn two_clients_are_never_one_name() {
    let of = |claims: Value| name(claims.as_object().unwrap());
    let named = |claims| of(claims).unwrap();
    assert_eq!(named(json!({"sub": "auth0|7"})), "auth0|7");
    assert_eq!(named(json!({"sub": "alice", "azp": "cli"})), "alice (cli)");
    assert_eq!(named(json!({"sub": "cli", "client_id": "cli"})), "cli");
    assert_eq!(named(json!({"client_id": "cli"})), " (cli)");
    assert_eq!(named(json!({"sub": "alice (cli)"})), "alice%20%28cli%29");
    assert_eq!(named(json!({"sub": "a\nb\u{e4}%"})), "a%0Ab%C3%A4%25");
    assert_eq!(
        (named(json!({"sub": "local"})), named(json!({"sub": "openapi"}))),
        ("local ()".into(), "openapi ()".into())
    );
    assert!(of(json!({"sub": ""})).is_err() && of(json!({"sub": 5})).is_err());
    assert_eq!(written("plain-1_@x"), "plain-1_@x");
}

#[test]
fn what_scopes_name_is_what_named_tokens_name() {
    let rules = |unscoped| Rules { scope_prefix: "mcp:".to_owned(), unscoped, ..Rules::default() };
    let source = Source { issuer: String::new(), jwks_url: None, keep: Duration::ZERO };
    let jwt = |unscoped| Jwt::new(rules(unscoped), Issuer::new(source.clone()));
    let grant =
        jwt(true).grant(&["mcp:server:git-*", "mcp:section:ops", "mcp:tool:git/log_*", "mcp:read-only", "x"]);
    assert_eq!((grant.servers, grant.sections), (vec!["git-*".to_owned()], vec!["ops".to_owned()]));
    assert!(grant.tools == ["git/log_*"] && grant.read_only);
    assert!(jwt(true).grant(&["mcp", "mcp:other:x"]).is_all());
    let none = jwt(false).grant(&["mcp", "mcp:read-only"]);
    assert!(!none.admits_server(&id("time"), None) && none.read_only);
    assert!(jwt(false).grant(&["mcp:server:*"]).admits_server(&id("time"), None));
    let long = format!("mcp:server:{}", "x".repeat(4096));
    assert!(
        !jwt(true).grant(&[&long]).admits_server(&id("time"), None),
        "not kept, and not everything either"
    );
}
