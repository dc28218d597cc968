//! Verdicts on this host: engine, clock, ports, files, images, programs, names.

use crate::doctor::Check;
use crate::model::id::ServerId;
use crate::model::net::{HostPort, PortRange};
use std::collections::BTreeMap;

/// Oldest API of the engine that everything here works with (Docker 20.10).
const API_MIN: (u32, u32) = (1, 41);
/// Difference of clocks, in milliseconds, from which times in logs and leases cannot be compared.
const SKEW_WARN_MILLIS: u64 = 2_000;
/// Difference to AWS from which signatures are soon refused, and from which they are (5 minutes).
const AWS_SKEW_WARN_MILLIS: u64 = 60_000;
const AWS_SKEW_FAIL_MILLIS: u64 = 300_000;
/// Free ports below which the next servers get none.
const FREE_PORTS_FEW: usize = 5;
/// Things named in one line.
const NAMED_MAX: usize = 5;
/// Longest tool name that clients' models take, in characters.
const TOOL_NAME_LEN_MAX: usize = 64;
/// What Claude puts before a tool's name, beside the server's and two separators.
const CLAUDE_PREFIX: &str = "mcp__";
/// Characters of a tool's name that must fit behind a server's: most are shorter.
const TOOL_NAME_LEN_USUAL: usize = 32;
/// Mode bits: everybody may write, read.
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;

