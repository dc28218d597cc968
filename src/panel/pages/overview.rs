//! The first page: how the whole stands, and a row for every server.

use crate::api::usage::HostView;
use crate::api::view::{PanelHealth, ReasonView, STATES, ServerView};
use crate::model::id::ServerId;
use crate::model::memory::Scope;
use crate::model::time::Span;
use crate::panel::pages::{Asked, Page, chart, parts};
use crate::usage::Trace;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Characters of why in a row: the server's page has the rest.
const WHY_CHARS_MAX: usize = 120;
/// Servers that are named above the figures.
const NEEDS_MAX: usize = 4;
/// The time that a row's pictures show, and in how many steps.
const TRACE: Span = Span::secs(3600);
const TRACE_PARTS: usize = 30;
/// Characters of an image that fit into its column.
const IMAGE_CHARS: usize = 24;

pub(super) fn page(asked: &Asked) -> Page {
    let now = asked.context.kept.shown(&asked.context);
    let (moment, servers) = (&now.moment, &now.servers);
    let health = moment.health(&asked.context);
    let query = asked.query();
    let text = |key: &str| query.get(key).map(|value| value.trim().to_lowercase()).unwrap_or_default();
    let (state, section, word) = (text("state"), text("section"), text("q"));
    let fits = |server: &&ServerView| {
        let named = |text: &str| text.to_lowercase().contains(&word);
        let section_fits = server.section.as_ref().is_some_and(|own| own.to_lowercase() == section);
        (state.is_empty() || server.state == state)
            && (section.is_empty() || section_fits)
            && (named(&server.id) || named(&server.name) || server.image.as_deref().is_some_and(named))
    };
    let mut shown: Vec<&ServerView> = servers.iter().filter(fits).collect();
    let order = Order::of(&text("sort"));
    order.sort(&mut shown);
    let sections: Vec<String> = moment.sections(servers).into_iter().map(|section| section.id).collect();
    let content = html! {
        section #summary .card aria-label="Summary" data-live="" data-usage="" { (summary(asked, &health, servers, &state)) }
        @if !health.general.is_empty() {
            section #general .card data-live="" { header { h2 { "Concerns everything" } } (parts::reasons(&health.general)) }
        }
        section.card {
            header {
                h2 { "Servers" }
                form.filter role="search" aria-label="Servers" {
                    @if !sections.is_empty() {
                        select name="section" aria-label="Section" {
                            option value="" { "All sections" }
                            @for id in &sections { option value=(id) selected[*id == section] { (id) } }
                        }
                    }
                    @if !state.is_empty() { input type="hidden" name="state" value=(state); }
                    @if order != Order::Name { input type="hidden" name="sort" value=(order.word()); }
                    input type="search" name="q" value=(word) placeholder="Find by name or image" aria-label="Find by name or image";
                    button { "Find" }
                }
                div.acts { (all_acts(servers)) a.button.js-only href={ (asked.base) "/add/server" } { (parts::icon("plus")) "Add" } }
            }
            (table(asked, &shown, (servers.is_empty(), order)))
        }
    };
    Page::new(health.sentence, "overview", content)
}

fn summary(asked: &Asked, health: &PanelHealth, servers: &[ServerView], chosen: &str) -> Markup {
    let requests: u64 = servers.iter().filter_map(|s| s.connection.as_ref()).map(|c| c.requests).sum();
    let rates = servers.iter().filter_map(|s| s.usage.as_ref()?.requests_per_second);
    // A sum of nothing would be -0.
    let rate = rates.fold(0.0, |sum: f64, rate| sum + rate);
    let well = health.states.get("converged").copied().unwrap_or(0);
    html! {
        div.pad {
            div.head {
                div {
                    h1 { (headline(health)) }
                    p.soft {
                        "pass " (health.pass) ", next "
                        (parts::until(health.next_pass))
                        @if !health.settled { " · working" }
                        @if well == health.servers && health.servers > 0 { " · nothing to do" }
                    }
                }
                div.acts { (host_acts(health)) }
            }
            (wishes(health))
        }
        (bar(health))
        (needs(asked, servers))
        div.tiles {
            @for state in STATES {
                @let word = state.as_str();
                @let current = chosen == word;
                a.tile href={ (asked.base) @if !current { "?state=" (word) } } aria-current=[current.then_some("true")] {
                    span { i class={ "dot " (word) } {} (word) }
                    b { (health.states.get(word).copied().unwrap_or(0)) }
                }
            }
            div.tile { span { "requests" } b { (chart::number(rate)) @if rate > 0.0 || requests > 0 { small { "/s" } } } }
            @if let Some(host) = &health.host { (host_tile(host)) }
            div.tile.big { span { "engine" } @if health.engine { b.words { "Docker answers" } } @else { b.words.bad { "Docker does not answer" } } }
            a.tile.big href={ (asked.base) "/balancer" } { span { "load balancer" } b.words { (health.balancer) } }
        }
    }
}

