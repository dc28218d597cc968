//! HTTP+SSE of 2024-11-05: one stream of events for all that the server says, and a second URL,
//! told in its first event, for all that it is told.
//!
//! The stream is the session: when it ends, the connection is over.
//!
//! Must never post to another origin than that of the stream: its headers hold secrets.

use crate::mcp::sse::Decoder;
use crate::mcp::wire::one_line;
use crate::upstream::endpoint::{resolve, same_origin, shown};
use crate::upstream::exchange::{Link, Tail, is_stream};
use crate::upstream::sse::Event;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use std::time::Duration;

/// How long the server has to name the URL for messages.
pub const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's stream.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    decoder: Decoder,
    /// What came together with the first event.
    ready: Vec<Event>,
}

/// Opens the stream and learns where messages go; an error says why that cannot be.
pub(crate) async fn open(link: &Link) -> Result<Events, String> {
    let name = &link.endpoint.name;
    match tokio::time::timeout(ENDPOINT_TIMEOUT, opened(link)).await {
        Ok(opened) => opened,
        Err(_elapsed) => {
            Err(format!("{name} did not say within {} s where to post messages", ENDPOINT_TIMEOUT.as_secs()))
        }
    }
}

async fn opened(link: &Link) -> Result<Events, String> {
    let endpoint = &link.endpoint;
    let name = &endpoint.name;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    let response =
        endpoint.send(&endpoint.uri, Method::GET, &headers, Bytes::new()).await.map_err(|none| none.why)?;
    if !is_stream(&response) {
        let status = response.status().as_u16();
        return Err(format!("{name} offers no stream of events: HTTP status {status}"));
    }
    let mut events =
        Events { body: response.into_body(), decoder: Decoder::new(endpoint.bytes_max), ready: Vec::new() };
    loop {
        if !events.more().await {
            return Err(format!("{name} ended its stream before it said where to post messages"));
        }
        let told = events.ready.iter().position(|event| event.name.as_deref() == Some("endpoint"));
        if let Some(at) = told {
            let told = events.ready.drain(..=at).next_back().unwrap_or_default();
            let uri = messages_url(&endpoint.uri, &told.data, name)?;
            let _set_once = link.post.set(uri);
            return Ok(events);
        }
        // Nothing before it can be of use.
        events.ready.clear();
    }
}

fn messages_url(base: &Uri, told: &str, name: &str) -> Result<Uri, String> {
    let uri = resolve(base, told).ok_or_else(|| format!("{name} names a URL for messages that is none"))?;
    if same_origin(&uri, base) {
        return Ok(uri);
    }
    Err(format!("{name} wants messages to be posted to {}, another origin", shown(&uri)))
}

impl Events {
    /// Takes the next piece of the stream; false at its end.
    async fn more(&mut self) -> bool {
        let Some(Ok(frame)) = self.body.frame().await else { return false };
        if let Ok(data) = frame.into_data() {
            let Self { decoder, ready, .. } = self;
            decoder.push(&data, &mut |event| ready.push(Event::from(event)));
        }
        true
    }

    /// Hands on every message until the stream ends, which ends the connection.
    pub(crate) async fn hand_on(mut self, link: &Link) {
        let mut tail = Tail::default();
        loop {
            for event in self.ready.drain(..) {
                if let Some(text) = tail.take(event) {
                    link.output.line(one_line(&text).into_owned()).await;
                }
            }
            if !self.more().await {
                break;
            }
        }
        link.lose();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_origin_of_the_stream_only() {
        let base: Uri = "https://h.example/sse?key=SECRET".parse().expect("uri");
        let url = |told| messages_url(&base, told, "name").map(|uri| uri.to_string());
        assert_eq!(url("/messages?s=1").as_deref(), Ok("https://h.example/messages?s=1"));
        assert_eq!(url("https://h.example:443/m").as_deref(), Ok("https://h.example:443/m"));
        for other in ["http://h.example/m", "https://evil.example/m?SECRET", "//evil.example/m"] {
            assert!(
                url(other).is_err_and(|why| !why.contains("SECRET") && why.contains("example")),
                "{other}"
            );
        }
    }
}
