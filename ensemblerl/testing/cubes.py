"""Cubes to try samplers on, built by hand: every kind of coordinate, conditions, a constraint."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import BoolArray, Cube, FloatArray

FOUR = np.array([0.0, 0.1, 0.3, 0.8, 1.0])
THREE = np.array([0.0, 0.5, 0.75, 1.0])


def below_the_diagonal(unit: FloatArray) -> BoolArray:
    """(n, ndim) -> (n,): half of the cube."""
    return np.asarray(unit[:, 0] + unit[:, 1] <= 1.0)


def real_cube(ndim: int) -> Cube:
    """``ndim`` real coordinates."""
    return Cube(("real",) * ndim, (0,) * ndim, (None,) * ndim)


def mixed_cube() -> Cube:
    """A real, an ordinal (4 uneven cells) and a categorical (3 cells) coordinate."""
    return Cube(("real", "ordinal", "categorical"), (0, 4, 3), (None, FOUR, THREE))


def conditional_cube() -> Cube:
    """A choice, a real child, an ordinal child, and a real grandchild of that one."""
    parents = ((), ((0, (1,)),), ((0, (0, 2)),), ((2, (1, 2)),))
    kinds = ("categorical", "real", "ordinal", "real")
    return Cube(kinds, (3, 0, 4, 0), (THREE, None, FOUR, None), parents)


def constrained_cube() -> Cube:
    """Three real coordinates of which half of the volume is feasible."""
    return Cube(("real",) * 3, (0,) * 3, (None,) * 3, feasible=below_the_diagonal)


def example_cubes() -> dict[str, Cube]:
    """Name -> cube: what `check_sampler` runs over when it is given none."""
    return {
        "real, 1-d": real_cube(1),
        "real, 5-d": real_cube(5),
        "mixed": mixed_cube(),
        "conditional": conditional_cube(),
        "constrained": constrained_cube(),
    }
