//! The service manager: what it is told, and the sockets it keeps for the process after this one.
//!
//! A message is one datagram to `$NOTIFY_SOCKET` (`sd_notify(3)`). Sockets that were given away come
//! back as descriptors from 3 on, with names (`sd_listen_fds(3)`). Without a manager everything here
//! does nothing.
//!
//! Must never let a text become a field of its own, and never wait long for the manager.

mod inherit;
#[cfg(test)]
mod tests;

pub use inherit::{Inherited, Kept};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// Longest wait for room in the manager's queue.
const SEND_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait until the manager has read what was sent.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of a status sentence; the manager reads messages of 4096.
const STATUS_BYTES_MAX: usize = 1024;

/// The service manager, if one waits for messages of this process.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    at: Option<SocketAddr>,
    watchdog: Option<Duration>,
    complained: Arc<AtomicBool>,
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names (a path, or `@` and an abstract name), with the watchdog
    /// of `WATCHDOG_USEC` when `WATCHDOG_PID` does not say that it is another process's.
    #[must_use]
    pub fn find(env: &BTreeMap<String, String>, pid: u32) -> Self {
        let at = env.get("NOTIFY_SOCKET").and_then(|name| address(name));
        let mine = env.get("WATCHDOG_PID").is_none_or(|of| of.parse() == Ok(pid));
        let usec = env.get("WATCHDOG_USEC").and_then(|usec| usec.parse().ok());
        let watchdog = usec.filter(|usec| mine && at.is_some() && *usec > 0).map(Duration::from_micros);
        Self { at, watchdog, complained: Arc::default() }
    }

    /// Whether somebody listens: only then may sockets be kept.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.at.is_some()
    }

    /// Within which time [`Self::feed`] must be called again and again.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Start or reload is finished (`READY=1`).
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload begins (`RELOADING=1`, `MONOTONIC_USEC=`). [`Self::ready`] must follow, whatever
    /// comes of it.
    pub fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        self.tell(&states);
    }

    /// The end begins (`STOPPING=1`).
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// The sentence of `systemctl status` (`STATUS=`), made one line of bounded length.
    pub fn status(&self, sentence: &str) {
        self.tell(&[NotifyState::Status(&one_line(sentence))]);
    }

    /// Start or stop goes on for at least this long from now (`EXTEND_TIMEOUT_USEC=`).
    pub fn extend(&self, by: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// All is well (`WATCHDOG=1`).
    pub fn feed(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Gives a copy of a listening socket into the manager's keeping (`FDSTORE=1`).
    pub fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        // FDPOLL=0: a socket that hangs up is still ours to judge.
        let fields = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0", one_line(name));
        let sent = self.send(&[NotifyState::Custom(&fields)], &[socket]);
        self.complain(&sent);
    }

    /// Takes the sockets of this name out of the manager's keeping (`FDSTOREREMOVE=1`).
    pub fn let_go(&self, name: &str) {
        let fields = format!("FDSTOREREMOVE=1\nFDNAME={}", one_line(name));
        self.tell(&[NotifyState::Custom(&fields)]);
    }

    /// Waits until the manager has read everything that was sent before (`BARRIER=1`), 2 s at most.
    pub async fn has_read(&self) {
        if self.at.is_none() {
            return;
        }
        let Ok((mine, theirs)) = UnixStream::pair() else { return };
        // It answers by closing its end. The message must hold nothing else.
        let sent = self.send(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()]);
        drop(theirs);
        let ready = sent.and_then(|()| mine.set_nonblocking(true)).map(|()| mine);
        let Ok(Ok(mut mine)) = ready.map(tokio::net::UnixStream::from_std) else { return };
        let _late = tokio::time::timeout(READ_WITHIN, mine.read(&mut [0_u8; 1])).await;
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let sent = self.send(states, &[]);
        self.complain(&sent);
    }

    /// Says once that the manager cannot be reached.
    fn complain(&self, sent: &io::Result<()>) {
        if let Err(error) = sent
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the service manager cannot be told anything: {error}");
        }
    }

    fn send(&self, states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(at) = &self.at else { return Ok(()) };
        let mut text = String::new();
        for state in states {
            text.push_str(&state.to_string());
            text.push('\n');
        }
        // A new one each time, as the manager may have another one after its own restart.
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(at)?;
        socket.set_write_timeout(Some(SEND_WITHIN))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("one descriptor at a time"));
        }
        sendmsg(&socket, &[io::IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Ends the listening of a TCP socket, whoever has copies of it: connections are refused from now on,
/// and the port can be had by others.
pub fn hush(socket: OwnedFd) {
    // What does not listen any more is as it should be.
    let _not_listening = TcpStream::from(socket).shutdown(std::net::Shutdown::Read);
}

fn address(name: &str) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        _ => None,
    }
}

/// Without what could end the field or the message.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if out.len() + letter.len_utf8() > STATUS_BYTES_MAX {
            break;
        }
        out.push(if letter.is_control() { ' ' } else { letter });
    }
    out
}
