"""Any `concurrent.futures.Executor`: threads, processes, and what others made in their likeness."""

from __future__ import annotations

import time
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
)
from typing import Any

from ensemblerl.executors.base import Collector, Lost, attempts_of
from ensemblerl.executors.shipping import Parcel, packed, run_parcel
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Fate, Members, Outcome
from ensemblerl.simulations import isolate
from ensemblerl.worker import run_bundle

BROKEN = (
    "the pool is broken: one of its processes ended abruptly, and it takes no more work; go on "
    "with a new pool (the store keeps what is done), and isolate=True on the simulation "
    "keeps crashes from the pool"
)


class Futures:
    """Runs bundles on somebody's executor, which stays theirs to shut down.

    Parameters
    ----------
    executor : threads share the simulation as it is; for others it is pickled
    n_workers : how many run at once; what the executor says when None

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came
    """

    def __init__(self, executor: Executor, *, n_workers: int | None = None) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(f"executor: wanted a concurrent.futures.Executor, got {executor!r}")
        workers = n_workers if n_workers is not None else getattr(executor, "_max_workers", None)
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise ValueError(f"n_workers: wanted a whole number >= 1, got {workers!r}")
        self.n_workers = workers
        self.in_process = isinstance(executor, ThreadPoolExecutor)
        self._executor = executor
        self._job: Job | None = None
        self._parcel: Parcel | None = None
        self._renew()

    def _renew(self) -> None:
        """Know nothing of what was submitted before."""
        self._collector = Collector()
        self._stopped: set[tuple[int, int]] = set()
        self._flying: dict[Future[Answer], tuple[Future[Answer], Members]] = {}
        self._unbegun: set[Future[Answer]] = set()

    def start(self, job: Job) -> None:
        """Get ready to run members of this job.

        Raises
        ------
        TypeError
            when simulation or goal cannot be pickled and have to be
        """
        self._job, self._parcel = job, None if self.in_process else packed(job)
        self._renew()

    def submit(self, bundle: Members) -> Future[Answer]:
        """Hand a bundle to the executor.

        Raises
        ------
        RuntimeError
            when its pool is broken or shut down
        """
        inner, outer = self._handed(bundle), Future[Answer]()
        self._flying[outer] = (inner, bundle)
        self._collector.add(outer)
        inner.add_done_callback(lambda done: self._pass_on(done, outer, bundle))
        return outer

    def _handed(self, bundle: Members) -> Future[Answer]:
        try:
            if self._parcel is not None:
                return self._executor.submit(run_parcel, self._parcel, bundle.luggage())
            assert self._job is not None, "start(job) comes before submit()"
            return self._executor.submit(run_bundle, self._job, bundle, stopped=self._stopped)
        except BrokenExecutor as error:
            raise RuntimeError(BROKEN) from error

    def _pass_on(self, inner: Future[Answer], outer: Future[Answer], bundle: Members) -> None:
        self._flying.pop(outer, None)
        if not inner.cancelled() and isinstance(inner.exception(), BrokenExecutor):
            self._broken()
        if not outer.set_running_or_notify_cancel():
            return
        try:
            outer.set_result(inner.result())
        except CancelledError:
            self._cancelled(outer, bundle)
        except BrokenExecutor as error:
            begun = False if outer in self._unbegun else None
            outer.set_exception(Lost(f"{BROKEN} ({error})", begun=begun))
        except BaseException as error:
            outer.set_exception(error)

    def _broken(self) -> None:
        """Note which bundles wait while others fail for the broken pool: it starts none of them.

        Of those that run by its account some may wait in a pipe to its processes.
        """
        for outer, (inner, _) in list(self._flying.items()):
            if not inner.running() and not inner.done():
                self._unbegun.add(outer)

    def _cancelled(self, outer: Future[Answer], bundle: Members) -> None:
        pairs = list(zip(bundle.number.tolist(), bundle.attempt.tolist(), strict=True))
        if not self._stopped.issuperset(pairs):
            outer.set_exception(Lost("cancelled before it began", begun=False))
            return
        fate, cause = str(Fate.stopped), "stopped before it began"
        outer.set_result(Answer([Outcome(*pair, fate, cause) for pair in pairs], {}))

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Block until a bundle is done; nothing at once when there is none to wait for."""
        return self._collector.wait(timeout)

    def wake(self) -> None:
        """Make a running `wait` return now; safe in a signal handler."""
        self._collector.wake()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def cancel(self, number: int) -> None:
        """Do not start this member; a running one ends only if isolated in a thread's care."""
        for inner, bundle in list(self._flying.values()):
            self._stopped |= attempts_of(number, [bundle])
            if set(bundle.number.tolist()) == {number}:
                inner.cancel()
        if self.in_process and self._job is not None:
            isolate.stop(self._job.simulation, number)

    def close(self) -> None:
        """Take back what has not begun; the executor stays open, it is not ours."""
        for inner, _ in list(self._flying.values()):
            inner.cancel()

    def describe(self) -> dict[str, Any]:
        """What it is: JSON."""
        kind = type(self._executor).__name__
        return {"name": "Futures", "executor": kind, "n_workers": self.n_workers}

    def __repr__(self) -> str:
        kind = type(self._executor).__name__
        return f"{type(self).__name__}({kind}, n_workers={self.n_workers})"
