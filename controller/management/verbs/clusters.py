"""`hpc cluster ...` and `hpc adopt`."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from ... import descriptions, errors, queries
from ...models import HpcCluster, LinkState
from ...services import clusters
from . import host_keys, registration, waits
from .follow import follow, line
from .terminal import Console

POLL_S = 0.2
CONNECT_LIMIT_S = 90.0
PROCEDURES_SHOWN = 3


def add_parsers(nouns: Any) -> None:
    """Add the noun `cluster` with its verbs, and `adopt`."""
    cluster = nouns.add_parser("cluster", help="register, look at and link clusters")
    verbs = cluster.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_entries(verbs)
    listing = verbs.add_parser("list", help="all clusters")
    listing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    listing.set_defaults(run=list_all)
    showing = _named(verbs, "show", "one cluster and its link", show)
    showing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    connecting = _named(verbs, "connect", "ask for a link", connect)
    connecting.add_argument("--force", action="store_true", help="also see to the daemon anew")
    _add_wait(connecting)
    _named(verbs, "disconnect", "ask for the link to be closed; jobs go on", disconnect)
    host_keys.add_options(_named(verbs, "host-key", "host keys: fetch, show, confirm", host_key))
    testing = _named(verbs, "test", "log in and look, step by step", test)
    testing.add_argument("--json", action="store_true", help="one JSON document on stdout")
    _add_limit(testing)
    starting = _named(
        verbs,
        "bootstrap",
        "have the daemon started if none answers; the first time also link it",
        bootstrap,
    )
    starting.add_argument("--wait", action="store_true", help="follow its steps to the end")
    _add_limit(starting)
    _named(verbs, "remove", "forget a cluster without jobs", remove)
    adopting = nouns.add_parser("adopt", help="take a cluster over from another instance")
    adopting.add_argument("name", help="name of the cluster")
    adopting.set_defaults(run=adopt)


def add(console: Console, options: Namespace) -> int:
    """Register a cluster; with --connect also wait for its link."""
    return registration.add(console, options, _wait_for_link)


def change(console: Console, options: Namespace) -> int:
    """Change a registered cluster."""
    return registration.change(console, options, find(options.name))


def host_key(console: Console, options: Namespace) -> int:
    """Look at the host keys, and say which are trusted."""
    return host_keys.run(console, options, find(options.name))


def test(console: Console, options: Namespace) -> int:
    """Have a worker log in and look; the steps are told as they come."""
    procedure = clusters.test(find(options.name))
    try:
        follow(console, console.note if options.json else console.line, procedure, options.limit)
    finally:
        if options.json:
            procedure.refresh_from_db()
            console.document(descriptions.describe_procedure(procedure))
    return 0


def list_all(console: Console, options: Namespace) -> int:
    """All clusters."""
    found = [descriptions.describe_cluster(cluster) for cluster in HpcCluster.objects.all()]
    if options.json:
        console.document(found)
        return 0
    rows = [
        (c["name"], c["host"], c["scheduler"], _state(c), sum(c["backlog"].values())) for c in found
    ]
    console.table(("NAME", "HOST", "SCHEDULER", "LINK", "OPEN JOBS"), rows)
    return 0


def show(console: Console, options: Namespace) -> int:
    """One cluster: its link, its logins, its host keys, what was done to it last."""
    cluster = find(options.name)
    described = descriptions.describe_cluster(cluster)
    if options.json:
        console.document(described)
        return 0
    facts = _facts(described)
    console.table(("WHAT", "VALUE"), [item for item in facts.items() if item[1] not in (None, "")])
    keys = queries.host_keys_of(cluster)
    if keys:
        console.line()
        host_keys.show(console, keys)
    for procedure in queries.latest_procedures(cluster, PROCEDURES_SHOWN):
        console.line()
        words = [procedure.get_kind_display(), procedure.get_state_display(), procedure.detail]
        console.line(
            f"{procedure.requested_at:%Y-%m-%d %H:%M:%S} UTC, {': '.join(filter(None, words))}"
        )
        for step in procedure.steps.all():
            console.line(f"  {line(step)}")
    return 0


def _facts(described: dict[str, Any]) -> dict[str, Any]:
    shown_apart = ("link", "login", "backlog", "host_keys", "procedures")
    facts = {name: value for name, value in described.items() if name not in shown_apart}
    for part in ("link", "login"):
        facts |= {f"{part} {name}": value for name, value in (described[part] or {}).items()}
    spent = facts.pop("login spent", None)
    if spent:
        facts["logins"] = (
            f"{spent['last_minute']} of {spent['per_minute']} in the last minute,"
            f" {spent['last_hour']} of {spent['per_hour']} in the last hour"
        )
    open_jobs = [f"{count} {status}" for status, count in described["backlog"].items()]
    return {**facts, "open jobs": ", ".join(open_jobs) or "none"}


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
    procedure = clusters.bootstrap(cluster)
    if options.wait:
        follow(console, console.line, procedure, options.limit)
        return 0
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


def _add_entries(verbs: Any) -> None:
    adding = _named(verbs, "add", "register a cluster", add)
    registration.add_options(adding, is_new=True)
    adding.add_argument("--connect", action="store_true", help="link it, and wait for the link")
    _add_limit(adding)
    setting = _named(verbs, "set", "change a registered cluster; what is not named stays", change)
    registration.add_options(setting, is_new=False)


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
