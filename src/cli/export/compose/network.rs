//! How a container is reached and what it reaches: ports, networks, names.
//!
//! Must never publish a port on more addresses than its line says.

use crate::cli::export::compose::{Service, Shared};
use crate::model::container::{HostPorts, NetworkAttachment, PublishedPort};
use crate::model::server::McpPort;
use serde_json::{Map, Value, json};

pub(super) fn put(service: &mut Service<'_>, shared: &mut Shared) {
    let (decl, spec) = (service.decl, &service.decl.spec);
    let ports: Vec<String> =
        spec.published.iter().map(published).chain(decl.mcp_port.iter().map(mcp)).collect();
    service.put("ports", json!(ports));
    service.put("expose", spec.exposed.iter().map(ToString::to_string).collect());
    if spec.publish_all {
        service.leave("-P", "compose publishes no ports that are not named");
    }
    networks(service, shared, &spec.networks);
    service.put("external_links", json!(spec.links));
    service.put("extra_hosts", json!(spec.extra_hosts));
    service.put("dns", json!(spec.dns));
    service.put("dns_search", json!(spec.dns_search));
    service.put("dns_opt", json!(spec.dns_options));
}

/// An address as it stands before a port.
fn before(ip: Option<&str>) -> String {
    match ip {
        Some(ip) if ip.contains(':') => format!("[{ip}]:"),
        Some(ip) => format!("{ip}:"),
        None => String::new(),
    }
}

fn published(port: &PublishedPort) -> String {
    let ip = before(port.host_ip.as_deref());
    match port.host {
        HostPorts::One(host) if host > 0 => format!("{ip}{host}:{}", port.container),
        HostPorts::FirstFreeOf(first, last) => format!("{ip}{first}-{last}:{}", port.container),
        // An address without a port needs the colon that a port has behind it.
        _ if !ip.is_empty() => format!("{ip}:{}", port.container),
        _ => port.container.to_string(),
    }
}

fn mcp(port: &McpPort) -> String {
    let ip = before(port.host_ip.as_deref());
    match port.host_port {
        Some(host) => format!("{ip}{host}:{}", port.container_port),
        None if !ip.is_empty() => format!("{ip}:{}", port.container_port),
        None => port.container_port.to_string(),
    }
}

fn networks(service: &mut Service<'_>, shared: &mut Shared, networks: &[NetworkAttachment]) {
    let mut all = Map::new();
    for network in networks {
        if network.is_user_defined() {
            // They are there: whoever made them is not this file.
            shared.networks.insert(network.name.clone(), json!({ "external": true }));
            all.insert(network.name.clone(), attachment(network));
            continue;
        }
        let mode = if network.name == "default" { "bridge" } else { &network.name };
        if networks.len() > 1 {
            service.leave(&format!("--network {mode}"), "compose has it alone or not at all");
            continue;
        }
        service.put("network_mode", json!(mode));
        service.put("mac_address", json!(network.mac_address));
        let rest = NetworkAttachment { mac_address: None, ..network.clone() };
        if !rest.is_plain() {
            service
                .leave(&format!("options of --network {mode}"), "compose has them for networks of one's own");
        }
    }
    service.put("networks", Value::Object(all));
}

fn attachment(network: &NetworkAttachment) -> Value {
    let NetworkAttachment {
        name: _,
        aliases,
        ipv4,
        ipv6,
        link_local_ips,
        mac_address,
        driver_options,
        gateway_priority,
    } = network;
    let mut about = Map::new();
    let mut add = |key: &str, value: Value, given: bool| {
        if given {
            about.insert(key.to_owned(), value);
        }
    };
    add("aliases", json!(aliases), !aliases.is_empty());
    add("ipv4_address", json!(ipv4), ipv4.is_some());
    add("ipv6_address", json!(ipv6), ipv6.is_some());
    add("link_local_ips", json!(link_local_ips), !link_local_ips.is_empty());
    add("mac_address", json!(mac_address), mac_address.is_some());
    add("driver_opts", json!(driver_options), !driver_options.is_empty());
    add("gw_priority", json!(gateway_priority), *gateway_priority != 0);
    Value::Object(about)
}
