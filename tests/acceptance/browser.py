"""A real browser for acceptance tests: complaints are collected, sights kept as pictures."""

from __future__ import annotations

import http.client
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    expect,
    sync_playwright,
)

from ops import errors, processes, services
from tests.stack import CHECKOUT, Stack

PICTURES = Path(__file__).parent.parent / "artefacts" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# It asks nobody on the internet for anything, and runs as root in a container.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STEP_LIMIT_S = 20.0
START_LIMIT_S = 30.0
# Its own 5 s are little where other tests run beside.
expect.set_options(timeout=1000 * STEP_LIMIT_S)


def find() -> str:
    """The browser of this machine."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise errors.MissingProgram(
        f"No browser here ({', '.join(BROWSERS)}): install one (on Debian and Ubuntu:"
        " apt install chromium)."
    )


@dataclass
class Visit:
    """One person at a browser. `secrets` must be on no page that is looked at."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    def log_in(self, name: str, password: str) -> None:
        self.go("")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", password)
        self.page.click("input[type=submit]")
        expect(self.page.locator("#user-tools")).to_contain_text(name)

    def enter(self, session: str) -> None:
        """Be who the session's cookie stands for: checking a password is slow on purpose."""
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": self.url}
        self.page.context.add_cookies([cookie])

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/admin/{path}")
        self.check()

    def check(self) -> None:
        """No secret is on the page, and nothing in it went wrong."""
        text = self.page.content()
        assert not [secret for secret in self.secrets if secret in text]
        assert not self.complaints, self.complaints

    def picture(self, name: str, part: str = "") -> None:
        """Keep what is seen now: the whole page, or one part of it."""
        self.check()
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        if part:
            self.page.locator(part).screenshot(path=path)
        else:
            self.page.screenshot(path=path, full_page=True)

    @property
    def is_too_wide(self) -> bool:
        """Whether the page as a whole has to be moved sideways to be read."""
        found: bool = self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return found


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=find(), args=list(ARGUMENTS))
        try:
            yield made
        finally:
            made.close()


@contextmanager
def visiting(browser: Browser, url: str, *, width: int = 1280, **options: Any) -> Iterator[Visit]:
    """A fresh visit; what the pages complain of fails the test at the latest at its end."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    context.set_default_timeout(1000 * STEP_LIMIT_S)
    visit = Visit(context.new_page(), url)

    def note(message: ConsoleMessage) -> None:
        is_asked_for = not message.location.get("url", "").endswith("/favicon.ico")
        if message.type in ("error", "warning") and is_asked_for:
            visit.complaints.append(f"{message.text} {message.location}")

    def refuse(dialog: Dialog) -> None:
        visit.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    visit.page.on("console", note)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("dialog", refuse)
    try:
        yield visit
        visit.check()
    finally:
        context.close()


def session_of(user: Any) -> str:
    """The cookie of a fresh session of the user."""
    session = SessionStore()
    session[auth.SESSION_KEY] = str(user.pk)
    session[auth.BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


def aside(work: Callable[[], object]) -> None:
    """Use the database while a browser is open: on another thread, with a connection of its own.

    Playwright has an event loop in this one, for which Django refuses the database.
    Source: https://docs.djangoproject.com/en/5.2/topics/async/#async-safety
    """

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


@contextmanager
def web(stack: Stack) -> Iterator[str]:
    """The stack's web server, where all inline code is forbidden; yields its address."""
    port = processes.free_port()
    log = stack.directory / "web.log"
    child = processes.start(
        "web",
        [
            *(sys.executable, "-m", "uvicorn", "tests.acceptance.strict_site:application"),
            *("--port", str(port), "--timeout-graceful-shutdown", "1"),
        ],
        environment=stack.environment(),
        directory=CHECKOUT,
        log=log,
    )
    try:
        stack.wait(lambda: child.has_ended or _answers(port), "the web server", START_LIMIT_S)
        assert not child.has_ended, services.last_lines(log)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop(child)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/admin/login/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
