//! `doctor` before a strict stand-in for AWS: what is set wrong, what is gone, who is refused, and what
//! the reasons for sick targets mean.

use super::aws::{Aws, World, edge};
use super::rows::world_of;
use crate::support::Site;
use serde_json::{Value, json};

/// A site with one server on a load balancer; nothing of it runs.
fn scene<'a>(aws: &'a Aws, name: &str) -> (Site, World<'a>) {
    let mut site = Site::new(name);
    site.write(&json!({ "time": { "command": "sh" } }));
    let world = world_of(aws, &mut site);
    site.variable("AWS_SECRET_ACCESS_KEY", "planted-secret");
    (site, world)
}

/// The checks on a topic; the exit code says whether one of all failed.
fn checks(site: &Site, topic: &str) -> Vec<Value> {
    let done = site.run(&["doctor", "--json"]);
    assert!(!done.all().contains("planted-secret"), "a secret is shown: {}", done.all());
    let value = done.json();
    let all = value["checks"].as_array().expect("checks").clone();
    let fails = all.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(done.code, i32::from(fails), "{value}");
    all.into_iter().filter(|check| check["topic"] == topic).collect()
}

/// Fails unless exactly one check on the topic ends like this, and it names these words.
#[track_caller]
fn finds(site: &Site, topic: &str, verdict: &str, words: &[&str]) {
    let found = checks(site, topic);
    let fits = |check: &&Value| {
        let said = format!("{} {}", check["evidence"], check["remedy"]);
        check["verdict"] == verdict && words.iter().all(|word| said.contains(word))
    };
    assert_eq!(found.iter().filter(fits).count(), 1, "{topic} {verdict} {words:?}: {found:#?}");
}

fn verdicts(found: &[Value]) -> Vec<&str> {
    found.iter().map(|check| check["verdict"].as_str().expect("a word")).collect()
}

#[tokio::test]
async fn a_good_balancer_is_good_and_sick_targets_have_reasons_and_remedies() {
    let aws = Aws::start();
    let (site, world) = scene(&aws, "doc-targets");
    finds(&site, "targets", "warn", &["registered for none of 1 servers", "systemctl start"]);
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    assert_eq!(verdicts(&checks(&site, "alb")), ["ok", "ok"]);
    assert_eq!(verdicts(&checks(&site, "credentials")), ["ok", "warn"], "AWS's, the dashboard's");
    finds(&site, "clock", "ok", &["AWS"]);
    finds(&site, "imds", "ok", &[&world.instance]);
    finds(&site, "targets", "ok", &["1 of 1 targets of this host are healthy"]);
    let group = world.our_groups()[0]["TargetGroupArn"].clone();
    for (state, reason, verdict, remedy) in [
        ("unhealthy", "Target.Timeout", "fail", "security group"),
        ("unhealthy", "Target.FailedHealthChecks", "fail", "refused or cut"),
        ("unhealthy", "Target.ResponseCodeMismatch", "fail", "orchestrator.health.path"),
        ("unused", "Target.NotInUse", "fail", "`plan`"),
        ("unused", "Target.InvalidState", "fail", "stopping or stopped"),
        ("unused", "Target.IpUnusable", "fail", "target_id"),
        ("initial", "Elb.RegistrationInProgress", "warn", "wait"),
        ("unavailable", "Elb.InternalError", "unknown", "health dashboard"),
    ] {
        let asked = json!({ "tg": group, "state": state, "reason": reason });
        aws.ask("POST", "/_world/health", &asked);
        finds(&site, "targets", verdict, &[state, reason, "time", remedy]);
    }
    aws.ask("POST", "/_world/health", &json!({ "tg": group, "state": "auto" }));
    finds(&site, "targets", "ok", &["1 of 1"]);
}

#[test]
fn what_the_balancer_is_set_to_and_what_is_gone() {
    let aws = Aws::start();
    let (site, world) = scene(&aws, "doc-set");
    let idle = |seconds: &str| {
        let key = "Attributes.member.1.Key";
        let params = json!({
            "LoadBalancerArn": world.balancer, key: "idle_timeout.timeout_seconds",
            "Attributes.member.1.Value": seconds,
        });
        aws.call("ModifyLoadBalancerAttributes", params);
    };
    for (seconds, verdict, words) in [
        ("60", "ok", ["idle timeout 60 s", "every 15 s"]),
        ("20", "warn", ["idle timeout 20 s", "60 or more"]),
        ("15", "fail", ["idle timeout 15 s", "cuts every quiet stream"]),
    ] {
        idle(seconds);
        finds(&site, "alb", verdict, &words);
    }
    idle("60");
    aws.call("DeleteListener", json!({ "ListenerArn": world.listener }));
    let found = checks(&site, "alb");
    assert_eq!(verdicts(&found), ["fail"], "told once: {found:#?}");
    finds(&site, "alb", "fail", &["listener", "listener_arn"]);
}

