//! Who may ask the service: root and the users it was told.
//!
//! Servers run as the service's own user; so that user may not ask, unless nobody else was named and
//! the service is a developer's.
//!
//! Must never look at a file itself: the table of users is handed in.

use std::collections::BTreeSet;

/// Most users that may be named.
pub const ALLOWED_MAX: usize = 16;

/// Users that may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(BTreeSet<u32>);

impl Allowed {
    /// The users of these names or ids, by `passwd` (the text of `/etc/passwd`); `own` when none is
    /// named.
    ///
    /// # Errors
    /// Which user is not known, or that there are too many.
    pub fn new(users: &[String], passwd: &str, own: u32) -> Result<Self, String> {
        if users.len() > ALLOWED_MAX {
            return Err(format!("{} users are named, {ALLOWED_MAX} are allowed", users.len()));
        }
        let id = |user: &String| {
            user.parse()
                .ok()
                .or_else(|| id_of(user, passwd))
                .ok_or_else(|| format!("there is no user {user}"))
        };
        let mut ids: BTreeSet<u32> = users.iter().map(id).collect::<Result<_, _>>()?;
        if users.is_empty() {
            ids.insert(own);
        }
        ids.insert(0);
        Ok(Self(ids))
    }

    /// Whether the user with this id may ask.
    #[must_use]
    pub fn has(&self, user: u32) -> bool {
        self.0.contains(&user)
    }
}

fn id_of(user: &str, passwd: &str) -> Option<u32> {
    let mut rows = passwd.lines().map(|line| line.split(':'));
    rows.find_map(|mut row| (row.next() == Some(user)).then(|| row.nth(1)?.parse().ok()))?
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nmcp-orchestrator:x:997:997::/:/sbin/nologin\nbroken\n";

    fn allowed(users: &[&str]) -> Result<Allowed, String> {
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        Allowed::new(&users, PASSWD, 996)
    }

    #[test]
    fn the_daemon_and_root_may_ask_and_the_servers_may_not() {
        let named = allowed(&["mcp-orchestrator", "1000"]).expect("users");
        for (user, may) in [(0, true), (997, true), (1000, true), (996, false), (65534, false)] {
            assert_eq!(named.has(user), may, "{user}");
        }
        let own = allowed(&[]).expect("users");
        assert!(own.has(996) && own.has(0) && !own.has(997));
    }

    #[test]
    fn who_is_not_known_is_told() {
        assert_eq!(allowed(&["nobody-here"]).expect_err("unknown"), "there is no user nobody-here");
        assert!(allowed(&["broken"]).is_err());
        assert!(allowed(&["1"; 17]).expect_err("many").contains("16 are allowed"));
    }
}
