"""How many short members travel together: Dask costs 2 to 4 ms a task, whatever is in it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ensemblerl.records import Fate, Outcome

TARGET = 0.1
"""Seconds that a bundle should run: about thirty times what a task costs."""


class Bundling:
    """Chooses the size of bundles.

    Parameters
    ----------
    size : "auto", or a fixed number of members
    """

    def __init__(self, size: int | str = "auto") -> None:
        if size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f'bundle: wanted "auto" or a whole number >= 1, got {size!r}')
        self._fixed = None if size == "auto" else int(size)
        self.runtime = math.nan

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Follow the run time of members by a moving average, seconds."""
        for outcome in outcomes:
            if outcome.fate == Fate.ok:
                known = not math.isnan(self.runtime)
                self.runtime += 0.1 * (outcome.runtime - self.runtime) if known else 0.0
                self.runtime = self.runtime if known else outcome.runtime

    def size(self, n_pending: int, n_workers: int) -> int:
        """Members to a bundle, at most n_pending / (2 n_workers): two bundles for each worker."""
        if self._fixed is not None:
            return self._fixed
        if math.isnan(self.runtime):
            return 1
        most = n_pending // (2 * n_workers)
        return max(1, min(most, int(TARGET / max(self.runtime, 1e-6))))

    def room(self, n_pending: int, n_workers: int, in_flight: int) -> int:
        """How many members to launch now, in whole bundles where members are short.

        Before a run time is known, two for each worker keep all of them busy; with bundles,
        asking waits until a whole one fits, while two or more for each worker are on their way.
        """
        if self._fixed is None and math.isnan(self.runtime):
            n_pending = min(n_pending, 2 * n_workers)
        free = max(0, n_pending - in_flight)
        size = self.size(n_pending, n_workers)
        most = n_pending // (2 * n_workers)
        return free if free >= min(size, max(1, most)) else 0
