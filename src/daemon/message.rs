//! Events an operator would alert on, each with its `MESSAGE_ID` and the page of the journal's
//! catalog that explains it (`journalctl -x`).
//!
//! Why it is so: a message's words change and its id does not, so an alert that asks for
//! `MESSAGE_ID=…` goes on working. `packaging/mcp-orchestrator.catalog` is written from this table.
//!
//! Must never give an id to another event, nor reuse one that is gone.

use crate::plan::report::{Row, RowState};
use std::fmt::Write as _;

/// An event, as the catalog explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// 128 bits in hexadecimal, as in `MESSAGE_ID`.
    pub id: &'static str,
    /// One line; `@FIELD@` stands for a field of the entry.
    pub subject: &'static str,
    /// What it means and what to do.
    pub text: &'static str,
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $subject:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Event = Event { id: $id, subject: $subject, text: $text };)*

        /// Every event, in the catalog's order.
        pub const EVENTS: &[Event] = &[$($name,)*];
    };
}

events! {
    /// The daemon runs.
    STARTED = "a7ac75732a8646c0a635cdcc4f754405", "mcp-orchestrator started",
        "The daemon reads its files and begins to bring servers, ports and routes in line with them.";
    /// The daemon ends.
    STOPPED = "0a76e1f1fbc3466baa83f49b07662056", "mcp-orchestrator stopped",
        "Containers go on running. Nothing is restarted or rerouted until the daemon runs again.";
    /// Another version of the files is in force.
    CONFIGURATION_READ = "b181f94c94074bc78c77bd7f26858f0a", "Configuration generation @MCP_GENERATION@ is in force",
        "A changed file was accepted: @MCP_REASON@.\n\n`mcp-orchestrator status --json` and `/readyz` tell which generation is served.";
    /// The files cannot be used.
    CONFIGURATION_UNUSABLE = "68fce7b8913941c29b6665ec095848c5", "Configuration cannot be used",
        "@MCP_REASON@\n\nWhat was in force stays in force and nothing is removed. Run `mcp-orchestrator validate`: it names every problem with its place. The daemon goes on by itself once the file is mended.";
    /// New settings wait for a restart.
    RESTART_NEEDED = "13577a6fb8fa4508a13c8f71922e5197", "Settings wait for a restart",
        "@MCP_REASON@\n\nThe values of the start stay in force; everything else of settings.conf is applied. `systemctl restart mcp-orchestrator` applies them; containers go on running.";
    /// The guard holds removals back.
    REMOVAL_HELD_BACK = "bff0f6c2b45c4540b7fd6900e9211474", "Removal of servers is held back",
        "The file lost more than half of its servers, or all of them; everything stays as it is.\n\nIf that is meant, run `mcp-orchestrator sync --allow-mass-delete`.";
    /// A server needs somebody.
    SERVER_BLOCKED = "3ece37cafb6346cc9459f2bc211b73d1", "Server @MCP_SERVER@ is blocked: @MCP_ERROR_CODE@",
        "@MCP_REASON@\n\nIt does not go on by itself. `mcp-orchestrator why @MCP_SERVER@` says more; the error code has a page in the reference. No other server is affected.";
    /// A server ends again and again.
    SERVER_ENDS = "1c42b168a4b04a35b01ab35fcd7bfd00", "Server @MCP_SERVER@ ended",
        "@MCP_REASON@\n\nThe first restart has no delay, the next ones wait longer and longer. `mcp-orchestrator why @MCP_SERVER@` names the next try; `mcp-orchestrator logs @MCP_SERVER@` shows what it printed.";
    /// A server ended too often.
    SERVER_GAVE_UP = "e09c85a66b3d4d82ba5b2b15ae628a72", "Server @MCP_SERVER@ is not started any more",
        "@MCP_REASON@\n\nIt ended as often in a row as its `restart.maxAttempts` allows. `mcp-orchestrator logs @MCP_SERVER@` shows what it printed; when the cause is mended, run `mcp-orchestrator restart-server @MCP_SERVER@`.";
    /// A server runs but does not answer.
    SERVER_SILENT = "6c1e0b7d5f3a4e29b8d47a90c2f5136e", "Server @MCP_SERVER@ does not answer MCP",
        "@MCP_REASON@\n\nIt is tried again after a while that grows with every failure; requests get 503 until then. `mcp-orchestrator logs @MCP_SERVER@` shows what it printed, `mcp-orchestrator why @MCP_SERVER@` names the next try.";
    /// A server is well after one of the events above.
    SERVER_RECOVERED = "99fe57d191cd4d75a2ee477313d7ae42", "Server @MCP_SERVER@ is well again",
        "It is as the file wants it.";
    /// A new container did not come up.
    REPLACEMENT_FAILED = "c3875cc899154e07b8f67493e2e2711f", "Replacement of server @MCP_SERVER@ failed",
        "@MCP_REASON@\n\nThe old container stays or comes back. After several failures no further replacement is begun.";
    /// A port cannot be had.
    PORT_UNAVAILABLE = "5f407de2a61149eeb0d7048533519566", "Server @MCP_SERVER@ has no port it can use",
        "@MCP_REASON@\n\nEnd the process that holds the port, or widen the range of ports in settings.conf.";
    /// A port of the daemon itself cannot be had.
    LISTENER_BLOCKED = "d6c6c9e90c3a406b9dde5fa9f65c3edd", "Port @MCP_PORT@ cannot be listened on",
        "A listener of the daemon itself waits for its port and asks again and again; servers' own ports are not affected.\n\nEnd the process that holds the port (`ss -ltnp`), or set another one in settings.conf.";
    /// An action failed.
    ACTION_FAILED = "80c7cd81666e4dbd95ece04843739b10", "Failed: @MCP_ACTION@",
        "It is tried again by itself. `mcp-orchestrator why @MCP_SERVER@` names the next try.";
    /// The engine does not answer.
    ENGINE_AWAY = "973c37c2062d455ab9981de13d5f16e1", "The container engine does not answer",
        "Containers that run go on running. Nothing is started, replaced or removed until the engine is back; that is noticed within seconds.\n\n`systemctl status docker` shows the engine.";
    /// The engine answers again.
    ENGINE_BACK = "17d33d228bd249b8a31d40cd4dfc77bb", "The container engine answers again",
        "Work goes on where it was.";
    /// AWS does not answer.
    BALANCER_AWAY = "4703365ff99140769cdbcbcf4d090419", "The load balancer cannot be read",
        "Nothing of it is changed, and it is asked again by itself. Requests to servers that are registered are not affected.\n\nCheck credentials, region and network.";
    /// AWS answers again.
    BALANCER_BACK = "c8bacd2872ba447c9cf4df5aed854906", "The load balancer can be read again",
        "Rules, target groups and targets are brought in line again.";
    /// A quota of AWS is used up.
    BALANCER_QUOTA = "2b810202d3014079a9d673215be3a066", "Server @MCP_SERVER@ has no route for want of quota",
        "@MCP_REASON@\n\nIts container runs and other servers are not affected. Ask AWS for a higher quota, or remove rules and target groups nobody needs.";
    /// All targets of a server are sick.
    OUTAGE = "88a7c070a7be4a829e2a22940719b92d", "All targets of server @MCP_SERVER@ are unhealthy",
        "The load balancer then forwards to all of them. Look at the server's log, and from its target at its health path.";
    /// The state file was lost.
    STATE_LOST = "d2f1c1a3f5c94b0f9a53e1b7c60e4d18", "The state file was lost and made anew",
        "It was moved aside and a new one made from the containers' labels. Nothing needs doing.";
    /// The state file cannot be written.
    STATE_UNSAVED = "9bb95325d76143ca9ebf3b4a86ca0dce", "State cannot be saved",
        "@MCP_REASON@\n\nServers go on, and every pass tries again; what was learned since is lost if the daemon ends before it can be saved. Make room on the disk of the state directory, or make it writable.";
    /// The state file can be written again.
    STATE_SAVED = "b2533ecb494149498a57937fce12b952", "State is saved again",
        "What could not be saved is on disk now. Nothing needs doing.";
    /// A fault of the program.
    FAULT = "5b0d9c7e21f84c64a8e3d96b7f10c2ae", "mcp-orchestrator found a fault of its own",
        "A plan broke an invariant and was refused; what runs stays as it is. This is a bug: report it with this entry.";
}

