//! The plan's page: what a pass would change now, asked of the loop when the page is opened.

use crate::api::view::{ActionView, ReasonView};
use crate::panel::pages::{Asked, Page, parts};
use crate::plan::Plan;
use crate::service::Request;
use maud::{Markup, html};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

pub(super) async fn page(asked: &Asked) -> Page {
    let (reply, answer) = oneshot::channel();
    let sent = asked
        .context
        .handle
        .requests
        .send(Request::Plan { desired: None, policy: None, allow_mass_delete: false, reply })
        .await
        .is_ok();
    let plan = if sent { answer.await.ok().map(|answer| answer.0) } else { None };
    let content = html! {
        section.head {
            div { h1 { "Plan" } p.soft { "What a pass would change now, and why. Looking changes nothing." } }
            div.acts { (parts::act("sync", "", "main")) }
        }
        div #plan .stack data-live="" {
            @match &plan {
                Some(plan) => (whole(asked, plan)),
                None => p.banner.bad { (parts::icon("alert")) span { "The daemon is stopping." } },
            }
        }
    };
    Page::new("Plan", "plan", content)
}

fn whole(asked: &Asked, plan: &Plan) -> Markup {
    let mut of: BTreeMap<Option<String>, Vec<ActionView>> = BTreeMap::new();
    for action in &plan.actions {
        let view = ActionView::of(action);
        of.entry(view.server.clone()).or_default().push(view);
    }
    let count = |sign: char| plan.actions.iter().filter(|action| action.op.sign() == sign).count();
    html! {
        section.card {
            div.pad {
                @if plan.actions.is_empty() { h2 { "No changes" } p.soft { (plan.report.sentence()) } }
                @else { h2 { (count('+')) " to add, " (count('~')) " to change, " (count('-')) " to remove" } p.soft { (plan.report.sentence()) } }
            }
        }
        @for (server, actions) in &of {
            section.card {
                header { h2 { @match server { Some(id) => a href={ (asked.base) "/servers/" (id) } { (id) }, None => "All servers" } } }
                (parts::actions(actions))
            }
        }
        @let notable: Vec<(String, Vec<ReasonView>)> = notable(plan);
        @if !notable.is_empty() {
            section.card {
                header { h2 { "Held back, and why" } }
                ul.reasons {
                    @for (id, reasons) in &notable {
                        @for (n, reason) in reasons.iter().enumerate() {
                            li { span.whose { @if n == 0 { a.name href={ (asked.base) "/servers/" (id) } { (id) } } } (parts::reason(reason)) }
                        }
                    }
                }
            }
        }
        @if !plan.report.general.is_empty() {
            @let general: Vec<ReasonView> = plan.report.general.iter().map(ReasonView::of).collect();
            section.card { header { h2 { "Concerns everything" } } (parts::reasons(&general)) }
        }
    }
}

/// Servers that the plan holds back.
fn notable(plan: &Plan) -> Vec<(String, Vec<ReasonView>)> {
    let rows = plan.report.servers.iter().map(|(id, row)| {
        let reasons = row.reasons.iter().map(ReasonView::of);
        let held = reasons.filter(|reason| matches!(reason.kind.as_str(), "blocked-by" | "waiting-on"));
        (id.to_string(), held.collect::<Vec<_>>())
    });
    rows.filter(|(_, reasons)| !reasons.is_empty()).collect()
}
