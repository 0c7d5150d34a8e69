"""The scrambled Sobol' sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemblerl.records import Cube, FloatArray
from ensemblerl.samplers.base import FixedDesign

BLOCK = 1024
BITS = 52
MOST_DIMS = 21201
"""Dimensions for which Joe and Kuo give direction numbers."""


class Sobol(FixedDesign):
    """Low-discrepancy points: for smooth questions they tell more than independent ones.

    Directions of Joe and Kuo (2008, doi:10.1137/070709359), randomised by a linear matrix
    scramble and a digital shift (Matousek 1998, doi:10.1006/jcom.1998.0489; Owen 1998,
    doi:10.1145/272991.273010) as in `scipy.stats.qmc.Sobol`. Balance is best at 2**k points.

    Parameters
    ----------
    cube : where the points lie, at most 21201 coordinates
    name : its name in ``proposer``

    Raises
    ------
    ValueError
        for more coordinates than that

    Examples
    --------
    >>> import numpy as np
    >>> from ensemblerl.records import Cube
    >>> design = Sobol(Cube(("real",) * 2, (0, 0), (None, None)))
    >>> unit = design.ask(4, np.random.default_rng(0)).unit
    >>> sorted((4 * unit[:, 0]).astype(int).tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, cube: Cube, *, name: str = "sobol") -> None:
        super().__init__(cube, name=name)
        if cube.ndim > MOST_DIMS:
            raise ValueError(f"cube: wanted at most {MOST_DIMS} coordinates, got {cube.ndim}")
        self._engine: Any = None
        self._engine_key = -1
        self._blocks: dict[int, FloatArray] = {}

    def candidates(self, key: int, first: int, n: int) -> FloatArray:
        """(n, ndim), sliced from blocks drawn ahead."""
        last = (first + max(n, 1) - 1) // BLOCK
        blocks = [self._block(key, b) for b in range(first // BLOCK, last + 1)]
        start = first % BLOCK
        joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return joined[start : start + n].copy()

    def _block(self, key: int, b: int) -> FloatArray:
        """(BLOCK, ndim) points b * BLOCK, ...; the latest few are kept."""
        if key != self._engine_key:
            self._engine, self._engine_key, self._blocks = _engine(self.cube.ndim, key), key, {}
        if b not in self._blocks:
            if len(self._blocks) > 1:
                self._blocks.pop(min(self._blocks))
            self._blocks[b] = self._draw(b)
        return self._blocks[b]

    def _draw(self, b: int) -> FloatArray:
        # Drawn and dropped, not `fast_forward`: that one fails for more than 32 bits.
        if self._engine.num_generated > b * BLOCK:
            self._engine.reset()
        while self._engine.num_generated < b * BLOCK:
            self._engine.random(BLOCK)
        # Half a grid cell up: the corner at 0 becomes a centre, and no point reaches 1.
        return np.asarray(self._engine.random(BLOCK)) + 2.0 ** -(BITS + 1)


def _engine(ndim: int, key: int) -> Any:
    from scipy.stats import qmc

    return qmc.Sobol(ndim, scramble=True, bits=BITS, seed=np.random.default_rng(key))
