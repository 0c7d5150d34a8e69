"""Execution in the jobs of a queue: Dask for the members, a reconciler for the jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ensemblerl.cluster.dask import DaskExecutor, Waiting, connected
from ensemblerl.cluster.describing import asked
from ensemblerl.cluster.jobs import Worker
from ensemblerl.cluster.needs import Needs
from ensemblerl.cluster.plugin import CarryJob, CarryJobInQueue
from ensemblerl.cluster.pool import Pool
from ensemblerl.cluster.settings import Settings
from ensemblerl.events import Held
from ensemblerl.executors.base import Lost, Unavailable
from ensemblerl.executors.shipping import Parcel
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Fate, Members, Outcome
from ensemblerl.store.note import Note

TOO_LONG = 3
"""Members that no job is long enough for, before any has finished, that end a campaign."""
WAITING = ("queued", "no-worker")
"""States of a Dask task that no worker has been given."""
HOPELESS = (
    "no job of this cluster leaves a member more than {most}; give a longer walltime=, or "
    "checkpoint=True to a Command that can go on from its own files"
)
"""What is said of members that are longer than any job."""


class QueuedExecutor(DaskExecutor):
    """Runs bundles in the jobs of a queue, which a reconciler keeps up to what is wanted.

    Parameters
    ----------
    take : gives the jobs for a campaign; more of them are submitted from now on
    give : takes them back
    settings : of the jobs, where they are known: ``max_runtime`` counts
    """

    elsewhere = True
    title = "jobs of a queue"

    def __init__(
        self,
        take: Callable[[Job], Pool],
        give: Callable[[Pool], None],
        *,
        settings: Settings | None = None,
    ) -> None:
        self._take, self._give, self.settings = take, give, settings
        if settings is not None:
            self.title = asked(settings)
        self._needs = Needs()
        self._pool: Pool | None = None
        self._last: Pool | None = None
        self._finished, self._recalled = False, False
        self._too_long: set[int] = set()
        self._stragglers: list[Waiting] = []
        self._told = Note("")
        self._set_up(None, True, None)

    # ---- what a campaign calls

    def start(self, job: Job) -> None:
        """Have jobs submitted, and the campaign's job brought to whoever connects."""
        simulation = job.simulation
        checkpoint = bool(getattr(simulation, "checkpoint", False))
        most = None if self.settings is None else self.settings.max_runtime
        self._needs = Needs(most, simulation.timeout, checkpoint)
        self._finished, self._recalled = False, False
        self._too_long = set()
        self._told = Note(job.segments)
        self._pool = pool = self._take(job)
        self._client = connected(pool.cluster)
        super().start(job)
        pool.serve(self)

    def submit(self, bundle: Members) -> Future[Answer]:
        """Take a bundle; of a member that no job is long enough for, that is the outcome."""
        numbers = bundle.number.tolist()
        if len(numbers) == 1 and self._needs.hopeless(numbers[0]):
            return self._refused(bundle)
        if self._needs.seconds(numbers) <= self._needs.seconds():
            return super().submit(bundle)
        ours: Future[Answer] = Future()
        ours.set_running_or_notify_cancel()
        self._collector.add(ours)
        self._stragglers.append(Waiting(bundle, ours))
        return ours

    def _send_stragglers(self) -> None:
        """Members that need longer than most wait here for a worker that has so much left: others
        would refuse them, again and again.
        """
        for waiting in list(self._stragglers):
            needed = self._needs.seconds(waiting.bundle.number.tolist())
            fit = [w for w in self._workers() if not w.draining and (w.left or 0.0) > needed]
            if fit:
                best = max(fit, key=lambda w: (w.slots - w.busy, w.left or 0.0))
                self._stragglers.remove(waiting)
                with self._lock:
                    self._send([waiting], [best.address])

    def _drop_stragglers(self, cause: str) -> None:
        left, self._stragglers = self._stragglers, []
        for waiting in left:
            waiting.ours.set_exception(Lost(cause, begun=False))

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Block until a bundle is done.

        Raises
        ------
        Unavailable
            when no job can be had, with what the queue says
        RuntimeError
            when members are longer than any job, and none has finished
        """
        self._told.say(self.note)
        for worker in self._workers():
            if worker.left is not None and not worker.draining:
                self._needs.offer(worker.left)
        self._send_stragglers()
        done = super().wait(timeout)
        if self._pool is not None and self._pool.reconciler.error and not done:
            raise Unavailable(f"no job can be had: {self._pool.reconciler.error}")
        if len(self._too_long) >= TOO_LONG and not self._finished:
            raise RuntimeError(
                f"{len(self._too_long)} members and more were cut off at the end of their jobs, "
                f"and none has finished: {self._hopeless()}. The store keeps what is done"
            )
        return done

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Take in how attempts ended: how long members take, and who was cut off."""
        outcomes = list(outcomes)
        self._needs.learn(outcomes)
        for outcome in outcomes:
            self._finished = self._finished or outcome.fate == Fate.ok
            if outcome.fate == Fate.lost and outcome.blameless and outcome.runtime > 0:
                self._needs.cut(outcome.number, outcome.runtime)

    def recall(self) -> None:
        """Take back what no worker has begun: no more jobs are needed."""
        self._recalled = True
        self._drop_stragglers("taken back before it began")
        if self._pool is not None:
            self._flush()
            self._pool.jobqueue.scheduler.loop.add_callback(self._take_back)

    def _take_back(self) -> None:
        """On the scheduler's loop: what waits now is not begun between a look and the word."""
        gathering, pool = self._gathering, self._pool
        if gathering is None or pool is None:
            return
        scheduler, client = pool.jobqueue.scheduler, self._connected()
        for _, theirs in list(self._flying.values()):
            if getattr(scheduler.tasks.get(theirs.key), "state", "") in WAITING:
                scheduler.client_releases_keys(keys=[theirs.key], client=client.id)
                gathering.finish(theirs.key, Lost("taken back before it began", begun=False))

    def disown(self) -> None:
        """Leave running what runs, for a driver that resumes; end what waits in the queue."""
        if self._pool is not None:
            self._pool.leave()

    def close(self) -> None:
        """End the jobs, unless they are to stay; never raises."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        self._told.say("")
        self._last = pool
        pool.dismiss(self)
        self._drop_stragglers("the executor was closed")
        with suppress(Exception):
            super().close()
        self._client = None
        with suppress(Exception):
            self._give(pool)

    # ---- beside the contract

    @property
    def note(self) -> str:
        """Why workers are missing, in one sentence; "" when none is."""
        pool = self._pool  # another thread may be closing it
        return "" if pool is None else pool.reconciler.sentence

    def held(self) -> list[Held]:
        """Accounts of jobs that are over, each once; also after a `close`."""
        pool = self._pool or self._last
        return [] if pool is None else pool.reconciler.take_held()

    def describe(self) -> dict[str, Any]:
        """What it is: JSON."""
        jobs = {} if self._pool is None else self._pool.reconciler.describe()
        return {**super().describe(), "queue": jobs}

    # ---- what `DaskExecutor` asks

    def _workers(self) -> list[Worker]:
        return [] if self._pool is None else self._pool.reconciler.workers()

    def _slots(self) -> int:
        return sum(worker.slots for worker in self._workers() if not worker.draining)

    def _carrier(self, parcel: Parcel, job: Job) -> CarryJob:
        assert self._pool is not None
        cores, ask = max(1, job.simulation.cores), self._pool.queue.left
        return CarryJobInQueue(self._key, parcel, os.getpid(), cores, ask)

    def _needed(self, bundle: Members) -> tuple[float, float]:
        return self._needs.seconds(bundle.number.tolist()), self._needs.seconds()

    def _explain(self, address: str, key: str) -> Lost | None:
        death = None if self._pool is None else self._pool.reconciler.death(address)
        if death is None:
            return None
        if death.cut:  # it was begun, so there had been time for what it was held to need
            for waiting, theirs in list(self._flying.values()):
                if theirs.key == key:
                    number = int(waiting.bundle.number[0])
                    self._needs.cut(number, self._needs.seconds([number]))
        return Lost(death.cause, blameless=death.blameless)

    def needed(self) -> float:
        """Seconds that the next member is expected to need."""
        return self._needs.seconds()

    def load(self) -> int:
        """Members on their way that need a worker."""
        return 0 if self._recalled else len(self._collector)

    def _refused(self, bundle: Members) -> Future[Answer]:
        number, attempt = int(bundle.number[0]), int(bundle.attempt[0])
        self._too_long.add(number)
        ran = self._needs.had(number)
        cause = f"it ran {ran:.0f} s and was cut off at the end of its job: {self._hopeless()}"
        future: Future[Answer] = Future()
        self._collector.add(future)
        future.set_result(Answer([Outcome(number, attempt, str(Fate.timeout), cause)], {}))
        return future

    def _hopeless(self) -> str:
        longest = self._needs.longest
        return HOPELESS.format(most="?" if longest is None else f"{longest:.0f} s")
