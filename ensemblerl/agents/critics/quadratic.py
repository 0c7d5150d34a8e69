"""A quadratic about the best member: what a search needs once it is near, and no farther.

Linear regression by a Gaussian posterior whose scales maximise the evidence (MacKay 1992,
doi:10.1162/neco.1992.4.3.415), on the members that are nearest to the best one in the metric of
the good ones (the local set of model-based trust-region methods, Powell 2006, NEWUOA,
doi:10.1007/0-387-30065-1_16, and of lq-CMA-ES, Hansen 2019, doi:10.1145/3321707.3321842). A draw
from the posterior is a quadratic, whose maximum in a ball is found exactly: Thompson sampling, so
that points asked for at the same time differ as much as the critic is unsure.

The evidence of hardly more members than coefficients is flat, and its maximum alone often says that
there is no curvature, or too little noise. So deviations are of a posterior that sums over the
scales. Draws are not: those of the wide one have not been shown to find better points.

Shapes: ``n`` members, ``d`` coordinates that have an order, ``F`` columns of the regression.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from ensemblerl.agents.critics.features import categories, ordered, shut
from ensemblerl.records import Cube, FloatArray, IntArray

NEIGHBOURS = 1.3
"""Members in the local set, in coefficients of the quadratic."""
GOOD, LEAST, MOST = 0.3, 2, 6
"""Members that the metric is of: this share of all, and in coordinates at least and at most."""
ROUND = 0.1
"""Of the metric that is the same in all directions."""
RADII = (0.05, 1.0)
"""Of the ball, in radii of the local set; each draw has its own, log-uniform in between. So some
trust the model far and some hardly: what one trust region would have to be adapted to."""
COLUMNS = 600
"""Of the regression at most, for its cost is their cube: where there would be more, products of two
coordinates are left out; where there still are, the critic is.
"""
STARTS = (1e2, 1e8)
"""Precisions of the noise that the evidence is climbed from: it may have a maximum where noise
explains all, and one where nothing is noise.
"""
STEPS = 20
"""Of the evidence's fixed point."""
GRID = (1e-2, 1.0, 1e2)
"""Times the scale of largest evidence, of each group of coefficients."""
ENOUGH = 1e-4
"""Weight of a place of the grid, at least, that has a part in the covariance."""
SHRUNK = 10.0
"""Precision of a group at most, in that of a result, that the grid is about: beyond it coefficients
are lost in noise, and the evidence often has its maximum at infinity."""
TINY = 1e-13


@dataclass(frozen=True)
class LocalQuadratic:
    """The posterior: a quadratic in z = metric (x - centre), and main effects of categories.

    Parameters
    ----------
    cube : of the points
    centre : (ndim,) the best member
    metric : (d, d)
    crossed : whether products of two coordinates are among the columns
    mean : (F,) of the coefficients
    root : (F, F) of their covariance, which draws have
    error : (F, F) root of the expected products of what the coefficients are off the mean
    noise : mean variance of a result, in squared ``scale``
    middle, scale : of the rewards in the local set
    """

    cube: Cube
    centre: FloatArray
    metric: FloatArray
    crossed: bool
    mean: FloatArray
    root: FloatArray
    error: FloatArray
    noise: float
    middle: float
    scale: float

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, ndim) -> (n,) means and (n,) standard deviations of the reward: of the results, from
        these means, by a posterior that sums over the scales, see `averaged`.
        """
        x = _columns(self.cube, unit, self.centre, self.metric, self.crossed)
        spread = np.sqrt(((x @ self.error) ** 2).sum(axis=1) + self.noise)
        return self.middle + self.scale * (x @ self.mean), self.scale * spread

    def sample(self, unit: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
        """(m, ndim) -> (n, m) joint draws of the reward, without noise; -inf outside the ball of
        the local set, where it says nothing.
        """
        x = _columns(self.cube, unit, self.centre, self.metric, self.crossed)
        d = len(self.metric)
        coefficients = self.mean + rng.standard_normal((n, len(self.mean))) @ self.root.T
        far = (x[:, 1 : 1 + d] ** 2).sum(axis=1) > d * RADII[1] ** 2
        return np.where(far, -np.inf, self.middle + self.scale * (coefficients @ x.T))

    def maxima(self, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, ndim) maxima of n draws, each in a ball about the best member."""
        d, to = len(self.metric), ordered(self.cube)
        low, high = np.log(RADII)
        radius = np.sqrt(d) * np.exp(rng.uniform(low, high, size=n))
        coefficients = self.mean + rng.standard_normal((n, len(self.mean))) @ self.root.T
        drawn = zip(coefficients, radius, strict=True)
        steps = np.array([maximum(*gradient_and_hessian(c, d, self.crossed), r) for c, r in drawn])
        unit = np.tile(self.centre, (n, 1))
        unit[:, to] += np.linalg.solve(self.metric, steps.T).T
        return self.cube.canonical(shut(unit))


