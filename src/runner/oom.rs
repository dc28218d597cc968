//! Whether the kernel killed a process for memory: the kernel's own counts of such kills, before the
//! start and after the end.
//!
//! ```text
//! count in                                  went up                stayed
//! memory.events of a group of its own       it, or a part of it    not for memory
//! memory.events of a group with others      nobody can tell        not for memory
//! oom_kill of /proc/vmstat (this host)      nobody can tell        not for memory
//! none of them can be read                  nobody can tell
//! ```
//! Must never say yes on the strength of a count that others share.

use std::path::{Path, PathBuf};

/// The file of a control group with its count; kills in groups below are in it.
const EVENTS: &str = "memory.events";
/// The name of the count in both kinds of file.
const COUNT: &str = "oom_kill";

/// The counts before a process started.
#[derive(Clone, Debug, Default)]
pub struct Before {
    own: Option<(PathBuf, u64)>,
    shared: Vec<(PathBuf, u64)>,
}

impl Before {
    /// Reads them: `own` is a control group of nobody else's, `shared` the one of whoever starts it
    /// otherwise, `proc` where the kernel tells of itself.
    #[must_use]
    pub fn read(own: Option<&Path>, shared: Option<&Path>, proc: &Path) -> Self {
        let counted = |file: PathBuf| count(&file).map(|kills| (file, kills));
        let others = shared.map(|group| group.join(EVENTS)).into_iter().chain([proc.join("vmstat")]);
        Self {
            own: own.and_then(|group| counted(group.join(EVENTS))),
            shared: others.filter_map(counted).collect(),
        }
    }

    /// Whether the kernel killed for memory since; `None` when that cannot be told.
    #[must_use]
    pub fn killed(&self) -> Option<bool> {
        let rose = |(file, before): &(PathBuf, u64)| count(file).map(|now| now > *before);
        if let Some(own) = self.own.as_ref().and_then(rose) {
            return Some(own);
        }
        self.shared.iter().any(|shared| rose(shared) == Some(false)).then_some(false)
    }
}

fn count(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(COUNT)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How a process ended, with what is known of its memory; `killed`: by a SIGKILL that was not ours.
#[must_use]
pub fn words(how: &str, killed: bool, for_memory: Option<bool>) -> String {
    match (killed, for_memory) {
        (true, Some(true)) => "was killed for memory (SIGKILL)".to_owned(),
        (true, Some(false)) => "was killed (SIGKILL), and not for memory".to_owned(),
        (true, None) => "was killed (SIGKILL): perhaps out of memory".to_owned(),
        (false, Some(true)) => format!("{how}, after the kernel had killed a process of it for memory"),
        (false, Some(false) | None) => how.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, words};
    use std::path::{Path, PathBuf};

    /// A tree like the kernel's, in a folder of its own.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn group(&self, name: &str, kills: u64) -> PathBuf {
            let group = self.0.path().join(name);
            std::fs::create_dir_all(&group).expect("a folder");
            let text = format!("low 0\nhigh 0\nmax 7\noom 3\noom_kill {kills}\noom_group_kill 9\n");
            std::fs::write(group.join("memory.events"), text).expect("written");
            group
        }

        fn host(&self, kills: u64) -> PathBuf {
            let text = format!("nr_free_pages 5\noom_kill {kills}\ndrop_pagecache 0\n");
            std::fs::write(self.0.path().join("vmstat"), text).expect("written");
            self.0.path().to_owned()
        }
    }

    #[test]
    fn kills_in_a_group_of_its_own_are_its_own() {
        let tree = Tree::new();
        let (own, shared, proc) = (tree.group("own", 4), tree.group("shared", 1), tree.host(1));
        let before = Before::read(Some(&own), Some(&shared), &proc);
        assert_eq!(before.killed(), Some(false));
        // Others were killed, this one was not.
        tree.group("shared", 2);
        tree.host(2);
        assert_eq!(before.killed(), Some(false));
        tree.group("own", 5);
        assert_eq!(before.killed(), Some(true));
    }

    #[test]
    fn counts_that_others_share_can_only_say_no() {
        let tree = Tree::new();
        let (shared, proc) = (tree.group("shared", 1), tree.host(8));
        let before = Before::read(None, Some(&shared), &proc);
        assert_eq!(before.killed(), Some(false));
        tree.host(9);
        assert_eq!(before.killed(), Some(false), "nobody of the group was killed");
        tree.group("shared", 2);
        assert_eq!(before.killed(), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(Before::read(Some(nowhere), Some(nowhere), nowhere).killed(), None);
        assert_eq!(Before::default().killed(), None);
        let tree = Tree::new();
        let own = tree.group("own", 0);
        // No memory controller in the group: the host's count is left.
        std::fs::write(own.join("memory.events"), "oom_kill_disable 0\n").expect("written");
        let before = Before::read(Some(&own), None, &tree.host(3));
        assert_eq!(before.killed(), Some(false));
        tree.host(4);
        assert_eq!(before.killed(), None);
        // The group went before it was looked at.
        let gone = Before::read(Some(&tree.group("gone", 0)), None, nowhere);
        std::fs::remove_dir_all(tree.0.path().join("gone")).expect("removed");
        assert_eq!(gone.killed(), None);
    }

    #[test]
    fn ends_are_told_apart() {
        let told = |killed, memory| words("was ended by signal 9", killed, memory);
        assert_eq!(told(true, Some(true)), "was killed for memory (SIGKILL)");
        assert_eq!(told(true, Some(false)), "was killed (SIGKILL), and not for memory");
        assert_eq!(told(true, None), "was killed (SIGKILL): perhaps out of memory");
        assert_eq!(told(false, None), "was ended by signal 9", "we did it");
        let part = words("exited with code 1", false, Some(true));
        assert_eq!(part, "exited with code 1, after the kernel had killed a process of it for memory");
    }
}
