//! The environment of an entry: inherited, from its `envFile`, its own.

use crate::config::build::{Builder, Env, Work};
use crate::config::codes;
use crate::config::load::{Origin, SecretValue};
use crate::config::node::Node;
use crate::config::vars::absolute;
use crate::model::container::Opaque;

/// Parts of a name that say its value is secret.
const SECRET_WORDS: &[&str] =
    &["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "KEY", "CREDENTIAL", "AUTH", "COOKIE"];
/// Shortest literal taken for a secret.
const LITERAL_LEN_MIN: usize = 6;

impl Builder<'_, '_> {
    /// What the entry inherits, and what it says itself.
    pub(super) fn env(&mut self, work: &mut Work<'_>) -> (Env, Env) {
        let mut inherited = Env::new();
        let merged = work.merged;
        for (name, value) in &merged.env {
            self.put(work, &mut inherited, (name, value.node.at), &value.node);
        }
        let mut own = self.env_file(work);
        let entry = work.entry;
        for member in entry.get("env").map(Node::members).unwrap_or_default() {
            let name = (&member.key, member.key_at);
            self.put(work, &mut own, name, &member.value);
        }
        for name in own.keys() {
            let key = format!("env.{name}");
            work.effect(&key, "[redacted]", Origin::Server);
        }
        (inherited, own)
    }

    fn put(&mut self, work: &mut Work<'_>, env: &mut Env, name: (&String, usize), node: &Node) {
        let (name, name_at) = name;
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = "a variable's name is empty or has '=' in it";
            self.sink.error(codes::INVALID_VALUE, name_at, message);
            return;
        }
        if node.is_null() {
            env.insert(name.clone(), None);
            return;
        }
        let Some(value) = self.expand(work, node) else {
            return;
        };
        if value.contains('\0') {
            let message = format!("the value of '{name}' has a NUL character");
            self.sink.error(codes::INVALID_VALUE, node.at, message);
            return;
        }
        work.keep_literal(&format!("env {name}"), name, &value);
        env.insert(name.clone(), Some(value));
    }

    fn env_file(&mut self, work: &mut Work<'_>) -> Env {
        let mut env = Env::new();
        let Some(node) = work.entry.get("envFile").filter(|node| !node.is_null()) else {
            return env;
        };
        let Some(path) = self.expand(work, node) else {
            return env;
        };
        let path = absolute(&path, self.lookup.base_dir);
        let content = match self.input.files.get(&path) {
            Some(Ok(content)) => content,
            Some(Err(why)) => {
                let message = format!("envFile '{path}' cannot be read: {why}");
                self.sink.error(codes::SECRET_UNAVAILABLE, node.at, message);
                return env;
            }
            None => {
                let message = format!("envFile '{path}' was not read");
                self.sink.error(codes::SECRET_UNAVAILABLE, node.at, message);
                return env;
            }
        };
        for (name, value) in env_lines(content) {
            work.keep_literal(&format!("env {name}"), &name, &value);
            env.insert(name, Some(value));
        }
        env
    }
}

impl Work<'_> {
    /// Remembers a secret that is written out, so that it can be hidden. One that a reference gave
    /// is known already.
    pub(super) fn keep_literal(&mut self, label: &str, name: &str, value: &str) {
        let known = self.resolved.iter().any(|found| value.contains(&found.value));
        // What an editor would have asked for is no value yet.
        let known = known || value.contains("${input:");
        if !known && value.len() >= LITERAL_LEN_MIN && looks_secret(name) {
            self.literals.push(SecretValue { reference: format!("[{label}]"), value: Opaque::new(value) });
        }
    }
}

/// Whether a name says that its value is secret.
pub(crate) fn looks_secret(name: &str) -> bool {
    let upper = name.to_uppercase();
    SECRET_WORDS.iter().any(|word| upper.contains(word))
}

/// `KEY=VALUE` lines; comments, `export ` and quotes around the whole value are understood.
fn env_lines(content: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for line in content.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let name = name.trim();
        if !name.is_empty() {
            pairs.push((name.to_owned(), unquoted.unwrap_or(value).to_owned()));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::env_lines;

    #[test]
    fn env_files_are_read_as_people_write_them() {
        let text = "# c\nA=1\nexport B=\"x y\"\n C = 'z' \nnothing\n=x\nD=\n";
        let pairs = env_lines(text);
        let found: Vec<(&str, &str)> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("A", "1"), ("B", "x y"), ("C", "z"), ("D", "")]);
    }
}
