//! The stand-in for AWS (tests/aws) as these tests use it: one process for all of them, a world of
//! its own (VPC, load balancer, listener, instance) and an access key of its own for each, so that
//! faults and logs of one test are not another's.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "helpers of tests, which may panic")]

use mcp_orchestrator::alb::{Alb, AlbConfig, Rate, sdk_config};
use mcp_orchestrator::model::balancer::{
    BalancerMemory, BalancerPolicy, BalancerSeen, BalancerView, RouteKind, RouteWant, Standing,
};
use mcp_orchestrator::model::id::{ServerId, Stack};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::Seen;
use mcp_orchestrator::model::server::Transport;
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::balancer::{Input, Outcome, plan, standing};
use mcp_orchestrator::world::{Balancer as _, TargetsToRead, WorldError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Passes after which a test that has not come to rest has failed.
const PASSES_MAX: usize = 15;

/// A running stand-in.
pub(super) struct Aws {
    port: u16,
    proxy: u16,
    imds: u16,
    /// Its stdin is what keeps it alive.
    _process: Child,
}

impl Aws {
    /// A process of its own, for tests that turn its knobs.
    pub(super) fn start() -> Self {
        let python = std::env::var("MCPO_TEST_PYTHON").expect("MCPO_TEST_PYTHON: ./tests/run.sh sets it");
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/server.py");
        let mut process = Command::new(python)
            .args([
                "-B",
                server,
                "--port",
                "0",
                "--proxy-port",
                "0",
                "--imds-port",
                "0",
                "--until-stdin-closes",
            ])
            .env("ELB_INITIAL_S", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the stand-in starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its stdout");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let ready: Value = serde_json::from_str(&line).expect("its first line is JSON");
        let port = |name: &str| u16::try_from(ready[name].as_u64().expect(name)).expect("a port");
        Self { port: port("port"), proxy: port("proxy_port"), imds: port("imds_port"), _process: process }
    }

    /// The one that tests share.
    pub(super) fn shared() -> &'static Self {
        static SHARED: OnceLock<Aws> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A control request.
    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the stand-in listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        stream.write_all(body.as_bytes()).expect("a body");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(" 200 "), "{method} {path}: {text}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// Where a program sends its calls.
    pub(super) fn proxy_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// Where a program asks who its host is.
    pub(super) fn imds_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.imds)
    }

    /// A call behind the wire.
    pub(super) fn call(&self, action: &str, params: Value) {
        self.ask("POST", "/_call", &json!({ "action": action, "params": params }));
    }

    /// A world with this name.
    pub(super) fn world<'a>(&'a self, name: &str) -> World<'a> {
        let seen = self.ask("POST", "/_world", &json!({ "name": name }));
        let text = |key: &str| seen[key].as_str().expect(key).to_owned();
        World {
            aws: self,
            name: name.to_owned(),
            listener: text("listener_arn"),
            balancer: text("load_balancer_arn"),
            instance: text("instance_id"),
        }
    }
}

/// A VPC with a load balancer, a listener and an instance.
pub(super) struct World<'a> {
    pub(super) aws: &'a Aws,
    pub(super) name: String,
    pub(super) listener: String,
    pub(super) balancer: String,
    pub(super) instance: String,
}

