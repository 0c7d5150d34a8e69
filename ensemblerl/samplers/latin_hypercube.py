"""Latin hypercube samples, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemblerl.records import Cube, FloatArray
from ensemblerl.samplers.base import FixedDesign

INSIDE = 2.0**-53


class LatinHypercube(FixedDesign):
    """Every n points in a row are a Latin hypercube: one in each n-th part of each coordinate.

    McKay, Beckman and Conover (1979, doi:10.2307/1268522). Points n to 2 n - 1 are a second one,
    independent of the first, and so on.

    Parameters
    ----------
    cube : where the points lie
    n : points in each Latin hypercube, usually the ``n_members`` of the campaign
    name : its name in ``proposer``

    Raises
    ------
    ValueError
        unless n is a whole number, at least 1

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> design = LatinHypercube(Cube(("real",) * 2, (0, 0), (None, None)), 5)
    >>> unit = design.ask(5, np.random.default_rng(0)).unit
    >>> sorted((5 * unit[:, 1]).astype(int).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, cube: Cube, n: int, *, name: str = "latin_hypercube") -> None:
        super().__init__(cube, name=name)
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"n: wanted a whole number >= 1, got {n!r}")
        self.n = int(n)
        self._kept: tuple[tuple[int, int], FloatArray] | None = None

    def candidates(self, key: int, first: int, n: int) -> FloatArray:
        """(n, ndim), sliced from as many hypercubes as it takes."""
        last = (first + max(n, 1) - 1) // self.n
        blocks = [self._block(key, b) for b in range(first // self.n, last + 1)]
        start = first % self.n
        return np.concatenate(blocks)[start : start + n]

    def _block(self, key: int, b: int) -> FloatArray:
        """(n, ndim) hypercube number b."""
        if self._kept is None or self._kept[0] != (key, b):
            self._kept = (
                (key, b),
                latin_hypercube(self.n, self.cube.ndim, np.random.default_rng([key, b])),
            )
        return self._kept[1]

    def describe(self) -> dict[str, Any]:
        """Class, name and points in each hypercube."""
        return {**super().describe(), "n": self.n}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ndim={self.cube.ndim}, n={self.n}, name={self.name!r})"


def latin_hypercube(n: int, ndim: int, rng: np.random.Generator) -> FloatArray:
    """(n, ndim) in the open interval: in each coordinate one point in each n-th part."""
    part = rng.permuted(np.tile(np.arange(n)[:, None], ndim), axis=0)
    unit = (part + rng.random((n, ndim))) / n
    return np.asarray(np.clip(unit, INSIDE, 1.0 - INSIDE))
