"""How much of their workers' time members have, on an undisturbed run.

    python tests/cluster/utilisation.py

200 members with lognormal run times (median 2 s, sigma 1) on six workers of a private Slurm; from
the first connection to the last launch. As Python functions, of which at least 95 % is promised,
and as programs, of which nothing is: each has a supervisor of its own, a Python that has to start,
and how long that takes is the machine's affair. Both shares are printed, and kept in
docs/faults.md. The exit status is 0 when all members of both are ok and functions keep the promise.
"""

import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from slurm import PrivateSlurm

import ensemblerl as erl

N = 200
PROMISED = {"function": 0.95, "program": None}
"""Share of worker time that members have at least; None: none is promised."""
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
    ds = handle.wait()
    assert (ds.fate == "ok").all(), ds.cause.values.tolist()
    ledger = handle.campaign.ledger
    begin, end = min(came.values()), float(np.max(ledger["launch"]))
    starts, ends = ledger["start"], ledger["start"] + ledger["runtime"]
    busy = np.clip(np.minimum(ends, end) - np.maximum(starts, begin), 0.0, None).sum()
    there = sum(end - max(begin, when) for when in came.values())
    assert len(came) == 6, came
    return float(busy / there), end - begin


def line(name: str, used: float, seconds: float) -> str:
    """A line of the table."""
    promised = PROMISED[name]
    wanted = "-" if promised is None else f"{promised:.0%}"
    return f"| {name} | {100 * used:.1f} % | {wanted} | {seconds:.0f} s |"


def keep(lines: list[str]) -> None:
    """The table in docs/faults.md."""
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    text = page.read_text()
    begin, end = text.index("<!-- utilisation -->"), text.index("<!-- end of utilisation -->")
    where = (
        f"{datetime.now(UTC):%Y-%m-%d}, `make utilisation`, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores"
    )
    head = ["| members are | share of worker time | promised | looked at |", "|---|---|---|---|"]
    table = "\n".join(["<!-- utilisation -->", "", where, "", *head, *lines, "", ""])
    page.write_text(text[:begin] + table + text[end:])


def main() -> int:
    """Both kinds; the exit status says whether what is promised was kept."""
    lines, good = [], True
    with PrivateSlurm() as slurm, tempfile.TemporaryDirectory() as directory:
        os.environ.update(slurm.variables)
        for name, simulation in (("function", sleeps), ("program", program())):
            used, seconds = share(simulation, Path(directory) / name)
            lines.append(line(name, used, seconds))
            print(lines[-1], flush=True)
            good &= used >= (PROMISED[name] or 0.0)
    keep(lines)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
