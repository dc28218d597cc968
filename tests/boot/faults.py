"""What fails around the daemon: the engine, the disk, the power."""

import json
import time

from guest import UNIT, eventually
from life import identity
from product import CONFIG, EXAMPLE_IMAGE, FIXTURE_IMAGE, Load, fixture, told, total, usual_servers

# The engine is back: everything must run again within this time, in seconds.
RESYNC_SECS = 60
# Size of the small disk for the state, in KiB.
SMALL_DISK = 3072
# What clients may be told while the engine is away (docs/operations.md): the connection to the server was
# lost, or the server is not there.
GAP = {"200 -32603", "503 -32603"}
STATE = "/var/lib/mcp-orchestrator"


# ---- the engine ------------------------------------------------------------------------------------


def engine_dies(site):
    """dockerd is killed and starts again, under load: the daemon is not dragged down and picks everything up."""
    guest, say = site.guest, site.report.check
    pid, ports, begin = guest.pid(), guest.ports(), guest.now()
    old = guest.pid("docker.service")
    took = []

    def die():
        began = time.monotonic()
        guest.run("systemctl kill --signal=KILL --kill-whom=main docker.service")
        eventually("another dockerd", 60, lambda: guest.pid("docker.service") not in (0, old))
        site.await_well(RESYNC_SECS)
        # The status may still be that of before: that calls are answered is the proof.
        for server in site.servers:
            eventually(f"{server} answers", RESYNC_SECS, lambda server=server: site.call(server, "echo", {"message": "x"}))
        took.append(time.monotonic() - began)

    # A container that is published directly has its port from the engine, and its sessions are its own.
    workers = {name: worker for name, worker in site.workers().items() if name != "direct"}
    with Load(guest, workers) as load:
        figures = load.disturbed_by(die)
        after = load.disturbed_by(lambda: None)
    kinds = {kind for figure in figures.values() for kind in figure["kinds"]}
    say(
        "dockerd killed under load: no connection is refused or cut",
        total(figures, "refused") + total(figures, "cut") == 0,
        told(figures),
    )
    say(
        "dockerd killed under load: errors are the documented ones",
        kinds and kinds <= GAP,
        {name: figure["kinds"] for name, figure in figures.items()},
    )
    say(
        "dockerd killed under load: afterwards every call is answered, in the same sessions",
        total(after, "refused") + total(after, "cut") + total(after, "failed") == 0,
        told(after),
    )
    seen = guest.show("MainPID", "NRestarts", "ActiveState")
    say("dockerd killed: the daemon stays", int(seen["MainPID"]) == pid, seen)
    answers = [site.call(server, "echo", {"message": server}) for server in site.servers]
    say(
        "dockerd killed: every server is back on its port",
        (answers, guest.ports()) == (list(site.servers), ports),
        f"{took[0]:.1f} s, {ports}",
    )
    say(
        "dockerd killed: no container twice",
        sorted(guest.containers()) == sorted(f"mcp-{name}" for name in site.servers),
        sorted(guest.containers()),
    )
    running = guest.run(f"docker ps --quiet --filter ancestor={FIXTURE_IMAGE}").out.split()
    processes = guest.run("pgrep --count --full ^/mcp-fixture", check=False).out.strip()
    say(
        "dockerd killed: no process is left over",
        int(processes) == len(running) == len(site.servers),
        f"{processes} processes in {len(running)} containers",
    )

    guest.run("systemctl stop docker.socket docker.service")
    text = eventually("the status says that the engine is away", 60, lambda: says_engine_away(guest))
    say(
        "docker stopped: it stays active and says so",
        guest.show("ActiveState") == "active" and guest.pid() == pid,
        text,
    )
    code, checks = doctor(guest)
    away = [check for check in checks if (check["topic"], check["verdict"]) == ("engine", "fail")]
    remedy = away and away[0].get("remedy", "")
    say("docker stopped: `doctor` fails and says what helps", code == 1 and "systemctl start docker" in str(remedy), away)
    began = time.monotonic()
    guest.run("systemctl start docker.service")
    site.await_well(RESYNC_SECS)
    say("docker started: everything is back, same process", guest.pid() == pid, f"{time.monotonic() - began:.1f} s")
    code, checks = doctor(guest)
    fails = [check for check in checks if check["verdict"] == "fail"]
    unit = {check["verdict"] for check in checks if check["topic"] == "systemd"}
    say("docker started: `doctor` fails nothing, the unit is as shipped", (code, fails, unit) == (0, [], {"ok"}), fails or unit)
    changed_unit(guest, say)
    for who, group, words in (
        ("nobody", "nogroup", ("settings.conf", "Permission denied", "sudo mcp-orchestrator doctor")),
        ("a member of our group only", "mcp-orchestrator", ("docker.sock", "usermod -aG docker")),
    ):
        code, checks = doctor(guest, f"setpriv --reuid nobody --regid {group} --clear-groups ")
        said = str([check for check in checks if check["verdict"] == "fail"])
        fine = code == 1 and all(word in said for word in words)
        say(f"docker started: `doctor` by {who} says what it may not do", fine, said[:400])
    for event, title in (("973c37c2062d455ab9981de13d5f16e1", "away"), ("17d33d228bd249b8a31d40cd4dfc77bb", "back")):
        entries = guest.journal(f"--since={begin}", f"--unit={UNIT}", f"MESSAGE_ID={event}")
        say(f"docker stopped: the journal has the event '{title}'", entries, entries[:1] and entries[0]["MESSAGE"])


