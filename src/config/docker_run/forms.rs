//! What each flag of `docker run` takes, for the hint of a problem that has no better one.
//!
//! Must never be silent about a flag that takes a value (test `every_flag_has_a_form`).

use crate::config::docker_run::flags::{Action, Flag};

/// What the flag takes, in words.
pub(super) fn of(flag: &Flag) -> &'static str {
    if flag.is_switch() {
        return "write the flag alone, or =true or =false behind it";
    }
    named(flag.name).unwrap_or(match flag.action {
        Action::Bytes(_) => "takes a size, for example 512m or 1g",
        Action::Duration(_) => "takes a length of time, for example 30s or 1m30s",
        Action::Integer(_) => "takes a whole number",
        _ => "takes a value behind it or behind =",
    })
}

/// Of flags whose values have a form of their own.
fn named(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "add-host" => "takes NAME:IP, for example db:10.0.0.7 or host.docker.internal:host-gateway",
        "blkio-weight" => "takes a number from 10 to 1000, or 0",
        "blkio-weight-device" => "takes /dev/NAME:WEIGHT, for example /dev/sda:200",
        "cgroupns" => "takes host or private",
        "cpus" => "takes a number of CPUs, for example 0.5",
        "device" => "takes /dev/HOST[:/dev/CONTAINER[:rwm]], for example /dev/snd",
        "device-cgroup-rule" => "takes TYPE MAJOR:MINOR RIGHTS, for example \"c 1:3 rwm\"",
        "device-read-bps" | "device-write-bps" => "takes /dev/NAME:RATE, for example /dev/sda:1mb",
        "device-read-iops" | "device-write-iops" => "takes /dev/NAME:NUMBER, for example /dev/sda:100",
        "dns" => "takes an IP address, for example 10.0.0.2",
        "dns-search" => "takes a domain, for example example.com, or . for none",
        "env" => "takes NAME=VALUE, or NAME for the service's own value",
        "env-file" => "takes the path of a file of NAME=VALUE lines",
        "expose" => "takes PORT[-PORT][/tcp|udp|sctp], for example 8080",
        "gpus" => "takes all, a number, or for example device=0,capabilities=utility",
        "ip" => "takes an IPv4 address, for example 10.0.0.7",
        "ip6" => "takes an IPv6 address, for example fd00::7",
        "ipc" => "takes none, private, shareable, host or container:NAME",
        "label" => "takes NAME or NAME=VALUE",
        "label-file" => "takes the path of a file of NAME=VALUE lines",
        "link" => "takes CONTAINER[:ALIAS]",
        "mac-address" => "takes for example 92:d0:c6:0a:29:33",
        "memory-swap" => "takes a size, for example 2g, or -1 for no limit",
        "memory-swappiness" => "takes a number from 0 to 100, or -1 for the engine's own",
        "mount" => "takes for example type=bind,source=/srv/data,target=/data,readonly",
        "network" | "net" => {
            "takes a network's name, host, none, container:NAME, or for example name=web,alias=api"
        }
        "pid" => "takes host or container:NAME",
        "platform" => "takes OS/ARCH[/VARIANT], for example linux/arm64",
        "publish" => "takes [IP:][HOST_PORT:]CONTAINER_PORT[/tcp|udp|sctp], for example 8080 or 8000:8080",
        "pull" => "takes missing, always or never",
        "restart" => "takes no, always, unless-stopped or on-failure[:RETRIES]",
        "security-opt" => {
            "takes for example no-new-privileges, seccomp=FILE, apparmor=PROFILE or label=disable"
        }
        "stop-timeout" => "takes a number of seconds",
        "storage-opt" => "takes NAME=VALUE, for example size=10G",
        "sysctl" => "takes a setting of the container's own namespaces, for example net.core.somaxconn=1024",
        "tmpfs" => "takes /PATH[:OPTIONS], for example /tmp:size=64m",
        "ulimit" => "takes NAME=SOFT[:HARD], for example nofile=1024:4096",
        "userns" | "uts" => "takes host, or nothing for a namespace of its own",
        "isolation" => "leave it out: Linux has no other than default",
        "volume" => "takes HOST_PATH:/PATH[:OPTIONS], VOLUME:/PATH[:OPTIONS] or /PATH",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{named, of};
    use crate::config::docker_run::flags::{Action, FLAGS};

    #[test]
    fn every_flag_has_a_form() {
        for flag in FLAGS {
            assert!(!of(flag).is_empty(), "--{}", flag.name);
            // What has rules of its own for its values says them.
            let free = ["annotation", "entrypoint", "health-cmd", "log-opt", "name"];
            if matches!(flag.action, Action::Value(_)) && !free.contains(&flag.name) {
                assert!(named(flag.name).is_some(), "--{} takes what nobody says", flag.name);
            }
        }
    }
}
