"""Nudges through a real Redis: after the commit, ids alone, and never a burden to the caller."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from django.db import connection, transaction

from controller import errors, publish
from controller.models import HpcCluster, HpcJob
from controller.project.celery import app as project_app
from controller.services import clusters, files, jobs
from ops import processes, services

from .conftest import SCRIPT

NOBODY = "redis://127.0.0.1:1/0"

# celery 5.7.0 stores results by a command that redis-py 8 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def sent() -> None:
    """Here nudges are really sent."""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests could not send pauses nothing here."""
    monkeypatch.setattr(publish, "_paused_until", 0.0)


@pytest.fixture
def use_broker() -> Iterator[Callable[[str], Celery]]:
    """Makes the app of this thread one with the project's settings and another broker."""

    apps: list[Celery] = []

    def use(url: str) -> Celery:
        app = Celery("test")
        apps.append(app)
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.conf.update(broker_url=url, result_backend=url)
        app.set_current()
        app.set_default()
        return app

    yield use
    while apps:
        app = apps.pop()
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
        app.close()
    del app
    project_app.set_current()
    project_app.set_default()
    with warnings.catch_warnings():
        # After a reconnection celery leaves the old socket to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def broker(redis_url: str, use_broker: Callable[[str], Celery]) -> Iterator[redis.Redis]:
    """The broker, to look into its queues."""
    use_broker(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def cluster(transactional_db: None) -> HpcCluster:
    return clusters.register(name="north", host_name="localhost", client_path="/opt/hpc")


def messages(broker: redis.Redis, queue: str) -> list[dict[str, Any]]:
    found: list[bytes] = broker.lrange(queue, 0, -1)  # type: ignore[assignment]
    return [json.loads(message) for message in found]


def test_a_nudge_is_an_id_on_the_clusters_queue(cluster: HpcCluster, broker: redis.Redis) -> None:
    job = HpcJob(cluster=cluster, environment={"TOKEN": "hunter2"})
    with transaction.atomic():
        jobs.submit(job, {"script": SCRIPT + "# hunter2\n"})
        assert messages(broker, f"cluster.{cluster.pk}") == []
    (message,) = messages(broker, f"cluster.{cluster.pk}")
    assert message["headers"]["task"] == publish.SUBMIT_JOB
    assert message["headers"]["argsrepr"] == f"[{job.pk}]"
    assert "hunter2" not in json.dumps(message)


def test_nudges_that_come_while_one_is_sent_go_together(
    cluster: HpcCluster, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, is_first_under_way, may_go_on = publish._send, threading.Event(), threading.Event()

    def send_slowly(*arguments: Any) -> None:
        is_first_under_way.set()
        assert may_go_on.wait(20)
        send(*arguments)

    monkeypatch.setattr(publish, "_send", send_slowly)
    first = threading.Thread(target=publish._gather, args=(cluster.pk, 1))
    first.start()
    assert is_first_under_way.wait(20)
    for job_id in (2, 3, 4):
        publish._gather(cluster.pk, job_id)  # nobody is held up
    may_go_on.set()
    first.join(20)
    queue = publish.cluster_queue(cluster.pk)
    assert processes.wait_until(lambda: not publish._gathered, 20)
    told = [(m["headers"]["task"], m["headers"]["argsrepr"]) for m in messages(broker, queue)]
    assert told == [(publish.DRAIN_CLUSTER, f"[{cluster.pk}]"), (publish.SUBMIT_JOB, "[1]")]
    publish._gather(cluster.pk, 5)
    assert messages(broker, queue)[0]["headers"]["argsrepr"] == "[5]"


def test_where_no_thread_can_be_started_later_nudges_are_sent_again(
    cluster: HpcCluster, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = publish._send

    def send_while_another_comes(*arguments: Any) -> None:
        publish._gathered[cluster.pk].append(2)
        send(*arguments)

    def no_thread(work: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_send", send_while_another_comes)
        patch.setattr(publish.senders, "soon", no_thread)
        publish._gather(cluster.pk, 1)
    assert not publish._gathered
    monkeypatch.setattr(publish, "_paused_until", 0.0)
    publish._gather(cluster.pk, 3)
    sent = messages(broker, publish.cluster_queue(cluster.pk))
    assert {m["headers"]["argsrepr"] for m in sent} == {"[1]", "[3]"}


def test_many_clients_at_once_nudge_for_every_job(cluster: HpcCluster, broker: redis.Redis) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: publish._gather(cluster.pk, n), range(300)))
    assert processes.wait_until(lambda: not publish._gathered, 20)
    sent = messages(broker, publish.cluster_queue(cluster.pk))
    drains = [m for m in sent if m["headers"]["task"] == publish.DRAIN_CLUSTER]
    alone = {m["headers"]["argsrepr"] for m in sent if m["headers"]["task"] == publish.SUBMIT_JOB}
    assert alone <= {f"[{n}]" for n in range(300)}
    assert drains
    assert len(sent) < 300


def test_what_is_rolled_back_is_not_sent(cluster: HpcCluster, broker: redis.Redis) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        clusters.connect(cluster)
        raise ZeroDivisionError
    assert messages(broker, publish.QUEUE) == []
    clusters.connect(cluster)
    clusters.disconnect(cluster)
    clusters.bootstrap(cluster)
    tasks = [message["headers"]["task"] for message in messages(broker, publish.QUEUE)]
    assert tasks == [publish.BOOTSTRAP, publish.DISCONNECT, publish.CONNECT]


def test_threads_of_a_web_server_use_the_projects_app(
    cluster: HpcCluster, broker: redis.Redis
) -> None:
    def ask() -> None:
        publish.connect(cluster.pk)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(messages(broker, publish.QUEUE)) == 1


def test_without_a_broker_the_caller_is_not_held_up_and_the_job_is_kept(
    cluster: HpcCluster, use_broker: Callable[[str], Celery], caplog: pytest.LogCaptureFixture
) -> None:
    use_broker(NOBODY)
    started = time.monotonic()
    made = [HpcJob(cluster=cluster) for _ in range(20)]
    for job in made:
        jobs.submit(job, {"script": SCRIPT})
    assert time.monotonic() - started < len(made) * publish.SEND_LIMIT_S  # as if all had waited
    assert {job.status.name for job in made} == {"PENDING"}
    warnings = [r for r in caplog.records if r.message.startswith("nudge not sent")]
    assert len(warnings) == 1


def test_a_broker_that_hangs_holds_a_caller_for_half_a_second_once(
    cluster: HpcCluster, own_redis: services.Redis, use_broker: Callable[[str], Celery]
) -> None:
    use_broker(own_redis.url)
    assert own_redis.child is not None
    os.kill(own_redis.child.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        publish.connect(cluster.pk)
        first_s = time.monotonic() - started
        started = time.monotonic()
        for _ in range(100):
            publish.connect(cluster.pk)
        rest_s = time.monotonic() - started
    finally:
        os.kill(own_redis.child.pid, signal.SIGCONT)
    assert 0.4 < first_s < 10 * publish.SEND_LIMIT_S
    assert rest_s < 10 * publish.SEND_LIMIT_S  # 100 that wait would take 50 s


def test_after_a_pause_nudges_are_tried_again(
    cluster: HpcCluster,
    redis_url: str,
    broker: redis.Redis,
    use_broker: Callable[[str], Celery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "PAUSE_S", 0.2)
    use_broker(NOBODY)
    publish.connect(cluster.pk)
    paused_until = publish._paused_until
    use_broker(redis_url)
    publish.connect(cluster.pk)
    assert broker.llen(publish.QUEUE) == (time.monotonic() >= paused_until)
    deadline = time.monotonic() + 10
    while not broker.llen(publish.QUEUE):
        assert time.monotonic() < deadline
        publish.connect(cluster.pk)


SLOW_IMPORT = """
import sys, time, importlib.abc
import django
django.setup()
from controller import publish

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "kombu.transport.redis":
            time.sleep(1.5 * publish.SEND_LIMIT_S)

sys.meta_path.insert(0, Slow())
assert "kombu.transport.redis" not in sys.modules
publish.connect(7)
"""


def test_the_first_nudge_of_a_process_is_not_lost_to_slow_imports(
    redis_url: str, broker: redis.Redis, checkout: Path
) -> None:
    subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "controller.project.settings",
            "HPC_REDIS_URL": redis_url,
        },
        cwd=checkout,
        check=True,
        timeout=60,
    )
    assert [m["headers"]["argsrepr"] for m in messages(broker, publish.QUEUE)] == ["[7]"]


# Files --------------------------------------------------------------------------------------------


class Answerer:
    """Answers the one request on the queue `files`, as a files worker does."""

    def __init__(self, app: Celery, url: str, answer: Any) -> None:
        self.requests: list[Any] = []
        self._app, self._url, self._answer = app, url, answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with redis.Redis.from_url(self._url) as broker:
            popped: Any = broker.brpop([publish.FILES_QUEUE], timeout=20)
        message = json.loads(popped[1])
        self.requests.append((message["headers"]["task"], message["headers"]["argsrepr"]))
        self._app.backend.store_result(message["headers"]["id"], self._answer, "SUCCESS")

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"error": {"code": "not_found", "message": "no such file"}}, errors.NotFound),
        ({"error": {"code": "timeout", "message": "late"}}, errors.Timeout),
        ({"error": {"code": "path_refused", "message": "out"}}, errors.Refused),
        ({"error": {"code": "odd", "message": "x", "transient": True}}, errors.Unavailable),
        ({"error": "text"}, errors.Refused),
        (["nonsense"], errors.Refused),
    ],
)
def test_an_error_of_the_files_worker_is_raised_here(
    redis_url: str, use_broker: Callable[[str], Celery], answer: Any, error: type[Exception]
) -> None:
    answerer = Answerer(use_broker(redis_url), redis_url, answer)
    with pytest.raises(errors.HpcError) as caught:
        publish.call_files("list", 5, "", "", 10, timeout_s=20)
    answerer.join()
    assert type(caught.value) is error
    assert answerer.requests == [("hpc.files.list", "(5, '', '', 10)")]


