"""Executors that each break one law of `Executor`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from ensemblerl.records import Answer, Members, Outcome
from ensemblerl.testing.core import Control
from ensemblerl.testing.executor_laws import check_executor
from ensemblerl.testing.memory import InlineExecutor


def check_inline(make: Callable[[], InlineExecutor]) -> None:
    """`check_executor` with the patience of one that has nobody to wait for."""
    check_executor(make, patience=1.5)


class ComesTwice(InlineExecutor):
    """Brings the last future of a wait again with the next one."""

    last: Future[Answer] | None = None

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """One too many."""
        done = list(super().wait(timeout))
        again, self.last = self.last, done[-1] if done else None
        return [*done, again] if again is not None else done


class LosesABundle(InlineExecutor):
    """Forgets every tenth bundle."""

    submitted = 0

    def submit(self, bundle: Members) -> Future[Answer]:
        """Now and then only the future."""
        self.submitted += 1
        return super().submit(bundle) if self.submitted % 10 else Future()


class Deaf(InlineExecutor):
    """Cannot be woken."""

    def wake(self) -> None:
        """Nothing."""


class LastFirst(InlineExecutor):
    """Hands futures out as a set would."""

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """In reverse."""
        return super().wait(timeout)[::-1]


class NotYetDone(InlineExecutor):
    """Brings futures that have no answer yet."""

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """As they were submitted."""
        queue, self.queue = self.queue, []
        return [future for _, future in queue] if queue else super().wait(timeout)


class Raises(InlineExecutor):
    """Lets a failing simulation end its bundle."""

    def run(self, bundle: Members, row: int) -> Outcome:
        """Blames itself."""
        outcome = super().run(bundle, row)
        return outcome._replace(fate="lost") if outcome.cause else outcome


class MixesUp(InlineExecutor):
    """Answers the members of a bundle in another order."""

    def answer(self, bundle: Members) -> Answer:
        """In reverse."""
        return Answer(super().answer(bundle).outcomes[::-1], {})


class OffByOne(InlineExecutor):
    """Gives a member the value of its neighbour."""

    def run(self, bundle: Members, row: int) -> Outcome:
        """The neighbour's value."""
        ours, theirs = super().run(bundle, row), super().run(bundle, row - 1)
        return ours._replace(value=theirs.value or ours.value)


class Impatient(InlineExecutor):
    """Invents a future when there is nothing to wait for."""

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """Never nothing."""
        return super().wait(timeout) or [Future()]


BROKEN: list[Control] = [
    Control(make.__name__, law, check_inline, make)
    for law, make in [
        ("an idle wait ends with nothing", Impatient),
        ("each future once", ComesTwice),
        ("every future comes back", LosesABundle),
        ("in the order of submission", LastFirst),
        ("wait brings what is done", NotYetDone),
        ("a failing simulation is an outcome", Raises),
        ("wake ends a wait", Deaf),
        ("answers are right", MixesUp),
        ("answers are right", OffByOne),
    ]
]
