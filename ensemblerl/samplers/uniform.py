"""Independent draws from the prior."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import Cube, FloatArray
from ensemblerl.samplers.base import FixedDesign
from ensemblerl.samplers.position import words


class Uniform(FixedDesign):
    """Independent uniform points: Monte Carlo from the prior.

    Counter-based (Philox 4x64, Salmon et al. 2011, doi:10.1145/2063384.2063405), so that the
    i-th point needs none of those before it.

    Parameters
    ----------
    cube : where the points lie
    name : its name in ``proposer``

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> design = Uniform(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> design.ask(3, np.random.default_rng(0)).unit.shape
    (3, 2)
    """

    def __init__(self, cube: Cube, *, name: str = "uniform") -> None:
        super().__init__(cube, name=name)

    def candidates(self, key: int, first: int, n: int) -> FloatArray:
        """(n, ndim) from words first * ndim, ... of the stream with this key."""
        ndim = self.cube.ndim
        return open_interval(words(key, first * ndim, n * ndim)).reshape(n, ndim)


def open_interval(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> FloatArray:
    """(n,) 64-bit words -> (n,) centres of 2**52 equal cells: never 0, never 1."""
    return np.asarray(((raw >> np.uint64(12)) + 0.5) * 2.0**-52, dtype=np.float64)
