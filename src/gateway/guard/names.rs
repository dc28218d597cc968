//! Names under which this host may be asked: loopback, its own address, and those configured.
//!
//! Ports do not count: a page on another port of an allowed name is trusted as much.

use std::net::IpAddr;

/// Names of loopback, as they stand in `Host`.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Allowed names and origins beside loopback and the listener's own address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    hosts: Vec<String>,
}

impl Names {
    /// From entries of `[gateway] allowed_origins` and names of load balancers: a name, or an
    /// origin (`https://name`), with or without port. An entry counts for `Host` and `Origin`.
    #[must_use]
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        let host = |entry: &'a str| {
            let rest = entry.split_once("://").map_or(entry, |(_, rest)| rest);
            without_port(rest.trim_end_matches('/')).map(str::to_ascii_lowercase)
        };
        Self { hosts: entries.into_iter().filter_map(host).collect() }
    }

    /// Whether no name is configured.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether `Host` may say `host`; `own` is the address the connection came in on.
    #[must_use]
    pub fn is_host(&self, host: &str, own: IpAddr) -> bool {
        let Some(name) = without_port(host) else { return false };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        LOOPBACK.into_iter().any(is) || self.hosts.iter().any(|known| is(known)) || {
            let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
            address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == own.to_canonical())
        }
    }

    /// Whether `Origin` may say `origin`.
    #[must_use]
    pub fn is_origin(&self, origin: &str, own: IpAddr) -> bool {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| self.is_host(host, own))
    }
}

/// The host of `host[:port]`, without the dot that ends a full name; `None` when it is none.
fn without_port(text: &str) -> Option<&str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?.checked_add(2)?;
            let (host, port) = text.split_at_checked(end)?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let good = port?.bytes().all(|byte| byte.is_ascii_digit());
    let host = host.strip_suffix('.').unwrap_or(host);
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    (good && !host.is_empty() && host.bytes().all(clean)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::Names;
    use std::net::IpAddr;

    #[test]
    fn hosts() {
        let names = Names::new(["Mcp.Example.com:443", "https://chat.example.com/", ""]);
        let own: IpAddr = "10.0.0.5".parse().unwrap();
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "mcp.example.com",
            "mcp.example.com.:80",
            "chat.example.com",
            "10.0.0.5:8001",
            "[::ffff:10.0.0.5]",
        ] {
            assert!(names.is_host(host, own), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "localhost:80@evil.example",
            "user@localhost",
            "localhost:x",
            "[::1",
            "[::1]x",
            "::1",
            "10.0.0.6",
            "example.com",
            "127.0.0.1.evil.example",
            "localhost/",
            "localhost\u{130}",
        ] {
            assert!(!names.is_host(host, own), "{host}");
        }
        let six: IpAddr = "fd00::5".parse().unwrap();
        assert!(names.is_host("[fd00:0::5]:8001", six) && !names.is_host("[fd00::6]:8001", six));
    }

    #[test]
    fn origins() {
        let names = Names::new(["mcp.example.com"]);
        let own: IpAddr = "10.0.0.5".parse().unwrap();
        for origin in
            ["http://localhost:6274", "https://mcp.example.com", "http://[::1]:3", "http://10.0.0.5:8001"]
        {
            assert!(names.is_origin(origin, own), "{origin}");
        }
        for origin in [
            "null",
            "",
            "localhost",
            "file://",
            "https://evil.example",
            "chrome-extension://localhost",
            "http://localhost/x",
        ] {
            assert!(!names.is_origin(origin, own), "{origin}");
        }
    }
}
