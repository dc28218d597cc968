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

#[cfg(test)]
mod tests {
    use crate::config::load::{self, Contents, Input};
    use crate::config::settings;
    use crate::model::fingerprint::HashKey;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    /// Codes of the problems with a container of these flags, all messages, and whether it can be used.
    fn said(flags: &[&str], block: &Value) -> (Vec<&'static str>, String, bool) {
        let args: Vec<&str> = ["run"].iter().chain(flags).copied().chain(["mcp/x:1"]).collect();
        let entry = json!({"command": "docker", "args": args, "orchestrator": block});
        let text = json!({ "mcpServers": { "x": entry } }).to_string();
        let (nothing, none) = (BTreeMap::new(), Contents::new());
        let given = settings::Input { file: None, env: &nothing, flags: &nothing };
        let settings = settings::load(&given).settings.unwrap();
        let loaded = load::load(&Input {
            file: "/etc/x/mcp.config.json",
            bytes: text.as_bytes(),
            env: &nothing,
            files: &none,
            credentials: &none,
            secrets_manager: &none,
            ssm: &none,
            settings: &settings,
            key: &HashKey::new([0; 32]),
        });
        let shown = |problem: &_| format!("{problem:?}\n");
        let usable = loaded.desired.as_ref().is_some_and(|desired| desired.broken.is_empty());
        let codes = loaded.problems.iter().map(|problem| problem.code).collect();
        (codes, loaded.problems.iter().map(shown).collect(), usable)
    }

    #[test]
    fn what_only_one_can_have_refuses_several() {
        let fixed = "its line keeps host port 8123";
        let address = "its line keeps a network address";
        let cases: &[(&[&str], Value, &str)] = &[
            (&["-p", "8123:3000"], json!({}), fixed),
            (&["-p", "127.0.0.1:8123:3000"], json!({}), fixed),
            (&["-i", "-p", "9000", "-p", "8123:53/udp"], json!({}), fixed),
            (&["-i", "--network", "back", "--ip", "10.1.0.5"], json!({}), address),
            (&["-i", "--network", "back", "--ip6", "fd00::5"], json!({}), address),
            (&["-i", "--network", "back", "--mac-address", "02:00:00:00:00:01"], json!({}), address),
            (&["-p", "3000"], json!({"route": "direct"}), "'route' is direct"),
            (
                &["--network", "host"],
                json!({"containerPort": 3000, "allow": ["hostNetwork"]}),
                "its line keeps host port 3000",
            ),
        ];
        for (flags, block, why) in cases {
            let mut block = block.clone();
            let (codes, text, usable) = said(flags, &block);
            assert!(usable && !codes.contains(&"MCPO-C047"), "one is fine: {flags:?} {text}");
            block["replicas"] = json!(3);
            let (codes, text, usable) = said(flags, &block);
            assert!(codes.contains(&"MCPO-C047") && !usable, "{flags:?} {codes:?} {text}");
            assert!(text.contains(&format!("replicas is 3, but {why}")) && text.contains("hint"), "{text}");
        }
    }

    #[test]
    fn what_several_can_have_is_fine_and_what_has_no_effect_is_said() {
        for flags in [&["-i"][..], &["-p", "3000"], &["-i", "-p", "0:9000"], &["-i", "-p", "8000-8010:9000"]]
        {
            let (codes, text, usable) = said(flags, &json!({"replicas": 3}));
            assert!(codes.is_empty() && usable, "{flags:?} {text}");
        }
        let (codes, text, usable) = said(&["-i"], &json!({"replicas": 3, "sharing": "isolated"}));
        assert!(usable && text.contains("'replicas' has no effect"), "{codes:?} {text}");
        for bad in [json!(0), json!(-1), json!(65), json!("3"), json!(1.5), json!([])] {
            let (codes, text, _) = said(&["-i"], &json!({ "replicas": bad }));
            assert!(!codes.is_empty(), "{bad} {text}");
        }
    }
}
