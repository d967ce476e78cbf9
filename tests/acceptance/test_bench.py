"""`make bench` for real: its servers, its stack, a few figures of small sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("submit_1_vs_sbatch", "end_to_completed_s", "download_vs_scp", "list_10k_ms")
LIMIT_S = 200


@pytest.mark.timeout(LIMIT_S + 20)
def test_a_quick_run_measures_prints_and_leaves_nothing(
    checkout: Path, tmp_path: Path, short_directory: Path
) -> None:
    short_directory.chmod(0o711)  # the accounts of its servers live below it
    target = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ops.bench", "--quick"),
            *("--only", ",".join(NAMES), "--json", str(target)),
        ],
        cwd=checkout,
        env={**os.environ, "TMPDIR": str(short_directory)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())
    assert list(figures) == list(NAMES)
    for name, figure in figures.items():
        assert figure.keys() == {"value", "unit", "what"}
        assert figure["value"] > 0, figure
        assert figure["unit"]
        assert name in done.stdout
    assert "HPC_SUBMIT_PARALLEL=4" in figures["submit_1_vs_sbatch"]["what"]
    assert not list(short_directory.iterdir())
