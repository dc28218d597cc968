//! Whether the names of tools fit what clients and model providers take: a name that is too long or
//! has a character too many makes a whole request fail there, or the tool vanish.
//!
//! | who | name it sees | takes |
//! |---|---|---|
//! | Claude Code and the Claude API | `mcp__<server>__<tool>` | 64 of letters, digits, `_`, `-` |
//! | LiteLLM before Bedrock | `<server>-<tool>` | 64 of letters, digits, `_`, `-` |
//! | Bedrock, `OpenAI` | `<tool>` | 64 of letters, digits, `_`, `-` |
//!
//! Must never decide what is done about it: names are changed by who configures servers.

use crate::model::id::ServerId;
use std::fmt;

/// Characters that all of them take.
pub const LIMIT: usize = 64;
/// Characters of one that is too long in a message.
const SHOWN: usize = 40;

/// Who takes names only so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consumer {
    /// Claude Code, and the Claude API behind it.
    Claude,
    /// LiteLLM's proxy, which puts the server's name in front.
    LiteLlm,
    /// Bedrock and others that take the tool's name as it is.
    Bedrock,
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claude => "Claude",
            Self::LiteLlm => "LiteLLM",
            Self::Bedrock => "Bedrock",
        })
    }
}

/// A name that somebody does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Who.
    pub consumer: Consumer,
    /// The name as it would arrive there.
    pub name: String,
    /// Whether it is too long; else it has characters that are not taken.
    pub too_long: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consumer, name, too_long } = self;
        if *too_long {
            let count = name.chars().count();
            let begin: String = name.chars().take(SHOWN).collect();
            write!(f, "{consumer} gets the name '{begin}…' of {count} characters and takes {LIMIT}")
        } else {
            write!(f, "{consumer} gets the name '{name}' and takes letters, digits, '_' and '-' only")
        }
    }
}

/// What would not take a server's tool under the name that clients of the server see.
#[must_use]
pub fn problems(id: &ServerId, shown: &str) -> Vec<Problem> {
    let names = [
        (Consumer::Claude, format!("mcp__{id}__{shown}")),
        (Consumer::LiteLlm, format!("{id}-{shown}")),
        (Consumer::Bedrock, shown.to_owned()),
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    names
        .into_iter()
        .filter_map(|(consumer, name)| {
            let too_long = name.chars().count() > LIMIT;
            (too_long || !name.chars().all(plain)).then_some(Problem { consumer, name, too_long })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_with_what_it_gets() {
        let id = ServerId::new("time").unwrap();
        assert!(problems(&id, "get_now").is_empty());
        let who =
            |shown: &str| problems(&id, shown).iter().map(|problem| problem.consumer).collect::<Vec<_>>();
        assert_eq!(who(&"x".repeat(55)), [Consumer::Claude]);
        assert_eq!(who(&"x".repeat(60)), [Consumer::Claude, Consumer::LiteLlm]);
        assert_eq!(who(&"x".repeat(65)).len(), 3);
        assert_eq!(who("files.read").len(), 3);
        let told = problems(&id, "files.read")[2].to_string();
        assert_eq!(told, "Bedrock gets the name 'files.read' and takes letters, digits, '_' and '-' only");
        let told = problems(&id, &"é".repeat(200))[2].to_string();
        let begin = "é".repeat(SHOWN);
        let want = format!("Bedrock gets the name '{begin}…' of 200 characters and takes 64");
        assert_eq!(told, want);
    }
}
