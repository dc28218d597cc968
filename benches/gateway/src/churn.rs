//! Sessions held and sessions gone: what one costs that does nothing, and whether anything is left
//! of thousands that were opened and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::process::Reading;
use crate::reply::{check, shortened};
use crate::target::{Calls, Session, Target};

/// Time a gateway has to put away what it no longer needs.
const REST: Duration = Duration::from_secs(2);
/// Payload of the one call of each session.
const PAYLOAD_BYTES: usize = 100;
/// Sessions opened and closed before the first reading.
const WARM_UP: usize = 500;
/// The run is cut into so many parts, with a reading after each.
const PARTS: usize = 10;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Churn {
    /// The gateway.
    pub target: Target,
    /// Sessions opened and closed, in all.
    pub count: usize,
    /// Sessions at once meanwhile.
    pub at_once: usize,
    /// Sessions held without doing anything, before that.
    pub hold: usize,
    /// The gateway's first process.
    pub pid: Option<u32>,
}

/// Holds, opens and closes; readings as JSON.
///
/// # Errors
/// A session could not be opened or closed; in words.
pub async fn run(churn: Churn) -> Result<Value, String> {
    let churn = Arc::new(churn);
    // Code is loaded and pools are made now. What the allocator takes for many sessions at once and
    // never gives back is not: it counts as theirs.
    many(&churn, WARM_UP, churn.at_once).await?;
    let start = look(&churn).await;
    let held = hold(&churn, &start).await?;
    let before = look(&churn).await;
    let (begun, mut parts) = (Instant::now(), Vec::new());
    for _ in 0..PARTS {
        many(&churn, churn.count / PARTS, churn.at_once).await?;
        parts.push(Reading::take(churn.pid).bridge.json());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = look(&churn).await;
    Ok(json!({
        "start": start.bridge.json(), "held": held,
        "before": before.bridge.json(), "parts": parts, "after": after.bridge.json(),
        "children": [before.child.json(), after.child.json()],
        "count": churn.count / PARTS * PARTS, "seconds": seconds,
    }))
}

async fn look(churn: &Churn) -> Reading {
    tokio::time::sleep(REST).await;
    Reading::take(churn.pid)
}

/// Keeps sessions that do nothing: opened over one connection, then each over a connection of its
/// own that stays.
async fn hold(churn: &Arc<Churn>, start: &Reading) -> Result<Value, String> {
    let target = &churn.target;
    let mut one = Connection::open(target).await?;
    let mut sessions = Vec::new();
    for _ in 0..churn.hold {
        sessions.push(one.begin(target).await?.0);
    }
    let idle = look(churn).await;
    one = Connection::open(target).await?;
    for session in &sessions {
        end(&mut one, target, session).await?;
    }
    let between = look(churn).await;
    let mut held = Vec::new();
    for _ in 0..churn.hold {
        let mut connection = Connection::open(target).await?;
        let (session, _) = connection.begin(target).await?;
        held.push((connection, session));
    }
    let connected = look(churn).await;
    for (mut connection, session) in held {
        end(&mut connection, target, &session).await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "kilobytes and sessions fit")]
    let each = |reading: &Reading, before: &Reading| {
        reading.bridge.rss_kb.saturating_sub(before.bridge.rss_kb) as f64 / churn.hold.max(1) as f64
    };
    Ok(json!({
        "count": churn.hold, "idle": idle.bridge.json(), "connected": connected.bridge.json(),
        "kb_idle": each(&idle, start), "kb_connected": each(&connected, &between),
    }))
}

/// Opens and closes `count` sessions, `at_once` at a time, each with one call.
async fn many(churn: &Arc<Churn>, count: usize, at_once: usize) -> Result<(), String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks: JoinSet<Result<(), String>> = JoinSet::new();
    for _ in 0..at_once {
        let (churn, next) = (Arc::clone(churn), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                whole_life(&churn.target, number).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Opens a session on a connection of its own, calls once, closes both.
async fn whole_life(target: &Target, number: usize) -> Result<(), String> {
    let mut connection = Connection::open(target).await?;
    let (session, _) = connection.begin(target).await?;
    let mut calls = Calls::new(target.style, &target.tool, number, PAYLOAD_BYTES);
    let mut body = Vec::new();
    calls.write(1, &mut body);
    let (head, reply) = connection.exchange(&target.head("POST", Some(&session)), &body).await?;
    if head.status != 200 {
        return Err(format!("call: status {}: {}", head.status, shortened(reply)));
    }
    check(target.style, reply, 1, &calls.text)?;
    end(&mut connection, target, &session).await
}

async fn end(connection: &mut Connection, target: &Target, session: &Session) -> Result<(), String> {
    if session.id.is_none() {
        return Ok(());
    }
    connection.reopen(target).await?;
    let (head, body) = connection.exchange(&target.head("DELETE", Some(session)), b"").await?;
    // 405: this gateway lets nobody end a session.
    if (200..300).contains(&head.status) || head.status == 405 {
        return Ok(());
    }
    Err(format!("DELETE: status {}: {}", head.status, shortened(body)))
}
