"""What executors share: the word for a lost bundle, and a collector of done futures."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress

from ensemblerl.records import Answer, Members

LOOK = 1.0
"""Seconds between looks while a wait lasts."""


class Lost(RuntimeError):
    """The infrastructure lost this bundle; no fault of its members is known.

    Parameters
    ----------
    cause : what is known of it
    begun : False where no member can have caused it: the bundle never began, or what was lost is
        the scheduler, the connection or the like; None where that is unknown
    blameless : whether it is known that no member was to blame, though they had begun: the queue
        ended the job, the node failed
    """

    def __init__(
        self, cause: str = "", *, begun: bool | None = None, blameless: bool = False
    ) -> None:
        super().__init__(cause)
        self.begun, self.blameless = begun, blameless


class Unavailable(RuntimeError):
    """Nothing more can be run for now, for no fault of the campaign; what runs may go on."""


class Collector:
    """Hands out done futures, each once, those of one call in order of submission.

    Futures may be completed by any thread; `wake` may be called in a signal handler.

    Parameters
    ----------
    look : called once a second while a `wait` lasts; may complete futures
    """

    def __init__(self, look: Callable[[], None] | None = None) -> None:
        self._look = look
        self._done: queue.SimpleQueue[Future[Answer] | None] = queue.SimpleQueue()
        self._order: dict[Future[Answer], int] = {}
        self._count = 0

    def __len__(self) -> int:
        """Futures added and not handed out."""
        return len(self._order)

    def add(self, future: Future[Answer]) -> None:
        """From now on `wait` hands it out when it is done."""
        self._order[future] = self._count
        self._count += 1
        future.add_done_callback(self._done.put)

    def wake(self) -> None:
        """Make a `wait`, the running one or else the next, return at once."""
        self._done.put(None)

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Block until a future is done; nothing at once when there is none to wait for."""
        if not self._order:
            return []
        found: list[Future[Answer]] = []
        try:
            self._take(found, self._next(timeout))
            while True:
                self._take(found, self._done.get_nowait())
        except queue.Empty:
            pass
        found.sort(key=self._order.__getitem__)
        for future in found:
            del self._order[future]
        return found

    def _next(self, timeout: float | None) -> Future[Answer] | None:
        left = math.inf if timeout is None else timeout
        while self._look is not None and left > LOOK:
            with suppress(queue.Empty):
                return self._done.get(timeout=LOOK)
            self._look()
            left -= LOOK
        return self._done.get(timeout=None if left == math.inf else left)

    @staticmethod
    def _take(found: list[Future[Answer]], future: Future[Answer] | None) -> None:
        if future is not None:
            found.append(future)


def attempts(bundles: Iterable[Members]) -> list[tuple[int, int]]:
    """(number, attempt) of all members of these bundles."""
    return [
        pair
        for members in bundles
        for pair in zip(members.number.tolist(), members.attempt.tolist(), strict=True)
    ]


def attempts_of(number: int, bundles: Iterable[Members]) -> set[tuple[int, int]]:
    """(number, attempt) of a member wherever it is in these bundles."""
    return {pair for pair in attempts(bundles) if pair[0] == number}
