//! `-p`/`--publish` in all its forms, and `--expose`.

use std::net::IpAddr;

use crate::model::container::{HostPorts, PortProtocol, Protocol, PublishedPort};

/// Ports one line may publish or expose in sum.
pub(super) const PORTS_MAX: usize = 65_536;

/// One `-p`: `[[ip:][host]:]container[/protocol]`, with ranges, or `published=…,target=…`.
pub(super) fn publish(text: &str) -> Result<Vec<PublishedPort>, String> {
    let short = if text.contains('=') { long_form(text)? } else { text.to_owned() };
    let (host_ip, host, container) = split(&short)?;
    let (container, protocol) = split_protocol(container);
    let protocol = known_protocol(&protocol.to_lowercase())?;
    if container.is_empty() {
        return Err(format!("{text:?} names no container port"));
    }
    let (first, last) = range(container)?;
    let host_range = match host {
        "" => None,
        host => Some(range(host)?),
    };
    let count = last - first;
    if let Some((host_first, host_last)) = host_range
        && host_last - host_first != count
        && count != 0
    {
        return Err(format!("the ranges {host} and {container} are of different length"));
    }
    let mut published = Vec::new();
    for offset in 0..=count {
        let host = match host_range {
            None => HostPorts::Unspecified,
            Some((from, to)) if count == 0 && from != to => HostPorts::FirstFreeOf(from, to),
            Some((from, _)) => HostPorts::One(from.saturating_add(offset)),
        };
        published.push(PublishedPort {
            container: PortProtocol { port: first.saturating_add(offset), protocol },
            host_ip: host_ip.clone(),
            host,
        });
    }
    Ok(published)
}

/// One `--expose`: `port[-port][/protocol]`.
pub(super) fn expose(text: &str) -> Result<Vec<PortProtocol>, String> {
    if text.contains(':') {
        return Err(format!("{text:?} has a colon; only -p takes a host port"));
    }
    let (ports, protocol) = split_protocol(text);
    let protocol = known_protocol(protocol)?;
    let (first, last) = range(ports)?;
    Ok((first..=last).map(|port| PortProtocol { port, protocol }).collect())
}

/// `published=8080,target=80,protocol=udp` in the short form.
fn long_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {
                return Err(format!("it does not know the key {key:?} (published, target or protocol)"));
            }
            _ => return Err(format!("{field:?} is not of the form name=value")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// Address, host port and container port of the short form.
fn split(text: &str) -> Result<(Option<String>, &str, &str), String> {
    let Some((front, container)) = text.rsplit_once(':') else {
        return Ok((None, "", text));
    };
    let Some((address, host)) = front.rsplit_once(':') else {
        return Ok((None, front, container));
    };
    if address.is_empty() {
        return Ok((None, host, container));
    }
    let bare = match address.strip_prefix('[') {
        Some(inner) => {
            inner.strip_suffix(']').ok_or_else(|| format!("the bracket in {address:?} is not closed"))?
        }
        None => address,
    };
    if bare.parse::<IpAddr>().is_err() {
        return Err(format!("{address:?} is not an IP address"));
    }
    Ok((Some(bare.to_owned()), host, container))
}

/// Port and protocol of `80/udp`; what follows a second slash is ignored, as the client does.
fn split_protocol(text: &str) -> (&str, &str) {
    let mut parts = text.split('/');
    let port = parts.next().unwrap_or_default();
    match parts.next() {
        None | Some("") => (port, "tcp"),
        Some(protocol) => (port, protocol),
    }
}

fn known_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        other => Err(format!("{other:?} is not a protocol (tcp, udp or sctp)")),
    }
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .parse::<u16>()
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| format!("{digits:?} is not a port (0 to 65535)"))
    };
    let mut parts = text.split('-');
    let first = number(parts.next().unwrap_or_default())?;
    let last = match parts.next() {
        None => first,
        Some(digits) => number(digits)?,
    };
    if parts.next().is_some() || last < first {
        return Err(format!("{text:?} is not a range of ports"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Option<String>, HostPorts, String) {
        let ports = publish(text).unwrap();
        assert_eq!(ports.len(), 1, "{text}");
        let port = ports[0].clone();
        (port.host_ip, port.host, port.container.to_string())
    }

    #[test]
    fn publishes_in_all_forms() {
        assert_eq!(one("80"), (None, HostPorts::Unspecified, "80/tcp".into()));
        assert_eq!(one("8080:80/UDP").2, "80/udp");
        assert_eq!(one("127.0.0.1::80").0.as_deref(), Some("127.0.0.1"));
        assert_eq!(one("[::1]:1:80").0.as_deref(), Some("::1"));
        assert_eq!(one("::1:1:80").0.as_deref(), Some("::1"));
        assert_eq!(one("8000-8010:80").1, HostPorts::FirstFreeOf(8000, 8010));
        assert_eq!(one("published=1,target=2,protocol=sctp").2, "2/sctp");
        assert_eq!(publish("1-3:4-6").unwrap().len(), 3);
        for text in ["", "x", "80:", "1-3:4-5", "300.1.1.1:1:2", "80/foo", "70000", "3-1", "[::1:1:2", "a=1"]
        {
            assert!(publish(text).is_err(), "{text}");
        }
    }
}