/// What can be done with the host as a whole.
fn host_acts(health: &PanelHealth) -> Markup {
    let paused = health.pauses.iter().any(|pause| pause.scope == "host");
    html! {
        @if paused { (parts::act("resume", "all", "")) } @else if health.servers > 0 { (parts::act("pause", "all", "")) }
        @if health.drained.is_some() { (parts::act("undrain", "", "main")) } @else { (parts::act("drain", "", "")) }
    }
}

/// What somebody wants of the host as a whole.
fn wishes(health: &PanelHealth) -> Markup {
    let end = |until: Option<i64>| html! { @if let Some(until) = until { ", ends " (parts::until(until)) } };
    html! {
        @if let Some(drain) = &health.drained {
            p #drained.banner.wait { (parts::icon("drain")) span {
                b { @if drain.waits > 0 { "Draining" } @else { "Drained" } } " by " (drain.by) " " (parts::time(drain.at)) (end(drain.until)) ": "
                @match (drain.waits, drain.of) {
                    (0, 0) => "nothing of this host is in a load balancer; /readyz answers 503.",
                    (0, of) => { "all " (of) " left the load balancer and run on." }
                    (waits, of) => { (of - waits) " of " (of) " left the load balancer, all run on." }
                }
            } }
        }
        @for pause in health.pauses.iter().filter(|pause| pause.scope == "host") {
            p #paused.banner.wait { (parts::icon("pause")) span {
                b { "Paused" } " by " (pause.by) " " (parts::time(pause.at)) (end(pause.until)) ": nothing is restarted, replaced or balanced anew."
            } }
        }
    }
}

/// This host: processors and memory as shares, the rest in words.
fn host_tile(host: &HostView) -> Markup {
    let memory = host.memory_bytes.zip(host.memory_available_bytes);
    let share = memory.map(|(all, free)| (all.saturating_sub(free) * 100).checked_div(all).unwrap_or(0));
    let disk = host.disk_bytes.zip(host.disk_free_bytes);
    let full = disk.map(|(all, free)| (all.saturating_sub(free) * 100).checked_div(all).unwrap_or(0));
    let words = [
        host.cores.map(|cores| format!("{cores} cores")),
        host.load.map(|load| format!("load {load:.2}")),
        memory.map(|(all, free)| format!("{} of {} free", parts::bytes(free), parts::bytes(all))),
        disk.map(|(_, free)| format!("disk {} free", parts::bytes(free))),
        host.uptime_seconds.map(|secs| format!("up {}", parts::millis(secs.saturating_mul(1000)))),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let cpu = host.cpu_percent.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.0} %"));
    let of = |share: Option<u64>| share.map_or_else(|| "–".to_owned(), |share| format!("{share} %"));
    html! {
        div.tile.host title=(words.join(", ")) {
            span { "host " (host.name.as_deref().unwrap_or("")) }
            b.words {
                span.nowrap { small { "CPU " } (cpu) } " " span.nowrap { small { "RAM " } (of(share)) } " " span.nowrap { small { "disk " } (of(full)) }
            }
            span.small { (words.iter().take(2).cloned().collect::<Vec<_>>().join(", ")) }
        }
    }
}

fn headline(health: &PanelHealth) -> String {
    let count = |state: &str| health.states.get(state).copied().unwrap_or(0);
    let (blocked, waiting) = (count("blocked"), count("waiting"));
    let verb = |n: usize, one: &'static str, many: &'static str| if n == 1 { one } else { many };
    match (health.pass, health.servers) {
        (0, _) => "Looking at the world for the first time".to_owned(),
        (_, 0) => "No servers yet".to_owned(),
        (_, 1) if count("converged") == 1 => "The server is as it should be".to_owned(),
        (_, all) if count("converged") + count("stopped") + count("asleep") == all => {
            format!("All {all} servers are as they should be")
        }
        (_, all) if blocked > 0 => {
            let others = match waiting {
                0 => String::new(),
                n => format!(", {n} {}", verb(n, "waits", "wait")),
            };
            format!("{blocked} of {all} servers {} a hand{others}", verb(blocked, "needs", "need"))
        }
        (_, all) if waiting > 0 => {
            format!("{waiting} of {all} servers {} for something", verb(waiting, "waits", "wait"))
        }
        (_, all) => {
            let changing = count("changing");
            format!("{changing} of {all} servers {} changing", verb(changing, "is", "are"))
        }
    }
}

