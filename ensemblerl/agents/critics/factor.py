"""The Cholesky factor of a Gaussian process' covariance, which grows with the members.

Rows are worked out in blocks of fixed size, each from those before it. So the factor of a longer
list begins with the whole blocks of that of a shorter one, bit for bit: it is a function of the
list alone, whether it grew or was made at once. A new member at its end costs the square of the
members, not their cube. (Of noisy rewards a point is no longer the same when it is drawn again, nor
is the list where points are left out: what follows is worked out anew.)

Shapes: ``n`` members, ``m`` points, ``F`` columns in length scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from ensemblerl.agents.critics.kernel import JITTER, correlation
from ensemblerl.records import FloatArray

BLOCK = 64
"""Rows that are worked out together."""
MORE = (0.0, 1e-8, 1e-6, 1e-4)
"""Of the largest variance, that is tried on the diagonal until there is a factor."""


@dataclass(frozen=True)
class Factor:
    """Of the covariance of results.

    Parameters
    ----------
    x : (n, F)
    size : variance of the process
    noise : (n,) variance of the noise of each
    lower : (n, n) Cholesky factor, 0 above its diagonal
    """

    x: FloatArray
    size: float
    noise: FloatArray
    lower: FloatArray

    def covariance(self, x: FloatArray) -> FloatArray:
        """(m, F) -> (n, m) with the members."""
        return np.asarray(self.size * correlation(self.x, x))

    def half(self, k: FloatArray) -> FloatArray:
        """(n, m) -> (n, m) solved by the factor. Where columns are covariances of points with the
        members, the products of two are the covariance that the members explain.
        """
        return np.asarray(solve_triangular(self.lower, k, lower=True, check_finite=False))

    def solved(self, y: FloatArray) -> FloatArray:
        """(n,) or (n, m) -> the same shape, solved by the covariance."""
        return np.asarray(cho_solve((self.lower, True), y, check_finite=False))

    def extended(self, x: FloatArray, noise: float) -> Factor:
        """With (m, F) points more, of noise of this variance."""
        half = self.half(self.covariance(x))
        rest = self.size * correlation(x, x) - half.T @ half
        rest[np.diag_indices(len(x))] += noise
        n, m = half.shape
        lower = np.zeros((n + m, n + m), order="F")
        lower[:n, :n], lower[n:, :n] = self.lower, half.T
        lower[n:, n:] = root(rest)
        all_noise = np.concatenate([self.noise, np.full(m, noise)])
        return Factor(np.concatenate([self.x, x]), self.size, all_noise, lower)


def factored(
    x: FloatArray, size: float, noise: float | FloatArray, before: Factor | None = None
) -> Factor:
    """The factor of these members.

    Parameters
    ----------
    x : (n, F)
    size, noise : variance of the process, and of the noise of each or of all
    before : of a list that may begin as this one does: what is the same is taken from it
    """
    n, noise = len(x), np.broadcast_to(noise, len(x)).astype(np.float64)
    done = 0 if before is None else _alike(x, size, noise, before) // BLOCK * BLOCK
    lower = np.zeros((n, n), order="F")
    if before is not None:
        lower[:done, :done] = before.lower[:done, :done]
    for i in range(done, n, BLOCK):
        rows = slice(i, min(i + BLOCK, n))
        k = size * correlation(x[: rows.stop], x[rows])
        own = k[i:]
        own[np.diag_indices(len(own))] += noise[rows] + JITTER * size
        if i:
            half = solve_triangular(lower[:i, :i], k[:i], lower=True, check_finite=False)
            lower[rows, :i] = half.T
            own -= half.T @ half
        lower[rows, rows] = root(own)
    return Factor(x, size, noise, lower)


def root(K: FloatArray) -> FloatArray:
    """(m, m) -> (m, m) Cholesky factor; with as little more on the diagonal as it takes, where
    rounding has left a covariance that is none.

    Raises
    ------
    scipy.linalg.LinAlgError
        where there is no such factor at all
    """
    for more in MORE:
        try:
            added = K + more * np.diag(K).max() * np.eye(len(K)) if more else K
            return np.asarray(cholesky(added, lower=True, check_finite=False))
        except LinAlgError:
            continue
    return np.asarray(cholesky(K, lower=True))


def _alike(x: FloatArray, size: float, noise: FloatArray, before: Factor) -> int:
    """Rows from the first on that are the same."""
    if size != before.size or x.shape[1] != before.x.shape[1]:
        return 0
    n = min(len(x), len(before.x))
    same = (x[:n] == before.x[:n]).all(axis=1) & (noise[:n] == before.noise[:n])
    return n if same.all() else int(np.argmin(same))
