//! The page of one server: how it stands and why, what it says, what it offers, its settings.

use crate::api::ends::EndView;
use crate::api::engine_log;
use crate::api::usage::{self, HistoryView, PointView, UsageView};
use crate::api::view::{LimitsView, Moment, ServerDetail, ServerView};
use crate::model::id::ServerId;
use crate::model::observed::LogAsk;
use crate::model::record::AuditFilter;
use crate::model::time::Span;
use crate::panel::pages::chart::{Chart, Series};
use crate::panel::pages::{Asked, Page, chart, history, parts};
use maud::{Markup, html};
use std::time::Duration;

/// Lines of its log that the page has from the start.
const LOG_LINES: usize = 200;
/// The page waits so long at most for the engine's log: the script asks again.
const LOG_WITHIN: Duration = Duration::from_millis(500);
/// Events that the page shows.
const EVENTS: usize = 10;
/// Lines of the table of values: no more than people read.
const VALUES: usize = 24;

pub(super) async fn page(asked: &Asked, id: &str) -> Option<Page> {
    let id = ServerId::new(id).ok()?;
    let moment = Moment::of(&asked.context);
    let detail = moment.detail(&id)?;
    let (events, lines) = (events(asked, &id).await, printed(asked, &id).await);
    let server = &detail.server;
    let content = html! {
        section #head .head data-live="" {
            div {
                p.crumb { a href=(asked.base) { "Servers" } @if let Some(section) = &server.section { " / " a href={ (asked.base) "?section=" (section) } { (section) } } }
                h1 { (server.name) " " (parts::pill(&server.state)) @if server.busy { " " span.soft.small { "working" } } }
            }
            div.acts { (parts::server_acts(server)) a.button.js-only href={ (asked.base) "/servers/" (id) "/edit" } { (parts::icon("edit")) "Edit" } }
        }
        section #facts .card data-live="" data-usage="" { (facts(server)) }
        @if !server.instances.is_empty() { section #instances .card data-live="" { (instances(server)) } }
        section #history .card data-live="" data-usage="" { (history(asked, &id)) }
        div.cols {
            section #why .card data-live="" {
                header { h2 { "Why" } }
                @if server.reasons.is_empty() { p.pad.soft { "It is as the file wants it." } } @else { (parts::reasons(&server.reasons)) }
                (ended(&detail.ends))
            }
            section #did .card data-live="" {
                header { h2 { "Plan for it" } span.soft.small { "made by pass " (moment.snapshot.pass) ", " (parts::time(moment.snapshot.began.0)) } }
                @if detail.actions.is_empty() { p.pad.soft { "Nothing is to be changed." } } @else { (parts::actions(&detail.actions)) }
            }
        }
        (events)
        section.card {
            header { h2 { "Log" } span.soft.small { "what it prints beside its messages" } }
            (log(&id, &lines))
        }
        section.card.js-only {
            header { h2 { "Tools" } span.soft.small { "asked from the server now; a call may have effects" } }
            @if server.declared { div #tools data-api={ "/api/v1/servers/" (id) } {} }
            @else { p.pad.soft { "It can be asked once its entry can be used." } }
        }
        noscript { p.banner { "Tools and actions need a script; " a href={ "/api/v1/servers/" (id) "/capabilities" } { "what it offers" } " can be read as JSON." } }
        (settings(&detail))
    };
    Some(Page::new(format!("{}: {}", server.name, server.state), "overview", content))
}

/// What was done to it, newest first: a line of the audit each.
async fn events(asked: &Asked, id: &ServerId) -> Markup {
    let filter = AuditFilter { server: Some(id.to_string()), limit: EVENTS, ..AuditFilter::default() };
    let found = asked.context.recorder.records.audit(&filter).await;
    html! {
        section #events .card data-live="" {
            header { h2 { "Events" } span.soft.small { "what was done, and by whom" } a.button href={ (asked.base) "/audit?server=" (id) } { "All" } }
            @match &found {
                Err(error) => p.pad.soft { (error) },
                Ok(entries) if entries.is_empty() => p.pad.soft { "Nothing was done to it yet." },
                Ok(entries) => div.scroll { table.cards {
                    (parts::caption("Events"))
                    thead { tr { th { "When" } th { "What" } th { "Result" } th { "Who" } } }
                    tbody { @for entry in entries { (history::event_row(entry)) } }
                } },
            }
        }
    }
}

