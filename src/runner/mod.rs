//! Local processes: who starts them, and who ends them when we cannot.
//!
//! ```text
//! daemon ----- connection: the life line ----- keeper ---- process ---- all it starts
//!    |  request: program, arguments, environment ->|          |
//!    |<- three descriptors (SCM_RIGHTS) -----------|          |
//!    |============= stdin, stdout, stderr: no copying ========|
//! ```
//! Every process has a [`keeper`]: this program in another mode, with nothing but one process to look
//! after. When its connection closes, for whatever reason, `kill -9` of the daemon included, it ends the
//! process and all that it started: end of input, SIGTERM, SIGKILL. It adopts orphans, so that not even
//! those who left the process group stay.
//!
//! A keeper is started by the daemon itself, or, installed, by the [`service`]: another user, without
//! the docker group, control socket, credentials and environment of the daemon, in a sandbox that
//! suffers just-in-time compilers. Both speak [`wire`] over a [`channel`]; [`client`] is the daemon's end.
//!
//! - [`peers`] says who may ask the service.
//! - [`tree`] finds and ends what a process left behind.
//! - [`cgroup`] gives each process a control group of its own, where those are delegated.
//! - [`oom`] tells whether the kernel killed it for memory, where that can be told.
//!
//! Must never put arguments, environment values or a request's bytes into an error or a log.

pub mod cgroup;
pub mod channel;
pub mod client;
pub mod keeper;
pub mod oom;
pub mod peers;
pub mod service;
pub mod tree;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

/// Where the installed service listens.
pub const SOCKET: &str = "/run/mcp-orchestrator-runner/runner.sock";
/// This program, whatever lies at its path by now: an upgrade must not mix two versions.
pub const THIS_PROGRAM: &str = "/proc/self/exe";
/// The name it is shown by in lists of processes.
pub const PROGRAM: &str = "mcp-orchestrator";
/// How long a process has to end after its input was closed, and again after SIGTERM, when nobody
/// says otherwise.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long to wait for the end of what got SIGKILL; only a process stuck in the kernel takes longer.
pub const KILL_WAIT: Duration = Duration::from_secs(3);
/// How long a request may take to arrive, and its answer to come.
pub const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// What of the environment a process begins with: where it is, and how people read. Anything else is
/// the entry's to name.
const BASE: &[&str] = &["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// The part of an environment that processes get.
#[must_use]
pub fn base_environment(whole: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let taken = |name: &&str| Some(((*name).to_owned(), whole.get(*name)?.clone()));
    BASE.iter().filter_map(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::base_environment;
    use std::collections::BTreeMap;

    #[test]
    fn nothing_of_ours_but_the_base_is_passed_on() {
        let ours = ["PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"];
        let ours: BTreeMap<String, String> =
            ours.iter().map(|name| ((*name).to_owned(), format!("value of {name}"))).collect();
        let base = base_environment(&ours);
        assert_eq!(base.keys().collect::<Vec<_>>(), ["HOME", "PATH"]);
    }
}
