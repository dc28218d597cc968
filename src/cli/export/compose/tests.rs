//! Every flag of a line is in the file or named as left out.

use super::{TRANSLATED, text};
use crate::cli::export::tests::loaded_of;
use crate::config::load::Loaded;
use crate::model::container::ContainerSpec;
use crate::model::server::{Server, ServerKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A file with one container of these flags.
fn one(flags: &[&str], block: &Value) -> Loaded {
    let args: Vec<&str> = ["run"].iter().chain(flags).copied().chain(["mcp/x:1"]).collect();
    let entry = json!({"command": "docker", "args": args, "orchestrator": block});
    loaded_of(&json!({ "mcpServers": { "x": entry } }).to_string())
}

fn servers(loaded: &Loaded) -> Vec<&Server> {
    let desired = loaded.desired.as_ref().expect("servers");
    assert_eq!(desired.servers.len(), 1, "{:?}", loaded.problems);
    desired.servers.values().collect()
}

fn spec(loaded: &Loaded) -> &ContainerSpec {
    match &servers(loaded)[0].kind {
        ServerKind::Container(decl) => &decl.spec,
        other => panic!("{other:?}"),
    }
}

/// The file's keys of the service with their values, those beside it, and what is left out.
fn exported(loaded: &Loaded) -> (BTreeMap<String, Value>, String, Vec<String>) {
    let (file, left) = text(&servers(loaded), &loaded.secrets);
    let of = |line: &str| {
        let (key, value) = line.strip_prefix("    ")?.split_once(": ")?;
        Some((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|error| panic!("{error}: {line}"))))
    };
    (file.lines().filter_map(of).collect(), file, left)
}

