"""A job's files in the admin, with a browser: found, looked through, downloaded; trouble told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, expect

from controller.models import HpcJob
from tests.acceptance import browser
from tests.acceptance.browser import Visit

from .house import MIB, House, Portal

pytestmark = pytest.mark.timeout(240)
PAGES = "hpc_job_controller"
CONTENT = b"energy -76.4\n" * 200_000
HOSTILE = "<b>\x1b[31m\u202egnp.exe"


@pytest.fixture
def session(ready: Portal) -> str:
    user, _ = User.objects.get_or_create(username="operator", is_staff=True, is_superuser=True)
    return browser.session_of(user)


@pytest.fixture
def strict(ready: Portal) -> Iterator[str]:
    with browser.web(ready.house.stack) as url:
        yield url


@pytest.fixture
def job(ready: Portal) -> HpcJob:
    """A job that left much behind."""
    house = ready.house
    made = house.new_job()
    HpcJob.objects.filter(pk=made.pk).update(name="relaxation of a surface")
    place = house.directory(made)
    for name in ("checkpoints", "deep", f"deep/{'long' * 50}", os.fsdecode(b"caf\xe9")):
        (place / name).mkdir()
    (place / "deep" / "inside.txt").write_text("x")
    (place / "energy.dat").write_bytes(CONTENT)
    (place / "stdout.log").write_text("done\n")
    (place / HOSTILE).write_text("x")
    os.truncate(fresh(place / "wavefunction.h5"), 3000 * MIB)
    os.mkfifo(place / "pipe")
    (place / "newest").symlink_to("checkpoints")
    (place / "away").symlink_to("/etc/passwd")
    for number in range(230):
        (place / "checkpoints" / f"step-{number:04}.chk").write_bytes(bytes(number * 997))
    os.utime(place / "stdout.log", (1.6e9, 1.6e9))
    house.site.give(house.account, place)
    made.refresh_from_db()
    return made


def fresh(path: Path) -> Path:
    path.touch()
    return path


def test_files_are_looked_through_and_downloaded(
    ready: Portal, strict: str, session: str, job: HpcJob
) -> None:
    with browser.opened() as chromium:
        with browser.visiting(chromium, strict, accept_downloads=True) as visit:
            visit.enter(session)
            find(visit, job)
            look_through(visit)
            download(visit)
        for scheme, width in (("dark", 1280), ("light", 420)):
            look_at(chromium, strict, session, job, scheme, width)
        without_scripts(chromium, strict, session, job)
        tell_trouble(chromium, strict, session, ready.house, job)


def find(visit: Visit, job: HpcJob) -> None:
    visit.go(f"{PAGES}/hpcjob/{job.pk}/change/")
    visit.page.get_by_role("link", name="Files", exact=True).click()
    expect(visit.page.locator("h1, #content-main").first).to_be_visible()
    visit.picture("files", "#container")


def look_through(visit: Visit) -> None:
    page = visit.page
    rows = page.locator(".hpc-files tbody tr")
    expect(rows.filter(has_text="wavefunction.h5")).to_contain_text("2.9\xa0GB")
    expect(rows.filter(has_text="pipe")).to_contain_text("can’t be read")
    expect(rows.filter(has_text="away")).to_contain_text("→ /etc/passwd")
    page.get_by_role("link", name="newest").click()
    expect(page.locator(".hpc-way")).to_contain_text("/ newest")
    expect(page.get_by_role("link", name="step-0000.chk")).to_be_visible()
    page.get_by_role("link", name="More entries").click()
    expect(page.get_by_role("link", name="step-0229.chk")).to_be_visible()
    page.get_by_role("link", name="From the beginning").click()
    expect(page.get_by_role("link", name="step-0000.chk")).to_be_visible()
    page.get_by_role("link", name="the job’s directory").click()
    page.get_by_role("link", name="caf\ufffd").click()
    expect(page.locator("#content-main")).to_contain_text("This directory is empty.")
    page.go_back()
    visit.check()


def download(visit: Visit) -> None:
    with visit.page.expect_download() as started:
        visit.page.get_by_role("link", name="energy.dat").click()
    assert started.value.suggested_filename == "energy.dat"
    assert Path(started.value.path()).read_bytes() == CONTENT
    with visit.page.expect_download() as started:
        visit.page.get_by_role("link", name="gnp.exe").click()
    assert "\u202e" not in started.value.suggested_filename
    visit.check()


def look_at(
    chromium: Browser, url: str, session: str, job: HpcJob, scheme: str, width: int
) -> None:
    with browser.visiting(chromium, url, width=width, color_scheme=scheme) as visit:
        visit.enter(session)
        visit.go(f"{PAGES}/hpcjob/{job.pk}/files/")
        visit.picture(f"files-{scheme}-{width}")
        assert not visit.is_too_wide
        visit.page.get_by_role("link", name="deep").click()
        visit.page.get_by_role("link", name="longlong").click()
        visit.picture(f"files-deep-{scheme}-{width}")
        assert not visit.is_too_wide
        visit.go(f"{PAGES}/hpcjob/{job.pk}/change/")
        visit.picture(f"files-job-{scheme}-{width}", "[data-now]")


def without_scripts(chromium: Browser, url: str, session: str, job: HpcJob) -> None:
    with browser.visiting(chromium, url, java_script_enabled=False) as visit:
        visit.enter(session)
        visit.go(f"{PAGES}/hpcjob/{job.pk}/change/")
        visit.page.get_by_role("link", name="Files", exact=True).click()
        with visit.page.expect_download() as started:
            visit.page.get_by_role("link", name="stdout.log").click()
        assert Path(started.value.path()).read_text() == "done\n"


def tell_trouble(chromium: Browser, url: str, session: str, house: House, job: HpcJob) -> None:
    """What goes wrong is told on a page, which leads back; a browser complains of its status."""
    with browser.visiting(chromium, url) as visit:
        visit.enter(session)
        visit.go(f"{PAGES}/hpcjob/{job.pk}/files/")
        page = visit.page
        page.get_by_role("link", name="away").click()
        expect(page.locator("[role=alert]")).to_contain_text("leads out of the job's directory")
        visit.complaints.clear()
        visit.picture("files-refused", "#container")
        page.get_by_role("link", name="To all files of the job").click()
        (house.directory(job) / "energy.dat").unlink()
        page.get_by_role("link", name="energy.dat").click()
        expect(page.locator("[role=alert]")).to_contain_text("energy.dat")
        visit.complaints.clear()
        visit.picture("files-missing", "#container")
