//! What one client sees of one server: the tools that the entry offers and the client was granted,
//! under the names that the entry gives them.
//!
//! It is the same at a server's own endpoint and at that of all servers: a filter that could be
//! walked around would be none. Must never let a request through that the list would not show.

use crate::gateway::hub::Entry;
use crate::gateway::places::Offer;
use crate::mcp::combine::{self, Kind};
use crate::mcp::front::Refusal;
use crate::mcp::wire::{INVALID_PARAMS, member, splice, text_of};
use crate::model::access::Grant;
use crate::model::id::ServerId;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What one client sees of one server.
#[derive(Clone, Debug)]
pub struct Lens {
    server: ServerId,
    offer: Arc<Offer>,
    grant: Arc<Grant>,
    /// Whether the client sees it among all servers.
    together: bool,
}

impl Lens {
    /// At the server's own endpoint; `None` when there is nothing to leave out or to rename.
    #[must_use]
    pub fn alone(entry: &Entry, grant: &Arc<Grant>) -> Option<Arc<Self>> {
        let offer = entry.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
        let clear = grant.is_all() && offer.tools.is_open();
        let server = entry.slot.id.clone();
        (!clear).then(|| Arc::new(Self::of(server, offer, Arc::clone(grant))))
    }

    /// At the endpoint of all servers.
    #[must_use]
    pub fn together(entry: &Entry, grant: &Arc<Grant>) -> Arc<Self> {
        let offer = entry.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
        Arc::new(Self { server: entry.slot.id.clone(), offer, grant: Arc::clone(grant), together: true })
    }

    /// Of a server, with what it offers and what a client was granted, at the server's own endpoint.
    #[must_use]
    pub const fn of(server: ServerId, offer: Arc<Offer>, grant: Arc<Grant>) -> Self {
        Self { server, offer, grant, together: false }
    }

    /// The server that it shows.
    #[must_use]
    pub const fn server(&self) -> &ServerId {
        &self.server
    }

    /// What it shows of the server depends on these alone.
    #[must_use]
    pub const fn scope(&self) -> (&Arc<Offer>, &Arc<Grant>) {
        (&self.offer, &self.grant)
    }

    /// Whether this client may call a tool, and sees it.
    #[must_use]
    pub fn admits(&self, own: &str, reads: bool) -> bool {
        self.offer.tools.admits(own, reads) && self.grant.admits_tool(&self.server, own, reads)
    }

    /// Whether this client may use what is no tool.
    #[must_use]
    pub fn admits_others(&self) -> bool {
        self.grant.admits_others()
    }

    /// The server's own name for a tool that this client calls so.
    #[must_use]
    pub fn own_tool<'a>(&'a self, shown: &'a str) -> Option<&'a str> {
        self.offer.tools.own(shown)
    }

    /// Whether a call of this tool may go to the server.
    ///
    /// # Errors
    /// What the client is told; no more than of a tool that does not exist.
    pub(crate) async fn check_tool(&self, entry: &Arc<Entry>, own: &str, shown: &str) -> Result<(), Refusal> {
        if !self.admits(own, true) {
            return Err(unknown("tool", shown));
        }
        if self.admits(own, false) {
            return Ok(());
        }
        // Only what is known to read goes through.
        match entry.tool_only_reads(own).await {
            Some(true) => Ok(()),
            Some(false) | None => Err(unknown("tool", shown)),
        }
    }

    /// A request at the server's own endpoint as the server gets it; `None` leaves it as it is.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) async fn inward(
        &self,
        entry: &Arc<Entry>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Option<Box<RawValue>>, Refusal> {
        if self.together {
            return Ok(None);
        }
        match method {
            "tools/call" => {
                let name = params.and_then(|params| member(params, "name")).and_then(text_of);
                let (Some(params), Some(name)) = (params, name) else { return Ok(None) };
                let own = self.own_tool(&name).ok_or_else(|| unknown("tool", &name))?;
                self.check_tool(entry, own, &name).await?;
                Ok(if own == name { None } else { combine::renamed(params, "name", own) })
            }
            "prompts/get" if !self.admits_others() => Err(unknown("prompt", "")),
            "resources/read" | "resources/subscribe" if !self.admits_others() => Err(unknown("resource", "")),
            "completion/complete" if !self.admits_others() => Err(unknown("reference", "")),
            _ => Ok(None),
        }
    }

