"""kill -9 of the driver at random points: what was acknowledged is there, once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ensemblerl as erl
from ensemblerl.events import Settled
from ensemblerl.store.directory import DirectoryStore

sys.path.insert(0, str(Path(__file__).parent))
from kill_driver import SPACE, N

KILLS = 30


def life(path: Path, how: str, acknowledged: dict[int, float], until: int | None, after: float):
    """One life of the driver; killed ``after`` seconds after ``until`` acknowledgements."""
    driver = [sys.executable, str(Path(__file__).parent / "kill_driver.py"), str(path), how]
    process = subprocess.Popen(driver, stdout=subprocess.PIPE, text=True)
    new = 0
    for text in process.stdout:
        if not text.endswith("\n"):
            break
        number, value = text.split()
        new += int(number) not in acknowledged
        acknowledged[int(number)] = float.fromhex(value)
        if until is not None and new >= until:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            until = None
    process.wait(60)
    return new


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["serial", "dask, Sobol'", "dask"])
def test_kill_9_of_the_driver_loses_nothing(tmp_path, how):
    rng = random.Random(5)
    acknowledged: dict[int, float] = {}
    for _ in range(KILLS if how != "dask" else KILLS // 3):
        assert life(tmp_path / "s", how, acknowledged, rng.randint(1, 4), rng.uniform(0, 0.05)) >= 1
    assert len(acknowledged) < N
    life(tmp_path / "s", how, acknowledged, None, 0.0)

    store = DirectoryStore.resume(tmp_path / "s")
    events = [e for e in store.events() if isinstance(e, Settled)]
    store.close()
    times_settled = Counter(o.number for event in events for o in event.outcomes)
    assert set(times_settled) == set(range(N))
    assert set(times_settled.values()) == {1}

    ds = erl.open(tmp_path / "s").load()
    assert ds.sizes["member"] == N
    assert (ds.fate == "ok").all()
    for number, value in acknowledged.items():
        assert ds.y.values[number] == value
    np.testing.assert_array_equal(ds.y, ds.a.values - ds.b.values + ds.seed.values)
    np.testing.assert_array_equal(ds.field.values[:, 2], ds.a.values * ds.b.values)
    if how != "dask, Sobol'":
        assert ds.policy_version.max() <= erl.open(tmp_path / "s").erl.learning().version.max()
    if how != "dask":
        sampler = None if how == "serial" else "sobol"
        go = {"n_members": N, "seed": 11, "cluster": "serial", "sampler": sampler}
        undisturbed = erl.explore(_quick, SPACE, erl.Minimize("y"), **go, progress=False)
        np.testing.assert_array_equal(ds.y, undisturbed.y)


def _quick(a, b, seed):
    return {"y": a - b + seed}
