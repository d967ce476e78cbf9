"""Tiers that really run: side by side, to the end or until somebody interrupts."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from ops import processes

LIMIT_S = 60
PROGRAM = """
    import sys
    from pathlib import Path
    from ops import tiers

    place = Path(sys.argv[1])
    names = sorted(path.stem.removeprefix("test_") for path in place.glob("test_*.py"))
    made = [tiers.Tier(name, (str(place / f"test_{name}.py"),)) for name in names]
    sys.exit(tiers.main(made, place / "reports", int(sys.argv[2])))
"""
WAITS = """
    import os, signal, time
    from pathlib import Path
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def test_it():
        Path(__file__).with_suffix(".begun").touch()
        try:
            time.sleep(600)
        finally:
            time.sleep(PAUSE_S)
            Path(__file__).with_suffix(".cleaned").touch()
"""


@contextmanager
def running(place, checkout, side_by_side, **tests):
    """A run of tiers of these names, each with one file of tests."""
    for name, text in tests.items():
        (place / f"test_{name}.py").write_text(textwrap.dedent(text))
    argv = [sys.executable, "-c", textwrap.dedent(PROGRAM), place, str(side_by_side)]
    with subprocess.Popen(
        argv, cwd=checkout, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process


def test_all_run_whatever_came_of_those_before_and_no_two_outputs_are_mixed(tmp_path, checkout):
    tests = {
        "a": "def test_it(): raise AssertionError('so it is')",
        "b": "def test_it(record_testsuite_property): "
        "record_testsuite_property('not_here', 'No moon here.')",
    }
    with running(tmp_path, checkout, 2, **tests) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    lines = output.splitlines()
    assert process.returncode == 1
    assert [line.split(",")[0] for line in lines[:2]] == ["== a tests", "== b tests"]
    assert lines[-2] == "No moon here."
    assert lines[-1].startswith("1 passed, 1 failed in ")
    ends = {line.split(":")[0]: line for line in lines if "exit status" in line}
    assert "1 passed, 0 failed" in ends["== b"]
    assert "0 passed, 1 failed" in ends["== a"]
    begun = lines.index("== a tests, with sqlite:")
    assert "so it is" in "\n".join(lines[begun : lines.index(ends["== a"])])
    told_again = lines[max(map(lines.index, ends.values())) :]
    assert any(line.startswith("-- ") and line.endswith("test_a::test_it") for line in told_again)
    assert "so it is" in "\n".join(told_again)


@pytest.mark.parametrize(("number", "is_for_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interruption_ends_those_that_run_and_starts_no_other(
    tmp_path, checkout, number, is_for_all
):
    tests = {"a": WAITS.replace("PAUSE_S", "0"), "b": WAITS.replace("PAUSE_S", "1"), "c": WAITS}
    with running(tmp_path, checkout, 2, **tests) as process:
        begun = [tmp_path / f"test_{name}.begun" for name in "abc"]
        assert processes.wait_until(lambda: all(one.exists() for one in begun[:2]), LIMIT_S)
        # Ctrl-C goes to all of the terminal's foreground; others ask the one that they started.
        (os.killpg if is_for_all else os.kill)(process.pid, number)
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number
    assert output.count("! KeyboardInterrupt !") == 2
    # The end of the one does not disturb the other, which takes longer to clean up.
    assert len(list(tmp_path.glob("test_*.cleaned"))) == 2
    assert not begun[2].exists()
    assert output.splitlines()[-1].startswith("0 passed, 0 failed in ")
