//! A control group for each process, below one that was delegated to the service (`Delegate=yes`).
//!
//! ```text
//! mcp-orchestrator-runner.service     delegated: nothing runs in it, so that it can hand out limits
//!   runner                            the service and the keepers
//!   time-4711                         a server's process and all it starts; 4711 is its keeper
//! ```
//! A keeper goes into the new group, starts the process and goes back: so the process is never outside.
//!
//! Must never be used where nothing was delegated: the groups there are somebody else's.

use crate::runner::wire::Limits;
use std::io;
use std::path::{Path, PathBuf};

/// The group of the service itself and the keepers.
const OWN: &str = "runner";
/// Length of what `cpu.max` counts in, in microseconds; the kernel's default.
const CPU_PERIOD_USECS: u64 = 100_000;
/// Billionths of a CPU in a microsecond of that period.
const NANO_CPUS: u64 = 1_000_000_000;

/// The group that this process is in.
///
/// # Errors
/// When there is no unified hierarchy.
pub fn own() -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    place(&mounts, &groups).ok_or_else(|| io::Error::other("there is no unified hierarchy of control groups"))
}

fn place(mounts: &str, groups: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mounts.lines().find_map(|line| {
        let (about, kind) = line.split_once(" - ")?;
        // id, parent, device, root, mount point
        let mut about = about.split(' ').skip(3);
        let root = about.next()?.trim_matches('/');
        let point = about.next()?;
        kind.starts_with("cgroup2 ").then_some((root, point))
    });
    let (root, point) = mount?;
    let inner = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(point).join(inner))
}

/// Takes a delegated group over: moves this process out of its way and asks for the controllers that
/// limits need.
///
/// # Errors
/// When the group is not ours to write.
pub fn take_over(root: &Path) -> io::Result<()> {
    let own = root.join(OWN);
    make(&own)?;
    move_here(&own)?;
    for controller in ["+memory", "+pids", "+cpu"] {
        // One that is not delegated is missed when a limit needs it.
        let _missing = std::fs::write(root.join("cgroup.subtree_control"), controller);
    }
    Ok(())
}

fn make(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn move_here(dir: &Path) -> io::Result<()> {
    std::fs::write(dir.join("cgroup.procs"), "0")
}

/// The group of one process.
#[derive(Debug)]
pub struct Group {
    root: PathBuf,
    dir: PathBuf,
}

impl Group {
    /// Makes the group of `server`, whose keeper has this id, and goes into it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn enter(root: &Path, server: &str, keeper: u32) -> io::Result<Self> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = server.chars().map(plain).collect();
        let group = Self { root: root.to_owned(), dir: root.join(format!("{name}-{keeper}")) };
        make(&group.dir)?;
        move_here(&group.dir)?;
        Ok(group)
    }

    /// Goes back to where keepers are.
    ///
    /// # Errors
    /// When the service has none of its own.
    pub fn leave(&self) -> io::Result<()> {
        move_here(&self.root.join(OWN))
    }

    /// Sets the limits, and names those that cannot be had.
    #[must_use]
    pub fn limit(&self, limits: Limits) -> Vec<&'static str> {
        let mut missing = Vec::new();
        for (file, value) in values(limits) {
            if std::fs::write(self.dir.join(file), value).is_err() {
                missing.push(file);
            }
        }
        // Half a server is of no use to anybody.
        let _old_kernel = std::fs::write(self.dir.join("memory.oom.group"), "1");
        missing
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Kills everything in it, at once and without a gap.
    pub fn kill(&self) {
        let _old_kernel = std::fs::write(self.dir.join("cgroup.kill"), "1");
    }

    /// Removes it; it must be empty.
    pub fn remove(&self) {
        let _not_empty = std::fs::remove_dir(&self.dir);
    }
}

/// Files of limits and what goes into them.
fn values(limits: Limits) -> Vec<(&'static str, String)> {
    let Limits { memory_bytes, nano_cpus, pids } = limits;
    let cpu = |nanos: u64| {
        let quota = u128::from(nanos) * u128::from(CPU_PERIOD_USECS) / u128::from(NANO_CPUS);
        // The kernel takes no less than a millisecond.
        format!("{} {CPU_PERIOD_USECS}", quota.max(1000))
    };
    let all = [
        ("memory.max", memory_bytes.map(|bytes| bytes.to_string())),
        ("cpu.max", nano_cpus.map(cpu)),
        ("pids.max", pids.map(|pids| pids.to_string())),
    ];
    all.into_iter().filter_map(|(file, value)| Some((file, value?))).collect()
}

/// Ends what a keeper that was killed left in its groups.
pub fn clear(root: &Path, keeper: u32) {
    let end = format!("-{keeper}");
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&end) {
            let group = Group { root: root.to_owned(), dir: entry.path() };
            group.kill();
            group.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{place, values};
    use crate::runner::wire::Limits;
    use std::path::Path;

    #[test]
    fn the_own_group_is_found_in_both_layouts_of_the_hierarchy() {
        let unified = "24 1 0:21 / /sys rw - sysfs sysfs rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n32 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let inner = "30 24 0:26 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let one = "0::/system.slice/a.service\n";
        let many = "8:pids:/x\n0::/system.slice/a.service\n";
        assert_eq!(place(unified, one).as_deref(), Some(Path::new("/sys/fs/cgroup/system.slice/a.service")));
        assert_eq!(
            place(hybrid, many).as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified/system.slice/a.service"))
        );
        assert_eq!(place(inner, one).as_deref(), Some(Path::new("/sys/fs/cgroup/a.service")));
        assert_eq!(place(unified, "8:pids:/x\n"), None);
        assert_eq!(place("", one), None);
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let all = Limits { memory_bytes: Some(1 << 20), nano_cpus: Some(1_500_000_000), pids: Some(7) };
        let found: Vec<(&str, String)> = values(all);
        let found: Vec<(&str, &str)> = found.iter().map(|(file, value)| (*file, value.as_str())).collect();
        assert_eq!(found, [("memory.max", "1048576"), ("cpu.max", "150000 100000"), ("pids.max", "7")]);
        let tiny = Limits { nano_cpus: Some(1), ..Limits::default() };
        assert_eq!(values(tiny), [("cpu.max", "1000 100000".to_owned())]);
        assert!(values(Limits::default()).is_empty());
    }
}