/// Flags, and what they are in the file.
const KEYS: &[(&[&str], &str)] = &[
    (&["--entrypoint", "/bin/a b"], r#""entrypoint": ["/bin/a b"]"#),
    (&["--entrypoint", ""], r#""entrypoint": []"#),
    (&["-e", "A=1"], r#""environment": ["A"]"#),
    (&["-l", "a=b$c"], r#""labels": {"a": "b$$c"}"#),
    (&["--annotation", "a=b"], r#""annotations": {"a": "b"}"#),
    (&["--platform", "linux/amd64"], r#""platform": "linux/amd64""#),
    (&["-u", "1000:1000"], r#""user": "1000:1000""#),
    (&["--group-add", "audio"], r#""group_add": ["audio"]"#),
    (&["-w", "/srv"], r#""working_dir": "/srv""#),
    (&["-h", "box"], r#""hostname": "box""#),
    (&["--domainname", "lan"], r#""domainname": "lan""#),
    (&["--init=false"], r#""init": false"#),
    (&["--stop-signal", "SIGINT"], r#""stop_signal": "SIGINT""#),
    (&["--stop-timeout", "20"], r#""stop_grace_period": "20s""#),
    (&["--no-healthcheck"], r#""healthcheck": {"disable": true}"#),
    (
        &["--health-cmd", "true", "--health-interval", "30s", "--health-retries", "2"],
        r#""healthcheck": {"test": ["CMD-SHELL", "true"], "interval": "30000000us", "retries": 2}"#,
    ),
    (&["-v", "data:/d:ro", "-v", "/cache"], r#""volumes": ["data:/d:ro", "/cache"]"#),
    (
        &["--mount", "type=bind,source=/srv/x,target=/x,readonly,bind-propagation=rslave"],
        r#""volumes": [{"type": "bind", "source": "/srv/x", "target": "/x", "read_only": true,
            "bind": {"create_host_path": false, "propagation": "rslave"}}]"#,
    ),
    (
        &["--mount", "type=volume,source=v,target=/v,volume-nocopy,volume-subpath=s"],
        r#""volumes": [{"type": "volume", "source": "v", "target": "/v", "volume": {"nocopy": true, "subpath": "s"}}]"#,
    ),
    (
        &["--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"],
        r#""volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1048576, "mode": 1016}}]"#,
    ),
    (&["--tmpfs", "/t:size=64m", "--tmpfs", "/u"], r#""tmpfs": ["/t:size=64m", "/u"]"#),
    (&["--storage-opt", "size=10G"], r#""storage_opt": {"size": "10G"}"#),
    (&["--read-only"], r#""read_only": true"#),
    (&["-i", "-p", "127.0.0.1:8080:80/udp"], r#""ports": ["127.0.0.1:8080:80/udp"]"#),
    (&["-i", "-p", "8000-8010:80"], r#""ports": ["8000-8010:80/tcp"]"#),
    (&["-i", "-p", "[::1]:9000:80"], r#""ports": ["[::1]:9000:80/tcp"]"#),
    (&["-p", "127.0.0.1::3000"], r#""ports": ["127.0.0.1::3000"]"#),
    (&["-i", "--expose", "9000"], r#""expose": ["9000/tcp"]"#),
    (&["--network", "none"], r#""network_mode": "none""#),
    (
        &["--network", "back", "--network-alias", "db", "--ip", "10.1.0.5"],
        r#""networks": {"back": {"aliases": ["db"], "ipv4_address": "10.1.0.5"}}"#,
    ),
    (
        &["--network", "back", "--mac-address", "02:00:00:00:00:01"],
        r#""networks": {"back": {"mac_address": "02:00:00:00:00:01"}}"#,
    ),
    (&["--link", "db:d"], r#""external_links": ["db:d"]"#),
    (&["--add-host", "a:10.0.0.1"], r#""extra_hosts": ["a:10.0.0.1"]"#),
    (&["--dns", "1.1.1.1"], r#""dns": ["1.1.1.1"]"#),
    (&["--dns-search", "lan"], r#""dns_search": ["lan"]"#),
    (&["--dns-option", "ndots:1"], r#""dns_opt": ["ndots:1"]"#),
    (&["--shm-size", "1m"], r#""shm_size": 1048576"#),
    (&["--sysctl", "net.core.somaxconn=64"], r#""sysctls": {"net.core.somaxconn": "64"}"#),
    (&["--cap-add", "NET_ADMIN"], r#""cap_add": ["CAP_NET_ADMIN"]"#),
    (&["--cap-drop", "ALL"], r#""cap_drop": ["ALL"]"#),
    (&["--security-opt", "no-new-privileges"], r#""security_opt": ["no-new-privileges"]"#),
    (&["--cgroupns", "private"], r#""cgroup": "private""#),
    (&["--runtime", "runsc"], r#""runtime": "runsc""#),
    (&["--ipc", "private"], r#""ipc": "private""#),
    (&["--isolation", "default"], r#""isolation": "default""#),
    (
        &["--log-driver", "local", "--log-opt", "max-size=1m"],
        r#""logging": {"driver": "local", "options": {"max-size": "1m"}}"#,
    ),
    (&["-m", "64m"], r#""mem_limit": 67108864"#),
    (&["--memory-reservation", "32m"], r#""mem_reservation": 33554432"#),
    (&["-m", "64m", "--memory-swap", "-1"], r#""memswap_limit": -1"#),
    (&["--memory-swappiness", "0"], r#""mem_swappiness": 0"#),
    (&["--oom-kill-disable"], r#""oom_kill_disable": true"#),
    (&["--oom-score-adj", "500"], r#""oom_score_adj": 500"#),
    (&["--cpus", "1.5"], r#""cpus": "1.5""#),
    (&["--cpu-shares", "512"], r#""cpu_shares": 512"#),
    (&["--cpu-period", "50000", "--cpu-quota", "25000"], r#""cpu_quota": 25000"#),
    (&["--cpu-rt-period", "950000"], r#""cpu_rt_period": "950000us""#),
    (&["--cpuset-cpus", "0-1"], r#""cpuset": "0-1""#),
    (&["--pids-limit", "7"], r#""pids_limit": 7"#),
    (&["--cgroup-parent", "/mcp"], r#""cgroup_parent": "/mcp""#),
    (&["--ulimit", "nofile=10:20"], r#""ulimits": {"nofile": {"soft": 10, "hard": 20}}"#),
    (
        &["--blkio-weight", "300", "--device-read-bps", "/dev/sda:1mb"],
        r#""blkio_config": {"weight": 300, "device_read_bps": [{"path": "/dev/sda", "rate": 1048576}]}"#,
    ),
];

/// Those that need a permission.
const ALLOWED: &[(&[&str], &str, &str)] = &[
    (&["--privileged"], "privileged", r#""privileged": true"#),
    (
        &["--security-opt", "systempaths=unconfined"],
        "privileged",
        r#""security_opt": ["no-new-privileges", "systempaths=unconfined"]"#,
    ),
    (&["--userns", "host"], "privileged", r#""userns_mode": "host""#),
    (&["--network", "host"], "hostNetwork", r#""network_mode": "host""#),
    (&["--uts", "host"], "hostNetwork", r#""uts": "host""#),
    (&["--pid", "host"], "hostPid", r#""pid": "host""#),
    (&["--volumes-from", "other:ro"], "hostPaths", r#""volumes_from": ["container:other:ro"]"#),
    (&["--device", "/dev/fuse"], "devices", r#""devices": ["/dev/fuse:/dev/fuse:rwm"]"#),
    (&["--device-cgroup-rule", "c 1:3 mr"], "devices", r#""device_cgroup_rules": ["c 1:3 mr"]"#),
    (
        &["--gpus", "all"],
        "devices",
        r#""deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"], "count": "all"}]}}}"#,
    ),
];

#[test]
fn what_compose_can_say_of_a_line_it_says() {
    let mut said = BTreeSet::new();
    let none = json!({});
    let all = KEYS.iter().map(|(flags, want)| (*flags, none.clone(), *want));
    let allowed = ALLOWED.iter().map(|(flags, allow, want)| (*flags, json!({ "allow": [allow] }), *want));
    for (flags, block, want) in all.chain(allowed) {
        let mut line = flags.to_vec();
        if !line.contains(&"-i") && !line.contains(&"-p") {
            line.push("-i");
        }
        let loaded = one(&line, &block);
        said.extend(serde_json::to_value(spec(&loaded)).unwrap().as_object().unwrap().keys().cloned());
        let (keys, file, left) = exported(&loaded);
        let want: Value = serde_json::from_str(&format!("{{{want}}}")).unwrap();
        for (key, want) in want.as_object().unwrap() {
            assert_eq!(keys.get(key), Some(want), "{flags:?}\n{file}");
        }
        assert_eq!(left, [""; 0], "{flags:?}");
    }
    // Every field of a declaration was asked for above, but what is only said to be left out.
    let not_asked: Vec<&&str> = TRANSLATED.iter().filter(|name| !said.contains(**name)).collect();
    assert_eq!(not_asked, [&"command", &"volume_driver", &"publish_all"]);
}

#[test]
fn what_compose_cannot_say_is_named_in_the_file_and_beside_it() {
    for (flags, left_out) in [
        (&["-i", "-P"][..], "x: -P: "),
        (&["-i", "--cpuset-mems", "0"], "x: --cpuset-mems: "),
        (&["-i", "--stop-timeout", "-1"], "x: --stop-timeout: "),
        (
            &["-i", "--log-driver", "splunk", "--log-opt", "splunk-token=planted"],
            "x: --log-opt splunk-token: ",
        ),
        (&["-i", "--volume-driver", "nfs", "-v", "/cache"], "x: --volume-driver: "),
        (
            &[
                "-i",
                "--mount",
                "type=volume,source=v,target=/v,volume-driver=local,volume-opt=o=addr=h,volume-opt=type=nfs",
            ],
            "x: --mount volume-opt=o: ",
        ),
    ] {
        let loaded = one(flags, &json!({"allow": ["hostPaths"]}));
        let (_, file, left) = exported(&loaded);
        assert!(left.iter().any(|line| line.starts_with(left_out)), "{flags:?}: {left:?}");
        let commented = file.lines().any(|line| line.starts_with(&format!("# left out, {left_out}")));
        assert!(commented && !file.contains("planted"), "{file}");
    }
    let several = one(&["-i"], &json!({"replicas": 3}));
    assert!(exported(&several).2[0].starts_with("x: replicas: "));
}

#[test]
fn what_stands_beside_containers_is_there_too() {
    let flags = ["-i", "--network", "back", "-v", "data:/d", "--volume-driver", "nfs"];
    let mount = ["--mount", "type=volume,source=m,target=/m,volume-driver=x,volume-label=a=b"];
    let (_, file, left) = exported(&one(&[&flags[..], &mount].concat(), &json!({})));
    for line in [
        r#"  "data": {"driver":"nfs"}"#,
        r#"  "m": {"driver":"x","labels":{"a":"b"}}"#,
        r#"  "back": {"external":true}"#,
    ] {
        assert!(file.lines().any(|own| own == line), "{line}\n{file}");
    }
    assert_eq!(left, [""; 0]);
    let policy = |block: Value| exported(&one(&["-i"], &block)).0;
    assert_eq!(policy(json!({}))["restart"], "unless-stopped");
    let never = policy(json!({"restart": {"policy": "never"}, "pull": "always"}));
    assert_eq!((&never["restart"], &never["pull_policy"]), (&json!("no"), &json!("always")));
}
