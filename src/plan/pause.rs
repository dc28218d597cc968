//! Servers that somebody wants left alone: what their rows say of them.
//!
//! Must never touch anything of a paused server but its part of the load balancer, and that only while the
//! whole host is drained.

use crate::model::balancer::{RouteKind, RouteWant};
use crate::model::id::ServerId;
use crate::model::memory::Scope;
use crate::model::server::{Server, ServerKind};
use crate::plan::containers::{leave, resolve, show_untouched};
use crate::plan::draft::{Draft, runs};
use crate::plan::drain;
use crate::plan::fleet::main_name;
use crate::plan::report::{Reason, ReasonKind, RowState};
use crate::plan::runs::{Want, paused, want};

/// Somebody wants it left alone: nothing of it is touched, and its row says who and until when.
pub(crate) fn left_alone<'a>(draft: &mut Draft<'a>, server: &'a Server) -> bool {
    let id = &server.id;
    let held = paused(draft.input.policy, &draft.memory, server, draft.input.now);
    let Some((scope, pause)) = held.map(|(scope, pause)| (scope, pause.clone())) else { return false };
    let runs = match &server.kind {
        ServerKind::Container(decl) => {
            draft.row(id).image = Some(decl.spec.image.clone());
            let main = show_untouched(draft, id);
            draft.input.observed.containers.known().is_none() || main.is_some_and(runs)
        }
        ServerKind::Process(_) | ServerKind::Remote(_) => {
            draft.keep.insert(id.clone());
            draft.row(id).route = Some("edge");
            want(draft.input.policy, &draft.memory, server) == Want::Run
        }
    };
    take_out(draft, server);
    let what = match scope {
        Scope::Server(_) => "paused".to_owned(),
        Scope::Section(section) => format!("section {section} is paused"),
        Scope::Host => "this host is paused".to_owned(),
    };
    let reason = Reason {
        until: pause.until,
        ..Reason::new(ReasonKind::LeftAlone, format!("{what} by {}", pause.by))
    };
    draft.say(id, reason);
    let row = draft.row(id);
    row.paused = true;
    row.state = if runs { RowState::Converged } else { RowState::Stopped };
    true
}

/// While this host is drained, the targets of what is left alone go as well.
fn take_out<'a>(draft: &mut Draft<'a>, server: &'a Server) {
    if !drain::holds(draft) {
        return;
    }
    let id = &server.id;
    match &server.kind {
        ServerKind::Container(decl) => {
            let group = draft.fleet.groups.get(id).cloned().unwrap_or_default();
            let name = main_name(draft.input.policy, id);
            if group.main.is_some()
                && let Some(site) = resolve(draft, server, decl, group, name)
            {
                leave(draft, &site);
                draft.leaving.insert(id.clone());
            }
        }
        ServerKind::Process(_) | ServerKind::Remote(_) => out_of_edge(draft, id),
    }
}

fn out_of_edge(draft: &mut Draft<'_>, id: &ServerId) {
    let route = RouteWant { server: id.clone(), kind: RouteKind::Edge, ports: Vec::new(), health_path: None };
    draft.offer(route);
    draft.leaving.insert(id.clone());
}