/// A few of many.
fn few(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// An engine that answers.
#[must_use]
pub fn engine_version(host: &str, version: &str, api: &str) -> Check {
    let said = format!("Docker {version} (API {api}) at {host}");
    let parsed =
        api.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match parsed {
        None => Check::unknown("engine", format!("{said}: its API version is not understood")),
        Some(api) if api < API_MIN => Check::fail(
            "engine",
            said,
            format!("install Docker 20.10 or later (API {}.{})", API_MIN.0, API_MIN.1),
        ),
        Some(_) => Check::ok("engine", said),
    }
}

/// An engine that does not answer. `needed`: servers that are containers.
#[must_use]
pub fn no_engine(said: &str, needed: usize) -> Check {
    let denied = said.to_ascii_lowercase().contains("permission denied");
    let remedy = if denied {
        "let this user use the socket: `usermod -aG docker USER` and log in again, or run as root"
    } else {
        "start it (`systemctl start docker`), or name it: [service] docker_host or DOCKER_HOST"
    };
    if needed == 0 {
        return Check::warn("engine", format!("{said}; no server needs it"), remedy);
    }
    Check::fail("engine", format!("{said}; {needed} of the servers are containers"), remedy)
}

/// The difference to the engine's clock. `spread` is the time that asking took: the answer is no more
/// exact than that.
#[must_use]
pub fn engine_clock(skew: i64, spread: u64) -> Check {
    let off = skew.unsigned_abs().saturating_sub(spread);
    let said = format!("the engine's clock differs by {}", seconds(skew));
    if off > SKEW_WARN_MILLIS {
        let remedy = "set both clocks by NTP: `timedatectl set-ntp true`, on the engine's host too";
        return Check::warn("clock", said, remedy);
    }
    Check::ok("clock", format!("the engine's clock is the same, as far as {} can tell", seconds_of(spread)))
}

/// The difference to AWS's clock (the `Date` of an answer, whole seconds).
#[must_use]
pub fn aws_clock(skew: i64) -> Check {
    let off = skew.unsigned_abs();
    let remedy = "set the clock by NTP: `timedatectl set-ntp true` (chrony with 169.254.169.123 on EC2)";
    let said = format!("AWS's clock differs by {}", seconds(skew));
    match off {
        _ if off >= AWS_SKEW_FAIL_MILLIS => {
            Check::fail("clock", format!("{said}: signatures are refused"), remedy)
        }
        _ if off >= AWS_SKEW_WARN_MILLIS => Check::warn("clock", said, remedy),
        _ => Check::ok("clock", said),
    }
}

fn seconds(millis: i64) -> String {
    seconds_of(millis.unsigned_abs())
}

fn seconds_of(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// Ports of the range: how many are free, how many servers still need one, and leases that somebody
/// else sits on.
#[must_use]
pub fn ports(range: PortRange, free: usize, needed: usize, taken: &BTreeMap<ServerId, HostPort>) -> Check {
    let said = format!("{free} of {} ports of {range} are free", range.len());
    let widen = "widen [service] port_range_start and port_range_end, or end what listens there (`ss -ltnp`)";
    if !taken.is_empty() {
        let named: Vec<String> = taken.iter().map(|(id, port)| format!("{id} ({port})")).collect();
        let remedy = "end what listens there (`ss -ltnp`); the server waits for its port meanwhile";
        return Check::fail("ports", format!("{said}; others listen on ports of {}", few(&named)), remedy);
    }
    if free < needed {
        return Check::fail("ports", format!("{said}; {needed} servers still need one"), widen);
    }
    if free < needed + FREE_PORTS_FEW {
        return Check::warn("ports", said, widen);
    }
    Check::ok("ports", said)
}

/// A file or directory as it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Its path.
    pub path: String,
    /// Mode bits; `None` when it is not there.
    pub mode: Option<u32>,
    /// Whether this user may do with it what is needed; `None` when that was not tried.
    pub usable: Option<bool>,
    /// Whether it holds secrets.
    pub secret: bool,
    /// Whether everything works without it.
    pub optional: bool,
    /// What another one is named with: a flag or a setting.
    pub named_by: &'static str,
}

/// A file's or directory's rights.
#[must_use]
pub fn file(facts: &FileFacts) -> Check {
    let FileFacts { path, mode, usable, secret, optional, named_by } = facts;
    let Some(mode) = mode else {
        let said = format!("{path} is not there");
        return if *optional {
            Check::ok("files", format!("{said} (not needed)"))
        } else {
            Check::fail("files", said, format!("write it, or name another one with {named_by}"))
        };
    };
    let said = format!("{path} (mode {:04o})", mode & 0o7777);
    // The sticky bit keeps others' hands off what is in a shared directory.
    if mode & OTHERS_WRITE != 0 && mode & 0o1000 == 0 {
        let remedy = format!("who writes it runs programs as this service: `chmod o-w {path}`");
        return Check::fail("files", format!("{said}: everybody may write it"), remedy);
    }
    if *usable == Some(false) {
        let remedy = format!("look at owner and group: `ls -ld {path}`; the daemon's user must have it");
        return Check::fail("files", format!("{said}: this user may not use it"), remedy);
    }
    if *secret && mode & OTHERS_READ != 0 {
        let remedy = format!("`chmod 640 {path}`, or keep the values in credentials: ${{credential:NAME}}");
        return Check::warn("files", format!("{said}: it holds secrets and everybody may read it"), remedy);
    }
    Check::ok("files", said)
}

/// What a registry said of an image, or whether it is here already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFacts {
    /// It is on the engine.
    Here,
    /// It can be pulled.
    Pullable,
    /// It is never pulled, and not here.
    NeverPulled,
    /// The registry has none.
    Absent(String),
    /// The registry wants to know who asks.
    Denied(String),
    /// The registry did not answer; whether the image is on the engine.
    Silent {
        /// It is on the engine, as far as that is known.
        here: bool,
        /// What was said.
        said: String,
    },
}

/// An image of some servers.
#[must_use]
pub fn image(reference: &str, facts: &ImageFacts) -> Check {
    match facts {
        ImageFacts::Here => Check::ok("images", format!("{reference} is on the engine")),
        ImageFacts::Pullable => Check::ok("images", format!("{reference} can be pulled")),
        ImageFacts::NeverPulled => Check::fail(
            "images",
            format!("{reference} is not on the engine and is never pulled"),
            "build or load it (`docker load`), or set [containers] pull = missing",
        ),
        ImageFacts::Absent(said) => Check::fail(
            "images",
            format!("{reference}: {said}"),
            "look at name and tag; a private image also looks like this: `docker login REGISTRY`",
        ),
        ImageFacts::Denied(said) => Check::fail(
            "images",
            format!("{reference}: {said}"),
            "`docker login REGISTRY` as the daemon's user, or set DOCKER_CONFIG for the service",
        ),
        ImageFacts::Silent { here: true, said } => Check::warn(
            "images",
            format!("{reference} is on the engine, but cannot be looked for anew: {said}"),
            "look at network, proxy and DNS of the engine",
        ),
        ImageFacts::Silent { here: false, said } => Check::fail(
            "images",
            format!("{reference}: {said}"),
            "look at network, proxy and DNS of the engine, or bring it there with `docker load`",
        ),
    }
}

