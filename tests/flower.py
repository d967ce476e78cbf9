"""A real Flower over a stack, and what it shows."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ops import processes
from tests.stack import CHECKOUT, Stack

CREDENTIALS = "watcher:correct horse"


class Flower:
    """A client of the real Flower."""

    def __init__(self, port: int, child: processes.Child) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.child = child

    def ask(self, path: str, *, method: str = "GET", login: str = CREDENTIALS) -> tuple[int, str]:
        """Status and body; never raises for a status."""
        request = urllib.request.Request(self.url + path, method=method)
        if login:
            token = base64.b64encode(login.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def is_up(self) -> bool:
        try:
            return self.ask("/healthcheck")[0] == 200
        except OSError:
            return False

    def json(self, path: str) -> Any:
        return json.loads(self.ask(path)[1])

    def pages(self) -> Iterator[tuple[str, str]]:
        """Every page and answer about workers, queues and tasks: its path, and its text."""
        tasks = list(self.json("/api/tasks"))
        workers = list(self.json("/api/workers?refresh=1"))
        paths = ["/", "/workers", "/tasks", "/broker", "/metrics", "/api/task/types"]
        paths += ["/api/workers?refresh=1", "/api/workers?status=1", "/api/tasks"]
        paths += ["/api/queues/length"]
        paths += [f"/worker/{name}" for name in workers]
        paths += [f"/{kind}/{task}" for task in tasks for kind in ("task", "api/task/info")]
        for path in paths:
            status, text = self.ask(path)
            assert status == 200, f"{path}: {status}"
            yield path, text


@contextmanager
def running(stack: Stack) -> Iterator[Flower]:
    """A Flower that answers."""
    port = processes.free_port()
    child = processes.start(
        "flower",
        [sys.executable, "-m", "celery", "-A", "workers", "flower",
         "--conf=ops/flowerconfig.py", f"--port={port}"],
        environment=stack.environment({"FLOWER_BASIC_AUTH": CREDENTIALS}),
        directory=CHECKOUT,
        log=stack.directory / "flower.log",
    )  # fmt: skip
    try:
        made = Flower(port, child)
        stack.wait(made.is_up, "Flower to answer")
        yield made
    finally:
        processes.stop(child, limit_s=10.0)
