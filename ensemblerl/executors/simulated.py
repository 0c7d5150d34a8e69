"""Workers on paper: results are computed truly and here, time and misfortune are made up."""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ensemblerl import worker
from ensemblerl.executors.base import Lost, attempts_of
from ensemblerl.finishing import Finished, stop
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Fate, Members, Outcome
from ensemblerl.simulations.points import Task, points_of, tasks

Runtime = float | Callable[[Mapping[str, Any], np.random.Generator], float]


class Draw(NamedTuple):
    """What is in store for one attempt at a member; seconds."""

    runtime: float
    lost: bool
    failed: bool


@dataclass(frozen=True)
class Flight:
    """A bundle on its virtual worker; times in seconds."""

    future: Future[Answer]
    bundle: Members
    draws: list[Draw]
    place: int
    begin: float
    end: float


class Simulated:
    """Virtual time: `wait` takes no time at all, the clock jumps to the next completion.

    A bundle runs on the virtual worker that is free first, its members one after the other.
    Run times, losses and failures depend on (seed, member number, attempt) alone, not on
    arrival or bundling.

    Parameters
    ----------
    n_workers : virtual workers
    runtime : seconds a member takes, or (point, rng) -> seconds
    order : "finish": bundles arrive as they finish; "shuffled": in random order among those
        that run
    seed : of run times, losses, failures and order
    loss_rate, failure_rate : probability that an attempt takes its worker down (the rest of the
        bundle is lost with it, members before it are on disk), or fails
    start : the clock at the beginning, seconds since the epoch

    Raises
    ------
    ValueError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> Simulated(4, runtime=lambda point, rng: rng.exponential(3600.0)).time()
    0.0
    """

    in_process = True
    inline = True

    def __init__(
        self,
        n_workers: int = 8,
        *,
        runtime: Runtime = 1.0,
        order: str = "finish",
        seed: int = 0,
        loss_rate: float = 0.0,
        failure_rate: float = 0.0,
        start: float = 0.0,
    ) -> None:
        if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
            raise ValueError(f"n_workers: wanted a whole number >= 1, got {n_workers!r}")
        if order not in ("finish", "shuffled"):
            raise ValueError(f'order: wanted "finish" or "shuffled", got {order!r}')
        for name, rate in (("loss_rate", loss_rate), ("failure_rate", failure_rate)):
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"{name}: wanted a probability, got {rate!r}")
        if not callable(runtime) and not 0.0 <= runtime < np.inf:
            raise ValueError(f"runtime: wanted seconds >= 0 or a callable, got {runtime!r}")
        self.n_workers, self._runtime, self._shuffled = n_workers, runtime, order == "shuffled"
        self._seed, self._loss_rate, self._failure_rate = seed, loss_rate, failure_rate
        self._clock, self._count = start, 0
        self._rng = np.random.default_rng([seed, 1])
        self._free = [(start, place) for place in range(n_workers)]
        self._flying: dict[int, Flight] = {}
        self._ends: list[tuple[float, int]] = []
        self._begins: list[tuple[float, int]] = []
        self._running: list[int] = []
        self._stopped: set[tuple[int, int]] = set()
        self._woken = False
        self._job: Job | None = None

    def start(self, job: Job) -> None:
        """Get ready to run members of this job."""
        self._job, self._stopped = job, set()

    def submit(self, bundle: Members) -> Future[Answer]:
        """Put a bundle on the virtual worker that is free first."""
        draws = self._draws(bundle)
        free, place = heapq.heappop(self._free)
        begin = max(free, self._clock)
        end = begin + _span(draws)
        heapq.heappush(self._free, (end, place))
        future: Future[Answer] = Future()
        self._flying[self._count] = Flight(future, bundle, draws, place, begin, end)
        heapq.heappush(self._ends, (end, self._count))
        if self._shuffled:
            heapq.heappush(self._begins, (begin, self._count))
        self._count += 1
        return future

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Move the clock to the next completion, whatever ``timeout`` says: it takes no time.

        Nothing when nothing is in flight, or after `wake`.
        """
        if self._woken or not self._flying:
            self._woken = False
            return []
        done = [self._random()] if self._shuffled else self._next()
        return [self._land(self._flying.pop(i)) for i in sorted(done)]

    def _next(self) -> list[int]:
        """The bundles that end first, all that end at that moment."""
        first = self._ends[0][0]
        done = []
        while self._ends and self._ends[0][0] == first:
            done.append(heapq.heappop(self._ends)[1])
        return done

    def _random(self) -> int:
        """One of those that run when the first of them ends: a moment that never goes back."""
        while self._ends[0][1] not in self._flying:
            heapq.heappop(self._ends)
        while self._begins and self._begins[0][0] <= self._ends[0][0]:
            self._running.append(heapq.heappop(self._begins)[1])
        chosen = int(self._rng.integers(len(self._running)))
        self._running[chosen], self._running[-1] = self._running[-1], self._running[chosen]
        return self._running.pop()

    def _land(self, flight: Flight) -> Future[Answer]:
        self._clock = max(self._clock, flight.end)
        try:
            flight.future.set_result(self._run(flight))
        except Lost as loss:
            flight.future.set_exception(loss)
        return flight.future

    def _run(self, flight: Flight) -> Answer:
        assert self._job is not None, "start(job) comes before wait()"
        recorder = worker.Recorder(self._job)
        at = flight.begin
        for task, draw in zip(tasks(flight.bundle, self._job.casts), flight.draws, strict=True):
            if draw.lost:
                raise Lost(f"injected loss of virtual worker {flight.place}")
            finished = self._finished(task, draw)
            outcome = finished.outcome._replace(
                start=at, runtime=draw.runtime, worker=f"virtual:{flight.place}"
            )
            recorder.add(finished._replace(outcome=outcome))
            at += draw.runtime
        return recorder.answer

    def _finished(self, task: Task, draw: Draw) -> Finished:
        assert self._job is not None
        if task[:2] in self._stopped:
            return stop(task)
        if draw.failed:
            fate = str(Fate.failed)
            return Finished(Outcome(task.number, task.attempt, fate, "injected failure"))
        return worker.run(self._job, task)

    def _draws(self, bundle: Members) -> list[Draw]:
        runtime = self._runtime
        if not callable(runtime) and not self._loss_rate and not self._failure_rate:
            return [Draw(runtime, False, False)] * len(bundle)
        casts = self._job.casts if self._job else {}
        points = points_of(bundle.points, casts, len(bundle))
        keys = zip(bundle.number.tolist(), bundle.attempt.tolist(), points, strict=True)
        return [self._draw(*key) for key in keys]

    def _draw(self, number: int, attempt: int, point: dict[str, Any]) -> Draw:
        rng = np.random.default_rng([self._seed, 0, number, attempt])
        lost, failed = rng.random(2).tolist()
        runtime = self._runtime(point, rng) if callable(self._runtime) else self._runtime
        return Draw(float(runtime), lost < self._loss_rate, failed < self._failure_rate)

    def wake(self) -> None:
        """Make the next `wait` return at once."""
        self._woken = True

    def time(self) -> float:
        """Seconds of the virtual clock."""
        return self._clock

    def cancel(self, number: int) -> None:
        """Do not run this member; its bundle still takes its time."""
        bundles = [flight.bundle for flight in self._flying.values()]
        self._stopped |= attempts_of(number, bundles)

    def close(self) -> None:
        """Forget what is in flight."""
        for flight in self._flying.values():
            flight.future.cancel()
        for left in (self._flying, self._ends, self._begins, self._running):
            left.clear()

    def describe(self) -> dict[str, Any]:
        """What it is and its arguments: JSON."""
        runtime = self._runtime
        return {
            "name": "Simulated",
            "n_workers": self.n_workers,
            "runtime": getattr(runtime, "__name__", "callable") if callable(runtime) else runtime,
            "order": "shuffled" if self._shuffled else "finish",
            "seed": self._seed,
            "loss_rate": self._loss_rate,
            "failure_rate": self._failure_rate,
        }

    def __repr__(self) -> str:
        told, usual = self.describe(), inspect.signature(Simulated).parameters
        given = [f"{n}={v!r}" for n, v in told.items() if n in usual and v != usual[n].default]
        return f"{told['name']}({', '.join(given)})"


def _span(draws: list[Draw]) -> float:
    """Seconds until the last member ends, or until one takes its worker down."""
    lost = next((i for i, draw in enumerate(draws) if draw.lost), len(draws))
    return sum(draw.runtime for draw in draws[: lost + 1])
