"""The configuration files of a private Slurm: its text, and which ports and paths it names; pure.

Everything is tuned to be quick to start and to tell soon what happened, not to bear load.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "proj1"
CPUS = 32
MEMORY_MIB = 16_000
"""What the nodes say they have, so that many small jobs run at once."""


@dataclass(frozen=True)
class Layout:
    """Where one private Slurm lives. `tag` makes its node names, and so its cgroups, its own."""

    directory: Path
    tag: str
    host: str
    user: str
    controller_port: int
    accounting_port: int
    database_port: int
    node_ports: tuple[int, ...]
    has_accounting: bool
    has_cgroups: bool

    @property
    def cluster(self) -> str:
        return f"t{self.tag}"

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(f"{self.tag}{number}" for number in range(1, len(self.node_ports) + 1))

    @property
    def slurm_conf(self) -> Path:
        return self.directory / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.directory / "munge" / "munge.sock"


def slurm(layout: Layout) -> str:
    """slurm.conf. Source of each key: https://slurm.schedmd.com/slurm.conf.html"""
    here = layout.directory
    lines = [
        f"ClusterName={layout.cluster}",
        f"SlurmctldHost={layout.host}(127.0.0.1)",
        f"SlurmctldPort={layout.controller_port}",
        f"SlurmUser={layout.user}",
        f"SlurmdUser={layout.user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "CredType=cred/munge",
        f"StateSaveLocation={here}/spool/controller",
        f"SlurmdSpoolDir={here}/spool/%n",
        f"SlurmctldPidFile={here}/pids/slurmctld.pid",
        f"SlurmdPidFile={here}/pids/slurmd.%n.pid",
        f"SlurmctldLogFile={here}/log/slurmctld.log",
        f"SlurmdLogFile={here}/log/slurmd.%n.log",
        *_containment(layout),
        "SwitchType=switch/none",
        "MpiDefault=none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=1",
        "SchedulerType=sched/backfill",
        "SchedulerParameters="
        "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SlurmdParameters=config_overrides",  # believe CPUs and RealMemory below
        "ReturnToService=2",
        "KillWait=2",
        "MinJobAge=10",  # then it leaves the queue, and the accounting alone knows it
        "MaxArraySize=2001",
        "InactiveLimit=0",
        "SlurmctldTimeout=10",
        "SlurmdTimeout=10",
        "MessageTimeout=5",
        "CompleteWait=0",
        "MailProg=/bin/true",
        *_accounting(layout),
        *(
            f"NodeName={name} NodeHostname={layout.host} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs={CPUS} RealMemory={MEMORY_MIB} State=UNKNOWN"
            for name, port in zip(layout.nodes, layout.node_ports, strict=True)
        ),
        "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10"
        " DefMemPerCPU=100 State=UP",
        f"PartitionName=debug Nodes={layout.nodes[0]} MaxTime=5 MaxNodes=1"
        " DefMemPerCPU=100 State=UP",
    ]
    return "\n".join(lines) + "\n"


def _containment(layout: Layout) -> list[str]:
    if layout.has_cgroups:
        return ["ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup"]
    return [
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherParams=OverMemoryKill",
    ]


def _accounting(layout: Layout) -> list[str]:
    if not layout.has_accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={layout.host}",
        f"AccountingStoragePort={layout.accounting_port}",
        # AuthInfo is not used for slurmdbd: without this its clients try munge's usual socket.
        f"AccountingStoragePass=socket={layout.munge_socket}",
        "AccountingStoreFlags=job_comment",
        # Without these two a bad account is taken, and an impossible job waits for ever.
        "AccountingStorageEnforce=associations,limits,qos",
        "EnforcePartLimits=ALL",
        # A QOS says which others it may preempt; by itself none does.
        "PreemptType=preempt/qos",
        "PreemptMode=CANCEL",
    ]


def cgroup() -> str:
    """cgroup.conf. Source: https://slurm.schedmd.com/cgroup.conf.html"""
    return (
        "CgroupPlugin=autodetect\n"
        "CgroupMountpoint=/sys/fs/cgroup\n"
        "ConstrainRAMSpace=yes\n"
        "ConstrainSwapSpace=yes\n"
        "AllowedSwapSpace=0\n"
        "ConstrainCores=no\n"
    )


def slurmdbd(layout: Layout, password: str) -> str:
    """slurmdbd.conf. Source: https://slurm.schedmd.com/slurmdbd.conf.html"""
    here = layout.directory
    return (
        "AuthType=auth/munge\n"
        f"AuthInfo=socket={layout.munge_socket}\n"
        f"DbdHost={layout.host}\n"
        "DbdAddr=127.0.0.1\n"
        f"DbdPort={layout.accounting_port}\n"
        f"SlurmUser={layout.user}\n"
        f"LogFile={here}/log/slurmdbd.log\n"
        f"PidFile={here}/pids/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=127.0.0.1\n"
        f"StoragePort={layout.database_port}\n"
        "StorageUser=slurm\n"
        f"StoragePass={password}\n"
        "StorageLoc=slurm_acct_db\n"
        "CommitDelay=0\n"
    )


def mariadb(layout: Layout) -> str:
    """my.cnf: small, quick, and not durable."""
    here = layout.directory
    return (
        "[mysqld]\n"
        f"user={layout.user}\n"
        f"datadir={here}/mysql\n"
        f"socket={here}/mysql.sock\n"
        f"pid-file={here}/pids/mariadbd.pid\n"
        f"log-error={here}/log/mariadb.log\n"
        "bind-address=127.0.0.1\n"
        f"port={layout.database_port}\n"
        "skip-name-resolve\n"
        "skip-log-bin\n"
        "performance_schema=OFF\n"
        "innodb_buffer_pool_size=64M\n"
        "innodb_log_file_size=32M\n"
        "innodb_lock_wait_timeout=900\n"  # slurmdbd complains about less
        "innodb_flush_log_at_trx_commit=0\n"
        "innodb_flush_method=nosync\n"
        "innodb_doublewrite=0\n"
        "innodb_file_per_table=OFF\n"  # slurmdbd makes dozens, and the making of files takes time
    )


def grants(password: str) -> str:
    """What mariadbd runs at its start."""
    return (
        "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
        f"CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n"
    )