def fit(
    cube: Cube, unit: FloatArray, reward: FloatArray, worth: FloatArray | None = None
) -> LocalQuadratic | None:
    """(n, ndim) points, (n,) finite rewards -> the critic; None where they are too few.

    Parameters
    ----------
    worth : (n,) which members are the best and the good ones, such as posterior means of noisy
        rewards; None: the rewards say
    """
    worth = reward if worth is None else worth
    to = ordered(cube)
    d = len(to)
    crossed = _count(cube, True) <= COLUMNS
    if not d or len(unit) < d + 2 or _count(cube, crossed) > COLUMNS:
        return None
    best = int(np.argmax(worth))
    centre = unit[best]
    metric = metric_of(unit[:, to], worth, centre[to])
    apart = (((unit[:, to] - centre[to]) @ metric.T) ** 2).sum(axis=1)
    apart += d * _differing(cube, unit, centre)
    size = min(len(unit), int(NEIGHBOURS * _smooth(d, crossed)) + 1)
    near = np.argsort(apart, kind="stable")[:size]
    reach = max(float(apart[near[-1]]), 1e-20)
    metric = metric * np.sqrt(d / reach)
    # members at the rim count a tenth of the best one
    weight = np.maximum(1.0 - 0.9 * (apart[near] / reach) ** 1.5, 0.05)
    y = reward[near]
    with np.errstate(over="ignore", invalid="ignore"):
        range_ = float(np.ptp(y)) or 1.0
        middle, scale = float(np.average(y, weights=weight)), float((y / range_).std()) * range_
    if not (np.isfinite(scale) and np.isfinite(middle)):
        return None
    if not np.ptp(y):  # their average may be off by rounding
        middle = float(y[0])
    scale = scale or 1.0
    x = _columns(cube, unit[near], centre, metric, crossed) * np.sqrt(weight)[:, None]
    F = x.shape[1]
    group = np.repeat([0, 1, 2], [1, d, F - d - 1])
    y = np.sqrt(weight) * (y - middle) / scale
    mean, root, noise, precision = evidence(x, y, group)
    # a column more, for the part of the curvatures that is common to them: by the prior of the
    # others it is a coincidence if all are alike, and in many coordinates a bowl is taken for noise
    to_all = np.column_stack([np.eye(F), _common(metric, F, crossed)])
    about = np.append(np.minimum(precision * noise, SHRUNK), SHRUNK)
    wide, cov, noise = averaged(x @ to_all, y, np.append(group, 3), about)
    off = to_all @ wide - mean
    values, vectors = np.linalg.eigh(to_all @ cov @ to_all.T + np.outer(off, off))
    error = vectors * np.sqrt(np.maximum(values, 0.0))
    # of a result that counts fully
    noise /= float(weight.mean())
    return LocalQuadratic(cube, centre, metric, crossed, mean, root, error, noise, middle, scale)


def metric_of(x: FloatArray, reward: FloatArray, centre: FloatArray) -> FloatArray:
    """(n, d), (n,), (d,) -> (d, d) that makes the good ones about the centre a ball."""
    d = len(centre)
    size = min(len(x), int(np.clip(GOOD * len(x), LEAST * d, MOST * d)))
    apart = x[np.argsort(-reward, kind="stable")[:size]] - centre
    cov = apart.T @ apart / size
    cov += (ROUND * np.trace(cov) / d + 1e-14) * np.eye(d)
    values, vectors = np.linalg.eigh(cov)
    return np.asarray((vectors / np.sqrt(values)).T)


