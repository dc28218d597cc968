//! The gateway's figures for Prometheus.
//!
//! Labels are ids of configured servers, numbers of their instances where one has several, and methods and tools up to the bound that
//! [`crate::gateway::metrics`] keeps: no client can make the answer grow without end. Must never
//! have a label that tells clients or sessions apart.

use crate::gateway::metrics::BUCKETS_MICROS;
use crate::gateway::metrics::page::{Family, Kind, Page, REPLICA, Several};
use crate::gateway::overview::{KindView, ServerView};
use crate::gateway::traffic::view::Reason;
use crate::traffic::breaker::State;

const SERVER: &[&str] = &["server", REPLICA];
const CALL: &[&str] = &["server", REPLICA, "method", "tool"];

const fn gauge(name: &'static str, about: &'static str) -> Family {
    Family::new(name, Kind::Gauge, SERVER, about)
}

const fn counter(name: &'static str, about: &'static str) -> Family {
    Family::new(name, Kind::Counter, SERVER, about)
}

/// A figure per server.
type Figure = (Family, fn(&ServerView) -> u64);

#[rustfmt::skip] // one line for each, as in a table
const FIGURES: &[Figure] = &[
    (gauge("gateway_up", "Whether the server answers MCP over the shared connection."), |view| view.up.into()),
    (gauge("gateway_own_connections", "Connections that belong to one client or call alone."), |view| number(view.own_connections)),
    (gauge("gateway_parked_requests", "Requests that wait for the server."), |view| number(view.parked)),
    (gauge("gateway_in_flight_requests", "Requests without an answer so far."), |view| view.in_flight),
    (gauge("gateway_queued_bytes", "Bytes that wait to be written to the server."), |view| view.queued_bytes),
    (counter("gateway_sessions_opened_total", "Sessions opened."), |view| view.sessions_opened),
    (counter("gateway_received_bytes_total", "Bytes of requests."), |view| view.bytes_in),
    (counter("gateway_sent_bytes_total", "Bytes of answers."), |view| view.bytes_out),
    (counter("gateway_refused_requests_total", "Requests answered with HTTP status 4xx or 5xx."), |view| view.refused),
    (counter("gateway_dropped_messages_total", "Progress and log messages that slow clients lost."), |view| view.dropped),
    (gauge("gateway_admitted_calls", "Calls under way of those that maxConcurrentRequests counts."), |view| view.traffic.running.into()),
    (gauge("gateway_queued_calls", "Calls that wait for one of maxConcurrentRequests."), |view| view.traffic.waiting.into()),
    (gauge("gateway_circuit_state", "The server's circuit: 0 closed, 1 half open, 2 open."), |view| circuit(view.traffic.circuit)),
    (counter("gateway_circuit_opened_total", "Times that the circuit opened."), |view| view.traffic.circuit_opened),
    (counter("gateway_cache_hits_total", "Calls answered from what is kept."), |view| view.traffic.cache_hits),
    (counter("gateway_cache_misses_total", "Calls sent because no answer was kept, of tools whose answers are."), |view| view.traffic.cache_misses),
    (gauge("gateway_cache_bytes", "Bytes of answers that are kept."), |view| view.traffic.cached_bytes),
    (counter("gateway_retries_total", "Calls sent again."), |view| view.traffic.retries),
];
const DENIED: Family = Family::new(
    "gateway_denied_calls_total",
    Kind::Counter,
    &["server", REPLICA, "reason"],
    "Calls that a limit of the entry did not let through, and answers that were too long.",
);
const SESSIONS: Family = Family::new(
    "gateway_sessions",
    Kind::Gauge,
    &["server", REPLICA, "backing"],
    "Sessions that are open, on shared and on own connections.",
);
const QUESTIONS: Family = Family::new(
    "gateway_health_questions_total",
    Kind::Counter,
    &["server", REPLICA, "result"],
    "Times that the server was asked after its health: answered or unanswered.",
);
const ERRORS: Family = Family::new(
    "gateway_request_errors_total",
    Kind::Counter,
    CALL,
    "Requests that failed or were given up.",
);
const DURATION: Family =
    Family::new("gateway_request_duration_seconds", Kind::Histogram, CALL, "How long requests took.");

/// All families of this page.
pub fn families() -> impl Iterator<Item = &'static Family> {
    FIGURES.iter().map(|(family, _)| family).chain([&DENIED, &SESSIONS, &QUESTIONS, &ERRORS, &DURATION])
}

/// One instance of a server, under the labels that it has.
struct Labelled<'a> {
    view: &'a ServerView,
    server: String,
    /// Empty where there is no other.
    replica: String,
}

fn labelled<'a>(views: &'a [ServerView]) -> Vec<Labelled<'a>> {
    let several = Several::among(views.iter().map(|view| &view.server));
    let one = |view: &'a ServerView| {
        let [server, replica] = several.labels(&view.server);
        Labelled { view, server, replica }
    };
    views.iter().map(one).collect()
}

