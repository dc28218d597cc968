//! Sockets of the process before: which are used, and that the others stop listening.

use super::{HELD, Handover, MAIN, edge_name, edge_port};
use crate::gateway::edges::SocketStore as _;
use crate::host::systemd::{Inherited, Kept, Manager};
use crate::model::net::HostPort;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listener() -> (TcpListener, HostPort) {
    let listener = TcpListener::bind((HOST, 0)).expect("bind");
    let port = HostPort::new(listener.local_addr().expect("an address").port()).expect("a port");
    (listener, port)
}

/// A handover with a manager that hears and does nothing.
fn with(inherited: Inherited) -> (Handover, UnixDatagram, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let env = BTreeMap::from([("NOTIFY_SOCKET".to_owned(), path.display().to_string())]);
    (Handover::new(Manager::find(&env, 1), inherited), socket, dir)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let read = socket.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[test]
fn names_of_edges_hold_their_port_and_nothing_else() {
    let port = HostPort::new(8000).expect("a port");
    assert_eq!(edge_name(port), "edge-8000");
    assert_eq!(edge_port("edge-8000"), Some(port));
    for other in ["edge-", "edge-0", "edge-08000", "edge-+8000", "edge-80000", "edge-8000x", "main", "8000"] {
        assert_eq!(edge_port(other), None, "{other}");
    }
}

#[tokio::test]
async fn edges_that_listen_elsewhere_are_closed_and_taken_out_of_the_keeping() {
    let ((one, first), (two, second)) = (listener(), listener());
    let mut inherited = Inherited::default();
    inherited.put(&edge_name(first), Kept::Tcp(one));
    // The name says another port than the socket has.
    let wrong = edge_name(HostPort::new(1).expect("a port"));
    inherited.put(&wrong, Kept::Tcp(two));
    let (handover, manager, _dir) = with(inherited);
    let edges = handover.edges(HOST).await;
    assert_eq!(edges.keys().copied().collect::<Vec<_>>(), [first]);
    TcpStream::connect((HOST, first.get())).expect("it listens on");
    TcpStream::connect((HOST, second.get())).expect_err("it is closed");
    assert_eq!(heard(&manager), format!("FDSTOREREMOVE=1\nFDNAME={wrong}\n"));
    assert_eq!(heard(&manager), "BARRIER=1\n");
}

#[tokio::test]
async fn a_port_that_is_let_go_is_free_at_once_even_if_the_manager_is_slow() {
    let (listener, port) = listener();
    let (handover, manager, _dir) = with(Inherited::default());
    let theirs = listener.try_clone().expect("the manager's copy");
    handover.let_go(port, listener.into()).await;
    TcpStream::connect((HOST, port.get())).expect_err("refused, not left waiting");
    TcpListener::bind((HOST, port.get())).expect("others can have it");
    assert_eq!(heard(&manager), format!("FDSTOREREMOVE=1\nFDNAME=edge-{port}\n"));
    drop(theirs);
}

#[tokio::test]
async fn what_nobody_asks_for_is_closed() {
    let ((main, port), (other, stray)) = (listener(), listener());
    let mut inherited = Inherited::default();
    inherited.put(MAIN, Kept::Tcp(main));
    inherited.put("strange", Kept::Tcp(other));
    let (handover, manager, _dir) = with(inherited);
    let address = (HOST, port.get()).into();
    let main = handover.tcp(MAIN, address).await.expect("ours");
    handover.forget_rest();
    TcpStream::connect((HOST, stray.get())).expect_err("it is closed");
    TcpStream::connect(address).expect("it listens on");
    assert_eq!(heard(&manager), "FDSTOREREMOVE=1\nFDNAME=strange\n");
    drop(main);
}

#[tokio::test]
async fn what_the_socket_unit_holds_is_served_where_it_listens_and_listens_on() {
    let ((one, first), (two, second)) = (listener(), listener());
    let units = [one.try_clone().expect("the unit's copy"), two.try_clone().expect("the unit's copy")];
    let mut inherited = Inherited::default();
    inherited.put(HELD, Kept::Tcp(one));
    inherited.put(HELD, Kept::Tcp(two));
    let (handover, manager, dir) = with(inherited);
    assert_eq!(handover.held_at(), Some(HOST));
    let held = handover.held();
    let ports: Vec<u16> = held.iter().map(|one| one.local_addr().expect("an address").port()).collect();
    assert_eq!(ports, [first.get(), second.get()]);
    drop(held);
    assert!(handover.held_at().is_none() && handover.held().is_empty());
    let unix = UnixListener::bind(dir.path().join("other")).expect("bind");
    handover.inherited().put(HELD, Kept::Unix(unix));
    assert!(handover.held_at().is_none() && handover.held().is_empty(), "only TCP is served");
    handover.forget_rest();
    for port in [first, second] {
        TcpStream::connect((HOST, port.get())).expect("it listens on");
    }
    // The manager was asked to close nothing.
    manager.set_nonblocking(true).expect("a socket");
    manager.recv(&mut [0; 64]).expect_err("silence");
    drop(units);
}

#[tokio::test]
async fn a_control_socket_without_its_file_is_made_anew() {
    let (handover, manager, dir) = with(Inherited::default());
    let path = dir.path().join("control.sock");
    handover.inherited().put("control", Kept::Unix(UnixListener::bind(&path).expect("bind")));
    assert!(handover.control(&path).is_some());
    std::fs::remove_file(&path).expect("a file");
    let listener = UnixListener::bind(&path).expect("bind");
    std::fs::remove_file(&path).expect("a file");
    handover.inherited().put("control", Kept::Unix(listener));
    assert!(handover.control(&path).is_none());
    assert_eq!(heard(&manager), "FDSTOREREMOVE=1\nFDNAME=control\n");
}