/// A server's container that the kernel ended for memory. `limit`: what it may have, in bytes; 0 for
/// no limit of its own.
#[must_use]
pub fn memory(server: &ServerId, limit: i64) -> Check {
    const MIB: i64 = 1024 * 1024;
    if limit <= 0 {
        return Check::fail(
            "memory",
            format!("{server} was killed for memory and has no limit of its own: this host ran out of it"),
            "give it and the others limits (limits.memory, or [containers] memory), or the host more",
        );
    }
    let (has, more) = (limit / MIB, (limit / 2).saturating_mul(3).saturating_add(MIB - 1) / MIB);
    Check::fail(
        "memory",
        format!("{server} was killed for memory; its limit is {has} MiB"),
        format!("raise it (limits.memory, or --memory on its line), for example to {more}m"),
    )
}

/// A program that local servers are started with: where it was found.
#[must_use]
pub fn runtime(command: &str, servers: &[String], found: Option<&str>, path: &str) -> Check {
    match found {
        Some(at) => Check::ok("runtimes", format!("{command} is {at} ({})", few(servers))),
        None => {
            let package = match command {
                "npx" | "npm" | "node" => "install Node.js (`apt install nodejs npm`)",
                "uvx" | "uv" => "install uv for all users, for example into /usr/local/bin",
                "python" => "install Python; many systems only have python3",
                "python3" | "pip" | "pipx" => "install Python (`apt install python3`)",
                "bunx" | "bun" => "install Bun for all users, for example into /usr/local/bin",
                "deno" => "install Deno for all users, for example into /usr/local/bin",
                _ => "install it, or write its full path as the entry's command",
            };
            let said = format!("{command} is not on the PATH {path} ({})", few(servers));
            Check::fail("runtimes", said, format!("{package}; or set PATH in the entry's env or the unit"))
        }
    }
}

