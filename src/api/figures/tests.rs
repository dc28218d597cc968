//! The page as a program reads it, and what counts as what.

use crate::api::configuration::Configuration;
use crate::api::figures::{Figures, Moment, Outcome, Used, families, text};
use crate::gateway::metrics::page::{Kind, PREFIX, REPLICA};
use crate::gateway::overview::{HealthView, KindView, ServerView};
use crate::gateway::traffic::view::TrafficView;
use crate::model::balancer::BalancerSeen;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::{End, Intent, Lease};
use crate::model::net::{HostPort, PortRange};
use crate::model::observed::Seen;
use crate::model::op::{ContainerRef, EdgeOp, EngineOp, Op};
use crate::model::time::{Span, Timestamp};
use crate::plan::action::Action;
use crate::plan::report::{Row, RowState};
use crate::service::{SeenByPass, Snapshot};
use crate::world::Calls;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn id(name: &str) -> ServerId {
    ServerId::new(name).expect("an id")
}

fn port(number: u16) -> HostPort {
    HostPort::new(number).expect("a port")
}

fn start(server: &str) -> Action {
    let container = ContainerRef::Id { id: ContainerId("abc".to_owned()), name: format!("mcp-{server}") };
    action(server, Op::Engine(EngineOp::Start(container)))
}

fn action(server: &str, op: Op) -> Action {
    Action { op, server: Some(id(server)), why: String::new(), after: Vec::new() }
}

fn snapshot(states: &[(&str, RowState)]) -> Snapshot {
    let mut snapshot = Snapshot { pass: 1, generation: 3, ..Snapshot::default() };
    for (name, state) in states {
        let row = Row { state: *state, container_state: Some("running".to_owned()), ..Row::new("container") };
        snapshot.report.servers.insert(id(name), row);
    }
    snapshot.report.engine_known = true;
    snapshot
}

