//! Settings over the API: every one with its meaning, its value and where that comes from, and
//! changes of settings.conf.
//!
//! A secret is said to be set or not; its value is in no answer. What the environment or a flag
//! decides is shown and not changed, because a change of the file would have no effect. Must never
//! answer that something is written before it is on disk.

use crate::api::edit::{self, answer_of, tagged};
use crate::api::editing::{Answer, Edited};
use crate::api::table::Call;
use crate::api::{Context, Response, actions, ok};
use crate::config::error::Problem;
use crate::config::settings::diff::{Applies, applies};
use crate::config::settings::edit::{Changes, has_login};
use crate::config::settings::layers::variable_name;
use crate::config::settings::reach::reach;
use crate::config::settings::render::kind_words;
use crate::config::settings::table::{self, KEYS, Key, Kind, SECTIONS};
use crate::config::settings::{Effective, Layer};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use warp::Reply;

/// Settings that a task's words name.
const NAMED_MAX: usize = 3;

/// settings.conf as it is, and what the layers make of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its path.
    pub file: String,
    /// What tells it from other versions.
    pub etag: String,
    /// Why it cannot be written, when it cannot.
    pub read_only: Option<String>,
    /// Whether everything may be set over the network.
    pub full_control: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Every setting by `section.key`.
    pub effective: BTreeMap<String, Effective>,
    /// Settings whose new value waits for a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Wanted values.
    pub changes: Changes,
    /// The version that they were made for (`If-Match`).
    pub if_match: Option<String>,
    /// They come over the network: not everything may be set.
    pub far: bool,
    /// Nothing is written: what would be is to be shown.
    pub dry_run: bool,
}

/// Keeps settings.conf; edits come one after the other.
pub trait SettingsEditor: Send + Sync {
    /// The file as it is now.
    fn read(&self) -> Answer<'_, Found>;
    /// Makes changes.
    fn edit(&self, edit: Edit) -> Answer<'_, Edited>;
}

// ---- what is shown ---------------------------------------------------------------------------------

/// All settings.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingsDocument {
    /// Where settings.conf is.
    pub file: String,
    /// The version: send it as `If-Match`.
    pub etag: String,
    /// Whether it can be written.
    pub writable: bool,
    /// Why not.
    pub read_only: Option<String>,
    /// Whether everything may be set over the network (`[dashboard] full_control`).
    pub full_control: bool,
    /// What is wrong with the file: severity, code, file, line, column, message, hint.
    pub problems: Value,
    /// Settings whose new value waits for a restart, as `section.key`.
    pub needs_restart: Vec<String>,
    /// The sections, in the order of the file.
    pub sections: Vec<SettingsSection>,
}

/// A section of settings.conf.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingsSection {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// Its settings.
    pub settings: Vec<SettingRow>,
}

/// A setting: what it is, what it is set to, and where.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingRow {
    /// `section.key`.
    pub name: String,
    /// Its key in the section.
    pub key: String,
    /// Meaning in one sentence.
    pub about: String,
    /// `text`, `secret`, `path`, `boolean`, `integer`, `choice` or `list`.
    pub kind: String,
    /// What it takes, in words.
    pub takes: String,
    /// The words that it takes, where it takes words.
    pub choices: Vec<String>,
    /// Smallest number.
    pub min: Option<u64>,
    /// Largest number.
    pub max: Option<u64>,
    /// Value when nothing is said; `null`: none.
    pub default: Option<String>,
    /// An empty value means none, and not the default.
    pub empty_is_none: bool,
    /// The value that the layers make; `null`: none, or one that is not shown.
    pub value: Option<String>,
    /// Whether there is a value, shown or not.
    pub set: bool,
    /// What decides it: `default`, `file`, `environment` or `flag`.
    pub origin: String,
    /// Where it is written.
    pub place: Option<String>,
    /// The environment variable that wins over the file.
    pub variable: String,
    /// A change of it is in force after a restart only.
    pub restart: bool,
    /// The newest value waits for a restart.
    pub waiting: bool,
    /// Whether it may be changed by whoever asks.
    pub editable: bool,
    /// Why not.
    pub why_not: Option<String>,
}

