"""What worker time was spent on, in words and as a table; and what other jobs would have saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.report.joblengths import pool, replays, sentence
from ensemblerl.report.spending import PARTS, Spent, runs, runtimes, spent
from ensemblerl.store.kept import ledger as ledger_of
from ensemblerl.store.kept import of_dataset

if TYPE_CHECKING:
    import xarray as xr

_HOUR = 3600.0
OPEN = "jobs that have not ended, or whose driver was killed, waited too: that is not in it"
FEW = "members ran for longer than n_workers= could have had them, there were more"
NEGLECTED = 0.01
"""Share of the total below which it is not told that the total is too small."""


def shares(told: Spent) -> str:
    """The parts in words, such as "91 % useful, 4 % lost to walltime, 5 % waiting"."""
    return ", ".join(_shares(told))


def _shares(told: Spent) -> Iterator[str]:
    for part in PARTS:
        percent = 100 * told.seconds[part] / told.total if told.total else 0.0
        if percent >= 0.5 or part == "useful":
            yield f"{percent:.0f} % {part}"


def amount(told: Spent) -> tuple[str, str]:
    """(how much, of what), such as ("12.3", "core-hours")."""
    cores = told.cores if np.isfinite(told.cores) else 1.0
    hours = told.total * cores / _HOUR
    digits = f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
    if np.isfinite(told.cores):
        return digits, "core-hours"
    return digits, "hours of worker time" if told.measured else "hours of run time"


def hours(ds: xr.Dataset, *, n_workers: int | None = None) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.hours`."""
    kept = of_dataset(ds, "hours()")
    k = kept.goal.k if kept.goal else int((kept.provenance.get("goal") or {}).get("k", 1))
    return table(ledger_of(kept, change=lambda outcome: outcome, k=k), n_workers=n_workers)


def table(ledger: Ledger, *, n_workers: int | None = None) -> xr.Dataset:
    """The parts, the replays and the verdict, from the ledger of a campaign."""
    import xarray as xr

    told, like = spent(ledger, n_workers=n_workers), pool(runs(ledger.held))
    costs = replays(runtimes(ledger), like) if like else {}
    worker = np.array([told.seconds[part] for part in PARTS]) / _HOUR
    data: dict[str, Any] = {
        "worker_hours": ("part", worker, {"long_name": "time of workers", "units": "h"}),
        "core_hours": ("part", worker * told.cores, {"long_name": "time of cores", "units": "h"}),
        "share": ("part", worker / max(worker.sum(), 1e-300), {"units": "1"}),
    }
    coords: dict[str, Any] = {"part": list(PARTS)}
    if costs:
        about = {"long_name": "time of workers in jobs of this length, replayed", "units": "h"}
        data["replayed_hours"] = ("walltime", np.array(list(costs.values())) / _HOUR, about)
        coords["walltime"] = ("walltime", np.array(list(costs)) / _HOUR, {"units": "h"})
    instead = sentence(costs, like.walltime) if like else ""
    return xr.Dataset(data, coords, {"verdict": "; ".join(_verdict(told, instead))})


def _verdict(told: Spent, instead: str) -> Iterator[str]:
    if not told.total:
        yield "no worker time is known yet"
        return
    yield f"{' '.join(amount(told))}: {shares(told)}"
    if told.beyond > NEGLECTED * told.total:
        yield OPEN if np.isfinite(told.cores) else FEW
    if instead:
        yield instead
