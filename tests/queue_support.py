"""A queue and a Dask cluster in memory, under a clock that a test turns by hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ensemblerl.cluster.jobqueue import JobQueue
from ensemblerl.cluster.plugin import METRIC
from ensemblerl.cluster.queues.base import Queued, QueueSilent, Refused, by_name
from ensemblerl.cluster.reconciler import TICK, Reconciler
from ensemblerl.cluster.wish import Wish

LONG = 1e9


class SLURMJob:
    """What dask-jobqueue has for a job."""

    worker_cores = 4

    def __init__(self, scheduler, name, job_name="camp", **options):
        self.scheduler, self.name, self.job_name, self.job_id = scheduler, name, job_name, None

    def job_script(self):
        return f"#SBATCH -J {self.job_name}\nworker --name {self.name}\n"


class StubCluster:
    """What of a dask-jobqueue cluster is used."""

    job_cls, name, scheduler_address = SLURMJob, "cl", "tcp://head:1"

    def __init__(self, queue):
        self.queue, self._n = queue, 0
        self.new_spec = {"cls": SLURMJob, "options": {"job_name": "camp"}}
        self.worker_spec, self.workers = {}, {}
        self.scheduler = SimpleNamespace(workers={})
        self.slow: list[str] | None = None

    def scale(self, n, *, submit=True):
        """As its owner does it: Dask submits what is new, and ends what is too much."""
        while len(self.worker_spec) > n:
            name, _ = self.worker_spec.popitem()
            job = self.workers.pop(name, None)
            if job is not None and job.job_id:
                self.queue.cancel([job.job_id])
        while len(self.worker_spec) < n:
            name = f"{self.name}-{self._n}"
            self._n += 1
            self.worker_spec[name] = self.new_spec
            if submit:
                self.submitted(name)

    def submitted(self, name):
        """Dask has done it."""
        job = self.workers[name] = SLURMJob("", name)
        try:
            job.job_id = self.queue.take(job.job_script()).id
        except Refused:
            job.job_id = None


@dataclass
class InQueue:
    """A job of the queue in memory; ``seen`` from this time on, ``shown`` by ``squeue``."""

    id: str
    title: str
    worker: str
    state: str = "pending"
    end: str = ""
    node: str = ""
    restarts: int = 0
    runs: int = 0
    seen: float = 0.0
    log: list[str] = field(default_factory=list)

    @property
    def lives(self):
        return self.state != "ended"

    def told(self):
        reason = "Resources" if self.state == "pending" else ""
        return Queued(
            self.id, self.title, self.state, self.end, reason, self.node, None, self.restarts
        )


class FakeQueue:
    """Takes what is submitted, unless the next of ``answers`` is something else.

    "refuse"; "silent": no answer, not taken; "taken": no answer, but taken, and shown ``later``
    seconds after that.
    """

    name, commands = "slurm", ()

    def __init__(self):
        self.now, self.answers, self.later, self.limit = 1000.0, [], 0.0, LONG
        self.down = False
        self.jobs_: dict[str, InQueue] = {}
        self.next, self.asked, self.submissions = 100, [], 0

    def jobs(self, ids):
        self._answer("jobs")
        return {i: self.jobs_[i].told() for i in ids if i in self.listed()}

    def find(self, names):
        self._answer("find")
        return by_name([job.told() for job in self.listed().values()], set(names))

    def listed(self):
        return {i: job for i, job in self.jobs_.items() if job.seen <= self.now}

    def submit(self, script, directory):
        self.submissions += 1
        answer = self.answers.pop(0) if self.answers else "ok"
        if answer == "refuse":
            raise Refused("Batch job submission failed: no")
        if self.down or answer == "silent":
            raise QueueSilent("sbatch gave no answer")
        if isinstance(answer, Exception):
            raise answer
        job = self.take(script)
        if answer == "taken":
            job.seen = self.now + self.later
            raise QueueSilent("sbatch gave no answer")
        return job.id

    def take(self, script):
        if len(self.living()) >= self.limit:
            raise Refused("QOSMaxSubmitJobPerUserLimit")
        title = re.search(r"-J (\S+)", script)[1]
        worker = re.search(r"--name (.+)", script)[1].replace("$(date +%s)", "99")
        job = InQueue(str(self.next), title, worker)
        self.next += 1
        self.jobs_[job.id] = job
        return job

    def cancel(self, ids):
        self._answer("cancel")
        for i in ids:
            job = self.jobs_.get(i)
            if job is not None and job.lives and job.seen <= self.now:
                job.state, job.end = "ended", "cancelled"

    def left(self, id):
        return None

    def living(self):
        return [job for job in self.jobs_.values() if job.lives]

    def _answer(self, what):
        self.asked.append((self.now, what))
        if self.down:
            raise QueueSilent(f"{what}: timed out")


class Rig:
    """A reconciler over both; `turn` lets time pass."""

    def __init__(self, directory, n_jobs=2, owned=True, **wish):
        self.queue = FakeQueue()
        self.cluster = StubCluster(self.queue)
        self.load, self.needed = 10, 0.0
        self.wish = Wish(
            n_jobs=n_jobs if owned else None,
            slots=4,
            cores=4,
            **{"load": lambda: self.load, "needed": lambda: self.needed, **wish},
        )
        self.jobqueue = JobQueue(self.cluster)
        self.reconciler = Reconciler(self.jobqueue, self.queue, directory, self.wish)
        self.held: list[Any] = []

    def turn(self, seconds=TICK, each=lambda: None):
        """Time passes."""
        until = self.queue.now + seconds
        while self.queue.now < until - 1e-9:
            self.queue.now += TICK
            self.reconciler.turn(self.queue.now)
            self.held += self.reconciler.take_held()
            each()

    def run(self, *ids, left=LONG, busy=4):
        """The queue starts these jobs, by default all that wait, and their workers connect."""
        for job in self.queue.living():
            if job.state == "pending" and (job.id in ids or not ids):
                job.state, job.node = "running", f"n{job.id}"
                job.runs += 1
                self.connect(job, left=left, busy=busy)

    def connect(self, job, *, left=LONG, busy=4, draining=False, suffix="", port=0):
        """A worker of this job; gives its address."""
        address = f"tcp://{job.id}:{job.runs * 10 + port}"
        name = job.worker.replace("-r99", f"-r{99 + job.runs}") + suffix
        self.cluster.scheduler.workers[address] = SimpleNamespace(
            name=name,
            metrics={METRIC: {"left": left, "draining": draining}},
            status=SimpleNamespace(name="running"),
            nthreads=4,
            processing=dict.fromkeys(range(busy)),
        )
        return address

    def addresses(self, job):
        """Of the workers of this job."""
        workers = self.cluster.scheduler.workers
        return [a for a in workers if a.startswith(f"tcp://{job.id}:")]

    def told(self, job, **changes):
        """The workers of this job tell something else."""
        for address in self.addresses(job):
            self.cluster.scheduler.workers[address].metrics[METRIC].update(changes)

    def lose(self, job):
        """Its workers are gone; their addresses."""
        lost = self.addresses(job)
        for address in lost:
            del self.cluster.scheduler.workers[address]
        return lost

    def end(self, job, end="failed"):
        """The queue ends a job, with its workers; their addresses."""
        job.state, job.end = "ended", end
        return self.lose(job)

    def requeue(self, job):
        """The queue takes it back; its workers are gone, their addresses."""
        job.state, job.restarts = "pending", job.restarts + 1
        return self.lose(job)

    def vanish(self, job):
        """The queue forgets a job, and so does everybody."""
        del self.queue.jobs_[job.id]
        job.state = "ended"
        return self.lose(job)

    @property
    def living(self):
        return self.queue.living()

    @property
    def states(self):
        return sorted(job.state for job in self.reconciler.jobs())


class LocalQueue:
    """Runs each job at once as processes of this machine, in a session of their own."""

    name, commands = "slurm", ()

    def __init__(self):
        self.running: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self.killed: set[str] = set()
        self.most = 0

    def submit(self, script, directory):
        title = re.search(r"-J (\S+)", script)[1]
        path = directory / f"{title}.sh"
        path.write_text(script)
        id = str(900 + len(self.running))
        with (directory / f"{title}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running[id] = title, process
        self.most = max(self.most, len(self.alive()))
        return id

    def alive(self):
        return [id for id, (_, process) in self.running.items() if process.poll() is None]

    def jobs(self, ids):
        return {i: self._told(i) for i in ids if i in self.running}

    def find(self, names):
        return by_name([self._told(i) for i in self.running], set(names))

    def _told(self, id):
        title, process = self.running[id]
        code = process.poll()
        ends = {None: "", 0: "completed"}
        end = "cancelled" if id in self.killed and code is not None else ends.get(code, "failed")
        return Queued(id, title, "running" if code is None else "ended", end, node="here")

    def cancel(self, ids):
        for id in set(ids) & set(self.alive()):
            self.killed.add(id)
            with suppress(ProcessLookupError):
                os.killpg(self.running[id][1].pid, signal.SIGKILL)
            self.running[id][1].wait()

    def left(self, id):
        return None
