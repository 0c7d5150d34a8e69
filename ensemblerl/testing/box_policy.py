"""A small policy and a small learner that keep every law: the sound twins of the broken ones."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ensemblerl.agents.base import Context, Lesson, Memory, Policy, Weights
from ensemblerl.protocols import State
from ensemblerl.records import Cube, Demands, FloatArray

HALF = 0.5
"""Share of the box in the draws of every coordinate; the prior has the rest."""


class BoxPolicy:
    """Each coordinate from the cube or from an interval of its own, one step a coordinate.

    Parameters
    ----------
    cube : where it lives
    weights : ``low`` and ``high`` (ndim,), the intervals; the whole cube when None

    Raises
    ------
    ValueError
        for weights of other names or shapes
    """

    def __init__(self, cube: Cube, weights: Weights | None = None) -> None:
        self.cube, self.n_steps = cube, cube.ndim
        whole = {"low": np.zeros(cube.ndim), "high": np.ones(cube.ndim)}
        given = whole if weights is None else weights
        came, wanted = ({k: np.shape(v) for k, v in w.items()} for w in (given, whole))
        if came != wanted:
            raise ValueError(f"weights: wanted the shapes {wanted}, got {came}")
        self._box = self.kept(given)

    def kept(self, weights: Weights) -> Weights:
        """Copies."""
        return {name: np.array(array, dtype=np.float64) for name, array in weights.items()}

    @property
    def weights(self) -> Weights:
        """The intervals."""
        return self.kept(self._box)

    def sample(self, n: int, context: Context, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points."""
        return self.cube.canonical(self.draw(n, rng))

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points, inactive coordinates anywhere."""
        low, high = self._box["low"], self._box["high"]
        wide = np.clip(rng.random((n, self.cube.ndim)), 1e-12, 1.0 - 1e-12)
        return np.where(rng.random(wide.shape) < HALF, low + (high - low) * wide, wide)

    def log_prob(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n,)."""
        return np.asarray(self.steps(unit, context).sum(axis=1))

    def steps(self, unit: FloatArray, context: Context = None) -> FloatArray:
        """(n, ndim) -> (n, ndim) log of prior and box together, coordinate by coordinate."""
        low, high = self._box["low"], self._box["high"]
        inside = ((unit >= low) & (unit <= high)) / (high - low)
        return np.where(self.cube.active(unit), np.log(1.0 - HALF + HALF * inside), 0.0)

    def widened(self) -> Self:
        """Every interval grown half of the way to the whole coordinate."""
        low, high = self._box["low"], self._box["high"]
        return self.with_weights({"low": 0.5 * low, "high": 0.5 + 0.5 * high})

    def with_weights(self, weights: Weights) -> Self:
        """Other intervals."""
        return type(self)(self.cube, weights)

    def describe(self) -> dict[str, Any]:
        """Its class."""
        return {"policy": type(self).__name__}


class BoxMover:
    """Draws the intervals round the better half of a minibatch, a part of the way each time.

    The way gets shorter with the number of its lessons, which is its state.
    """

    name = "box_mover"

    def __init__(self) -> None:
        self.lessons = 0

    def learn(
        self, policy: Policy, memory: Memory, demands: Demands, rng: np.random.Generator
    ) -> Lesson:
        """One move; none where everything failed."""
        rows = memory.sample(64, rng)
        utility = self.utility(np.where(rows.ok, memory.utility(rows, demands), -np.inf))
        good = rows.unit[rows.ok & (utility >= np.median(utility))]
        self.lessons += 1
        if not len(good):
            return Lesson(policy, {"moved": 0.0})
        part = self.part(rng)
        moved = policy.weights
        moved["low"] += part * (np.minimum(good.mean(axis=0) - 0.1, 0.75) - moved["low"])
        moved["high"] += part * (np.maximum(good.mean(axis=0) + 0.1, 0.25) - moved["high"])
        moved = {name: self.inside(utility, np.clip(at, 0, 1)) for name, at in moved.items()}
        return Lesson(policy.with_weights(moved), {"moved": part})

    def utility(self, utility: FloatArray) -> FloatArray:
        """(n,) what rows are told apart by; -inf where they failed."""
        return utility

    def inside(self, utility: FloatArray, edge: FloatArray) -> FloatArray:
        """(ndim,) edges as they are."""
        return edge

    def part(self, rng: np.random.Generator) -> float:
        """Of the way."""
        return 1.0 / (3.0 + self.lessons)

    def state_dict(self) -> State:
        """How many lessons there were."""
        return {"lessons": self.lessons}

    def load_state_dict(self, state: State) -> None:
        """Take it up."""
        self.lessons = int(state["lessons"])

    def describe(self) -> dict[str, Any]:
        """Its class."""
        return {"learner": type(self).__name__}
