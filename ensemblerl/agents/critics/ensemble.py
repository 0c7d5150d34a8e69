"""A deep ensemble: what goes on learning from all members where a Gaussian process has too many.

Networks with randomised priors (Osband et al. 2018, arXiv:1806.03335): each is the sum of one that
is trained and one that never is, and is trained on a bootstrap of its own. So they agree where
there are members, and differ where there are none. They are trained on what a ridge regression of
squares leaves over, in the length scales that the Gaussian process was tuned to.

Shapes: ``n`` members, ``m`` points, ``F`` columns, ``K`` networks, ``k`` outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensemblerl.agents.critics.features import columns, ordered, shut
from ensemblerl.agents.critics.gaussian_process import Bend, bend
from ensemblerl.agents.critics.networks import Networks, drawn, trained
from ensemblerl.agents.critics.noise import Level, level
from ensemblerl.records import BoolArray, Cube, FloatArray

NETWORKS = 6
HIDDEN = (64, 64)
EPOCHS, BATCH, STEPS = 150, 128, 6000
"""Times that a network sees a member, members in a minibatch, and minibatches at most."""
RATE, DECAY = 3e-3, 0.1
"""Of AdamW."""
SPREAD = 1.5
"""Of the widest column, as the networks see it: tanh bends over a few units."""
RIDGE = 1.0
"""Members that the coefficients of the ridge regression count for."""
PRIOR = 1.0
"""Of the networks that are never trained, in deviations of what is left over."""
START = 0.1
"""Of the last layer of those that are."""
CLIMB = (0.3, 0.01, 12)
"""First and last length of a step uphill, in units of what networks see times the root of the
coordinates, and how many."""


@dataclass(frozen=True)
class Regression:
    """K functions of columns.

    Parameters
    ----------
    middle, scale : (F,) of the columns
    ridge : (1 + 2 F, k) coefficients of 1, z and z^2
    size : (k,) deviations of what these leave over
    networks, priors : of that, their sum in ``size``
    noise : (k,) variances of a result, with what no network explains
    """

    middle: FloatArray
    scale: FloatArray
    ridge: FloatArray
    size: FloatArray
    networks: Networks
    priors: Networks
    noise: FloatArray

    def each(self, x: FloatArray) -> FloatArray:
        """(n, F) -> (K, n, k)."""
        z = (x - self.middle) / self.scale
        seen = z.astype(np.float32)
        deep = self.networks(seen) + self.priors(seen)
        return np.asarray(_squares(z) @ self.ridge + self.size * deep, dtype=np.float64)

    def mean_and_spread(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, F) -> (n, k) means, and (n, k) deviations of a result."""
        each = self.each(x)
        return each.mean(axis=0), np.sqrt(each.var(axis=0, ddof=1) + self.noise)

    def slope(self, x: FloatArray, mix: FloatArray) -> FloatArray:
        """(n, F), (n, K) -> (n, F) slopes of the first output of a mixture of its own for each
        row, by columns as networks see them.
        """
        z = (x - self.middle) / self.scale
        seen = z.astype(np.float32)
        slope = np.zeros((mix.shape[1], len(x), len(self.size)), dtype=np.float32)
        slope[:, :, 0] = self.size[0] * mix.T
        deep = sum(
            part.back(part.layers(seen), slope)[1].sum(axis=0)
            for part in (self.networks, self.priors)
        )
        F = z.shape[1]
        linear, square = self.ridge[1 : 1 + F, 0], self.ridge[1 + F :, 0]
        return np.asarray(linear + 2.0 * z * square + deep, dtype=np.float64)


