"""The machine room of a bench: a login node with Slurm behind it, and the whole stack beside it.

All of it is private, on free ports, in one directory; nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import django

from ops import environment, errors, interruption, services, site, slurm_cluster, sshd, stack

Cluster = slurm_cluster.SlurmCluster[site.Site]

SSHD_OPTIONS = {
    # 50 links log in within seconds of each other; OpenSSH's default drops some of more than 10.
    "MaxStartups": "200:30:400",
    "LogLevel": "INFO",
    "Subsystem": "sftp internal-sftp",  # scp speaks SFTP since OpenSSH 9.0
}
PARTS = ("web", "worker", "files")


@dataclass(frozen=True)
class Rig:
    """What the measurements work with; `submit_parallel` is the stack's HPC_SUBMIT_PARALLEL."""

    directory: Path
    cluster: Cluster
    account: sshd.Account
    stack: stack.Stack
    submit_parallel: int
    is_quick: bool

    def pid(self, name: str) -> int:
        """The process of one part of the stack."""
        child = self.stack.part(name).child
        if child is None or child.has_ended:
            raise errors.OpsError(f"The stack's {name} has ended: see {self.stack.log_directory}.")
        return child.pid

    def either(self, full: int, quick: int) -> int:
        """A size or a number of rounds: of a whole run, or of a quick one."""
        return quick if self.is_quick else full


@contextlib.contextmanager
def running(submit_parallel: int, is_quick: bool) -> Iterator[Rig]:
    """Start all, point Django in this process to it, and stop all at the end."""
    directory = stack.temporary_directory("hpc-bench-")
    directory.chmod(0o711)  # accounts and PostgreSQL's user have to reach their places in it
    with contextlib.ExitStack() as to_do:
        to_do.callback(shutil.rmtree, directory)
        cluster = _cluster(directory, to_do)
        database = services.Postgres(directory / "postgres", is_durable=True)
        to_do.callback(database.stop)
        database.start()
        a_stack = _stack(directory, database.create_database("bench"), submit_parallel)
        to_do.callback(_stop, a_stack)
        a_stack.start()
        _point_django_to(a_stack)
        yield Rig(
            directory,
            cluster,
            cluster.account("bench"),
            a_stack,
            submit_parallel,
            is_quick,
        )


def _cluster(directory: Path, to_do: contextlib.ExitStack) -> Cluster:
    cluster = slurm_cluster.SlurmCluster(directory / "cluster", site.Site, SSHD_OPTIONS)
    to_do.callback(_close, cluster)
    return cluster


def _stack(directory: Path, database_url: str, submit_parallel: int) -> stack.Stack:
    state = directory / "stack"
    state.mkdir(mode=0o700)
    own = environment.generate("bench") | {
        "HPC_DATABASE_URL": database_url,
        "HPC_IPC_UNIX_SOCKET": str(directory / "relay"),
        "HPC_SUBMIT_PARALLEL": str(submit_parallel),
    }
    parts = [part for part in stack.programs(0, 0) if part.name in PARTS]
    return stack.Stack(state, state / "redis", own, parts, interruption.Interruption())


def _point_django_to(a_stack: stack.Stack) -> None:
    """From here on this process is one more web process of the stack."""
    own = environment.of_children(os.environ, a_stack.own_environment)
    os.environ.clear()
    os.environ.update(own)
    os.environ["DJANGO_SETTINGS_MODULE"] = "controller.project.settings"
    os.environ["HPC_LOG_LEVEL"] = "WARNING"  # the stack itself logs as it does by default
    django.setup()


def _stop(a_stack: stack.Stack) -> None:
    if left := a_stack.stop(with_jobs=True):
        raise errors.OpsError(f"This could not be stopped: {', '.join(left)}.")


def _close(cluster: Cluster) -> None:
    if left := cluster.close():
        raise errors.OpsError(f"Processes that could not be ended: {left}.")
