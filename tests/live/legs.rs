//! Containers of one client's own: attached to before they start, gone when their client is.

use crate::support::{Site, engine, engine_socket, eventually, image, inspect, label, runs, text, unix_now};
use mcp_orchestrator::docker::DockerEngine;
use mcp_orchestrator::mcp::build;
use mcp_orchestrator::mcp::handshake::ClientInfo;
use mcp_orchestrator::mcp::wire::Era;
use mcp_orchestrator::model::container::{ContainerSpec, HostPorts, Opaque, PortProtocol, PublishedPort};
use mcp_orchestrator::model::id::{ContainerId, ImageId, Stack};
use mcp_orchestrator::model::op::Create;
use mcp_orchestrator::model::server::ServerKind;
use mcp_orchestrator::plan::legs::{self, LegName};
use mcp_orchestrator::upstream::leg::{Leg, LegIo};
use mcp_orchestrator::upstream::open::{Mode, OpenOptions};
use mcp_orchestrator::world::ErrorKind;
use mcp_orchestrator::world::fake::{Entry, EntryKind, policy, server};
use serde_json::Value;
use std::io::BufRead as _;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Tells the child which stack its leg belongs to.
const CHILD_STACK: &str = "MCPO_TEST_LEG_STACK";

fn docker() -> DockerEngine {
    DockerEngine::new(format!("unix://{}", engine_socket().display()), None)
}

/// What makes a leg of the demo server in `stack`.
fn leg_of(stack: &str, seed: &str, change: impl FnOnce(&mut ContainerSpec)) -> Create {
    let server = server(&Entry::new("time", EntryKind::Stdio, &image())).expect("a server");
    let ServerKind::Container(decl) = &server.kind else { panic!("a container") };
    let mut decl = decl.clone();
    decl.spec.log_driver = Some("none".to_owned());
    change(&mut decl.spec);
    let mut policy = policy(9).expect("a policy");
    policy.stack = Stack::new(stack).expect("a stack");
    policy.name_prefix = format!("{stack}-");
    let (status, found) = engine("GET", &format!("/images/{}/json", image()), &Value::Null);
    assert_eq!(status, 200, "{found}");
    legs::create(&server, &decl, &policy, &LegName::new(seed, "run-1"), &ImageId(text(&found, "/Id")))
}

async fn opened(io: LegIo) -> Leg {
    let client = ClientInfo { name: "tests".to_owned(), version: "1".to_owned() };
    let options = OpenOptions { known: Some(Era::Legacy), ..OpenOptions::new(Mode::Fresh, client) };
    Leg::open(io, options).await.expect("a handshake")
}

#[track_caller]
fn gone(name: &str) {
    eventually(&format!("{name} is gone"), 20, || inspect(name).is_none().then_some(()));
}

#[tokio::test]
async fn a_leg_speaks_and_ends_with_its_input() {
    let site = Site::new("leg");
    let create = leg_of(&site.stack, "a", |spec| {
        spec.published = vec![PublishedPort {
            container: PortProtocol { port: 9000, ..PortProtocol::default() },
            host_ip: None,
            host: HostPorts::One(site.fixed_port()),
        }];
        spec.anonymous_volumes = vec!["/scratch".to_owned()];
    });
    let engine = docker();
    let (id, io) = engine.start_leg(&create).await.expect("a leg");
    let made = inspect(&create.name).expect("a container");
    for (pointer, wanted) in [
        ("/Id", id.as_str()),
        ("/Config/OpenStdin", "true"),
        ("/Config/StdinOnce", "true"),
        ("/Config/AttachStdin", "true"),
        ("/Config/AttachStdout", "true"),
        ("/Config/AttachStderr", "true"),
        ("/Config/Tty", "false"),
        ("/Config/Env/0", "TOKEN=0"),
        ("/HostConfig/LogConfig/Type", "none"),
        ("/HostConfig/RestartPolicy/Name", "no"),
        ("/HostConfig/PortBindings", "{}"),
    ] {
        assert_eq!(text(&made, pointer), wanted, "{pointer}");
    }
    for (name, wanted) in [
        ("managed-by", "mcp-orchestrator"),
        ("io.mcp-orchestrator.stack", site.stack.as_str()),
        ("io.mcp-orchestrator.server", "time"),
        ("io.mcp-orchestrator.role", "leg"),
        ("io.mcp-orchestrator.run", "run-1"),
        ("io.mcp-orchestrator.port", ""),
    ] {
        assert_eq!(label(&made, name), wanted, "{name}");
    }
    let leg = opened(io).await;
    let arguments = serde_json::value::to_raw_value(&serde_json::json!({ "text": "hear me" })).expect("JSON");
    let call = build::call_params("echo", Some(&arguments));
    let answer =
        leg.request("tools/call", call.as_deref(), Duration::from_secs(10)).await.expect("an answer");
    assert!(answer.get().contains("hear me"), "{answer}");
    assert_eq!(engine.leg_exit(&id).await, None, "it runs");

    leg.close(Duration::from_secs(10)).await;
    assert_eq!(engine.leg_exit(&id).await.as_deref(), Some("exit code 0"));
    let volume = text(&made, "/Mounts/0/Name");
    engine.end_leg(&id).await.expect("its end");
    assert!(inspect(&create.name).is_none());
    assert!(!crate::support::volume_exists(&volume), "what only it had went with it");
    engine.end_leg(&id).await.expect("its end is no news");
    assert_eq!(engine.leg_exit(&id).await, None, "nothing is known of it");
}

