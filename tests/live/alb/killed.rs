//! Requirement 24 with the real program: SIGKILL at the n-th call that changes something on AWS, just
//! before it is applied and just before it is answered. What comes after finds everything again.

use super::aws::{Aws, World};
use super::rows::world_of;
use crate::support::{Site, http, long, text, unix_now};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Moments of death that are tried without `MCPO_LONG=1`.
const SAMPLES: usize = 5;
/// The two ways to die at a call: it is never applied, or it is and the answer is lost.
const WAYS: [&str; 2] = ["hold", "apply_then_hold"];
/// Longest the program may take to the n-th call, or to its end.
const WITHIN: Duration = Duration::from_secs(90);
/// Runs that may follow until nothing is left to do: what is empty goes after the grace.
const RUNS_MAX: usize = 6;

/// A host with a load balancer: one server changes, one goes, one comes, one stays.
struct Scene<'a> {
    site: Site,
    world: World<'a>,
    foreign: String,
}

impl<'a> Scene<'a> {
    /// The state before the change, with the change written to the file.
    fn begin(aws: &'a Aws, name: &str) -> Self {
        let mut site = Site::new(name);
        let world = world_of(aws, &mut site);
        let foreign = world.foreign_rule(1, "/mcp/*");
        let web = |value: &str| http(&["-p", "8000", "-e", &format!("A={value}")]);
        site.write(&json!({ "changes": web("1"), "goes": web("1"), "stays": web("1") }));
        site.one_shot().exits(0);
        site.write(&json!({ "changes": web("2"), "comes": web("1"), "stays": web("1") }));
        Self { site, world, foreign }
    }

    fn key(&self) -> &str {
        &self.site.stack
    }

    /// Starts the run that brings the change.
    fn spawn(&self) -> Child {
        let mut command = self.site.program(&["--one-shot"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program")
    }

    /// Changes the program asked AWS for after `mark`, in order.
    fn writes(&self, mark: u64) -> Vec<String> {
        let log = self.world.aws.ask("GET", &format!("/_log?after={mark}"), &Value::Null);
        let entries = log.as_array().or_else(|| log["entries"].as_array()).or_else(|| log["log"].as_array());
        let ours = entries.expect("a log").iter();
        let ours = ours.filter(|entry| entry["key"] == self.key() && entry["mutating"] == true);
        ours.map(|entry| text(entry, "/action")).collect()
    }

    fn mark(&self) -> u64 {
        let log = self.world.aws.ask("GET", "/_log", &Value::Null);
        let entries = log.as_array().or_else(|| log["entries"].as_array()).or_else(|| log["log"].as_array());
        entries.expect("a log").iter().filter_map(|entry| entry["seq"].as_u64()).max().unwrap_or(0)
    }

    /// Runs again, and finds what the file wants and nothing else.
    fn must_end_well(&self, when: &str) {
        let mut left = String::new();
        for _ in 0..RUNS_MAX {
            let done = self.site.one_shot();
            assert_eq!(done.code, 0, "{when}: {}", done.all());
            let plan = self.site.run(&["plan", "--exit-code"]);
            left = plan.all();
            if plan.code == 0 && self.world.our_groups().len() == 3 {
                break;
            }
        }
        let wanted: BTreeSet<String> = ["changes", "comes", "stays"].map(str::to_owned).into();
        assert_eq!(self.site.names(), wanted, "{when}: containers; {left}");
        let targets: BTreeSet<String> = wanted
            .iter()
            .map(|server| format!("{}:{}", self.world.instance, self.site.port(server)))
            .collect();
        assert_eq!(targets.len(), 3, "{when}: a port for each");
        assert_eq!(self.world.targets(), targets, "{when}: targets; {left}");
        let (rules, groups) = (self.world.our_rules(), self.world.our_groups());
        assert_eq!(
            (rules.len(), groups.len()),
            (3, 3),
            "{when}: rules and groups; {left}\n{rules:#?}\n{groups:#?}"
        );
        assert_eq!(served(&rules), wanted, "{when}: rules");
        assert_eq!(served(&groups), wanted, "{when}: target groups");
        for rule in &rules {
            assert_eq!(rule["Actions"][0]["Type"], "forward", "{when}: {rule}");
        }
        let env = self.site.running("changes").pointer("/Config/Env").cloned().unwrap_or_default();
        assert!(env.as_array().is_some_and(|env| env.contains(&json!("A=2"))), "{when}: {env}");
        assert!(
            self.world.rules().iter().any(|rule| rule["RuleArn"] == self.foreign.as_str()),
            "{when}: foreign"
        );
        self.site.nothing_to_do();
    }
}

/// Servers on the tags.
fn served(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(|object| text(&object["Tags"], "/io.mcp-orchestrator.server")).collect()
}

/// Waits for the call that is held, or for the end of the program when there are fewer calls.
fn held(aws: &Aws, child: &mut Child) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < WITHIN {
        if aws.ask("GET", "/_trip/wait?timeout=0.2", &Value::Null)["tripped"] == true {
            return true;
        }
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
    }
    panic!("neither the call nor the end within {WITHIN:?}");
}

/// Moments and ways to die: all of them, or some from begin to end.
fn deaths(count: usize) -> Vec<(usize, &'static str)> {
    let all: Vec<(usize, &str)> = (1..=count).flat_map(|n| WAYS.map(|way| (n, way))).collect();
    if long() {
        return all;
    }
    // Others in every run: over time all are tried; the number is in the failure's words.
    let offset = usize::try_from(unix_now()).unwrap_or(0) % all.len().div_ceil(SAMPLES).max(1);
    (0..SAMPLES).filter_map(|sample| all.get(sample * all.len() / SAMPLES + offset).copied()).collect()
}

#[test]
fn r24_a_program_killed_at_any_call_leaves_nothing_that_the_next_run_does_not_mend() {
    let aws = Aws::start();
    let peace = Scene::begin(&aws, "kill-peace");
    let mark = peace.mark();
    assert!(peace.spawn().wait().expect("an end").success());
    let writes = peace.writes(mark);
    peace.must_end_well("after a run in peace");
    drop(peace);
    println!("{} changes on AWS: {writes:?}", writes.len());
    assert!(writes.len() >= 8, "{writes:?}");
    for (n, way) in deaths(writes.len()) {
        let scene = Scene::begin(&aws, &format!("kill-{n}-{}", way.len()));
        let trip = json!({ "after": n, "mode": way, "mutating": true, "key": scene.key() });
        aws.ask("POST", "/_trip", &trip);
        let mark = scene.mark();
        let mut child = scene.spawn();
        let died = held(&aws, &mut child);
        // SIGKILL, while the call hangs.
        let _gone = child.kill();
        let _status = child.wait().expect("an end");
        aws.ask("POST", "/_trip/drop", &json!({}));
        let when = format!("{way} {n} of {}, {:?}, killed: {died}", writes.len(), scene.writes(mark).last());
        println!("{when}");
        scene.must_end_well(&when);
    }
}
