"""Keeps as many jobs in the queue as are wanted: compares what the queue says with who is
connected, replaces what was lost, and knows why each job ended.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from ensemblerl.cluster.accounts import held
from ensemblerl.cluster.jobqueue import JobQueue
from ensemblerl.cluster.jobs import (
    ALIVE,
    Backoff,
    Job,
    Policy,
    Worker,
    overdue,
    see_queue,
    see_workers,
    sentence,
    shortage,
)
from ensemblerl.cluster.plugin import METRIC
from ensemblerl.cluster.queues.base import Queue, Queued, QueueSilent, Refused
from ensemblerl.cluster.register import Register
from ensemblerl.cluster.wish import BLAMELESS, Death, Wish
from ensemblerl.events import Held

TICK = 0.5
"""Seconds between looks at the workers; they cost nothing."""
SOON, LATER = 3.0, 30.0
"""Seconds between questions to the queue: while something is expected to change, and else."""
WATCHED = 300.0
"""Seconds for which a job that waits in the queue is asked for often."""
SUBMITTING = 60.0
"""Seconds after which a submission without an answer, and not in the queue, has failed."""
LEAD = 30.0
"""Seconds from a submission until a worker connects, before that was seen."""
IDLE = 5.0
"""Seconds for which workers may be idle before it is held that there is no work for more."""
SETTLING = 1.0
"""Seconds between the end of a worker and a question to the queue that may know why."""
TITLE = {"slurm": 100, "pbs": 15}
"""Characters of a job's name that the queue remembers."""
LEAVING = ("paused", "closing", "closing_gracefully", "closed")
"""States of a Dask worker that takes no more."""