def evidence(
    x: FloatArray, y: FloatArray, group: IntArray
) -> tuple[FloatArray, FloatArray, float, FloatArray]:
    """Regression whose scales maximise the evidence.

    Parameters
    ----------
    x : (n, F)
    y : (n,) about 0, of about unit spread
    group : (F,) coefficients of a group share the variance of their prior; 0: has none

    Returns
    -------
    mean (F,) and root (F, F) of the posterior, variance of the noise, precision of each group
    """
    found = [_fixed_point(x, y, group, beta) for beta in STARTS]
    return max(found, key=lambda one: one[0])[1]


def _fixed_point(
    x: FloatArray, y: FloatArray, group: IntArray, beta: float
) -> tuple[float, tuple[FloatArray, FloatArray, float, FloatArray]]:
    """Log of the evidence, up to a constant, and what `evidence` gives, from this precision of
    the noise on.
    """
    precision, n = np.where(np.arange(group.max() + 1) == 0, 1e-6, 1.0), len(y)
    square, cross = x.T @ x, x.T @ y
    for _ in range(STEPS):
        prior = precision[group]
        inverse = beta * square + np.diag(prior)
        inverse[np.diag_indices(len(prior))] += TINY * np.trace(inverse)
        cov = np.linalg.inv(inverse)
        mean = beta * cov @ cross
        told = 1.0 - prior * np.diag(cov)  # of each coefficient by the data
        for k in range(1, len(precision)):
            own = group == k
            size = float((mean[own] ** 2).sum())
            precision[k] = np.clip((max(told[own].sum(), 0.0) + 1e-3) / (size + 1e-9), 1e-6, 1e6)
        left = float(((y - x @ mean) ** 2).sum())
        used, beta = beta, float(np.clip(max(n - told.sum(), 0.5) / (left + 1e-16), 1e-2, 1e16))
    values, vectors = np.linalg.eigh(inverse)
    values = np.maximum(values, TINY * values[-1])
    # MacKay 1992, equation 2.10, with the scales that this posterior is of
    size = used * left + float(prior @ mean**2)
    log = 0.5 * (n * np.log(used) + np.log(prior).sum() - np.log(values).sum() - size)
    return float(log), (mean, vectors / np.sqrt(values), 1.0 / beta, precision)


