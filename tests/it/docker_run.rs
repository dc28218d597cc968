//! `docker run` lines against what the real client makes of them, recorded by
//! `fixtures/docker-run/record.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mcp_orchestrator::config::docker_run::{
    RunContext, RunLine, RunProblem, files_needed, known_flags, parse, print, print_redacted,
};
use mcp_orchestrator::docker::create::{ApiVersion, create_body};
use mcp_orchestrator::model::container::{RestartPolicy, dangers};
use proptest::prelude::*;
use serde_json::{Map, Value};

const LINES: &str = include_str!("../fixtures/docker-run/lines.txt");
const REFUSED: &str = include_str!("../fixtures/docker-run/refused.txt");
const BODIES: &str = include_str!("../fixtures/docker-run/bodies.jsonl");
const FLAGS: &str = include_str!("../fixtures/docker-run/flags-28.txt");

/// Newest API of the client that made the record.
const CLIENT_API: ApiVersion = ApiVersion::v1(50);

/// What `record.py` gives the client, and the files beside it.
struct Surroundings {
    env: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

impl Surroundings {
    fn new() -> Self {
        let env = [("SET_VAR", "from the environment"), ("EMPTY_VAR", "")];
        let mut files = BTreeMap::new();
        for (name, content) in [
            ("env.list", include_str!("../fixtures/docker-run/files/env.list")),
            ("crlf.env", include_str!("../fixtures/docker-run/files/crlf.env")),
            ("second.env", include_str!("../fixtures/docker-run/files/second.env")),
            ("bad.env", include_str!("../fixtures/docker-run/files/bad.env")),
            ("labels.list", include_str!("../fixtures/docker-run/files/labels.list")),
            ("seccomp.json", include_str!("../fixtures/docker-run/files/seccomp.json")),
        ] {
            files.insert(name.to_owned(), content.to_owned());
            files.insert(format!("./{name}"), content.to_owned());
        }
        Self { env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), files }
    }

    fn parse(&self, args: &[String]) -> Result<RunLine, Vec<RunProblem>> {
        parse(
            args,
            &RunContext { env: &self.env, files: &self.files, base_dir: "/base", own_name: Some("mcp-own") },
        )
    }
}

/// Splits words as a shell does: quotes, double quotes, backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn run(line: &str) -> Vec<String> {
    let mut args = vec!["run".to_owned()];
    args.extend(words(line));
    args
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The record with what it leaves out because the plain line has it too.
fn records() -> Vec<(String, Value, Value)> {
    let mut plain: Option<Map<String, Value>> = None;
    let mut records = Vec::new();
    for line in BODIES.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let own = record["body"].as_object().unwrap();
        let mut body = plain.clone().unwrap_or_default();
        for (key, value) in own {
            match body.get_mut(key).and_then(Value::as_object_mut) {
                Some(host) if key == "HostConfig" => {
                    host.extend(value.as_object().unwrap().clone());
                }
                _ => {
                    body.insert(key.clone(), value.clone());
                }
            }
        }
        plain.get_or_insert_with(|| body.clone());
        records.push((
            record["line"].as_str().unwrap().to_owned(),
            record["query"].clone(),
            Value::Object(body),
        ));
    }
    records
}

/// Fields in which the two differ; the client sends zero values that are left out here.
fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    let void = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    };
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (theirs, ours) = (a.get(key), b.get(key));
                let below = format!("{path}.{key}");
                let null = Value::Null;
                differences(&below, theirs.unwrap_or(&null), ours.unwrap_or(&null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if path.ends_with(".Env") || path.ends_with(".Binds") => {
            // The client's own order is that of a hash map; of one variable the last counts.
            let by_name = |values: &[Value]| -> BTreeMap<String, String> {
                let texts = values.iter().map(|value| value.as_str().unwrap().to_owned());
                let variable = path.ends_with(".Env");
                let name = |text: &str| match text.split_once('=') {
                    Some((name, _)) if variable => name.to_owned(),
                    _ => text.to_owned(),
                };
                texts.map(|text| (name(&text), text)).collect()
            };
            if by_name(a) != by_name(b) {
                found.push(format!("{path}: {theirs} != {ours}"));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (theirs, ours)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), theirs, ours, found);
            }
        }
        (theirs, ours) if theirs == ours || (void(theirs) && ours.is_null()) => {}
        (theirs, ours) => found.push(format!("{path}: {theirs} != {ours}")),
    }
}

