//! Registry credentials, as `docker login` left them: `config.json`'s `auths`, `credsStore` and
//! `credHelpers`.
//!
//! Looked up for each pull and dropped after it: helpers hand out tokens that last for hours. One that
//! fails does not stop a pull, as in the docker CLI; the reason is kept, so that a refusal can name it.
//!
//! Must never show a secret: not in `Debug`, not in errors, and a helper's output is never quoted.

use crate::docker::reference::{DEFAULT_REGISTRY, ImageReference};
use crate::world::{ErrorKind, MANAGER_VARIABLES, WorldError};
use bollard::auth::DockerCredentials;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// How long a credential helper may take.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest output of a helper that is read, in bytes: tokens of cloud registries have a few thousand.
const HELPER_OUTPUT_BYTES_MAX: u64 = 64 * 1024;
/// Longest `config.json` that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// File in the configuration directory.
const CONFIG_FILE: &str = "config.json";
/// The key under which Docker Hub's credentials are kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Hosts that are Docker Hub.
const HUB_HOSTS: [&str; 3] = [DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"];
/// User name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers print when they have nothing for a server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// What the docker CLI's configuration says about registries.
#[derive(Clone)]
pub struct RegistryConfig {
    path: PathBuf,
    written: Written,
    /// Where helpers are looked for, in the form of `PATH`; `None`: as the environment says.
    helper_path: Option<String>,
    /// How long a helper may take.
    patience: Duration,
}

/// Credentials for one registry.
#[derive(Clone, Default, PartialEq)]
pub struct RegistryCredentials(DockerCredentials);

/// What was found for one image.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// Credentials, if there are any.
    pub credentials: Option<RegistryCredentials>,
    /// Why there may be none: to be shown when the registry refuses.
    pub problem: Option<String>,
}

impl Lookup {
    /// Adds why there were no credentials to a refusal. Registries hide from strangers whether an
    /// image exists, so that "not found" may be a refusal too.
    #[must_use]
    pub fn explain(&self, mut error: WorldError) -> WorldError {
        let refused = matches!(error.kind, ErrorKind::Denied | ErrorKind::NotFound);
        if let Some(problem) = self.problem.as_ref().filter(|_| refused) {
            error.cause = format!("{} ({problem})", error.cause);
        }
        error
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Written {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credsStore")]
    store: String,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// A helper's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answered {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { auths, store, helpers } = &self.written;
        f.debug_struct("RegistryConfig")
            .field("path", &self.path)
            .field("auths", &auths.keys())
            .field("store", store)
            .field("helpers", helpers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials").field("server", &self.0.serveraddress).finish_non_exhaustive()
    }
}

impl RegistryCredentials {
    /// For bollard's `create_image`. Hand it on at once: its own `Debug` shows the password.
    #[must_use]
    pub fn into_bollard(self) -> DockerCredentials {
        self.0
    }
}

/// The docker CLI's configuration directory: `$DOCKER_CONFIG`, else `~/.docker`.
#[must_use]
pub fn config_dir(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))
}