/// The servers that somebody should look at, worst first, each with why.
fn needs(asked: &Asked, servers: &[ServerView]) -> Markup {
    let of = |state: &'static str| servers.iter().filter(move |server| server.state == state);
    let found: Vec<&ServerView> = of("blocked").chain(of("waiting")).collect();
    let left = found.len().saturating_sub(NEEDS_MAX);
    html! {
        @if !found.is_empty() {
            ul.needs aria-label="Needs a look" {
                @for server in found.iter().take(NEEDS_MAX) {
                    li {
                        i class={ "dot " (server.state) } {}
                        a.name href={ (asked.base) "/servers/" (server.id) } { (server.name) }
                        @if let Some(reason) = worst(server) { span.t { (sentence(reason)) } @if let Some(at) = reason.until { span.soft.small { (until_word(server)) (parts::until(at)) } } }
                    }
                }
                @if left > 0 { li { a href={ (asked.base) "?sort=state" } { (left) " more" } } }
            }
        }
    }
}

/// A reason as a sentence of its own, as long as a row has room for.
fn sentence(reason: &ReasonView) -> String {
    let waits = if reason.kind == "waiting-on" { "waits for " } else { "" };
    cut(&format!("{waits}{}", reason.text))
}

/// As much of a text as a row has room for.
fn cut(text: &str) -> String {
    match text.char_indices().nth(WHY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().trim_end()),
        None => text.to_owned(),
    }
}

/// What the time beside a reason is of.
fn until_word(server: &ServerView) -> &'static str {
    if server.state == "waiting" && server.restarts > 0 { "next try " } else { "" }
}

/// What holds a server back.
fn worst(server: &ServerView) -> Option<&ReasonView> {
    server.reasons.iter().find(|reason| matches!(reason.kind.as_str(), "blocked-by" | "waiting-on"))
}

/// In which order rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// By id.
    Name,
    /// What needs a hand first.
    State,
    /// Most first, from here on.
    Restarts,
    Cpu,
    Memory,
    Requests,
}

impl Order {
    const ALL: [Self; 6] = [Self::Name, Self::State, Self::Restarts, Self::Cpu, Self::Memory, Self::Requests];

    fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|order| order.word() == word).unwrap_or(Self::Name)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Restarts => "restarts",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Requests => "requests",
        }
    }

    /// How much of it a server has; what is not known comes last.
    fn much(self, server: &ServerView) -> f64 {
        let usage = server.usage.as_ref();
        match self {
            Self::Name => 0.0,
            Self::State => {
                let place = STATES.iter().position(|state| state.as_str() == server.state);
                -f64::from(u32::try_from(place.unwrap_or(STATES.len())).unwrap_or(u32::MAX))
            }
            Self::Restarts => f64::from(server.restarts),
            Self::Cpu => usage.and_then(|usage| usage.cpu_percent).unwrap_or(-1.0),
            Self::Memory => usage.and_then(|usage| usage.memory_bytes).map_or(-1.0, large),
            Self::Requests => {
                server.connection.as_ref().map_or(-1.0, |connection| large(connection.requests))
            }
        }
    }

    /// Stable: equal ones stay in the order of their ids.
    fn sort(self, servers: &mut [&ServerView]) {
        servers.sort_by(|one, other| self.much(other).total_cmp(&self.much(one)));
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is compared for people")]
const fn large(number: u64) -> f64 {
    number as f64
}

/// A cell over a column: a link that orders rows by it.
fn over(asked: &Asked, order: Order, (by, word, class): (Order, &str, &str)) -> Markup {
    let now = order == by;
    let kept = asked.query().into_iter().filter(|(key, value)| key != "sort" && !value.is_empty());
    let wanted = if now { Order::Name } else { by };
    let sort = (wanted != Order::Name).then(|| ("sort".to_owned(), wanted.word().to_owned()));
    let query = serde_urlencoded::to_string(kept.chain(sort).collect::<Vec<_>>()).unwrap_or_default();
    let towards = if by == Order::Name { "ascending" } else { "descending" };
    html! {
        th class=[(!class.is_empty()).then_some(class)] aria-sort=[now.then_some(towards)] {
            a href={ (asked.base) @if !query.is_empty() { "?" (query) } } { (word) }
        }
    }
}

/// Shares of the states; a picture of the figures under it.
fn bar(health: &PanelHealth) -> Markup {
    let all = health.servers.max(1);
    let mut from = 0;
    let mut pieces = Vec::new();
    for state in STATES.into_iter().rev() {
        let count = health.states.get(state.as_str()).copied().unwrap_or(0);
        if count > 0 {
            pieces.push((from, count, state.as_str()));
            from += count;
        }
    }
    html! {
        div.pad.bar-pad aria-hidden="true" {
            svg.bar viewBox={ "0 0 " (all) " 1" } preserveAspectRatio="none" {
                @for (from, count, state) in pieces {
                    rect class={ "f-" (state) } x=(from) y="0" width=(count) height="1" {}
                }
            }
        }
    }
}

fn all_acts(servers: &[ServerView]) -> Markup {
    let stopped = servers.iter().filter(|server| server.state == "stopped").count();
    html! {
        @if stopped > 0 { (parts::act("start", "all", "")) }
        @if stopped < servers.len() { (parts::act("restart", "all", "")) (parts::act("stop", "all", "danger")) }
    }
}

fn table(asked: &Asked, servers: &[&ServerView], (none, order): (bool, Order)) -> Markup {
    let over = |by: Order, word: &str, class: &str| over(asked, order, (by, word, class));
    let traces = asked.context.usage.traces(TRACE, TRACE_PARTS);
    // Said once above, not in a hundred rows.
    let host_paused = asked.context.handle.snapshot.borrow().pauses.contains_key(&Scope::Host);
    // A column of nothing takes room from why the others wait.
    let images = servers.iter().any(|server| server.image.is_some());
    html! {
        div.scroll {
            table.cards {
                (parts::caption("Servers"))
                // It changes with its rows.
                thead #columns data-live="" { tr {
                    (over(Order::Name, "Server", "")) (over(Order::State, "State", "")) th { "Health" } @if images { th.opt { "Image" } } th { "Transport" }
                    (over(Order::Restarts, "Restarts", "num")) (over(Order::Cpu, "CPU", "num")) (over(Order::Memory, "Memory", "num"))
                    (over(Order::Requests, "Requests", "num")) th { span.vh { "Actions" } }
                } }
                tbody #servers data-live="" data-rows="" data-usage="" {
                    @for server in servers { (row(asked, server, find(&traces, server), (host_paused, images))) }
                }
            }
        }
        @if servers.is_empty() {
            div.empty {
                @if none { "No server is configured. " a href={ (asked.base) "/add/server" } { "Add one" } ", or write it into " code { (asked.context.about.config) } "." }
                @else { "No server fits. " a href=(asked.base) { "Show all" } }
            }
        }
    }
}

fn find<'a>(traces: &'a BTreeMap<ServerId, Trace>, server: &ServerView) -> Option<&'a Trace> {
    traces.get(&ServerId::new(&server.id).ok()?)
}

fn row(
    asked: &Asked,
    server: &ServerView,
    trace: Option<&Trace>,
    (host_paused, images): (bool, bool),
) -> Markup {
    let worst = worst(server);
    let none = |nothing: bool| nothing.then_some("none");
    let idle = server.connection.as_ref().is_none_or(|connection| connection.requests == 0);
    let usage = server.usage.as_ref();
    html! {
        tr id={ "s-" (server.id) } {
            td.first {
                a.name href={ (asked.base) "/servers/" (server.id) } { (server.name) }
                @if server.paused { " " span.tag.held { "paused" } }
                @if let Some(section) = &server.section { " " a.tag href={ (asked.base) "?section=" (section) } { (section) } }
                @if let Some(reason) = worst { (reason_line(server, reason)) }
                @for reason in server.reasons.iter().filter(|reason| server.paused && !host_paused && reason.kind == "left-alone") { p.why { (reason.text) @if let Some(at) = reason.until { " · " (parts::until(at)) } } }
                @if let Some(intent) = &server.intent { p.why { @if intent.run { "started" } @else { "stopped" } " by " (intent.by) } }
            }
            td { (parts::pill(&server.state)) }
            (health(server, worst.is_none()))
            @if images { td class={ "opt wide " (none(server.image.is_none()).unwrap_or_default()) } {
                @let image = server.image.as_deref().unwrap_or("–");
                @let short = parts::short_image(image);
                span class={ "mono img" @if server.image.is_none() { " faint" } } title=[(short.len() > IMAGE_CHARS || short != image).then_some(image)] { (short) }
                @if let Some(id) = &server.image_id { " " span.mono.faint title=(id) { (parts::short_id(id)) } }
            } }
            td.nowrap {
                (server.transport.as_deref().unwrap_or(&server.kind))
                @if let Some(route) = &server.route { span.small.soft { " " (route) @if let Some(port) = server.port { " :" (port) } } }
            }
            td class={ "num " (none(server.restarts == 0).unwrap_or_default()) } data-l="restarts" {
                @if server.restarts == 0 { span.faint { "0" } } @else { (server.restarts) }
                @if let Some(next) = server.next_try.filter(|_| worst.is_none_or(|reason| reason.until.is_none())) { div.small.soft { (parts::until(next)) } }
            }
            td class={ "num " (none(usage.is_none()).unwrap_or_default()) } data-l="CPU" { @if let Some(trace) = trace { (cpu(trace)) } (figure(usage.and_then(|usage| usage.cpu_percent).map(chart::percent))) }
            td class={ "num " (none(usage.is_none()).unwrap_or_default()) } data-l="memory" { (figure(usage.and_then(|usage| usage.memory_bytes).map(parts::bytes))) }
            td class={ "num " (none(idle).unwrap_or_default()) } data-l="requests" { (requests(server, trace)) }
            td.wide { div.rowacts data-acts=(parts::acts_of(server)) {} }
        }
    }
}

