//! Checking replies: every one, in full. A gateway that mixes up two sessions, cuts a text short
//! or answers with an error must not look fast.

use std::borrow::Cow;

use serde::Deserialize;

use crate::target::Style;

#[derive(Deserialize)]
struct Reply<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<Outcome<'a>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow, default)]
    content: Vec<Content<'a>>,
    #[serde(borrow, default, rename = "protocolVersion")]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether `body` is the reply to the call with this id and text.
///
/// # Errors
/// What is wrong, in words.
pub fn check(style: Style, body: &[u8], id: u64, text: &[u8]) -> Result<(), String> {
    let fits = match style {
        Style::Mcp => {
            let reply: Reply = read(body)?;
            let content = reply.result.map(|result| result.content).unwrap_or_default();
            reply.id == Some(id) && content.len() == 1 && content[0].text.as_bytes() == text
        }
        Style::Rest => read::<Text>(body)?.0.as_bytes() == text,
    };
    if fits { Ok(()) } else { Err(format!("wrong reply to call {id}: {}", shortened(body))) }
}

/// The version agreed on in the answer to `initialize`.
///
/// # Errors
/// It is no such answer; in words.
pub fn version(body: &[u8]) -> Result<String, String> {
    let reply: Reply = read(body)?;
    match reply.result.map(|result| result.version.into_owned()) {
        Some(version) if !version.is_empty() => Ok(version),
        _ => Err(format!("initialize was refused: {}", shortened(body))),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("no JSON ({error}): {}", shortened(body)))
}

/// The beginning of a body, for a message.
#[must_use]
pub fn shortened(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

/// Finds the one message in a stream of events that is a response, in place: notifications and
/// events without data are passed over.
#[must_use]
pub fn response_in_events(stream: &[u8]) -> Option<&[u8]> {
    let mut lines = stream.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.find_map(|line| {
        let data = line.strip_prefix(b"data:")?;
        let data = data.strip_prefix(b" ").unwrap_or(data);
        is_response(data).then_some(data)
    })
}

/// A response has no method; in all that is measured here a method stands near the front.
fn is_response(data: &[u8]) -> bool {
    let front = &data[..data.len().min(160)];
    !data.is_empty() && memchr::memmem::find(front, br#""method":"#).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = br#"{"result":{"content":[{"type":"text","text":"a\u0062"}],"isError":false},"id":7,"jsonrpc":"2.0"}"#;

    #[test]
    fn id_and_text_must_both_fit() {
        assert!(check(Style::Mcp, REPLY, 7, b"ab").is_ok());
        assert!(check(Style::Mcp, REPLY, 8, b"ab").is_err());
        assert!(check(Style::Mcp, REPLY, 7, b"abc").is_err());
        assert!(check(Style::Mcp, br#"{"id":7,"error":{}}"#, 7, b"ab").is_err());
        assert!(check(Style::Rest, br#""ab""#, 7, b"ab").is_ok());
        assert!(check(Style::Rest, br#""ac""#, 7, b"ab").is_err());
    }

    #[test]
    fn notifications_and_priming_events_are_passed_over() {
        let stream = b"id: 1\nretry: 3\ndata: \n\nevent: message\ndata: {\"method\":\"n\"}\n\ndata: {\"id\":1}\r\n\r\n";
        assert_eq!(response_in_events(stream), Some(&b"{\"id\":1}"[..]));
        assert_eq!(response_in_events(b": only a comment\n\n"), None);
    }
}