/// How it ended lately.
fn ended(ends: &[EndView]) -> Markup {
    html! {
        @if !ends.is_empty() {
            header { h2 { "How it ended lately" } }
            ul.reasons #ends {
                @for end in ends {
                    li {
                        span.kind { span.soft.small { (parts::time(end.at)) } }
                        span.t {
                            (end.how)
                            @for line in end.last_words.iter().flatten() { br; code.small { (line) } }
                        }
                        @if end.out_of_memory == Some(true) { span.tag { "MCPO-P045" } }
                    }
                }
            }
        }
    }
}

/// A line for each instance of a server with several.
fn instances(server: &ServerView) -> Markup {
    let running = server.running.unwrap_or_default();
    html! {
        header { h2 { "Instances" } span.soft.small { (running) " of " (server.instances.len()) " run" } }
        div.scroll { table.cards {
            (parts::caption("Instances"))
            thead { tr { th { "Instance" } th { "State" } th { "Container" } th { "Health" } th { "Restarts in a row" } th { "Why" } } }
            tbody { @for one in &server.instances { tr {
                td.mono { (one.id) }
                td { (parts::pill(&one.state)) }
                td data-l="container" {
                    span.mono { (one.container.as_deref().unwrap_or("–")) }
                    @if let Some(state) = &one.container_state { div.small.soft { (state) } }
                }
                td data-l="health" { @match &one.health { Some(view) => (parts::pill(&view.state)), None => "–" } }
                td data-l="restarts" { (one.restarts) }
                td.wide { (one.reasons.first().map_or("", |reason| reason.text.as_str())) }
            } } }
        } }
    }
}

fn facts(server: &ServerView) -> Markup {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    let short = |id: &Option<String>| id.as_deref().map_or("–", parts::short_id).to_owned();
    let none = "–".to_owned();
    html! {
        dl.facts {
            (fact("Kind", &html! { (server.kind) @if let Some(transport) = &server.transport { ", " (transport) } }))
            (fact("Route", &html! { (text(&server.route)) @if let Some(port) = server.port { " on port " (port) } }))
            (fact("Endpoint", &html! { code { "/mcp/" (server.id) } }))
            @if server.kind == "container" {
                (fact("Image", &html! { span.mono { (text(&server.image)) } }))
                (fact("Image id", &html! { span.mono title=[server.image_id.as_deref()] { (short(&server.image_id)) } }))
                (fact("Container", &html! { span.mono { (text(&server.container)) } }))
                (fact("Container state", &html! { (text(&server.container_state)) @if server.container_id.is_some() { span.mono.soft { " " (short(&server.container_id)) } } }))
            }
            (fact("Restarts in a row", &html! { (server.restarts) @if let Some(next) = server.next_try { ", next try " (parts::until(next)) } }))
            @if let Some(view) = server.health.as_ref().filter(|_| !matches!(server.state.as_str(), "stopped" | "asleep")) {
                (fact("Health", &html! {
                    (parts::pill(&view.state)) " " (parts::time(view.since))
                    @if let Some(why) = &view.why { div.small { (why) } }
                }))
                (fact("Answers after", &html! {
                    (view.latency_millis.map_or(none.clone(), parts::millis))
                    @if let Some(usual) = view.usual_millis { span.soft { ", usually " (parts::millis(usual)) } }
                    @if view.failures > 0 { span.soft { ", " (view.failures) @if view.failures == 1 { " question" } @else { " questions in a row" } " without an answer" } }
                }))
            }
            @if let Some(connection) = &server.connection {
                (fact("Connection", &html! { @if connection.up { "open" } @else { "none" } @if let Some(version) = &connection.version { ", MCP " (version) } @if let Some(why) = &connection.why { ": " (why) } }))
                (fact("Sessions", &html! { (connection.sessions) ", " (connection.in_flight) " requests under way" }))
                (fact("Requests", &html! { (connection.requests) ", " (connection.errors) " failed" }))
                (fact("95 of 100 within", &html! { (connection.p95_millis.map_or(none, chart::millis)) }))
                @if let Some(limits) = &connection.limits { (held(limits)) }
            }
            @if let Some(usage) = &server.usage { (used(usage)) }
            @if let Some(intent) = &server.intent {
                (fact("By hand", &html! {
                    @if intent.run { "started" } @else { "stopped" } " by " (intent.by) ", " (parts::time(intent.at))
                    @if let Some(until) = intent.until { ", holds until " (parts::until(until)) }
                }))
            }
        }
    }
}

