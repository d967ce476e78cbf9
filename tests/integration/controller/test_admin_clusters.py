"""The page of a cluster: words for its state, buttons that only ask, hostile text as text."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from controller import publish
from controller.lifecycle import JobStatus
from controller.models import (
    ClusterLink,
    HostKey,
    HpcCluster,
    LoginAttempt,
    Procedure,
    ProcedureState,
    Worker,
)
from controller.services import clusters, host_keys, links, logins, procedures

from .conftest import MakeJob
from .pages import (
    ED25519,
    FORM,
    Watched,
    act,
    page_of,
    press,
    private_key,
    url,
    user_with,
)

OTHER = ("ssh-ed25519", "SHA256:" + "B" * 43, "192.0.2.17")
BUTTONS = ("fetch_host_keys", "test", "bootstrap", "connect", "disconnect")


def test_from_registering_to_asking_for_a_bootstrap(
    browser: Watched, admin_user: User, sent: Any, committed: Any
) -> None:
    key = private_key()
    browser.secrets = [key.split("\r\n")[1]]
    response = browser.post(url("hpccluster", "add"), {**FORM, "key": key}, follow=True)
    far = HpcCluster.objects.get()
    assert response.redirect_chain[-1][0] == url("hpccluster", "change", far.pk)
    page = response.content.decode()
    assert 'aria-current="step"><b>1</b> Fetch host keys' in page
    assert "Confirm a host key first." in page
    assert "/do/bootstrap/" not in page
    with committed():
        assert "Fetch host keys is asked for" in press(browser, far, "fetch_host_keys")
    page = page_of(browser, far)
    assert "none is alive. Start one" in page
    assert 'data-refresh-s="1.5"' in page
    assert "Fetch host keys: It is under way." in page
    host_keys.record(far.pk, [ED25519, ("ssh-ed25519", ED25519[1], "192.0.2.18"), OTHER])
    procedures.finish_running(far.pk, "host_keys")
    assert "Confirm host keys</a>" in page_of(browser, far)
    compare = url("hpccluster", "host_keys", far.pk)
    page = browser.get(compare).content.decode()
    assert "ssh-keygen -lf" in page
    assert page.count(ED25519[1]) == 1
    ids = [str(key.pk) for key in far.host_keys.filter(fingerprint=ED25519[1])]
    told = browser.post(compare, {"key": ",".join(ids), "confirm": "1"}, follow=True)
    assert f"Confirmed: ssh-ed25519 {ED25519[1]}." in told.content.decode()
    confirmed = far.host_keys.exclude(confirmed_at=None)
    assert {(key.address, key.confirmed_by) for key in confirmed} == {
        ("192.0.2.17", admin_user),
        ("192.0.2.18", admin_user),
    }
    with committed():
        assert "Bootstrap is asked for" in press(browser, far, "bootstrap")
    assert ClusterLink.objects.get().wanted
    tasks = [publish.FETCH_HOST_KEYS, publish.BOOTSTRAP]
    assert [name for name, _, _ in sent] == tasks
    log = " ".join(entry.get_change_message() for entry in LogEntry.objects.all())
    assert "Asked for: Bootstrap." in log
    assert f"Host keys: confirmed: ssh-ed25519 {ED25519[1]}." in log


def test_the_actions_of_the_list_ask_and_say_so(
    browser: Watched, cluster: HpcCluster, far: HpcCluster, sent: Any, committed: Any
) -> None:
    ClusterLink.objects.update(wanted=False, epoch=1)
    with committed():
        told = act(browser, "hpccluster", "connect", cluster, far)
        assert told.startswith("1 cluster to be linked: a worker does it. | 1 cluster skipped: ")
        assert "Confirm a host key first" in told
        assert "to be bootstrapped" in act(browser, "hpccluster", "bootstrap", cluster)
        assert "to be left alone" in act(browser, "hpccluster", "disconnect", cluster)
        assert "to be asked" in act(browser, "hpccluster", "fetch_host_keys", far)
        assert "needs no host keys" in act(browser, "hpccluster", "fetch_host_keys", cluster)
        assert "to be tested" in act(browser, "hpccluster", "test", cluster)
    names = [name for name, _, _ in sent]
    assert names == [
        publish.CONNECT, publish.BOOTSTRAP, publish.DISCONNECT, publish.FETCH_HOST_KEYS,
        publish.TEST_CONNECTION,
    ]  # fmt: skip
    log = LogEntry.objects.filter(object_id=str(cluster.pk)).order_by("pk")
    asked = ["Connect", "Bootstrap", "Disconnect", "Test connection"]
    assert [entry.get_change_message() for entry in log] == [f"Asked for: {x}." for x in asked]


def test_a_mode_that_a_bootstrap_switched_meanwhile_stays(
    browser: Watched, far: HpcCluster
) -> None:
    assert '<input type="hidden" name="initial-mode" value="detached"' in page_of(browser, far)
    form = {**FORM, "name": "far", "initial-mode": "detached", "group": "hpc"}
    HpcCluster.objects.filter(pk=far.pk).update(mode="attached")
    page = url("hpccluster", "change", far.pk)
    assert browser.post(page, form).status_code == 302
    far.refresh_from_db()
    assert (far.mode, far.group) == ("attached", "hpc")
    browser.post(page, {**form, "initial-mode": "attached"})  # a person's choice counts
    far.refresh_from_db()
    assert far.mode == "detached"


def test_a_button_that_no_longer_fits_does_nothing(browser: Watched, far: HpcCluster) -> None:
    told = press(browser, far, "bootstrap")
    assert told == "Cluster far: Confirm a host key first."
    assert not Procedure.objects.exists()
    assert browser.post(url("hpccluster", "do", far.pk, "nonsense")).status_code == 404


def test_nothing_happens_on_a_get_or_without_the_token(
    trusted: HpcCluster, admin_user: User
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    before = list(ClusterLink.objects.values())
    for name in BUTTONS:
        page = url("hpccluster", "do", trusted.pk, name)
        assert client.get(page).status_code == 405
        assert client.post(page).status_code == 403
    compare = url("hpccluster", "host_keys", trusted.pk)
    ids = [key.pk for key in trusted.host_keys.all()]
    assert client.post(compare, {"key": ids, "withdraw": "1"}).status_code == 403
    assert client.get(compare, {"key": ids, "withdraw": "1"}).status_code == 200
    assert client.get(url("hpccluster", "now", trusted.pk)).status_code == 200
    assert list(ClusterLink.objects.values()) == before
    assert not Procedure.objects.exists()
    assert host_keys.pinned(trusted.pk)


def test_who_may_only_look_sees_no_buttons(client: Client, trusted: HpcCluster) -> None:
    client.force_login(user_with("view_hpccluster"))
    page = page_of(client, trusted)
    compare = url("hpccluster", "host_keys", trusted.pk)
    page += client.get(compare).content.decode()
    assert ED25519[1] in page
    for absent in ("/do/", 'type="checkbox"', "<textarea", 'name="confirm"', 'type="password"'):
        assert absent not in page, absent
    for name in BUTTONS:
        assert client.post(url("hpccluster", "do", trusted.pk, name)).status_code == 403
    ids = [key.pk for key in trusted.host_keys.all()]
    assert client.post(compare, {"key": ids, "withdraw": "1"}).status_code == 403
    assert client.post(url("hpccluster", "change", trusted.pk), FORM).status_code == 403
    assert host_keys.pinned(trusted.pk)


def test_changing_clusters_is_not_confirming_keys(client: Client, far: HpcCluster) -> None:
    host_keys.record(far.pk, [ED25519])
    client.force_login(user_with("view_hpccluster", "change_hpccluster"))
    compare = url("hpccluster", "host_keys", far.pk)
    assert "needs the permission" in client.get(compare).content.decode()
    assert client.post(compare, {"key": far.host_keys.get().pk, "confirm": "1"}).status_code == 403
    assert press(client, far, "fetch_host_keys").startswith("Fetch host keys is asked for")
    client.force_login(user_with("view_hpccluster", "confirm_hostkey"))
    assert client.post(url("hpccluster", "do", far.pk, "connect")).status_code == 403
    client.post(compare, {"key": far.host_keys.get().pk, "confirm": "1"})
    assert host_keys.pinned(far.pk)


@pytest.mark.parametrize("ids", ["9" * 30, "9" * 5000, "1,", "-1"])
def test_ids_that_no_page_sends_are_refused_with_a_sentence(
    browser: Watched, far: HpcCluster, ids: str
) -> None:
    compare = url("hpccluster", "host_keys", far.pk)
    told = browser.post(compare, {"key": ids, "confirm": "1"}, follow=True)
    assert "No key was ticked" in told.content.decode()


def test_who_may_not_look_gets_nothing(client: Client, far: HpcCluster) -> None:
    client.force_login(user_with("view_hpcjob"))
    for page in ("now", "host_keys", "change"):
        assert client.get(url("hpccluster", page, far.pk)).status_code == 403
    client.logout()
    for page in ("now", "host_keys"):
        assert client.get(url("hpccluster", page, far.pk)).status_code == 302


def test_a_changed_host_key_is_shown_loudly(browser: Watched, trusted: HpcCluster) -> None:
    assert "another key than the confirmed one" not in page_of(browser, trusted)
    host_keys.record(trusted.pk, [OTHER, ("ssh-rsa", "SHA256:" + "R" * 43, "192.0.2.17")])
    compare = url("hpccluster", "host_keys", trusted.pk)
    for page in (page_of(browser, trusted), browser.get(compare).content.decode()):
        assert 'hpc-alarm" role="alert">This host shows another key than the confirmed one' in page
        assert page.count(">changed</span>") == 1
    old = trusted.host_keys.get(fingerprint=ED25519[1])
    response = browser.post(compare, {"key": old.pk, "withdraw": "1"}, follow=True)
    assert "Trusted no more" in response.content.decode()
    assert not host_keys.pinned(trusted.pk)


@pytest.mark.parametrize("ticked", [[], ["x"], ["999999"], ["1 OR 1=1"]])
def test_keys_that_are_not_the_clusters_are_refused(
    browser: Watched, trusted: HpcCluster, cluster: HpcCluster, ticked: list[str]
) -> None:
    compare = url("hpccluster", "host_keys", cluster.pk)
    theirs = trusted.host_keys.get()
    HostKey.objects.filter(pk=theirs.pk).update(confirmed_at=None)
    for key in (*ticked, str(theirs.pk)):
        browser.post(compare, {"key": key, "confirm": "1"})
    assert not host_keys.pinned(trusted.pk)
    assert not host_keys.pinned(cluster.pk)


def test_what_the_cluster_says_is_shown_as_text(
    browser: Watched, trusted: HpcCluster, make_job: MakeJob
) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202e</div>\x07"
    HpcCluster.objects.filter(pk=trusted.pk).update(name="<script>x</script>")
    host_keys.record(trusted.pk, [("<b>type</b>", "SHA256:" + "H" * 43, "<b>here</b>")])
    clusters.connect(trusted)
    lease = links.take(trusted.pk, "<i>holder</i>")
    assert lease is not None
    links.record_up(trusted.pk, lease.epoch, {"host": hostile, "last_death": hostile})
    links.record_blocked(trusted.pk, lease.epoch, "setup", hostile)
    procedure = procedures.begin(trusted.pk, "test", "w")
    procedures.note(procedure.pk, hostile, "failed", 1.0, hostile)
    procedures.finish(procedure.pk, "login_refused", hostile)
    job = make_job(JobStatus.PENDING, cluster=trusted, blocked_reason="x", blocked_detail=hostile)
    pages = [page_of(browser, trusted)]
    pages += [
        browser.get(url("hpccluster", name, trusted.pk)).content.decode()
        for name in ("now", "host_keys")
    ]
    pages += [
        browser.get(address).content.decode()
        for address in (
            url("hpccluster", "changelist"),
            url("hpcjob", "change", job.pk),
            url("hpcjob", "now", job.pk),
        )
    ]
    for page in pages:
        for bad in (
            "<script>alert",
            "<script>x",
            "<b>t",
            "<b>here",
            "<i>h",
            "\x1b",
            "\u202e",
            "\x07",
        ):
            assert bad not in page, bad
    assert "\\x1b[31m\\u202e&lt;/div&gt;\\x07" in pages[0]


@pytest.mark.parametrize(
    ("columns", "title", "refresh_s"),
    [
        ({}, "Never connected", None),
        ({"epoch": 3}, "Not wanted", None),
        ({"wanted": True}, "Waiting for a worker", "1.5"),
        ({"wanted": True, "state": "connecting"}, "Connecting", "1.5"),
        ({"wanted": True, "failures": 2, "blocked_detail": "It broke."}, "Down", "1.5"),
        ({"wanted": True, "state": "up", "holder": "gone"}, "Left alone", "1.5"),
        ({"wanted": True, "state": "blocked", "blocked_reason": "x"}, "Blocked", "10"),
        ({"wanted": False, "epoch": 1, "holder": "w", "state": "down"}, "Closing", "1.5"),
    ],
)
def test_the_state_is_told_in_words(
    browser: Watched, far: HpcCluster, columns: Any, title: str, refresh_s: str | None
) -> None:
    Worker.objects.create(name="w", host="h", pid=1)
    ClusterLink.objects.filter(pk=far.pk).update(**columns)
    page = browser.get(url("hpccluster", "now", far.pk)).content.decode()
    assert f'">{title}' in page
    assert ("data-refresh-s" in page) == (refresh_s is not None)
    assert refresh_s is None or f'data-refresh-s="{refresh_s}"' in page
    Worker.objects.all().delete()
    page = browser.get(url("hpccluster", "now", far.pk)).content.decode()
    is_waiting = columns.get("wanted") and columns.get("state") != "blocked"
    assert (">No worker<" in page) == bool(is_waiting)


def test_a_linked_cluster_is_described(
    browser: Watched, cluster: HpcCluster, lease: links.Lease, make_job: MakeJob
) -> None:
    HpcCluster.objects.filter(pk=cluster.pk).update(carrier="ssh")
    make_job(JobStatus.RUNNING, cluster=cluster)
    ClusterLink.objects.filter(pk=cluster.pk).update(
        generation=4, address="192.0.2.9", login_state="refused", login_reason="login_refused",
        login_detail="The host took neither.", scheduler="slurm", scheduler_version="22.05",
        scheduler_overruled=True, last_death="killed by signal 9",
    )  # fmt: skip
    for _ in range(2):
        logins.ask(cluster.pk, "test")
        LoginAttempt.objects.create(cluster=cluster, purpose="test")
    page = page_of(browser, cluster)
    for told in (
        "Up</span>", "192.0.2.9", "on login1, process 77, generation 4", "version 1.0",
        "slurm 22.05", "set by the client's own settings", "killed by signal 9",
        "2 of 6 in the last minute, 2 of 30 in the last hour", "The host took neither.",
        "1 running</a>",
    ):  # fmt: skip
        assert told in page, told
    assert 'data-refresh-s="10"' in page


def test_procedures_are_shown_with_their_steps(browser: Watched, trusted: HpcCluster) -> None:
    for number in range(7):
        made = procedures.begin(trusted.pk, "test", "w")
        procedures.note(made.pk, f"Log in {number}", "done", 0.123, "To 192.0.2.17.")
        procedures.finish(made.pk)
    page = browser.get(url("hpccluster", "now", trusted.pk)).content.decode()
    assert page.count("<details") == 5
    assert page.index("Log in 6") < page.index("Log in 5")
    assert "Log in 1" not in page
    assert page.count(" open>") == 1
    assert "0.12 s" in page
    assert Procedure.objects.filter(state=ProcedureState.DONE).count() == 7


def test_a_copy_is_skipped_with_the_way_out(browser: Watched, cluster: HpcCluster) -> None:
    ClusterLink.objects.update(instance_id="production")
    links.take(cluster.pk, "a")
    told = act(browser, "hpccluster", "connect", cluster)
    assert told.startswith("1 cluster skipped: ")
    assert "hpc adopt north" in told


def test_a_linked_cluster_or_one_with_jobs_is_not_deleted(
    browser: Watched, cluster: HpcCluster, make_job: MakeJob
) -> None:
    page = url("hpccluster", "delete", cluster.pk)
    assert browser.post(page, {"post": "yes"}).status_code == 403
    ClusterLink.objects.update(wanted=False)
    job = make_job(JobStatus.COMPLETED, cluster=cluster)
    browser.post(page, {"post": "yes"})
    assert HpcCluster.objects.exists()
    job._meta.default_manager.filter(pk=job.pk).update(cluster=None)
    HostKey.objects.create(cluster=cluster, key_type="ssh-ed25519", fingerprint="SHA256:x")
    LoginAttempt.objects.create(cluster=cluster, purpose="test")
    procedures.note(procedures.begin(cluster.pk, "test", "w").pk, "Log in", "done", 0.1)
    assert browser.post(page, {"post": "yes"}).status_code == 302
    assert not HpcCluster.objects.exists()


def test_a_list_of_clusters_needs_few_queries(
    browser: Watched, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        clusters.register(name=f"c{number}", host_name="localhost", client_path="/opt/hpc")
    with django_assert_max_num_queries(8):
        browser.get(url("hpccluster", "changelist"))
