"""The web process of a stack, and a browser without scripts that logs in and fills in forms."""

from __future__ import annotations

import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.cookiejar import CookieJar

from ops import processes
from tests.stack import CHECKOUT, Stack


class Form(HTMLParser):
    """What a browser would send if the form with `marker` among its fields were sent as it is."""

    def __init__(self, page: str, marker: str) -> None:
        super().__init__()
        self._forms: list[dict[str, str]] = []
        self._select = self._area = ""
        self.feed(page)
        self.fields = next(form for form in self._forms if marker in form)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "form":
            self._forms.append({})
        elif not self._forms:
            return
        elif tag == "input" and given.get("type") not in ("submit", "checkbox"):
            self._forms[-1][name] = value
        elif tag == "input" and given.get("type") == "checkbox" and "checked" in given:
            self._forms[-1][name] = value or "on"
        elif tag == "select":
            self._select = name
        elif tag == "option" and ("selected" in given or self._select not in self._forms[-1]):
            self._forms[-1][self._select] = value
        elif tag == "textarea":
            self._area = name
            self._forms[-1][name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            # A browser leaves out the line end with which a text area begins.
            self._forms[-1][self._area] = self._forms[-1][self._area].removeprefix("\n")
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self._forms[-1][self._area] += data


class Web:
    """A browser at the site's web process; `seen` are all pages that it was shown."""

    def __init__(self, port: int, child: processes.Child) -> None:
        self.child = child
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[str] = []
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._browser = urllib.request.build_opener(cookies)

    def get(self, path: str) -> str:
        """The page; raises HTTPError."""
        return self._open(path, None)

    def send(self, path: str, marker: str, **fields: str) -> str:
        """Open a page, fill in the form that has a field `marker`, send it; the page after it."""
        filled = {**Form(self.get(path), marker).fields, **fields}
        return self._open(path, urllib.parse.urlencode(filled).encode())

    def log_in(self, name: str, password: str) -> None:
        """Log in to the admin."""
        page = self.send("/admin/login/", "username", username=name, password=password)
        assert "Log out" in page

    def is_up(self) -> bool:
        try:
            return bool(self.get("/admin/login/"))
        except OSError:
            return False

    def _open(self, path: str, data: bytes | None) -> str:
        with self._browser.open(self.url + path, data, timeout=20) as response:
            page: str = response.read().decode()
        self.seen.append(page)
        return page


@contextmanager
def running(stack: Stack) -> Iterator[Web]:
    """A web process that answers."""
    port = processes.free_port()
    child = processes.start(
        "web",
        [sys.executable, "-m", "uvicorn", "controller.project.asgi:application", f"--port={port}"],
        environment=stack.environment(),
        directory=CHECKOUT,
        log=stack.directory / "web.log",
    )
    try:
        made = Web(port, child)
        stack.wait(made.is_up, "the web process to answer")
        yield made
    finally:
        processes.stop(child, limit_s=10.0)