/// Writes all figures of all servers.
pub fn write(page: &mut Page, views: &[ServerView]) {
    let views = labelled(views);
    let views = views.as_slice();
    for (family, figure) in FIGURES {
        page.family(family);
        for Labelled { view, server, replica } in views {
            page.sample(family, &[server, replica], figure(view));
        }
    }
    page.family(&DENIED);
    for Labelled { view, server, replica } in views {
        for reason in Reason::ALL.map(Reason::as_str) {
            let count = view.traffic.denied.get(reason).copied().unwrap_or_default();
            page.sample(&DENIED, &[server, replica, reason], count);
        }
    }
    page.family(&SESSIONS);
    for Labelled { view, server, replica } in views {
        for (backing, count) in [("shared", view.shared_sessions), ("own", view.own_sessions)] {
            page.sample(&SESSIONS, &[server, replica, backing], count);
        }
    }
    page.family(&QUESTIONS);
    let asked = views.iter().filter_map(|one| Some((one, one.view.health.as_ref()?)));
    for (Labelled { server, replica, .. }, health) in asked {
        for (result, count) in [("answered", health.answered), ("unanswered", health.unanswered)] {
            page.sample(&QUESTIONS, &[server, replica, result], count);
        }
    }
    page.family(&ERRORS);
    each(views, |labels, call| page.sample(&ERRORS, labels, call.errors));
    page.family(&DURATION);
    each(views, |labels, call| {
        page.histogram(&DURATION, labels, &BUCKETS_MICROS, (&call.classes, call.micros));
    });
}

const fn circuit(state: State) -> u64 {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn each(views: &[Labelled<'_>], mut show: impl FnMut(&[&str], &KindView)) {
    for Labelled { view, server, replica } in views {
        for call in &view.calls {
            show(&[server, replica, &call.method, &call.tool], call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{families, write};
    use crate::gateway::metrics::BUCKETS_MICROS;
    use crate::gateway::metrics::page::Page;
    use crate::gateway::overview::{KindView, ServerView};
    use crate::gateway::traffic::view::TrafficView;
    use crate::model::id::ServerId;
    use std::collections::BTreeSet;

    fn view(id: &str) -> ServerView {
        let mut classes = [0; BUCKETS_MICROS.len() + 1];
        (classes[0], classes[3], classes[BUCKETS_MICROS.len()]) = (2, 1, 1);
        let call = KindView {
            method: "tools/call".to_owned(),
            tool: "odd \"name\"\n\\".to_owned(),
            calls: 4,
            errors: 1,
            median_millis: None,
            micros: 1_250_000,
            classes,
        };
        ServerView {
            server: ServerId::instance(id).expect("an id"),
            health: None,
            up: true,
            why: None,
            era: Some("legacy"),
            version: Some("2025-11-25".to_owned()),
            shared_sessions: 3,
            own_sessions: 1,
            own_connections: 1,
            parked: 0,
            in_flight: 2,
            queued_bytes: 10,
            sessions_opened: 9,
            bytes_in: 100,
            bytes_out: 200,
            refused: 5,
            dropped: 6,
            traffic: TrafficView::default(),
            calls: vec![call],
        }
    }

    #[test]
    fn each_figure_stands_once_under_its_head() {
        let mut page = Page::default();
        write(&mut page, &[view("search"), view("time")]);
        let text = page.into_text();
        let named = "mcp_orchestrator_gateway_request_duration_seconds";
        let labels = r#"server="time",method="tools/call",tool="odd \"name\"\n\\""#;
        for expected in [
            "mcp_orchestrator_gateway_up{server=\"time\"} 1".to_owned(),
            "mcp_orchestrator_gateway_sessions{server=\"time\",backing=\"own\"} 1".to_owned(),
            format!("{named}_bucket{{{labels},le=\"0.0001\"}} 2"),
            format!("{named}_bucket{{{labels},le=\"0.001\"}} 3"),
            format!("{named}_bucket{{{labels},le=\"300\"}} 3"),
            format!("{named}_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("{named}_sum{{{labels}}} 1.25"),
            format!("{named}_count{{{labels}}} 4"),
        ] {
            assert_eq!(text.lines().filter(|line| *line == expected).count(), 1, "{expected}\n{text}");
        }
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        assert_eq!(heads.len(), families().count());
        assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), heads.len(), "a head stands once");
        let series: Vec<&str> =
            text.lines().filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name)).collect();
        assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len(), "a series stands once");
    }

    #[test]
    fn instances_are_told_apart_by_a_label_of_their_own() {
        let mut page = Page::default();
        write(&mut page, &[view("search"), view("time"), view("time-R2")]);
        let text = page.into_text();
        for expected in [
            "mcp_orchestrator_gateway_up{server=\"search\"} 1",
            "mcp_orchestrator_gateway_up{server=\"time\",replica=\"1\"} 1",
            "mcp_orchestrator_gateway_up{server=\"time\",replica=\"2\"} 1",
        ] {
            assert_eq!(text.lines().filter(|line| *line == expected).count(), 1, "{expected}\n{text}");
        }
    }
}
