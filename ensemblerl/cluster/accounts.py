"""What a job of the queue has taken, for the ledger."""

from __future__ import annotations

import math
import time

from ensemblerl.cluster.jobs import Job
from ensemblerl.events import Held


def held(job: Job, slots: int, cores: int, walltime: float) -> list[Held]:
    """The account of a job that is over, and of its runs after which the queue took it back.

    Times are by the driver's clock.

    Parameters
    ----------
    slots, cores : members side by side in it, processor cores
    walltime : seconds, NaN: not known
    """
    now, here = time.time(), time.monotonic()
    runs = [(*run, "requeued") for run in job.before]
    runs.append((job.began, job.connected, job.ended, job.cause))
    return [
        Held(
            time=now,
            job=job.id,
            node=job.node,
            slots=slots,
            cores=cores,
            began=now + began - here,
            connected=now + connected - here,
            ended=now + ended - here,
            walltime=walltime,
            cause=cause,
        )
        for began, connected, ended, cause in runs
        if not math.isnan(began)
    ]
