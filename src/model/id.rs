//! Names as types: a server id cannot be mistaken for a container id or an ARN.
//!
//! Constructors check; nothing here is ever built from unchecked outside text except through them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest server id, in bytes (CONTRACT: ids become DNS-like path segments and Docker names).
pub const SERVER_ID_LEN_MAX: usize = 63;
/// Ids that would collide with routes of the main listener.
pub const RESERVED_IDS: [&str; 9] =
    ["docs", "redoc", "openapi", "health", "healthz", "metrics", "mcp", "sse", "messages"];
/// Most instances of one server.
pub const REPLICAS_MAX: u32 = 64;
/// Comes between a server's id and the number of a further instance; ids have no capitals.
const REPLICA: &str = "-R";
/// Longest stack name, in bytes: it becomes an AWS tag value and a lock file name.
pub const STACK_LEN_MAX: usize = 63;

/// Why a text cannot be an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// Nothing was left of the name.
    Empty,
    /// More than [`SERVER_ID_LEN_MAX`] bytes.
    TooLong,
    /// A character outside `[a-z0-9_-]`, or `_`/`-` at an end.
    Characters,
    /// `__` separates server and tool in the names of the combined endpoint.
    DoubleUnderscore,
    /// One of [`RESERVED_IDS`].
    Reserved,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "has no letter or digit",
            Self::TooLong => "is longer than 63 characters",
            Self::Characters => {
                "may only have a-z, 0-9, '_' and '-' and must start and end with a letter or digit"
            }
            Self::DoubleUnderscore => "must not contain '__' (it separates server and tool)",
            Self::Reserved => "is reserved for a route of this program",
        })
    }
}

impl std::error::Error for IdError {}

/// The id of an MCP server: `[a-z0-9]([a-z0-9_-]*[a-z0-9])?`, at most 63 bytes, no `__`, not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerId(String);

impl ServerId {
    /// Checks `text` as it stands.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check_id(text)?;
        if RESERVED_IDS.contains(&text) {
            return Err(IdError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The id for a name as people write it: lower case, every run of other characters one `-`,
    /// ends trimmed, cut at 63. Deterministic, so that the same file always gives the same ids.
    ///
    /// # Errors
    /// When nothing usable is left, or the result is reserved.
    pub fn slug(name: &str) -> Result<Self, IdError> {
        Self::new(&slug(name))
    }

    /// What stands for servers put together behind one endpoint, all of them or those of a section;
    /// no server can have it.
    #[must_use]
    pub fn combined(section: Option<&SectionId>) -> Self {
        Self(section.map_or_else(|| "mcp".to_owned(), |section| format!("mcp~{section}")))
    }

    /// An instance of this server: the first has the server's own id, those of the others no entry of a file
    /// can have.
    #[must_use]
    pub fn replica(&self, number: u32) -> Self {
        let server = self.server();
        if number < 2 { server } else { Self(format!("{}{REPLICA}{number}", server.0)) }
    }

    /// Which instance of its server this is: 1 for the server's own id.
    #[must_use]
    pub fn replica_number(&self) -> u32 {
        self.0.split_once(REPLICA).and_then(|(_, number)| number.parse().ok()).unwrap_or(1)
    }

    /// The server that this is an instance of.
    #[must_use]
    pub fn server(&self) -> Self {
        Self(self.0.split_once(REPLICA).map_or(&*self.0, |(server, _)| server).to_owned())
    }

    /// An id of an entry, or of a further instance as [`Self::replica`] makes them.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn instance(text: &str) -> Result<Self, IdError> {
        let Some((server, number)) = text.split_once(REPLICA) else { return Self::new(text) };
        let server = Self::new(server)?;
        let count = number.parse().ok().filter(|count| (2..=REPLICAS_MAX).contains(count));
        match count {
            Some(count) if count.to_string() == number => Ok(server.replica(count)),
            _ => Err(IdError::Characters),
        }
    }

    /// Whether it stands for servers put together.
    #[must_use]
    pub fn is_combined(&self) -> bool {
        self.0 == "mcp" || self.0.starts_with("mcp~")
    }

    /// What a client's session may be with: a server, an instance of one, or servers put together as in
    /// [`Self::combined`].
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn endpoint(text: &str) -> Result<Self, IdError> {
        match text.split_once('~') {
            None if text == "mcp" => Ok(Self::combined(None)),
            Some(("mcp", section)) => {
                check_id(section).map(|()| Self::combined(Some(&SectionId(section.to_owned()))))
            }
            _ => Self::instance(text),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower case, other characters to single `-`, `__` to `_`, ends trimmed, cut at the longest id.
fn slug(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(SERVER_ID_LEN_MAX));
    for c in name.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let repeats = matches!(c, '-' | '_') && out.ends_with(c);
        if !repeats && out.len() < SERVER_ID_LEN_MAX {
            out.push(c);
        }
    }
    out.trim_matches(['-', '_']).to_owned()
}

fn check_id(text: &str) -> Result<(), IdError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > SERVER_ID_LEN_MAX {
        return Err(IdError::TooLong);
    }
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !text.chars().all(inside) || !edge(text.chars().next()) || !edge(text.chars().last()) {
        return Err(IdError::Characters);
    }
    if text.contains("__") {
        return Err(IdError::DoubleUnderscore);
    }
    Ok(())
}

impl TryFrom<String> for ServerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::instance(&text)
    }
}

