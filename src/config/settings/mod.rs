//! The daemon's settings: settings.conf, environment and flags, merged, checked and typed.
//!
//! Why it is so: one table ([`table`]) says what settings there are; the layers are merged by the
//! `config` crate with the place of every value kept; what comes out has no `Option` where there
//! is a default.
//!
//! Invariant: every setting of the table is read into [`Settings`] (test `every_setting_is_read`).
//! Invariant: `Debug` shows no password.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::codes;
use crate::config::error::{Place, Problem, complete, sort};

pub mod check;
mod conflicts;
pub mod diff;
pub mod edit;
pub mod layers;
pub mod level;
pub mod reach;
pub mod render;
pub mod table;
mod typed;

pub use self::check::Auto;
pub use self::layers::Layer;
pub use self::typed::{
    Aws, Containers, Dashboard, Discovery, Engine, Gateway, GatewayAuth, Health, INSTALLED_CONFIG, Jwt,
    LogFormat, Logging, Metrics, OnShutdown, OpenApi, PolicyWorld, ProcessRunner, Recovery, Service,
    Settings, Sources, StdioLogs, Storage, TargetType, Tls, TlsVersion, Unscoped,
};

/// What settings are read from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Name and content of settings.conf, when there is one.
    pub file: Option<(&'a str, &'a [u8])>,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
    /// Flags of the command line by `section.key`.
    pub flags: &'a BTreeMap<String, String>,
}

/// A setting's value and where it came from, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The value; `[redacted]` for passwords, `None` when unset.
    pub value: Option<String>,
    /// Which layer decided.
    pub layer: Layer,
    /// Where it is written.
    pub place: Place,
}

/// What came of reading.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings; `None` when some problem is an error.
    pub settings: Option<Settings>,
    /// The settings with the default in place of every wrong value: good enough to look what else is
    /// wrong, and for nothing that acts. `None` when even that cannot be had.
    pub assumed: Option<Settings>,
    /// All problems, sorted.
    pub problems: Vec<Problem>,
    /// Every setting by `section.key`.
    pub effective: BTreeMap<String, Effective>,
}

/// Reads the settings.
#[must_use]
pub fn load(input: &Input<'_>) -> Loaded {
    let mut problems = Vec::new();
    let written = layers::merge(input, &mut problems);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut effective = BTreeMap::new();
    for key in table::KEYS {
        let name = layers::dotted(key.section, key.key);
        let Some(found) = written.get(&name) else {
            continue;
        };
        let mut value = found.text.as_str();
        if value.is_empty() && !key.empty_is_none {
            value = key.default;
        }
        if !value.is_empty()
            && let Some(complaint) = check::complaint(key.kind, value)
        {
            let message = format!("[{}] {}: {complaint}", key.section, key.key);
            let problem = Problem::error(codes::INVALID_SETTING, found.place.clone(), message);
            problems.push(problem.hint(render::value_hint(key)));
            value = key.default;
        }
        let shown = if layers::is_secret(key.section, key.key) { "[redacted]" } else { value };
        let row = Effective {
            value: (!value.is_empty()).then(|| shown.to_owned()),
            layer: found.layer,
            place: found.place.clone(),
        };
        effective.insert(name.clone(), row);
        if !value.is_empty() {
            values.insert(name, value.to_owned());
        }
    }
    let settings = typed::read(&typed::Values::new(values));
    if let Some(settings) = &settings {
        conflicts::check(settings, &effective, &mut problems);
    }
    sort(&mut problems);
    complete(&mut problems);
    let good = !problems.iter().any(Problem::is_error);
    Loaded { settings: settings.clone().filter(|_| good), assumed: settings, problems, effective }
}
