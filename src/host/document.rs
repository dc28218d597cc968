//! The file with the servers on disk: read, and replaced as a whole.
//!
//! A new content is written beside the file, made durable, and put in its place in one step; so is
//! the backup before it. Whoever reads, and whoever is killed, finds the old or the new content and
//! never half of one. A symbolic link stays and what it leads to is replaced; owner and mode stay as
//! far as the system lets this process give files away.
//!
//! Must never write a file that its owner made read-only, although the directory would allow it.

use crate::model::time::Timestamp;
use crate::world::{ErrorKind, WorldError};
use rustix::fs::Access;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What the name of a backup ends with: `mcp.config.json.20260131T235959.123Z-000.bak`.
const BACKUP: &str = ".bak";
/// What the name of a content that is being written ends with; one that is left over is overwritten.
const NEW: &str = ".new";
/// Mode of a file that was not there before.
const MODE: u32 = 0o640;
/// Backups with one time of day that are told apart.
const SAME_TIME_MAX: u32 = 1000;

/// The content of `path`, at most `max` bytes; `None` when there is no such file.
///
/// # Errors
/// When it cannot be read, or is longer.
pub fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, WorldError> {
    let failed = |error: &io::Error| failed("reading", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > max) {
        let why = format!("it is longer than {max} bytes");
        return Err(WorldError::new(format!("reading {}", path.display()), ErrorKind::Invalid, why));
    }
    Ok(Some(bytes))
}

/// Whether this process may replace `path`.
///
/// # Errors
/// Why not: `Denied`.
pub fn writable(path: &Path) -> Result<(), WorldError> {
    let path = target(path)?;
    let denied = |what: &Path, why: &str| {
        Err(WorldError::new(format!("writing {}", what.display()), ErrorKind::Denied, why))
    };
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => return denied(&path, "it is no file"),
        // Root may write what nobody may; who took the right away meant it.
        Ok(found) if found.mode() & 0o222 == 0 => return denied(&path, "the file is read-only"),
        Ok(_) if rustix::fs::access(&path, Access::WRITE_OK).is_err() => {
            return denied(&path, "the file is read-only for this process");
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking at", &path, &error)),
    }
    let dir = dir_of(&path);
    if rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return denied(dir, "the directory is read-only for this process");
    }
    Ok(())
}

/// Replaces the content of `path`, of which `before` was read; keeps that as one of at most `backups`
/// backups beside the file.
///
/// # Errors
/// When nothing was changed: `Denied` where it is not allowed.
pub fn replace(
    path: &Path,
    (before, bytes): (Option<&[u8]>, &[u8]),
    backups: u32,
    now: Timestamp,
) -> Result<(), WorldError> {
    writable(path)?;
    let path = target(path)?;
    let failed = |error: io::Error| failed("writing", &path, &error);
    let before = before.filter(|before| backups > 0 && !before.is_empty());
    if let Some(before) = before {
        let name = backup_name(&path, now).map_err(failed)?;
        put(&name, before, &path).map_err(failed)?;
    }
    put(&path, bytes, &path).map_err(failed)?;
    sync_dir(dir_of(&path)).map_err(failed)?;
    // What cannot be removed is removed the next time.
    let _left = prune(&path, backups);
    Ok(())
}

/// Writes `bytes` to `path` with owner and mode of `like`.
fn put(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let new = beside(like, NEW);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Nobody else reads it before it has its mode, and no link is followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = dress(&file, like).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    let done = written.and_then(|()| std::fs::rename(&new, path));
    if done.is_err() {
        let _gone = std::fs::remove_file(&new);
    }
    done
}

fn dress(file: &File, like: &Path) -> io::Result<()> {
    let found = match std::fs::metadata(like) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return file.set_permissions(std::fs::Permissions::from_mode(MODE));
        }
        Err(error) => return Err(error),
    };
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (found.uid(), found.gid()) {
        // Without privileges a file can be given to no other user; its group is kept where it can be.
        let give = |uid| std::os::unix::fs::fchown(file, uid, Some(found.gid()));
        let _kept = give(Some(found.uid())).or_else(|_denied| give(None));
    }
    file.set_permissions(std::fs::Permissions::from_mode(found.mode() & 0o777))
}

/// A name for a backup that nobody has.
fn backup_name(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::from_millisecond(now.0)
        .map_or_else(|_| now.0.to_string(), |at| at.strftime("%Y%m%dT%H%M%S.%3fZ").to_string());
    let name = |n: u32| beside(path, &format!(".{stamp}-{n:03}{BACKUP}"));
    // Behind those of the same time, so that the order of names is that of their making.
    let taken = |n: &u32| name(*n).symlink_metadata().is_ok();
    let next = (0..SAME_TIME_MAX).rev().find(taken).map_or(0, |last| last + 1);
    if next < SAME_TIME_MAX {
        return Ok(name(next));
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a backup"))
}

/// Removes all but the newest backups.
fn prune(path: &Path, keep: u32) -> io::Result<()> {
    let mut all = backups(path)?;
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let old = all.len().saturating_sub(keep);
    for backup in all.drain(..old) {
        std::fs::remove_file(backup)?;
    }
    Ok(())
}

/// The backups of `path`, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_backup = |found: &str| {
        let stamp = found.strip_prefix(&format!("{name}.")).and_then(|rest| rest.strip_suffix(BACKUP));
        stamp.is_some_and(|stamp| stamp.starts_with(|c: char| c.is_ascii_digit()) && stamp.contains('Z'))
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir_of(path))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| is_backup(&name.to_string_lossy())))
        .collect();
    found.sort();
    Ok(found)
}

/// What `path` leads to; itself where there is nothing yet.
fn target(path: &Path) -> Result<PathBuf, WorldError> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            Ok(path.to_path_buf())
        }
        Err(error) => Err(failed("following", path, &error)),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> WorldError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        // A file that is a mount point of its own cannot be replaced.
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::CrossesDevices => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    WorldError::new(format!("{doing} {}", path.display()), kind, error.to_string())
}

#[cfg(test)]
mod tests;