/// The event that an error code stands for, where it is one to alert on.
#[must_use]
pub fn of_code(code: &str) -> Option<Event> {
    Some(match code {
        "MCPO-P002" | "MCPO-P003" => CONFIGURATION_UNUSABLE,
        "MCPO-P004" => REMOVAL_HELD_BACK,
        "MCPO-P041" => SERVER_GAVE_UP,
        "MCPO-P042" | "MCPO-P045" => SERVER_ENDS,
        "MCPO-P043" => SERVER_SILENT,
        "MCPO-P050" | "MCPO-P051" => REPLACEMENT_FAILED,
        "MCPO-P010" | "MCPO-P011" | "MCPO-P012" => PORT_UNAVAILABLE,
        "MCPO-P060" => BALANCER_AWAY,
        "MCPO-P061" | "MCPO-A003" | "MCPO-A004" => BALANCER_QUOTA,
        "MCPO-A009" => OUTAGE,
        "MCPO-P070" => FAULT,
        "MCPO-R001" => RESTART_NEEDED,
        "MCPO-R002" => CONFIGURATION_UNUSABLE,
        "MCPO-S001" => STATE_LOST,
        "MCPO-S002" => STATE_UNSAVED,
        "MCPO-G023" => LISTENER_BLOCKED,
        _ => return None,
    })
}