impl From<ServerId> for String {
    fn from(id: ServerId) -> Self {
        id.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The owner of everything made here. Two stacks never touch each other's objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stack(String);

impl Stack {
    /// Checks `text`: the character rules of a server id, at most 63 bytes, nothing reserved.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check_id(text).map(|()| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Stack {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<Stack> for String {
    fn from(stack: Stack) -> Self {
        stack.0
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// The engine's id of a container (64 hex digits in Docker).
    ContainerId
);
text_id!(
    /// The engine's id of an image's configuration, `sha256:…`.
    ImageId
);
text_id!(
    /// The ARN of a listener rule.
    RuleArn
);
text_id!(
    /// The ARN of a target group.
    TargetGroupArn
);
text_id!(
    /// The id of a section of the panel: the character rules of a server id.
    SectionId
);

#[cfg(test)]
mod tests {
    use super::{IdError, ServerId};

    #[test]
    fn ids_follow_the_contract() {
        for good in ["a", "a1", "time-server", "a_b", &"x".repeat(63)] {
            assert!(ServerId::new(good).is_ok(), "{good}");
        }
        let bad = [
            ("", IdError::Empty),
            ("-a", IdError::Characters),
            ("a-", IdError::Characters),
            ("A", IdError::Characters),
            ("a*", IdError::Characters),
            ("a__b", IdError::DoubleUnderscore),
            ("mcp", IdError::Reserved),
        ];
        for (text, why) in bad {
            assert_eq!(ServerId::new(text), Err(why), "{text}");
        }
        assert_eq!(ServerId::new(&"x".repeat(64)), Err(IdError::TooLong));
    }

    #[test]
    fn instances_have_ids_that_no_entry_can_have() {
        let server = ServerId::new("time").expect("an id");
        let third = server.replica(3);
        assert_eq!((third.as_str(), third.replica_number()), ("time-R3", 3));
        assert_eq!((third.server(), third.replica(4)), (server.clone(), server.replica(4)));
        assert_eq!(third.replica(1), server);
        assert_eq!((server.server(), server.replica_number()), (server.clone(), 1));
        assert_eq!(ServerId::new("time-R3"), Err(IdError::Characters));
        assert_eq!(ServerId::instance("time-R3"), Ok(third.clone()));
        let kept = serde_json::to_string(&third).expect("text");
        assert_eq!(serde_json::from_str::<ServerId>(&kept).ok(), Some(third));
        for bad in ["time-R1", "time-R0", "time-R03", "time-R65", "time-R", "time-R2-R3", "-R2", "mcp-R2"] {
            assert!(ServerId::instance(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sessions_are_with_servers_instances_or_all() {
        for good in ["time", "time-R2", "mcp", "mcp~ops"] {
            assert_eq!(ServerId::endpoint(good).map(String::from), Ok(good.to_owned()));
            assert_eq!(ServerId::endpoint(good).map(|id| id.is_combined()), Ok(good.starts_with("mcp")));
        }
        for bad in ["", "mcp~", "mcp~A", "mcp-R2", "other~ops", "docs", "mcp~a~b"] {
            assert!(ServerId::endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slugs_are_ids() {
        let slugs = [
            ("AWS Documentation", "aws-documentation"),
            ("awslabs.aws-docs@latest", "awslabs-aws-docs-latest"),
            ("__x__y__", "x_y"),
            ("Füße", "f-e"),
        ];
        for (name, id) in slugs {
            assert_eq!(ServerId::slug(name).map(String::from), Ok(id.to_owned()));
        }
        assert_eq!(ServerId::slug("***"), Err(IdError::Empty));
    }
}
