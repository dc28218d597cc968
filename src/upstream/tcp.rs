//! A server that speaks lines over plain TCP (`tcp://host:port`).
//!
//! The bytes pass as they are: what a process would read and write goes over the connection.
//! Nothing is encrypted and nobody is asked who he is, so this is for the loopback and for private
//! networks.
//!
//! Must never hold more than a chunk of either direction.

use crate::upstream::endpoint::{CONNECT_TIMEOUT, Target, invalid, target};
use crate::upstream::leg::LegIo;
use crate::upstream::pipe::{Output, raw_pipe};
use crate::upstream::pump::LAST_WORDS;
use crate::world::WorldError;
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

/// Read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The streams of a server at a `tcp` URL. The connection is made meanwhile; why it failed is the
/// error of the output stream.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the URL is not `tcp://host:port`.
pub fn connect(url: &str) -> Result<LegIo, WorldError> {
    let Target { uri, name, basic } = target(url)?;
    if uri.scheme_str() != Some("tcp") || basic.is_some() || uri.path().len() > 1 || uri.query().is_some() {
        return Err(invalid(&name, "its URL must be tcp://host:port and nothing more"));
    }
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
        return Err(invalid(&name, "its URL has no port"));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (io, written, output) = raw_pipe();
    tokio::spawn(async move {
        let done = tokio::select! {
            done = exchange(&host, port, written, &output) => done,
            () = output.closed() => return,
        };
        if let Err(error) = done {
            let why = format!("connection to {name} failed: {error}");
            output.fail(io::Error::new(error.kind(), why)).await;
        }
    });
    Ok(io)
}

async fn exchange(host: &str, port: u16, mut written: DuplexStream, output: &Output) -> io::Result<()> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)));
    let mut stream = connected.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.split();
    let write = async {
        let written = tokio::io::copy(&mut written, &mut to).await;
        // The other side may still answer, or say why it wants no more.
        match written {
            Ok(_bytes) => {
                to.shutdown().await?;
                std::future::pending().await
            }
            Err(error) => {
                tokio::time::sleep(LAST_WORDS).await;
                Err(error)
            }
        }
    };
    let read = async {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            if from.read_buf(&mut chunk).await? == 0 || !output.chunk(chunk.freeze()).await {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = write => done,
        done = read => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    /// Far beyond what anything here takes, so that what never comes fails instead of hanging.
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn bytes_pass_both_ways_and_ends_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("tcp://{}", listener.local_addr().expect("an address"));
        let LegIo { mut stdout, mut stdin, .. } = connect(&url).expect("streams");
        let (mut peer, _address) = listener.accept().await.expect("a peer");
        let large = "x".repeat(1024 * 1024);
        let both = async {
            stdin.write_all(large.as_bytes()).await.expect("written");
            stdin.shutdown().await.expect("closed");
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.expect("text");
            text
        };
        let echo = async {
            let mut text = String::new();
            peer.read_to_string(&mut text).await.expect("text");
            peer.write_all(text.as_bytes()).await.expect("written");
            peer.shutdown().await.expect("closed");
        };
        let (text, ()) =
            tokio::time::timeout(LONG, async { tokio::join!(both, echo) }).await.expect("no jam");
        assert!(text == large);
    }

    #[tokio::test]
    async fn a_dropped_leg_closes_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let io = connect(&format!("tcp://{}", listener.local_addr().expect("an address"))).expect("streams");
        let (mut peer, _address) = listener.accept().await.expect("a peer");
        drop(io);
        let mut text = String::new();
        let read = tokio::time::timeout(LONG, peer.read_to_string(&mut text)).await.expect("in time");
        assert!(matches!(read, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_named() {
        let mut io = connect("tcp://127.0.0.1:1").expect("streams");
        let error =
            tokio::time::timeout(LONG, io.stdout.read_u8()).await.expect("in time").expect_err("nobody");
        assert!(error.to_string().starts_with("connection to tcp://127.0.0.1:1 failed: "), "{error}");
        for wrong in ["tcp://host", "tcp://u:SECRET@h:1", "tcp://h:1/SECRET", "http://h:1"] {
            assert!(connect(wrong).is_err_and(|error| !error.to_string().contains("SECRET")), "{wrong}");
        }
    }
}
