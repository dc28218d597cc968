//! Answers: a status, few headers, and a body that is empty, one piece of text, or events.
//!
//! One type for all of them, so that nothing of MCP is boxed on the way. Must never copy a text that it
//! is given.

use crate::gateway::streams::reader::EventBody;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::StatusCode;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a request is answered with.
pub type Response = hyper::Response<Body>;
/// An answer instead of what was asked for; boxed, because it is rare and large.
pub type Refusal = Box<Response>;

/// The content of an answer.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it at once; sent with its length.
    Full(Bytes),
    /// Events as they come, `text/event-stream`.
    Events(EventBody),
    /// What is served beside MCP brings its own.
    Other(UnsyncBoxBody<Bytes, Infallible>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents may be anything a tool said.
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Events(_) => f.write_str("Events"),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Events(events) => events.poll_bytes(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b)))),
            Self::Other(other) => Pin::new(other).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Events(_) => false,
            Self::Other(other) => other.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Events(_) => SizeHint::default(),
            Self::Other(other) => other.size_hint(),
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const NO: HeaderValue = HeaderValue::from_static("no");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

fn with(status: StatusCode, kind: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// JSON text.
#[must_use]
pub fn json(status: StatusCode, text: impl Into<Bytes>) -> Response {
    with(status, JSON, Body::Full(text.into()))
}

/// No content.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// Plain text.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    with(status, TEXT, Body::Full(text.into()))
}

/// An error as problem+json has it: a title that is the same every time, what was wrong this time,
/// and the documented code.
#[must_use]
pub fn problem(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Response {
    let detail: String = detail.into();
    let body =
        serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    with(status, PROBLEM, Body::Full(body.to_string().into()))
}

/// An event stream, told to every proxy between here and the client not to be held back.
#[must_use]
pub fn events(body: EventBody) -> Response {
    let mut response = with(StatusCode::OK, EVENTS, Body::Events(body));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, NO_CACHE);
    headers.insert(ACCEL_BUFFERING, NO);
    response
}

#[cfg(test)]
mod tests {
    use super::{Body, StatusCode, empty, events, json, problem, text};
    use crate::gateway::streams::{Greeting, Stream, StreamKind};
    use hyper::body::Body as _;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn all(mut body: Body) -> String {
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            out.extend_from_slice(&frame.into_data().unwrap());
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_have_their_type_length_and_text() {
        for (response, kind, content) in [
            (json(StatusCode::OK, "{}".to_owned()), "application/json", "{}"),
            (text(StatusCode::NOT_FOUND, "no"), "text/plain; charset=utf-8", "no"),
            (
                problem(StatusCode::FORBIDDEN, "MCPO-G001", "no", "why"),
                "application/problem+json",
                r#"{"title":"no","status":403,"detail":"why","code":"MCPO-G001"}"#,
            ),
        ] {
            assert_eq!(response.headers()["content-type"], kind);
            let length = u64::try_from(content.len()).unwrap();
            assert_eq!(response.body().size_hint().exact(), Some(length));
            assert!(!response.body().is_end_stream());
            assert_eq!(all(response.into_body()), content);
        }
        let none = empty(StatusCode::ACCEPTED);
        assert_eq!((none.status().as_u16(), none.body().is_end_stream()), (202, true));
        assert_eq!(all(none.into_body()), "");
    }

    #[tokio::test]
    async fn event_streams_are_not_held_back() {
        let stream = Stream::unstored(StreamKind::Post);
        let response = events(stream.body(Greeting::None));
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.body().size_hint().exact(), None);
        stream.finish_with("1");
        assert_eq!(all(response.into_body()), "event: message\ndata: 1\n\n");
    }

    #[test]
    fn debug_does_not_show_contents() {
        assert_eq!(format!("{:?}", Body::Full("secret".into())), "Full(6 bytes)");
    }
}
