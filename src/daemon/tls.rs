//! The main listener's certificate: read at the start and whenever the files may have changed.
//!
//! Must never put a certificate in force that does not fit its key, nor take one away because the
//! next one is broken: whoever renews it writes two files, one after the other.

use crate::config::codes::UNREADABLE;
use crate::config::error::{Place, Problem};
use crate::config::settings::TlsVersion;
use crate::daemon::{Home, files, sha256};
use crate::gateway::http::tls::{self, Oldest, Wrong};
use crate::terminal::failure::{Exit, Failure};
use rustls::ServerConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest file with a certificate chain or a key, in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;
/// A certificate or its key cannot be used.
const UNUSABLE: &str = "MCPO-G025";
/// Others on this host can read the key.
const OPEN_KEY: &str = "MCPO-G026";
/// Permission of others to read.
const OTHERS_READ: u32 = 0o004;

/// What listens encrypted, and by what it is told from others.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    /// `None`: not encrypted.
    pub config: Option<Arc<ServerConfig>>,
    /// SHA-256 of both files and the version, in hexadecimal; `None` without them.
    pub sha256: Option<String>,
}

/// The files that `[tls]` names.
pub(super) fn named(home: &Home) -> Option<(PathBuf, PathBuf)> {
    let tls = &home.settings.tls;
    let [certificate, key] = [&tls.cert_file, &tls.key_file].map(|path| path.as_ref().map(PathBuf::from));
    certificate.zip(key)
}

/// Reads both files, if `[tls]` names any.
///
/// # Errors
/// What cannot be read or used; never a line of a key.
pub(super) fn load(home: &Home) -> Result<Loaded, Box<Problem>> {
    let Some((certificate, key)) = named(home) else { return Ok(Loaded::default()) };
    let oldest = match home.settings.tls.min_version {
        TlsVersion::V12 => Oldest::Tls12,
        TlsVersion::V13 => Oldest::Tls13,
    };
    let chain = read(&certificate)?;
    let secret = read(&key)?;
    let config = tls::config(&chain, &secret, oldest).map_err(|wrong| {
        Box::new(match wrong {
            Wrong::Certificate(why) => unusable(&certificate, "the certificate", why),
            Wrong::Key(why) => unusable(&key, "the private key", why),
            Wrong::Pair(why) => unusable(&certificate, "the certificate", &why)
                .hint(format!("the key is {}; the host's own certificate comes first", key.display())),
        })
    })?;
    let told = [chain.as_slice(), secret.as_slice(), format!("{oldest:?}").as_bytes()].map(sha256).concat();
    Ok(Loaded { config: Some(config), sha256: Some(sha256(told.as_bytes())) })
}

/// What deserves a warning, although it works.
pub(super) fn warning(home: &Home) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt as _;
    let (_, key) = named(home)?;
    let mode = std::fs::metadata(&key).ok()?.permissions().mode();
    (mode & OTHERS_READ != 0).then(|| {
        let place = Place::whole(key.display().to_string());
        let message = "everybody on this host can read the private key of [tls] key_file";
        Problem::warning(OPEN_KEY, place, message).hint(format!("chmod o-r {}", key.display()))
    })
}

/// Everything about `[tls]` for `validate`: the files are looked at, nothing is kept.
#[must_use]
pub fn check(home: &Home) -> Vec<Problem> {
    load(home).err().map(|problem| *problem).into_iter().chain(warning(home)).collect()
}

/// The start without a certificate that was asked for would serve passwords in the clear.
pub(super) fn failure(problem: &Problem) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("{}: {}", problem.place.file, problem.message));
    let failure = Failure { code: Some(problem.code), ..failure };
    problem.hint.as_ref().map_or(failure.clone(), |hint| failure.hint(hint))
}

fn read(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    files::bounded(path, PEM_BYTES_MAX).map_err(|error| {
        let place = Place::whole(path.display().to_string());
        let problem =
            Problem::error(UNREADABLE, place, format!("reading the file that [tls] names: {error}"));
        Box::new(problem.hint("the daemon's user must be able to read it"))
    })
}

fn unusable(path: &Path, what: &str, why: &str) -> Problem {
    let place = Place::whole(path.display().to_string());
    Problem::error(UNUSABLE, place, format!("{what} cannot be used: {why}"))
}
