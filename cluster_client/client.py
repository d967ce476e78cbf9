#!/usr/bin/env python3
"""The command of the cluster client.

    client.py start KEY             start the daemon, detached; one JSON document on stdin
    client.py serve KEY [--stdio]   run it in the foreground, or on this very connection
    client.py dial KEY              bridge stdin and stdout to the daemon's socket
    client.py files KEY             serve files of jobs on stdin and stdout
    client.py status KEY [--json]   tell whether it runs
    client.py stop KEY              end it; its jobs go on
    client.py selftest              check what it needs

KEY is <instance>.<cluster id>. It runs as a script from a directory of any name, which it loads
as the package `cluster_client`, in the `venv/` beside it if there is one. `dial` and `local` must
start fast: they need no package and import next to nothing.
"""

# Without the future import and with quoted types, so that an older Python can say what it lacks.
import os
import sys

PACKAGE = "cluster_client"
FAST = ("dial", "local")
OLDEST = (3, 9)


def main(arguments: "list[str]") -> int:
    """Run one command; its exit status."""
    command = arguments[0] if arguments else ""
    if command == "local":
        from cluster_client import local_jobs

        return local_jobs.main(arguments[1:])
    from cluster_client import errors

    try:
        if command == "dial" and len(arguments) == 2 and not arguments[1].startswith("-"):
            from cluster_client import dial

            return dial.main(arguments[1])
        from cluster_client import command_line

        return command_line.run(arguments)
    except errors.ClientError as error:
        sys.stderr.write(f"client.py: {error}\n")
    except ModuleNotFoundError as error:
        if error.name != "websockets":
            raise
        sys.stderr.write(
            "client.py: the package websockets is missing: in the directory of client.py, "
            "pip install -r requirements.txt\n"
        )
    return 1


def _enter_environment(arguments: "list[str]") -> None:
    """Go on in the venv beside this file, and without the caller's PYTHON* variables."""
    here = os.path.dirname(os.path.abspath(__file__))
    python = sys.executable
    is_fast = bool(arguments) and arguments[0] in FAST
    venv = os.path.join(here, "venv")
    candidate = os.path.join(venv, "bin", "python")
    is_outside = os.path.realpath(sys.prefix) != os.path.realpath(venv)
    if not is_fast and is_outside and os.access(candidate, os.X_OK):
        python = candidate
    is_swayed = not sys.flags.ignore_environment and any(
        name.startswith("PYTHON") for name in os.environ
    )
    if python != sys.executable or is_swayed:
        options = ["-I", "-S"] if is_fast else ["-I"]
        os.execv(  # noqa: S606 - an argv list, no shell anywhere
            python, [python, *options, os.path.abspath(__file__), *arguments]
        )


def _load_package() -> None:
    """Make this directory, whatever its name, the package `cluster_client`."""
    import importlib.machinery

    here = os.path.dirname(os.path.abspath(__file__))
    # A script's directory leads sys.path; our modules are to be found in the package only.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    path = os.path.join(here, "__init__.py")
    loader = importlib.machinery.SourceFileLoader(PACKAGE, path)
    spec = importlib.machinery.ModuleSpec(PACKAGE, loader, origin=path, is_package=True)
    spec.submodule_search_locations = [here]
    spec.has_location = True
    package = type(sys)(PACKAGE)
    package.__spec__, package.__path__, package.__file__ = spec, [here], path
    sys.modules[PACKAGE] = package
    loader.exec_module(package)


def _run_script() -> int:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(
            f"client.py: Python 3.9 or newer is needed; this is {found} ({sys.executable}).\n"
        )
        return 1
    _enter_environment(sys.argv[1:])
    _load_package()
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_run_script())
