//! Who may use the dashboard and the API: one user with a password, or its Argon2id hash.
//!
//! | what is known | how it is checked |
//! |---|---|
//! | the password | both sides under a keyed hash, compared in constant time |
//! | its hash | Argon2id, one check at a time; a password that was right is remembered as a keyed hash |
//!
//! Wrong tries make their address wait, longer each time; meanwhile nothing is checked at all, so
//! that guesses tell nothing. Must never hold, show or log a password.

use crate::gateway::lock;
use crate::mcp::base64;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Passwords that stand in the documentation.
pub const SHIPPED: [&str; 1] = ["changeme"];
/// Wrong tries of an address that cost nothing but themselves.
const FREE_TRIES: u32 = 5;
/// The first wait after them; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Wrong tries are forgotten after this long without another.
const FORGET_AFTER: Duration = Duration::from_secs(900);
/// Addresses that are remembered; the one that has been quiet longest goes first.
const ADDRESSES_MAX: usize = 4096;
/// Checks of a hash that may wait for their turn.
const WAITING_MAX: usize = 8;
/// Longest password that is looked at, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Most memory that checking a hash may take, in KiB.
const HASH_KIB_MAX: u32 = 256 * 1024;

/// A digest under this process's own key: equal digests are equal texts, and say nothing of them.
type Digest = [u8; 32];

/// One user and how their password is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    secret: Secret,
}

#[derive(Clone, PartialEq, Eq)]
enum Secret {
    Password(String),
    Hash(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// A user with a password.
    #[must_use]
    pub fn password(username: &str, password: &str) -> Self {
        Self { username: username.to_owned(), secret: Secret::Password(password.to_owned()) }
    }

    /// A user with the hash of a password.
    ///
    /// # Errors
    /// What is wrong with the hash, without it.
    pub fn hash(username: &str, hash: &str) -> Result<Self, &'static str> {
        let parsed = PasswordHash::new(hash).map_err(|_broken| "it is no PHC string ($argon2id$v=19$…)")?;
        if parsed.algorithm.as_str() != "argon2id" {
            return Err("it is not an Argon2id hash");
        }
        let params = Params::try_from(&parsed).map_err(|_broken| "its parameters cannot be used")?;
        if params.m_cost() > HASH_KIB_MAX {
            return Err("it takes more than 256 MiB to check");
        }
        Ok(Self { username: username.to_owned(), secret: Secret::Hash(hash.to_owned()) })
    }

    /// Whether the password is one that everybody can read in the documentation. Takes as long as
    /// checking a hash takes.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        match &self.secret {
            Secret::Password(password) => SHIPPED.contains(&password.as_str()),
            Secret::Hash(hash) => SHIPPED.iter().any(|password| verify(hash, password.as_bytes())),
        }
    }
}

/// The Argon2id hash of a password, for `[dashboard] password_hash`.
///
/// # Errors
/// When the system has no randomness to give.
pub fn hash_password(password: &str) -> Result<String, String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They said nothing of who they are.
    Missing,
    /// It is not so.
    Wrong,
    /// Too many wrong tries: not before this long.
    Wait(Duration),
}

/// The door.
pub struct Access {
    credentials: RwLock<Arc<Credentials>>,
    key: [u8; 64],
    /// The password that a hash was last checked with, and was right.
    right: Mutex<Option<Digest>>,
    checking: Mutex<()>,
    waiting: AtomicUsize,
    tries: Mutex<HashMap<IpAddr, Tries>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    wrong: u32,
    last: Instant,
    until: Instant,
}

/// Neighbours in one IPv6 network are one: it is given out as a whole.
fn address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        four @ IpAddr::V4(_) => four,
    }
}

impl Access {
    /// A door; `key` is 32 random bytes of this process.
    #[must_use]
    pub fn new(credentials: Credentials, key: [u8; 32]) -> Self {
        Self {
            credentials: RwLock::new(Arc::new(credentials)),
            key: std::array::from_fn(|n| key.get(n).copied().unwrap_or(0)),
            right: Mutex::default(),
            checking: Mutex::default(),
            waiting: AtomicUsize::new(0),
            tries: Mutex::default(),
        }
    }

