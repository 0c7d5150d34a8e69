"""Samplers that each break one law of `Sampler`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import BoolArray, Fate, FloatArray, Members, Proposals, Results
from ensemblerl.testing.core import Control
from ensemblerl.testing.learner import BoxLearner
from ensemblerl.testing.sampler_laws import check_sampler

Row = tuple[FloatArray, float, str]
Context = Mapping[str, Any] | None


class ClosedBoundary(BoxLearner):
    """Now and then a coordinate of exactly 0."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Rounded down where it is small."""
        unit = super().draw(n, rng)
        return np.where(unit < 0.02, 0.0, unit)


class IdleAnywhere(BoxLearner):
    """Leaves inactive coordinates where they were drawn."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Uniform, without `Cube.canonical`."""
        return np.clip(rng.random((n, self.cube.ndim)), 1e-12, 1.0 - 1e-12)

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) of the uniform draw."""
        return np.zeros(len(unit))


class Unconstrained(BoxLearner):
    """Ignores the known constraint."""

    def allowed(self, unit: FloatArray) -> BoolArray:
        """Everything."""
        return np.ones(len(unit), dtype=np.bool_)


class Generous(BoxLearner):
    """Rounds up to an even number of points."""

    def ask(self, n: int, rng: np.random.Generator, context: Context = None) -> Proposals:
        """One too many."""
        return super().ask(n + n % 2, rng, context)


class SinglePrecision(BoxLearner):
    """Points of 32 bits."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Not float64."""
        return super().draw(n, rng).astype(np.float32)


class GlobalRandom(BoxLearner):
    """Draws from numpy's global state."""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Not from the rng handed in."""
        return super().draw(n, np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002


class MeanByArrival(BoxLearner):
    """A running average in the order of arrival: right in substance, not bit for bit."""

    def learn(self, number: int, row: Row) -> None:
        """A dict remembers the order in which outcomes came; so does this."""
        if row[2] != Fate.pending:
            self.told.pop(number, None)
        super().learn(number, row)

    def centre(self) -> FloatArray:
        """(ndim,) exponential average over rows as they came."""
        centre = np.full(self.cube.ndim, 0.5)
        for unit, _, fate in self.told.values():
            centre += 0.1 * (unit - centre) * (fate == Fate.ok)
        return np.asarray(np.clip(centre, 0.25, 0.75))

    def state_dict(self) -> State:
        """In order of arrival."""
        told = list(self.told.items())
        state = super().state_dict()
        order = np.searchsorted(state["number"], [number for number, _ in told])
        return {key: column[order] for key, column in state.items()}


class Running(BoxLearner):
    """Keeps a sum and a count instead of the set."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.total, self.count = np.full(self.cube.ndim, 0.5), 1.0

    def centre(self) -> FloatArray:
        """(ndim,) mean."""
        return np.clip(self.total / self.count, 0.25, 0.75)

    def state_dict(self) -> State:
        """The set, sum and count."""
        return {**super().state_dict(), "total": self.total.copy(), "count": self.count}

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        super().load_state_dict(state)
        self.total, self.count = np.array(state["total"]), float(state["count"])


class CountsTwice(Running):
    """Adds a member again when it is told again."""

    def learn(self, number: int, row: Row) -> None:
        """Adds without asking who."""
        if row[2] != Fate.pending:
            self.total, self.count = self.total + row[0], self.count + 1.0


class ForgetsTheCount(Running):
    """Saves the mean and forgets how many it stands for: right at once, wrong later."""

    def learn(self, number: int, row: Row) -> None:
        """Once a member."""
        if row[2] != Fate.pending and self.told.get(number, row)[2] in (Fate.pending, row[2]):
            known = self.told.get(number)
            if known is None or known[2] == Fate.pending:
                self.total, self.count = self.total + row[0], self.count + 1.0
        super().learn(number, row)

    order_free = False

    def state_dict(self) -> State:
        """The mean, as if of one member."""
        state = super().state_dict()
        return {**state, "total": state["total"] / state["count"], "count": 1.0}


