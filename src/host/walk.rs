//! Walks directories for files of certain names, within bounds.
//!
//! Only names are looked at, a directory's own list tells what is a directory, and no file is opened:
//! a home of a hundred thousand files costs its directories. Links to directories are not followed, so
//! that there are no loops; links to files are, because people keep their settings behind them.
//!
//! Must never change anything, wait for a file that is none (a pipe), nor go on without end.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What bounds a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Levels below a root.
    pub depth_max: usize,
    /// Entries of directories looked at.
    pub entries_max: usize,
    /// Files found.
    pub found_max: usize,
    /// Time for all of it.
    pub within: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { depth_max: 12, entries_max: 2_000_000, found_max: 5_000, within: Duration::from_secs(20) }
    }
}

/// Directories that hold what programs made or fetched, never what somebody set up.
const PRUNED: [&str; 32] = [
    ".bundle",
    ".cache",
    ".cargo",
    ".eggs",
    ".git",
    ".gradle",
    ".hg",
    ".ivy2",
    ".local",
    ".m2",
    ".mypy_cache",
    ".next",
    ".nox",
    ".npm",
    ".nuget",
    ".nvm",
    ".pnpm-store",
    ".pyenv",
    ".pytest_cache",
    ".ruff_cache",
    ".rustup",
    ".svn",
    ".terraform",
    ".tox",
    ".venv",
    ".yarn",
    "__pycache__",
    "bower_components",
    "node_modules",
    "site-packages",
    "target",
    "venv",
];
/// File systems that are no files.
const NO_FILES: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// Directories that could not be read and are named.
const NAMED_MAX: usize = 3;

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The files, sorted, each once.
    pub found: BTreeSet<String>,
    /// Entries of directories looked at.
    pub entries: usize,
    /// Directories that could not be read: how many, and the first of them.
    pub unreadable: (usize, Vec<String>),
    /// Names that are not UTF-8 and would have been looked at.
    pub not_text: usize,
    /// Which bound ended it.
    pub ended_by: Option<&'static str>,
}

impl Walked {
    /// What its reader should know, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let (count, named) = &self.unreadable;
        if let Some(first) = named.first() {
            let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            notes.push(format!("not readable: {first}{more}"));
        }
        if let Some(bound) = self.ended_by {
            notes.push(format!("not everything was looked at: {bound}"));
        }
        if self.not_text > 0 {
            notes.push(format!("{} names are not UTF-8 and were passed over", self.not_text));
        }
        notes
    }

    fn cannot_read(&mut self, path: &Path) {
        self.unreadable.0 += 1;
        if self.unreadable.1.len() < NAMED_MAX {
            self.unreadable.1.push(path.display().to_string());
        }
    }
}

/// Walks `roots` for files whose path `wanted` says yes to.
#[must_use]
pub fn walk(roots: &[PathBuf], bounds: Bounds, wanted: &dyn Fn(&str) -> bool) -> Walked {
    let mut walked = Walked::default();
    let began = Instant::now();
    for root in roots {
        // A root may be a link; what is below it may not.
        match fs::canonicalize(root) {
            Ok(root) => one(&root, (bounds, began), wanted, &mut walked),
            Err(_) => walked.cannot_read(root),
        }
    }
    walked
}

fn one(root: &Path, (bounds, began): (Bounds, Instant), wanted: &dyn Fn(&str) -> bool, walked: &mut Walked) {
    let mut open = vec![(root.to_owned(), 0_usize)];
    while let Some((dir, depth)) = open.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                walked.cannot_read(&dir);
                continue;
            }
        };
        for entry in entries.flatten() {
            walked.entries += 1;
            if walked.entries >= bounds.entries_max {
                break;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if depth < bounds.depth_max && !is_pruned(&entry) {
                    open.push((entry.path(), depth + 1));
                }
            } else if kind.is_file() || kind.is_symlink() {
                file(&entry, kind, wanted, walked);
            }
        }
        if let Some(bound) = exceeded(walked, bounds, began) {
            walked.ended_by = Some(bound);
            return;
        }
    }
}

fn exceeded(walked: &Walked, bounds: Bounds, began: Instant) -> Option<&'static str> {
    if walked.entries >= bounds.entries_max {
        return Some("there are too many files; name a directory");
    }
    if walked.found.len() >= bounds.found_max {
        return Some("too many files may hold servers; name a directory");
    }
    (began.elapsed() >= bounds.within).then_some("it took too long; name a directory")
}

fn is_pruned(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return false };
    if PRUNED.binary_search(&name).is_ok() {
        return true;
    }
    let path = entry.path();
    NO_FILES.iter().any(|dir| Path::new(dir) == path)
}

fn file(entry: &DirEntry, kind: FileType, wanted: &dyn Fn(&str) -> bool, walked: &mut Walked) {
    let path = entry.path();
    let Some(path) = path.to_str() else {
        walked.not_text += 1;
        return;
    };
    if !wanted(path) {
        return;
    }
    // Behind a link there must be a file; what leads nowhere is nothing.
    if kind.is_symlink() && !fs::metadata(path).is_ok_and(|seen| seen.is_file()) {
        return;
    }
    walked.found.insert(path.to_owned());
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its bytes, no more than were asked for.
    pub bytes: Vec<u8>,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether there is more of it.
    pub cut: bool,
}

