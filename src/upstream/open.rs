//! Opening a leg: finding out the era and shaking hands, with a fresh process or with one that was
//! left behind.
//!
//! A container outlives us. When we come back it may be anything: started and never spoken to,
//! initialized by an earlier run, in the middle of writing an answer to that run, or dead inside.
//!
//! ```text
//! fresh      what `mcp::era` says
//!
//! re-attach  1. a newline ends a line that an earlier run left half written; servers skip it
//!            2. with a remembered handshake, legacy: ping, then tools/list unless it offers no
//!               tools; modern: server/discover. A result: adopt. An error (not initialized): 3
//!            3. as with a fresh process. Servers in use take a second handshake with the same
//!               empty capabilities as no change; one that refuses it is adopted if it answers
//!               tools/list
//! ```
//!
//! Output left over from the earlier run needs no waiting for: what is left of a half-read line is
//! never a JSON object (`wire_tests::a_tail_of_an_object_is_no_object`), and late answers bear ids
//! of an earlier epoch (`wire::first_id`), so both fall away by themselves.
//!
//! Must never send anything before the newline, and never use an id of an earlier epoch.

use crate::mcp::build;
use crate::mcp::era::{EraError, Event, First, Probe, Step, Verdict};
use crate::mcp::handshake::{ClientInfo, ServerInfo};
use crate::mcp::lines::LINE_BYTES_MAX;
use crate::mcp::wire::{Era, RpcError, first_id, member};
use crate::upstream::error::{CallError, LegError};
use crate::upstream::leg::{Call, Greeting, LegIo, LineHandle, OnDrop};
use crate::upstream::pump;
use crate::upstream::table::{Outlets, Routing, Shared};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// How a leg is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What we know of the process.
    pub mode: Mode,
    /// The era an earlier probe of the same program found.
    pub known: Option<Era>,
    /// This process is the second one of a probe.
    pub second: bool,
    /// Who is behind the leg.
    pub routing: Routing,
    /// The params of the one client's own `initialize`, passed on as written; the era is legacy
    /// then.
    pub initialize: Option<Box<RawValue>>,
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
        Self {
            mode,
            known: None,
            second: false,
            routing: Routing::Shared,
            initialize: None,
            client,
            deadlines: Deadlines::default(),
            line_bytes_max: LINE_BYTES_MAX,
            outlets: Outlets::default(),
        }
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
        /// What an earlier run found out about this very process.
        remembered: Option<Remembered>,
    },
}

/// The handshake of an earlier run.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The era.
    pub era: Era,
    /// The result of `initialize` or `server/discover`.
    pub info: Box<RawValue>,
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

/// The version supposed of a server that was adopted without a handshake anybody remembers.
const LEGACY_ADOPTED: &str = "2025-03-26";

pub(crate) async fn open(io: LegIo, options: OpenOptions) -> Result<(LineHandle, Greeting), LegError> {
    let (first, reattached) = match &options.mode {
        Mode::Fresh => (1, false),
        Mode::Reattach { unix_secs, .. } => (first_id(*unix_secs), true),
    };
    let (shared, outbound) = Shared::new(first, options.outlets.clone(), options.routing);
    let shared = Arc::new(shared);
    if reattached {
        shared.queue_own(String::new());
    }
    let LegIo { stdout, stdin, stderr } = io;
    let read = pump::read_messages(stdout, Arc::clone(&shared), options.line_bytes_max, reattached);
    let write = pump::write_messages(stdin, Arc::clone(&shared), outbound);
    let mut tasks = vec![tokio::spawn(read).abort_handle(), tokio::spawn(write).abort_handle()];
    let words = stderr.map(|stderr| tokio::spawn(pump::read_stderr(stderr, Arc::clone(&shared))));
    let words = words.map(|words| words.abort_handle());
    tasks.extend(words.clone());
    let line = LineHandle { shared, tasks, words };
    let greeting = match &options.mode {
        Mode::Fresh => greet(&line, &options).await,
        Mode::Reattach { remembered, .. } => reattach(&line, &options, remembered.as_ref()).await,
    };
    match greeting {
        Ok(greeting) => Ok((line, greeting)),
        Err(why) => {
            if line.shared.is_closed() {
                line.hear_out().await;
            }
            Err(match (why, line.shared.metrics().noise) {
                (LegError::Era(EraError::Silent), lines @ 1..) => LegError::Era(EraError::Babbles { lines }),
                (why, _) => why,
            })
        }
    }
}

async fn reattach(
    line: &LineHandle,
    options: &OpenOptions,
    remembered: Option<&Remembered>,
) -> Result<Greeting, LegError> {
    if let Some(remembered) = remembered
        && let Some(greeting) = adopt(line, options, remembered).await?
    {
        return Ok(greeting);
    }
    let refused = match greet(line, options).await {
        Err(again @ LegError::Again(_)) => again,
        other => return other,
    };
    match ask(line, "tools/list", None, options.deadlines.probe).await {
        Ok(_) => {
            let server = remembered.and_then(|remembered| ServerInfo::of_initialize(&remembered.info));
            Ok(Greeting { era: Era::Legacy, version: LEGACY_ADOPTED.to_owned(), server })
        }
        Err(_) => Err(refused),
    }
}

