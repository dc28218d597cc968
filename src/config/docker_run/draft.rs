//! The line under construction: flags applied one by one, then checked together.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::docker_run::flags::Action;
use crate::config::docker_run::networks::{self, FirstNetwork};
use crate::config::docker_run::ports::PORTS_MAX;
use crate::config::docker_run::scan::{Occurrence, Scanned};
use crate::config::docker_run::{RunContext, RunLine, RunProblem, code, files, forms, image, values};
use crate::model::container::{
    ContainerSpec, EnvVar, HealthCheck, HealthProbe, Opaque, PortProtocol, PullPolicy, RestartPolicy,
    SecurityOption,
};

/// Why a flag cannot be applied; the flag's name is put in front of the message.
pub(super) struct Fault {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// The flag or this value of it cannot be used here.
    pub(super) fn refused(why: &str, hint: &str) -> Self {
        Self { code: code::REFUSED_FLAG, message: format!("refused: {why}"), hint: Some(hint.to_owned()) }
    }

    fn missing_file(path: &str) -> Self {
        Self {
            code: code::MISSING_FILE,
            message: format!("the file {path:?} cannot be read"),
            hint: Some("a relative path starts from the directory of the config file".to_owned()),
        }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { code: code::INVALID_VALUE, message, hint: None }
    }
}

/// A `RunLine` being put together.
pub(super) struct Draft<'a> {
    /// What the line is read against.
    pub(super) ctx: RunContext<'a>,
    /// The container.
    pub(super) spec: ContainerSpec,
    /// Flags beside `--network`.
    pub(super) first_network: FirstNetwork,
    /// `--health-*`.
    pub(super) health: HealthProbe,
    /// `--no-healthcheck`.
    pub(super) no_healthcheck: bool,
    /// `--rm`.
    pub(super) remove: bool,
    /// `--pull`.
    pub(super) pull: Option<PullPolicy>,
    restart: Option<RestartPolicy>,
    name: Option<String>,
    env: Vec<EnvVar>,
    file_env: Vec<EnvVar>,
    labels: BTreeMap<String, String>,
    file_labels: BTreeMap<String, String>,
}

/// Applies what was scanned. The line is of use only where no problem came up.
pub(super) fn build(scanned: &Scanned, args_len: usize, ctx: &RunContext<'_>) -> (RunLine, Vec<RunProblem>) {
    let mut draft = Draft::new(*ctx);
    let mut problems = Vec::new();
    for occurrence in &scanned.flags {
        if let Err(fault) = draft.apply(occurrence) {
            problems.push(RunProblem {
                arg: occurrence.arg,
                code: fault.code,
                message: format!("--{}: {}", occurrence.flag.name, fault.message),
                hint: fault.hint.or_else(|| Some(forms::of(occurrence.flag).to_owned())),
            });
        }
    }
    let last_arg = |names: &[&str]| {
        let named = |occurrence: &&Occurrence| names.contains(&occurrence.flag.name);
        let last = scanned.flags.iter().rev().find(named);
        last.map_or(0, |occurrence| occurrence.arg)
    };
    let line = draft.finish(|code, names, message| {
        let hint = Some(conflict_hint(names).to_owned());
        problems.push(RunProblem { arg: last_arg(names), code, message, hint });
    });
    let line = match scanned.operands.split_first() {
        Some((image, command)) => {
            if let Err(message) = image::check_reference(image) {
                problems.push(RunProblem {
                    arg: scanned.operands_at,
                    code: code::INVALID_IMAGE,
                    message,
                    hint: Some("an image is [REGISTRY/]NAME[:TAG][@sha256:DIGEST]".to_owned()),
                });
            }
            with_operands(line, image, command)
        }
        None => {
            if scanned.is_run {
                problems.push(missing_image(args_len));
            }
            line
        }
    };
    (line, problems)
}

/// What helps where flags do not go together.
fn conflict_hint(names: &[&str]) -> &'static str {
    match names {
        ["health-retries"] => "takes a whole number, at least 0",
        names if names == NETWORK_FLAGS => {
            "say each of them once; aliases and addresses are for networks of your own, --network NAME"
        }
        _ => "leave one of them out",
    }
}

