//! Opening a leg: the legacy handshake, with a fresh process or with one that was left behind.
//!
//! A container outlives us. When we come back it may be anything: started and never spoken to,
//! initialized by an earlier run, in the middle of writing an answer to that run, or dead inside.
//!
//! ```text
//! fresh      initialize -> result -> initialized
//!
//! re-attach  1. a newline ends a line that an earlier run left half written; servers skip it
//!            2. ping: allowed before and after a handshake, changes nothing, and settles no
//!               dual-era server on an era we could not use. Any answer means alive
//!            3. with a remembered handshake: tools/list, unless it offers no tools.
//!               A result: adopt. An error (not initialized): 4
//!            4. initialize as with a fresh process. Servers in use take a second handshake with
//!               the same empty capabilities as no change; one that refuses it is adopted if it
//!               answers tools/list
//! ```
//!
//! Output left over from the earlier run needs no waiting for: what is left of a half-read line is
//! never a JSON object (`wire_tests::a_tail_of_an_object_is_no_object`), and late answers bear ids
//! of an earlier epoch (`wire::first_id`), so both fall away by themselves.
//!
//! Must never send anything before the newline, and never use an id of an earlier epoch.

use crate::mcp::build;
use crate::mcp::handshake::{ClientInfo, ServerInfo};
use crate::mcp::lines::LINE_BYTES_MAX;
use crate::mcp::wire::{Era, LEGACY_LATEST, RpcError, UNSUPPORTED_VERSION, first_id, member};
use crate::upstream::error::{CallError, LegError};
use crate::upstream::leg::{Call, LegIo, LineHandle};
use crate::upstream::pump;
use crate::upstream::table::{Outlets, Shared};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// How a leg is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What we know of the process.
    pub mode: Mode,
    /// Who we say we are.
    pub client: ClientInfo,
    /// How long to wait for what.
    pub deadlines: Deadlines,
    /// The longest line accepted; [`LINE_BYTES_MAX`] unless configured.
    pub line_bytes_max: usize,
    /// Where by-products go.
    pub outlets: Outlets,
}

impl OpenOptions {
    /// Options for a process in `mode`, all else at its defaults.
    #[must_use]
    pub fn new(mode: Mode, client: ClientInfo) -> Self {
        let (deadlines, outlets) = (Deadlines::default(), Outlets::default());
        Self { mode, client, deadlines, line_bytes_max: LINE_BYTES_MAX, outlets }
    }
}

/// What we know of the process behind the streams.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Just started, by us, for these streams.
    Fresh,
    /// Running; anything may have been said before.
    Reattach {
        /// Now, in seconds since the Unix epoch: puts our ids above those of earlier runs.
        unix_secs: u64,
        /// The result of `initialize` that an earlier run got from this very process.
        remembered: Option<Box<RawValue>>,
    },
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the answer to `initialize`; servers take seconds to start.
    pub initialize: Duration,
    /// For each probe of a process that was left behind.
    pub probe: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { initialize: Duration::from_secs(30), probe: Duration::from_secs(10) }
    }
}

pub(crate) async fn open(
    io: LegIo,
    options: OpenOptions,
) -> Result<(LineHandle, Option<ServerInfo>), LegError> {
    let (first, reattached) = match &options.mode {
        Mode::Fresh => (1, false),
        Mode::Reattach { unix_secs, .. } => (first_id(*unix_secs), true),
    };
    let (shared, outbound) = Shared::new(first, options.outlets.clone());
    let shared = Arc::new(shared);
    if reattached {
        shared.queue_own(String::new());
    }
    let LegIo { stdout, stdin, stderr } = io;
    let read = pump::read_messages(stdout, Arc::clone(&shared), options.line_bytes_max, reattached);
    let write = pump::write_messages(stdin, Arc::clone(&shared), outbound);
    let mut tasks = vec![tokio::spawn(read).abort_handle(), tokio::spawn(write).abort_handle()];
    if let Some(stderr) = stderr {
        tasks.push(tokio::spawn(pump::read_stderr(stderr, Arc::clone(&shared))).abort_handle());
    }
    let line = LineHandle { shared, tasks };
    let server = match &options.mode {
        Mode::Fresh => Some(initialize(&line, &options).await?),
        Mode::Reattach { remembered, .. } => reattach(&line, &options, remembered.as_deref()).await?,
    };
    Ok((line, server))
}

async fn reattach(
    line: &LineHandle,
    options: &OpenOptions,
    remembered: Option<&RawValue>,
) -> Result<Option<ServerInfo>, LegError> {
    let probe = options.deadlines.probe;
    match ask(line, "ping", None, probe).await {
        Ok(_) | Err(LegError::Refused(_)) => {}
        Err(why) => return Err(why),
    }
    if let Some(server) = remembered.and_then(ServerInfo::of_initialize) {
        let tools = server.capabilities().and_then(|capabilities| member(capabilities, "tools"));
        if tools.is_none() {
            return Ok(Some(server));
        }
        match ask(line, "tools/list", None, probe).await {
            Ok(_) => return Ok(Some(server)),
            Err(LegError::Refused(_)) => {}
            Err(why) => return Err(why),
        }
    }
    let refused = match initialize(line, options).await {
        Ok(server) => return Ok(Some(server)),
        Err(LegError::Refused(error)) => error,
        Err(why) => return Err(why),
    };
    match ask(line, "tools/list", None, probe).await {
        Ok(_) => Ok(remembered.and_then(ServerInfo::of_initialize)),
        Err(_) => Err(LegError::Refused(refused)),
    }
}

async fn initialize(line: &LineHandle, options: &OpenOptions) -> Result<ServerInfo, LegError> {
    let params = build::initialize_params(LEGACY_LATEST, &options.client);
    let result = match ask(line, "initialize", params.as_deref(), options.deadlines.initialize).await {
        Err(LegError::Refused(error)) if error.code == UNSUPPORTED_VERSION => {
            return Err(LegError::Modern(error));
        }
        other => other?,
    };
    let server = ServerInfo::of_initialize(&result).ok_or(LegError::Malformed)?;
    if Era::of(&server.protocol_version) != Some(Era::Legacy) {
        return Err(LegError::Version(server.protocol_version));
    }
    line.shared.queue_own(build::initialized());
    Ok(server)
}

async fn ask(
    line: &LineHandle,
    method: &'static str,
    params: Option<&RawValue>,
    timeout: Duration,
) -> Result<Box<RawValue>, LegError> {
    let answer = line.send(Call { method, params, timeout, progress: None }).await;
    answer.map_err(|error| match error {
        CallError::Rpc(error) => LegError::Refused(error),
        CallError::TimedOut { after } => LegError::Silent { method, after },
        CallError::Closed(why) => LegError::Closed(why),
        error @ (CallError::Busy | CallError::TooLong { .. } | CallError::Params | CallError::List(_)) => {
            LegError::Call(error)
        }
    })
}

/// The error that a server refused something with, if it did.
#[must_use]
pub fn refusal(error: &LegError) -> Option<&RpcError> {
    match error {
        LegError::Refused(error) | LegError::Modern(error) => Some(error),
        LegError::Silent { .. }
        | LegError::Version(_)
        | LegError::Malformed
        | LegError::Closed(_)
        | LegError::Call(_) => None,
    }
}
