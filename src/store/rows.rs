//! [`Memory`] as rows: one table per map, one row per entry.
//!
//! Saving compares what the tables hold with what they should hold and touches only the rows that
//! differ. Every struct is taken apart field by field, so that a new field does not compile until
//! it has a column.
//!
//! Must never begin or commit a transaction: the caller owns it.

use crate::model::balancer::BalancerMemory;
use crate::model::id::ContainerId;
use crate::model::memory::{Attempts, Ends, Intent, Lease, Memory, Nap, Pause, Pin, Raise, Recovery};
use crate::model::net::HostPort;
use crate::model::time::Timestamp;
use crate::store::schema;
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, Row, params_from_iter};
use std::collections::BTreeMap;
use std::fmt::Display;

/// How one map of [`Memory`] lies in a table; the key is the first column.
struct Table<T> {
    name: &'static str,
    /// All columns, the key's first.
    columns: &'static [&'static str],
    /// Values of the columns after the key.
    write: fn(&T) -> Vec<Value>,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
}

/// What was read.
pub(super) struct Loaded {
    pub(super) memory: Memory,
    /// Keys that are not valid names (any more): their rows are of no use.
    pub(super) strays: Vec<(&'static str, &'static str, String)>,
}

const LEASES: Table<Lease> = Table {
    name: "leases",
    columns: &["server", "port", "next_port", "since", "fixed"],
    write: |lease| {
        let Lease { port, next, since, fixed } = lease;
        vec![port.get().into(), next.map(HostPort::get).into(), since.0.into(), (*fixed).into()]
    },
    read: |row| {
        let next: Option<u16> = row.get(2)?;
        Ok(Lease {
            port: port(1, row.get(1)?)?,
            next: next.map(|number| port(2, number)).transpose()?,
            since: Timestamp(row.get(3)?),
            fixed: row.get(4)?,
        })
    },
};

const ATTEMPTS: Table<Attempts> = Table {
    name: "attempts",
    columns: &[
        "server",
        "crashes",
        "started",
        "down_since",
        "failures",
        "failed_spec",
        "next_try",
        "up",
        "port_taken",
        "quota_until",
        "last_error",
    ],
    write: |attempts| {
        let Attempts {
            crashes,
            started,
            down_since,
            failures,
            failed_spec,
            next_try,
            up,
            port_taken,
            quota_until,
            last_error,
        } = attempts;
        vec![
            (*crashes).into(),
            time(*started),
            time(*down_since),
            (*failures).into(),
            failed_spec.clone().into(),
            time(*next_try),
            (*up).into(),
            time(*port_taken),
            time(*quota_until),
            last_error.clone().into(),
        ]
    },
    read: |row| {
        Ok(Attempts {
            crashes: row.get(1)?,
            started: row.get::<_, Option<i64>>(2)?.map(Timestamp),
            down_since: row.get::<_, Option<i64>>(3)?.map(Timestamp),
            failures: row.get(4)?,
            failed_spec: row.get(5)?,
            next_try: row.get::<_, Option<i64>>(6)?.map(Timestamp),
            up: row.get(7)?,
            port_taken: row.get::<_, Option<i64>>(8)?.map(Timestamp),
            quota_until: row.get::<_, Option<i64>>(9)?.map(Timestamp),
            last_error: row.get(10)?,
        })
    },
};

const PINS: Table<Pin> = Table {
    name: "pins",
    columns: &["server", "reference", "image", "digest", "pulled"],
    write: |pin| {
        let Pin { reference, image, digest, pulled } = pin;
        vec![reference.clone().into(), image.clone().into(), digest.clone().into(), time(*pulled)]
    },
    read: |row| {
        Ok(Pin {
            reference: row.get(1)?,
            image: row.get(2)?,
            digest: row.get(3)?,
            pulled: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        })
    },
};

const INTENTS: Table<Intent> = Table {
    name: "intents",
    columns: &["server", "run", "asked_by", "asked_at", "valid_until", "file_enabled", "restart"],
    write: |intent| {
        let Intent { run, by, at, until, file_enabled, restart } = intent;
        vec![
            (*run).into(),
            by.clone().into(),
            at.0.into(),
            time(*until),
            (*file_enabled).into(),
            time(*restart),
        ]
    },
    read: |row| {
        Ok(Intent {
            run: row.get(1)?,
            by: row.get(2)?,
            at: Timestamp(row.get(3)?),
            until: row.get::<_, Option<i64>>(4)?.map(Timestamp),
            file_enabled: row.get(5)?,
            restart: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        })
    },
};

const RECOVERIES: Table<Recovery> = Table {
    name: "recoveries",
    columns: &["server", "tries", "last", "why", "spec", "anew"],
    write: |recovery| {
        let Recovery { tries, last, why, spec, anew } = recovery;
        let anew = anew.as_ref().map(|id| id.0.clone());
        vec![(*tries).into(), last.0.into(), why.clone().into(), spec.clone().into(), anew.into()]
    },
    read: |row| {
        Ok(Recovery {
            tries: row.get(1)?,
            last: Timestamp(row.get(2)?),
            why: row.get(3)?,
            spec: row.get(4)?,
            anew: row.get::<_, Option<String>>(5)?.map(ContainerId),
        })
    },
};

