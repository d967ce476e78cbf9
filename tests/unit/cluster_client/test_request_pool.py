"""The pool: bounded, and it survives what its work raises."""

from __future__ import annotations

import threading

import pytest

from cluster_client.request_pool import RequestPool

LIMIT_S = 10.0


def test_a_full_queue_refuses() -> None:
    pool = RequestPool("test", threads=1, waiting=1)
    begun, go = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(LIMIT_S)

    assert pool.submit(block)
    assert begun.wait(LIMIT_S)
    assert pool.submit(lambda: None)
    assert not pool.submit(lambda: None)
    go.set()
    assert pool.stop(LIMIT_S)
    assert not pool.submit(lambda: None)


def test_work_that_raises_is_logged_and_the_thread_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = RequestPool("test", threads=1, waiting=5)
    done = threading.Event()
    pool.submit(lambda: 1 // 0)
    pool.submit(done.set)
    assert done.wait(LIMIT_S)
    assert pool.stop(LIMIT_S)
    assert "request_failed" in caplog.text


def test_stop_waits_no_longer_than_its_limit() -> None:
    pool = RequestPool("test", threads=1, waiting=1)
    begun, go = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(LIMIT_S)

    pool.submit(block)
    assert begun.wait(LIMIT_S)
    assert not pool.stop(0.05)
    go.set()
