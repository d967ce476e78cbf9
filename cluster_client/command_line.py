"""The arguments of every command but the fast ones, and what each command needs imported."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from . import dial, sources


def run(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    chosen = _parser().parse_args(arguments)
    if chosen.command == "dial":
        versions = tuple(int(version) for version in chosen.versions.split(",") if version)
        return dial.main(chosen.key, versions)
    if chosen.command == "status":
        from . import control

        return control.status_command(chosen.key, chosen.json)
    if chosen.command == "stop":
        from . import control

        return control.stop_command(chosen.key)
    if chosen.command == "selftest":
        from . import selftest

        return selftest.main()
    sources.parse_key(chosen.key)
    if chosen.command == "start":
        from . import starting

        return starting.start_command(chosen.key)
    if chosen.command == "files":
        from . import files

        return _end(files.main(chosen.key))
    return _end(_serve(chosen))


def _serve(chosen: argparse.Namespace) -> int:
    from . import serving

    if chosen.stdio:
        return serving.serve_attached(chosen.key)
    if chosen.report is not None:
        return serving.serve_detached(chosen.key, chosen.report, chosen.lock, chosen.directory)
    return serving.serve_foreground(chosen.key)


def _end(status: int) -> int:
    """End the process though threads may be stuck in reads or commands that nobody waits for."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _versions(text: str) -> str:
    if not all(version.isascii() and version.isdigit() for version in text.split(",")):
        raise argparse.ArgumentTypeError("numbers separated by commas, like 1,2")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client.py", description="The HPC job controller's daemon on a login node."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("start", "start the daemon, detached; one JSON document on stdin"),
        ("serve", "run the daemon in the foreground"),
        ("dial", "bridge stdin and stdout to the daemon's socket"),
        ("files", "serve files of jobs on stdin and stdout"),
        ("status", "tell whether the daemon runs"),
        ("stop", "end the daemon; its jobs go on"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("key", metavar="KEY", help="<instance>.<cluster id>, like portal.1")
        if name == "serve":
            command.add_argument("--stdio", action="store_true", help="live on this connection")
            for option in ("--report", "--lock"):
                command.add_argument(option, type=int, help=argparse.SUPPRESS)
            command.add_argument("--directory", help=argparse.SUPPRESS)
        elif name == "dial":
            command.add_argument(
                "--versions", type=_versions, default="", help="protocol versions of the caller"
            )
        elif name == "status":
            command.add_argument("--json", action="store_true", help="one JSON document")
    text = "check what the daemon needs on this host"
    commands.add_parser("selftest", help=text, description=text)
    return parser
