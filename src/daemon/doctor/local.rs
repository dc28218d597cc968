//! Facts about this host: ports, files, programs, the unit, the password.

use crate::daemon::doctor::Case;
use crate::daemon::{Home, dashboard};
use crate::doctor::judge::{self, FileFacts};
use crate::doctor::{Check, systemd};
use crate::host::ThisHost;
use crate::model::id::ServerId;
use crate::model::net::{HostPort, PortRange};
use crate::model::server::ServerKind;
use crate::runner::base_environment;
use crate::world::Host as _;
use rustix::fs::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The unit.
const UNIT: &str = "mcp-orchestrator.service";
/// What a service's processes find when the unit sets no other PATH (systemd's own default).
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// `systemctl` is given this long.
const SYSTEMCTL_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn ports(case: &Case<'_>) -> Vec<Check> {
    let service = &case.home.settings.service;
    let range = PortRange { start: service.port_range_start, end: service.port_range_end };
    let settings = &case.home.settings;
    let address = settings.gateway_host(settings.balancer_on()).to_string();
    let free = match ThisHost::default().free_ports(&address, range).await {
        Ok(free) => free.into_iter().collect::<BTreeSet<HostPort>>(),
        Err(error) => return vec![Check::unknown("ports", error.to_string())],
    };
    let leases = &case.memory.leases;
    let needed = case.servers().filter(|server| !leases.contains_key(&server.id)).count();
    // A daemon listens on leased ports itself, and containers may go on without one: then it is not
    // known who sits there.
    let alone = !case.daemon_runs() && case.containers() == 0;
    let taken: BTreeMap<ServerId, HostPort> = leases
        .iter()
        .filter(|(_, lease)| alone && range.contains(lease.port) && !free.contains(&lease.port))
        .map(|(id, lease)| (id.clone(), lease.port))
        .collect();
    vec![judge::ports(range, free.len(), needed, &taken)]
}

pub(super) async fn files(case: &Case<'_>) -> Vec<Check> {
    let home = case.home;
    let state = home.places.state(&home.stack);
    let state_dir = state.parent().map(Path::to_owned).unwrap_or_default();
    let settings = &home.places.settings;
    let mut checks = vec![
        judge::file(&facts(
            (home.places.config.as_path(), "--config"),
            Access::READ_OK,
            (holds_secrets(&home.places.config), false),
        )),
        judge::file(&facts(
            (settings.as_path(), "--settings"),
            Access::READ_OK,
            (holds_secrets(settings), !home.places.settings_asked),
        )),
        judge::file(&facts((state_dir.as_path(), "STATE_DIRECTORY"), Access::WRITE_OK, (false, true))),
    ];
    let socket = home.places.socket(&home.stack);
    if case.daemon_runs() {
        checks.push(judge::file(&facts(
            (socket.as_path(), "RUNTIME_DIRECTORY"),
            Access::WRITE_OK,
            (false, true),
        )));
    }
    if let Some(path) = home.docker_host.strip_prefix("unix://") {
        let seen = facts((Path::new(path), "[service] docker_host"), Access::WRITE_OK, (false, true));
        if seen.mode.is_some() {
            checks.push(judge::file(&seen));
        }
    }
    let settings = &home.settings;
    for (file, named_by, secret) in [
        (&settings.gateway.tokens_file, "[gateway] tokens_file", true),
        (&settings.dashboard.password_file, "[dashboard] password_file", true),
        (&settings.tls.cert_file, "[tls] cert_file", false),
        (&settings.tls.key_file, "[tls] key_file", true),
    ] {
        let Some(file) = file else { continue };
        checks.push(judge::file(&facts((Path::new(file), named_by), Access::READ_OK, (secret, false))));
    }
    checks
}

fn facts(
    (path, named_by): (&Path, &'static str),
    need: Access,
    (secret, optional): (bool, bool),
) -> FileFacts {
    let mode = std::fs::metadata(path).ok().map(|seen| seen.permissions().mode());
    // A socket that everybody may write is open on purpose or by its own checks.
    let usable = mode.map(|_| rustix::fs::access(path, need).is_ok());
    FileFacts { path: path.display().to_string(), mode, usable, secret, optional, named_by }
}

/// Whether the text names something like a secret with a value of its own.
fn holds_secrets(path: &Path) -> bool {
    let Ok(bytes) = crate::daemon::files::bounded(path, 16 * 1024 * 1024) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    if path.extension().is_some_and(|end| end == "conf") {
        let set = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let secret = matches!(key.trim(), "password" | "password_hash" | "api_key");
            (secret && !value.trim().is_empty() && value.trim() != "changeme").then_some(())
        };
        return text.lines().any(|line| set(line).is_some());
    }
    crate::config::redact::text(&text) != text
}

