"""Every benchmark runs in its short form and writes its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parent.parent / "benchmarks").glob("[a-z]*.py"))


def test_there_are_benchmarks():
    assert {path.stem for path in BENCHMARKS} >= {
        "loop_overhead",
        "import_time",
        "store",
        "problems",
        "search",
        "lag",
        "ask_cost",
        "programs",
        "sample_efficiency",
        "mixed_spaces",
        "robustness",
    }


@pytest.mark.quick
@pytest.mark.timeout(100)
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_quick(path, tmp_path):
    figures = tmp_path / "figures.json"
    run = [sys.executable, str(path), "--quick", "--json", str(figures)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "│" in done.stdout
    told = json.loads(figures.read_text())
    assert {"versions", "machine", "seeds"} <= set(told)
