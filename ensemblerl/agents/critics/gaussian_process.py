"""A Gaussian process on the whole cube: what a search needs while it does not know where to be.

Exact, in float64, on rewards bent so that it sees the best ones apart; asked for points one after
the other by expected improvement, each with those before it, and all that are on their way, taken
at their predicted value (the kriging believer of Ginsbourger et al. 2010,
doi:10.1007/978-3-642-10701-6_6).

Shapes: ``n`` members, ``m`` points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr, ndtr

from ensemblerl.agents.critics.features import EDGE, columns, ordered, shut
from ensemblerl.agents.critics.kernel import ROOT5, correlation, start, tuned
from ensemblerl.agents.critics.noise import (
    Level,
    centred,
    drawn,
    evenly,
    kept,
    level,
    loud,
    solved,
)
from ensemblerl.records import Cube, FloatArray, IntArray

MEMBERS = 500
"""Members that it is of: the best half of these, and others evenly; of noisy rewards points, see
`ensemblerl.agents.critics.noise.kept`."""
TUNED = 256
"""Members that its scales are tuned on: a few hundred tell them, and it costs their cube."""
SOFT = 0.5
"""Of the gap that a tenth of the members is within: differences far below it are noise to it."""
POLISHED, STEPS = 3, 15
"""Points that expected improvement climbs from, and how far."""
ASKED = 32
"""Candidates that are asked together for their chance."""


@dataclass(frozen=True)
class Bend:
    """t = -log(top + soft - reward), of mean 0 and deviation 1: the nearer the best, the finer."""

    top: float
    soft: float
    middle: float
    scale: float

    def __call__(self, reward: FloatArray) -> FloatArray:
        """(n,) rewards -> (n,)."""
        t = -np.log(np.maximum(self.top - reward, 0.0) + self.soft)
        return np.asarray((t - self.middle) / self.scale)

    def back(self, t: FloatArray) -> FloatArray:
        """(n,) -> (n,) rewards."""
        # far from any member there is no limit to how bad a forecast is: e^50 times is enough
        most = min(np.log(self.soft) + 50.0, 700.0)
        gap = np.exp(np.minimum(-(t * self.scale + self.middle), most))
        return np.asarray(self.top + self.soft - gap)


def bend(reward: FloatArray) -> Bend | None:
    """(n,) finite rewards -> how to bend them; None where all are alike."""
    with np.errstate(over="ignore"):
        gap = float(reward.max()) - reward
    if not np.isfinite(gap).all():
        return None
    soft = SOFT * float(np.quantile(gap, 0.1)) or SOFT * float(gap[gap > 0].min(initial=np.inf))
    if not 0.0 < soft < np.inf:
        return None
    plain = Bend(float(reward.max()), soft, 0.0, 1.0)
    t = plain(reward)
    return replace(plain, middle=float(t.mean()), scale=float(t.std()) or 1.0)


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior, in bent rewards.

    Parameters
    ----------
    cube : of the points
    bend : of the rewards; a level of noisy ones
    theta : (D + 2,) logs of the scales, see `ensemblerl.agents.critics.kernel.start`
    members : (n, ndim) points it is of, of noisy rewards each once
    x : (n, F) columns in length scales, first of the members, then of what it believes
    y : (n,) bent rewards, of noisy ones the means of the draws of each point
    factor : (n, n) Cholesky factor
    weight : (n,)
    """

    cube: Cube
    bend: Bend | Level
    theta: FloatArray
    members: FloatArray
    x: FloatArray
    y: FloatArray
    factor: FloatArray
    weight: FloatArray

    @property
    def size(self) -> float:
        """Variance of the process."""
        return float(np.exp(self.theta[-2]))

    @property
    def noisy(self) -> bool:
        """Whether its rewards are noisy draws."""
        return isinstance(self.bend, Level)

    @property
    def worth(self) -> FloatArray:
        """(n,) bent rewards of its members, posterior means where they are noisy."""
        return self.means(self.members) if self.noisy else self.y[: len(self.members)]

    def means(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m,) means of the bent reward."""
        return np.asarray(self.size * correlation(self.scaled(unit), self.x) @ self.weight)

    def scaled(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m, F); of noisy rewards what is drawn within a cell is of no account."""
        x, of = columns(self.cube, centred(self.cube, unit) if self.noisy else unit)
        return np.asarray(x / np.exp(self.theta)[of])

    def bent(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m, ndim) -> (m,) means and (m,) deviations of the bent reward, without noise."""
        k = self.size * correlation(self.x, self.scaled(unit))
        left = self.size - (solve_triangular(self.factor, k, lower=True) ** 2).sum(axis=0)
        return k.T @ self.weight, np.sqrt(np.maximum(left, 1e-12 * self.size))

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m, ndim) -> (m,) medians of the reward, (m,) half of what lies between the quantiles
        that are one standard deviation away.
        """
        mean, spread = self.bent(unit)
        up, down = self.bend.back(mean + spread), self.bend.back(mean - spread)
        return self.bend.back(mean), 0.5 * (up - down)

    def sample(self, unit: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> (n, m) joint draws of the bent reward, without noise."""
        x = self.scaled(unit)
        k = self.size * correlation(self.x, x)
        V = solve_triangular(self.factor, k, lower=True)
        cov = self.size * correlation(x, x) - V.T @ V
        cov[np.diag_indices(len(x))] += 1e-6 * self.size
        root = cholesky(cov, lower=True)
        return np.asarray(k.T @ self.weight + rng.standard_normal((n, len(x))) @ root.T)

    def believing(self, unit: FloatArray) -> GaussianProcess:
        """The same, with (m, ndim) points as if they had come out as foretold."""
        if not len(unit):
            return self
        x, y = self.scaled(unit), self.bent(unit)[0]
        noise = float(np.exp(self.theta[-1]))
        k = self.size * correlation(self.x, x)
        V = solve_triangular(self.factor, k, lower=True)
        rest = self.size * correlation(x, x) - V.T @ V
        rest[np.diag_indices(len(x))] += noise + 1e-6 * self.size
        n, m = len(self.x), len(x)
        factor = np.zeros((n + m, n + m))
        factor[:n, :n], factor[n:, :n] = self.factor, V.T
        factor[n:, n:] = cholesky(rest, lower=True)
        y = np.concatenate([self.y, y])
        weight = cho_solve((factor, True), y)
        return replace(self, x=np.concatenate([self.x, x]), y=y, factor=factor, weight=weight)

    def best(
        self, candidates: FloatArray, top: float, chance: Callable[[FloatArray], FloatArray]
    ) -> FloatArray | None:
        """(m, ndim) -> (ndim,) the point of largest expected improvement on ``top`` (bent), from
        the best candidates uphill along the ordered coordinates; None where none has a chance.

        Parameters
        ----------
        chance : (m, ndim) -> (m,) log of the chance that a point is any good at all, each by
            itself, 0 at most; asked only of candidates that can still be among the best
        """
        gain = log_improvement(*self.bent(candidates), top)
        value, order = np.full(len(gain), -np.inf), np.argsort(-gain, kind="stable")
        for i in range(0, len(order), ASKED):
            if i and np.sort(value)[-POLISHED] > gain[order[i]]:
                break  # nor can any that follows, even with the largest chance
            rows = order[i : i + ASKED]
            value[rows] = gain[rows] + chance(candidates[rows])
        first = np.argsort(-value, kind="stable")[:POLISHED]
        found = np.array(
            [candidates[first[0]], *(self._climbed(candidates[i], top) for i in first)]
        )
        found = self.cube.canonical(found)  # a parent may have changed its cell
        values = log_improvement(*self.bent(found), top) + chance(found)
        best = int(np.argmax(values))
        return found[best] if np.isfinite(values[best]) else None

    def _climbed(self, unit: FloatArray, top: float) -> FloatArray:
        to = np.array([j for j in ordered(self.cube) if self.cube.active(unit[None])[0, j]], int)
        if not len(to):
            return unit
        x, of = columns(self.cube, unit[None])
        at, length = np.searchsorted(of, to), np.exp(self.theta)[to]

        def downhill(u: FloatArray) -> tuple[float, FloatArray]:
            z = x[0] / np.exp(self.theta)[of]
            z[at] = u / length
            value, slope = self._improvement(z, at, top)
            return -value, -slope / length

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

    def _improvement(self, z: FloatArray, at: IntArray, top: float) -> tuple[float, FloatArray]:
        """(F,) in length scales -> log expected improvement, its (len(at),) gradient."""
        apart = z - self.x
        r = ROOT5 * np.sqrt((apart**2).sum(axis=1))
        fall = np.exp(-r)
        k = self.size * (1.0 + r + r**2 / 3.0) * fall
        dk = -self.size * (5.0 / 3.0) * ((1.0 + r) * fall)[:, None] * apart[:, at]
        mean, v = float(k @ self.weight), cho_solve((self.factor, True), k)
        spread = float(np.sqrt(max(self.size - k @ v, 1e-12 * self.size)))
        d_mean, d_spread = dk.T @ self.weight, -(dk.T @ v) / spread
        u = (mean - top) / spread
        value = float(log_h(np.array([u]))[0])
        ratio = float(np.exp(log_ndtr(u) - value))  # Phi(u) / h(u), the slope of log h
        return value + np.log(spread), ratio * (d_mean - u * d_spread) / spread + d_spread / spread


def fit(
    cube: Cube,
    unit: FloatArray,
    reward: FloatArray,
    theta: FloatArray | None = None,
    how: Bend | None = None,
    *,
    noisy: bool = False,
) -> GaussianProcess | None:
    """(n, ndim) points, (n,) finite rewards -> the critic; None where there is nothing to see.

    Parameters
    ----------
    theta : scales to take; None: tune them
    how : to bend the rewards; None: `bend`
    noisy : they are noisy draws: not bent, see `ensemblerl.agents.critics.noise`
    """
    seen: Bend | Level | None = how
    if how is None and len(reward) > 1:
        seen = level(reward) if noisy else bend(reward)
    if seen is None:
        return None
    if noisy:
        return _of_draws(cube, unit, reward, theta, seen)
    if theta is None:
        few = thinned(reward, TUNED)
        theta = tuned(start(cube.ndim), *columns(cube, unit[few]), seen(reward[few]))
    keep = thinned(reward, MEMBERS)
    x, of = columns(cube, unit[keep])
    x, y = x / np.exp(theta)[of], seen(reward[keep])
    size, noise = np.exp(theta[-2:])
    factor, weight = solved(x, y, size, noise)
    return GaussianProcess(cube, seen, theta, unit[keep], x, y, factor, weight)


def _of_draws(
    cube: Cube,
    unit: FloatArray,
    reward: FloatArray,
    theta: FloatArray | None,
    seen: Bend | Level,
) -> GaussianProcess:
    """As `fit`, of noisy rewards."""
    (x, of), y = columns(cube, centred(cube, unit)), seen(reward)
    if theta is None:
        few = evenly(len(y), TUNED)
        theta = loud(x[few], of, y[few])
    size, noise = np.exp(theta[-2:])
    points = drawn(x, y)
    x = x[points.row] / np.exp(theta)[of]
    keep = kept(x, points, size, noise, MEMBERS)
    x, y, row = x[keep], points.mean[keep], points.row[keep]
    factor, weight = solved(x, y, size, noise / points.n[keep])
    return GaussianProcess(cube, seen, theta, unit[row], x, y, factor, weight)


def thinned(reward: FloatArray, most: int) -> IntArray:
    """(n,) -> at most so many rows in order: the best half of these, and others evenly."""
    n = len(reward)
    if n <= most:
        return np.arange(n)
    order = np.argsort(-reward, kind="stable")
    rest = np.sort(order[most // 2 :])
    even = rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(np.int64)]
    return np.sort(np.concatenate([order[: most // 2], even]))


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
