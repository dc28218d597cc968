//! The settings for readers: the reference page and the commented settings.conf, both from the
//! table.

use std::fmt::Write as _;

use crate::config::settings::diff::{Applies, applies};
use crate::config::settings::layers::variable_name;
use crate::config::settings::level;
use crate::config::settings::table::{KEYS, Key, Kind, SECTIONS, keys_of};

/// Type and range in words.
#[must_use]
pub fn kind_words(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "text".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::AutoBool => "auto, true or false".to_owned(),
        Kind::Int { min, max } => format!("{min} to {max}"),
        Kind::AutoInt { min, max } => format!("auto, or {min} to {max}"),
        Kind::Port => "port, 1 to 65535".to_owned(),
        Kind::Seconds { min, max } => format!("seconds, {min} to {max}"),
        Kind::Size => "size such as 10m, 512m, 2g".to_owned(),
        Kind::Cpus => "number of CPUs such as 0.5".to_owned(),
        Kind::Choice(words) => words.join(", "),
        Kind::Words => "list, separated by commas".to_owned(),
        Kind::Choices(words) => format!("some of {}", words.join(", ")),
        Kind::Sources => "auto, or addresses and CIDR blocks, separated by commas".to_owned(),
        Kind::Host => "IP address".to_owned(),
        Kind::AutoHost => "auto, or an IP address".to_owned(),
        Kind::Url => "http or https URL".to_owned(),
        Kind::Route => "path that starts with /".to_owned(),
        Kind::Stack => "a-z, 0-9, '_' and '-', at most 63".to_owned(),
        Kind::Level => format!("{}, or a filter expression", level::WORDS.join(", ")),
        Kind::Runner => "auto, none, or the absolute path of a socket".to_owned(),
        Kind::Prefix => "letters, digits, '_', '.' and '-', at most 32".to_owned(),
    }
}

/// The hint under a problem with a value of `key`.
pub(super) fn value_hint(key: &Key) -> String {
    let words = kind_words(key.kind);
    if key.default.is_empty() {
        format!("takes: {words}")
    } else {
        format!("takes: {words}; default: {}", key.default)
    }
}

/// `etc/mcp-orchestrator/settings.conf`: every setting, commented out at its default.
#[must_use]
pub fn settings_conf() -> String {
    let mut out = String::from(
        "# Settings of mcp-orchestrator. Every line is commented out and shows the default.\n\
         # Precedence: flag > environment (MCP_ORCHESTRATOR__SECTION__KEY) > this file > default.\n\
         # Comments start with # or ; at the start of a line or behind white space after a value;\n\
         # quotes keep anything. An empty value means unset.\n\
         # Check with: mcp-orchestrator validate\n",
    );
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n# {}\n[{}]\n", section.about, section.name);
        for key in keys_of(section.name) {
            let _ = writeln!(out, "\n# {}", key.meaning);
            let _ = writeln!(out, "# ({})", kind_words(key.kind));
            let line = format!("#{} = {}", key.key, key.default);
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}

/// The reference page of all settings, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# settings.conf\n\n\
         Precedence: flag > environment > settings.conf > default. The environment variable of a\n\
         setting is `MCP_ORCHESTRATOR__SECTION__KEY`.\n\n\
         A change of the file is in force within a second, or after `systemctl reload\n\
         mcp-orchestrator`; ↻ marks what only a restart changes (which refuses no connection). Until\n\
         then `status` names it. A file with an error is refused as a whole, and the settings in force\n\
         stay.\n",
    );
    for section in SECTIONS {
        let _ = write!(out, "\n## [{}]\n\n{}\n\n", section.name, section.about);
        out.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
        for key in keys_of(section.name) {
            let default = match key.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let words = kind_words(key.kind).replace('|', "\\|");
            let waits = applies(key.section, key.key) == Some(Applies::Restart);
            let mark = if waits { " ↻" } else { "" };
            let _ = writeln!(out, "| `{}`{mark} | {words} | {default} | {} |", key.key, key.meaning);
        }
    }
    out
}

/// The environment variable of every setting.
#[must_use]
pub fn variables() -> Vec<String> {
    KEYS.iter().map(|key| variable_name(key.section, key.key)).collect()
}