fn used(usage: &UsageView) -> Markup {
    let none = || "not known".to_owned();
    let flow = usage.network_in_bytes_per_second.zip(usage.network_out_bytes_per_second);
    html! {
        (fact("CPU, of one core", &html! { (usage.cpu_percent.map_or_else(none, chart::percent)) }))
        (fact("Memory", &html! {
            (usage.memory_bytes.map_or_else(none, parts::bytes))
            @if let Some(limit) = usage.memory_limit_bytes { span.soft { " of " (parts::bytes(limit)) } }
        }))
        (fact("Network", &html! {
            @match flow {
                Some((received, sent)) => { (chart::bytes(received)) "/s in, " (chart::bytes(sent)) "/s out" },
                None => "not known",
            }
        }))
        (fact("Processes and threads", &html! { (usage.pids.map_or_else(none, |pids| pids.to_string())) }))
        @if let Some(rate) = usage.requests_per_second {
            (fact("Requests now", &html! {
                (chart::number(rate)) "/s"
                @if let Some(p95) = usage.p95_millis { span.soft { ", 95 of 100 within " (chart::millis(p95)) } }
            }))
        }
    }
}

/// How the limits of its entry stand.
fn held(limits: &LimitsView) -> Markup {
    html! {
        (fact("Limits", &html! {
            (limits.running) " at once, " (limits.waiting) " waiting, " (limits.denied) " turned away"
        }))
        (fact("Circuit", &html! { (limits.circuit) @if limits.retries > 0 { ", " (limits.retries) " sent again" } }))
        @if limits.cache_hits + limits.cache_misses > 0 {
            (fact("Kept answers", &html! { (limits.cache_hits) " used, " (limits.cache_misses) " calls without one" }))
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// The newest lines, numbered: the engine's where it keeps them, else the gateway's.
async fn printed(asked: &Asked, id: &ServerId) -> Vec<(u64, String)> {
    if let Some(container) = engine_log(id, &asked.context) {
        let ask = LogAsk { container, after: 0, tail: LOG_LINES, wait: Span::ZERO };
        let lines = tokio::time::timeout(LOG_WITHIN, asked.context.engine.log(&ask)).await;
        let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
        return lines.into_iter().map(|line| (line.number, line.text)).collect();
    }
    let lines = asked.context.gateway.entry(id).map(|entry| entry.logs.after(0, LOG_LINES));
    lines.unwrap_or_default().iter().map(|line| (line.number, line.text.clone())).collect()
}

fn log(id: &ServerId, lines: &[(u64, String)]) -> Markup {
    let newest = lines.last().map_or(0, |line| line.0);
    html! {
        pre.log tabindex="0" role="region" aria-label="Log" data-logs={ "/api/v1/servers/" (id) "/logs" } data-after=(newest) data-empty=[lines.is_empty().then_some("")] {
            @if lines.is_empty() { "It has printed nothing yet." }
            @for (_, text) in lines { (text) "\n" }
        }
    }
}

fn settings(detail: &ServerDetail) -> Markup {
    html! {
        section #settings .card data-live="" {
            header { h2 { "Settings in force" } span.soft.small { "and where each comes from" } }
            @if detail.settings.is_empty() {
                p.pad.soft { "Its entry cannot be used; what runs stays as it is." }
            } @else { (parts::settings("Settings in force", &detail.settings)) }
        }
    }
}

/// Figures of the last hours.
fn history(asked: &Asked, id: &ServerId) -> Markup {
    let query = asked.query();
    let chosen = RANGES.iter().find(|range| query.get("hours").is_some_and(|hours| hours == range.0));
    let (hours, span, _) = chosen.or(RANGES.get(1)).copied().unwrap_or(("3", 3.0, "3 hours"));
    let view = usage::history(&asked.context, id, span);
    html! {
        header {
            h2 { "Last " (hours) @if hours == "1" { " hour" } @else { " hours" } }
            nav.range aria-label="Time shown" {
                @for (key, _, word) in RANGES {
                    a href={ "?hours=" (key) } aria-current=[(*key == hours).then_some("true")] { (word) }
                }
            }
        }
        @if view.points.is_empty() {
            p.pad.soft { "Nothing was recorded in this time: a point is written each minute while the server runs." }
        } @else {
            div.charts data-points={ "/api/v1/servers/" (id) "/history?hours=" (hours) } { @for chart in charts(&view) { (chart.show()) } }
            (values(&view))
        }
    }
}

/// Time that can be shown: in the address, in hours, in words.
const RANGES: &[(&str, f64, &str)] = &[("1", 1.0, "1 h"), ("3", 3.0, "3 h"), ("24", 24.0, "24 h")];

fn charts(view: &HistoryView) -> Vec<Chart<'static>> {
    let each = |value: fn(&PointView) -> Option<f64>| -> Vec<(i64, Option<f64>)> {
        view.points.iter().map(|point| (point.at, value(point))).collect()
    };
    let a_minute = |count: fn(&PointView) -> u32| -> Vec<(i64, Option<f64>)> {
        let before = view.points.iter().map(|point| Some(point.at));
        let before = std::iter::once(None).chain(before);
        let pairs = view.points.iter().zip(before);
        pairs.map(|(point, before)| (point.at, Some(rate(count(point), before, point.at, view)))).collect()
    };
    let chart = |(title, reads), say, least, series| {
        let gap = usage::gap_millis(view.step_seconds);
        Chart {
            title,
            reads,
            from: view.from,
            to: view.to,
            gap,
            say,
            least,
            bytes: title == "Memory",
            series,
        }
    };
    let one = |class, points| vec![Series { name: "", class, points }];
    let calls = vec![
        Series { name: "requests", class: "req", points: a_minute(|point| point.requests) },
        Series { name: "failed", class: "err", points: a_minute(|point| point.errors) },
    ];
    vec![
        chart(("CPU, of one core", "cpu"), chart::percent, 10.0, one("cpu", each(|point| point.cpu_percent))),
        chart(
            ("Memory", "memory"),
            chart::bytes,
            1024.0 * 1024.0,
            one("mem", each(|point| point.memory_bytes.map(as_f64))),
        ),
        chart(("Requests", "requests"), chart::a_minute, 1.0, calls),
        chart(
            ("95 of 100 requests within", "p95"),
            chart::millis,
            1.0,
            one("lat", each(|point| point.p95_millis)),
        ),
    ]
}

/// The same as figures: for whoever cannot see the pictures, or wants to know.
fn values(view: &HistoryView) -> Markup {
    let each = view.points.len().div_ceil(VALUES).max(1);
    let parts: Vec<Slice> = view.points.chunks(each).map(|points| Slice::of(points, view)).collect();
    let say = |value: Option<f64>, say: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), say);
    html! {
        details.values #values {
            summary { "Values" span.t.small { @if each > 1 { "most of each time; requests: mean" } } }
            div.scroll tabindex="0" role="group" aria-label="Values" { table {
                (parts::caption("Values"))
                thead { tr { th { "From" } th.num { "CPU" } th.num { "Memory" } th.num { "Requests" } th.num { "Failed" } th.num { "p95" } } }
                tbody { @for part in parts.iter().rev() { tr {
                    td { (parts::time(part.at)) }
                    td.num { (say(part.cpu, chart::percent)) }
                    td.num { (say(part.memory, chart::bytes)) }
                    td.num { (chart::a_minute(part.requests)) }
                    td.num { (chart::a_minute(part.errors)) }
                    td.num { (say(part.p95, chart::millis)) }
                } } }
            } }
        }
    }
}

