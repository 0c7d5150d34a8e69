"""Scores of rewards by rank, on which critics of any unit are compared."""

from __future__ import annotations

import numpy as np

from ensemblerl.records import FloatArray


def scores(reward: FloatArray, among: FloatArray) -> FloatArray:
    """(n,) rewards, (m,) sorted -> (n,) exponential scores, -log of the share that is better.

    The best tenth is worth 2.3, the best hundredth 4.6: being wrong near the top counts most
    (Savage 1956, doi:10.1214/aoms/1177728178).
    """
    below = np.searchsorted(among, reward, side="left")
    not_above = np.searchsorted(among, reward, side="right")
    return np.asarray(-np.log(1.0 - 0.5 * (below + not_above + 1.0) / (len(among) + 1.0)))
