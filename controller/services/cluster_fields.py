"""What a person may enter for a cluster: mended where that is safe, else refused by field."""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re

from .. import conf
from ..models import Carrier, HpcCluster

UMASK = re.compile(r"0[0-7]{3}")
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
# Source: https://www.rfc-editor.org/rfc/rfc1123#section-2.1; underscores are seen all the same.
HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
NUL_IN_JSON = re.compile(r"(?<!\\)(\\\\)*\\u0000")
LONGEST_HOST = 253
LONGEST_USER = 64

Problems = dict[str, str]
"""One sentence by field."""


def check(cluster: HpcCluster) -> Problems:
    """Mend the fields in place; what can't be mended is told by field."""
    problems: Problems = {}
    _check_host(cluster, problems)
    _check_carrier(cluster, problems)
    _check_user(cluster, problems)
    _check_group(cluster, problems)
    _check_client_path(cluster, problems)
    _check_python(cluster, problems)
    _check_umask(cluster, problems)
    _check_labels(cluster, problems)
    return problems


def _check_host(cluster: HpcCluster, problems: Problems) -> None:
    host = cluster.host_name.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]  # as in a URL
    cluster.host_name = host
    if not host:
        return  # the field says so itself
    sentence = "" if _is_address(host) else _fault_of_name(host)
    if sentence:
        problems["host_name"] = sentence


def _fault_of_name(host: str) -> str:
    if "://" in host or "/" in host:
        return f"{host!r}: enter the host alone, such as login.example.org, without a URL's parts."
    if "@" in host:
        return f"{host!r}: enter the user in the field user, and the host alone here."
    if host.startswith("[") or ":" in host:
        return f"{host!r} is no IPv6 address: if it ends in a port, enter that in the field port."
    labels = host.rstrip(".").split(".")
    if labels[-1].isdigit():
        return f"{host!r} is no IPv4 address: four numbers from 0 to 255, with dots between them."
    if len(host) > LONGEST_HOST or not all(HOST_LABEL.fullmatch(label) for label in labels):
        return (
            f"{host[:80]!r} is no host name: letters, digits and hyphens with dots between them,"
            " such as login.example.org (names in other scripts in their xn-- form)."
        )
    return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_carrier(cluster: HpcCluster, problems: Problems) -> None:
    is_here = cluster.host_name.lower() in LOCAL_HOSTS
    is_allowed = conf.get().allow_local_carrier
    if not cluster.carrier and is_here and not is_allowed:
        problems["carrier"] = (
            f"{cluster.host_name} can be reached in two ways: choose SSH to log in to it, or set"
            " HPC_ALLOW_LOCAL_CARRIER to let jobs run as the worker's own user."
        )
        return
    cluster.carrier = cluster.carrier or (Carrier.LOCAL if is_here else Carrier.SSH)
    if cluster.carrier == Carrier.LOCAL and not is_allowed:
        problems["carrier"] = (
            "The local carrier runs code as the worker's own user: set HPC_ALLOW_LOCAL_CARRIER"
            " to allow it, or choose SSH."
        )
    elif cluster.carrier == Carrier.LOCAL and not is_here and "host_name" not in problems:
        problems["host_name"] = (
            f"The local carrier reaches the worker's own machine only, not"
            f" {cluster.host_name!r}: the host must be localhost, or the carrier SSH."
        )


def _check_user(cluster: HpcCluster, problems: Problems) -> None:
    user = cluster.username = cluster.username.strip()
    if not user:
        if cluster.carrier == Carrier.SSH:
            problems["username"] = (
                f"Enter the account on {cluster.host_name or 'the cluster'}: SSH logs in as it."
            )
    elif len(user) > LONGEST_USER:
        problems["username"] = f"The name of the user is longer than {LONGEST_USER} characters."
    elif not _can_be_a_name(user):
        problems["username"] = (
            f"{user!r} is no name of an account: it must not begin with a hyphen, nor hold spaces"
            " or control characters."
        )


def _check_group(cluster: HpcCluster, problems: Problems) -> None:
    group = cluster.group = cluster.group.strip()
    if not _can_be_a_name(group):
        problems["group"] = (
            f"{group!r} is no name of a group: it must not begin with a hyphen, nor hold spaces"
            " or control characters."
        )


def _can_be_a_name(name: str) -> bool:
    is_plain = name.isprintable() and not any(c.isspace() for c in name)
    return is_plain and not name.startswith("-")


def _check_client_path(cluster: HpcCluster, problems: Problems) -> None:
    path = cluster.client_path.strip()
    if path.startswith("~"):
        problems["client_path"] = f"{path!r}: write the home directory out; ~ is not understood."
    elif not path.startswith("/"):
        problems["client_path"] = f"{path!r} is relative: it must be an absolute path."
    elif CONTROL_CHARACTERS.search(path):
        problems["client_path"] = "The path holds a line end or another control character."
    else:
        path = posixpath.normpath(path)
        if posixpath.basename(path) == "client.py":
            path = posixpath.dirname(path)
        cluster.client_path = "/" + path.lstrip("/")
        if cluster.client_path == "/":
            problems["client_path"] = "The client can't live in the root directory."


def _check_python(cluster: HpcCluster, problems: Problems) -> None:
    cluster.python = cluster.python.strip()
    if CONTROL_CHARACTERS.search(cluster.python):
        problems["python"] = "The name holds a line end or another control character."
    if "\0" in cluster.setup_commands:
        problems["setup_commands"] = "The commands hold a NUL character."
    cluster.setup_commands = cluster.setup_commands.replace("\r\n", "\n")


def _check_umask(cluster: HpcCluster, problems: Problems) -> None:
    if not UMASK.fullmatch(cluster.umask):
        return  # the field says so itself
    umask = int(cluster.umask, 8)
    if not umask & 0o002:
        problems["umask"] = f"{cluster.umask} would let anybody write: use 0077 or 0027."
    elif umask & 0o700:
        problems["umask"] = (
            f"{cluster.umask} would bar the account from its own jobs' directories: use 0077 or"
            " 0027."
        )


def _check_labels(cluster: HpcCluster, problems: Problems) -> None:
    cluster.labels = {} if cluster.labels is None else cluster.labels
    if not isinstance(cluster.labels, dict):
        problems["labels"] = 'Labels must be an object such as {"site": "north"}.'
    elif not _can_be_stored(cluster.labels):
        problems["labels"] = (
            "Labels hold what no database stores: a number that is none (NaN, Infinity), NUL,"
            " half a character (\\ud800), or too many brackets. Take it out."
        )


def _can_be_stored(document: object) -> bool:
    """Whether every database takes it as JSON, and every page can show it."""
    try:
        text = json.dumps(document, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return not NUL_IN_JSON.search(text)
