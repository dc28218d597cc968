//! What servers that may sleep said of themselves and offered when they ran last, as text that is not
//! understood here: lost with the power at worst, and asked for again.
//!
//! Must never keep more than [`OFFERS_MAX`] of them.

use crate::model::id::ServerId;
use crate::store::SqliteStore;
use crate::store::schema;
use crate::world::{Answer, OFFERS_MAX, OfferStore};
use rusqlite::Connection;

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<(ServerId, String)>> {
    let mut statement = connection.prepare("SELECT server, text FROM offers ORDER BY number")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let mut offers = Vec::new();
    for row in rows {
        let (server, text) = row?;
        // One whose name is no id any more goes with the next that are too many.
        if let Ok(server) = ServerId::instance(&server) {
            offers.push((server, text));
        }
    }
    Ok(offers)
}

pub(super) fn put(connection: &mut Connection, server: &ServerId, text: &str) -> rusqlite::Result<()> {
    let transaction = schema::begin(connection)?;
    transaction
        .execute("INSERT OR REPLACE INTO offers (server, text) VALUES (?1, ?2)", (server.as_str(), text))?;
    let trim = "DELETE FROM offers WHERE number IN (SELECT number FROM offers ORDER BY number DESC LIMIT -1 OFFSET ?1)";
    transaction.execute(trim, [i64::try_from(OFFERS_MAX).unwrap_or(i64::MAX)])?;
    transaction.commit()
}

impl OfferStore for SqliteStore {
    fn load_offers(&self) -> Answer<'_, Vec<(ServerId, String)>> {
        self.with_sessions("reading what servers offer", |sessions| load(sessions.connection()))
    }

    fn put_offer<'a>(&'a self, server: &'a ServerId, text: String) -> Answer<'a, ()> {
        let server = server.clone();
        self.with_sessions("keeping what a server offers", move |sessions| {
            put(sessions.connection_mut(), &server, &text)
        })
    }
}
