"""`hpc cluster add` and `hpc cluster set`: what a cluster is, and how to log in to it.

Keys and passwords come from files, from stdin or from a prompt, never from the command line:
anybody on the machine can read that.
"""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import errors
from ...models import Carrier, DaemonMode, HpcCluster, Scheduler
from ...services import clusters
from .terminal import Console, WrongUsage

SECRET_LIMIT_BYTES = 64 << 10
STDIN = "-"
FIELDS = {
    "host": "host_name",
    "port": "port",
    "user": "username",
    "client_path": "client_path",
    "carrier": "carrier",
    "scheduler": "scheduler",
    "mode": "mode",
    "python": "python",
    "setup_commands": "setup_commands",
    "umask": "umask",
    "group": "group",
}
"""Options, and the columns that they set."""


def add(
    console: Console, options: Namespace, link: Callable[[Console, HpcCluster, float], int]
) -> int:
    """Register a cluster; with --connect also wait for its link."""
    key, password = _secrets(options)
    cluster = clusters.register(
        name=options.name, key=key or "", password=password or "", **_given(options)
    )
    console.line(f"Cluster {cluster.name} is registered, its client in {cluster.client_path}.")
    if options.connect:
        clusters.connect(cluster)
        return link(console, cluster, options.limit)
    if cluster.carrier == Carrier.SSH:
        console.note(f"Confirm its host keys with: hpc cluster host-key {cluster.name} --fetch")
    else:
        console.note(f"Link it with: hpc cluster connect {cluster.name}")
    return 0


def change(console: Console, options: Namespace, cluster: HpcCluster) -> int:
    """Change a registered cluster; what is not named stays."""
    key, password = _secrets(options)
    fields = _given(options)
    if not fields and key is None and password is None:
        raise WrongUsage(
            f"Say what to change of cluster {cluster.name}: see `hpc cluster set --help`."
        )
    names = clusters.change(cluster, key=key, password=password, **fields)
    columns = [column for column in HpcCluster._meta.concrete_fields if column.attname in names]
    labels = [str(column.verbose_name) for column in columns]
    console.line(f"Cluster {cluster.name}: changed {', '.join(labels) or 'nothing'}.")
    return 0


def add_options(parser: ArgumentParser, is_new: bool) -> None:
    """The options that both have; a new cluster needs some of them."""
    parser.add_argument("--host", required=is_new, help="host name or address of the login node")
    parser.add_argument("--port", type=int, help="port of SSH (22)")
    parser.add_argument("--user", help="account on the cluster")
    parser.add_argument("--client-path", required=is_new, help="directory of client.py there")
    parser.add_argument("--carrier", choices=Carrier.values, help="ssh, unless for localhost")
    parser.add_argument("--scheduler", choices=Scheduler.values)
    parser.add_argument("--mode", choices=DaemonMode.values)
    parser.add_argument("--python", help="Python for the client")
    parser.add_argument("--setup-commands", help="such as 'module load slurm'")
    parser.add_argument("--umask", help="umask of the jobs' files (0077)")
    parser.add_argument("--group", help="group of the jobs' files")
    _add_secrets(parser, is_new)


def _add_secrets(parser: ArgumentParser, is_new: bool) -> None:
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--key-file", metavar="PATH", help="file with the private key; - is stdin")
    passwords = parser.add_mutually_exclusive_group()
    passwords.add_argument(
        "--password-file",
        metavar="PATH",
        help="file with the password, or the key's passphrase, without its last line end;"
        " - is stdin",
    )
    passwords.add_argument(
        "--ask-password", action="store_true", help="ask for the password or passphrase here"
    )
    if is_new:
        return
    keys.add_argument("--remove-key", action="store_true", help="forget the private key")
    passwords.add_argument("--remove-password", action="store_true", help="forget the password")


def _given(options: Namespace) -> dict[str, Any]:
    given = {column: getattr(options, name) for name, column in FIELDS.items()}
    return {column: value for column, value in given.items() if value is not None}


def _secrets(options: Namespace) -> tuple[str | None, str | None]:
    """Key and password as entered; None where nothing was, "" where it is to be removed."""
    if options.key_file == options.password_file == STDIN:
        raise WrongUsage("Only one of key and password can come from stdin.")
    key = _read(options.key_file, "private key") if options.key_file else None
    password = None
    if options.password_file:
        password = _without_line_end(_read(options.password_file, "password"))
    elif options.ask_password:
        password = _asked()
    if getattr(options, "remove_key", False):
        key = ""
    if getattr(options, "remove_password", False):
        password = ""
    return key, password


def _asked() -> str:
    if not sys.stdin.isatty():
        raise WrongUsage("There is no terminal to ask at: use --password-file.")
    try:
        return getpass.getpass("Password, or passphrase of the key: ")
    except EOFError as error:
        raise errors.Invalid("No password was entered.") from error


def _read(path: str, what: str) -> str:
    try:
        with sys.stdin.buffer if path == STDIN else Path(path).open("rb") as file:
            data = file.read(SECRET_LIMIT_BYTES + 1)
    except OSError as error:
        raise errors.Invalid(
            f"The file {path} with the {what} can't be read: {error.strerror}."
        ) from error
    if len(data) > SECRET_LIMIT_BYTES:
        raise errors.Invalid(f"The {what} in {path} is longer than {SECRET_LIMIT_BYTES} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise errors.Invalid(f"The {what} in {path} is no UTF-8 text.") from None


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
