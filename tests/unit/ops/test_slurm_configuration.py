"""The text of a private Slurm's configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops import slurm_configuration
from ops.slurm_configuration import Layout

LAYOUT = Layout(
    directory=Path("/tmp/s"),
    tag="abc123",
    host="here",
    user="ada",
    controller_port=1,
    accounting_port=2,
    database_port=3,
    node_ports=(4, 5),
    has_accounting=True,
    has_cgroups=True,
)


def keys(text):
    return dict(line.split("=", 1) for line in text.splitlines() if " " not in line)


def test_each_node_has_a_port_and_a_name_of_its_own():
    text = slurm_configuration.slurm(LAYOUT)
    assert "NodeName=abc1231 NodeHostname=here NodeAddr=127.0.0.1 Port=4 " in text
    assert "NodeName=abc1232 NodeHostname=here NodeAddr=127.0.0.1 Port=5 " in text


def test_every_path_lies_in_the_directory():
    told = keys(slurm_configuration.slurm(LAYOUT))
    paths = [value for value in told.values() if value.startswith("/") and value != "/bin/true"]
    assert paths
    assert all(path.startswith("/tmp/s/") for path in paths)


@pytest.mark.parametrize(("has_cgroups", "task"), [(True, "task/cgroup"), (False, "task/none")])
def test_jobs_are_confined_where_cgroups_can_be_had(has_cgroups, task):
    layout = replace(LAYOUT, has_cgroups=has_cgroups)
    assert keys(slurm_configuration.slurm(layout))["TaskPlugin"] == task


def test_limits_are_enforced_only_with_an_accounting():
    assert "AccountingStorageEnforce" in keys(slurm_configuration.slurm(LAYOUT))
    without = keys(slurm_configuration.slurm(replace(LAYOUT, has_accounting=False)))
    # AccountingStorageEnforce=0 stops every client command.
    assert without["AccountingStorageType"] == "accounting_storage/none"
    assert "AccountingStorageEnforce" not in without


def test_the_password_of_the_database_is_the_same_everywhere():
    assert "StoragePass=secret\n" in slurm_configuration.slurmdbd(LAYOUT, "secret")
    assert "IDENTIFIED BY 'secret'" in slurm_configuration.grants("secret")
