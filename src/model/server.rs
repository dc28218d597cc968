//! One MCP server as the configuration means it: every default filled in, every secret resolved.
//!
//! Must never hold anything that was observed; that is [`crate::model::observed`].

use crate::model::access::ToolPolicy;
use crate::model::container::ContainerSpec;
use crate::model::fingerprint::Fingerprint;
use crate::model::id::{SectionId, ServerId};
use crate::model::net::HostPort;
use crate::model::time::Span;
use crate::model::traffic::TrafficPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One entry of `mcpServers`, meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The id: path segment, container name, tag value.
    pub id: ServerId,
    /// The name as the file has it.
    pub name: String,
    /// The section it is in, if any.
    pub section: Option<SectionId>,
    /// False with `disabled: true` or `enabled: false`.
    pub enabled: bool,
    /// What runs it.
    pub kind: ServerKind,
    /// `orchestrator.transport`.
    pub transport: TransportWish,
    /// `orchestrator.route`.
    pub route: RouteWish,
    /// Why the gateway must stand in front (`rateLimit`, `replicas`, …); empty when nothing asks for it.
    pub gateway_reasons: Vec<String>,
    /// Who may share an instance (`orchestrator.sharing`).
    pub sharing: Sharing,
    /// How many instances of it there are to be (`orchestrator.replicas`); 1 where nobody asks for more.
    pub replicas: u32,
    /// How long one request may stay without a sign of life (`timeout`); `None` is the default.
    pub request_timeout: Option<Span>,
    /// Which of its tools are offered, and how they are called (`orchestrator.tools`).
    pub tools: ToolPolicy,
    /// Headers of clients' requests that a server elsewhere gets (`orchestrator.forwardHeaders`), in
    /// lower case.
    pub forward_headers: Vec<String>,
    /// Where the tool proxy has it beside its id (`orchestrator.openapiPath`), without a `/` in front.
    pub openapi_path: Option<String>,
    /// What its requests are held to (`orchestrator.rateLimit` and others).
    pub traffic: TrafficPolicy,
    /// Path of the MCP endpoint inside an HTTP server (`orchestrator.httpPath`).
    pub http_path: Option<String>,
    /// Restart after a crash.
    pub restart: RestartPolicy,
    /// How readiness and health are judged.
    pub health: HealthPolicy,
    /// When images are pulled.
    pub pull: PullPolicy,
    /// It is started with the first request that needs it (`orchestrator.startOnDemand`).
    pub on_demand: bool,
    /// It is stopped after this long without use, and started with the next request
    /// (`orchestrator.idleTimeout`).
    pub idle_timeout: Option<Span>,
    /// Start order: higher first, ties by id.
    pub priority: i32,
    /// Sections whose servers must be up before it is started (`orchestrator.dependsOn`). Without a
    /// circle, and never its own.
    pub depends_on: Vec<SectionId>,
    /// What the reader of `plan` should know about this entry (a default that was overridden, an
    /// assumption made). Never holds a secret.
    pub notes: Vec<String>,
}

impl Server {
    /// Instance number `number` of it: 1 is the server itself. The others differ in their id and name, and
    /// have no host port: clients come in by the server's own.
    #[must_use]
    pub fn instance(&self, number: u32) -> Self {
        let mut one = self.clone();
        if number < 2 {
            return one;
        }
        one.id = self.id.replica(number);
        one.name = format!("{} ({number})", self.name);
        one.notes.clear();
        if let ServerKind::Container(decl) = &mut one.kind
            && let Some(port) = &mut decl.mcp_port
        {
            port.host_port = None;
        }
        one
    }

    /// How a container speaks, as far as its entry and its line say; `None` where only its image can, and for
    /// what is no container.
    #[must_use]
    pub const fn said_transport(&self) -> Option<Transport> {
        let ServerKind::Container(decl) = &self.kind else { return None };
        match self.transport {
            TransportWish::Is(transport) => Some(transport),
            TransportWish::Auto if decl.interactive => Some(Transport::Stdio),
            TransportWish::Auto if decl.mcp_port.is_some() => Some(Transport::Http),
            TransportWish::Auto => None,
        }
    }

    /// Whether it may be asleep: not running, and started with the next request.
    #[must_use]
    pub const fn may_sleep(&self) -> bool {
        self.on_demand || self.idle_timeout.is_some()
    }
}

/// Who may share an instance (`orchestrator.sharing`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Clients that a server could ask nothing share one; the others get their own.
    #[default]
    Auto,
    /// Everybody shares one; servers can ask clients nothing.
    Shared,
    /// Every session gets its own.
    Isolated,
}

/// What runs a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// A container declared by a `docker run` line.
    Container(Box<ContainerDecl>),
    /// A local stdio process (npx, uvx, python …).
    Process(ProcessDecl),
    /// A server somewhere else, proxied.
    Remote(RemoteDecl),
}