#[test]
fn bodies_equal_the_clients() {
    let around = Surroundings::new();
    let mut report = String::new();
    let records = records();
    assert!(records.len() >= 300, "{} lines", records.len());
    for (line, query, mut theirs) in records {
        let parsed = match around.parse(&run(&line)) {
            Ok(parsed) => parsed,
            Err(problems) => {
                writeln!(report, "{line}\n    not parsed: {problems:?}").unwrap();
                continue;
            }
        };
        // What concerns the run is the service's business, so it stands in the line.
        let host = theirs["HostConfig"].as_object_mut().unwrap();
        let removed = host.insert("AutoRemove".to_owned(), false.into());
        let policy = host
            .insert("RestartPolicy".to_owned(), serde_json::json!({"Name": "no", "MaximumRetryCount": 0}));
        host.remove("ConsoleSize");
        let mut found = Vec::new();
        if removed != Some(Value::Bool(parsed.remove)) {
            found.push("--rm".to_owned());
        }
        let restart = parsed.restart.unwrap_or(RestartPolicy::No).to_string();
        let policy = policy.unwrap();
        let theirs_restart = match policy["MaximumRetryCount"].as_i64() {
            Some(0) | None => policy["Name"].as_str().unwrap().to_owned(),
            Some(count) => format!("{}:{count}", policy["Name"].as_str().unwrap()),
        };
        if restart != theirs_restart && !theirs_restart.is_empty() {
            found.push(format!("--restart: {theirs_restart} != {restart}"));
        }
        if query["platform"].as_str() != parsed.spec.platform.as_deref() {
            found.push(format!("--platform: {query} != {:?}", parsed.spec.platform));
        }
        let ours = serde_json::to_value(create_body(&parsed.spec, CLIENT_API).unwrap()).unwrap();
        differences("", &theirs, &ours, &mut found);
        if !found.is_empty() {
            writeln!(report, "{line}\n    {}", found.join("\n    ")).unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn the_record_is_of_these_lines() {
    let recorded: Vec<String> = records().into_iter().map(|(line, ..)| line).collect();
    let written: Vec<&str> = lines(LINES).collect();
    assert_eq!(recorded, written, "run record.py again");
}

/// `CODE FLAG-OR-DASH: line`, one a line; every problem of the line must be listed, in order.
#[test]
fn refused_lines_say_why() {
    let around = Surroundings::new();
    let mut report = String::new();
    for entry in lines(REFUSED) {
        let (expected, line) = entry.split_once(" | ").expect("codes | line");
        let args = words(line);
        match around.parse(&args) {
            Ok(_) => writeln!(report, "accepted: {line}").unwrap(),
            Err(problems) => {
                let codes: Vec<&str> = problems.iter().map(|p| p.code).collect();
                if codes.join(" ") != expected {
                    writeln!(report, "{} | {line}\n    {problems:?}", codes.join(" ")).unwrap();
                }
                for problem in &problems {
                    assert!(problem.arg <= args.len(), "{line}: {problem:?}");
                    assert!(!problem.message.ends_with('.'), "{line}: {problem:?}");
                    assert!(!problem.message.contains("s3cret"), "{line}: {problem:?}");
                    let hint = problem.hint.as_deref().unwrap_or_default();
                    assert!(!hint.is_empty() && !hint.contains("s3cret"), "{line}: no hint: {problem:?}");
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_flag_is_known() {
    let known: BTreeMap<&str, Option<&str>> = known_flags().into_iter().collect();
    let around = Surroundings::new();
    let mut fixture = BTreeSet::new();
    for line in lines(FLAGS) {
        let (long, short) = line.split_once(' ').unwrap_or((line, ""));
        let name = long.strip_prefix("--").unwrap();
        fixture.insert(name);
        let refusal = known.get(name).unwrap_or_else(|| panic!("{long} is not in the table"));
        let problems_of = |flag: &str| {
            let args = ["run", flag, "x"].map(str::to_owned);
            around.parse(&args).err().unwrap_or_default()
        };
        for flag in [long, short].into_iter().filter(|flag| !flag.is_empty()) {
            let problems = problems_of(flag);
            let unknown = problems.iter().any(|p| p.code == "run-unknown-flag");
            assert!(!unknown, "{flag}: {problems:?}");
            let refused = problems.iter().any(|p| p.code == "run-refused-flag");
            let absorbed_when_bare = name == "disable-content-trust";
            if refusal.is_some() && !absorbed_when_bare {
                assert!(refused, "{flag}: {problems:?}");
                assert!(problems.iter().any(|p| p.message.contains(long) && p.hint.is_some()));
            }
        }
    }
    let extra: Vec<&&str> = known.keys().filter(|name| !fixture.contains(**name)).collect();
    assert!(extra.is_empty(), "not flags of the client: {extra:?}");
}

fn assert_stable(around: &Surroundings, args: &[String]) {
    let first = around.parse(args).unwrap_or_else(|p| panic!("{args:?}: {p:?}"));
    let printed = print(&first);
    let again = around.parse(&printed).unwrap_or_else(|p| panic!("{printed:?}: {p:?}"));
    assert_eq!(first, again, "{printed:?}");
    assert_eq!(printed, print(&again));
    let stored = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<RunLine>(&stored).unwrap(), first, "{stored}");
}

#[test]
fn printed_lines_read_the_same() {
    let around = Surroundings::new();
    for line in lines(LINES) {
        assert_stable(&around, &run(line));
    }
}

/// Flags of the fixture with their values, each as one piece that may stand anywhere.
fn pieces() -> Vec<Vec<String>> {
    let around = Surroundings::new();
    let mut pieces = BTreeSet::new();
    for line in lines(LINES) {
        let args = words(line);
        let Some(image) = args.iter().position(|word| word.starts_with("mcpo-test-tiny")) else {
            continue;
        };
        let flags = &args[..image];
        let mut with_image = vec!["run".to_owned()];
        with_image.extend_from_slice(&args[..=image]);
        let ends_flags = flags.iter().any(|word| word == "--");
        if around.parse(&with_image).is_ok() && !flags.is_empty() && !ends_flags {
            pieces.insert(flags.to_vec());
        }
    }
    pieces.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn print_is_stable(
        chosen in prop::collection::vec(prop::sample::select(pieces()), 0..8),
        command in prop::collection::vec("[ -~]{0,8}", 0..3),
        var in "[A-Za-z_][ -<>-~]{0,6}",
        value in "\\PC{0,10}",
    ) {
        let around = Surroundings::new();
        let mut args = vec!["run".to_owned(), format!("--env={var}={value}")];
        args.extend(chosen.into_iter().flatten());
        args.push("mcpo-test-tiny".to_owned());
        args.extend(command);
        // Pieces may contradict each other; then the line is refused and there is nothing to see.
        if around.parse(&args).is_ok() {
            assert_stable(&around, &args);
        }
    }

    #[test]
    fn nothing_makes_it_panic(args in prop::collection::vec("\\PC{0,12}|-[a-zA-Z]{1,3}|--[a-z-]{1,12}(=\\PC{0,12})?", 0..8)) {
        let around = Surroundings::new();
        let mut line = vec!["run".to_owned()];
        line.extend(args.clone());
        if let Ok(parsed) = around.parse(&line) {
            dangers(&parsed.spec);
            assert_stable(&around, &line);
        }
        let _outcome = around.parse(&args);
        files_needed(&line);
    }

    #[test]
    fn any_value_of_any_flag_is_taken_or_refused(
        flag in prop::sample::select(known_flags()),
        value in "\\PC{0,16}|[a-z0-9:/=.,-]{0,24}|[0-9.]{1,6}[a-z]{0,3}",
    ) {
        let around = Surroundings::new();
        let line = ["run".to_owned(), format!("--{}={value}", flag.0), "mcpo-test-tiny".to_owned()];
        if around.parse(&line).is_ok() {
            assert_stable(&around, &line);
        }
    }
}

#[test]
fn all_problems_come_at_once() {
    let around = Surroundings::new();
    let line = "run -t --memroy 1g --cpus x -p 99999:1 --name other -e =s3cret --cidfile f UPPER";
    let problems = around.parse(&words(line)).unwrap_err();
    let codes: Vec<(usize, &str)> = problems.iter().map(|p| (p.arg, p.code)).collect();
    assert_eq!(
        codes,
        [
            (1, "run-refused-flag"),
            (2, "run-unknown-flag"),
            (5, "run-invalid-value"),
            (7, "run-invalid-value"),
            (9, "run-refused-flag"),
            (11, "run-invalid-value"),
            (13, "run-refused-flag"),
            (14, "run-invalid-image"),
        ]
    );
    assert_eq!(problems[1].hint.as_deref(), Some("did you mean --memory?"));
}

#[test]
fn files_are_asked_for_once() {
    let line = "run --env-file a --env-file=b --env-file a --label-file c \
        --security-opt seccomp=d --security-opt seccomp=unconfined img --env-file e";
    assert_eq!(files_needed(&words(line)), ["a", "b", "c", "d"]);
}

#[test]
fn an_old_engine_is_named() {
    let around = Surroundings::new();
    let line = "--annotation a=b --health-start-interval 3s --mac-address 92:d0:c6:0a:29:33 \
        --mount type=volume,dst=/a,volume-subpath=x --mount type=image,src=x,dst=/b x";
    let parsed = around.parse(&run(line)).unwrap();
    let missing = create_body(&parsed.spec, ApiVersion::v1(41)).unwrap_err();
    let needs: Vec<u32> = missing.iter().map(|missing| missing.needs.minor).collect();
    assert_eq!(needs, [43, 44, 44, 45, 48]);
    assert_eq!(missing[0].to_string(), "--annotation needs engine api 1.43, the engine has 1.41");
    assert!(create_body(&parsed.spec, ApiVersion::v1(48)).is_ok());
}

#[test]
fn the_redacted_line_hides_values() {
    let around = Surroundings::new();
    let line = "-e TOKEN=s3cret --log-driver splunk --log-opt splunk-token=s3cret \
        --health-cmd 's3cret' --mount dst=/a,volume-opt=password=s3cret x --key=s3cret";
    let parsed = around.parse(&run(line)).unwrap();
    let shown = print_redacted(&parsed).join(" ");
    assert!(shown.contains("TOKEN=***") && !shown.contains("s3cret"), "{shown}");
    let debug = format!("{parsed:?}");
    assert!(!debug.contains("s3cret"), "{debug}");
}

/// What must be asked for, and ways to ask for it without saying so plainly.
#[test]
fn dangers_are_named_whatever_the_spelling() {
    let around = Surroundings::new();
    for (line, expected) in [
        ("-i x", ""),
        ("-i -v data:/d -p 80:80 --cap-add NET_BIND_SERVICE --network front x", ""),
        ("-v ./data:/d --security-opt no-new-privileges --tmpfs /run --init x", ""),
        ("--privileged=false --network bridge --ipc private --cgroupns private x", ""),
        ("--privileged x", "privileged"),
        ("--cap-add sys_admin x", "privileged"),
        ("--cap-add=all x", "privileged"),
        ("--security-opt seccomp:unconfined x", "privileged"),
        ("--security-opt apparmor=unconfined x", "privileged"),
        ("--security-opt label:disable x", "privileged"),
        ("--security-opt systempaths=unconfined x", "privileged"),
        ("--security-opt seccomp=seccomp.json x", "privileged"),
        ("--userns host x", "privileged"),
        ("--cgroupns=host x", "privileged"),
        ("--runtime mine x", "privileged"),
        ("--net host x", "hostNetwork"),
        ("--network name=host x", "hostNetwork"),
        ("--network NAME=HOST x", "hostNetwork"),
        ("--network container:a x", "hostNetwork"),
        ("--uts=host x", "hostNetwork"),
        ("--pid host x", "hostPid"),
        ("--pid=container:a x", "hostPid"),
        ("--ipc host x", "hostIpc"),
        ("--ipc container:a x", "hostIpc"),
        ("-v /var/run/docker.sock:/s x", "dockerSocket"),
        ("-v /run//docker.sock/:/s:ro x", "dockerSocket"),
        ("-v /srv/../var/run/../run/docker.sock:/s x", "dockerSocket"),
        ("-v ../run/docker.sock:/s x", "dockerSocket"),
        ("--mount type=bind,src=../../run/docker.sock,dst=/s x", "dockerSocket"),
        ("-v /run:/r x", "dockerSocket hostPaths"),
        ("-v /:/h:ro x", "dockerSocket hostPaths"),
        ("-v ..:/h x", "dockerSocket hostPaths"),
        ("--mount type=bind,src=/etc/../,dst=/h x", "dockerSocket hostPaths"),
        ("-v /etc/ssl:/h x", "hostPaths"),
        ("-v /home:/h x", "hostPaths"),
        ("-v /srv/x:/h:rshared x", "hostPaths"),
        ("--mount type=bind,src=/srv/x,dst=/h,bind-propagation=shared x", "hostPaths"),
        ("--mount dst=/h,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/etc x", "hostPaths"),
        ("--mount dst=/h,volume-opt=type=ext4,volume-opt=device=/dev/sda1 x", "hostPaths devices"),
        ("--mount dst=/h,volume-opt=type=nfs,volume-opt=device=:/export x", ""),
        ("--volumes-from a x", "hostPaths"),
        ("-v /dev/snd:/dev/snd x", "hostPaths devices"),
        ("--device /dev/null x", "devices"),
        ("--device vendor.com/class=name x", "devices"),
        ("--device-cgroup-rule 'a *:* rwm' x", "devices"),
        ("--gpus all x", "devices"),
    ] {
        let parsed = around.parse(&run(line)).unwrap_or_else(|p| panic!("{line}: {p:?}"));
        let mut names: Vec<&str> = Vec::new();
        for danger in dangers(&parsed.spec) {
            assert!(!danger.asked_by().is_empty());
            if !names.contains(&danger.allow_name()) {
                names.push(danger.allow_name());
            }
        }
        assert_eq!(names.join(" "), expected, "{line}");
    }
}

#[test]
fn the_own_name_is_taken() {
    let around = Surroundings::new();
    let parsed = around.parse(&run("--name mcp-own -i x")).unwrap();
    assert_eq!(parsed.name.as_deref(), Some("mcp-own"));
    assert!(parsed.interactive && parsed.spec.open_stdin);
    let long = ["container", "run", "x"].map(str::to_owned);
    assert!(around.parse(&long).is_ok());
}
