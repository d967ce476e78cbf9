"""What a portal's views answer with: a file as it comes from its cluster, or why it does not.

Rules:
- Nothing is read ahead: a slow browser slows the reader on the cluster. Django would read a sync
  iterator whole under ASGI, and an async one whole under WSGI; a Download is both.
  Source: https://docs.djangoproject.com/en/5.2/ref/request-response/#streaminghttpresponse-objects
- A file that breaks raises in the iteration. The server cuts the connection then, before what
  Content-Length promised has been sent, and so every client sees it.
- What a cluster said is data: a download is never shown as a page, an error is JSON.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar, cast

from asgiref.sync import AsyncToSync, SyncToAsync, iscoroutinefunction, sync_to_async
from django.db import connections
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from . import errors
from .models import HpcCluster, HpcJob
from .services import files

STATUSES: tuple[tuple[type[errors.HpcError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Invalid, 400),
    (errors.NoSpace, 507),
    (errors.LoginRefused, 502),
    (errors.HostKeyRefused, 502),
    (errors.Refused, 403),
    (errors.Timeout, 504),
    (errors.TransferBroken, 502),
    (errors.Unavailable, 503),
    (errors.CannotDecrypt, 503),
)
"""The HTTP status of each error; the first that fits counts."""

RETRY_AFTER_S = 5
"""Where nobody knows better when to come again."""

HEADERS = {
    # Named so, it is stored and not shown, whatever is in it.
    # Source: https://cheatsheetseries.owasp.org/cheatsheets/File_Upload_Cheat_Sheet.html
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-store, no-transform",
    # GZipMiddleware, and nginx's gzip, leave alone what has an encoding. Compressed, the file would
    # lose its Content-Length, and one that breaks could look whole.
    "Content-Encoding": "identity",
    "Accept-Ranges": "none",
    # nginx would store the file on its own disk, at the pace of the cluster.
    # Source: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    "X-Accel-Buffering": "no",
}
ETAG = re.compile(r"[\x21\x23-\x7e]{1,128}")
"""Source: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3"""

View = TypeVar("View", bound=Callable[..., Any])
Answer = Callable[[HttpRequest, errors.HpcError], HttpResponseBase]


class RemoteFileResponse(StreamingHttpResponse):
    """A file on its way from a cluster, right under WSGI and under ASGI.

    It closes the download when it is closed, dropped, or read to its end.
    """

    def __init__(self, download: files.Download) -> None:
        self._download = download
        weakref.finalize(self, download.close)
        super().__init__(download, content_type="application/octet-stream", headers=HEADERS)
        self.headers["Content-Length"] = str(download.size_bytes)
        self.headers["Content-Disposition"] = str(
            content_disposition_header(as_attachment=True, filename=_file_name(download.name))
        )
        if ETAG.fullmatch(download.etag):
            # Weak: it tells inode, time and size of the file, not its content.
            self.headers["ETag"] = f'W/"{download.etag}"'

    def drop_content(self) -> None:
        """End the transfer; what stays is the answer to a HEAD."""
        self._download.close()
        self.streaming_content = ()

    def _set_streaming_content(self, value: Any) -> None:
        if value is not self._download:  # wrapped by a middleware
            super()._set_streaming_content(value)  # type: ignore[misc]
            return
        self._iterator = value
        self.is_async = _is_served_by_asgi()
        self._resource_closers.append(value.close)  # type: ignore[attr-defined]

    @property
    def _is_wrapped(self) -> bool:
        return self._iterator is not self._download

    def __iter__(self) -> Iterator[bytes]:
        _free_connections()
        if not self._is_wrapped:
            yield from self._pieces()
        elif self.is_async:
            yield from _driven(aiter(cast("AsyncIterator[bytes]", self.streaming_content)))
        else:
            yield from super().__iter__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await sync_to_async(_free_connections)()
        if not self._is_wrapped:
            pieces = aiter(self._download)
        elif self.is_async:
            pieces = super().__aiter__()
        else:
            pieces = _stepped(iter(cast("Iterator[bytes]", self.streaming_content)))
        try:
            async for piece in pieces:
                yield piece
        finally:
            self._download.close()  # wakes the thread that waits for the next piece

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self._download
        finally:
            self._download.close()


def of_file(
    place: HpcJob | HpcCluster, path: files.Path, *, owner: Any = None
) -> RemoteFileResponse:
    """The file at `path`; waits until it is known to be readable, or raises why not."""
    download = files.download(place, path, owner=owner)
    response = RemoteFileResponse(download)
    if not download.size_bytes:
        # Whoever has the headers of an empty file has all of it, and goes: hear its end before.
        for piece in download:
            raise errors.TransferBroken(f"{len(piece)} bytes came of an empty file.")
        response.drop_content()
    return response


def status_of(problem: errors.HpcError) -> int:
    """The HTTP status that tells the problem best."""
    return next((status for kind, status in STATUSES if isinstance(problem, kind)), 500)


def mark_retry(response: HttpResponseBase, problem: errors.HpcError) -> None:
    """Say when to come again, where that helps."""
    if response.status_code == 503:
        seconds = problem.retry_after_s or RETRY_AFTER_S
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))


def of_error(problem: errors.HpcError) -> JsonResponse:
    """{"error": {"code", "message"}} with the status that fits."""
    told = {"code": problem.code, "message": str(problem)}
    response = JsonResponse({"error": told}, status=status_of(problem))
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    mark_retry(response, problem)
    return response


def _json(request: HttpRequest, problem: errors.HpcError) -> HttpResponseBase:
    return of_error(problem)


def errors_as_responses(view: View, *, answer: Answer = _json) -> View:
    """The view, sync or async, with our errors told by `answer`; to a HEAD no file is sent."""

    @functools.wraps(view)
    def of_sync(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return _fitting(request, view(request, *args, **kwargs))
        except errors.HpcError as problem:
            return answer(request, problem)

    @functools.wraps(view)
    async def of_async(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return _fitting(request, await view(request, *args, **kwargs))
        except errors.HpcError as problem:
            return answer(request, problem)

    return cast("View", of_async if iscoroutinefunction(view) else of_sync)


def _fitting(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if request.method == "HEAD" and isinstance(response, RemoteFileResponse):
        response.drop_content()
    return response


def _file_name(name: str) -> str:
    """The last part of `name`, with nothing in it that hides or moves other characters."""
    text = name.rpartition("/")[2].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else "_" for c in text) or "file"


def _is_served_by_asgi() -> bool:
    """Whether what is made here will be read by an event loop that lasts.

    Under WSGI an async view runs in a loop too, but in one that asgiref made for the view alone.
    """
    loop: asyncio.AbstractEventLoop | None
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    if loop is None or not loop.is_running():
        return False
    return loop not in AsyncToSync.loop_thread_executors


def _free_connections() -> None:
    """Let go of database connections: nobody needs one while a file is on its way, for hours."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


async def _stepped(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What a sync iterator yields, one piece at a time, each fetched in the request's thread."""
    step: Callable[..., Awaitable[bytes | None]] = sync_to_async(next)
    while (piece := await step(pieces, None)) is not None:
        yield piece


def _driven(pieces: AsyncIterator[bytes]) -> Iterator[bytes]:
    """What an async iterator yields, one piece at a time, in a loop of its own."""

    async def step() -> bytes | None:
        return await anext(pieces, None)

    with asyncio.Runner() as runner:
        while (piece := runner.run(step())) is not None:
            yield piece
