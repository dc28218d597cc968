//! Settings that are not for the network: whoever sets them has the host, or the way in.
//!
//! Why it is so: a password of the panel is not meant to be the host. Paths, sockets, addresses that
//! are listened on, who may come in and with what are set in the file or over the control socket.
//!
//! Invariant: a new setting that is a path, a secret, a socket or an address is held back without
//! being named here (test `what_reaches_the_host_is_known`).

use crate::config::settings::table::{Key, Kind};

/// Those that their kind does not tell, and what they reach.
const NAMED: &[(&str, &str, &str)] = &[
    ("aws", "endpoint_url", "where requests with this host's credentials go"),
    ("service", "docker_host", "the socket of the engine"),
    ("service", "stack", "whose objects are managed here"),
    ("dashboard", "port", "a port that is listened on"),
    ("dashboard", "username", "who may come in"),
    ("dashboard", "full_control", "what may be set over the network"),
    ("gateway", "port", "a port that is listened on"),
    ("gateway", "auth", "who may come in"),
    ("gateway", "allowed_origins", "who may come in"),
    ("gateway", "public_url", "whom tokens are meant for"),
    ("openapi", "port", "a port that is listened on"),
    ("discovery", "paths", "a path on this host"),
    ("tls", "min_version", "how the way in is protected"),
    ("metrics", "port", "a port that is listened on"),
];

/// What a setting reaches, in words, where it is not for the network.
#[must_use]
pub fn reach(key: &Key) -> Option<&'static str> {
    match key.kind {
        Kind::Path => Some("a path on this host"),
        Kind::Secret => Some("a secret"),
        Kind::Runner => Some("a socket on this host"),
        Kind::Host | Kind::AutoHost => Some("an address that is listened on"),
        Kind::Sources => Some("who may connect"),
        _ if key.section == "jwt" => Some("who may come in"),
        _ => NAMED
            .iter()
            .find(|(section, name, _)| *section == key.section && *name == key.key)
            .map(|(_, _, words)| *words),
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMED, reach};
    use crate::config::settings::table::{KEYS, find};

    #[test]
    fn what_reaches_the_host_is_known() {
        assert!(NAMED.iter().all(|(section, key, _)| find(section, key).is_some()));
        let held: Vec<String> = KEYS
            .iter()
            .filter(|key| reach(key).is_some())
            .map(|key| format!("{}.{}", key.section, key.key))
            .collect();
        let wanted = "aws.endpoint_url service.stack service.docker_host service.process_runner \
            dashboard.host dashboard.port dashboard.username dashboard.password dashboard.password_hash \
            dashboard.password_file dashboard.full_control gateway.host gateway.allowed_sources \
            gateway.port gateway.auth gateway.tokens_file gateway.allowed_origins gateway.public_url \
            openapi.port openapi.api_key discovery.paths tls.cert_file tls.key_file tls.min_version metrics.host \
            metrics.port jwt.issuer jwt.audience jwt.jwks_url jwt.jwks_cache_seconds jwt.algorithms \
            jwt.leeway_seconds jwt.required_scopes jwt.scope_claims jwt.scope_prefix jwt.unscoped";
        assert_eq!(held.join(" "), wanted.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
