//! The command line as clap reads it; names and meanings are the contract's section 6.

use crate::cli::complete;
use crate::cli::export::Export;
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;
use std::path::PathBuf;

/// Makes MCP servers, host ports and load balancer rules match mcp.config.json, and keeps them so.
#[derive(Debug, Parser)]
#[command(name = "mcp-orchestrator", version, max_term_width = 100)]
pub struct Cli {
    /// The servers to run [default: /etc/mcp-orchestrator/mcp.config.json, or ./mcp.config.json].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings [default: /etc/mcp-orchestrator/settings.conf, or ./settings.conf].
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Converge once, print what became of every server, and exit.
    #[arg(long)]
    pub one_shot: bool,
    /// Serve no /monitor, /ui and /api on the main listener.
    #[arg(long)]
    pub no_dashboard: bool,
    /// Allow removing more than half of the servers, or all.
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// DEBUG, INFO, WARNING, ERROR, or a filter such as `info,mcp_orchestrator::alb=debug`.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// What to do; the daemon when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// States of servers.
const STATES: [&str; 6] = ["converged", "changing", "waiting", "blocked", "asleep", "stopped"];

/// Output for programs.
#[derive(Clone, Copy, Debug, Args)]
pub struct Json {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Run,
    /// Show what a pass would change and why; change nothing.
    Plan {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Exit with 3 when there are changes.
        #[arg(long)]
        exit_code: bool,
    },
    /// Show every problem of both files; works offline.
    Validate {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// The file is for a daemon with another environment: variables and secrets that
        /// are not here are warnings.
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show how the daemon and its servers stand.
    Status {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show the reasons of every server, what it uses, its connections and its calls.
        #[arg(long)]
        detailed: bool,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// Set a server's entry in mcp.config.json, or add it; the rest of the file stays as it is.
    SetServer {
        /// The server.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        name: String,
        /// Its entry as JSON, `-` for standard input.
        #[arg(value_name = "ENTRY")]
        entry: String,
        /// Change only the members that the entry has (a merge patch); null takes one away.
        #[arg(long)]
        patch: bool,
        /// The section it goes to.
        #[arg(long, value_name = "SECTION", add = ArgValueCandidates::new(complete::sections))]
        section: Option<String>,
        /// How it is done.
        #[command(flatten)]
        edit: Edit,
    },
    /// Take a server out of mcp.config.json.
    RemoveServer {
        /// The server.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        name: String,
        /// How it is done.
        #[command(flatten)]
        edit: Edit,
    },
    /// List servers.
    ListServers {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Only those in this state.
        #[arg(long, value_name = "STATE", value_parser = STATES)]
        status: Option<String>,
        /// Show their effective settings, and where each comes from.
        #[arg(long)]
        config: bool,
        /// Show again whenever something changes.
        #[arg(long, conflicts_with = "config")]
        watch: bool,
    },
    /// Show whether servers answer, how often they failed and how fast they are.
    Health {
        /// Only this server, or this instance of one (`time-R2`).
        #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        server: Option<String>,
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// Show which server holds which host port.
    Ports {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// Show what was asked for by hand and what became of it, newest first.
    Tasks {
        /// All about this one.
        #[arg(value_name = "ID")]
        id: Option<i64>,
        /// At most this many.
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// Show who did what, newest first.
    Audit(Audit),
    /// Say why a server is as it is, and what happens next.
    Why {
        /// The server.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        name: String,
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// Start servers, and keep them running whatever the file's `disabled` says.
    StartServer(Servers),
    /// Stop servers, and keep them stopped until they are started again.
    StopServer(Servers),
    /// Stop and start servers once.
    RestartServer(Servers),
    /// Start all servers.
    Start(All),
    /// Stop all servers; the daemon itself is systemd's.
    Stop(All),
    /// Restart all servers.
    Restart(All),
    /// Leave servers alone: no restart, no replacement, nothing of the load balancer.
    ///
    /// Without a name: this whole host.
    Pause(Pause),
    /// Look after servers again; without a name, end the pause of this host.
    Resume(Pause),
    /// Take this host out of the load balancer; everything on it runs on.
    ///
    /// Its targets are deregistered; then this waits until their connections have ended, at most for the
    /// deregistration delay, and until no call is under way. It holds over restarts and reboots until
    /// `drain --undo`, or `start` without a name. Without a load balancer only /readyz says so.
    Drain {
        /// Bring this host back.
        #[arg(long, conflicts_with = "duration")]
        undo: bool,
        /// End by itself after this time (`90s`, `30m`, `2h`).
        #[arg(long = "for", value_name = "TIME")]
        duration: Option<String>,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Do a pass now and wait until all is settled.
    Sync {
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Show what servers offer: tools, prompts and resources.
    Capabilities {
        /// The server, or one instance of it; all servers, one line each, when none is named.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        name: Option<String>,
        /// The same, as `health` has it.
        #[arg(long, value_name = "NAME", conflicts_with = "name", add = ArgValueCandidates::new(complete::servers))]
        server: Option<String>,
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Show what a server printed beside its messages, oldest first.
    ///
    /// The daemon keeps the last 1000 lines of each server that speaks over stdio; they survive the
    /// server, not the daemon. The journal has more: `journalctl MCP_SERVER=NAME`. Of containers that
    /// speak over HTTP it is what the engine keeps. With `--json` each line is an object that also has
    /// its number and its stream.
    Logs {
        /// The server.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        name: String,
        /// Go on with what it prints from now on, until Ctrl-C.
        #[arg(long, short)]
        follow: bool,
        /// Only the last lines.
        #[arg(long, value_name = "LINES")]
        tail: Option<usize>,
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Call a tool of a server: `call time get_current_time '{"timezone":"UTC"}'`.
    Call {
        /// The server.
        #[arg(add = ArgValueCandidates::new(complete::servers))]
        name: String,
        /// The tool.
        tool: String,
        /// Its arguments, a JSON object.
        #[arg(default_value = "{}")]
        arguments: String,
        /// Print the whole result, not only its text.
        #[command(flatten)]
        json: Json,
    },
    /// Find MCP servers that other programs know of.
    ///
    /// Looks into settings of MCP clients, projects, images and containers. Without a PATH: the
    /// clients' settings in your home, the engine, and the directories of `[discovery]` or else the
    /// current one. Nothing that is found is run, and nothing is written without `--write` and a yes.
    Discover(Discover),
    /// Take servers over from a file of another program.
    ///
    /// Reads the settings of Claude, Cursor, VS Code, Windsurf, Zed, Codex and others, and
    /// `mcp-config.yaml`. The change is shown as a diff first; what was there is kept as a backup.
    Import(Import),
    /// Print the servers of the file as another program's file.
    ///
    /// Works without a daemon. Tokens are never in it: what clients need is a name to be filled in.
    Export(Export),
    /// Check everything that this program needs, and say what helps where something is wrong.
    ///
    /// Works without a daemon and without Docker. Exits with 1 when a check fails.
    Doctor {
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Fetch what servers need ahead of time: images, and packages of npx and uvx.
    Prepare {
        /// The servers; all that shall run when none is named.
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
        names: Vec<String>,
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Show how much the daemon logs, or change it without a restart.
    ///
    /// What is set here holds until the daemon ends, `[logging] level` is changed in settings.conf,
    /// or `reset`. SIGUSR1 sets DEBUG, SIGUSR2 resets.
    LogLevel {
        /// DEBUG, INFO, WARNING, ERROR, an expression such as `info,access=debug`, or `reset`.
        #[arg(value_name = "LEVEL")]
        level: Option<String>,
        /// Go back by itself after this time (`90s`, `30m`, `2h`).
        #[arg(long = "for", value_name = "TIME", requires = "level")]
        duration: Option<String>,
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Run the loop in a simulated world with faults, and show what happened.
    Simulate {
        /// Which world.
        #[arg(long)]
        seed: u64,
    },
    /// A small MCP server over stdio: the quick start's, the image's and the tests'.
    DemoServer {
        /// Speak streamable HTTP on this port instead.
        #[arg(long, value_name = "PORT")]
        http: Option<u16>,
    },
    /// Start local processes for the daemon, as a service with a user and sandbox of its own.
    ///
    /// Servers configured as a command (npx, uvx, python) are started here, as the user of this
    /// service and in its sandbox, when the daemon finds its socket (`[service] process_runner`).
    /// systemd gives the listening socket as standard input.
    Runner(Runner),
    /// Hash a password for `[dashboard] password_hash`; it is asked for, or read from standard input.
    HashPassword,
    /// Print shell completions, which also complete the names of servers.
    ///
    /// bash: `source <(mcp-orchestrator completions bash)`; the packages install them for bash, zsh and
    /// fish. They call the program, so that both should be of one version.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory.
    Man {
        /// The directory.
        dir: PathBuf,
    },
    /// Print the JSON Schema of mcp.config.json, for editors.
    Schema,
}

/// Running processes for a daemon.
#[derive(Debug, Args)]
pub struct Runner {
    /// Listen here, instead of taking the listening socket from standard input.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Who may ask beside root, by name or id; this very user when nobody is named.
    #[arg(long, value_name = "USER")]
    pub allow_user: Vec<String>,
    /// The control group of this process is delegated (`Delegate=yes`): each process gets its own.
    #[arg(long)]
    pub delegated: bool,
    /// Processes at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub processes_max: u16,
    /// Keep one process for the other end of standard input.
    #[arg(long, hide = true, conflicts_with_all = ["socket", "allow_user", "delegated"])]
    pub one: bool,
    /// Where `--one` makes the process's control group.
    #[arg(long, hide = true, requires = "one")]
    pub cgroup: Option<PathBuf>,
}

/// Which lines of the audit.
#[derive(Clone, Debug, Args)]
pub struct Audit {
    /// Only what is about this server.
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
    pub server: Option<String>,
    /// Only what they did, as the audit names them.
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
    /// Only what ended so.
    #[arg(long, value_parser = ["ok", "failed", "refused", "abandoned"])]
    pub result: Option<String>,
    /// Only what begins with these words: `start`, `edit`, `sign in`.
    #[arg(long, value_name = "WORDS")]
    pub kind: Option<String>,
    /// Only what is not older (`90s`, `30m`, `2h`, `7d`), or not before a date or time in UTC
    /// (`2026-01-31`, `2026-01-31T12:00:00Z`).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Who called which tool, instead of what was done here.
    #[arg(long)]
    pub calls: bool,
    /// At most this many.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub limit: u16,
    /// For programs.
    #[command(flatten)]
    pub json: Json,
    /// Show again whenever something changes.
    #[arg(long)]
    pub watch: bool,
}

/// Finding servers.
#[derive(Debug, Args)]
pub struct Discover {
    /// Directories and files to look at instead.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Have the running daemon search its directories now, and show what it finds.
    #[arg(long, conflicts_with_all = ["paths", "write"])]
    pub rescan: bool,
    /// Write what is found into mcp.config.json, after showing the change.
    #[arg(long)]
    pub write: bool,
    /// What is written, and how.
    #[command(flatten)]
    pub apply: Apply,
    /// For programs.
    #[command(flatten)]
    pub json: Json,
}

/// Taking servers over.
#[derive(Debug, Args)]
pub struct Import {
    /// The file.
    #[arg(value_name = "FILE", required_unless_present = "undo", conflicts_with = "undo")]
    pub file: Option<PathBuf>,
    /// Take the last `import` or `discover --write` back.
    #[arg(long)]
    pub undo: bool,
    /// What is written, and how.
    #[command(flatten)]
    pub apply: Apply,
    /// For programs.
    #[command(flatten)]
    pub json: Json,
}

/// Writing finds.
#[derive(Debug, Args)]
pub struct Apply {
    /// Write without asking.
    #[arg(long, short)]
    pub yes: bool,
    /// Let the new servers run at once; without it they are written with `disabled`.
    #[arg(long)]
    pub enable: bool,
    /// Only finds of this name; may be said several times.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Of `discover`: the least confidence of what is written (high, medium, low).
    #[arg(long, value_name = "CONFIDENCE", default_value = "medium", value_parser = crate::daemon::importing::confidence)]
    pub least: crate::discovery::Confidence,
}

/// Servers to act on.
#[derive(Debug, Args)]
pub struct Servers {
    /// The servers.
    #[arg(required_unless_present = "section", value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
    pub names: Vec<String>,
    /// All servers of a section instead.
    #[arg(long, value_name = "SECTION", conflicts_with = "names", add = ArgValueCandidates::new(complete::sections))]
    pub section: Option<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
    /// Hold the wish this long (`90s`, `30m`, `2h`), then the file decides again.
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Option<String>,
}

/// Leaving servers alone, or not any more.
#[derive(Debug, Args)]
pub struct Pause {
    /// The servers.
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
    pub names: Vec<String>,
    /// A section instead.
    #[arg(long, value_name = "SECTION", conflicts_with = "names", add = ArgValueCandidates::new(complete::sections))]
    pub section: Option<String>,
    /// End by itself after this time (`90s`, `30m`, `2h`).
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Option<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Editing the file.
#[derive(Clone, Copy, Debug, Args)]
pub struct Edit {
    /// Show the difference, what is wrong with it and the plan; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
    /// For programs.
    #[command(flatten)]
    pub json: Json,
}

/// Acting on all servers.
#[derive(Debug, Args)]
pub struct All {
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Waiting for the result.
#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// Do not wait for the result.
    #[arg(long)]
    pub no_wait: bool,
}
