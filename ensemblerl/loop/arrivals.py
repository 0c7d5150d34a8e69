"""From what comes back to what is settled: answers, records of workers that are gone, leftovers."""

from __future__ import annotations

import time
from collections.abc import ItemsView
from concurrent.futures import CancelledError, Future

import numpy as np

from ensemblerl.executors.base import Lost, attempts
from ensemblerl.loop.journal import Journal
from ensemblerl.loop.settling import Judge, Verdict
from ensemblerl.protocols import Goal
from ensemblerl.records import Answer, Fate, Members, Outcome

LEFT = "the driver ended"
TOGETHER = "the driver ended, and the member ran in its process"
"""Causes of attempts that a driver left behind."""
LOOK = 0.2
"""Seconds between looks at members that have processes of their own."""
GONE = "the process that the member had of its own is gone, without a result"


class Arrivals:
    """Turns futures into outcomes and settles them.

    Parameters
    ----------
    journal : where verdicts are kept
    goal : gives the rewards
    retries : of the simulation
    """

    def __init__(self, journal: Journal, goal: Goal, retries: int) -> None:
        self._journal, self._store, self._ledger = journal, journal.store, journal.ledger
        self._judge = Judge(journal.ledger, goal, retries)
        self._found: dict[int, Outcome] = {}
        self._apart: dict[int, int] = {}
        self._innocent: set[int] = set()
        self._looked = 0.0

    @property
    def apart(self) -> ItemsView[int, int]:
        """(number, attempt) of members that run on in processes of their own, with no future."""
        return self._apart.items()

    def outcomes(self, future: Future[Answer], bundle: Members) -> list[Outcome]:
        """What became of a bundle, answered or lost."""
        try:
            answer = future.result()
        except (Lost, CancelledError) as loss:
            lost = loss if isinstance(loss, Lost) else Lost(str(loss) or type(loss).__name__)
            return self._rescued(bundle, lost)
        return self._checked(self.read(answer), bundle)

    def _checked(self, outcomes: list[Outcome], bundle: Members) -> list[Outcome]:
        """The same, but for attempts that a worker holds to be lost: their process may have
        written a record before it ended, or run on.
        """
        kept = [o for o in outcomes if o.fate != Fate.lost]
        for lost in (o for o in outcomes if o.fate == Fate.lost):
            loss = Lost(lost.cause, blameless=lost.blameless)
            kept += self._rescued(bundle.take(bundle.number == lost.number), loss, lost)
        return kept

    def read(self, answer: Answer) -> list[Outcome]:
        """The outcomes of an answer."""
        self._judge.learn(answer.schemas)
        return answer.outcomes

    def _rescued(self, bundle: Members, loss: Lost, told: Outcome | None = None) -> list[Outcome]:
        """Outcomes of a bundle whose worker is gone: those on disk; of the others only the first
        can have ended the worker (if the bundle had begun), those after it never began. A member
        that has a process of its own goes on, and is waited for.
        """
        running = self._look()
        outcomes, fate = [], Fate.stopped if loss.begun is False else Fate.lost
        for i, attempt in attempts([bundle]):
            if i in self._found:
                outcomes.append(self._found[i])
            elif (i, attempt) in running:
                self._apart[i] = attempt
                self._innocent |= {i} if loss.blameless else set()
                fate = Fate.stopped
            else:
                blameless = loss.blameless and fate == Fate.lost
                cause = str(loss) or type(loss).__name__
                lost = Outcome(i, attempt, str(fate), cause, blameless=blameless)
                outcomes.append(told or lost)
                fate = Fate.stopped
        return outcomes

    def adopted(self) -> list[Outcome]:
        """What workers wrote whose driver was gone; what runs on is waited for."""
        running = self._look()
        for i, attempt in running:
            mine = self._ledger.pending(i) and not self._ledger.ended(i, attempt)
            if mine and i not in self._found and attempt == self._ledger["attempt"][i]:
                self._apart[i] = attempt
                self._innocent.add(i)  # should it end without a word, who knows why
        return list(self._found.values())

    def ended_apart(self) -> list[Outcome]:
        """Outcomes of the members waited for whose processes are at their end; looks for them
        every `LOOK` seconds at most.
        """
        if not self._apart or time.monotonic() - self._looked < LOOK:
            return []
        running, outcomes = self._look(), []
        for i, attempt in list(self._apart.items()):
            if i in self._found:
                outcomes.append(self._found[i])
            elif (i, attempt) not in running:
                innocent = i in self._innocent
                outcomes.append(Outcome(i, attempt, str(Fate.lost), GONE, blameless=innocent))
            else:
                continue
            del self._apart[i]
            self._innocent.discard(i)
        return outcomes

    def _look(self) -> set[tuple[int, int]]:
        """(number, attempt) of those that run in processes of their own; what ended is found.

        In this order: who writes a record does so before it stops running.
        """
        running = self._store.running()
        self._poll()
        self._looked = time.monotonic()
        return running

    def abandoned(self, in_process: bool) -> tuple[list[Outcome], list[int]]:
        """Outcomes of the attempts that the last driver left behind, and the members whose last
        attempt had ended, which were about to be run again.

        The driver's end is charged to a member only where it ran in the driver's own process and
        was the only one: any of several may be innocent.
        """
        left, waiting = [], []
        for i in np.flatnonzero(~self._ledger.settled).tolist():
            attempt = int(self._ledger["attempt"][i])
            if i in self._apart:
                continue
            if self._ledger.ended(i, attempt):
                waiting.append(i)
            else:
                left.append((i, attempt))
        fate = Fate.lost if in_process and len(left) == 1 else Fate.stopped
        cause = TOGETHER if in_process else LEFT
        return [Outcome(*attempt, str(fate), cause) for attempt in left], waiting

    def suspect(self, number: int) -> bool:
        """Whether this member may be one that ends the process it runs in: it was lost before, or
        two drivers ended while it was on its way in their own process.
        """
        before = self._ledger.attempts.get(number, ())
        ends = sum(o.cause == TOGETHER for o in before)
        return ends > 1 or any(o.fate == Fate.lost and not o.blameless for o in before)

    def settle(self, outcomes: list[Outcome], time: float) -> Verdict:
        """Decide on outcomes, keep what was decided."""
        for outcome in outcomes:
            if outcome.record is not None:
                self._store.keep(outcome.record)
        if any(o.schema and not self._judge.knows(o.schema) for o in outcomes):
            self._poll()
        verdict = self._judge.sort(outcomes, time)
        self._journal.keep(*verdict.events)
        for i in (*verdict.settled, *verdict.again):
            self._found.pop(i, None)
        return verdict

    def _poll(self) -> None:
        """See what workers wrote whose answers may never come."""
        for outcome, layout in self._store.found():
            if outcome.schema:
                self._judge.learn({outcome.schema: layout})
            if self._ledger.pending(outcome.number) and self._counts(outcome):
                self._found[outcome.number] = outcome

    def _counts(self, outcome: Outcome) -> bool:
        """Whether a record says something new: a failure that was decided on before does not, and
        no failure does beside a result.
        """
        before = self._found.get(outcome.number)
        if outcome.fate == Fate.ok:
            return before is None or before.fate != Fate.ok
        return before is None and not self._ledger.ended(outcome.number, outcome.attempt)
