"""Noisy rewards, as a Gaussian process is to see them: not bent, and loud.

A bend sees the luckiest draws apart, so rewards stay as they are, but for a tail that is cut off;
and who calls a goal noisy says that there is noise. The draws of one point count as one result,
their mean, with so much less noise: the posterior is the same, and costs the cube of the points.

Shapes: ``n`` draws, ``p`` points that they are of, ``F`` columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ensemblerl.agents.critics.factor import factored
from ensemblerl.agents.critics.kernel import (
    correlation,
    negative_log_posterior,
    start,
    tuned,
)
from ensemblerl.records import FloatArray, IntArray

NOISE = (0.3, 1.5)
"""Prior of the variance of the noise, of results of unit variance: log-normal, middle and spread.
A critic of rewards that nobody calls noisy begins with next to none."""
LOUD = 0.5
"""Share of the noise in the variance that scales are also tuned from: what is noise may look like
short length scales from elsewhere."""
TAIL = 4.0
"""Times that the distance from the median to the best tenth fits between the median and what counts
as bad as all that is worse: a few terrible members would make all others look alike."""
OFTEN, FIRST = 0.5, 0.75
"""Where points are left out: most of those kept for their draws, and with others evenly; the rest
are those that these foretell to be the best."""
BLOCK = 1024
"""Points at a time: bounds the memory."""


@dataclass(frozen=True)
class Level:
    """t = (max(reward, floor) - middle) / scale, of mean 0 and deviation 1."""

    floor: float
    middle: float
    scale: float

    def __call__(self, reward: FloatArray) -> FloatArray:
        """(n,) rewards -> (n,)."""
        return np.asarray((np.maximum(reward, self.floor) - self.middle) / self.scale)

    def back(self, t: FloatArray) -> FloatArray:
        """(n,) -> (n,) rewards."""
        return np.asarray(self.middle + self.scale * t)


def level(reward: FloatArray) -> Level | None:
    """(n,) finite rewards -> how to see them; None where all are alike."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle, good = np.quantile(reward, [0.5, 0.9])
        floor = float(middle - TAIL * (good - middle)) if good > middle else -np.inf
        y = np.maximum(reward, floor)
        mean, scale = float(y.mean()), float(y.std())
    return Level(floor, mean, scale) if 0.0 < scale < np.inf else None


def loud(x: FloatArray, of: IntArray, y: FloatArray) -> FloatArray:
    """(n, F) columns, (F,) coordinate of each, (n,) rewards of mean 0 and deviation 1 -> (D + 2,)
    the most probable scales, see `ensemblerl.agents.critics.kernel.start`.
    """
    quiet = start(int(of.max()) + 1)
    begins = quiet, np.array([*quiet[:-1], np.log(LOUD)])
    found = [tuned(theta, x, of, y, NOISE) for theta in begins]
    return min(found, key=lambda theta: negative_log_posterior(theta, x, of, y, NOISE)[0])


def evenly(n: int, most: int) -> IntArray:
    """At most so many of n rows: all, or some at equal distances, whatever their rewards, of which
    the largest are the luckiest.
    """
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


class Drawn(NamedTuple):
    """Points in the order of their first draws.

    Parameters
    ----------
    row : (p,) of the first draw
    n : (p,) draws
    mean : (p,) of the draws
    place : (n,) point that each draw is of
    """

    row: IntArray
    n: IntArray
    mean: FloatArray
    place: IntArray


def drawn(x: FloatArray, y: FloatArray) -> Drawn:
    """(n, F) columns, (n,) draws -> the points: rows of equal columns are draws of one."""
    _, row, place, n = np.unique(
        x, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(row)
    place = np.argsort(order)[place.reshape(-1)]
    n = n[order].astype(np.int64)
    return Drawn(row[order], n, np.bincount(place, weights=y) / n, place)


def kept(x: FloatArray, of: Drawn, size: float, noise: float, most: int) -> IntArray:
    """At most so many of the points, in order: all, or those of most draws, some evenly, and those
    that these foretell to be the best. These are not chosen by draws of their own, of which the
    largest are the luckiest.

    Parameters
    ----------
    x : (p, F) in length scales
    size, noise : variances of the process, and of the noise of a draw
    """
    p = len(x)
    if p <= most:
        return np.arange(p)
    n_often = min(int(np.count_nonzero(of.n > 1)), int(OFTEN * most))
    often = np.argsort(-of.n, kind="stable")[:n_often]
    rest = np.setdiff1d(np.arange(p), often)
    even = rest[evenly(len(rest), int(FIRST * most) - n_often)]
    first, others = np.concatenate([often, even]), np.setdiff1d(rest, even)
    factor = factored(x[first], size, noise / of.n[first])
    mean = foretold(x[others], x[first], size, factor.solved(of.mean[first]))
    best = others[np.argsort(-mean, kind="stable")[: most - len(first)]]
    return np.sort(np.concatenate([first, best]))


def foretold(x: FloatArray, at: FloatArray, size: float, weight: FloatArray) -> FloatArray:
    """(m, F), (p, F) in length scales, (p,) weights -> (m,) posterior means."""
    blocks = [x[i : i + BLOCK] for i in range(0, len(x), BLOCK)]
    return np.concatenate([size * correlation(block, at) @ weight for block in blocks])