def averaged(
    x: FloatArray, y: FloatArray, group: IntArray, about: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Regression whose scales are summed over a grid, by their evidence.

    Given the ratios of the scales, coefficients and noise have a normal and inverse gamma prior,
    flat in the log of the noise, so that both are integrated out exactly (O'Hagan and Forster 2004,
    Kendall's Advanced Theory of Statistics 2B); the ratios are summed on a grid about their best as
    by Rue et al. 2009 (doi:10.1111/j.1467-9868.2008.00700.x). Of the mixture that this makes the
    mean and covariance are kept.

    Parameters
    ----------
    x : (n, F)
    y : (n,) about 0, of about unit spread
    group : (F,) coefficients of a group share the variance of their prior; 0: has none
    about : (K,) precision of each group in that of a result, in the middle of the grid

    Returns
    -------
    mean (F,) and covariance (F, F) of the posterior, mean variance of the noise
    """
    n, square, cross = len(y), x.T @ x, x.T @ y
    logs, found = list[float](), list[tuple[FloatArray, FloatArray, float]]()
    for times in itertools.product((1.0,), *[GRID] * (len(about) - 1)):
        prior = (about * times)[group]
        inverse = square + np.diag(prior)
        inverse[np.diag_indices(len(prior))] += TINY * np.trace(inverse)
        factor = cholesky(inverse, lower=True)
        mean = cho_solve((factor, True), cross)
        size = float(((y - x @ mean) ** 2).sum() + prior @ mean**2) + 1e-16
        log = 0.5 * (np.log(prior).sum() - (n - 1) * np.log(size)) - np.log(np.diag(factor)).sum()
        logs.append(float(log))
        # one result tells the middle; two more make the mean of the inverse gamma finite
        found.append((mean, factor, size / max(n - 3, 1)))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    mean = weight @ np.array([one[0] for one in found])
    noise = float(weight @ np.array([one[2] for one in found]))
    cov = np.zeros_like(square)
    for share, (own, factor, variance) in zip(weight, found, strict=True):
        if share > ENOUGH:
            inside = variance * cho_solve((factor, True), np.eye(len(own)))
            cov += share * (inside + np.outer(own - mean, own - mean))
    return mean, cov, noise


def gradient_and_hessian(
    coefficients: FloatArray, d: int, crossed: bool = True
) -> tuple[FloatArray, FloatArray]:
    """(F,) -> (d,) and (d, d) of the quadratic at its centre."""
    hessian = np.diag(coefficients[1 + d : 1 + 2 * d])
    i, j = np.triu_indices(d if crossed else 0, 1)
    hessian[i, j] = hessian[j, i] = coefficients[1 + 2 * d : 1 + 2 * d + len(i)]
    return coefficients[1 : 1 + d], hessian


def maximum(gradient: FloatArray, hessian: FloatArray, radius: float) -> FloatArray:
    """(d,) argmax of g'z + z'Hz / 2 over z no longer than radius (Moré and Sorensen 1983,
    doi:10.1137/0904038, by eigenvalues).
    """
    values, vectors = np.linalg.eigh(-hessian)
    g = vectors.T @ gradient
    size = max(float(np.abs(values).max()), 1e-300)
    if values[0] > 1e-12 * size:
        z = g / values
        if z @ z <= radius**2:
            return np.asarray(vectors @ z)
    low = max(-float(values[0]), 0.0) + 1e-14 * size
    high = low + float(np.linalg.norm(g)) / radius + 1e-12
    for _ in range(60):
        shift = 0.5 * (low + high)
        z = g / (values + shift)
        low, high = (shift, high) if z @ z > radius**2 else (low, shift)
    z = g / (values + high)
    short = radius**2 - float(z @ z)
    if values[0] < 0 and short > 0.02 * radius**2:  # the hard case: along the flattest direction
        z[0] = np.sqrt(short + z[0] ** 2) * (1.0 if g[0] >= 0 else -1.0)
    return np.asarray(vectors @ z)


def _smooth(d: int, crossed: bool) -> int:
    """Columns of d coordinates with an order."""
    return 1 + 2 * d + (d * (d - 1) // 2 if crossed else 0)


def _count(cube: Cube, crossed: bool) -> int:
    """F."""
    others = sum(cube.levels[k] - 1 for k in categories(cube))
    return int(_smooth(len(ordered(cube)), crossed) + others)


def _common(metric: FloatArray, F: int, crossed: bool) -> FloatArray:
    """(d, d) -> (F,) coefficients of a curvature that is alike in all directions of the cube, of
    mean 1 along z; without products what there is of it.
    """
    d, inverse = len(metric), np.linalg.inv(metric)
    hessian = inverse.T @ inverse
    hessian *= d / np.trace(hessian)
    i, j = np.triu_indices(d if crossed else 0, 1)
    out = np.zeros(F)
    out[1 + d : 1 + 2 * d], out[1 + 2 * d : 1 + 2 * d + len(i)] = np.diag(hessian), hessian[i, j]
    return out


def _columns(
    cube: Cube, unit: FloatArray, centre: FloatArray, metric: FloatArray, crossed: bool = True
) -> FloatArray:
    """(n, ndim) -> (n, F): 1, z, z^2 / 2, z_i z_j, one column a category but the centre's."""
    to = ordered(cube)
    z = (unit[:, to] - centre[to]) @ metric.T
    i, j = np.triu_indices(len(to) if crossed else 0, 1)
    parts = [np.ones((len(z), 1)), z, 0.5 * z**2, z[:, i] * z[:, j]]
    at = cube.cells(centre[None])[0]
    cells = cube.cells(unit)
    for k in categories(cube):
        others = np.delete(np.arange(cube.levels[k]), at[k])
        parts.append((cells[:, [k]] == others).astype(np.float64))
    return np.concatenate(parts, axis=1)


def _differing(cube: Cube, unit: FloatArray, centre: FloatArray) -> FloatArray:
    """(n,) categorical coordinates in which they are not as the centre is."""
    to = categories(cube)
    other = cube.cells(unit)[:, to] != cube.cells(centre[None])[0, to]
    return np.asarray(other.sum(axis=1), dtype=np.float64)