#[tokio::test]
async fn the_first_words_are_heard() {
    let site = Site::new("legfirst");
    let since = unix_now();
    // It speaks and ends at once, without reading anything.
    let create = leg_of(&site.stack, "a", |spec| {
        spec.command = vec![Opaque::new("--help")];
    });
    let engine = docker();
    for round in 0..5 {
        let (id, mut io) = engine.start_leg(&create).await.expect("a leg");
        let mut said = String::new();
        io.stdout.read_to_string(&mut said).await.expect("its words");
        assert!(said.contains("Usage"), "round {round}: {said:?}");
        assert_eq!(engine.leg_exit(&id).await.as_deref(), Some("exit code 0"));
        let events = site.events(since);
        let of_leg = events.iter().filter(|(_, container, _)| container == id.as_str());
        let actions: Vec<&str> = of_leg.map(|(action, _, _)| action.as_str()).take(3).collect();
        assert_eq!(actions, ["create", "attach", "start"], "nothing can be said before the attachment");
        drop(io);
        engine.end_leg(&id).await.expect("its end");
    }
}

#[tokio::test]
async fn what_cannot_start_leaves_nothing() {
    let site = Site::new("legfail");
    let engine = docker();
    let create = leg_of(&site.stack, "a", |spec| spec.entrypoint = Some("/no/such/program".to_owned()));
    let error = engine.start_leg(&create).await.expect_err("no program");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    assert!(inspect(&create.name).is_none(), "what was made is removed");

    // A name that is taken is said, and whoever has it keeps it.
    let create = leg_of(&site.stack, "b", |_| ());
    let other = site.somebody_elses(&create.name, &[]);
    let error = engine.start_leg(&create).await.expect_err("the name is taken");
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    assert!(runs(&inspect(&other).expect("a container")));
}

#[tokio::test]
async fn a_caller_who_does_not_wait_leaves_nothing() {
    let site = Site::new("legdrop");
    let engine = docker();
    let begin = Instant::now();
    let (id, io) = engine.start_leg(&leg_of(&site.stack, "timed", |_| ())).await.expect("a leg");
    let whole = begin.elapsed();
    drop(io);
    engine.end_leg(&id).await.expect("its end");
    // Gives up early, in the middle, and about when it is done.
    for percent in [1, 30, 60, 90, 100] {
        let create = leg_of(&site.stack, &percent.to_string(), |_| ());
        let given_up = tokio::time::timeout(whole * percent / 100, engine.start_leg(&create)).await;
        if let Ok(made) = given_up {
            let (id, io) = made.expect("a leg");
            drop(io);
            engine.end_leg(&id).await.expect("its end");
        }
    }
    // What is still under way ends by itself.
    tokio::time::sleep(whole * 2).await;
    let name = site.stack.clone();
    tokio::task::spawn_blocking(move || {
        eventually(&format!("{name} has no container"), 20, || site.names().is_empty().then_some(()));
    })
    .await
    .expect("nothing left");
}

#[tokio::test]
async fn a_leg_whose_output_nobody_read_ends_in_time() {
    let site = Site::new("legfull");
    let engine = docker();
    let (id, mut io) = engine.start_leg(&leg_of(&site.stack, "a", |_| ())).await.expect("a leg");
    // Answers to all of these would fill every buffer on the way: 64 × 64 KiB.
    let long = "x".repeat(64 * 1024);
    for number in 1..=64 {
        let call = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\"arguments\":{{\"text\":\"{long}\"}}}}}}\n"
        );
        let write = io.stdin.write_all(call.as_bytes());
        if tokio::time::timeout(Duration::from_secs(1), write).await.is_err() {
            break;
        }
    }
    let begin = Instant::now();
    drop(io);
    engine.end_leg(&id).await.expect("its end");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(inspect(id.as_str()).is_none());
}

/// Not a test of its own: the process that [`a_killed_process_takes_its_legs_with_it`] kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn child_that_holds_a_leg() {
    let Ok(stack) = std::env::var(CHILD_STACK) else { return };
    let (id, io) = docker().start_leg(&leg_of(&stack, "child", |_| ())).await.expect("a leg");
    let leg = opened(io).await;
    println!("holds {id}");
    leg.closed().await;
}

#[test]
fn a_killed_process_takes_its_legs_with_it() {
    let site = Site::new("legkill");
    let name = format!("{}::child_that_holds_a_leg", module_path!().split_once("::").expect("a path").1);
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(CHILD_STACK, &site.stack)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = std::io::BufReader::new(child.stdout.take().expect("its output")).lines();
    let id = lines
        .map_while(Result::ok)
        .find_map(|line| Some(ContainerId(line.split_once("holds ")?.1.to_owned())))
        .expect("a leg");
    assert!(runs(&inspect(id.as_str()).expect("a container")));
    child.kill().expect("a signal");
    child.wait().expect("its end");
    eventually("the server has seen the end of its input", 10, || {
        (!runs(&inspect(id.as_str())?)).then_some(())
    });
    // What is left of it can be told from a living one, and goes.
    assert_eq!(label(&inspect(id.as_str()).expect("a container"), "io.mcp-orchestrator.run"), "run-1");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(docker().end_leg(&id)).expect("its end");
    gone(id.as_str());
}
