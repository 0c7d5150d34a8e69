"""A Gaussian process on the whole cube: what a search needs while it does not know where to be.

Exact, in float64, on rewards bent so that it sees the best ones apart.

Shapes: ``n`` members, ``m`` points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cholesky

from ensemblerl.agents.critics.factor import Factor, factored
from ensemblerl.agents.critics.features import columns
from ensemblerl.agents.critics.kernel import correlation, start, tuned
from ensemblerl.agents.critics.noise import (
    Level,
    drawn,
    evenly,
    foretold,
    kept,
    level,
    loud,
)
from ensemblerl.records import Cube, FloatArray, IntArray

MEMBERS = 2000
"""Members that it is of: the best half of these, and others evenly; of noisy rewards points, see
`ensemblerl.agents.critics.noise.kept`."""
TUNED = 256
"""Members that its scales are tuned on: a few hundred tell them, and it costs their cube."""
SOFT = 0.5
"""Of the gap that a tenth of the members is within: differences far below it are noise to it."""
BELIEVED = 1e-6
"""Variance of the noise of what is only believed, over that of the process, beside the noise."""


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
    """(n,) finite rewards -> how to bend them; None where all are alike, or differ beyond all
    numbers.
    """
    with np.errstate(over="ignore"):
        gap = float(reward.max()) - reward
    if not np.isfinite(gap).all():
        return None
    soft = SOFT * float(np.quantile(gap, 0.1)) or SOFT * float(gap[gap > 0].min(initial=np.inf))
    if not 0.0 < soft < np.inf:
        return None
    plain = Bend(float(reward.max()), soft, 0.0, 1.0)
    with np.errstate(over="ignore"):
        t = plain(reward)
    if not np.isfinite(t).all():
        return None
    return replace(plain, middle=float(t.mean()), scale=float(t.std()) or 1.0)


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior, in bent rewards.

    Parameters
    ----------
    cube : of the points
    bend : of the rewards; a level of noisy ones
    theta : (D + 2,) logs of the scales, see `ensemblerl.agents.critics.kernel.start`
    members : (n, ndim) points it is of, of noisy rewards each once; discrete coordinates are at
        the middle of their cells
    factor : of the covariance, first of the members, then of what it believes
    y : (n,) bent rewards, of noisy ones the means of the draws of each point
    weight : (n,) that make the posterior mean of covariances
    """

    cube: Cube
    bend: Bend | Level
    theta: FloatArray
    members: FloatArray
    factor: Factor
    y: FloatArray
    weight: FloatArray

    @property
    def x(self) -> FloatArray:
        """(n, F) columns in length scales, in the order of the factor."""
        return self.factor.x

    @property
    def size(self) -> float:
        """Variance of the process."""
        return float(np.exp(self.theta[-2]))

    @property
    def doubt(self) -> float:
        """Variance of the noise of what is only believed."""
        return float(np.exp(self.theta[-1])) + BELIEVED * self.size

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
        return foretold(self.scaled(unit), self.x, self.size, self.weight)

    def scaled(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m, F); what is drawn within a cell is of no account."""
        x, of = columns(self.cube, self.cube.centred(unit))
        return np.asarray(x / np.exp(self.theta)[of])

    def bent(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m, ndim) -> (m,) means and (m,) deviations of the bent reward, without noise."""
        k = self.factor.covariance(self.scaled(unit))
        left = self.size - (self.factor.half(k) ** 2).sum(axis=0)
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
        cov = self.covariance(unit)
        cov[np.diag_indices(len(unit))] += 1e-6 * self.size
        root = cholesky(cov, lower=True)
        return np.asarray(self.means(unit) + rng.standard_normal((n, len(unit))) @ root.T)

    def covariance(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m, m) of the bent reward, without noise."""
        x = self.scaled(unit)
        half = self.factor.half(self.factor.covariance(x))
        return np.asarray(self.size * correlation(x, x) - half.T @ half)

    def believing(self, unit: FloatArray) -> GaussianProcess:
        """The same, with (m, ndim) points as if they had come out as foretold."""
        if not len(unit):
            return self
        factor = self.factor.extended(self.scaled(unit), self.doubt)
        y = np.concatenate([self.y, self.means(unit)])
        return replace(self, factor=factor, y=y, weight=factor.solved(y))


def fit(
    cube: Cube,
    unit: FloatArray,
    reward: FloatArray,
    theta: FloatArray | None = None,
    how: Bend | None = None,
    *,
    noisy: bool = False,
    keep: IntArray | None = None,
    before: GaussianProcess | None = None,
) -> GaussianProcess | None:
    """(n, ndim) points, (n,) finite rewards -> the critic; None where there is nothing to see.

    Parameters
    ----------
    theta : scales to take; None: tune them
    how : to bend the rewards; None: `bend`
    noisy : they are noisy draws: not bent, see `ensemblerl.agents.critics.noise`
    keep : rows that it is of, in the order of its factor; None: see `thinned`, or of noisy rewards
        `ensemblerl.agents.critics.noise.kept`
    before : one of fewer members: its factor is added to, where it is of these scales
    """
    seen: Bend | Level | None = how
    if how is None and len(reward) > 1:
        seen = level(reward) if noisy else bend(reward)
    if seen is None:
        return None
    grown = None if before is None else before.factor
    unit = cube.centred(unit)
    if noisy:
        return _of_draws(cube, unit, reward, theta, seen, grown)
    if theta is None:
        few = thinned(reward, TUNED)
        theta = tuned(start(cube.ndim), *columns(cube, unit[few]), seen(reward[few]))
    keep = thinned(reward, MEMBERS) if keep is None else keep
    x, of = columns(cube, unit[keep])
    size, noise = np.exp(theta[-2:])
    factor, y = factored(x / np.exp(theta)[of], size, noise, grown), seen(reward[keep])
    return GaussianProcess(cube, seen, theta, unit[keep], factor, y, factor.solved(y))


def _of_draws(
    cube: Cube,
    unit: FloatArray,
    reward: FloatArray,
    theta: FloatArray | None,
    seen: Bend | Level,
    grown: Factor | None,
) -> GaussianProcess:
    """As `fit`, of noisy rewards."""
    (x, of), y = columns(cube, unit), seen(reward)
    if theta is None:
        few = evenly(len(y), TUNED)
        theta = loud(x[few], of, y[few])
    size, noise = np.exp(theta[-2:])
    points = drawn(x, y)
    x = x[points.row] / np.exp(theta)[of]
    keep = kept(x, points, size, noise, MEMBERS)
    y, row = points.mean[keep], points.row[keep]
    factor = factored(x[keep], size, noise / points.n[keep], grown)
    return GaussianProcess(cube, seen, theta, unit[row], factor, y, factor.solved(y))


def thinned(reward: FloatArray, most: int) -> IntArray:
    """(n,) -> at most so many rows in order: the best half of these, and others evenly."""
    n = len(reward)
    if n <= most:
        return np.arange(n)
    order = np.argsort(-reward, kind="stable")
    rest = np.sort(order[most // 2 :])
    even = rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(np.int64)]
    return np.sort(np.concatenate([order[: most // 2], even]))