impl SettingsDocument {
    /// As somebody sees it: over the network (`far`), or on the socket.
    #[must_use]
    pub fn of(found: &Found, far: bool) -> Self {
        let section = |section: &crate::config::settings::table::Section| SettingsSection {
            name: section.name.to_owned(),
            about: section.about.to_owned(),
            settings: KEYS
                .iter()
                .filter(|key| key.section == section.name)
                .map(|key| SettingRow::of(key, found, far && !found.full_control))
                .collect(),
        };
        Self {
            file: found.file.clone(),
            etag: found.etag.clone(),
            writable: found.read_only.is_none(),
            read_only: found.read_only.clone(),
            full_control: found.full_control,
            problems: crate::config::error::to_json(&found.problems),
            needs_restart: found.needs_restart.iter().map(|name| (*name).to_owned()).collect(),
            sections: SECTIONS.iter().map(section).collect(),
        }
    }
}

impl SettingRow {
    fn of(key: &Key, found: &Found, strict: bool) -> Self {
        let name = format!("{}.{}", key.section, key.key);
        let row = found.effective.get(&name);
        let layer = row.map_or(Layer::Default, |row| row.layer);
        let value = row.and_then(|row| row.value.clone());
        let hidden = key.kind == Kind::Secret || value.as_deref().is_some_and(has_login);
        let variable = variable_name(key.section, key.key);
        let reached = reach(key).filter(|_| strict);
        let why_not = match layer {
            Layer::Environment => Some(format!("the environment variable {variable} decides it")),
            Layer::Flag => Some("a flag of the command line decides it".to_owned()),
            Layer::Default | Layer::File => {
                let reached = reached.map(|what| format!("{what} is not set over the network"));
                reached.or_else(|| found.read_only.clone())
            }
        };
        let (kind, choices, min, max) = form_of(key.kind);
        Self {
            key: key.key.to_owned(),
            about: key.meaning.to_owned(),
            kind: kind.to_owned(),
            takes: kind_words(key.kind),
            choices: choices.iter().map(|word| (*word).to_owned()).collect(),
            min,
            max,
            default: Some(key.default.to_owned()).filter(|text| !text.is_empty()),
            empty_is_none: key.empty_is_none,
            set: value.is_some(),
            value: value.filter(|_| !hidden),
            origin: layer_word(layer).to_owned(),
            place: row.filter(|_| layer != Layer::Default).map(|row| row.place.to_string()),
            variable,
            restart: applies(key.section, key.key) == Some(Applies::Restart),
            waiting: found.needs_restart.iter().any(|waiting| *waiting == name),
            editable: why_not.is_none(),
            why_not,
            name,
        }
    }
}

const fn layer_word(layer: Layer) -> &'static str {
    match layer {
        Layer::Default => "default",
        Layer::File => "file",
        Layer::Environment => "environment",
        Layer::Flag => "flag",
    }
}

