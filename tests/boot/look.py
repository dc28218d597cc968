"""What can be seen of it: the journal by field, secrets nowhere, processes in their own unit."""

import json
import re

from guest import UNIT, eventually
from life import PACKAGE, drop_in
from product import SETTINGS, usual_servers

RUNNER = "mcp-orchestrator-runner.service"
STARTED = "a7ac75732a8646c0a635cdcc4f754405"
STOPPED = "0a76e1f1fbc3466baa83f49b07662056"
READ_AGAIN = "b181f94c94074bc78c77bd7f26858f0a"
UNUSABLE = "68fce7b8913941c29b6665ec095848c5"
ENDED = "1c42b168a4b04a35b01ab35fcd7bfd00"
CATALOG = "/usr/lib/systemd/catalog/mcp-orchestrator.catalog"
ENCRYPTED = "encrypted-credentials.conf"
SERVER_JS = "/opt/boot-test/server.js"


def journal(site):
    """Each event by its fields, and explained."""
    guest, say = site.guest, site.report.check
    for event, title in (
        (STARTED, "started"),
        (STOPPED, "stopped"),
        (READ_AGAIN, "configuration read"),
        (UNUSABLE, "configuration unusable"),
    ):
        entries = guest.journal(f"--unit={UNIT}", f"MESSAGE_ID={event}")
        say(
            f"journal: MESSAGE_ID finds '{title}'",
            entries,
            f"{len(entries)} entries, {entries[-1:] and entries[-1]['MESSAGE']}",
        )
    containers = guest.containers()
    entries = guest.journal(f"--unit={UNIT}", "MCP_SERVER=old")
    say(
        "journal: MCP_SERVER finds a server's",
        entries,
        f"{len(entries)} entries, {entries[-1:] and entries[-1]['MESSAGE']}",
    )
    identifier, priorities = {entry["SYSLOG_IDENTIFIER"] for entry in entries}, {entry["PRIORITY"] for entry in entries}
    say(
        "journal: identifier and levels",
        identifier == {"mcp-orchestrator"} and priorities <= set("34567"),
        f"{identifier} {sorted(priorities)}",
    )
    info = [entry["PRIORITY"] for entry in guest.journal(f"--unit={UNIT}", f"MESSAGE_ID={STARTED}")]
    say("journal: INFO is 6", set(info) == {"6"}, set(info))
    for field in ("MCP_PASS", "MCP_ACTION", "MCP_PORT", "MCP_REASON", "MCP_ERROR_CODE", "CONTAINER_ID"):
        values = guest.run(f"journalctl --quiet --field={field}", check=False).out.split("\n")
        say(f"journal: {field} is used", any(values), [value for value in values if value][:2])
    ids = [ident for _name, (ident, _started) in containers.items()]
    found = [entry for ident in ids for entry in guest.journal(f"--unit={UNIT}", f"CONTAINER_ID={ident}")]
    say(
        "journal: CONTAINER_ID finds a container's",
        found,
        f"{len(found)} entries for {len(ids)} containers, {found[:1] and found[0]['MESSAGE']}",
    )
    text = guest.run(f"journalctl --quiet --catalog --unit={UNIT} MESSAGE_ID={STARTED} --lines=1").out
    say(
        "journal: `journalctl -x` explains",
        "mcp-orchestrator started" in text and "Defined-By: mcp-orchestrator" in text,
        text,
    )
    explained(site)
    crashed(site)


def explained(site):
    """Every event has its page in the journal's catalog."""
    guest, say = site.guest, site.report.check
    shipped = guest.run(f"sed -n 's/^-- //p' {CATALOG}").out.split()
    known = guest.run("journalctl --list-catalog").out
    missing = [ident for ident in shipped if ident not in known]
    say("journal: the catalog has a page for every event", shipped and not missing, missing or f"{len(shipped)} pages")
    seen = {entry.get("MESSAGE_ID") for entry in guest.journal(f"--unit={UNIT}", "SYSLOG_IDENTIFIER=mcp-orchestrator")}
    strange = sorted(ident for ident in seen if ident and ident not in shipped)
    say("journal: no event without one", not strange, strange or f"{len(seen) - 1} events seen")


def crashed(site):
    """A server that ends is an event with its container."""
    guest, say = site.guest, site.report.check
    begin, before = guest.now(), guest.containers()["mcp-new"]
    event = lambda: guest.journal(f"--since={begin}", f"--unit={UNIT}", f"MESSAGE_ID={ENDED}", "MCP_SERVER=new")  # noqa: E731
    guest.run("docker kill mcp-new")
    entries = eventually("the event", 30, event)
    say("journal: the first end of a server is an event", "137" in entries[0]["MCP_REASON"], entries[0]["MCP_REASON"])
    site.await_well()
    eventually("it was started again", 30, lambda: guest.containers()["mcp-new"] != before)
    guest.run("docker kill mcp-new")
    entries = eventually("another event", 30, lambda: (now := event())[len(entries) :] and now)
    say("journal: each further one too", True, entries[-1]["MCP_REASON"])
    site.await_well()
    say("journal: and it runs again", guest.containers()["mcp-new"][1] != before[1], guest.containers()["mcp-new"])


