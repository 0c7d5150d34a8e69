"""Ends jobs in a queue: those of this driver, and those that killed ones have left."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Collection

from ensemblerl.cluster.jobs import RUNS, Job
from ensemblerl.cluster.queues.base import Queue, QueueSilent, Refused
from ensemblerl.cluster.register import Register

AGAIN = ("node_fail", "preempted", "unknown")
"""How jobs end that a queue may start once more without asking."""
CLOSING, PAUSE = 30.0, 0.5
"""Seconds for which a silent queue is asked again and again to end the jobs, and between two."""


class Ending:
    """Ends jobs by their ids, and by their titles where no id is known.

    Parameters
    ----------
    queue : has the jobs
    register : the list of them; who ends them strikes them out

    Attributes
    ----------
    inherited : ids of jobs that killed drivers have left
    sought : titles of such, whose ids are not known
    """

    def __init__(self, queue: Queue, register: Register) -> None:
        self._queue, self._register = queue, register
        self.inherited: set[str] = set()
        self.sought: set[str] = set()
        self._doubtful: set[str] = set()

    def note(self, job: Job) -> None:
        """A job is over; one that may start again is to be ended with the others."""
        if job.cause in AGAIN and job.id:
            self._doubtful.add(job.id)

    def adopt(self) -> None:
        """End what killed drivers left waiting in the queue; what runs may hold programs whose
        results are wanted, and is ended with everything else.
        """
        ids, titles = self._register.inherit()
        self.inherited, self.sought = set(ids), set(titles)
        with contextlib.suppress(QueueSilent):
            told = self._queue.jobs(list(ids)) if ids else {}
            found = self._queue.find(titles) if titles else {}
            # numbers are given again where a queue was set up anew
            mine = [job for i, job in told.items() if job.name == ids[i]] + list(found.values())
            living = {job.id: job.name for job in mine if job.state != "ended"}
            for job_id, title in living.items():
                self._register.add(job_id, title)
            self._register.remove(*(ids.keys() - living.keys()), *titles)
            self.inherited, self.sought = set(living), set()
            self.cancel([job.id for job in mine if job.state == "pending"])

    def begun(self, jobs: Collection[Job]) -> set[str]:
        """Names of those that run, also since the last look; of a queue that is silent all that it
        was given, for nobody knows.
        """
        ids = {job.id: job.name for job in jobs if job.id and job.state not in (*RUNS, "over")}
        try:
            told = self._queue.jobs(list(ids)) if ids else {}
            since = {name for i, name in ids.items() if i in told and told[i].state == "running"}
        except QueueSilent:
            since = set(ids.values())
        return since | {job.name for job in jobs if job.state in RUNS}

    def look(self, living: Collection[str]) -> None:
        """Take note of which of them the queue still has."""
        gone = self.inherited - set(living)
        self.inherited -= gone
        self._register.remove(*gone)

    def cancel(self, ids: Collection[str], titles: Collection[str] = ()) -> str:
        """Ask for their end; why the queue has not heard, or ""."""
        try:
            if ids:
                self._queue.cancel(ids)
            found = [job.id for job in self._queue.find(titles).values()] if titles else []
            if found:
                self._queue.cancel(found)
        except (QueueSilent, Refused) as error:
            return f"the queue does not answer ({error})"
        return ""

    def end(self, ids: set[str], titles: set[str]) -> None:
        """End these and what is left of all others, asking again while the queue is silent: what is
        left behind costs.
        """
        ids, titles = ids | self.inherited | self._doubtful, titles | self.sought
        self.inherited, self.sought, self._doubtful = set(), set(), set()
        until = time.monotonic() + CLOSING
        while self.cancel(sorted(ids), sorted(titles)):
            if time.monotonic() > until:  # who comes next finds them in the register
                left = ", ".join(sorted({*ids, *titles}))
                warnings.warn(
                    f"the queue does not answer; these jobs may be left in it: {left}. End them "
                    "yourself, or run the campaign again",
                    stacklevel=2,
                )
                return
            time.sleep(PAUSE)
        self._register.remove(*ids, *titles)