/// Names of servers and tools as clients put them together. `tools` where a daemon knows them.
#[must_use]
pub fn names(tools: &BTreeMap<ServerId, Option<Vec<String>>>) -> Check {
    let mut too_long = Vec::new();
    let mut tight = Vec::new();
    for (id, tools) in tools {
        // `mcp__id__tool` (Claude) and `id-tool` (LiteLLM): the first is the longer one.
        let used = CLAUDE_PREFIX.len() + id.as_str().len() + 2;
        match tools {
            Some(tools) => {
                let long = tools.iter().filter(|tool| used + tool.chars().count() > TOOL_NAME_LEN_MAX);
                too_long.extend(long.map(|tool| format!("{CLAUDE_PREFIX}{id}__{tool}")));
            }
            None if used + TOOL_NAME_LEN_USUAL > TOOL_NAME_LEN_MAX => tight.push(id.to_string()),
            None => {}
        }
    }
    if !too_long.is_empty() {
        let said =
            format!("longer than the {TOOL_NAME_LEN_MAX} characters that models take: {}", few(&too_long));
        return Check::warn(
            "names",
            said,
            "give the server a shorter name: one such tool can fail every request",
        );
    }
    if !tight.is_empty() {
        let said =
            format!("names that leave less than {TOOL_NAME_LEN_USUAL} characters for tools: {}", few(&tight));
        return Check::warn("names", said, "give these servers shorter names");
    }
    let known = tools.values().filter(|tools| tools.is_some()).count();
    Check::ok("names", format!("{} servers; tools of {known} looked at", tools.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn id(text: &str) -> ServerId {
        ServerId::new(text).unwrap()
    }

    fn range(start: u16, end: u16) -> PortRange {
        PortRange { start: HostPort::new(start).unwrap(), end: HostPort::new(end).unwrap() }
    }

    #[test]
    fn engines() {
        assert_eq!(engine_version("h", "28.1.1", "1.49").verdict, Verdict::Ok);
        assert_eq!(engine_version("h", "19.3", "1.40").verdict, Verdict::Fail);
        assert_eq!(engine_version("h", "x", "").verdict, Verdict::Unknown);
        assert_eq!(no_engine("no", 0).verdict, Verdict::Warn);
        let denied = no_engine("reaching /x: Permission denied (os error 13)", 2);
        assert!(denied.verdict == Verdict::Fail && denied.remedy.unwrap().contains("usermod"));
    }

    #[test]
    fn clocks() {
        assert_eq!(engine_clock(1_500, 10).verdict, Verdict::Ok);
        assert_eq!(engine_clock(-9_000, 10).verdict, Verdict::Warn);
        assert_eq!(engine_clock(9_000, 8_000).verdict, Verdict::Ok, "a slow answer proves nothing");
        let verdicts = [0, 61_000, -301_000].map(|skew| aws_clock(skew).verdict);
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warn, Verdict::Fail]);
    }

    #[test]
    fn port_ranges() {
        let none = BTreeMap::new();
        assert_eq!(ports(range(8000, 9000), 900, 12, &none).verdict, Verdict::Ok);
        assert_eq!(ports(range(8000, 8010), 3, 1, &none).verdict, Verdict::Warn);
        assert_eq!(ports(range(8000, 8010), 3, 4, &none).verdict, Verdict::Fail);
        let taken = BTreeMap::from([(id("time"), HostPort::new(8001).unwrap())]);
        let check = ports(range(8000, 9000), 900, 0, &taken);
        assert!(check.verdict == Verdict::Fail && check.evidence.contains("time (8001)"), "{check:?}");
    }

    #[test]
    fn rights_of_files() {
        let facts = |mode, usable, secret| FileFacts {
            path: "/f".into(),
            mode,
            usable: Some(usable),
            secret,
            optional: false,
            named_by: "[gateway] tokens_file",
        };
        assert_eq!(file(&facts(Some(0o640), true, true)).verdict, Verdict::Ok);
        assert_eq!(file(&facts(Some(0o644), true, true)).verdict, Verdict::Warn);
        assert_eq!(file(&facts(Some(0o644), true, false)).verdict, Verdict::Ok);
        assert_eq!(file(&facts(Some(0o666), true, false)).verdict, Verdict::Fail);
        assert_eq!(file(&facts(Some(0o1777), true, false)).verdict, Verdict::Ok);
        assert_eq!(file(&facts(Some(0o600), false, true)).verdict, Verdict::Fail);
        let missing = file(&facts(None, false, true));
        assert_eq!(missing.verdict, Verdict::Fail);
        assert!(missing.remedy.unwrap().ends_with("with [gateway] tokens_file"));
        assert_eq!(file(&FileFacts { optional: true, ..facts(None, false, true) }).verdict, Verdict::Ok);
    }

    #[test]
    fn images_and_programs() {
        assert_eq!(image("x", &ImageFacts::Here).verdict, Verdict::Ok);
        let silent = |here| image("x", &ImageFacts::Silent { here, said: "late".into() }).verdict;
        assert_eq!((silent(true), silent(false)), (Verdict::Warn, Verdict::Fail));
        assert_eq!(image("x", &ImageFacts::Denied("who".into())).verdict, Verdict::Fail);
        let missing = runtime("uvx", &["a".into(), "b".into()], None, "/usr/bin");
        assert!(missing.verdict == Verdict::Fail && missing.evidence.contains("(a, b)"));
        assert_eq!(runtime("node", &["a".into()], Some("/usr/bin/node"), "").verdict, Verdict::Ok);
    }

    #[test]
    fn killed_for_memory() {
        let check = memory(&id("a"), 24 << 20);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.evidence.contains("24 MiB") && check.remedy.unwrap().contains("36m"));
        assert!(memory(&id("a"), 0).evidence.contains("this host ran out"));
    }

    #[test]
    fn name_budgets() {
        let long = id(&"a".repeat(40));
        let of = |id: &ServerId, tools: Option<Vec<String>>| names(&BTreeMap::from([(id.clone(), tools)]));
        assert_eq!(of(&id("time"), None).verdict, Verdict::Ok);
        assert_eq!(of(&long, None).verdict, Verdict::Warn);
        assert_eq!(of(&long, Some(vec!["t".into()])).verdict, Verdict::Ok, "what is known counts");
        // mcp__ + 40 + __ + 17 = 64.
        assert_eq!(of(&long, Some(vec!["t".repeat(17)])).verdict, Verdict::Ok);
        assert_eq!(of(&long, Some(vec!["t".repeat(18)])).verdict, Verdict::Warn);
    }
}
