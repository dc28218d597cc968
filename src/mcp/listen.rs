//! Subscriptions of the modern era: one long answer that carries the changes its client asked for.
//!
//! Every message on it names the subscription, which is the id of the request that opened it, as
//! that request wrote it.
//!
//! Must never let a notification through that the client did not ask for.

use crate::mcp::build::notification;
use crate::mcp::meta::SUBSCRIPTION_KEY;
use crate::mcp::meta::with_meta;
use crate::mcp::object::{is_object, quoted, raw};
use crate::mcp::wire::{each_member, member, text_of};
use serde_json::value::RawValue;

/// The method that opens a subscription.
pub const LISTEN: &str = "subscriptions/listen";
/// The first notification on it.
pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// Resources that one subscription can name.
pub const URIS_MAX: usize = 1024;

/// The changes that a client wants to hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenFilter {
    /// `toolsListChanged`.
    pub tools: bool,
    /// `promptsListChanged`.
    pub prompts: bool,
    /// `resourcesListChanged`.
    pub resources: bool,
    /// `resourceSubscriptions`, in order, each once.
    pub uris: Vec<String>,
}

impl ListenFilter {
    /// Whether it asks for nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.tools && !self.prompts && !self.resources && self.uris.is_empty()
    }

    /// Whether a notification was asked for. An update may name a part of the resource that was
    /// asked for.
    #[must_use]
    pub fn admits(&self, method: &str, params: Option<&RawValue>) -> bool {
        match method {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            "notifications/resources/updated" => {
                let uri = params.and_then(|params| member(params, "uri")).and_then(text_of);
                uri.is_some_and(|uri| self.uris.iter().any(|wanted| is_within(&uri, wanted)))
            }
            _ => false,
        }
    }

    /// The part of it that a server with these capabilities can serve.
    #[must_use]
    pub fn supported(&self, capabilities: Option<&RawValue>) -> Self {
        let can = |kind: &str, what: &str| {
            let kind = capabilities.and_then(|all| member(all, kind));
            kind.and_then(|kind| member(kind, what)).is_some_and(|flag| flag.get() == "true")
        };
        let subscribe = !self.uris.is_empty() && can("resources", "subscribe");
        Self {
            tools: self.tools && can("tools", "listChanged"),
            prompts: self.prompts && can("prompts", "listChanged"),
            resources: self.resources && can("resources", "listChanged"),
            uris: if subscribe { self.uris.clone() } else { Vec::new() },
        }
    }

    /// The least filter that covers both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut uris = self.uris.clone();
        uris.extend(other.uris.iter().filter(|uri| !self.uris.contains(uri)).cloned());
        Self {
            tools: self.tools || other.tools,
            prompts: self.prompts || other.prompts,
            resources: self.resources || other.resources,
            uris,
        }
    }

    fn json(&self) -> String {
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        let mut members: Vec<String> =
            flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!(r#""{name}":true"#)).collect();
        if !self.uris.is_empty() {
            let uris: Vec<String> = self.uris.iter().map(|uri| quoted(uri)).collect();
            members.push(format!(r#""resourceSubscriptions":[{}]"#, uris.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }
}

fn is_within(uri: &str, wanted: &str) -> bool {
    uri.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || wanted.ends_with('/') || rest.starts_with(['/', '#', '?']))
}

/// What a `subscriptions/listen`, or the acknowledgment of one, names; `None` when its params hold
/// no `notifications` object.
#[must_use]
pub fn listen_filter(params: Option<&RawValue>) -> Option<ListenFilter> {
    let wanted = member(params?, "notifications").filter(|wanted| is_object(wanted))?;
    let mut filter = ListenFilter::default();
    each_member(wanted.get(), &mut |key, value| match key.as_ref() {
        "toolsListChanged" => filter.tools = value.get() == "true",
        "promptsListChanged" => filter.prompts = value.get() == "true",
        "resourcesListChanged" => filter.resources = value.get() == "true",
        "resourceSubscriptions" => filter.uris = uris(value),
        _ => {}
    })
    .ok()?;
    Some(filter)
}

fn uris(list: &RawValue) -> Vec<String> {
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
    let mut uris: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for uri in list.into_iter().filter_map(text_of).take(URIS_MAX) {
        if seen.insert(uri.clone()) {
            uris.push(uri.into_owned());
        }
    }
    uris
}

/// The first message of a subscription: what it will carry.
#[must_use]
pub fn acknowledged(subscription_id: &RawValue, filter: &ListenFilter) -> String {
    let params = format!(
        r#"{{"_meta":{{"{SUBSCRIPTION_KEY}":{}}},"notifications":{}}}"#,
        subscription_id.get(),
        filter.json()
    );
    notification(ACKNOWLEDGED, Some(&raw(params)))
}

/// A notification as a message of a subscription; params that are no object are left out.
#[must_use]
pub fn tagged(method: &str, params: Option<&RawValue>, subscription_id: &RawValue) -> String {
    let tag = |params| with_meta(params, SUBSCRIPTION_KEY, subscription_id.get());
    let params = tag(params).or_else(|| tag(None));
    notification(method, params.as_deref())
}

/// The subscription that a notification of a modern server belongs to.
#[must_use]
pub fn subscription_of(params: Option<&RawValue>) -> Option<&RawValue> {
    member(member(params?, "_meta")?, SUBSCRIPTION_KEY)
}

/// The result that ends a subscription in good order.
#[must_use]
pub fn closed(subscription_id: &RawValue) -> Box<RawValue> {
    raw(format!(r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION_KEY}":{}}}}}"#, subscription_id.get()))
}

/// The params that open a subscription at a modern server, without the metadata of every request.
#[must_use]
pub fn listen_params(filter: &ListenFilter) -> Box<RawValue> {
    raw(format!(r#"{{"notifications":{}}}"#, filter.json()))
}
