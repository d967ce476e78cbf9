from __future__ import annotations

import pytest

from cluster_client import errors, faults


@pytest.fixture(autouse=True)
def disarmed():
    yield
    faults.configure("")


@pytest.mark.parametrize("value", ["daemon.submit.1", "daemon.submit.1:relative", ":/marker"])
def test_a_value_that_can_not_be_meant_is_refused(value):
    with pytest.raises(errors.SettingsError, match="HPC_FAULT_POINT"):
        faults.configure(value)


def test_only_an_armed_point_whose_marker_is_free_kills(tmp_path, monkeypatch):
    killed = []
    monkeypatch.setattr(faults.os, "kill", lambda pid, number: killed.append(number))
    faults.configure(f"a.1:{tmp_path}/one, b.2:{tmp_path}/two")
    faults.reach("c.3")
    assert killed == []
    faults.reach("b.2")
    faults.reach("b.2")
    assert killed == [9]
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
