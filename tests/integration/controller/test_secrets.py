"""Secrets in rows: sealed whatever way they go in, shown by none, and sealed anew key by key."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core import serializers
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import connection
from django.forms.models import model_to_dict, modelform_factory
from pytest_django import Settings

from controller import crypto, errors
from controller.models import HpcCluster
from controller.services import secrets

from .test_hpc_command import hpc

SECRET = " geheim ' \\ ü! "
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def make(db: None, settings: Settings) -> Callable[..., HpcCluster]:
    """Makes clusters with secrets, sealed with `by`."""
    settings.HPC_SECRET_KEYS = NEW

    def make_one(name: str = "north", by: str = NEW, **fields: Any) -> HpcCluster:
        kept, settings.HPC_SECRET_KEYS = settings.HPC_SECRET_KEYS, by
        columns = {"host_name": "localhost", "carrier": "local", "client_path": "/x"}
        columns |= {"key": SECRET, "password": SECRET, **fields}
        cluster = HpcCluster.objects.create(name=name, **columns)
        settings.HPC_SECRET_KEYS = kept
        return cluster

    return make_one


def stored(cluster: HpcCluster, column: str = "password") -> str:
    """What really stands in the row."""
    with connection.cursor() as cursor:
        table = HpcCluster._meta.db_table
        cursor.execute(f"SELECT {column} FROM {table} WHERE id = %s", [cluster.pk])
        return str(cursor.fetchone()[0])


def assert_sealed(text: str) -> None:
    assert SECRET.strip() not in text
    assert crypto.reveal(text) == SECRET


def fresh(cluster: HpcCluster) -> HpcCluster:
    return HpcCluster.objects.get(pk=cluster.pk)


def test_every_way_into_the_row_seals(make: Callable[..., HpcCluster]) -> None:
    cluster = make()
    assert_sealed(stored(cluster))
    assert_sealed(stored(cluster, "key"))
    cluster.password = ""
    cluster.save()
    assert stored(cluster) == ""
    HpcCluster.objects.update(password=SECRET)
    assert_sealed(stored(cluster))
    again = fresh(cluster)
    again.key = SECRET
    HpcCluster.objects.bulk_update([again], ["key", "password"])
    assert_sealed(stored(cluster))
    assert_sealed(stored(cluster, "key"))
    (made,) = HpcCluster.objects.bulk_create(
        [HpcCluster(name="b", host_name="h", client_path="/x", password=SECRET)]
    )
    assert_sealed(stored(made))
    assert fresh(made).password.reveal() == SECRET
    assert fresh(made).key.reveal() == ""


@pytest.mark.parametrize("value", [7, b"bytes", ["x"]])
def test_only_text_is_a_secret(make: Callable[..., HpcCluster], value: Any) -> None:
    with pytest.raises(TypeError, match="text"):
        make(password=value)


def test_no_way_out_of_the_row_shows_it(make: Callable[..., HpcCluster]) -> None:
    cluster = make()
    shown = [
        repr(cluster),
        str(vars(cluster)),
        str(model_to_dict(cluster)),
        str(HpcCluster.objects.values()),
        str(list(HpcCluster.objects.values_list("key", "password"))),
        repr(pickle.dumps(cluster)),
        str(vars(copy.deepcopy(cluster))),
        *(serializers.serialize(form, [cluster]) for form in ("json", "jsonl", "xml", "python")),
    ]
    for text in map(str, shown):
        assert SECRET.strip() not in text
        assert "geheim" not in text
    form = modelform_factory(HpcCluster, fields="__all__")(instance=cluster)
    assert not {"key", "password"} & form.fields.keys()
    assert stored(cluster) not in form.as_p()


def test_it_is_there_however_the_row_is_loaded(make: Callable[..., HpcCluster]) -> None:
    cluster = make()
    assert HpcCluster.objects.defer("password").get().password.reveal() == SECRET
    assert HpcCluster.objects.only("name").get().key.reveal() == SECRET
    assert pickle.loads(pickle.dumps(cluster)).password.reveal() == SECRET
    cluster.password = "other"
    cluster.refresh_from_db()
    assert cluster.password.reveal() == SECRET
    cluster.full_clean()
    cluster.save()
    assert fresh(cluster).password.reveal() == SECRET


@pytest.mark.parametrize(
    "condition",
    [
        {"key": SECRET},
        {"key__contains": "x"},
        {"key__isnull": True},
        {"password__in": [SECRET]},
        {"password__regex": "."},
        {"link__cluster__password__startswith": "g"},
    ],
)
def test_it_can_not_be_searched_for(db: None, condition: dict[str, Any]) -> None:
    for ask in (HpcCluster.objects.filter, HpcCluster.objects.exclude):
        with pytest.raises((TypeError, FieldError)):
            ask(**condition).exists()


def test_a_row_that_was_loaded_before_brings_no_older_secret_back(
    make: Callable[..., HpcCluster],
) -> None:
    stale = fresh(make())
    HpcCluster.objects.update(password="newer")
    stale.port = 2222
    stale.full_clean()
    stale.save()
    assert (fresh(stale).password.reveal(), fresh(stale).port) == ("newer", 2222)
    stale.password = SECRET
    stale.save()
    assert fresh(stale).password.reveal() == SECRET


def test_a_copy_of_a_row_has_its_secrets(make: Callable[..., HpcCluster]) -> None:
    first = fresh(make())
    other = make("other", password="another")
    other = fresh(other)
    other.password = first.password
    other.save()
    assert fresh(other).password.reveal() == SECRET
    first.pk, first.name, first._state.adding = None, "twin", True
    first.save()
    assert fresh(first).password.reveal() == SECRET


def dump() -> str:
    out = io.StringIO()
    call_command("dumpdata", "hpc_job_controller.hpccluster", stdout=out)
    return out.getvalue()


def load(text: str, directory: Path) -> None:
    path = directory / "fixture.json"
    path.write_text(text)
    call_command("loaddata", path, verbosity=0)


def test_dumped_data_are_sealed_and_loaded_as_they_were(
    make: Callable[..., HpcCluster], tmp_path: Path
) -> None:
    cluster = make(key="")
    token = stored(cluster)
    text = dump()
    assert "geheim" not in text
    assert json.loads(text)[0]["fields"]["key"] == ""
    cluster.delete()
    load(text, tmp_path)
    loaded = HpcCluster.objects.get()
    assert (stored(loaded), stored(loaded, "key")) == (token, "")
    assert loaded.password.reveal() == SECRET


def test_plain_text_of_a_fixture_is_sealed_and_a_token_is_not_sealed_twice(
    make: Callable[..., HpcCluster], tmp_path: Path
) -> None:
    cluster = make()
    document = json.loads(dump())
    document[0]["fields"]["password"] = SECRET
    load(json.dumps(document), tmp_path)
    assert_sealed(stored(cluster))
    before = stored(cluster)
    for refused in (before, f"sealed:{SECRET}", f"sealed:{crypto.STARS}"):
        document[0]["fields"]["password"] = refused
        with pytest.raises(serializers.base.DeserializationError):
            load(json.dumps(document), tmp_path)
    assert stored(cluster) == before


# Rotation -----------------------------------------------------------------------------------------


def nothing(done: int, total: int) -> None:
    """A report that nobody reads."""


def test_every_secret_is_sealed_with_the_newest_key(
    make: Callable[..., HpcCluster], settings: Settings
) -> None:
    made = [make("old", OLD), make("half", OLD, key=""), make("new"), make("none", key="")]
    HpcCluster.objects.filter(name="none").update(password="")
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    assert secrets.survey() == secrets.Survey((2, 3), ())
    reports: list[tuple[int, int]] = []
    done = secrets.rotate(lambda *report: reports.append(report))
    assert done == secrets.Rotation(resealed=3, current=2, locked=())
    assert reports == [(n, 4) for n in range(5)]
    settings.HPC_SECRET_KEYS = NEW
    assert secrets.survey() == secrets.Survey((5,), ())
    assert [fresh(cluster).password.reveal() for cluster in made] == [SECRET, SECRET, SECRET, ""]
    assert fresh(made[0]).key.reveal() == SECRET


def test_a_rotation_that_died_goes_on_where_it_was(
    make: Callable[..., HpcCluster], settings: Settings
) -> None:
    for number in range(4):
        make(f"c{number}", OLD)
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"

    def die(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        secrets.rotate(die)
    assert secrets.survey().opened == (4, 4)
    before = {cluster.pk: stored(cluster) for cluster in HpcCluster.objects.filter(name="c0")}
    assert secrets.rotate(nothing) == secrets.Rotation(4, 4, ())
    assert {pk: stored(HpcCluster(pk=pk)) for pk in before} == before
    assert secrets.rotate(nothing) == secrets.Rotation(0, 8, ())


def test_a_secret_that_is_entered_meanwhile_stays(
    make: Callable[..., HpcCluster], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make(by=OLD, key="")
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    reseal = crypto.reseal

    def enter_meanwhile(token: str) -> crypto.Sealed:
        monkeypatch.setattr(crypto, "reseal", reseal)
        kept, settings.HPC_SECRET_KEYS = settings.HPC_SECRET_KEYS, OLD  # a web process of before
        HpcCluster.objects.update(password="newer")
        settings.HPC_SECRET_KEYS = kept
        return reseal(token)

    monkeypatch.setattr(crypto, "reseal", enter_meanwhile)
    assert secrets.rotate(nothing) == secrets.Rotation(1, 0, ())
    assert fresh(cluster).password.reveal() == "newer"
    assert crypto.opener(stored(cluster)) == 0


def test_a_secret_that_never_rests_is_given_up(
    make: Callable[..., HpcCluster], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(by=OLD, key="")
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    reseal = crypto.reseal

    def enter_meanwhile(token: str) -> crypto.Sealed:
        HpcCluster.objects.update(password=crypto.Sealed(Fernet(OLD).encrypt(b"newer").decode()))
        return reseal(token)

    monkeypatch.setattr(crypto, "reseal", enter_meanwhile)
    with pytest.raises(errors.Busy, match="password"):
        secrets.rotate(nothing)
    assert HpcCluster.objects.get().password.reveal() == "newer"


def test_what_no_key_opens_is_listed_and_left(
    make: Callable[..., HpcCluster], settings: Settings
) -> None:
    lost = make("lost", OLD, key="")
    make("good")
    before = stored(lost)
    locked = ({"cluster": "lost", "secret": "password"},)
    for verb in ("rotate", "check"):
        said = hpc("secrets", verb)
        assert said.status == 1
        assert "password of cluster lost" in said.err
        assert "good" not in said.err
        as_json = hpc("secrets", verb, "--json")
        assert as_json.status == 1
        assert tuple(json.loads(as_json.out)["locked"]) == locked
    assert stored(lost) == before
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    assert json.loads(hpc("secrets", "rotate", "--json").out) == {
        "resealed": 1,
        "current": 2,
        "locked": [],
    }


def test_an_operator_is_told_when_the_old_key_may_go(
    make: Callable[..., HpcCluster], settings: Settings
) -> None:
    make(by=OLD)
    settings.HPC_SECRET_KEYS = f"{NEW},{OLD}"
    said = hpc("secrets", "check")
    assert (said.status, said.err) == (0, "")
    assert "still needed" in said.out
    said = hpc("secrets", "rotate")
    assert (said.status, said.err) == (0, "")
    assert "newest key: 2; already so before: 0." in said.out
    said = hpc("secrets", "check")
    assert "may be taken out" in said.out
    assert json.loads(hpc("secrets", "check", "--json").out) == {
        "opened_by_key": [2, 0],
        "locked": [],
    }
    for shown in (OLD, NEW, "geheim"):
        assert shown not in said.out


def test_without_clusters_there_is_nothing_to_do(db: None) -> None:
    assert hpc("secrets", "rotate").status == 0
    assert json.loads(hpc("secrets", "check", "--json").out)["opened_by_key"] == [0]
