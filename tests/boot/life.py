"""Installing, configuring, restarting, upgrading, removing: what an administrator does."""

import contextlib
import json
import pathlib
import re
import subprocess
import time

from guest import UNIT, Late, eventually
from product import CONFIG, MAIN_PORT, SETTINGS, Load, fixture, told, total, usual_servers

# What `systemd-analyze security` may say at most.
EXPOSURE_MAX = 1.5
# A reload that is refused must be over within this time, in seconds.
RELOAD_SECS = 5
# The watchdog's limit while a daemon hangs on purpose, in seconds.
HANG_SECS = 4
PACKAGE = "mcp-orchestrator"


# ---- installing -----------------------------------------------------------------------------------


def install(site):
    """The package on a fresh system."""
    guest, say = site.guest, site.report.check
    done = guest.run("dpkg --install /var/tmp/first.deb", check=False)
    say("install: the package installs", done.code == 0, done.all[-200:])
    enabled = guest.run(f"systemctl is-enabled {UNIT}", check=False).out.strip()
    say("install: enabled", enabled == "enabled", enabled)
    seen = guest.show("ActiveState", "SubState", "Type", "NotifyAccess", "WatchdogUSec", "FileDescriptorStoreMax")
    say("install: started", seen["ActiveState"] == "active", seen)
    say("install: Type=notify", seen["Type"] in ("notify", "notify-reload"), seen["Type"])
    say("install: the watchdog is armed", seen["WatchdogUSec"] not in ("", "0", "infinity"), seen["WatchdogUSec"])
    site.servers = {"example-mcp-server": None}
    status = site.await_well()
    say("install: the shipped example converges without a hand", True, status["sentence"])
    text = eventually(
        "a status sentence", 10, lambda: "1 of 1" in guest.show("StatusText") and guest.show("StatusText")
    )
    say("install: `systemctl status` is a sentence", re.match(r"^1 of 1 servers? converged", text), text)
    state = guest.run("systemctl is-system-running", check=False).out.strip()
    failed = guest.run("systemctl --failed --plain --no-legend", check=False).all
    say("install: no unit of the system has failed", state == "running", f"{state} {failed}")
    modes = guest.run(
        f"stat -c '%a %U:%G %n' /etc/mcp-orchestrator {CONFIG} {SETTINGS} /var/lib/mcp-orchestrator"
        " /run/mcp-orchestrator/control.sock"
    ).out
    wanted = r"2770 root:mcp-orchestrator /etc/mcp-orchestrator\n660 root:mcp-orchestrator \S+config.json\n"
    say(
        "install: owners and modes", re.match(wanted, modes) and "660 mcp-orchestrator:mcp-orchestrator" in modes, modes
    )
    conffiles = guest.run(f"dpkg-query --show --showformat='${{Conffiles}}' {PACKAGE}").out
    say("install: mcp.config.json is no conffile", CONFIG not in conffiles, conffiles)
    tries = guest.run('mcp-orchestrator call example-mcp-server echo \'{"text": "hello"}\'', check=False)
    say("install: a tool answers", "hello" in tries.out, tries.all)


