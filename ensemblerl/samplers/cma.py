"""Covariance matrix adaptation, by the package `cma`, without waiting for generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import Cube, Fate, FloatArray, Members, Proposals, Results
from ensemblerl.samplers.evolution import Evolution, Plan, cma, usual_popsize
from ensemblerl.samplers.rejection import feasible_draws, uniform

RESTARTS = ("bipop", "ipop", None)
STREAM = 0xC3A
"""Tells the random numbers of restarts from those of a member of the same seed."""
SAID_NOTHING = (Fate.pending, Fate.lost, Fate.stopped)
"""Fates that tell nothing about the simulation."""
HUGE = 1e150
"""Losses are cut here: their differences stay finite."""


class _Row(NamedTuple):
    """A result as it counts: ``generation`` as `Cma` notes it, -1 for another's point."""

    number: int
    unit: FloatArray
    reward: float
    generation: int


@dataclass
class _Progress:
    """What follows from the rows told so far, in their order."""

    run: Evolution
    generation: int = 1
    first: int = 1
    best: float = -np.inf
    waiting: list[_Row] = field(default_factory=list)
    doublings: int = 0
    small: bool = False
    spent: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})


class Cma:
    """CMA-ES (Hansen 2016, arXiv:1604.00772) by the package `cma`: a local search with restarts.

    It never waits. A point is a draw from the distribution as it is at the ask; whenever
    ``popsize`` results are there, in the order in which they came, the distribution moves. With
    many members on their way take a ``popsize`` of about their number, or most results are of
    distributions long gone; their steps are then cut to the length of a long draw (Hansen 2011,
    arXiv:1110.4181). Points of others, and of runs that are over, count when they are better than
    all before. Members that failed count as worse than the rest of their generation.

    It sees coordinates of the cube only. Discrete ones are cells, between which it keeps moving.

    Parameters
    ----------
    cube : where it searches
    sigma0 : standard deviation of the first draws, in the cube
    popsize : results in a generation, None for 4 + 3 ln(ndim)
    restarts : when a run has converged: "bipop", again at a random place, with a generation twice
        as large or with a small and narrow one, whichever had fewer results so far (Hansen 2009,
        doi:10.1145/1570256.1570333); "ipop", always twice as large (Auger and Hansen 2005,
        doi:10.1109/CEC.2005.1554902); None, draw on from where it has converged
    name : its name in ``proposer``

    Raises
    ------
    ImportError
        without the package `cma`: ``pip install 'ensemblerl[cma]'``
    TypeError, ValueError
        naming the argument, what was wanted and what came
    """

    has_density = False
    order_free = False

    def __init__(
        self,
        cube: Cube,
        *,
        sigma0: float = 0.25,
        popsize: int | None = None,
        restarts: str | None = "bipop",
        name: str = "cma",
    ) -> None:
        if not isinstance(cube, Cube):
            raise TypeError(f"cube: wanted a Cube such as space.cube, got {type(cube).__name__}")
        number = isinstance(sigma0, int | float) and not isinstance(sigma0, bool)
        if not number or not 0 < sigma0 <= 1:
            raise ValueError(f"sigma0: wanted a number in (0, 1], got {sigma0!r}")
        whole = isinstance(popsize, int) and not isinstance(popsize, bool) and popsize >= 4
        if popsize is not None and not whole:
            raise ValueError(f"popsize: wanted a whole number >= 4 or None, got {popsize!r}")
        if restarts not in RESTARTS:
            raise ValueError(f"restarts: wanted one of {RESTARTS}, got {restarts!r}")
        cma()
        self.cube, self.name, self.sigma0, self.restarts = cube, name, float(sigma0), restarts
        self.popsize = usual_popsize(cube.ndim) if popsize is None else popsize
        self._start()

    def _start(self) -> None:
        self._key = -1
        self._rows: list[_Row] = []
        self._numbers: set[int] = set()
        plan = Plan(np.full(self.cube.ndim, 0.5), self.sigma0, self.popsize)
        self._now = _Progress(Evolution(plan, self.cube.levels))

    def locate(self, in_process: bool) -> None:
        """A session is to begin: what it knows is what it is told from now on."""
        self._start()

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) draws; under a known constraint, draws until it is kept.

        Raises
        ------
        ValueError
            when a known constraint can hardly be met
        """
        unit = feasible_draws(self.cube, self._now.run.draw, n, rng, self.name)
        noted = np.full(n, self._now.generation, dtype=np.int64)
        return Proposals(unit, {f"{self.name}_generation": noted})

    def tell(self, members: Members, results: Results) -> Metrics:
        """Take in outcomes, and learn from each generation that is full."""
        if self._key < 0 and len(members):
            self._key = int(members.seed[np.argmin(members.number)])
        unknown = np.full(len(members), -1, dtype=np.int64)
        generation = members.notes.get(f"{self.name}_generation", unknown)
        for i, number in enumerate(members.number.tolist()):
            if results.fate[i] not in SAID_NOTHING and number not in self._numbers:
                reward = float(results.reward[i]) if results.fate[i] == Fate.ok else np.nan
                unit = np.array(members.unit[i], dtype=np.float64)
                self._take(_Row(number, unit, reward, int(generation[i])))
        return {"generation": float(self._now.generation), "popsize": float(self._now.run.popsize)}

    def _take(self, row: _Row) -> None:
        """One more outcome: all that is known follows from these, in their order."""
        self._rows.append(row)
        self._numbers.add(row.number)
        now = self._now
        better = bool(np.isfinite(row.reward)) and row.reward > now.best
        now.best = row.reward if better else now.best
        if better or row.generation >= now.first:
            now.waiting.append(row)
        if len(now.waiting) == now.run.popsize:
            self._learn()

    def _learn(self) -> None:
        now = self._now
        rows, now.waiting = now.waiting, []
        fresh = np.array([row.generation == now.generation for row in rows])
        unit = np.array([row.unit for row in rows])
        now.run.feed(unit, self.cube.active(unit), losses(rows), fresh)
        now.generation += 1
        now.spent[now.small] += len(rows)
        if self.restarts is not None and now.run.over():
            now.run = Evolution(self._plan(), self.cube.levels)
            now.first = now.generation

    def _plan(self) -> Plan:
        """The next run, and of which kind it is."""
        now = self._now
        rng = np.random.default_rng([STREAM, self._key, now.generation])
        now.small = self.restarts == "bipop" and now.spent[True] < now.spent[False]
        now.small = now.small and now.doublings > 0
        ndim = self.cube.ndim
        centre = feasible_draws(self.cube, lambda n, rng: uniform(n, ndim, rng), 1, rng, self.name)
        if now.small:
            larger = 0.5 * 2.0**now.doublings
            popsize = max(self.popsize, int(self.popsize * larger ** (rng.random() ** 2)))
            return Plan(centre[0], self.sigma0 * 10.0 ** (-2.0 * rng.random()), popsize)
        now.doublings += 1
        return Plan(centre[0], self.sigma0, self.popsize * 2**now.doublings)

    def state_dict(self) -> State:
        """The outcomes in the order in which they came: the rest follows from them."""
        rows = self._rows
        return {
            "key": self._key,
            "number": np.array([row.number for row in rows], dtype=np.int64),
            "unit": np.array([row.unit for row in rows]).reshape(len(rows), self.cube.ndim),
            "reward": np.array([row.reward for row in rows], dtype=np.float64),
            "generation": np.array([row.generation for row in rows], dtype=np.int64),
        }

    def load_state_dict(self, state: State) -> None:
        """Take them in once more."""
        self._start()
        self._key = int(state["key"])
        columns = (state[name] for name in ("number", "unit", "reward", "generation"))
        for number, unit, reward, generation in zip(*columns, strict=True):
            self._take(_Row(int(number), np.array(unit), float(reward), int(generation)))

    def describe(self) -> dict[str, Any]:
        """Name and arguments."""
        given = {"sigma0": self.sigma0, "popsize": self.popsize, "restarts": self.restarts}
        return {"sampler": type(self).__name__, "name": self.name, **given}

    def __repr__(self) -> str:
        return f"Cma(ndim={self.cube.ndim}, popsize={self.popsize}, name={self.name!r})"


def losses(rows: list[_Row]) -> FloatArray:
    """(n,) finite, smaller is better; what has no reward is worse than all that has one."""
    reward = np.array([row.reward for row in rows])
    ok = np.isfinite(reward)
    loss = np.clip(-reward, -HUGE, HUGE)
    worst = float(loss[ok].max()) if ok.any() else 0.0
    return np.where(ok, loss, worst + max(1.0, abs(worst)))