pub(super) async fn runtimes(case: &Case<'_>) -> Vec<Check> {
    let base = base_environment(&case.home.env);
    // Of the installed configuration the service's own PATH counts, not that of who looks.
    let installed = case.home.places.installed && !case.home.env.contains_key("INVOCATION_ID");
    let base_path =
        if installed { SERVICE_PATH.to_owned() } else { base.get("PATH").cloned().unwrap_or_default() };
    let mut wanted: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for server in case.servers() {
        if let ServerKind::Process(decl) = &server.kind {
            let path = decl.env.get("PATH").cloned().unwrap_or_else(|| base_path.clone());
            wanted.entry((decl.command.clone(), path)).or_default().push(server.id.to_string());
        }
    }
    wanted
        .into_iter()
        .map(|((command, path), servers)| {
            let found = which(&command, &path).map(|at| at.display().to_string());
            judge::runtime(&command, &servers, found.as_deref(), &path)
        })
        .collect()
}

/// Where a program is, as a shell would find it.
fn which(command: &str, path: &str) -> Option<PathBuf> {
    let is_program = |at: &PathBuf| {
        std::fs::metadata(at).is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
    };
    if command.contains('/') {
        return Some(PathBuf::from(command)).filter(is_program);
    }
    path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(command)).find(is_program)
}

pub(super) async fn systemd(case: &Case<'_>) -> Vec<Check> {
    let installed = case.home.places.installed;
    if !Path::new("/run/systemd/system").exists() {
        return vec![Check::ok("systemd", "this host is not run by systemd")];
    }
    let mut command = tokio::process::Command::new("systemctl");
    command.args(["show", UNIT, "--no-pager", "-p", &systemd::PROPERTIES.join(",")]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(SYSTEMCTL_WITHIN, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            systemd::unit(&systemd::parse(&String::from_utf8_lossy(&output.stdout)), installed)
        }
        Ok(Ok(output)) => {
            vec![Check::unknown("systemd", format!("`systemctl show` ended with {}", output.status))]
        }
        Ok(Err(error)) => vec![Check::unknown("systemd", format!("`systemctl show`: {error}"))],
        Err(_late) => vec![Check::unknown("systemd", "`systemctl show` does not answer")],
    }
}

/// Whether the dashboard's password is one that everybody knows.
pub(super) fn password(home: &Home) -> Option<Check> {
    if home.options.no_dashboard {
        return None;
    }
    Some(match dashboard::credentials(home) {
        Ok(credentials) if credentials.is_shipped() => Check::warn(
            "credentials",
            "the dashboard has the shipped password, so that it listens on 127.0.0.1 only",
            "`mcp-orchestrator hash-password`, then set [dashboard] password_hash",
        ),
        Ok(_) => Check::ok("credentials", "the dashboard has a password of its own"),
        Err(failure) => Check::fail(
            "credentials",
            format!(
                "{}{}",
                failure.message,
                failure.cause.map(|cause| format!(": {cause}")).unwrap_or_default()
            ),
            failure.hint.unwrap_or_else(|| "look at [dashboard] in settings.conf".to_owned()),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{holds_secrets, which};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn programs_are_found_as_a_shell_would() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::fs::write(a.join("tool"), "").unwrap();
        std::fs::write(b.join("tool"), "").unwrap();
        std::fs::set_permissions(b.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}::{}", a.display(), b.display());
        assert_eq!(which("tool", &path), Some(b.join("tool")), "what cannot be executed is passed over");
        assert_eq!(which("other", &path), None);
        let full = b.join("tool").display().to_string();
        assert_eq!(which(&full, "").map(|at| at.display().to_string()), Some(full));
    }

    #[test]
    fn secrets_in_files_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let has = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            holds_secrets(&path)
        };
        assert!(has("a.conf", "[dashboard]\npassword = x\n"));
        assert!(!has("b.conf", "[dashboard]\npassword = changeme\nport = 1\n"));
        assert!(has("c.json", r#"{"mcpServers": {"a": {"command": "x", "env": {"K": "v"}}}}"#));
        assert!(!has("d.json", r#"{"mcpServers": {"a": {"command": "x", "env": {"K": "${K}"}}}}"#));
        assert!(!has("missing.json.not", "{}"));
    }
}