/// A kind as a form has it: its word, the words it takes, smallest and largest number.
fn form_of(kind: Kind) -> (&'static str, &'static [&'static str], Option<u64>, Option<u64>) {
    match kind {
        Kind::Secret => ("secret", &[], None, None),
        Kind::Path => ("path", &[], None, None),
        Kind::Bool => ("boolean", &["true", "false"], None, None),
        Kind::AutoBool => ("choice", &["auto", "true", "false"], None, None),
        Kind::Choice(words) => ("choice", words, None, None),
        Kind::Int { min, max } | Kind::Seconds { min, max } => ("integer", &[], Some(min), Some(max)),
        Kind::Port => ("integer", &[], Some(1), Some(65_535)),
        Kind::Words | Kind::Sources | Kind::Choices(_) => ("list", &[], None, None),
        Kind::AutoInt { .. }
        | Kind::Text
        | Kind::Size
        | Kind::Cpus
        | Kind::Host
        | Kind::AutoHost
        | Kind::Prefix
        | Kind::Url
        | Kind::Route
        | Kind::Stack
        | Kind::Level
        | Kind::Runner => ("text", &[], None, None),
    }
}

/// `GET /api/v1/settings`.
pub(super) async fn show(context: Context, call: Call) -> Response {
    match context.settings.read().await {
        Ok(found) => {
            let document = SettingsDocument::of(&found, call.caller.via != "socket");
            tagged(ok(&document).into_response(), &found.etag)
        }
        Err(refused) => answer_of(refused),
    }
}

// ---- what is changed -------------------------------------------------------------------------------

/// Wanted values by `section.key`; `null` takes the setting out of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingsPatch(Map<String, Value>);

impl JsonSchema for SettingsPatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SettingsPatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties: Map<String, Value> =
            KEYS.iter().map(|key| (format!("{}.{}", key.section, key.key), property(key))).collect();
        let schema = json!({
            "type": "object",
            "description": "Wanted values by `section.key`; null takes the setting out of the file.",
            "properties": properties,
            "additionalProperties": false,
        });
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// What a patch takes for a setting: [`fits`] in the words of the document.
fn property(key: &Key) -> Value {
    let about = key.meaning;
    let (_, words, min, max) = form_of(key.kind);
    match key.kind {
        Kind::Bool => json!({ "enum": [true, false, "true", "false", null], "description": about }),
        Kind::AutoBool => {
            json!({ "enum": ["auto", true, false, "true", "false", null], "description": about })
        }
        Kind::Choice(_) => {
            let words: Vec<Value> = words.iter().map(|word| json!(word)).chain([Value::Null]).collect();
            json!({ "enum": words, "description": about })
        }
        Kind::Int { .. } | Kind::Seconds { .. } | Kind::Port => {
            json!({ "type": ["integer", "null"], "minimum": min, "maximum": max, "description": about })
        }
        Kind::AutoInt { .. } | Kind::Size | Kind::Cpus => {
            json!({ "type": ["string", "number", "null"], "description": about })
        }
        Kind::Words | Kind::Sources => {
            let word = json!({ "type": "string", "pattern": "^[!-+.-~-]+$" });
            json!({ "type": ["array", "null"], "items": word, "description": about })
        }
        _ => {
            let about = format!("{about} Takes: {}.", kind_words(key.kind));
            json!({ "type": ["string", "null"], "description": about })
        }
    }
}

/// Whether a value has a form that this setting can have; what it says is judged by the loader. Texts
/// are as they would stand in the file.
fn fits(kind: Kind, value: &Value) -> bool {
    match value {
        Value::Null | Value::String(_) => true,
        Value::Bool(_) => matches!(kind, Kind::Bool | Kind::AutoBool),
        Value::Number(_) => matches!(
            kind,
            Kind::Int { .. }
                | Kind::Seconds { .. }
                | Kind::Port
                | Kind::AutoInt { .. }
                | Kind::Size
                | Kind::Cpus
        ),
        Value::Array(words) => {
            matches!(kind, Kind::Words | Kind::Sources) && words.iter().all(Value::is_string)
        }
        Value::Object(_) => false,
    }
}

impl SettingsPatch {
    /// The same as texts.
    ///
    /// # Errors
    /// Every value that is none its setting can have.
    fn texts(self) -> Result<Changes, String> {
        let mut changes = Changes::new();
        let mut odd = Vec::new();
        for (name, value) in self.0 {
            let key = name.split_once('.').and_then(|(section, key)| table::find(section, key));
            if let Some(key) = key.filter(|key| !fits(key.kind, &value)) {
                odd.push(format!("{name} takes {}", kind_words(key.kind)));
                continue;
            }
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                Value::Array(words) => {
                    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                    Some(words.join(", "))
                }
                // What names no setting is refused by its name.
                Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(value.to_string()),
            };
            changes.insert(name, text);
        }
        if odd.is_empty() { Ok(changes) } else { Err(odd.join("; ")) }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PatchQuery {
    dry_run: Option<bool>,
}

/// `PATCH /api/v1/settings`.
pub(super) async fn patch(context: Context, call: Call) -> Response {
    let read = edit::body::<SettingsPatch>(&call).and_then(|patch| {
        let changes = patch.texts().map_err(|why| edit::unreadable(&why))?;
        Ok((changes, call.query::<PatchQuery>()?))
    });
    let (changes, query) = match read {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return actions::too_many();
    }
    let words = words(changes.keys().map(String::as_str).collect());
    let dry_run = query.dry_run.unwrap_or(false);
    let (if_match, far) = (call.if_match.clone(), call.caller.via != "socket");
    match context.settings.edit(Edit { changes, if_match, far, dry_run }).await {
        Err(refused) => {
            if !dry_run {
                edit::note_refusal(&context, &call, &words, &refused);
            }
            answer_of(refused)
        }
        Ok(edited) if dry_run => edit::previewed(edited),
        Ok(edited) => {
            let answer = actions::after_edit(context, call, words, Vec::new()).await;
            tagged(answer, &edited.etag)
        }
    }
}

/// What was done, for the task and the audit: names, never values.
fn words(names: BTreeSet<&str>) -> String {
    let known = |name: &&str| KEYS.iter().any(|key| name.split_once('.') == Some((key.section, key.key)));
    let (all, named) = (names.len(), names.into_iter().filter(known).take(NAMED_MAX).collect::<Vec<_>>());
    let more = all.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("edit: settings {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Found, SettingsDocument, SettingsPatch, words};
    use crate::config::error::Place;
    use crate::config::settings::{Effective, Layer};
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn values_come_in_the_form_that_is_natural_for_them() {
        let texts = |patch| SettingsPatch(serde_json::from_value(patch).unwrap()).texts();
        let good = texts(json!({
            "service.port_range_start": 8100, "containers.init": false, "containers.cpus": 0.5,
            "containers.cap_drop": ["NET_RAW", "SYS_TIME"], "aws.region": null, "no.such": 1,
        }));
        let good: Vec<(String, Option<String>)> = good.unwrap().into_iter().collect();
        let text = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(
            good,
            [
                ("aws.region".to_owned(), None),
                text("containers.cap_drop", "NET_RAW, SYS_TIME"),
                text("containers.cpus", "0.5"),
                text("containers.init", "false"),
                text("no.such", "1"),
                text("service.port_range_start", "8100"),
            ]
        );
        let odd = texts(
            json!({ "aws.region": true, "aws.alb_arn": ["x"], "containers.init": 1, "tls.key_file": {} }),
        );
        assert_eq!(odd.unwrap_err().matches(" takes ").count(), 4);
    }

    #[test]
    fn secrets_and_logins_are_set_and_not_shown_and_reasons_are_given() {
        let mut found = Found::default();
        let mut put = |name: &str, value: &str, layer| {
            let place = Place::whole("s.conf");
            found
                .effective
                .insert(name.to_owned(), Effective { value: Some(value.to_owned()), layer, place });
        };
        put("dashboard.password", "[redacted]", Layer::File);
        put("aws.endpoint_url", "http://me:planted@x/", Layer::File);
        put("aws.region", "eu-west-1", Layer::Environment);
        put("logging.level", "DEBUG", Layer::Flag);
        let of = |far| {
            let document = SettingsDocument::of(&found, far);
            let rows = document.sections.into_iter().flat_map(|section| section.settings);
            rows.map(|row| (row.name.clone(), row)).collect::<std::collections::BTreeMap<_, _>>()
        };
        let (far, near) = (of(true), of(false));
        for name in ["dashboard.password", "aws.endpoint_url"] {
            let row = &far[name];
            assert_eq!((row.value.as_deref(), row.set, row.editable), (None, true, false), "{name}");
            assert!(near[name].value.is_none() && near[name].editable, "{name}");
        }
        let why = |name: &str| near[name].why_not.clone().unwrap_or_default();
        assert!(
            why("aws.region").contains("MCP_ORCHESTRATOR__AWS__REGION")
                && why("logging.level").contains("flag")
        );
    }

    #[test]
    fn words_name_settings_and_nothing_that_a_caller_made_up() {
        let said = words(BTreeSet::from([
            "aws.region",
            "a\u{1b}[31m.x",
            "tls.key_file",
            "logging.level",
            "jwt.issuer",
        ]));
        assert_eq!(said, "edit: settings aws.region, jwt.issuer, logging.level and 2 more");
    }
}
