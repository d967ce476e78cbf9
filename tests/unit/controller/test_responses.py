"""Files and errors as responses, through Django's own handlers for WSGI and for ASGI."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import override_settings
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from controller import errors, responses

PIECES = 6


class Download:
    """A file that counts how many of its pieces have left it."""

    def __init__(self, breaks_after: int | None = None, **fields: Any) -> None:
        self.name, self.etag, self.size_bytes = "result.dat", "1f-2a-3", 3 * PIECES
        for name, value in fields.items():
            setattr(self, name, value)
        self.taken = 0
        self.closed = 0
        self._breaks_after = breaks_after

    def __iter__(self) -> Iterator[bytes]:
        for number in range(PIECES):
            yield self._piece(number)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(PIECES):
            await asyncio.sleep(0)
            yield self._piece(number)

    def close(self) -> None:
        self.closed += 1

    def _piece(self, number: int) -> bytes:
        if number == self._breaks_after:
            raise errors.TransferBroken("The cluster is gone.")
        self.taken += 1
        return b"%03d" % number


CONTENT = b"".join(b"%03d" % number for number in range(PIECES))
current: list[Download | errors.HpcError] = []


def outcome() -> responses.RemoteFileResponse:
    found = current[0]
    if isinstance(found, errors.HpcError):
        raise found
    return responses.RemoteFileResponse(found)


@responses.errors_as_responses
def sync_view(request: HttpRequest) -> HttpResponseBase:
    return outcome()


@responses.errors_as_responses
async def async_view(request: HttpRequest) -> HttpResponseBase:
    return outcome()


@responses.errors_as_responses
async def async_view_that_fetches_aside(request: HttpRequest) -> HttpResponseBase:
    return await sync_to_async(outcome)()


@responses.errors_as_responses
async def async_view_on_a_thread_of_its_own(request: HttpRequest) -> HttpResponseBase:
    return await asyncio.to_thread(outcome)


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("aside", async_view_that_fetches_aside),
    path("thread", async_view_on_a_thread_of_its_own),
]
VIEWS = [route.pattern._route for route in urlpatterns]


def loud(response: Any) -> Any:
    """Wrap the content as Django's documentation tells middlewares to.

    Source: https://docs.djangoproject.com/en/5.2/topics/http/middleware/#dealing-with-streaming-responses
    """
    if response.is_async:

        async def wrapped(content: Any) -> AsyncIterator[bytes]:
            async for piece in content:
                yield b"<" + piece + b">"

        response.streaming_content = wrapped(response.streaming_content)
    else:
        response.streaming_content = (b"<" + p + b">" for p in response.streaming_content)
    return response


def loud_sync(get_response: Callable[..., Any]) -> Callable[..., Any]:
    return lambda request: loud(get_response(request))


@sync_and_async_middleware
def loud_both(get_response: Callable[..., Any]) -> Callable[..., Any]:
    if not asyncio.iscoroutinefunction(get_response):
        return lambda request: loud(get_response(request))

    async def middleware(request: Any) -> Any:
        return loud(await get_response(request))

    return middleware


def quiet_sync(get_response: Callable[..., Any]) -> Callable[..., Any]:
    def middleware(request: Any) -> Any:
        return get_response(request)

    return middleware


def names_no_encoding(get_response: Callable[..., Any]) -> Callable[..., Any]:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        del response.headers["Content-Encoding"]
        return response

    return middleware


HERE = __name__
GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
MIDDLEWARES = [[], [f"{HERE}.quiet_sync"], [GZIP, CONDITIONAL]]
WRAPPERS = [
    [f"{HERE}.loud_sync"],
    [f"{HERE}.loud_both"],
    [f"{HERE}.quiet_sync", f"{HERE}.loud_both"],
]


class Answer:
    """What a server got to send: `ahead` is the largest number of pieces that waited in between."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ahead = 0

    def add(self, part: bytes) -> None:
        if not part:
            return
        self.body += part
        if isinstance(current[0], Download):
            self.ahead = max(self.ahead, current[0].taken - len(self.body) // 3)


def by_wsgi(url: str, method: str = "GET", **headers: str) -> Answer:
    answer = Answer()

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        answer.status, answer.headers = int(status[:3]), dict(headers)
        return answer.add

    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": f"/{url}", "SERVER_NAME": "testserver",
        "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }  # fmt: skip
    response = WSGIHandler()(environ, start)
    try:
        for part in response:
            answer.add(part)
    finally:
        response.close()
    return answer


def by_asgi(
    url: str, method: str = "GET", leaves_after: int | None = None, **headers: str
) -> Answer:
    answer = Answer()

    async def talk() -> None:
        gone = asyncio.Event()
        asked = iter([{"type": "http.request"}])

        async def receive() -> Any:
            for message in asked:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode().title(): v.decode() for k, v in message["headers"]}
                return
            answer.add(message.get("body", b""))
            if leaves_after is not None and len(answer.body) >= 3 * leaves_after:
                gone.set()
                await asyncio.Event().wait()  # its buffers are full, for ever

        scope = {
            "type": "http", "method": method, "path": f"/{url}", "query_string": b"",
            "headers": [(b"host", b"testserver")] + [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
        }  # fmt: skip
        await ASGIHandler()(scope, receive, send)

    asyncio.run(talk())
    return answer


SERVERS = [by_wsgi, by_asgi]


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=HERE, MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
        yield
    current.clear()


def offer(*arguments: Any, **fields: Any) -> Download:
    made = Download(*arguments, **fields)
    current[:] = [made]
    return made


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("middleware", MIDDLEWARES)
def test_pieces_are_passed_on_one_by_one(
    server: Callable[..., Answer], view: str, middleware: list[str]
) -> None:
    download = offer()
    with override_settings(MIDDLEWARE=middleware):
        answer = server(view, accept_encoding="gzip")
    assert (answer.status, answer.body, answer.ahead) == (200, CONTENT, 0)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert download.closed


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("middleware", WRAPPERS)
def test_middleware_may_wrap_the_content_piece_by_piece(
    server: Callable[..., Answer], view: str, middleware: list[str]
) -> None:
    download = offer()
    with override_settings(MIDDLEWARE=middleware):
        answer = server(view)
    assert answer.body == b"".join(b"<%03d>" % number for number in range(PIECES))
    assert answer.ahead <= 0  # each piece has grown by two bytes
    assert download.closed


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
def test_content_that_a_middleware_compresses_is_whole(
    server: Callable[..., Answer], view: str
) -> None:
    offer()
    with override_settings(MIDDLEWARE=[GZIP, f"{HERE}.names_no_encoding"]):
        answer = server(view, accept_encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body) == CONTENT


# Django's handler for ASGI leaves the request's own file open where the response raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("middleware", [[], [f"{HERE}.loud_both"]])
def test_file_that_breaks_breaks_the_response(
    server: Callable[..., Answer], view: str, middleware: list[str]
) -> None:
    download = offer(breaks_after=2)
    with override_settings(MIDDLEWARE=middleware), pytest.raises(errors.TransferBroken):
        server(view)
    gc.collect()
    assert download.taken == 2
    assert download.closed


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
def test_head_is_answered_without_the_file(server: Callable[..., Answer], view: str) -> None:
    download = offer()
    answer = server(view, "HEAD")
    assert (answer.status, answer.body, download.taken) == (200, b"", 0)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert download.closed


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("middleware", [[], [f"{HERE}.loud_sync"], [f"{HERE}.loud_both"]])
def test_reader_who_goes_away_ends_the_download(view: str, middleware: list[str]) -> None:
    download = offer()
    with override_settings(MIDDLEWARE=middleware):
        by_asgi(view, leaves_after=2)
    assert download.taken < PIECES
    assert download.closed


@pytest.mark.parametrize("server", SERVERS)
def test_file_that_the_browser_has_is_not_sent(server: Callable[..., Answer]) -> None:
    download = offer()
    key = "if_none_match"
    with override_settings(MIDDLEWARE=[CONDITIONAL]):
        assert server("sync", **{key: 'W/"1f-2a-3"'}).status == 304
    gc.collect()
    assert download.taken == 0
    assert download.closed


def test_response_that_is_dropped_ends_the_download() -> None:
    download = offer()
    response = outcome()
    assert not download.closed
    del response
    gc.collect()
    assert download.closed


def test_headers_say_that_it_is_to_be_stored_and_not_shown() -> None:
    offer()
    headers = responses.RemoteFileResponse(offer()).headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert "no-store" in headers["Cache-Control"]
    assert headers["ETag"] == 'W/"1f-2a-3"'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", 'filename="plain.txt"'),
        ("out put.dat", 'filename="out put.dat"'),
        ('a"b\\c.txt', 'filename="a\\"b\\\\c.txt"'),
        ("Ärger 漢.dat", "filename*=utf-8''%C3%84rger%20%E6%BC%A2.dat"),
        ("run/7/energy.csv", 'filename="energy.csv"'),
        ("a\r\nSet-Cookie: x=1", 'filename="a__Set-Cookie: x=1"'),
        ("cod\u202etxt.exe", 'filename="cod_txt.exe"'),
        ("caf\udce9", 'filename="caf?"'),
        ("", 'filename="file"'),
        ("a/", 'filename="file"'),
    ],
)
def test_name_of_the_file_is_told_and_can_do_no_harm(name: str, shown: str) -> None:
    headers = responses.RemoteFileResponse(offer(name=name)).headers
    assert headers["Content-Disposition"] == f"attachment; {shown}"