    /// Other credentials, for requests from now on.
    pub fn set(&self, credentials: Credentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
        *lock(&self.right) = None;
    }

    /// Whose request this is, by its `Authorization` header: `Basic`, or the password as a `Bearer`
    /// token.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check(&self, header: Option<&str>, peer: IpAddr) -> Result<Arc<str>, Refused> {
        let peer = address(peer);
        let now = Instant::now();
        if let Some(until) =
            lock(&self.tries).get(&peer).map(|tries| tries.until).filter(|until| *until > now)
        {
            return Err(Refused::Wait(until - now));
        }
        let header = header.ok_or(Refused::Missing)?;
        let credentials = Arc::clone(&self.credentials.read().unwrap_or_else(PoisonError::into_inner));
        let (username, password) =
            said(header, &credentials.username).ok_or_else(|| self.wrong(peer, now))?;
        // Both are always looked at, so that time tells nothing of which one is wrong.
        let named = self.is(&username, credentials.username.as_bytes());
        let right = match self.is_right(&credentials.secret, &password) {
            Some(right) => right,
            None => return Err(Refused::Wait(FIRST_WAIT)),
        };
        if named && right {
            lock(&self.tries).remove(&peer);
            return Ok(Arc::from(credentials.username.as_str()));
        }
        Err(self.wrong(peer, now))
    }

    /// Whether texts are equal, in the time that neither of them decides.
    fn is(&self, one: &[u8], other: &[u8]) -> bool {
        self.mac(one).verify_slice(&self.digest(other)).is_ok()
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(text);
        mac
    }

    fn digest(&self, text: &[u8]) -> Digest {
        self.mac(text).finalize().into_bytes().into()
    }

    /// `None` when too many wait for a check already.
    fn is_right(&self, secret: &Secret, password: &[u8]) -> Option<bool> {
        let hash = match secret {
            Secret::Password(right) => return Some(self.is(password, right.as_bytes())),
            Secret::Hash(hash) => hash,
        };
        let known = *lock(&self.right);
        if known.is_some_and(|known| self.mac(password).verify_slice(&known).is_ok()) {
            return Some(true);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let right = aside(|| {
            let _one_at_a_time = lock(&self.checking);
            verify(hash, password)
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if right {
            *lock(&self.right) = Some(self.digest(password));
        }
        Some(right)
    }

    /// Counts a wrong try.
    fn wrong(&self, peer: IpAddr, now: Instant) -> Refused {
        let mut all = lock(&self.tries);
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&peer) {
            let quietest = all.iter().min_by_key(|(_, tries)| tries.last).map(|(peer, _)| *peer);
            quietest.and_then(|peer| all.remove(&peer));
        }
        let tries = all.entry(peer).or_insert(Tries { wrong: 0, last: now, until: now });
        if now.duration_since(tries.last) > FORGET_AFTER {
            tries.wrong = 0;
        }
        tries.wrong = tries.wrong.saturating_add(1);
        tries.last = now;
        if let Some(over) = tries.wrong.checked_sub(FREE_TRIES) {
            let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX));
            tries.until = now + wait.min(LONGEST_WAIT);
        }
        Refused::Wrong
    }
}