fn view(server: &str) -> ServerView {
    let call = KindView {
        method: "tools/call".to_owned(),
        tool: "odd \"name\"\n\\".to_owned(),
        calls: 3,
        errors: 1,
        median_millis: None,
        micros: 1_500,
        classes: [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    ServerView {
        server: id(server),
        health: Some(HealthView {
            state: "healthy".to_owned(),
            since: 0,
            why: None,
            failures: 0,
            latency_millis: Some(3),
            usual_millis: Some(2),
            judged: 5,
            answered: 7,
            unanswered: 1,
        }),
        up: true,
        why: None,
        era: Some("legacy"),
        version: None,
        shared_sessions: 1,
        own_sessions: 0,
        own_connections: 0,
        parked: 0,
        in_flight: 0,
        queued_bytes: 0,
        sessions_opened: 1,
        bytes_in: 1,
        bytes_out: 1,
        refused: 0,
        dropped: 0,
        traffic: TrafficView::default(),
        calls: vec![call],
    }
}

/// A page on which every family has a number.
fn full() -> String {
    let calls = Arc::new(Calls::default());
    calls.count("DescribeRules", "ok");
    calls.count("DescribeRules", "Throttling");
    let figures = Figures::new(Timestamp(1_700_000_000_123), calls);
    let mut snapshot = snapshot(&[("time", RowState::Converged), ("web", RowState::Stopped)]);
    let _news = figures.passed(Span(7), &[], &snapshot);
    let _news = figures.passed(Span(40), &[start("time")], &snapshot);
    figures.acted(&start("time"), Outcome::Done, Some(Span(1_250)));
    figures.acted(&start("web"), Outcome::Failed, Some(Span(5)));
    figures.acted(&start("web"), Outcome::Skipped, None);
    figures.refused();
    let lease = |number| Lease { port: port(number), next: None, since: Timestamp(0), fixed: false };
    snapshot.leases = [(id("time"), lease(8000)), (id("web"), lease(9999))].into();
    let balancer = BalancerSeen::On(Seen::Unknown("no answer".to_owned()));
    snapshot.seen = Some(Arc::new(SeenByPass { actions: Vec::new(), balancer, targets: BTreeMap::new() }));
    let ports = PortRange { start: port(8000), end: port(8099) };
    let configuration = Configuration { generation: 3, ..Configuration::default() };
    let views = [view("time"), view("web")];
    let used = [(id("time"), Used { cpu_micros: Some(2_500_000), memory_bytes: Some(1_024) })].into();
    let (snapshot, configuration) = (&snapshot, &configuration);
    text(&figures, &Moment { snapshot, configuration, ports, views: &views, used: &used, calls_lost: 3 })
}

/// A sample: name, labels, number.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads one line as Prometheus does.
fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = line.split_at(end);
    let mut labels = Vec::new();
    let mut chars = rest.chars().peekable();
    if chars.next_if_eq(&'{').is_some() {
        loop {
            let label: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
            assert_eq!((chars.next(), chars.next()), (Some('='), Some('"')), "{line}");
            let mut value = String::new();
            loop {
                match chars.next().unwrap_or_else(|| panic!("{line}")) {
                    '"' => break,
                    '\\' => value.push(match chars.next() {
                        Some('n') => '\n',
                        Some(c @ ('"' | '\\')) => c,
                        other => panic!("{other:?} in {line}"),
                    }),
                    '\n' => panic!("{line}"),
                    c => value.push(c),
                }
            }
            labels.push((label, value));
            match chars.next() {
                Some(',') => {}
                Some('}') => break,
                other => panic!("{other:?} in {line}"),
            }
        }
    }
    assert_eq!(chars.next(), Some(' '), "{line}");
    let number: String = chars.collect();
    (name.to_owned(), labels, number.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
}

/// What a linter of this format looks at.
#[test]
fn the_page_is_sound() {
    let page = full();
    let known: BTreeMap<String, _> =
        families().map(|family| (format!("{PREFIX}{}", family.name), family)).collect();
    assert_eq!(known.len(), families().count(), "a name stands once in the tables");
    let mut begun: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, about) = rest.split_once(' ').expect("a meaning");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            let family = known.get(name).unwrap_or_else(|| panic!("{name} is in no table"));
            assert_eq!(kind, Some(family.kind.as_str()), "{name}");
            assert!(about.ends_with('.') && about == family.about, "{about}");
            assert!(!begun.contains(&name.to_owned()), "{name} stands twice");
            begun.push(name.to_owned());
            continue;
        }
        let found = sample(line);
        let name = begun.last().expect("a head");
        let family = known[name];
        let (ending, histogram) = (found.0.strip_prefix(name.as_str()), family.kind == Kind::Histogram);
        let fits = match ending.unwrap_or_else(|| panic!("{line} stands under {name}")) {
            "" => !histogram,
            "_bucket" | "_sum" | "_count" => histogram,
            _ => false,
        };
        assert!(fits, "{line} stands under {name}");
        let labels: Vec<&str> =
            found.1.iter().map(|(label, _)| label.as_str()).filter(|label| *label != "le").collect();
        let mut declared = family.labels.to_vec();
        // Left out where a server has one instance.
        declared.retain(|label| *label != REPLICA || labels.contains(label));
        assert_eq!(labels, declared, "{line}");
        assert!(seen.insert(line.rsplit_once(' ').expect("a number").0.to_owned()), "{line} stands twice");
        assert!(found.2 >= 0.0, "{line}");
        samples.entry(name.clone()).or_default().push(found);
    }
    assert_eq!(begun.iter().collect::<BTreeSet<_>>(), known.keys().collect(), "every family is begun");
    for (name, family) in &known {
        assert!(samples.contains_key(name), "{name} has no number");
        let total = name.ends_with("_total");
        assert_eq!(total, family.kind == Kind::Counter, "{name}: what only grows ends with _total");
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(plain), "{name}");
        for unit in ["_ms", "_millis", "_micros", "_minutes", "_kb", "_percent"] {
            assert!(!name.contains(unit), "{name}: base units only");
        }
        if family.kind == Kind::Histogram {
            histogram(name, &samples[name]);
        }
    }
}

/// Classes ascend and end with all, which the count repeats.
fn histogram(name: &str, samples: &[Sample]) {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let mut sums = BTreeSet::new();
    for (full, labels, number) in samples {
        let rest: Vec<_> = labels.iter().filter(|(label, _)| label != "le").collect();
        let key = format!("{rest:?}");
        if full.ends_with("_bucket") {
            let le = labels.iter().find(|(label, _)| label == "le").expect("le").1.clone();
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().expect("a number") };
            series.entry(key).or_default().push((le, *number));
        } else if full.ends_with("_count") {
            counts.insert(key, *number);
        } else {
            sums.insert(key);
        }
    }
    for (key, classes) in series {
        assert!(classes.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1), "{name} {key}");
        let last = classes.last().expect("a class");
        assert!(last.0.is_infinite() && counts.get(&key) == Some(&last.1), "{name} {key}");
        assert!(sums.contains(&key), "{name} {key}");
    }
}

#[test]
fn figures_say_what_happened() {
    let page = full();
    for expected in [
        "passes_total 2",
        "pass_duration_seconds_bucket{le=\"0.01\"} 1",
        "pass_duration_seconds_sum 0.047",
        "start_time_seconds 1700000000.123",
        "actions_total{action=\"start_container\",result=\"done\"} 1",
        "actions_total{action=\"start_container\",result=\"failed\"} 1",
        "action_seconds_total{action=\"start_container\"} 1.255",
        "drift_total{part=\"engine\"} 1",
        "drift_total{part=\"edge\"} 0",
        "balancer_up 0",
        "engine_up 1",
        "aws_calls_total{operation=\"DescribeRules\",result=\"Throttling\"} 1",
        "ports 100",
        "ports_leased 1",
        "servers{state=\"converged\"} 1",
        "server_state{server=\"web\",state=\"stopped\"} 1",
        "server_state{server=\"web\",state=\"converged\"} 0",
        "server_up{server=\"time\"} 1",
        "server_cpu_seconds_total{server=\"time\"} 2.5",
        "server_memory_bytes{server=\"time\"} 1024",
        "server_healthy{server=\"time\"} 1",
        "server_health{server=\"time\",state=\"healthy\"} 1",
        "server_health{server=\"time\",state=\"critical\"} 0",
        "server_restarts_total{server=\"time\"} 1",
        "sign_ins_refused_total 1",
    ] {
        let line = format!("{PREFIX}{expected}");
        assert_eq!(page.lines().filter(|found| **found == line).count(), 1, "{line}\n{page}");
    }
    assert!(!page.contains("server_healthy{server=\"web\"}"), "stopped servers are not unhealthy");
}

