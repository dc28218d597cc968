//! Certificates made here, and clients that trust only them.

use super::{Oldest, Tls, Wrong, config};
use crate::gateway::body::{Refusal, Response, text};
use crate::gateway::guard::sources::Sources;
use crate::gateway::http::{Entry, Front, Limits, Request, Service, serve};
use hyper::StatusCode;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for `localhost`, and its key, as PEM; and for clients.
struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Pair { certificate, key, der: made.cert.der().clone() }
}

impl Pair {
    fn config(&self, oldest: Oldest) -> Arc<rustls::ServerConfig> {
        config(self.certificate.as_bytes(), self.key.as_bytes(), oldest).unwrap()
    }

    /// Speaks to whoever has this certificate and to nobody else.
    async fn connect(
        &self,
        address: SocketAddr,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let client = builder.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, stream).await
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Answers everything.
struct Echo;

impl Front for Echo {
    type Pass = ();

    fn admit(&self, _request: &mut Request) -> Result<(), Refusal> {
        Ok(())
    }

    async fn handle(self: Arc<Self>, request: Request, _pass: ()) -> Response {
        text(StatusCode::OK, request.path().to_owned())
    }
}

struct Running {
    address: SocketAddr,
    tls: Arc<Tls>,
    end: watch::Sender<bool>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, shutdown) = watch::channel(false);
    let tls = Arc::new(Tls::default());
    let limits = Limits { first_within: Duration::from_millis(400), ..Limits::default() };
    let service = Service {
        entry: Arc::new(Entry::Main),
        limits,
        sources: Arc::new(Sources::any()),
        meter: Arc::default(),
        tls: Arc::clone(&tls),
    };
    tokio::spawn(serve(listener, Arc::new(Echo), service, shutdown));
    Running { address, tls, end }
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let (mut out, mut buf) = (Vec::new(), [0; 1024]);
    while !out.ends_with(path.as_bytes()) {
        let count = stream.read(&mut buf).await.unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&out));
        out.extend_from_slice(&buf[..count]);
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn another_certificate_is_for_new_connections_and_cuts_none() {
    let running = start().await;
    let (old, new) = (pair(), pair());
    running.tls.set(Some(old.config(Oldest::Tls12)));
    let mut before = old.connect(running.address, BOTH).await.unwrap();
    assert!(ask(&mut before, "/one").await.starts_with("HTTP/1.1 200 "));
    assert!(new.connect(running.address, BOTH).await.is_err(), "the new one is not in force");
    running.tls.set(Some(new.config(Oldest::Tls12)));
    assert!(ask(&mut before, "/two").await.starts_with("HTTP/1.1 200 "), "it goes on as it began");
    let mut after = new.connect(running.address, BOTH).await.unwrap();
    let answer = ask(&mut after, "/three").await;
    assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    assert!(old.connect(running.address, BOTH).await.is_err(), "the old one is out of force");
    assert_eq!(after.get_ref().1.alpn_protocol(), None, "who asks for no protocol gets HTTP/1.1");
    running.end.send_replace(true);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), after.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "idle connections end with the daemon");
}

#[tokio::test]
async fn the_oldest_version_is_kept_to() {
    let running = start().await;
    let pair = pair();
    running.tls.set(Some(pair.config(Oldest::Tls13)));
    assert!(pair.connect(running.address, &[&rustls::version::TLS12]).await.is_err());
    assert!(pair.connect(running.address, &[&rustls::version::TLS13]).await.is_ok());
    running.tls.set(Some(pair.config(Oldest::Tls12)));
    assert!(pair.connect(running.address, &[&rustls::version::TLS12]).await.is_ok());
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let running = start().await;
    running.tls.set(Some(pair().config(Oldest::Tls12)));
    // Nothing; the beginning of a record; a record that is none.
    for sent in [&b""[..], &[0x16, 0x03, 0x01, 0x02], &[0x16, 0x03, 0x01, 0x00, 0x04, 1, 2, 3, 4]] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{sent:?} is waited for");
    }
    let mut plain = TcpStream::connect(running.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https://\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
}

#[test]
fn what_cannot_be_used_is_named_without_a_line_of_it() {
    let (one, other) = (pair(), pair());
    let wrong = |certificate: &str, key: &str| {
        config(certificate.as_bytes(), key.as_bytes(), Oldest::Tls12).map(|_| ()).unwrap_err()
    };
    assert!(matches!(wrong("", &one.key), Wrong::Certificate(_)));
    assert!(matches!(wrong(&one.key, &one.key), Wrong::Certificate(_)));
    assert!(matches!(wrong(&one.certificate, ""), Wrong::Key(_)));
    assert!(matches!(wrong(&one.certificate, &one.certificate), Wrong::Key(_)));
    let half = &one.key[..one.key.len() / 2];
    let secret = one.key.lines().nth(1).unwrap();
    for wrong in
        [wrong(&one.certificate, half), wrong(&one.certificate, &one.key.replace("-----BEGIN", "--BEGIN"))]
    {
        assert!(matches!(wrong, Wrong::Key(_)), "{wrong:?}");
        assert!(!format!("{wrong:?}").contains(&secret[..16]), "{wrong:?}");
    }
    let Wrong::Pair(why) = wrong(&one.certificate, &other.key) else { panic!("they do not fit") };
    assert!(why.to_lowercase().contains("inconsistent") || why.contains("match"), "{why}");
    assert!(!format!("{:?}", Tls::default()).contains("KEY"));
}