/// Runs what keeps a thread busy so that other tasks of it go on elsewhere.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// User name and password of a header.
fn said(header: &str, username: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    if rest.len() > PASSWORD_BYTES_MAX * 2 {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((username.as_bytes().to_vec(), rest.as_bytes().to_vec()));
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| base64::decode(rest)).flatten()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(colon)?;
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES_MAX, Access, Credentials, FREE_TRIES, Refused, hash_password};
    use crate::mcp::base64;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
    }

    fn door() -> Access {
        Access::new(Credentials::password("admin", "right: here"), [7; 32])
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_with_one_password_comes_in() {
        let door = door();
        let check = |header: &str| door.check(Some(header), PEER);
        assert_eq!(&*check(&basic("admin", "right: here")).unwrap(), "admin");
        assert_eq!(&*check("bearer right: here").unwrap(), "admin");
        for header in [basic("admin", "right"), basic("Admin", "right: here"), basic("admin", "")] {
            assert_eq!(check(&header), Err(Refused::Wrong), "{header}");
            assert!(check(&basic("admin", "right: here")).is_ok(), "a right one forgives");
        }
        for header in ["", "Basic", "Basic !!!!", "Basic YWRtaW4=", "Digest x", "Bearer "] {
            assert_eq!(check(header), Err(Refused::Wrong), "{header}");
            assert!(check(&basic("admin", "right: here")).is_ok());
        }
        assert_eq!(door.check(None, PEER), Err(Refused::Missing));
        door.set(Credentials::password("admin", "new"));
        assert_eq!(check(&basic("admin", "right: here")), Err(Refused::Wrong));
        assert!(check(&basic("admin", "new")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_wait_longer_each_time_and_learn_nothing_meanwhile() {
        let door = door();
        let (good, bad) = (basic("admin", "right: here"), basic("admin", "guess"));
        for _ in 0..FREE_TRIES {
            assert_eq!(door.check(Some(&bad), PEER), Err(Refused::Wrong));
        }
        let wait = |header: &str| match door.check(Some(header), PEER) {
            Err(Refused::Wait(left)) => left,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&bad), Duration::from_secs(1));
        assert_eq!(wait(&good), Duration::from_secs(1), "also a right guess is not told");
        let elsewhere: IpAddr = "10.0.0.8".parse().unwrap();
        assert!(door.check(Some(&good), elsewhere).is_ok(), "others do not wait");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(door.check(Some(&bad), PEER), Err(Refused::Wrong));
        assert_eq!(wait(&bad), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(door.check(Some(&good), PEER).is_ok());
        assert_eq!(door.check(Some(&bad), PEER), Err(Refused::Wrong), "and all is forgotten");
        assert!(door.check(Some(&good), PEER).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_of_ipv6_is_one_and_memory_is_bounded() {
        let door = door();
        let bad = basic("admin", "guess");
        for n in 0..FREE_TRIES {
            let peer: IpAddr = format!("2001:db8:0:1::{n:x}").parse().unwrap();
            assert_eq!(door.check(Some(&bad), peer), Err(Refused::Wrong));
        }
        let next: IpAddr = "2001:db8:0:1:ffff::1".parse().unwrap();
        assert!(matches!(door.check(Some(&bad), next), Err(Refused::Wait(_))));
        for n in 0..ADDRESSES_MAX + 100 {
            let peer = IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap() + 0x0b00_0000));
            let _wrong = door.check(Some(&bad), peer);
        }
        assert_eq!(super::lock(&door.tries).len(), ADDRESSES_MAX);
    }

    #[test]
    fn hashes_are_checked_once_and_remembered() {
        let hash = hash_password("right").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        assert_ne!(hash, hash_password("right").unwrap(), "salted");
        let credentials = Credentials::hash("admin", &hash).unwrap();
        assert!(!credentials.is_shipped());
        assert!(!format!("{credentials:?}").contains("argon2"), "{credentials:?}");
        let door = Access::new(credentials, [7; 32]);
        assert_eq!(door.check(Some(&basic("admin", "wrong")), PEER), Err(Refused::Wrong));
        assert!(super::lock(&door.right).is_none());
        assert!(door.check(Some(&basic("admin", "right")), PEER).is_ok());
        assert!(super::lock(&door.right).is_some());
        assert!(door.check(Some(&basic("admin", "right")), PEER).is_ok());
        assert_eq!(door.check(Some(&basic("admin", "wrong")), PEER), Err(Refused::Wrong));
    }

    #[test]
    fn shipped_passwords_are_known_hashed_or_not_and_bad_hashes_are_refused() {
        assert!(Credentials::password("admin", "changeme").is_shipped());
        let hash = hash_password("changeme").unwrap();
        assert!(Credentials::hash("admin", &hash).unwrap().is_shipped());
        for hash in [
            "",
            "changeme",
            "$2b$12$abcdefghijklmnopqrstuuY2CIyq5m1wZ1p8w6b6y6b6y6b6y6b6y",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(Credentials::hash("admin", hash).is_err(), "{hash}");
        }
    }
}