@pytest.mark.parametrize("etag", ["", 'a"b', "a\r\nb", "ä", "x" * 129])
def test_etag_that_is_none_is_left_out(etag: str) -> None:
    assert "ETag" not in responses.RemoteFileResponse(offer(etag=etag)).headers


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.NotFound, 404), (errors.Invalid, 400), (errors.IllegalMove, 400),
        (errors.Refused, 403), (errors.LoginRefused, 502), (errors.HostKeyRefused, 502),
        (errors.NoSpace, 507), (errors.Busy, 503), (errors.QueueUnreachable, 503),
        (errors.ClusterOffline, 503), (errors.LoginsHeldBack, 503),
        (errors.HostUnreachable, 503), (errors.CannotDecrypt, 503), (errors.Timeout, 504),
        (errors.TransferBroken, 502), (errors.Misconfigured, 500),
    ],
)  # fmt: skip
def test_error_before_the_file_is_told_by_status_and_words(
    server: Callable[..., Answer], view: str, kind: type[errors.HpcError], status: int
) -> None:
    current[:] = [kind("'<b>x</b>': no.")]
    answer = server(view)
    assert answer.status == status
    assert json.loads(answer.body) == {"error": {"code": kind.code, "message": "'<b>x</b>': no."}}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options".title()] == "nosniff"
    assert answer.headers.get("Retry-After") == ("5" if status == 503 else None)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "5"), (0.2, "1"), (17.1, "18"), (3, "3")])
def test_when_to_come_again_is_rounded_up(seconds: float, told: str) -> None:
    problem = errors.Busy("Full.")
    problem.retry_after_s = seconds
    assert responses.of_error(problem).headers["Retry-After"] == told


def test_answer_may_be_the_sites_own() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        raise errors.NotFound("Gone.")

    told = responses.errors_as_responses(
        view, answer=lambda request, problem: HttpResponse(str(problem), status=404)
    )
    assert told(HttpRequest()).content == b"Gone."
