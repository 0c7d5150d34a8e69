"""What a job of the queue has taken, for the ledger."""

from __future__ import annotations

import time

from ensemblerl.cluster.jobs import Job
from ensemblerl.events import Held


def held(job: Job, slots: int, cores: int, walltime: float) -> Held:
    """The account of a job that is over; times by the driver's clock.

    Parameters
    ----------
    slots, cores : members side by side in it, processor cores
    walltime : seconds, NaN: not known
    """
    now, here = time.time(), time.monotonic()

    def when(reading: float) -> float:
        return now + reading - here

    return Held(
        time=now,
        job=job.id,
        node=job.node,
        slots=slots,
        cores=cores,
        began=when(job.began),
        connected=when(job.connected),
        ended=when(job.ended),
        walltime=walltime,
        cause=job.cause,
    )