def changed_unit(guest, say):
    """A unit that does not start at boot and whose file was changed by hand: `doctor` says both."""
    place = "/etc/systemd/system/mcp-orchestrator.service.d"
    # systemd looks for changes of files that it has read, and `disable` has it read them.
    guest.run(f"mkdir -p {place} && echo '[Service]' > {place}/changed.conf")
    guest.run("systemctl disable mcp-orchestrator && systemctl daemon-reload")
    guest.run(f"printf '[Service]\\nFileDescriptorStoreMax=0\\n' > {place}/changed.conf")
    _, checks = doctor(guest)
    said = str([check for check in checks if check["topic"] == "systemd"])
    fine = all(words in said for words in ("systemctl enable mcp-orchestrator", "systemctl daemon-reload"))
    say("unit disabled and changed by hand: `doctor` says what helps", fine, said)
    guest.run(f"rm -r {place} && systemctl enable mcp-orchestrator && systemctl daemon-reload")


def doctor(guest, by=""):
    """Its exit code and its checks."""
    done = guest.run(f"{by}mcp-orchestrator doctor --json", check=False)
    return done.code, json.loads(done.out)["checks"]


def says_engine_away(guest):
    """The status sentence once it names the engine."""
    text = guest.show("StatusText")
    return ("ocker" in text or "engine" in text) and text


def boot_without_engine(site):
    """The power goes while things run, and the engine does not come back with it."""
    guest, say = site.guest, site.report.check
    ports = guest.ports()
    guest.run("systemctl mask docker.service docker.socket; sync")
    guest.cut_power()
    seen = eventually(
        "the unit is active",
        60,
        lambda: (lambda s: s["ActiveState"] == "active" and s)(guest.show("ActiveState", "StatusText", "NRestarts")),
    )
    text = eventually("the status says that the engine is away", 30, lambda: says_engine_away(guest))
    say("boot without docker: active, and says so", True, text)
    say("boot without docker: at the first try", seen["NRestarts"] == "0", seen)
    began = time.monotonic()
    guest.run("systemctl unmask docker.service docker.socket; systemctl start docker.service")
    site.await_well(RESYNC_SECS)
    process, greeted = identity(site)
    say("boot without docker: servers that began anew are greeted", greeted == 1, f"{process}, greeted {greeted} times")
    say(
        "boot without docker: it comes later, and everything is back",
        guest.ports() == ports,
        f"{time.monotonic() - began:.1f} s, {ports}",
    )


def reboot(site):
    """Everything is back after a reboot, on the same ports, without a hand."""
    guest, say = site.guest, site.report.check
    ports, names = guest.ports(), sorted(guest.containers())
    began = time.monotonic()
    state = guest.reboot()
    site.await_well(RESYNC_SECS)
    say(
        "reboot: everything is back without a hand",
        state == "running",
        f"{time.monotonic() - began:.1f} s, {state}, {site.status()['sentence']}",
    )
    say("reboot: the same ports", guest.ports() == ports, ports)
    say("reboot: the same containers by name, none besides", sorted(guest.containers()) == names, names)
    answers = [site.call(server, "echo", {"message": server}) for server in site.servers]
    say("reboot: each server answers", answers == list(site.servers), answers)
    process, greeted = identity(site)
    say("reboot: servers that began anew are greeted", greeted == 1, f"process {process}, greeted {greeted} times")


# ---- the disk -----------------------------------------------------------------------------------------


