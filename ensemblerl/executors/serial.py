"""One bundle after the other, right here, while the campaign waits."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from ensemblerl.executors.base import attempts_of
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Members
from ensemblerl.simulations import isolate
from ensemblerl.worker import run_bundle


class Serial:
    """Runs members in this process and thread: reproducible bit for bit, good for debugging."""

    n_workers = 1
    in_process = True
    inline = True

    def __init__(self) -> None:
        self._queue: deque[tuple[Future[Answer], Members]] = deque()
        self._stopped: set[tuple[int, int]] = set()
        self._job: Job | None = None

    def start(self, job: Job) -> None:
        """Get ready to run members of this job."""
        self._job, self._stopped = job, set()

    def submit(self, bundle: Members) -> Future[Answer]:
        """Put a bundle into the queue; `wait` runs it."""
        future: Future[Answer] = Future()
        self._queue.append((future, bundle))
        return future

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Run the first bundle in the queue, however long it takes; nothing when there is none.

        A bundle that is interrupted (KeyboardInterrupt) stays in the queue.
        """
        if not self._queue:
            return []
        future, bundle = self._queue[0]
        if not future.done():
            future.set_result(run_bundle(self._started(), bundle, stopped=self._stopped))
        self._queue.popleft()
        return [future]

    def _started(self) -> Job:
        if self._job is None:
            raise RuntimeError("start(job) comes before wait()")
        return self._job

    def wake(self) -> None:
        """Nothing to wake: `wait` is at work, or returns at once."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def cancel(self, number: int) -> None:
        """Do not start this member; end its process if it runs in one of its own."""
        self._stopped |= attempts_of(number, [bundle for _, bundle in self._queue])
        if self._job is not None:
            isolate.stop(self._job.simulation, number)

    def close(self) -> None:
        """Forget what is in the queue."""
        while self._queue:
            self._queue.popleft()[0].cancel()

    def describe(self) -> dict[str, Any]:
        """What it is: JSON."""
        return {"name": "Serial", "n_workers": 1}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ByHand(Serial):
    """Runs nothing: somebody else runs the members and tells the results."""

    in_process = False
