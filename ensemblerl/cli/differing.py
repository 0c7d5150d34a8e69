"""By how much two results differ."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import AnyArray


def by_share(a: AnyArray, b: AnyArray) -> float:
    """The largest difference relative to the size of what differs; 0.0 for the same.

    Infinite where shapes differ, or one is NaN or infinite and the other is not.

    Examples
    --------
    >>> by_share(np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    0.0
    >>> by_share(np.array(1.0), np.array(2.0)), by_share(np.array(0.0), np.array(np.nan))
    (0.5, inf)
    """
    if a.shape != b.shape:
        return float("inf")
    if np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc"):
        return 0.0
    if a.dtype.kind not in "biufc" or b.dtype.kind not in "biufc":
        return float("inf")
    with np.errstate(all="ignore"):
        gap = np.abs(np.subtract(a, b, dtype=np.result_type(a, b, np.float64)))
        share = gap / np.maximum(np.abs(a), np.abs(b))
    same = (a == b) | ((a != a) & (b != b))
    share = np.where(same, 0.0, share)
    return float(np.max(np.where(np.isnan(share), np.inf, share)))
