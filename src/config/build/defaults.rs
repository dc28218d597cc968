//! What a container gets that its line does not say.
//!
//! Order, strongest first: the docker line, the entry's orchestrator block, its section, the
//! global defaults, `[containers]` of the settings, the engine's own default.

use crate::config::build::Work;
use crate::config::load::Origin;
use crate::config::settings::{Containers, StdioLogs};
use crate::config::units;
use crate::model::container::{ContainerSpec, NetworkAttachment, Opaque, SecurityOption};

/// The flag's name in `--security-opt`.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// Fills `spec` in; gives the keys of the entry's own block that the line says, too.
pub(super) fn apply(
    work: &mut Work<'_>,
    spec: &mut ContainerSpec,
    settings: &Containers,
    is_stdio: bool,
) -> Vec<&'static str> {
    let mut filler = Filler { work, twice: Vec::new(), from_settings: Vec::new() };
    filler.switches(spec, settings);
    filler.limits(spec, settings);
    filler.capabilities(spec, settings);
    filler.place(spec);
    filler.logs(spec, settings, is_stdio);
    let Filler { work, twice, from_settings } = filler;
    if !from_settings.is_empty() {
        let note = format!("defaults of [containers]: {}", from_settings.join(", "));
        work.notes.push(note);
    }
    twice
}

struct Filler<'f, 'w> {
    work: &'f mut Work<'w>,
    twice: Vec<&'static str>,
    from_settings: Vec<String>,
}

impl Filler<'_, '_> {
    /// Decides one value: `None` when the line says it or nobody does.
    fn decide<T>(
        &mut self,
        key: &'static str,
        line_says: bool,
        inherited: Option<T>,
        setting: Option<(T, String)>,
    ) -> Option<T> {
        if line_says {
            let own = self.work.merged.get(key);
            if own.is_some_and(|value| value.origin == Origin::Server) {
                self.twice.push(key);
            }
            self.work.effect(key, "as the docker line has it", Origin::RunLine);
            return None;
        }
        if inherited.is_some() {
            return inherited;
        }
        let (value, shown) = setting?;
        self.from_settings.push(format!("{key} = {shown}"));
        self.work.effect(key, shown, Origin::Settings);
        Some(value)
    }

    fn flag(&mut self, key: &'static str, line_says: bool, setting: Option<bool>) -> Option<bool> {
        let inherited = self.work.merged.flag(key);
        let setting = setting.map(|value| (value, value.to_string()));
        self.decide(key, line_says, inherited, setting)
    }

    fn switches(&mut self, spec: &mut ContainerSpec, settings: &Containers) {
        let line_says = spec.security_options.iter().any(
            |option| matches!(option, SecurityOption::Plain(text) if text.starts_with(NO_NEW_PRIVILEGES)),
        );
        let setting = settings.no_new_privileges;
        if self.flag("noNewPrivileges", line_says, setting) == Some(true) {
            let option = SecurityOption::Plain(NO_NEW_PRIVILEGES.to_owned());
            spec.security_options.push(option);
        }
        if let Some(init) = self.flag("init", spec.init.is_some(), settings.init) {
            spec.init = Some(init);
        }
        let read_only = spec.read_only;
        if self.flag("readOnly", read_only, settings.read_only) == Some(true) {
            spec.read_only = true;
        }
    }

    fn limits(&mut self, spec: &mut ContainerSpec, settings: &Containers) {
        let resources = &mut spec.resources;
        let text = |key: &str| self.work.merged.text(key);
        let memory = text("limits.memory").and_then(|text| units::size_bytes(&text).ok());
        let cpus = text("limits.cpus").and_then(|text| units::nano_cpus(&text).ok());
        let pids: Option<i64> = self.work.merged.number("limits.pids");
        let shown = |value: i64| (value, value.to_string());
        let setting = settings.memory_bytes.map(shown);
        if let Some(bytes) = self.decide("limits.memory", resources.memory_bytes != 0, memory, setting) {
            resources.memory_bytes = bytes;
        }
        let line_says =
            resources.nano_cpus != 0 || resources.cpu_quota_micros != 0 || resources.cpu_period_micros != 0;
        let setting = settings.nano_cpus.map(|nanos| (nanos, cpus_text(nanos)));
        if let Some(nanos) = self.decide("limits.cpus", line_says, cpus, setting) {
            resources.nano_cpus = nanos;
        }
        let line_says = resources.pids_limit != 0;
        let setting = settings.pids_limit.map(shown);
        if let Some(pids) = self.decide("limits.pids", line_says, pids, setting) {
            resources.pids_limit = pids;
        }
    }

    fn capabilities(&mut self, spec: &mut ContainerSpec, settings: &Containers) {
        let add = self.work.merged.words("capAdd");
        if let Some(names) = self.decide("capAdd", !spec.cap_add.is_empty(), add, None) {
            spec.cap_add = capability_names(&names);
        }
        let drop = self.work.merged.words("capDrop");
        let setting =
            (!settings.cap_drop.is_empty()).then(|| (settings.cap_drop.clone(), settings.cap_drop.join(",")));
        if let Some(names) = self.decide("capDrop", !spec.cap_drop.is_empty(), drop, setting) {
            spec.cap_drop = capability_names(&names);
        }
    }

    fn place(&mut self, spec: &mut ContainerSpec) {
        let user = self.work.merged.text("user");
        if let Some(user) = self.decide("user", spec.user.is_some(), user, None) {
            spec.user = Some(user);
        }
        let network = self.work.merged.text("network");
        if let Some(name) = self.decide("network", !spec.networks.is_empty(), network, None) {
            spec.networks = vec![NetworkAttachment::named(name)];
        }
    }

    fn logs(&mut self, spec: &mut ContainerSpec, settings: &Containers, is_stdio: bool) {
        let line_says = spec.log_driver.is_some() || !spec.log_options.is_empty();
        if is_stdio {
            let word = self.work.merged.text("stdioLogs");
            let none = word.map(|word| word == "none");
            let setting = match settings.stdio_logs {
                StdioLogs::None => Some((true, "none".to_owned())),
                StdioLogs::Docker => None,
            };
            if self.decide("stdioLogs", line_says, none, setting) == Some(true) {
                spec.log_driver = Some("none".to_owned());
                return;
            }
        }
        let size = self.work.merged.text("logMaxSize");
        let setting = settings.log_max_size.clone().map(|size| (size.clone(), size));
        if let Some(size) = self.decide("logMaxSize", line_says, size, setting) {
            // Other drivers do not know the option.
            spec.log_driver = Some("json-file".to_owned());
            spec.log_options.insert("max-size".to_owned(), Opaque::new(size));
        }
    }
}

pub(crate) fn cpus_text(nanos: i64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names as the docker client has them: `ALL` or `CAP_…`, sorted, each once.
fn capability_names(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| {
            let upper = name.trim().to_uppercase();
            if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