def log_level(site):
    """More can be logged without a restart."""
    guest, say = site.guest, site.report.check
    pid = guest.pid()
    debug = lambda begin: guest.journal(f"--since={begin}", f"_PID={pid}", "PRIORITY=7")  # noqa: E731
    begin = guest.now()
    done = guest.run("mcp-orchestrator log-level DEBUG", check=False)
    say("log-level: DEBUG is accepted", done.code == 0, done.all)
    site.call("old", "echo", {"message": "x"})
    guest.run("mcp-orchestrator sync", check=False)
    found = eventually("a line of level DEBUG", 15, lambda: debug(begin))
    say("log-level: DEBUG is logged, same process", guest.pid() == pid, f"{len(found)} lines")
    done = guest.run("mcp-orchestrator log-level INFO", check=False)
    begin = guest.now()
    guest.run("mcp-orchestrator sync", check=False)
    say("log-level: back to INFO", done.code == 0 and not debug(begin), done.all)


# ---- secrets ---------------------------------------------------------------------------------------------


def credentials(site):
    """The password and tokens come as credentials and are seen nowhere else."""
    guest, say = site.guest, site.report.check
    where = f"/run/credentials/{UNIT}"
    names = guest.run(f"ls {where}", check=False).out.split()
    say("credentials: the dashboard's password is one", "dashboard-password" in names, names)
    password = guest.run(f"cat {where}/dashboard-password", check=False).out.strip()
    modes = guest.run(f"stat -c '%a %U %n' {where}/* /etc/credstore/mcp-orchestrator.* 2>/dev/null", check=False).out
    say("credentials: nobody else reads them", password and not re.search(r"^\d*[1-7] ", modes, re.M), modes)
    say(
        "credentials: a password of its own",
        len(password) >= 16 and password != "changeme",
        f"{len(password)} characters",
    )
    token = "boot-test-token-4c1f0e"
    guest.run("install -d -m 0700 /etc/credstore")
    guest.write("/etc/credstore/mcp-orchestrator.gateway-tokens", f"client:{token}\n", "0600")
    before = guest.run(f"cat {SETTINGS}").out
    guest.write(
        SETTINGS,
        (
            before + "\n[gateway]\nauth = bearer\n"
            if "\n[gateway]" not in before
            else before.replace("\n[gateway]", "\n[gateway]\nauth = bearer", 1)
        ),
        "0640",
        "root:mcp-orchestrator",
    )
    try:
        guest.run(f"systemctl restart {UNIT}")
        site.await_well()
        wrong, right = (f"Authorization: Bearer {word}" for word in ("wrong", token))
        answers = [greeting(site), greeting(site, right), greeting(site, wrong)]
        say("credentials: tokens open the gateway", answers == [401, 200, 401], answers)
        leaks(site, {"password": password, "token": token})
    finally:
        guest.write(SETTINGS, before, "0640", "root:mcp-orchestrator")
        guest.run(f"rm /etc/credstore/mcp-orchestrator.gateway-tokens; systemctl restart {UNIT}")
    site.await_well()
    encrypted(site, password)


def encrypted(site, password):
    """The password encrypted with the key of this host, as the shipped example has it."""
    guest, say = site.guest, site.report.check
    store, name = "/etc/credstore.encrypted", "mcp-orchestrator.dashboard-password"
    example = guest.run(f"find /usr/share -name {ENCRYPTED} | head -n 1").out.strip()
    if not say("credentials: there is an example of an encrypted one", example, example):
        return
    guest.run(f"mkdir -p -m 0700 {store}")
    guest.run(f"systemd-creds encrypt --name=dashboard-password /etc/credstore/{name} {store}/{name}")
    with drop_in(guest, guest.run(f"cat {example}").out):
        site.await_well()
        read = guest.run(f"cat /run/credentials/{UNIT}/dashboard-password").out.strip()
        stored = guest.run(f"cat {store}/{name}").out
        say("credentials: an encrypted one works", read == password and password not in stored, example)
    guest.run(f"rm -r {store}")
    site.await_well()


