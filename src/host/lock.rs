//! One daemon or one-shot per engine and stack, whoever runs it.
//!
//! A file in a directory that every user has, locked with `flock`: the kernel lets go of it when
//! the process ends, however it ends. Its content tells a second process where the first one
//! listens. Not every user can write in the first directory everywhere, so the lock is every file of that
//! name that exists: all of them are locked, the first that can be made is made, and after that
//! they are all looked at once more. Two that start in the same moment may both be refused, but
//! never both be let in.
//!
//! `fs.protected_regular` forbids `O_CREAT` on another's file in a sticky directory, even to root,
//! so an existing file is opened without it. The file is never removed: a lock on a removed file
//! would lock out nobody.
//!
//! One engine has several addresses (`/var/run/docker.sock` and `/run/docker.sock`), so a process
//! takes a lock for each name it knows of the engine: its address, and the engine's own id when it
//! answers. Two processes with one name in common are never both let in.
//!
//! Must never be trusted: anybody can write the file (mode 0666), so [`Owner::socket`] says where to
//! look, and the socket's own owner is checked ([`socket_of`]) before anything is believed or sent.

use crate::model::fingerprint::sha256_hex;
use crate::model::id::Stack;
use crate::model::time::Timestamp;
use crate::world::{ErrorKind, WorldError};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, open, stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directories that all users share, by preference. A unit with a private `/tmp` needs the first.
pub const SHARED_DIRS: [&str; 2] = ["/run/lock", "/tmp"];
/// Longest content that is read, in bytes.
const CONTENT_BYTES_MAX: usize = 4096;
/// Anybody may lock; the sticky bit keeps cleaners of old files away.
const FILE_MODE: u32 = 0o1666;
/// Tries to get hold of a file that others make and remove meanwhile.
const OPEN_TRIES_MAX: usize = 8;
/// Who only looks locks for a moment too: how often an owner-to-be tries before it gives way.
const LOCK_TRIES_MAX: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The owner writes the content right after it has locked; how often and how long to wait for it.
const READ_TRIES_MAX: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(10);

/// Who holds a lock, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Its control socket; `None` for a process that serves none.
    pub socket: Option<PathBuf>,
    /// Since when it runs.
    pub since: Timestamp,
}

/// What came of trying.
#[derive(Debug)]
pub enum Attempt {
    /// This process is the one, until the guard is dropped.
    Locked(Guard),
    /// Another process is; `None` when it has not said who it is.
    Held(Option<Owner>),
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct Guard {
    held: Vec<(PathBuf, File)>,
}

/// A lock file that was tried.
enum Tried {
    Absent,
    Mine(File),
    Theirs(Option<Owner>),
}

/// Tries to become the one process for `stack` on the engine that all of `engines` name: texts that
/// are the same for everybody who says them of that engine, such as its address and its own id.
/// Blocks for at most 0.2 seconds for each.
///
/// # Errors
/// `Denied` when a file can be made in no shared directory, `Failed` for other faults.
pub fn try_lock(stack: &Stack, engines: &[String], owner: &Owner) -> Result<Attempt, WorldError> {
    let mut all = Guard { held: Vec::new() };
    for engine in engines {
        match try_lock_in(&SHARED_DIRS.map(Path::new), &file_name(stack, engine), owner)? {
            Attempt::Locked(mut guard) => all.held.append(&mut guard.held),
            held @ Attempt::Held(_) => return Ok(held),
        }
    }
    Ok(Attempt::Locked(all))
}

/// Who holds a lock of `stack` on the engine that `engines` name, without taking it; `None` when
/// nobody does. The outer `Some` with nothing inside: somebody who has not said who.
///
/// # Errors
/// As [`try_lock`].
pub fn holder(stack: &Stack, engines: &[String]) -> Result<Option<Option<Owner>>, WorldError> {
    for engine in engines {
        let name = file_name(stack, engine);
        for dir in SHARED_DIRS {
            let path = Path::new(dir).join(&name);
            if let Tried::Theirs(owner) = lock_existing(&path, FlockOperation::NonBlockingLockShared)? {
                return Ok(Some(owner));
            }
        }
    }
    Ok(None)
}

/// The socket that the words in a lock file name, if they name one and it belongs to one of the
/// users `trusted`. One that is not there (its process is just starting) is handed out as it is.
///
/// # Errors
/// `Denied` when it is another user's, or is no socket: nothing may be sent to it.
pub fn socket_of(owner: &Owner, trusted: &[u32]) -> Result<Option<PathBuf>, WorldError> {
    let Some(socket) = &owner.socket else { return Ok(None) };
    let refused = |cause: String| {
        let doing = format!("looking at the control socket {} named by the lock", socket.display());
        Err(WorldError::new(doing, ErrorKind::Denied, cause))
    };
    match rustix::fs::lstat(socket) {
        Ok(found) if !FileType::from_raw_mode(found.st_mode).is_socket() => refused("it is no socket".into()),
        Ok(found) if !trusted.contains(&found.st_uid) => {
            refused(format!("it belongs to user {}, whom nothing here trusts", found.st_uid))
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(Some(socket.clone())),
        Err(errno) => refused(errno.to_string()),
    }
}

fn file_name(stack: &Stack, engine: &str) -> String {
    format!("mcp-orchestrator-{stack}-{}.lock", sha256_hex(engine, 8))
}

fn try_lock_in(dirs: &[&Path], name: &str, owner: &Owner) -> Result<Attempt, WorldError> {
    let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(name)).collect();
    let mut guard = Guard { held: Vec::new() };
    if let Some(other) = guard.take_existing(&paths)? {
        return Ok(Attempt::Held(other));
    }
    if guard.held.is_empty() {
        guard.make_first(&paths)?;
        // Somebody who cannot see or write the same directory may have made another meanwhile.
        if let Some(other) = guard.take_existing(&paths)? {
            return Ok(Attempt::Held(other));
        }
    }
    if guard.held.is_empty() {
        // Made by another between looking and making.
        return Ok(Attempt::Held(None));
    }
    guard.sign(owner)?;
    Ok(Attempt::Locked(guard))
}

impl Guard {
    /// Files that are locked, the first of which is the one to look at.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.held.iter().map(|(path, _)| path.as_path())
    }

