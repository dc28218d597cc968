//! Verdicts on the unit, from what `systemctl show` prints.

use crate::doctor::Check;
use std::collections::BTreeMap;

/// Properties that are asked for.
pub const PROPERTIES: [&str; 10] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "NRestarts",
    "WatchdogUSec",
    "FileDescriptorStoreMax",
    "NFileDescriptorStore",
    "NeedDaemonReload",
];
/// Restarts from which something is wrong.
const RESTARTS_MANY: u64 = 3;

/// The lines of `systemctl show`.
#[must_use]
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// The unit. `installed`: the configuration in question is the unit's.
#[must_use]
pub fn unit(properties: &BTreeMap<String, String>, installed: bool) -> Vec<Check> {
    let value = |key: &str| properties.get(key).map_or("", String::as_str);
    if value("LoadState") != "loaded" {
        let said = format!(
            "the unit is {}",
            if value("LoadState").is_empty() { "unknown" } else { value("LoadState") }
        );
        return vec![if installed {
            Check::warn("systemd", said, "install the package, or run `setup.sh`")
        } else {
            Check::ok("systemd", format!("{said}; this configuration is not the installed one"))
        }];
    }
    let state =
        format!("the unit is {} ({}), {}", value("ActiveState"), value("SubState"), value("UnitFileState"));
    let mut checks = vec![state_of(value("ActiveState"), value("Result"), &state)];
    if value("UnitFileState") == "disabled" {
        let remedy = "`systemctl enable mcp-orchestrator`";
        checks.push(Check::warn("systemd", "the unit does not start at boot", remedy));
    }
    if value("NeedDaemonReload") == "yes" {
        checks.push(Check::warn(
            "systemd",
            "the unit file changed since it was read",
            "`systemctl daemon-reload`",
        ));
    }
    let restarts = value("NRestarts").parse().unwrap_or(0);
    if restarts >= RESTARTS_MANY {
        let said = format!("systemd restarted it {restarts} times");
        checks.push(Check::warn("systemd", said, "look why: `journalctl -u mcp-orchestrator -p warning`"));
    }
    if matches!(value("WatchdogUSec"), "0" | "infinity" | "") {
        checks.push(Check::warn("systemd", "no watchdog", "set WatchdogSec=30 in the unit, as shipped"));
    }
    let kept = (value("NFileDescriptorStore"), value("FileDescriptorStoreMax"));
    match kept {
        (_, "0" | "") => {
            let remedy =
                "set FileDescriptorStoreMax= in the unit, as shipped: without it a restart closes ports";
            checks.push(Check::warn("systemd", "sockets are not kept over a restart", remedy));
        }
        (now, max) => {
            checks.push(Check::ok("systemd", format!("{now} of at most {max} sockets in systemd's keeping")));
        }
    }
    checks
}

fn state_of(active: &str, result: &str, said: &str) -> Check {
    match active {
        "active" | "reloading" => Check::ok("systemd", said),
        "failed" => {
            let remedy = "`journalctl -u mcp-orchestrator -n 50`, then `systemctl restart mcp-orchestrator`";
            Check::fail("systemd", format!("{said}: {result}"), remedy)
        }
        _ => Check::warn("systemd", said, "`systemctl start mcp-orchestrator`"),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, unit};
    use crate::doctor::Verdict;

    const GOOD: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nResult=success\nNRestarts=0\nWatchdogUSec=30s\nFileDescriptorStoreMax=512\nNFileDescriptorStore=14\nNeedDaemonReload=no\n";

    fn worst(text: &str, installed: bool) -> Verdict {
        unit(&parse(text), installed).iter().map(|check| check.verdict).max().unwrap()
    }

    #[test]
    fn units() {
        assert_eq!(worst(GOOD, true), Verdict::Ok);
        let with = |from: &str, to: &str| worst(&GOOD.replace(from, to), true);
        assert_eq!(with("ActiveState=active", "ActiveState=failed"), Verdict::Fail);
        assert_eq!(with("ActiveState=active", "ActiveState=inactive"), Verdict::Warn);
        assert_eq!(with("UnitFileState=enabled", "UnitFileState=disabled"), Verdict::Warn);
        assert_eq!(with("NRestarts=0", "NRestarts=7"), Verdict::Warn);
        assert_eq!(with("WatchdogUSec=30s", "WatchdogUSec=0"), Verdict::Warn);
        assert_eq!(with("FileDescriptorStoreMax=512", "FileDescriptorStoreMax=0"), Verdict::Warn);
        assert_eq!(worst("LoadState=not-found\n", true), Verdict::Warn);
        assert_eq!(worst("LoadState=not-found\n", false), Verdict::Ok);
        assert_eq!(worst("", false), Verdict::Ok);
    }
}