def regression(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> Regression:
    """(n, F) columns, each in its length scale, (n, k) finite outputs of about unit size."""
    n, F = x.shape
    widest = float(x.std(axis=0).max()) or 1.0
    middle, scale = x.mean(axis=0), np.full(F, widest / SPREAD)
    z = (x - middle) / scale
    A = _squares(z)
    solved = np.linalg.solve(A.T @ A + RIDGE * np.eye(A.shape[1]), A.T @ y)
    ridge = np.asarray(solved, dtype=np.float64)
    left = y - A @ ridge
    size = np.maximum(left.std(axis=0), 1e-12)
    seen = z.astype(np.float32)
    sizes = (F, *HIDDEN, y.shape[1])
    priors = drawn(NETWORKS, sizes, PRIOR, rng)
    told = priors(seen)
    target = (left / size).astype(np.float32) - told
    rows = rng.integers(n, size=(NETWORKS, n))
    start = drawn(NETWORKS, sizes, START, rng)
    steps = min(EPOCHS * n // BATCH + 1, STEPS)
    networks = trained(start, seen, target, rows, steps, BATCH, RATE, DECAY, rng)
    # of members that a network was not trained on, less what networks differ by there
    deep = networks(seen) + told
    out = np.stack([np.bincount(own, minlength=n) == 0 for own in rows])[:, :, None]
    error = (out * (deep - left / size) ** 2).sum(axis=(0, 1)) / max(int(out.sum()), 1)
    own_noise = np.maximum(error - deep.var(axis=0, ddof=1).mean(axis=0), 1e-6)
    noise = np.asarray(size**2 * own_noise, dtype=np.float64)
    return Regression(middle, scale, ridge, size, networks, priors, noise)


def mixtures(K: int, n: int, rng: np.random.Generator) -> FloatArray:
    """(n, K) shares of networks in n draws: their mean, and a normal mixture of what each is away
    from it. So draws have the covariance of the networks, and no two are the same.
    """
    z = rng.standard_normal((n, K))
    return np.asarray(1.0 / K + (z - z.mean(axis=1, keepdims=True)) / np.sqrt(K - 1.0))


def _squares(z: FloatArray) -> FloatArray:
    """(n, F) -> (n, 1 + 2 F)."""
    return np.concatenate([np.ones((len(z), 1)), z, z**2], axis=1)


@dataclass(frozen=True)
class Ensemble:
    """The critic.

    Parameters
    ----------
    cube : of the points
    bend : of the rewards; a level of noisy ones
    theta : (D + 2,) logs of the scales, see `ensemblerl.agents.critics.kernel.start`
    regression : of bent rewards, by columns in length scales
    """

    cube: Cube
    bend: Bend | Level
    theta: FloatArray
    regression: Regression

    def scaled(self, unit: FloatArray) -> FloatArray:
        """(m, ndim) -> (m, F) columns in length scales."""
        x, of = columns(self.cube, unit)
        return np.asarray(x / np.exp(self.theta)[of])

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m, ndim) -> (m,) medians of the reward, (m,) half of what lies between the quantiles
        that are one standard deviation away.
        """
        both = self.regression.mean_and_spread(self.scaled(unit))
        mean, spread = (part[:, 0] for part in both)
        up, down = self.bend.back(mean + spread), self.bend.back(mean - spread)
        return self.bend.back(mean), 0.5 * (up - down)

    def sample(self, unit: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> (n, m) joint draws of the bent reward, without noise."""
        each = self.regression.each(self.scaled(unit))[:, :, 0]
        return np.asarray(mixtures(len(each), n, rng) @ each)

    def maxima(
        self,
        candidates: FloatArray,
        n: int,
        rng: np.random.Generator,
        able: Callable[[FloatArray], BoolArray],
    ) -> FloatArray:
        """(m, ndim) -> (n, ndim) maxima of n draws: the best candidate of each, and uphill along
        the ordered coordinates.

        Parameters
        ----------
        able : (n, ndim) -> (n,) whether a point may be taken; else the candidate is
        """
        each = self.regression.each(self.scaled(candidates))[:, :, 0]
        mix = mixtures(len(each), n, rng)
        first = candidates[(mix @ each).argmax(axis=1)]
        found = self._climbed(first, mix)
        return np.where(able(found)[:, None], found, first)

    def _climbed(self, unit: FloatArray, mix: FloatArray) -> FloatArray:
        cube, to = self.cube, ordered(self.cube)
        if not len(to):
            return unit
        active = cube.active(unit)[:, to]
        of = columns(cube, unit)[1]
        at = np.searchsorted(of, to)
        length = np.exp(self.theta)[to] * self.regression.scale[at]
        best, unit = unit.copy(), unit.copy()
        top = self._of_mixture(unit, mix)
        first, last, steps = CLIMB
        for step in np.geomspace(first, last, steps):
            slope = self.regression.slope(self.scaled(unit), mix)[:, at] * active
            norm = np.sqrt((slope**2).sum(axis=1, keepdims=True)) + 1e-12
            away = step * np.sqrt(len(to)) * slope / norm
            unit[:, to] = shut(unit[:, to] + away * length)
            value = self._of_mixture(unit, mix)
            up = value > top
            best[up], top = unit[up], np.maximum(top, value)
            unit[~up] = best[~up]
        return cube.canonical(best)

    def _of_mixture(self, unit: FloatArray, mix: FloatArray) -> FloatArray:
        each = self.regression.each(self.scaled(unit))[:, :, 0]
        return np.asarray((mix * each.T).sum(axis=1))


def fit(
    cube: Cube, unit: FloatArray, reward: FloatArray, theta: FloatArray, *, noisy: bool = False
) -> Ensemble | None:
    """(n, ndim) points, (n,) finite rewards -> the critic; None where there is nothing to see.

    The same rows give the same networks: their random numbers follow from how many rows there are.

    Parameters
    ----------
    theta : scales of the Gaussian process
    noisy : rewards are noisy draws: not bent, see `ensemblerl.agents.critics.noise`
    """
    how: Bend | Level | None = None
    if len(reward) > 1:
        how = level(reward) if noisy else bend(reward)
    if how is None:
        return None
    x, of = columns(cube, unit)
    rng = np.random.default_rng([NETWORKS, len(unit)])
    found = regression(x / np.exp(theta)[of], how(reward)[:, None], rng)
    return Ensemble(cube, how, theta, found)
