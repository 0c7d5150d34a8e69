"""Draws that keep a known constraint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemblerl.records import Cube, FloatArray

PATIENCE = 1_000
"""Draws in a row that may be infeasible before a sampler's own are given up for uniform ones."""
LIMIT = 100_000
"""Uniform draws in a row that may be infeasible."""

Draw = Callable[[int, np.random.Generator], FloatArray]


def feasible_draws(
    cube: Cube, draw: Draw, n: int, rng: np.random.Generator, name: str
) -> FloatArray:
    """(n, ndim) canonical and feasible draws.

    A search can get to where nothing around it is feasible. There its draws are replaced by
    uniform ones, so that a campaign goes on.

    Raises
    ------
    ValueError
        when 100,000 uniform draws in a row are infeasible
    """
    if cube.feasible is None:
        return cube.canonical(draw(n, rng))
    own = _kept(cube, draw, n, rng, PATIENCE)
    if len(own) == n:
        return own
    more = _kept(cube, lambda size, rng: uniform(size, cube.ndim, rng), n - len(own), rng, LIMIT)
    if len(own) + len(more) < n:
        raise ValueError(
            f"{name}: the known constraint turned down {LIMIT} uniform draws in a row; wanted a "
            "space whose feasible part can be hit: tighten bounds or drop the constraint"
        )
    return np.concatenate([own, more])


def uniform(n: int, ndim: int, rng: np.random.Generator) -> FloatArray:
    """(n, ndim) of the open cube."""
    return np.asarray(np.clip(rng.random((n, ndim)), 2.0**-53, 1.0 - 2.0**-53))


def _kept(cube: Cube, draw: Draw, n: int, rng: np.random.Generator, patience: int) -> FloatArray:
    """(m, ndim) with m <= n: less when as many draws in a row as ``patience`` are infeasible."""
    assert cube.feasible is not None
    units, found, barren, size = [np.empty((0, cube.ndim))], 0, 0, n
    while found < n and barren < patience:
        unit = cube.canonical(draw(size, rng))
        rows = np.flatnonzero(cube.feasible(unit))
        units.append(unit[rows])
        found, barren = found + len(rows), 0 if len(rows) else barren + size
        size = min(2 * size + 8, 8192)
    return np.concatenate(units)[:n]
