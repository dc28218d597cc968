//! The keys of an issuer, kept fresh behind everybody's back.
//!
//! ```text
//! every so often            asked again; as often as its server says, within bounds
//! a token with an unknown   asked again at once, but not before AGAIN_AFTER has passed since the last
//! key                       try; the request waits a moment for it
//! the issuer is away        the last good keys stay; tried again with growing pauses
//! it never answered         nobody comes in, and is told why
//! ```
//! Must never let a request make another one to the issuer, nor forget good keys for bad ones.

use crate::gateway::guard::jwt::keys::KeySet;
use crate::upstream::document::{self, is_trustworthy};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Between two tries because of keys that are not known.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A request waits this long at most for a try under way.
pub const WAIT_MAX: Duration = Duration::from_secs(3);
/// Wait for one document of the issuer.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of one document of the issuer.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// Keys are kept at least this long without asking again, whatever their server says.
const KEEP_MIN: Duration = Duration::from_secs(60);
/// The first pause after a failure; it doubles from there.
const RETRY: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The code of what goes wrong with an issuer.
pub const UNREACHABLE: &str = "MCPO-G080";

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The issuer, as tokens name it.
    pub issuer: String,
    /// The key set; found from the issuer where it is not said.
    pub jwks_url: Option<String>,
    /// Keys are asked for again after this long at the latest.
    pub keep: Duration,
}

/// Keys, and which set they are.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The keys; none before the first answer.
    pub set: KeySet,
    /// Changes with every other set.
    pub generation: u64,
}

/// How tries went.
#[derive(Clone, Debug, Default)]
struct Tried {
    /// Tries that ended.
    number: u64,
    /// When the last one did.
    at: Option<Instant>,
    under_way: bool,
    /// What was wrong with it.
    why: Option<String>,
}

/// An issuer.
pub struct Issuer {
    source: Source,
    held: RwLock<Arc<Held>>,
    tried: watch::Sender<Tried>,
    wanted: Arc<Notify>,
    begun: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Issuer {
    /// An issuer that nobody asked yet.
    #[must_use]
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            held: RwLock::default(),
            tried: watch::Sender::default(),
            wanted: Arc::default(),
            begun: AtomicBool::new(false),
            task: Mutex::default(),
        })
    }

    /// Begins to keep its keys fresh, once; must be called within a tokio runtime.
    pub fn begin(self: &Arc<Self>) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let task = tokio::spawn(keep(Arc::downgrade(self))).abort_handle();
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Where its keys are.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Its keys.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was wrong with the last try.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.tried.borrow().why.clone()
    }

    /// Waits a moment where another try may bring the key with this id, or any.
    pub async fn ready_for(&self, kid: Option<&str>) {
        let held = self.held();
        let known = kid.map_or(!held.set.is_empty(), |kid| held.set.has(kid));
        if known {
            return;
        }
        let mut tried = self.tried.subscribe();
        let number = {
            let tried = tried.borrow();
            if !tried.under_way && tried.at.is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
                return;
            }
            tried.number
        };
        self.wanted.notify_one();
        let ended = tried.wait_for(|tried| tried.number > number);
        // What it gives must not be held on to: it locks the channel.
        let _in_time = tokio::time::timeout(WAIT_MAX, ended).await.is_ok();
    }

    /// Asks for the keys; how long they may be kept.
    async fn ask(&self) -> Result<(KeySet, Duration), String> {
        let url = match &self.source.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let document = document::fetch(&url, DOCUMENT_BYTES_MAX, FETCH_WITHIN).await?;
        let set = KeySet::parse(&document.body).map_err(str::to_owned)?;
        let keep = document.max_age.unwrap_or(self.source.keep);
        Ok((set, keep.clamp(KEEP_MIN.min(self.source.keep), self.source.keep)))
    }

    /// Where the issuer says its keys are (`OpenID` Connect Discovery, RFC 8414).
    async fn discover(&self) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
        }
        let mut whys = Vec::new();
        for url in places(&self.source.issuer) {
            let metadata = match document::fetch(&url, DOCUMENT_BYTES_MAX, FETCH_WITHIN).await {
                Ok(document) => serde_json::from_slice::<Metadata>(&document.body),
                Err(why) => {
                    whys.push(why);
                    continue;
                }
            };
            match metadata {
                Ok(found) if found.issuer != self.source.issuer => {
                    whys.push("its metadata names another issuer".to_owned());
                }
                Ok(found) if !is_trustworthy(&found.jwks_uri) => {
                    whys.push("its keys are neither at https nor on this host".to_owned());
                }
                Ok(found) => return Ok(found.jwks_uri),
                Err(_shows_values) => whys.push("its metadata is not readable".to_owned()),
            }
        }
        whys.dedup();
        Err(whys.join("; "))
    }

    /// Takes what a try brought; how long to wait for the next one.
    fn learn(&self, brought: Result<(KeySet, Duration), String>, failures: &mut u32) -> Duration {
        let issuer = &self.source.issuer;
        let (wait, why) = match brought {
            Ok((set, keep)) => {
                let before = self.held();
                if before.set != set {
                    let generation = before.generation + 1;
                    let what = if before.generation == 0 { "its keys" } else { "other keys" };
                    tracing::info!("{issuer} has {what} for tokens of clients");
                    *self.held.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(Held { set, generation });
                } else if *failures > 0 {
                    tracing::info!("{issuer} answers again, with the keys it had");
                }
                *failures = 0;
                (keep, None)
            }
            Err(why) => {
                if *failures == 0 {
                    let so =
                        if self.held().set.is_empty() { "no client comes in" } else { "its last keys stay" };
                    tracing::warn!(MCP_ERROR_CODE = UNREACHABLE, "asking {issuer} for its keys: {why}; {so}");
                }
                let pause =
                    RETRY.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(RETRY_MAX);
                *failures = failures.saturating_add(1);
                (pause, Some(why))
            }
        };
        self.tried.send_modify(|tried| {
            *tried = Tried { number: tried.number + 1, at: Some(Instant::now()), under_way: false, why };
        });
        wait
    }
}

/// Asks again and again, as long as somebody holds the issuer.
async fn keep(issuer: Weak<Issuer>) {
    let mut failures = 0;
    loop {
        let Some(held) = issuer.upgrade() else { return };
        held.tried.send_modify(|tried| tried.under_way = true);
        let brought = held.ask().await;
        let wait = held.learn(brought, &mut failures);
        let (wanted, ended) = (Arc::clone(&held.wanted), Instant::now());
        drop(held);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = wanted.notified() => tokio::time::sleep_until(ended + AGAIN_AFTER).await,
        }
    }
}

/// Where an issuer's metadata may be.
fn places(issuer: &str) -> Vec<String> {
    let whole = issuer.trim_end_matches('/');
    let oidc = format!("{whole}/.well-known/openid-configuration");
    let after_scheme = whole.find("://").map_or(0, |at| at + 3);
    let path_at = whole.get(after_scheme..).and_then(|rest| rest.find('/')).map(|at| at + after_scheme);
    let (origin, path) = path_at.and_then(|at| whole.split_at_checked(at)).unwrap_or((whole, ""));
    vec![oidc, format!("{origin}/.well-known/oauth-authorization-server{path}")]
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn metadata_is_looked_for_where_either_standard_has_it() {
        assert_eq!(
            places("https://id.example/tenant/"),
            [
                "https://id.example/tenant/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server/tenant",
            ]
        );
        assert_eq!(
            places("http://127.0.0.1:9")[1],
            "http://127.0.0.1:9/.well-known/oauth-authorization-server"
        );
    }
}
