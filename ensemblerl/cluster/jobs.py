"""The jobs of a campaign in the queue, and what is to be done about them: no Dask, no clock here.

A job goes through these states. ``new``: to be submitted. ``unsure``: its submission got no
answer. ``missing``: nor is it in the queue, another is submitted in its place; should it come all
the same, it is ended. ``waiting``: in the queue. ``starting``: the queue runs it, no worker of it
has come yet. ``up``: workers are connected. ``leaving``: they take no more members. ``alone``: the
queue runs it and its workers are gone; programs in it may go on. ``over``: the queue has ended it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ensemblerl.cluster.queues.base import Queued

MISSING = 15.0
"""Seconds for which a job may be unknown to its queue just after it was submitted."""
NANNY = 20.0
"""Seconds in which Dask's nanny may start a worker again."""
SAYING = 8.0
"""Seconds that a queue may take to say how a job ended."""
LOOKED = 600.0
"""Seconds for which a job is looked for whose submission got no answer, lest there be two for one:
also when another was submitted in its place."""
COMING = 600.0
"""Seconds in which a job that runs must have connected; else it is ended."""
TITLE = {"slurm": 100, "pbs": 15}
"""Characters of a job's name that the queue remembers."""
ALIVE = ("waiting", "starting", "up")
"""States in which a job is, or will be, of use."""
AHEAD = 0.25
"""Of the time of a job: no sooner is it replaced while it can still begin a member, or with long
members there would be many more jobs than wanted."""
RUNS = ("starting", "up", "leaving", "alone")
"""States of jobs in which members may run."""


@dataclass
class Job:
    """One job of the queue.

    Parameters
    ----------
    name : of its Dask worker; the queue knows it as ``title``
    before : (began, connected, ended) of runs after which the queue took it back
    here : addresses of the workers of this run
    past : the same of earlier runs; some may stay connected for a while
    absent : since when the queue has said, again and again, that it does not know the job
    steady : it has worked for a while
    failed : it has not, and that was counted
    dropped : not in the books of the Dask cluster any more
    unwanted : nobody is to have it: ended while it waits
    """

    name: str
    title: str = ""
    id: str = ""
    state: str = "new"
    reason: str = ""
    node: str = ""
    cause: str = ""
    submitted: float = math.nan
    began: float = math.nan
    connected: float = math.nan
    silent: float = math.nan
    ending: float = math.nan
    ended: float = math.nan
    absent: float = math.nan
    left: float | None = None
    restarts: int = 0
    before: list[tuple[float, float, float]] = field(default_factory=list)
    here: set[str] = field(default_factory=set)
    past: set[str] = field(default_factory=set)
    steady: bool = False
    failed: bool = False
    dropped: bool = False
    unwanted: bool = False

    @property
    def came(self) -> bool:
        """Whether a worker of it was ever connected."""
        return not math.isnan(self.connected)


class Worker(NamedTuple):
    """What the Dask scheduler knows of a worker."""

    name: str
    address: str
    slots: int
    busy: int
    left: float | None
    draining: bool
    ran: float | None = None


def see_workers(job: Job, workers: Sequence[Worker], now: float) -> None:
    """Take in which workers of a job are connected now."""
    if job.state == "over":
        return
    workers = [worker for worker in workers if worker.address not in job.past]
    if workers:
        job.here.update(worker.address for worker in workers)
        job.silent = math.nan
        job.connected = job.connected if job.came else now
        if first := [w.ran for w in workers if w.ran is not None]:
            job.began = now - max(first)  # they know best
        job.began = now if math.isnan(job.began) else job.began
        job.left = min((w.left for w in workers if w.left is not None), default=job.left)
        if math.isnan(job.ending):  # else they are as good as gone
            job.state = "leaving" if all(w.draining for w in workers) else "up"
    elif job.state in ("up", "leaving"):
        job.silent = now if math.isnan(job.silent) else job.silent
        if now - job.silent > NANNY or job.state == "leaving":
            job.state = "alone"


def see_queue(job: Job, queued: Queued | None, now: float) -> None:
    """Take in what the queue says of a job; None: it does not know it (any more)."""
    if job.state in ("new", "unsure", "missing", "over"):
        return
    if queued is None:
        _see_absent(job, now)
        return
    job.reason, job.node, job.absent = queued.reason, queued.node or job.node, math.nan
    if queued.state == "ended":
        job.ending = now if math.isnan(job.ending) else job.ending
        if queued.end not in ("", "unknown") or now - job.ending > SAYING:
            _over(job, queued.end or "unknown", now)
        elif job.state != "leaving":
            job.state = "alone"  # it is at its end; how it came to that will be said soon
        return
    job.ending = math.nan
    if queued.state == "pending":
        if job.state != "waiting":  # the queue took it back, to start it again
            _back(job, now)
    elif job.state == "waiting":
        job.state, job.began = "starting", now
    elif queued.restarts > job.restarts and job.state == "alone":  # as fast as that
        _back(job, now)
        job.state, job.began = "starting", now
    job.restarts = max(job.restarts, queued.restarts)


