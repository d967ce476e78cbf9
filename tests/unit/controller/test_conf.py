"""Settings: typed, in range, and a sentence that names the one that is wrong."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pytest_django import Settings

from controller import checks, conf, errors


def test_defaults_hold_where_a_project_says_nothing() -> None:
    assert conf.get().lease_ttl_s == 10
    assert conf.get().job_class == "controller.models.HpcJob"


def test_a_changed_setting_is_read_anew(settings: Settings) -> None:
    settings.HPC_SWEEP_INTERVAL_S = 2
    assert conf.get().sweep_interval_s == 2


def test_text_from_an_environment_is_converted(settings: Settings) -> None:
    settings.HPC_LEASE_TTL_S = "12.5"
    settings.HPC_CLUSTER_TASK_CAP = "7"
    settings.HPC_ALLOW_LOCAL_CARRIER = "no"
    new, old = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.HPC_SECRET_KEYS = f"{new}, {old}"
    found = conf.get()
    assert found.lease_ttl_s == 12.5
    assert found.cluster_task_cap == 7
    assert not found.allow_local_carrier
    assert found.secret_keys == (new, old)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HPC_LEASE_TTL_S", "soon"),
        ("HPC_LEASE_TTL_S", float("nan")),
        ("HPC_LEASE_TTL_S", True),
        ("HPC_LEASE_TTL_S", 0),
        ("HPC_CLUSTER_TASK_CAP", 1.5),
        ("HPC_CLUSTER_TASK_CAP", "1e400"),
        ("HPC_ALLOW_ROOT", "perhaps"),
        ("HPC_JOB_CLASS", 3),
        ("HPC_INSTANCE_ID", "Has Spaces"),
        ("HPC_INSTANCE_ID", ""),
        ("HPC_SECRET_KEYS", 5),
        ("HPC_SECRET_KEYS", []),
        ("HPC_SECRET_KEYS", "hunter2"),
        ("HPC_SECRET_KEYS", "\u00e9" * 44),
        ("HPC_SCRIPT_LIMIT_BYTES", 10**9),
    ],
)
def test_a_bad_value_is_refused_by_name(settings: Settings, name: str, value: Any) -> None:
    setattr(settings, name, value)
    with pytest.raises(errors.Misconfigured, match=name):
        conf.get()
    assert any(name in str(found.msg) for found in checks.check_settings(None))


@pytest.mark.parametrize("value", [{"hunter2": 1}, ["hunter2"]])
def test_a_secret_is_not_shown_when_it_is_refused(settings: Settings, value: Any) -> None:
    settings.HPC_SECRET_KEYS = value
    with pytest.raises(errors.Misconfigured) as caught:
        conf.get()
    assert "hunter2" not in str(caught.value)


def test_a_worker_must_fall_silent_before_another_takes_over(settings: Settings) -> None:
    settings.HPC_LEASE_MUTE_S = 11
    with pytest.raises(errors.Misconfigured, match="HPC_LEASE_MUTE_S"):
        conf.get()


def test_fault_points_are_refused_unless_allowed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPC_FAULT_POINT", "worker.submit.1:/tmp/x")
    conf.get.cache_clear()
    with pytest.raises(errors.Misconfigured, match="HPC_FAULT_POINT"):
        conf.get()
    settings.HPC_ALLOW_FAULT_POINTS = True
    assert conf.get().fault_point == "worker.submit.1:/tmp/x"
    monkeypatch.undo()
    conf.get.cache_clear()


def test_fault_points_do_not_come_from_django_settings(settings: Settings) -> None:
    settings.HPC_FAULT_POINT = "worker.submit.1:/tmp/x"
    assert conf.get().fault_point == ""


def test_the_reserved_port_is_warned_of_once_it_is_set(settings: Settings) -> None:
    assert not checks.check_settings(None)
    settings.HPC_WEBSOCKET_PORT = 8001
    assert [found.id for found in checks.check_settings(None)] == ["hpc.W001"]


def test_a_misspelt_setting_is_warned_of(settings: Settings) -> None:
    settings.HPC_LEAS_TTL_S = 3
    (found,) = checks.check_settings(None)
    assert found.id == "hpc.W002"
    assert "HPC_LEAS_TTL_S" in str(found.msg)


@pytest.mark.parametrize(
    "path", ["nowhere.Job", "controller.models.HpcCluster", "x", "", ".x", "..x.y"]
)
def test_a_job_class_that_is_none_is_refused(settings: Settings, path: str) -> None:
    settings.HPC_JOB_CLASS = path
    (found,) = checks.check_job_class(None)
    assert found.id == "hpc.E002"
    assert "HPC_JOB_CLASS" in str(found.msg)


@pytest.mark.parametrize("path", ["nowhere.choose", "controller.conf.PREFIX", ".x"])
def test_a_chooser_that_is_none_is_refused(settings: Settings, path: str) -> None:
    settings.HPC_CLUSTER_CHOOSER = path
    (found,) = checks.check_job_class(None)
    assert found.id == "hpc.E003"


def test_only_settings_are_taken_from_an_environment() -> None:
    environment = {"HPC_LEASE_TTL_S": "9", "HPC_OTHER": "1", "HPC_FAULT_POINT": "x", "PATH": "/"}
    assert conf.from_environment(environment) == {"HPC_LEASE_TTL_S": "9"}


def test_the_page_in_docs_is_current(checkout: Path) -> None:
    assert (checkout / "docs" / "settings.md").read_text() == conf.document()


def test_a_url_with_a_password_is_not_shown(settings: Settings) -> None:
    settings.HPC_FILE_RELAY_URL = "http://:s3cr3t@host:6379"
    (sentence,) = conf.problems()
    assert "HPC_FILE_RELAY_URL is not shown; it must match" in sentence
    assert "s3cr3t" not in sentence
