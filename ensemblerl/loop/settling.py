"""What an outcome means for its member: final, or run again.

The rules. A loss of the infrastructure is run again and never charged to the point, but a member
that was launched three times without an end is failed: it kills its worker. Losses that are known
to be none of its doing (its job was cancelled, its node failed) have a larger budget of their own,
so that a campaign ends in any case. A failure of the simulation is run again as often as
``retries`` says. The first ok member settled fixes the layout of the results; a later one that
differs is invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.events import Ended, Event, SchemaFixed, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Goal
from ensemblerl.records import Fate, Outcome

LAUNCHES = 3
"""Launches without an end after which a member is held to kill its worker."""
LOSSES = 100
"""Launches that the infrastructure took, without blame, after which a member is given up."""

RETRIED = frozenset({Fate.failed, Fate.timeout, Fate.out_of_memory})


class Verdict(NamedTuple):
    """Events to keep, and the numbers of the members to run again."""

    events: list[Event]
    again: list[int]
    settled: list[int]


def difference(wanted: Mapping[str, Any], came: Mapping[str, Any]) -> str:
    """How two layouts differ where it matters (names, dims, shapes, dtypes, coordinates)."""
    for kind, part, keys in (
        ("variable", "variables", ("dims", "shape", "dtype")),
        ("coordinate", "coords", ("dims", "shape", "dtype", "data")),
    ):
        here, there = wanted.get(part, {}), came.get(part, {})
        if set(here) != set(there):
            return f"{kind}s changed: wanted {sorted(here)}, got {sorted(there)}"
        for name in here:
            for key in keys:
                if here[name].get(key) != there[name].get(key):
                    return (
                        f"{kind} {name!r} changed: wanted {key} {_short(here[name].get(key))}, "
                        f"got {_short(there[name].get(key))}"
                    )
    return ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Judge:
    """Sorts outcomes by the rules above: knows the ledger, the goal, and the layouts met."""

    def __init__(self, ledger: Ledger, goal: Goal, retries: int = 0) -> None:
        self._ledger, self._goal, self._retries = ledger, goal, retries
        self._layouts: dict[str, Mapping[str, Any]] = {}
        self._differs: dict[str, str] = {}

    def learn(self, layouts: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in layouts of results by digest."""
        self._layouts.update(layouts)

    def knows(self, digest: str) -> bool:
        """Whether the layout of this digest was met."""
        return digest in self._layouts

    def sort(self, outcomes: Iterable[Outcome], time: float) -> Verdict:
        """Decide on each outcome once; those of members settled before are passed over."""
        events: list[Event] = []
        ended: list[Outcome] = []
        final: dict[int, Outcome] = {}
        pending = self._ledger.pending
        for outcome in outcomes:
            if outcome.number in final or not pending(outcome.number):
                continue
            if self._again(outcome):
                ended.append(outcome)
                continue
            final[outcome.number] = self._checked(outcome, events)
        again = [o.number for o in ended if o.number not in final]
        if ended:
            events.append(Ended(time, tuple(ended)))
        if final:
            events.append(Settled(time, self._rewarded(list(final.values()))))
        return Verdict(events, again, list(final))

    def _rewarded(self, outcomes: list[Outcome]) -> tuple[Outcome, ...]:
        """The same with their rewards, computed for the whole batch at once."""
        nothing = (np.nan,) * self._ledger.k
        values = np.array([o.value or nothing for o in outcomes], dtype=np.float64)
        fates = np.array([o.fate for o in outcomes], dtype="U13")
        rewards = self._goal.rewards(values, fates).tolist()
        return tuple(o._replace(reward=r) for o, r in zip(outcomes, rewards, strict=True))

    def _again(self, outcome: Outcome) -> bool:
        before = self._ledger.attempts.get(outcome.number, ())
        if outcome.fate == Fate.stopped:
            return True
        if outcome.fate == Fate.lost:
            lost = sum(o.fate == Fate.lost and o.blameless == outcome.blameless for o in before)
            return lost + 1 < (LOSSES if outcome.blameless else LAUNCHES)
        failures = sum(o.fate in RETRIED for o in before)
        return outcome.fate in RETRIED and failures < self._retries

    def _checked(self, outcome: Outcome, events: list[Event]) -> Outcome:
        """The outcome as it is settled; may fix the schema."""
        if outcome.fate == Fate.lost and outcome.blameless:
            cause = f"lost {LOSSES} times with its job, its node or its worker ({outcome.cause})"
            return outcome._replace(fate=str(Fate.failed), cause=cause, blameless=False)
        if outcome.fate == Fate.lost:
            return outcome._replace(
                fate=str(Fate.failed),
                cause=f"launched {LAUNCHES} times without an end: it seems to end the process it "
                "runs in (Function(..., isolate=True) gives a function its own), or to outlast "
                f"its driver ({outcome.cause})",
            )
        if outcome.fate != Fate.ok:
            return outcome
        schema = self._ledger.schema or next(
            (e for e in events if isinstance(e, SchemaFixed)), None
        )
        if schema is None:
            events.append(SchemaFixed(outcome.schema, dict(self._layouts[outcome.schema])))
            return outcome
        differs = self._difference(outcome.schema, schema)
        return outcome._replace(fate=str(Fate.invalid), cause=differs) if differs else outcome

    def _difference(self, digest: str, schema: SchemaFixed) -> str:
        if digest not in self._differs:
            self._differs[digest] = (
                "" if digest == schema.digest else difference(schema.layout, self._layouts[digest])
            )
        return self._differs[digest]
