"""How long a member is expected to need, so that none is begun where it cannot finish."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from ensemblerl.records import Fate, Outcome

KNOWN = 5
"""Run times seen before they count for more than caution."""
REMEMBERED = 2000
QUANTILE, MARGIN = 0.99, 1.25
"""Of what was seen, and on top of that: what a member is expected to need."""
CAUTION = 0.5
"""Of the longest time there is: what a member is taken to need before any has finished."""
BEST = 0.9
"""Of the longest time there is: more is not waited for, no worker would ever do."""
ENOUGH = 0.8
"""Of the longest time there is: who had so much had about the longest. Less than `BEST`, for what
is begun with so much left has a little less in the end."""
CHECKPOINTED = 0.1
"""The same for members that go on from where they were cut off: a start must be worth its cost."""
GROWTH = 2.0
"""A member that was cut off is given this many times what it had."""
FINISHED = frozenset({Fate.ok, Fate.invalid, Fate.timeout})
"""Fates whose run times say how long members take; what fails may fail at once."""


class Needs:
    """Learns from run times; knows of each member that was cut off how long it had.

    Parameters
    ----------
    most : seconds that a member takes at most, where somebody knows (``max_runtime``)
    timeout : of the simulation: it ends what takes longer
    checkpoint : a member that is cut off goes on later from where it was
    """

    def __init__(
        self,
        most: float | None = None,
        timeout: float | None = None,
        checkpoint: bool = False,
    ) -> None:
        self._most, self._timeout, self._checkpoint = most, timeout, checkpoint
        self._seen: deque[float] = deque(maxlen=REMEMBERED)
        self._cut: dict[int, float] = {}
        self._estimate: float | None = None
        self.longest: float | None = None

    def offer(self, left: float) -> None:
        """A worker has this many seconds left: no job that came had more until now, maybe."""
        self.longest = max(left, self.longest or 0.0)

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Take in how attempts ended."""
        for outcome in outcomes:
            if outcome.fate in FINISHED and outcome.runtime > 0:
                self._seen.append(outcome.runtime)
                self._estimate = None
                self._cut.pop(outcome.number, None)

    def cut(self, number: int, ran: float) -> None:
        """Note that this member was cut off by the end of its job, after so many seconds."""
        if not self._checkpoint:
            self._cut[number] = max(ran, self._cut.get(number, 0.0))

    def seconds(self, numbers: Iterable[int] = ()) -> float:
        """Seconds that each of these members is expected to need."""
        longest = self.longest
        if longest is None:
            return 0.0
        usual = self._usual(longest)
        if self._checkpoint:
            return min(usual, CHECKPOINTED * longest)
        grown = [GROWTH * self._cut[i] for i in numbers if i in self._cut]
        return min(max([usual, *grown]), BEST * longest)

    def had(self, number: int) -> float:
        """Seconds that a member that was cut off had."""
        return self._cut.get(number, 0.0)

    def hopeless(self, number: int) -> bool:
        """Whether this member was cut off although it had about as long as any can have."""
        return self.longest is not None and self.had(number) >= ENOUGH * self.longest

    def _usual(self, longest: float) -> float:
        if self._most is not None:
            return self._most
        if self._estimate is None and len(self._seen) >= KNOWN:
            seen = np.asarray(list(self._seen))
            self._estimate = MARGIN * float(np.quantile(seen, QUANTILE)) + 1.0
        usual = CAUTION * longest if self._estimate is None else self._estimate
        return usual if self._timeout is None else min(usual, self._timeout + 2.0)
