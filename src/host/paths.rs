//! Where things are: configuration, settings, state, control socket.
//!
//! | who | configuration, settings | state | socket |
//! |---|---|---|---|
//! | under systemd (`$STATE_DIRECTORY`, `$RUNTIME_DIRECTORY`) | `/etc/mcp-orchestrator` | `$STATE_DIRECTORY` | `$RUNTIME_DIRECTORY` |
//! | root, installed | the same | `/var/lib/mcp-orchestrator` | `/run/mcp-orchestrator` |
//! | anybody else | `./mcp.config.json`, `./settings.conf` when they exist, else `/etc/…` | below `$XDG_STATE_HOME` | below `$XDG_RUNTIME_DIR` |
//!
//! `--config` and `--settings` win over each. A `--config` that is not the installed file is
//! somebody's own, with a stack of its own: it never uses the installed state, not even for root.
//! Own stacks have a directory each, so that two files of one user never share a port ledger.
//!
//! Must never look at the world itself: user id, environment, current directory and "does this
//! exist" are handed in.

use crate::model::fingerprint::sha256_hex;
use crate::model::id::{IdError, Stack};
use crate::world::{ErrorKind, WorldError};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The name everything is filed under.
const NAME: &str = "mcp-orchestrator";
/// Configuration of an installed system.
const CONFIG_DIR: &str = "/etc/mcp-orchestrator";
/// State of an installed system.
const STATE_DIR: &str = "/var/lib/mcp-orchestrator";
/// Runtime directory of an installed system.
const RUNTIME_DIR: &str = "/run/mcp-orchestrator";
/// File names.
const CONFIG_FILE: &str = "mcp.config.json";
const SETTINGS_FILE: &str = "settings.conf";
const STATE_FILE: &str = "state.db";
const SOCKET_FILE: &str = "control.sock";
/// Longest path a Unix socket may have, in bytes, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What the answer depends on.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Effective user id.
    pub uid: u32,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
    /// The current directory, absolute.
    pub cwd: &'a Path,
    /// Whether a file or directory exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `mcp.config.json`, absolute; it need not exist.
    pub config: PathBuf,
    /// `settings.conf`, absolute; it need not exist unless [`Self::settings_asked`].
    pub settings: PathBuf,
    /// `--settings` named it: then it must exist.
    pub settings_asked: bool,
    /// The installed configuration is in use: its stack is `default`.
    pub installed: bool,
    /// The user all this is for.
    uid: u32,
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    /// Every stack has a directory of its own below the two.
    by_stack: bool,
}

impl Places {
    /// Finds the places; `config` and `settings` are the values of `--config` and `--settings`.
    ///
    /// # Errors
    /// `Invalid` when there is nowhere to keep state: neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn find(
        config: Option<&Path>,
        settings: Option<&Path>,
        at: Situation<'_>,
    ) -> Result<Self, WorldError> {
        let service = at.dirs("STATE_DIRECTORY").or_else(|| at.dirs("RUNTIME_DIRECTORY")).is_some();
        let etc_config = Path::new(CONFIG_DIR).join(CONFIG_FILE);
        let at_home = service || (at.uid == 0 && (at.exists)(&etc_config));
        let choose = |asked: Option<&Path>, name: &str| match asked {
            Some(path) => at.absolute(path),
            None if !at_home && (at.exists)(&at.cwd.join(name)) => at.absolute(Path::new(name)),
            None => Path::new(CONFIG_DIR).join(name),
        };
        let config = choose(config, CONFIG_FILE);
        let installed = config == etc_config;
        // The unit says itself where its state belongs, whatever file it was given.
        let shared = service || (at_home && installed);
        let (state_dir, runtime_dir) = if shared { at.system_dirs() } else { at.own_dirs()? };
        Ok(Self {
            settings: choose(settings, SETTINGS_FILE),
            settings_asked: settings.is_some(),
            config,
            installed,
            uid: at.uid,
            state_dir,
            runtime_dir,
            by_stack: !shared,
        })
    }

    /// The stack when `[service] stack` is not set: `default` for the installed configuration,
    /// `dev-<hash8 of user and path>` for any other file.
    ///
    /// # Errors
    /// Never: both are valid names. The type says so, because nothing here may panic.
    pub fn default_stack(&self) -> Result<Stack, IdError> {
        if self.installed {
            return Stack::new("default");
        }
        let seed = format!("{}\0{}", self.uid, self.config.display());
        Stack::new(&format!("dev-{}", sha256_hex(&seed, 8)))
    }

    /// The state database of `stack`; what else is kept lies beside it.
    #[must_use]
    pub fn state(&self, stack: &Stack) -> PathBuf {
        self.below(&self.state_dir, stack.as_str()).join(STATE_FILE)
    }

    /// The control socket of `stack`'s daemon.
    #[must_use]
    pub fn socket(&self, stack: &Stack) -> PathBuf {
        let path = self.below(&self.runtime_dir, stack.as_str()).join(SOCKET_FILE);
        if !self.by_stack || path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return path;
        }
        self.below(&self.runtime_dir, &sha256_hex(stack.as_str(), 8)).join(SOCKET_FILE)
    }

    fn below(&self, dir: &Path, stack: &str) -> PathBuf {
        if self.by_stack { dir.join(stack) } else { dir.to_owned() }
    }
}