const WAITS: Table<Timestamp> = Table {
    name: "dependency_waits",
    columns: &["server", "since"],
    write: |since| vec![since.0.into()],
    read: |row| row.get(1).map(Timestamp),
};

const RAISES: Table<Raise> = Table {
    name: "memory_raises",
    columns: &["server", "from_bytes", "to_bytes", "raised_at"],
    write: |raise| {
        let Raise { from, to, at } = raise;
        vec![(*from).into(), (*to).into(), at.0.into()]
    },
    read: |row| Ok(Raise { from: row.get(1)?, to: row.get(2)?, at: Timestamp(row.get(3)?) }),
};

const ENDS: Table<Ends> = Table {
    name: "ends",
    columns: &["server", "text"],
    write: |ends| vec![serde_json::to_string(ends).unwrap_or_default().into()],
    read: |row| {
        let text: String = row.get(1)?;
        // They are for people: what cannot be read is none.
        Ok(serde_json::from_str(&text).unwrap_or_default())
    },
};

const NAPS: Table<Nap> = Table {
    name: "naps",
    columns: &["server", "awake", "since", "idle", "used", "run"],
    write: |nap| {
        let Nap { awake, since, idle, used, run } = nap;
        let used = i64::try_from(*used).unwrap_or(i64::MAX);
        vec![(*awake).into(), since.0.into(), (*idle).into(), used.into(), run.clone().into()]
    },
    read: |row| {
        Ok(Nap {
            awake: row.get(1)?,
            since: Timestamp(row.get(2)?),
            idle: row.get(3)?,
            used: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
            run: row.get(5)?,
        })
    },
};

const PAUSES: Table<Pause> = Table {
    name: "pauses",
    columns: &["scope", "asked_by", "asked_at", "valid_until"],
    write: |pause| {
        let Pause { by, at, until } = pause;
        vec![by.clone().into(), at.0.into(), time(*until)]
    },
    read: |row| {
        Ok(Pause {
            by: row.get(1)?,
            at: Timestamp(row.get(2)?),
            until: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        })
    },
};

const DRAINING: Table<Timestamp> = Table {
    name: "balancer_draining",
    columns: &["target", "until"],
    write: |until| vec![until.0.into()],
    read: |row| row.get(1).map(Timestamp),
};

const EMPTY_SINCE: Table<Timestamp> = Table {
    name: "balancer_empty",
    columns: &["target_group", "since"],
    write: |since| vec![since.0.into()],
    read: |row| row.get(1).map(Timestamp),
};

const REGISTERED: Table<Vec<HostPort>> = Table {
    name: "balancer_registered",
    columns: &["server", "ports"],
    write: |ports| {
        let numbers: Vec<String> = ports.iter().map(ToString::to_string).collect();
        vec![numbers.join(" ").into()]
    },
    read: |row| {
        let text: String = row.get(1)?;
        let broken = |_: std::num::ParseIntError| {
            rusqlite::Error::FromSqlConversionFailure(1, Type::Text, "not a list of ports".into())
        };
        text.split_whitespace().map(|word| port(1, word.parse().map_err(broken)?)).collect()
    },
};

/// Everything the tables hold.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let mut strays = Vec::new();
    // A look at a state file of an older program finds no such tables.
    let recovers = there(connection, RECOVERIES.name)?;
    let waits = there(connection, WAITS.name)?;
    let memory = Memory {
        leases: LEASES.load(connection, &mut strays)?,
        attempts: ATTEMPTS.load(connection, &mut strays)?,
        pins: PINS.load(connection, &mut strays)?,
        intents: INTENTS.load(connection, &mut strays)?,
        recoveries: if recovers { RECOVERIES.load(connection, &mut strays)? } else { BTreeMap::new() },
        waits: if waits { WAITS.load(connection, &mut strays)? } else { BTreeMap::new() },
        raises: if waits { RAISES.load(connection, &mut strays)? } else { BTreeMap::new() },
        unwanted: times(schema::meta_text(connection, schema::UNWANTED)?.as_deref().unwrap_or_default()),
        pauses: if recovers { PAUSES.load(connection, &mut strays)? } else { BTreeMap::new() },
        drain: schema::meta_text(connection, schema::DRAIN)?
            .and_then(|text| serde_json::from_str(&text).ok()),
        ends: if there(connection, ENDS.name)? {
            ENDS.load(connection, &mut strays)?
        } else {
            BTreeMap::new()
        },
        naps: if there(connection, NAPS.name)? {
            NAPS.load(connection, &mut strays)?
        } else {
            BTreeMap::new()
        },
        balancer: BalancerMemory {
            target_id: schema::meta_text(connection, schema::TARGET_ID)?,
            draining: DRAINING.load(connection, &mut strays)?,
            empty_since: EMPTY_SINCE.load(connection, &mut strays)?,
            registered: REGISTERED.load(connection, &mut strays)?,
        },
    };
    Ok(Loaded { memory, strays })
}

