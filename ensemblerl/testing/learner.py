"""A small learner that keeps every law: the sound twin of the broken samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import BoolArray, Cube, Fate, FloatArray, Members, Proposals, Results

HALF = 0.25
"""Half the side of the box."""


class BoxLearner:
    """Half of its draws from the cube, half from a box about the mean of the good members.

    Parameters
    ----------
    cube : where it draws
    name : its name in ``proposer``
    """

    has_density = True
    order_free = True

    def __init__(self, cube: Cube, *, name: str = "box") -> None:
        self.cube, self.name = cube, name
        self.told: dict[int, tuple[FloatArray, float, str]] = {}

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) points of the mixture, infeasible ones drawn again."""
        unit = self.draw(n, rng)
        while (bad := ~self.allowed(unit)).any():
            unit[bad] = self.draw(int(bad.sum()), rng)
        return Proposals(unit, {"log_prob": self.log_density(unit)})

    def tell(self, members: Members, results: Results) -> Metrics:
        """Add to the set; an outcome stays."""
        rows = zip(members.number, members.unit, results.reward, results.fate, strict=True)
        for number, unit, reward, fate in rows:
            self.learn(int(number), (np.array(unit), float(reward), str(fate)))
        return {"told": float(len(self.told))}

    def learn(self, number: int, row: tuple[FloatArray, float, str]) -> None:
        """Take one row in."""
        if row[2] != Fate.pending or number not in self.told:
            self.told[number] = row

    def centre(self) -> FloatArray:
        """(ndim,) mean of the ok members, weighted by reward, drawn towards those in flight."""
        rows = [self.told[number] for number in sorted(self.told)]
        reward, fate = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        weight = np.where(fate == Fate.ok, np.tanh(reward) + 2.0, 3.0 * (fate == Fate.pending))
        unit = np.array([row[0] for row in rows]).reshape(len(rows), self.cube.ndim)
        centre = (0.5 + weight @ unit) / (1.0 + weight.sum())
        return np.asarray(np.clip(centre, HALF, 1.0 - HALF))

    def allowed(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) -> (n,)."""
        if self.cube.feasible is None:
            return np.ones(len(unit), dtype=np.bool_)
        return self.cube.feasible(unit)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) from the mixture, inactive coordinates at 0.5."""
        wide = np.clip(rng.random((n, self.cube.ndim)), 1e-12, 1.0 - 1e-12)
        box = self.centre() + HALF * (2.0 * wide - 1.0)
        unit = np.where(rng.random((n, 1)) < 0.5, wide, box)
        return self.cube.canonical(unit)

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) of the mixture; inactive coordinates are integrated out."""
        inside = np.abs(unit - self.centre()) <= HALF
        each = np.where(self.cube.active(unit), inside / (2.0 * HALF), 1.0)
        return np.asarray(np.log(0.5 + 0.5 * each.prod(axis=1)))

    def state_dict(self) -> State:
        """The set that was told."""
        numbers = sorted(self.told)
        unit = np.array([self.told[i][0] for i in numbers]).reshape(len(numbers), self.cube.ndim)
        reward = np.array([self.told[i][1] for i in numbers], dtype=np.float64)
        fate = np.array([self.told[i][2] for i in numbers], dtype="U13")
        return {
            "number": np.array(numbers, dtype=np.int64),
            "unit": unit,
            "reward": reward,
            "fate": fate,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a set."""
        rows = zip(state["number"], state["unit"], state["reward"], state["fate"], strict=True)
        self.told = {int(i): (np.array(u), float(r), str(f)) for i, u, r, f in rows}

    def describe(self) -> dict[str, Any]:
        """Its class."""
        return {"sampler": type(self).__name__}