impl World<'_> {
    /// What a daemon on the world's instance is configured with.
    pub(super) fn config(&self) -> AlbConfig {
        AlbConfig {
            region: None,
            alb_arn: Some(self.balancer.clone()),
            listener_arn: None,
            vpc_id: None,
            endpoint_url: Some(format!("http://127.0.0.1:{}", self.aws.proxy)),
            imds_endpoint: Some(format!("http://127.0.0.1:{}", self.aws.imds)),
            target_id: Some(self.instance.clone()),
            target_type: "instance".to_owned(),
            stack: Stack::new(&self.name).expect("a stack"),
            rate: Rate { burst: 1000, per_second: 1000 },
        }
    }

    /// A daemon on the world's instance.
    pub(super) async fn daemon(&self) -> Daemon<'_> {
        Daemon::new(self, self.config(), &self.name).await
    }

    /// A daemon on one more instance of the world.
    pub(super) async fn second_daemon(&self) -> Daemon<'_> {
        let made = self.aws.ask("POST", "/_world/instance", &json!({ "world": self.name }));
        let mut config = self.config();
        config.target_id = Some(made["instance_id"].as_str().expect("an id").to_owned());
        Daemon::new(self, config, &format!("{}-second", self.name)).await
    }

    /// Rules of the world's listener, but the default one.
    pub(super) fn rules(&self) -> Vec<Value> {
        let state = self.aws.ask("GET", "/_world/state", &Value::Null);
        let rules = state["rules"].as_array().expect("rules").iter();
        rules
            .filter(|r| r["ListenerArn"] == self.listener.as_str() && r["Priority"] != "default")
            .cloned()
            .collect()
    }

    /// Rules with our tags.
    pub(super) fn our_rules(&self) -> Vec<Value> {
        self.rules()
            .into_iter()
            .filter(|rule| rule["Tags"]["io.mcp-orchestrator.stack"] == self.name.as_str())
            .collect()
    }

    /// Target groups with our tags.
    pub(super) fn our_groups(&self) -> Vec<Value> {
        let state = self.aws.ask("GET", "/_world/state", &Value::Null);
        let groups = state["target_groups"].as_array().expect("groups").iter();
        groups
            .filter(|group| group["Tags"]["io.mcp-orchestrator.stack"] == self.name.as_str())
            .cloned()
            .collect()
    }

    /// `id:port` of every target that does not drain, in all our groups.
    pub(super) fn targets(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for group in self.our_groups() {
            for target in group["Targets"].as_array().expect("targets") {
                if target["TargetHealth"]["State"] != "draining" {
                    let (id, port) = (&target["Target"]["Id"], &target["Target"]["Port"]);
                    all.insert(format!("{}:{port}", id.as_str().expect("an id")));
                }
            }
        }
        all
    }

    pub(super) fn foreign_rule(&self, priority: u32, path: &str) -> String {
        let asked = json!({ "listener": self.listener, "priority": priority, "path": path });
        let made = self.aws.ask("POST", "/_world/foreign_rule", &asked);
        made["rule_arn"].as_str().expect("an ARN").to_owned()
    }

    pub(super) fn strip_tags(&self, arn: &Value) {
        self.aws.ask("POST", "/_world/strip_tags", &json!({ "arn": arn }));
    }
}

/// The balancer half of a daemon: view, plan, apply, with a clock that the test turns.
pub(super) struct Daemon<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) alb: Alb,
    pub(super) wants: BTreeMap<ServerId, RouteWant>,
    pub(super) keep: BTreeSet<ServerId>,
    pub(super) keep_unclaimed: bool,
    pub(super) memory: BalancerMemory,
    pub(super) policy: BalancerPolicy,
    pub(super) now: Timestamp,
    pub(super) read: TargetsToRead,
    pub(super) key: String,
    pub(super) view: Option<BalancerView>,
}

/// What one pass came to.
pub(super) struct Pass {
    pub(super) outcome: Outcome,
    pub(super) errors: Vec<WorldError>,
}

impl<'a> Daemon<'a> {
    pub(super) async fn new(world: &'a World<'a>, config: AlbConfig, key: &str) -> Self {
        let credentials = aws_credential_types::Credentials::new(key, "fake", None, None, "test");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
        let sdk = sdk_config(&config).await.into_builder().credentials_provider(provider).build();
        Self {
            world,
            alb: Alb::new(config, &sdk),
            wants: BTreeMap::new(),
            keep: BTreeSet::new(),
            keep_unclaimed: false,
            memory: BalancerMemory::default(),
            policy: BalancerPolicy {
                target_type: "instance".to_owned(),
                deregistration_delay: Span::secs(1),
                gc_grace: Span::secs(30),
                priority_start: 1000,
                priority_end: 1999,
                target_groups_max: 100,
                shared_port: None,
                leaving: false,
            },
            now: Timestamp(1_800_000_000_000),
            read: TargetsToRead { servers: Vec::new(), rotating: 6 },
            key: key.to_owned(),
            view: None,
        }
    }

    /// The daemon's next life: nothing but the memory survives.
    pub(super) async fn restarted(self) -> Self {
        let mut config = self.world.config();
        config.target_id.clone_from(&self.memory.target_id);
        let fresh = Self::new(self.world, config, &self.key).await;
        let Self {
            world: _,
            alb: _,
            wants,
            keep,
            keep_unclaimed,
            memory,
            policy,
            now,
            read: _,
            key: _,
            view: _,
        } = self;
        Self { wants, keep, keep_unclaimed, memory, policy, now, ..fresh }
    }

    pub(super) fn want(&mut self, want: RouteWant) {
        self.wants.insert(want.server.clone(), want);
    }