/// Credentials for `reference` out of `dir`, read now: a `docker login` counts from the next pull
/// on. Whatever is wrong with them is a [`Lookup::problem`], not an error.
pub async fn find(dir: Option<PathBuf>, reference: &str) -> Lookup {
    let failed = |problem: String| Lookup { credentials: None, problem: Some(problem) };
    let (Some(dir), Ok(image)) = (dir, ImageReference::parse(reference)) else { return Lookup::default() };
    match tokio::task::spawn_blocking(move || RegistryConfig::load(&dir)).await {
        Ok(Ok(config)) => config.for_image(&image).await,
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

impl RegistryConfig {
    /// Reads `config.json` of `dir`; without a file there are no credentials. Blocks on the disk.
    ///
    /// # Errors
    /// `Denied`, `Failed` for a file that cannot be read, `Invalid` for one that is no such file.
    pub fn load(dir: &Path) -> Result<Self, WorldError> {
        let path = dir.join(CONFIG_FILE);
        let fail = |kind, cause: String| WorldError::new(format!("reading {}", path.display()), kind, cause);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::of(path, Written::default()));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(fail(ErrorKind::Denied, error.to_string()));
            }
            Err(error) => return Err(fail(ErrorKind::Failed, error.to_string())),
        }
        if u64::try_from(bytes.len()).is_ok_and(|len| len > CONFIG_BYTES_MAX) {
            return Err(fail(ErrorKind::Invalid, format!("it is longer than {CONFIG_BYTES_MAX} bytes")));
        }
        // The parser's own words may quote a value.
        let written = serde_json::from_slice(&bytes).map_err(|error| {
            let cause = format!(
                "it is not docker's configuration (line {}, column {})",
                error.line(),
                error.column()
            );
            fail(ErrorKind::Invalid, cause)
        })?;
        Ok(Self::of(path, written))
    }

    fn of(path: PathBuf, written: Written) -> Self {
        Self { path, written, helper_path: None, patience: HELPER_TIMEOUT }
    }

    /// Looks for helpers in `path` (in the form of `PATH`) instead of the environment's.
    #[must_use]
    pub fn with_helper_path(mut self, path: impl Into<String>) -> Self {
        self.helper_path = Some(path.into());
        self
    }

    /// Credentials for `image`'s registry: of its own helper, of the store, of the file, in this
    /// order.
    pub async fn for_image(&self, image: &ImageReference) -> Lookup {
        let registry = image.registry.as_str();
        let server = if HUB_HOSTS.contains(&registry) { HUB_KEY } else { registry };
        let helper =
            keys(registry).find_map(|key| self.written.helpers.get(key)).unwrap_or(&self.written.store);
        let mut problem = None;
        if !helper.is_empty() {
            match self.ask(helper, server).await {
                Ok(Some(credentials)) => return Lookup { credentials: Some(credentials), problem },
                Ok(None) => {}
                Err(why) => problem = Some(format!("credential helper docker-credential-{helper} {why}")),
            }
        }
        match self.written_for(registry, server) {
            Ok(credentials) => Lookup { credentials, problem },
            Err(why) => {
                Lookup { credentials: None, problem: Some(format!("{}: {why}", self.path.display())) }
            }
        }
    }

    fn written_for(&self, registry: &str, server: &str) -> Result<Option<RegistryCredentials>, String> {
        let auths = &self.written.auths;
        let exact = keys(registry).find_map(|key| auths.get(key));
        let by_host = || auths.iter().find(|(key, _)| same_host(host_of(key), registry)).map(|pair| pair.1);
        let Some(auth) = exact.or_else(by_host) else { return Ok(None) };
        let Auth { auth, username, password, identitytoken, registrytoken } = auth;
        let (mut username, mut password) = (username.clone(), password.clone());
        if !auth.is_empty() {
            let broken = || format!("'auth' of {server} is not user:password in base64");
            let text = decode_base64(auth).and_then(|b| String::from_utf8(b).ok()).ok_or_else(broken)?;
            let (user, secret) = text.split_once(':').ok_or_else(broken)?;
            username = user.to_owned();
            password = secret.trim_matches('\0').to_owned();
        }
        if [&username, &password, identitytoken, registrytoken].iter().all(|text| text.is_empty()) {
            return Ok(None);
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // The engine takes the token instead of a password, never both.
        let token = some(identitytoken);
        Ok(Some(RegistryCredentials(DockerCredentials {
            username: some(&username),
            password: if token.is_some() { None } else { some(&password) },
            identitytoken: token,
            registrytoken: some(registrytoken),
            serveraddress: Some(server.to_owned()),
            ..DockerCredentials::default()
        })))
    }

    /// Asks a helper; `None` when it has nothing for `server`.
    async fn ask(&self, helper: &str, server: &str) -> Result<Option<RegistryCredentials>, String> {
        if helper.contains(['/', '\0']) {
            return Err("has a name that is none".to_owned());
        }
        let (status, output) = self.run(helper, server).await?;
        if !status.success() {
            let nothing = String::from_utf8_lossy(&output).contains(NOT_FOUND);
            // What else it says may have a secret in it.
            return if nothing { Ok(None) } else { Err(format!("failed ({status}) for {server}")) };
        }
        let answered: Answered = serde_json::from_slice(&output)
            .map_err(|_quotes_it| format!("gave no credentials for {server} in JSON"))?;
        let Answered { username, secret } = answered;
        if secret.is_empty() {
            return Ok(None);
        }
        let server = Some(server.to_owned());
        let credentials = if username == TOKEN_USER {
            DockerCredentials {
                identitytoken: Some(secret),
                serveraddress: server,
                ..DockerCredentials::default()
            }
        } else {
            let username = Some(username);
            DockerCredentials {
                username,
                password: Some(secret),
                serveraddress: server,
                ..DockerCredentials::default()
            }
        };
        Ok(Some(RegistryCredentials(credentials)))
    }

    /// Runs `docker-credential-<helper> get` to its end, or ends it.
    async fn run(&self, helper: &str, server: &str) -> Result<(ExitStatus, Vec<u8>), String> {
        let program = format!("docker-credential-{helper}");
        let mut command = match &self.helper_path {
            Some(dirs) => Command::new(find_program(dirs, &program).ok_or("was not found")?),
            None => Command::new(&program),
        };
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A group of its own, so that what it starts ends with it.
        command.process_group(0).kill_on_drop(true);
        for name in MANAGER_VARIABLES {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "was not found".to_owned(),
            _ => format!("could not be started: {error}"),
        })?;
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        let done = tokio::time::timeout(self.patience, converse(&mut child, server)).await;
        drop(group);
        match done {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("broke off: {error}")),
            Err(_elapsed) => Err(format!("did not answer within {} s", self.patience.as_secs())),
        }
    }
}

