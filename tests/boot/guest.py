"""A Debian guest with a real systemd and its own Docker engine, under systemd-nspawn.

It has its own network, its own cgroup tree and its own root; nothing of the host is changed but the
directory it lives in. It dies with this process, however that ends.
"""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import time

# Longest a single command in the guest may take.
COMMAND_SECS = 120
# Longest a boot may take until systemd has nothing left to start.
BOOT_SECS = 120
# Longest a machine may take to end by itself before it is ended.
END_SECS = 30
# How systemd-nspawn ends when the guest asked for a reboot and it is not to do that itself.
REBOOTED = 133
# Between two looks at something that is waited for.
LOOK = 0.05
UNIT = "mcp-orchestrator.service"
BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "NO_COLOR": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}
# The cgroup tree of the guest is version 2 whatever the host has; the mount is this process' own.
BOOT = """
umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --settings=no --boot --directory="$1" \
  --machine="$2" --hostname=boot-test --keep-unit --register=no --link-journal=no --console=pipe \
  --resolv-conf=off --timezone=off --private-network --capability=all \
  --system-call-filter="bpf keyctl add_key request_key"
"""


class Late(Exception):
    """What was waited for did not come."""


class Broken(Exception):
    """A command that must succeed did not."""


def eventually(what, secs, look, pause=LOOK):
    """Polls until `look` returns something true, and returns it."""
    deadline = time.monotonic() + secs
    while True:
        last = "nothing"
        try:
            found = look()
            if found:
                return found
        except (Broken, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() > deadline:
            raise Late(f"not within {secs} s: {what} (last: {last})")
        time.sleep(pause)


def descendants(pid):
    """All processes below this one."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def is_init(pid):
    """Whether this is process 1 of a PID namespace of its own, and systemd already."""
    with contextlib.suppress(OSError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
        comm = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        return len(inner) > 2 and inner[-1] == "1" and comm == "systemd"
    return False


class Done:
    """How a command ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def all(self):
        """Both outputs, white space folded."""
        return " ".join(f"{self.out} {self.err}".split())


class Guest:
    """The machine."""

    def __init__(self, root, console):
        self.root = pathlib.Path(root)
        self.console = open(console, "ab")
        self.nspawn = None
        self.leader = None

    # ---- life ---------------------------------------------------------------------------------

    def start(self):
        """Boots and waits until systemd has nothing left to start; returns its state."""
        name = f"mcpo-boot-{os.getpid()}"
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        command += ["bash", "-ec", BOOT, "boot", str(self.root), name]
        self.nspawn = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, start_new_session=True
        )
        return self.await_boot()

    def alive(self):
        """Whether the machine runs."""
        return self.nspawn is not None and self.nspawn.poll() is None

    def find_leader(self):
        """The guest's process 1, as the host sees it."""
        if self.nspawn.poll() is not None:
            raise Late(f"systemd-nspawn ended with code {self.nspawn.returncode}; see the console log")
        return next((pid for pid in descendants(self.nspawn.pid) if is_init(pid)), None)

    def await_boot(self):
        """Waits for process 1 and for the end of the boot."""
        self.leader = eventually("the guest has a process 1", BOOT_SECS, self.find_leader)
        done = eventually(
            "the guest answers",
            BOOT_SECS,
            lambda: (lambda d: d if d.out.strip() in ("running", "degraded") else None)(
                self.run("systemctl is-system-running --wait", check=False)
            ),
        )
        return done.out.strip()

    def reboot(self):
        """Reboots as an administrator does."""
        self.run("systemctl --no-block reboot")
        code = self.nspawn.wait(BOOT_SECS)
        if code != REBOOTED:
            raise Late(f"systemd-nspawn ended with code {code}; see the console log")
        return self.start()

    def cut_power(self):
        """Ends everything at once and boots again."""
        self.kill()
        return self.start()

    def kill(self):
        """Ends everything at once."""
        if not self.alive():
            return
        for sign in (signal.SIGKILL, signal.SIGTERM):
            with contextlib.suppress(OSError):
                os.kill(self.leader or self.nspawn.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.nspawn.wait(END_SECS)
                return
        self.nspawn.kill()
        self.nspawn.wait()

    # ---- commands -------------------------------------------------------------------------------

    def enter(self, *words, net_only=False):
        """The command line that runs these words in the guest, or only in its network."""
        if net_only:
            return ["nsenter", "--target", str(self.leader), "--net", "--", *words]
        variables = [f"{name}={value}" for name, value in BASE_ENVIRONMENT.items()]
        return ["nsenter", "--target", str(self.leader), "--all", "--", "env", "-i", "--chdir=/", *variables, *words]

    def run(self, script, check=True, stdin=None, secs=COMMAND_SECS):
        """Runs a shell script in the guest."""
        done = subprocess.run(
            self.enter("bash", "-c", script),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=secs,
            check=False,
        )
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        if check and done.returncode != 0:
            raise Broken(f"`{script[:200]}` ended with {done.returncode}: {err.strip()[-600:]} {out.strip()[-300:]}")
        return Done(done.returncode, out, err)

    def json(self, script):
        """The output of a script as JSON."""
        return json.loads(self.run(script).out)

    def path(self, inside):
        """A path of the guest's disk as the host sees it. What the guest mounted does not show."""
        return self.root / inside.lstrip("/")

    def live_path(self, inside):
        """The same with what the guest mounted."""
        return pathlib.Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def write(self, inside, text, mode="0644", owner="root:root"):
        """Writes a file at once: readers see the old one or the new one."""
        where = shlex.quote(inside)
        steps = ["set -e", "umask 077", "cat >$f.new", f"chown {owner} $f.new", f"chmod {mode} $f.new", "mv $f.new $f"]
        self.run(f"f={where}; {'; '.join(steps)}", stdin=text.encode())

    # ---- systemd and the journal ------------------------------------------------------------------

    def show(self, *properties, unit=UNIT):
        """Properties of a unit; one alone as its value."""
        out = self.run(f"systemctl show {unit} --property={','.join(properties)}").out
        found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        return found.get(properties[0], "") if len(properties) == 1 else found

    def pid(self, unit=UNIT):
        """The main process of a unit, as the guest counts; 0 when it does not run."""
        return int(self.show("MainPID", unit=unit) or 0)

    def journal(self, *words):
        """Entries of the journal that match, as the journal has them."""
        out = self.run(f"journalctl --quiet --no-pager --all --output=json {shlex.join(words)}").out
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def now(self):
        """The time, as journalctl's --since takes it. Its cursors skip an entry when there are matches, too."""
        return self.run("date +@%s.%6N").out.strip()

    # ---- the engine and the product -----------------------------------------------------------------

    def containers(self, every=True):
        """Containers of ours: name to id and start."""
        flag = "--all" if every else ""
        out = self.run(
            f"docker ps {flag} --quiet --no-trunc --filter label=managed-by=mcp-orchestrator"
            " | xargs --no-run-if-empty docker inspect --format '{{.Name}} {{.Id}} {{.State.StartedAt}}'"
        ).out
        return {line.split()[0].lstrip("/"): tuple(line.split()[1:]) for line in out.splitlines()}

    def ports(self):
        """The leased port of each server."""
        leases = self.json("mcp-orchestrator ports --json")["leases"]
        return {server: lease["port"] for server, lease in leases.items()}
