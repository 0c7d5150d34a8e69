"""Which jobs of a queue have failed, and why their workers died; where that can be read."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path

from ensemblerl.cluster.jobs import Job
from ensemblerl.cluster.wish import BLAMELESS, Death

ENDED = BLAMELESS - {"unknown"}
"""How jobs end that somebody, or something, has ended."""

SHORT = 5.0
"""Seconds for members that are too few for any."""


def failure(job: Job, told: bool, now: float) -> str:
    """How a job failed that did nothing; "" when it did something, or was ended by somebody after
    it had connected, or how it ended is not known yet.

    Parameters
    ----------
    told : the queue has been asked since its last worker went
    """
    over = job.state == "over"
    if job.steady or job.unwanted or not (over or (told and math.isnan(job.ending))):
        return ""
    if not job.came:
        return f"job {job.id} died before connecting ({job.cause})" if over else ""
    lived = f"{(job.ended if over else now) - job.connected:.0f} s after"
    if job.left is not None and job.left < SHORT:
        left = f"it had {max(job.left, 0.0):.0f} s for members: a longer walltime= is needed"
        return f"job {job.id} came to nothing: when its workers had connected, {left}"
    if not over:
        return f"the workers of job {job.id} left {lived} they had connected"
    ended = f"job {job.id} ended {lived} it had connected ({job.cause})"
    return "" if job.cause in ENDED else ended


def death_in(job: Job, address: str, told: bool) -> Death | None:
    """Why a worker of this job is gone; None while the queue has not said.

    Parameters
    ----------
    told : it has gone, and the queue has been asked since
    """
    where = f"job {job.id or job.title}" + (f" on {job.node}" if job.node else "")
    cause = "requeued" if address in job.past else job.cause
    if address in job.past or job.state == "over":
        return Death(f"{where} ended: {cause}", cause in BLAMELESS, cause == "timeout")
    if not told or not math.isnan(job.ending):  # it is ending; how, will be said
        return None
    if math.isnan(job.silent):  # its nanny has started another: it died alone
        return Death(f"its worker died, while {where} runs on", False)
    if job.state != "alone":
        return None
    # nanny and workers at once: a node that is gone, which the queue will see later, if at all
    return Death(f"all workers of {where} are gone, which runs by the queue's account", True)


def log_of(job: Job, directory: Path) -> Path:
    """What there is to read of a job; which name that has is the queue's and Dask's choice."""
    number = re.compile(rf"(?<!\d){re.escape(job.id.partition('.')[0])}(?!\d)")
    for path in sorted(directory.rglob(f"*{job.title}*")):
        if path.suffix != ".sh" and (path.stem == job.title or number.search(path.name)):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_size:
                    return path
    return directory
