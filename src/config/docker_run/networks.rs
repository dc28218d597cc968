//! `--network` and the flags that belong to the first network; `--add-host`, `--dns-search`,
//! `--link`.

use crate::config::docker_run::text::{ip_address, mac_address, split_record};
use crate::config::docker_run::values;
use crate::model::container::NetworkAttachment;

/// Options in the flags beside `--network`: they go to the first network.
#[derive(Default)]
pub(super) struct FirstNetwork {
    /// `--network-alias`.
    pub(super) aliases: Vec<String>,
    /// `--ip`.
    pub(super) ipv4: Option<String>,
    /// `--ip6`.
    pub(super) ipv6: Option<String>,
    /// `--mac-address`.
    pub(super) mac_address: Option<String>,
    /// `--link-local-ip`.
    pub(super) link_local_ips: Vec<String>,
}

/// One `--network`: a name, or `name=NAME,alias=…,ip=…`.
pub(super) fn network(text: &str) -> Result<NetworkAttachment, String> {
    if !is_long_form(text) {
        if text.trim().is_empty() {
            return Err("no network is named".to_owned());
        }
        check_name(text)?;
        return Ok(NetworkAttachment::named(text));
    }
    let mut network = NetworkAttachment::default();
    for field in split_record(text)? {
        // The client folds the whole field to lower case, names included.
        let folded = field.to_lowercase();
        let (key, value) = folded
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("{field:?} is not of the form name=value"))?;
        let value = value.trim().to_owned();
        match key.trim() {
            "name" => network.name = value,
            "alias" => network.aliases.push(value),
            "ip" => network.ipv4 = Some(value).filter(|value| !value.is_empty()),
            "ip6" => network.ipv6 = Some(value).filter(|value| !value.is_empty()),
            "mac-address" => network.mac_address = Some(value).filter(|value| !value.is_empty()),
            "link-local-ip" => network.link_local_ips.push(value),
            "driver-opt" => {
                let (name, option) = value
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    .ok_or("driver-opt is not of the form driver-opt=name=value")?;
                network.driver_options.insert(name.trim().to_owned(), option.trim().to_owned());
            }
            "gw-priority" => network.gateway_priority = values::decimal(&value)?,
            other => return Err(format!("it does not know the key {other:?}")),
        }
    }
    if network.name.is_empty() {
        return Err("no network is named (name=…)".to_owned());
    }
    check_name(&network.name)?;
    Ok(network)
}

/// No engine has such a name, so it is a slip in the long form.
fn check_name(name: &str) -> Result<(), String> {
    if name.contains(['=', ',', '"']) {
        return Err(format!("{name:?} is not the name of a network"));
    }
    Ok(())
}

/// The client looks for `word=word` anywhere in the value.
fn is_long_form(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('=').any(|(at, _)| {
        let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
        before.ends_with(is_word) && after.strip_prefix('=').is_some_and(|value| value.starts_with(is_word))
    })
}

/// Puts the flags of the first network in place, and checks all of them together.
pub(super) fn combine(
    mut networks: Vec<NetworkAttachment>,
    flags: FirstNetwork,
) -> Result<Vec<NetworkAttachment>, String> {
    let unnamed = networks.is_empty();
    let mut rest = if unnamed { Vec::new() } else { networks.split_off(1) };
    let mut first = networks.pop().unwrap_or_else(|| NetworkAttachment::named("default"));
    merge(&mut first, flags)?;
    if !(unnamed && first.is_plain()) {
        rest.insert(0, first);
    }
    check(&rest)?;
    Ok(rest)
}

/// One option may come from the network's own fields or from a flag, not from both.
fn merge(first: &mut NetworkAttachment, flags: FirstNetwork) -> Result<(), String> {
    let FirstNetwork { aliases, ipv4, ipv6, mac_address, link_local_ips } = flags;
    merge_list(&mut first.aliases, aliases, "--network-alias")?;
    merge_list(&mut first.link_local_ips, link_local_ips, "--link-local-ip")?;
    merge_one(&mut first.ipv4, ipv4, "--ip")?;
    merge_one(&mut first.ipv6, ipv6, "--ip6")?;
    merge_one(&mut first.mac_address, mac_address, "--mac-address")
}

