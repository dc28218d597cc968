//! The history of what servers use: many small rows that nobody waits for, on the connection of tasks
//! and audit.
//!
//! Must never keep more than its bounds: by age for each server, and [`ROWS_MAX`] altogether.

use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::model::usage::{KeptPoint, Point, Step};
use crate::store::records::SqliteRecords;
use crate::store::schema;
use crate::world::{Answer, UsageStore};
use rusqlite::{Connection, Row};

/// Points that are kept of all servers together, each about 50 bytes on the disk.
pub(super) const ROWS_MAX: usize = 400_000;

/// The table that this module owns, for [`schema::MIGRATIONS`].
pub(super) const TABLES: &str = "
CREATE TABLE usage (
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,
    server TEXT NOT NULL,
    cpu_millis INTEGER,
    memory_kib INTEGER,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    p95_micros INTEGER,
    PRIMARY KEY (step, at, server)
) STRICT, WITHOUT ROWID;
";

const PUT: &str = "INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
/// Newest first, so that the bound takes the oldest away.
const ALL: &str = "SELECT at, server, cpu_millis, memory_kib, requests, errors, p95_micros FROM usage \
    WHERE step = ?1 AND at > ?2 ORDER BY at DESC LIMIT ?3";

fn seconds(step: Step) -> i64 {
    i64::try_from(step.span().0 / 1000).unwrap_or(i64::MAX)
}

/// The time before which points of a history are old.
fn oldest(step: Step, now: Timestamp) -> i64 {
    now.0.saturating_sub(i64::try_from(step.kept().0).unwrap_or(i64::MAX))
}

fn trim(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    for step in Step::ALL {
        let mut old = connection.prepare_cached("DELETE FROM usage WHERE step = ?1 AND at <= ?2")?;
        old.execute((seconds(step), oldest(step, now)))?;
        // A clock that was wrong may have left some in the future.
        let mut early = connection.prepare_cached("DELETE FROM usage WHERE step = ?1 AND at > ?2")?;
        early.execute((seconds(step), now.0.saturating_add(seconds(step) * 1000)))?;
    }
    Ok(())
}

/// Takes the oldest away, until the table is within its bound.
fn bound(connection: &Connection, rows_max: usize) -> rusqlite::Result<()> {
    let rows: i64 = connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0))?;
    let over = rows.saturating_sub(i64::try_from(rows_max).unwrap_or(i64::MAX));
    if over > 0 {
        let oldest = "DELETE FROM usage WHERE (step, at, server) IN \
            (SELECT step, at, server FROM usage ORDER BY at LIMIT ?1)";
        connection.execute(oldest, [over])?;
    }
    Ok(())
}

fn keep(connection: &mut Connection, points: &[KeptPoint], now: Timestamp) -> rusqlite::Result<()> {
    let transaction = schema::begin(connection)?;
    {
        let mut put = transaction.prepare_cached(PUT)?;
        for KeptPoint { server, step, point } in points {
            let Point { at, cpu_millis, memory_kib, requests, errors, p95_micros } = *point;
            let key = (seconds(*step), at.0, server.as_str());
            put.execute((key.0, key.1, key.2, cpu_millis, memory_kib, requests, errors, p95_micros))?;
        }
    }
    trim(&transaction, now)?;
    transaction.commit()
}

fn load(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<KeptPoint>> {
    trim(connection, now)?;
    bound(connection, ROWS_MAX)?;
    let mut all = Vec::new();
    for step in Step::ALL {
        let mut statement = connection.prepare_cached(ALL)?;
        let limit = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
        let rows = statement.query_map((seconds(step), oldest(step, now), limit), row)?;
        for row in rows {
            // A name that is no server's any more is nobody's history.
            let (server, point) = row?;
            all.extend(ServerId::instance(&server).ok().map(|server| KeptPoint { server, step, point }));
        }
    }
    all.reverse();
    Ok(all)
}

fn row(row: &Row<'_>) -> rusqlite::Result<(String, Point)> {
    let point = Point {
        at: Timestamp(row.get(0)?),
        cpu_millis: row.get(2)?,
        memory_kib: row.get(3)?,
        requests: row.get(4)?,
        errors: row.get(5)?,
        p95_micros: row.get(6)?,
    };
    Ok((row.get(1)?, point))
}

impl UsageStore for SqliteRecords {
    fn load_usage(&self, now: Timestamp) -> Answer<'_, Vec<KeptPoint>> {
        self.with("reading the history", move |inner| load(&inner.connection, now))
    }

    fn keep_usage<'a>(&'a self, points: &'a [KeptPoint], now: Timestamp) -> Answer<'a, ()> {
        let points = points.to_vec();
        self.with("keeping the history", move |inner| keep(&mut inner.connection, &points, now))
    }
}

#[cfg(test)]
mod tests {
    use super::{TABLES, bound, keep, load};
    use crate::model::id::ServerId;
    use crate::model::time::{Span, Timestamp};
    use crate::model::usage::{KeptPoint, Point, Step};
    use rusqlite::Connection;

    fn point(server: &str, step: Step, at: Timestamp) -> KeptPoint {
        let point = Point {
            at,
            cpu_millis: Some(250),
            memory_kib: None,
            requests: 3,
            errors: 1,
            p95_micros: Some(9),
        };
        KeptPoint { server: ServerId::new(server).unwrap(), step, point }
    }

    fn count(connection: &Connection) -> usize {
        let count: i64 = connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }

    #[test]
    fn points_come_back_in_order_and_old_ones_go() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let start = Timestamp(1_795_260_352_000);
        let minute = |n: u64| start.after(Span::secs(60 * n));
        // Five hours, minute by minute: three are kept.
        for n in 0..300 {
            let mut points = vec![point("a", Step::Minute, minute(n)), point("b", Step::Minute, minute(n))];
            if n % 10 == 0 {
                points.push(point("a", Step::TenMinutes, minute(n)));
            }
            keep(&mut connection, &points, minute(n)).unwrap();
        }
        let all = load(&connection, minute(299)).unwrap();
        let of = |server: &str, step: Step| -> Vec<i64> {
            let own = all.iter().filter(|kept| kept.server.as_str() == server && kept.step == step);
            own.map(|kept| kept.point.at.0).collect()
        };
        let fine = of("a", Step::Minute);
        assert_eq!((fine.len(), fine.is_sorted()), (Step::Minute.points(), true));
        assert_eq!((of("b", Step::Minute).len(), of("a", Step::TenMinutes).len()), (180, 30));
        assert_eq!(all[0].point, Point { at: all[0].point.at, ..point("a", Step::Minute, start).point });
        assert_eq!(count(&connection), 390);
        // A day later nothing is left; a clock that goes back leaves nothing in the future.
        assert!(load(&connection, minute(300 + 1440)).unwrap().is_empty());
        keep(&mut connection, &[point("a", Step::Minute, minute(900))], minute(0)).unwrap();
        assert_eq!(count(&connection), 0);
    }

    #[test]
    fn the_table_has_a_bound() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let points: Vec<KeptPoint> = (0..50).map(|n| point("a", Step::Minute, Timestamp(n))).collect();
        keep(&mut connection, &points, Timestamp(50)).unwrap();
        bound(&connection, 20).unwrap();
        let left = load(&connection, Timestamp(50)).unwrap();
        assert_eq!((left.len(), left[0].point.at), (20, Timestamp(30)));
    }
}
