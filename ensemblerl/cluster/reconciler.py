"""Keeps the wanted jobs in the queue: compares it with who is connected, and replaces losses."""

from __future__ import annotations

import math
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from ensemblerl.cluster.accounts import held
from ensemblerl.cluster.ending import Ending
from ensemblerl.cluster.failing import death_in, failure, log_of
from ensemblerl.cluster.jobqueue import JobQueue
from ensemblerl.cluster.jobs import (
    AHEAD,
    Backoff,
    Job,
    Policy,
    Worker,
    looked_for,
    overdue,
    see_queue,
    see_workers,
    sentence,
    shortage,
    titled,
)
from ensemblerl.cluster.queues.base import NoQueue, Queue, Queued, QueueSilent, Refused
from ensemblerl.cluster.register import Register
from ensemblerl.cluster.seeing import connected
from ensemblerl.cluster.wish import Death, Wish
from ensemblerl.events import Held

TICK = 0.5
"""Seconds between looks at the workers; they cost nothing."""
SOON, LATER = 3.0, 30.0
"""Seconds between questions to the queue: while something is expected to change, and else."""
WATCHED = 300.0
"""Seconds for which a job that waits in the queue is asked for often."""
SUBMITTING = 30.0
"""Seconds of answers without a job after which its submission, which got none, has failed."""
STEADY = 10.0
"""Seconds after which a job whose worker connected is a job that works."""
LEAD = 30.0
"""Seconds from a submission until a worker connects, before that was seen."""
IDLE = 5.0
"""Seconds for which workers may be idle before it is held that there is no work for more."""
SETTLING = 1.0
"""Seconds between the end of a worker and a question to the queue that may know why."""


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
        self._ending = Ending(queue, self._register)
        self._backoff, self._lead = Backoff(), LEAD
        self._trouble: dict[str, str] = {}
        self._silence, self._idle = "", math.inf
        self._asked = self._answered = -math.inf
        self._coming, self._excused, self._longest = 0, 0, 0.0
        self._goal, self._known = wish.n_jobs or 0, 0
        self._halt, self._lock = threading.Event(), threading.RLock()

    # ---- what others ask; from any thread

    @property
    def wanted(self) -> int:
        """Jobs that there are to be."""
        return self._goal

    def workers(self) -> list[Worker]:
        """Who was connected at the last look."""
        return list(self._workers.values())

    def jobs(self) -> list[Job]:
        """Those that are not over."""
        with self._lock:
            return [job for job in self._table.values() if job.state != "over"]

    def death(self, address: str) -> Death | None:
        """Why the worker of this address is gone; None while the queue has not said."""
        with self._lock:
            job, gone = self._jobs_of.get(address), self._gone.get(address)
            if job is None:
                return Death(f"its worker ({address}) is gone", False)
            return death_in(job, address, gone is not None and self._answered >= gone + SETTLING)

    def hope(self) -> None:
        """Begin anew: what made jobs fail may be mended."""
        with self._lock:
            self.error, self._backoff, self._excused = "", Backoff(), 0

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
        if self.wish.n_jobs is None and len(wanted) != self._known:
            self._goal = len(wanted)  # he says how many there are to be, not how many more
        new = {name: job_id for name, job_id in wanted.items() if name not in self._table}
        self._coming = sum(job_id is None for job_id in new.values())
        for name, job_id in new.items():
            if job_id is not None:
                state, title = "waiting" if job_id else "new", self._jobqueue.title(name)
                self._table[name] = Job(name, title, job_id, state, submitted=now)
                if job_id:
                    self._register.add(job_id, title)
        for job in self._table.values():
            if job.name not in wanted and not job.dropped:
                job.dropped = job.unwanted = True
                job.state = "over" if job.state == "new" else job.state
        self._known = len(wanted)

    def _see(self, now: float) -> None:
        workers = connected(self._jobqueue.scheduler, self._table)
        found = dict[str, list[Worker]]()
        for worker in workers:
            job = self._table.get(worker.name)
            found.setdefault(worker.name, []).append(worker)
            if job is not None:
                self._jobs_of[worker.address] = job
        here = {worker.address: worker for worker in workers}
        self._gone.update(dict.fromkeys(self._workers.keys() - here.keys(), now))
        for address in here:
            self._gone.pop(address, None)
        self._workers = here
        free = sum(w.slots - w.busy for w in workers if not w.draining)
        self._idle = math.inf if free < self.wish.slots else min(self._idle, now)
        self._longest = max([self._longest, *(w.left for w in workers if w.left is not None)])
        for job in self._table.values():
            came = job.came
            see_workers(job, found.get(job.name, []), now)
            if job.came and not came and not math.isnan(job.submitted):
                self._lead += 0.5 * (now - job.submitted - self._lead)
            works = job.state == "up" and math.isnan(job.silent)
            if works and not job.steady and now - job.connected >= STEADY:
                job.steady = True
                self._backoff.worked()
                self._trouble.clear()

    # ---- the queue's side

    def _pause(self, now: float) -> float:
        """Seconds between two questions to the queue, as things are."""
        soon = any(
            job.state in ("unsure", "starting", "leaving", "alone")
            or not (math.isnan(job.silent) and math.isnan(job.absent))
            or (job.state in ("waiting", "missing") and now - job.submitted < WATCHED)
            for job in self._table.values()
        ) or any(gone + SETTLING > self._answered for gone in self._gone.values())
        return SOON if soon or self._silence else LATER

    def _ask(self, now: float) -> None:
        jobs = self.jobs()
        ids = [job.id for job in jobs if job.id]
        theirs = sorted(self._ending.inherited)
        unsure = [job for job in jobs if not job.id and looked_for(job, now)]
        self._asked = now
        try:
            told = self._queue.jobs([*ids, *theirs]) if ids or theirs else {}
            found = self._queue.find([job.title for job in unsure]) if unsure else {}
            self._silence = ""
        except QueueSilent as error:
            self._silence = f"the queue does not answer ({error})"
            for job in unsure:
                job.absent = math.nan  # only answers count
            return
        with self._lock:
            self._answered = now
            self._ending.look([i for i, queued in told.items() if queued.state != "ended"])
            for job in jobs:
                if job.id:
                    see_queue(job, told.get(job.id), now)
            for job in unsure:
                self._resolve(job, found.get(job.title), now)
            ended = [job for job in self.jobs() if job.id and self._to_end(job, now)]
        if ended:
            self._silence = self._ending.cancel([job.id for job in ended])

    def _to_end(self, job: Job, now: float) -> bool:
        """Whether the queue is to end it: no worker of it comes, or nobody wants it any more."""
        if job.dropped and job.state == "waiting":
            job.unwanted = True
        return overdue(job, now) or (job.unwanted and job.state in ("waiting", "starting"))

    def _resolve(self, job: Job, queued: Queued | None, now: float) -> None:
        """A submission whose answer was lost is in the queue, or is not; the controller of a
        queue that did not answer may find it among its mail a while after it answers again.
        """
        if queued is not None:
            self._entered(job, queued.id)
        if queued is not None or job.state == "missing":
            return
        job.absent = now if math.isnan(job.absent) else job.absent
        if now - job.absent <= SUBMITTING:
            return
        if job.state == "unsure":
            job.state, job.unwanted, job.absent = "missing", True, math.nan
            self._drop(job)
            self._backoff.failed("a job was submitted, and is not there", job.submitted, now)
        elif job.state == "alone":  # its worker came and went, and no queue knows it
            job.state, job.cause, job.ended = "over", "unknown", now

    def _entered(self, job: Job, job_id: str) -> None:
        job.id, job.absent = job_id, math.nan
        job.state = "waiting" if job.state in ("unsure", "missing") else job.state
        self._jobqueue.submitted(job.name, job_id)
        self._register.add(job_id, job.title)

    def _bury(self, now: float) -> None:
        """Take note of jobs that are over; those that can do nothing more make room."""
        for job in list(self._table.values()):
            if job.state in ("over", "leaving", "alone"):
                self._drop(job)
                self._count_failure(job, now)
            if job.state != "over":
                continue
            del self._table[job.name]
            self._register.remove(job.id, job.title)
            self._hold(job)
            self._ending.note(job)

    def _count_failure(self, job: Job, now: float) -> None:
        told = self._answered >= job.silent + SETTLING
        if job.failed or not job.id or not (what := failure(job, told, now)):
            return
        job.failed, where = True, f"see {log_of(job, self._directory)}"
        self._trouble = {what: where}
        self._backoff.failed(f"{what}, {where}", job.submitted, now)

    def _drop(self, job: Job) -> None:
        if not job.dropped:
            job.dropped = True
            before = len(self._jobqueue.wanted())
            self._jobqueue.drop(job.name)
            self._known += len(self._jobqueue.wanted()) - before

    def _hold(self, job: Job) -> None:
        wish = self.wish
        self._held += held(job, wish.slots, wish.cores, wish.walltime)

    # ---- submitting

    def _submit(self, now: float) -> None:
        if self._silence:
            return
        with self._lock:
            jobs = self.jobs()
            idle = bool(self._workers) and now - self._idle > IDLE
            hopeless = self._hopeless(jobs)
            if idle or not self.wish.load() or now < self._backoff.until:
                return
            lacking = max(0, shortage(jobs, Policy(self._goal, self._ahead())) - self._coming)
            waiting = [job for job in jobs if job.state == "new"]
            if not (waiting or lacking):
                return
            if hopeless:
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

    def _ahead(self) -> float:
        """Seconds before its end at which a job is replaced."""
        return min(self.wish.needed() + self._lead, AHEAD * (self._longest or math.inf))

    def _hopeless(self, jobs: list[Job]) -> bool:
        """Whether jobs have failed, one after the other, since the last that worked was seen: a
        queue that takes no more of them beside those refuses many times.
        """
        if any(job.steady for job in jobs):
            self._excused = self._backoff.failures
        self._excused = min(self._excused, self._backoff.failures)
        dead = ("new", "missing", "over")
        alive = any(job.state not in dead and not job.failed for job in jobs) or self._coming
        alive = alive or bool(self._ending.inherited)  # may hold programs, and our places
        return not alive and self._backoff.failures - self._excused >= max(1, self.wish.limit)

    def _send(self, job: Job, now: float) -> bool:
        """Submit one; False when that is better not tried again at once."""
        job.title = titled(self._jobqueue.base, self._token, job.name, self._queue.name)
        try:
            text = self.wish.edit(self._jobqueue.script(job.name, job.title), job.title)
            job.state, job.submitted = "unsure", now
            self._register.sent(job.title)
            self._entered(job, self._queue.submit(text, self._directory))
            return True
        except (Refused, OSError, ValueError) as error:  # the latter two: no script, nothing sent
            what = "the queue refused a job" if isinstance(error, Refused) else "no job script"
            with self._lock:
                job.state = "new"
                self._register.remove(job.title)
                self._trouble = {f"{what}: {error}": ""}
                self._backoff.failed(f"{what}: {error}", now, now)
        except NoQueue as error:
            job.state, self.error = "new", str(error)
        except QueueSilent as error:
            self._silence = f"the queue does not answer ({error})"
        return False

    # ---- the end

    def adopt(self) -> None:
        """End what killed drivers left waiting in the queue; later, what they left running."""
        self._ending.adopt()

    def close(self, *, cancel: bool = True, leave: bool = False) -> None:
        """Stop; end all jobs in the queue, those too whose submission had no answer.

        Parameters
        ----------
        cancel : False: only those that killed drivers left
        leave : none that runs; who comes next finds them in the register
        """
        self._halt.set()
        if self.is_alive():
            self.join()
        with self._lock:
            jobs = self.jobs()
            if leave:
                self._ending.inherited.clear()
                stay = self._ending.begun(jobs)
                for name in stay:
                    self._jobqueue.drop(name)
                jobs = [job for job in jobs if job.name not in stay]
            ids = {job.id for job in jobs if job.id and cancel}
            unsure = [job for job in jobs if not job.id and job.state != "new"]
            titles = {job.title for job in unsure if cancel}
            for job in jobs:
                job.state, job.cause, job.ended = "over", "closed", time.monotonic()
                self._hold(job)
            self._table.clear()
        self._ending.end(ids, titles)

    def describe(self) -> dict[str, Any]:
        """How the jobs are: JSON."""
        states: dict[str, int] = {}
        for job in self.jobs():
            states[job.state] = states.get(job.state, 0) + 1
        return {"wanted": self._goal, "jobs": states, "why": self.sentence}
