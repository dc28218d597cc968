//! A page of a server that says over plain HTTP whether it is well.
//!
//! Must never read more of the answer than its head, and never show more of the URL than scheme, host,
//! port and the page's own path.

use crate::model::server::RemoteDecl;
use crate::upstream::endpoint::{Endpoint, Remote};
use crate::world::WorldError;
use hyper::StatusCode;
use std::time::Duration;

/// A page at a server's origin.
#[derive(Clone, Debug)]
pub struct HealthPage {
    endpoint: Endpoint,
    path: String,
}

impl HealthPage {
    /// The page `path` at the origin of a server's URL; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL or a header cannot be used.
    pub fn new(decl: &RemoteDecl, path: &str) -> Result<Self, WorldError> {
        Ok(Self { endpoint: Endpoint::new(&Remote::of(decl))?, path: path.to_owned() })
    }

    /// Whether it answers with a status of 2xx or 3xx, at most after `within`.
    ///
    /// # Errors
    /// What it does instead.
    pub async fn answers(&self, within: Duration) -> Result<(), String> {
        let path = &self.path;
        match tokio::time::timeout(within, self.endpoint.status(path)).await {
            Ok(Ok(status)) if status.is_success() || status.is_redirection() => Ok(()),
            Ok(Ok(status)) => Err(format!("{path} answers {}", shown(status))),
            Ok(Err(why)) => Err(format!("{path}: {why}")),
            Err(_late) => Err(format!("{path} does not answer within {} ms", within.as_millis())),
        }
    }
}

fn shown(status: StatusCode) -> String {
    format!("HTTP status {}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::HealthPage;
    use crate::model::fingerprint::{Fingerprint, HashKey};
    use crate::model::server::RemoteDecl;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_page_is_well_with_2xx_and_3xx_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            for status in ["200 OK", "302 Found", "503 Busy"] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.expect("a head");
                assert!(head.get(..read).is_some_and(|head| head.starts_with(b"GET /up ")));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
            let (_held, _) = listener.accept().await.expect("a client");
            std::future::pending::<()>().await;
        });
        let decl = RemoteDecl {
            url: format!("http://127.0.0.1:{port}/mcp"),
            kind: None,
            headers: BTreeMap::new(),
            fingerprint: Fingerprint::new(&HashKey::new([0; 32]), "", ""),
        };
        let page = HealthPage::new(&decl, "/up").expect("a page");
        let within = Duration::from_secs(20);
        assert_eq!(page.answers(within).await, Ok(()));
        assert_eq!(page.answers(within).await, Ok(()));
        assert_eq!(page.answers(within).await, Err("/up answers HTTP status 503".to_owned()));
        let late = page.answers(Duration::from_millis(50)).await;
        assert_eq!(late, Err("/up does not answer within 50 ms".to_owned()));
    }
}
