//! The codes of a host that restarts enough, of servers that were killed for memory, and of those that wait
//! for a section.
//!
//! Must never give a code to another problem.

use crate::cli::codes::doc;
use crate::config::codes::CodeDoc;

/// In order, each once.
pub(super) const DOCS: &[CodeDoc] = &[
    doc(
        "MCPO-P044",
        "this host restarts enough",
        "Servers, containers and local processes together, were restarted as often within a minute as `[recovery] restarts_per_minute_max` allows, or most of them do not answer, so that the host or its network is taken to be ill.",
        "Look for what they have in common: memory, disk, network, a dependency. It goes on by itself.",
    ),
    doc(
        "MCPO-P045",
        "killed for memory",
        "The kernel killed the container because it wanted more memory than its limit allows, or because the host had none left (exit code 137, and the engine says `OOMKilled`; a plain kill has the same exit code and does not say so). Of a local process the kernel's counts say it, where the runner gave it a control group of its own. It is restarted as after any other end, and this is said of it for a day. With `restart.oomRaise` it is made anew, once, with a higher limit, which holds until the declared one is another.",
        "Raise `limits.memory` to what the text of the reason names, or find out what the server needs it for. Without a limit of its own the host is short of memory: give servers limits.",
    ),
    doc(
        "MCPO-P046",
        "waits for a section",
        "A section that the server depends on (`dependsOn`) is not up: one of its servers does not run, is starting, does not answer or was stopped by hand. The server is not started, and not restarted, until the section is up, at most for `[recovery] dependency_wait_seconds`; then it is started all the same.",
        "`why` of the server that is named in the reason says what is wrong with it.",
    ),
];
