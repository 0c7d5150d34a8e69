"""Points of largest expected improvement by a Gaussian process, one after the other.

Each knows of those before it: they are taken as if they had come out as foretold (the kriging
believer of Ginsbourger et al. 2010, doi:10.1007/978-3-642-10701-6_6). That moves no forecast, it
only leaves less to learn near them. So what is known of the candidates is worked out once, and a
pick adds a row to it.

Shapes: ``n`` members and what else the process believes, ``m`` candidates, ``p`` picks, ``F``
columns in length scales.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr, ndtr

from ensemblerl.agents.critics.factor import root
from ensemblerl.agents.critics.features import EDGE, columns, ordered, shut
from ensemblerl.agents.critics.gaussian_process import GaussianProcess
from ensemblerl.agents.critics.kernel import JITTER, ROOT5, correlation, squares
from ensemblerl.records import BoolArray, FloatArray, IntArray

POLISHED, STEPS = 3, 15
"""Points that expected improvement climbs from, and how far."""
ASKED = 32
"""Candidates that are asked together for their chance."""
NEAREST = 384
"""Members by which the deviation is known on the way uphill: its slope costs their square, a step
at a time. What is found is judged by all.
"""


class Improvement:
    """A search for points of largest expected improvement.

    Parameters
    ----------
    process : with what is on its way taken as foretold
    candidates : (m, ndim) points to choose from, and to go uphill from
    top : bent reward that there is to improve on
    chance : (k, ndim) -> (k,) log of the chance that a point is any good at all, each by itself, 0
        at most; asked only of candidates that can still be among the best
    """

    def __init__(
        self,
        process: GaussianProcess,
        candidates: FloatArray,
        top: float,
        chance: Callable[[FloatArray], FloatArray],
    ) -> None:
        self.process, self.candidates, self.top, self.chance = process, candidates, top, chance
        self._x = process.scaled(candidates)
        k = process.factor.covariance(self._x)
        self._mean, self._half = k.T @ process.weight, process.factor.half(k)
        self._left = process.size - (self._half**2).sum(axis=0)
        self._chance = np.full(len(candidates), np.nan)
        self._dropped = np.zeros(len(candidates), dtype=np.bool_)
        # of picks: columns, rows of the factor before their own, their own, those of candidates
        n, F = process.x.shape
        self._picks, self._before, self._own = np.empty((0, F)), np.empty((0, n)), np.empty((0, 0))
        self._rows = np.empty((0, len(candidates)))

    def best(self) -> FloatArray | None:
        """(ndim,) the best of the candidates and of what lies uphill from the first of them, along
        the ordered coordinates; None where none has a chance.
        """
        gain = log_improvement(self._mean, self._spread(self._left), self.top)
        gain[self._dropped] = -np.inf
        value, order = np.full(len(gain), -np.inf), np.argsort(-gain, kind="stable")
        for i in range(0, len(order), ASKED):
            if i and np.sort(value)[-POLISHED] > gain[order[i]]:
                break  # nor can any that follows, even with the largest chance
            rows = order[i : i + ASKED]
            value[rows] = gain[rows] + self._chance_of(rows)
        first = np.argsort(-value, kind="stable")[:POLISHED]
        if not (len(first) and np.isfinite(value[first[0]])):
            return None
        starts = first[np.isfinite(value[first])]
        found = [self.candidates[first[0]], *(self._climbed(i) for i in starts.tolist())]
        unit = self.process.cube.canonical(np.array(found))  # a parent may have changed its cell
        values = log_improvement(*self.bent(unit), self.top) + self.chance(unit)
        best = int(np.argmax(values))
        return np.asarray(unit[best]) if np.isfinite(values[best]) else None

    def believe(self, unit: FloatArray) -> None:
        """(ndim,) a point as if it had come out as foretold."""
        process = self.process
        x = process.scaled(unit[None])
        half = process.factor.half(process.factor.covariance(x))[:, 0]
        row = self._row(x, half[:, None])[:, 0]
        rest = np.sqrt(process.size + process.doubt - half @ half - row @ row)
        k = process.size * correlation(x, self._x)[0]
        of_candidates = (k - half @ self._half - row @ self._rows) / rest
        p = len(row)
        own = np.zeros((p + 1, p + 1))
        own[:p, :p], own[p, :p], own[p, p] = self._own, row, rest
        self._own, self._before = own, np.concatenate([self._before, half[None]])
        self._picks = np.concatenate([self._picks, x])
        self._rows = np.concatenate([self._rows, of_candidates[None]])
        self._left = self._left - of_candidates**2

    def drop(self, which: BoolArray) -> None:
        """(m,) candidates that are no longer asked for."""
        self._dropped |= which

    def bent(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(k, ndim) -> (k,) means and (k,) deviations of the bent reward, with what is believed."""
        process = self.process
        x = process.scaled(unit)
        k = process.factor.covariance(x)
        half = process.factor.half(k)
        left = process.size - (half**2).sum(axis=0) - (self._row(x, half) ** 2).sum(axis=0)
        return k.T @ process.weight, self._spread(left)

    def _row(self, x: FloatArray, half: FloatArray) -> FloatArray:
        """(k, F), (n, k) -> (p, k) what picks tell of points, beside what members do."""
        k = self.process.size * correlation(self._picks, x) - self._before @ half
        return np.asarray(solve_triangular(self._own, k, lower=True) if len(k) else k)

    def _spread(self, left: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.maximum(left, 1e-12 * self.process.size)))

    def _chance_of(self, rows: IntArray) -> FloatArray:
        """Of these candidates; each is asked once."""
        new = rows[np.isnan(self._chance[rows])]
        if len(new):
            self._chance[new] = self.chance(self.candidates[new])
        return np.asarray(self._chance[rows])

    def _climbed(self, i: int) -> FloatArray:
        """(ndim,) uphill from a candidate."""
        cube = self.process.cube
        unit: FloatArray = self.candidates[i]
        to = np.array([j for j in ordered(cube) if cube.active(unit[None])[0, j]], dtype=np.int64)
        if not len(to):
            return unit
        x, of = columns(cube, unit[None])
        at, length = np.searchsorted(of, to), np.exp(self.process.theta)
        near = self.near(self._x[i])

        def downhill(u: FloatArray) -> tuple[float, FloatArray]:
            z = x[0] / length[of]
            z[at] = u / length[to]
            value, slope = self.slope(z, at, *near)
            return -value, -slope / length[to]

        found = minimize(
            downhill,
            unit[to],
            jac=True,
            method="L-BFGS-B",
            bounds=[(EDGE, 1.0 - EDGE)] * len(to),
            options={"maxiter": STEPS},
        )
        out = unit.copy()
        out[to] = shut(found.x)
        return out

    def near(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(F,) -> (k, F) the nearest of members and picks, (k, k) factor of their covariance."""
        process = self.process
        x = np.concatenate([process.x, self._picks])
        doubt = np.full(len(self._picks), process.doubt)
        noise = np.concatenate([process.factor.noise, doubt])
        if len(x) > NEAREST:
            rows = np.argpartition(squares(z[None], x)[0], NEAREST)[:NEAREST]
            x, noise = x[rows], noise[rows]
        K = process.size * correlation(x, x)
        K[np.diag_indices(len(x))] += noise + JITTER * process.size
        return x, root(K)

    def slope(
        self, z: FloatArray, at: IntArray, near: FloatArray, factor: FloatArray
    ) -> tuple[float, FloatArray]:
        """The log of the expected improvement, and its slope.

        Parameters
        ----------
        z : (F,)
        at : (k,) columns along which the slope is wanted
        near, factor : by which the deviation is known, see `near`; the mean is by all
        """
        process = self.process
        k, dk = covariance(z, process.x, at, process.size)
        mean, d_mean = float(k @ process.weight), dk.T @ process.weight
        k, dk = covariance(z, near, at, process.size)
        v = cho_solve((factor, True), k, check_finite=False)
        spread = float(np.sqrt(max(process.size - float(k @ v), 1e-12 * process.size)))
        d_spread = -(dk.T @ v) / spread
        u = (mean - self.top) / spread
        value = float(log_h(np.array([u]))[0])
        ratio = float(np.exp(log_ndtr(u) - value))  # Phi(u) / h(u), the slope of log h
        return value + np.log(spread), ratio * (d_mean - u * d_spread) / spread + d_spread / spread


def covariance(
    z: FloatArray, x: FloatArray, at: IntArray, size: float
) -> tuple[FloatArray, FloatArray]:
    """(F,), (n, F) -> (n,) covariances, and (n, k) their slope in these columns of z."""
    apart = z - x
    r = ROOT5 * np.sqrt((apart**2).sum(axis=1))
    fall = size * np.exp(-r)
    slope = -(5.0 / 3.0) * ((1.0 + r) * fall)[:, None] * apart[:, at]
    return (1.0 + r + r**2 / 3.0) * fall, slope


def log_improvement(mean: FloatArray, spread: FloatArray, top: float) -> FloatArray:
    """(m,), (m,) -> (m,) log of the expected improvement on ``top``."""
    return np.asarray(log_h((mean - top) / spread) + np.log(spread))


def log_h(u: FloatArray) -> FloatArray:
    """(m,) -> (m,) log(phi(u) + u Phi(u)), far below 0 too (Ament 2023, arXiv:2310.20708)."""
    near, tail = np.maximum(u, -1.0), np.minimum(u, -1.0)
    phi = np.exp(-0.5 * near**2) / np.sqrt(2.0 * np.pi)
    # phi(u) (1 + u Phi(u) / phi(u)), and where that cancels its series in 1 / u^2
    mills = np.sqrt(0.5 * np.pi) * erfcx(-tail / np.sqrt(2.0))
    s = 1.0 / tail**2
    share = np.where(tail > -50.0, 1.0 + tail * mills, s * (1.0 - 3.0 * s + 15.0 * s**2))
    far = -0.5 * tail**2 - 0.5 * np.log(2.0 * np.pi) + np.log(share)
    return np.asarray(np.where(u > -1.0, np.log(phi + near * ndtr(near)), far))
