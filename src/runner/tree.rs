//! What a process started: found among our own children, because we adopt orphans.
//!
//! Ids are never somebody else's: those of our children are not given out again before we reap them.
//!
//! Must never be used in a process that has children it wants to keep.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use std::path::Path;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// From now on orphans below this process become its children.
///
/// # Errors
/// When the kernel has no such thing.
pub fn adopt_orphans() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// All children, ended or not. The kernel keeps a list for each thread.
#[must_use]
pub fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| ids(&list)).collect()
}

fn ids(list: &str) -> Vec<Pid> {
    list.split_ascii_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Whether the kernel keeps those lists.
#[must_use]
pub fn children_are_known() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero();
    Path::new(&format!("/proc/self/task/{own}/children")).exists()
}

/// Reaps every child that ended, and says whether any is left.
pub fn reap(mut each: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((child, status))) => each(child, status),
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_none) => return false,
        }
    }
}

/// Kills and reaps children until none is left, those that were adopted meanwhile included; false
/// when some are still there after `within`.
pub async fn sweep(within: Duration) -> bool {
    let all = async {
        while reap(|_, _| {}) {
            for child in children() {
                let _ended = kill_process(child, Signal::KILL);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, all).await.is_ok()
}

/// How a process ended, in words.
#[must_use]
pub fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{children_are_known, ids};

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert!(children_are_known());
        let found: Vec<i32> = ids("12 4194304 \n").iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        assert_eq!(found, [12, 4_194_304]);
        assert!(ids("").is_empty());
    }
}