def disk_full(site):
    """The disk with the state runs full: what runs goes on, and the daemon recovers by itself."""
    guest, say = site.guest, site.report.check
    guest.run(f"""set -e
      systemctl stop {UNIT}
      mount -t tmpfs -o size={SMALL_DISK}k tmpfs /mnt
      cp -a {STATE}/. /mnt/ && chown --reference={STATE} /mnt && chmod --reference={STATE} /mnt
      mount --bind /mnt {STATE}
      systemctl start {UNIT}""")
    try:
        site.await_well()
        pid, begin, ports = guest.pid(), guest.now(), guest.ports()
        with Load(guest, site.workers()) as load:

            def fill():
                guest.run(f"dd if=/dev/zero of={STATE}/fill bs=4k status=none; true")
                site.configure({**usual_servers(), "late": fixture("--era", "legacy")}, wait=False)
                guest.run(f"systemctl reload {UNIT}", check=False)
                said = eventually("the full disk is noticed", 60, lambda: disk_words(guest, begin))
                say("disk full: the journal says so", True, said)

            figures = load.disturbed_by(fill)
        full = guest.run(f"df --output=avail {STATE} | tail -n 1").out.strip()
        say(
            "disk full: what runs goes on",
            total(figures, "refused") + total(figures, "cut") + total(figures, "failed") == 0,
            f"{full} KiB free; {told(figures)}",
        )
        seen = guest.show("ActiveState", "MainPID", "StatusText")
        say("disk full: the daemon survives", (seen["ActiveState"], int(seen["MainPID"])) == ("active", pid), seen)
        shown = guest.run("mcp-orchestrator status", check=False).all
        say("disk full: `status` says so", any(word in shown for word in DISK_WORDS), shown[:300])
        restarted = guest.run(f"systemctl restart {UNIT}", check=False)
        seen = guest.show("ActiveState", "StatusText")
        say(
            "disk full: a restart on the full disk keeps the servers",
            restarted.code == 0 and site.call("old", "echo", {"message": "full"}) == "full",
            seen,
        )
        guest.run(f"rm {STATE}/fill")
        site.await_well(90)
        say(
            "disk full: with room again it recovers by itself",
            site.call("late", "echo", {"message": "late"}) == "late",
            site.status()["sentence"],
        )
        kept = {name: port for name, port in guest.ports().items() if name in ports}
        say("disk full: the same ports", kept == ports, kept)
    finally:
        guest.run(
            f"""systemctl stop {UNIT}
          umount {STATE} && rm -f /mnt/fill && cp -a /mnt/. {STATE}/ && umount /mnt
          systemctl start {UNIT}""",
            check=False,
        )
    site.configure(usual_servers())


# What a full disk may be called.
DISK_WORDS = ("disk is full", "disk full", "No space left", "ENOSPC", "disk or state")


def disk_words(guest, begin):
    """The first entry of ours that names the full disk."""
    entries = guest.journal(f"--since={begin}", f"--unit={UNIT}", "--priority=warning")
    return next(
        (str(entry["MESSAGE"]) for entry in entries if any(word in str(entry["MESSAGE"]) for word in DISK_WORDS)), None
    )


def read_only_etc(site):
    """/etc cannot be written: the daemon starts, runs and reads as ever."""
    guest, say = site.guest, site.report.check
    guest.run("""set -e
      mount -t tmpfs -o size=64m,mode=0755 tmpfs /mnt
      cp -a /etc/. /mnt/
      mount --bind /mnt /etc
      mount -o remount,ro /mnt""")
    try:
        refused = guest.run(f"touch {CONFIG}.new", check=False)
        say("read-only /etc: it is", "Read-only" in refused.err, refused.err)
        done = guest.run(f"systemctl restart {UNIT}", check=False)
        site.await_well()
        say("read-only /etc: the daemon starts and converges", done.code == 0, guest.show("StatusText"))
        done = guest.run(f"systemctl reload {UNIT}", check=False)
        say("read-only /etc: reload works", done.code == 0, done.all)
        say("read-only /etc: servers answer", site.call("old", "echo", {"message": "ro"}) == "ro")
        written = write_config(site)
        say(
            "read-only /etc: a write is refused in words",
            written is None or any(word in written for word in ("ead-only", "EROFS")),
            written or "no command writes there yet",
        )
    finally:
        guest.run(f"umount /etc; umount /mnt; systemctl restart {UNIT}", check=False)
    site.await_well()


def write_config(site):
    """What the product says when it is asked to write its configuration, when it can be asked at all."""
    entry = {"mcpServers": {"imported": {"command": "docker", "args": ["run", "-i", EXAMPLE_IMAGE]}}}
    site.guest.write("/run/import.json", json.dumps(entry))
    for command in ("import /run/import.json", "discover /run/import.json --write"):
        done = site.guest.run(f"mcp-orchestrator {command}", check=False)
        if "unrecognized" not in done.all and "not implemented" not in done.all and done.code != 2:
            return done.all
    return None
