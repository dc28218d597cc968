//! Settings that are valid one by one and not together.

use std::collections::BTreeMap;

use crate::config::codes;
use crate::config::error::{Place, Problem};
use crate::config::settings::typed::{GatewayAuth, Settings};
use crate::config::settings::{Effective, Layer};

/// First parts of paths that the main listener serves beside the dashboard.
const ROOTS: [&str; 14] = [
    "api",
    "assets",
    "docs",
    "health",
    "healthz",
    "mcp",
    "messages",
    "metrics",
    "openapi",
    "openapi.json",
    "readyz",
    "servers",
    "sse",
    "ui",
];

/// Adds a problem for every contradiction.
pub(super) fn check(
    settings: &Settings,
    effective: &BTreeMap<String, Effective>,
    problems: &mut Vec<Problem>,
) {
    let place = |names: &[&str]| place_of(effective, names);
    let mut conflict = |names: &[&str], message: String| {
        problems.push(Problem::error(codes::SETTINGS_CONFLICT, place(names), message));
    };
    let service = &settings.service;
    if service.port_range_start > service.port_range_end {
        let message = format!(
            "[service] port_range_start {} is above port_range_end {}",
            service.port_range_start, service.port_range_end
        );
        conflict(&["service.port_range_start", "service.port_range_end"], message);
    }
    let aws = &settings.aws;
    if aws.rule_priority_start > aws.rule_priority_end {
        let message = format!(
            "[aws] rule_priority_start {} is above rule_priority_end {}",
            aws.rule_priority_start, aws.rule_priority_end
        );
        conflict(&["aws.rule_priority_start", "aws.rule_priority_end"], message);
    }
    if settings.tls.cert_file.is_some() != settings.tls.key_file.is_some() {
        let message = "[tls] cert_file and key_file go together; one is missing".to_owned();
        conflict(&["tls.cert_file", "tls.key_file"], message);
    }
    for (names, message) in about_tokens(settings) {
        conflict(names, message);
    }
    if settings.metrics.host.is_some() && settings.metrics.port.is_none() {
        let message = "[metrics] host needs a port of its own".to_owned();
        conflict(&["metrics.host"], message);
    }
    for (name, path) in [
        ("openapi.path_prefix", &settings.openapi.path_prefix),
        ("openapi.root_path", &settings.openapi.root_path),
    ] {
        if path.is_some() && settings.openapi.port.is_none() {
            let key = name.trim_start_matches("openapi.");
            conflict(
                &[name],
                format!("[openapi] {key} is about the tool proxy's own port: set [openapi] port"),
            );
        }
    }
    let root = settings.dashboard.path.split('/').nth(1).unwrap_or_default();
    if ROOTS.contains(&root) {
        let message = format!("[dashboard] path {}: /{root} is served already", settings.dashboard.path);
        conflict(&["dashboard.path"], message);
    }
    for (first, second, port) in equal_ports(settings) {
        let message = format!("{first} and {second} are both {port}");
        conflict(&[second, first], message);
    }
}

/// What `[gateway] auth = jwt` needs, and must not be told.
fn about_tokens(settings: &Settings) -> Vec<(&'static [&'static str], String)> {
    let (jwt, mut wrong): (_, Vec<(&'static [&'static str], String)>) = (&settings.jwt, Vec::new());
    if settings.gateway.auth != GatewayAuth::Jwt {
        return wrong;
    }
    if jwt.issuer.is_none() {
        wrong.push((&["gateway.auth"], "[gateway] auth = jwt needs [jwt] issuer".to_owned()));
    }
    if jwt.audience.is_empty() && settings.gateway.public_url.is_none() {
        let message = "[gateway] auth = jwt needs [jwt] audience, or [gateway] public_url as the audience";
        wrong.push((&["gateway.auth"], message.to_owned()));
    }
    let urls: [(&'static [&'static str], &Option<String>); 2] =
        [(&["jwt.issuer"], &jwt.issuer), (&["jwt.jwks_url"], &jwt.jwks_url)];
    for (name, url) in urls {
        if url.as_deref().is_some_and(is_open_to_others) {
            let key = name.first().and_then(|name| name.split('.').nth(1)).unwrap_or_default();
            let message =
                format!("[jwt] {key} is http to another host, where keys could be exchanged on the way");
            wrong.push((name, message));
        }
    }
    wrong
}

/// Whether a URL is in the clear and leaves this host.
fn is_open_to_others(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let here = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    !(here || host.eq_ignore_ascii_case("localhost"))
}

/// Pairs of listeners that would bind one port.
fn equal_ports(settings: &Settings) -> Vec<(&'static str, &'static str, String)> {
    let ports = [
        ("dashboard.port", Some(settings.dashboard.port)),
        ("gateway.port", settings.gateway.port),
        ("openapi.port", settings.openapi.port),
        ("metrics.port", settings.metrics.port),
    ];
    let mut pairs = Vec::new();
    for (index, (first, port)) in ports.iter().enumerate() {
        for (second, other) in ports.iter().skip(index + 1) {
            if let (Some(port), Some(other)) = (port, other)
                && port == other
            {
                pairs.push((*first, *second, port.to_string()));
            }
        }
    }
    pairs
}

/// The place of the first of `names` that was written somewhere, else of the first.
fn place_of(effective: &BTreeMap<String, Effective>, names: &[&str]) -> Place {
    let rows = || names.iter().filter_map(|name| effective.get(*name));
    rows()
        .find(|row| row.layer != Layer::Default)
        .or_else(|| rows().next())
        .map(|row| row.place.clone())
        .unwrap_or_default()
}