/// Reads at most `max` bytes of a regular file, and never waits for another kind.
///
/// # Errors
/// The system's, and for what is no regular file.
pub fn read(path: &Path, max: usize) -> io::Result<Content> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let seen = file.metadata()?;
    if !seen.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes)?;
    let executable = seen.permissions().mode() & 0o111 != 0;
    Ok(Content { bytes, executable, cut: seen.size() > limit })
}

/// Command lines of docker clients that run something, as far as this user sees them.
///
/// # Errors
/// When processes cannot be listed.
pub fn docker_clients() -> io::Result<Vec<Vec<String>>> {
    /// Longest command line that is read, in bytes.
    const LINE_BYTES_MAX: usize = 16 * 1024;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let is_process =
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let Ok(content) = read(&entry.path().join("cmdline"), LINE_BYTES_MAX) else { continue };
        let words =
            content.bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let words: Vec<String> = words.collect();
        let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
        if matches!(program, "docker" | "podman") && words.iter().any(|word| word == "run") {
            found.push(words);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Bounds, PRUNED, docker_clients, read, walk};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        };
        for path in [
            "a/.mcp.json",
            "a/b/c/.mcp.json",
            "a/node_modules/x/.mcp.json",
            "a/.git/.mcp.json",
            "a/other.json",
        ] {
            make(path);
        }
        symlink(dir.path().join("a"), dir.path().join("a/b/loop")).unwrap();
        symlink(dir.path().join("a/other.json"), dir.path().join("a/b/.mcp.json")).unwrap();
        symlink("/nowhere", dir.path().join("a/b/c/d.mcp.json")).unwrap();
        dir
    }

    fn found(dir: &Path, bounds: Bounds) -> (Vec<String>, super::Walked) {
        let walked = walk(&[dir.to_owned()], bounds, &|path| path.ends_with(".mcp.json"));
        let root = dir.canonicalize().unwrap().display().to_string();
        (walked.found.iter().map(|path| path.replace(&root, "")).collect(), walked)
    }

    #[test]
    fn loops_end_and_what_programs_made_is_passed_over() {
        let dir = tree();
        let (paths, walked) = found(dir.path(), Bounds::default());
        assert_eq!(paths, ["/a/.mcp.json", "/a/b/.mcp.json", "/a/b/c/.mcp.json"]);
        assert_eq!((walked.ended_by, walked.notes()), (None, Vec::new()));
        let mut sorted = PRUNED;
        sorted.sort_unstable();
        assert_eq!(sorted, PRUNED, "the list is searched by halves");
    }

    #[test]
    fn every_bound_ends_it_and_says_so() {
        let dir = tree();
        let (paths, _) = found(dir.path(), Bounds { depth_max: 1, ..Bounds::default() });
        assert_eq!(paths, ["/a/.mcp.json"]);
        for bounds in [
            Bounds { entries_max: 2, ..Bounds::default() },
            Bounds { found_max: 0, ..Bounds::default() },
            Bounds { within: Duration::ZERO, ..Bounds::default() },
        ] {
            let (_, walked) = found(dir.path(), bounds);
            assert_eq!(walked.notes().len(), 1, "{bounds:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_once() {
        let dir = tree();
        let missing = dir.path().join("missing");
        let walked = walk(&[missing.clone(), dir.path().to_owned(), missing], Bounds::default(), &|_| false);
        assert_eq!(walked.notes().len(), 1, "{:?}", walked.notes());
        assert!(walked.notes()[0].ends_with("/missing and 1 more"));
    }

    #[test]
    fn only_files_are_read_and_no_more_than_asked() {
        let dir = tree();
        let path = dir.path().join("x");
        fs::write(&path, "0123456789").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let content = read(&path, 4).unwrap();
        assert_eq!(
            (content.bytes.as_slice(), content.executable, content.cut),
            (b"0123".as_slice(), true, true)
        );
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(read(&pipe, 4).is_err(), "a pipe without a writer is not waited for");
        assert!(read(dir.path(), 4).is_err());
    }

    #[test]
    fn processes_can_be_listed() {
        docker_clients().expect("a list");
    }

    #[test]
    fn a_home_of_a_hundred_thousand_files_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        for folder in 0..200 {
            let folder: PathBuf = dir.path().join(format!("d{}/e{folder}", folder % 20));
            fs::create_dir_all(&folder).unwrap();
            for file in 0..500 {
                fs::File::create(folder.join(format!("f{file}.txt"))).unwrap();
            }
        }
        let began = std::time::Instant::now();
        let (_, walked) = found(dir.path(), Bounds::default());
        let took = began.elapsed();
        // The bound is loose for a loaded machine; what it costs is printed.
        println!("{} entries in {took:?}", walked.entries);
        assert!(walked.entries >= 100_000 && took < Duration::from_secs(10), "{took:?}");
    }
}