fn merge_list(own: &mut Vec<String>, flag: Vec<String>, name: &str) -> Result<(), String> {
    match (own.is_empty(), flag.is_empty()) {
        (false, false) => Err(both(name)),
        (true, false) => {
            *own = flag;
            Ok(())
        }
        (_, true) => Ok(()),
    }
}

fn merge_one(own: &mut Option<String>, flag: Option<String>, name: &str) -> Result<(), String> {
    match (own.is_some(), flag) {
        (true, Some(_)) => Err(both(name)),
        (false, Some(value)) => {
            *own = Some(value);
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

fn both(name: &str) -> String {
    format!("{name} is given, and the same option inside of --network")
}

fn check(networks: &[NetworkAttachment]) -> Result<(), String> {
    for (index, network) in networks.iter().enumerate() {
        let name = &network.name;
        if !network.is_user_defined() && !network.aliases.is_empty() {
            return Err(format!("network aliases need a user-defined network, {name:?} is none"));
        }
        if let Some(mac) = &network.mac_address {
            mac_address(mac)?;
        }
        let before = networks.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.name == *name) {
            return Err(format!("the network {name:?} stands twice"));
        }
    }
    let user_defined = networks.iter().filter(|n| n.is_user_defined()).count();
    if user_defined != 0 && user_defined != networks.len() {
        return Err("user-defined networks cannot be mixed with others".to_owned());
    }
    Ok(())
}

/// `--add-host NAME:ADDRESS` or `NAME=ADDRESS`, in the form the engine takes.
pub(super) fn extra_host(text: &str) -> Result<String, String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty() && !name.contains(':'))
        .ok_or_else(|| format!("{text:?} is not of the form name:address"))?;
    if address == "host-gateway" {
        return Ok(format!("{name}:{address}"));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| !inner.is_empty())
        .unwrap_or(address);
    ip_address(bare)?;
    Ok(format!("{name}:{bare}"))
}

/// Longest domain name.
const DOMAIN_CHARS_MAX: usize = 254;

/// `--dns-search`; `.` stands for none.
pub(super) fn search_domain(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches(' ');
    if trimmed == "." {
        return Ok(trimmed.to_owned());
    }
    let name = trimmed.trim_end();
    let name = name.strip_suffix('.').unwrap_or(name);
    let well_formed = name.split('.').all(|label| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    let lettered = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    if well_formed && lettered && name.len() <= DOMAIN_CHARS_MAX {
        Ok(name.to_owned())
    } else {
        Err(format!("{text:?} is not a domain"))
    }
}

/// `--link CONTAINER[:ALIAS]`.
pub(super) fn link(text: &str) -> Result<String, String> {
    if text.is_empty() || text.matches(':').count() > 1 {
        return Err(format!("{text:?} is not of the form container[:alias]"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_domains() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(extra_host("a:::1").unwrap(), "a:::1");
        assert_eq!(extra_host("a:host-gateway").unwrap(), "a:host-gateway");
        assert!(extra_host("a").is_err());
        assert!(extra_host("a:b").is_err());
        assert_eq!(search_domain("example.com.").unwrap(), "example.com");
        assert!(search_domain("1.2").is_err());
        assert!(search_domain("a_b").is_err());
    }

    #[test]
    fn networks_in_both_forms() {
        assert_eq!(network("Front").unwrap().name, "Front");
        let long = network("name=Front,alias=a,alias=b,driver-opt=k=v").unwrap();
        assert_eq!((long.name.as_str(), long.aliases.len()), ("front", 2));
        assert!(network("alias=a").is_err());
        assert!(network("name=a,what=b").is_err());
        assert!(network("").is_err());
    }
}