#[test]
fn drift_is_what_nobody_asked_for() {
    let drift = |before: &Snapshot, now: &Snapshot, actions: &[Action]| {
        let figures = Figures::new(Timestamp(0), Arc::default());
        let _news = figures.passed(Span(1), &[], before);
        let _news = figures.passed(Span(1), actions, now);
        figures.counts().drift.values().sum::<u64>()
    };
    let well = snapshot(&[("time", RowState::Converged)]);
    let gone = snapshot(&[("time", RowState::Changing)]);
    let open = action("time", Op::Edge(EdgeOp::Open { server: id("time"), port: port(8000) }));
    assert_eq!(drift(&well, &gone, &[start("time")]), 1);
    assert_eq!(drift(&well, &gone, &[start("time"), start("time")]), 1, "a server counts once in a pass");
    assert_eq!(drift(&well, &gone, &[start("time"), open]), 2, "in each part of the world");
    assert_eq!(drift(&gone, &gone, &[start("time")]), 0, "it was not well before");
    assert_eq!(
        drift(&well, &Snapshot { generation: 4, ..gone.clone() }, &[start("time")]),
        0,
        "the files changed"
    );
    let intent = Intent {
        run: false,
        by: "somebody".to_owned(),
        at: Timestamp(0),
        until: None,
        file_enabled: true,
        restart: None,
    };
    let asked = Snapshot { intents: [(id("time"), intent)].into(), ..gone.clone() };
    assert_eq!(drift(&well, &asked, &[start("time")]), 0, "somebody asked for it");
}

#[test]
fn ends_are_counted_once_and_told_once_and_restarts_of_processes_count() {
    let figures = Figures::new(Timestamp(1_000), Arc::default());
    let end = |at: i64, oom| End { at: Timestamp(at), how: format!("end {at}"), oom, words: None };
    let mut now = snapshot(&[("time", RowState::Converged), ("web", RowState::Converged)]);
    let mut put = |ends: Vec<End>, restarts: u32, paused: bool| {
        let row = now.report.servers.get_mut(&id("time")).expect("a row");
        (row.kind, row.ends, row.restarts, row.paused) = ("process", ends, restarts, paused);
        let news = figures.passed(Span(1), &[], &now);
        let told: Vec<String> =
            news.into_iter().map(|(server, end)| format!("{server} {}", end.how)).collect();
        told
    };
    // One that an earlier daemon told of is remembered, and no news.
    assert!(put(vec![end(500, Some(true))], 0, false).is_empty());
    assert_eq!(put(vec![end(2_000, Some(true)), end(500, Some(true))], 1, false), ["time end 2000"]);
    assert!(put(vec![end(2_000, Some(true)), end(500, Some(true))], 1, true).is_empty());
    // Newest first, as rows have them; told in the order in which they were.
    let all = vec![end(4_000, None), end(3_000, Some(false)), end(2_000, Some(true))];
    assert_eq!(put(all.clone(), 3, true), ["time end 3000", "time end 4000"]);
    // It was stable for a while, and ended again.
    assert!(put(all, 0, true).is_empty());
    assert_eq!(put(vec![end(5_000, Some(false))], 1, true), ["time end 5000"]);
    let (ports, configuration) = (PortRange { start: port(8000), end: port(8099) }, Configuration::default());
    let (views, used) = ([view("time"), view("web")], BTreeMap::new());
    let (snapshot, configuration) = (&now, &configuration);
    let moment = Moment { snapshot, configuration, ports, views: &views, used: &used, calls_lost: 0 };
    let page = text(&figures, &moment);
    let number = |family: &str, server: &str| {
        let start = format!("{PREFIX}{family}{{server=\"{server}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(start.as_str())).map(str::to_owned)
    };
    for (family, time, web) in [
        ("server_ends_total", "4", "0"),
        ("server_oom_kills_total", "1", "0"),
        ("server_restarts_total", "4", "0"),
        ("server_paused", "1", "0"),
    ] {
        assert_eq!(number(family, "time").as_deref(), Some(time), "{family}");
        assert_eq!(number(family, "web").as_deref(), Some(web), "{family}");
    }
}
