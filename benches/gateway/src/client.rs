//! One keep-alive connection, one request at a time: the least of HTTP/1.1 that every gateway
//! answers with. Written out, so that the client's own cost is small and the same for all.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::reply;
use crate::target::{INITIALIZED, Session, Target, initialize};

const READ_BYTES: usize = 64 * 1024;
/// A gateway whose backlog of connections is full is asked again.
const CONNECT_TRIES: u32 = 5;

/// What an answer says beside its body.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// `Mcp-Session-Id`.
    pub session: Option<String>,
    events: bool,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
}

/// A connection to a gateway.
pub struct Connection {
    stream: TcpStream,
    /// Bytes read; the answer's body after it was decoded is in `body`.
    input: Vec<u8>,
    output: Vec<u8>,
    body: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers; in words.
    pub async fn open(target: &Target) -> Result<Self, String> {
        let mut tries = 0;
        let stream = loop {
            match TcpStream::connect(&target.authority).await {
                Ok(stream) => break stream,
                Err(error) if tries >= CONNECT_TRIES => {
                    return Err(format!("cannot connect to {}: {error}", target.authority));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            tries += 1;
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (input, output) = (Vec::with_capacity(READ_BYTES), Vec::with_capacity(1024));
        Ok(Self { stream, input, output, body: Vec::new(), closed: false })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP/1.1; in words.
    pub async fn exchange(&mut self, head: &[u8], body: &[u8]) -> Result<(Head, &[u8]), String> {
        use std::io::Write as _;
        self.output.clear();
        self.output.extend_from_slice(head);
        let _ = write!(self.output, "{}\r\n\r\n", body.len());
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await.map_err(|error| format!("write: {error}"))?;
        self.input.clear();
        let (head, start) = self.read_head().await?;
        let end = if head.chunked {
            self.read_chunks(start).await?;
            None
        } else if let Some(length) = head.length {
            self.fill(start + length).await?;
            Some(start + length)
        } else if head.closes {
            while self.more().await? > 0 {}
            Some(self.input.len())
        } else {
            Some(start)
        };
        self.closed |= head.closes;
        let body = end.map_or(&self.body[..], |end| &self.input[start..end]);
        let body = if head.events { reply::response_in_events(body).unwrap_or_default() } else { body };
        Ok((head, body))
    }

    /// Opens a session: `initialize` and the notification after it. Gives back when the answer to
    /// `initialize` had come.
    ///
    /// # Errors
    /// It was refused; in words.
    pub async fn begin(&mut self, target: &Target) -> Result<(Session, tokio::time::Instant), String> {
        let (head, body) = self.exchange(&target.head("POST", None), initialize().as_bytes()).await?;
        if head.status != 200 {
            return Err(format!("initialize: status {}: {}", head.status, reply::shortened(body)));
        }
        let session = Session { id: head.session, version: reply::version(body)? };
        let opened = tokio::time::Instant::now();
        self.reopen(target).await?;
        let (head, body) =
            self.exchange(&target.head("POST", Some(&session)), INITIALIZED.as_bytes()).await?;
        if !(200..300).contains(&head.status) {
            return Err(format!("initialized: status {}: {}", head.status, reply::shortened(body)));
        }
        self.reopen(target).await?;
        Ok((session, opened))
    }

    /// Connects anew where the gateway has closed.
    ///
    /// # Errors
    /// Nobody answers; in words.
    pub async fn reopen(&mut self, target: &Target) -> Result<(), String> {
        if self.closed {
            *self = Self::open(target).await?;
        }
        Ok(())
    }

    async fn read_head(&mut self) -> Result<(Head, usize), String> {
        let mut searched = 0;
        loop {
            self.some().await?;
            let from = usize::saturating_sub(searched, 3);
            if let Some(at) = memchr::memmem::find(&self.input[from..], b"\r\n\r\n") {
                let end = from + at;
                return Ok((parse(&self.input[..end])?, end + 4));
            }
            searched = self.input.len();
        }
    }

    /// Decodes a chunked body that begins at `at` into `body`.
    async fn read_chunks(&mut self, mut at: usize) -> Result<(), String> {
        self.body.clear();
        loop {
            let line = loop {
                match memchr::memmem::find(&self.input[at..], b"\r\n") {
                    Some(length) => break length,
                    None => self.some().await?,
                };
            };
            let size = std::str::from_utf8(&self.input[at..at + line]).unwrap_or("");
            let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|error| format!("a chunk's size {size:?}: {error}"))?;
            at += line + 2;
            self.fill(at + size + 2).await?;
            self.body.extend_from_slice(&self.input[at..at + size]);
            at += size + 2;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn fill(&mut self, until: usize) -> Result<(), String> {
        while self.input.len() < until {
            self.some().await?;
        }
        Ok(())
    }

    async fn some(&mut self) -> Result<usize, String> {
        match self.more().await? {
            0 => Err("the gateway closed the connection within an answer".to_owned()),
            read => Ok(read),
        }
    }

    async fn more(&mut self) -> Result<usize, String> {
        if self.input.capacity() - self.input.len() < READ_BYTES / 2 {
            self.input.reserve(READ_BYTES);
        }
        self.stream.read_buf(&mut self.input).await.map_err(|error| format!("read: {error}"))
    }
}

fn parse(head: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(head).map_err(|error| error.to_string())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|line| line.get(..3)).and_then(|code| code.parse().ok());
    let mut found = Head { status: status.ok_or_else(|| format!("no status: {text}"))?, ..Head::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            found.length = value.parse().ok();
        } else if name.eq_ignore_ascii_case("content-type") {
            found.events = value.starts_with("text/event-stream");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            found.chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            found.session = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("connection") {
            found.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::Connection;
    use crate::target::Target;

    /// What a client makes of `answer`, which comes in parts of `step` bytes.
    async fn read(answer: &'static str, step: usize) -> Result<(u16, Vec<u8>), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::new(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            for part in answer.as_bytes().chunks(step) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut connection = Connection::open(&target).await?;
        let read = connection.exchange(&target.head("POST", None), b"{}").await;
        let read = read.map(|(head, body)| (head.status, body.to_vec()));
        server.await.unwrap();
        read
    }

    #[tokio::test]
    async fn bodies_end_where_they_end() {
        let by_length = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 4\r\n\r\nabcd";
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let events = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n\
             9\r\ndata: \n\nd\r\n9\r\nata: abcd\r\n2\r\n\n\n\r\n0\r\n\r\n";
        let to_the_end = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcd";
        for answer in [by_length, chunked, events, to_the_end] {
            for step in [1, 7, 1000] {
                assert_eq!(read(answer, step).await, Ok((200, b"abcd".to_vec())), "{step}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_an_error() {
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd", 1000).await.is_err());
        assert!(read("nonsense\r\n\r\n", 1000).await.is_err());
        assert_eq!(read("HTTP/1.1 202 Accepted\r\n\r\n", 1000).await, Ok((202, Vec::new())));
    }
}
