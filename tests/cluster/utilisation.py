"""How much of their workers' time members have, on an undisturbed run.

    python tests/cluster/utilisation.py

200 members with lognormal run times (median 2 s, sigma 1) on six workers of a private Slurm; from
the first connection to the last launch. As Python functions, and as programs, each of which has a
supervisor of its own. Expected: at least 95 % as functions.
"""

import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from slurm import PrivateSlurm

import ensemblerl as erl

N, EXPECTED = 200, 0.95
SPACE = erl.Space(seconds=erl.LogNormal(np.log(2.0), 1.0))


def sleeps(seconds: float) -> float:
    """A member."""
    time.sleep(seconds)
    return seconds


def program() -> Any:
    """The same as a program."""
    return erl.Command(
        ["sh", "-c", "sleep {{ seconds }}; echo value = {{ seconds }}"],
        reads=erl.readers.Regex("stdout", r"value = (?P<value>\S+)"),
    )


def share(simulation: Any, store: Path) -> tuple[float, float]:
    """Share of worker time that members had, and the seconds that were looked at."""
    cluster = erl.Cluster("slurm", n_jobs=3, cores=2, memory="1 GB", walltime="01:00:00")
    handle = erl.launch(
        simulation,
        SPACE,
        erl.Minimize("value"),
        n_members=N,
        cluster=cluster,
        store=str(store),
        sampler="sobol",
        seed=3,
        progress=False,
    )
    came: dict[str, float] = {}
    while not handle.done:
        pool = cluster._pool
        for worker in [] if pool is None else pool.reconciler.workers():
            came.setdefault(worker.address, time.time())
            slots = {worker.address: worker.slots}
            came.update({f"{a}/{k}": came[a] for a, n in slots.items() for k in range(1, n)})
        time.sleep(0.05)
    handle.wait()
    ledger = handle.campaign.ledger
    begin, end = min(came.values()), float(np.max(ledger["launch"]))
    starts, ends = ledger["start"], ledger["start"] + ledger["runtime"]
    busy = np.clip(np.minimum(ends, end) - np.maximum(starts, begin), 0.0, None).sum()
    there = sum(end - max(begin, when) for when in came.values())
    assert len(came) == 6, came
    return float(busy / there), end - begin


def main() -> int:
    """Both kinds."""
    with PrivateSlurm() as slurm, tempfile.TemporaryDirectory() as directory:
        os.environ.update(slurm.variables)
        good = True
        for name, simulation in (("function", sleeps), ("program", program())):
            used, seconds = share(simulation, Path(directory) / name)
            print(f"{name}: {100 * used:.1f} % of {seconds:.0f} s on six workers, {N} members")
            good &= used >= EXPECTED or name == "program"
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; wanted {EXPECTED:.0%}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
