"""What a bench makes of its measurements."""

from __future__ import annotations

import pytest

from ops.bench import __main__ as command
from ops.bench import figures
from ops.bench.figures import Goal, Measured

MEASURED = {
    "list_10k_ms": Measured(72.34567, "pages of 10,000"),
    "submit_64_vs_sbatch": Measured(0.61, "64 clients"),
    "submit_1_vs_sbatch": Measured(0.2, "one client"),
}


def test_the_json_has_value_unit_and_words_by_name() -> None:
    assert figures.entries(MEASURED)["list_10k_ms"] == {
        "value": 72.3457,
        "unit": "ms",
        "what": "pages of 10,000",
    }
    assert list(figures.entries(MEASURED)) == [n for n in figures.NAMES if n in MEASURED]


def test_each_line_of_the_table_says_whether_its_goal_is_met() -> None:
    _, alone, many, listing = figures.table(MEASURED).splitlines()
    assert alone.split()[:4] == ["submit_1_vs_sbatch", "0.2", "ratio", "-"]
    assert many.split()[1:6] == ["0.61", "ratio", ">=", "0.7", "NOT"]
    assert "<= 100 met " in listing


@pytest.mark.parametrize(
    ("comparison", "met", "missed"), [("<", 0.9, 1.0), ("<=", 1.0, 1.1), (">=", 1.0, 0.9)]
)
def test_a_goal_says_on_which_side_of_its_bound_values_should_be(
    comparison: str, met: float, missed: float
) -> None:
    goal = Goal(comparison, 1.0)
    assert goal.is_met(met)
    assert not goal.is_met(missed)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [figures.percentile(values, p) for p in (0.5, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert figures.percentile([3.0], 99) == 3.0


def test_a_ratio_is_that_of_rounds_so_that_drift_cancels() -> None:
    # The machine slows down to a third; each round sees both.
    assert figures.paired_ratio([60.0, 30.0, 20.0], [120.0, 60.0, 40.0]) == 0.5


def test_an_unknown_name_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.arguments(["--only", "list_10k_ms,speed"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "no such figure: speed; there are submit_1_vs_sbatch," in told


def test_names_are_separated_by_commas_or_spaces() -> None:
    asked = command.arguments(["--only", "list_10k_ms, upload_vs_scp"])
    assert asked.names == ["list_10k_ms", "upload_vs_scp"]
    assert command.arguments([]).names == []
