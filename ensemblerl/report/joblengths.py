"""What the members of a campaign would have cost in jobs of another length: a replay.

The pool of the replay holds as many jobs as ran side by side. Each begins with the time that a
worker took to come. Then each of its slots takes the next member in launch order, as long as what
is left of the job is what a member is expected to need. A member that takes longer is cut off at
the walltime and run again. A job ends with its last member, and the next one takes its place, as
long as there are members. A job costs all its slots from its beginning to its end.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ensemblerl.cluster.needs import BEST, MARGIN, QUANTILE
from ensemblerl.events import Held
from ensemblerl.loop.figures import duration
from ensemblerl.records import FloatArray

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Lengths that are tried, in walltimes of the campaign."""
WORTH = 0.01
"""Savings below this share are none."""


class Pool(NamedTuple):
    """How jobs of a queue were: those that had a worker.

    Parameters
    ----------
    jobs : side by side, for most of the time
    slots : of a job
    startup : seconds until a worker comes
    walltime : seconds, NaN where it is not known
    """

    jobs: int
    slots: int
    startup: float
    walltime: float


def pool(runs: Sequence[Held]) -> Pool | None:
    """The typical job among these; None where no worker ever came."""
    came = [run for run in runs if run.connected < run.ended]
    if not came:
        return None
    starts = [run.connected - run.began for run in came if run.began <= run.connected]
    limits = [run.walltime for run in came if np.isfinite(run.walltime)]
    return Pool(
        jobs=_abreast(came),
        slots=max(1, round(float(np.median([run.slots for run in came])))),
        startup=float(np.median(starts)) if starts else 0.0,
        walltime=float(np.median(limits)) if limits else np.nan,
    )


def _abreast(runs: Sequence[Held]) -> int:
    """How many were connected at once: the median over time."""
    times = np.array([*(run.connected for run in runs), *(run.ended for run in runs)])
    order = np.argsort(times, kind="stable")
    steps = np.repeat([1, -1], len(runs))[order]
    level, lasts = np.cumsum(steps)[:-1], np.diff(times[order])
    level, lasts = level[level > 0], lasts[level > 0]  # a time without any job says nothing
    rank = np.argsort(level, kind="stable")
    share = np.cumsum(lasts[rank])
    return int(level[rank][np.searchsorted(share, share[-1] / 2)])


def replay(runtimes: Sequence[float] | FloatArray, pool: Pool, needed: float) -> float:
    """Seconds of worker time that members of these run times cost in such a pool.

    Parameters
    ----------
    runtimes : (n,) seconds, in launch order
    pool : the jobs, with a walltime
    needed : seconds that a member is expected to need: it begins only where so much is left

    Returns
    -------
    float
        NaN where a member would never finish, however fresh its job

    Examples
    --------
    Jobs of 100 s, 10 s to start, hold two members of 40 s one after the other. Four members take
    two jobs of 90 s.

    >>> replay([40, 40, 40, 40], Pool(1, 1, 10.0, 100.0), 40)
    180.0
    """
    runtimes = [float(seconds) for seconds in runtimes]
    if max([needed, *runtimes]) > pool.walltime - pool.startup:
        return float("nan")
    queue, cost, n = deque(runtimes), 0.0, 0
    began: list[float] = []
    at_work: list[int] = []  # slots of each job that may take a member, or have one
    # (time, job, slot, age of the job, run time of the member that was cut off): who is free when
    free: list[tuple[float, int, int, float, float]] = []
    waiting = [0.0] * pool.jobs  # when jobs begin
    while waiting or free:
        for now in waiting:
            began.append(now)
            at_work.append(pool.slots)
            for slot in range(pool.slots):
                heapq.heappush(free, (now + pool.startup, n, slot, pool.startup, 0.0))
            n += 1
        waiting = []
        now, job, slot, age, again = heapq.heappop(free)
        if again:
            queue.appendleft(again)
        left = pool.walltime - age
        if queue and left >= needed and left > 0:
            seconds = queue.popleft()
            cut = seconds > left
            age = pool.walltime if cut else age + seconds
            heapq.heappush(free, (began[job] + age, job, slot, age, seconds if cut else 0.0))
            continue
        at_work[job] -= 1
        if not at_work[job]:
            cost += pool.slots * age
            waiting = [now] if queue else []
    return cost


def replays(runtimes: Sequence[float] | FloatArray, pool: Pool) -> dict[float, float]:
    """Walltime -> seconds of worker time, for some walltimes around the pool's."""
    if not len(runtimes) or not np.isfinite(pool.walltime):
        return {}
    usual = MARGIN * float(np.quantile(np.asarray(runtimes), QUANTILE))
    out = {}
    for factor in FACTORS:
        walltime = factor * pool.walltime
        needed = min(usual, BEST * max(0.0, walltime - pool.startup))
        out[walltime] = replay(runtimes, pool._replace(walltime=walltime), needed)
    return out


def sentence(costs: Mapping[float, float], walltime: float) -> str:
    """What another walltime would have saved; "" where it is not known.

    Examples
    --------
    >>> sentence({1800.0: 5.0, 3600.0: 4.0, 7200.0: 3.0, 14400.0: 2.99}, 3600.0)
    'jobs of 2 h instead of 1 h would have cost 25 % less'
    >>> sentence({1800.0: 4.01, 3600.0: 4.0, 7200.0: 3.99}, 3600.0)
    'jobs of another length would have cost no less'
    """
    now = costs.get(walltime, np.nan)
    known = {length: cost for length, cost in costs.items() if np.isfinite(cost)}
    if not now > 0:
        return ""
    least = min(known.values())
    if now - least < WORTH * now:
        return "jobs of another length would have cost no less"
    near = [length for length, cost in known.items() if cost - least < WORTH * now]
    best = min(near)  # of equals the shortest, which a queue starts first
    saved = f"{100 * (1 - known[best] / now):.0f} % less"
    return f"jobs of {length_of(best)} instead of {length_of(walltime)} would have cost {saved}"


def length_of(seconds: float) -> str:
    """A walltime as people write it.

    Examples
    --------
    >>> length_of(3600.0), length_of(5400.0), length_of(60.0), length_of(16200.0)
    ('1 h', '90 min', '1 min', '4.5 h')
    """
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds % 60 == 0 and seconds < 6000 else duration(seconds)