    /// A result as this client gets it; `None` leaves it as it is.
    #[must_use]
    pub fn outward(&self, method: &str, result: &RawValue) -> Option<Box<RawValue>> {
        if self.together {
            return combine::outward(&self.server, method, result);
        }
        let kind = Kind::of_method(method)?;
        let list = member(result, kind.key())?;
        let entries: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        let kept: Vec<String> = entries.into_iter().filter_map(|entry| self.seen(kind, entry)).collect();
        let text = splice(result.get(), list.get(), &format!("[{}]", kept.join(",")))?;
        RawValue::from_string(text).ok()
    }

    fn seen(&self, kind: Kind, entry: &RawValue) -> Option<String> {
        if kind != Kind::Tools {
            return self.admits_others().then(|| entry.get().to_owned());
        }
        self.tool(entry).map(|tool| tool.get().to_owned())
    }

    /// A tool as this client sees it at the server's own endpoint; `None` when it does not.
    #[must_use]
    pub fn tool(&self, entry: &RawValue) -> Option<Box<RawValue>> {
        let own = combine::named(entry, "name")?;
        // Another tool may have been given its name.
        let hidden = self.own_tool(self.offer.tools.shown(&own)) != Some(&own);
        if hidden || !self.admits(&own, combine::only_reads(entry)) {
            return None;
        }
        match self.offer.tools.shown(&own) {
            shown if shown == own => Some(entry.to_owned()),
            shown => combine::renamed(entry, "name", shown),
        }
    }
}

/// There is no such thing, as far as this client is to know.
pub(crate) fn unknown(what: &str, name: &str) -> Refusal {
    let name = if name.is_empty() { String::new() } else { format!(": {}", name.escape_debug()) };
    let short: String = name.chars().take(128).collect();
    Refusal::new(200, INVALID_PARAMS, format!("unknown {what}{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::access::ToolPolicy;
    use std::collections::BTreeMap;

    fn lens(tools: ToolPolicy, grant: Grant) -> Lens {
        let offer = Arc::new(Offer { tools, ..Offer::default() });
        let server = ServerId::new("s").unwrap();
        Lens::of(server, offer, Arc::new(grant))
    }

    fn list(lens: &Lens, method: &str, text: &str) -> String {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        lens.outward(method, &raw).map_or_else(|| text.to_owned(), |raw| raw.get().to_owned())
    }

    const TOOLS: &str = r#"{"x":1.0,"tools":[{"name":"a","n":1.0}, {"name":"b","annotations":{"readOnlyHint":true}},{"name":"c"}],"nextCursor":"q"}"#;

    #[test]
    fn lists_show_what_is_offered_and_granted_under_its_names() {
        let rename = BTreeMap::from([("a".to_owned(), "first".to_owned())]);
        let tools = ToolPolicy { deny: vec!["c".into()], rename, ..ToolPolicy::default() };
        let seen = list(&lens(tools.clone(), Grant::default()), "tools/list", TOOLS);
        let want = r#"{"x":1.0,"tools":[{"name":"first","n":1.0},{"name":"b","annotations":{"readOnlyHint":true}}],"nextCursor":"q"}"#;
        assert_eq!(seen, want);
        let grant = Grant { tools: vec!["s/b".into()], ..Grant::default() };
        let lens = lens(tools, grant);
        assert_eq!(list(&lens, "tools/list", TOOLS).matches("name").count(), 1);
        assert_eq!(list(&lens, "prompts/list", r#"{"prompts":[{"name":"p"}]}"#), r#"{"prompts":[]}"#);
        assert_eq!(list(&lens, "tools/call", r#"{"tools":[{"name":"c"}]}"#), r#"{"tools":[{"name":"c"}]}"#);
    }

    #[test]
    fn read_only_shows_what_says_so() {
        let tools = ToolPolicy { read_only: true, ..ToolPolicy::default() };
        let seen = list(&lens(tools, Grant::default()), "tools/list", TOOLS);
        assert!(seen.contains(r#"[{"name":"b""#) && !seen.contains(r#""a""#), "{seen}");
    }
}
