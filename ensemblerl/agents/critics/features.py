"""How critics see points of the cube: what has an order as a number, what has none as columns."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import Cube, FloatArray, IntArray

EDGE = 1e-9
"""Nearest that an imagined point comes to a face of the cube."""


def ordered(cube: Cube) -> IntArray:
    """(d,) coordinates whose values have an order."""
    return np.flatnonzero(np.array(cube.kinds) != "categorical")


def categories(cube: Cube) -> IntArray:
    """Coordinates whose values have none."""
    return np.flatnonzero(np.array(cube.kinds) == "categorical")


def columns(cube: Cube, unit: FloatArray) -> tuple[FloatArray, IntArray]:
    """(n, ndim) -> (n, F) and (F,) the coordinate that each column is of.

    A categorical coordinate has a column a level, such that two of its values are as far apart
    as the ends of an ordered coordinate; it is the same distance for any two.
    """
    parts, of = [], list[int]()
    cells = cube.cells(unit)
    for j, kind in enumerate(cube.kinds):
        if kind == "categorical":
            parts.append((cells[:, [j]] == np.arange(cube.levels[j])) / np.sqrt(2.0))
            of += [j] * cube.levels[j]
        else:
            parts.append(unit[:, [j]])
            of.append(j)
    return np.concatenate(parts, axis=1), np.array(of)


def shut(unit: FloatArray) -> FloatArray:
    """(...) -> (...) inside the open cube."""
    return np.clip(unit, EDGE, 1.0 - EDGE)
