//! Reads mcp.config.json and everything it refers to, and hands it to the pure reader.
//!
//! A file that cannot be read or used keeps the last good wish in force, marked as old, so that
//! nothing is removed because of it.

use crate::alb::secrets::SecretRef;
use crate::config::edit::mask::mask;
use crate::config::edit::outline::{self, Outline};
use crate::config::error::{Place, Problem};
use crate::config::load::{self, Contents, Loaded, Needs};
use crate::daemon::Home;
use crate::model::desired::Desired;
use crate::model::fingerprint::{HashKey, sha256_bytes};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Longest configuration that is read, in bytes.
pub(super) const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest file that an entry refers to, in bytes.
const REFERRED_BYTES_MAX: u64 = 1024 * 1024;

/// What came of reading.
#[derive(Clone, Debug)]
pub struct Read {
    /// What was loaded; problems include why the file could not be read.
    pub loaded: Loaded,
    /// Whether there is a file at all.
    pub exists: bool,
    /// SHA-256 of its content in hexadecimal, where it could be read.
    pub sha256: Option<String>,
    /// What it has, with placeholders for secrets; `None` where it cannot be told.
    pub outline: Option<Outline>,
}

impl Read {
    /// Why the file as a whole cannot be used: `file:line:column: error[CODE]: …`.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        if self.loaded.desired.is_some() {
            return None;
        }
        let first = self.loaded.problems.iter().find(|problem| problem.is_error());
        Some(first.map_or_else(|| "it cannot be used".to_owned(), ToString::to_string))
    }
}

/// What a reading was made from. Digests only: nothing that a file says is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Of the file itself.
    config: String,
    /// Of settings.conf.
    settings: Option<String>,
    /// Of everything that the file refers to.
    referred: String,
    needs: Needs,
}

/// Reads the file of `home` with fingerprints under `key`.
pub async fn read(home: &Home, key: &HashKey) -> Read {
    match content(&home.places.config) {
        Ok(bytes) => {
            let needs = load::needs(&home.places.config.display().to_string(), &bytes, &home.env);
            understand(home, key, &bytes, &refer(home, &needs).await)
        }
        Err(read) => *read,
    }
}

/// Reads the file unless all of it, and of what it refers to, is as it was found in `seen`.
pub(super) async fn read_changed(home: &Home, key: &HashKey, seen: &mut Option<Source>) -> Option<Read> {
    let file = home.places.config.display().to_string();
    let bytes = match content(&home.places.config) {
        Ok(bytes) => bytes,
        Err(read) => {
            *seen = None;
            return Some(*read);
        }
    };
    let config = sha256_bytes(&bytes);
    let last = seen.take().filter(|last| last.config == config && last.settings == home.settings_sha256);
    let needs =
        last.as_ref().map_or_else(|| load::needs(&file, &bytes, &home.env), |last| last.needs.clone());
    let referred = refer(home, &needs).await;
    let digest = referred.digest();
    let same = last.is_some_and(|last| last.referred == digest);
    let settings = home.settings_sha256.clone();
    *seen = Some(Source { config, settings, referred: digest, needs });
    (!same).then(|| understand(home, key, &bytes, &referred))
}

fn understand(home: &Home, key: &HashKey, bytes: &[u8], referred: &Referred) -> Read {
    let file = home.places.config.display().to_string();
    let loaded = mean(home, key, bytes, referred);
    let masked = mask(String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}'), key);
    let outline = loaded.desired.as_ref().and_then(|_usable| outline::outline(&file, &masked.text));
    Read { loaded, exists: true, sha256: Some(sha256_bytes(bytes)), outline }
}

