"""The interpreters that the cluster client is tested under, each with an environment of its own.

`HPC_TEST_PYTHONS` lists them, separated by commas: paths, or names like `python3.9` or `3.9`. One
that is listed and absent fails the run. Unset, one of each supported minor version is taken from
pyenv and PATH. A test that asks for `client_python` runs under the oldest and the newest; one
marked `every_python` under all.

For a conftest: `from tests.pythons import client_python, pytest_generate_tests,
pytest_terminal_summary`.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MINORS = range(9, 14)
ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "cluster_client" / "requirements.txt"
ENVIRONMENTS = ROOT / "var" / "test-venvs"
PROBE = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
LIMIT_S = 300
_told: set[str] = set()


@dataclass(frozen=True)
class Interpreter:
    version: str
    path: Path

    def __str__(self) -> str:
        return self.version

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(int(number) for number in self.version.split("."))


@functools.cache
def interpreters() -> tuple[Interpreter, ...]:
    """Those that this run is about, oldest first; UsageError if a listed one is absent."""
    listed = os.environ.get("HPC_TEST_PYTHONS", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if names:
        found = [_listed(name) for name in names]
    else:
        found = [one for minor in MINORS if (one := _any(minor)) is not None]
    if not found:
        raise pytest.UsageError("No Python 3.9 to 3.13 was found for the cluster client's tests.")
    return tuple(sorted(set(found), key=lambda one: one.order))


def client_pythons() -> dict[str, Path]:
    """The Python of each environment, by version, oldest first; made where it is missing."""
    return {one.version: environment(one) for one in interpreters()}


def environment(interpreter: Interpreter) -> Path:
    """The Python of the environment with the client's requirements; made once."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _made(interpreter)


def _made(interpreter: Interpreter) -> Path:
    directory = ENVIRONMENTS / interpreter.version
    python = directory / "bin" / "python"
    stamp = directory / "complete"
    wanted = f"{interpreter.path} {hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    if directory.exists():
        shutil.rmtree(directory)
    for command in (
        [interpreter.path, "-m", "venv", directory],
        [
            *(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"),
            *("--require-hashes", "-r", REQUIREMENTS),
        ],
    ):
        subprocess.run(command, check=True, timeout=LIMIT_S)
    stamp.write_text(wanted)
    return python


def _listed(name: str) -> Interpreter:
    minor = name.removeprefix("python").removeprefix("3.")
    candidates = [Path(name)] if "/" in name else []
    if minor.isdigit():
        candidates += _candidates(int(minor))
    elif found := shutil.which(name):
        candidates.append(Path(found))
    for path in candidates:
        if (version := _version(path)) is not None:
            return Interpreter(version, path)
    raise pytest.UsageError(f"HPC_TEST_PYTHONS lists {name}, which is not there or does not run.")


def _any(minor: int) -> Interpreter | None:
    for path in _candidates(minor):
        version = _version(path)
        if version is not None and version.startswith(f"3.{minor}."):
            return Interpreter(version, path)
    return None


def _candidates(minor: int) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = [path for path in root.glob(f"versions/3.{minor}.*/bin/python3") if path.exists()]
    installed.sort(key=lambda path: int(path.parts[-3].split(".")[2].partition("-")[0] or 0))
    on_path = shutil.which(f"python3.{minor}")
    return [*reversed(installed), *([Path(on_path)] if on_path else [])]


def _version(path: Path) -> str | None:
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # a pyenv shim without its version, for one
    return done.stdout.strip()


# For conftest files ------------------------------------------------------------------------------


@pytest.fixture
def client_python(request: pytest.FixtureRequest) -> Path:
    """The Python that the client of this test runs under."""
    interpreter: Interpreter = request.param
    _told.add(interpreter.version)
    return environment(interpreter)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that starts clients its interpreters."""
    if "client_python" not in metafunc.fixturenames:
        return
    chosen = interpreters()
    if metafunc.definition.get_closest_marker("every_python") is None:
        chosen = tuple(dict.fromkeys((chosen[0], chosen[-1])))
    metafunc.parametrize("client_python", chosen, ids=str, indirect=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which interpreters were used."""
    if _told:
        versions = ", ".join(sorted(_told, key=lambda text: [int(n) for n in text.split(".")]))
        terminalreporter.write_line(f"cluster client tested under Python {versions}")
        _told.clear()
