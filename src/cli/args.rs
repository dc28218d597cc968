//! The command line as clap reads it; names and meanings are the contract's section 6.

use clap::{Args, Parser, Subcommand};
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
    },
    /// Show how the daemon and its servers stand.
    Status {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Show the reasons of every server, its connections and its calls.
        #[arg(long)]
        detailed: bool,
        /// Show again whenever something changes.
        #[arg(long)]
        watch: bool,
    },
    /// List servers.
    ListServers {
        /// For programs.
        #[command(flatten)]
        json: Json,
        /// Only those in this state (converged, changing, waiting, blocked, stopped).
        #[arg(long, value_name = "STATE")]
        status: Option<String>,
    },
    /// Show which server holds which host port.
    Ports {
        /// For programs.
        #[command(flatten)]
        json: Json,
    },
    /// Say why a server is as it is, and what happens next.
    Why {
        /// The server.
        #[arg(value_name = "NAME")]
        name: String,
        /// For programs.
        #[command(flatten)]
        json: Json,
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
        /// The server; all of them, one line each, when none is named.
        #[arg(value_name = "NAME")]
        name: Option<String>,
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
        #[arg(value_name = "NAME")]
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
    /// Print shell completions.
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

/// Servers to act on.
#[derive(Debug, Args)]
pub struct Servers {
    /// The servers.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
    /// Hold the wish this long (`90s`, `30m`, `2h`), then the file decides again.
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Option<String>,
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