impl Situation<'_> {
    /// A variable that is set to something.
    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The first directory of one of systemd's lists.
    fn dirs(&self, name: &str) -> Option<PathBuf> {
        self.var(name)?.split(':').find(|part| part.starts_with('/')).map(PathBuf::from)
    }

    /// A directory of the XDG specification, which says that relative ones are to be ignored.
    fn xdg(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    fn system_dirs(&self) -> (PathBuf, PathBuf) {
        let of = |name: &str, usual: &str| self.dirs(name).unwrap_or_else(|| PathBuf::from(usual));
        (of("STATE_DIRECTORY", STATE_DIR), of("RUNTIME_DIRECTORY", RUNTIME_DIR))
    }

    /// State and runtime directory of this user.
    fn own_dirs(&self) -> Result<(PathBuf, PathBuf), WorldError> {
        let home = || self.xdg("HOME").map(|home| home.join(".local/state"));
        let Some(base) = self.xdg("XDG_STATE_HOME").or_else(home) else {
            let cause = "neither XDG_STATE_HOME nor HOME is an absolute path";
            return Err(WorldError::new("looking for a place for state", ErrorKind::Invalid, cause));
        };
        let state = base.join(NAME);
        // Without a log-in session there is no runtime directory; /tmp would be for all to see.
        let runtime = self.xdg("XDG_RUNTIME_DIR").map_or_else(|| state.clone(), |dir| dir.join(NAME));
        Ok((state, runtime))
    }

    /// `path` from the root, without `.` and `..`; links are not followed.
    fn absolute(&self, path: &Path) -> PathBuf {
        let mut out = PathBuf::new();
        for part in self.cwd.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => _ = out.pop(),
                Component::RootDir | Component::Prefix(_) | Component::Normal(_) => out.push(part),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Places, Situation};
    use crate::model::id::Stack;
    use std::collections::BTreeMap;
    use std::path::Path;

    const ETC: &str = "/etc/mcp-orchestrator/mcp.config.json";

    fn find(uid: u32, env: &[(&str, &str)], files: &[&str], config: Option<&str>) -> Result<Places, String> {
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let exists = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        let at = Situation { uid, env: &env, cwd: Path::new("/home/ann/mcp"), exists: &exists };
        Places::find(config.map(Path::new), None, at).map_err(|error| error.to_string())
    }

    /// Who and with what, and where configuration, settings, state and socket of stack `s` are.
    type Row<'a> = ((u32, &'a [(&'a str, &'a str)], &'a [&'a str], Option<&'a str>), [&'a str; 4]);

    #[test]
    fn everything_is_where_it_is_expected() {
        let home = ("HOME", "/home/ann");
        let session = ("XDG_RUNTIME_DIR", "/run/user/1000");
        let unit = [("STATE_DIRECTORY", "/var/lib/private/m:/other"), ("RUNTIME_DIRECTORY", "/run/m")];
        let settings = "/etc/mcp-orchestrator/settings.conf";
        let mine = "/home/ann/mcp/mcp.config.json";
        let my_settings = "/home/ann/mcp/settings.conf";
        let my_state = "/home/ann/.local/state/mcp-orchestrator/s/state.db";
        let my_socket = "/run/user/1000/mcp-orchestrator/s/control.sock";
        let state = "/var/lib/mcp-orchestrator/state.db";
        let socket = "/run/mcp-orchestrator/control.sock";
        let rows: &[Row<'_>] = &[
            // The unit.
            (
                (997, &unit, &[ETC], None),
                [ETC, settings, "/var/lib/private/m/state.db", "/run/m/control.sock"],
            ),
            (
                (997, &unit, &[mine], None),
                [ETC, settings, "/var/lib/private/m/state.db", "/run/m/control.sock"],
            ),
            ((997, &unit[..1], &[], Some("/x")), ["/x", settings, "/var/lib/private/m/state.db", socket]),
            // Root.
            ((0, &[], &[ETC], None), [ETC, settings, state, socket]),
            ((0, &[home, session], &[ETC, mine, my_settings], None), [ETC, settings, state, socket]),
            ((0, &[home, session], &[ETC], Some(ETC)), [ETC, settings, state, socket]),
            (
                (0, &[home, session], &[ETC], Some("a.json")),
                ["/home/ann/mcp/a.json", settings, my_state, my_socket],
            ),
            ((0, &[home, session], &[mine], None), [mine, settings, my_state, my_socket]),
            // Anybody.
            ((1000, &[home, session], &[ETC], None), [ETC, settings, my_state, my_socket]),
            ((1000, &[home, session], &[ETC, mine], None), [mine, settings, my_state, my_socket]),
            ((1000, &[home, session], &[mine, my_settings], None), [mine, my_settings, my_state, my_socket]),
            (
                (1000, &[home, session], &[], Some("../b/./c.json")),
                ["/home/ann/b/c.json", settings, my_state, my_socket],
            ),
            (
                (1000, &[home, ("XDG_STATE_HOME", "/st")], &[mine], None),
                [mine, settings, "/st/mcp-orchestrator/s/state.db", "/st/mcp-orchestrator/s/control.sock"],
            ),
            (
                (1000, &[home, session, ("XDG_STATE_HOME", "rel")], &[mine], None),
                [mine, settings, my_state, my_socket],
            ),
            (
                (1000, &[home, session, ("STATE_DIRECTORY", "")], &[mine], None),
                [mine, settings, my_state, my_socket],
            ),
        ];
        let stack = Stack::new("s").expect("stack");
        for ((uid, env, files, config), expected) in rows {
            let places = find(*uid, env, files, *config).expect("places");
            let found =
                [places.config.clone(), places.settings.clone(), places.state(&stack), places.socket(&stack)];
            assert_eq!(
                found.each_ref().map(|path| path.display().to_string()),
                *expected,
                "{uid} {env:?} {files:?}"
            );
        }
    }

    #[test]
    fn stacks_of_other_files_are_their_own() {
        let stack = |uid, config| {
            let places = find(uid, &[("HOME", "/h")], &[ETC], config).expect("places");
            places.default_stack().expect("stack").to_string()
        };
        assert_eq!(stack(0, None), "default");
        assert_eq!(stack(1000, None), "default");
        let mine = stack(1000, Some("a.json"));
        assert!(mine.starts_with("dev-") && mine.len() == 12, "{mine}");
        assert_eq!(mine, stack(1000, Some("/home/ann/mcp/./a.json")));
        assert_ne!(mine, stack(1001, Some("a.json")));
        assert_ne!(mine, stack(1000, Some("b.json")));
    }

    #[test]
    fn a_socket_path_is_never_too_long() {
        let env = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/1000")];
        let places = find(1000, &env, &[], Some("a")).expect("places");
        let long = Stack::new(&"x".repeat(63)).expect("stack");
        let socket = places.socket(&long);
        assert!(socket.as_os_str().len() <= 107, "{}", socket.display());
        assert_ne!(socket, places.socket(&Stack::new(&"y".repeat(63)).expect("stack")));
    }

    #[test]
    fn nowhere_to_keep_state_is_said() {
        let error = find(1000, &[], &[], None).expect_err("no home");
        assert!(error.contains("HOME"), "{error}");
    }
}
