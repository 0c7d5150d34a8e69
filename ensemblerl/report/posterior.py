"""What noisy rewards are draws of: the posterior that the answer of a noisy goal is read from.

Shapes: ``n`` members.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from ensemblerl.agents.critics.features import columns
from ensemblerl.agents.critics.kernel import JITTER, correlation
from ensemblerl.agents.critics.noise import evenly, level, loud
from ensemblerl.records import FloatArray, IntArray
from ensemblerl.space import Space

MEMBERS = 1000
"""Members that a posterior is of, evenly taken from more: its cost is their cube."""
TUNED = 256
"""Members that its scales are tuned on."""
BLOCK = 4096
"""Points at a time: bounds the memory."""


def posterior(
    space: Space, unit: FloatArray, reward: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """(n, ndim) points, (n,) noisy rewards -> (n,) means and (n,) standard deviations without the
    noise, and (n,) how many of these draws there are, at these points.

    Of the Gaussian process of `ensemblerl.agents.critics.kernel`, of rewards that are not bent
    (`ensemblerl.agents.critics.noise`). The noise is estimated and alike everywhere. Members at
    the same point are so many draws there. Where all rewards are alike, or there is only one, they
    are the means, and the deviations are NaN.
    """
    # what is drawn within a cell of a discrete parameter is of no account
    x, of = columns(space.cube, space.to_unit(space.to_points(unit)))
    _, place, draws = np.unique(x, axis=0, return_inverse=True, return_counts=True)
    n = draws[place.reshape(-1)].astype(np.int64)
    seen = level(reward)
    if seen is None:
        return reward.astype(np.float64), np.full(len(reward), np.nan), n
    y, few = seen(reward), evenly(len(reward), TUNED)
    theta = loud(x[few], of, y[few])
    keep, x = evenly(len(y), MEMBERS), x / np.exp(theta)[of]
    size, noise = np.exp(theta[-2:])
    K = size * correlation(x[keep], x[keep])
    K[np.diag_indices(len(keep))] += noise + JITTER * size
    factor = cholesky(K, lower=True)
    weight = cho_solve((factor, True), y[keep])
    means, sds = [], []
    for first in range(0, len(x), BLOCK):
        k = size * correlation(x[keep], x[first : first + BLOCK])
        left = size - (solve_triangular(factor, k, lower=True) ** 2).sum(axis=0)
        means.append(k.T @ weight)
        sds.append(np.sqrt(np.maximum(left, 0.0)))
    return seen.back(np.concatenate(means)), seen.scale * np.concatenate(sds), n
