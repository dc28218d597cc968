//! What arrives at a manager, byte for byte.

use super::{Inherited, Kept, Manager, STATUS_BYTES_MAX};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::time::Duration;

/// A manager that only listens.
struct Heard {
    socket: UnixDatagram,
    manager: Manager,
    _dir: tempfile::TempDir,
}

fn env(socket: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = [("NOTIFY_SOCKET", socket)].into_iter().chain(more.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Heard {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let manager = Manager::find(&env(&path.display().to_string(), &[]), 1);
        Self { socket, manager, _dir: dir }
    }

    fn next(&self) -> (String, Vec<OwnedFd>) {
        let (mut bytes, mut fds) = ([0; 8192], Vec::new());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
                .expect("a message");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                fds.extend(sent);
            }
        }
        (String::from_utf8_lossy(&bytes[..got.bytes]).into_owned(), fds)
    }

    fn says(&self, text: &str) {
        assert_eq!(self.next().0, text);
    }
}

#[test]
fn every_word_is_one_message() {
    let heard = Heard::new();
    heard.manager.ready();
    heard.says("READY=1\n");
    heard.manager.stopping();
    heard.says("STOPPING=1\n");
    heard.manager.feed();
    heard.says("WATCHDOG=1\n");
    heard.manager.extend(Duration::from_millis(1500));
    heard.says("EXTEND_TIMEOUT_USEC=1500000\n");
    heard.manager.status("3 of 3 servers converged");
    heard.says("STATUS=3 of 3 servers converged\n");
    heard.manager.reloading();
    let (text, _) = heard.next();
    let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&text).trim_end();
    assert!(usec.parse::<u64>().expect("a number") > 0);
}

#[test]
fn no_text_becomes_a_field() {
    let heard = Heard::new();
    heard.manager.status("a\nWATCHDOG=trigger\r\u{85}b\0");
    heard.says("STATUS=a WATCHDOG=trigger  b \n");
    heard.manager.status(&"ä".repeat(5000));
    let (text, _) = heard.next();
    assert_eq!(text.len(), "STATUS=\n".len() + STATUS_BYTES_MAX);
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    heard.manager.keep("edge\nFDSTOREREMOVE=1", socket.as_fd());
    heard.says("FDSTORE=1\nFDNAME=edge FDSTOREREMOVE=1\nFDPOLL=0\n");
    heard.manager.let_go("edge\nREADY=1");
    heard.says("FDSTOREREMOVE=1\nFDNAME=edge READY=1\n");
}

#[test]
fn a_socket_is_given_away_open() {
    let heard = Heard::new();
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("an address");
    heard.manager.keep("main", socket.as_fd());
    drop(socket);
    let (text, mut fds) = heard.next();
    assert_eq!((text.as_str(), fds.len()), ("FDSTORE=1\nFDNAME=main\nFDPOLL=0\n", 1));
    let kept = TcpListener::from(fds.remove(0));
    let _waits = std::net::TcpStream::connect(address).expect("nobody is refused");
    assert_eq!(kept.local_addr().expect("an address"), address);
}

#[tokio::test]
async fn what_was_sent_is_read_when_the_barrier_falls() {
    let heard = Heard::new();
    let manager = heard.manager.clone();
    let waits = tokio::spawn(async move { manager.has_read().await });
    let reader = tokio::task::spawn_blocking(move || heard.next());
    let (text, fds) = reader.await.expect("a message");
    assert_eq!((text.as_str(), fds.len()), ("BARRIER=1\n", 1));
    assert!(!waits.is_finished());
    drop(fds);
    tokio::time::timeout(Duration::from_millis(1500), waits).await.expect("in time").expect("no panic");
}

#[test]
fn abstract_names_are_names_and_other_addresses_nobody() {
    let name = format!("mcpo-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"));
    let socket = socket.expect("a socket");
    let manager = Manager::find(&env(&format!("@{name}"), &[]), 1);
    assert!(manager.is_there());
    manager.ready();
    let mut bytes = [0; 64];
    let read = socket.recv(&mut bytes).expect("a message");
    assert_eq!(&bytes[..read], b"READY=1\n");
    for nobody in ["", "vsock:2:1", "notify"] {
        assert!(!Manager::find(&env(nobody, &[]), 1).is_there(), "{nobody}");
    }
}

#[test]
fn a_manager_that_is_gone_or_deaf_does_not_stop_us() {
    let manager = Manager::find(&env("/nowhere/notify", &[]), 1);
    manager.ready();
    manager.status("x");
    Manager::default().ready();
}

#[test]
fn the_watchdog_is_for_the_process_it_names() {
    let within = |more: &[(&str, &str)]| Manager::find(&env("/run/notify", more), 7).watchdog();
    assert_eq!(within(&[]), None);
    assert_eq!(within(&[("WATCHDOG_USEC", "2000000")]), Some(Duration::from_secs(2)));
    assert_eq!(within(&[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(2)));
    for wrong in [
        &[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "8")][..],
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "soon")],
    ] {
        assert_eq!(within(wrong), None, "{wrong:?}");
    }
    let nobody = BTreeMap::from([("WATCHDOG_USEC".to_owned(), "2000000".to_owned())]);
    assert_eq!(Manager::find(&nobody, 7).watchdog(), None);
}

#[test]
fn what_listens_elsewhere_is_not_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    let mut inherited = Inherited::default();
    let sockets = [0, 1, 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("bind"));
    let addresses = [0, 1, 2].map(|n: usize| sockets[n].local_addr().expect("an address"));
    for socket in sockets {
        inherited.put("main", Kept::Tcp(socket));
    }
    inherited.put("control", Kept::Unix(UnixListener::bind(&path).expect("bind")));
    assert_eq!(inherited.names(), ["control", "main"]);
    let found = inherited.tcp("main", addresses[1]).expect("the second of that name");
    assert_eq!(found.local_addr().expect("an address"), addresses[1]);
    for closed in [addresses[0], addresses[2]] {
        std::net::TcpStream::connect(closed).expect_err("nobody listens there");
    }
    assert!(
        inherited.tcp("main", addresses[1]).is_none() && inherited.tcp("control", addresses[1]).is_none()
    );
    inherited.put("control", Kept::Unix(UnixListener::bind(dir.path().join("other")).expect("bind")));
    assert!(inherited.unix("control", &path).is_none());
    std::os::unix::net::UnixStream::connect(&path).expect_err("it is closed");
}
