"""What can't be downloaded, or not now: it is told before the status."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from controller.models import HpcJob
from controller.services import clusters, host_keys
from ops import sshd

from .house import LONG_BYTES, Portal

pytestmark = pytest.mark.timeout(240)


def test_what_can_not_be_sent_is_told_before_the_status(ready: Portal) -> None:
    house = ready.house
    top = house.directory()
    (top / "sub").mkdir(exist_ok=True)
    os.mkfifo(top / "pipe")
    (top / "away").symlink_to("/etc/passwd")
    house.put("closed", b"x").chmod(0)
    unsent, job = HpcJob.objects.create(), house.job.pk
    expected = {
        f"{job}/missing": (404, "not_found", "missing"),
        f"{job}/sub": (403, "refused", "file"),
        f"{job}/pipe": (403, "refused", "file"),
        f"{job}/away": (403, "refused", "leads out"),
        f"{job}/../x": (403, "refused", ".."),
        f"{job}/closed": (403, "refused", "ermission"),
        f"{unsent.pk}/x": (404, "not_found", "never sent"),
    }
    for place, (status, code, words) in expected.items():
        for server, view in ((ready.asgi, "async"), (ready.wsgi, "sync")):
            told = server.open(f"/{view}/{place}").problem()
            assert told[:2] == (status, code), (place, told)
            assert words in told[2], (place, told)
    unknown = ready.wsgi.open(f"/cluster/{house.cluster.pk}/jaaaaaaaaaaaaaa/x").problem()
    assert unknown[:2] == (404, "not_found")


def test_host_that_is_not_there_is_told_with_when_to_come_again(ready: Portal) -> None:
    house = ready.house
    gone = clusters.register(
        name="gone", host_name="127.0.0.1", port=sshd.closed_port(), carrier="ssh",
        username=house.account.name, key=house.site.key.read_text(), client_path="/hpc",
    )  # fmt: skip
    pins = [(pin.key_type, pin.fingerprint, "127.0.0.1") for pin in house.site.pins()]
    host_keys.record(gone.pk, pins)
    host_keys.confirm(gone, [key.pk for key in gone.host_keys.all()])
    job = HpcJob.objects.create(cluster=gone, attempt=1)
    reader = ready.asgi.open(f"/async/{job.pk}/x")
    assert int(reader.response.headers["Retry-After"]) >= 1
    assert reader.problem()[:2] == (503, "host_unreachable")


def test_head_tells_the_size_and_sends_nothing(ready: Portal) -> None:
    ready.house.put("long", b"begin", LONG_BYTES)
    for server in (ready.asgi, ready.wsgi):
        with closing(server.open(f"/sync/{ready.house.job.pk}/long", "HEAD")) as reader:
            assert reader.response.headers["Content-Length"] == str(LONG_BYTES)
            assert reader.response.read() == b""
    ready.house.wait_states(2, "cancelled")
