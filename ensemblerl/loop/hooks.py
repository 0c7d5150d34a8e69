"""What a learning sampler is offered besides ask and tell: see `ensemblerl.protocols.Learning`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ensemblerl.events import Published
from ensemblerl.ledger import Ledger
from ensemblerl.loop.timings import Timings
from ensemblerl.protocols import Goal, Sampler, Store
from ensemblerl.records import Snapshot


def having(sampler: Any, hook: str) -> list[Any]:
    """The sampler if it has this method, else those of its parts, down to the leaves, that do."""
    if callable(getattr(sampler, hook, None)):
        return [sampler]
    return [found for part in getattr(sampler, "parts", ()) for found in having(part, hook)]


class Hooks:
    """Calls the hooks that are there; without one, all of it costs nothing.

    Parameters
    ----------
    sampler, goal, store, ledger, timings : of the campaign
    """

    def __init__(
        self, sampler: Sampler, goal: Goal, store: Store, ledger: Ledger, timings: Timings
    ) -> None:
        self._goal, self._store, self._ledger, self._timings = goal, store, ledger, timings
        self._heeding = having(sampler, "heed")
        self._locating, self._beginning = having(sampler, "locate"), having(sampler, "begin")
        self._publishing = having(sampler, "published")
        self._telling = having(sampler, "telemetry")
        self._closing = having(sampler, "close")
        self._waiting: deque[Snapshot] = deque()
        self._time = 0.0

    def heed(self) -> None:
        """Tell the goal's demands as of now."""
        if not self._heeding:
            return
        ledger = self._ledger
        demands = self._goal.demands(ledger, ledger.n_members or ledger.n)
        for part in self._heeding:
            part.heed(demands)

    def locate(self, in_process: bool) -> None:
        """Say where members will run."""
        for part in self._locating:
            part.locate(in_process)

    def begin(self, in_process: bool) -> None:
        """Let learners start what they need."""
        if self._beginning:
            last = self._last()
            for part in self._beginning:
                part.begin(in_process=in_process, last=last)

    def _last(self) -> Snapshot | None:
        """The newest version published; without arrays when its file is lost or damaged."""
        version = self._ledger.published
        if version < 0:
            return None
        try:
            found = self._store.snapshot(version)
        except ValueError as error:
            warnings.warn(f"the agent goes on under a new version: {error}", stacklevel=2)
            found = None
        return found or Snapshot(version, {})

    def collect(self, time: float) -> None:
        """Take what there is: telemetry goes to the store, snapshots wait for `publish`."""
        self._time = time
        for part in self._publishing:
            self._waiting.extend(part.published())
        for part in self._telling:
            if rows := part.telemetry():
                more = {"time": time, "proposer": part.name}
                self._store.log([{**row, **more} for row in rows], self._ledger.n_events)

    def publish(self) -> Iterator[Published]:
        """The events of the snapshots that wait, each when its file is in the store.

        Raises
        ------
        ValueError
            for a version that was published with other weights
        """
        while self._waiting:
            snapshot = self._waiting[0]  # stays there until all is done: a write may fail
            if snapshot.version > self._ledger.published:
                with self._timings("publish"):
                    self._store.publish(snapshot)
                yield Published(self._time, snapshot.version)
            elif not self._there(snapshot):
                self._waiting.popleft()
                raise ValueError(
                    f"version: wanted one above {self._ledger.published}, which is published, got "
                    f"{snapshot.version} with other weights; a campaign has one sequence of "
                    "versions: one agent, or erl.fork(...) to go on with another one"
                )
            self._waiting.popleft()

    def _there(self, snapshot: Snapshot) -> bool:
        there = self._store.snapshot(snapshot.version)
        return there is not None and snapshot.alike(there)

    def forget(self, version: int) -> None:
        """What waits up to this version was published by an earlier driver."""
        self._waiting = deque(s for s in self._waiting if s.version > version)

    def close(self) -> None:
        """Let learners end what they began; every one of them, also when one raises."""
        with ExitStack() as stack:
            for part in self._closing:
                stack.callback(part.close)