def test_an_answer_is_returned_and_leaves_nothing_behind(
    redis_url: str, broker: redis.Redis, use_broker: Callable[[str], Celery]
) -> None:
    answerer = Answerer(use_broker(redis_url), redis_url, {"ok": {"entries": []}})
    assert publish.call_files("list", 5, "", "", 10, timeout_s=20) == {"entries": []}
    answerer.join()
    assert broker.keys("celery-task-meta-*") == []


def test_questions_work_again_once_redis_is_back(
    own_redis: services.Redis, use_broker: Callable[[str], Celery]
) -> None:
    app = use_broker(own_redis.url)
    for _ in range(2):
        answerer = Answerer(app, own_redis.url, {"ok": {"entries": []}})
        assert publish.call_files("list", 5, "", "", 10, timeout_s=20) == {"entries": []}
        answerer.join()
        own_redis.stop()
        with pytest.raises(errors.QueueUnreachable):
            publish.call_files("list", 5, "", "", 10, timeout_s=20)
        own_redis.start()


def test_many_may_ask_at_once(redis_url: str, use_broker: Callable[[str], Celery]) -> None:
    app = use_broker(redis_url)
    answerers = [Answerer(app, redis_url, {"ok": {"entries": []}}) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(publish.call_files, "list", n, "", "", 10, timeout_s=20) for n in range(8)
        ]
        assert [question.result() for question in asked] == [{"entries": []}] * 8
    for answerer in answerers:
        answerer.join()


def test_without_a_files_worker_the_wait_ends(
    redis_url: str, use_broker: Callable[[str], Celery]
) -> None:
    use_broker(redis_url)
    with pytest.raises(errors.Timeout, match="files worker"):
        publish.call_files("stat", 5, "a", timeout_s=0.3)


def test_without_redis_the_sentence_says_so(
    cluster: HpcCluster, use_broker: Callable[[str], Celery]
) -> None:
    use_broker(NOBODY)
    job = HpcJob.objects.create(cluster=cluster)
    HpcJob._base_manager.update(attempt=1)
    job.refresh_from_db()
    with pytest.raises(errors.QueueUnreachable, match="HPC_REDIS_URL"):
        files.read(job, "stdout.log", 0, 10)


def test_a_job_that_was_never_sent_has_no_files(cluster: HpcCluster) -> None:
    with pytest.raises(errors.NotFound, match="never sent"):
        files.list_directory(HpcJob.objects.create(cluster=cluster))


def test_every_published_name_is_registered_by_the_workers() -> None:
    from workers.celery import app

    app.loader.import_default_modules()
    assert set(publish.TASKS) <= set(app.tasks)
    assert {name for name in app.tasks if name.startswith("hpc.")} == set(publish.TASKS)