fn with_operands(mut line: RunLine, image: &str, command: &[String]) -> RunLine {
    image.clone_into(&mut line.spec.image);
    line.spec.command = command.iter().map(|arg| Opaque::from(arg.as_str())).collect();
    line
}

fn missing_image(args_len: usize) -> RunProblem {
    RunProblem {
        arg: args_len,
        code: code::MISSING_IMAGE,
        message: "the line names no image".to_owned(),
        hint: Some("flags stand before the image; a flag may have taken it as its value".to_owned()),
    }
}

/// The file that a `--security-opt` names, where it names one.
pub(super) fn seccomp_file(option: &str) -> Option<&str> {
    let profile = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"))?;
    Some(profile).filter(|profile| !matches!(*profile, "" | "unconfined" | "builtin"))
}

impl<'a> Draft<'a> {
    fn new(ctx: RunContext<'a>) -> Self {
        Self {
            ctx,
            spec: ContainerSpec::default(),
            first_network: FirstNetwork::default(),
            health: HealthProbe::default(),
            no_healthcheck: false,
            remove: false,
            pull: None,
            restart: None,
            name: None,
            env: Vec::new(),
            file_env: Vec::new(),
            labels: BTreeMap::new(),
            file_labels: BTreeMap::new(),
        }
    }

    fn apply(&mut self, occurrence: &Occurrence) -> Result<(), Fault> {
        let value = occurrence.value.as_str();
        match occurrence.flag.action {
            Action::Switch(field) => *field(self) = values::switch(value)?,
            Action::Tristate(field) => *field(self) = Some(values::switch(value)?),
            Action::Text(field) => {
                *field(self) = Some(value.to_owned()).filter(|text| !text.is_empty());
            }
            Action::Integer(field) => *field(self) = values::integer(value)?,
            Action::Bytes(field) => *field(self) = values::bytes(value)?,
            Action::Duration(field) => *field(self) = values::duration(value)?,
            Action::List(field) => field(self).push(value.to_owned()),
            Action::Value(apply) => apply(self, value)?,
            Action::AbsorbSwitch => {
                values::switch(value)?;
            }
            Action::AbsorbValue => {}
            Action::RefuseSwitch(when, why, hint) => {
                if values::switch(value)? == when {
                    return Err(Fault::refused(why, hint));
                }
            }
            Action::RefuseValue(why, hint) => return Err(Fault::refused(why, hint)),
        }
        Ok(())
    }

