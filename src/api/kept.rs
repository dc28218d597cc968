//! Lists as they were written last: whoever asks while nothing has changed gets the same bytes.
//!
//! Thirty readers of one list would else have it made thirty times, and those who come last wait for all
//! others. What a list is made from has a number that grows with every change of it:
//!
//! | list | is made anew |
//! |---|---|
//! | servers, sections, health | when passes, files or readings say something else; figures of connections are at most [`FIGURES_FOR`] old |
//! | tasks, the audit | when something was written to them before the request came |
//!
//! Nothing in a list depends on who asks: whoever is let in sees all of it, and nobody gets here who was
//! not let in. Must never hold an answer that does, and never more than its bounds.

use crate::api::view::{Moment, ServerView};
use crate::api::{Context, FilesView, Response};
use crate::gateway::lock;
use crate::model::fingerprint::hex;
use crate::service::{Snapshot, Wish};
use crate::usage::Reading;
use crate::world::{Recorded, Records, WorldError};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode};

/// How old figures of connections may be in lists. What the API itself did is in them at once.
pub const FIGURES_FOR: Duration = Duration::from_millis(50);
/// Lists that are kept.
const PAGES_MAX: usize = 64;
/// Bytes of all of them.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest query whose list is kept, in bytes.
const QUERY_BYTES_MAX: usize = 256;
/// Digits of a digest that make a version.
const ETAG_DIGITS: usize = 24;

