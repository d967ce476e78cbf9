"""The installation steps of the README, followed to the letter in a clone."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_client.protocol import messages
from tests import pythons
from tests.integration.cluster_client_front.harness import SOURCE, Installation, new_tag

LIMIT_S = 300


def steps() -> list[str]:
    """The indented lines of the README's section on installation."""
    section = (SOURCE / "README.md").read_text().split("## Installation by hand")[1].split("##")[0]
    return re.findall(r"^    (.+)$", section, re.MULTILINE)


def repository(directory: Path) -> Path:
    """A repository with the client as it is in this tree, tracked files only."""
    root = SOURCE.parent
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--", "cluster_client"],
        capture_output=True,
        check=True,
    )
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    assert "cluster_client/requirements.txt" in names
    for name in names:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / name).read_bytes())
    git = ["git", "-C", directory, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "--quiet", directory], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The client."], check=True)
    return directory


@pytest.fixture(params=[0, -1], ids=["oldest", "newest"])
def python_directory(request: pytest.FixtureRequest, short_directory: Path) -> Path:
    """A directory for PATH where `python3` is the interpreter under test."""
    directory = short_directory / "bin"
    directory.mkdir()
    (directory / "python3").symlink_to(pythons.interpreters()[request.param].path)
    return directory


@pytest.fixture
def installed(python_directory: Path, short_directory: Path) -> Iterator[Installation]:
    """What somebody has who followed the README."""
    source = repository(short_directory / "source.git")
    script = "\n".join(["set -e", *steps()])
    script = script.replace("git clone <the repository>", f"git clone --quiet {source} clone")
    script = script.replace("<the repository>", "clone")
    environment = {**os.environ, "PATH": f"{python_directory}:{os.environ['PATH']}"}
    environment |= {"HPC_ALLOW_ROOT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=short_directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done
    assert "FAILED" not in done.stdout
    assert "ok     websockets: 15.0.1" in done.stdout
    with Installation(
        python_directory / "python3", short_directory / "clone/cluster_client"
    ) as one:
        yield one


@pytest.mark.timeout(600)
def test_the_steps_of_the_readme_lead_to_a_whole_job(installed: Installation) -> None:
    assert steps()[0].startswith("git clone")
    assert any(step.startswith("pip install -r requirements.txt") for step in steps())
    started = installed.start()
    assert started["status"] == "started", started
    program = Path(f"/proc/{started['pid']}/cmdline").read_bytes().split(b"\0")[0]
    assert Path(os.fsdecode(program)) == installed.path / "venv" / "bin" / "python"
    link = installed.link()
    welcome = link.greet()
    link.acknowledge(welcome.outbox_id, 0)
    tag, script = new_tag(), "#!/bin/sh\necho done by hand\n"
    digest = hashlib.sha256(script.encode()).hexdigest()
    submitted = link.request(messages.Submit(tag, 1, script, digest))
    assert isinstance(submitted, messages.Submitted), submitted
    ended = link.wait_for(lambda message: getattr(message, "kind", "") == "ended")
    assert ended.data["outcome"] == "completed"
    link.close()
    files = installed.files()
    assert files.read(tag, "stdout.log") == b"done by hand\n"
    files.close()
    installed.stop()
