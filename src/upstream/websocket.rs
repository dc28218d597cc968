//! A server that speaks over WebSocket (`ws`, `wss`): one text frame a message.
//!
//! MCP names no such transport in its specification; what servers in use speak is the subprotocol
//! `mcp`. A server that names none when asked for it is taken without.
//!
//! Must never let reading wait for writing, and never show more of the URL than scheme, host and
//! port.

use crate::mcp::build;
use crate::mcp::wire::{INTERNAL_ERROR, one_line};
use crate::upstream::endpoint::{Remote, Target, connector, deepest, headers, invalid, target};
use crate::upstream::leg::LegIo;
use crate::upstream::pipe::{Input, Output, Written, pipe};
use crate::upstream::pump::LAST_WORDS;
use crate::world::{ErrorKind, WorldError};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tower_service::Service;

/// The subprotocol asked for.
pub const SUBPROTOCOL: &str = "mcp";
/// Between two pings: proxies take a silent connection down after a minute.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long the server has to close its side after we closed ours.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);

const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");

type Socket = WebSocketStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>;

/// What is needed to open the connection.
struct Opening {
    /// With the scheme `ws` or `wss`.
    uri: Uri,
    /// The same place with the scheme that the connector knows.
    place: Uri,
    headers: HeaderMap,
    connector: HttpsConnector<HttpConnector>,
    timeout: Duration,
    bytes_max: usize,
    name: String,
}

/// The streams of a server at a `ws` or `wss` URL. The connection is made meanwhile; why it failed
/// is the error of the output stream.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the URL or a header cannot be used, or no TLS roots are found.
pub fn connect(remote: &Remote) -> Result<LegIo, WorldError> {
    let Target { uri, name, basic } = target(&remote.url)?;
    let secure = match uri.scheme_str() {
        Some("wss" | "https") => true,
        Some("ws" | "http") => false,
        _ => return Err(invalid(&name, "its scheme is not one of ws and wss")),
    };
    let mut headers = headers(&remote.headers, basic).map_err(|why| invalid(&name, &why))?;
    // These are the handshake's own.
    for taken in ["sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"] {
        headers.remove(taken);
    }
    headers.remove(PROTOCOL);
    let connector = connector(remote.connect_timeout, secure)
        .map_err(|why| WorldError::new(format!("preparing TLS to {name}"), ErrorKind::Failed, why))?;
    let with = |scheme| with_scheme(&uri, scheme).ok_or_else(|| invalid(&name, "its URL is not one"));
    let opening = Opening {
        uri: with(if secure { "wss" } else { "ws" })?,
        place: with(if secure { "https" } else { "http" })?,
        headers,
        connector,
        timeout: remote.connect_timeout,
        bytes_max: remote.message_bytes_max,
        name,
    };
    let (io, input, output) = pipe(remote.message_bytes_max);
    tokio::spawn(async move {
        let done = tokio::select! {
            done = run(opening, input, &output) => done,
            () = output.closed() => return,
        };
        if let Err(why) = done {
            output.fail(io::Error::other(why)).await;
        }
    });
    Ok(io)
}

fn with_scheme(uri: &Uri, scheme: &str) -> Option<Uri> {
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    format!("{scheme}://{}{rest}", uri.authority()?).parse().ok()
}

async fn run(mut opening: Opening, mut input: Input, output: &Output) -> Result<(), String> {
    let name = opening.name.clone();
    let opened = tokio::time::timeout(opening.timeout, open(&mut opening)).await;
    let socket = opened.map_err(|_elapsed| format!("connecting to {name} took too long"))??;
    let (mut sink, mut stream) = socket.split();
    let max = opening.bytes_max;
    tokio::select! {
        done = write(&mut sink, &mut input, output, max) => done,
        done = read(&mut stream, output) => done,
    }
    .map_err(|error| format!("connection to {name} failed: {}", told(&error)))
}

