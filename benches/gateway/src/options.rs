//! The command line: `--name value` pairs, each given at most once but `--header`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::target::{Style, Target};

/// What was given.
#[derive(Debug, Default)]
pub struct Options {
    given: BTreeMap<String, String>,
    headers: String,
    /// Whatever stands behind `--`.
    pub rest: Vec<String>,
}

impl Options {
    /// Reads the words behind the command.
    ///
    /// # Errors
    /// A word that is no option, or an option without a value.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            if word == "--" {
                options.rest = words.collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word} is no option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            if name == "header" {
                let _ = write!(options.headers, "{value}\r\n");
            } else if options.given.insert(name.to_owned(), value).is_some() {
                return Err(format!("--{name} is given twice"));
            }
        }
        Ok(options)
    }

    /// The value of an option, or `other`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get<T: FromStr>(&self, name: &str, other: T) -> Result<T, String> {
        match self.given.get(name) {
            None => Ok(other),
            Some(text) => text.parse().map_err(|_| format!("--{name} cannot be {text:?}")),
        }
    }

    /// The value of an option, where it was given.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        self.given.get(name).map(|_| self.get_given(name)).transpose()
    }

    fn get_given<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.given.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        text.parse().map_err(|_| format!("--{name} cannot be {text:?}"))
    }

    /// The gateway named by `--url`, `--tool`, `--style` and `--header`.
    ///
    /// # Errors
    /// One of them cannot be read, or there is no `--url`.
    pub fn target(&self) -> Result<Target, String> {
        let mut target = Target::new(&self.get_given::<String>("url")?)?;
        target.tool = self.get("tool", target.tool)?;
        target.headers.clone_from(&self.headers);
        target.style = match self.get("style", "mcp".to_owned())?.as_str() {
            "mcp" => Style::Mcp,
            "rest" => Style::Rest,
            other => return Err(format!("--style cannot be {other:?}")),
        };
        Ok(target)
    }
}
