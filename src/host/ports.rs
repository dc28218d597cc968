//! Which ports of this host are free, found by binding them, and which are answered.
//!
//! A port counts as free when both who may take it could bind it: the engine's proxy and our own
//! listener. Both bind with `SO_REUSEADDR`, so that connections that are closing do not count and
//! listeners do; so does this test.
//!
//! | wanted | bound here | taken by a listener on |
//! |---|---|---|
//! | `127.0.0.1` | `127.0.0.1` | that address, `0.0.0.0`, `[::]` unless IPv6 only |
//! | `0.0.0.0` | `0.0.0.0` | any IPv4 address, `[::]` unless IPv6 only |
//! | `::` | `[::]`, both families | any address |
//! | empty (the engine's "all") | `0.0.0.0`, then `[::]` IPv6 only | any address |
//!
//! Must never listen: a probe that listens could take a client's connection.

use crate::model::net::{HostPort, PortRange};
use crate::world::{ErrorKind, WorldError};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long a connection to this host itself may take before nobody is there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An address to bind, and whether it must leave IPv4 out.
#[derive(Clone, Copy)]
struct Probe {
    address: IpAddr,
    only_v6: bool,
    /// Where the family is switched off, nobody can take the port there.
    optional: bool,
}

/// What binding one port said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Free,
    Taken,
}

/// The ports of `range` that can be bound on `address`: an IP address of this host, `localhost`,
/// or empty for every address of both families. Some 5 µs per port; blocks that long.
///
/// # Errors
/// `Invalid` when `address` is none of this host's, `Denied` when the range needs a privilege that
/// this process lacks, `Failed` when there are no descriptors left.
pub fn free(address: &str, range: PortRange) -> Result<Vec<HostPort>, WorldError> {
    let shown = if address.is_empty() { "all addresses" } else { address };
    let fail = |errno: Errno, port: HostPort| {
        let doing = format!("testing whether port {port} is free on {shown}");
        let (kind, cause) = match errno {
            Errno::ADDRNOTAVAIL => (ErrorKind::Invalid, "it is not an address of this host".to_owned()),
            Errno::ACCESS | Errno::PERM => {
                (ErrorKind::Denied, "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned())
            }
            other => (ErrorKind::Failed, other.to_string()),
        };
        WorldError::new(doing, kind, cause)
    };
    let probes = probes(address)?;
    let mut found = Vec::with_capacity(range.len());
    for port in range.ports() {
        let mut verdict = Verdict::Free;
        for probe in &probes {
            if verdict == Verdict::Free {
                verdict = test(*probe, port).map_err(|errno| fail(errno, port))?;
            }
        }
        if verdict == Verdict::Free {
            found.push(port);
        }
    }
    Ok(found)
}

fn probes(address: &str) -> Result<Vec<Probe>, WorldError> {
    let one = |address| Probe { address, only_v6: false, optional: false };
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare {
        "" => Ok(vec![
            one(Ipv4Addr::UNSPECIFIED.into()),
            Probe { address: Ipv6Addr::UNSPECIFIED.into(), only_v6: true, optional: true },
        ]),
        "localhost" => Ok(vec![one(Ipv4Addr::LOCALHOST.into())]),
        _ => bare.parse().map(|address| vec![one(address)]).map_err(|_unparsed: std::net::AddrParseError| {
            let doing = format!("looking for free ports on '{address}'");
            WorldError::new(doing, ErrorKind::Invalid, "it is not an IP address")
        }),
    }
}

fn test(probe: Probe, port: HostPort) -> Result<Verdict, Errno> {
    match bound(probe, port) {
        Ok(()) => Ok(Verdict::Free),
        Err(Errno::ADDRINUSE) => Ok(Verdict::Taken),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if probe.optional => Ok(Verdict::Free),
        Err(errno) => Err(errno),
    }
}

/// Binds and lets go.
fn bound(probe: Probe, port: HostPort) -> Result<(), Errno> {
    let family = if probe.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if probe.address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, probe.only_v6)?;
    }
    bind(&socket, &SocketAddr::new(probe.address, port.get()))
}

/// Whether somebody accepts a connection to `port` on this host's loopback, IPv4 first.
pub async fn reachable(port: HostPort) -> bool {
    connects(Ipv4Addr::LOCALHOST.into(), port).await || connects(Ipv6Addr::LOCALHOST.into(), port).await
}

