//! Counts accepted contents of the files.
//!
//! The number and what it stands for are kept beside the state, so that the same files are the same
//! generation after a restart. Without the note (a lost state file, a full disk) counting begins
//! anew or goes on in memory: nothing depends on the number but whoever compares it.

use crate::api::configuration::Configuration;
use crate::daemon::sha256;
use crate::model::desired::Desired;
use crate::model::server::ServerKind;
use crate::store::SqliteStore;
use std::fmt::Write as _;
use std::sync::Arc;

/// Where the store keeps the last generation.
const NOTE: &str = "configuration";

/// What a generation stands for: the bytes of both files, and what they refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content(String);

impl Content {
    /// The content of the files in `told`, read as `desired`, with these tokens.
    pub(super) fn new(told: &Configuration, desired: &Desired, tokens: Option<&str>) -> Self {
        let name = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "none".to_owned());
        let mut text = format!("{}\n{}\n", name(&told.config.sha256), name(&told.settings.sha256));
        // The hashes of declarations cover the secrets that the file only refers to.
        for (id, server) in &desired.servers {
            let print = match &server.kind {
                ServerKind::Container(decl) => &decl.fingerprint,
                ServerKind::Process(decl) => &decl.fingerprint,
                ServerKind::Remote(decl) => &decl.fingerprint,
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{id} {print}");
        }
        text.push_str(tokens.unwrap_or_default());
        Self(sha256(text.as_bytes()))
    }
}

/// Gives contents their numbers.
pub(in crate::daemon) struct Generations {
    store: Arc<SqliteStore>,
    /// The last one, and its content.
    last: Option<(u64, Content)>,
}

impl Generations {
    /// Goes on from the last run's.
    pub(in crate::daemon) async fn load(store: Arc<SqliteStore>) -> Self {
        let note = store.note(NOTE).await.ok().flatten();
        let last = note.as_deref().and_then(|note| {
            let (number, content) = note.split_once(' ')?;
            Some((number.parse().ok()?, Content(content.to_owned())))
        });
        Self { store, last }
    }

    /// The number of a content: the last one's when it is the same, else the next.
    pub(super) async fn of(&mut self, content: &Content) -> u64 {
        if let Some((number, _)) = self.last.as_ref().filter(|(_, last)| last == content) {
            return *number;
        }
        let number = self.last.as_ref().map_or(1, |(number, _)| number.saturating_add(1));
        self.last = Some((number, content.clone()));
        if let Err(error) = self.store.set_note(NOTE, Some(&format!("{number} {}", content.0))).await {
            tracing::debug!(MCP_ERROR_CODE = error.kind.code(), "generation {number} is not kept: {error}");
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Generations};
    use crate::model::time::Timestamp;
    use crate::store;
    use std::sync::Arc;

    fn content(text: &str) -> Content {
        Content(text.to_owned())
    }

    #[tokio::test]
    async fn equal_contents_are_one_generation_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let opened = store::open(&dir.path().join("state.db"), Timestamp(0), [7; 32]).unwrap();
            Arc::new(opened.store)
        };
        let mut generations = Generations::load(open()).await;
        assert_eq!(generations.of(&content("a")).await, 1);
        assert_eq!(generations.of(&content("a")).await, 1);
        assert_eq!(generations.of(&content("b")).await, 2);
        drop(generations);
        let mut generations = Generations::load(open()).await;
        assert_eq!(generations.of(&content("b")).await, 2);
        assert_eq!(generations.of(&content("a")).await, 3, "it never goes back");
    }
}