/// Asks for the subprotocol, and without it when the server knows none.
async fn open(opening: &mut Opening) -> Result<Socket, String> {
    let no_subprotocol = |error: &Error| {
        let none = ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol);
        matches!(error, Error::Protocol(why) if *why == none)
    };
    let mut opened = opened(opening, true).await?;
    if opened.as_ref().is_err_and(no_subprotocol) {
        opened = self::opened(opening, false).await?;
    }
    opened.map_err(|error| format!("connecting to {} failed: {}", opening.name, told(&error)))
}

async fn opened(opening: &mut Opening, subprotocol: bool) -> Result<Result<Socket, Error>, String> {
    let name = &opening.name;
    let mut request = match opening.uri.clone().into_client_request() {
        Ok(request) => request,
        Err(error) => return Ok(Err(error)),
    };
    request.headers_mut().extend(opening.headers.clone());
    if subprotocol {
        request.headers_mut().insert(PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let connected = opening.connector.call(opening.place.clone()).await;
    let stream =
        connected.map_err(|error| format!("connecting to {name} failed: {}", deepest(error.as_ref())))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(opening.bytes_max))
        .max_frame_size(Some(opening.bytes_max));
    let opened = client_async_with_config(request, TokioIo::new(stream), Some(config)).await;
    Ok(opened.map(|(socket, _response)| socket))
}

/// An error of the connection, without what the server wrote into it.
fn told(error: &Error) -> String {
    match error {
        Error::Http(response) => {
            let status = response.status();
            let hint = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the entry's headers",
                _ => "",
            };
            format!("server answered with HTTP status {status}{hint}")
        }
        other => other.to_string(),
    }
}

async fn write(
    sink: &mut SplitSink<Socket, Message>,
    input: &mut Input,
    output: &Output,
    bytes_max: usize,
) -> Result<(), Error> {
    let written = write_all(sink, input, output, bytes_max).await;
    // The other side may still close properly, or say why it wants no more.
    tokio::time::sleep(if written.is_ok() { CLOSE_GRACE } else { LAST_WORDS }).await;
    written
}

async fn write_all(
    sink: &mut SplitSink<Socket, Message>,
    input: &mut Input,
    output: &Output,
    bytes_max: usize,
) -> Result<(), Error> {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            written = input.next() => written,
            _ = pings.tick() => {
                sink.send(Message::Ping(Bytes::new())).await?;
                continue;
            }
        };
        match written {
            Some(Written::Message(line)) => {
                // Only text comes out of a leg.
                if let Ok(text) = Utf8Bytes::try_from(line) {
                    sink.send(Message::Text(text)).await?;
                }
            }
            Some(Written::TooLong { id, bytes }) => {
                let id = id.and_then(|id| RawValue::from_string(id.to_string()).ok());
                let why = format!("message of {bytes} bytes is over the limit of {bytes_max} bytes");
                if let Some(id) = id {
                    output.line(build::error(Some(&id), INTERNAL_ERROR, &why)).await;
                }
            }
            None => return sink.close().await,
        }
    }
}

