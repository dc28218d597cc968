//! Files of the state directory: made private, locked against a second writer, moved aside, and
//! replaced atomically.
//!
//! Must never delete a database, and never open and close the database file itself while SQLite
//! has it open: closing any descriptor of a file drops the process's locks on it.

use crate::model::time::Timestamp;
use crate::world::{ErrorKind, WorldError};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Mode of directories made here: nobody else's business.
const DIR_MODE: u32 = 0o700;
/// Mode of files made here.
pub(super) const FILE_MODE: u32 = 0o600;
/// What SQLite keeps beside a database; they belong to it and move with it.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Tries to find a free name for a file that is moved aside within one second.
const ASIDE_NAMES_MAX: u32 = 1000;

/// Makes the directory of `path`, and the empty database file with its mode, so that SQLite (whose
/// side files take over the mode) never makes one that others can read.
pub(super) fn prepare_dir(path: &Path) -> Result<(), WorldError> {
    let dir = dir_of(path);
    let doing = || format!("making state directory {}", dir.display());
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| io_error(doing(), &e))?;
    let probing = || format!("using state directory {}", dir.display());
    // Reading and writing need both; a look at the mode would not know of read-only mounts.
    std::fs::read_dir(dir).map_err(|e| io_error(probing(), &e))?;
    Ok(())
}

/// Creates the database file, private, unless it is there; narrows the mode of one that is.
pub(super) fn make_private(path: &Path) -> Result<(), WorldError> {
    let failed = |e: io::Error| io_error(format!("making {} private", path.display()), &e);
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            give_to_owner(&file, path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            sync_dir(dir_of(path)).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => narrow(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// What root makes belongs to the owner of the directory: a command of root's that comes before the
/// daemon, or while it is stopped, must not lock it out of its own state. Root's alone, and by no other
/// name: that owner could have put a link there.
fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    let (dir, made) = (std::fs::metadata(dir_of(path))?, file.metadata()?);
    if !rustix::process::geteuid().is_root() || made.uid() != 0 || made.nlink() != 1 {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(dir.uid()), Some(dir.gid()))
}

/// Options that never follow a link in place of the file.
fn no_link() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn narrow(path: &Path) -> io::Result<()> {
    let mut permissions = std::fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    permissions.set_mode(FILE_MODE);
    std::fs::set_permissions(path, permissions)
}

/// Takes the lock that says who writes this store; the file stays, the lock ends with the process.
pub(super) fn lock(path: &Path) -> Result<File, WorldError> {
    let path = beside(path, ".lock");
    let doing = || format!("locking {}", path.display());
    let file = no_link().read(true).truncate(false).open(&path).map_err(|e| io_error(doing(), &e))?;
    give_to_owner(&file, &path).map_err(|e| io_error(doing(), &e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(WorldError::new(doing(), ErrorKind::Conflict, "another process holds it"))
        }
        Err(errno) => Err(io_error(doing(), &errno.into())),
    }
}

/// Length of a file in bytes; `None` when there is none.
pub(super) fn length(path: &Path) -> Result<Option<u64>, WorldError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(format!("looking at {}", path.display()), &error)),
    }
}

/// Moves `path` and what SQLite keeps beside it to `<path>.corrupt-<timestamp>`, so that the pair
/// can still be opened there; returns the new name.
pub(super) fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf, WorldError> {
    let failed = |e: io::Error| io_error(format!("moving {} aside", path.display()), &e);
    let aside = free_name(path, now).map_err(failed)?;
    // Side files first: should we die in between, the database is still found where it was.
    for suffix in SIDECARS {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::rename(path, &aside).map_err(failed)?;
    sync_dir(dir_of(path)).map_err(failed)?;
    Ok(aside)
}

fn free_name(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::from_millisecond(now.0)
        .map_or_else(|_| now.0.to_string(), |at| at.strftime("%Y%m%dT%H%M%SZ").to_string());
    let first = beside(path, &format!(".corrupt-{stamp}"));
    let others = (1..ASIDE_NAMES_MAX).map(|n| beside(path, &format!(".corrupt-{stamp}-{n}")));
    let taken = |name: &PathBuf| {
        name.symlink_metadata().is_ok() || SIDECARS.iter().any(|s| beside(name, s).symlink_metadata().is_ok())
    };
    std::iter::once(first)
        .chain(others)
        .find(|name| !taken(name))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AlreadyExists, "no free name is left"))
}

/// Replaces `path` by `bytes`: after a crash it holds the old or the new bytes, whole.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let mut file = no_link().truncate(true).open(&temporary)?;
    give_to_owner(&file, path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_dir(dir_of(path))
}

/// A rename is durable only once its directory is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// `path` with `suffix` at the end of its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory `path` is in; the current one for a bare name.
pub(super) fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// An error of the file system as the world's.
pub(super) fn io_error(doing: String, error: &io::Error) -> WorldError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    WorldError::new(doing, kind, error.to_string())
}
