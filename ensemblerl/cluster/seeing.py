"""Who is connected: the workers that Dask's scheduler knows, by the jobs that they are in."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from ensemblerl.cluster.jobs import Worker
from ensemblerl.cluster.plugin import METRIC

LEAVING = ("paused", "closing", "closing_gracefully", "closed")
"""States of a Dask worker that takes no more."""


def connected(scheduler: Any, jobs: Container[str]) -> list[Worker]:
    """The workers of a Dask scheduler in this process; their names are those of their jobs.

    Parameters
    ----------
    jobs : names of jobs
    """
    out = []
    for address, known in list(scheduler.workers.items()):
        told = dict(known.metrics or {}).get(METRIC) or {}
        draining = bool(told.get("draining")) or known.status.name in LEAVING
        name, busy = whose(str(known.name), jobs), len(known.processing)
        out.append(
            Worker(name, address, known.nthreads, busy, told.get("left"), draining, told.get("ran"))
        )
    return out


def whose(name: str, jobs: Container[str]) -> str:
    """The job whose worker has this name: a restart, or one process of several."""
    for pattern in (r"$", r"-r\d+$", r"-\d+$", r"-r\d+-\d+$"):
        if (short := re.sub(pattern, "", name)) in jobs:
            return short
    return name
