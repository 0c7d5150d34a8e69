"""What noisy rewards are draws of: the posterior that the answer of a noisy goal is read from.

Shapes: ``n`` members.
"""

from __future__ import annotations

import numpy as np

from ensemblerl.agents.critics.factor import Factor, factored
from ensemblerl.agents.critics.features import columns
from ensemblerl.agents.critics.noise import (
    BLOCK,
    drawn,
    evenly,
    foretold,
    kept,
    level,
    loud,
)
from ensemblerl.records import FloatArray, IntArray
from ensemblerl.space import Space

MEMBERS = 1000
"""Points that a posterior is of, of more those of `ensemblerl.agents.critics.noise.kept`: its cost
is their cube."""
TUNED = 256
"""Members that its scales are tuned on."""
MORE = 16
"""Points that are taken in at a time, while one that it is not of would be the best."""


def posterior(
    space: Space, unit: FloatArray, reward: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """(n, ndim) points, (n,) noisy rewards -> (n,) means and (n,) standard deviations without the
    noise, and (n,) how many of these draws there are, at these points.

    Of the Gaussian process of `ensemblerl.agents.critics.kernel`, of rewards that are not bent
    (`ensemblerl.agents.critics.noise`). The noise is estimated and alike everywhere. Members at
    the same point are so many draws there; at the point of the best mean all of them count, however
    many members there are. Where all rewards are alike, or there is only one, they are the means,
    and the deviations are NaN.
    """
    # what is drawn within a cell of a discrete parameter is of no account
    x, of = columns(space.cube, space.to_unit(space.to_points(unit)))
    seen = level(reward)
    if seen is None:
        points = drawn(x, reward)
        return reward.astype(np.float64), np.full(len(reward), np.nan), points.n[points.place]
    y, few = seen(reward), evenly(len(reward), TUNED)
    theta, points = loud(x[few], of, y[few]), drawn(x, y)
    x = x[points.row] / np.exp(theta)[of]
    size, noise = np.exp(theta[-2:])
    keep, new = np.zeros(0, dtype=np.int64), kept(x, points, size, noise, MEMBERS)
    factor: Factor | None = None
    while factor is None or len(new):
        keep = np.concatenate([keep, new])
        factor = factored(x[keep], size, noise / points.n[keep], factor)
        mean = foretold(x, factor.x, size, factor.solved(points.mean[keep]))
        # the best is to be one whose draws are seen
        ahead = np.flatnonzero(mean > mean[keep].max())
        new = ahead[np.argsort(-mean[ahead], kind="stable")[:MORE]]
    sds = []
    for first in range(0, len(x), BLOCK):
        half = factor.half(factor.covariance(x[first : first + BLOCK]))
        left = size - (half**2).sum(axis=0)
        sds.append(np.sqrt(np.maximum(left, 0.0)))
    sd, n = seen.scale * np.concatenate(sds), points.n
    return seen.back(mean)[points.place], sd[points.place], n[points.place]
