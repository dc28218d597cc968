//! TLS in front of HTTP/1.1: which certificate, and handshakes that end.
//!
//! The certificate may change while connections last: those that are open keep the one they began
//! with. HTTP/2 is not offered, so that limits, slow clients and lasting streams are one matter.
//!
//! Must never show a line of a key, and never let a handshake take longer than [`HANDSHAKE_WITHIN`].

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest handshake, from the accepted connection to the first byte that may be a request's.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// What a client gets that speaks HTTP where TLS is spoken.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 36\r\nConnection: close\r\n\r\nthis port speaks TLS: use https://\r\n";
/// How much of such a request is read, and how long that may take.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;
const PLAIN_WITHIN: Duration = Duration::from_secs(1);
/// The only protocol inside.
const PROTOCOL: &[u8] = b"http/1.1";

/// Oldest version that is spoken (`[tls] min_version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oldest {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// How a listener is encrypted: not at all until [`Tls::set`] says so.
#[derive(Default)]
pub struct Tls(RwLock<Option<Arc<ServerConfig>>>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.current().is_some()).finish()
    }
}

impl Tls {
    /// For connections from now on.
    pub fn set(&self, config: Option<Arc<ServerConfig>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// What a connection that begins now gets.
    #[must_use]
    pub fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is wrong with a certificate or its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Of the file with the certificate chain.
    Certificate(&'static str),
    /// Of the file with the key.
    Key(&'static str),
    /// Of both together.
    Pair(String),
}

/// A certificate chain and its key, both as PEM, checked against each other.
///
/// # Errors
/// Which of the files cannot be used, and why; no line of either.
pub fn config(certificate: &[u8], key: &[u8], oldest: Oldest) -> Result<Arc<ServerConfig>, Wrong> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_shows_lines| Wrong::Certificate("it is not PEM"))?;
    if chain.is_empty() {
        return Err(Wrong::Certificate("it has no certificate (-----BEGIN CERTIFICATE-----)"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_shows_lines| Wrong::Key("it has no private key (-----BEGIN PRIVATE KEY-----) as PEM"))?;
    let versions: &[&SupportedProtocolVersion] = match oldest {
        Oldest::Tls12 => &[&version::TLS13, &version::TLS12],
        Oldest::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let made = builder
        .with_protocol_versions(versions)
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut made = made.map_err(|error| Wrong::Pair(error.to_string()))?;
    made.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(made))
}

/// The handshake; `None` when it does not succeed in time, which is the client's matter.
pub(super) async fn accept(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    within: Duration,
) -> Option<TlsStream<TcpStream>> {
    let handshake = async {
        let mut first = [0];
        let seen = stream.peek(&mut first).await.ok()?;
        // No handshake begins with a letter, and every plain request does.
        if seen == 1 && first.iter().all(u8::is_ascii_uppercase) {
            refuse_plain(stream).await;
            return None;
        }
        TlsAcceptor::from(config).accept(stream).await.ok()
    };
    tokio::time::timeout(within.min(HANDSHAKE_WITHIN), handshake).await.ok().flatten()
}

/// Says what is spoken here, and lets the client read it: to close with unread bytes would reset the
/// connection before it can.
async fn refuse_plain(mut stream: TcpStream) {
    let _sent = stream.write_all(PLAIN).await;
    let _closed = stream.shutdown().await;
    let (mut rest, mut nowhere) = (stream.take(PLAIN_BYTES_MAX), tokio::io::sink());
    let _late = tokio::time::timeout(PLAIN_WITHIN, tokio::io::copy(&mut rest, &mut nowhere)).await;
}

#[cfg(test)]
mod tests;