/// The content of the file, or what is told instead.
fn content(path: &Path) -> Result<Vec<u8>, Box<Read>> {
    let read = bounded(path, CONFIG_BYTES_MAX).and_then(|bytes| {
        // An editor that truncates before it writes leaves this for a moment; an empty map is `{}`.
        let empty = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it is empty");
        if bytes.trim_ascii().is_empty() { Err(empty()) } else { Ok(bytes) }
    });
    read.map_err(|error| {
        let exists = error.kind() != std::io::ErrorKind::NotFound;
        let problem = Problem::error(
            crate::config::codes::UNREADABLE,
            Place::whole(path.display().to_string()),
            format!("reading the file: {error}"),
        )
        .hint("mcp-orchestrator --config FILE names another one");
        let loaded = Loaded { problems: vec![problem], ..Loaded::default() };
        Box::new(Read { loaded, exists, sha256: None, outline: None })
    })
}

/// What the file refers to, as it was found.
struct Referred {
    files: Contents,
    credentials: Contents,
    secrets_manager: Contents,
    ssm: Contents,
}

impl Referred {
    fn digest(&self) -> String {
        let Self { files, credentials, secrets_manager, ssm } = self;
        let mut text = String::new();
        for contents in [files, credentials, secrets_manager, ssm] {
            text.push_str(&format!("{}:", contents.len()));
            for (name, found) in contents {
                let (Ok(value) | Err(value)) = found;
                let ok = found.is_ok();
                // With lengths, so that no two contents are written alike.
                text.push_str(&format!("{}:{name}{ok}{}:{value}", name.len(), value.len()));
            }
        }
        sha256_bytes(text.as_bytes())
    }
}

async fn refer(home: &Home, needs: &Needs) -> Referred {
    let files = contents(&needs.files, |name| text(Path::new(name)));
    let credentials = contents(&needs.credentials, |name| credential(home, name));
    let (secrets_manager, ssm) = aws_secrets(home, needs).await;
    Referred { files, credentials, secrets_manager, ssm }
}

/// What `bytes` mean as the content of the file of `home`, with everything that they refer to.
pub(super) async fn interpret(home: &Home, key: &HashKey, bytes: &[u8]) -> Loaded {
    let needs = load::needs(&home.places.config.display().to_string(), bytes, &home.env);
    mean(home, key, bytes, &refer(home, &needs).await)
}

fn mean(home: &Home, key: &HashKey, bytes: &[u8], referred: &Referred) -> Loaded {
    let Referred { files, credentials, secrets_manager, ssm } = referred;
    let file = home.places.config.display().to_string();
    let (env, settings) = (&home.env, &home.settings);
    load::load(&load::Input {
        file: &file,
        bytes,
        env,
        files,
        credentials,
        secrets_manager,
        ssm,
        settings,
        key,
    })
}

/// The content of the configuration alone, if it can be read.
pub(super) fn configuration(path: &Path) -> Option<Vec<u8>> {
    bounded(path, CONFIG_BYTES_MAX).ok()
}

/// The wish to follow: the new one, or the old one marked as old.
#[must_use]
pub fn follow(read: &Read, last: Option<&Arc<Desired>>) -> Arc<Desired> {
    if let Some(desired) = &read.loaded.desired {
        return Arc::new(desired.clone());
    }
    let first = read.loaded.problems.iter().find(|problem| problem.is_error());
    let why = first.map_or_else(
        || "it cannot be used".to_owned(),
        |problem| format!("{}: {}", problem.place, problem.message),
    );
    let last = last.map(|last| last.as_ref().clone()).unwrap_or_default();
    Arc::new(Desired { stale: Some(why), ..last })
}

fn contents(names: &BTreeSet<String>, read: impl Fn(&str) -> Result<String, String>) -> Contents {
    names.iter().map(|name| (name.clone(), read(name))).collect()
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = bounded(path, REFERRED_BYTES_MAX).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_not_text| "it is not UTF-8 text".to_owned())
}

/// Reads a file, but not more than `max` bytes of it.
pub(super) fn bounded(path: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > max) {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("it is longer than {max} bytes"),
        ));
    }
    Ok(bytes)
}

/// A systemd credential; its name may not lead out of the directory.
fn credential(home: &Home, name: &str) -> Result<String, String> {
    let Some(dir) = home.env.get("CREDENTIALS_DIRECTORY") else {
        return Err(
            "CREDENTIALS_DIRECTORY is not set: credentials come from systemd (LoadCredential=)".to_owned()
        );
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("it is not the name of a credential".to_owned());
    }
    text(&Path::new(dir).join(name)).map(|text| text.trim_end_matches('\n').to_owned())
}