/// A helper's process group; ends it when dropped, also when the pull was given up meanwhile.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn converse(child: &mut Child, server: &str) -> io::Result<(ExitStatus, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(format!("{server}\n").as_bytes()).await {
            // One that knows its answer need not read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await?;
    }
    if u64::try_from(output.len()).is_ok_and(|len| len > HELPER_OUTPUT_BYTES_MAX) {
        return Err(io::Error::other(format!("its answer is longer than {HELPER_OUTPUT_BYTES_MAX} bytes")));
    }
    Ok((child.wait().await?, output))
}

fn find_program(dirs: &str, program: &str) -> Option<PathBuf> {
    std::env::split_paths(dirs).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Keys under which `registry` may be filed, by preference.
fn keys(registry: &str) -> impl Iterator<Item = &str> {
    let hub = HUB_HOSTS.contains(&registry);
    let hub_keys = std::iter::once(HUB_KEY).chain(HUB_HOSTS).filter(move |_| hub);
    hub_keys.chain(std::iter::once(registry))
}

/// The host of a key such as `https://host:port/v1/`.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

fn same_host(host: &str, registry: &str) -> bool {
    host == registry || (HUB_HOSTS.contains(&host) && HUB_HOSTS.contains(&registry))
}

/// Standard alphabet, padding optional, white space ignored.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.trim_end_matches(['=', '\n', '\r', ' ']).bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    // A single character left over carries no byte.
    (count < 6).then_some(out)
}

