//! What outlives a restart of one client's session, and of one server's handshake.
//!
//! A session's id is what lets its client in, so only its hash is kept: who reads the state file
//! cannot take a session over.
//!
//! Must never hold what a client or server said beyond its handshake.

use crate::model::id::{ContainerId, ServerId};
use crate::model::time::Timestamp;

/// Sessions kept; beyond that the longest unused are forgotten.
pub const SESSIONS_MAX: usize = 20_000;
/// Longest record that is kept, in bytes of its texts: one client must not fill the disk.
pub const SESSION_BYTES_MAX: usize = 16 * 1024;
/// Handshakes kept; beyond that the oldest are forgotten.
pub const LEG_MEMORIES_MAX: usize = 2_000;
/// Longest [`LegMemory::info`], in bytes.
pub const LEG_INFO_BYTES_MAX: usize = 256 * 1024;

/// A legacy session (`Mcp-Session-Id`), as far as it can go on without its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// SHA-256 of the session's id, in hex.
    pub id_hash: String,
    /// Whose session.
    pub server: ServerId,
    /// The protocol version agreed on.
    pub version: String,
    /// The client's capabilities, as JSON.
    pub capabilities: String,
    /// The client's `clientInfo`, as JSON.
    pub client: String,
    /// Who opened it: nobody else may use it.
    pub principal: String,
    /// What `logging/setLevel` set.
    pub log_level: Option<String>,
    /// URIs of `resources/subscribe`.
    pub subscriptions: Vec<String>,
    /// When it was opened.
    pub created: Timestamp,
    /// When its client was last heard of.
    pub last_used: Timestamp,
}

impl SessionRecord {
    /// Whether it is short enough to be kept ([`SESSION_BYTES_MAX`]).
    #[must_use]
    pub fn fits(&self) -> bool {
        let Self {
            id_hash,
            server,
            version,
            capabilities,
            client,
            principal,
            log_level,
            subscriptions,
            created: _,
            last_used: _,
        } = self;
        let texts = [id_hash, server.as_str(), version, capabilities, client, principal];
        let all =
            texts.into_iter().chain(log_level.as_deref()).chain(subscriptions.iter().map(String::as_str));
        all.map(str::len).sum::<usize>() <= SESSION_BYTES_MAX
    }
}

/// A change of the kept sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A new session, or all of one anew. One that does not [`fits`](SessionRecord::fits) is not
    /// kept, nor is what was kept of it before.
    Put(SessionRecord),
    /// Its client was heard of; nothing when it is not kept.
    Touch {
        /// Which.
        id_hash: String,
        /// When.
        last_used: Timestamp,
    },
    /// It has ended.
    Remove(String),
}

/// The family of protocol versions that a process speaks: the first message settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegEra {
    /// `initialize` and sessions, up to 2025-11-25.
    Legacy,
    /// `server/discover` and no sessions, from 2026-07-28.
    Modern,
}

impl LegEra {
    /// The word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Legacy, Self::Modern].into_iter().find(|era| era.as_str() == text)
    }
}

/// The handshake with a container that outlives us: it takes no second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegMemory {
    /// With which container.
    pub container: ContainerId,
    /// Which family was settled on.
    pub era: LegEra,
    /// The protocol version agreed on.
    pub version: String,
    /// The result of `initialize` or `server/discover`, as the server wrote it.
    pub info: String,
}

#[cfg(test)]
mod tests {
    use super::{LegEra, SESSION_BYTES_MAX, SessionRecord};
    use crate::model::id::ServerId;
    use crate::model::time::Timestamp;

    #[test]
    fn every_text_counts() {
        let record = SessionRecord {
            id_hash: "ab".to_owned(),
            server: ServerId::new("time").expect("an id"),
            version: "2025-11-25".to_owned(),
            capabilities: "{}".to_owned(),
            client: "{}".to_owned(),
            principal: "local".to_owned(),
            log_level: None,
            subscriptions: Vec::new(),
            created: Timestamp(1),
            last_used: Timestamp(1),
        };
        assert!(record.fits());
        let long = || "x".repeat(SESSION_BYTES_MAX);
        let changes: [fn(&mut SessionRecord, String); 7] = [
            |record, text| record.id_hash = text,
            |record, text| record.version = text,
            |record, text| record.capabilities = text,
            |record, text| record.client = text,
            |record, text| record.principal = text,
            |record, text| record.log_level = Some(text),
            |record, text| record.subscriptions = vec![String::new(), text],
        ];
        for change in changes {
            let mut longer = record.clone();
            change(&mut longer, long());
            assert!(!longer.fits(), "{longer:?}");
        }
    }

    #[test]
    fn eras_read_back() {
        for era in [LegEra::Legacy, LegEra::Modern] {
            assert_eq!(LegEra::parse(era.as_str()), Some(era));
        }
        assert_eq!(LegEra::parse("future"), None);
    }
}