fn health(server: &ServerView, say_why: bool) -> Markup {
    let (tone, health) = parts::health(server);
    let why = server.health.as_ref().and_then(|health| health.why.as_deref());
    // What a reason says already is not said again.
    let why = why.filter(|_| say_why).map(cut);
    html! {
        td class={ "nowrap " (if server.health.is_none() { "none" } else { "" }) } title=[&why] {
            @if tone.is_empty() { span.soft { (health) } } @else { (parts::pill_as(tone, health)) }
            @if let Some(running) = server.running { div.small.soft { (running) " of " (server.instances.len()) " run" } }
            @else if let Some(state) = server.container_state.as_deref().filter(|state| *state != "running") { div.small.soft { (state) } }
        }
    }
}

fn figure(text: Option<String>) -> Markup {
    html! { @match text { Some(text) => (text), None => span.faint { "–" } } }
}

/// From nothing to the most of the last hour, and at least a tenth of a processor.
fn cpu(trace: &Trace) -> Markup {
    let most = trace.cpu_millis.iter().flatten().copied().max().unwrap_or(0);
    html! { @if most > 0 { (chart::spark(&trace.cpu_millis, most.max(100), "cpu")) } }
}

fn reason_line(server: &ServerView, reason: &ReasonView) -> Markup {
    html! {
        p class={ "why " (server.state) } {
            (sentence(reason))
            @if let Some(at) = reason.until { " · " (until_word(server)) (parts::until(at)) }
        }
    }
}

fn requests(server: &ServerView, trace: Option<&Trace>) -> Markup {
    let Some(connection) = &server.connection else { return html! { "–" } };
    let usage = server.usage.as_ref();
    let rate = usage.and_then(|usage| usage.requests_per_second).filter(|_| connection.requests > 0);
    let p95 = usage.and_then(|usage| usage.p95_millis).or(connection.p95_millis);
    let spark = trace.filter(|trace| trace.requests.iter().flatten().any(|count| *count > 0));
    html! {
        @if let Some(trace) = spark { (chart::spark(&trace.requests, trace.requests.iter().flatten().copied().max().unwrap_or(1), "req")) }
        @match rate { Some(rate) => { (chart::number(rate)) "/s" }, None if connection.requests == 0 => span.faint { "0" }, None => (connection.requests) }
        @if let Some(p95) = p95 { div.small.soft { "p95 ≤ " (chart::millis(p95)) } }
        @if connection.errors > 0 { div.small.why.blocked { (connection.errors) " of " (connection.requests) " failed" } }
    }
}

#[cfg(test)]
mod tests {
    use super::Order;
    use crate::api::view::ServerView;

    /// A row in a few words; the rest is as of a server of which nothing is known.
    fn row(id: &str, state: &str, restarts: u32) -> ServerView {
        ServerView { id: id.to_owned(), state: state.to_owned(), restarts, ..ServerView::default() }
    }

    #[test]
    fn rows_are_ordered_and_equal_ones_stay_where_they_are() {
        let all = [
            row("a", "converged", 0),
            row("b", "waiting", 3),
            row("c", "blocked", 0),
            row("d", "waiting", 1),
        ];
        let sorted = |word: &str| {
            let mut shown: Vec<&ServerView> = all.iter().collect();
            Order::of(word).sort(&mut shown);
            shown.iter().map(|server| server.id.as_str()).collect::<String>()
        };
        let found = ["", "state", "restarts", "cpu", "nonsense"].map(sorted);
        assert_eq!(found, ["abcd", "cbda", "bdac", "abcd", "abcd"]);
    }
}
