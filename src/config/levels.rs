//! What a section and the global defaults hand down, for people: the value and the level it is of.
//!
//! The rules are those of [`crate::config::merged`]; what nobody says is what the settings say of
//! containers, restarts and health.

use crate::config::build::{health_policy, policies, restart_policy};
use crate::config::error::Sink;
use crate::config::ids::section_id;
use crate::config::load::{EffectiveValue, LevelValues, Origin};
use crate::config::merged::Merged;
use crate::config::raw::Raw;
use crate::config::settings::{Containers, Settings};
use std::collections::BTreeMap;

/// The global defaults, then every section that has a usable name.
pub(crate) fn values(raw: &Raw, settings: &Settings, sink: &Sink<'_>) -> Vec<LevelValues> {
    let mut global = Merged::default();
    if let Some(block) = &raw.global {
        global.lay(block, &Origin::Global);
    }
    let mut levels = vec![LevelValues { section: None, values: whole(&global, settings, sink) }];
    for section in &raw.sections {
        let Ok(id) = section_id(&section.name) else { continue };
        let mut merged = global.clone();
        merged.lay(&section.settings, &Origin::Section(section.name.clone()));
        levels.push(LevelValues { section: Some(id.to_string()), values: whole(&merged, settings, sink) });
    }
    levels
}

fn whole(merged: &Merged, settings: &Settings, sink: &Sink<'_>) -> Vec<EffectiveValue> {
    let said = merged.shown(sink);
    let restart = restart_policy(merged, &settings.recovery.policy);
    let health = health_policy(merged, &settings.health.policy);
    let unsaid = policies(&restart, &health).into_iter().chain(of_containers(&settings.containers));
    let mut all: BTreeMap<String, EffectiveValue> = unsaid
        .map(|(key, value)| {
            let value = EffectiveValue { key: key.to_owned(), value, origin: Origin::Settings, place: None };
            (key.to_owned(), value)
        })
        .collect();
    all.extend(said);
    all.into_values().collect()
}

/// `[containers]` in the names of an orchestrator block; what is empty there is the engine's business.
fn of_containers(settings: &Containers) -> Vec<(&'static str, String)> {
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let drop = (!settings.cap_drop.is_empty()).then(|| settings.cap_drop.join(","));
    let all = [
        ("noNewPrivileges", flag(settings.no_new_privileges)),
        ("init", flag(settings.init)),
        ("readOnly", flag(settings.read_only)),
        ("limits.memory", number(settings.memory_bytes)),
        ("limits.cpus", settings.nano_cpus.map(crate::config::build::cpus_text)),
        ("limits.pids", number(settings.pids_limit)),
        ("capDrop", drop),
        ("logMaxSize", settings.log_max_size.clone()),
        ("stdioLogs", Some(settings.stdio_logs.as_str().to_owned())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}
