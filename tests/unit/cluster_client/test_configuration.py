"""Settings: where values come from, and how bad ones are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cluster_client import configuration, definitions, errors, sources
from cluster_client.configuration import Settings, StartDocument

PATH = "/opt/client"
PACKAGE = Path(configuration.__file__).parent


def document(**settings: Any) -> StartDocument:
    return StartDocument("portal", 1, 3, settings)


def resolve(
    sent: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    site: dict[str, Any] | None = None,
) -> Settings:
    return configuration.resolve(PATH, document(**(sent or {})), environment or {}, site or {})


def test_defaults_lie_beside_the_client() -> None:
    settings = resolve()
    assert settings.state_directory == "/opt/client/state/portal.1"
    assert settings.job_working_directory == "/opt/client/jobs"
    assert settings.log_directory == "/opt/client/log"
    assert (settings.scheduler, settings.scheduler_overruled) == ("local", False)
    assert (settings.poll_interval_s, settings.umask) == (10.0, 0o077)
    assert (settings.instance_id, settings.cluster_id, settings.generation) == ("portal", 1, 3)


def test_precedence_is_environment_then_site_then_server_then_default() -> None:
    name = "HPC_POLL_INTERVAL_S"
    assert resolve({name: "3"}).poll_interval_s == 3
    assert resolve({name: "3"}, {}, {name: 2}).poll_interval_s == 2
    assert resolve({name: "3"}, {name: "1"}, {name: 2}).poll_interval_s == 1


def test_an_empty_variable_counts_as_unset() -> None:
    assert resolve({}, {"HPC_POLL_INTERVAL_S": ""}).poll_interval_s == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HPC_LOG_DIRECTORY", "log"),
        ("HPC_LOG_DIRECTORY", "~/log"),
        ("HPC_JOB_WORKING_DIRECTORY", "/a\0b"),
        ("HPC_STATE_DIRECTORY", 7),
        ("HPC_SCHEDULER_CLASS", "no such; thing"),
        ("HPC_POLL_INTERVAL_S", "soon"),
        ("HPC_POLL_INTERVAL_S", "0"),
        ("HPC_POLL_INTERVAL_S", "nan"),
        ("HPC_POLL_INTERVAL_S", True),
        ("HPC_SUBMIT_PARALLEL", "1.5"),
        ("HPC_SUBMIT_PARALLEL", "99"),
        ("HPC_SUBMIT_PARALLEL", "9" * 5000),
        ("HPC_LOG_FILES", 1),
        ("HPC_LOG_LEVEL", "loud"),
        ("HPC_ALLOW_ROOT", "maybe"),
        ("HPC_WEBSOCKET_SERVER", "http://localhost"),
    ],
)
def test_a_bad_value_is_told_with_the_name_of_its_setting(name: str, value: Any) -> None:
    with pytest.raises(errors.SettingsError, match=rf"^{name} must be .* \(set by .*settings.py\)"):
        resolve({}, {}, {name: value})


def test_the_server_can_not_set_what_is_local() -> None:
    sent = {"HPC_ALLOW_ROOT": "1", "HPC_STATE_DIRECTORY": "/x", "HPC_ALLOW_FAULT_POINTS": "1"}
    settings = resolve(sent)
    assert not settings.allow_root
    assert not settings.allow_fault_points
    assert settings.state_directory.startswith("/opt/client/")


def test_unknown_settings_of_the_server_are_ignored() -> None:
    assert resolve({"HPC_FROM_THE_FUTURE": "1"}) == resolve()


def test_a_slip_of_the_pen_in_the_sites_file_is_told_with_the_right_name() -> None:
    with pytest.raises(errors.SettingsError, match="Did you mean HPC_LOG_DIRECTORY"):
        resolve({}, {}, {"HPC_LOG_DIRECTROY": "/log"})


def test_fault_points_need_their_switch() -> None:
    with pytest.raises(errors.SettingsError, match="HPC_ALLOW_FAULT_POINTS"):
        resolve({}, {"HPC_FAULT_POINT": "daemon.submit.1:/marker"})
    allowed = {"HPC_FAULT_POINT": "daemon.submit.1:/marker", "HPC_ALLOW_FAULT_POINTS": "1"}
    assert resolve({}, allowed).fault_point == "daemon.submit.1:/marker"


def test_a_scheduler_set_on_the_cluster_overrules_the_servers_and_says_so() -> None:
    sent = {"HPC_SCHEDULER_CLASS": "slurm"}
    assert not resolve(sent).scheduler_overruled
    overruled = resolve(sent, {"HPC_SCHEDULER_CLASS": "local"})
    assert (overruled.scheduler, overruled.scheduler_overruled) == ("local", True)
    assert not resolve(sent, {"HPC_SCHEDULER_CLASS": "slurm"}).scheduler_overruled


@pytest.mark.parametrize("umask", ["77", "0999", "0", "rwx", "0000", "0022 "])
def test_a_umask_that_is_none_or_lets_anybody_write_is_refused(umask: str) -> None:
    wrong = StartDocument("portal", 1, 1, {}, umask=umask)
    with pytest.raises(errors.SettingsError, match="umask"):
        configuration.resolve(PATH, wrong, {}, {})


# The start document ------------------------------------------------------------------------------


GOOD = {"instance_id": "portal", "cluster_id": 1, "generation": 1, "settings": {}}


def test_a_start_document_is_read() -> None:
    found = configuration.read_document({**GOOD, "unknown": 1}, "portal.1")
    assert found == StartDocument("portal", 1, 1, {})


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {},
        {**GOOD, "generation": 0},
        {**GOOD, "generation": "1"},
        {**GOOD, "generation": True},
        {**GOOD, "cluster_id": 2},
        {**GOOD, "instance_id": "other"},
        {**GOOD, "settings": []},
        {**GOOD, "umask": 63},
        {**GOOD, "setup_commands": None},
    ],
)
def test_a_bad_start_document_is_told(raw: Any) -> None:
    with pytest.raises(errors.SettingsError, match="start document"):
        configuration.read_document(raw, "portal.1")


@pytest.mark.parametrize(
    "key", ["", "portal", "portal.", ".1", "Portal.1", "a/b.1", "a.-1", "a.²", "a.b.1", "a" * 200]
)
def test_a_key_that_is_none_is_told(key: str) -> None:
    with pytest.raises(errors.SettingsError, match="is no key"):
        sources.parse_key(key)


def test_a_key_is_taken_apart() -> None:
    assert sources.parse_key("my-portal.12") == ("my-portal", 12)


# The site's file ---------------------------------------------------------------------------------


def site(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "settings" / "settings.py"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_sites_file_is_read(tmp_path: Path) -> None:
    site(tmp_path, "import os\nHPC_LOG_DIRECTORY = os.path.join('/var', 'log')\nother = 1\n")
    assert sources.site_file(str(tmp_path)) == {"HPC_LOG_DIRECTORY": "/var/log"}


def test_no_file_is_no_settings(tmp_path: Path) -> None:
    assert sources.site_file(str(tmp_path)) == {}


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    site(tmp_path, "HPC_ALLOW_ROOT = True\n", 0o646)
    with pytest.raises(errors.SettingsError, match="chmod go-w"):
        sources.site_file(str(tmp_path))


def test_a_file_that_is_no_python_is_told(tmp_path: Path) -> None:
    site(tmp_path, "HPC_LOG_DIRECTORY = \n")
    with pytest.raises(errors.SettingsError, match=r"settings\.py can't be read: SyntaxError"):
        sources.site_file(str(tmp_path))


def test_a_file_that_is_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "settings" / "settings.py").mkdir(parents=True)
    with pytest.raises(errors.SettingsError, match="not a regular file"):
        sources.site_file(str(tmp_path))


# What documents them -----------------------------------------------------------------------------


def test_the_packaged_file_sets_nothing_and_shows_every_default() -> None:
    text = (PACKAGE / "settings" / "settings.py").read_text()
    assert sources.site_file(str(PACKAGE)) == {}
    shown = dict(re.findall(r"^# (HPC_\w+) = (.*)$", text, re.MULTILINE))
    values = {name: eval(value) for name, value in shown.items()}
    resolved = configuration.resolve("<client path>", document(), {}, {})
    for definition in definitions.DEFINITIONS:
        if definition.name in ("HPC_ALLOW_FAULT_POINTS", "HPC_FAULT_POINT"):
            continue
        expected = (
            getattr(resolved, definition.attribute).removesuffix("/portal.1")
            if (definition.attribute == "state_directory")
            else getattr(resolved, definition.attribute)
        )
        assert values.pop(definition.name) == expected, definition.name
    assert not values


def test_the_readme_holds_the_table_of_settings() -> None:
    assert definitions.table() in (PACKAGE / "README.md").read_text()