#[test]
fn credentials_that_are_missing_refused_or_too_weak() {
    let aws = Aws::start();
    let (mut site, _world) = scene(&aws, "doc-who");
    let fault = |code: &str| {
        aws.ask("DELETE", "/_fault", &Value::Null);
        let asked = json!({ "action": "*", "kind": "error", "status": 403, "code": code, "times": -1 });
        aws.ask("POST", "/_fault", &asked);
    };
    for code in ["InvalidClientTokenId", "ExpiredToken", "SignatureDoesNotMatch"] {
        fault(code);
        finds(&site, "credentials", "fail", &[code, "sts get-caller-identity"]);
        assert!(checks(&site, "alb").is_empty(), "{code}: the balancer is not what is wrong");
    }
    fault("AccessDenied");
    finds(&site, "alb", "fail", &["AccessDenied", "IAM policy"]);
    aws.ask("DELETE", "/_fault", &Value::Null);
    site.variable("AWS_ACCESS_KEY_ID", "");
    site.variable("AWS_EC2_METADATA_DISABLED", "true");
    finds(&site, "credentials", "fail", &["AWS credentials", "AWS_PROFILE"]);
    finds(&site, "alb", "unknown", &["without credentials"]);
}

#[test]
fn a_clock_that_is_off_against_aws() {
    let aws = Aws::start();
    let (site, _world) = scene(&aws, "doc-clock");
    for (shift, verdict, words) in [
        (0, "ok", ["AWS's clock differs by", ""]),
        (90, "warn", ["AWS's clock differs by", "timedatectl set-ntp true"]),
        (-400, "fail", ["signatures are refused", "timedatectl set-ntp true"]),
        (400, "fail", ["signatures are refused", "169.254.169.123"]),
    ] {
        aws.ask("POST", "/_world/settings", &json!({ "date_shift_s": shift }));
        finds(&site, "clock", verdict, &words);
    }
    // Beside the engine's, which is the same all the time.
    assert_eq!(checks(&site, "clock").len(), 2);
}

/// A host that is run by systemd, with a `systemctl` that says what `$1` holds.
const SYSTEMD: &str = r#"mount -t tmpfs -o mode=0755 tmpfs /run/systemd 2>/dev/null || { mkdir -p /run/systemd; mount -t tmpfs -o mode=0755 tmpfs /run/systemd; }
mkdir /run/systemd/system; export PATH="$1:$PATH""#;

#[test]
fn a_unit_that_is_not_as_shipped() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new("doc-unit");
    site.write(&json!({ "time": { "command": "sh" } }));
    let tools = site.path("tools");
    std::fs::create_dir(&tools).expect("a directory");
    let show = tools.join("systemctl");
    let unit = "LoadState=loaded ActiveState=active SubState=running UnitFileState=enabled Result=success NRestarts=0 WatchdogUSec=30s FileDescriptorStoreMax=512 NFileDescriptorStore=14 NeedDaemonReload=no";
    let says = |change: (&str, &str)| {
        let words = unit.replace(change.0, change.1);
        std::fs::write(&show, format!("#!/bin/sh\nprintf '%s\\n' {words}\n")).expect("written");
        std::fs::set_permissions(&show, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let output = site.in_namespace(SYSTEMD, &tools, &["doctor", "--json"]).output().expect("the program");
        let found: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let all = found["checks"].as_array().expect("checks").clone();
        all.into_iter().filter(|check| check["topic"] == "systemd").collect::<Vec<Value>>()
    };
    assert_eq!(verdicts(&says(("", ""))), ["ok", "ok"]);
    for (change, verdict, words) in [
        (("ActiveState=active", "ActiveState=failed"), "fail", "journalctl -u mcp-orchestrator"),
        (("UnitFileState=enabled", "UnitFileState=disabled"), "warn", "systemctl enable mcp-orchestrator"),
        (("NeedDaemonReload=no", "NeedDaemonReload=yes"), "warn", "systemctl daemon-reload"),
        (("WatchdogUSec=30s", "WatchdogUSec=0"), "warn", "WatchdogSec=30"),
        (("FileDescriptorStoreMax=512", "FileDescriptorStoreMax=0"), "warn", "FileDescriptorStoreMax="),
        (("NRestarts=0", "NRestarts=9"), "warn", "restarted it 9 times"),
    ] {
        let found = says(change);
        let fits = |check: &&Value| check["verdict"] == verdict && check.to_string().contains(words);
        assert_eq!(found.iter().filter(fits).count(), 1, "{change:?}: {found:#?}");
    }
}

#[test]
fn a_host_that_does_not_know_itself_and_a_balancer_nobody_reaches() {
    let aws = Aws::start();
    let (mut site, _world) = scene(&aws, "doc-host");
    aws.ask("POST", "/_world/imds", &json!({ "mode": "down" }));
    site.setting("AWS__TARGET_ID", "");
    site.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.imds_url());
    finds(&site, "imds", "fail", &["hop limit of 2", "target_id"]);
    site.setting("AWS__TARGET_ID", "i-0123456789abcdef0");
    let closed = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    site.setting("AWS__ENDPOINT_URL", &format!("http://127.0.0.1:{port}"));
    finds(&site, "alb", "fail", &["endpoint_url"]);
    finds(&site, "clock", "unknown", &["AWS"]);
}