/// The event that a server's row stands for.
#[must_use]
pub fn of_row(row: &Row) -> Option<Event> {
    let told = row.reasons.iter().filter_map(|reason| reason.code).find_map(of_code);
    told.or((row.state == RowState::Blocked).then_some(SERVER_BLOCKED))
}

/// The journal's catalog: `/usr/lib/systemd/catalog/mcp-orchestrator.catalog`.
#[must_use]
pub fn catalog() -> String {
    let mut out = String::from(
        "# Explanations of mcp-orchestrator's log entries, for `journalctl -x`.\n# Install as /usr/lib/systemd/catalog/mcp-orchestrator.catalog, then: journalctl --update-catalog\n",
    );
    for Event { id, subject, text } in EVENTS {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n-- {id}\nSubject: {subject}\nDefined-By: mcp-orchestrator\n\n{text}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{EVENTS, SERVER_BLOCKED, SERVER_ENDS, catalog, of_code, of_row};
    use crate::plan::report::{Reason, ReasonKind, Row, RowState};
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_ids_and_each_is_there_once() {
        let ids: BTreeSet<&str> = EVENTS.iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), EVENTS.len());
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(hexadecimal)));
        assert_eq!(catalog().matches("\n-- ").count(), EVENTS.len());
    }

    #[test]
    fn a_row_is_told_by_its_code_before_its_state() {
        let mut row = Row { state: RowState::Blocked, ..row() };
        assert_eq!(of_row(&row), Some(SERVER_BLOCKED));
        row.reasons.push(Reason::new(ReasonKind::WaitingOn, "restart").code("MCPO-P042"));
        assert_eq!(of_row(&row), Some(SERVER_ENDS));
        row.state = RowState::Converged;
        row.reasons.clear();
        assert_eq!(of_row(&row), None);
        assert_eq!(of_code("MCPO-A008"), None, "advice is no alert");
    }

    fn row() -> Row {
        Row { state: RowState::Waiting, ..Row::new("container") }
    }
}