/// Makes the credentials header of a request one that every engine reads.
///
/// Engines take URL-safe base64 there and ignore what they cannot read, so that a password with
/// `?`, `>`, `~` or letters beyond ASCII would be no password at all; the client library sends the
/// standard alphabet. For `Docker::with_request_modifier`.
pub fn url_safe_header(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
            value.set_sensitive(true);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::{Lookup, RegistryConfig, config_dir, decode_base64, find};
    use crate::docker::reference::ImageReference;
    use crate::world::{ErrorKind, WorldError};
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    /// Planted everywhere a secret may be; must be seen nowhere but in the credentials.
    const SECRET: &str = "s3cr3t-Planted";
    /// `ann:s3cr3t-Planted` and `tok:s3cr3t-Planted`.
    const ANN: &str = "YW5uOnMzY3IzdC1QbGFudGVk";

    fn config(text: &str) -> (TempDir, RegistryConfig) {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join("config.json"), text).expect("writing");
        let config = RegistryConfig::load(dir.path()).expect("config");
        let path = dir.path().display().to_string();
        (dir, config.with_helper_path(path))
    }

    fn helper(dir: &Path, name: &str, script: &str) {
        let path = dir.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writing");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    async fn look(config: &RegistryConfig, image: &str) -> Lookup {
        let found = config.for_image(&ImageReference::parse(image).expect("reference")).await;
        let shown = format!("{found:?} {config:?}");
        assert!(!shown.contains(SECRET) && !shown.contains(ANN), "{shown}");
        found
    }

    /// `user:password@server`, or `-`.
    fn text(found: Lookup) -> String {
        found.credentials.map_or_else(
            || "-".to_owned(),
            |credentials| {
                let inner = credentials.into_bollard();
                let token = inner.identitytoken.map(|token| format!("token {token}"));
                let user = inner.username.unwrap_or_default();
                let secret = inner.password.or(token).unwrap_or_default();
                format!("{user}:{secret}@{}", inner.serveraddress.unwrap_or_default())
            },
        )
    }

    #[tokio::test]
    async fn the_file_is_read_as_docker_login_writes_it() {
        let (_dir, config) = config(&format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{ANN}"}},
                "localhost:5000": {{"username": "bob", "password": "{SECRET}"}},
                "https://old.example.com/v1/": {{"auth": "{ANN}"}},
                "tok.example.com": {{"auth": "PHRva2VuPjo=", "identitytoken": "{SECRET}"}},
                "empty.example.com": {{}},
                "broken.example.com": {{"auth": "{SECRET}!"}}
            }}, "HttpHeaders": {{"X": "y"}}, "detachKeys": "ctrl-e"}}"#
        ));
        let hub = format!("ann:{SECRET}@https://index.docker.io/v1/");
        let rows = [
            ("nginx", hub.as_str()),
            ("index.docker.io/mcp/time:1", &hub),
            ("registry-1.docker.io/mcp/time", &hub),
            ("localhost:5000/x", &format!("bob:{SECRET}@localhost:5000")),
            ("localhost:5001/x", "-"),
            ("old.example.com/a/b:c", &format!("ann:{SECRET}@old.example.com")),
            ("tok.example.com/x", &format!("<token>:token {SECRET}@tok.example.com")),
            ("empty.example.com/x", "-"),
            ("other.example.com/x", "-"),
        ];
        for (image, expected) in rows {
            assert_eq!(text(look(&config, image).await), expected, "{image}");
        }
        let broken = look(&config, "broken.example.com/x").await;
        assert!(broken.problem.is_some_and(|problem| problem.contains("broken.example.com")));
    }

    #[tokio::test]
    async fn helpers_are_asked_the_servers_own_before_the_store() {
        let (dir, config) = config(&format!(
            r#"{{"auths": {{"file.example.com": {{"auth": "{ANN}"}}}}, "credsStore": "store",
                "credHelpers": {{"own.example.com": "own", "docker.io": "own", "gone.example.com": "gone",
                    "evil.example.com": "../../evil"}}}}"#
        ));
        let answer = format!(
            "read server; echo \"{{\\\"Username\\\":\\\"NAME-$1-$server\\\",\\\"Secret\\\":\\\"{SECRET}\\\"}}\""
        );
        helper(dir.path(), "own", &answer.replace("NAME", "own"));
        let store = format!(
            "read server; test $server = any.example.com || {{ echo credentials not found in native keychain; exit 1; }}\n            echo '{{\"ServerURL\":\"x\",\"Username\":\"<token>\",\"Secret\":\"{SECRET}\"}}'"
        );
        helper(dir.path(), "store", &store);
        let hub = format!("own-get-https://index.docker.io/v1/:{SECRET}@https://index.docker.io/v1/");
        assert_eq!(
            text(look(&config, "own.example.com/x").await),
            format!("own-get-own.example.com:{SECRET}@own.example.com")
        );
        assert_eq!(text(look(&config, "nginx").await), hub);
        assert_eq!(
            text(look(&config, "any.example.com/x").await),
            format!(":token {SECRET}@any.example.com")
        );
        let nothing = look(&config, "nothing.example.com/x").await;
        assert!(nothing.problem.is_none() && nothing.credentials.is_none(), "having none is no problem");
        assert_eq!(text(look(&config, "file.example.com/x").await), format!("ann:{SECRET}@file.example.com"));
        for (image, word) in [("gone.example.com/x", "not found"), ("evil.example.com/x", "name")] {
            let found = look(&config, image).await;
            assert!(found.problem.as_ref().is_some_and(|problem| problem.contains(word)), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_misbehaves_is_a_problem_without_words_of_its_own() {
        let (dir, config) =
            config(r#"{"credHelpers": {"a.b": "fails", "c.d": "prattles", "e.f": "floods"}}"#);
        helper(dir.path(), "fails", &format!("echo {SECRET}; echo {SECRET} >&2; exit 3"));
        helper(dir.path(), "prattles", &format!("echo '{{\"Secret\": {SECRET}'"));
        helper(dir.path(), "floods", "yes");
        for (image, word) in [("a.b/x", "exit status: 3"), ("c.d/x", "JSON"), ("e.f/x", "longer")] {
            let found = look(&config, image).await;
            assert!(found.credentials.is_none());
            assert!(found.problem.as_ref().is_some_and(|problem| problem.contains(word)), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended_with_all_it_started() {
        let (dir, mut config) = config(r#"{"credsStore": "hangs"}"#);
        config.patience = Duration::from_secs(1);
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", pids.display());
        helper(dir.path(), "hangs", &script);
        let begin = Instant::now();
        let found = look(&config, "a.b/x").await;
        assert!(found.problem.is_some_and(|problem| problem.contains("within 1 s")));
        let alive = |pid: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z ")
        };
        let started = std::fs::read_to_string(&pids).expect("pids");
        while started.split_whitespace().any(alive) {
            assert!(begin.elapsed() < Duration::from_secs(6), "{started} still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_broken() {
        let dir = tempfile::tempdir().expect("directory");
        let at = || Some(dir.path().to_owned());
        assert!(find(at(), "nginx").await.problem.is_none());
        std::fs::write(dir.path().join("config.json"), format!(r#"{{"auths": {{"x": "{SECRET}"}}}}"#))
            .expect("writing");
        let found = find(at(), "nginx").await;
        let problem = found.problem.clone().expect("problem");
        assert!(problem.contains("line 1") && !problem.contains(SECRET), "{problem}");
        let told = |kind| found.explain(WorldError::new("pulling image x", kind, "no")).to_string();
        assert!(told(ErrorKind::Denied).contains("line 1"));
        assert_eq!(told(ErrorKind::TimedOut), "pulling image x: no");
    }

    #[test]
    fn base64_in_all_its_forms() {
        for (text, bytes) in [
            ("", Some("")),
            ("YQ==", Some("a")),
            ("YWI", Some("ab")),
            ("YWJj\n", Some("abc")),
            ("Pz8/", Some("???")),
            ("Pz8_", Some("???")),
            ("a", None),
            ("Y Q", None),
        ] {
            assert_eq!(decode_base64(text), bytes.map(|bytes| bytes.as_bytes().to_vec()), "{text:?}");
        }
    }

    #[test]
    fn the_directory_is_the_docker_clis() {
        let dir = |pairs: &[(&str, &str)]| {
            let env: BTreeMap<String, String> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            config_dir(&env).map(|dir| dir.display().to_string())
        };
        assert_eq!(dir(&[("DOCKER_CONFIG", "/c"), ("HOME", "/h")]).as_deref(), Some("/c"));
        assert_eq!(dir(&[("DOCKER_CONFIG", ""), ("HOME", "/h")]).as_deref(), Some("/h/.docker"));
        assert_eq!(dir(&[]), None);
    }
}
