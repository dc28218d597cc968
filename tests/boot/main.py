#!/usr/bin/env python3
"""The boot test: the package in a real Debian with a real systemd and a Docker engine of its own.

main.py ROOT DEB FIXTURE LOGS [SCENARIO...]; run.sh makes ROOT and cleans up.
"""

import pathlib
import signal
import subprocess
import sys
import traceback

import faults
import life
import look
from guest import UNIT, Broken, Guest, Late, eventually
from product import FIXTURE_IMAGE, Report, Site

HERE = pathlib.Path(__file__).resolve().parent
# In this order; the first is the ground of all others.
SCENARIOS = {
    "install": life.install,
    "files": look.files,
    "hardening": life.hardening,
    "configure": life.configure,
    "reload": life.reload,
    "restart": life.restart,
    "socket": life.held_by_systemd,
    "kill": life.kill,
    "hang": life.hang,
    "processes": look.processes,
    "credentials": look.credentials,
    "log-level": look.log_level,
    "engine": faults.engine_dies,
    "disk-full": faults.disk_full,
    "read-only-etc": faults.read_only_etc,
    "reboot": faults.reboot,
    "boot-without-engine": faults.boot_without_engine,
    "journal": look.journal,
    "second-install": life.second_install,
    "upgrade": life.upgrade,
    "remove": life.remove,
}
# Always done.
GROUND = ("install", "configure")
# So many scenarios in a row that find no working daemon are enough.
LOST_MAX = 2


def image(guest, name, tree, *changes):
    """An image in the guest's engine from a directory."""
    words = " ".join(f"--change '{change}'" for change in changes)
    packed = subprocess.run(
        ["tar", "--directory", tree, "--create", "--owner=0", "--group=0", "."], check=True, capture_output=True
    )
    guest.run(f"docker import {words} - {name}", stdin=packed.stdout)


def prepare(guest, deb, fixture, work):
    """What is in the guest before the package: images, packages to install, a script for node."""
    place = guest.path("/var/tmp")
    for name, source in (("first.deb", deb), ("next.deb", life.next_version(deb, work))):
        subprocess.run(["cp", source, place / name], check=True)
    subprocess.run(["install", "-D", "-m", "0644", HERE / "server.js", guest.path(look.SERVER_JS)], check=True)
    tree = work / "fixture"
    subprocess.run(["install", "-D", "-m", "0755", fixture, tree / "mcp-fixture"], check=True)
    image(guest, FIXTURE_IMAGE, tree, 'ENTRYPOINT ["/mcp-fixture"]', "USER 65532:65532")
    # The example's image is made by the package's own means, before the package is there.
    package = work / "next"
    for file in ("usr/bin/mcp-orchestrator", "usr/lib/mcp-orchestrator/example-image"):
        subprocess.run(["cp", package / file, place], check=True)
    guest.run("/var/tmp/example-image /var/tmp/mcp-orchestrator && rm /var/tmp/example-image /var/tmp/mcp-orchestrator")


def boot(guest, report):
    """The guest, ready for the package."""
    state = guest.start()
    version = guest.run("systemctl --version | head -n 1").out.strip()
    report.check("guest: systemd is up", state == "running", f"{state}, {version}")
    eventually("dockerd answers", 60, lambda: guest.run("docker version --format '{{.Server.Version}}'").out)
    engine = guest.run("docker info --format '{{.ServerVersion}}, {{.Driver}}, cgroup {{.CgroupVersion}}'").out
    report.check("guest: its own engine is up", True, engine)


def play(site, names):
    """The scenarios; those after a daemon that is lost for good fail without being tried."""
    lost = 0
    for name in names:
        if lost >= LOST_MAX:
            site.report.check(f"{name}, not tried: the daemon did not come back {LOST_MAX} times", False)
            continue
        with site.report.scenario(name):
            if name not in GROUND:
                lost += 1
                site.repair()
                lost = 0
            SCENARIOS[name](site)


def collect(guest, logs):
    """What is needed to understand a failure."""
    for name, command in {
        "journal.txt": "journalctl --no-pager --output=short-precise",
        "events.json": f"journalctl --no-pager --unit={UNIT} --output=json",
        "unit.txt": f"systemctl status --no-pager --full --lines=0 {UNIT}; systemctl show {UNIT}",
        "containers.txt": "docker ps --all --no-trunc",
    }.items():
        done = guest.run(command, check=False)
        (logs / name).write_text(done.out + done.err)


def main():
    root, deb, fixture, logs, *wanted = sys.argv[1:]
    unknown = set(wanted) - set(SCENARIOS)
    if unknown:
        sys.exit(f"unknown scenarios: {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    # A signal must not leave the guest behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    logs, work = pathlib.Path(logs), pathlib.Path(root).parent
    report = Report()
    guest = Guest(root, logs / "console.txt")
    site = Site(guest, report)
    try:
        with report.scenario("guest"):
            boot(guest, report)
            prepare(guest, deb, fixture, work)
            play(site, [name for name in SCENARIOS if not wanted or name in wanted or name in GROUND])
    except Exception:  # The count below must be told whatever happens.
        report.check("the boot test itself", False, traceback.format_exc())
    finally:
        try:
            collect(guest, logs)
        except (Late, Broken, OSError, subprocess.SubprocessError) as error:
            report.note(f"the logs of the guest cannot be read: {error}")
        guest.kill()
    for title in report.failures:
        print(f"failed: {title}")
    print(f"{report.passed} passed, {len(report.failures)} failed", flush=True)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
