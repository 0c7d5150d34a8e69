"""The kernel of the Gaussian process, and the evidence for its scales.

Matérn 5/2 with a length scale for each coordinate. Shapes: ``n`` members, ``F`` columns, ``D``
coordinates.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from ensemblerl.records import FloatArray, IntArray

ROOT5 = np.sqrt(5.0)
JITTER = 1e-8
"""Of the variance of the process, on the diagonal."""
LENGTH, SPREAD = 0.5, 1.0
"""Prior of a length scale: log-normal about this times the root of D, for distances grow with it
(Hvarfner et al. 2024, arXiv:2402.02229, with a narrower one)."""
NOISE, NOISE_SPREAD = 1e-4, 2.0
"""Prior of the variance of the noise, of results of unit spread: log-normal."""
BOUNDS = ((0.01, 20.0), (0.02, 50.0), (1e-8, 1.0))
"""Of length scales, of the variance of the process, of that of the noise."""
STEPS = 30


def matern(r: FloatArray) -> FloatArray:
    """Distances in length scales, times the root of 5 -> correlations."""
    return np.asarray((1.0 + r + r**2 / 3.0) * np.exp(-r))


def correlation(a: FloatArray, b: FloatArray) -> FloatArray:
    """(n, F), (m, F) in length scales -> (n, m)."""
    return matern(ROOT5 * np.sqrt(squares(a, b)))


def squares(a: FloatArray, b: FloatArray) -> FloatArray:
    """(n, F), (m, F) -> (n, m) squared distances."""
    out = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(np.maximum(out, 0.0))


def start(D: int) -> FloatArray:
    """(D + 2,) logs of length scales, variance of the process and of the noise, at the prior."""
    return np.asarray(np.log([*[LENGTH * np.sqrt(D)] * D, 1.0, 1e-3]))


def tuned(
    theta: FloatArray,
    x: FloatArray,
    of: IntArray,
    y: FloatArray,
    noise: tuple[float, float] = (NOISE, NOISE_SPREAD),
) -> FloatArray:
    """The most probable scales, from ``theta`` on.

    Parameters
    ----------
    theta : (D + 2,) logs, see `start`
    x : (n, F), ``of`` (F,) the coordinate of each column
    y : (n,)
    noise : prior of its variance, log-normal: middle, spread of its log
    """
    D = len(theta) - 2
    logs = [tuple(np.log(bound)) for bound in BOUNDS]
    found = minimize(
        negative_log_posterior,
        np.clip(theta, *np.array([logs[0]] * D + logs[1:]).T),
        args=(x, of, y, noise),
        jac=True,
        method="L-BFGS-B",
        bounds=[logs[0]] * D + logs[1:],
        options={"maxiter": STEPS},
    )
    return np.asarray(found.x) if np.isfinite(found.x).all() else theta


def negative_log_posterior(
    theta: FloatArray,
    x: FloatArray,
    of: IntArray,
    y: FloatArray,
    prior: tuple[float, float] = (NOISE, NOISE_SPREAD),
) -> tuple[float, FloatArray]:
    """The value and its (D + 2,) gradient, Rasmussen and Williams 2006, equations 5.8 and 5.9."""
    D, n = len(theta) - 2, len(y)
    length, (size, noise) = np.exp(theta[:D]), np.exp(theta[D:])
    scaled = x / length[of]
    r = ROOT5 * np.sqrt(squares(scaled, scaled))
    shape = matern(r)
    K = size * shape
    K[np.diag_indices(n)] += noise + JITTER * size
    try:
        factor = cholesky(K, lower=True)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros_like(theta)
    weight = cho_solve((factor, True), y)
    W = cho_solve((factor, True), np.eye(n)) - np.outer(weight, weight)
    value = 0.5 * y @ weight + np.log(np.diag(factor)).sum()
    slope = np.empty_like(theta)
    M = W * (size * (5.0 / 3.0) * (1.0 + r) * np.exp(-r))
    # sum_ij M_ij (s_i - s_j)^2 of each column, without n^2 F numbers
    by_column = 2.0 * (M.sum(axis=1) @ scaled**2 - np.einsum("if,if->f", scaled, M @ scaled))
    slope[:D] = 0.5 * np.bincount(of, by_column, minlength=D)
    slope[D] = 0.5 * size * float((W * shape).sum() + JITTER * np.trace(W))
    slope[D + 1] = 0.5 * noise * float(np.trace(W))
    at = np.log(np.concatenate([np.full(D, LENGTH * np.sqrt(D)), [1.0, prior[0]]]))
    spread = np.concatenate([np.full(D, SPREAD), [1.0, prior[1]]])
    z = (theta - at) / spread
    return float(value + 0.5 * z @ z), slope + z / spread