fn there(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let look = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    connection.query_row(look, [table], |row| row.get(0))
}

/// Removes rows that [`load`] could not name.
pub(super) fn drop_strays(
    connection: &Connection,
    strays: &[(&'static str, &'static str, String)],
) -> rusqlite::Result<()> {
    for (table, column, key) in strays {
        connection.execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), [key])?;
    }
    Ok(())
}

/// Brings the tables, which hold `old`, to `new`.
pub(super) fn save(connection: &Connection, old: &Memory, new: &Memory) -> rusqlite::Result<()> {
    let Memory { leases, attempts, pins, intents, recoveries, waits, raises, .. } = new;
    let Memory { unwanted, pauses, ends, naps, drain, balancer, .. } = new;
    LEASES.save(connection, &old.leases, leases)?;
    ATTEMPTS.save(connection, &old.attempts, attempts)?;
    PINS.save(connection, &old.pins, pins)?;
    INTENTS.save(connection, &old.intents, intents)?;
    RECOVERIES.save(connection, &old.recoveries, recoveries)?;
    WAITS.save(connection, &old.waits, waits)?;
    RAISES.save(connection, &old.raises, raises)?;
    PAUSES.save(connection, &old.pauses, pauses)?;
    ENDS.save(connection, &old.ends, ends)?;
    NAPS.save(connection, &old.naps, naps)?;
    if *unwanted != old.unwanted {
        let words: Vec<String> = unwanted.iter().map(|at| at.0.to_string()).collect();
        schema::set_meta(connection, schema::UNWANTED, &words.join(" "))?;
    }
    if *drain != old.drain {
        match drain.as_ref().and_then(|drain| serde_json::to_string(drain).ok()) {
            Some(text) => schema::set_meta(connection, schema::DRAIN, &text)?,
            None => schema::remove_meta(connection, schema::DRAIN)?,
        }
    }
    let BalancerMemory { target_id, draining, empty_since, registered } = balancer;
    DRAINING.save(connection, &old.balancer.draining, draining)?;
    EMPTY_SINCE.save(connection, &old.balancer.empty_since, empty_since)?;
    REGISTERED.save(connection, &old.balancer.registered, registered)?;
    match target_id {
        same if *same == old.balancer.target_id => Ok(()),
        Some(id) => schema::set_meta(connection, schema::TARGET_ID, id),
        None => schema::remove_meta(connection, schema::TARGET_ID),
    }
}

impl<T: PartialEq> Table<T> {
    fn key(&self) -> &'static str {
        self.columns.first().copied().unwrap_or_default()
    }

    fn load<K: Ord + TryFrom<String>>(
        &self,
        connection: &Connection,
        strays: &mut Vec<(&'static str, &'static str, String)>,
    ) -> rusqlite::Result<BTreeMap<K, T>> {
        let mut found = BTreeMap::new();
        let text = format!("SELECT {} FROM {}", self.columns.join(", "), self.name);
        let mut statement = connection.prepare(&text)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let value = (self.read)(row)?;
            match K::try_from(name.clone()) {
                Ok(key) => {
                    found.insert(key, value);
                }
                Err(_) => strays.push((self.name, self.key(), name)),
            }
        }
        Ok(found)
    }

    fn save<K: Ord + Display>(
        &self,
        connection: &Connection,
        old: &BTreeMap<K, T>,
        new: &BTreeMap<K, T>,
    ) -> rusqlite::Result<()> {
        let gone = format!("DELETE FROM {} WHERE {} = ?1", self.name, self.key());
        for key in old.keys().filter(|key| !new.contains_key(key)) {
            connection.prepare_cached(&gone)?.execute([key.to_string()])?;
        }
        let marks = vec!["?"; self.columns.len()].join(", ");
        let put =
            format!("INSERT OR REPLACE INTO {} ({}) VALUES ({marks})", self.name, self.columns.join(", "));
        for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
            let values = std::iter::once(Value::Text(key.to_string())).chain((self.write)(value));
            connection.prepare_cached(&put)?.execute(params_from_iter(values))?;
        }
        Ok(())
    }
}

/// Points in time, from a list with spaces; what is none is left out.
fn times(text: &str) -> Vec<Timestamp> {
    text.split_whitespace().filter_map(|word| word.parse().ok().map(Timestamp)).collect()
}

fn time(at: Option<Timestamp>) -> Value {
    at.map(|at| at.0).into()
}

fn port(column: usize, number: u16) -> rusqlite::Result<HostPort> {
    HostPort::new(number).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, "0 is not a port".into())
    })
}
