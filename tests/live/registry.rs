//! Pulls from a registry that wants a password, through a real engine: Debian's `docker-registry`
//! on loopback, an image pushed there by the docker CLI, credentials as `docker login` leaves them.
//!
//! The password has characters that URL-safe and standard base64 write differently.

use base::{PASSWORD, Registry, USER};
use mcp_orchestrator::docker::DockerEngine;
use mcp_orchestrator::docker::credentials::RegistryConfig;
use mcp_orchestrator::docker::reference::ImageReference;
use mcp_orchestrator::model::op::EngineOp;
use mcp_orchestrator::world::{Engine as _, ErrorKind, WorldError};
use std::path::Path;
use std::sync::Mutex;

/// What a pull gives: progress lines, or the refusal.
async fn pull(image: &str, config: &Path) -> Result<Vec<String>, WorldError> {
    let engine = DockerEngine::new("unix:///var/run/docker.sock", Some(config.to_owned()));
    let lines = Mutex::new(Vec::new());
    let pull = EngineOp::Pull { reference: image.to_owned(), platform: None };
    engine.apply(&pull, &|line| lines.lock().expect("lines").push(line)).await?;
    Ok(lines.into_inner().expect("lines"))
}

#[tokio::test]
async fn a_password_opens_the_registry() {
    let registry = Registry::start();
    let image = registry.push();
    let login = registry.login(USER, PASSWORD);
    let lines = pull(&image, login.path()).await.expect("pull");
    assert!(lines.iter().any(|line| line.contains("Digest: sha256:")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("Downloaded newer image")), "{lines:?}");
    registry.forget(&image);
    // And by digest, as a pinned image is fetched again.
    let digest = lines.iter().find_map(|line| Some(line.split_once("Digest: ")?.1)).expect("digest");
    let pinned = format!("{}@{digest}", image.rsplit_once(':').expect("tag").0);
    pull(&pinned, login.path()).await.expect("pull by digest");
    registry.forget(&pinned);
}

#[tokio::test]
async fn a_helper_opens_the_registry() {
    let registry = Registry::start();
    let image = registry.push();
    let login = registry.login_by_helper();
    let config = RegistryConfig::load(login.path()).expect("config");
    let reference = ImageReference::parse(&image).expect("reference");
    let helped = config.with_helper_path(login.path().display().to_string()).for_image(&reference).await;
    let credentials = helped.credentials.expect("credentials").into_bollard();
    assert_eq!(credentials.password.as_deref(), Some(PASSWORD));
    assert_eq!(credentials.serveraddress, Some(registry.address()));
}

#[tokio::test]
async fn a_wrong_password_is_a_refusal() {
    let registry = Registry::start();
    let image = registry.push();
    for login in [registry.login(USER, "wrong"), registry.login_nowhere()] {
        let error = pull(&image, login.path()).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        let words = format!("{error:?}");
        assert!(!words.contains(PASSWORD) && !words.contains("wrong"), "{words}");
    }
}

/// The registry and the files around it.
mod base {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    pub(crate) const USER: &str = "ann";
    pub(crate) const PASSWORD: &str = "geheim?>~x";
    /// bcrypt of [`PASSWORD`], cost 4: this registry is for seconds.
    const HASH: &str = "$2b$04$9CQvzUi/057aay5KQw8SQ./GaMvT3y8Oug.qMjDpygi1xlOOhiXxm";
    /// How long the registry may take to answer.
    const START_TIMEOUT: Duration = Duration::from_secs(20);

    /// A registry of its own for one test; ends with it.
    pub(crate) struct Registry {
        dir: TempDir,
        process: Child,
        port: u16,
    }

    impl Registry {
        pub(crate) fn start() -> Self {
            let dir = tempfile::tempdir().expect("directory");
            let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
            std::fs::write(dir.path().join("htpasswd"), format!("{USER}:{HASH}\n")).expect("htpasswd");
            let place = dir.path().display();
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n\
                 http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n"
            );
            let file = dir.path().join("registry.yml");
            std::fs::write(&file, config).expect("config");
            let process = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry of Debian's package of that name");
            let registry = Self { dir, process, port };
            let begin = Instant::now();
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(begin.elapsed() < START_TIMEOUT, "the registry does not answer");
                std::thread::sleep(Duration::from_millis(20));
            }
            registry
        }

        pub(crate) fn address(&self) -> String {
            format!("127.0.0.1:{}", self.port)
        }

        /// Imports a tiny image, pushes it by the docker CLI, and removes it from the engine.
        pub(crate) fn push(&self) -> String {
            let image = format!("{}/mcp-live-registry/tiny:{}", self.address(), std::process::id());
            let content = self.dir.path().join("content");
            std::fs::create_dir(&content).expect("mkdir");
            std::fs::write(content.join("hello"), vec![b'x'; 100_000]).expect("writing");
            let tar = self.dir.path().join("image.tar");
            run(Command::new("tar").arg("-C").arg(&content).arg("-cf").arg(&tar).arg("hello"));
            run(Command::new("docker").arg("import").arg(&tar).arg(&image));
            let login = self.login(USER, PASSWORD);
            run(Command::new("docker").arg("--config").arg(login.path()).arg("push").arg(&image));
            self.forget(&image);
            image
        }

        pub(crate) fn forget(&self, image: &str) {
            run(Command::new("docker").args(["image", "rm", image]));
        }

        /// A configuration as the docker CLI's own `login` leaves it; a wrong password, which `login`
        /// would refuse, is written by hand.
        pub(crate) fn login(&self, user: &str, password: &str) -> TempDir {
            let dir = tempfile::tempdir().expect("directory");
            if password == PASSWORD {
                let mut child = Command::new("docker")
                    .arg("--config")
                    .arg(dir.path())
                    .args(["login", "--username", user, "--password-stdin", &self.address()])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("docker login");
                child.stdin.take().expect("stdin").write_all(password.as_bytes()).expect("password");
                assert!(child.wait().expect("login").success());
            } else {
                let entry = format!(r#"{{"username": "{user}", "password": "{password}"}}"#);
                write(dir.path(), &format!(r#"{{"auths": {{"{}": {entry}}}}}"#, self.address()));
            }
            dir
        }

        pub(crate) fn login_nowhere(&self) -> TempDir {
            tempfile::tempdir().expect("directory")
        }

        pub(crate) fn login_by_helper(&self) -> TempDir {
            let dir = tempfile::tempdir().expect("directory");
            write(dir.path(), &format!(r#"{{"credHelpers": {{"{}": "live"}}}}"#, self.address()));
            let program = dir.path().join("docker-credential-live");
            let answer = format!(r#"{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}"#);
            std::fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).expect("writing");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
            dir
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            let ended = self.process.kill().and_then(|()| self.process.wait());
            drop(ended);
        }
    }

    fn write(dir: &Path, config: &str) {
        std::fs::write(dir.join("config.json"), config).expect("writing");
    }

    fn run(command: &mut Command) {
        let done = command.output().expect("starting");
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?}: {words}");
    }
}
