"""What the fixed designs share: the i-th candidate is a function of a key and of i alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ensemblerl.protocols import Metrics, State
from ensemblerl.records import AnyArray, Cube, FloatArray, IntArray, Members, Proposals, Results
from ensemblerl.samplers.position import Position

LIMIT = 100_000
"""Candidates in a row that may be infeasible."""


class FixedDesign:
    """A sequence of points that no result changes.

    A key is drawn from the rng of the first ask; from then on the sequence is fixed, however many
    points are asked for at a time. Key and index ride with each point (notes ``design_key``,
    ``design_index``), so being told the points again is all that a resume needs. Infeasible
    candidates are skipped; their number since the point before is noted as ``rejected``.

    ``has_density`` speaks of the *margin*: each point by itself is uniform on the cube, hence
    ``log_prob`` 0, while the points of a design depend on each other. Means over a design are
    unbiased; error bars that take its points for independent are not its error bars.

    Parameters
    ----------
    cube : where the points lie
    name : its name in ``proposer``
    """

    has_density = True
    order_free = True
    log_prob = 0.0

    def __init__(self, cube: Cube, *, name: str) -> None:
        self.cube, self.name = cube, name
        self._at = Position("design")

    @property
    def place(self) -> int:
        """Index of the candidate that comes next."""
        return self._at.place

    def candidates(self, key: int, first: int, n: int) -> FloatArray:
        """(n, ndim) candidates number first, first + 1, ... of the sequence with this key."""
        raise NotImplementedError

    def prime(self, rng: np.random.Generator) -> None:
        """Draw the key now, if there is none yet."""
        self._at.prime(rng)

    def ask(
        self, n: int, rng: np.random.Generator, context: Mapping[str, Any] | None = None
    ) -> Proposals:
        """(n, ndim) next points.

        Raises
        ------
        ValueError
            when the known constraint turns down 100,000 candidates in a row
        """
        self.prime(rng)
        unit, index = self._feasible(n)
        notes: dict[str, AnyArray] = {
            "log_prob": np.full(len(unit), self.log_prob),
            **self._at.notes(index),
        }
        if self.cube.feasible is not None:
            notes["rejected"] = np.diff(index, prepend=self.place - 1) - 1
        self._at.move(index)
        return Proposals(unit, notes)

    def _feasible(self, n: int) -> tuple[FloatArray, IntArray]:
        """(m, ndim) points and (m,) indices of the next m <= n feasible candidates."""
        if self.cube.feasible is None:
            unit = self.cube.canonical(self.candidates(self._at.key, self.place, n))
            return unit, np.arange(self.place, self.place + len(unit))
        found = list(self._accepted(n))
        unit = np.concatenate([np.empty((0, self.cube.ndim)), *(unit for unit, _ in found)])
        index = np.concatenate([np.empty(0, dtype=np.int64), *(index for _, index in found)])
        return unit[:n], index[:n]

    def _accepted(self, n: int) -> Iterator[tuple[FloatArray, IntArray]]:
        """Feasible candidates block by block, at least n of them where there are so many."""
        assert self.cube.feasible is not None
        first, size, found, barren = self.place, 2 * n + 8, 0, 0
        while found < n:
            unit = self.cube.canonical(self.candidates(self._at.key, first, size))
            if not len(unit):
                return
            rows = np.flatnonzero(self.cube.feasible(unit))
            yield unit[rows], first + rows
            found, first = found + len(rows), first + len(unit)
            barren = 0 if len(rows) else barren + len(unit)
            self._give_up(barren, found, first - self.place)
            size = min(2 * size, 8192)

    def _give_up(self, barren: int, found: int, tried: int) -> None:
        if barren >= LIMIT:
            raise ValueError(
                f"{self.name}: the known constraint left {found} of {tried} candidates "
                f"(a share of {found / tried:.2g}), none of the last {barren}; wanted a space "
                "whose feasible part a design can hit: tighten bounds or drop the constraint"
            )

    def tell(self, members: Members, results: Results) -> Metrics:
        """Go on behind the last of its own points among these."""
        proposer = members.notes.get("proposer")
        if proposer is not None:
            self._at.told(members, proposer == self.name)
        return {}

    def log_density(self, unit: FloatArray) -> FloatArray:
        """(n, ndim) -> (n,) log of the marginal density with respect to the cube: 0."""
        return np.full(len(unit), self.log_prob)

    def state_dict(self) -> State:
        """Key, and places in the sequences seen."""
        return self._at.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take them up."""
        self._at.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """Class and name."""
        return {"sampler": type(self).__name__, "name": self.name}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ndim={self.cube.ndim}, name={self.name!r})"
