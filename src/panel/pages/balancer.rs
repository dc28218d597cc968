//! The load balancer's page: the listener, its rules in the order in which they decide, target groups
//! and the health of their targets.

use crate::api::balancer::{BalancerView, RuleView, TargetGroupView, of};
use crate::api::view::Moment;
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

pub(super) fn page(asked: &Asked) -> Page {
    let view = of(&Moment::of(&asked.context));
    let content = html! {
        div #balancer data-live="" .stack { (whole(asked, &view)) }
    };
    Page::new("Load balancer", "balancer", content)
}

fn whole(asked: &Asked, view: &BalancerView) -> Markup {
    html! {
        section.card {
            div.pad { h1 { "Load balancer" } p.soft { (view.sentence) } }
            @if let Some(listener) = &view.listener {
                dl.facts {
                    div { dt { "Name" } dd { (listener.dns_name) } }
                    div { dt { "Listener" } dd { (listener.protocol) " on port " (listener.port) } }
                    div { dt { "VPC" } dd.mono { (listener.vpc_id) } }
                    div { dt { "This host" } dd.mono { (view.target_id.as_deref().unwrap_or("not known")) } }
                    @if let Some(count) = view.target_groups_in_use { div { dt { "Target groups in use" } dd { (count) } } }
                }
            } @else {
                div.empty {
                    @if view.state == "off" {
                        p { "It is off: " (view.why.as_deref().unwrap_or("nothing is configured")) "." }
                        p.small { "Set " code { "[aws] alb_arn" } " or " code { "listener_arn" } " in settings.conf." }
                    } @else {
                        p { "Nothing is known of it: " (view.why.as_deref().unwrap_or("it was not read")) }
                        p.small { "Nothing is changed there until it can be read." }
                    }
                }
            }
        }
        @if view.listener.is_some() {
            section.card { header { h2 { "Rules" } span.soft.small { "the first that fits decides; others' rules are never changed" } } (rules(asked, &view.rules)) }
            section.card { header { h2 { "Target groups" } } (groups(&asked.base, &view.target_groups)) }
        }
    }
}

fn rules(asked: &Asked, rules: &[RuleView]) -> Markup {
    html! {
        @if rules.is_empty() { div.empty { "The listener has its default rule only." } } @else {
            div.scroll { table.cards {
                (parts::caption("Rules"))
                thead { tr { th.num { "Priority" } th { "Whose" } th { "Path" } th { "Forwards to" } } }
                tbody { @for rule in rules { tr {
                    td.num { (rule.priority) }
                    td { (whose(&asked.base, rule.ours, rule.server.as_deref())) }
                    td.wide { @for path in &rule.paths { code { (path) } " " } @for other in &rule.conditions { span.soft { (other) " " } } }
                    td.wide data-l="to" { span.mono { (rule.target) } }
                } } }
            } }
        }
    }
}

/// Whether it is ours, and of which server.
fn whose(base: &str, ours: bool, server: Option<&str>) -> Markup {
    html! {
        @if ours { span.pill.converged.bare { "ours" } " " @if let Some(id) = server { a href={ (base) "/servers/" (id) } { (id) } } }
        @else { span.pill.bare { "others'" } }
    }
}

fn groups(base: &str, groups: &[TargetGroupView]) -> Markup {
    html! {
        @if groups.is_empty() { div.empty { "There are none of ours." } } @else {
            div.scroll { table.cards {
                (parts::caption("Target groups"))
                thead { tr { th { "Target group" } th { "Whose" } th { "Health check" } th { "Targets" } } }
                tbody { @for group in groups { tr {
                    td.mono { (group.name) }
                    td { (whose(base, group.ours, group.server.as_deref())) }
                    td data-l="check" { code { (group.check) } }
                    td.wide {
                        @match &group.targets {
                            None => span.soft { "not read yet: a few groups are read in each pass" },
                            Some(targets) if targets.is_empty() => span.soft { "none" },
                            Some(targets) => { @for target in targets {
                                div { (parts::pill(&target.state)) " " span.mono { (target.id) ":" (target.port) } @if let Some(reason) = &target.reason { (reason_text(reason)) } }
                            } },
                        }
                        @if let Some(at) = group.targets_read { span.faint.small { "read " (parts::time(at)) } }
                    }
                } } }
            } }
        }
    }
}

/// AWS's code and its own sentence on it, as it gave them.
fn reason_text(reason: &str) -> Markup {
    match reason.split_once(": ") {
        Some((code, text)) => html! { p.why { span.tag { (code) } " " (text) } },
        None => html! { p.why { span.tag { (reason) } } },
    }
}

#[cfg(test)]
mod tests {
    use super::groups;
    use crate::api::balancer::{TargetGroupView, TargetView};

    #[test]
    fn a_target_says_in_the_balancers_own_words_why_it_gets_nothing() {
        let target = |state: &str, reason: Option<&str>| TargetView {
            id: "i-1".to_owned(),
            port: 8001,
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
        };
        let group = |targets| TargetGroupView {
            name: "mcp-time-1a2b".to_owned(),
            ours: true,
            server: Some("time".to_owned()),
            check: "/healthz (200)".to_owned(),
            targets,
            targets_read: Some(0),
        };
        let failed = "Target.FailedHealthChecks: Health checks failed with these codes: [502]";
        let page = groups(
            "/monitor",
            &[group(Some(vec![
                target("unhealthy", Some("Target.Timeout: Request timed out")),
                target("unhealthy", Some(failed)),
                target("draining", Some("Target.DeregistrationInProgress")),
                target("healthy", None),
            ]))],
        )
        .into_string();
        for said in [
            ">Target.Timeout</span> Request timed out<",
            ">Target.FailedHealthChecks</span> Health checks failed with these codes: [502]<",
            ">Target.DeregistrationInProgress</span><",
            "pill healthy",
            "href=\"/monitor/servers/time\"",
            "read <time",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(groups("/monitor", &[group(None)]).into_string().contains("not read yet"));
    }
}