/// Secrets that AWS keeps; asked for only where the file names some.
async fn aws_secrets(home: &Home, needs: &Needs) -> (Contents, Contents) {
    let secrets = needs.secrets_manager.iter().cloned().map(SecretRef::SecretsManager);
    let refs: BTreeSet<SecretRef> = secrets.chain(needs.ssm.iter().cloned().map(SecretRef::Ssm)).collect();
    let (mut secrets_manager, mut ssm) = (Contents::new(), Contents::new());
    if refs.is_empty() {
        return (secrets_manager, ssm);
    }
    for (reference, value) in home.aws_secrets(&refs).await {
        let value = value.map_err(|error| error.to_string());
        match reference {
            SecretRef::SecretsManager(id) => secrets_manager.insert(id, value),
            SecretRef::Ssm(name) => ssm.insert(name, value),
        };
    }
    (secrets_manager, ssm)
}

#[cfg(test)]
mod tests {
    use super::{Source, read_changed};
    use crate::daemon::{Home, Options};
    use crate::model::fingerprint::HashKey;
    use crate::model::server::ServerKind;
    use std::fs;

    #[tokio::test]
    async fn what_has_not_changed_is_not_read_again_and_what_has_is() {
        let dir = tempfile::tempdir().unwrap();
        let (config, words) = (dir.path().join("mcp.config.json"), dir.path().join("token"));
        let entry = |more: &str| {
            let path = words.display();
            fs::write(
                &config,
                format!(
                    r#"{{"mcpServers":{{"a":{{"command":"x","env":{{"T":"${{file:{path}}}"}}{more}}}}}}}"#
                ),
            )
            .unwrap();
        };
        fs::write(&words, "planted-secret").unwrap();
        entry("");
        let settings = dir.path().join("settings.conf");
        fs::write(&settings, "[service]\nstack = files\n").unwrap();
        let options =
            Options { config: Some(config.clone()), settings: Some(settings), ..Options::default() };
        let mut home = Home::find(options).unwrap();
        let key = HashKey::new([1; 32]);
        let mut seen: Option<Source> = None;
        let print = |read: &super::Read| {
            let desired = read.loaded.desired.clone().unwrap();
            desired
                .servers
                .into_values()
                .map(|server| match server.kind {
                    ServerKind::Process(declared) => declared.fingerprint.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let first = read_changed(&home, &key, &mut seen).await.expect("it was never read");
        assert!(read_changed(&home, &key, &mut seen).await.is_none());
        assert!(!format!("{seen:?}").contains("planted"), "only digests are kept");

        fs::write(&words, "another").unwrap();
        let second = read_changed(&home, &key, &mut seen).await.expect("a secret is another");
        assert_ne!(print(&first), print(&second), "its declaration has another fingerprint");
        fs::remove_file(&words).unwrap();
        let third = read_changed(&home, &key, &mut seen).await.expect("a secret is gone");
        assert!(!third.loaded.desired.unwrap().broken.is_empty());
        assert!(read_changed(&home, &key, &mut seen).await.is_none());
        fs::write(&words, "another").unwrap();
        assert!(read_changed(&home, &key, &mut seen).await.is_some(), "it is back");

        entry(r#","description":"d""#);
        assert!(read_changed(&home, &key, &mut seen).await.is_some(), "the file changed");
        home.settings_sha256 = Some("of other settings".to_owned());
        assert!(read_changed(&home, &key, &mut seen).await.is_some(), "the settings changed");
        assert!(read_changed(&home, &key, &mut seen).await.is_none());

        fs::write(&config, "").unwrap();
        for _ in 0..2 {
            let refused = read_changed(&home, &key, &mut seen).await.expect("why it cannot be used");
            assert!(refused.loaded.desired.is_none());
        }
        entry("");
        assert!(read_changed(&home, &key, &mut seen).await.is_some());
    }
}
