"""`hpc cluster ...` and `hpc adopt`."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from ... import errors, queries
from ...models import Carrier, DaemonMode, HpcCluster, LinkState, Scheduler
from ...services import clusters
from . import waits
from .terminal import Console

POLL_S = 0.2
CONNECT_LIMIT_S = 90.0


def add_parsers(nouns: Any) -> None:
    """Add the noun `cluster` with its verbs, and `adopt`."""
    cluster = nouns.add_parser("cluster", help="register, look at and link clusters")
    verbs = cluster.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_add(verbs)
    listing = verbs.add_parser("list", help="all clusters")
    listing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    listing.set_defaults(run=list_all)
    showing = _named(verbs, "show", "one cluster and its link", show)
    showing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    connecting = _named(verbs, "connect", "ask for a link", connect)
    connecting.add_argument("--force", action="store_true", help="also see to the daemon anew")
    _add_wait(connecting)
    _named(verbs, "disconnect", "ask for the link to be closed; jobs go on", disconnect)
    _named(verbs, "bootstrap", "have the daemon started if none answers", bootstrap)
    _named(verbs, "remove", "forget a cluster without jobs", remove)
    adopting = nouns.add_parser("adopt", help="take a cluster over from another instance")
    adopting.add_argument("name", help="name of the cluster")
    adopting.set_defaults(run=adopt)


def add(console: Console, options: Namespace) -> int:
    """Register a cluster; with --connect also wait for its link."""
    cluster = clusters.register(
        name=options.name,
        host_name=options.host,
        port=options.port,
        username=options.user,
        client_path=options.client_path,
        carrier=Carrier.LOCAL,
        scheduler=options.scheduler,
        mode=options.mode,
        python=options.python,
        setup_commands=options.setup_commands,
        umask=options.umask,
        group=options.group,
    )
    console.line(f"Cluster {cluster.name} is registered, its client in {cluster.client_path}.")
    if not options.connect:
        console.note(f"Link it with: hpc cluster connect {cluster.name}")
        return 0
    clusters.connect(cluster)
    return _wait_for_link(console, cluster, options.limit)


def list_all(console: Console, options: Namespace) -> int:
    """All clusters."""
    found = [queries.describe_cluster(cluster) for cluster in HpcCluster.objects.all()]
    if options.json:
        console.document(found)
        return 0
    rows = [
        (c["name"], c["host"], c["scheduler"], _state(c), sum(c["backlog"].values())) for c in found
    ]
    console.table(("NAME", "HOST", "SCHEDULER", "LINK", "OPEN JOBS"), rows)
    return 0


def show(console: Console, options: Namespace) -> int:
    """One cluster and its link."""
    described = queries.describe_cluster(find(options.name))
    if options.json:
        console.document(described)
        return 0
    link = described.pop("link") or {}
    backlog = described.pop("backlog")
    facts = {**described, **{f"link {name}": value for name, value in link.items()}}
    facts["open jobs"] = ", ".join(f"{n} {status}" for status, n in backlog.items()) or "none"
    console.table(("WHAT", "VALUE"), [item for item in facts.items() if item[1] not in (None, "")])
    return 0


def connect(console: Console, options: Namespace) -> int:
    """Ask for a link, and wait for it with --wait."""
    cluster = find(options.name)
    clusters.connect(cluster, force=options.force)
    if options.wait:
        return _wait_for_link(console, cluster, options.limit)
    console.line(f"A link to {cluster.name} is asked for: a worker makes it.")
    return 0


def disconnect(console: Console, options: Namespace) -> int:
    """Ask for the link to be closed."""
    cluster = find(options.name)
    clusters.disconnect(cluster)
    console.line(f"The link to {cluster.name} is wanted no more: its worker closes it.")
    return 0


def bootstrap(console: Console, options: Namespace) -> int:
    """Ask for the daemon."""
    cluster = find(options.name)
    clusters.bootstrap(cluster)
    console.line(f"A worker will see to the daemon of {cluster.name}.")
    return 0


def remove(console: Console, options: Namespace) -> int:
    """Forget a cluster."""
    cluster = find(options.name)
    clusters.remove(cluster)
    console.line(f"Cluster {options.name} is forgotten.")
    return 0


def adopt(console: Console, options: Namespace) -> int:
    """Take a cluster over."""
    cluster = find(options.name)
    clusters.adopt(cluster)
    console.line(f"Cluster {cluster.name} is this instance's own now.")
    return 0


def find(name: str) -> HpcCluster:
    """The cluster called so."""
    cluster = HpcCluster.objects.filter(name=name).first()
    if cluster is None:
        raise errors.NotFound(f"There is no cluster {name!r}: see `hpc cluster list`.")
    return cluster


def _add_add(verbs: Any) -> None:
    parser = verbs.add_parser("add", help="register a cluster")
    parser.add_argument("name", help="how people and commands call it")
    parser.add_argument("--host", required=True, help="host name or address of the login node")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--user", default="", help="account on the cluster")
    parser.add_argument("--client-path", required=True, help="directory of client.py there")
    parser.add_argument("--scheduler", choices=Scheduler.values, default=Scheduler.LOCAL.value)
    parser.add_argument("--mode", choices=DaemonMode.values, default=DaemonMode.DETACHED.value)
    parser.add_argument("--python", default="", help="Python for the client")
    parser.add_argument("--setup-commands", default="", help="such as 'module load slurm'")
    parser.add_argument("--umask", default="0077", help="umask of the jobs' files")
    parser.add_argument("--group", default="", help="group of the jobs' files")
    parser.add_argument("--connect", action="store_true", help="link it, and wait for the link")
    _add_limit(parser)
    parser.set_defaults(run=add)


def _named(verbs: Any, verb: str, purpose: str, run: Any) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(verb, help=purpose)
    parser.add_argument("name", help="name of the cluster")
    parser.set_defaults(run=run)
    return parser


def _add_wait(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="wait until the link is up")
    _add_limit(parser)


def _add_limit(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=waits.seconds, default=CONNECT_LIMIT_S, metavar="S", help="longest wait (s)"
    )


def _wait_for_link(console: Console, cluster: HpcCluster, limit_s: float) -> int:
    deadline = time.monotonic() + limit_s
    bar = console.bar()
    while not queries.is_connected(cluster):
        link = queries.link_of(cluster)
        if link is not None and link.state == LinkState.BLOCKED and link.not_before is None:
            bar.clear()
            raise errors.Unavailable(f"No link to {cluster.name}: {link.blocked_detail}")
        if time.monotonic() > deadline:
            bar.clear()
            raise errors.Timeout(_no_link(cluster, limit_s))
        bar.show(f"waiting for the link to {cluster.name}")
        time.sleep(POLL_S)  # another process writes the row; nothing tells us
    bar.clear()
    console.line(f"The link to {cluster.name} is up.")
    return 0


def _no_link(cluster: HpcCluster, limit_s: float) -> str:
    link = queries.link_of(cluster)
    if link is None or not link.epoch:
        why = "No worker took it: see that one runs (celery -A workers worker -Q hpc)."
    else:
        why = link.blocked_detail or "Its worker is still at it: see its log."
    return f"No link to {cluster.name} within {limit_s:g} s. {why}"


def _state(described: dict[str, Any]) -> str:
    link = described["link"]
    if described["connected"]:
        return "up"
    if link is None or not link["wanted"]:
        return "not wanted"
    return (
        f"{link['state']} ({link['blocked_reason']})" if link["blocked_reason"] else link["state"]
    )