    /// `-e NAME[=VALUE]`.
    pub(super) fn env(&mut self, text: &str) -> Result<(), Fault> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(Opaque::from(value))),
            None => {
                let value = self.ctx.env.get(text);
                (text, value.map(|value| Opaque::from(value.as_str())))
            }
        };
        if name.is_empty() {
            return Err("a variable has no name".to_owned().into());
        }
        self.env.push(EnvVar { name: name.to_owned(), value });
        Ok(())
    }

    /// `--env-file`.
    pub(super) fn env_file(&mut self, path: &str) -> Result<(), Fault> {
        let content = self.file(path)?;
        let pairs = files::pairs(content, Some(self.ctx.env)).map_err(|why| in_file(path, &why))?;
        let vars = pairs.into_iter().map(|pair| EnvVar::new(pair.name, pair.value));
        self.file_env.extend(vars);
        Ok(())
    }

    /// `-l NAME[=VALUE]`.
    pub(super) fn label(&mut self, text: &str) -> Result<(), Fault> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let trimmed = name.trim_start_matches([' ', '\t']);
        if trimmed.is_empty() {
            return Err("a label has no name".to_owned().into());
        }
        if trimmed.contains([' ', '\t']) {
            return Err(format!("the label's name {trimmed:?} has white space").into());
        }
        self.labels.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// `--label-file`; a bare name is left out, as the client does.
    pub(super) fn label_file(&mut self, path: &str) -> Result<(), Fault> {
        let content = self.file(path)?;
        let pairs = files::pairs(content, None).map_err(|why| in_file(path, &why))?;
        let labels = pairs.into_iter().map(|pair| (pair.name, pair.value));
        self.file_labels.extend(labels);
        Ok(())
    }

    /// `--name`, which may only repeat the name the container has anyway.
    pub(super) fn name(&mut self, text: &str) -> Result<(), Fault> {
        if text.is_empty() || self.ctx.own_name == Some(text) {
            self.name = Some(text.to_owned()).filter(|name| !name.is_empty());
            return Ok(());
        }
        let named = match self.ctx.own_name {
            Some(own) => format!("this one is called {own:?}"),
            None => "the service names its containers itself".to_owned(),
        };
        Err(Fault::refused(
            &format!("containers are replaced under a fixed name, {named}"),
            "leave --name out; the server's key in mcpServers names it",
        ))
    }

    /// `--restart`.
    pub(super) fn restart(&mut self, text: &str) -> Result<(), Fault> {
        let (name, count) = text.split_once(':').unwrap_or((text, ""));
        let retries = match count {
            "" => None,
            digits => Some(
                digits.parse::<u32>().map_err(|_error| format!("{digits:?} is not a number of retries"))?,
            ),
        };
        let max_retries = retries.unwrap_or(0);
        self.restart = match (name, max_retries) {
            ("", 0) if !text.contains(':') => None,
            ("no", 0) => Some(RestartPolicy::No),
            ("on-failure", _) => Some(RestartPolicy::OnFailure { max_retries }),
            ("always", 0) => Some(RestartPolicy::Always),
            ("unless-stopped", 0) => Some(RestartPolicy::UnlessStopped),
            ("no" | "always" | "unless-stopped", _) => {
                return Err("only on-failure takes a number of retries".to_owned().into());
            }
            _ => {
                return Err(
                    format!("{name:?} is none of no, on-failure[:retries], always, unless-stopped").into()
                );
            }
        };
        Ok(())
    }

    /// `--security-opt`.
    pub(super) fn security(&mut self, text: &str) -> Result<(), Fault> {
        if text == "systempaths=unconfined" {
            self.spec.system_paths_unconfined = true;
            return Ok(());
        }
        let (name, value) = match text.split_once('=') {
            Some(pair) => pair,
            None if text == "no-new-privileges" => (text, ""),
            None => text.split_once(':').unwrap_or((text, "")),
        };
        if value.is_empty() && name != "no-new-privileges" {
            return Err(format!("{text:?} is not of the form name=value").into());
        }
        let option = match seccomp_file(text) {
            Some(path) => {
                let content = self.file(path)?;
                let profile = files::compact_json(content).map_err(|why| in_file(path, &why))?;
                SecurityOption::SeccompProfile { path: path.to_owned(), profile }
            }
            None => SecurityOption::Plain(text.to_owned()),
        };
        self.spec.security_options.push(option);
        Ok(())
    }

    /// `--sysctl`; only what belongs to a namespace of the container.
    pub(super) fn sysctl(&mut self, text: &str) -> Result<(), Fault> {
        const NAMESPACED: &[&str] = &[
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ];
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("{text:?} is not of the form name=value"))?;
        let known = NAMESPACED.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
        if !known {
            return Err(format!("{name:?} is not a setting of a container's own namespaces").into());
        }
        self.spec.sysctls.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Holds the number of ports within bounds.
    pub(super) fn bound_ports(&self) -> Result<(), Fault> {
        if self.spec.published.len() + self.spec.exposed.len() > PORTS_MAX {
            return Err(Fault {
                code: code::TOO_MUCH,
                message: format!("more than {PORTS_MAX} ports in sum"),
                hint: None,
            });
        }
        Ok(())
    }

    fn file(&self, path: &str) -> Result<&'a str, Fault> {
        let content = self.ctx.files.get(path);
        content.map(String::as_str).ok_or_else(|| Fault::missing_file(path))
    }

    /// Puts everything together; `problem` takes the code, the flags concerned and the message.
    fn finish(mut self, mut problem: impl FnMut(&'static str, &[&str], String)) -> RunLine {
        if let Err((flags, message)) = self.finish_health() {
            problem(code::CONFLICT, flags, message);
        }
        let named = std::mem::take(&mut self.spec.networks);
        match networks::combine(named, std::mem::take(&mut self.first_network)) {
            Ok(networks) => self.spec.networks = networks,
            Err(message) => problem(code::CONFLICT, NETWORK_FLAGS, message),
        }
        if self.remove && !matches!(self.restart, None | Some(RestartPolicy::No)) {
            let message = "--rm and --restart contradict each other".to_owned();
            problem(code::CONFLICT, &["rm", "restart"], message);
        }
        let log = (self.spec.log_driver.as_deref(), self.spec.log_options.is_empty());
        if log == (Some("none"), false) {
            let message = "--log-opt has no meaning with --log-driver none".to_owned();
            problem(code::CONFLICT, &["log-opt", "log-driver"], message);
        }
        self.normalize();
        RunLine {
            interactive: self.spec.open_stdin,
            spec: self.spec,
            name: self.name,
            remove: self.remove,
            restart: self.restart,
            pull: self.pull,
        }
    }

    fn finish_health(&mut self) -> Result<(), (&'static [&'static str], String)> {
        if self.health.retries < 0 {
            let message = "--health-retries: the number is negative".to_owned();
            return Err((&["health-retries"], message));
        }
        let probe = std::mem::take(&mut self.health);
        let given = probe != HealthProbe::default();
        match (self.no_healthcheck, given) {
            (true, true) => {
                let message = "--no-healthcheck and --health-* contradict each other".to_owned();
                return Err((&["no-healthcheck"], message));
            }
            (true, false) => self.spec.health = Some(HealthCheck::Disabled),
            (false, true) => self.spec.health = Some(HealthCheck::Probe(probe)),
            (false, false) => {}
        }
        Ok(())
    }

    /// Brings spellings of one meaning to one form.
    fn normalize(&mut self) {
        let spec = &mut self.spec;
        spec.env = last_of_each(self.file_env.drain(..).chain(self.env.drain(..)));
        spec.labels = std::mem::take(&mut self.file_labels);
        spec.labels.append(&mut self.labels);
        spec.cap_add = capabilities(&spec.cap_add);
        spec.cap_drop = capabilities(&spec.cap_drop);
        spec.binds.sort();
        spec.binds.dedup();
        spec.anonymous_volumes.sort();
        spec.anonymous_volumes.dedup();
        spec.published.sort_by_key(|published| published.container);
        let published: BTreeSet<PortProtocol> =
            spec.published.iter().map(|published| published.container).collect();
        let exposed: BTreeSet<PortProtocol> = spec.exposed.iter().copied().collect();
        spec.exposed = exposed.difference(&published).copied().collect();
        spec.shm_size_bytes = spec.shm_size_bytes.filter(|size| *size != 0);
    }
}

/// Flags whose values [`networks::combine`] checks together.
const NETWORK_FLAGS: &[&str] =
    &["network", "net", "network-alias", "net-alias", "ip", "ip6", "mac-address", "link-local-ip"];

/// Of variables with one name the last counts, for the engine as well.
fn last_of_each(vars: impl Iterator<Item = EnvVar>) -> Vec<EnvVar> {
    let mut kept: Vec<EnvVar> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for var in vars {
        let known = places.get(&var.name).copied();
        match known.and_then(|place| kept.get_mut(place)) {
            Some(earlier) => *earlier = var,
            None => {
                places.insert(var.name.clone(), kept.len());
                kept.push(var);
            }
        }
    }
    kept
}

fn in_file(path: &str, why: &str) -> String {
    format!("in the file {path:?}: {why}")
}

/// Upper case, with `CAP_` in front, sorted, each once.
fn capabilities(written: &[String]) -> Vec<String> {
    let named = written.iter().map(|name| {
        let upper = name.to_uppercase();
        if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}
