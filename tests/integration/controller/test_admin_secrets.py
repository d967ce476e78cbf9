"""The form of a cluster: what is refused and mended; secrets go in and never come out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.signals import got_request_exception
from django.test import Client
from django.views.debug import get_exception_reporter_class

from controller import crypto, private_keys
from controller.models import (
    ClusterLink,
    HpcCluster,
)
from controller.services import clusters

from .pages import (
    FORM,
    Watched,
    page_of,
    private_key,
    refusals,
    url,
)

LOCAL_FORM = {**FORM, "host_name": "localhost", "username": ""}
PASSWORD = " ge'heim<&> "


def test_a_local_cluster_is_added_and_mended_with_its_link(browser: Watched) -> None:
    response = browser.post(url("hpccluster", "add"), LOCAL_FORM, follow=True)
    cluster = HpcCluster.objects.get()
    assert (cluster.client_path, cluster.setup_commands) == ("/opt/hpc", "module load x\n")
    assert (cluster.labels, cluster.carrier) == ({}, "local")
    assert ClusterLink.objects.get().cluster == cluster
    told = response.content.decode()
    assert "“/opt/hpc/client.py” was stored as “/opt/hpc”" in told
    assert "boundary of trust" in told
    assert "<h3>Host keys</h3>" not in told
    assert "needs no host keys" in told


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("client_path", "opt", "is relative"),
        ("client_path", "~/x", "write the home directory out"),
        ("host_name", "ssh://x", "enter the host alone"),
        ("username", "", "Enter the account"),
        ("umask", "9", "three octal digits"),
        ("labels", "[1]", "must be an object"),
        ("labels", "{", "valid JSON"),
        ("labels", '{"a":' + "[" * 100_000, "valid JSON"),
        ("labels", f'{{"a": {"9" * 5000}}}', "valid JSON"),
        ("labels", '{"a": NaN}', "what no database stores"),
        ("labels", r'{"a": "\ud800"}', "what no database stores"),
        ("labels", r'{"a\u0000": 1}', "what no database stores"),
        ("port", "70000", "65535"),
        ("key", "ssh-ed25519 AAAAC3Nz x", "public"),
        ("key", "PuTTY-User-Key-File-3: ssh-ed25519", "PuTTY"),
    ],
)
def test_a_bad_cluster_is_refused_at_its_field(
    browser: Watched, column: str, value: str, words: str
) -> None:
    form = {**FORM, "password": PASSWORD, column: value}
    if column != "key":
        browser.secrets = [PASSWORD, PASSWORD.strip()]
    response = browser.post(url("hpccluster", "add"), form)
    assert words in refusals(response)[column]
    assert "enter it again" in response.content.decode()
    assert not HpcCluster.objects.exists()


@pytest.mark.parametrize("passphrase", ["", PASSWORD])
def test_a_secret_goes_in_and_is_never_shown(browser: Watched, passphrase: str) -> None:
    key = private_key(passphrase)
    body = key.split("\r\n")[1]
    browser.secrets = [body, *filter(None, [passphrase])]
    bad = {**FORM, "key": key, "password": passphrase, "umask": "9"}
    response = browser.post(url("hpccluster", "add"), bad)
    assert set(refusals(response)) == {"umask"}
    browser.post(url("hpccluster", "add"), {**bad, "umask": "0077"}, follow=True)
    cluster = HpcCluster.objects.get()
    assert cluster.key.reveal() == key.replace("\r\n", "\n") + "\n"
    assert cluster.password.reveal() == passphrase
    browser.secrets += [cluster.key.token, "********"]
    page = page_of(browser, cluster)
    assert page.count(">stored</span>") == 1 + bool(passphrase)
    for other in ("history", "delete", "now", "host_keys"):
        assert browser.get(url("hpccluster", other, cluster.pk)).status_code == 200
    assert browser.get(url("hpccluster", "changelist")).status_code == 200
    found = browser.get(
        "/admin/autocomplete/?app_label=hpc_job_controller&model_name=hpcjob&field_name=cluster"
    )
    assert cluster.name in found.content.decode()
    for model, column in (("hpccluster", "key"), ("hpcjob", "cluster__key")):
        for lookup in ("", "__startswith", "__gt"):
            found = browser.get(url(model, "changelist"), {column + lookup: "g"})
            assert found.status_code in (302, 400), (column, lookup)
    stored = list(LogEntry.objects.values_list("change_message", "object_repr"))
    assert body not in str(stored)


def test_a_stored_secret_is_kept_replaced_or_removed(browser: Watched, far: HpcCluster) -> None:
    page = url("hpccluster", "change", far.pk)
    form = {**FORM, "name": "far"}
    before = far.key.reveal()

    def post(**fields: str) -> Any:
        return browser.post(page, {**form, **fields})

    assert post(group="hpc").status_code == 302
    far.refresh_from_db()
    assert (far.group, far.key.reveal()) == ("hpc", before)
    new = private_key()
    browser.secrets = [new.split("\r\n")[1]]
    assert "not both" in refusals(post(key=new, **{"key-remove": "1"}))["key"]
    assert "key" in refusals(post(**{"key-remove": "1"}))
    assert post(key=new).status_code == 302
    far.refresh_from_db()
    assert far.key.reveal() == new.replace("\r\n", "\n") + "\n"
    assert post(password=PASSWORD, **{"key-remove": "1"}).status_code == 302
    far.refresh_from_db()
    assert (far.key.reveal(), far.password.reveal()) == ("", PASSWORD)
    assert post(key=private_key(PASSWORD)).status_code == 302
    assert post(**{"key-remove": "1"}).status_code == 200  # the passphrase is no password
    messages = " ".join(entry.get_change_message() for entry in LogEntry.objects.all())
    assert "Private key and Password" in messages


@pytest.mark.parametrize(
    ("module", "function"),
    [(clusters, "changed"), (private_keys, "_supported"), (private_keys, "mend"), (crypto, "seal")],
)
def test_a_report_of_a_crash_holds_no_secret(
    admin_user: User,
    far: HpcCluster,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    function: str,
) -> None:
    reports: list[str] = []

    def note(request: Any, **_: Any) -> None:
        reporter = get_exception_reporter_class(request)(request, *sys.exc_info())
        reports.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    def crash(*_: Any) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr(module, function, crash)
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    key = private_key(PASSWORD)
    form = {**FORM, "name": "far", "key": key, "password": PASSWORD}
    got_request_exception.connect(note)
    try:
        response = client.post(url("hpccluster", "change", far.pk), form)
    finally:
        got_request_exception.disconnect(note)
    assert response.status_code == 500
    assert "crash" in reports[0]
    monkeypatch.undo()
    for secret in (key.split("\r\n")[1], "heim", far.key.reveal().split("\n")[1]):
        assert secret not in reports[0]


def test_other_credentials_are_tried_anew(browser: Watched, trusted: HpcCluster) -> None:
    ClusterLink.objects.filter(pk=trusted.pk).update(
        wanted=True, state="blocked", blocked_reason="login_refused", login_state="refused",
        login_reason="login_refused",
    )  # fmt: skip
    browser.post(
        url("hpccluster", "change", trusted.pk), {**FORM, "name": "far", "key": private_key()}
    )
    link = ClusterLink.objects.get(pk=trusted.pk)
    assert (link.state, link.login_state, link.login_reason) == ("down", "", "")


def test_a_secret_that_was_sealed_anew_meanwhile_is_not_put_back(
    browser: Watched, far: HpcCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are rotated while a form is being saved."""
    rotated = private_key()

    def validate(cluster: HpcCluster) -> None:
        HpcCluster.objects.filter(pk=far.pk).update(key=rotated)

    monkeypatch.setattr(clusters, "validate", validate)
    browser.post(url("hpccluster", "change", far.pk), {**FORM, "name": "far", "labels": "{}"})
    far.refresh_from_db()
    assert far.key.reveal() == rotated


def test_a_secret_that_no_key_opens_is_told(browser: Watched, far: HpcCluster) -> None:
    HpcCluster.objects.filter(pk=far.pk).update(key=far.key.__class__("nonsense"))
    assert ">stored</span>" in page_of(browser, far)
    response = browser.post(url("hpccluster", "change", far.pk), {**FORM, "name": "far"})
    assert "HPC_SECRET_KEYS" in refusals(response)["key"]
