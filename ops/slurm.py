"""A private Slurm in a directory of ours: munge, accounting, controller and nodes on one host.

Each daemon is a child of ours and ends with the thread that started it. Jobs are no children of
ours: `stop` cancels them, and ends what a killed node has left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ops import errors, processes, services, slurm_configuration, sshd
from ops.slurm_configuration import Layout

READY_LIMIT_S = 60.0
COMMAND_LIMIT_S = 30.0
ATTEMPTS = 3
DAEMON_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin")
CGROUPS = Path("/sys/fs/cgroup")


def find_program(name: str, package: str) -> Path:
    """A daemon on PATH, or where an ordinary user's PATH does not lead."""
    places = [os.environ.get("PATH", os.defpath), *DAEMON_PLACES]
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        raise errors.MissingProgram(
            f"No {name} here: install {package} (on Debian and Ubuntu: apt install {package})."
        )
    return Path(found)


def can_use_cgroups() -> bool:
    """Whether Slurm can confine jobs here: by the first version of cgroups, and as root.

    The second version needs a cgroup that was handed over to us, which a container seldom has.
    """
    needed = (CGROUPS / "memory", CGROUPS / "freezer")
    return os.geteuid() == 0 and all(os.access(path, os.W_OK) for path in needed)


class Slurm:
    """One private cluster. `environment` is what its commands and clients need to reach it.

    `accounts`: it knows them, and those whom `admit` lets in may run jobs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 2,
        with_accounting: bool = True,
        accounts: sshd.Accounts | None = None,
        pause: processes.Pause = time.sleep,
    ) -> None:
        self.directory = directory
        self._nodes = nodes
        self._with_accounting = with_accounting
        self._accounts = accounts
        self._pause = pause
        self._password = secrets.token_urlsafe(16)
        self._children: dict[str, processes.Child] = {}
        self._layout: Layout | None = None

    # What others need to know -------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            raise errors.NotStarted("This Slurm was not started.")
        return self._layout

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.layout.slurm_conf)}

    @property
    def has_cgroups(self) -> bool:
        return self.layout.has_cgroups

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.layout.nodes

    def command(
        self, *argv: str, environment: Mapping[str, str] | None = None, check: bool = True
    ) -> str:
        """What a Slurm command prints on stdout."""
        done = subprocess.run(
            argv,
            env={**os.environ, "TZ": "UTC", **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise errors.NotStarted(f"{' '.join(argv)} failed: {done.stderr.strip()}")
        return done.stdout

    def is_node_up(self, node: str) -> bool:
        """Whether jobs can start on `node`."""
        states = self.command("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T").split()
        return states in (["idle"], ["mixed"], ["allocated"])

    def admit(self, name: str) -> None:
        """Let one of the accounts run jobs, and wait until the controller has heard of it."""
        account = f"account={slurm_configuration.ACCOUNT}"
        self.command("sacctmgr", "-i", "add", "user", name, account)
        if not processes.wait_until(lambda: self._knows(name), READY_LIMIT_S, self._pause):
            raise errors.NotStarted(f"slurmctld has not heard of the user {name}.")

    def _knows(self, name: str) -> bool:
        shown = self.command("scontrol", "show", "assoc_mgr", "flags=users")
        # A name for which it found no uid has NO_VAL.
        return bool(re.search(rf"UserName={re.escape(name)}\((?!4294967294)\d+\)", shown))

    # Life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all daemons and wait until every node is idle; on other ports if one is taken."""
        for attempt in range(1, ATTEMPTS + 1):
            self._write_configuration()
            try:
                self._start_all()
            except errors.NotStarted:
                self.stop()
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop all daemons and what runs on the nodes; harmless if nothing runs."""
        if "slurmctld" in self._children:
            self._end_jobs()
        for name in ("slurmctld", *self._names_of_nodes(), "slurmdbd", "mariadbd", "munged"):
            self._stop(name)
        if self._layout is not None:
            self._end_leftovers()

    def start_controller(self, *, is_empty: bool = False) -> None:
        """Start slurmctld and wait until it answers; `is_empty`: it forgets every job."""
        options = ("-c",) if is_empty else ()
        self._start("slurmctld", "slurm-wlm", "-D", *options)
        self._wait("slurmctld", self.is_controller_up)

    def stop_controller(self) -> None:
        """Stop slurmctld with SIGTERM: its jobs go on."""
        self._stop("slurmctld")

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._start("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", self.is_accounting_up)

    def stop_accounting(self) -> None:
        """Stop slurmdbd; the controller keeps what it would have told it."""
        self._stop("slurmdbd")

    def freeze_controller(self) -> None:
        """Let slurmctld answer nobody, until `thaw_controller`."""
        self._children["slurmctld"].send(signal.SIGSTOP)

    def thaw_controller(self) -> None:
        self._children["slurmctld"].send(signal.SIGCONT)

    # Steps of the start -------------------------------------------------------------------------

    def _start_all(self) -> None:
        self._start("munged", "munge", *self._munge_options())
        self._wait("munged", self.layout.munge_socket.exists)
        if self._with_accounting:
            self._start_database()
            self.start_accounting()
            self._make_account()
        self.start_controller()
        for node in self.nodes:
            self._start(f"slurmd.{node}", "slurm-wlm", "-D", "-N", node)
        self._wait("slurmctld", self._are_nodes_idle)

    def _munge_options(self) -> tuple[str, ...]:
        here = self.directory / "munge"
        return (
            "--foreground", "--force", "--num-threads=4", f"--socket={self.layout.munge_socket}",
            f"--key-file={here}/munge.key", f"--pid-file={here}/munged.pid",
            f"--log-file={here}/munged.log", f"--seed-file={here}/munged.seed",
        )  # fmt: skip

    def _start_database(self) -> None:
        options = f"--defaults-file={self.directory}/etc/my.cnf"
        if not (self.directory / "mysql" / "mysql").exists():
            program = find_program("mariadb-install-db", "mariadb-server")
            child = processes.start(
                "mariadb-install-db",
                [program, options, f"--user={self.layout.user}", "--skip-test-db"],
                log=self.directory / "log" / "mariadb-install-db.out",
            )
            processes.wait_until(lambda: child.has_ended, READY_LIMIT_S, self._pause)
            if child.collect() != 0:
                log = self.directory / "log" / "mariadb-install-db.out"
                raise errors.NotStarted(f"The database was not made: {services.last_lines(log)}")
        init = f"--init-file={self.directory}/etc/init.sql"
        self._start("mariadbd", "mariadb-server", options, init)
        self._wait("mariadbd", self._is_database_up)

    def _make_account(self) -> None:
        """The cluster, an account and our user in it."""
        cluster, account = self.layout.cluster, slurm_configuration.ACCOUNT
        self.command("sacctmgr", "-i", "add", "cluster", cluster)
        self.command("sacctmgr", "-i", "add", "account", account, f"cluster={cluster}")
        names = dict.fromkeys(("root", self.layout.user))
        users = ",".join(names)
        self.command("sacctmgr", "-i", "add", "user", users, f"account={account}")

    def _is_database_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.layout.database_port)) == 0

    def is_accounting_up(self) -> bool:
        """Whether slurmdbd answers."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.layout.accounting_port)) != 0:
                return False
        try:
            self.command("sacctmgr", "-n", "list", "cluster")
        except errors.NotStarted:
            return False
        return True

    def is_controller_up(self) -> bool:
        """Whether slurmctld answers."""
        try:
            return "UP" in self.command("scontrol", "ping")
        except errors.NotStarted:
            return False

    def _are_nodes_idle(self) -> bool:
        text = self.command(
            "sinfo", "-h", "-p", "main", "-N", "-t", "idle", "-o", "%N", check=False
        )
        return len(text.split()) == len(self.nodes)

    # Steps of the stop --------------------------------------------------------------------------

    def _end_jobs(self) -> None:
        """Cancel all jobs, and wait until none runs; a controller that is down is left alone."""
        with contextlib.suppress(errors.NotStarted, subprocess.TimeoutExpired):
            if not self.is_controller_up():
                return
            if jobs := self.command("squeue", "-h", "-o", "%A").split():
                self.command("scancel", *jobs)
            if len(self._names_of_nodes()) == len(self.nodes):  # else some can't end
                processes.wait_until(self._is_quiet, READY_LIMIT_S / 2, self._pause)

    def _is_quiet(self) -> bool:
        return not self.command("squeue", "-h", "-t", "R,CG,S", "-o", "%A")

    def _end_leftovers(self) -> None:
        """The steps of a node that was killed, their processes and their cgroups."""
        wanted = os.fsencode(f"SLURM_CONF={self.layout.slurm_conf}")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip() == "slurmstepd" and wanted in (
                    entry / "environ"
                ).read_bytes().split(b"\0"):
                    _kill_step(int(entry.name))
        for node in self.nodes:
            for top in CGROUPS.glob(f"*/slurm_{node}"):
                processes.wait_until(lambda top=top: _is_removed(top), 5.0, self._pause)  # type: ignore[misc]

    # Processes and files ------------------------------------------------------------------------

    def _names_of_nodes(self) -> list[str]:
        return [name for name in self._children if name.startswith("slurmd.")]

    def start_node(self, node: str) -> None:
        """Start the slurmd of `node`."""
        self._start(f"slurmd.{node}", "slurm-wlm", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill the slurmd of `node`, as a node that goes away; its jobs' processes stay."""
        self._children.pop(f"slurmd.{node}").collect()

    def _start(self, name: str, package: str, *options: str) -> None:
        program = name.partition(".")[0]
        argv: list[str | Path] = [find_program(program, package), *options]
        # They ask who a uid is; the others know names alone, or numbers.
        if self._accounts and program in ("slurmctld", "slurmd"):
            argv = self._accounts.around(argv)
        self._children[name] = processes.start(
            name,
            argv,
            environment={**os.environ, **self.environment},
            log=self.directory / "log" / f"{name}.out",
        )

    def _stop(self, name: str) -> None:
        if child := self._children.pop(name, None):
            processes.stop(child, pause=self._pause)

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        child = self._children[name]
        processes.wait_until(lambda: child.has_ended or is_ready(), READY_LIMIT_S, self._pause)
        if child.has_ended or not is_ready():
            words = [
                services.last_lines(self.directory / "log" / f"{name}.{kind}")
                for kind in ("out", "log")
            ]
            raise errors.NotStarted(f"{name} did not get ready: {'; '.join(words)}")

    def _write_configuration(self) -> None:
        here = self.directory
        for name in ("etc", "log", "spool/controller", "pids", "mysql", "munge"):
            (here / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (".", "etc", "munge"):  # clients of other users read slurm.conf, and ask munged
            (here / name).chmod(0o711)
        self._layout = layout = self._new_layout()
        texts = {
            "etc/slurm.conf": slurm_configuration.slurm(layout),
            "etc/slurmdbd.conf": slurm_configuration.slurmdbd(layout, self._password),
            "etc/my.cnf": slurm_configuration.mariadb(layout),
            "etc/init.sql": slurm_configuration.grants(self._password),
            "munge/munge.key": secrets.token_hex(64),
        }
        if layout.has_cgroups:
            texts["etc/cgroup.conf"] = slurm_configuration.cgroup()
        for name, text in texts.items():
            with open(here / name, "w", opener=services.private_file) as file:
                file.write(text)
        layout.slurm_conf.chmod(0o644)

    def _new_layout(self) -> Layout:
        ports: set[int] = set()
        while len(ports) < self._nodes + 3:
            ports.add(processes.free_port())
        first, second, third, *others = ports
        return Layout(
            directory=self.directory,
            # Node names make the names of cgroups, which all instances of a host share.
            tag=hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:6],
            host=socket.gethostname().partition(".")[0],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=first,
            accounting_port=second,
            database_port=third,
            node_ports=tuple(others),
            has_accounting=self._with_accounting,
            has_cgroups=can_use_cgroups(),
        )


def _kill_step(pid: int) -> None:
    """A step manager and the process groups that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(child), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_removed(top: Path) -> bool:
    """Remove a cgroup with all below it; False while something still runs there."""
    try:
        for directory in sorted(top.rglob("*"), reverse=True):
            if directory.is_dir():
                directory.rmdir()
        top.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return not top.exists()
