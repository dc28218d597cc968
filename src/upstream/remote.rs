//! Picks the transport of a server reached by URL.
//!
//! ```text
//! scheme        type of the entry     transport
//! http, https   none                  streamable HTTP, or HTTP+SSE if it turns out to be that
//! http, https   http                  streamable HTTP
//! http, https   sse                   HTTP+SSE of 2024-11-05
//! http, https   websocket             WebSocket
//! ws, wss       none, websocket       WebSocket
//! tcp           none, tcp             lines over TCP
//! ```
//!
//! Must never guess beyond that: a type that contradicts the URL is an error.

use crate::model::server::{RemoteDecl, RemoteKind};
use crate::upstream::endpoint::{Remote, invalid, target};
use crate::upstream::leg::LegIo;
use crate::upstream::{http, tcp, websocket};
use crate::world::WorldError;

/// The streams of the server of an entry, with the usual limits. Nothing may be connected yet:
/// what goes wrong later is an answer to the first message, or the error of the output stream.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the URL or a header cannot be used, the type contradicts the URL, or no TLS roots are found.
pub fn connect_any(decl: &RemoteDecl) -> Result<LegIo, WorldError> {
    let place = target(&decl.url)?;
    let remote = Remote::of(decl);
    match (place.uri.scheme_str().unwrap_or_default(), decl.kind) {
        ("http" | "https", None | Some(RemoteKind::Http | RemoteKind::Sse)) => http::connect(&remote),
        ("http" | "https" | "ws" | "wss", Some(RemoteKind::WebSocket)) | ("ws" | "wss", None) => {
            websocket::connect(&remote)
        }
        ("tcp", None | Some(RemoteKind::Tcp)) => tcp::connect(&decl.url),
        ("http" | "https" | "ws" | "wss" | "tcp", Some(_)) => {
            Err(invalid(&place.name, "the type of the entry contradicts the scheme of its URL"))
        }
        _ => Err(invalid(&place.name, "its scheme is not one of http, https, ws, wss and tcp")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fingerprint::{Fingerprint, HashKey};
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn scheme_and_type_must_agree() {
        for (url, kind, works) in [
            ("http://h/mcp", None, true),
            ("http://h/mcp", Some(RemoteKind::Sse), true),
            ("http://h/mcp", Some(RemoteKind::WebSocket), true),
            ("ws://h/mcp", None, true),
            ("ws://h/mcp", Some(RemoteKind::Http), false),
            ("tcp://h:1", None, true),
            ("tcp://h:1", Some(RemoteKind::Sse), false),
            ("http://h:1", Some(RemoteKind::Tcp), false),
            ("ftp://h", None, false),
        ] {
            let decl = RemoteDecl {
                url: url.into(),
                kind,
                headers: BTreeMap::new(),
                fingerprint: Fingerprint::new(&HashKey::new([0; 32]), "", ""),
            };
            assert_eq!(connect_any(&decl).is_ok(), works, "{url} {kind:?}");
        }
    }
}