/// A list: the route's name, and the query as it came.
pub(super) type Key = (&'static str, String);

/// What a list is sent as.
#[derive(Clone, Debug)]
pub(super) struct Page {
    body: Bytes,
    etag: Option<HeaderValue>,
    /// Where the next page is.
    link: Option<HeaderValue>,
}

/// A page, the number of what it was made from, and when it was asked for last.
#[derive(Debug)]
struct Held {
    page: Page,
    number: u64,
    used: u64,
}

#[derive(Debug, Default)]
struct Pages {
    held: BTreeMap<Key, Held>,
    bytes: usize,
    asked: u64,
}

/// Servers as they are shown at one moment.
pub(crate) struct Shown {
    /// Grows whenever something is different.
    pub(super) number: u64,
    /// All of them in id order.
    pub(crate) servers: Arc<Vec<ServerView>>,
    /// The rest of that moment.
    pub(crate) moment: Moment,
    /// When the figures of connections were read.
    at: Instant,
}

/// Lists that are kept.
#[derive(Default)]
pub struct Kept {
    shown: Mutex<Option<Arc<Shown>>>,
    /// Figures are to be read again whatever their age.
    moved: AtomicBool,
    pages: Mutex<Pages>,
    /// One list of the state file is made at a time; who waits for the same one gets it, too.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Shown {
    /// Whether nothing but passes came since it was made.
    fn holds(&self, context: &Context, now: Instant) -> bool {
        let Moment { wish, reading, files, .. } = &self.moment;
        let same: [&dyn Fn() -> bool; 3] = [
            &|| Arc::<Wish>::ptr_eq(wish, &context.wishes.borrow()),
            &|| Arc::<FilesView>::ptr_eq(files, &context.files.borrow()),
            &|| Arc::<Reading>::ptr_eq(reading, &context.usage.now()),
        ];
        now.duration_since(self.at) < FIGURES_FOR && same.iter().all(|same| same())
    }

    /// The same after a pass that changed nothing of what is shown.
    fn after(&self, snapshot: &Arc<Snapshot>) -> Option<Self> {
        let before = &self.moment.snapshot;
        let same = before.report.servers == snapshot.report.servers
            && before.busy == snapshot.busy
            && before.intents == snapshot.intents
            && before.pauses == snapshot.pauses;
        same.then(|| Self {
            number: self.number,
            servers: Arc::clone(&self.servers),
            moment: Moment { snapshot: Arc::clone(snapshot), ..self.moment.clone() },
            at: self.at,
        })
    }

    /// Whether lists that are made now would be the same.
    fn looks(&self, moment: &Moment, servers: &[ServerView]) -> bool {
        let (before, broken) = (&self.moment, |moment: &Moment| moment.wish.desired.broken.clone());
        *self.servers == servers
            && before.snapshot.pauses == moment.snapshot.pauses
            && Arc::ptr_eq(&before.files, &moment.files)
            && (Arc::ptr_eq(&before.wish, &moment.wish) || broken(before) == broken(moment))
    }
}

impl Kept {
    /// Something was done: figures are read again for the next list.
    pub(super) fn moved(&self) {
        self.moved.store(true, Ordering::Release);
    }

    /// Servers as they are now; the same value for all who ask while nothing changes.
    pub(crate) fn shown(&self, context: &Context) -> Arc<Shown> {
        let mut held = lock(&self.shown);
        let now = Instant::now();
        let moved = self.moved.swap(false, Ordering::AcqRel);
        if let Some(shown) = held.as_ref().filter(|shown| !moved && shown.holds(context, now)) {
            let newest = Arc::clone(&context.handle.snapshot.borrow());
            if Arc::ptr_eq(&newest, &shown.moment.snapshot) {
                return Arc::clone(shown);
            }
            if let Some(shown) = shown.after(&newest).map(Arc::new) {
                *held = Some(Arc::clone(&shown));
                return shown;
            }
        }
        let moment = Moment::of(context);
        let servers = Arc::new(moment.servers());
        let before = held.as_ref();
        let number = match before {
            Some(before) if before.looks(&moment, &servers) => before.number,
            before => before.map_or(1, |before| before.number + 1),
        };
        let shown = Arc::new(Shown { number, servers, moment, at: now });
        *held = Some(Arc::clone(&shown));
        drop(held);
        shown
    }

    /// A list of servers as they are at the number of [`Self::shown`], made by `make` unless it is held.
    pub(super) fn of_servers(&self, number: u64, key: Key, make: impl FnOnce() -> Page) -> Page {
        let mut pages = lock(&self.pages);
        // Whoever makes it makes it for all who wait here.
        if let Some(page) = pages.find(&key, number) {
            return page;
        }
        let page = make();
        pages.put(key, number, page.clone());
        page
    }

    /// A list of the state file, made by `make` unless nothing was written since it was made last.
    pub(super) async fn of_records(
        &self,
        (records, list): (&dyn Records, Recorded),
        key: Key,
        make: impl Future<Output = Result<Page, WorldError>> + Send,
    ) -> Result<Page, WorldError> {
        let Some(wanted) = records.written(list) else { return make.await };
        let found = || lock(&self.pages).find(&key, wanted);
        if let Some(page) = found() {
            return Ok(page);
        }
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have begun after this request came.
        if let Some(page) = found() {
            return Ok(page);
        }
        let number = records.written(list).unwrap_or(wanted);
        let page = make.await?;
        lock(&self.pages).put(key, number, page.clone());
        Ok(page)
    }
}

impl Pages {
    /// One that was made from this or something newer.
    fn find(&mut self, key: &Key, number: u64) -> Option<Page> {
        self.asked += 1;
        let held = self.held.get_mut(key).filter(|held| held.number >= number)?;
        held.used = self.asked;
        Some(held.page.clone())
    }

    fn put(&mut self, key: Key, number: u64, page: Page) {
        self.forget(&key);
        let bytes = page.body.len();
        if bytes > BYTES_MAX || key.1.len() > QUERY_BYTES_MAX {
            return;
        }
        while self.held.len() >= PAGES_MAX || self.bytes + bytes > BYTES_MAX {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
        self.bytes += bytes;
        self.asked += 1;
        self.held.insert(key, Held { page, number, used: self.asked });
    }

    fn forget(&mut self, key: &Key) {
        let gone = self.held.remove(key).map_or(0, |held| held.page.body.len());
        self.bytes = self.bytes.saturating_sub(gone);
    }
}

impl Page {
    /// What a list is sent as; its version is that of its bytes.
    pub(super) fn of(list: &impl serde::Serialize) -> Self {
        // Nothing of a list is a map with other keys than text, or fails by itself.
        let body = Bytes::from(serde_json::to_vec(list).unwrap_or_default());
        let etag = format!("\"{}\"", hex(&Sha256::digest(&body), ETAG_DIGITS));
        Self { body, etag: HeaderValue::from_str(&etag).ok(), link: None }
    }

    /// The same with where the next page is.
    pub(super) fn followed(self, link: Option<HeaderValue>) -> Self {
        Self { link, ..self }
    }

    /// The answer to whoever has the version that they name, or none.
    pub(super) fn answer(self, has: Option<&str>) -> Response {
        let same = has.zip(self.etag.as_ref()).is_some_and(|(has, etag)| names(has, etag));
        let mut response = if same {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = warp::http::Response::new(self.body).into_response();
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            response
        };
        let headers = response.headers_mut();
        // Asked for again each time, which costs little while it is the same.
        headers.insert("cache-control", HeaderValue::from_static("private, no-cache"));
        self.etag.map(|etag| headers.insert("etag", etag));
        self.link.map(|link| headers.insert("link", link));
        response
    }
}

/// Whether `If-None-Match` names a version (RFC 9110, section 13.1.2).
fn names(has: &str, etag: &HeaderValue) -> bool {
    let is = |one: &str| one == "*" || one.trim_start_matches("W/").as_bytes() == etag.as_bytes();
    has.split(',').map(str::trim).any(is)
}

#[cfg(test)]
mod tests;
