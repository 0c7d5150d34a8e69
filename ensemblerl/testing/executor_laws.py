"""The laws of `ensemblerl.protocols.Executor`, one function a law."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from ensemblerl.protocols import Executor, Job
from ensemblerl.records import Answer, Fate, Members, Proposals
from ensemblerl.testing.core import require
from ensemblerl.testing.rehearsal import numbered
from ensemblerl.testing.toys import Least, Square


def check_executor(
    make: Callable[[], Executor], *, n: int = 200, seed: int = 0, patience: float = 60.0
) -> None:
    """Hold an executor to its laws.

    Parameters
    ----------
    make : () -> `Executor` that injects no failures of its own
    n : members of the first rehearsal
    seed : of the sizes of bundles
    patience : seconds after which a future that should have come is missed

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    with tempfile.TemporaryDirectory(prefix="executor-laws-") as segments:
        executor = make()
        executor.start(Job(Square(), Least(), segments))
        try:
            idle_law(executor)
            answers_laws(executor, n, seed, patience)
            refilled_law(executor, seed, patience)
            wake_law(executor, patience)
            cancel_law(executor, patience)
        finally:
            executor.close()


def squares(first: int, x: Sequence[float], nap: float = 0.0) -> Members:
    """Members of `Square`; those with a negative x fail."""
    n = len(x)
    members = numbered(Proposals(np.full((n, 1), 0.5)), first, "law")
    points = {"x": np.array(x, dtype=np.float64), "nap": np.full(n, nap)}
    return Members(**{**vars(members), "points": points}).luggage()


def idle_law(executor: Executor) -> None:
    """With nothing to wait for, a wait ends with its time and brings nothing."""
    law = "an idle wait ends with nothing"
    for timeout in (0.0, 0.05):
        done = executor.wait(timeout=timeout)
        require(len(done) == 0, law, f"{len(done)} futures of nothing submitted")


def answers_laws(executor: Executor, n: int, seed: int, patience: float) -> None:
    """Bundles of random sizes: each future once, done, in order, and with the right answer."""
    rng, bundles = np.random.default_rng(seed), list[Members]()
    x = np.where(rng.random(n) < 0.2, -1.0, 1.0) * rng.uniform(0.5, 2.0, n)
    while (first := sum(map(len, bundles))) < n:
        bundles.append(squares(first, x[first : first + int(rng.integers(1, 6))].tolist()))
    futures = [executor.submit(bundle) for bundle in bundles]
    collect(executor, futures, patience)
    for bundle, future in zip(bundles, futures, strict=True):
        answer_law(bundle, future.result())


def collect(executor: Executor, futures: Sequence[Future[Answer]], patience: float) -> None:
    """Wait until all are back; each once, done, and in the order of submission."""
    order = {id(future): i for i, future in enumerate(futures)}
    back: list[int] = []
    until = time.monotonic() + patience
    while len(back) < len(futures) and time.monotonic() < until:
        done = executor.wait(timeout=1.0)
        one_wait_law(done, order, back)
    missed = sorted(set(order.values()) - set(back))
    require(not missed, "every future comes back", f"{len(missed)} never did, first {missed[:1]}")
    again = executor.wait(timeout=0.05)
    require(len(again) == 0, "each future once", f"{len(again)} more after all were back")


def one_wait_law(done: Sequence[Future[Answer]], order: dict[int, int], back: list[int]) -> None:
    """What one call of ``wait`` brings; ``back`` takes note of it."""
    came = [order.get(id(future), -1) for future in done]
    require(-1 not in came, "each future once", "one came that was never submitted")
    repeated = sorted({i for i in came if came.count(i) > 1 or i in back})
    require(not repeated, "each future once", f"futures {repeated[:3]} came again")
    require(came == sorted(came), "in the order of submission", f"a wait brought {came}")
    require(all(future.done() for future in done), "wait brings what is done", "one still runs")
    back += came


def answer_law(bundle: Members, answer: Answer) -> None:
    """One outcome a member, in order; a failing simulation is one of them."""
    law = "answers are right"
    numbers = [outcome.number for outcome in answer.outcomes]
    wanted = bundle.number.tolist()
    require(numbers == wanted, law, f"outcomes of {numbers}, wanted {wanted}")
    for outcome, x in zip(answer.outcomes, bundle.points["x"], strict=True):
        if x < 0:
            failed = outcome.fate == Fate.failed and "no root" in outcome.cause
            require(failed, "a failing simulation is an outcome", f"it came as {outcome}")
        else:
            right = outcome.fate == Fate.ok and outcome.value == (float(x) ** 2,)
            require(right, law, f"the square of {x} came as {outcome}")


def refilled_law(executor: Executor, seed: int, patience: float) -> None:
    """The same when a new bundle is submitted for each that came: no barrier, nothing lost."""
    rng, waiting, back, submitted = np.random.default_rng(seed), dict[int, int](), list[int](), 0
    until = time.monotonic() + patience
    keep = []
    while len(back) < 60 and time.monotonic() < until:
        while submitted < 60 and submitted - len(back) < 2 * executor.n_workers + 2:
            x = rng.uniform(0.5, 2.0, size=int(rng.integers(1, 4)))
            keep.append(executor.submit(squares(1000 + 4 * submitted, x.tolist())))
            waiting[id(keep[-1])] = submitted
            submitted += 1
        one_wait_law(executor.wait(timeout=1.0), waiting, back)
    require(len(back) == 60, "every future comes back", f"{len(back)} of 60 did")


def wake_law(executor: Executor, patience: float) -> None:
    """A wait that would last returns when it is woken; nothing is lost by it."""
    future = executor.submit(squares(5000, [1.5], nap=0.3))
    began = time.monotonic()
    back = _woken(executor, patience)
    if back:
        back += _woken(executor, patience)
    slept = time.monotonic() - began
    require(slept < patience / 2, "wake ends a wait", f"it lasted {slept:.1f} s")
    if not back:
        collect(executor, [future], patience)


def _woken(executor: Executor, patience: float) -> list[Future[Answer]]:
    """What a wait brings that is woken soon after it began."""
    waker = threading.Timer(0.1, executor.wake)
    waker.start()
    back = list(executor.wait(timeout=patience))
    waker.join()
    return back


def cancel_law(executor: Executor, patience: float) -> None:
    """The future of a cancelled member still ends, and its neighbours' are none the worse."""
    futures = [executor.submit(squares(6000 + i, [2.0])) for i in range(4)]
    executor.cancel(6003)
    collect(executor, futures, patience)
    for i, future in enumerate(futures[:3]):
        answer_law(squares(6000 + i, [2.0]), future.result())