    /// One pass; an error says that the view could not be read and nothing was done.
    pub(super) async fn pass(&mut self) -> Result<Pass, WorldError> {
        let view = self.alb.view(&self.read).await?;
        let stack = Stack::new(&self.world.name).expect("a stack");
        let outcome = plan(&Input {
            wants: &self.wants,
            keep: &self.keep,
            keep_unclaimed: self.keep_unclaimed,
            stack: &stack,
            view: &view,
            memory: &self.memory,
            policy: &self.policy,
            now: self.now,
        });
        self.view = Some(view);
        self.memory = outcome.memory.clone();
        self.read.servers = outcome.read_next.iter().cloned().collect();
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for step in &outcome.steps {
            let ready = step.after.iter().all(|index| done[*index]);
            let result = if ready {
                self.alb.apply(&step.op).await.map_err(|error| errors.push(error))
            } else {
                Err(())
            };
            done.push(result.is_ok());
        }
        Ok(Pass { outcome, errors })
    }

    /// A pass that must not fail anywhere.
    pub(super) async fn clean_pass(&mut self) -> Outcome {
        let pass = self.pass().await.expect("a view");
        assert!(pass.errors.is_empty(), "{:?}", pass.errors);
        pass.outcome
    }

    /// Passes until nothing is left to do or to wait for.
    pub(super) async fn settle(&mut self) -> usize {
        let mut last = Vec::new();
        for n in 0..PASSES_MAX {
            match self.pass().await {
                Ok(pass) if pass.outcome.steps.is_empty() && pass.outcome.next_look.is_none() => return n,
                Ok(pass) => last = pass.outcome.steps,
                Err(error) => assert!(n + 1 < PASSES_MAX, "{error}"),
            }
            self.later(40);
            // Draining is a hundred times faster here than on AWS, but not instant.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("does not come to rest: {last:#?}");
    }

    pub(super) fn later(&mut self, secs: u64) {
        self.now = self.now.after(Span::secs(secs));
    }

    pub(super) fn standing(&self, server: &str, port: u16) -> Standing {
        let seen = BalancerSeen::On(Seen::Known(Box::new(self.view.clone().expect("a pass"))));
        let stack = Stack::new(&self.world.name).expect("a stack");
        standing(&seen, &self.memory, &stack, &id(server), host_port(port), self.now)
    }

    pub(super) fn fault(&self, fault: Value) {
        let mut fault = fault;
        fault["key"] = json!(self.key);
        self.world.aws.ask("POST", "/_fault", &fault);
    }

    /// This daemon's calls since `seq`.
    pub(super) fn calls(&self, after: u64) -> Vec<Value> {
        let log = self.world.aws.ask("GET", &format!("/_log?after={after}"), &Value::Null);
        let entries = log
            .as_array()
            .or_else(|| log["entries"].as_array())
            .or_else(|| log["log"].as_array())
            .expect("a log")
            .clone();
        entries.into_iter().filter(|entry| entry["key"] == self.key.as_str()).collect()
    }

    /// The number of the last call of anybody.
    pub(super) fn mark(&self) -> u64 {
        let log = self.world.aws.ask("GET", "/_log", &Value::Null);
        let entries = log
            .as_array()
            .or_else(|| log["entries"].as_array())
            .or_else(|| log["log"].as_array())
            .expect("a log");
        entries.iter().filter_map(|entry| entry["seq"].as_u64()).max().unwrap_or(0)
    }

    /// Every change this daemon ever asked for was of an object with our tags.
    pub(super) fn assert_only_ours(&self) {
        for call in self.calls(0) {
            let Some(tags) = call["tags"].as_object().filter(|_| call["mutating"] == true) else { continue };
            for (arn, tags) in tags {
                let owned = arn.contains(":listener-rule/") || arn.contains(":targetgroup/");
                assert!(
                    !owned || tags["io.mcp-orchestrator.stack"] == self.world.name.as_str(),
                    "changed {arn}: {call}"
                );
            }
        }
    }
}

pub(super) fn id(server: &str) -> ServerId {
    ServerId::new(server).expect("an id")
}

pub(super) fn host_port(port: u16) -> HostPort {
    HostPort::new(port).expect("a port")
}

pub(super) fn edge(server: &str, ports: &[u16]) -> RouteWant {
    let ports = ports.iter().map(|port| host_port(*port)).collect();
    RouteWant { server: id(server), kind: RouteKind::Edge, ports, health_path: None }
}

pub(super) fn direct(server: &str, ports: &[u16]) -> RouteWant {
    let kind = RouteKind::Direct { transport: Transport::Http, path: "/mcp".to_owned() };
    RouteWant { kind, ..edge(server, ports) }
}