async fn read(stream: &mut SplitStream<Socket>, output: &Output) -> Result<(), Error> {
    while let Some(message) = stream.next().await {
        let text = match message {
            Ok(Message::Text(text)) => text,
            Ok(Message::Binary(bytes)) => match Utf8Bytes::try_from(bytes) {
                Ok(text) => text,
                Err(_no_text) => continue,
            },
            Ok(Message::Close(_)) => {
                // Reading on sends our reply and sees the server close the connection.
                let _either_way_it_is_over = tokio::time::timeout(LAST_WORDS, stream.next()).await;
                break;
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => break,
            Err(error) => return Err(error),
        };
        if !output.line(one_line(&text).into_owned()).await {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_hdr_async;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

    /// Far beyond what anything here takes, so that what never comes fails instead of hanging.
    const LONG: Duration = Duration::from_secs(30);

    async fn listener() -> (TcpListener, Remote) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let remote = Remote {
            url: format!("ws://us:er@{}/path?key=SECRET", listener.local_addr().expect("an address")),
            headers: BTreeMap::from([("X-Key".to_owned(), "SECRET".to_owned())]),
            kind: None,
            connect_timeout: LONG,
            message_bytes_max: 1000,
        };
        (listener, remote)
    }

    /// Accepts a client; with `names_it`, the server takes the subprotocol.
    async fn accept(listener: &TcpListener, names_it: bool) -> Result<WebSocketStream<TcpStream>, Error> {
        let accepted = tokio::time::timeout(LONG, listener.accept()).await.expect("in time");
        let (stream, _address) = accepted.expect("a client");
        #[allow(clippy::result_large_err, reason = "the callback's signature is not ours")]
        let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri(), "/path?key=SECRET");
            assert_eq!(
                (&request.headers()["x-key"], &request.headers()["authorization"]),
                (&HeaderValue::from_static("SECRET"), &HeaderValue::from_static("Basic dXM6ZXI="))
            );
            if names_it {
                assert_eq!(request.headers()[PROTOCOL], SUBPROTOCOL);
                response.headers_mut().insert(PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
            }
            Ok(response)
        };
        tokio::time::timeout(LONG, accept_hdr_async(stream, check)).await.expect("in time")
    }

    #[tokio::test]
    async fn a_message_is_a_text_frame_each_way() {
        for names_it in [true, false] {
            let (listener, remote) = listener().await;
            let LegIo { stdout, mut stdin, .. } = connect(&remote).expect("streams");
            let mut said = BufReader::new(stdout).lines();
            let mut peer = accept(&listener, names_it).await;
            if !names_it {
                // The client gives up on a server that names none, and comes again without asking.
                peer = accept(&listener, names_it).await;
            }
            let mut peer = peer.expect("a handshake");
            stdin.write_all(b"{\"id\":1}\n{\"id\":2}\n").await.expect("written");
            for id in [1, 2] {
                let heard = tokio::time::timeout(LONG, peer.next()).await.expect("in time");
                assert_eq!(
                    heard.expect("a frame").expect("readable"),
                    Message::text(format!("{{\"id\":{id}}}"))
                );
            }
            peer.send(Message::text("{\n\"a\":1}")).await.expect("sent");
            peer.send(Message::Ping(Bytes::new())).await.expect("sent");
            peer.send(Message::text("{\"b\":\"ü\"}")).await.expect("sent");
            assert_eq!(said.next_line().await.expect("text").as_deref(), Some("{ \"a\":1}"));
            assert_eq!(said.next_line().await.expect("text").as_deref(), Some("{\"b\":\"ü\"}"));
            let long = format!("{{\"id\":7,\"x\":\"{}\"}}\n", "x".repeat(1000));
            stdin.write_all(long.as_bytes()).await.expect("written");
            let refused = said.next_line().await.expect("text").expect("a line");
            assert!(refused.starts_with("{\"jsonrpc\":\"2.0\",\"id\":7,\"error\""), "{refused}");
            stdin.shutdown().await.expect("closed");
            assert!(matches!(peer.next().await, Some(Ok(Message::Pong(_)))));
            assert!(matches!(peer.next().await, Some(Ok(Message::Close(_)))));
            assert!(peer.next().await.is_none());
            drop(peer);
            assert_eq!(said.next_line().await.expect("a proper end"), None);
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_ends_the_stream_with_words() {
        let (listener, remote) = listener().await;
        let error = |mut io: LegIo| async move {
            let read = tokio::time::timeout(LONG, io.stdout.read_u8()).await.expect("in time");
            let text = read.expect_err("no end").to_string();
            assert!(!text.contains("SECRET"), "{text}");
            text
        };
        let io = connect(&remote).expect("streams");
        let mut peer = accept(&listener, true).await.expect("a handshake");
        peer.send(Message::text("x".repeat(1001))).await.expect("sent");
        assert!(error(io).await.contains("Message too long"));
        let io = connect(&remote).expect("streams");
        let (mut stream, _address) = listener.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 401 SECRET\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
        assert!(error(io).await.contains("check the entry's headers"));
        drop(listener);
        let io = connect(&remote).expect("streams");
        assert!(error(io).await.starts_with("connecting to ws://127.0.0.1:"));
        let wrong = Remote { url: "tcp://h:1/SECRET".into(), ..remote };
        assert!(connect(&wrong).is_err_and(|error| !error.to_string().contains("SECRET")));
    }
}
