"""Points that are run again: where another draw is worth most to say which member is the best.

The knowledge gradient for correlated beliefs (Frazier, Powell and Dayanik 2009,
doi:10.1287/ijoc.1080.0314), between the best member and each other one at a time: a draw at one
point moves the posterior means of all, and what it is worth is how much better the better of two
is expected to be, by what is known after it. The best pair counts, a lower bound of their
gradient that is exact in logarithms. One after the other, each as if those before it, and all that
are on their way, had come.
"""

from __future__ import annotations

import numpy as np

from ensemblerl.agents.critics.gaussian_process import GaussianProcess
from ensemblerl.agents.critics.improvement import log_improvement
from ensemblerl.records import FloatArray

RIVALS = 64
"""Points of best posterior mean that another draw is considered for."""
WAITING = 256
"""Newest points on their way that count as if they had come."""
LEAST = 1e-12
"""Deviation of a difference that is none."""


def again(gp: GaussianProcess, unit: FloatArray, waiting: FloatArray, n: int) -> FloatArray:
    """(n, ndim) of the points, to be run once more; a point may be among them several times.

    Parameters
    ----------
    gp : of noisy rewards
    unit : (m, ndim) points that have come, m > 0
    waiting : (p, ndim) points on their way
    """
    mean = gp.means(unit)
    best = np.argsort(-mean, kind="stable")
    # a point once, whatever its draws
    best = best[np.sort(np.unique(gp.scaled(unit)[best], axis=0, return_index=True)[1])][:RIVALS]
    mean, cov = mean[best], gp.believing(waiting[-WAITING:]).covariance(unit[best])
    noise = float(np.exp(gp.theta[-1]))
    chosen = list[int]()
    for _ in range(n):
        chosen.append(i := int(np.argmax(log_gradient(mean, cov, noise))))
        cov = cov - np.outer(cov[i], cov[i]) / (cov[i, i] + noise)
    return np.asarray(unit[best[np.array(chosen, dtype=np.int64)]])


def log_gradient(mean: FloatArray, cov: FloatArray, noise: float) -> FloatArray:
    """(m,) means, best first, (m, m) their covariance, variance of a draw's noise -> (m,) log of
    what a draw of each is worth.
    """
    # what a draw of i moves j by, in deviations of that draw
    moves = cov / np.sqrt(np.maximum(np.diag(cov), 0.0) + noise)[:, None]
    apart = np.maximum(np.abs(moves - moves[:, :1]), LEAST)[:, 1:]
    behind = np.broadcast_to(mean[1:] - mean[0], apart.shape)
    return np.asarray(log_improvement(behind, apart, 0.0).max(axis=1, initial=-np.inf))