async fn connects(address: IpAddr, port: HostPort) -> bool {
    let target = SocketAddr::new(address, port.get());
    match tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(target)).await {
        // A port of the ephemeral range without a listener can connect to itself.
        Ok(Ok(stream)) => stream.local_addr().is_ok_and(|local| local != target),
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{HostPort, PortRange, free, reachable};
    use crate::world::ErrorKind;
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn range(start: u16, end: u16) -> PortRange {
        let port = |number| HostPort::new(number).expect("port");
        PortRange { start: port(start), end: port(end) }
    }

    fn is_free(address: &str, port: u16) -> bool {
        !free(address, range(port, port)).expect("free").is_empty()
    }

    /// `(wanted address, taken?)` while somebody listens on `listener`.
    fn check(listener: &TcpListener, table: &[(&str, bool)]) {
        let port = listener.local_addr().expect("address").port();
        for (address, taken) in table {
            assert_eq!(is_free(address, port), !taken, "'{address}' while {listener:?} listens");
        }
    }

    #[test]
    fn only_listeners_that_are_in_the_way_count() {
        let loopback = TcpListener::bind("127.0.0.1:0").expect("bind");
        check(
            &loopback,
            &[
                ("127.0.0.1", true),
                ("localhost", true),
                ("0.0.0.0", true),
                ("", true),
                ("127.0.0.2", false),
                ("::1", false),
            ],
        );
        let other = TcpListener::bind("127.0.0.2:0").expect("bind");
        check(&other, &[("127.0.0.1", false), ("127.0.0.2", true), ("0.0.0.0", true), ("", true)]);
        let wildcard = TcpListener::bind("0.0.0.0:0").expect("bind");
        check(
            &wildcard,
            &[("127.0.0.1", true), ("0.0.0.0", true), ("", true), ("::1", false), ("[::]", true)],
        );
        let both = TcpListener::bind("[::]:0").expect("bind");
        check(&both, &[("127.0.0.1", true), ("0.0.0.0", true), ("::", true), ("", true)]);
    }

    #[test]
    fn an_ipv6_only_listener_is_in_nobodys_way_on_ipv4() {
        let raw = socket(AddressFamily::INET6, SocketType::STREAM, None).expect("socket");
        sockopt::set_ipv6_v6only(&raw, true).expect("option");
        bind(&raw, &"[::]:0".parse::<SocketAddr>().expect("address")).expect("bind");
        listen(&raw, 1).expect("listen");
        check(
            &TcpListener::from(raw),
            &[("127.0.0.1", false), ("0.0.0.0", false), ("::1", true), ("", true)],
        );
    }

    #[test]
    fn connections_that_are_closing_do_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        // The side that closes first keeps the port in TIME_WAIT.
        drop(server);
        drop(listener);
        drop(client);
        assert!(is_free("127.0.0.1", port));
        TcpListener::bind(("127.0.0.1", port)).expect("and it can really be taken");
    }

    #[test]
    fn a_test_leaves_nothing_behind() {
        let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        for _ in 0..3 {
            assert!(is_free("127.0.0.1", port));
        }
    }

    #[test]
    fn addresses_of_others_and_words_are_refused() {
        let kind = |address| free(address, range(8000, 8001)).expect_err("refused").kind;
        assert_eq!(kind("192.0.2.1"), ErrorKind::Invalid);
        assert_eq!(kind("somewhere"), ErrorKind::Invalid);
    }

    #[test]
    fn a_whole_range_costs_little() {
        // The bound is loose for a loaded machine; what it costs is printed.
        let wide = range(20_000, 20_999);
        let start = std::time::Instant::now();
        let found = free("0.0.0.0", wide).expect("free");
        let took = start.elapsed();
        println!("{} of {} ports free in {took:?}", found.len(), wide.len());
        assert!(took < std::time::Duration::from_millis(200), "{took:?}");
    }

    #[tokio::test]
    async fn reachable_means_that_somebody_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = HostPort::new(listener.local_addr().expect("address").port()).expect("port");
        assert!(reachable(port).await);
        drop(listener);
        assert!(!reachable(port).await);
        let six = TcpListener::bind("[::1]:0").expect("bind");
        assert!(reachable(HostPort::new(six.local_addr().expect("address").port()).expect("port")).await);
    }
}