def _see_absent(job: Job, now: float) -> None:
    """One that waits may be too new to be listed; of one whose workers are connected we know more
    than the queue, for a while.
    """
    job.absent = now if math.isnan(job.absent) else job.absent
    connected = job.state in ("up", "leaving") and math.isnan(job.silent)
    since = job.submitted if job.state == "waiting" else job.absent if connected else -math.inf
    if now - since > MISSING:
        _over(job, "unknown", now)


def _back(job: Job, now: float) -> None:
    """A run of it is over; it waits for another one."""
    job.state, job.left = "waiting", None
    job.before.append((job.began, job.connected, now))
    job.connected = job.silent = job.began = job.ending = math.nan
    job.past |= job.here
    job.here = set()


def _over(job: Job, cause: str, now: float) -> None:
    if job.state != "over":
        job.state, job.cause, job.ended = "over", cause, now


def titled(base: str, token: str, name: str, queue: str) -> str:
    """What a queue is to call a job: unlike any other of this user.

    Parameters
    ----------
    base : what the user calls his jobs
    token : of the driver
    name : of the Dask worker, with a number at its end
    """
    rest = f"-{token}-{name.rpartition('-')[2]}"
    return base[: TITLE[queue] - len(rest)] + rest


def looked_for(job: Job, now: float) -> bool:
    """Whether a job without an id is to be looked for by its title."""
    return job.state != "new" and (job.state != "missing" or now - job.submitted < LOOKED)


def overdue(job: Job, now: float) -> bool:
    """Whether the queue runs it for long and no worker has come."""
    return job.state == "starting" and not job.came and now - job.began > COMING


class Policy(NamedTuple):
    """What is wanted of the jobs.

    ``ahead`` is how many seconds before its end a job is replaced: what a member needs, and
    what it takes until a new job has connected.
    """

    wanted: int
    ahead: float


def shortage(jobs: Sequence[Job], policy: Policy) -> int:
    """How many jobs to submit so that as many as wanted are of use: those that can begin no
    other member soon do not count any more.
    """
    return max(0, policy.wanted - sum(useful(job, policy) for job in jobs))


def useful(job: Job, policy: Policy) -> bool:
    """Whether it counts among the wanted."""
    if job.unwanted:
        return False
    if job.state in ("new", "unsure"):
        return True
    if job.state in ("leaving", "alone"):  # so soon? a failure is counted before it is replaced
        return not (job.steady or job.failed)
    return job.state in ALIVE and (job.left is None or job.left > policy.ahead)


class Backoff:
    """When to submit again after jobs were refused, or died before they connected.

    Jobs that fail together count once. Times are seconds of any one clock.

    Parameters
    ----------
    most : seconds between two attempts at most
    """

    def __init__(self, most: float = 60.0) -> None:
        self._most = most
        self.failures = 0
        self.message = ""
        self.until = -math.inf
        self._last = -math.inf

    def failed(self, message: str, submitted: float, now: float) -> None:
        """A job that was submitted then has failed, or its submission has."""
        self.message = message
        if submitted < self._last:  # of the same wave
            return
        self.failures += 1
        self._last = now
        self.until = now + min(self._most, 2.0 ** (self.failures - 1))

    def worked(self) -> None:
        """A worker has connected."""
        self.failures, self.until, self._last = 0, -math.inf, -math.inf


NUMBER = {"waiting": "pending", "starting": "starting", "alone": "without a worker"}


def sentence(jobs: Sequence[Job], wanted: int, trouble: Mapping[str, str]) -> str:
    """Why workers are missing, in one sentence; "" when none is.

    Parameters
    ----------
    trouble : what went wrong -> where to look, newest last
    """
    up = sum(job.state == "up" for job in jobs)
    if not wanted:
        return "no jobs: the cluster is scaled to none"
    if up >= wanted:
        return ""
    parts = []
    for state, word in NUMBER.items():
        these = [job for job in jobs if job.state == state]
        if these:
            reasons = sorted({job.reason for job in these if job.reason and state == "waiting"})
            parts.append(f"{len(these)} {word}" + (f" ({', '.join(reasons)})" if reasons else ""))
    parts += [f"{what}, {where}" if where else what for what, where in trouble.items()]
    jobs_ = "job" if wanted == 1 else "jobs"
    return f"{up} of {wanted} {jobs_}" + (": " + "; ".join(parts) if parts else "")