def greeting(site, *headers):
    """The status of an `initialize` with these headers."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    return site.http("/mcp/old", headers, body)[0]


def leaks(site, secrets):
    """Looks for each secret where it must not be."""
    guest, say = site.guest, site.report.check
    pid = guest.pid()
    for name, secret in secrets.items():
        places = {
            "the journal": "journalctl --output=export --all",
            "the environment": f"tr '\\0' '\\n' </proc/{pid}/environ",
            "the command line": f"tr '\\0' ' ' </proc/{pid}/cmdline",
            "the state": "cat /var/lib/mcp-orchestrator/*",
            "status": "mcp-orchestrator status --json; mcp-orchestrator plan --json",
            "containers": "docker ps --all --quiet | xargs docker inspect",
        }
        found = [
            place
            for place, command in places.items()
            if guest.run(f"{command} 2>/dev/null | grep --quiet --text --fixed-strings -e '{secret}'", check=False).code
            == 0
        ]
        say(f"credentials: the {name} is nowhere else", secret and not found, found or ", ".join(places))


# ---- local processes ----------------------------------------------------------------------------------------


def processes(site):
    """A server in node runs under the shipped units, in a unit of its own."""
    guest, say = site.guest, site.report.check
    limits = {"memory": "512m", "cpus": "1.5", "pids": 200}
    node = {"command": "node", "args": [SERVER_JS], "env": {"GREETING": "hello"}, "orchestrator": {"limits": limits}}
    site.configure({**usual_servers(), "node": node})
    say("process: a server in node answers", site.call("node", "echo", {"message": "node"}) == "node")
    seen = json.loads(site.call("node", "surroundings"))
    daemon = int(guest.run(f"stat -c %u /proc/{guest.pid()}").out)
    say("process: it runs in the runner's unit", RUNNER in seen["cgroup"], seen["cgroup"])
    limited(site, seen["cgroup"])
    say(
        "process: it is neither root nor the daemon's user",
        seen["uid"] not in (0, daemon),
        f"uid {seen['uid']}, the daemon is {daemon}",
    )
    docker = int(guest.run("getent group docker | cut -d: -f3").out)
    reach = {name: seen[name] for name in ("engine", "control", "state", "config", "credentials")}
    say(
        "process: engine, control socket, state, configuration and credentials are out of reach",
        not any(reach.values()) and docker not in seen["groups"],
        f"{reach}, groups {seen['groups']}",
    )
    strange = sorted(
        set(seen["env"])
        & {
            "CREDENTIALS_DIRECTORY",
            "STATE_DIRECTORY",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "LISTEN_FDS",
            "RUNTIME_DIRECTORY",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
        }
    )
    say(
        "process: the daemon's environment stays with it",
        not strange and seen["env"].get("GREETING") == "hello",
        strange or sorted(seen["env"]),
    )
    say("process: it sees the machine", seen["cpus"] > 0, f"{seen['cpus']} CPUs")
    guest.run(f"systemctl restart {UNIT}")
    site.await_well()
    say("process: after a restart of the daemon it answers", site.call("node", "echo", {"message": "again"}) == "again")
    count = guest.run(f"pgrep --count --full {SERVER_JS}", check=False).out.strip()
    say("process: there is one of it", count == "1", count)
    pid = int(guest.run(f"pgrep --full {SERVER_JS}").out.split()[0])
    guest.run(f"kill -KILL {pid}")
    eventually("it answers again", 60, lambda: site.call("node", "echo", {"message": "back"}) == "back")
    say("process: killed, it comes back", True, guest.run(f"pgrep --full {SERVER_JS}").out)
    runner = guest.pid(RUNNER)
    guest.run(f"kill -KILL {runner}", check=False)
    eventually("it answers again", 60, lambda: site.call("node", "echo", {"message": "runner"}) == "runner")
    say(
        "process: the runner killed, everything comes back",
        guest.pid(RUNNER) not in (0, runner),
        f"runner {runner} -> {guest.pid(RUNNER)}",
    )
    site.configure(usual_servers())
    eventually("the process is gone", 30, lambda: guest.run(f"pgrep --full {SERVER_JS}", check=False).code == 1)
    say("process: removed from the file, it is gone", True)


def limited(site, cgroup):
    """A control group of its own, with the entry's limits; what the kernel here cannot keep is told."""
    guest, say = site.guest, site.report.check
    # Hosts with hierarchies of version 1 list those as well.
    path = next(line.removeprefix("0::") for line in cgroup.split("\n") if line.startswith("0::"))
    say("process: a control group of its own", f"{RUNNER}/node-" in path, path)
    for file, wanted in (("memory.max", "536870912"), ("cpu.max", "150000 100000"), ("pids.max", "200")):
        value = guest.run(f"cat /sys/fs/cgroup{path}/{file} 2>/dev/null", check=False).out.strip()
        words = f"its limit in {file} is not kept"
        told = [entry for entry in guest.journal("MCP_SERVER=node") if words in str(entry["MESSAGE"])]
        # Where the host has the controller in version 1, the guest has none.
        say(f"process: {file} is kept, or it is told that not", value == wanted or (not value and told), value or words)


def files(site):
    """What else the package brings."""
    guest, say = site.guest, site.report.check
    out = guest.run(f"dpkg --listfiles {PACKAGE}").out
    wanted = {
        "catalog": "/usr/lib/systemd/catalog/mcp-orchestrator.catalog",
        "sysusers": "/usr/lib/sysusers.d/mcp-orchestrator.conf",
        "tmpfiles": "/usr/lib/tmpfiles.d/mcp-orchestrator.conf",
        "man page": "/usr/share/man/man1/mcp-orchestrator.1",
        "bash completion": "/usr/share/bash-completion/completions/mcp-orchestrator",
        "copyright": "/usr/share/doc/mcp-orchestrator/copyright",
        "template": "/usr/share/mcp-orchestrator/mcp.config.json",
    }
    missing = [name for name, path in wanted.items() if path not in out]
    say("package: its files", not missing, f"missing: {missing}" if missing else ", ".join(wanted))
