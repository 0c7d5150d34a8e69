"""What an executor may have besides its contract: jobs in a queue, which come and go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ensemblerl.ledger import Ledger
from ensemblerl.loop.journal import Journal
from ensemblerl.protocols import Executor
from ensemblerl.records import Fate, Outcome

REMEMBERED = 2000
"""Members of earlier sessions whose run times are told, the newest."""


class Beside:
    """Tells an executor how members ended, and keeps the accounts of its jobs, if it has these.

    Parameters
    ----------
    executor : may have what `ensemblerl.protocols.Executor` says at its end
    """

    def __init__(self, executor: Executor) -> None:
        self._learn: Any = getattr(executor, "learn", None)
        self._held: Any = getattr(executor, "held", None)
        self._recall: Any = getattr(executor, "recall", None)
        self._disown: Any = getattr(executor, "disown", None)
        self._elsewhere = bool(getattr(executor, "elsewhere", False))

    def begin(self, ledger: Ledger) -> None:
        """Tell what earlier sessions learnt of run times."""
        if self._learn is not None:
            self._learn(remembered(ledger))

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Tell how attempts ended."""
        if self._learn is not None:
            self._learn(outcomes)

    def taken(self, on_workers: int, in_all: int) -> int:
        """Places taken by the members on their way, of which some may go on without a worker."""
        return on_workers if self._elsewhere else in_all

    def tend(self, journal: Journal, halted: bool = False) -> None:
        """Keep the accounts of jobs that are over; take back what has not begun, once halted."""
        if self._held is not None:
            journal.keep(*self._held())
        if halted and self._recall is not None:
            self._recall()

    def disown(self) -> None:
        """What runs is to go on after the driver's end."""
        if self._disown is not None:
            self._disown()


def remembered(ledger: Ledger) -> list[Outcome]:
    """The outcomes of settled members, and those that were lost before them: fates and times."""
    known = np.flatnonzero(ledger.settled & (ledger["runtime"] > 0))[-REMEMBERED:]
    columns = ledger["attempt"][known], ledger.fates(known), ledger["runtime"][known]
    rows = zip(known.tolist(), *(column.tolist() for column in columns), strict=True)
    lost = [
        outcome
        for i in np.flatnonzero(~ledger.settled).tolist()
        for outcome in ledger.attempts.get(i, ())
        if outcome.fate == Fate.lost and outcome.runtime > 0
    ]
    return lost + [Outcome(i, attempt, fate, runtime=seconds) for i, attempt, fate, seconds in rows]
