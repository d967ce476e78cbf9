"""A browser's side of a download: a session of the admin, and a reader that keeps nothing."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from controller.models import HpcJob
from controller.services import transfers
from ops import errors

from . import reading
from .rig import Rig


@dataclass(frozen=True)
class Browser:
    """Somebody who is logged in at the stack's web process and may read every job's files."""

    port: int
    cookie: str

    def get(self, url: str, heard: Callable[[int], None] = lambda count: None) -> int:
        """Read all that comes, tell how much each time, and return how many bytes came."""
        connection, response = self.open(url)
        try:
            return reading.drain(response, heard)
        finally:
            connection.close()

    def open(self, url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask for a file and read no more than the headers. Raises OpsError if it is refused."""
        connection, response = reading.ask(self.port, url, self.cookie)
        if response.status != http.HTTPStatus.OK:
            words = response.read(2000).decode(errors="replace")
            connection.close()
            raise errors.OpsError(f"{url} was answered with {response.status}: {words}")
        return connection, response


def log_in(rig: Rig, name: str = "reader") -> Browser:
    """A new session of a superuser of that name."""
    users = get_user_model()._default_manager
    user, _ = users.get_or_create(username=name, defaults={"is_staff": True, "is_superuser": True})
    client = Client()
    client.force_login(user)
    return Browser(rig.stack.part("web").port, client.cookies[settings.SESSION_COOKIE_NAME].value)


def url_of(job: HpcJob, path: str) -> str:
    """Where the admin gives out a file of a job."""
    return reading.download_url(job.pk, transfers.exact_bytes(path))