    /// Locks every file of `paths` that exists; says who holds one, if somebody does.
    fn take_existing(&mut self, paths: &[PathBuf]) -> Result<Option<Option<Owner>>, WorldError> {
        for path in paths {
            if self.held.iter().any(|(held, _)| held == path) {
                continue;
            }
            match lock_existing(path, FlockOperation::NonBlockingLockExclusive)? {
                Tried::Absent => {}
                Tried::Mine(file) => self.held.push((path.clone(), file)),
                Tried::Theirs(owner) => return Ok(Some(owner)),
            }
        }
        Ok(None)
    }

    /// Makes and locks the first file that can be made.
    fn make_first(&mut self, paths: &[PathBuf]) -> Result<(), WorldError> {
        let mut denied = None;
        for path in paths {
            match create(path) {
                Ok(Some(file)) => {
                    self.held.push((path.clone(), file));
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => denied = Some(failed(path, &error)),
            }
        }
        denied.map_or(Ok(()), Err)
    }

    /// Says who holds it.
    fn sign(&self, owner: &Owner) -> Result<(), WorldError> {
        for (path, file) in &self.held {
            let written = serde_json::to_vec(owner).map_err(io::Error::from).and_then(|bytes| {
                ftruncate(file, 0)?;
                file.write_all_at(&bytes, 0)
            });
            written.map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (_, file) in &self.held {
            // Old words under a free lock would do no harm; this is for people who look.
            let _ = ftruncate(file, 0);
        }
    }
}

/// Opens and locks `path` if it is there, and makes sure that it still is once it is locked.
fn lock_existing(path: &Path, operation: FlockOperation) -> Result<Tried, WorldError> {
    for _ in 0..OPEN_TRIES_MAX {
        let file = match open_existing(path) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Tried::Absent),
            Err(errno) => return Err(failed(path, &errno.into())),
        };
        match flock_patiently(&file, operation) {
            Ok(()) if same(&file, path) => return Ok(Tried::Mine(file)),
            // It was removed or replaced between opening and locking.
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Tried::Theirs(read_owner(&file))),
            Err(errno) => return Err(failed(path, &errno.into())),
        }
    }
    Err(failed(path, &io::Error::other("it is replaced again and again")))
}

/// Tries more than once to be the owner; who only looks knows at once, as only an owner is in the way.
fn flock_patiently(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    for _ in 1..LOCK_TRIES_MAX {
        match flock(file, operation) {
            Err(Errno::WOULDBLOCK) if operation == FlockOperation::NonBlockingLockExclusive => {
                std::thread::sleep(LOCK_PAUSE);
            }
            decided => return decided,
        }
    }
    flock(file, operation)
}

fn open_existing(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(open(path, flags, Mode::empty())?);
    // A pipe or device planted under the name would accept a lock and lose the words.
    if file.metadata().is_ok_and(|found| found.is_file()) { Ok(file) } else { Err(Errno::INVAL) }
}

