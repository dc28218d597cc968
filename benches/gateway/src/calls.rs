//! Closed-loop load: so many sessions, each with one connection and one call in flight.
//!
//! Opening the sessions is measured first, all at once on connections that stand; then calls for a
//! while, of which those that begin and end within the window count.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::Connection;
use crate::process::Reading;
use crate::reply::{check, shortened};
use crate::target::{Calls, Session, Style, Target};

/// How long after the window a call may still be on its way; then its session counts as hung.
const GRACE: Duration = Duration::from_secs(5);
/// How long opening all sessions may take.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// Errors in a row after which a session gives up.
const ERRORS_MAX: u32 = 3;

/// One cell of the table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The gateway.
    pub target: Target,
    /// Sessions at once.
    pub sessions: usize,
    /// Bytes of each text.
    pub payload: usize,
    /// Length of the window, in seconds.
    pub seconds: f64,
    /// Time under load before it, in seconds.
    pub warm_up: f64,
    /// The gateway's first process.
    pub pid: Option<u32>,
}

#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

#[derive(Default)]
struct Tally {
    ns: Vec<u64>,
    errors: u64,
    hung: u64,
    first_error: Option<String>,
}

impl Tally {
    fn fail(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    fn add(&mut self, other: Self) {
        self.ns.extend(other.ns);
        self.errors += other.errors;
        self.hung += other.hung;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

struct Opened {
    connection: Connection,
    session: Session,
    took: Duration,
}

/// Runs the cell; its figures as JSON.
///
/// # Errors
/// No session could be opened; in words.
pub async fn run(cell: Cell) -> Result<Value, String> {
    let cell = Arc::new(cell);
    let idle = reading(&cell).await;
    let (opened, mut setup) = open_all(&cell).await;
    if opened.is_empty() {
        return Err(setup
            .first_error
            .take()
            .unwrap_or_else(|| "no session could be opened in time".to_owned()));
    }
    // mcpo knows no sessions.
    if cell.target.style == Style::Mcp {
        setup.ns = opened.iter().map(|one| nanoseconds(one.took)).collect();
    }
    let begin = Instant::now() + Duration::from_secs_f64(cell.warm_up);
    let window = Window { begin, end: begin + Duration::from_secs_f64(cell.seconds) };
    let mut tasks = JoinSet::new();
    for (index, one) in opened.into_iter().enumerate() {
        tasks.spawn(call_for_a_while(Arc::clone(&cell), index, one, window));
    }
    sleep_until(window.begin).await;
    let before = reading(&cell).await;
    let begun = Instant::now();
    sleep_until(window.end).await;
    let seconds = begun.elapsed().as_secs_f64();
    let after = reading(&cell).await;
    let mut calls = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        calls.add(tally.map_err(|error| error.to_string())?);
    }
    Ok(report(&cell, [setup, calls], [idle, before, after], seconds))
}

fn report(cell: &Cell, tallies: [Tally; 2], readings: [Reading; 3], seconds: f64) -> Value {
    let [mut setup, mut calls] = tallies;
    let [idle, before, after] = readings;
    let count = calls.ns.len() as u64;
    setup.ns.sort_unstable();
    calls.ns.sort_unstable();
    let us = |ns: &[u64], part: f64| percentile(ns, part).map(|ns| ns / 1e3);
    #[expect(clippy::cast_precision_loss, reason = "calls of one run are a small number")]
    let rps = count as f64 / cell.seconds;
    json!({
        "sessions": cell.sessions, "payload": cell.payload, "seconds": cell.seconds,
        "calls": count, "rps": rps, "errors": setup.errors + calls.errors, "hung": setup.hung + calls.hung,
        "first_error": calls.first_error.or(setup.first_error),
        "p50_us": us(&calls.ns, 0.50), "p99_us": us(&calls.ns, 0.99), "max_us": us(&calls.ns, 1.0),
        "setup": {
            "opened": setup.ns.len(),
            "p50_us": us(&setup.ns, 0.50), "p99_us": us(&setup.ns, 0.99),
        },
        "cpu_us": after.bridge.us_per_call(&before.bridge, count),
        "child_cpu_us": after.child.us_per_call(&before.child, count),
        "own_cpu_us": after.own.us_per_call(&before.own, count),
        "other_cores": after.other_cores(&before, seconds),
        "idle": idle.bridge.json(), "begin": before.bridge.json(), "bridge": after.bridge.json(), "child": after.child.json(),
    })
}

async fn reading(cell: &Cell) -> Reading {
    let pid = cell.pid;
    tokio::task::spawn_blocking(move || Reading::take(pid)).await.unwrap_or_default()
}

/// Opens all sessions at once.
async fn open_all(cell: &Arc<Cell>) -> (Vec<Opened>, Tally) {
    let barrier = Arc::new(Barrier::new(cell.sessions));
    let deadline = Instant::now() + OPEN_WITHIN;
    let mut tasks = JoinSet::new();
    for _ in 0..cell.sessions {
        let (cell, barrier) = (Arc::clone(cell), Arc::clone(&barrier));
        tasks.spawn(async move {
            let connection = Connection::open(&cell.target).await;
            barrier.wait().await;
            open(connection?, &cell.target).await
        });
    }
    let (mut opened, mut tally) = (Vec::new(), Tally::default());
    while let Ok(Some(done)) = timeout_at(deadline, tasks.join_next()).await {
        match done {
            Ok(Ok(one)) => opened.push(one),
            Ok(Err(error)) => tally.fail(error),
            Err(error) => tally.fail(error.to_string()),
        }
    }
    tally.hung = tasks.len() as u64;
    (opened, tally)
}

async fn open(mut connection: Connection, target: &Target) -> Result<Opened, String> {
    let begun = Instant::now();
    if target.style == Style::Rest {
        return Ok(Opened { connection, session: Session::default(), took: Duration::ZERO });
    }
    let (session, answered) = connection.begin(target).await?;
    Ok(Opened { connection, session, took: answered - begun })
}

async fn call_for_a_while(cell: Arc<Cell>, index: usize, opened: Opened, window: Window) -> Tally {
    let Opened { mut connection, session, .. } = opened;
    let mut tally = Tally::default();
    let calling = call_until_end(&cell, index, (&mut connection, &session), window, &mut tally);
    if timeout_at(window.end + GRACE, calling).await.is_err() {
        tally.hung = 1;
        tally.fail("no answer within the time".to_owned());
    }
    tally
}

async fn call_until_end(
    cell: &Cell,
    index: usize,
    (connection, session): (&mut Connection, &Session),
    window: Window,
    tally: &mut Tally,
) {
    let target = &cell.target;
    let head = target.head("POST", Some(session).filter(|_| target.style == Style::Mcp));
    let mut calls = Calls::new(target.style, &target.tool, index, cell.payload);
    let (mut body, mut failed) = (Vec::with_capacity(cell.payload + 256), 0);
    for id in 1.. {
        body.clear();
        calls.write(id, &mut body);
        let begun = Instant::now();
        if begun >= window.end {
            return;
        }
        let fits = match connection.exchange(&head, &body).await {
            Ok((head, reply)) if head.status == 200 => check(target.style, reply, id, &calls.text),
            Ok((head, reply)) => Err(format!("status {}: {}", head.status, shortened(reply))),
            Err(error) => Err(error),
        };
        let ended = Instant::now();
        if let Err(error) = fits {
            failed += 1;
            tally.fail(error);
            match Connection::open(target).await {
                Ok(fresh) if failed < ERRORS_MAX => *connection = fresh,
                _ => return,
            }
            continue;
        }
        failed = 0;
        if begun >= window.begin && ended <= window.end {
            tally.ns.push(nanoseconds(ended - begun));
        }
        if let Err(error) = connection.reopen(target).await {
            return tally.fail(error);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The value below which `part` of all lie, by nearest rank; nothing of nothing.
#[must_use]
pub fn percentile(sorted: &[u64], part: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "samples of one run are a small number")]
    let rank = (sorted.len() as f64 * part).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small natural number"
    )]
    let at = (rank as usize).saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run fit")]
    sorted.get(at).map(|ns| *ns as f64)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), Some(50.0));
        assert_eq!(percentile(&values, 0.99), Some(99.0));
        assert_eq!(percentile(&values, 1.0), Some(100.0));
        assert_eq!(percentile(&values[..1], 0.99), Some(1.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
