"""Numbers that a lesson leaves behind."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import IntArray

LAG_EDGES = (0, 1, 2, 4, 8, 16, 32, 64)
"""Versions between draw and lesson: counts are from each edge to below the next, the last open."""


def lag_counts(lags: IntArray) -> list[int]:
    """(n,) -> (8,) how many in each class of `LAG_EDGES`."""
    which = np.searchsorted(LAG_EDGES, np.maximum(lags, 0), side="right") - 1
    return [int(count) for count in np.bincount(which, minlength=len(LAG_EDGES))]