/// A container as declared; host ports that come from the ledger are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDecl {
    /// The declaration with `[containers]` defaults and limits merged in. Its published ports are
    /// the plain ones; the MCP port is `mcp_port`.
    pub spec: ContainerSpec,
    /// `-i` was on the line.
    pub interactive: bool,
    /// The port that speaks MCP, where the line or `containerPort` says one.
    pub mcp_port: Option<McpPort>,
    /// `--rm` was on the line: anonymous volumes go when the entry goes.
    pub remove_volumes: bool,
    /// Hash of the declaration.
    pub fingerprint: Fingerprint,
}

/// The port of a container that speaks MCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpPort {
    /// Port inside the container.
    pub container_port: u16,
    /// Host port kept from `-p H:C`; from the ledger when `None`.
    pub host_port: Option<HostPort>,
    /// Host address kept from `-p IP:…`.
    pub host_ip: Option<String>,
}

/// A local process that speaks MCP over stdio.
#[derive(Clone, PartialEq, Eq)]
pub struct ProcessDecl {
    /// The program, as written.
    pub command: String,
    /// Its arguments, secrets resolved.
    pub args: Vec<String>,
    /// Added environment, secrets resolved.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub cwd: Option<String>,
    /// What it and all it starts may use together.
    pub limits: ProcessLimits,
    /// Hash of the declaration.
    pub fingerprint: Fingerprint,
}

/// What a process may use (`orchestrator.limits`); `None` is no limit. Kept by the runner service, where
/// control groups are delegated to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl std::fmt::Debug for ProcessDecl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessDecl")
            .field("command", &self.command)
            .field("args", &self.args.len())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A server reached by URL.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteDecl {
    /// `http`, `https`, `ws`, `wss` or `tcp` URL, secrets resolved.
    pub url: String,
    /// What the entry's `type` says; probed when absent.
    pub kind: Option<RemoteKind>,
    /// Headers sent upstream, secrets resolved.
    pub headers: BTreeMap<String, String>,
    /// Hash of the declaration.
    pub fingerprint: Fingerprint,
}

impl std::fmt::Debug for RemoteDecl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteDecl")
            .field("kind", &self.kind)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// How a remote server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteKind {
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE of 2024-11-05.
    Sse,
    /// WebSocket.
    WebSocket,
    /// Lines over plain TCP.
    Tcp,
}

/// How a server's transport is to be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportWish {
    /// From the declaration, then the image.
    #[default]
    Auto,
    /// As said.
    Is(Transport),
}

/// How a server speaks MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// JSON lines over stdin and stdout.
    Stdio,
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

impl Transport {
    /// The word used in files, labels and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Sse => "sse",
        }
    }
}

/// Which way requests shall take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteWish {
    /// HTTP containers directly, everything else through the gateway.
    #[default]
    Auto,
    /// Through an edge listener of the daemon.
    Edge,
    /// On the container's own published port.
    Direct,
}

/// When images are pulled (`[containers] pull`, `--pull`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When the image is not on the engine.
    #[default]
    Missing,
    /// At every creation; a newer digest replaces the container.
    Always,
    /// Never.
    Never,
}

/// What to do when a container or process ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// When to restart.
    pub when: RestartWhen,
    /// Delay before the second restart in a row; doubles from there. The first has none.
    pub delay: Span,
    /// Longest delay.
    pub delay_max: Span,
    /// Restarts in a row before giving up; `None` is no limit.
    pub attempts_max: Option<u32>,
    /// Running this long forgets earlier crashes.
    pub reset_after: Span,
    /// Whether a container that is killed for memory is made anew with a higher limit, once.
    pub oom_raise: OomRaise,
}

/// The one step by which a memory limit may be raised (`restart.oomRaise`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OomRaise {
    /// Not at all.
    #[default]
    No,
    /// By half of it, in whole MiB.
    Half,
    /// To this many bytes, where that is more.
    To(i64),
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::Always,
            delay: Span::secs(1),
            delay_max: Span::secs(300),
            attempts_max: None,
            reset_after: Span::secs(600),
            oom_raise: OomRaise::No,
        }
    }
}

/// Which ends are answered with a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartWhen {
    /// Every end.
    #[default]
    Always,
    /// Ends with an exit code other than 0.
    OnFailure,
    /// None.
    Never,
}

/// How readiness is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Path probed on HTTP servers.
    pub path: Option<String>,
    /// Between probes.
    pub interval: Span,
    /// For one probe.
    pub timeout: Span,
    /// Failures in a row that make a server unhealthy.
    pub failure_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub recovery_threshold: u32,
    /// A new container must be ready within this time, else its start has failed.
    pub start_period: Span,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            path: None,
            interval: Span::secs(30),
            timeout: Span::secs(5),
            failure_threshold: 3,
            recovery_threshold: 2,
            start_period: Span::secs(60),
        }
    }
}
