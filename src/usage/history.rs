//! Points of all servers: every minute for a few hours, every ten minutes for a day.
//!
//! Must never hold more points of a server than its steps say, nor points of a server of which
//! nothing was heard for a day.

use crate::model::id::ServerId;
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{KeptPoint, Point, Step};
use crate::usage::Trace;
use std::collections::{BTreeMap, VecDeque};

/// Servers that have a history; whatever comes first stays.
const SERVERS_MAX: usize = 2_000;

/// All points in memory.
#[derive(Debug, Default)]
pub(super) struct History {
    servers: BTreeMap<ServerId, Points>,
}

#[derive(Debug, Default)]
struct Points {
    minutes: VecDeque<Point>,
    tens: VecDeque<Point>,
}

fn slot(at: Timestamp, step: Step) -> i64 {
    at.0.div_euclid(i64::try_from(step.span().0).unwrap_or(i64::MAX))
}

fn push(points: &mut VecDeque<Point>, step: Step, point: Point) {
    let gone = |first: &Point| point.at.since(first.at) >= step.kept();
    while points.len() >= step.points() || points.front().is_some_and(gone) {
        points.pop_front();
    }
    points.push_back(point);
}

impl Points {
    fn of(&self, step: Step) -> &VecDeque<Point> {
        match step {
            Step::Minute => &self.minutes,
            Step::TenMinutes => &self.tens,
        }
    }

    fn newest(&self) -> Timestamp {
        let last = |points: &VecDeque<Point>| points.back().map_or(Timestamp(i64::MIN), |point| point.at);
        last(&self.minutes).max(last(&self.tens))
    }

    /// The ten minutes that end before `at`, once `at` lies in the next ones.
    fn ten_before(&self, at: Timestamp) -> Option<Point> {
        let last = self.minutes.back().map(|point| slot(point.at, Step::TenMinutes))?;
        if slot(at, Step::TenMinutes) <= last {
            return None;
        }
        let own = self.minutes.iter().rev().take_while(|point| slot(point.at, Step::TenMinutes) == last);
        Some(together(own.copied()))
    }
}

/// Points as one: means, sums, and the worst of the latencies.
fn together(points: impl Iterator<Item = Point>) -> Point {
    let mut all = Point { at: Timestamp(i64::MIN), ..Point::default() };
    let (mut cpu, mut memory) = (Mean::default(), Mean::default());
    for point in points {
        all.at = all.at.max(point.at);
        all.requests = all.requests.saturating_add(point.requests);
        all.errors = all.errors.saturating_add(point.errors);
        all.p95_micros = all.p95_micros.max(point.p95_micros);
        cpu.add(point.cpu_millis);
        memory.add(point.memory_kib);
    }
    Point { cpu_millis: cpu.value(), memory_kib: memory.value(), ..all }
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: Option<u32>) {
        if let Some(value) = value {
            self.sum += u64::from(value);
            self.count += 1;
        }
    }

    fn value(self) -> Option<u32> {
        u32::try_from(self.sum.checked_div(self.count)?).ok()
    }
}

impl History {
    /// What was kept, oldest first.
    pub(super) fn of(kept: Vec<KeptPoint>) -> Self {
        let mut history = Self::default();
        for KeptPoint { server, step, point } in kept {
            if history.servers.contains_key(&server) || history.servers.len() < SERVERS_MAX {
                let points = history.servers.entry(server).or_default();
                match step {
                    Step::Minute => push(&mut points.minutes, step, point),
                    Step::TenMinutes => push(&mut points.tens, step, point),
                }
            }
        }
        history
    }

    /// Takes the newest point of a server, and gives what is to be kept of it.
    pub(super) fn add(&mut self, server: &ServerId, point: Point) -> Vec<KeptPoint> {
        if !self.servers.contains_key(server) && self.servers.len() >= SERVERS_MAX {
            return Vec::new();
        }
        let points = self.servers.entry(server.clone()).or_default();
        let kept = |step: Step, point: Point| KeptPoint { server: server.clone(), step, point };
        let mut keep = vec![kept(Step::Minute, point)];
        if let Some(ten) = points.ten_before(point.at) {
            push(&mut points.tens, Step::TenMinutes, ten);
            keep.push(kept(Step::TenMinutes, ten));
        }
        push(&mut points.minutes, Step::Minute, point);
        keep
    }

    /// Forgets servers that nothing was heard of for as long as points are kept.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.servers.retain(|_, points| now.since(points.newest()) < Step::TenMinutes.kept());
    }

    /// Points of a server after `from`, oldest first.
    pub(super) fn of_server(&self, server: &ServerId, step: Step, from: Timestamp) -> Vec<Point> {
        let points = self.servers.get(server).map(|points| points.of(step)).into_iter().flatten();
        points.filter(|point| point.at > from).copied().collect()
    }

    /// The last `span` of every server in `count` equal parts.
    pub(super) fn traces(&self, now: Timestamp, span: Span, count: usize) -> BTreeMap<ServerId, Trace> {
        let part = (span.0 / u64::try_from(count.max(1)).unwrap_or(1)).max(1);
        let mut traces = BTreeMap::new();
        for (server, points) in &self.servers {
            let mut parts: Vec<Vec<Point>> = vec![Vec::new(); count];
            for point in points.minutes.iter().rev() {
                let age = usize::try_from(now.since(point.at).0 / part).unwrap_or(usize::MAX);
                let Some(place) = count.checked_sub(age.saturating_add(1)) else { break };
                if let Some(part) = parts.get_mut(place) {
                    part.push(*point);
                }
            }
            if parts.iter().all(Vec::is_empty) {
                continue;
            }
            let parts: Vec<Option<Point>> = parts
                .into_iter()
                .map(|part| (!part.is_empty()).then(|| together(part.into_iter())))
                .collect();
            let each = |value: fn(&Point) -> Option<u32>| {
                parts.iter().map(|part| part.as_ref().and_then(value)).collect()
            };
            let trace = Trace {
                cpu_millis: each(|point| point.cpu_millis),
                memory_kib: each(|point| point.memory_kib),
                requests: each(|point| Some(point.requests)),
            };
            traces.insert(server.clone(), trace);
        }
        traces
    }
}