class LiveState(Running):
    """Hands out the array that it goes on writing to."""

    order_free = False

    def learn(self, number: int, row: Row) -> None:
        """In place."""
        if row[2] != Fate.pending:
            self.total += row[0]
            self.count += 1.0

    def state_dict(self) -> State:
        """Not a copy."""
        return {**super().state_dict(), "total": self.total}


class PicklesItself(BoxLearner):
    """Puts an object into its state."""

    def state_dict(self) -> State:
        """Not plain."""
        return {**super().state_dict(), "rows": self.told}


class PendingWins(BoxLearner):
    """Lets a late launch override the outcome."""

    def learn(self, number: int, row: Row) -> None:
        """The last one told stays."""
        self.told[number] = row


class FirstWins(BoxLearner):
    """Never learns the outcome of what it was told as pending."""

    def learn(self, number: int, row: Row) -> None:
        """The first one told stays."""
        self.told.setdefault(number, row)


class LearnsByCalls(Running):
    """Takes one step a call of tell, however many rows it brings."""

    def tell(self, members: Members, results: Results) -> Metrics:
        """A step to the mean of the batch, unless all of it is known."""
        number = members.number.tolist()
        done = [i for i, n in enumerate(number) if results.fate[i] == Fate.ok]
        new = [i for i in done if number[i] not in self.told]
        if new:
            self.total, self.count = self.total + members.unit[new].mean(axis=0), self.count + 1.0
        rows = {number[i]: (members.unit[i].copy(), 0.0, str(Fate.ok)) for i in new}
        self.told = dict(sorted({**self.told, **rows}.items()))
        return {}


class HiddenCounter(BoxLearner):
    """Alternates between wide and narrow by the number of its asks, which nobody is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asks = 0

    def ask(self, n: int, rng: np.random.Generator, context: Context = None) -> Proposals:
        """Burns a draw more at each ask."""
        self.asks += 1
        rng.random(self.asks)
        return super().ask(n, rng, context)

    def state_dict(self) -> State:
        """With the counter: only the retelling shows the fault."""
        return {**super().state_dict(), "asks": self.asks}

    def load_state_dict(self, state: State) -> None:
        """With the counter."""
        super().load_state_dict(state)
        self.asks = int(state["asks"])


class WritesIntoResults(BoxLearner):
    """Replaces NaN by 0 in the caller's own array."""

    def tell(self, members: Members, results: Results) -> Metrics:
        """In place."""
        np.nan_to_num(results.reward, copy=False)
        return super().tell(members, results)


class Poisoned(BoxLearner):
    """Means over rewards without minding those of failures."""

    def centre(self) -> FloatArray:
        """NaN from the first failure on."""
        rewards = [reward for _, reward, fate in self.told.values() if fate != Fate.pending]
        return np.full(self.cube.ndim, 0.5 + 0.2 * np.tanh(np.mean(rewards or [0.0])))


BROKEN: list[Control] = [
    Control(make.__name__, law, check_sampler, make)
    for law, make in [
        ("open cube", ClosedBoundary),
        ("open cube", Poisoned),
        ("inactive at 0.5", IdleAnywhere),
        ("known constraint", Unconstrained),
        ("at most n", Generous),
        ("shape", SinglePrecision),
        ("same rng, same proposals", GlobalRandom),
        ("told is left alone", WritesIntoResults),
        ("order of telling is of no account", MeanByArrival),
        ("telling twice changes nothing", CountsTwice),
        ("the outcome overrides pending", FirstWins),
        ("a late pending changes nothing", PendingWins),
        ("batches of telling are of no account", LearnsByCalls),
        ("function of the set told", HiddenCounter),
        ("goes on exactly after a restore", ForgetsTheCount),
        ("state is a snapshot", LiveState),
        ("state is plain", PicklesItself),
    ]
]
