"""Differential evolution without generations: steps between good members, whoever proposed them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import (
    BoolArray,
    Cube,
    Demands,
    Fate,
    FloatArray,
    IntArray,
    Members,
    Proposals,
    Results,
)
from ensemblerl.samplers.rejection import feasible_draws, uniform

LEAST = 4
"""Members with a reward before it steps; until then its points are uniform."""
BASES = 3
"""Best members, one of which a step begins at."""
SHORTEST, LONGEST = 0.2, 2.0
"""A step is so many times the difference of two members: log-uniform in between, drawn for each
point (dither)."""
TRIES = 32
"""Draws for a point that is not known yet; from half of them on anywhere."""
NEWEST = 512
"""Settled members whose fate is remembered."""
SCREENED = 4
"""Draws at most in place of a child whose nearest settled member failed; then it is taken."""
AT_ONCE = 256
"""Children whose nearest members are looked for together, so that memory is bounded."""
SAID_NOTHING = (Fate.pending, Fate.lost, Fate.stopped)
"""Fates that tell nothing about the simulation."""


class DifferentialEvolution:
    """A plain search: one of the best members, moved by the difference of two good ones.

    Differential evolution (Storn and Price 1997, doi:10.1023/A:1008202821328) as best/1/bin, with
    one of the three best for the best, and scale and crossover rate drawn anew for each point. As
    good members draw together, so do the steps. There are no generations and it never waits:
    parents are the best members at the ask, whoever proposed them.

    What failed is no parent, and a child whose nearest of the newest settled members failed is
    drawn anew, a few times at most. Where there are no failures nothing is screened.

    A category is handed on by a member, or with a chance of 1 / ndim drawn from the prior; with
    the same chance an ordinal coordinate goes to a neighbouring level. What is inactive in a
    parent is drawn from the prior where a child needs it. No child is one of its parents once more,
    and where all coordinates are discrete, none is a point that was proposed before, while there
    are others to be found.

    A search is of use to goals that look for an extremum (`Demands.ranked`). For another one it
    says that it is ``spent``, so that a portfolio leaves its share to the others; by itself it
    searches all the same.

    Parameters
    ----------
    cube : where it searches
    population : best members that are parents, None for 6 ndim and at least 16
    name : its name in ``proposer``

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> search = DifferentialEvolution(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> search.ask(3, np.random.default_rng(0)).unit.shape
    (3, 2)
    """

    has_density = False
    order_free = True

    def __init__(
        self, cube: Cube, *, population: int | None = None, name: str = "differential_evolution"
    ) -> None:
        if not isinstance(cube, Cube):
            raise TypeError(f"cube: wanted a Cube such as space.cube, got {type(cube).__name__}")
        whole = isinstance(population, int) and not isinstance(population, bool)
        if population is not None and not (whole and population >= LEAST):
            raise ValueError(
                f"population: wanted a whole number >= {LEAST} or None, got {population!r}"
            )
        self.cube, self.name = cube, name
        self.population = max(16, 6 * cube.ndim) if population is None else population
        self._kinds = np.array(cube.kinds)
        self._discrete = all(edges is not None for edges in cube.edges)
        self.spent = False  # until a goal says that it looks for no extremum
        self._start()

    def _start(self) -> None:
        self._number = np.zeros(0, dtype=np.int64)
        self._unit = np.zeros((0, self.cube.ndim))
        self._reward = np.zeros(0)
        self._seen = set[tuple[float, ...]]()
        self._settled = np.zeros(0, dtype=np.int64)
        self._place = np.zeros((0, self.cube.ndim))
        self._failed = np.zeros(0, dtype=np.bool_)

    def locate(self, in_process: bool) -> None:
        """A session is to begin: what it knows is what it is told from now on."""
        self._start()

    def heed(self, demands: Demands) -> None:
        """What the goal asks now."""
        self.spent = not demands.ranked

    # ---- asking

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) children of the best members; under a known constraint, draws until it is kept.

        Raises
        ------
        ValueError
            when a known constraint can hardly be met
        """
        draw, seen = self._children, self._seen if self._discrete else set(self._keys(self._unit))
        unit = feasible_draws(self.cube, draw, n, rng, self.name)
        for i in range(TRIES):
            again = repeated(self._keys(unit), seen)
            if not len(again):
                break
            draw = self._children if i < TRIES // 2 else self._anywhere
            unit[again] = feasible_draws(self.cube, draw, len(again), rng, self.name)
        return Proposals(unit)

    def _anywhere(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) uniform points of the cube."""
        return uniform(n, self.cube.ndim, rng)

    def _keys(self, unit: FloatArray) -> list[tuple[float, ...]]:
        """What counts of (n, ndim) points: of discrete coordinates the cell."""
        cells, active = self.cube.cells(unit), self.cube.active(unit)
        return list(map(tuple, np.where((cells >= 0) & active, cells, unit).tolist()))

    def _children(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points of the cube, few of them where members failed."""
        if len(self._number) < LEAST:
            return self._anywhere(n, rng)
        unit = self._steps(n, rng)
        for _ in range(SCREENED if self._failed.any() else 0):
            again = np.flatnonzero(self._beside_failures(unit))
            if not len(again):
                break
            unit[again] = self._steps(len(again), rng)
        return unit

    def _beside_failures(self, unit: FloatArray) -> BoolArray:
        """(n, ndim) -> (n,) whether the nearest settled member failed."""
        out = np.zeros(len(unit), dtype=np.bool_)
        for i in range(0, len(unit), AT_ONCE):
            apart = squares(self.cube, unit[i : i + AT_ONCE], self._place)
            out[i : i + AT_ONCE] = self._failed[np.argmin(apart, axis=1)]
        return out

    def _steps(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) points of the cube."""
        m, ndim = len(self._number), self.cube.ndim
        base = rng.integers(min(BASES, m), size=n)
        one = rng.integers(m, size=n)
        two = (one + rng.integers(1, m, size=n)) % m
        scale = SHORTEST * (LONGEST / SHORTEST) ** rng.random((n, 1))
        crossed = rng.random((n, ndim)) < rng.random((n, 1))
        crossed[np.arange(n), rng.integers(ndim, size=n)] = True
        active = self.cube.active(self._unit)
        both = active[one] & active[two]
        parent = np.where(active[base], self._unit[base], rng.random((n, ndim)))
        gap = np.where(both, self._unit[one] - self._unit[two], 0.0)
        # what all parents have in common would never change again: it takes another one's gap
        other = np.take_along_axis(gap, rng.integers(ndim, size=(n, ndim)), axis=1)
        moved = parent + scale * np.where(gap == 0.0, other, gap)
        donor = np.where(active[one], self._unit[one], parent)
        child = np.where(self._kinds == "categorical", donor, moved)
        child = self._mutated(np.where(crossed, child, parent), rng)
        return np.clip(reflected(child), 2.0**-53, 1.0 - 2.0**-53)

    def _mutated(self, unit: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Some discrete coordinates elsewhere: at a neighbouring level, or in any category."""
        hit = rng.random(unit.shape) < 1.0 / self.cube.ndim
        fresh = rng.random(unit.shape)
        cells = self.cube.cells(reflected(unit))
        for j, edges in enumerate(self.cube.edges):
            if edges is not None and self.cube.kinds[j] == "ordinal":
                level = neighbour(cells[:, j], fresh[:, j] < 0.5, self.cube.levels[j])
                fresh[:, j] = (edges[level] + edges[level + 1]) / 2.0
        return np.where(hit & (self._kinds != "real"), fresh, unit)

    # ---- telling

    def tell(self, members: Members, results: Results) -> Metrics:
        """Keep the best; what is not settled or failed is none of them. Remember who failed."""
        if self._discrete:
            self._seen.update(self._keys(members.unit))
        ok = (results.fate == Fate.ok) & np.isfinite(results.reward)
        ok &= ~np.isin(members.number, self._number)
        number = np.concatenate([self._number, members.number[ok]])
        unit = np.concatenate([self._unit, members.unit[ok]])
        reward = np.concatenate([self._reward, results.reward[ok]])
        best = np.lexsort((number, -reward))[: self.population]
        self._number, self._unit, self._reward = number[best], unit[best], reward[best]
        self._remember(members, results)
        return {"parents": float(len(best))}

    def _remember(self, members: Members, results: Results) -> None:
        """The fates of the newest, in number order."""
        new = ~np.isin(results.fate, SAID_NOTHING) & ~np.isin(members.number, self._settled)
        number = np.concatenate([self._settled, members.number[new]])
        place = np.concatenate([self._place, members.unit[new]])
        failed = np.concatenate([self._failed, results.fate[new] != Fate.ok])
        newest = np.argsort(number)[-NEWEST:]
        self._settled, self._place = number[newest], place[newest]
        self._failed = failed[newest]

    def state_dict(self) -> State:
        """The best members, best first, fates of the newest, in number order, and where all is
        discrete, what is known.
        """
        return {
            "number": self._number.copy(),
            "unit": self._unit.copy(),
            "reward": self._reward.copy(),
            "seen": np.array(sorted(self._seen)).reshape(-1, self.cube.ndim),
            "spent": self.spent,
            "settled": self._settled.copy(),
            "place": self._place.copy(),
            "failed": self._failed.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self._number, self._unit = np.array(state["number"]), np.array(state["unit"])
        self._reward = np.array(state["reward"])
        self._seen = set(map(tuple, np.array(state["seen"]).tolist()))
        self.spent = bool(state["spent"])
        # of a version that did not remember them: who failed until then screens nothing
        self._settled = np.array(state.get("settled", []), dtype=np.int64)
        self._place = np.array(state.get("place", []), np.float64).reshape(-1, self.cube.ndim)
        self._failed = np.array(state.get("failed", []), dtype=np.bool_)

    def describe(self) -> dict[str, Any]:
        """Name and arguments."""
        return {"sampler": type(self).__name__, "name": self.name, "population": self.population}

    def __repr__(self) -> str:
        given = f"ndim={self.cube.ndim}, population={self.population}, name={self.name!r}"
        return f"{type(self).__name__}({given})"


def repeated(keys: list[tuple[float, ...]], seen: set[tuple[float, ...]]) -> IntArray:
    """(m,) places of keys that are seen already, or that an earlier place has."""
    here, out = set[tuple[float, ...]](), list[int]()
    for i, key in enumerate(keys):
        if key in seen or key in here:
            out.append(i)
        here.add(key)
    return np.array(out, dtype=np.int64)


def squares(cube: Cube, one: FloatArray, two: FloatArray) -> FloatArray:
    """(n, ndim), (m, ndim) -> (n, m) mean squared distances along the coordinates that are active
    in both.

    Two categories are as far apart as the ends of an ordered coordinate. Of a coordinate with
    levels the cells count, each at its middle.
    """
    cells_one, cells_two = cube.cells(one), cube.cells(two)
    gap = (cube.centred(one)[:, None] - cube.centred(two)) ** 2
    unordered = np.array(cube.kinds) == "categorical"
    gap[:, :, unordered] = cells_one[:, None, unordered] != cells_two[:, unordered]
    both = cube.active(one)[:, None] & cube.active(two)
    return np.asarray((gap * both).sum(axis=2) / np.maximum(both.sum(axis=2), 1))


def neighbour(level: IntArray, down: BoolArray, n: int) -> IntArray:
    """(m,) of n levels -> (m,) the next one down or up; at an end, the only one there is."""
    beside = np.where(down, level - 1, level + 1)
    return np.asarray(np.clip(np.where(beside < n, np.abs(beside), n - 2), 0, n - 1))


def reflected(unit: FloatArray) -> FloatArray:
    """(...) -> (...) in [0, 1], thrown back by the sides as often as need be."""
    return np.asarray(np.abs((unit + 1.0) % 2.0 - 1.0))