/// Makes and locks `path`; `None` when another one was faster.
fn create(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL;
    let file = match open(path, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => File::from(file),
        Err(Errno::EXIST) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    // Opened to others only once it is locked, and whatever the umask says.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
    Ok(same(&file, path).then_some(file))
}

/// Whether `path` still is `file`.
fn same(file: &File, path: &Path) -> bool {
    match (fstat(file), stat(path)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

fn read_owner(file: &File) -> Option<Owner> {
    for turn in 0..READ_TRIES_MAX {
        if turn > 0 {
            std::thread::sleep(READ_PAUSE);
        }
        let mut bytes = vec![0; CONTENT_BYTES_MAX];
        let length = file.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(length);
        if let Ok(owner) = serde_json::from_slice(&bytes) {
            return Some(owner);
        }
    }
    None
}

fn failed(path: &Path, error: &io::Error) -> WorldError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    };
    WorldError::new(format!("locking {}", path.display()), kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Guard, Owner, file_name, holder, socket_of, try_lock, try_lock_in};
    use crate::model::id::Stack;
    use crate::model::time::Timestamp;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    const NAME: &str = "test.lock";

    fn owner(pid: u32) -> Owner {
        Owner { pid, socket: Some(PathBuf::from("/run/x/control.sock")), since: Timestamp(5) }
    }

    fn locked(dirs: &[&Path], pid: u32) -> Guard {
        match try_lock_in(dirs, NAME, &owner(pid)).expect("locking") {
            Attempt::Locked(guard) => guard,
            Attempt::Held(other) => panic!("held by {other:?}"),
        }
    }

    fn held(dirs: &[&Path]) -> Option<Owner> {
        match try_lock_in(dirs, NAME, &owner(99)).expect("locking") {
            Attempt::Locked(_) => panic!("let in a second one"),
            Attempt::Held(other) => other,
        }
    }

    #[test]
    fn the_second_learns_who_the_first_is() {
        let dir = tempfile::tempdir().expect("directory");
        let dirs = [dir.path()];
        let first = locked(&dirs, 1);
        assert_eq!(held(&dirs), Some(owner(1)));
        drop(first);
        let _second = locked(&dirs, 1234);
        assert_eq!(held(&dirs), Some(owner(1234)), "and no rest of the first one's words");
    }

    #[test]
    fn users_with_different_directories_still_meet() {
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let both = [one.path(), two.path()];
        // Cannot use the first directory, as an ordinary user on systems with a closed /run/lock.
        let user = locked(&[Path::new("/nonexistent"), two.path()], 1);
        assert_eq!(held(&both), Some(owner(1)));
        drop(user);
        let root = locked(&both, 2);
        assert_eq!(root.paths().count(), 1, "the file that exists is enough");
        drop(root);
        std::fs::write(one.path().join(NAME), "").expect("writing");
        let root = locked(&both, 3);
        assert_eq!(root.paths().count(), 2, "every file that exists is locked");
        assert_eq!(held(&[two.path()]), Some(owner(3)));
    }

    #[test]
    fn the_file_is_for_everybody_and_never_followed() {
        let dir = tempfile::tempdir().expect("directory");
        drop(locked(&[dir.path()], 1));
        let path = dir.path().join(NAME);
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o7777, 0o1666);
        std::fs::remove_file(&path).expect("removing");
        std::fs::write(dir.path().join("victim"), "precious").expect("writing");
        std::os::unix::fs::symlink(dir.path().join("victim"), &path).expect("link");
        try_lock_in(&[dir.path()], NAME, &owner(1)).expect_err("a link");
        assert_eq!(std::fs::read_to_string(dir.path().join("victim")).expect("reading"), "precious");
    }

    #[test]
    fn words_that_are_none_are_no_error() {
        let dir = tempfile::tempdir().expect("directory");
        let guard = locked(&[dir.path()], 1);
        std::fs::write(dir.path().join(NAME), "{\"pid\": \"many\"").expect("writing");
        assert_eq!(held(&[dir.path()]), None);
        drop(guard);
        // The longer words of one that was killed.
        std::fs::write(dir.path().join(NAME), " ".repeat(200) + "x").expect("writing");
        let _guard = locked(&[dir.path()], 2);
        assert_eq!(held(&[dir.path()]), Some(owner(2)));
    }

    #[test]
    fn a_file_that_is_removed_while_held_does_not_let_two_share_one_file() {
        let dir = tempfile::tempdir().expect("directory");
        let _first = locked(&[dir.path()], 1);
        std::fs::remove_file(dir.path().join(NAME)).expect("removing");
        let _second = locked(&[dir.path()], 2);
        assert_eq!(held(&[dir.path()]), Some(owner(2)));
    }

    #[test]
    fn who_only_looks_keeps_nobody_out() {
        let dir = tempfile::tempdir().expect("directory");
        drop(locked(&[dir.path()], 1));
        let file = std::fs::File::open(dir.path().join(NAME)).expect("opening");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).expect("looking");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(15));
                drop(file);
            });
            drop(locked(&[dir.path()], 2));
        });
    }

    #[test]
    fn of_many_at_once_at_most_one_is_let_in() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().expect("directory");
            let start = std::sync::Barrier::new(8);
            let attempts: Vec<Attempt> = std::thread::scope(|scope| {
                let try_one = |pid| {
                    start.wait();
                    try_lock_in(&[dir.path()], NAME, &owner(pid)).expect("locking")
                };
                let threads: Vec<_> = (0..8).map(|pid| scope.spawn(move || try_one(pid))).collect();
                threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
            });
            let inside = attempts.iter().filter(|attempt| matches!(attempt, Attempt::Locked(_))).count();
            assert!(inside <= 1, "{inside} were let in");
        }
    }

    #[test]
    fn one_name_in_common_is_enough() {
        let stack = Stack::new(&format!("locknames-{}", std::process::id())).expect("stack");
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (one, two) =
            (names(&["unix:///var/run/x.sock", "id ABCD"]), names(&["unix:///run/x.sock", "id ABCD"]));
        let Attempt::Locked(guard) = try_lock(&stack, &one, &owner(7)).expect("locking") else {
            panic!("held")
        };
        let files: Vec<PathBuf> = guard.paths().map(Path::to_owned).collect();
        assert_eq!(files.len(), 2);
        assert!(
            matches!(try_lock(&stack, &two, &owner(8)), Ok(Attempt::Held(Some(other))) if other == owner(7))
        );
        // The engine did not answer the second one: it meets the first by the address alone.
        assert!(matches!(try_lock(&stack, &one[..1], &owner(8)), Ok(Attempt::Held(Some(_)))));
        assert_eq!(holder(&stack, &two), Ok(Some(Some(owner(7)))));
        drop(guard);
        // Refused halfway, it held nothing.
        let Attempt::Locked(guard) = try_lock(&stack, &two, &owner(9)).expect("locking") else {
            panic!("held")
        };
        let files: Vec<PathBuf> = files.into_iter().chain(guard.paths().map(Path::to_owned)).collect();
        drop(guard);
        files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }

    #[test]
    fn nothing_is_sent_to_a_strangers_socket() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("control.sock");
        let named = |path: &Path| Owner { socket: Some(path.to_owned()), ..owner(1) };
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(socket_of(&named(&path), &[me]), Ok(Some(path.clone())), "not there yet");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert_eq!(socket_of(&named(&path), &[0, me]), Ok(Some(path.clone())));
        let stranger = socket_of(&named(&path), &[me + 1]).expect_err("a stranger's");
        assert_eq!(stranger.kind, crate::world::ErrorKind::Denied);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        socket_of(&named(&link), &[me]).expect_err("a link is no socket");
        assert_eq!(socket_of(&Owner { socket: None, ..owner(1) }, &[me]), Ok(None));
    }

    #[test]
    fn the_real_place_works_and_a_killed_owner_holds_nothing() {
        let stack = Stack::new(&format!("locktest-{}", std::process::id())).expect("stack");
        let Attempt::Locked(guard) = try_lock(&stack, &["engine".to_owned()], &owner(7)).expect("locking")
        else {
            panic!("held")
        };
        assert_eq!(holder(&stack, &["engine".to_owned()]), Ok(Some(Some(owner(7)))));
        assert_eq!(holder(&stack, &["another engine".to_owned()]), Ok(None));
        let path = guard.paths().next().expect("path").to_owned();
        assert!(path.ends_with(file_name(&stack, "engine")));
        drop(guard);
        let mut child = std::process::Command::new("flock")
            .arg("--exclusive")
            .arg("--no-fork")
            .arg(&path)
            .args(["sleep", "60"])
            .spawn()
            .expect("flock of util-linux");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while holder(&stack, &["engine".to_owned()]).expect("holder").is_none() {
            assert!(std::time::Instant::now() < deadline, "the child never locked");
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(holder(&stack, &["engine".to_owned()]), Ok(None));
        std::fs::remove_file(path).expect("removing");
    }
}
