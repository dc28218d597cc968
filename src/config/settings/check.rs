//! Whether a value is what its setting takes; and the reading of values that are.

use std::net::IpAddr;

use crate::config::settings::level;
use crate::config::settings::table::Kind;
use crate::config::units;
use crate::model::id::Stack;
use crate::model::net::Cidr;

/// A value that may be left to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// Decided from what is found.
    Auto,
    /// As said.
    Is(T),
}

impl<T: Copy> Auto<T> {
    /// The value said, else `found`.
    #[must_use]
    pub fn or(self, found: T) -> T {
        match self {
            Self::Auto => found,
            Self::Is(value) => value,
        }
    }
}

/// Words of a list: separated by commas or white space.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What is wrong with `text` as a value of `kind`; `None` when nothing is.
pub(crate) fn complaint(kind: Kind, text: &str) -> Option<String> {
    match kind {
        Kind::Text | Kind::Path | Kind::Secret | Kind::Words => None,
        Kind::Bool => units::boolean(text).is_none().then(|| format!("'{text}' is neither true nor false")),
        Kind::AutoBool => (text != "auto" && units::boolean(text).is_none())
            .then(|| format!("'{text}' is none of auto, true, false")),
        Kind::Int { min, max } => number(text, min, max, ""),
        Kind::Seconds { min, max } => number(text, min, max, " seconds"),
        Kind::AutoInt { min, max } => {
            let wrong = number(text, min, max, "").filter(|_| text != "auto");
            wrong.map(|message| format!("{message}, or auto"))
        }
        Kind::Port => number(text, 1, 65_535, "").map(|message| format!("{message}, a TCP port")),
        Kind::Size => units::size_bytes(text).err(),
        Kind::Cpus => units::nano_cpus(text).err(),
        Kind::Choice(known) => {
            (!known.contains(&text)).then(|| format!("'{text}' is none of {}", known.join(", ")))
        }
        Kind::Choices(known) => words(text)
            .iter()
            .find(|word| !known.contains(&word.as_str()))
            .map(|word| format!("'{word}' is none of {}", known.join(", "))),
        Kind::Sources => words(text)
            .iter()
            .find(|word| *word != "auto" && Cidr::parse(word).is_none())
            .map(|word| format!("'{word}' is neither an address nor a block such as 10.0.0.0/16")),
        Kind::Host => text.parse::<IpAddr>().is_err().then(|| format!("'{text}' is no IP address")),
        Kind::AutoHost => (text != "auto" && text.parse::<IpAddr>().is_err())
            .then(|| format!("'{text}' is neither an IP address nor auto")),
        Kind::Url => (!is_http_url(text)).then(|| format!("'{text}' is no http or https URL")),
        Kind::Route => route_complaint(text),
        Kind::Prefix => prefix_complaint(text),
        Kind::Level => level::read(text).err(),
        Kind::Runner => (!matches!(text, "auto" | "none") && !text.starts_with('/'))
            .then(|| format!("'{text}' is neither auto nor none nor an absolute path")),
        Kind::Stack => Stack::new(text).err().map(|why| format!("stack name '{text}' {why}")),
    }
}

/// Whether `text` is `http://` or `https://` with a host behind it.
fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

fn number(text: &str, min: u64, max: u64, unit: &str) -> Option<String> {
    match text.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) => None,
        Ok(value) => Some(format!("{value} is out of range, {min} to {max}{unit}")),
        Err(_) => Some(format!("'{text}' is no whole number from {min} to {max}{unit}")),
    }
}

fn route_complaint(text: &str) -> Option<String> {
    let good = text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c))
        && text.split('/').skip(1).all(|step| !matches!(step, "" | "." | ".."));
    (!good).then(|| format!("'{text}' is no path such as /monitor"))
}

fn prefix_complaint(text: &str) -> Option<String> {
    let good = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    (!good).then(|| {
        format!("'{text}' cannot begin a container name (letters, digits, '_', '.', '-', at most 32)")
    })
}

#[cfg(test)]
mod tests {
    use super::complaint;
    use crate::config::settings::table::{KEYS, Kind};

    #[test]
    fn every_default_is_valid() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let said = complaint(key.kind, key.default);
            assert_eq!(said, None, "{}.{}", key.section, key.key);
        }
    }

    #[test]
    fn ranges_are_checked() {
        assert!(complaint(Kind::Port, "0").is_some());
        assert!(complaint(Kind::Port, "65536").is_some());
        assert_eq!(complaint(Kind::Port, "65535"), None);
        assert_eq!(complaint(Kind::Route, "/a.b/c-d"), None);
        for bad in ["/", "a", "/a/", "//a", "/a//b", "/..", "/a/./b", "/a b", "/a?b"] {
            assert!(complaint(Kind::Route, bad).is_some(), "{bad}");
        }
        assert!(complaint(Kind::Choice(&["a"]), "b").is_some());
        assert!(complaint(Kind::AutoInt { min: 1, max: 2 }, "3").is_some());
    }
}