/// A process that an earlier run spoke to, if it still knows what was agreed.
async fn adopt(
    line: &LineHandle,
    options: &OpenOptions,
    remembered: &Remembered,
) -> Result<Option<Greeting>, LegError> {
    let probe = options.deadlines.probe;
    if remembered.era == Era::Modern {
        // The greeting of a modern server can be asked for again at any time.
        return Ok(None);
    }
    match ask(line, "ping", None, probe).await {
        Ok(_) | Err(LegError::Refused(_)) => {}
        Err(why) => return Err(why),
    }
    let Some(server) = ServerInfo::of_initialize(&remembered.info) else { return Ok(None) };
    let greeting =
        Greeting { era: Era::Legacy, version: server.protocol_version.clone(), server: Some(server.clone()) };
    if server.capabilities().and_then(|capabilities| member(capabilities, "tools")).is_none() {
        return Ok(Some(greeting));
    }
    match ask(line, "tools/list", None, probe).await {
        Ok(_) => Ok(Some(greeting)),
        Err(LegError::Refused(_)) => Ok(None),
        Err(why) => Err(why),
    }
}

/// Goes through the steps of [`Probe`] as far as this process can be used.
async fn greet(line: &LineHandle, options: &OpenOptions) -> Result<Greeting, LegError> {
    let known = match (&options.initialize, &options.mode) {
        (Some(_), _) => Some(Era::Legacy),
        (None, Mode::Reattach { remembered: Some(remembered), .. }) => Some(remembered.era),
        (None, _) => options.known,
    };
    let (mut probe, mut first) = Probe::begin(known, options.second);
    loop {
        match try_first(&mut probe, line, options, &first).await? {
            Step::Send(next) => first = next,
            Step::Restart(next) => {
                let era = match next {
                    First::Initialize(_) => Era::Legacy,
                    First::Discover(_) => Era::Modern,
                };
                return Err(if line.shared.is_closed() {
                    LegError::Ended(era)
                } else {
                    LegError::Again(era)
                });
            }
            Step::Failed(why) => return Err(LegError::Era(why)),
            Step::Settled(verdict) => {
                let Verdict { era, version, server } = *verdict;
                if era == Era::Legacy {
                    line.shared.queue_own(build::initialized());
                }
                return Ok(Greeting { era, version, server });
            }
        }
    }
}

/// Sends `first` and tells the probe what came of it.
async fn try_first(
    probe: &mut Probe,
    line: &LineHandle,
    options: &OpenOptions,
    first: &First,
) -> Result<Step, LegError> {
    let (method, params) = match first {
        First::Discover(version) => ("server/discover", build::discover_params(version, &options.client)),
        First::Initialize(version) => {
            let own = options.initialize.clone();
            ("initialize", own.or_else(|| build::initialize_params(version, &options.client)))
        }
    };
    let step = match ask(line, method, params.as_deref(), options.deadlines.initialize).await {
        Ok(result) => probe.on(Event::Result(&result)),
        Err(LegError::Refused(error)) => probe.on(Event::Error(&error)),
        Err(LegError::Silent { .. }) => probe.on(Event::Timeout),
        Err(LegError::Closed(why)) => match probe.on(Event::Closed) {
            Step::Failed(EraError::Ended) => return Err(LegError::Closed(why)),
            step => step,
        },
        Err(other) => return Err(other),
    };
    Ok(step)
}

async fn ask(
    line: &LineHandle,
    method: &'static str,
    params: Option<&RawValue>,
    timeout: Duration,
) -> Result<Box<RawValue>, LegError> {
    let call = Call { on_drop: OnDrop::Leave, ..Call::new(method, params) };
    let answer = match line.start(call) {
        Ok(mut running) => running.answer(timeout).await,
        Err(error) => Err(error),
    };
    answer.map_err(|error| match error {
        CallError::Rpc(error) => LegError::Refused(error),
        CallError::TimedOut { after } => LegError::Silent { method, after },
        CallError::Closed(why) | CallError::Unsent(why) => LegError::Closed(why),
        error @ (CallError::Busy
        | CallError::Cancelled
        | CallError::TooLong { .. }
        | CallError::Params
        | CallError::List(_)) => LegError::Call(error),
    })
}

/// The error that a server refused something with, if it did.
#[must_use]
pub fn refusal(error: &LegError) -> Option<&RpcError> {
    match error {
        LegError::Refused(error) => Some(error),
        LegError::Silent { .. }
        | LegError::Again(_)
        | LegError::Ended(_)
        | LegError::Era(_)
        | LegError::World(_)
        | LegError::Closed(_)
        | LegError::Call(_) => None,
    }
}