/// Points that stand in one line.
struct Slice {
    at: i64,
    cpu: Option<f64>,
    memory: Option<f64>,
    requests: f64,
    errors: f64,
    p95: Option<f64>,
}

impl Slice {
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    fn of(points: &[PointView], view: &HistoryView) -> Self {
        let most = |value: fn(&PointView) -> Option<f64>| points.iter().filter_map(value).reduce(f64::max);
        let minutes = points.len() as f64 * view.step_seconds as f64 / 60.0;
        let a_minute = |count: fn(&PointView) -> u32| {
            points.iter().map(|point| f64::from(count(point))).sum::<f64>() / minutes.max(1.0 / 60.0)
        };
        Self {
            at: points.first().map_or(view.from, |point| point.at),
            cpu: most(|point| point.cpu_percent),
            memory: most(|point| point.memory_bytes.map(as_f64)),
            requests: a_minute(|point| point.requests),
            errors: a_minute(|point| point.errors),
            p95: most(|point| point.p95_millis),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
const fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// A count of one point as so many in a minute.
#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn rate(count: u32, before: Option<i64>, at: i64, view: &HistoryView) -> f64 {
    let gap = usage::gap_millis(view.step_seconds);
    let near = before.map(|before| at - before).filter(|span| (1..=gap).contains(span));
    let millis = near.map_or_else(|| view.step_seconds as f64 * 1000.0, |span| span as f64);
    f64::from(count) * 60_000.0 / millis
}
