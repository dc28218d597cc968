//! A server's tools as clients of different scopes see them, and what the tool proxy makes of them: made
//! once for each scope, with what does not differ shared by all.
//!
//! Must never show a client the list of another scope.

use crate::gateway::lens::Lens;
use crate::gateway::lists::{Item, Listed};
use crate::gateway::lock;
use crate::gateway::places::Offer;
use crate::mcp::combine;
use crate::model::access::Grant;
use crate::model::id::ServerId;
use crate::openapi::document::{Operation, Operations};
use std::sync::{Arc, Mutex};

/// Scopes that one list is kept for; the one that was used longest ago makes room.
pub const VIEWS_MAX: usize = 32;

/// What of a list clients see. It ends with the list.
#[derive(Debug, Default)]
pub struct Views {
    /// The one that was used last stands last.
    kept: Mutex<Vec<View>>,
}

#[derive(Debug)]
struct View {
    offer: Arc<Offer>,
    grant: Arc<Grant>,
    list: Arc<Listed>,
}

impl Views {
    fn get(&self, (offer, grant): (&Arc<Offer>, &Arc<Grant>)) -> Option<Arc<Listed>> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().rposition(|view| is(&view.offer, offer) && is(&view.grant, grant))?;
        let view = kept.remove(at);
        let list = Arc::clone(&view.list);
        kept.push(view);
        Some(list)
    }

    fn put(&self, (offer, grant): (&Arc<Offer>, &Arc<Grant>), list: &Arc<Listed>) {
        let mut kept = lock(&self.kept);
        kept.retain(|view| !(is(&view.offer, offer) && is(&view.grant, grant)));
        if kept.len() >= VIEWS_MAX {
            kept.remove(0);
        }
        kept.push(View { offer: Arc::clone(offer), grant: Arc::clone(grant), list: Arc::clone(list) });
    }
}

/// Whether both say the same: they mostly are the same.
fn is<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

impl Listed {
    /// What the tool proxy makes of a list of tools, made once.
    #[must_use]
    pub fn operations(&self, server: &ServerId) -> &Operations {
        self.operations.get_or_init(|| {
            let tools = self.items.iter().map(|item| (item.key.as_str(), &*item.raw));
            Operations::new(server.as_str(), tools)
        })
    }

    /// A list of tools as a client sees it at the server's own endpoint.
    #[must_use]
    pub fn through(&self, lens: &Lens) -> Arc<Self> {
        if let Some(list) = self.views.get(lens.scope()) {
            return list;
        }
        let (mut items, mut operations) = (Vec::new(), Vec::new());
        for (item, operation) in self.items.iter().zip(self.operations(lens.server()).all()) {
            let Some(raw) = lens.tool(&item.raw) else { continue };
            let Some(key) = combine::named(&raw, "name") else { continue };
            // Only under another name it is another operation.
            if key == item.key {
                operations.push(Arc::clone(operation));
                items.push(item.clone());
            } else {
                operations.push(Arc::new(Operation::new(lens.server().as_str(), &key, &raw)));
                items.push(Item { key, raw: Arc::from(raw) });
            }
        }
        let list = Arc::new(self.with(items, Operations::of(operations)));
        self.views.put(lens.scope(), &list);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::VIEWS_MAX;
    use crate::gateway::lens::Lens;
    use crate::gateway::lists::{Giver, ListKind, Listed, items};
    use crate::gateway::places::Offer;
    use crate::model::access::{Grant, ToolPolicy};
    use crate::model::id::ServerId;
    use serde_json::json;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn list() -> Listed {
        let tool = |name: &str| RawValue::from_string(json!({ "name": name }).to_string()).expect("JSON");
        let tools = ["get", "set", "drop"].map(tool).to_vec();
        let giver = Giver { generation: 1, spec: String::new(), server: None };
        Listed::kept(items(tools, ListKind::Tools), giver)
    }

    fn lens(rename: &[(&str, &str)], tools: &[&str]) -> Lens {
        let rename: BTreeMap<_, _> =
            rename.iter().map(|(own, new)| ((*own).to_owned(), (*new).to_owned())).collect();
        let offer = Offer { tools: ToolPolicy { rename, ..ToolPolicy::default() }, ..Offer::default() };
        let tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
        let grant = Grant { tools, ..Grant::default() };
        Lens::of(ServerId::new("s").expect("an id"), Arc::new(offer), Arc::new(grant))
    }

    fn names(list: &Listed) -> Vec<&str> {
        list.items.iter().map(|item| item.key.as_str()).collect()
    }

    #[test]
    fn a_scope_has_its_list_made_once_and_sees_no_other_scopes() {
        let all = list();
        // A token is read anew with each request: equal scopes are the same, not only identical ones.
        let first = all.through(&lens(&[("get", "read")], &["s/get", "drop"]));
        let again = all.through(&lens(&[("get", "read")], &["s/get", "drop"]));
        assert!(Arc::ptr_eq(&first, &again), "it is not made again");
        assert_eq!(names(&first), ["read", "drop"]);
        let (id, whole) = (ServerId::new("s").expect("an id"), all.operations);
        let whole = whole.get().expect("made by now");
        assert!(first.operations(&id).at("get").is_none() && first.operations(&id).at("set").is_none());
        assert_eq!(first.operations(&id).at("read").map(|one| one.tool.as_str()), Some("read"));
        assert!(
            Arc::ptr_eq(&first.operations(&id).all()[1], &whole.all()[2]),
            "what does not differ is shared"
        );
    }

    #[test]
    fn other_scopes_and_other_names_have_lists_of_their_own() {
        let all = list();
        assert_eq!(names(&all.through(&lens(&[], &["get"]))), ["get"]);
        assert_eq!(names(&all.through(&lens(&[], &["set"]))), ["set"]);
        assert_eq!(names(&all.through(&lens(&[("get", "read")], &["get"]))), ["read"]);
        assert_eq!(
            names(&all.through(&lens(&[("get", "read")], &["read"]))),
            [""; 0],
            "scopes name the server's"
        );
    }

    #[test]
    fn no_more_scopes_are_kept_than_allowed_and_those_in_use_stay() {
        let all = list();
        let used = lens(&[], &["get"]);
        let first = all.through(&used);
        for n in 0..VIEWS_MAX * 3 {
            let _other = all.through(&lens(&[], &[&format!("x{n}")]));
            assert!(Arc::ptr_eq(&first, &all.through(&used)), "{n}");
        }
        assert_eq!(all.views.kept.lock().expect("views").len(), VIEWS_MAX);
    }
}
