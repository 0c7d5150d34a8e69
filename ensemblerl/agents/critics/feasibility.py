"""How likely a member is to fail: what failed near it, against what did not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemblerl.agents.critics.features import columns
from ensemblerl.agents.critics.kernel import squares
from ensemblerl.records import Cube, FloatArray

NEIGHBOURS = 4
"""Nearest members that are asked, and one more a coordinate: near the edge of a failing region
these come ever nearer, so that the edge is seen ever finer."""
MOST = 2000
"""Newest members that are asked at all."""
BELIEF = 0.5
"""Members that the share of failures among all counts for."""
LIKELY = 0.25
"""Risk above which nothing is picked."""
CAUTION = 4.0
"""A point is let pass by the chance that so many members at it would not fail."""


@dataclass(frozen=True)
class Feasibility:
    """Nearest neighbours, by Epanechnikov's kernel out to the one after them.

    Parameters
    ----------
    cube : of the points
    unit : (n, ndim) members
    failed : (n,) 1 where one failed
    """

    cube: Cube
    unit: FloatArray
    failed: FloatArray

    def risk(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) probability of a failure."""
        known, fate = self.unit[-MOST:], self.failed[-MOST:]
        share = float(fate.mean()) if len(fate) else 0.0
        k = min(NEIGHBOURS + self.cube.ndim, len(fate) - 1)
        if share == 0.0 or k < 1:
            return np.full(len(unit), share)
        apart = squares(columns(self.cube, unit)[0], columns(self.cube, known)[0])
        near = np.argpartition(apart, k, axis=1)[:, : k + 1]
        apart = np.take_along_axis(apart, near, axis=1)
        weight = 1.0 - apart / np.maximum(apart.max(axis=1, keepdims=True), 1e-300)
        failed = (weight * fate[near]).sum(axis=1) + BELIEF * share
        return np.asarray(failed / (weight.sum(axis=1) + BELIEF))

    @property
    def failures(self) -> FloatArray:
        """(k, ndim) members that failed."""
        return self.unit[self.failed > 0]

    def log_chance(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) log of the chance to be let pass; -inf where a known constraint says
        no, and where the risk is high: the policy's draws are there to find out.
        """
        risk = self.risk(unit)
        allowed = risk <= LIKELY
        if self.cube.feasible is not None:
            allowed &= self.cube.feasible(unit)
        return np.where(allowed, CAUTION * np.log1p(-np.minimum(risk, LIKELY)), -np.inf)

    def passed(self, unit: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> those that are let pass."""
        return unit[rng.random(len(unit)) < np.exp(self.log_chance(unit))]
