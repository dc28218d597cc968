//! Frames and descriptors over a connected Unix socket.
//!
//! Must never keep a descriptor that nobody asked for: what came with a frame and is not taken is
//! closed with the channel, and more than [`STREAMS`] at once are closed by the kernel.

use crate::runner::wire::{Fault, decode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors of a process: its input, output and error output.
pub const STREAMS: usize = 3;
/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    arrived: Vec<u8>,
    received: Vec<OwnedFd>,
}

impl Channel {
    /// Over a connected socket.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self { stream, arrived: Vec::new(), received: Vec::new() }
    }

    /// Sends a frame; the descriptors arrive with it and stay ours, too.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send(&self, frame: &[u8], streams: &[BorrowedFd<'_>]) -> io::Result<()> {
        let (mut rest, mut streams) = (frame, streams);
        while !rest.is_empty() {
            let sent = self.stream.async_io(Interest::WRITABLE, || send(&self.stream, rest, streams)).await?;
            rest = rest.get(sent..).unwrap_or_default();
            // They went with the first byte.
            streams = &[];
        }
        Ok(())
    }

    /// The next frame of at most `max` bytes; `None` when the other side closed before another one.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// What is wrong with what arrived; nothing can be read after that.
    pub async fn next<T: DeserializeOwned>(&mut self, max: usize) -> Result<Option<T>, Fault> {
        loop {
            if let Some(message) = decode(&mut self.arrived, max)? {
                return Ok(Some(message));
            }
            let Self { stream, arrived, received } = self;
            let read = stream.async_io(Interest::READABLE, || receive(stream, arrived, received)).await;
            match read {
                Ok(0) if arrived.is_empty() => return Ok(None),
                Ok(0) => return Err(Fault::Truncated),
                Ok(_) => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
    }

    /// The descriptors that arrived so far.
    #[must_use]
    pub fn take_streams(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.received)
    }
}

fn send(socket: &UnixStream, bytes: &[u8], streams: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !streams.is_empty() && !control.push(SendAncillaryMessage::ScmRights(streams)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive(socket: &UnixStream, arrived: &mut Vec<u8>, received: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut chunk)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(streams) = ancillary {
            received.extend(streams);
        }
    }
    received.truncate(STREAMS);
    arrived.extend(chunk.get(..message.bytes).unwrap_or_default());
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::Channel;
    use crate::runner::wire::{ANSWER_BYTES_MAX, Answer, Fault, REQUEST_BYTES_MAX, Request, encode};
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    fn started() -> Vec<u8> {
        encode(&Answer::Started { pid: 7 }, ANSWER_BYTES_MAX).expect("a frame")
    }

    #[tokio::test]
    async fn descriptors_arrive_with_their_frame_and_work() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let fds = [writer.as_fd(), writer.as_fd(), writer.as_fd()];
        Channel::new(ours).send(&started(), &fds).await.expect("sent");
        drop(writer);
        let mut there = Channel::new(theirs);
        let answer = there.next(ANSWER_BYTES_MAX).await.expect("whole");
        assert_eq!(answer, Some(Answer::Started { pid: 7 }));
        let streams = there.take_streams();
        assert_eq!(streams.len(), 3);
        for stream in streams {
            std::io::PipeWriter::from(stream).write_all(b"x").expect("written");
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("all writers are closed");
        assert_eq!(text, "xxx");
        assert!(there.next::<Answer>(ANSWER_BYTES_MAX).await.expect("an end").is_none());
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_closed() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let ours = Channel::new(ours);
        for _ in 0..3 {
            ours.send(&started(), &[writer.as_fd(), writer.as_fd()]).await.expect("sent");
        }
        drop(writer);
        let mut there = Channel::new(theirs);
        for _ in 0..3 {
            there.next::<Answer>(ANSWER_BYTES_MAX).await.expect("whole").expect("a frame");
        }
        assert_eq!(there.take_streams().len(), 3);
        assert_eq!(reader.read(&mut [0]).expect("no writer is left"), 0);
    }

    #[tokio::test]
    async fn bad_bytes_are_faults() {
        for (bytes, max, expected) in [
            (&b"\0\0\0\x05{"[..], 100, "closed within"),
            (&b"\0\0"[..], 100, "closed within"),
            (&b"\0\0\0\x02{}"[..], 100, "expected form"),
            (&b"GET / HTTP/1.1\r\n\r\n"[..], REQUEST_BYTES_MAX, "longer than"),
            (&b"\0\0\0\x65"[..], 100, "longer than 100"),
        ] {
            let (mut ours, theirs) = UnixStream::pair().expect("sockets");
            ours.write_all(bytes).await.expect("written");
            drop(ours);
            let fault = Channel::new(theirs).next::<Request>(max).await.expect_err(expected);
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }

    /// A frame that is larger than the socket's buffer, and than a chunk.
    #[tokio::test]
    async fn long_frames_pass_and_endless_ones_do_not() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let long = Answer::Ended { how: "x".repeat(700_000), clean: false, oom: None };
        let frame = encode(&long, REQUEST_BYTES_MAX).expect("a frame");
        let ours = Channel::new(ours);
        let mut there = Channel::new(theirs);
        let (sent, came) = tokio::join!(ours.send(&frame, &[]), there.next::<Answer>(REQUEST_BYTES_MAX));
        sent.expect("sent");
        assert_eq!(came.expect("whole"), Some(long));
        let (sent, came) = tokio::join!(
            async {
                let sent = ours.send(&frame, &[]);
                tokio::time::timeout(std::time::Duration::from_millis(200), sent).await
            },
            there.next::<Answer>(ANSWER_BYTES_MAX)
        );
        assert!(matches!(came, Err(Fault::TooLarge(_))) && sent.is_err());
    }
}
