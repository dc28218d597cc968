//! Splits a line into flags and operands by the client's own rules.
//!
//! ```text
//! --name=value  --name value  --switch  --switch=false  -p80:80  -p 80:80  -p=80:80  -it
//! ```
//! Flags end at the first operand (the image) or at `--`. A flag that takes a value takes the next
//! argument whatever it looks like. A switch takes a value behind `=` only.

use crate::config::docker_run::flags::{FLAGS, Flag};
use crate::config::docker_run::{ARGS_MAX, RunProblem, code, forms};

/// How many edits may lie between an unknown flag and the one proposed.
const SUGGESTION_EDITS_MAX: usize = 3;

/// One flag with its value.
pub(super) struct Occurrence {
    /// Index of the argument that holds the value.
    pub(super) arg: usize,
    /// Which flag.
    pub(super) flag: &'static Flag,
    /// Its value; `true` for a bare switch.
    pub(super) value: String,
}

/// A line taken apart.
#[derive(Default)]
pub(super) struct Scanned {
    /// Flags in the order of the line.
    pub(super) flags: Vec<Occurrence>,
    /// Image and arguments, with the index of the first.
    pub(super) operands: Vec<String>,
    /// Index of the first operand.
    pub(super) operands_at: usize,
    /// The line is a `docker run`, so that a missing image is worth saying.
    pub(super) is_run: bool,
    /// What could not be taken apart.
    pub(super) problems: Vec<RunProblem>,
}

/// Flags of `docker` itself; those with `true` take a value.
const GLOBAL_FLAGS: &[(&str, bool)] = &[
    ("--config", true),
    ("--context", true),
    ("-c", true),
    ("--debug", false),
    ("-D", false),
    ("--host", true),
    ("-H", true),
    ("--log-level", true),
    ("-l", true),
    ("--tls", false),
    ("--tlscacert", true),
    ("--tlscert", true),
    ("--tlskey", true),
    ("--tlsverify", false),
    ("--version", false),
    ("-v", false),
    ("--help", false),
];

/// Takes `args` apart.
pub(super) fn scan(args: &[String]) -> Scanned {
    let mut scanned = Scanned::default();
    if args.len() > ARGS_MAX {
        scanned.problem(
            ARGS_MAX,
            code::TOO_MUCH,
            format!("the line has more than {ARGS_MAX} arguments"),
            Some("put variables into a file (--env-file), and arguments of the program into a script"),
        );
        return scanned;
    }
    let Some(start) = scan_command(args, &mut scanned) else {
        return scanned;
    };
    scanned.is_run = true;
    let mut at = start;
    while let Some(arg) = args.get(at) {
        if arg == "--" {
            at += 1;
            break;
        }
        if !arg.starts_with('-') || arg == "-" {
            break;
        }
        at = match arg.strip_prefix("--") {
            Some(name) => scan_long(args, at, name, &mut scanned),
            None => scan_short(args, at, &mut scanned),
        };
    }
    scanned.operands_at = at.min(args.len());
    scanned.operands = args.get(at..).unwrap_or_default().to_vec();
    scanned
}

/// Finds `run` or `container run`; returns the index behind it.
fn scan_command(args: &[String], scanned: &mut Scanned) -> Option<usize> {
    let mut at = 0;
    while let Some(arg) = args.get(at).filter(|arg| arg.starts_with('-')) {
        at += 1;
        let (name, value) = match arg.split_once('=') {
            Some((name, _)) => (name, true),
            None => (arg.as_str(), false),
        };
        let known = GLOBAL_FLAGS.iter().find(|(flag, _)| *flag == name);
        scanned.problem(
            at - 1,
            code::GLOBAL_FLAG,
            format!("{name} stands before run: flags of docker itself cannot be set by a server"),
            Some("name the engine with docker_host in settings.conf, and start args with \"run\""),
        );
        if known.is_some_and(|(_, takes_value)| *takes_value && !value) {
            at += 1;
        }
    }
    let words: Vec<&str> = args.iter().skip(at).take(2).map(String::as_str).collect();
    match words.as_slice() {
        ["run", ..] => Some(at + 1),
        ["container", "run"] => Some(at + 2),
        [] => {
            scanned.problem(
                args.len(),
                code::NOT_RUN,
                "the arguments of docker do not start with run".to_owned(),
                Some("write \"args\": [\"run\", \"-i\", \"IMAGE\"]"),
            );
            None
        }
        words => {
            let command = match words {
                ["container", second] => format!("container {second}"),
                [first, ..] => (*first).to_owned(),
                [] => String::new(),
            };
            scanned.problem(at, code::NOT_RUN, refuse_command(&command), command_hint(&command));
            None
        }
    }
}

fn refuse_command(command: &str) -> String {
    let why = match command {
        "exec" | "container exec" | "attach" | "start" | "container start" => {
            "it needs a container that somebody else made and keeps running"
        }
        "compose" => "one entry is one container",
        "create" | "container create" => "containers are made and started here anyway",
        "mcp" => "its servers are managed by another tool",
        _ => "it does not start a server",
    };
    format!("docker {command} cannot be a server: {why}")
}

