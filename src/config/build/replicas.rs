//! How many instances a server has, and which servers can have no second one.
//!
//! ```text
//! key                      of one instance      of several
//! sharing isolated         as it is             a warning: every session has its own anyway
//! -p H:C, --network host   keeps the port       refused: two cannot hold one
//! --ip, --mac-address      keeps the address    refused: two cannot hold one
//! route direct             direct               refused: the gateway sends each request to one
//! a writable mount         as it is             refused without allow sharedWrites
//! ```

use crate::config::build::ports::args_at;
use crate::config::build::{Builder, Kind, Work};
use crate::config::codes;
use crate::config::load::Origin;
use crate::config::merged::Merged;
use crate::model::container::HostPorts;
use crate::model::id::REPLICAS_MAX;
use crate::model::server::{ContainerDecl, ServerKind};

/// Instances of a server.
pub(super) fn of(merged: &Merged, kind: &ServerKind) -> u32 {
    let asked: u32 = merged.number("replicas").unwrap_or(1);
    let alone = matches!(kind, ServerKind::Remote(_)) || is_isolated(merged);
    if alone { 1 } else { asked.clamp(1, REPLICAS_MAX) }
}

fn is_isolated(merged: &Merged) -> bool {
    merged.text("sharing").as_deref() == Some("isolated")
}

impl Builder<'_, '_> {
    /// Whether there can be as many instances as asked for; else the sink says why not.
    pub(super) fn check_replicas(&mut self, work: &Work<'_>, kind: &Kind) -> bool {
        let Some(value) = work.merged.get("replicas") else { return true };
        let asked: u32 = work.merged.number("replicas").unwrap_or(1);
        if asked > 1 && is_isolated(work.merged) && value.origin == Origin::Server {
            let message =
                "'replicas' has no effect with sharing 'isolated': every session has an instance of its own";
            self.sink.warning(codes::NO_EFFECT, value.node.at, message);
            self.sink.hint("leave out one of the two");
        }
        let several = of(work.merged, &kind.kind);
        if several < 2 {
            return true;
        }
        let at = value.node.at;
        let mut good = true;
        let mut refuse = |at: usize, why: String, hint: &str| {
            self.sink.error(codes::ONE_ONLY, at, format!("replicas is {several}, but {why}"));
            self.sink.hint(hint);
            good = false;
        };
        if work.merged.text("route").as_deref() == Some("direct") {
            let why =
                "'route' is direct: only the gateway can send each request to one of several".to_owned();
            refuse(at, why, "set \"route\" to auto or edge, or \"replicas\" to 1");
        }
        if let ServerKind::Container(decl) = &kind.kind
            && let Some((why, hint)) = exists_once(decl)
        {
            refuse(args_at(work.entry), why, hint);
        }
        good
    }
}

/// What of a declaration there can only be once on a host or in a network, and what to do about it.
fn exists_once(decl: &ContainerDecl) -> Option<(String, &'static str)> {
    let spec = &decl.spec;
    let fixed = spec.published.iter().find_map(|port| match port.host {
        HostPorts::One(port) if port != 0 => Some(port),
        HostPorts::One(_) | HostPorts::Unspecified | HostPorts::FirstFreeOf(..) => None,
    });
    let own = decl.mcp_port.as_ref().and_then(|port| port.host_port).map(crate::model::net::HostPort::get);
    if let Some(port) = own.or(fixed) {
        let why = format!("its line keeps host port {port}, which two cannot hold");
        return Some((
            why,
            "leave the host port out of -p (`-p 8080` instead of `-p 8000:8080`), or set \"replicas\" to 1",
        ));
    }
    let address = |network: &crate::model::container::NetworkAttachment| {
        network.ipv4.is_some() || network.ipv6.is_some() || network.mac_address.is_some()
    };
    spec.networks.iter().any(address).then(|| {
        let why = "its line keeps a network address, which two cannot hold".to_owned();
        (why, "leave the address out, or set \"replicas\" to 1")
    })
}