class Reconciler(threading.Thread):
    """Looks after the jobs of one cluster until `close`.

    Parameters
    ----------
    jobs : the dask-jobqueue cluster
    queue : asks and tells the queue
    directory : for job scripts and the list of jobs
    wish : what is wanted

    Attributes
    ----------
    error : why it gave up; "" while it has not
    sentence : why workers are missing; "" when none is
    """

    def __init__(self, jobs: JobQueue, queue: Queue, directory: Path, wish: Wish) -> None:
        super().__init__(daemon=True, name="ensemblerl-reconciler")
        self.wish, self.error, self.sentence = wish, "", ""
        self._jobqueue, self._queue, self._directory = jobs, queue, directory
        self._token = secrets.token_hex(3)
        self._register = Register(directory, self._token, alone=wish.alone)
        self._table: dict[str, Job] = {}
        self._workers: dict[str, Worker] = {}
        self._jobs_of: dict[str, Job] = {}
        self._gone: dict[str, float] = {}
        self._held: list[Held] = []
        self._inherited: dict[str, str] = {}
        self._backoff, self._lead = Backoff(), LEAD
        self._trouble: dict[str, str] = {}
        self._silence, self._asked, self._idle = "", -math.inf, math.inf
        self._goal, self._known = wish.n_jobs or 0, 0
        self._halt, self._lock = threading.Event(), threading.RLock()

    # ---- what others ask; from any thread

    @property
    def wanted(self) -> int:
        """Jobs that are wanted."""
        return self._goal

    def workers(self) -> list[Worker]:
        """Who was connected at the last look."""
        return list(self._workers.values())

    def jobs(self) -> list[Job]:
        """The jobs that are not over."""
        with self._lock:
            return [job for job in self._table.values() if job.state != "over"]

    def death(self, address: str) -> Death | None:
        """Why the worker of this address is gone; None while the queue has not said."""
        with self._lock:
            job, gone = self._jobs_of.get(address), self._gone.get(address)
            if job is None:
                return Death(f"its worker ({address}) is gone", False)
            where = f"job {job.id}" + (f" on {job.node}" if job.node else "")
            if job.state == "over" or job.cause == "requeued":
                cut = job.cause == "timeout"
                return Death(f"{where} ended: {job.cause}", job.cause in BLAMELESS, cut)
            if gone is None or self._asked < gone + SETTLING:
                return None
            return Death(f"its worker died, while {where} runs on", False)

    def take_held(self) -> list[Held]:
        """Accounts of jobs that are over, each once."""
        with self._lock:
            taken, self._held = self._held, []
        return taken

    # ---- the thread

    def run(self) -> None:
        """Look, ask, act, again and again."""
        while not self._halt.is_set():
            try:
                self.turn(time.monotonic())
            except Exception as error:  # one bad look must not cost the campaign
                self._silence = f"looking after jobs failed: {type(error).__name__}: {error}"
                self.sentence = self._silence
            self._halt.wait(TICK)

    def turn(self, now: float) -> None:
        """One round: who is there, what the queue says, what is lacking."""
        with self._lock:
            self._follow(now)
            self._see(now)
        if now - self._asked >= self._pause(now):
            self._ask(now)
        with self._lock:
            self._bury(now)
        self._submit(now)
        self.sentence = self._silence or sentence(self.jobs(), self._goal, self._trouble)

    def _follow(self, now: float) -> None:
        """Take over what somebody else did to the cluster: submitted, scaled up or down."""
        wanted = self._jobqueue.wanted()
        if self.wish.n_jobs is None:
            self._goal = max(0, self._goal + len(wanted) - self._known)
        for name, job_id in wanted.items():
            if name not in self._table and job_id is not None:
                state = "waiting" if job_id else "new"
                self._table[name] = Job(name, id=job_id, state=state, submitted=now)
                if job_id:
                    self._register.add(job_id, name)
        for job in self._table.values():
            if job.name not in wanted and job.state in ("new", *ALIVE):
                job.state = "alone" if job.id else "over"
        self._known = len(wanted)

    def _see(self, now: float) -> None:
        workers, found = self._connected(), dict[str, list[Worker]]()
        for worker in workers:
            job = self._table.get(worker.name)
            found.setdefault(worker.name, []).append(worker)
            if job is not None:
                self._jobs_of[worker.address] = job
        here = {worker.address: worker for worker in workers}
        self._gone.update(dict.fromkeys(self._workers.keys() - here.keys(), now))
        self._workers = here
        free = sum(w.slots - w.busy for w in workers if not w.draining)
        self._idle = math.inf if free < self.wish.slots else min(self._idle, now)
        for job in self._table.values():
            came = job.came
            see_workers(job, found.get(job.name, []), now)
            if job.came and not came:
                if not math.isnan(job.submitted):
                    self._lead += 0.5 * (now - job.submitted - self._lead)
                self._backoff.worked()
                self._trouble.clear()

    def _connected(self) -> list[Worker]:
        out = []
        for address, known in list(self._jobqueue.scheduler.workers.items()):
            told = dict(known.metrics or {}).get(METRIC) or {}
            draining = bool(told.get("draining")) or known.status.name in LEAVING
            name, busy = self._whose(str(known.name)), len(known.processing)
            out.append(Worker(name, address, known.nthreads, busy, told.get("left"), draining))
        return out

    def _whose(self, name: str) -> str:
        """Of the job whose worker has this name: a restart, or one process of several."""
        for pattern in (r"$", r"-r\d+$", r"-\d+$", r"-r\d+-\d+$"):
            if (short := re.sub(pattern, "", name)) in self._table:
                return short
        return name

    # ---- the queue's side

    def _pause(self, now: float) -> float:
        """Seconds between two questions to the queue, as things are."""
        soon = any(
            job.state in ("unsure", "starting", "leaving", "alone")
            or not math.isnan(job.silent)
            or (job.state == "waiting" and now - job.submitted < WATCHED)
            for job in self._table.values()
        ) or any(gone + SETTLING > self._asked for gone in self._gone.values())
        return SOON if soon else LATER

    def _ask(self, now: float) -> None:
        jobs = self.jobs()
        ids = [job.id for job in jobs if job.id]
        unsure = [job for job in jobs if not job.id and job.state != "new"]
        try:
            told = self._queue.jobs(ids) if ids else {}
            found = self._queue.find([job.title for job in unsure]) if unsure else {}
            self._silence = ""
        except QueueSilent as error:
            self._silence = f"the queue does not answer ({error})"
            self._asked = now - SOON  # it has not said anything
            return
        with self._lock:
            self._asked = now
            for job in jobs:
                if job.id:
                    see_queue(job, told.get(job.id), now)
            for job in unsure:
                self._resolve(job, found.get(job.title), now)
        late = [job for job in self.jobs() if overdue(job, now)]
        if late:
            self._cancel([job.id for job in late])

    def _resolve(self, job: Job, queued: Queued | None, now: float) -> None:
        """A submission whose answer was lost is in the queue, or is not."""
        if queued is not None:
            self._entered(job, queued.id)
        elif job.state == "unsure" and now - job.submitted > SUBMITTING:
            job.state = "new"

    def _entered(self, job: Job, job_id: str) -> None:
        job.id = job_id
        job.state = "waiting" if job.state == "unsure" else job.state
        self._jobqueue.submitted(job.name, job_id)
        self._register.add(job_id, job.title)

    def _bury(self, now: float) -> None:
        """Take note of jobs that are over; those that can do nothing more make room."""
        for job in list(self._table.values()):
            if job.state in ("over", "leaving", "alone"):
                self._drop(job.name)
            if job.state != "over":
                continue
            del self._table[job.name]
            self._register.remove(job.id)
            self._hold(job)
            if not job.came and job.id:
                what = f"job {job.id} died before connecting ({job.cause})"
                self._trouble = {what: f"see {self._directory}/*{job.id}*"}
                self._backoff.failed(what, job.submitted, now)

    def _drop(self, name: str) -> None:
        before = len(self._jobqueue.wanted())
        self._jobqueue.drop(name)
        self._known += len(self._jobqueue.wanted()) - before

    def _hold(self, job: Job) -> None:
        wish = self.wish
        self._held += held(job, wish.slots, wish.cores, wish.walltime)

    # ---- submitting

    def _submit(self, now: float) -> None:
        with self._lock:
            jobs = self.jobs()
            idle = bool(self._workers) and now - self._idle > IDLE
            policy = Policy(self._goal, self.wish.needed() + self._lead)
            lacking = 0 if idle or not self.wish.load() else shortage(jobs, policy)
            waiting = [job for job in jobs if job.state == "new"]
            if now < self._backoff.until or not (waiting or lacking):
                return
            if self._hopeless(jobs):
                self.error = f"{self._backoff.failures} times in a row: {self._backoff.message}"
                return
            for _ in range(lacking):
                name = self._jobqueue.add()
                self._known += 1
                self._table[name] = Job(name)
                waiting.append(self._table[name])
        for job in waiting:
            if self._halt.is_set() or not self._send(job, now):
                return

    def _hopeless(self, jobs: list[Job]) -> bool:
        alive = any(job.state not in ("new", "over") for job in jobs)
        return self._backoff.failures >= self.wish.limit and not alive

    def _send(self, job: Job, now: float) -> bool:
        """Submit one; False when that is better not tried again at once."""
        job.title = self._title(job)
        text = self.wish.edit(self._jobqueue.script(job.name, job.title), job.title)
        job.state, job.submitted = "unsure", now
        try:
            self._entered(job, self._queue.submit(text, self._directory))
            return True
        except Refused as error:
            with self._lock:
                job.state = "new"
                self._trouble = {f"the queue refused a job: {error}": ""}
                self._backoff.failed(f"the queue refused a job: {error}", now, now)
        except QueueSilent as error:
            self._silence = f"the queue does not answer ({error})"
        return False

    def _title(self, job: Job) -> str:
        """What the queue is to call it: unlike any other job of this user."""
        base = str(self._jobqueue.cluster.new_spec["options"].get("job_name") or "ensemblerl")
        rest = f"-{self._token}-{job.name.rpartition('-')[2]}"
        return base[: TITLE[self._queue.name] - len(rest)] + rest

    # ---- the end

    def adopt(self) -> None:
        """End what killed drivers left waiting in the queue; what runs may hold programs whose
        results are wanted, and is ended with everything else.
        """
        self._inherited = self._register.inherited()
        with contextlib.suppress(QueueSilent):
            told = self._queue.jobs(list(self._inherited)) if self._inherited else {}
            self._cancel([i for i, job in told.items() if job.state == "pending"])
            self._inherited = {i: t for i, t in self._inherited.items() if i in told}
        for job_id, title in self._inherited.items():
            self._register.add(job_id, title)

    def close(self, *, cancel: bool = True) -> None:
        """Stop; end all jobs in the queue, those too whose submission had no answer."""
        self._halt.set()
        if self.is_alive():
            self.join()
        with self._lock:
            for job in self.jobs():
                job.cause = job.cause or "closed"
                job.ended = time.monotonic()
                self._hold(job)
        if not cancel:
            return
        ids = [job.id for job in self.jobs() if job.id] + list(self._inherited)
        unsure = [job.title for job in self.jobs() if not job.id and job.state != "new"]
        with contextlib.suppress(QueueSilent):
            ids += [queued.id for queued in self._queue.find(unsure).values()] if unsure else []
        if self._cancel(ids):
            for job_id in ids:
                self._register.remove(job_id)

    def _cancel(self, ids: list[str]) -> bool:
        try:
            if ids:
                self._queue.cancel(ids)
        except (QueueSilent, Refused) as error:
            self._silence = f"the queue does not answer ({error})"
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """How the jobs are: JSON."""
        states: dict[str, int] = {}
        for job in self.jobs():
            states[job.state] = states.get(job.state, 0) + 1
        return {"wanted": self._goal, "jobs": states, "why": self.sentence}