fn command_hint(command: &str) -> Option<&'static str> {
    match command {
        "create" | "container create" => Some("write run in its place, with the same flags"),
        "compose" => Some("write one docker run entry for each service"),
        _ => Some("write a docker run line"),
    }
}

/// `--name`, `--name=value` or `--name value` at `at`; returns the next index.
fn scan_long(args: &[String], at: usize, body: &str, scanned: &mut Scanned) -> usize {
    let (name, inline) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
        let near = nearest(name);
        let hint =
            near.map_or_else(|| NO_SUCH_FLAG.to_owned(), |flag| format!("did you mean --{}?", flag.name));
        let message = format!("--{name} is not a flag of docker run");
        scanned.problem(at, code::UNKNOWN_FLAG, message, Some(&hint));
        // The rest of the line is read as if the proposal were right, to find more in one go.
        let skips = near.is_some_and(|flag| !flag.is_switch()) && inline.is_none();
        return at + 1 + usize::from(skips);
    };
    match inline {
        Some(value) => {
            scanned.flag(flag, at, value);
            at + 1
        }
        None if flag.is_switch() => {
            scanned.flag(flag, at, "true");
            at + 1
        }
        None => scan_next_value(args, at, flag, scanned),
    }
}

/// A cluster such as `-i`, `-it`, `-p80:80` at `at`; returns the next index.
fn scan_short(args: &[String], at: usize, scanned: &mut Scanned) -> usize {
    let cluster = args.get(at).map(String::as_str).unwrap_or_default();
    let mut rest = cluster.strip_prefix('-').unwrap_or_default();
    while let Some(letter) = rest.chars().next() {
        let behind = rest.strip_prefix(letter).unwrap_or_default();
        let Some(flag) = FLAGS.iter().find(|flag| flag.short == Some(letter)) else {
            let word = rest.split('=').next().unwrap_or_default();
            let long = Some(word).filter(|word| word.len() > 1).and_then(nearest);
            let hint =
                long.map_or_else(|| NO_SUCH_FLAG.to_owned(), |flag| format!("did you mean --{}?", flag.name));
            let message = format!("-{letter} is not a flag of docker run");
            scanned.problem(at, code::UNKNOWN_FLAG, message, Some(&hint));
            return at + 1;
        };
        match behind.strip_prefix('=').filter(|value| !value.is_empty()) {
            Some(value) => {
                scanned.flag(flag, at, value);
                return at + 1;
            }
            None if flag.is_switch() => scanned.flag(flag, at, "true"),
            None if !behind.is_empty() => {
                scanned.flag(flag, at, behind);
                return at + 1;
            }
            None => return scan_next_value(args, at, flag, scanned),
        }
        rest = behind;
    }
    at + 1
}

/// The value in the argument behind the flag at `at`.
fn scan_next_value(args: &[String], at: usize, flag: &'static Flag, scanned: &mut Scanned) -> usize {
    match args.get(at + 1) {
        Some(value) => scanned.flag(flag, at + 1, value),
        None => {
            let message = format!("--{} lacks its value", flag.name);
            scanned.problem(at, code::MISSING_VALUE, message, Some(forms::of(flag)));
        }
    }
    at + 2
}

/// Hint for a flag that nothing is like.
const NO_SUCH_FLAG: &str = "flags of docker run stand before the image, those of the program behind it";

/// Words of other tools' settings that people write for flags.
const COMMON_MISTAKES: &[(&str, &str)] = &[
    ("cap", "cap-add"),
    ("cpu", "cpus"),
    ("dir", "workdir"),
    ("environment", "env"),
    ("mem", "memory"),
    ("mem-limit", "memory"),
    ("port", "publish"),
    ("ports", "publish"),
    ("remove", "rm"),
    ("working-dir", "workdir"),
];

/// The flag most like `name`, where one is near enough.
fn nearest(name: &str) -> Option<&'static Flag> {
    let mistaken = COMMON_MISTAKES.iter().find(|(wrong, _)| *wrong == name);
    let name = mistaken.map_or(name, |(_, right)| right);
    let limit = SUGGESTION_EDITS_MAX.min(name.len().div_ceil(3));
    FLAGS
        .iter()
        .filter(|flag| !flag.hidden)
        .map(|flag| (strsim::damerau_levenshtein(flag.name, name), flag))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, flag)| flag)
}

impl Scanned {
    fn flag(&mut self, flag: &'static Flag, arg: usize, value: &str) {
        self.flags.push(Occurrence { arg, flag, value: value.to_owned() });
    }

    fn problem(&mut self, arg: usize, code: &'static str, message: String, hint: Option<&str>) {
        self.problems.push(RunProblem { arg, code, message, hint: hint.map(str::to_owned) });
    }
}