def hardening(site):
    """What the process may do."""
    guest, say = site.guest, site.report.check
    status = guest.run(f"cat /proc/{guest.pid()}/status").out
    seen = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    seen = {
        name: " ".join(seen[name].split()) for name in ("Uid", "Groups", "CapBnd", "CapEff", "NoNewPrivs", "Seccomp")
    }
    say("hardening: not root", "0" not in seen["Uid"].split(), seen["Uid"])
    say("hardening: no capability", int(seen["CapBnd"], 16) == int(seen["CapEff"], 16) == 0, seen["CapBnd"])
    say("hardening: NoNewPrivs and seccomp", (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2"), seen)
    docker = guest.run("getent group docker | cut -d: -f3").out.strip()
    members = guest.run("id --groups --name mcp-orchestrator").out.split()
    fine = docker in seen["Groups"].split() or "65534" in seen["Groups"].split()
    say(
        "hardening: the engine's socket by group",
        fine,
        f"Groups {seen['Groups']}, docker is {docker}, user's own: {members}",
    )
    for unit in units(guest):
        done = guest.run(f"systemd-analyze verify --man=no {unit}", check=False)
        say(f"hardening: systemd-analyze verify {unit}", done.code == 0 and not done.all, done.all or "clean")
        if unit.endswith(".service") and "@" not in unit:
            line = guest.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").out
            level = re.search(r"(\d+\.\d)", line)
            fine = unit != UNIT or (level and float(level.group(1)) <= EXPOSURE_MAX)
            say(f"hardening: exposure of {unit}", fine, line.strip("→ \n"))


def units(guest):
    """The units of the package."""
    out = guest.run(
        f"dpkg --listfiles {PACKAGE} | grep -E '/systemd/system/[^/]+[.](service|socket|target)$'", check=False
    ).out
    return [pathlib.PurePath(line).name for line in out.split()]


def second_install(site):
    """The same package once more changes nothing that was chosen."""
    guest, say = site.guest, site.report.check
    sums = f"find /etc/mcp-orchestrator /etc/credstore* -type f -exec sha256sum {{}} + 2>/dev/null | sort"
    before = guest.run(sums).out
    done = guest.run("dpkg --install /var/tmp/first.deb", check=False)
    say("install: a second time changes no file of the administrator's", before == guest.run(sums).out, done.all[-120:])


# ---- configuring ------------------------------------------------------------------------------------


def configure(site):
    """The servers of all further scenarios."""
    guest, say = site.guest, site.report.check
    site.configure(usual_servers())
    names = sorted(guest.containers())
    say("configure: a saved file is followed", names == ["mcp-new", "mcp-old", "mcp-web"], names)
    say(
        "configure: each answers",
        [site.call(server, "echo", {"message": server}) for server in site.servers],
        site.guest.ports(),
    )


def reload(site):
    """`systemctl reload` with a good file and with a bad one."""
    guest, say = site.guest, site.report.check
    pid, before, stored = guest.pid(), generation(site), int(guest.show("NFileDescriptorStore"))
    good = {**site.servers, "later": fixture("--era", "legacy")}
    site.configure(good, wait=False)
    began = time.monotonic()
    done = guest.run(f"systemctl reload {UNIT}", check=False)
    took = time.monotonic() - began
    say("reload: accepted", done.code == 0, f"{took:.2f} s {done.all}")
    # With Type=notify systemd may end a reload before it has heard that one began.
    after = eventually("another generation", 10, lambda: (now := generation(site)) > before and now)
    say("reload: the generation on the wire goes up", after > before, f"{before} -> {after}")
    site.await_well()
    say("reload: the new server answers", site.call("later", "echo", {"message": "here"}) == "here", guest.ports())
    port = guest.ports()["later"]

    begin = guest.now()
    guest.write(CONFIG, '{"mcpServers": {"old": ', "0660", "root:mcp-orchestrator")
    began = time.monotonic()
    done = guest.run(f"systemctl reload {UNIT}", check=False, secs=60)
    took = time.monotonic() - began
    say("reload: a broken file is refused in time", took < RELOAD_SECS, f"{took:.2f} s, exit {done.code} {done.all}")
    seen = guest.show("ActiveState", "MainPID", "StatusText")
    say("reload: and ends nothing", (seen["ActiveState"], int(seen["MainPID"])) == ("active", pid), seen)
    warned = eventually(
        "a warning in the journal",
        10,
        lambda: guest.journal(f"--since={begin}", f"--unit={UNIT}", "--priority=warning"),
    )
    say(
        "reload: and is warned of with its place",
        any("mcp.config.json:1" in str(entry["MESSAGE"]) for entry in warned),
        warned[0]["MESSAGE"],
    )
    say(
        "reload: and the old configuration stays",
        site.call("later", "echo", {"message": "still"}) == "still",
        f"generation {generation(site)}",
    )
    try:
        text = eventually("the status names the file", 10, lambda: names_file(guest.show("StatusText")))
    except Late:
        text = None
    say("reload: and `systemctl status` says so", text, text or guest.show("StatusText"))

    site.configure(usual_servers())
    say("reload: a mended file goes on by itself", True, site.status()["sentence"])
    eventually("the port of the removed server is closed", 30, lambda: not listens(guest, port))
    now = int(guest.show("NFileDescriptorStore"))
    say("reload: the port of a removed server is closed, not leaked", now == stored > 0, f"port {port}; {now} stored")


def names_file(text):
    """The text when it names the configuration's file."""
    return ("mcp.config.json" in text or "configuration" in text) and text


def generation(site):
    """The generation of the configuration that answers, as the main listener says."""
    _status, text = site.http("/readyz")
    return json.loads(text)["generation"]


def listens(guest, port):
    """Whether something in the guest listens on this port."""
    return guest.run(f"ss --listening --tcp --numeric --no-header 'sport = :{port}'").out.strip()


# ---- restarting under load -----------------------------------------------------------------------------


def restart(site):
    """`systemctl restart` under load: nobody notices."""
    guest, say = site.guest, site.report.check
    with Load(guest, site.workers()) as load:
        before, who = guest.containers(), identity(site)
        pid = guest.pid()
        figures = load.disturbed_by(lambda: guest.run(f"systemctl restart {UNIT}"))
        unchanged(site, "restart", (pid, before, who), figures)
        say("restart: requests under way finish", total(figures, "cut") == 0, told(figures))
        say("restart: sessions go on", total(figures, "failed") == 0, told(figures))
        say(
            "restart: it took", True, f"{max(figure['slowest'] for figure in figures.values())} ms for the slowest call"
        )


def held_by_systemd(site):
    """The optional socket unit: systemd holds the main listener, and the first connection starts the daemon."""
    guest, say = site.guest, site.report.check
    socket = UNIT.replace(".service", ".socket")
    before = listens(guest, MAIN_PORT)
    guest.run(f"systemctl stop {UNIT} && systemctl start {socket}")
    now = listens(guest, MAIN_PORT)
    seen = guest.show("ActiveState"), " ".join(now.split())
    # Another address than that of the settings: the unit's own counts.
    say("socket unit: it listens while the daemon is stopped", now and now != before and seen[0] == "inactive", seen)
    # It may answer before it has looked at anything.
    status, _text = site.http("/readyz")
    active = guest.show("ActiveState") in ("active", "activating")
    say("socket unit: the first connection starts the daemon and is answered", active and status in (200, 503), status)
    site.await_well()
    state = guest.show("ActiveState", unit=socket)
    say("socket unit: systemd finds it whole", state == "active", f"{state}, {listens(guest, MAIN_PORT).split()[:4]}")
    main = {name: worker for name, worker in site.workers().items() if name in ("main", "edge")}
    with Load(guest, main) as load:
        figures = load.disturbed_by(lambda: guest.run(f"systemctl restart {UNIT}"))
        fine = sum(total(figures, kind) for kind in ("refused", "cut", "failed")) == 0
        say("socket unit: a restart refuses nobody", fine, told(figures))
    # As before it: the daemon binds by itself.
    guest.run(f"systemctl stop {socket} {UNIT}; systemctl start {UNIT}")
    site.await_well()
    say("socket unit: without it again", site.http("/readyz")[0] == 200, guest.show("NFileDescriptorStore"))


def kill(site):
    """`kill -9` under load: what was under way is lost, nothing is refused."""
    guest, say = site.guest, site.report.check
    with Load(guest, site.workers()) as load:
        before, who = guest.containers(), identity(site)
        pid, restarts = guest.pid(), int(guest.show("NRestarts"))

        def act():
            guest.run(f"kill -KILL {pid}")
            site.await_pid(pid)

        figures = load.disturbed_by(act)
        unchanged(site, "kill -9", (pid, before, who), figures)
        # One request of each client, and one more while the daemon is going.
        most = 2 * len(figures)
        say("kill -9: only what was under way is cut off", total(figures, "cut") <= most, told(figures))
        say("kill -9: sessions go on", total(figures, "failed") == 0, told(figures))
        again = int(guest.show("NRestarts"))
        say("kill -9: systemd restarted it", again == restarts + 1, f"NRestarts {again}")


def hang(site):
    """A daemon that hangs is ended by the watchdog and started again."""
    guest, say = site.guest, site.report.check
    # The shipped limit was looked at after the installation; this one saves the test's time.
    with drop_in(guest, f"[Service]\nWatchdogSec={HANG_SECS}"), Load(guest, site.workers()) as load:
        before, who = guest.containers(), identity(site)
        pid, begin = guest.pid(), guest.now()
        limit = seconds(guest.show("WatchdogUSec"))

        def act():
            guest.run(f"kill -STOP {pid}")
            began = time.monotonic()
            site.await_pid(pid, 2 * limit + 60)
            say(
                "hang: the watchdog ends it",
                True,
                f"restarted after {time.monotonic() - began:.1f} s, limit {limit:.0f} s",
            )

        figures = load.disturbed_by(act)
        unchanged(site, "hang", (pid, before, who), figures)
        entries = guest.journal(f"--since={begin}", f"UNIT={UNIT}")
        words = [entry["MESSAGE"] for entry in entries if "atchdog" in str(entry["MESSAGE"])]
        say("hang: the journal says why", words, words[:1])


@contextlib.contextmanager
def drop_in(guest, text):
    """Further lines for the unit, until the next boot or the end of the block."""
    directory = f"/run/systemd/system/{UNIT}.d"
    guest.run(f"mkdir -p {directory}")
    guest.write(f"{directory}/90-boot-test.conf", text + "\n")
    guest.run(f"systemctl daemon-reload && systemctl restart {UNIT}")
    try:
        yield
    finally:
        guest.run(f"rm -r {directory}; systemctl daemon-reload; systemctl restart {UNIT}", check=False)


def unchanged(site, title, before, figures):
    """What no end of the daemon may change: open ports, containers, connections to servers."""
    pid, containers, who = before
    say = site.report.check
    say(f"{title}: not one connection refused", total(figures, "refused") == 0, told(figures))
    site.await_pid(pid)
    site.await_well()
    after = site.guest.containers()
    say(f"{title}: the same containers", after == containers, sorted(after))
    now = identity(site)
    say(
        f"{title}: shared connections are taken up again",
        now == who,
        f"process {now[0]}, greeted {now[1]} times; before: {who[0]}, {who[1]}",
    )


def identity(site):
    """The process behind a shared connection, and how often it was greeted."""
    process = json.loads(site.call("old", "nasty_who"))["process"]
    return process, json.loads(site.call("old", "nasty_counters"))["initializes"]


def seconds(text):
    """A time span as systemd writes it, in seconds."""
    factors = {"ms": 0.001, "us": 1e-6, "s": 1, "min": 60, "h": 3600}
    return sum(float(number) * factors[unit] for number, unit in re.findall(r"([\d.]+)(ms|us|s|min|h)\b", text))


# ---- packages ------------------------------------------------------------------------------------------


def next_version(deb, where):
    """The same package with a higher version, as an upgrade would be."""
    tree = where / "next"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    version = re.search(r"^Version: (.*)$", text, re.M).group(1)
    control.write_text(text.replace(f"Version: {version}\n", f"Version: {version}+next1\n"))
    made = where / "next.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return made


def upgrade(site):
    """The next version of the package under load, with an edited configuration."""
    guest, say = site.guest, site.report.check
    guest.run(f"printf '\\n# edited by the administrator\\n' >>{SETTINGS}")
    sums = f"sha256sum {CONFIG} {SETTINGS}"
    kept = guest.run(sums).out
    with Load(guest, site.workers()) as load:
        before, who = guest.containers(), identity(site)
        pid = guest.pid()

        def act():
            done = guest.run("dpkg --install --force-confdef --force-confold /var/tmp/next.deb", check=False)
            say("upgrade: the package upgrades", done.code == 0, done.all[-160:])

        figures = load.disturbed_by(act)
        unchanged(site, "upgrade", (pid, before, who), figures)
        say(
            "upgrade: requests under way finish, sessions go on",
            total(figures, "cut") + total(figures, "failed") == 0,
            told(figures),
        )
    version = guest.run(f"dpkg-query --show --showformat='${{Version}}' {PACKAGE}").out
    say("upgrade: the next version is there", version.endswith("+next1"), version)
    say("upgrade: edited files stay", guest.run(sums).out == kept, kept.split()[1::2])


def remove(site):
    """Removing keeps what the administrator owns, purging does not; no container is left without a word."""
    guest, say = site.guest, site.report.check
    before = guest.containers()
    done = guest.run(f"dpkg --remove {PACKAGE}", check=False)
    say("remove: the package goes", done.code == 0, done.all[-160:])
    left = guest.run("pgrep --list-full --full /usr/bin/mcp-orchestrator", check=False).out
    say("remove: no process is left", not left, left or "none")
    say("remove: nobody listens any more", not listens(guest, MAIN_PORT), f"port {MAIN_PORT}")
    say("remove: containers go on running", guest.containers(every=False) == before, sorted(before))
    kept = guest.run(f"ls {CONFIG} /var/lib/mcp-orchestrator/state.db", check=False)
    say("remove: configuration and state are kept", kept.code == 0, kept.all)
    guest.run("dpkg --install /var/tmp/next.deb")
    site.await_well()
    say("remove: installed again, the same containers are taken up", guest.containers() == before, sorted(before))
    done = guest.run(f"dpkg --purge {PACKAGE}", check=False)
    say("purge: the package goes", done.code == 0, done.all[-300:])
    left = guest.run(
        "ls -d /etc/mcp-orchestrator /var/lib/mcp-orchestrator /run/mcp-orchestrator /etc/credstore*/*mcp* 2>/dev/null",
        check=False,
    ).all
    say("purge: configuration, state and secrets are gone", not left, left or "nothing left")
    failed = guest.run("systemctl --failed --plain --no-legend", check=False).all
    say("purge: no unit has failed", not failed, failed or "none")
    running = sorted(guest.containers())
    named = all(name in done.all for name in running) or "managed-by=mcp-orchestrator" in done.all
    say("purge: it says which containers are left, or leaves none", not running or named, f"left: {running}")
